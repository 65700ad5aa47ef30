//! Rockspecs of servers: fetched, evaluated, and kept for the time of one search.

use super::Rockspecs;
use crate::{
    evaluate::{Evaluator, Kind, MAX_ROCKSPEC},
    gather::Files,
    index::{Entry, Index},
    lock::Arch,
    rockspec::{PLATFORMS, Rockspec},
};
use std::{
    collections::HashMap,
    io::{Cursor, Read as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use vmoon_core::{Code, Error, Result, error::ErrorRecord};

/// The most bytes of a rock that is fetched only for its rockspec.
const MAX_ROCK: usize = 64 << 20;

/// How many rockspecs are fetched side by side.
const PARALLEL: usize = 8;

/// Reads rockspecs through [`Files`] and an [`Evaluator`].
pub struct ServerRockspecs<'a> {
    files: &'a dyn Files,
    evaluator: &'a dyn Evaluator,
    read: Mutex<HashMap<String, Result<Arc<Rockspec>, ErrorRecord>>>,
}

impl<'a> ServerRockspecs<'a> {
    /// Nothing is read yet.
    pub fn new(files: &'a dyn Files, evaluator: &'a dyn Evaluator) -> Self {
        Self { files, evaluator, read: Mutex::default() }
    }

    /// The rockspecs that were read so far, in no order; for descriptions.
    pub fn all(&self) -> Vec<Arc<Rockspec>> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.values().filter_map(|read| read.as_ref().ok().cloned()).collect()
    }

    fn kept(&self, url: &str) -> Option<Result<Arc<Rockspec>>> {
        let kept = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(url).cloned();
        kept.map(|kept| kept.map_err(Error::from))
    }

    fn fetch(&self, index: &Index, entry: &Entry) -> Result<Arc<Rockspec>> {
        let file = entry.file_name();
        let Some(server) = index.server(entry.server) else {
            return Err(Error::internal("an entry of an index names no server of it"));
        };
        let most = if entry.arch == Arch::Rockspec { MAX_ROCKSPEC } else { MAX_ROCK };
        let Some(bytes) = self.files.file(server, &file, most)? else {
            return Err(Error::new(Code::PackageNotFound, format!("the server {} lists {file}, but does not have it", server.name)));
        };
        let text = if entry.arch == Arch::Rockspec { bytes } else { inside(&bytes, entry)? };
        self.evaluate(&text).map(Arc::new)
    }

    fn evaluate(&self, text: &[u8]) -> Result<Rockspec> {
        Kind::Rockspec.check(text)?;
        if let Some(globals) = self.files.evaluated(text).and_then(|kept| serde_json::from_slice(&kept).ok()) {
            return Rockspec::from_value(&globals, PLATFORMS);
        }
        let globals = self.evaluator.rockspec(text)?;
        if let Ok(answer) = serde_json::to_vec(&globals) {
            self.files.keep_evaluated(text, &answer);
        }
        Rockspec::from_value(&globals, PLATFORMS)
    }
}

impl Rockspecs for ServerRockspecs<'_> {
    fn rockspec(&self, index: &Index, entry: &Entry) -> Result<Arc<Rockspec>> {
        let url = index.url(entry);
        if let Some(kept) = self.kept(&url) {
            return kept;
        }
        let read = self.fetch(index, entry);
        let record = read.as_ref().map(Arc::clone).map_err(Error::to_record);
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(url, record);
        read
    }

    fn expect(&self, index: &Index, entries: &[Entry]) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..entries.len().min(PARALLEL) {
                scope.spawn(|| {
                    while let Some(entry) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                        // An error is kept too, and said when the rockspec is asked for.
                        let _ = self.rockspec(index, entry);
                    }
                });
            }
        });
    }
}

impl std::fmt::Debug for ServerRockspecs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerRockspecs").finish_non_exhaustive()
    }
}

/// The rockspec in a rock, which is a zip archive with the rockspec at its top.
fn inside(rock: &[u8], entry: &Entry) -> Result<Vec<u8>> {
    let file = entry.file_name();
    let bad = |error: zip::result::ZipError| {
        Error::new(Code::PackageArchive, format!("{file} is no rock: its zip archive cannot be read")).source(error)
    };
    let mut archive = zip::ZipArchive::new(Cursor::new(rock)).map_err(bad)?;
    let name = Arch::Rockspec.file_name(&entry.name, &entry.version);
    let packed = archive.by_name(&name).map_err(bad)?;
    let mut text = Vec::new();
    packed
        .take(MAX_ROCKSPEC as u64 + 1)
        .read_to_end(&mut text)
        .map_err(|error| Error::new(Code::PackageArchive, format!("the rockspec in {file} cannot be read")).source(error))?;
    Ok(text)
}
