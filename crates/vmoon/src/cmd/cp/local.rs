//! This computer's side of a copy: what is to be sent, and files that get their name when they are whole.

use super::{DEEPEST, Found, Item, side};
use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};
use vmoon_api::files::CHUNK;
use vmoon_core::{Code, Error, Result, name::escape};

fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy())
}

fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::new(Code::FileNotFound, format!("there is no \"{}\"", shown(path))),
        io::ErrorKind::PermissionDenied => Error::new(Code::Permission, format!("\"{}\" may not be used", shown(path))).source(error),
        _ => Error::io(format_args!("{what} \"{}\"", shown(path)), error),
    }
}

fn refused(path: &Path, why: &str) -> Error {
    Error::new(Code::FileRefused, format!("\"{}\" {why}", shown(path)))
}

/// What there is to send below a path that the user named, and where in the machine each shall be.
pub(super) fn find(from: &Path, to: &[u8], recursive: bool) -> Result<Found> {
    // A link that the user names is followed; those below it are not.
    let top = fs::metadata(from).map_err(|error| failed("look at", from, error))?;
    let mut found = Found::default();
    if !top.is_dir() {
        let item = item(from, to, &top)?;
        found.add(Item { named: true, ..item })?;
        return Ok(found);
    }
    if !recursive {
        return Err(refused(from, "is a directory").hint("copy it with -r"));
    }
    let mut waiting = vec![(from.to_path_buf(), to.to_vec(), top, 0)];
    while let Some((dir, remote, meta, depth)) = waiting.pop() {
        if depth > DEEPEST {
            found.refused.push(refused(&dir, "is too deep"));
            continue;
        }
        if !remote.is_empty() {
            found.add(Item { remote: remote.clone(), local: dir.clone(), size: None, mode: meta.mode() & 0o777, named: depth == 0 })?;
        }
        let mut names: Vec<_> = match fs::read_dir(&dir).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(names) => names,
            Err(error) => {
                found.refused.push(failed("read", &dir, error));
                continue;
            }
        };
        names.sort_by_key(fs::DirEntry::file_name);
        for name in names {
            let (path, remote) = (name.path(), side::join(&remote, name.file_name().as_bytes()));
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => waiting.push((path, remote, meta, depth + 1)),
                Ok(meta) => match item(&path, &remote, &meta) {
                    Ok(item) => found.add(item)?,
                    Err(error) => found.refused.push(error),
                },
                Err(error) => found.refused.push(failed("look at", &path, error)),
            }
        }
    }
    Ok(found)
}

fn item(path: &Path, remote: &[u8], meta: &Metadata) -> Result<Item> {
    if meta.is_symlink() {
        return Err(refused(path, "is a symbolic link, and links are not copied"));
    }
    if !meta.is_file() {
        return Err(refused(path, "is a socket, FIFO or device, which are not copied"));
    }
    Ok(Item { remote: remote.to_vec(), local: path.to_path_buf(), size: Some(meta.len()), mode: meta.mode() & 0o777, named: false })
}

/// A file that is sent.
pub(super) struct Source {
    file: File,
    path: PathBuf,
    rest: u64,
}

impl Source {
    /// Opens it; a link or a FIFO that took its place meanwhile is refused.
    pub(super) fn open(item: &Item) -> Result<Self> {
        let follow = if item.named { 0 } else { libc::O_NOFOLLOW };
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | follow)
            .open(&item.local)
            .map_err(|error| failed("open", &item.local, error))?;
        let meta = file.metadata().map_err(|error| failed("look at", &item.local, error))?;
        if !meta.is_file() {
            return Err(refused(&item.local, "is no ordinary file any more"));
        }
        Ok(Self { file, path: item.local.clone(), rest: meta.len() })
    }

    /// The next bytes; none at the end. A file that grows is sent as long as it was when it was opened.
    pub(super) fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        if self.rest == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; CHUNK.min(usize::try_from(self.rest).unwrap_or(CHUNK))];
        loop {
            match self.file.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("read", &self.path, error)),
                Ok(0) => {
                    return Err(Error::new(Code::FileChanged, format!("\"{}\" became shorter while it was copied", shown(&self.path))));
                }
                Ok(n) => {
                    chunk.truncate(n);
                    self.rest -= n as u64;
                    return Ok(Some(chunk));
                }
            }
        }
    }
}

/// Where a file or directory of a machine shall be: in a directory that exists, else under the name given.
pub(super) fn destination(here: &Path, from: &[u8], machine: &str, several: bool) -> Result<PathBuf> {
    let name = side::name(side::last(from).unwrap_or(machine.as_bytes()))?;
    if several {
        return Ok(if side::last(from).is_some() { here.join(name) } else { here.to_path_buf() });
    }
    if here.is_dir() {
        return Ok(here.join(name));
    }
    if here.as_os_str().as_bytes().ends_with(b"/") {
        return Err(
            Error::new(Code::FileNotFound, format!("there is no directory \"{}\"", shown(here))).hint("make it first, or leave the slash")
        );
    }
    Ok(here.to_path_buf())
}

/// Makes a directory with those it is in, as far as they are missing.
pub(super) fn directories(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| failed("make the directory", path, error))
}

/// Makes a directory, or finds that there is one.
pub(super) fn directory(item: &Item) -> Result<()> {
    let path = &item.local;
    // For those of several machines the parent is made, too.
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && item.named) {
        directories(parent)?;
    }
    match DirBuilder::new().mode(item.mode & 0o777 | 0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => Ok(()),
            _ => Err(Error::new(Code::FileExists, format!("\"{}\" exists and is no directory", shown(path)))),
        },
        Err(error) => Err(failed("make the directory", path, error)),
    }
}

/// A file that is received: under a name of its own until it is whole.
pub(super) struct Part {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    /// Whether the end of what was written is a hole that was skipped.
    hole: bool,
    named: bool,
}

impl Part {
    /// Begins one beside where it shall be, with these permission bits as far as the user's mask allows.
    pub(super) fn begin(item: &Item, mode: u32) -> Result<Self> {
        let path = item.local.clone();
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && item.named) {
            directories(parent)?;
        }
        let temporary = path.with_file_name(format!(".vmoon-part-{}", &vmoon_sys::random::key()[..16]));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode & 0o777)
            .open(&temporary)
            .map_err(|error| failed("make a file beside", &path, error))?;
        Ok(Self { file, temporary, path, hole: false, named: false })
    }

    /// Appends bytes. Whole chunks of zeros become holes: a file that is large for show takes no room.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hole = bytes.len() == CHUNK && bytes.iter().all(|byte| *byte == 0);
        let written = if self.hole { self.file.seek(SeekFrom::Current(CHUNK as i64)).map(drop) } else { self.file.write_all(bytes) };
        written.map_err(|error| failed("write", &self.path, error))
    }

    /// Gives it its name. A link that has the name is replaced, not followed.
    pub(super) fn finish(mut self) -> Result<()> {
        if self.hole {
            let length = self.file.stream_position();
            length.and_then(|length| self.file.set_len(length)).map_err(|error| failed("write", &self.path, error))?;
        }
        fs::rename(&self.temporary, &self.path).map_err(|error| match error.kind() {
            io::ErrorKind::IsADirectory | io::ErrorKind::DirectoryNotEmpty => {
                Error::new(Code::FileExists, format!("\"{}\" is a directory", shown(&self.path)))
            }
            _ => failed("name the file", &self.path, error),
        })?;
        self.named = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.named {
            // If it cannot be removed, it at least has not the name of what was wanted.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
