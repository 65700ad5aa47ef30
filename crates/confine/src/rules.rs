//! What one process may do: the profile, the paths and hosts granted to it, and its limits. Plain data.

use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf, str::FromStr};

/// A capability profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Pure computation: no files but those granted, no network, no processes.
    Sealed,
    /// A private work directory to read and write, package trees to read. The default.
    #[default]
    Files,
    /// As [`Profile::Files`], and connections to the hosts and ports that are named.
    Net,
    /// Everything the user may do: nothing is refused.
    Trusted,
}

impl Profile {
    /// All of them, the narrowest first.
    pub const ALL: [Profile; 4] = [Profile::Sealed, Profile::Files, Profile::Net, Profile::Trusted];

    /// Its name in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Profile::Sealed => "sealed",
            Profile::Files => "files",
            Profile::Net => "net",
            Profile::Trusted => "trusted",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Self::ALL.map(Profile::as_str).join(", ");
        Self::ALL.into_iter().find(|profile| profile.as_str() == text).ok_or_else(|| format!("must be one of {all}"))
    }
}

/// One thing that holds a process to its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// The Lua libraries: what is not granted is absent or refuses.
    Lua,
    /// `no_new_privs` and an empty set of capabilities.
    Privileges,
    /// Landlock: files, and TCP ports where no broker decides.
    Landlock,
    /// Seccomp: sockets, processes, signals, tracing, attributes of files.
    Seccomp,
    /// Resource limits of the process.
    Rlimits,
    /// The broker that makes the connections of [`Profile::Net`].
    Broker,
    /// A control group of its own.
    Cgroup,
}

impl Layer {
    /// All of them, in the order they are applied.
    pub const ALL: [Layer; 7] =
        [Layer::Cgroup, Layer::Privileges, Layer::Rlimits, Layer::Landlock, Layer::Seccomp, Layer::Broker, Layer::Lua];

    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Layer::Lua => "lua",
            Layer::Privileges => "privileges",
            Layer::Landlock => "landlock",
            Layer::Seccomp => "seccomp",
            Layer::Rlimits => "rlimits",
            Layer::Broker => "broker",
            Layer::Cgroup => "cgroup",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Layer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Self::ALL.map(Layer::as_str).join(", ");
        Self::ALL.into_iter().find(|layer| layer.as_str() == text).ok_or_else(|| format!("must be one of {all}"))
    }
}

/// What a process may use. `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Address space the program may add to what was mapped when [`crate::Prepared`] was made, bytes.
    pub memory: Option<u64>,
    /// Processor time, seconds.
    pub cpu: Option<u64>,
    /// The largest file it may write, bytes.
    pub file_size: Option<u64>,
    /// Open descriptors beyond those it has at its start, or beyond sixteen where it has fewer.
    pub open_files: Option<u64>,
}

/// A host that may be connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Host {
    /// A name or an address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// What one process may do. Paths are those that [`crate::paths::resolve`] made: when the rules are applied, no symbolic link is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// The profile.
    pub profile: Profile,
    /// Absolute paths whose content may be read, directories with all that is in them.
    pub read: Vec<PathBuf>,
    /// Absolute paths that may be read and written.
    pub write: Vec<PathBuf>,
    /// Absolute paths that may be read, executed and mapped for execution. Mapping is all or nothing: if this is empty no memory becomes executable,
    /// else whatever may be read may be mapped (the kernel has no finer switch); C modules need that. Executing needs [`crate::launch`] besides.
    pub execute: Vec<PathBuf>,
    /// Whether it turns programs into machine code itself, as LuaJIT does: memory may become executable although nothing is granted for
    /// execution.
    pub compiles: bool,
    /// Whether it may start other programs, as compilers and build tools must: any of those that are granted for execution. They are held to the same
    /// rules. Calls that set modes, owners and times by a path are answered with success and do nothing, since Landlock cannot say on which paths they may
    /// act; those on an open file do what they say. No setting of a machine leads here.
    pub programs: bool,
    /// Hosts that may be connected to, for [`Profile::Net`].
    pub hosts: Vec<Host>,
    /// Limits.
    pub limits: Limits,
    /// Layers that are switched off on request; shown wherever the machine is. The tests of the isolation use it.
    pub without: Vec<Layer>,
}
