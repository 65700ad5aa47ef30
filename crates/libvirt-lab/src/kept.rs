//! What libvirt found out once, kept in the target directory, also when several test processes start at once.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::chown,
    path::{Path, PathBuf},
};
use vmoon_guest_image::kept::{locked, version};

/// What libvirt found out about every emulator, which takes it many seconds: kept for the next daemon. libvirt checks it against the programs and asks
/// again if they changed.
pub(crate) struct Capabilities {
    place: PathBuf,
    /// Held by the one who makes it first, so that the others wait for it instead of doing the same.
    making: Option<File>,
}

impl Capabilities {
    pub(crate) fn open(of_a_user: bool) -> io::Result<Self> {
        let version = [version(Path::new("/usr/sbin/libvirtd"))?, version(Path::new("/usr/bin/qemu-system-x86_64"))?].join("-");
        let (folder, lock) = locked("libvirt-lab")?;
        let place = folder.join(format!("capabilities-{}{version}", if of_a_user { "user-" } else { "" }));
        let making = (!place.is_dir()).then_some(lock);
        Ok(Self { place, making })
    }

    pub(crate) fn bring(&self, cache: &Path, owner: Option<u32>) -> io::Result<()> {
        if self.making.is_some() {
            return Ok(());
        }
        fs::create_dir_all(cache)?;
        copy(&self.place, cache)?;
        if owner.is_some() { own(cache, owner) } else { Ok(()) }
    }

    pub(crate) fn keep(self, cache: &Path) -> io::Result<()> {
        if self.making.is_none() {
            return Ok(());
        }
        let beside = self.place.with_extension("new");
        let _ = fs::remove_dir_all(&beside);
        fs::create_dir(&beside)?;
        copy(cache, &beside)?;
        fs::rename(&beside, &self.place)
    }
}

/// Gives a folder and all in it to a user.
fn own(path: &Path, owner: Option<u32>) -> io::Result<()> {
    chown(path, owner, owner)?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path(), owner)?;
        }
    }
    Ok(())
}

/// Copies what is in a folder, with the folders in it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let (entry, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        let to = to.join(entry.file_name().unwrap_or_default());
        if kind.is_dir() {
            fs::create_dir_all(&to)?;
            copy(&entry, &to)?;
        } else if kind.is_file() {
            fs::copy(&entry, &to)?;
        }
    }
    Ok(())
}
