//! Archives of sources and rocks, which may be hostile: what would write outside its directory, or fill the disk, is refused whole.
//!
//! An archive is unpacked into a new directory that nobody else knows. Links are made last, when nothing is written any more, so nothing is ever written
//! through one. If anything is wrong the directory is removed.

mod names;
mod tar;
mod zip;

use self::names::Tree;
use flate2::read::MultiGzDecoder;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use vmoon_core::{Code, Error, Result, name::escape};
use vmoon_sys::stop::Stop;

/// What an archive may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Files, directories and links.
    pub entries: usize,
    /// Bytes of all files together.
    pub total: u64,
    /// How many times larger than the archive its content may be, once it is larger than [`Limits::free`].
    pub ratio: u64,
    /// Bytes below which the ratio is not looked at.
    pub free: u64,
}

impl Default for Limits {
    /// 65 000 entries, 1 GiB, a hundredfold beyond 64 MiB: the largest rocks of the public server stay below a tenth of each.
    fn default() -> Self {
        Self { entries: 65_000, total: 1 << 30, ratio: 100, free: 64 << 20 }
    }
}

/// The kinds of archive that rocks and their sources come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `.tar`
    Tar,
    /// `.tar.gz`, `.tgz`
    TarGz,
    /// `.tar.bz2`, `.tbz`, `.tbz2`
    TarBz2,
    /// `.zip`, `.rock`
    Zip,
}

impl Kind {
    /// The kind that a file name says; `None` for what is taken for a single file.
    ///
    /// # Errors
    /// [`Code::PackageArchive`] for archives of a kind that cannot be read.
    pub fn of(name: &str) -> Result<Option<Self>> {
        let lower = name.to_ascii_lowercase();
        let ends = |all: &[&str]| all.iter().any(|end| lower.ends_with(end));
        if ends(&[".tar.gz", ".tgz"]) {
            Ok(Some(Self::TarGz))
        } else if ends(&[".tar.bz2", ".tbz", ".tbz2"]) {
            Ok(Some(Self::TarBz2))
        } else if ends(&[".zip", ".rock"]) {
            Ok(Some(Self::Zip))
        } else if ends(&[".tar"]) {
            Ok(Some(Self::Tar))
        } else if ends(&[".tar.xz", ".txz", ".xz", ".7z", ".tar.zst", ".zst", ".rar", ".gz", ".bz2", ".lz", ".tar.lzma"]) {
            Err(Error::new(Code::PackageArchive, format!("{} is an archive of a kind that is not read here", escape(name)))
                .hint("vmoon reads .tar, .tar.gz, .tgz, .tar.bz2, .zip and .rock"))
        } else {
            Ok(None)
        }
    }
}

/// Unpacks the archive `file`, which is called `name`, into `into`, a directory that does not exist and whose parent does. Gives back the paths of the files
/// in it, sorted. A file that is no archive becomes the only one in `into`, under its name.
///
/// # Errors
/// [`Code::PackageArchive`] for what is damaged, hostile or too large, [`Code::DiskFull`], [`Code::FileFailed`], [`Code::Cancelled`]. Nothing is left then.
pub fn unpack(file: &Path, name: &str, into: &Path, limits: Limits, stop: &Stop) -> Result<Vec<PathBuf>> {
    let kind = Kind::of(name)?;
    let opened = File::open(file).map_err(|error| Error::io(format_args!("open {}", file.display()), error))?;
    let size = opened.metadata().map_err(|error| Error::io(format_args!("look at {}", file.display()), error))?.len();
    fs::DirBuilder::new()
        .mode(0o755)
        .create(into)
        .map_err(|error| Error::io(format_args!("make the directory {}", into.display()), error))?;
    let mut sink = Sink {
        name,
        into,
        limits,
        stop,
        allowed: limits.total.min(limits.free.max(size.saturating_mul(limits.ratio))),
        tree: Tree::default(),
    };
    let reader = BufReader::with_capacity(64 << 10, opened);
    let done = match kind {
        None => sink.single(reader),
        Some(Kind::Tar) => tar::read(reader, &mut sink),
        Some(Kind::TarGz) => tar::read(MultiGzDecoder::new(reader), &mut sink),
        Some(Kind::TarBz2) => tar::read(bzip2::read::MultiBzDecoder::new(reader), &mut sink),
        Some(Kind::Zip) => zip::read(reader, size, &mut sink),
    };
    match done.and_then(|()| sink.links()) {
        Ok(()) => Ok(sink.tree.files()),
        Err(error) => {
            // What matters is why it was refused; the directory lies below a temporary one that is removed in any case.
            let _ = fs::remove_dir_all(into);
            Err(error)
        }
    }
}

