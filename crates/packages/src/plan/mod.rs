//! What an install, update or removal will do, step by step and with reasons, before anything is done. Pure: what is cached is asked of a function.

mod graph;
mod outdated;

pub use graph::{Link, Node, orphans, removable, tree, why};
pub use outdated::{Outdated, outdated};

use crate::{
    constraint::Dependency,
    lock::{Arch, FORMAT, Lock, LockedRock, LockedSource, Why},
    lua_version::LuaVersion,
    name::RockName,
    rockspec::{Module, Rockspec},
    search::About,
    solve::{Origin, Solution, Solved},
    version::Version,
};
use std::collections::BTreeMap;

/// What is done with one rock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Install,
    /// Another version, or another file of the same version, takes the place of this one.
    Replace {
        /// The version that was there.
        from: Version,
    },
    /// It goes.
    Remove,
    /// It stays as it is.
    Keep,
}

impl Action {
    /// One word for people and programs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Replace { .. } => "replace",
            Self::Remove => "remove",
            Self::Keep => "keep",
        }
    }
}

/// How a rock gets its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Build {
    /// Nothing to do: it stays or goes.
    Nothing,
    /// Its files are copied from a rock that is ready.
    Unpack,
    /// Its files are copied from the source, nothing is compiled.
    Copy,
    /// C modules are compiled by vmoon.
    Compile,
    /// The program `luarocks` builds it, by this kind of build (`make`).
    Luarocks(String),
    /// Its rockspec says, which has not been read: a lock is installed as it is.
    AsLocked,
}

impl Build {
    fn of(arch: &Arch, spec: &Rockspec) -> Self {
        match (arch, spec.build.kind.as_str()) {
            (Arch::All | Arch::Binary(_), _) => Self::Unpack,
            (_, "none") => Self::Copy,
            (_, "builtin") if spec.build.modules.values().any(|module| matches!(module, Module::Native(_))) => Self::Compile,
            (_, "builtin") => Self::Copy,
            (_, kind) => Self::Luarocks(kind.to_owned()),
        }
    }
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// With which rock, as it will be (for [`Action::Remove`]: as it was).
    pub rock: LockedRock,
    /// How many bytes are fetched; 0 when all is in the cache or nothing is needed, `None` when nobody knows.
    pub download_bytes: Option<u64>,
    /// How it gets its files.
    pub build: Build,
    /// Why, in a sentence without a capital letter and full stop.
    pub why: String,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// For which Lua.
    pub lua: LuaVersion,
    /// What is done: removals first, those that need others before those; then the rest, what is needed first coming first.
    pub steps: Vec<Step>,
    /// What the lock will be. Check sums of what was never fetched are empty.
    pub lock: Lock,
}

impl Plan {
    /// Whether it changes no rock.
    pub fn is_empty(&self) -> bool {
        self.steps.iter().all(|step| step.action == Action::Keep)
    }
}

/// From what a plan is made.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// What is installed.
    pub current: &'a Lock,
    /// What shall be asked for from now on.
    pub wanted: &'a [Dependency],
    /// The addresses of the servers, in order.
    pub servers: &'a [String],
    /// What was chosen for it.
    pub solution: &'a Solution,
    /// Rocks that go in any case, because they were named.
    pub remove: &'a [RockName],
    /// Whether rocks that nothing needs any more go.
    pub remove_orphans: bool,
    /// How many bytes must be fetched for a rock; `None` if nobody knows.
    pub download: &'a dyn Fn(&LockedRock) -> Option<u64>,
}

impl std::fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs").field("wanted", &self.wanted).field("remove", &self.remove).finish_non_exhaustive()
    }
}

/// Makes the plan that leads from what is installed to a solution. Rocks that nothing needs any more stay unless their removal is asked for, or what they
/// need changes under them.
pub fn plan(inputs: Inputs<'_>) -> Plan {
    let current = inputs.current;
    let rocks = inputs.solution.rocks.iter().map(|(name, solved)| (name.clone(), locked(name, solved))).collect();
    let mut lock = Lock { version: FORMAT, lua: current.lua, wanted: inputs.wanted.to_vec(), servers: inputs.servers.to_vec(), rocks };
    let left = if inputs.remove_orphans { Vec::new() } else { stay(&mut lock, current, inputs.remove) };
    lock.reason();
    let build = |rock: &LockedRock| match inputs.solution.rocks.get(&rock.name).map(|solved| &solved.origin) {
        Some(Origin::Server { entry, spec, .. }) => Build::of(&entry.arch, spec),
        _ => Build::AsLocked,
    };
    steps(current, lock, &left, inputs.download, &build)
}

/// Makes the plan that leads from what is installed to exactly what a lock says.
pub fn sync(current: &Lock, target: &Lock, download: &dyn Fn(&LockedRock) -> Option<u64>) -> Plan {
    let mut lock = target.clone();
    lock.reason();
    steps(current, lock, &[], download, &|rock| match rock.arch {
        Arch::All | Arch::Binary(_) => Build::Unpack,
        Arch::Src | Arch::Rockspec => Build::AsLocked,
    })
}

