//! What is on disks: one sparse file for each, made when somebody first writes or reads it. And the memory of VMs that are suspended.

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
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

    /// What a disk has at a place; nothing of it is read that was never written.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn read(&self, disk: &str, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        if let Some(file) = self.written(disk)? {
            let mut done = 0;
            while done < length {
                match file.read_at(&mut bytes[done..], at + done as u64)? {
                    0 => break,
                    count => done += count,
                }
            }
        }
        Ok(bytes)
    }

    /// Writes a disk of so many bytes from a place on.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn write(&self, disk: &str, size: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        File::options().write(true).open(self.file(disk, size)?)?.write_all_at(bytes, at)
    }

    /// Which pieces of that length have been written, by number.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn pieces(&self, disk: &str, length: u64) -> io::Result<Vec<u64>> {
        let Some(file) = self.written(disk)? else { return Ok(Vec::new()) };
        let (mut all, mut at) = (Vec::new(), 0);
        loop {
            match seek(&file, SeekFrom::Data(at)) {
                Ok(found) => {
                    let number = found / length;
                    all.push(number);
                    at = (number + 1) * length;
                }
                // There is no data after that.
                Err(Errno::NXIO) => return Ok(all),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The file of a disk that somebody has written or read.
    fn written(&self, disk: &str) -> io::Result<Option<File>> {
        if self.folder.get().is_none() {
            return Ok(None);
        }
        match File::open(self.path(disk)?) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The file of the memory of a suspended VM or of a snapshot; it need not be there.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn memory(&self, vm: &str) -> io::Result<PathBuf> {
        self.path(&memory(vm))
    }

    /// Gives a VM the memory of a snapshot, or none.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn copy_memory(&self, from: &str, to: &str) -> io::Result<()> {
        self.remove_memory(to);
        self.copy(&memory(from), &memory(to))
    }

    /// Forgets the memory of a VM; missing is fine.
    pub(crate) fn remove_memory(&self, vm: &str) {
        self.remove(&memory(vm));
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

fn memory(vm: &str) -> String {
    format!("memory-{vm}")
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
        images.write("OpaqueRef:b", 1 << 30, 5 << 20, b"yz").unwrap();
        assert_eq!(images.pieces("OpaqueRef:b", 1 << 20).unwrap(), [0, 5]);
        assert_eq!(images.read("OpaqueRef:b", (5 << 20) - 1, 4).unwrap(), b"\0yz\0");
        assert!(images.pieces("OpaqueRef:never", 1 << 20).unwrap().is_empty());
        assert_eq!(images.read("OpaqueRef:never", 7, 2).unwrap(), b"\0\0");
        images.remove("OpaqueRef:b");
        assert_eq!(fs::read(images.file("OpaqueRef:b", 1).unwrap()).unwrap(), b"\0");
    }
}
