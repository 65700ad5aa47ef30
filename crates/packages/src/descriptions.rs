//! What rocks are about. Manifests do not say, rockspecs do: so every rockspec that was read is remembered in one file of the cache, and of a server with
//! few rocks the newest rockspecs of all are read when they are searched.

use crate::{
    index::{Entry, Index},
    name::RockName,
    rockspec::Rockspec,
    search::{self, About, Found},
    solve::Rockspecs,
    version::Version,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use vmoon_core::Result;
use vmoon_sys::atomic;

/// Up to so many rocks without a description are described when they are searched; a rockspec takes some milliseconds.
pub const FEW: usize = 200;

/// Descriptions in a file of the cache. The file may be lost or spoilt at any time; nothing but summaries is lost with it.
#[derive(Clone, Debug)]
pub struct Descriptions {
    path: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    version: Version,
    #[serde(flatten)]
    about: About,
}

impl Descriptions {
    /// Those of the cache in this directory.
    pub fn in_cache(root: &Path) -> Self {
        Self { path: root.join("descriptions.json") }
    }

    fn read(&self) -> BTreeMap<RockName, Kept> {
        atomic::read_json(&self.path).ok().flatten().unwrap_or_default()
    }

    /// What is known.
    pub fn load(&self) -> BTreeMap<RockName, About> {
        self.read().into_iter().map(|(name, kept)| (name, kept.about)).collect()
    }

    /// Remembers what these rockspecs say; of each rock what its newest version says.
    ///
    /// # Errors
    /// `disk.full`, `permission` or `file.failed`: what was known is known still.
    pub fn add(&self, specs: &[Arc<Rockspec>]) -> Result<()> {
        let mut all = self.read();
        let mut changed = false;
        for spec in specs {
            let newer = all.get(&spec.package).is_none_or(|kept| kept.version < spec.version);
            if newer {
                all.insert(spec.package.clone(), Kept { version: spec.version.clone(), about: About::of(spec) });
                changed = true;
            }
        }
        if changed { atomic::write_json(&self.path, &all) } else { Ok(()) }
    }

    /// Finds rocks as [`search::search`] does, with everything that can be known: what is remembered, what `more` tells (the catalogue), and, if there are but
    /// few rocks without a description, what their rockspecs say. What is shown has a summary if its rockspec can be read.
    pub fn search(
        &self,
        index: &Index,
        rockspecs: &dyn Rockspecs,
        more: &BTreeMap<RockName, About>,
        words: &[String],
        most: usize,
    ) -> Vec<Found> {
        let mut about = self.load();
        for (name, told) in more {
            about.entry(name.clone()).and_modify(|known| known.add(told)).or_insert_with(|| told.clone());
        }
        let unknown: Vec<&RockName> = index.names().into_iter().filter(|name| !about.contains_key(*name)).collect();
        if unknown.len() <= FEW {
            self.describe(index, rockspecs, &unknown, &mut about);
        }
        let found = search::search(index, &about, words, most);
        let silent: Vec<&RockName> =
            found.iter().filter(|found| !about.contains_key(&found.name)).map(|found| &found.name).take(FEW).collect();
        if silent.is_empty() {
            return found;
        }
        self.describe(index, rockspecs, &silent, &mut about);
        search::search(index, &about, words, most)
    }

    /// Reads the newest rockspecs of these rocks, as far as that can be done, and remembers them.
    fn describe(&self, index: &Index, rockspecs: &dyn Rockspecs, names: &[&RockName], about: &mut BTreeMap<RockName, About>) {
        let newest = |name: &&RockName| -> Option<Entry> {
            let version = search::newest(index, name)?;
            let candidate = index.candidates(name).into_iter().find(|candidate| candidate.version == version)?;
            Some(candidate.for_rockspec())
        };
        let entries: Vec<Entry> = names.iter().filter_map(newest).collect();
        if entries.is_empty() {
            return;
        }
        rockspecs.expect(index, &entries);
        // A description that cannot be read is none; an install will say why.
        let specs: Vec<Arc<Rockspec>> = entries.iter().filter_map(|entry| rockspecs.rockspec(index, entry).ok()).collect();
        for spec in &specs {
            about.insert(spec.package.clone(), About::of(spec));
        }
        // Without room in the cache they are read again the next time.
        let _ = self.add(&specs);
    }
}
