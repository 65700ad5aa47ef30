//! What is on disks: one sparse file for each, made when somebody first writes or reads it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
};
use tempfile::TempDir;

/// A folder of its own, made when it is first needed; it goes with this.
#[derive(Debug, Default)]
pub(crate) struct Images {
    folder: OnceLock<TempDir>,
}

impl Images {
    /// Where everything is.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn folder(&self) -> io::Result<&Path> {
        if let Some(folder) = self.folder.get() {
            return Ok(folder.path());
        }
        // The names of sockets in it must stay short.
        let made = tempfile::Builder::new().prefix("xapi-sim-").tempdir()?;
        Ok(self.folder.get_or_init(|| made).path())
    }

    /// The file of a disk of so many bytes, by its reference. One that nobody has written is all zeros.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn file(&self, disk: &str, bytes: u64) -> io::Result<PathBuf> {
        let path = self.path(disk)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        if file.metadata()?.len() < bytes {
            file.set_len(bytes)?;
        }
        Ok(path)
    }

    /// Gives one disk what another has.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn copy(&self, from: &str, to: &str) -> io::Result<()> {
        // What was never written has no file.
        if self.folder.get().is_none() || !self.path(from)?.exists() {
            return Ok(());
        }
        vmoon_sys::copy::file(&self.path(from)?, &self.path(to)?)
    }

    /// Forgets what a disk has; missing is fine.
    pub(crate) fn remove(&self, disk: &str) {
        if self.folder.get().is_some()
            && let Ok(path) = self.path(disk)
        {
            let _ = fs::remove_file(path);
        }
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        // References are ours; whatever else came here is made a plain name.
        let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        Ok(self.folder()?.join(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_written_takes_no_room() {
        let images = Images::default();
        images.copy("OpaqueRef:a", "OpaqueRef:b").unwrap();
        images.remove("OpaqueRef:a");
        assert!(images.folder.get().is_none(), "nothing was needed yet");
        let file = images.file("OpaqueRef:../a", 1 << 40).unwrap();
        assert!(file.starts_with(images.folder().unwrap()));
        fs::write(&file, "x").unwrap();
        images.copy("OpaqueRef:../a", "OpaqueRef:b").unwrap();
        assert_eq!(fs::read(images.file("OpaqueRef:b", 1).unwrap()).unwrap(), b"x");
        images.remove("OpaqueRef:b");
        assert_eq!(fs::read(images.file("OpaqueRef:b", 1).unwrap()).unwrap(), b"\0");
    }
}
