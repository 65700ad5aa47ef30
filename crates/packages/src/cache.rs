//! The cache: content under its SHA-256, and which content a URL last had. Content is compared with its name whenever it is read.
//!
//! ```text
//! blobs/AB/ABCD…     content
//! urls/SUM.json      what the URL with this sum had
//! partial/SUM        a download that was broken off, and SUM.json beside it
//! built/KEY/         what came of a build
//! transcripts/       what compilers and build tools said while a build failed
//! ```

use crate::{
    digest::{self, is_sha256},
    name::RockName,
    version::Version,
};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::{atomic, paths, random};

/// What a URL had when it was last fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The URL.
    pub url: String,
    /// The SHA-256 of its content.
    pub sha256: String,
    /// Its size, bytes.
    pub size: u64,
    /// When, milliseconds since the Unix epoch.
    pub fetched_ms: u64,
    /// The server's `ETag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The server's `Last-Modified`; of a file its identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
}

/// Content in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Where it is. Nobody may write there.
    pub path: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
    /// Its size, bytes.
    pub size: u64,
}

/// How much is cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Files of content.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rocks that were built, see [`crate::build`].
    pub built: u64,
    /// Their bytes.
    pub built_bytes: u64,
}

/// The directory `<cache>/vmoon/rocks`.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// How long something may lie in a directory for passing work before nobody can be at work on it any more.
const PASSING: Duration = Duration::from_secs(3 * 24 * 3600);

/// Somebody uses the cache: nothing of it is removed until this is dropped.
#[derive(Debug)]
pub struct InUse(File);

