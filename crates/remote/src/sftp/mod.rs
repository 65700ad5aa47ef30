//! Files of a host over SFTP, each answer bounded in time. Contents travel with several requests on their way at once, in `stream`.
//!
//! The protocol knows one word for most failures. What it means is found out by looking: whether the disk is full, whether the name is taken.

mod stream;

use crate::{Connection, connect::ANSWER};
use russh_sftp::{
    client::{RawSftpSession, error::Error as Refusal},
    extensions::Statvfs,
    protocol::{FileAttributes, OpenFlags, Packet, StatusCode},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::OwnedSemaphorePermit,
    time::timeout,
};
use vmoon_core::{
    Code, Error, Result,
    ability::{FileFacts, FileKind},
};
use vmoon_sys::random;

pub use stream::{Incoming, Outgoing};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The permission bits that are kept: none for setuid, setgid, sticky.
const PERMISSIONS: u32 = 0o777;
/// How many names one directory may hold to be listed.
const NAMES: usize = 100_000;
/// The longest path, bytes (PATH_MAX of Linux, with its terminating byte).
const PATH: usize = 4_095;

/// An SFTP session. It ends with the connection, or when the last clone is dropped.
#[derive(Clone)]
pub struct Files(Arc<Session>);

struct Session {
    raw: RawSftpSession,
    connection: Connection,
    host: String,
    /// Extensions of OpenSSH's server that this one has.
    replaces: bool,
    links: bool,
    measures: bool,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Opens an SFTP session.
    ///
    /// # Errors
    /// [`Code::DriverUnsupported`] when the server has no SFTP.
    pub async fn files(&self) -> Result<Files> {
        let session = self.session().await?;
        let no_sftp = || {
            Error::new(Code::DriverUnsupported, format!("{} offers no SFTP", self.name()))
                .hint("its sshd needs a line: Subsystem sftp internal-sftp")
        };
        timeout(ANSWER, session.channel.request_subsystem(true, "sftp"))
            .await
            .map_err(|_| self.lost())?
            .map_err(|error| self.lost().source(error))?;
        let raw = RawSftpSession::new(session.channel.into_stream());
        let version = match timeout(ANSWER, raw.init()).await {
            Ok(Ok(version)) => version,
            Ok(Err(error)) => return Err(no_sftp().source(error)),
            Err(_) => return Err(no_sftp()),
        };
        raw.set_timeout(PATIENCE.as_secs());
        let has = |name: &str, number: &str| version.extensions.get(name).is_some_and(|found| found == number);
        Ok(Files(Arc::new(Session {
            connection: self.clone(),
            host: self.name().to_owned(),
            replaces: has("posix-rename@openssh.com", "1"),
            links: has("hardlink@openssh.com", "1"),
            measures: has("statvfs@openssh.com", "2"),
            _permit: session.permit,
            raw,
        })))
    }
}

/// A path as the protocol's text. Relative ones begin in the login's home.
///
/// # Errors
/// [`Code::FileRefused`] for what cannot be one: a NUL byte, bytes that are no UTF-8, too many of them.
pub fn path(bytes: &[u8]) -> Result<&str> {
    let refused = |why: &str| Error::new(Code::FileRefused, format!("\"{}\" {why}", bytes.escape_ascii()));
    if bytes.contains(&0) || bytes.len() > PATH {
        return Err(refused("cannot be a path"));
    }
    let text = std::str::from_utf8(bytes);
    let text = text.map_err(|_| refused("is no UTF-8, and such names cannot be copied over SFTP").hint("give it another name there"))?;
    Ok(if text.is_empty() { "." } else { text })
}

fn kind(attributes: &FileAttributes) -> FileKind {
    // S_IFMT of inode(7).
    match attributes.permissions.unwrap_or(0) & 0o170_000 {
        0o100_000 => FileKind::File,
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Link,
        _ => FileKind::Other,
    }
}

fn facts(name: &str, attributes: &FileAttributes) -> FileFacts {
    let kind = kind(attributes);
    FileFacts {
        name: name.as_bytes().to_vec(),
        kind,
        size: if kind == FileKind::File { attributes.size.unwrap_or(0) } else { 0 },
        mode: attributes.permissions.unwrap_or(0) & PERMISSIONS,
        modified_ms: u64::from(attributes.mtime.unwrap_or(0)) * 1_000,
    }
}

/// The last part of a path, and what is before it.
fn split(path: &str) -> (&str, &str) {
    let path = path.trim_end_matches('/');
    path.rsplit_once('/').map_or((".", path), |(above, name)| (if above.is_empty() { "/" } else { above }, name))
}

impl Files {
    /// The host's name, for messages.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// Whether its connection is known to be lost.
    pub fn is_closed(&self) -> bool {
        self.0.connection.is_closed()
    }

