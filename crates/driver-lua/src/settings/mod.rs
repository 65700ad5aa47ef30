//! The settings of a Lua machine: what may be asked for, how it is read, and every problem of it at once.

pub(crate) mod value;

use crate::{
    flavour::{self, Flavour},
    host::store::Overflow,
};
use serde::{Deserialize, Serialize};
use std::{
    env,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use vmoon_confine::{Layer, Profile, rules::Host};
use vmoon_core::{
    Code,
    driver::Setting,
    spec::{MachineSpec, Problem, Problems},
};
use vmoon_lua_wire::program::InterruptMode;

/// The name of the embedded runtime.
pub(crate) const BUILTIN: &str = "builtin";
/// Interpreters that are looked for on the search path, and the package that has each on Debian and Ubuntu.
pub(crate) const INTERPRETERS: [&str; 5] = ["lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit"];
/// The smallest ring, bytes.
/// A ring's size if nothing else is said, bytes.
pub(crate) const RING: u64 = 1 << 20;
const MIN_RING: u64 = 256 << 10;
const MAX_RING: u64 = 1 << 30;
/// The smallest memory limit with which a runtime starts, bytes.
const MIN_MEMORY: u64 = 1 << 20;
/// What a confined machine may allocate unless it is told otherwise, bytes: much for a program, little for a computer.
const MEMORY: u64 = 4 << 30;
/// The largest file a confined machine may write unless it is told otherwise, bytes.
const FILE_SIZE: u64 = 16 << 30;
/// How many files a confined machine may have open unless it is told otherwise.
const OPEN_FILES: u64 = 256;

/// The settings of a machine, checked, with the defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// What was asked for: `builtin`, another flavour of it, a name of [`INTERPRETERS`] or an absolute path.
    pub(crate) runtime: String,
    pub(crate) overflow: Overflow,
    /// Bytes.
    pub(crate) ring: u64,
    /// Bytes.
    pub(crate) spill: u64,
    /// Bytes; `None` is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<u64>,
    /// What it may do.
    #[serde(flatten)]
    pub(crate) confinement: Confinement,
    /// How external interpreters are interrupted.
    #[serde(default)]
    pub(crate) interrupt: InterruptMode,
    /// The longest a command may run that brings no deadline of its own, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) command_time: Option<u64>,
    /// The most a command may print, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<u64>,
    /// The environment whose packages it uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) env: Option<String>,
}

/// What a machine may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Confinement {
    pub(crate) profile: Profile,
    /// Absolute paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) read: Vec<PathBuf>,
    /// Absolute paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) write: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) net: Vec<Host>,
    /// Seconds of processor time in a life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<u64>,
    /// The largest file, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) open_files: Option<u64>,
    /// The most the work directory may hold, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) work_size: Option<u64>,
    /// Layers that are left off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) without: Vec<Layer>,
}