/// What the lock will say of a chosen rock.
fn locked(name: &RockName, solved: &Solved) -> LockedRock {
    match &solved.origin {
        Origin::Lock(rock) => (**rock).clone(),
        Origin::Server { entry, url, spec } => LockedRock {
            name: name.clone(),
            version: solved.version.clone(),
            arch: entry.arch.clone(),
            url: url.clone(),
            sha256: String::new(),
            why: Why::Needed(Vec::new()),
            dependencies: solved.dependencies.clone(),
            modules: About::of(spec).modules,
            source: (entry.arch == Arch::Rockspec).then(|| LockedSource {
                url: spec.source.url.clone(),
                tag: spec.source.tag.clone(),
                sha256: String::new(),
            }),
        },
    }
}

/// Puts installed rocks that the solution does not need into the lock, if they can stay. Gives back why the others cannot.
fn stay(lock: &mut Lock, current: &Lock, remove: &[RockName]) -> Vec<(RockName, String)> {
    let orphans: Vec<&LockedRock> =
        current.rocks.values().filter(|rock| !lock.rocks.contains_key(&rock.name) && !remove.contains(&rock.name)).collect();
    for rock in &orphans {
        lock.rocks.insert(rock.name.clone(), (*rock).clone());
    }
    let mut gone = Vec::new();
    // One that goes may take along another one that needs it.
    loop {
        let broken = orphans.iter().filter(|rock| lock.rocks.contains_key(&rock.name)).find_map(|rock| {
            let unmet = rock.dependencies.iter().find(|needed| !met(lock, needed))?;
            Some((rock.name.clone(), format!("nothing needs it, and it needs {unmet}, which changes")))
        });
        let Some((name, why)) = broken else { return gone };
        lock.rocks.remove(&name);
        gone.push((name, why));
    }
}

fn met(lock: &Lock, needed: &Dependency) -> bool {
    let brought = crate::index::provided(lock.lua).iter().any(|(name, _)| *name == needed.name.as_str());
    brought || lock.rocks.get(&needed.name).is_some_and(|rock| needed.constraints.allow(&rock.version))
}

fn steps(
    current: &Lock,
    lock: Lock,
    left: &[(RockName, String)],
    download: &dyn Fn(&LockedRock) -> Option<u64>,
    build: &dyn Fn(&LockedRock) -> Build,
) -> Plan {
    let mut steps = Vec::new();
    for name in graph::order(current).into_iter().rev() {
        if let Some(rock) = current.rocks.get(&name).filter(|_| !lock.rocks.contains_key(&name)) {
            let why = match left.iter().find(|(left, _)| *left == name) {
                Some((_, why)) => why.clone(),
                None if current.is_asked(&name) => "it is not wanted any more".to_owned(),
                None => "nothing needs it any more".to_owned(),
            };
            let rock = rock.clone();
            steps.push(Step { action: Action::Remove, rock, download_bytes: Some(0), build: Build::Nothing, why });
        }
    }
    for name in graph::order(&lock) {
        let Some(rock) = lock.rocks.get(&name) else { continue };
        let action = match current.rocks.get(&name) {
            None => Action::Install,
            Some(there) if there.version == rock.version && same_files(there, rock) => Action::Keep,
            Some(there) => Action::Replace { from: there.version.clone() },
        };
        let why = reason(&lock, rock, &action);
        let (download_bytes, build) = match action {
            Action::Keep => (Some(0), Build::Nothing),
            _ => (download(rock), build(rock)),
        };
        steps.push(Step { action, rock: rock.clone(), download_bytes, build, why });
    }
    Plan { lua: lock.lua, steps, lock }
}

/// Whether two locked rocks of one version have the same files.
fn same_files(one: &LockedRock, other: &LockedRock) -> bool {
    one.arch == other.arch && (one.sha256 == other.sha256 || one.sha256.is_empty() || other.sha256.is_empty()) && {
        let sum = |rock: &LockedRock| rock.source.as_ref().map(|source| source.sha256.clone()).unwrap_or_default();
        sum(one) == sum(other) || sum(one).is_empty() || sum(other).is_empty()
    }
}

/// Why a step is taken.
fn reason(lock: &Lock, rock: &LockedRock, action: &Action) -> String {
    let wanted = lock.wanted.iter().filter(|wanted| wanted.name == rock.name);
    let asked: Vec<(String, &Dependency)> = wanted.map(|wanted| ("you".to_owned(), wanted)).collect();
    let needing = lock.dependents(&rock.name).into_iter().flat_map(|other| {
        let needs = other.dependencies.iter().filter(|needed| needed.name == rock.name);
        needs.map(move |needed| (format!("{} {}", other.name, other.version), needed))
    });
    let all: Vec<(String, &Dependency)> = asked.into_iter().chain(needing).collect();
    let said = |(who, what): &(String, &Dependency)| match who.as_str() {
        "you" => format!("you want {what}"),
        _ => format!("{who} needs {what}"),
    };
    if let Action::Replace { from } = action {
        if *from == rock.version {
            return "its files have changed".to_owned();
        }
        // Whoever does not allow what was there is the reason.
        if let Some(forcing) = all.iter().find(|(_, what)| !what.constraints.allow(from)) {
            return said(forcing);
        }
        return if *from < rock.version { format!("{} is newer", rock.version) } else { "the rest fits together so".to_owned() };
    }
    match all.as_slice() {
        [] => "nothing needs it, and its removal is not asked for".to_owned(),
        [one] => said(one),
        [one, more @ ..] => format!("{}, and {} more {}", said(one), more.len(), if more.len() == 1 { "needs it" } else { "need it" }),
    }
}

/// The steps by what is done, for summaries: `{install: 3, keep: 2}`.
pub fn counts(plan: &Plan) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for step in &plan.steps {
        *counts.entry(step.action.as_str()).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
