//! The user's configuration file, `$XDG_CONFIG_HOME/vmoon/config.toml`: read once, when the daemon starts.
//!
//! ```toml
//! [quota]
//! machines = 20000   # machines that exist
//! running = 12000    # machines that run
//! memory = "64G"     # the memory limits of the machines that run, in sum
//! ```

use serde::Deserialize;
use std::path::Path;
use vmoon_core::{Code, Error, Result, name::escape};

/// Machines that may exist, if nothing is said: far more than anybody keeps, few enough that a loop gone wild ends.
const MACHINES: u64 = 20_000;
/// Machines that may run, if nothing is said: each is a process, and `pid_max` is 32 768 by default.
const RUNNING: u64 = 12_000;

/// How much one user may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Machines that exist.
    pub machines: u64,
    /// Machines that run, or are about to.
    pub running: u64,
    /// The memory limits of the machines that run, bytes, in sum; without limit if not said.
    pub memory: Option<u64>,
}

impl Default for Quota {
    fn default() -> Self {
        Self { machines: MACHINES, running: RUNNING, memory: None }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    quota: QuotaTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotaTable {
    machines: Option<u64>,
    running: Option<u64>,
    memory: Option<Size>,
}

/// Bytes, as a number or as text like `512M`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Written")]
struct Size(u64);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl TryFrom<Written> for Size {
    type Error = String;

    fn try_from(written: Written) -> std::result::Result<Self, String> {
        let text = match written {
            Written::Number(bytes) => return Ok(Self(bytes)),
            Written::Text(text) => text,
        };
        let bad = || format!("\"{text}\" is no size: write bytes, or for example \"512M\" or \"64G\"");
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let shift = match &text[end..] {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return Err(bad()),
        };
        let number: u64 = text[..end].parse().map_err(|_| bad())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(bad)
    }
}

/// Reads the file of a configuration directory; without one, everything is as by default.
///
/// # Errors
/// [`Code::ConfigInvalid`], with the line, for what is no TOML, unknown keys and values that cannot be.
pub(crate) fn read(dir: &Path) -> Result<Quota> {
    let path = dir.join("config.toml");
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text).map_err(|why| {
            Error::new(Code::ConfigInvalid, format!("{}: {why}", path.display())).hint("correct the file; vmoon runs without one, too")
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Quota::default()),
        Err(error) => Err(Error::io(format_args!("read {}", path.display()), error)),
    }
}

fn parse(text: &str) -> std::result::Result<Quota, String> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        format!("{line}{}", escape(error.message()))
    })?;
    let defaults = Quota::default();
    Ok(Quota {
        machines: file.quota.machines.unwrap_or(defaults.machines),
        running: file.quota.running.unwrap_or(defaults.running),
        memory: file.quota.memory.map(|size| size.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_by_default() {
        assert_eq!(parse(""), Ok(Quota::default()));
        assert_eq!(parse("[quota]\nrunning = 5\n"), Ok(Quota { running: 5, ..Quota::default() }));
        let all = parse("[quota]\nmachines = 1\nrunning = 0\nmemory = \"2G\"\n");
        assert_eq!(all, Ok(Quota { machines: 1, running: 0, memory: Some(2 << 30) }));
        assert_eq!(parse("[quota]\nmemory = 4096\n").unwrap().memory, Some(4096));
    }

    #[test]
    fn mistakes_are_errors_that_name_their_line() {
        for (text, line, word) in [
            ("[quota]\nrunning = 5\nmachnes = 5\n", "line 3:", "machnes"),
            ("\n[quotas]\n", "line 2:", "quotas"),
            ("[quota]\nrunning = \"many\"\n", "line 2:", "invalid type"),
            ("[quota]\nrunning = -1\n", "line 2:", "-1"),
            ("[quota]\nmemory = \"2 lots\"\n", "line 2:", "512M"),
            ("[quota]\nmemory = \"99999999999T\"\n", "line 2:", "no size"),
            ("[quota\n", "line 1:", ""),
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.starts_with(line) && why.contains(word) && !why.contains('\n'), "{text:?}: {why}");
        }
    }
}
