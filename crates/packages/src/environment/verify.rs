//! Compares a generation with what it should be.

use super::{Environment, draft::is_whole};
use crate::{cache::walk, name::RockName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use vmoon_core::Result;
use vmoon_sys::stop::Stop;

/// What is wrong with one file or rock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProblemKind {
    /// It should be there and is not.
    Missing,
    /// It is not what was installed.
    Changed,
    /// No rock has brought it.
    Extra,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// What.
    pub kind: ProblemKind,
    /// The rock that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rock: Option<RockName>,
    /// The path in the tree; empty if it is the rock as a whole.
    pub path: String,
}

/// What a look at a generation has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The generation.
    pub generation: u64,
    /// Rocks of its lock.
    pub rocks: usize,
    /// Files that were looked at.
    pub files: usize,
    /// What is wrong, sorted.
    pub problems: Vec<Problem>,
}

/// What lies in a generation and belongs to no rock.
const OURS: [&str; 3] = ["files.json", "rocks.lock", "entry.json"];

impl Environment {
    /// Compares all files of a generation with their check sums, and the lock with the files.
    ///
    /// # Errors
    /// [`vmoon_core::Code::EnvironmentDamaged`] if its own records cannot be read, [`vmoon_core::Code::NotFound`], [`vmoon_core::Code::Cancelled`].
    pub fn verify(&self, generation: u64, stop: &Stop) -> Result<Verified> {
        let tree = self.tree(generation);
        let (lock, files) = (self.lock_of(generation)?, self.files(generation)?);
        let mut problems = Vec::new();
        let mut known: BTreeSet<String> = OURS.map(str::to_owned).into();
        let mut count = 0;
        for (name, rock) in &files.rocks {
            for record in &rock.files {
                stop.check()?;
                count += 1;
                let whole = is_whole(&tree, record)?;
                if !whole {
                    let kind = if tree.join(&record.path).symlink_metadata().is_ok() { ProblemKind::Changed } else { ProblemKind::Missing };
                    problems.push(Problem { kind, rock: Some(name.clone()), path: record.path.clone() });
                }
                known.insert(record.path.clone());
            }
            known.insert(format!("transcripts/{name}.txt"));
        }
        walk(&tree, &mut |path, _| {
            let inside = path.strip_prefix(&tree).unwrap_or(path).to_string_lossy().into_owned();
            if !known.contains(&inside) {
                problems.push(Problem { kind: ProblemKind::Extra, rock: None, path: inside });
            }
        })?;
        let whole = |kind, name: &RockName| Problem { kind, rock: Some(name.clone()), path: String::new() };
        for (name, rock) in &lock.rocks {
            match files.rocks.get(name) {
                None => problems.push(whole(ProblemKind::Missing, name)),
                Some(found) if found.version != rock.version => problems.push(whole(ProblemKind::Changed, name)),
                Some(_) => {}
            }
        }
        problems.extend(files.rocks.keys().filter(|name| !lock.rocks.contains_key(*name)).map(|name| whole(ProblemKind::Extra, name)));
        problems.sort();
        Ok(Verified { generation, rocks: lock.rocks.len(), files: count, problems })
    }
}
