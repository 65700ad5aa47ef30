//! Asks servers what they have: the manifest of a Lua version, in the forms servers offer it, with each failure explained.

use crate::{
    evaluate::{Evaluator, MAX_MANIFEST},
    index::Index,
    lua_version::LuaVersion,
    manifest::{Manifest, is_page, page},
    servers::Server,
};
use std::io::{Cursor, Read as _};
use vmoon_core::{Code, Error, Result};

/// The small files of rocks servers. Implemented by whoever fetches; blocking, every wait bounded.
pub trait Files: Send + Sync {
    /// The content of a file of a server, at most `most` bytes; `None` if the server says that it has no such file.
    ///
    /// # Errors
    /// `package.server` for a server that does not answer or answers nonsense; `package.offline` for what is not in the cache.
    fn file(&self, server: &Server, name: &str, most: usize) -> Result<Option<Vec<u8>>>;

    /// What [`Files::keep_evaluated`] kept for a text with this content: a manifest's compact form, a rockspec's globals as JSON.
    fn evaluated(&self, text: &[u8]) -> Option<Vec<u8>> {
        let _ = text;
        None
    }

    /// Keeps what a text says, so that it need not be evaluated again. Keeping nothing is right, only slower.
    fn keep_evaluated(&self, text: &[u8], answer: &[u8]) {
        let _ = (text, answer);
    }
}

/// The names a manifest may have, in the order they are tried. Compressed comes first: the public one is ten times smaller so.
pub fn manifest_names(lua: LuaVersion) -> [String; 5] {
    [
        format!("manifest-{lua}.zip"),
        format!("manifest-{lua}.json"),
        format!("manifest-{lua}"),
        "manifest.zip".to_owned(),
        "manifest".to_owned(),
    ]
}

/// Reads the manifests of these servers, all at once, and makes an index of them. A server that fails is one of the index's failures.
pub fn gather(servers: &[Server], lua: LuaVersion, files: &dyn Files, evaluator: &dyn Evaluator) -> Index {
    let manifests: Vec<Result<Manifest>> = std::thread::scope(|scope| {
        let asked: Vec<_> = servers.iter().map(|server| scope.spawn(move || manifest(server, lua, files, evaluator))).collect();
        asked
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(Error::internal("the thread that asked a server panicked"))))
            .collect()
    });
    Index::new(lua, servers.iter().cloned().zip(manifests).collect())
}

/// Reads the manifest of one server.
///
/// # Errors
/// Those of [`Files::file`] and [`Manifest::read`]; [`Code::PackageServer`] for a server that has no manifest. Each names the server and the file.
pub fn manifest(server: &Server, lua: LuaVersion, files: &dyn Files, evaluator: &dyn Evaluator) -> Result<Manifest> {
    // What another form may make good: that a server does not have a form is not remembered for offline work, and some servers answer a page to
    // every question.
    let mut passing = None;
    for name in manifest_names(lua) {
        let bytes = match files.file(server, &name, MAX_MANIFEST) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(error) if error.code() == Code::PackageOffline => {
                passing.get_or_insert(of(server, &name, error));
                continue;
            }
            Err(error) => return Err(of(server, &name, error)),
        };
        if is_page(&bytes) {
            passing.get_or_insert(of(server, &name, page()));
            continue;
        }
        return read(&bytes, files, evaluator).map_err(|error| of(server, &name, error));
    }
    Err(passing.unwrap_or_else(|| {
        Error::new(Code::PackageServer, format!("the server {} has no manifest for Lua {lua} at {}", server.name, server.url))
            .hint("ask who keeps it for the right address; a directory of rocks gets its manifest from \"luarocks-admin make-manifest\"")
    }))
}

/// Reads a manifest as it was fetched. What was kept of it is found by what was fetched, so that nothing need be unpacked.
fn read(bytes: &[u8], files: &dyn Files, evaluator: &dyn Evaluator) -> Result<Manifest> {
    if let Some(manifest) = files.evaluated(bytes).and_then(|compact| Manifest::from_compact(&compact).ok()) {
        return Ok(manifest);
    }
    let manifest = if bytes.starts_with(b"PK") { Manifest::read(&unzip(bytes)?, evaluator)? } else { Manifest::read(bytes, evaluator)? };
    files.keep_evaluated(bytes, &manifest.to_compact());
    Ok(manifest)
}

/// The one file of a zip archive, unpacked in memory.
fn unzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let bad = |error: zip::result::ZipError| Error::new(Code::PackageInvalid, "the manifest's zip archive cannot be read").source(error);
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(bad)?;
    let file = archive.by_index(0).map_err(bad)?;
    let mut out = Vec::new();
    // What the archive says of its size is not to be believed.
    file.take(MAX_MANIFEST as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|error| Error::new(Code::PackageInvalid, "the manifest's zip archive cannot be read").source(error))?;
    if out.len() > MAX_MANIFEST {
        return Err(Error::new(Code::PackageInvalid, format!("the manifest has more than {} MiB", MAX_MANIFEST >> 20)));
    }
    Ok(out)
}

/// Says which server and file an error is about, and keeps its code and hint.
fn of(server: &Server, file: &str, error: Error) -> Error {
    let hint = error.hint_text().map(str::to_owned);
    let named = Error::new(error.code(), format!("{file} of the server {}: {}", server.name, error.chain()));
    match hint {
        Some(hint) => named.hint(hint),
        None => named,
    }
}