impl Default for Confinement {
    /// That of a record from before there was any: it said that it was trusted by saying nothing.
    fn default() -> Self {
        Self {
            profile: Profile::Trusted,
            read: Vec::new(),
            write: Vec::new(),
            net: Vec::new(),
            cpu: None,
            file_size: None,
            open_files: None,
            work_size: None,
            without: Vec::new(),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let confinement =
            Confinement { profile: Profile::Files, file_size: Some(FILE_SIZE), open_files: Some(OPEN_FILES), ..Confinement::default() };
        Self {
            runtime: BUILTIN.into(),
            overflow: Overflow::Spill,
            ring: RING,
            spill: 256 << 20,
            memory: Some(MEMORY),
            confinement,
            interrupt: InterruptMode::Signal,
            command_time: None,
            output: None,
            env: None,
        }
    }
}

/// The settings and what they do.
pub(crate) fn known() -> Vec<Setting> {
    let setting = |name: &str, help: &str| Setting { name: name.into(), help: help.into() };
    vec![
        setting(
            "runtime",
            "builtin (Lua 5.4 inside vmoon, the default), builtin-luajit, builtin-5.1, builtin-5.5 (as that, each in a program of its own beside vmoon), lua5.1, lua5.2, lua5.3, lua5.4, luajit, or the absolute path of an interpreter",
        ),
        setting(
            "profile",
            "what it may do: sealed (compute), files (its work directory, packages; the default), net (files, and the hosts of net), or trusted",
        ),
        setting("env", "the environment of packages whose modules it finds, in the place of those installed on the computer"),
        setting("read", "absolute paths whose content it may read besides, one or a list"),
        setting("write", "absolute paths it may read and write besides, one or a list"),
        setting("net", "HOST:PORT it may connect to, one or a list; with the profile net"),
        setting("memory", "the most memory the program may allocate, a size; 4GiB by default, none with the profile trusted"),
        setting("cpu", "the processor time of one life, for example 600 (seconds), 10m or 2h; no limit by default"),
        setting("command-time", "how long a command may run that brings no deadline of its own; no limit by default"),
        setting("output", "the most a command may print, a size; what prints more is interrupted; no limit by default"),
        setting("file-size", "the largest file it may write, a size; 16GiB by default, none with the profile trusted"),
        setting(
            "work-size",
            "the most its work directory may hold, a size; looked at while commands run, so a soft limit; none by default",
        ),
        setting("open-files", "how many files it may have open; 256 by default, none with the profile trusted"),
        setting(
            "interrupt",
            "how an installed interpreter is interrupted: signal (the default, at no cost), or hook (also luajit; slower)",
        ),
        setting(
            "overflow",
            "what happens to output while nobody reads and the ring is full: spill (to a file, the default), wait, or drop",
        ),
        setting("ring", "unread output kept in memory, a size; 1MiB by default, at least 256KiB"),
        setting("spill", "unread output kept in a file beyond the ring, a size; 256MiB by default; what is beyond is dropped and counted"),
        setting(
            "without",
            "layers of the isolation to leave off, one or a list, to test them: lua, privileges, landlock, seccomp, rlimits",
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
        // First, because it decides what the others are by default.
        if let Some(value) = spec.settings.get("profile") {
            match value.as_str().unwrap_or_default().parse() {
                Ok(Profile::Trusted) => {
                    settings.memory = None;
                    settings.confinement = Confinement::default();
                }
                Ok(profile) => settings.confinement.profile = profile,
                Err(message) => problems.add("settings.profile", message),
            }
        }
        for (name, value) in &spec.settings {
            settings.read_one(name, value, &mut problems);
        }
        settings.check(spec, &mut problems);
        problems.or(settings)
    }

    fn read_one(&mut self, name: &str, value: &serde_json::Value, problems: &mut Problems) {
        let path = format!("settings.{name}");
        let confinement = &mut self.confinement;
        let word = value.as_str();
        match name {
            "runtime" => match word.map(|runtime| (runtime, find(runtime))) {
                Some((runtime, Ok(_))) => self.runtime = runtime.to_owned(),
                Some((_, Err(message))) => problems.0.push(Problem { path, message, code: Some(Code::RuntimeNotFound) }),
                None => problems.add(path, "must be a text"),
            },
            "env" => match word.map(|name| (name, vmoon_core::name::check(name))) {
                Some((name, Ok(()))) => self.env = Some(name.to_owned()),
                Some((_, Err(error))) => problems.add(path, error.message().to_owned()),
                None => problems.add(path, "must be the name of an environment"),
            },
            "overflow" => match word {
                Some("spill") => self.overflow = Overflow::Spill,
                Some("wait") => self.overflow = Overflow::Wait,
                Some("drop") => self.overflow = Overflow::Drop,
                _ => problems.add(path, "must be spill, wait or drop"),
            },
            "interrupt" => match word {
                Some("signal") => self.interrupt = InterruptMode::Signal,
                Some("hook") => self.interrupt = InterruptMode::Hook,
                _ => problems.add(path, "must be signal or hook"),
            },
            "ring" => self.ring = value::size_between(value, MIN_RING, MAX_RING, path, problems).unwrap_or(self.ring),
            "spill" => self.spill = value::size_between(value, 0, 1 << 50, path, problems).unwrap_or(self.spill),
            "memory" => self.memory = value::size_between(value, MIN_MEMORY, 1 << 50, path, problems),
            "profile" => {}
            "read" => confinement.read = value::paths(value, path, problems),
            "write" => confinement.write = value::paths(value, path, problems),
            "net" => confinement.net = value::hosts(value, path, problems),
            "cpu" => confinement.cpu = value::seconds(value, path, problems),
            "command-time" => self.command_time = value::seconds(value, path, problems),
            "output" => self.output = value::size_between(value, 0, 1 << 50, path, problems),
            "file-size" => confinement.file_size = value::size_between(value, 0, 1 << 50, path, problems),
            "work-size" => confinement.work_size = value::size_between(value, 1 << 20, 1 << 50, path, problems),
            "open-files" => confinement.open_files = value::count(value, 8, 1 << 20, path, problems),
            "without" => confinement.without = value::layers(value, path, problems),
            _ => {
                let names: Vec<String> = known().into_iter().map(|setting| setting.name).collect();
                problems.add(path, format!("machines of kind lua have no such setting; they have {}", names.join(", ")));
            }
        }
    }

    /// What makes no sense together.
    fn check(&self, spec: &MachineSpec, problems: &mut Problems) {
        let confinement = &self.confinement;
        match confinement.profile {
            // Hosts that were named and are wrong were told of.
            Profile::Net if confinement.net.is_empty() && hostless(spec) => {
                problems.add("settings.net", "the profile net needs the hosts that may be connected to, as HOST:PORT");
            }
            Profile::Net if confinement.net.is_empty() => {}
            Profile::Net if !is_embedded(&self.runtime) => nameless(&confinement.net, problems),
            Profile::Net => {}
            other if !confinement.net.is_empty() => {
                problems.add("settings.net", format!("hosts are for the profile net, not for {other}"));
            }
            _ => {}
        }
        if confinement.profile == Profile::Trusted && !(confinement.read.is_empty() && confinement.write.is_empty()) {
            problems.add("settings.profile", "a trusted machine may read and write whatever you may; leave out read and write");
        }
        if spec.settings.contains_key("interrupt") && is_embedded(&self.runtime) {
            problems.add("settings.interrupt", "the builtin runtime is interrupted at no cost; this is for installed interpreters");
        }
    }
}

/// Whether no hosts are named.
fn hostless(spec: &MachineSpec) -> bool {
    spec.settings.get("net").is_none_or(|hosts| hosts.is_null() || hosts.as_array().is_some_and(Vec::is_empty))
}

/// Installed interpreters cannot ask the broker for names: what looks names up in them is not ours.
fn nameless(hosts: &[Host], problems: &mut Problems) {
    for host in hosts.iter().filter(|host| host.host.parse::<std::net::IpAddr>().is_err()) {
        let why = format!(
            "{} is a name, and names are looked up for builtin runtimes only: grant an installed interpreter an address, such as 127.0.0.1:{}",
            host.host, host.port
        );
        problems.add("settings.net", why);
    }
}

/// Where a runtime is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// Inside a holder: of our own program, or of the one at this path.
    Embedded(&'static Flavour, Option<PathBuf>),
    /// An interpreter of this computer.
    Installed(PathBuf),
}

impl Runtime {
    /// The path of an installed interpreter.
    pub(crate) fn installed(&self) -> Option<&Path> {
        match self {
            Runtime::Embedded(..) => None,
            Runtime::Installed(path) => Some(path),
        }
    }
}

/// Whether this is a runtime inside a holder.
pub(crate) fn is_embedded(runtime: &str) -> bool {
    Flavour::of(runtime).is_some()
}

/// Looks for a runtime.
///
/// # Errors
/// A sentence that says what is missing and how to get it.
pub(crate) fn find(runtime: &str) -> Result<Runtime, String> {
    if let Some(flavour) = Flavour::of(runtime) {
        return Ok(Runtime::Embedded(flavour, flavour.find()?));
    }
    if INTERPRETERS.contains(&runtime) {
        let dirs = env::var_os("PATH").unwrap_or_default();
        return env::split_paths(&dirs)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(runtime))
            .find(|path| is_program(path))
            .map(Runtime::Installed)
            .ok_or_else(|| format!("{runtime} is not on the search path; install it with: apt install {runtime}"));
    }
    let path = Path::new(runtime);
    if !path.is_absolute() {
        return Err(format!(
            "there is no runtime \"{}\"; use builtin, {}, {} or the absolute path of an interpreter",
            vmoon_core::name::escape(runtime),
            flavour::ALL.map(|flavour| flavour.runtime).join(", "),
            INTERPRETERS.join(", ")
        ));
    }
    if !is_program(path) {
        let shown = vmoon_core::name::escape(runtime);
        return Err(format!("{shown} is not a program that can be run; interpreters are in the packages {}", INTERPRETERS.join(", ")));
    }
    Ok(Runtime::Installed(path.to_owned()))
}

pub(crate) fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(settings: Value) -> Result<Settings, Problems> {
        let Value::Object(settings) = settings else { panic!("not an object") };
        Settings::read(&MachineSpec { kind: "lua".into(), settings, ..MachineSpec::default() })
    }

