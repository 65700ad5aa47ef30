//! Names of rocks, as rocks servers index them: lower case, and safe as the name of a file or directory.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use vmoon_core::{Code, Error, Result, name::escape};

/// The longest name of a rock, in bytes. The longest that the public server has is well below it, and file names stay below the system's limit.
pub const MAX_NAME: usize = 100;

/// The name of a rock: `[a-z0-9][a-z0-9._-]*`, at most [`MAX_NAME`] bytes.
///
/// Upper case is folded when a name is read, as LuaRocks does (`rockspec.package:lower()`): `Penlight` and `penlight` are one rock.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RockName(Box<str>);

impl RockName {
    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name under which the interpreter itself appears among dependencies.
    pub fn lua() -> Self {
        Self("lua".into())
    }

    /// Whether this is the interpreter, which no server has.
    pub fn is_lua(&self) -> bool {
        &*self.0 == "lua"
    }
}

impl FromStr for RockName {
    type Err = Error;

    /// # Errors
    /// [`Code::Usage`], with the name shown escaped and what is wrong with it.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            let shown: String = escape(text).chars().take(80).collect();
            Err(Error::new(Code::Usage, format!("\"{shown}\" cannot be the name of a rock: {why}"))
                .hint("rocks are named with letters, digits, '.', '_' and '-', beginning with a letter or digit"))
        };
        if text.is_empty() {
            return bad("it is empty");
        }
        if text.len() > MAX_NAME {
            return bad("it is too long");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return bad("it has a character that is not allowed");
        }
        if !text.as_bytes()[0].is_ascii_alphanumeric() {
            return bad("it does not begin with a letter or digit");
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for RockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for RockName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for RockName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RockName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RockName> for String {
    fn from(name: RockName) -> Self {
        name.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_and_hostile_ones_refused() {
        assert_eq!("Penlight".parse::<RockName>().unwrap().as_str(), "penlight");
        assert_eq!("lua-cjson".parse::<RockName>().unwrap().to_string(), "lua-cjson");
        let long = "x".repeat(101);
        for bad in ["", "-x", ".x", "..", "a/b", "a b", "a\nb", "a\0", "näme", "_x", "../x", &long] {
            let error = bad.parse::<RockName>().unwrap_err();
            assert_eq!(error.code(), Code::Usage, "{bad:?}");
            assert!(error.message().len() < 200 && !error.message().contains('\n'), "{error}");
        }
        assert!(serde_json::from_str::<RockName>("\"../x\"").is_err());
    }
}
