//! Below one directory and never out of it, although whoever lives in it is hostile and renames things while we look.
//!
//! Every path is resolved by the kernel with openat2(2), beneath the descriptor of the work directory and through no symbolic
//! link. What is opened is first pinned with `O_PATH`, then judged, and only then opened for its bytes through that very
//! descriptor: a file that is swapped in between is another file, and the judged one is read.

use rustix::{
    fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use vmoon_api::files::{FileEntry, FileKind, path_to_text};
use vmoon_core::{Code, Error, Result, name::escape};

/// How many names one directory may hold to be listed.
const NAMES: usize = 100_000;
/// The longest path, bytes (PATH_MAX of Linux, with its terminating byte).
const PATH: usize = 4_095;
/// How often a path is looked up again because somebody renamed things at that moment (openat2(2): EAGAIN).
const TRIES: u32 = 64;
/// The permission bits that are kept: none for setuid, setgid, sticky.
pub(super) const PERMISSIONS: u32 = 0o777;

fn shown(path: &[u8]) -> String {
    escape(&String::from_utf8_lossy(path))
}

fn refused(path: &[u8], why: &str) -> Error {
    Error::new(Code::FileRefused, format!("\"{}\" {why}", shown(path)))
}

/// The path in its plain form, relative and without `.`; empty for the directory itself.
///
/// # Errors
/// `file.refused` for what begins at the root, goes up, or holds a NUL byte.
pub(super) fn plain(path: &[u8]) -> Result<Vec<u8>> {
    if path.starts_with(b"/") {
        return Err(refused(path, "begins at the root").hint("paths of a machine begin in its work directory: NAME:data/x.csv"));
    }
    if path.contains(&0) || path.len() > PATH {
        return Err(refused(path, "cannot be a path"));
    }
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err(refused(path, "goes up with \"..\"").hint("paths of a machine stay in its work directory"));
    }
    Ok(parts.join(&b'/'))
}

/// The directory that a plain path is in, and its own name.
pub(super) fn split(path: &[u8]) -> Result<(&[u8], &[u8])> {
    match path.iter().rposition(|byte| *byte == b'/') {
        _ if path.is_empty() => Err(Error::new(Code::FileRefused, "the work directory itself cannot be made or replaced")),
        Some(at) => Ok((&path[..at], &path[at + 1..])),
        None => Ok((&b""[..], path)),
    }
}

fn failed(path: &[u8], error: Errno) -> Error {
    match error {
        Errno::NOENT | Errno::NOTDIR => Error::new(Code::FileNotFound, format!("there is no \"{}\" in the work directory", shown(path))),
        Errno::LOOP => refused(path, "leads through a symbolic link, and links are not followed"),
        Errno::XDEV => refused(path, "leads out of the work directory"),
        Errno::NAMETOOLONG => refused(path, "is too long"),
        Errno::AGAIN => Error::new(Code::FileChanged, format!("\"{}\" is being renamed all the time", shown(path))),
        Errno::NOSYS => Error::new(Code::DriverUnsupported, "this kernel has no openat2, without which files cannot be copied safely")
            .hint("Linux 5.6 or newer has it"),
        Errno::NOSPC | Errno::DQUOT => Error::new(Code::DiskFull, format!("no space is left for \"{}\"", shown(path))),
        Errno::ACCESS | Errno::PERM => {
            Error::new(Code::Permission, format!("\"{}\" may not be used", shown(path))).source(std::io::Error::from(error))
        }
        other => Error::new(Code::FileFailed, format!("\"{}\" cannot be used", shown(path))).source(std::io::Error::from(other)),
    }
}

/// Pins what a plain path names, without opening it. A link at its end is pinned itself.
pub(super) fn pin(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let name = if path.is_empty() { &b"."[..] } else { path };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, name, flags, Mode::empty(), resolve) {
            Ok(fd) => return Ok(fd),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if tries < TRIES => tries += 1,
            Err(error) => return Err(failed(path, error)),
        }
    }
}

/// Pins the directory that something is made in.
fn parent(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let pinned = pin(root, path)?;
    match look(&pinned, path)?.kind {
        FileKind::Directory => Ok(pinned),
        FileKind::Link => Err(failed(path, Errno::LOOP)),
        _ => Err(refused(path, "is no directory")),
    }
}

/// Opens what is pinned: exactly that, whatever has its name by now.
fn open(pinned: &OwnedFd, flags: OFlags, path: &[u8]) -> Result<OwnedFd> {
    let link = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    rustix::fs::openat(CWD, link, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty()).map_err(|error| failed(path, error))
}

fn kind(stat: &Stat) -> FileKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Link,
        _ => FileKind::Other,
    }
}

