//! What a Lua program may do, as its own libraries see it: the profile and the grants as data, and the Lua program that holds
//! the libraries to them (`lua/sandbox.lua`).
//!
//! This is the inner one of two layers. It gives clear refusals and keeps a program from what would break the session; that
//! nothing else can be reached is for the kernel to hold. This file must not know how either is started.

use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// A capability profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Pure computation.
    Sealed,
    /// A private work directory to read and write, package trees to read.
    Files,
    /// As [`Profile::Files`], and connections to the hosts that are named.
    Net,
    /// The libraries are those of the plain interpreter.
    #[default]
    Trusted,
}

impl Profile {
    /// All of them, the narrowest first.
    pub const ALL: [Profile; 4] = [Profile::Sealed, Profile::Files, Profile::Net, Profile::Trusted];

    /// Its name in settings and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Profile::Sealed => "sealed",
            Profile::Files => "files",
            Profile::Net => "net",
            Profile::Trusted => "trusted",
        }
    }
}

/// What the libraries of one program grant. Paths and hosts are for messages and for what is refused as a whole; which path is
/// open is the kernel's to decide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grants {
    /// The profile.
    pub profile: Profile,
    /// Absolute paths that may be read.
    pub read: Vec<String>,
    /// Absolute paths that may be read and written.
    pub write: Vec<String>,
    /// Programs and libraries that may be executed or loaded.
    pub execute: Vec<String>,
    /// The work directory, an absolute path; none in [`Profile::Sealed`].
    pub work: Option<String>,
    /// Hosts that may be connected to, `host:port`.
    pub hosts: Vec<String>,
    /// C modules may be loaded in [`Profile::Sealed`], too: an environment of packages was granted. Which ones is for the kernel to hold.
    pub load: bool,
}

/// The chunk that makes a program's libraries hold to its grants: call it with the text of [`Grants::settings`] after the
/// session's program was loaded and before any code of the user. It gives a function that takes another work
/// directory, for a copy of the process. Load it under [`crate::CHUNK_NAME`].
pub const SANDBOX: &str = include_str!("lua/sandbox.lua");

impl Grants {
    /// Whether there is nothing to hold: [`SANDBOX`] need not be run.
    pub fn is_trusted(&self) -> bool {
        self.profile == Profile::Trusted
    }

    /// The argument of [`SANDBOX`]: lines `NAME LENGTH` and so many bytes, so that no path can forge another setting.
    pub fn settings(&self) -> String {
        let mut out = String::new();
        let mut put = |name: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name} {}\n{value}", value.len());
        };
        put("profile", self.profile.as_str());
        for (name, values) in [("read", &self.read), ("write", &self.write), ("execute", &self.execute), ("host", &self.hosts)] {
            values.iter().for_each(|value| put(name, value));
        }
        if self.load {
            put("load", "1");
        }
        if let Some(work) = &self.work {
            put("work", work);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_forge_a_setting() {
        let grants = Grants { profile: Profile::Sealed, read: vec!["/x\nprofile 7\ntrusted".into()], ..Grants::default() };
        assert_eq!(grants.settings(), "profile 6\nsealed\nread 20\n/x\nprofile 7\ntrusted\n");
    }

    #[test]
    fn what_a_newer_peer_leaves_out_is_the_default() {
        let grants: Grants = serde_json::from_str(r#"{"profile":"net","hosts":["a:1"],"later":1}"#).unwrap();
        assert_eq!((grants.profile, grants.hosts.len(), grants.read.len()), (Profile::Net, 1, 0));
        assert!(Grants::default().is_trusted() && !grants.is_trusted());
    }
}
