//! The zygote: a small process with one thread that forks holders on request.
//!
//! A fork of it costs a fraction of starting a program: everything a holder needs is loaded already. It is started by the
//! driver when it is first needed, outlives the daemon, and ends when it has neither children nor a client. There is one for
//! each program file ([`name`]), so that a new program starts its own and the children of the old one keep theirs.
//!
//! This file is what both sides know: the messages and the name of the socket. They go over a `SOCK_SEQPACKET` socket as
//! JSON, one message each; fields that a side does not know are ignored, and both say first which versions they speak.

mod client;
mod server;

pub(crate) use client::{Conn, Parent, Zygotes, adopt, settle, settle_all};
pub use server::main;

use crate::layout::{Shape, Start};
use serde::{Deserialize, Serialize};
use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};
use vmoon_core::MachineId;
use vmoon_sys::process::Identity;

/// The version of these messages.
pub(crate) const VERSION: u32 = 1;
/// The word that makes our program a holder.
const HOLDER: &str = "lua-host";
/// The word that makes our program a zygote.
pub const VERB: &str = "lua-zygote";

/// What a spare says when it waits to be told which machine it is.
pub(crate) const READY: &[u8] = b"ready";
/// The room for a mark (an id of 36 characters, a slash, a number of up to 20) and for the arguments that a child shows.
const ROOM: usize = 64;
/// The room for a process id.
const PID_ROOM: usize = 16;
/// What the names of the sockets begin with.
const PREFIX: &str = "zygote-";

/// What a client asks for. `S` is what is taken of the shape.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request<S = Shape> {
    /// Fork a holder. Beside it: its listening socket, and a pipe to which it writes `ready\n` or what is wrong. Answered by
    /// [`Answer::Forked`] or [`Answer::Failed`].
    Fork(Box<Fork<S>>),
    /// Record how this child of the zygote ends, which it has not forked itself: a copy of one that it has. Answered by
    /// [`Answer::Adopted`]; an older zygote answers [`Answer::Failed`].
    Adopt { pid: i32, machine: MachineId, life: u64 },
    /// Answered by [`Answer::Settled`] when every request that anybody has sent before is done, and the end of every child
    /// that has ended is recorded.
    Settle,
}

/// The holder to fork.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fork<S = Shape> {
    /// The directory of the life.
    pub(crate) dir: PathBuf,
    /// The key that clients of the holder must show.
    pub(crate) key: String,
    pub(crate) start: Start<S>,
}

/// What the zygote says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// Said first on every connection.
    Hello {
        /// The newest version it speaks.
        version: u32,
        /// The oldest.
        min_version: u32,
        process: Identity,
    },
    /// The holder is forked.
    Forked { pid: i32 },
    /// It could not be forked, or the request is none.
    Failed { error: String },
    /// See [`Request::Adopt`].
    Adopted,
    /// See [`Request::Settle`].
    Settled,
}

/// Reads what the zygote says.
///
/// # Errors
/// When it is no answer.
pub(crate) fn read(message: &[u8]) -> serde_json::Result<Answer> {
    serde_json::from_slice(message)
}

/// The arguments that make the program of a holder a zygote, from those that make it a holder; `None` if it cannot be one.
pub(crate) fn arguments(holder: &[OsString]) -> Option<Vec<OsString>> {
    match holder {
        [] => Some(vec![VERB.into()]),
        [before @ .., last] if last == HOLDER => {
            Some(before.iter().map(OsString::as_os_str).chain([OsStr::new(VERB)]).map(Into::into).collect())
        }
        _ => None,
    }
}

/// The name of the socket of the zygote that runs this program file.
///
/// # Errors
/// When the file cannot be looked at.
pub(crate) fn name(exe: &Path) -> io::Result<String> {
    let file = exe.metadata()?;
    Ok(format!(
        "{PREFIX}builtin-{VERSION}-{:016x}",
        build(&[file.dev(), file.ino(), file.size(), file.mtime() as u64, file.mtime_nsec() as u64])
    ))
}

/// FNV-1a of 64 bits: the same in every build, and nobody forges files to make it collide.
fn build(words: &[u64]) -> u64 {
    words
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_program_file_has_another_zygote() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "1").unwrap();
        std::fs::copy(&a, &b).unwrap();
        let first = name(&a).unwrap();
        assert_eq!(first, name(&a).unwrap());
        assert_ne!(first, name(&b).unwrap());
        std::fs::rename(&b, &a).unwrap();
        assert_ne!(first, name(&a).unwrap(), "an upgrade has to start a new zygote");
        assert!(name(&b).is_err());
    }

    #[test]
    fn only_our_own_program_is_taken_for_one_that_can_fork() {
        let args = |list: &[&str]| arguments(&list.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(args(&[]), Some(vec![OsString::from(VERB)]));
        assert_eq!(args(&["lua-host"]), Some(vec![OsString::from(VERB)]));
        assert_eq!(args(&["-c", "exec lua-host"]), None);
    }

    #[test]
    fn requests_of_a_later_version_are_read_as_far_as_known() {
        let text = r#"{"hello":{"version":9,"min_version":1,"process":{"pid":1,"start":2,"boot":"b"},"colour":"blue"}}"#;
        assert!(matches!(serde_json::from_str(text).unwrap(), Answer::Hello { version: 9, .. }));
    }
}
