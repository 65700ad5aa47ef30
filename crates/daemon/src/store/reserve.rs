//! Space on the disk that is kept for what makes room there: without it nothing could be stopped or deleted on a full one.

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use vmoon_sys::clock::instant;

/// How much is kept, bytes: some hundred commits.
const SIZE: u64 = 1 << 20;
/// With less than this free, bytes, it is given away.
const LITTLE: u64 = 256 << 10;
/// With so much free, bytes, it is taken again.
const PLENTY: u64 = 16 << 20;
/// How often it is looked whether it can be.
const AGAIN: Duration = Duration::from_secs(1);

/// The space, if the disk gave it.
pub(super) struct Reserve {
    path: PathBuf,
    there: bool,
    looked: Instant,
}

impl Reserve {
    /// Keeps some, if there is plenty, in a file beside this one.
    pub(super) fn beside(database: &Path) -> Self {
        let path = database.with_extension("reserve");
        let there = fs::metadata(&path).is_ok_and(|found| found.len() == SIZE);
        let mut this = Self { path, there, looked: instant() };
        if !there {
            this.take();
        }
        this
    }

    /// Something is about to be stored that makes room. `refused`: the disk has taken nothing the last time.
    pub(super) fn give(&mut self, refused: bool) {
        if self.there && (refused || self.free() < LITTLE) {
            self.there = fs::remove_file(&self.path).is_err();
            self.looked = instant();
        }
    }

    /// Takes it again when there is plenty.
    pub(super) fn restore(&mut self) {
        if !self.there && self.looked.elapsed() >= AGAIN {
            self.take();
        }
    }

    fn take(&mut self) {
        self.looked = instant();
        if self.free() >= PLENTY {
            self.there = make(&self.path).is_ok();
            if !self.there {
                // A part of it is of no use.
                let _ = fs::remove_file(&self.path);
            }
        }
    }

    /// How much is free; nothing where nobody can tell.
    fn free(&self) -> u64 {
        self.path.parent().and_then(|dir| free_in(dir).ok()).unwrap_or(0)
    }
}

/// How much is free for us on the file system of this directory, bytes.
///
/// # Errors
/// Those of statvfs(3).
pub(crate) fn free_in(dir: &Path) -> io::Result<u64> {
    let found = statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn make(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, SIZE) {
        // A file system without it: the zeros are written.
        Err(Errno::OPNOTSUPP) => io::copy(&mut io::Read::take(io::repeat(0), SIZE), &mut &file).map(drop),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_once_and_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::beside(&dir.path().join("db.db"));
        let length = || fs::metadata(dir.path().join("db.reserve")).map(|found| found.len()).ok();
        assert_eq!(length(), Some(SIZE), "this test needs 16 MiB of free space");
        reserve.give(false);
        assert_eq!(length(), Some(SIZE), "there is room without it");
        reserve.give(true);
        assert_eq!(length(), None);
        reserve.give(true);
        // Not at once: who makes room may need some more.
        reserve.restore();
        assert_eq!(length(), None);
        reserve.looked -= AGAIN;
        reserve.restore();
        assert_eq!(length(), Some(SIZE));
        assert!(Reserve::beside(&dir.path().join("db.db")).there, "what an earlier daemon has kept is known");
    }
}