    #[test]
    fn defaults_and_sizes() {
        assert_eq!(read(json!({})).unwrap(), Settings::default());
        let settings = read(json!({ "ring": "512 KiB", "spill": 0, "memory": "64MiB", "overflow": "drop" })).unwrap();
        assert_eq!((settings.ring, settings.spill, settings.memory, settings.overflow), (512 << 10, 0, Some(64 << 20), Overflow::Drop));
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
    }

    #[test]
    fn profiles_bring_their_defaults_and_refuse_nonsense() {
        let files = read(json!({})).unwrap();
        assert_eq!((files.confinement.profile, files.memory), (Profile::Files, Some(MEMORY)));
        let trusted = read(json!({ "cpu": "1m", "profile": "trusted" })).unwrap();
        assert_eq!((trusted.memory, trusted.confinement.open_files, trusted.confinement.cpu), (None, None, Some(60)));
        let net = read(json!({ "profile": "net", "net": ["localhost:80"], "read": "/data" })).unwrap();
        assert_eq!((net.confinement.net.len(), net.confinement.read.len()), (1, 1));
        let installed = |host: &str| read(json!({ "profile": "net", "net": host, "runtime": "lua5.4" }));
        assert!(installed("[::1]:80").is_ok() && installed("127.0.0.1:80").is_ok(), "apt install lua5.4");
        assert!(installed("localhost:80").unwrap_err().0[0].message.contains("an address"));
        for bad in [
            json!({ "profile": "root" }),
            json!({ "profile": 3 }),
            json!({ "profile": "net" }),
            json!({ "net": "localhost:80" }),
            json!({ "profile": "trusted", "read": "/data" }),
            json!({ "read": "/" }),
            json!({ "interrupt": "hook" }),
            json!({ "open-files": 1 }),
            json!({ "without": "everything" }),
        ] {
            assert_eq!(read(bad.clone()).unwrap_err().0.len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_record_without_a_profile_is_that_of_a_trusted_machine() {
        let old = json!({ "runtime": "builtin", "overflow": "spill", "ring": 1_048_576, "spill": 0 });
        let settings: Settings = serde_json::from_value(old).unwrap();
        assert_eq!(settings.confinement, Confinement::default());
        let now = read(json!({ "read": "/data" })).unwrap();
        assert_eq!(serde_json::from_value::<Settings>(serde_json::to_value(&now).unwrap()).unwrap(), now);
    }
}
