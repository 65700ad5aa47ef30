//! Secrets: passwords and passphrases, zeroed when they are dropped, kept in files that only this user can read.
//!
//! Each has a file of its own (0600, in a directory of mode 0700), named by what it belongs to. Nothing of it is ever printed:
//! `Debug` shows its length only.

use crate::{atomic, paths::private_dir};
use rustix::fs::{Mode, OFlags};
use std::{
    fmt,
    fs::File,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};
use vmoon_core::{Code, ConnectionId, Error, Result};
use zeroize::Zeroizing;

/// The longest secret, bytes.
pub const LONGEST: usize = 4096;

/// A secret in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over; they are zeroed when the last copy is dropped.
    ///
    /// # Errors
    /// [`Code::Usage`] if there are none, or more than [`LONGEST`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = Zeroizing::new(bytes.into());
        if bytes.is_empty() || bytes.len() > LONGEST {
            return Err(Error::new(Code::Usage, format!("a secret has 1 to {LONGEST} bytes, not {}", bytes.len())));
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The text, if it is one.
    ///
    /// # Errors
    /// [`Code::Usage`] if it is not UTF-8.
    pub fn expose_text(&self) -> Result<&str> {
        std::str::from_utf8(&self.0).map_err(|_| Error::new(Code::Usage, "the secret is not valid UTF-8"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// The directory in which secrets are kept.
#[derive(Clone, Debug)]
pub struct Secrets(PathBuf);

impl Secrets {
    /// The secrets in this directory, which is made when the first one is kept.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    fn path(&self, id: ConnectionId) -> PathBuf {
        self.0.join(id.to_string())
    }

    /// Keeps the secret of a connection, replacing the former one.
    ///
    /// # Errors
    /// `disk.full`, `permission` or `file.failed`; the former one then still stands.
    pub fn put(&self, id: ConnectionId, secret: &Secret) -> Result<()> {
        private_dir(&self.0)?;
        atomic::write(&self.path(id), secret.expose())
    }

    /// The secret of a connection; `None` if none is kept.
    ///
    /// # Errors
    /// [`Code::Permission`] if the file is not ours alone; `file.failed`.
    pub fn get(&self, id: ConnectionId) -> Result<Option<Secret>> {
        let path = self.path(id);
        match read(&path) {
            Ok(bytes) => Secret::new(bytes).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format_args!("read the secret {}", path.display()), error)),
        }
    }

    /// Removes the secret of a connection, if one is kept.
    ///
    /// # Errors
    /// `permission` or `file.failed`.
    pub fn remove(&self, id: ConnectionId) -> Result<()> {
        let path = self.path(id);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::io(format_args!("remove the secret {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }
}

/// Reads a file that must be ours, an ordinary one, and closed to others. A link is not followed.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?);
    let stat = rustix::fs::fstat(&file)?;
    let ordinary = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
    if !ordinary || stat.st_uid != rustix::process::getuid().as_raw() || stat.st_mode & 0o077 != 0 {
        return Err(std::io::Error::new(ErrorKind::PermissionDenied, "it must be a file of ours that nobody else may read"));
    }
    // Reserved at once: a vector that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(LONGEST + 1);
    file.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn id(n: u128) -> ConnectionId {
        ConnectionId::from_uuid(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn a_secret_is_kept_private_replaced_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(dir.path().join("secrets"));
        assert_eq!(secrets.get(id(1)).unwrap(), None);
        secrets.remove(id(1)).unwrap();
        secrets.put(id(1), &Secret::new("old").unwrap()).unwrap();
        secrets.put(id(1), &Secret::new(&b"n\xff\0w"[..]).unwrap()).unwrap();
        assert_eq!(secrets.get(id(1)).unwrap().unwrap().expose(), b"n\xff\0w");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&secrets.0), mode(&secrets.path(id(1)))), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(&secrets.0).unwrap().count(), 1, "a temporary file was left");
        secrets.remove(id(1)).unwrap();
        assert_eq!(secrets.get(id(1)).unwrap(), None);
    }

    #[test]
    fn what_others_could_read_or_have_put_there_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(dir.path());
        secrets.put(id(1), &Secret::new("x").unwrap()).unwrap();
        std::fs::set_permissions(secrets.path(id(1)), PermissionsExt::from_mode(0o640)).unwrap();
        assert_eq!(secrets.get(id(1)).unwrap_err().code(), Code::Permission);
        symlink(secrets.path(id(1)), secrets.path(id(2))).unwrap();
        assert!(secrets.get(id(2)).is_err(), "a link was followed");
        std::fs::create_dir(secrets.path(id(3))).unwrap();
        assert!(secrets.get(id(3)).is_err());
    }

    #[test]
    fn nothing_prints_a_secret_and_its_size_has_bounds() {
        let secret = Secret::new("hunter2").unwrap();
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(7 bytes) Some(Secret(7 bytes))");
        assert_eq!(secret.expose_text().unwrap(), "hunter2");
        assert_eq!(Secret::new("").unwrap_err().code(), Code::Usage);
        assert_eq!(Secret::new(vec![b'x'; LONGEST + 1]).unwrap_err().code(), Code::Usage);
        assert!(Secret::new(&b"\xff"[..]).unwrap().expose_text().is_err());
    }
}
