//! What is known of each rock while solving: the versions to choose from, numbered from the oldest, and what each needs.
//!
//! The solver sees numbers and sets of numbers. So the rules of LuaRocks, by which versions have no order that intervals could express
//! (`== 1.0` allows every revision, but not `1.0.0`), are applied once for each constraint, to versions that exist.

use super::Request;
use crate::{
    constraint::{Constraints, Dependency},
    index::{Candidate, Index, provided},
    lock::LockedRock,
    name::RockName,
    rockspec::Rockspec,
    version::Version,
};
use pubgrub::Ranges;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

/// A rockspec that was read, or why its version cannot be used.
pub(super) type ReadSpec = Result<Arc<Rockspec>, String>;

/// One version to choose.
#[derive(Clone, Debug)]
pub(super) enum Choice {
    /// The interpreter brings it.
    Provided(Version),
    /// It is locked: what it needs is known without its rockspec.
    Locked(Rc<LockedRock>),
    /// A server has it.
    Listed(Candidate),
}

impl Choice {
    pub(super) fn version(&self) -> &Version {
        match self {
            Self::Provided(version) => version,
            Self::Locked(rock) => &rock.version,
            Self::Listed(candidate) => &candidate.version,
        }
    }
}

/// The versions of one rock, oldest first.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) choices: Vec<Choice>,
    /// The one that is locked.
    pub(super) locked: Option<u32>,
}

impl Known {
    /// The numbers of the versions that these constraints allow. What is at the end of the list is taken to go on for ever, so that sets that mean the
    /// same are the same.
    pub(super) fn set(&self, constraints: &Constraints) -> Ranges<u32> {
        if constraints.is_empty() {
            return Ranges::full();
        }
        let allowed: Vec<bool> = self.choices.iter().map(|choice| constraints.allow(choice.version())).collect();
        let mut set = Ranges::empty();
        let mut at = 0;
        while at < allowed.len() {
            let Some(start) = allowed[at..].iter().position(|fits| *fits).map(|n| at + n) else { break };
            let end = allowed[start..].iter().position(|fits| !*fits).map_or(allowed.len(), |n| start + n);
            let run = match (start == 0, end == allowed.len()) {
                (true, true) => Ranges::full(),
                (true, false) => Ranges::strictly_lower_than(end as u32),
                (false, true) => Ranges::higher_than(start as u32),
                (false, false) => Ranges::between(start as u32, end as u32),
            };
            set = set.union(&run);
            at = end;
        }
        set
    }

    /// The numbers of the versions in a set.
    pub(super) fn members(&self, set: &Ranges<u32>) -> Vec<u32> {
        (0..self.choices.len() as u32).filter(|at| set.contains(at)).collect()
    }
}

/// Everything known so far.
pub(super) struct Rocks<'a> {
    request: Request<'a>,
    known: RefCell<BTreeMap<RockName, Rc<Known>>>,
    /// The rockspecs that were read, or why one cannot be used.
    specs: RefCell<BTreeMap<(RockName, u32), ReadSpec>>,
    /// Rocks whose newest state somebody asks for.
    unreleased: RefCell<BTreeSet<RockName>>,
    /// Whether one came to be asked for after it had been refused.
    anew: Cell<bool>,
    refused: RefCell<BTreeSet<RockName>>,
}

impl<'a> Rocks<'a> {
    pub(super) fn new(request: Request<'a>) -> Self {
        let rocks = Self {
            request,
            known: RefCell::default(),
            specs: RefCell::default(),
            unreleased: RefCell::default(),
            anew: Cell::new(false),
            refused: RefCell::default(),
        };
        request.wanted.iter().for_each(|wanted| rocks.heard(wanted));
        // What is there in an unreleased version was asked for once.
        for rock in request.lock.rocks.values().filter(|rock| rock.version.is_unreleased()) {
            rocks.unreleased.borrow_mut().insert(rock.name.clone());
        }
        rocks
    }