fn entry(name: &[u8], stat: &Stat) -> FileEntry {
    let kind = kind(stat);
    FileEntry {
        name: path_to_text(name),
        kind,
        size: if kind == FileKind::File { stat.st_size as u64 } else { 0 },
        mode: stat.st_mode & PERMISSIONS,
        modified_ms: u64::try_from(stat.st_mtime).unwrap_or(0).saturating_mul(1_000) + stat.st_mtime_nsec / 1_000_000,
    }
}

/// Looks at what is pinned.
pub(super) fn look(fd: impl AsFd, path: &[u8]) -> Result<FileEntry> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    rustix::fs::fstat(fd).map(|stat| entry(name, &stat)).map_err(|error| failed(path, error))
}

/// Opens an ordinary file for reading, and says what it is.
///
/// # Errors
/// `file.refused` for everything that is no ordinary file: it is never opened.
pub(super) fn read(root: BorrowedFd<'_>, path: &[u8]) -> Result<(OwnedFd, FileEntry)> {
    let pinned = pin(root, path)?;
    let found = look(&pinned, path)?;
    match found.kind {
        FileKind::File => Ok((open(&pinned, OFlags::RDONLY, path)?, found)),
        FileKind::Directory => Err(refused(path, "is a directory").hint("copy it with -r")),
        FileKind::Link => Err(refused(path, "is a symbolic link, and links are not followed")),
        FileKind::Other => Err(refused(path, "is a socket, FIFO or device, which are not copied")),
    }
}

/// What is in a directory, by name.
pub(super) fn list(root: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<FileEntry>> {
    let pinned = pin(root, path)?;
    if look(&pinned, path)?.kind != FileKind::Directory {
        return Err(refused(path, "is no directory"));
    }
    let dir = open(&pinned, OFlags::RDONLY | OFlags::DIRECTORY, path)?;
    let mut entries = Vec::new();
    for item in Dir::read_from(&dir).map_err(|error| failed(path, error))? {
        let item = item.map_err(|error| failed(path, error))?;
        let name = item.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entries.len() == NAMES {
            return Err(refused(path, "has more than 100 000 names").hint("pack them into one file in the machine first"));
        }
        match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => entries.push(entry(name.to_bytes(), &stat)),
            // It went away meanwhile.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(path, error)),
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Makes a directory, or finds that there is one.
///
/// # Errors
/// `file.exists` if something else has the name.
pub(super) fn make(root: BorrowedFd<'_>, path: &[u8], mode: u32) -> Result<FileEntry> {
    let (above, name) = split(path)?;
    let parent = parent(root, above)?;
    let mode = Mode::from_raw_mode((mode & PERMISSIONS) | 0o700);
    match rustix::fs::mkdirat(&parent, OsStr::from_bytes(name), mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(failed(path, error)),
    }
    let found = look(pin(root, path)?, path)?;
    if found.kind == FileKind::Directory { Ok(found) } else { Err(exists(path)) }
}

fn exists(path: &[u8]) -> Error {
    Error::new(Code::FileExists, format!("\"{}\" exists and is something else", shown(path)))
        .hint("choose another name, or remove it in the machine first")
}

/// A file that is being written under a name of its own and gets its real one when it is whole.
pub(super) struct Part {
    parent: OwnedFd,
    temporary: String,
    path: Vec<u8>,
    file: OwnedFd,
    named: bool,
}

impl Part {
    /// Begins one beside where `path` shall be.
    pub(super) fn begin(root: BorrowedFd<'_>, path: &[u8]) -> Result<Self> {
        let (above, name) = split(path)?;
        if name.len() > 255 {
            return Err(refused(path, "has a name of more than 255 bytes"));
        }
        let parent = parent(root, above)?;
        let temporary = format!(".vmoon-part-{}", &vmoon_sys::random::key()[..16]);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, &temporary, flags, Mode::RUSR | Mode::WUSR).map_err(|error| failed(path, error))?;
        Ok(Self { parent, temporary, path: path.to_vec(), file, named: false })
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.file, bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed(&self.path, error)),
            }
        }
        Ok(())
    }

    /// Gives it its mode and its name. A link that has the name is replaced, not followed.
    pub(super) fn finish(mut self, mode: u32) -> Result<FileEntry> {
        let problem = |error| failed(&self.path, error);
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode & PERMISSIONS)).map_err(problem)?;
        let (_, name) = split(&self.path)?;
        match rustix::fs::renameat(&self.parent, &self.temporary, &self.parent, OsStr::from_bytes(name)) {
            Ok(()) => {}
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => return Err(exists(&self.path)),
            Err(error) => return Err(problem(error)),
        }
        self.named = true;
        look(&self.file, &self.path)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.named {
            // Whoever lives here may have removed it: then nothing is left either.
            let _ = rustix::fs::unlinkat(&self.parent, &self.temporary, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests;
