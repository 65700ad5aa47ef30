//! What a rock needs: a name and constraints on its version, written as in rockspecs (`lpeg >= 1.0, < 2`).

use crate::{name::RockName, version::Version};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use vmoon_core::{Code, Error, Result, name::escape};

/// More constraints than this on one dependency are nonsense.
const MAX_CONSTRAINTS: usize = 20;

/// How a constraint compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `==`, also written as nothing or `=`.
    Equal,
    /// `~=`, also written `!=`.
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
    /// `~>`: begins with these parts; `~> 1.2` takes `1.2.9`, not `1.3`.
    Pessimistic,
}

impl Operator {
    /// As rockspecs write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "~=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
            Self::Pessimistic => "~>",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "=" | "==" => Self::Equal,
            "~=" | "!=" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::AtMost,
            ">" => Self::Greater,
            ">=" => Self::AtLeast,
            "~>" => Self::Pessimistic,
            _ => return None,
        })
    }
}

/// One comparison with one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Constraint {
    /// How it compares.
    pub operator: Operator,
    /// With what.
    pub version: Version,
}

impl Constraint {
    /// Whether `version` meets it, by the rules of LuaRocks: a revision counts only where both have one.
    pub fn allows(&self, version: &Version) -> bool {
        let wanted = &self.version;
        match self.operator {
            Operator::Equal => version.same(wanted),
            Operator::NotEqual => !version.same(wanted),
            Operator::Less => version.below(wanted),
            Operator::AtMost => !wanted.below(version),
            Operator::Greater => wanted.below(version),
            Operator::AtLeast => !version.below(wanted),
            Operator::Pessimistic => version.starts_with(wanted),
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operator.as_str(), self.version)
    }
}

/// Constraints that must all be met; none allows every version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Constraints(pub Vec<Constraint>);

impl Constraints {
    /// Those that only this version meets.
    pub fn exactly(version: Version) -> Self {
        Self(vec![Constraint { operator: Operator::Equal, version }])
    }

    /// Whether `version` meets all of them.
    pub fn allow(&self, version: &Version) -> bool {
        self.0.iter().all(|constraint| constraint.allows(version))
    }

    /// Whether they allow every version.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them names a version that is the newest state of a repository: only then may such a version be chosen.
    pub fn ask_for_unreleased(&self) -> bool {
        let asks = |op| matches!(op, Operator::Equal | Operator::Pessimistic | Operator::AtLeast | Operator::Greater);
        self.0.iter().any(|c| c.version.is_unreleased() && asks(c.operator))
    }
}

impl fmt::Display for Constraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, constraint) in self.0.iter().enumerate() {
            write!(f, "{}{constraint}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl FromStr for Constraints {
    type Err = Error;

    /// Reads `>= 1.0, < 2`. An `@` before a constraint is passed over: LuaRocks means "do not upgrade" by it, and `lpeg@1.0` is easy to type.
    ///
    /// # Errors
    /// [`Code::Usage`] for an operator or version that is none.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: String| {
            Err(Error::new(Code::Usage, format!("\"{}\" is not a constraint: {why}", shown(text)))
                .hint("constraints are written like \">= 1.0, < 2\", \"~> 1.2\" or \"1.0-1\""))
        };
        let mut all = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            rest = rest.strip_prefix('@').unwrap_or(rest);
            let end = rest.find(|c| !matches!(c, '<' | '>' | '=' | '~' | '!')).unwrap_or(rest.len());
            let Some(operator) = Operator::parse(&rest[..end]) else {
                return bad(format!("there is no operator {}", &rest[..end]));
            };
            rest = rest[end..].trim_start();
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))).unwrap_or(rest.len());
            if end == 0 {
                return bad(format!("a version is missing after {}", operator.as_str()));
            }
            let version = match rest[..end].parse::<Version>() {
                Ok(version) => version,
                Err(error) => return bad(error.message().to_owned()),
            };
            all.push(Constraint { operator, version });
            if all.len() > MAX_CONSTRAINTS {
                return bad(format!("it has more than {MAX_CONSTRAINTS} parts"));
            }
            rest = rest[end..].trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ',');
        }
        Ok(Self(all))
    }
}

/// A rock that is needed, and in which versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Dependency {
    /// Its name; `lua` is the interpreter.
    pub name: RockName,
    /// What its version must meet.
    pub constraints: Constraints,
}

