//! The bridge to pubgrub: which version to try next, and what it needs.

use super::{
    Rockspecs,
    known::{Choice, ReadSpec, Rocks, needs},
};
use crate::{
    constraint::Dependency,
    index::{Candidate, Entry},
    name::RockName,
    rockspec::{PLATFORMS, Rockspec},
};
use pubgrub::{Dependencies, DependencyConstraints, DependencyProvider, PackageResolutionStatistics, Ranges};
use std::{cmp::Reverse, collections::BTreeMap, fmt, sync::Arc};
use vmoon_core::{Code, Error};

/// What pubgrub chooses versions of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Package {
    /// All that is wanted, as one package that needs it.
    Wanted,
    /// A rock, or what the interpreter brings.
    Rock(RockName),
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wanted => f.write_str("what is wanted"),
            Self::Rock(name) => name.fmt(f),
        }
    }
}

pub(super) struct Provider<'a, 'r> {
    rocks: &'a Rocks<'r>,
    rockspecs: &'a dyn Rockspecs,
}

impl<'a, 'r> Provider<'a, 'r> {
    pub(super) fn new(rocks: &'a Rocks<'r>, rockspecs: &'a dyn Rockspecs) -> Self {
        Self { rocks, rockspecs }
    }

    /// The version that is tried first: the locked one if it may stay, else the newest that is released or asked for.
    fn first(&self, name: &RockName, set: &Ranges<u32>) -> Option<u32> {
        let known = self.rocks.known(name);
        if let Some(locked) = known.locked.filter(|at| set.contains(at) && self.rocks.may_stay(name)) {
            return Some(locked);
        }
        let members = known.members(set);
        let version = |at: u32| known.choices[at as usize].version();
        let released = members.iter().rev().find(|at| !version(**at).is_unreleased());
        released.or_else(|| members.iter().rev().find(|at| self.rocks.released_enough(name, version(**at)))).copied()
    }

    /// One set for each package that is needed: constraints on the same rock are all to be met.
    fn sets(&self, dependencies: &[Dependency]) -> Vec<(Package, Ranges<u32>)> {
        let mut sets: BTreeMap<&RockName, Ranges<u32>> = BTreeMap::new();
        let mut expected = Vec::new();
        for dependency in dependencies {
            self.rocks.heard(dependency);
            let set = self.rocks.known(&dependency.name).set(&dependency.constraints);
            let all = sets.entry(&dependency.name).or_insert_with(Ranges::full);
            *all = all.intersection(&set);
        }
        for (name, set) in &sets {
            if let Some(at) = self.first(name, set)
                && self.rocks.read(name, at).is_none()
                && let Choice::Listed(candidate) = &self.rocks.known(name).choices[at as usize]
            {
                expected.push(candidate.for_rockspec());
            }
        }
        if expected.len() > 1 {
            self.rockspecs.expect(self.rocks.index(), &expected);
        }
        sets.into_iter().map(|(name, set)| (Package::Rock(name.clone()), set)).collect()
    }

    /// The rockspec of a candidate, or why this version cannot be used.
    fn read(&self, candidate: &Candidate, at: u32) -> Result<ReadSpec, Error> {
        if let Some(read) = self.rocks.read(&candidate.name, at) {
            return Ok(read);
        }
        let entry = candidate.for_rockspec();
        let read = match self.rockspecs.rockspec(self.rocks.index(), &entry) {
            Ok(spec) => fits(&entry, spec),
            Err(error) if is_of_this_version(error.code()) => Err(error.chain()),
            Err(error) => return Err(error),
        };
        self.rocks.keep_spec(&candidate.name, at, read.clone());
        Ok(read)
    }
}

/// Whether an error speaks of one version only, so that another one may be tried.
fn is_of_this_version(code: Code) -> bool {
    matches!(
        code,
        Code::PackageInvalid | Code::PackageArchive | Code::PackageChecksum | Code::PackageNotFound | Code::PackageOffline | Code::Usage
    )
}

/// A rockspec must be of the rock under whose name it was found, for this system, and ask for nothing that is not done here.
fn fits(entry: &Entry, spec: Arc<Rockspec>) -> ReadSpec {
    if spec.package != entry.name || spec.version != entry.version {
        return Err(format!("its rockspec is that of {} {}", spec.package, spec.version));
    }
    if !spec.supports(PLATFORMS) {
        return Err(format!("it is for other systems ({})", spec.supported_platforms.join(", ")));
    }
    if spec.post_install.is_some() {
        return Err("its rockspec wants a command to be run after the install, which is not done here".to_owned());
    }
    Ok(spec)
}

impl DependencyProvider for Provider<'_, '_> {
    type P = Package;
    type V = u32;
    type VS = Ranges<u32>;
    /// Those last of which only the newest state of a repository is there and nobody has asked for it: somebody may yet. Else those in many conflicts
    /// first, then those with the least choice.
    type Priority = (bool, u32, Reverse<usize>);
    type M = String;
    type Err = Error;

    fn prioritize(&self, package: &Package, set: &Ranges<u32>, statistics: &PackageResolutionStatistics) -> Self::Priority {
        let (ready, choices) = match package {
            Package::Wanted => (true, 1),
            Package::Rock(name) => {
                let known = self.rocks.known(name);
                let members = known.members(set);
                let may_be = |at: &u32| self.rocks.is_released_enough(name, known.choices[*at as usize].version());
                (members.is_empty() || members.iter().any(may_be), members.len())
            }
        };
        (ready, statistics.conflict_count(), Reverse(choices))
    }

    fn choose_version(&self, package: &Package, set: &Ranges<u32>) -> Result<Option<u32>, Error> {
        Ok(match package {
            Package::Wanted => Some(0),
            Package::Rock(name) => self.first(name, set),
        })
    }

    fn get_dependencies(&self, package: &Package, at: &u32) -> Result<Dependencies<Package, Ranges<u32>, String>, Error> {
        let Package::Rock(name) = package else {
            return Ok(Dependencies::Available(DependencyConstraints::from_iter(self.sets(self.rocks.wanted()))));
        };
        let known = self.rocks.known(name);
        let dependencies = match known.choices.get(*at as usize) {
            Some(Choice::Listed(candidate)) => match self.read(candidate, *at)? {
                Ok(spec) => needs(candidate, &spec),
                Err(why) => return Ok(Dependencies::Unavailable(why)),
            },
            _ => self.rocks.dependencies_of(name, *at),
        };
        Ok(Dependencies::Available(DependencyConstraints::from_iter(self.sets(&dependencies))))
    }

    fn should_cancel(&self) -> Result<(), Error> {
        if self.rocks.is_stopped() { Err(Error::new(Code::Cancelled, "the search for versions was stopped")) } else { Ok(()) }
    }
}
