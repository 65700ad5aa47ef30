//! What has to be there after a power cut: forced to the disk before others rely on it.
//!
//! A rename makes a change whole for whoever looks at a running system. The kernel may still write a rename to the disk before the files that it made
//! visible; after a power cut there would be names of empty files. So the content is forced out first, then the name.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};
use vmoon_core::{Error, Result};

fn failed(what: &str, path: &Path, error: impl Into<std::io::Error>) -> Error {
    Error::io(format_args!("{what} {} to the disk", path.display()), error.into())
}

/// Forces everything of the file system that `dir` is on to its disk, by syncfs(2): one wait for any number of files, instead of one for each.
/// What other programs have written there is waited for, too.
///
/// # Errors
/// `disk.full`, `file.failed`: something could not be written, perhaps somebody else's.
pub fn file_system(dir: &Path) -> Result<()> {
    let opened = File::open(dir).map_err(|error| failed("write", dir, error))?;
    rustix::fs::syncfs(&opened).map_err(|error| failed("write", dir, error))
}

/// Forces a directory to the disk: which names it has, and whose they are.
///
/// # Errors
/// `disk.full`, `file.failed`.
pub fn directory(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|opened| opened.sync_all()).map_err(|error| failed("write", dir, error))
}

/// As [`crate::atomic::write`], and on the disk when it returns.
///
/// # Errors
/// `disk.full`, `permission` or `file.failed`; the old content then still stands.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = OsStr::new(".").to_owned();
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", &crate::random::key()[..16]));
    let beside = path.with_file_name(name);
    let attempt = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&beside, path)
    };
    attempt().map_err(|error| {
        // The error that matters is the first one.
        let _ = fs::remove_file(&beside);
        Error::io(format_args!("write {}", path.display()), error)
    })?;
    path.parent().map_or(Ok(()), directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole_and_what_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left");
        assert!(write(dir.path(), b"x").is_err(), "a directory was replaced");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left");
        directory(dir.path()).unwrap();
        file_system(dir.path()).unwrap();
        for missing in [directory(&dir.path().join("no")), file_system(&dir.path().join("no")), write(&dir.path().join("no/x"), b"x")] {
            assert!(missing.is_err());
        }
    }
}