impl Dependency {
    /// A rock in any version.
    pub fn any(name: RockName) -> Self {
        Self { name, constraints: Constraints::default() }
    }

    /// Whether a rock of this name and version meets it.
    pub fn allows(&self, name: &RockName, version: &Version) -> bool {
        self.name == *name && self.constraints.allow(version)
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.constraints.is_empty() { write!(f, "{}", self.name) } else { write!(f, "{} {}", self.name, self.constraints) }
    }
}

impl FromStr for Dependency {
    type Err = Error;

    /// Reads `lpeg >= 1.0, < 2`, `lpeg 1.0-1` and `lpeg@1.0`.
    ///
    /// # Errors
    /// [`Code::Usage`] for a name, operator or version that is none, and for a rock of a namespace (`someone/lpeg`).
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))).unwrap_or(text.len());
        if text[end..].starts_with('/') {
            return Err(Error::new(Code::Usage, format!("\"{}\" is a rock of a namespace, which vmoon cannot ask for", shown(text)))
                .hint("leave the part before the slash out; add a server that has this rock if another one is found"));
        }
        if end == 0 && !text.is_empty() {
            return Err(Error::new(Code::Usage, format!("\"{}\" does not begin with the name of a rock", shown(text)))
                .hint("write the name first, then its constraints: \"lpeg >= 1.0\""));
        }
        Ok(Self { name: text[..end].parse()?, constraints: text[end..].parse()? })
    }
}

impl TryFrom<String> for Dependency {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Dependency> for String {
    fn from(dependency: Dependency) -> Self {
        dependency.to_string()
    }
}

fn shown(text: &str) -> String {
    escape(text).chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(constraints: &str, version: &str) -> bool {
        constraints.parse::<Constraints>().unwrap().allow(&version.parse().unwrap())
    }

    #[test]
    fn constraints_mean_what_luarocks_means() {
        for (constraints, yes, no) in [
            (">= 1.0, < 2", "1.9.9-3", "2.0-1"),
            ("~> 1.2", "1.2.9-1", "1.3-1"),
            ("~> 1.2-3", "1.2-3", "1.2-4"),
            ("1.0-1", "1.0-1", "1.0-2"),
            ("== 1.0", "1.0-7", "1.0.0-7"),
            ("!= 1.0", "1.1-1", "1.0-1"),
            ("> 1.0", "1.0.1-1", "1.0-9"),
            ("<=1.0", "1.0-9", "1.0.1-1"),
            ("@1.0", "1.0-2", "1.1-2"),
            ("< 2.0", "2.0rc1-1", "2.0-1"),
        ] {
            assert!(allows(constraints, yes), "{constraints} should allow {yes}");
            assert!(!allows(constraints, no), "{constraints} should not allow {no}");
        }
        assert!(allows("", "scm-1"));
    }

    #[test]
    fn dependencies_are_read_and_written() {
        for (text, written) in [
            ("lua >= 5.1, < 5.5", "lua >= 5.1, < 5.5"),
            ("  LPeg>=1.0<2 ", "lpeg >= 1.0, < 2"),
            ("lua-cjson", "lua-cjson"),
            ("lpeg@1.0", "lpeg == 1.0"),
            ("lpeg@~>1.0", "lpeg ~> 1.0"),
            ("lpeg 1.0-1", "lpeg == 1.0-1"),
        ] {
            assert_eq!(text.parse::<Dependency>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_is_no_dependency_is_refused() {
        for bad in ["", "/x", "ns/rock >= 1", "lpeg >> 1", "lpeg >=", "lpeg >= 1.0; rm", "-x", "lpeg <> 1", "lpeg \u{1b}[0m", "lpeg ~ 1"] {
            let error = bad.parse::<Dependency>().unwrap_err();
            assert_eq!(error.code(), Code::Usage, "{bad:?}");
            assert!(!error.message().contains('\u{1b}'));
        }
        assert!(format!("x {}", "> 1 ".repeat(21)).parse::<Dependency>().is_err());
    }

    #[test]
    fn what_is_not_released_must_be_asked_for() {
        for (constraints, asks) in [("scm-1", true), ("dev", true), (">= scm", true), (">= 1.0", false), ("< scm-1", false), ("", false)] {
            assert_eq!(constraints.parse::<Constraints>().unwrap().ask_for_unreleased(), asks, "{constraints}");
        }
    }
}
