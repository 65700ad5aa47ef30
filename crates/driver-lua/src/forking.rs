//! What a driver and a holder say to each other so that the holder is copied: over one connection to the holder's socket, in frames
//! of two tags whose payloads are JSON.
//!
//! | | | |
//! |---|---|---|
//! | driver | `ask` | with the key of the life; refused at once if a command runs or waits |
//! | original | `ready` | it stands still and says which descriptors are its own; the driver looks at the process from outside |
//! | driver | `fork` | with the token of its filter; closing the connection lets it go on |
//! | original | `forked` | the copy's pid; it goes on and has nothing more to do with it |
//! | driver | `live` | to the copy: who it is now; beside it its socket, its two files, what narrows it |
//! | copy | `born` | its socket answers |
//!
//! Whichever side is gone, the other finds the end of the connection: the original goes on, the copy ends.

use crate::host::store::Overflow;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
    path::PathBuf,
    time::{Duration, Instant},
};
use vmoon_core::{
    MachineId,
    frame::{Frame, tag},
};
use vmoon_sys::{
    passing::{self, MAX_MESSAGE, Received},
    process::Identity,
};

/// How long either side waits for the other, but for the copying of files.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a holder stands still until it is told to fork: its files are copied meanwhile.
pub(crate) const STILL: Duration = Duration::from_secs(120);

/// To the holder, tag [`tag::FORK`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    /// Stand still.
    Ask {
        /// The key of this life.
        key: String,
    },
    /// Fork.
    Fork {
        /// What the filter of a confined process lets pass.
        token: u64,
    },
    /// Be this machine. Beside it: the listening socket, the ring, the spill file, and the ruleset if there is one.
    Live(Box<Birth>),
}

/// Who the copy is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Birth {
    pub(crate) machine: MachineId,
    pub(crate) life: u64,
    /// The key that its clients must show.
    pub(crate) key: String,
    pub(crate) process: Identity,
    /// The directory of the life.
    pub(crate) dir: PathBuf,
    /// Its current directory.
    pub(crate) work: PathBuf,
    pub(crate) overflow: Overflow,
    /// Bytes.
    pub(crate) ring: u64,
    /// Bytes.
    pub(crate) spill: u64,
    /// The version of Landlock for which the ruleset was made; nothing if there is none.
    pub(crate) narrow: Option<u32>,
    /// It waits to be copied, and runs nothing.
    #[serde(default)]
    pub(crate) frozen: bool,
}

/// From the holder, tag [`tag::FORKING`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// It stands still.
    Ready {
        /// Its own descriptors.
        descriptors: Vec<RawFd>,
        /// What its hello says of the runtime.
        runtime: String,
    },
    /// It cannot be copied now.
    Refused {
        /// Every reason.
        why: Vec<String>,
    },
    /// There is a copy.
    Forked {
        /// Its process.
        pid: i32,
    },
    /// The copy's socket answers.
    Born,
    /// That did not work.
    Failed {
        /// Why.
        error: String,
    },
}

/// Leaves nothing of a secret in memory.
pub(crate) fn forget(bytes: &mut [u8]) {
    for byte in bytes {
        // SAFETY: a valid place. Volatile: the compiler knows that nobody reads it any more.
        unsafe { std::ptr::write_volatile(byte, 0) };
    }
}

/// Overwrites what calls that have returned have left on the stack, `N` bytes of it.
#[inline(never)]
pub(crate) fn scrub<const N: usize>() {
    forget(&mut [0; N]);
}

/// One end of the connection.
#[derive(Debug)]
pub(crate) struct Talk {
    fd: OwnedFd,
    inbox: Vec<u8>,
    beside: Vec<OwnedFd>,
}

impl Talk {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        // Growing would leave pieces of what was heard behind.
        Self { fd, inbox: Vec::with_capacity(2 * MAX_MESSAGE), beside: Vec::new() }
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Says something. It is small, and the other side has read what was said before: it goes out whole.
    ///
    /// # Errors
    /// Those of sendmsg(2).
    pub(crate) fn say(&self, tag: u8, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let payload = serde_json::to_vec(message)?;
        let mut bytes = Vec::new();
        Frame { tag, id: 0, payload: &payload }.encode(&mut bytes);
        if bytes.len() > MAX_MESSAGE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        passing::send(&self.fd, &bytes, fds, false)
    }

    /// Hears the next word of this tag, and what came beside it.
    ///
    /// # Errors
    /// `BrokenPipe` if the other end is gone, `TimedOut`, `Unsupported` for a frame of another tag, `InvalidData` for nonsense.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self, wanted: u8, limit: Duration) -> io::Result<(T, Vec<OwnedFd>)> {
        let until = Instant::now() + limit;
        let mut buffer = [0; MAX_MESSAGE];
        loop {
            let frame = Frame::decode(&self.inbox).map_err(|_| io::ErrorKind::InvalidData)?;
            if let Some((frame, n)) = frame {
                if frame.tag != wanted {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                let message = serde_json::from_slice(frame.payload)?;
                forget(&mut self.inbox[..n]);
                self.inbox.drain(..n);
                return Ok((message, std::mem::take(&mut self.beside)));
            }
            match passing::receive(&self.fd, &mut buffer, false)? {
                Received::Message(n, fds) if self.inbox.len() + n <= 2 * MAX_MESSAGE => {
                    self.inbox.extend_from_slice(&buffer[..n]);
                    forget(&mut buffer[..n]);
                    self.beside.extend(fds);
                    continue;
                }
                Received::Message(..) => return Err(io::ErrorKind::InvalidData.into()),
                Received::Gone => return Err(io::ErrorKind::BrokenPipe.into()),
                Received::Later => {}
            }
            let rest = until.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// As [`Self::hear`], of the holder.
    ///
    /// # Errors
    /// As that.
    pub(crate) fn answer(&mut self) -> io::Result<Said> {
        Ok(self.hear(tag::FORKING, PATIENCE)?.0)
    }
}
