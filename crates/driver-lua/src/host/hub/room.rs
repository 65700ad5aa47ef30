//! How much the work directory may hold: a soft limit, looked at while a command runs. What grows beyond it is interrupted; what
//! only reads or removes goes on.

use super::{Guard, Hub, Stream};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use std::{
    ffi::CString,
    os::fd::OwnedFd,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use vmoon_core::frame::FailureKind;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How many entries are looked at; a directory of more is taken to be full.
const ENTRIES: usize = 200_000;

/// The limit of a work directory.
pub(crate) struct Room {
    dir: OwnedFd,
    /// Bytes.
    limit: u64,
    last: Mutex<Last>,
    /// Held while it is looked at.
    looking: Mutex<()>,
}

/// The last look.
struct Last {
    command: u64,
    at: Instant,
    used: u64,
}

impl Room {
    /// The limit of this directory, bytes.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn new(dir: &Path, limit: u64) -> std::io::Result<Self> {
        let dir = rustix::fs::open(dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { dir, limit, last: Mutex::new(Last { command: 0, at: Instant::now(), used: 0 }), looking: Mutex::new(()) })
    }

    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.dir
    }

    /// Nobody looks at it as long as this is held: looking allocates, on another thread and without the hub's lock.
    pub(super) fn still(&self) -> MutexGuard<'_, ()> {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commands are counted anew: the process is a copy.
    pub(super) fn begin_anew(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Last { command: 0, at: Instant::now(), used: 0 };
    }

    /// When the running command is to be looked at, at the latest.
    fn due(&self, command: u64) -> Instant {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.command == command { last.at + LOOK } else { last.at }
    }

    /// The bytes that are used, if they are too many and became more since the last look at this command.
    fn overgrown(&self, command: u64) -> Option<u64> {
        let _looking = self.still();
        let used = self.used();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = last.command == command && used > last.used;
        *last = Last { command, at: Instant::now(), used };
        (grown && used > self.limit).then_some(used)
    }

    /// The space that is taken, bytes: that of the disk, so that holes of files do not count.
    fn used(&self) -> u64 {
        let (mut used, mut seen) = (0_u64, 0);
        let mut below: Vec<Vec<u8>> = vec![b".".to_vec()];
        while let Some(path) = below.pop() {
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            // What is gone or closed by now holds nothing that counts.
            let Ok(dir) = openat(&self.dir, path.as_slice(), flags, Mode::empty()) else { continue };
            let Ok(mut entries) = Dir::read_from(&dir) else { continue };
            while let Some(Ok(entry)) = entries.read() {
                let name = CString::from(entry.file_name());
                if matches!(name.as_bytes(), b"." | b"..") {
                    continue;
                }
                seen += 1;
                if seen > ENTRIES {
                    return u64::MAX;
                }
                let Ok(found) = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                used = used.saturating_add(found.st_blocks as u64 * 512);
                if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                    below.push([&path, &b"/"[..], name.as_bytes()].concat());
                }
            }
        }
        used
    }
}

impl Hub {
    /// Limits the work directory. Only the first call counts.
    pub(crate) fn set_room(&self, room: Room) {
        let _ = self.room.set(room);
    }

    /// When the work directory has to be looked at for the running command.
    pub(super) fn next_room(&self, command: u64) -> Option<Instant> {
        self.room.get().map(|room| room.due(command))
    }

    /// Looks at the work directory if it is time, without the lock.
    pub(super) fn check_room<'a>(&'a self, state: Guard<'a>, now: Instant) -> Guard<'a> {
        let running = state.core.running.as_ref().filter(|running| running.cut.is_none()).map(|running| running.id);
        let (Some(room), Some(id)) = (self.room.get(), running) else { return state };
        if room.due(id) > now {
            return state;
        }
        drop(state);
        let overgrown = room.overgrown(id);
        let mut state = self.lock();
        if let Some(used) = overgrown
            && state.core.running.as_ref().is_some_and(|running| running.id == id)
        {
            let text = format!(
                "vmoon: the work directory holds {} MiB and may hold {} MiB: the command that made it grow is interrupted\n",
                used >> 20,
                room.limit >> 20
            );
            state.core.note(Stream::Err, text.as_bytes());
            state.core.interrupt(id, FailureKind::Interrupted);
        }
        state
    }
}
