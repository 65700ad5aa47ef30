//! Fetches files and repositories into the cache: over HTTPS, from directories, from what is inside vmoon, and by `git`. Every wait has a bound, everything
//! can be stopped, and what has a promised SHA-256 has it or is refused.

mod git;
mod http;
mod url;

use crate::{
    cache::{Blob, Cache, Seen},
    digest,
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use vmoon_core::{Code, Error, Result, name::escape};
use vmoon_sys::{clock, stop::Stop};

pub(crate) use git::{PROGRAMS, program_in};
pub use git::{Reference, Repository};
pub use url::{Location, file_name, locate, may_name};

/// How fetching is done.
#[derive(Clone)]
pub struct Options {
    /// Take everything from the cache and fetch nothing.
    pub offline: bool,
    /// How many files are fetched at once.
    pub jobs: usize,
    /// How long a server may be silent.
    pub idle: Duration,
    /// How long one file may take in all.
    pub total: Duration,
    /// The largest file, bytes.
    pub largest: u64,
    /// The rocks inside vmoon, by the name behind `builtin:`.
    pub builtin: fn(&str) -> Option<Cow<'static, [u8]>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            offline: false,
            jobs: 6,
            idle: Duration::from_secs(20),
            total: Duration::from_secs(30 * 60),
            largest: 512 << 20,
            builtin: crate::builtin::file,
        }
    }
}

/// Is told how far fetching has come. Called from several threads.
pub trait Progress: Send + Sync {
    /// So many bytes of this URL are here, of so many if the server tells.
    fn bytes(&self, url: &str, done: u64, total: Option<u64>) {
        let _ = (url, done, total);
    }

    /// A step of a change has been reached that a power failure could separate from the next one.
    fn step(&self, name: &str) {
        let _ = name;
    }

    /// Something has begun or ended, in a few words.
    fn note(&self, text: &str) {
        let _ = text;
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {}

/// When the cache is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Always: what is at this URL never changes, as rocks and rockspecs do not.
    Cached,
    /// When it is not older than this; else the server is asked whether it has changed.
    Within(Duration),
}

/// One file to fetch.
#[derive(Clone, Debug)]
pub struct Want {
    /// Where it is.
    pub url: String,
    /// The SHA-256 it must have.
    pub sha256: Option<String>,
    /// When the cache is good enough.
    pub fresh: Fresh,
    /// The largest it may be, bytes; [`Options::largest`] holds besides.
    pub largest: u64,
    /// Plain HTTP to another computer is meant, see [`crate::servers::Server::insecure`].
    pub insecure: bool,
}

impl Want {
    /// What is at this URL, which never changes.
    pub fn fixed(url: impl Into<String>) -> Self {
        Self { url: url.into(), sha256: None, fresh: Fresh::Cached, largest: u64::MAX, insecure: false }
    }

    /// What is at this URL and has this SHA-256.
    pub fn exactly(url: impl Into<String>, sha256: impl Into<String>) -> Self {
        Self { sha256: Some(sha256.into()), ..Self::fixed(url) }
    }
}

/// A file that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// It, in the cache.
    pub blob: Blob,
    /// Whether nothing had to be transferred for it.
    pub cached: bool,
}

impl Fetched {
    /// Its content.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self) -> Result<Vec<u8>> {
        std::fs::read(&self.blob.path).map_err(|error| Error::io(format_args!("read {}", self.blob.path.display()), error))
    }
}

/// Fetches for one operation, which can be stopped.
pub struct Fetcher {
    cache: Cache,
    options: Options,
    progress: Arc<dyn Progress>,
    stop: Stop,
    http: http::Client,
}

