//! Packages and environments, as everybody talks about them: what is asked for and what is answered. Names and versions are text here; who
//! installs them checks them.

use serde::{Deserialize, Serialize};

/// The environment that is meant where none is named and none was chosen.
pub const DEFAULT_ENVIRONMENT: &str = "default";
/// The versions of Lua there are environments for. LuaJIT loads the packages of 5.1.
pub const LUA_VERSIONS: [&str; 5] = ["5.1", "5.2", "5.3", "5.4", "5.5"];

/// A rocks server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// What people call it.
    pub name: String,
    /// Where it is: `https://…`, `http://…`, `file:///…` or `builtin:`.
    pub url: String,
    /// Whether plain HTTP to another computer was asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

/// A change of a list of servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum ServerChange {
    /// Adds one.
    Add {
        /// Which.
        server: ServerInfo,
        /// Its place in the list, from 0; the last if not said.
        #[serde(default)]
        at: Option<usize>,
    },
    /// Takes one away.
    Remove {
        /// Its name.
        name: String,
    },
    /// Asks these first, in this order; the others keep theirs.
    Order {
        /// Their names.
        names: Vec<String>,
    },
    /// The list of new environments again.
    Reset,
}

/// A rock of an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RockInfo {
    /// Its name.
    pub name: String,
    /// Its version with revision.
    pub version: String,
    /// In which form it was taken: `rockspec`, `src`, `all` or a kind of machine.
    pub arch: String,
    /// Whether somebody asked for it.
    pub asked: bool,
    /// The rocks that need it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needed_by: Vec<String>,
    /// What it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<String>,
    /// The modules it gives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// Where it was taken from.
    pub url: String,
    /// Of the file at `url`.
    pub sha256: String,
    /// The newest version that its constraints allow, and the newest of all, where the servers were asked and have newer ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer: Option<Newer>,
    /// Servers that could not be asked for newer versions, and why, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unasked: Vec<String>,
}

/// Newer versions of a rock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newer {
    /// The newest that an update would install.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// The newest there is.
    pub newest: String,
    /// What holds it back from the newest: `bxbeta 1.0-1 needs bxalpha < 2.0`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<String>,
}

/// A generation of an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationInfo {
    /// Its number.
    pub number: u64,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Whether it is current.
    pub current: bool,
    /// What made it, for people: `install lua-cjson`.
    pub what: String,
    /// How many rocks it has.
    pub rocks: u64,
}

/// An environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentInfo {
    /// Its name.
    pub name: String,
    /// The Lua version of its packages.
    pub lua: String,
    /// The generation that is current.
    pub generation: u64,
    /// The profile it was made from, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What was asked for.
    pub wanted: Vec<String>,
    /// How many rocks it has.
    pub rocks: u64,
    /// Whether it is meant where none is named.
    #[serde(default)]
    pub default: bool,
    /// The servers that are asked for it, in order.
    pub servers: Vec<ServerInfo>,
    /// Whether that list is its own.
    #[serde(default)]
    pub own_servers: bool,
    /// Its directory.
    pub directory: String,
    /// Machines that run with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<String>,
    /// Its rocks; only when one environment is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<Vec<RockInfo>>,
    /// Its generations, the newest first; only when one environment is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generations: Option<Vec<GenerationInfo>>,
}

/// A change of an environment's packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// Adds packages, each a name with or without constraints: `lpeg`, `lpeg >= 1.0, < 2`, `lpeg@1.1`.
    Install {
        /// Which.
        packages: Vec<String>,
    },
    /// Takes newer versions, of these packages and what they need, or of all.
    Update {
        /// Which; all if empty.
        packages: Vec<String>,
    },
    /// Takes packages away.
    Remove {
        /// Which.
        packages: Vec<String>,
        /// Also what nothing needs any more.
        #[serde(default)]
        orphans: bool,
    },
    /// Brings the files to what the lock says.
    Sync,
    /// Adds the packages of profiles: names, or the content of a file of the user's.
    Bootstrap {
        /// Names of profiles.
        profiles: Vec<String>,
        /// The text of a file of the user's that names packages.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
    },
    /// Makes an earlier generation the current one.
    Rollback {
        /// Its number; the one before the current if not said.
        #[serde(default)]
        generation: Option<u64>,
    },
    /// Installs what a lock says: one of vmoon, of LuaRocks or of Lux.
    Import {
        /// The text of the lock.
        lock: String,
    },
}

