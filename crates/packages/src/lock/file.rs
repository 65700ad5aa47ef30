//! `rocks.lock` as a file: TOML in a fixed order, so that two locks can be compared line by line.

use super::{FORMAT, Lock, LockedRock, Why};
use crate::{constraint::Dependency, digest::is_sha256, lua_version::LuaVersion, name::RockName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vmoon_core::{Code, Error, Result, name::escape};

/// Its name in a generation.
pub const LOCK_FILE: &str = "rocks.lock";

/// The longest file that is read, bytes.
const MAX_LOCK: usize = 8 << 20;

const HEADER: &str = "# What is installed, and where it came from. Written by vmoon; \"vmoon pkg\" changes it.\n\n";

/// The form of [`Why`] in files.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum WhyText {
    Word(Asked),
    Names(Vec<RockName>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Asked {
    Asked,
}

impl From<WhyText> for Why {
    fn from(text: WhyText) -> Self {
        match text {
            WhyText::Word(Asked::Asked) => Self::Asked,
            WhyText::Names(names) => Self::Needed(names),
        }
    }
}

impl From<Why> for WhyText {
    fn from(why: Why) -> Self {
        match why {
            Why::Asked => Self::Word(Asked::Asked),
            Why::Needed(names) => Self::Names(names),
        }
    }
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    lua: LuaVersion,
    wanted: &'a [Dependency],
    servers: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rock: Vec<&'a LockedRock>,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    lua: LuaVersion,
    #[serde(default)]
    wanted: Vec<Dependency>,
    #[serde(default)]
    servers: Vec<String>,
    #[serde(default)]
    rock: Vec<LockedRock>,
}

impl Lock {
    /// The file's text.
    ///
    /// # Errors
    /// `internal` if it has no TOML form, which would be a defect.
    pub fn to_toml(&self) -> Result<String> {
        let written = Written {
            version: self.version,
            lua: self.lua,
            wanted: &self.wanted,
            servers: &self.servers,
            rock: self.rocks.values().collect(),
        };
        let text = toml::to_string(&written).map_err(|error| Error::internal("a lock has no TOML form").source(error))?;
        Ok(format!("{HEADER}{text}"))
    }

    /// Reads the file's text. A lock may come from anybody: everything in it is checked.
    ///
    /// # Errors
    /// [`Code::PackageInvalid`], naming every mistake: a lock of a newer vmoon, a rock twice, a check sum that is none, an address that nothing is
    /// fetched from, a dependency that is not met.
    pub fn from_toml(text: &str) -> Result<Self> {
        let bad = |why: String| {
            Error::new(Code::PackageInvalid, format!("the lock cannot be used: {why}"))
                .hint("take an earlier one from version control, or make it anew with \"vmoon pkg lock\"")
        };
        if text.len() > MAX_LOCK {
            return Err(bad(format!("it has more than {} MiB", MAX_LOCK >> 20)));
        }
        // The version first: a newer form may have anything else.
        let value: toml::Table = toml::from_str(text).map_err(|error| bad(reason(&error)))?;
        match value.get("version").and_then(toml::Value::as_integer) {
            None => return Err(bad("it does not say which version of the format it is (version = 1)".into())),
            Some(version) if version > i64::from(FORMAT) => {
                return Err(Error::new(
                    Code::PackageInvalid,
                    format!("the lock has format {version}, and this vmoon reads up to {FORMAT}"),
                )
                .hint("update vmoon"));
            }
            Some(version) if version < 1 => return Err(bad(format!("there is no format {version}"))),
            Some(_) => {}
        }
        let read: Read = toml::from_str(text).map_err(|error| bad(reason(&error)))?;
        let mut problems = Vec::new();
        let mut rocks = BTreeMap::new();
        for rock in read.rock {
            check(&rock, &mut problems);
            let name = rock.name.clone();
            if name.is_lua() {
                problems.push("the interpreter is no rock".to_owned());
            }
            if rocks.insert(name.clone(), rock).is_some() {
                problems.push(format!("{name} is there twice"));
            }
        }
        let lock = Self { version: read.version, lua: read.lua, wanted: read.wanted, servers: read.servers, rocks };
        problems.extend(lock.problems());
        if problems.is_empty() { Ok(lock) } else { Err(bad(problems.join("; "))) }
    }
}

fn reason(error: &toml::de::Error) -> String {
    escape(error.message()).chars().take(300).collect()
}

/// What could make a fetcher go where it must not, or an installer write where it must not.
fn check(rock: &LockedRock, problems: &mut Vec<String>) {
    let name = &rock.name;
    let sums = [(&rock.sha256, "its check sum")].into_iter().chain(rock.source.iter().map(|s| (&s.sha256, "the check sum of its source")));
    for (sum, what) in sums {
        if !sum.is_empty() && !is_sha256(sum) {
            problems.push(format!("{name}: {what} is not a SHA-256 in lower-case hexadecimal"));
        }
    }
    for url in [&rock.url].into_iter().chain(rock.source.iter().map(|source| &source.url)) {
        if let Err(error) = crate::fetch::locate(url) {
            problems.push(format!("{name}: {}", error.message()));
        }
    }
    if rock.version.revision().is_none() {
        problems.push(format!("{name}: version {} has no revision", rock.version));
    }
    for module in &rock.modules {
        if module.is_empty() || module.len() > 200 || module.contains(['/', '\0']) || module.contains(char::is_control) {
            problems.push(format!("{name}: \"{}\" is not the name of a module", escape(module)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# What is installed, and where it came from. Written by vmoon; "vmoon pkg" changes it.

version = 1
lua = "5.4"
wanted = ["lua-cjson ~> 2.1"]
servers = ["https://luarocks.org"]

[[rock]]
name = "lpeg"
version = "1.0.2-1"
arch = "rockspec"
url = "https://luarocks.org/lpeg-1.0.2-1.rockspec"
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
why = ["lua-cjson"]
dependencies = ["lua >= 5.1"]
modules = ["lpeg", "re"]

[rock.source]
url = "git+https://example.org/lpeg.git"
tag = "v1.0.2"
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

[[rock]]
name = "lua-cjson"
version = "2.1.0-1"
arch = "linux-x86_64"
url = "https://luarocks.org/lua-cjson-2.1.0-1.linux-x86_64.rock"
why = "asked"
dependencies = ["lua >= 5.1", "lpeg"]
"#;

    #[test]
    fn a_lock_is_written_as_it_was_read() {
        let lock = Lock::from_toml(TEXT).unwrap();
        assert_eq!(lock.rocks["lpeg"].why, Why::Needed(vec!["lua-cjson".parse().unwrap()]));
        assert_eq!(lock.to_toml().unwrap(), TEXT);
        let empty = Lock::empty(LuaVersion::V51);
        assert_eq!(Lock::from_toml(&empty.to_toml().unwrap()).unwrap(), empty);
    }

    #[test]
    fn every_mistake_of_a_lock_is_named() {
        let bad = TEXT
            .replacen("0123456789abcdef", "XYZ", 1)
            .replace("git+https://example.org/lpeg.git", "ftp://example.org/x")
            .replace("\"lua >= 5.1\", \"lpeg\"", "\"lua >= 5.5\", \"lpeg >= 2\", \"gone\"")
            .replace("lua-cjson ~> 2.1\"", "lua-cjson ~> 2.2\"")
            .replace("\"re\"", "\"../re\"")
            .replace("lua-cjson\"\nversion = \"2.1.0-1\"", "lua-cjson\"\nversion = \"2.1.0\"");
        let error = Lock::from_toml(&bad).unwrap_err();
        assert_eq!(error.code(), Code::PackageInvalid);
        for part in [
            "lpeg: its check sum",
            "ftp://",
            "lua-cjson ~> 2.2 is wanted",
            "needs lua >= 5.5, and the environment is for Lua 5.4",
            "needs lpeg >= 2, and lpeg is 1.0.2-1",
            "gone is not there",
            "../re",
            "no revision",
        ] {
            assert!(error.message().contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        let twice = format!("{TEXT}{}", &TEXT[TEXT.find("[[rock]]").unwrap()..]);
        let newer = TEXT.replace("version = 1\n", "version = 2\nmore = {}\n");
        for bad in
            ["", "x", "version = 0\nlua = \"5.4\"", "version = 1\nlua = \"6.0\"", &twice, &newer, "version = 1\nlua = \"5.4\"\nrock = 7"]
        {
            let error = Lock::from_toml(bad).unwrap_err();
            assert_eq!(error.code(), Code::PackageInvalid, "{bad}");
        }
        assert_eq!(Lock::from_toml(&newer).unwrap_err().hint_text(), Some("update vmoon"));
        assert_eq!(Lock::from_toml(&"x".repeat(MAX_LOCK + 1)).unwrap_err().code(), Code::PackageInvalid);
    }
}
