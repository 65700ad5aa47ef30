//! The settings of a Lua machine: what may be asked for, how it is read, and every problem of it at once.

use crate::host::store::Overflow;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    env,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use vmoon_core::{
    Code,
    driver::Setting,
    spec::{MachineSpec, Problem, Problems},
};

/// The name of the embedded runtime.
pub(crate) const BUILTIN: &str = "builtin";
/// Interpreters that are looked for on the search path, and the package that has each on Debian and Ubuntu.
pub(crate) const INTERPRETERS: [&str; 5] = ["lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit"];
/// The smallest ring, bytes.
const MIN_RING: u64 = 256 << 10;
const MAX_RING: u64 = 1 << 30;
/// The smallest memory limit with which the embedded runtime starts, bytes.
const MIN_MEMORY: u64 = 1 << 20;

/// The settings of a machine, checked, with the defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// What was asked for: `builtin`, a name of [`INTERPRETERS`] or an absolute path.
    pub(crate) runtime: String,
    pub(crate) overflow: Overflow,
    /// Bytes.
    pub(crate) ring: u64,
    /// Bytes.
    pub(crate) spill: u64,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { runtime: BUILTIN.into(), overflow: Overflow::Spill, ring: 1 << 20, spill: 256 << 20, memory: None }
    }
}

/// The settings and what they do.
pub(crate) fn known() -> Vec<Setting> {
    let setting = |name: &str, help: &str| Setting { name: name.into(), help: help.into() };
    vec![
        setting(
            "runtime",
            "builtin (Lua 5.4 inside vmoon, the default), lua5.1, lua5.2, lua5.3, lua5.4, luajit, or the absolute path of an interpreter",
        ),
        setting(
            "overflow",
            "what happens to output while nobody reads and the ring is full: spill (to a file, the default), wait, or drop",
        ),
        setting("ring", "unread output kept in memory, a size; 1MiB by default, at least 256KiB"),
        setting("spill", "unread output kept in a file beyond the ring, a size; 256MiB by default; what is beyond is dropped and counted"),
        setting(
            "memory",
            "the most memory the program may allocate, a size; only for builtin; a chunk that needs more fails with \"not enough memory\"",
        ),
    ]
}

impl Settings {
    /// Reads the settings of a specification.
    ///
    /// # Errors
    /// Every problem at once.
    pub(crate) fn read(spec: &MachineSpec) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut settings = Settings::default();
        for (name, value) in &spec.settings {
            let path = format!("settings.{name}");
            match name.as_str() {
                "runtime" => match value.as_str() {
                    Some(runtime) => match find(runtime) {
                        Ok(_) => settings.runtime = runtime.to_owned(),
                        Err(message) => problems.0.push(Problem { path, message, code: Some(Code::RuntimeNotFound) }),
                    },
                    None => problems.add(path, "must be a text"),
                },
                "overflow" => match value.as_str() {
                    Some("spill") => settings.overflow = Overflow::Spill,
                    Some("wait") => settings.overflow = Overflow::Wait,
                    Some("drop") => settings.overflow = Overflow::Drop,
                    _ => problems.add(path, "must be spill, wait or drop"),
                },
                "ring" => read_size(value, MIN_RING, MAX_RING, path, &mut settings.ring, &mut problems),
                "spill" => read_size(value, 0, 1 << 50, path, &mut settings.spill, &mut problems),
                "memory" => {
                    let mut memory = 0;
                    let before = problems.0.len();
                    read_size(value, MIN_MEMORY, 1 << 50, path, &mut memory, &mut problems);
                    settings.memory = (problems.0.len() == before).then_some(memory);
                }
                _ => {
                    let names: Vec<String> = known().into_iter().map(|setting| setting.name).collect();
                    problems.add(path, format!("machines of kind lua have no such setting; they have {}", names.join(", ")));
                }
            }
        }
        if settings.memory.is_some() && settings.runtime != BUILTIN {
            problems.add("settings.memory", "only the builtin runtime can limit its memory");
        }
        problems.or(settings)
    }
}

fn read_size(value: &Value, min: u64, max: u64, path: String, into: &mut u64, problems: &mut Problems) {
    let bytes = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => size(text),
        _ => None,
    };
    match bytes {
        Some(bytes) if (min..=max).contains(&bytes) => *into = bytes,
        Some(bytes) => problems.add(path, format!("must be between {min} and {max} bytes, not {bytes}")),
        None => problems.add(path, "must be a size, for example 512KiB, 1MiB or 65536 (bytes)"),
    }
}

/// Bytes from text: a whole number and `B`, `KiB`, `MiB`, `GiB` (powers of 1024) or `kB`, `MB`, `GB` (powers of 1000).
pub(crate) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// The absolute path of a runtime; `None` for the embedded one.
///
/// # Errors
/// A sentence that says what is missing and how to get it.
pub(crate) fn find(runtime: &str) -> Result<Option<PathBuf>, String> {
    if runtime == BUILTIN {
        return Ok(None);
    }
    if INTERPRETERS.contains(&runtime) {
        let dirs = env::var_os("PATH").unwrap_or_default();
        return env::split_paths(&dirs)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(runtime))
            .find(|path| is_program(path))
            .map(Some)
            .ok_or_else(|| format!("{runtime} is not on the search path; install it with: apt install {runtime}"));
    }
    let path = Path::new(runtime);
    if !path.is_absolute() {
        return Err(format!(
            "there is no runtime \"{}\"; use builtin, {} or the absolute path of an interpreter",
            vmoon_core::name::escape(runtime),
            INTERPRETERS.join(", ")
        ));
    }
    if !is_program(path) {
        let shown = vmoon_core::name::escape(runtime);
        return Err(format!("{shown} is not a program that can be run; interpreters are in the packages {}", INTERPRETERS.join(", ")));
    }
    Ok(Some(path.to_owned()))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(settings: Value) -> Result<Settings, Problems> {
        let Value::Object(settings) = settings else { panic!("not an object") };
        Settings::read(&MachineSpec { kind: "lua".into(), settings, ..MachineSpec::default() })
    }

    #[test]
    fn defaults_and_sizes() {
        assert_eq!(read(json!({})).unwrap(), Settings::default());
        let settings = read(json!({ "ring": "512 KiB", "spill": 0, "memory": "64MiB", "overflow": "drop" })).unwrap();
        assert_eq!((settings.ring, settings.spill, settings.memory, settings.overflow), (512 << 10, 0, Some(64 << 20), Overflow::Drop));
        assert_eq!(
            (size("1kB"), size("2 gib"), size("x"), size(""), size("-1"), size("99999999999GiB")),
            (Some(1000), Some(2 << 30), None, None, None, None)
        );
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let problems = read(json!({ "ring": "1", "overflow": "explode", "colour": 1, "runtime": "lua9", "memory": [] })).unwrap_err();
        let paths: Vec<&str> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["settings.ring", "settings.overflow", "settings.colour", "settings.runtime", "settings.memory"]);
    }

    #[test]
    fn a_missing_runtime_has_its_code_and_says_what_to_install() {
        for bad in ["lua9", "../lua", "/no/such/lua", "/", "lua\n5.4", ""] {
            let problems = read(json!({ "runtime": bad })).unwrap_err();
            assert_eq!(problems.0[0].code, Some(Code::RuntimeNotFound), "{bad:?}");
            assert!(problems.0[0].message.contains("lua5.4") && !problems.0[0].message.contains('\n'), "{problems:?}");
        }
        assert!(read(json!({ "runtime": "/bin/sh", "memory": "64MiB" })).is_err(), "memory without builtin");
    }
}
