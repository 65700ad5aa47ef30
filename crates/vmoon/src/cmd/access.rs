//! The options that say what a Lua program may do, the same for machines and for one-shot programs, as settings of a machine.

use crate::out::time;
use serde_json::{Map, Value};
use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    time::Duration,
};
use vmoon_core::{Code, Error, Result};
use vmoon_driver_lua::Environment;
use vmoon_packages::current;
use vmoon_sys::paths::Paths;

/// What it may do, and how much of it.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "What it may do")]
pub(crate) struct Access {
    /// sealed (compute), files (a work directory, packages with C modules), net (besides, the hosts of --net) or trusted
    #[arg(long)]
    profile: Option<String>,
    /// Let it find the packages of this environment, in the place of those installed on the computer
    #[arg(long, value_name = "ENVIRONMENT", add = crate::cmd::completions::environments())]
    env: Option<String>,
    /// Let it read this file, or this folder with all that is in it; as often as needed
    #[arg(long, value_name = "PATH")]
    read: Vec<PathBuf>,
    /// Let it read and write this file or folder; as often as needed
    #[arg(long, value_name = "PATH")]
    write: Vec<PathBuf>,
    /// Let it connect to this host; as often as needed
    #[arg(long, value_name = "HOST:PORT")]
    net: Vec<String>,
    /// The most memory it may use [default: 4G, with the profile trusted none]
    #[arg(long, value_name = "SIZE", value_parser = time::parse_bytes)]
    memory: Option<u64>,
    /// The most processor time it may use, in whole seconds
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    cpu: Option<u64>,
    /// The largest file it may write [default: 16G, with the profile trusted none]
    #[arg(long, value_name = "SIZE", value_parser = time::parse_bytes)]
    file_size: Option<u64>,
    /// How many files it may have open [default: 256, with the profile trusted none]
    #[arg(long, value_name = "COUNT")]
    open_files: Option<u64>,
}

/// A duration of whole seconds, at least one.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let duration = time::parse_duration(text)?;
    if duration.subsec_nanos() != 0 || duration < Duration::from_secs(1) {
        Err("write whole seconds, at least one".into())
    } else {
        Ok(duration.as_secs())
    }
}

impl Access {
    /// Takes an option and its value as the parser of the command line does; `None` if it is none of these, or the value is wrong.
    pub(crate) fn take(&mut self, option: &str, value: &OsStr) -> Option<()> {
        let text = value.to_str();
        match option {
            "--profile" if self.profile.is_none() => self.profile = Some(text?.to_owned()),
            "--env" if self.env.is_none() => self.env = Some(text?.to_owned()),
            "--read" => self.read.push(value.into()),
            "--write" => self.write.push(value.into()),
            "--net" => self.net.push(text?.to_owned()),
            "--memory" if self.memory.is_none() => self.memory = Some(time::parse_bytes(text?).ok()?),
            "--cpu" if self.cpu.is_none() => self.cpu = Some(seconds(text?).ok()?),
            "--file-size" if self.file_size.is_none() => self.file_size = Some(time::parse_bytes(text?).ok()?),
            "--open-files" if self.open_files.is_none() => self.open_files = Some(text?.parse().ok()?),
            _ => return None,
        }
        Some(())
    }

    /// The environment that is asked for, as it is now.
    ///
    /// # Errors
    /// Those of [`current::find`].
    pub(crate) fn environment(&self) -> Result<Option<Environment>> {
        let Some(name) = &self.env else { return Ok(None) };
        let found = current::find(&Paths::from_env()?.state, name)?;
        Ok(Some(Environment {
            name: found.name,
            lua: found.lua,
            generation: found.generation,
            tree: found.tree,
            generations: found.generations,
        }))
    }

    /// As settings; paths become absolute. A host names the profile `net` where none is named.
    ///
    /// # Errors
    /// [`Code::Usage`] for a path that is not UTF-8, or a relative one where there is no current directory.
    pub(crate) fn settings(&self) -> Result<Map<String, Value>> {
        let mut settings = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                settings.insert(name.to_owned(), value);
            }
        };
        let net = (!self.net.is_empty()).then(|| "net".to_owned());
        set("env", self.env.clone().map(Value::from));
        set("profile", self.profile.clone().or(net).map(Value::from));
        for (name, paths) in [("read", &self.read), ("write", &self.write)] {
            if !paths.is_empty() {
                set(name, Some(paths.iter().map(|path| absolute(path)).collect::<Result<Vec<_>>>()?.into()));
            }
        }
        set("net", (!self.net.is_empty()).then(|| self.net.clone().into()));
        set("memory", self.memory.map(Value::from));
        set("cpu", self.cpu.map(Value::from));
        set("file-size", self.file_size.map(Value::from));
        set("open-files", self.open_files.map(Value::from));
        Ok(settings)
    }
}

/// The path from the root on, `.` and `..` taken away by following what is there.
fn absolute(path: &Path) -> Result<Value> {
    let wrong = |why: String| Error::new(Code::Usage, format!("{}: {why}", vmoon_core::name::escape(&path.to_string_lossy())));
    let whole = std::path::absolute(path).map_err(|error| wrong(error.to_string()))?;
    // What does not exist is told by who grants it.
    let whole = if whole.components().any(|part| part == std::path::Component::ParentDir) {
        whole.canonicalize().map_err(|error| wrong(error.to_string()))?
    } else {
        whole
    };
    let text: OsString = whole.into_os_string();
    Ok(Value::from(text.into_string().map_err(|_| wrong("a path that is granted must be UTF-8".into()))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options_become_settings() {
        let mut access = Access::default();
        for (option, value) in
            [("--read", "/a/./b/"), ("--read", "c"), ("--net", "x:1"), ("--memory", "1M"), ("--cpu", "2m"), ("--open-files", "9")]
        {
            assert_eq!(access.take(option, OsStr::new(value)), Some(()), "{option}");
        }
        let here = std::env::current_dir().unwrap().join("c");
        let expect = json!({ "profile": "net", "read": ["/a/b", here], "net": ["x:1"], "memory": 1_048_576, "cpu": 120, "open-files": 9 });
        let mut found = Value::from(access.settings().unwrap());
        // A slash at the end is kept as it was written; it means the same.
        if found["read"][0] == "/a/b/" {
            found["read"][0] = "/a/b".into();
        }
        assert_eq!(found, expect);
        for (option, value) in [("--memory", "much"), ("--memory", "1M"), ("--cpu", "1ms"), ("--open-files", "-1"), ("--nope", "1")] {
            assert_eq!(access.take(option, OsStr::new(value)), None, "{option}");
        }
    }
}
