//! Small files that are either the old or the new, never half written.
//!
//! A temporary file beside the target is renamed over it. There is no fsync: these records describe processes, which do
//! not survive the power failure that an fsync would guard against.

use serde::{Serialize, de::DeserializeOwned};
use std::{
    borrow::Cow,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};
use vmoon_core::{Error, Result};

/// Writes `bytes` to `path`, replacing what is there, readable and writable by this user only (0600).
///
/// # Errors
/// `disk.full`, `permission` or `file.failed`; the old content then still stands.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = beside(path);
    let attempt = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        drop(file);
        fs::rename(&beside, path)
    };
    attempt().map_err(|error| {
        // The error that matters is the first one; a left-over is overwritten by the next attempt.
        let _ = fs::remove_file(&beside);
        Error::io(format_args!("write {}", path.display()), error)
    })
}

/// Writes `value` as JSON; see [`write()`].
///
/// # Errors
/// As [`write()`]; `internal` if the value has no JSON form.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| Error::internal("a record has no JSON form").source(error))?;
    bytes.push(b'\n');
    write(path, &bytes)
}

/// Reads JSON from `path`; `None` if there is no such file.
///
/// # Errors
/// `permission` or `file.failed`, the latter also if the content is not what is expected.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let mut small = [0; SMALL];
    let bytes = match read(path, &mut small) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(Error::io(format_args!("read {}", path.display()), error)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::io(format_args!("read {}", path.display()), error.into()))
}

/// Most records are shorter.
const SMALL: usize = 4096;

/// The content of a file. A short one takes one read(2), which is given less than it wanted only at the end of a file.
fn read<'a>(path: &Path, small: &'a mut [u8; SMALL]) -> std::io::Result<Cow<'a, [u8]>> {
    let mut file = File::open(path)?;
    let n = file.read(small)?;
    if n < SMALL {
        return Ok(Cow::Borrowed(&small[..n]));
    }
    let mut all = small.to_vec();
    file.read_to_end(&mut all)?;
    Ok(Cow::Owned(all))
}

/// Distinguishes writes of one process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The temporary name: it begins with a dot and bears our pid and a number, so that neither two processes nor two threads write to one file.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use vmoon_core::Code;

    #[test]
    fn a_record_is_replaced_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.json");
        assert_eq!(read_json::<u32>(&path).unwrap(), None);
        write_json(&path, &1).unwrap();
        write_json(&path, &2).unwrap();
        assert_eq!(read_json::<u32>(&path).unwrap(), Some(2));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn records_of_every_length_are_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        for len in [0, 1, SMALL - 4, SMALL - 3, SMALL - 2, SMALL - 1, SMALL, 3 * SMALL + 1] {
            let text = "x".repeat(len);
            write_json(&path, &text).unwrap();
            assert_eq!(read_json::<String>(&path).unwrap(), Some(text));
        }
    }

    #[test]
    fn a_half_written_or_foreign_file_is_an_error_and_a_failed_write_keeps_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        fs::write(&path, "{\"a\":").unwrap();
        assert_eq!(read_json::<serde_json::Value>(&path).unwrap_err().code(), Code::FileFailed);
        assert_eq!(read_json::<u32>(&path.join("below")).unwrap(), None);
        assert!(write(&dir.path().join("no/such/dir"), b"x").is_err());
        assert!(write(dir.path(), b"x").is_err(), "a directory was replaced");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left");
    }
}
