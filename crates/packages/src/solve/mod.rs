//! Chooses one version of every rock that is needed, so that every constraint is met; or says why there is no such choice.
//!
//! The rules: one version of a rock in an environment. What is locked stays, unless it must change or an update of it is asked for; else the newest
//! version is taken, of the newest revision. The newest state of a repository (`scm`, `dev`) is taken only where a constraint names it.

mod explain;
mod known;
mod provider;
mod rockspecs;

pub use rockspecs::ServerRockspecs;

use crate::{
    constraint::Dependency,
    index::{Entry, Failure, Index},
    lock::{Lock, LockedRock},
    name::RockName,
    rockspec::Rockspec,
    search,
    version::Version,
};
use known::{Choice, Known, Rocks};
use provider::{Package, Provider};
use pubgrub::PubGrubError;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::stop::Stop;

/// Where rockspecs come from; each is asked for when the solver needs it. Blocking, every wait bounded.
pub trait Rockspecs {
    /// The rockspec of an entry of this index.
    ///
    /// # Errors
    /// `package.invalid`, `package.archive`, `package.checksum`, `package.not_found` and `package.offline` mean that this version cannot be used:
    /// another one is tried. Any other error ends the search.
    fn rockspec(&self, index: &Index, entry: &Entry) -> Result<Arc<Rockspec>>;

    /// Entries that will probably be asked for next, to be fetched side by side.
    fn expect(&self, index: &Index, entries: &[Entry]) {
        let _ = (index, entries);
    }
}

/// Which locked rocks may change although they need not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Update {
    /// None.
    #[default]
    Nothing,
    /// These.
    Rocks(BTreeSet<RockName>),
    /// All.
    Everything,
}

impl Update {
    fn covers(&self, name: &RockName) -> bool {
        match self {
            Self::Nothing => false,
            Self::Rocks(names) => names.contains(name),
            Self::Everything => true,
        }
    }
}

/// What to solve.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What the servers have.
    pub index: &'a Index,
    /// Everything that is asked for, of old and now.
    pub wanted: &'a [Dependency],
    /// What is installed.
    pub lock: &'a Lock,
    /// What may change although it need not.
    pub update: &'a Update,
    /// Ends the search.
    pub stop: &'a Stop,
}

/// Where a chosen rock comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// It is installed already, or was: the lock says all about it.
    Lock(Box<LockedRock>),
    /// A server has it.
    Server {
        /// The file to fetch.
        entry: Entry,
        /// Its address.
        url: String,
        /// Its rockspec.
        spec: Arc<Rockspec>,
    },
}

/// One chosen rock.
#[derive(Clone, Debug, PartialEq)]
pub struct Solved {
    /// Its version.
    pub version: Version,
    /// Where it comes from.
    pub origin: Origin,
    /// What it needs, when it is built included.
    pub dependencies: Vec<Dependency>,
}

/// One version of every rock that is needed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Solution {
    /// The rocks, by name; what the interpreter brings itself is not among them.
    pub rocks: BTreeMap<RockName, Solved>,
}

/// Solves.
///
/// # Errors
/// [`Code::PackageNotFound`] if no server has something that is wanted, naming all of them and the nearest names; [`Code::PackageConflict`] if no choice meets every
/// constraint, with the explanation in its message, and as a list `explanation` in its detail; instead of both the code of a server that could not be asked and may
/// have what is missing; [`Code::Usage`] if the interpreter is wanted as a rock;
/// [`Code::Cancelled`] if it was stopped; those of [`Rockspecs`]; why a server could not be asked, where what it has might count before what was found.
pub fn solve(request: Request<'_>, rockspecs: &dyn Rockspecs) -> Result<Solution> {
    let rocks = Rocks::new(request);
    check_wanted(&rocks)?;
    // A rock whose newest state is asked for only by a rock that was met later makes it necessary to begin anew: each round asks for more of them.
    loop {
        let provider = Provider::new(&rocks, rockspecs);
        let result = pubgrub::resolve(&provider, Package::Wanted, 0u32);
        if rocks.asked_anew() {
            continue;
        }
        return match result {
            Ok(selected) => {
                let solution = solution(&rocks, selected.iter());
                nobody_before(rocks.index(), &solution)?;
                Ok(solution)
            }
            Err(PubGrubError::NoSolution(tree)) => Err(explain::error(&rocks, tree)),
            Err(PubGrubError::ErrorRetrievingDependencies { source, .. })
            | Err(PubGrubError::ErrorChoosingVersion { source, .. })
            | Err(PubGrubError::ErrorInShouldCancel(source)) => Err(source),
        };
    }
}