    fn raw(&self) -> &RawSftpSession {
        &self.0.raw
    }

    fn failed(&self, what: &str, path: &str, error: Refusal) -> Error {
        let code = match &error {
            Refusal::Status(status) => match status.status_code {
                StatusCode::NoSuchFile => Code::FileNotFound,
                StatusCode::PermissionDenied => Code::Permission,
                StatusCode::ConnectionLost | StatusCode::NoConnection => Code::DriverUnreachable,
                _ => Code::FileFailed,
            },
            // The session's channel is closed: its answer will not come.
            Refusal::IO(_) | Refusal::Timeout | Refusal::UnexpectedBehavior(_) => Code::DriverUnreachable,
            _ => Code::FileFailed,
        };
        let (path, host) = (path.escape_debug(), &self.0.host);
        match code {
            Code::FileNotFound => Error::new(code, format!("there is no \"{path}\" on {host}")),
            Code::Permission => Error::new(code, format!("the login may not {what} \"{path}\" on {host}")),
            _ => Error::new(code, format!("could not {what} \"{path}\" on {host}")).source(error),
        }
    }

    /// What a failure to make something in a directory means: often that nothing fits there any more.
    async fn not_made(&self, what: &str, path: &str, error: Refusal) -> Error {
        let vague = matches!(&error, Refusal::Status(status) if status.status_code == StatusCode::Failure);
        if vague && self.is_full(split(path).0).await {
            return Error::new(Code::DiskFull, format!("no space is left on {} for \"{}\"", self.0.host, path.escape_debug()));
        }
        self.failed(what, path, error)
    }

    /// What is there. A link at the end is followed.
    ///
    /// # Errors
    /// [`Code::FileNotFound`], [`Code::Permission`], [`Code::DriverUnreachable`], as of everything here.
    pub async fn look(&self, path: &str) -> Result<FileFacts> {
        let found = self.raw().stat(path).await.map_err(|error| self.failed("look at", path, error))?;
        Ok(facts(split(path).1, &found.attrs))
    }

