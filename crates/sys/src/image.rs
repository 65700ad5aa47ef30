//! New files that are mostly holes: images of disks.

use rustix::{
    fs::{Access, access},
    io::Errno,
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};
use vmoon_core::{Error, Result};

/// Puts a file of `length` bytes at `path`, zeros but for these pieces at their offsets, mode 0600, replacing what is there. Others see it whole or not at
/// all. It is not forced to the disk: a new image holds nothing yet that could be lost, and whoever writes into it later syncs it whole.
///
/// # Errors
/// Those of the file system.
pub fn create(path: &Path, pieces: &[(u64, Vec<u8>)], length: u64) -> Result<()> {
    let failed = |error| Error::io(format_args!("make {}", path.display()), error);
    let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    let temporary = path.with_file_name(hidden);
    let written = write(&temporary, pieces, length).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The error that counts is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

fn write(path: &Path, pieces: &[(u64, Vec<u8>)], length: u64) -> io::Result<()> {
    // A remainder of a crash is taken over, a link is not followed.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_len(length)?;
    pieces.iter().try_for_each(|(at, piece)| file.write_all_at(piece, *at))
}

/// At most so many bytes from the beginning of a file.
///
/// # Errors
/// Those of the file system.
pub fn head(path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut head = Vec::new();
    File::open(path)?.take(bytes as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Whether files can be made in that directory by this process.
pub fn may_write(directory: &Path) -> bool {
    match access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => directory.is_dir(),
        Err(Errno::ACCESS | Errno::NOENT | Errno::ROFS | Errno::NOTDIR | Errno::PERM) => false,
        Err(_) => false,
    }
}

/// Whether this process may read and write what is at that path, for example a socket.
pub fn may_use(path: &Path) -> bool {
    access(path, Access::READ_OK | Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn an_image_is_sparse_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for _ in 0..2 {
            create(&path, &[(0, b"head".to_vec()), (1 << 20, b"far".to_vec())], 1 << 30).unwrap();
        }
        let meta = fs::metadata(&path).unwrap();
        assert!(meta.len() == 1 << 30 && meta.blocks() * 512 < 1 << 20 && meta.mode() & 0o777 == 0o600);
        assert_eq!((head(&path, 4).unwrap(), fs::read_dir(dir.path()).unwrap().count()), (b"head".to_vec(), 1));
        assert!(create(&dir.path().join("no/such"), &[], 1).is_err());
        assert!(may_use(&path) && !may_use(&dir.path().join("none")));
        assert!(may_write(dir.path()) && !may_write(&path) && !may_write(&dir.path().join("none")));
    }
}
