//! Turning Lua text of strangers (manifests, rockspecs, `luarocks.lock`) into data.
//!
//! This crate runs no Lua. Whoever uses it injects an [`Evaluator`]: a process of its own, sealed, ended after one text, with bounds on time,
//! memory and output. What that process runs is [`PROGRAM`].

use serde_json::Value;
use vmoon_core::{Code, Error, Result, name::escape};

/// The most bytes a manifest may have. The public one has about 9 MB.
pub const MAX_MANIFEST: usize = 64 << 20;

/// The most bytes a rockspec or a lock may have.
pub const MAX_ROCKSPEC: usize = 1 << 20;

/// The most bytes that [`PROGRAM`] answers to a rockspec.
pub const MAX_ANSWER: usize = 9 << 20;

/// The Lua 5.4 program that evaluates one text. It takes `rockspec` or `manifest` as its argument and the text on standard input, answers on standard
/// output, or says on standard error in one line what is wrong with the text and ends with status 1. It needs `io.read`, `io.write`, `load` and the
/// libraries that only compute; `debug.sethook`, where it is there, makes it notice sooner that a text does not end.
pub const PROGRAM: &str = include_str!("evaluate.lua");

/// Evaluates Lua text that assigns globals. Blocking; each call is bounded in time, memory and output.
pub trait Evaluator: Send + Sync {
    /// The globals that this text sets (rockspec), or the table that it returns (`luarocks.lock`), as JSON.
    ///
    /// # Errors
    /// `package.invalid` for text that is no Lua, fails, runs or grows past its bounds, or makes what JSON cannot say; others if no process can be
    /// started.
    fn rockspec(&self, text: &[u8]) -> Result<Value>;

    /// The entries of a manifest in the compact form that [`crate::manifest`] reads.
    ///
    /// # Errors
    /// As [`Evaluator::rockspec`].
    fn manifest(&self, text: &[u8]) -> Result<Vec<u8>>;
}

/// Which kind of text [`PROGRAM`] is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A rockspec or a lock.
    Rockspec,
    /// A manifest.
    Manifest,
}

impl Kind {
    /// The argument of [`PROGRAM`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rockspec => "rockspec",
            Self::Manifest => "manifest",
        }
    }

    /// Refuses a text that is too long before a process is started for it.
    ///
    /// # Errors
    /// [`Code::PackageInvalid`].
    pub fn check(self, text: &[u8]) -> Result<()> {
        let most = if self == Self::Manifest { MAX_MANIFEST } else { MAX_ROCKSPEC };
        if text.len() <= most {
            return Ok(());
        }
        let (kind, mib) = (self.as_str(), most >> 20);
        Err(Error::new(Code::PackageInvalid, format!("the {kind} has {} bytes; {mib} MiB is the most that is read", text.len())))
    }

    /// The error for what [`PROGRAM`] complained about; `said` is its standard error.
    pub fn refused(self, said: &[u8]) -> Error {
        let said = String::from_utf8_lossy(said);
        let line = said.lines().next().unwrap_or("it was ended before it answered").trim_end();
        let line: String = escape(line).chars().take(400).collect();
        Error::new(Code::PackageInvalid, format!("the {} cannot be used: {line}", self.as_str()))
            .hint("it is the mistake of who published it; another version or server may be right")
    }

    /// The error for a process that had to be ended: too long, too much memory, or too much said.
    pub fn ended(self, why: &str) -> Error {
        Error::new(Code::PackageInvalid, format!("the {} cannot be used: {why}", self.as_str()))
            .hint("it is the mistake of who published it; another version or server may be right")
    }
}

/// What [`PROGRAM`] answered to a rockspec, read.
///
/// # Errors
/// [`Code::PackageInvalid`] for an answer that is no JSON.
pub fn read_answer(answer: &[u8]) -> Result<Value> {
    serde_json::from_slice(answer).map_err(|error| Kind::Rockspec.ended("its evaluation gave no data").source(error))
}