impl Fetcher {
    /// One that fetches into this cache.
    pub fn new(cache: Cache, options: Options, progress: Arc<dyn Progress>, stop: Stop) -> Self {
        let http = http::Client::new(&options, stop.clone());
        Self { cache, options, progress, stop, http }
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What stops it.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Who is told.
    pub fn progress(&self) -> &Arc<dyn Progress> {
        &self.progress
    }

    /// Fetches one file.
    ///
    /// # Errors
    /// [`Code::NotFound`] if the server says that there is no such file, [`Code::PackageServer`] for other trouble with it, [`Code::PackageChecksum`],
    /// [`Code::PackageOffline`], [`Code::Cancelled`], [`Code::Usage`] for URLs that are not fetched, [`Code::DiskFull`], [`Code::FileFailed`].
    pub fn fetch(&self, want: &Want) -> Result<Fetched> {
        self.stop.check()?;
        if let Some(sha256) = &want.sha256
            && let Some(blob) = self.cache.get(sha256)?
        {
            return Ok(Fetched { blob, cached: true });
        }
        let fetched = match locate(&want.url)? {
            Location::Builtin(name) => self.builtin(want, &name)?,
            Location::File(path) => self.file(want, &path)?,
            Location::Http { secure, host } => {
                self.plain(want, secure, &host)?;
                self.remote(want)?
            }
            Location::Git(_) => {
                return Err(Error::new(Code::Usage, format!("{} is a repository and no file", escape(&want.url))));
            }
        };
        match &want.sha256 {
            Some(promised) if *promised != fetched.blob.sha256 => Err(mismatch(&want.url, promised, &fetched.blob.sha256)),
            _ => Ok(fetched),
        }
    }

    /// Fetches several files at once; the results are in the order of the wishes. A file that is wished twice is fetched once.
    pub fn fetch_all(&self, wants: &[Want]) -> Vec<Result<Fetched>> {
        let mut by_url: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, want) in wants.iter().enumerate() {
            by_url.entry(&want.url).or_default().push(at);
        }
        let groups: Vec<Vec<usize>> = by_url.into_values().collect();
        let results: Vec<Mutex<Option<Result<Fetched>>>> = wants.iter().map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                for at in group {
                    let result = self.fetch(&wants[*at]);
                    *results[*at].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                }
            }
        };
        let threads = self.options.jobs.clamp(1, 16).min(groups.len());
        if threads <= 1 {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(work);
                }
            });
        }
        let taken = results.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
        taken.map(|result| result.unwrap_or_else(|| Err(Stop::error()))).collect()
    }

    /// Plain HTTP carries what anybody on the way may change. What has a promised check sum cannot be changed unseen.
    fn plain(&self, want: &Want, secure: bool, host: &str) -> Result<()> {
        if secure || want.insecure || want.sha256.is_some() || crate::servers::is_loopback(host) {
            return Ok(());
        }
        Err(Error::new(Code::Usage, format!("{} would be fetched without encryption and without a check sum", escape(&want.url)))
            .hint("use a server or a version that offers https"))
    }

    fn remote(&self, want: &Want) -> Result<Fetched> {
        let seen = self.cache.seen(&want.url)?;
        if let Some((seen, blob)) = &seen {
            let good = want.sha256.is_none()
                && match want.fresh {
                    Fresh::Cached => true,
                    Fresh::Within(age) => clock::now_ms().saturating_sub(seen.fetched_ms) <= age.as_millis() as u64,
                };
            if good || (self.options.offline && want.sha256.is_none()) {
                return Ok(Fetched { blob: blob.clone(), cached: true });
            }
        }
        if self.options.offline {
            return Err(offline(&want.url));
        }
        let seen = seen.filter(|_| want.sha256.is_none());
        match self.http.download(self, want, seen.as_ref().map(|(seen, _)| seen))? {
            http::Answer::Unchanged => {
                let Some((mut seen, blob)) = seen else { return Err(Error::internal("a server compared with nothing")) };
                seen.fetched_ms = clock::now_ms();
                self.cache.note(&seen)?;
                Ok(Fetched { blob, cached: true })
            }
            http::Answer::Here { blob, etag, modified } => {
                let (sha256, size) = (blob.sha256.clone(), blob.size);
                self.cache.note(&Seen { url: want.url.clone(), sha256, size, fetched_ms: clock::now_ms(), etag, modified })?;
                Ok(Fetched { blob, cached: false })
            }
        }
    }

    fn builtin(&self, want: &Want, name: &str) -> Result<Fetched> {
        let bytes = (self.options.builtin)(name)
            .ok_or_else(|| Error::new(Code::NotFound, format!("there is no {} inside vmoon", escape(&want.url))))?;
        Ok(Fetched { blob: self.cache.put(&bytes)?, cached: true })
    }

    /// A file of this computer is copied into the cache, so that later changes of it change no environment.
    fn file(&self, want: &Want, path: &Path) -> Result<Fetched> {
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(Code::NotFound, format!("there is no file {}", escape(&path.to_string_lossy()))).source(error)
            }
            _ => Error::io(format_args!("read {}", path.display()), error),
        };
        let meta = std::fs::metadata(path).map_err(failed)?;
        if !meta.is_file() {
            return Err(Error::new(Code::FileFailed, format!("{} is no file", escape(&path.to_string_lossy()))));
        }
        let identity = format!("{}:{}:{}.{:09}:{}", meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len());
        if let Some((seen, blob)) = self.cache.seen(&want.url)?
            && seen.modified.as_deref() == Some(identity.as_str())
        {
            return Ok(Fetched { blob, cached: true });
        }
        let largest = want.largest.min(self.options.largest);
        if meta.len() > largest {
            return Err(too_large(&want.url, largest));
        }
        let mut source = File::open(path).map_err(failed)?.take(largest + 1);
        let (partial, mut file) = self.scratch()?;
        let mut hasher = digest::Hasher::new();
        let (mut buffer, mut size) = (vec![0; 128 << 10], 0);
        loop {
            self.stop.check()?;
            let n = source.read(&mut buffer).map_err(failed)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            size += n as u64;
            file.write_all(&buffer[..n]).map_err(|error| Error::io("fill the cache", error))?;
        }
        if size > largest {
            return Err(too_large(&want.url, largest));
        }
        drop(file);
        let blob = self.cache.adopt(&partial.0, &hasher.finish(), size)?;
        self.cache.note(&Seen {
            url: want.url.clone(),
            sha256: blob.sha256.clone(),
            size,
            fetched_ms: clock::now_ms(),
            etag: None,
            modified: Some(identity),
        })?;
        Ok(Fetched { blob, cached: false })
    }

    /// A new file in the cache that is nobody else's, removed unless it is adopted.
    fn scratch(&self) -> Result<(Scratch, File)> {
        let path = self.cache.partial(&vmoon_sys::random::key());
        let file = File::create_new(&path).map_err(|error| Error::io(format_args!("make {}", path.display()), error))?;
        Ok((Scratch(path), file))
    }
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Adopted, it is gone from here; what cannot be removed is removed by `Cache::clean`.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn offline(url: &str) -> Error {
    Error::new(Code::PackageOffline, format!("{} is not in the cache", escape(url)))
        .hint("run once without --offline, or use a mirror with a file:// address")
}

fn mismatch(url: &str, promised: &str, found: &str) -> Error {
    Error::new(Code::PackageChecksum, format!("{} has SHA-256 {found}, not {promised} as was promised", escape(url)))
        .hint("either the server changed the file or somebody else did; nothing was installed")
}

fn too_large(url: &str, largest: u64) -> Error {
    Error::new(Code::PackageServer, format!("{} is larger than {largest} bytes", escape(url)))
}