impl Drop for InUse {
    fn drop(&mut self) {
        // Closing is not enough: a process that is being started just now has the descriptor until it executes its program.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Cache {
    /// Opens it; makes what is missing, for this user only, and removes what was left by work that was killed days ago.
    ///
    /// # Errors
    /// [`vmoon_core::Code::Permission`] if it belongs to somebody else, [`vmoon_core::Code::FileFailed`].
    pub fn open(root: &Path) -> Result<Self> {
        paths::private_dir(root)?;
        let this = Self { root: root.to_owned() };
        for name in ["blobs", "urls", "partial", "built", "work"] {
            let dir = root.join(name);
            match fs::create_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io(format_args!("make the directory {}", dir.display()), error));
                }
                _ => {}
            }
        }
        let limit = before(PASSING);
        for name in ["partial", "work"] {
            for entry in fs::read_dir(root.join(name)).into_iter().flatten().flatten() {
                if entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|used| used < limit) {
                    // What cannot be removed now is removed another time.
                    let _ = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        remove(&entry.path())
                    } else {
                        fs::remove_file(entry.path()).map_err(|error| Error::io("remove a left-over", error))
                    };
                }
            }
        }
        Ok(this)
    }

    fn lock(&self, how: FlockOperation) -> Result<InUse> {
        let path = self.root.join("lock");
        let opened = File::options().write(true).create(true).truncate(false).open(&path);
        let opened = opened.map_err(|error| Error::io(format_args!("open {}", path.display()), error))?;
        match flock(&opened, how) {
            Ok(()) => Ok(InUse(opened)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::new(Code::EnvironmentBusy, "the cache of packages is in use just now")
                .hint("wait until nothing is installed and nothing is removed from the cache")),
            Err(error) => Err(Error::io(format_args!("lock {}", path.display()), error.into())),
        }
    }

    /// Keeps everything in it while something is installed.
    ///
    /// # Errors
    /// [`Code::EnvironmentBusy`] while it is cleaned.
    pub fn in_use(&self) -> Result<InUse> {
        self.lock(FlockOperation::NonBlockingLockShared)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where rocks are kept that were built.
    pub(crate) fn built(&self) -> PathBuf {
        self.root.join("built")
    }

    /// A new directory for passing work, on the file system of the cache. Whoever asks removes it.
    ///
    /// # Errors
    /// [`vmoon_core::Code::FileFailed`], [`vmoon_core::Code::DiskFull`].
    pub(crate) fn work(&self) -> Result<Work> {
        let path = self.root.join("work").join(&random::key()[..16]);
        fs::create_dir(&path).map_err(|error| Error::io(format_args!("make the directory {}", path.display()), error))?;
        Ok(Work(path))
    }

    fn blob(&self, sha256: &str) -> PathBuf {
        self.root.join("blobs").join(&sha256[..2]).join(sha256)
    }

    fn seen_at(&self, url: &str) -> PathBuf {
        self.root.join("urls").join(format!("{}.json", digest::sha256(url.as_bytes())))
    }

    /// Where a download of this URL is kept while it is not whole.
    pub(crate) fn partial(&self, url: &str) -> PathBuf {
        self.root.join("partial").join(digest::sha256(url.as_bytes()))
    }

    /// The content with this SHA-256, if it is here and whole. What is not whole any more is removed.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn get(&self, sha256: &str) -> Result<Option<Blob>> {
        if !is_sha256(sha256) {
            return Ok(None);
        }
        let path = self.blob(sha256);
        let failed = |error| Error::io(format_args!("read {}", path.display()), error);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let (found, size) = digest::sha256_of(&file).map_err(failed)?;
        if found == sha256 {
            return Ok(Some(Blob { path, sha256: found, size }));
        }
        fs::remove_file(&path).map_err(|error| Error::io(format_args!("remove the damaged {}", path.display()), error))?;
        Ok(None)
    }

    /// What this URL had when it was last fetched, if the content is still here.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn seen(&self, url: &str) -> Result<Option<(Seen, Blob)>> {
        // Notes that cannot be read are of no more worth than none.
        let Some(seen) = atomic::read_json::<Seen>(&self.seen_at(url)).ok().flatten().filter(|seen| seen.url == url) else {
            return Ok(None);
        };
        Ok(self.get(&seen.sha256)?.map(|blob| (seen, blob)))
    }

    /// Notes what a URL has.
    ///
    /// # Errors
    /// [`vmoon_core::Code::DiskFull`], [`vmoon_core::Code::FileFailed`].
    pub(crate) fn note(&self, seen: &Seen) -> Result<()> {
        atomic::write_json(&self.seen_at(&seen.url), seen)
    }

    /// Takes in a file of ours, which must lie in this cache and have this sum. It is moved.
    ///
    /// # Errors
    /// [`vmoon_core::Code::DiskFull`], [`vmoon_core::Code::FileFailed`].
    pub(crate) fn adopt(&self, file: &Path, sha256: &str, size: u64) -> Result<Blob> {
        let path = self.blob(sha256);
        let failed = |error| Error::io(format_args!("keep {}", path.display()), error);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        fs::rename(file, &path).map_err(failed)?;
        Ok(Blob { path, sha256: sha256.to_owned(), size })
    }

    /// Takes in these bytes.
    ///
    /// # Errors
    /// [`vmoon_core::Code::DiskFull`], [`vmoon_core::Code::FileFailed`].
    pub fn put(&self, bytes: &[u8]) -> Result<Blob> {
        let sha256 = digest::sha256(bytes);
        if let Some(blob) = self.get(&sha256)? {
            return Ok(blob);
        }
        let file = self.root.join("partial").join(&random::key()[..32]);
        atomic::write(&file, bytes)?;
        self.adopt(&file, &sha256, bytes.len() as u64)
    }

    /// Keeps what was said while a build failed; the newest of each version of a rock. Gives back where.
    ///
    /// # Errors
    /// [`vmoon_core::Code::DiskFull`], [`vmoon_core::Code::FileFailed`].
    pub(crate) fn keep_transcript(&self, name: &RockName, version: &Version, text: &str) -> Result<PathBuf> {
        let dir = self.root.join("transcripts");
        fs::create_dir_all(&dir).map_err(|error| Error::io(format_args!("make the directory {}", dir.display()), error))?;
        let path = dir.join(format!("{name}-{version}.txt"));
        atomic::write(&path, text.as_bytes())?;
        Ok(path)
    }

    /// How much is here.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        walk(&self.root.join("blobs"), &mut |_, meta| {
            usage.blobs += 1;
            usage.bytes += meta.len();
        })?;
        let mut first = String::new();
        walk(&self.built(), &mut |path, meta| {
            usage.built_bytes += meta.len();
            let top = path.strip_prefix(self.built()).ok().and_then(|rest| rest.components().next());
            let top = top.map(|part| part.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
            if top != first {
                first = top;
                usage.built += 1;
            }
        })?;
        Ok(usage)
    }

    /// Removes what was not used for `age`; all of it for zero. Gives back the bytes that were freed. Environments do not need the cache: their files are
    /// their own.
    ///
    /// # Errors
    /// [`Code::EnvironmentBusy`] while something is installed; something cannot be removed.
    pub fn clean(&self, age: Duration) -> Result<u64> {
        let _alone = self.lock(FlockOperation::NonBlockingLockExclusive)?;
        let limit = before(age);
        let mut freed = 0;
        let mut old = Vec::new();
        for name in ["blobs", "urls", "partial", "transcripts"] {
            walk(&self.root.join(name), &mut |path, meta| {
                if age.is_zero() || meta.accessed().or_else(|_| meta.modified()).is_ok_and(|used| used < limit) {
                    old.push((path.to_owned(), meta.len()));
                }
            })?;
        }
        for (path, size) in old {
            match fs::remove_file(&path) {
                Ok(()) => freed += size,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(format_args!("remove {}", path.display()), error)),
            }
        }
        for dir in [self.built(), self.root.join("work")] {
            for entry in fs::read_dir(&dir).map_err(|error| Error::io(format_args!("read {}", dir.display()), error))?.flatten() {
                let path = entry.path();
                let used = entry.metadata().ok().and_then(|meta| meta.modified().ok());
                if age.is_zero() || used.is_some_and(|used| used < limit) {
                    // Files that an environment shares are not freed by this.
                    walk(&path, &mut |_, meta| freed += if meta.nlink() == 1 { meta.len() } else { 0 })?;
                    remove(&path)?;
                }
            }
        }
        Ok(freed)
    }
}

