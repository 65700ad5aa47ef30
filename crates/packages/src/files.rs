//! The small files of rocks servers, fetched through the cache; what was evaluated is kept there too.

use crate::{
    cache::{Cache, Seen},
    digest,
    fetch::{Fetcher, Fresh, Want},
    gather::Files,
    servers::Server,
};
use std::time::Duration;
use vmoon_core::{Code, Result};
use vmoon_sys::clock;

/// Changes when the answers of the program in [`crate::evaluate`] or the form of manifests change.
const EVALUATED: &str = "evaluated:1:";

/// [`Files`] of a [`Fetcher`].
pub struct ServerFiles<'a> {
    fetcher: &'a Fetcher,
    fresh: Duration,
}

impl<'a> ServerFiles<'a> {
    /// Manifests in the cache that are not older than `fresh` are not asked for again.
    pub fn new(fetcher: &'a Fetcher, fresh: Duration) -> Self {
        Self { fetcher, fresh }
    }
}

impl std::fmt::Debug for ServerFiles<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerFiles").field("fresh", &self.fresh).finish_non_exhaustive()
    }
}

impl Files for ServerFiles<'_> {
    fn file(&self, server: &Server, name: &str, most: usize) -> Result<Option<Vec<u8>>> {
        // Rocks and rockspecs never change under their names, manifests do.
        let fresh = if name.starts_with("manifest") { Fresh::Within(self.fresh) } else { Fresh::Cached };
        let want = Want { fresh, largest: most as u64, insecure: server.insecure, ..Want::fixed(server.file(name)) };
        match self.fetcher.fetch(&want) {
            Ok(fetched) => fetched.read().map(Some),
            Err(error) if error.code() == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn evaluated(&self, text: &[u8]) -> Option<Vec<u8>> {
        kept(self.fetcher.cache(), text)
    }

    fn keep_evaluated(&self, text: &[u8], answer: &[u8]) {
        keep(self.fetcher.cache(), text, answer);
    }
}

/// What [`keep`] has put into this cache.
pub(crate) fn kept(cache: &Cache, text: &[u8]) -> Option<Vec<u8>> {
    let (_, blob) = cache.seen(&key(text)).ok()??;
    std::fs::read(blob.path).ok()
}

/// Keeps what a text says. The cache is a convenience: without room in it everything is evaluated again.
pub(crate) fn keep(cache: &Cache, text: &[u8], answer: &[u8]) {
    if let Ok(blob) = cache.put(answer) {
        let seen = Seen { url: key(text), sha256: blob.sha256, size: blob.size, fetched_ms: clock::now_ms(), etag: None, modified: None };
        let _ = cache.note(&seen);
    }
}

fn key(text: &[u8]) -> String {
    format!("{EVALUATED}{}", digest::sha256(text))
}