fn solution<'a>(rocks: &Rocks<'_>, selected: impl Iterator<Item = (&'a Package, &'a u32)>) -> Solution {
    let mut solution = Solution::default();
    for (package, at) in selected {
        let Package::Rock(name) = package else { continue };
        let known = rocks.known(name);
        let Some(choice) = known.choices.get(*at as usize) else { continue };
        let dependencies = rocks.dependencies_of(name, *at);
        let (version, origin) = match choice {
            Choice::Provided(_) => continue,
            Choice::Locked(rock) => (rock.version.clone(), Origin::Lock(Box::new((**rock).clone()))),
            Choice::Listed(candidate) => {
                let Some(spec) = rocks.spec_of(name, *at) else { continue };
                let entry = candidate.best();
                let url = rocks.index().url(&entry);
                (candidate.version.clone(), Origin::Server { entry, url, spec })
            }
        };
        solution.rocks.insert(name.clone(), Solved { version, origin, dependencies });
    }
    solution
}

/// Nothing is taken from a server while one that is asked before it could not say what it has: there the same name may stand for another rock, and whoever is
/// able to keep a private server from answering must not be able to choose what is installed.
fn nobody_before(index: &Index, solution: &Solution) -> Result<()> {
    let place = |failure: &Failure| index.servers.iter().position(|server| server.name == failure.server);
    let failed: Vec<(usize, &Failure)> = index.failures.iter().filter_map(|failure| Some((place(failure)?, failure))).collect();
    for solved in solution.rocks.values() {
        let Origin::Server { entry, .. } = &solved.origin else { continue };
        let Some((_, failure)) = failed.iter().find(|(place, _)| *place < usize::from(entry.server.0)) else { continue };
        let from = index.server(entry.server).map_or("", |server| server.name.as_str());
        let why = format!(
            "{} would come from the server {from}, but {} is asked before it and could not be asked: {}",
            entry.name, failure.server, failure.error.message
        );
        let hint = format!("try again later, or do without it this time: --without-server {}", failure.server);
        return Err(Error::new(failure.error.code, why).hint(hint));
    }
    Ok(())
}

/// What is wanted must be on some server at all; everything that is not is named at once.
fn check_wanted(rocks: &Rocks<'_>) -> Result<()> {
    let mut problems = Vec::new();
    let mut hint = None;
    let mut unheard = None;
    for wanted in rocks.wanted() {
        if wanted.name.is_lua() {
            return Err(
                Error::new(Code::Usage, "the interpreter is no rock").hint("the Lua version of an environment is chosen when it is made")
            );
        }
        let known = rocks.known(&wanted.name);
        if known.choices.is_empty() {
            problems.push(explain::nowhere(rocks, &wanted.name));
            unheard = unheard.or_else(|| rocks.index().unheard(&wanted.name));
            let near = search::nearest(rocks.index(), wanted.name.as_str(), 4);
            if hint.is_none() && !near.is_empty() {
                let near: Vec<&str> = near.iter().map(RockName::as_str).collect();
                hint = Some(format!("is it one of these? {}", near.join(", ")));
            }
        } else if !known.choices.iter().any(|choice| wanted.constraints.allow(choice.version())) {
            problems.push(explain::no_such_version(rocks, wanted, &known));
            if let Some(failure) = rocks.index().unheard(&wanted.name) {
                problems.push(format!("{} could not be asked for others ({})", failure.server, failure.error.message));
                unheard = unheard.or(Some(failure));
            }
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    // Whether it is nowhere only that server can say.
    if let Some(failure) = unheard {
        return Err(failure.error(problems.join("; ")));
    }
    let error = Error::new(Code::PackageNotFound, problems.join("; "));
    Err(error.hint(hint.unwrap_or_else(|| "search for it with \"vmoon pkg search\", or add a server that has it".to_owned())))
}

impl Known {
    /// The versions, oldest first.
    fn versions(&self) -> Vec<&Version> {
        self.choices.iter().map(Choice::version).collect()
    }
}

#[cfg(test)]
mod tests;