    pub(super) fn index(&self) -> &'a Index {
        self.request.index
    }

    pub(super) fn wanted(&self) -> &'a [Dependency] {
        self.request.wanted
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.request.stop.is_stopped()
    }

    pub(super) fn may_stay(&self, name: &RockName) -> bool {
        !self.request.update.covers(name)
    }

    /// The versions of a rock: those of the server that decides, and the locked one.
    pub(super) fn known(&self, name: &RockName) -> Rc<Known> {
        if let Some(known) = self.known.borrow().get(name) {
            return Rc::clone(known);
        }
        let known = Rc::new(self.look_up(name));
        self.known.borrow_mut().insert(name.clone(), Rc::clone(&known));
        known
    }

    fn look_up(&self, name: &RockName) -> Known {
        let brought = provided(self.index().lua()).into_iter().find(|(brought, _)| *brought == name.as_str());
        if let Some(version) = brought.and_then(|(_, version)| version.parse().ok()) {
            return Known { choices: vec![Choice::Provided(version)], locked: None };
        }
        let mut choices: Vec<Choice> = self.index().candidates(name).into_iter().map(Choice::Listed).collect();
        let mut locked = None;
        if let Some(rock) = self.request.lock.rocks.get(name) {
            let choice = Choice::Locked(Rc::new(rock.clone()));
            let at = match choices.binary_search_by(|choice| choice.version().cmp(&rock.version)) {
                Ok(at) => {
                    choices[at] = choice;
                    at
                }
                Err(at) => {
                    choices.insert(at, choice);
                    at
                }
            };
            locked = u32::try_from(at).ok();
        }
        Known { choices, locked }
    }

    /// Remembers that somebody asks for what is not released.
    pub(super) fn heard(&self, dependency: &Dependency) {
        let name = &dependency.name;
        if dependency.constraints.ask_for_unreleased()
            && self.unreleased.borrow_mut().insert(name.clone())
            && self.refused.borrow().contains(name)
        {
            self.anew.set(true);
        }
    }

    /// Whether a rock was refused for not being released and is asked for now; asking once answers no the next time.
    pub(super) fn asked_anew(&self) -> bool {
        let anew = self.anew.replace(false);
        if anew {
            self.refused.borrow_mut().clear();
        }
        anew
    }

    /// Whether a version may be chosen, as far as only its being released counts.
    pub(super) fn is_released_enough(&self, name: &RockName, version: &Version) -> bool {
        !version.is_unreleased() || self.unreleased.borrow().contains(name)
    }

    /// The same, and if not, it is remembered that it was refused.
    pub(super) fn released_enough(&self, name: &RockName, version: &Version) -> bool {
        let fits = self.is_released_enough(name, version);
        if !fits {
            self.refused.borrow_mut().insert(name.clone());
        }
        fits
    }

    pub(super) fn keep_spec(&self, name: &RockName, at: u32, spec: ReadSpec) {
        self.specs.borrow_mut().insert((name.clone(), at), spec);
    }

    pub(super) fn read(&self, name: &RockName, at: u32) -> Option<ReadSpec> {
        self.specs.borrow().get(&(name.clone(), at)).cloned()
    }

    pub(super) fn spec_of(&self, name: &RockName, at: u32) -> Option<Arc<Rockspec>> {
        self.read(name, at)?.ok()
    }

    /// What a version needs, as far as its rockspec was read; to build it included, unless it comes ready.
    pub(super) fn dependencies_of(&self, name: &RockName, at: u32) -> Vec<Dependency> {
        let known = self.known(name);
        match known.choices.get(at as usize) {
            Some(Choice::Locked(rock)) => rock.dependencies.clone(),
            Some(Choice::Listed(candidate)) => match self.spec_of(name, at) {
                Some(spec) => needs(candidate, &spec),
                None => Vec::new(),
            },
            Some(Choice::Provided(_)) | None => Vec::new(),
        }
    }
}

/// What a candidate needs.
pub(super) fn needs(candidate: &Candidate, spec: &Rockspec) -> Vec<Dependency> {
    use crate::lock::Arch;
    let mut all = spec.dependencies.clone();
    if !matches!(candidate.best().arch, Arch::All | Arch::Binary(_)) {
        all.extend(spec.build_dependencies.iter().filter(|dependency| !spec.dependencies.contains(dependency)).cloned());
    }
    all
}