impl Change {
    /// What is done, for people: `install lpeg`.
    pub fn what(&self) -> String {
        let some = |verb: &str, names: &[String], none: &str| {
            let mut list: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
            if names.len() > 5 {
                list.push("…");
            }
            let list = if list.is_empty() { none.to_owned() } else { list.join(" ") };
            format!("{verb} {list}").trim_end().chars().take(200).collect()
        };
        match self {
            Change::Install { packages } => some("install", packages, ""),
            Change::Update { packages } => some("update", packages, "all"),
            Change::Remove { packages, orphans: false } => some("remove", packages, ""),
            Change::Remove { packages, orphans: true } => some("remove", packages, "orphans"),
            Change::Sync => "sync".into(),
            Change::Bootstrap { profiles, file: None } => some("bootstrap", profiles, ""),
            Change::Bootstrap { profiles, file: Some(_) } => some("bootstrap", profiles, "a file"),
            Change::Rollback { generation: Some(number) } => format!("rollback to {number}"),
            Change::Rollback { generation: None } => "rollback".into(),
            Change::Import { .. } => "import a lock".into(),
        }
    }
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageStep {
    /// `install`, `replace`, `remove` or `keep`.
    pub action: String,
    /// The rock.
    pub name: String,
    /// Its version, as it will be, or was.
    pub version: String,
    /// The version that it takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How many bytes are fetched: 0 where all is in the cache, nothing where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_bytes: Option<u64>,
    /// How it gets its files: `nothing`, `unpack`, `copy`, `compile`, or by which kind `luarocks` builds it.
    pub build: String,
    /// Where it is taken from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// Why, in a sentence.
    pub why: String,
}

/// What a change would do, or has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagePlan {
    /// The environment's name.
    pub environment: String,
    /// Its Lua version.
    pub lua: String,
    /// The generation it begins from.
    pub generation: u64,
    /// What is done, what is needed first coming first; rocks that stay are left out.
    pub steps: Vec<PackageStep>,
    /// How many rocks stay as they are.
    pub kept: u64,
    /// Rocks that nothing needs and nobody asked for, once it is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<String>,
    /// What else is good to know, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Servers that could not be asked, and why, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unasked: Vec<String>,
}

/// A rock that was found on a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRock {
    /// Its name.
    pub name: String,
    /// The newest version that suits the environment's Lua, or the newest.
    pub version: String,
    /// All versions, the newest first.
    pub versions: Vec<String>,
    /// The server that has it.
    pub server: String,
    /// What it is for, where that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// The modules it gives, where that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// Labels it is found by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The version in the environment, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<String>,
    /// Where it is described; only when one is asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub homepage: String,
    /// Its licence; only when one is asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub license: String,
    /// What it does, at length; only when one is asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it needs; only when one is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<String>,
    /// How it is built; only when one is asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub build: String,
    /// Rocks that go well with it, and why; only when one is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recommended: Vec<String>,
    /// Servers that could not be asked when this was found, and why, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unasked: Vec<String>,
}

/// A profile: a set of packages with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileInfo {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub summary: String,
    /// Its packages.
    pub packages: Vec<String>,
}

/// A file that differs from what the lock says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The file, below the tree.
    pub file: String,
    /// The rock it belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rock: Option<String>,
    /// `missing`, `changed` or `extra`.
    pub what: String,
}

/// What was done with an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The generation that was made, or made current.
    pub generation: u64,
    /// What was done.
    pub what: String,
    /// What changed, one phrase each: `lpeg 1.0.2-1 → 1.1.0-1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
}

/// What the download and build caches hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheInfo {
    /// Where it is.
    pub directory: String,
    /// Files that were downloaded.
    pub files: u64,
    /// Their size, bytes.
    pub bytes: u64,
    /// Rocks that were built.
    pub built: u64,
    /// Their size, bytes.
    pub built_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_short() {
        let packages = |n: usize| (0..n).map(|i| format!("p{i}")).collect::<Vec<_>>();
        assert_eq!(Change::Install { packages: packages(2) }.what(), "install p0 p1");
        assert_eq!(Change::Update { packages: packages(0) }.what(), "update all");
        assert_eq!(Change::Install { packages: packages(9) }.what(), "install p0 p1 p2 p3 p4 …");
        assert!(Change::Install { packages: vec!["x".repeat(999)] }.what().len() <= 200);
        let change: Change = serde_json::from_str(r#"{"change":"bootstrap","profiles":["minimal"]}"#).unwrap();
        assert_eq!(change, Change::Bootstrap { profiles: vec!["minimal".into()], file: None });
    }
}
