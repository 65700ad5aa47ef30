//! What is installed in an environment and where each byte of it came from: `rocks.lock`.

mod file;
mod import;

pub use file::LOCK_FILE;
pub use import::{Import, import_luarocks, import_lux};

use crate::{constraint::Dependency, index::provided, lua_version::LuaVersion, name::RockName, version::Version};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};
use vmoon_core::{Code, Error, Result, name::escape};

/// The version of the format that is written.
pub const FORMAT: u32 = 1;

/// For what a file of a rocks server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Arch {
    /// A rockspec, which tells where the source is.
    Rockspec,
    /// A `.src.rock`: rockspec and source in one.
    Src,
    /// A `.all.rock`: ready, for every machine.
    All,
    /// A `.linux-x86_64.rock`: ready, for one kind of machine.
    Binary(String),
}

impl Arch {
    /// The word that manifests use.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Rockspec => "rockspec",
            Self::Src => "src",
            Self::All => "all",
            Self::Binary(machine) => machine,
        }
    }

    /// The name of this kind of machine, as LuaRocks says it (`linux-x86_64`).
    pub fn here() -> Self {
        Self::Binary(format!("linux-{}", std::env::consts::ARCH))
    }

    /// The name of the file that has a rock in this form.
    pub fn file_name(&self, name: &RockName, version: &Version) -> String {
        match self {
            Self::Rockspec => format!("{name}-{version}.rockspec"),
            other => format!("{name}-{version}.{}.rock", other.as_str()),
        }
    }
}

impl FromStr for Arch {
    type Err = Error;

    /// # Errors
    /// [`Code::Usage`] for a word with other characters than letters, digits, `_`, `-` and `.`, since it becomes part of a file name.
    fn from_str(text: &str) -> Result<Self> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        Ok(match text {
            "rockspec" => Self::Rockspec,
            "src" => Self::Src,
            "all" => Self::All,
            _ if (1..=40).contains(&text.len()) && text.bytes().all(fits) && text.as_bytes()[0].is_ascii_alphanumeric() => {
                Self::Binary(text.to_owned())
            }
            _ => {
                let shown: String = escape(text).chars().take(60).collect();
                return Err(Error::new(Code::Usage, format!("\"{shown}\" is no kind of machine")));
            }
        })
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl TryFrom<String> for Arch {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Arch> for String {
    fn from(arch: Arch) -> Self {
        arch.as_str().into()
    }
}

/// The source of a rock that is installed from its rockspec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedSource {
    /// Where it is.
    pub url: String,
    /// The tag or commit, if it is a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Of the archive, or of the files of the repository; lower-case hexadecimal. Empty until the source has been seen once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
}

/// Why a rock is there. In files and answers `"asked"`, or the list of those that need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "file::WhyText", into = "file::WhyText")]
pub enum Why {
    /// Somebody asked for it.
    Asked,
    /// These rocks need it. None: nothing needs it any more, it is an orphan.
    Needed(Vec<RockName>),
}

/// One rock of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedRock {
    /// Its name.
    pub name: RockName,
    /// Its version, with revision.
    pub version: Version,
    /// In which form it was taken from the server.
    pub arch: Arch,
    /// Where the rockspec or rock is.
    pub url: String,
    /// Of the rockspec or rock at [`LockedRock::url`]; lower-case hexadecimal. Empty until it has been fetched once, which only a plan shows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Why it is there.
    pub why: Why,
    /// What it needs, the interpreter included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    /// The modules it gives, sorted; `lua-cjson` gives `cjson`. Known once it was installed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// Its source, if `arch` is [`Arch::Rockspec`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<LockedSource>,
}

/// The lock of one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// See [`FORMAT`].
    pub version: u32,
    /// For which Lua.
    pub lua: LuaVersion,
    /// What was asked for.
    pub wanted: Vec<Dependency>,
    /// The addresses of the servers that were asked, in order.
    pub servers: Vec<String>,
    /// The rocks, by name.
    pub rocks: BTreeMap<RockName, LockedRock>,
}

impl Lock {
    /// A lock of nothing.
    pub fn empty(lua: LuaVersion) -> Self {
        Self { version: FORMAT, lua, wanted: Vec::new(), servers: Vec::new(), rocks: BTreeMap::new() }
    }

    /// The rocks that need this one, sorted.
    pub fn dependents(&self, name: &RockName) -> Vec<&LockedRock> {
        self.rocks.values().filter(|rock| rock.name != *name && rock.dependencies.iter().any(|d| d.name == *name)).collect()
    }

    /// Whether somebody asked for this rock.
    pub fn is_asked(&self, name: &RockName) -> bool {
        self.wanted.iter().any(|wanted| wanted.name == *name)
    }

    /// What is asked for and everything that is needed for it.
    pub fn reachable(&self) -> BTreeSet<RockName> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&RockName> = self.wanted.iter().map(|wanted| &wanted.name).collect();
        while let Some(name) = next.pop() {
            let Some(rock) = self.rocks.get(name) else { continue };
            if reached.insert(name.clone()) {
                next.extend(rock.dependencies.iter().map(|dependency| &dependency.name));
            }
        }
        reached
    }

    /// For each rock those that need it, sorted; for walks, where [`Lock::dependents`] would look at all of them again and again.
    pub(crate) fn all_dependents(&self) -> BTreeMap<&RockName, Vec<&RockName>> {
        let mut all: BTreeMap<&RockName, Vec<&RockName>> = BTreeMap::new();
        for rock in self.rocks.values() {
            let needed: BTreeSet<&RockName> =
                rock.dependencies.iter().map(|needed| &needed.name).filter(|name| **name != rock.name).collect();
            needed.into_iter().for_each(|name| all.entry(name).or_default().push(&rock.name));
        }
        all
    }

    /// Works out anew why each rock is there.
    pub fn reason(&mut self) {
        let dependents = self.all_dependents();
        let asked: BTreeSet<&RockName> = self.wanted.iter().map(|wanted| &wanted.name).collect();
        let why = self.rocks.keys().map(|name| match asked.contains(name) {
            true => Why::Asked,
            false => Why::Needed(dependents.get(name).into_iter().flatten().map(|name| (*name).clone()).collect()),
        });
        let why: Vec<Why> = why.collect();
        for (rock, why) in self.rocks.values_mut().zip(why) {
            rock.why = why;
        }
    }

    /// Everything in it that does not fit: a wanted rock that is not there, a dependency that is not met.
    pub fn problems(&self) -> Vec<String> {
        let brought = provided(self.lua);
        let meets = |needed: &Dependency| {
            let version = match brought.iter().find(|(name, _)| *name == needed.name.as_str()) {
                Some((_, version)) => version.parse().ok(),
                None => self.rocks.get(&needed.name).map(|rock| rock.version.clone()),
            };
            version.is_some_and(|version| needed.constraints.allow(&version))
        };
        let there = |name: &RockName| match self.rocks.get(name) {
            Some(rock) => format!("{name} is {}", rock.version),
            None if name.is_lua() => format!("the environment is for Lua {}", self.lua),
            None => format!("{name} is not there"),
        };
        let mut problems = Vec::new();
        for wanted in self.wanted.iter().filter(|wanted| !meets(wanted)) {
            problems.push(format!("{wanted} is wanted, and {}", there(&wanted.name)));
        }
        for rock in self.rocks.values() {
            for needed in rock.dependencies.iter().filter(|needed| !meets(needed)) {
                problems.push(format!("{} {} needs {needed}, and {}", rock.name, rock.version, there(&needed.name)));
            }
        }
        problems
    }
}
