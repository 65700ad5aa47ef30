//! The Lua versions that an environment can be for.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use vmoon_core::{Code, Error, Result};

/// A Lua version by its first two numbers, which is what decides where modules are kept and which C modules load. LuaJIT loads trees of 5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LuaVersion {
    /// Lua 5.1, and LuaJIT.
    V51,
    /// Lua 5.2.
    V52,
    /// Lua 5.3.
    V53,
    /// Lua 5.4.
    V54,
    /// Lua 5.5.
    V55,
}

impl LuaVersion {
    /// Every version, oldest first.
    pub const ALL: [Self; 5] = [Self::V51, Self::V52, Self::V53, Self::V54, Self::V55];

    /// `5.1` to `5.5`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V51 => "5.1",
            Self::V52 => "5.2",
            Self::V53 => "5.3",
            Self::V54 => "5.4",
            Self::V55 => "5.5",
        }
    }

    /// The version whose trees this runtime loads: `luajit` and `lua5.1` load 5.1, `lua5.4` and `builtin` 5.4, `builtin-5.1` 5.1. `None` for what is not known.
    pub fn of_runtime(runtime: &str) -> Option<Self> {
        match runtime {
            "builtin" => Some(Self::V54),
            "builtin-luajit" => Some(Self::V51),
            _ if runtime.starts_with("luajit") => Some(Self::V51),
            _ => runtime
                .strip_prefix("builtin-")
                .or_else(|| runtime.strip_prefix("lua"))
                .and_then(|rest| rest.trim_start_matches('-').parse().ok()),
        }
    }
}

impl FromStr for LuaVersion {
    type Err = Error;

    /// # Errors
    /// [`Code::Usage`] for anything but `5.1`, `5.2`, `5.3`, `5.4`, `5.5` and `luajit`, which is 5.1.
    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|v| v.as_str() == text).or_else(|| (text == "luajit").then_some(Self::V51));
        found.ok_or_else(|| {
            let shown: String = vmoon_core::name::escape(text).chars().take(40).collect();
            Error::new(Code::Usage, format!("there is no Lua version \"{shown}\" here")).hint("use 5.1, 5.2, 5.3, 5.4, 5.5 or luajit")
        })
    }
}

impl fmt::Display for LuaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl TryFrom<String> for LuaVersion {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<LuaVersion> for String {
    fn from(version: LuaVersion) -> Self {
        version.as_str().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_have_the_version_whose_trees_they_load() {
        for (runtime, expected) in [
            ("builtin", Some("5.4")),
            ("builtin-5.1", Some("5.1")),
            ("builtin-luajit", Some("5.1")),
            ("lua5.1", Some("5.1")),
            ("luajit", Some("5.1")),
            ("lua5.3", Some("5.3")),
            ("builtin-5.5", Some("5.5")),
            ("lua5.6", None),
            ("python", None),
        ] {
            assert_eq!(LuaVersion::of_runtime(runtime).map(LuaVersion::as_str), expected, "{runtime}");
        }
        assert_eq!(LuaVersion::ALL.map(LuaVersion::as_str), vmoon_core::package::LUA_VERSIONS, "one list");
        assert_eq!("luajit".parse::<LuaVersion>().unwrap(), LuaVersion::V51);
        assert_eq!("5.6".parse::<LuaVersion>().unwrap_err().code(), Code::Usage);
    }
}
