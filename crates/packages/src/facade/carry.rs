//! What is needed to have a generation of an environment on another computer: its modules with their check sums, and how its C modules are made.

use super::Packages;
use crate::{
    build::{Builder, Order, Recipe, Source},
    cache::{Blob, Cache},
    current, digest,
    lua_version::LuaVersion,
    name::RockName,
};
use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
};
use vmoon_core::{Code, Error, Result, name::escape};
use vmoon_sys::stop::Stop;

/// The current generation of an environment, file by file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Its name.
    pub name: String,
    /// The Lua version its packages are for.
    pub lua: String,
    /// The number of the generation.
    pub generation: u64,
    /// Its tree, an absolute path.
    pub tree: PathBuf,
    /// Its modules.
    pub files: Vec<CarriedFile>,
}

/// One module's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedFile {
    /// Its path in the tree, below `share/lua` or `lib/lua`.
    pub path: String,
    /// Its SHA-256.
    pub sha256: String,
    /// Its size, bytes.
    pub size: u64,
    /// The rock it is of, if that was recorded.
    pub rock: Option<String>,
}

impl Packages {
    /// The modules of an environment's current generation.
    ///
    /// # Errors
    /// [`Code::EnvironmentNotFound`], [`Code::EnvironmentDamaged`], [`Code::FileFailed`].
    pub fn carried(&self, name: &str) -> Result<Carried> {
        let found = current::find(&self.config.state, name)?;
        // Records that cannot be read are made again from the files.
        let recorded = self.all()?.find(name).and_then(|environment| environment.files(found.generation)).unwrap_or_default();
        let mut known = HashMap::new();
        for (rock, files) in &recorded.rocks {
            known.extend(files.files.iter().map(|file| (file.path.as_str(), (rock.as_str(), file))));
        }
        let mut files = Vec::new();
        for top in ["share", "lib"] {
            let dir = found.tree.join(top).join("lua").join(&found.lua);
            let mut paths = Vec::new();
            crate::cache::walk(&dir, &mut |path, meta| {
                if meta.is_file() {
                    paths.push((path.to_owned(), meta.len()));
                }
            })?;
            for (path, size) in paths {
                let inside = path.strip_prefix(&found.tree).ok().and_then(Path::to_str);
                let inside = inside.ok_or_else(|| {
                    let shown = path.to_string_lossy().into_owned();
                    Error::new(Code::EnvironmentDamaged, format!("{} has a name that is no UTF-8", escape(&shown)))
                })?;
                let (rock, sha256) = match known.get(inside) {
                    Some((rock, file)) if file.size == size => (Some((*rock).to_owned()), file.sha256.clone()),
                    _ => {
                        let sum = File::open(&path).and_then(digest::sha256_of);
                        (None, sum.map_err(|error| Error::io(format_args!("read {}", path.display()), error))?.0)
                    }
                };
                files.push(CarriedFile { path: inside.to_owned(), sha256, size, rock });
            }
        }
        Ok(Carried { name: found.name, lua: found.lua, generation: found.generation, tree: found.tree, files })
    }

    /// How the C modules of a rock of a generation are compiled elsewhere, from the sources that were kept.
    ///
    /// # Errors
    /// [`Code::PackageBuild`] where that cannot be done.
    pub fn recipe(&self, name: &str, generation: u64, rock: &str) -> Result<Recipe> {
        let environment = self.all()?.find(name)?;
        let lua: LuaVersion = environment.description()?.lua;
        let rock: RockName = rock.parse()?;
        let lock = environment.lock_of(generation)?;
        let locked = lock.rocks.get(&rock);
        let locked = locked.ok_or_else(|| Error::new(Code::PackageBuild, format!("{rock} is not in the lock of {name}")))?;
        let cache = Cache::open(&self.config.cache)?;
        let _in_use = cache.in_use()?;
        let kept = |sha256: &str| -> Result<Blob> {
            let blob = if sha256.is_empty() { None } else { cache.get(sha256)? };
            blob.ok_or_else(|| {
                Error::new(Code::PackageBuild, format!("the source of {rock} {} is not in the cache any more", locked.version))
                    .hint("install the package again: that fetches it")
            })
        };
        let blob = kept(&locked.sha256)?;
        let source = match &locked.source {
            Some(source) => Some(Source { blob: kept(&source.sha256)?, url: source.url.clone() }),
            None => None,
        };
        let builder = Builder::new(cache.clone(), self.config.confine.clone(), self.config.evaluator.clone(), 1);
        let order = Order { name: &rock, version: &locked.version, arch: &locked.arch, lua, rock: &blob, source: source.as_ref() };
        builder.recipe(&order, &Stop::new())
    }
}