/// Where entries go once they are found to be harmless.
struct Sink<'a> {
    name: &'a str,
    into: &'a Path,
    limits: Limits,
    stop: &'a Stop,
    /// Bytes that may still be written.
    allowed: u64,
    tree: Tree,
}

impl Sink<'_> {
    /// The refusal of this archive.
    fn refused(&self, why: impl std::fmt::Display) -> Error {
        Error::new(Code::PackageArchive, format!("the archive {} is refused: {why}", escape(self.name)))
            .hint("nothing of it was kept; if the server is right about it, report it to whoever made the archive")
    }

    /// What is said of a reader that failed.
    fn damaged(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.refused("it is truncated"),
            _ => self.refused(format_args!("it is damaged: {error}")),
        }
    }

    fn count(&self) -> Result<()> {
        self.stop.check()?;
        if self.tree.len() >= self.limits.entries {
            return Err(self.refused(format_args!("it has more than {} entries", self.limits.entries)));
        }
        Ok(())
    }

    fn directory(&mut self, raw: &[u8]) -> Result<()> {
        self.count()?;
        let path = names::path(raw).and_then(|path| self.tree.directory(&path).map(|()| path)).map_err(|why| self.refused(why))?;
        fs::create_dir_all(self.into.join(&path)).map_err(|error| Error::io(format_args!("unpack {}", path.display()), error))
    }

    /// Writes one file of `size` bytes, no more and no less.
    fn file(&mut self, raw: &[u8], executable: bool, size: u64, content: impl Read) -> Result<()> {
        self.count()?;
        let path = names::path(raw).and_then(|path| self.tree.file(&path).map(|()| path)).map_err(|why| self.refused(why))?;
        if size > self.allowed {
            return Err(self.refused("it would unpack to more than is allowed for its size: it looks like a bomb"));
        }
        self.allowed -= size;
        let target = self.into.join(&path);
        let failed = |error| Error::io(format_args!("unpack {}", path.display()), error);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let mode = if executable { 0o755 } else { 0o644 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&target).map_err(failed)?;
        let mut content = content.take(size);
        let (mut buffer, mut written) = (vec![0; 64 << 10], 0);
        loop {
            self.stop.check()?;
            let n = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.damaged(error)),
            };
            file.write_all(&buffer[..n]).map_err(failed)?;
            written += n as u64;
        }
        if written == size { Ok(()) } else { Err(self.refused("it is truncated")) }
    }

    fn link(&mut self, raw: &[u8], target: &[u8], hard: bool) -> Result<()> {
        self.count()?;
        names::path(raw).and_then(|path| self.tree.link(path, target, hard)).map_err(|why| self.refused(why))
    }

    /// Makes the links, which all lead to somewhere inside.
    fn links(&mut self) -> Result<()> {
        for link in self.tree.checked_links().map_err(|why| self.refused(why))? {
            let at = self.into.join(&link.path);
            let failed = |error| Error::io(format_args!("unpack {}", link.path.display()), error);
            if let Some(parent) = at.parent() {
                fs::create_dir_all(parent).map_err(failed)?;
            }
            if link.hard {
                fs::hard_link(self.into.join(&link.target), &at).map_err(failed)?;
            } else {
                std::os::unix::fs::symlink(&link.target, &at).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn single(&mut self, mut content: impl Read) -> Result<()> {
        let name = self.name.to_owned();
        let mut bytes = Vec::new();
        content.by_ref().take(self.allowed + 1).read_to_end(&mut bytes).map_err(|error| self.damaged(error))?;
        self.file(name.as_bytes(), false, bytes.len() as u64, bytes.as_slice())
    }
}

#[cfg(test)]
mod tests;
