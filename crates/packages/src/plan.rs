//! What an install, update or removal will do, step by step and with reasons, before anything is done.

use crate::{
    lock::{Lock, LockedRock},
    lua_version::LuaVersion,
    version::Version,
};

/// What is done with one rock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Install,
    /// Another version, or another file of the same version, takes the place of this one.
    Replace {
        /// The version that was there.
        from: Version,
    },
    /// It goes.
    Remove,
    /// It stays as it is.
    Keep,
}

/// How a rock gets its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Build {
    /// Nothing to do: it stays or goes.
    Nothing,
    /// Its files are copied from a rock that is ready.
    Unpack,
    /// Its files are copied from the source, nothing is compiled.
    Copy,
    /// C modules are compiled by vmoon.
    Compile,
    /// The program `luarocks` builds it, by this kind of build (`make`).
    Luarocks(String),
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// With which rock, as it will be (for [`Action::Remove`]: as it was).
    pub rock: LockedRock,
    /// How many bytes are fetched; 0 when all is in the cache, `None` when nobody knows.
    pub download_bytes: Option<u64>,
    /// How it gets its files.
    pub build: Build,
    /// Why, in a sentence.
    pub why: String,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// For which Lua.
    pub lua: LuaVersion,
    /// What is done, what is needed first coming first.
    pub steps: Vec<Step>,
    /// What the lock will be.
    pub lock: Lock,
}

impl Plan {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.steps.iter().all(|step| step.action == Action::Keep)
    }
}
