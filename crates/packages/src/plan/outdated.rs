//! What could be newer.

use crate::{index::Index, lock::Lock, name::RockName, version::Version};

/// A rock of which there is a newer version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outdated {
    /// Its name.
    pub name: RockName,
    /// What is installed.
    pub version: Version,
    /// The newest that everything installed allows; `None` if that is what is installed. An update of several rocks may reach further.
    pub allowed: Option<Version>,
    /// The newest there is; released, unless what is installed is not.
    pub newest: Version,
    /// What holds it back from the newest, in the words of who needs it: `bxbeta 1.0-1 needs bxalpha < 2.0`.
    pub held_by: Vec<String>,
}

/// The rocks of a lock of which the servers have newer versions, by name.
pub fn outdated(lock: &Lock, index: &Index) -> Vec<Outdated> {
    let mut all = Vec::new();
    for rock in lock.rocks.values() {
        let candidates = index.candidates(&rock.name);
        let unreleased = rock.version.is_unreleased();
        let newer: Vec<&Version> = candidates
            .iter()
            .map(|candidate| &candidate.version)
            .filter(|version| rock.version < **version && (unreleased || !version.is_unreleased()))
            .collect();
        let Some(newest) = newer.last() else { continue };
        let wants = lock.wanted.iter().filter(|wanted| wanted.name == rock.name).map(|wanted| ("you want".to_owned(), wanted));
        let needs = lock.dependents(&rock.name).into_iter().flat_map(|other| {
            let needed = other.dependencies.iter().filter(|needed| needed.name == rock.name);
            needed.map(move |needed| (format!("{} {} needs", other.name, other.version), needed))
        });
        let constraints: Vec<_> = wants.chain(needs).collect();
        let allowed = newer.iter().rev().find(|version| constraints.iter().all(|(_, needed)| needed.constraints.allow(version)));
        let held_by = constraints.iter().filter(|(_, needed)| !needed.constraints.allow(newest));
        all.push(Outdated {
            name: rock.name.clone(),
            version: rock.version.clone(),
            allowed: allowed.map(|version| (**version).clone()),
            newest: (*newest).clone(),
            held_by: held_by.map(|(who, needed)| format!("{who} {needed}")).collect(),
        });
    }
    all
}