/// The time that was so long ago.
fn before(age: Duration) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(vmoon_sys::clock::now_ms()).saturating_sub(age)
}

/// A directory for passing work, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Work(PathBuf);

impl Work {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What is left of it is removed by `clean`.
        let _ = remove(&self.0);
    }
}

/// Removes a directory with all that is in it, also where a builder has taken away our right to; none is fine.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open_up(dir, 0),
        Err(_) => {}
    }
    fs::remove_dir_all(dir).map_err(|error| Error::io(format_args!("remove {}", dir.display()), error))
}

fn open_up(dir: &Path, depth: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(|_| depth < 128) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path(), depth + 1);
        }
    }
}

/// Looks at all files below a directory; no link is followed.
pub(crate) fn walk(dir: &Path, look: &mut dyn FnMut(&Path, &fs::Metadata)) -> Result<()> {
    let failed = |error| Error::io(format_args!("read {}", dir.display()), error);
    let mut entries: Vec<PathBuf> = match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>().map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    entries.sort();
    for path in entries {
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io(format_args!("look at {}", path.display()), error)),
        };
        if meta.is_dir() { walk(&path, look)? } else { look(&path, &meta) }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_what_its_name_says_or_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("rocks")).unwrap();
        let blob = cache.put(b"hello").unwrap();
        assert_eq!(cache.put(b"hello").unwrap(), blob);
        assert_eq!(cache.get(&blob.sha256).unwrap().as_ref(), Some(&blob));
        let seen = Seen { url: "https://x/y".into(), sha256: blob.sha256.clone(), size: 5, ..Seen::default() };
        cache.note(&seen).unwrap();
        assert_eq!(cache.seen("https://x/y").unwrap(), Some((seen, blob.clone())));
        fs::write(&blob.path, "hullo").unwrap();
        assert_eq!(cache.get(&blob.sha256).unwrap(), None);
        assert!(!blob.path.exists());
        assert_eq!(cache.seen("https://x/y").unwrap(), None);
        assert_eq!(cache.get("../../etc/passwd").unwrap(), None);
        // A link in place of our directory is not followed.
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        assert!(Cache::open(&dir.path().join("link")).is_err());
    }

    #[test]
    fn cleaning_frees_what_is_old_or_all() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("rocks")).unwrap();
        cache.put(b"hello").unwrap();
        fs::create_dir(cache.built().join("x")).unwrap();
        fs::write(cache.built().join("x/y"), "four").unwrap();
        assert_eq!(cache.usage().unwrap(), Usage { blobs: 1, bytes: 5, built: 1, built_bytes: 4 });
        assert_eq!(cache.clean(Duration::from_secs(3600)).unwrap(), 0);
        let used = (cache.in_use().unwrap(), cache.in_use().unwrap());
        assert_eq!(cache.clean(Duration::ZERO).unwrap_err().code(), Code::EnvironmentBusy);
        drop(used);
        assert_eq!(cache.clean(Duration::ZERO).unwrap(), 9);
        assert_eq!(cache.usage().unwrap(), Usage::default());
    }
}
