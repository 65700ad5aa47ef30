//! Copies a directory with all that is in it, which may be hostile: no link is followed, no hole is filled, and what is neither a file,
//! a directory nor a symbolic link is left out.

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Timespec, Timestamps, copy_file_range, fchmod, fstat, ftruncate, futimens,
        ioctl_ficlone, mkdirat, openat, readlinkat, seek, statat, symlinkat,
    },
    io::{Errno, pread, pwrite},
};
use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

/// How deep directories may lie in each other; each level holds two descriptors meanwhile.
const DEEPEST: u32 = 128;
const BUFFER: usize = 64 << 10;

/// Copies what is in the directory `from` into the empty directory `to`. Blocks are shared where the file system can do that. Names that are one
/// file become several; who owns them is not copied, times and modes are.
///
/// # Errors
/// Those of the file system; `InvalidInput` for directories that lie too deep. What was copied before stays.
pub fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    level(from, to, 0)
}

/// Copies a file to a new one of mode 0600, with its holes; blocks are shared where the file system can do that.
///
/// # Errors
/// Those of the file system; `AlreadyExists` if there is something under the new name.
pub fn file(from: &Path, to: &Path) -> io::Result<()> {
    let from = openat(CWD, from, OFlags::CLOEXEC, Mode::empty())?;
    let to = openat(CWD, to, OFlags::CLOEXEC | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR)?;
    content(&from, &to)
}

fn level(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("directories lie more than {DEEPEST} deep")));
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from, to, name, depth).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", name.to_string_lossy())))?;
        }
    }
    Ok(())
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: u32) -> io::Result<()> {
    let found = match statat(from, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        found => found?,
    };
    let times = Timestamps {
        last_access: Timespec { tv_sec: found.st_atime as _, tv_nsec: found.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: found.st_mtime as _, tv_nsec: found.st_mtime_nsec as _ },
    };
    let open = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU)?;
            let below = openat(from, name, open | OFlags::DIRECTORY, Mode::empty())?;
            let copy = openat(to, name, open | OFlags::DIRECTORY, Mode::empty())?;
            level(below.as_fd(), copy.as_fd(), depth + 1)?;
            finish(&copy, found.st_mode, &times)
        }
        FileType::RegularFile => {
            // If it is a pipe now, opening it must not wait.
            let source = openat(from, name, open | OFlags::NONBLOCK, Mode::empty())?;
            let copy = openat(to, name, open | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR)?;
            content(&source, &copy)?;
            finish(&copy, found.st_mode, &times)
        }
        FileType::Symlink => Ok(symlinkat(readlinkat(from, name, Vec::new())?, to, name)?),
        _ => Ok(()),
    }
}

fn finish(copy: &OwnedFd, mode: u32, times: &Timestamps) -> io::Result<()> {
    fchmod(copy, Mode::from_raw_mode(mode & 0o777))?;
    Ok(futimens(copy, times)?)
}

fn content(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let len = fstat(from)?.st_size as u64;
    if len == 0 || ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut at = 0;
    while at < len {
        let data = match seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break, // a hole up to the end
            Err(_) => at,
        };
        let end = seek(from, SeekFrom::Hole(data)).unwrap_or(len).min(len);
        piece(from, to, data, end)?;
        at = end.max(data + 1);
    }
    Ok(ftruncate(to, len)?)
}

fn piece(from: &OwnedFd, to: &OwnedFd, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = Vec::new();
    while at < end {
        let want = (end - at).min(1 << 30) as usize;
        if buffer.is_empty() {
            let (mut here, mut there) = (at, at);
            match copy_file_range(from, Some(&mut here), to, Some(&mut there), want) {
                Ok(0) => return Ok(()), // it is shorter now
                Ok(n) => {
                    at += n as u64;
                    continue;
                }
                Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => buffer.resize(BUFFER, 0),
                Err(error) => return Err(error.into()),
            }
        }
        let room = want.min(BUFFER);
        let n = pread(from, &mut buffer[..room], at)?;
        if n == 0 {
            return Ok(());
        }
        let mut done = 0;
        while done < n {
            done += pwrite(to, &buffer[done..n], at + done as u64)?;
        }
        at += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, File},
        os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    };

    #[test]
    fn one_file_is_copied_with_its_holes_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let sparse = File::create(&one).unwrap();
        sparse.set_len(1 << 40).unwrap();
        sparse.write_all_at(b"far", 1 << 39).unwrap();
        file(&one, &two).unwrap();
        let copy = File::open(&two).unwrap();
        let mut word = [0; 3];
        copy.read_exact_at(&mut word, 1 << 39).unwrap();
        let meta = copy.metadata().unwrap();
        assert_eq!((&word, meta.len(), meta.blocks() < 1000), (b"far", 1 << 40, true));
        assert_eq!(file(&one, &two).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn everything_is_copied_and_nothing_is_followed_or_filled() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| from.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/text"), "hello").unwrap();
        fs::set_permissions(at("a/b/text"), fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("link")).unwrap();
        let sparse = File::create(at("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        sparse.write_all_at(b"far", 1 << 39).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let (source, target) = (File::open(from.path()).unwrap(), File::open(to.path()).unwrap());
        tree(source.as_fd(), target.as_fd()).unwrap();
        let at = |name: &str| to.path().join(name);
        assert_eq!(fs::read_to_string(at("a/b/text")).unwrap(), "hello");
        assert_eq!(at("a/b/text").metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_link(at("link")).unwrap().to_str(), Some("/etc/passwd"));
        let copy = File::open(at("sparse")).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), 1 << 40);
        assert!(copy.metadata().unwrap().blocks() < 1 << 12, "the hole was filled");
        let mut bytes = [0; 3];
        copy.read_exact_at(&mut bytes, 1 << 39).unwrap();
        assert_eq!(&bytes, b"far");
        assert!(!at("pipe").exists());
    }

    #[test]
    fn a_bottomless_tree_is_refused() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(from.path().join("d/".repeat(DEEPEST as usize + 2))).unwrap();
        let (source, target) = (File::open(from.path()).unwrap(), File::open(to.path()).unwrap());
        assert_eq!(tree(source.as_fd(), target.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