    /// What is in a directory, sorted by name; links are not followed.
    ///
    /// # Errors
    /// [`Code::FileRefused`] for what is no directory, or too large a one.
    pub async fn list(&self, path: &str) -> Result<Vec<FileFacts>> {
        let refused = |why: &str| Error::new(Code::FileRefused, format!("\"{}\" {why}", path.escape_debug()));
        if self.look(path).await?.kind != FileKind::Directory {
            return Err(refused("is no directory"));
        }
        let failed = |error| self.failed("read", path, error);
        let handle = self.raw().opendir(path).await.map_err(failed)?.handle;
        let mut all = Vec::new();
        let outcome = loop {
            match self.raw().readdir(handle.as_str()).await {
                Ok(names) => {
                    let named = names.files.iter().filter(|file| !matches!(file.filename.as_str(), "." | ".."));
                    all.extend(named.filter(|file| !file.filename.contains(['/', '\0'])).map(|file| facts(&file.filename, &file.attrs)));
                    if all.len() > NAMES {
                        break Err(refused("has more than 100 000 names").hint("pack them into one file there first"));
                    }
                }
                Err(Refusal::Status(status)) if status.status_code == StatusCode::Eof => break Ok(()),
                Err(error) => break Err(failed(error)),
            }
        };
        let _ = self.raw().close(handle).await;
        outcome?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Makes a directory, or finds that there is one.
    ///
    /// # Errors
    /// [`Code::FileExists`] if something else has the name.
    pub async fn make_directory(&self, path: &str, mode: u32) -> Result<FileFacts> {
        let attributes = FileAttributes { permissions: Some((mode & PERMISSIONS) | 0o700), ..FileAttributes::empty() };
        let made = self.raw().mkdir(path, attributes).await;
        match (made, self.look(path).await) {
            (_, Ok(found)) if found.kind == FileKind::Directory => Ok(found),
            (Err(Refusal::Status(status)), Ok(_)) if status.status_code == StatusCode::Failure => Err(self.taken(path)),
            (Err(error), _) => Err(self.not_made("make", path, error).await),
            (Ok(_), Ok(_)) => Err(self.taken(path)),
            (Ok(_), Err(error)) => Err(error),
        }
    }

    /// Makes a directory and all that are missing above it, for the login only.
    pub(crate) async fn make_directories(&self, path: &str) -> Result<()> {
        let mut missing = vec![path];
        loop {
            let Some(at) = missing.last().copied() else { return Ok(()) };
            match self.make_directory(at, 0o700).await {
                Ok(_) => drop(missing.pop()),
                Err(error) if error.code() == Code::FileNotFound && missing.len() < 64 && split(at).0.len() < at.len() => {
                    missing.push(split(at).0);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn taken(&self, path: &str) -> Error {
        Error::new(Code::FileExists, format!("\"{}\" exists on {} and is something else", path.escape_debug(), self.0.host))
            .hint("choose another name, or remove it there first")
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`Code::FileRefused`] for what is no ordinary file.
    pub async fn read(&self, path: &str) -> Result<Incoming> {
        let found = self.look(path).await?;
        let refused = |why: &str| Error::new(Code::FileRefused, format!("\"{}\" {why}", path.escape_debug()));
        match found.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(refused("is a directory").hint("copy it with -r")),
            FileKind::Link | FileKind::Other => return Err(refused("is a socket, FIFO or device, which are not copied")),
        }
        let opened = self.raw().open(path, OpenFlags::READ, FileAttributes::empty()).await;
        let handle = opened.map_err(|error| self.failed("open", path, error))?.handle;
        Ok(Incoming::new(self.clone(), path.to_owned(), handle, found))
    }

    /// Begins a file that gets its name when it is whole. Dropped before that, it leaves nothing under that name.
    ///
    /// # Errors
    /// [`Code::DiskFull`], [`Code::FileExists`] when a directory has the name.
    pub async fn write(&self, path: &str, mode: u32) -> Result<Outgoing> {
        let (above, name) = split(path);
        if path.ends_with('/') || matches!(name, "" | "." | "..") {
            return Err(Error::new(Code::FileRefused, format!("\"{}\" names a directory", path.escape_debug())));
        }
        if name.len() > 255 {
            return Err(Error::new(Code::FileRefused, format!("\"{}\" has a name of more than 255 bytes", path.escape_debug())));
        }
        let part = format!("{above}/.vmoon-part-{:016x}", random::number());
        let attributes = FileAttributes { permissions: Some(0o600), ..FileAttributes::empty() };
        let opened = self.raw().open(part.as_str(), OpenFlags::CREATE | OpenFlags::EXCLUDE | OpenFlags::WRITE, attributes).await;
        let handle = match opened {
            Ok(opened) => opened.handle,
            Err(error) => return Err(self.not_made("make", path, error).await),
        };
        Ok(Outgoing::new(self.clone(), (path.to_owned(), part), handle, mode & PERMISSIONS))
    }

    /// Copies a file from the host into `to`; gives its length.
    ///
    /// # Errors
    /// [`Code::FileNotFound`], [`Code::Permission`], [`Code::DriverUnreachable`].
    pub async fn get(&self, path: &str, to: &mut (dyn AsyncWrite + Unpin + Send)) -> Result<u64> {
        let mut file = self.read(path).await?;
        let broken = |error| Error::new(Code::FileFailed, "what was copied could not be written").source(error);
        let mut length = 0;
        while let Some(piece) = file.next().await? {
            to.write_all(&piece).await.map_err(broken)?;
            length += piece.len() as u64;
        }
        to.flush().await.map_err(broken)?;
        Ok(length)
    }

    /// Copies `from` into a file of the host: whole, or not at all. It is written under another name first and takes the place
    /// of an older one only then. Gives its length.
    ///
    /// # Errors
    /// [`Code::Permission`], [`Code::FileFailed`], [`Code::DriverUnreachable`].
    pub async fn put(&self, path: &str, from: &mut (dyn AsyncRead + Unpin + Send)) -> Result<u64> {
        let mut file = self.write(path, 0o644).await?;
        let mut length = 0;
        let mut piece = vec![0; 256 << 10];
        loop {
            let n = from
                .read(&mut piece)
                .await
                .map_err(|error| Error::new(Code::FileFailed, "what is copied could not be read").source(error))?;
            if n == 0 {
                return file.finish().await.map(|_| length);
            }
            file.write(&piece[..n]).await?;
            length += n as u64;
        }
    }

    /// The whole content of a small file; nothing if there is none.
    ///
    /// # Errors
    /// [`Code::FileRefused`] when it is larger than that.
    pub(crate) async fn slurp(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let mut file = match self.read(path).await {
            Ok(file) => file,
            Err(error) if error.code() == Code::FileNotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.facts().size > most {
            return Err(Error::new(Code::FileRefused, format!("\"{}\" on {} is too large", path.escape_debug(), self.0.host)));
        }
        let mut all = Vec::new();
        while let Some(piece) = file.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(Some(all))
    }

    /// Gives something another name, in the place of an older file.
    pub(crate) async fn replace(&self, from: &str, to: &str) -> Result<()> {
        let refusal = if self.0.replaces {
            // Both names as the protocol's strings: a length of four bytes, then the bytes (PROTOCOL of OpenSSH, 4.3).
            let mut names = Vec::new();
            for name in [from, to] {
                names.extend_from_slice(&(name.len() as u32).to_be_bytes());
                names.extend_from_slice(name.as_bytes());
            }
            match self.raw().extended("posix-rename@openssh.com", names).await {
                Ok(Packet::Status(status)) if status.status_code == StatusCode::Ok => return Ok(()),
                Ok(Packet::Status(status)) => Refusal::Status(status),
                Ok(_) => Refusal::UnexpectedPacket,
                Err(error) => error,
            }
        } else {
            match self.raw().rename(from, to).await {
                Ok(_) => return Ok(()),
                Err(Refusal::Status(_)) => {
                    // The first version of the protocol refuses to replace, so the old one is removed before; a cut just then leaves the
                    // whole file under its other name.
                    let _ = self.raw().remove(to).await;
                    match self.raw().rename(from, to).await {
                        Ok(_) => return Ok(()),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            }
        };
        if let Refusal::Status(status) = &refusal
            && status.status_code == StatusCode::Failure
            && self.look(to).await.is_ok_and(|found| found.kind == FileKind::Directory)
        {
            return Err(self.taken(to));
        }
        Err(self.failed("put in place", to, refusal))
    }

    /// Gives something another name that nothing has; whether it was free.
    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<bool> {
        match self.raw().rename(from, to).await {
            Ok(_) => Ok(true),
            Err(error) => match self.look(to).await {
                Ok(_) => Ok(false),
                Err(_) => Err(self.failed("put in place", to, error)),
            },
        }
    }

    /// Gives a file a second name; `false` where that cannot be done at all.
    pub(crate) async fn link(&self, from: &str, to: &str) -> Result<bool> {
        if !self.0.links {
            return Ok(false);
        }
        match self.raw().hardlink(from, to).await {
            Ok(_) => Ok(true),
            Err(Refusal::Status(status)) if matches!(status.status_code, StatusCode::Failure | StatusCode::OpUnsupported) => Ok(false),
            Err(error) => Err(self.failed("link", to, error)),
        }
    }

    /// Bytes that are free for the login where that path is, if the server tells.
    pub(crate) async fn space(&self, path: &str) -> Result<Option<u64>> {
        if !self.0.measures {
            return Ok(None);
        }
        let found = self.raw().statvfs(path).await.map_err(|error| self.failed("measure", path, error))?;
        Ok(Some(found.blocks_avail.saturating_mul(found.fragment_size)))
    }

    /// Whether nothing more can be made there, because there is no room for contents or for names. Where it cannot be known it is not.
    async fn is_full(&self, path: &str) -> bool {
        if !self.0.measures {
            return false;
        }
        // A file system that counts no files says 0 of 0.
        let full = |found: Statvfs| {
            found.blocks_avail.saturating_mul(found.fragment_size) < 64 << 10 || (found.inodes > 0 && found.inodes_avail == 0)
        };
        self.raw().statvfs(path).await.is_ok_and(full)
    }

    /// Removes a file; one that is not there is removed already.
    pub(crate) async fn remove_file(&self, path: &str) -> Result<()> {
        match self.raw().remove(path).await {
            Ok(_) => Ok(()),
            Err(Refusal::Status(status)) if status.status_code == StatusCode::NoSuchFile => Ok(()),
            Err(error) => Err(self.failed("remove", path, error)),
        }
    }

    /// Removes a directory and everything in it, following no link.
    pub(crate) async fn remove_tree(&self, path: &str) -> Result<()> {
        let mut open = vec![(path.to_owned(), false)];
        while let Some((dir, emptied)) = open.pop() {
            if emptied {
                match self.raw().rmdir(dir.as_str()).await {
                    Ok(_) => {}
                    Err(Refusal::Status(status)) if status.status_code == StatusCode::NoSuchFile => {}
                    Err(error) => return Err(self.failed("remove", &dir, error)),
                }
                continue;
            }
            let entries = match self.list(&dir).await {
                Ok(entries) => entries,
                Err(error) if error.code() == Code::FileNotFound => continue,
                Err(error) => return Err(error),
            };
            open.push((dir.clone(), true));
            for entry in entries {
                let below = format!("{dir}/{}", String::from_utf8_lossy(&entry.name));
                if entry.kind == FileKind::Directory { open.push((below, false)) } else { self.remove_file(&below).await? }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_and_refused() {
        assert_eq!((split("a"), split("/a"), split("a/b/"), split("/")), ((".", "a"), ("/", "a"), ("a", "b"), (".", "")));
        assert_eq!((path(b"").unwrap(), path("ä".as_bytes()).unwrap()), (".", "ä"));
        for bad in [&b"a\0b"[..], b"\xff", &[b'x'; 5_000]] {
            assert_eq!(path(bad).unwrap_err().code(), Code::FileRefused);
        }
    }
}
