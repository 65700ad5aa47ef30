//! What is made once and kept in the target directory, also when several test processes start at once: each piece is made under a lock, beside its place,
//! and renamed into it whole.

use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The target directory of cargo that this program is in: the one with the tag.
///
/// # Errors
/// If it is in none, or nobody can say where it is.
pub fn target() -> io::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    target.map(Path::to_owned).ok_or_else(|| io::Error::other("this program is not in a target directory of cargo"))
}

/// A folder of the target directory for what is kept, and the right to change it until the file is dropped.
///
/// # Errors
/// Those of the file system, and of [`target`].
pub fn locked(name: &str) -> io::Result<(PathBuf, File)> {
    let folder = target()?.join(name);
    fs::create_dir_all(&folder)?;
    let lock = File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    Ok((folder, lock))
}

/// When and how large: what tells one version of a file from another.
///
/// # Errors
/// Those of the file system.
pub fn version(file: &Path) -> io::Result<String> {
    let meta = fs::metadata(file)?;
    Ok(format!("{}-{}", meta.ctime(), meta.size()))
}
