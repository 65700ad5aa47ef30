//! Who needs whom in a lock: in which order to install, why a rock is there, what nothing needs, what must not go. Cycles are allowed: rocks may need each
//! other.

use crate::{
    constraint::Dependency,
    lock::{Lock, LockedRock},
    name::RockName,
    version::Version,
};
use std::collections::BTreeSet;
use vmoon_core::{Code, Error, Result};

/// More ways than this that lead to one rock are not listed.
const MAX_WAYS: usize = 50;

/// The rocks of a lock, what is needed before what needs it; in a cycle and else by name.
pub(super) fn order(lock: &Lock) -> Vec<RockName> {
    let mut order = Vec::with_capacity(lock.rocks.len());
    let mut seen = BTreeSet::new();
    for start in lock.rocks.keys() {
        // Depth first, without recursion: a lock may be a chain of ten thousand rocks.
        let mut stack = vec![(start, false)];
        while let Some((name, done)) = stack.pop() {
            if done {
                order.push(name.clone());
                continue;
            }
            let Some(rock) = lock.rocks.get(name) else { continue };
            if !seen.insert(name) {
                continue;
            }
            stack.push((name, true));
            let mut needs: Vec<&RockName> = rock.dependencies.iter().map(|d| &d.name).filter(|name| !seen.contains(name)).collect();
            needs.sort_by(|a, b| b.cmp(a));
            stack.extend(needs.into_iter().map(|name| (name, false)));
        }
    }
    order
}

/// Rocks that nobody asked for and nothing needs that somebody asked for.
pub fn orphans(lock: &Lock) -> Vec<RockName> {
    let reached = lock.reachable();
    lock.rocks.keys().filter(|name| !reached.contains(*name)).cloned().collect()
}

/// Checks that rocks can go: they are there, and nothing that stays needs them.
///
/// # Errors
/// [`Code::PackageNotFound`] or [`Code::PackageRequired`], naming every rock that is in the way.
pub fn removable(lock: &Lock, names: &[RockName]) -> Result<()> {
    let missing: Vec<&str> = names.iter().filter(|name| !lock.rocks.contains_key(*name)).map(RockName::as_str).collect();
    if !missing.is_empty() {
        return Err(Error::new(Code::PackageNotFound, format!("not installed here: {}", missing.join(", ")))
            .hint("list what is installed with \"vmoon pkg list\""));
    }
    let mut problems = Vec::new();
    let mut in_the_way = BTreeSet::new();
    for name in names {
        for other in lock.dependents(name).into_iter().filter(|other| !names.contains(&other.name)) {
            let needed = other.dependencies.iter().find(|d| d.name == *name).map(Dependency::to_string).unwrap_or_default();
            problems.push(format!("{} {} needs {needed}", other.name, other.version));
            in_the_way.insert(other.name.as_str());
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = in_the_way.into_iter().collect();
    Err(Error::new(Code::PackageRequired, problems.join("; ")).hint(format!("remove {} too, or keep it", names.join(", "))))
}

/// One step on the way from what was asked for to a rock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The rock.
    pub name: RockName,
    /// Its version.
    pub version: Version,
    /// As what it was asked for, by the user or by the step before.
    pub needed: Dependency,
}

/// Every way from what was asked for to this rock, shortest first, at most fifty; none for an orphan.
///
/// # Errors
/// [`Code::PackageNotFound`] if it is not installed.
pub fn why(lock: &Lock, name: &RockName) -> Result<Vec<Vec<Link>>> {
    removable(lock, std::slice::from_ref(name)).or_else(|error| match error.code() {
        Code::PackageRequired => Ok(()),
        _ => Err(error),
    })?;
    let mut ways = Vec::new();
    let mut open: Vec<Vec<Link>> = lock.wanted.iter().filter_map(|wanted| Some(vec![link(lock, wanted)?])).collect();
    // Breadth first. What cannot lead there is not followed, so the number of open ways stays small.
    let leads = leading_to(lock, name);
    while !open.is_empty() && ways.len() < MAX_WAYS {
        let mut next = Vec::new();
        for way in open {
            let Some(last) = way.last() else { continue };
            if last.name == *name {
                ways.push(way);
                continue;
            }
            let Some(rock) = lock.rocks.get(&last.name) else { continue };
            for needed in &rock.dependencies {
                let again = way.iter().any(|link| link.name == needed.name);
                if !again
                    && leads.contains(&needed.name)
                    && let Some(link) = link(lock, needed)
                {
                    next.push(way.iter().cloned().chain([link]).collect());
                }
            }
        }
        next.truncate(MAX_WAYS * 20);
        open = next;
    }
    ways.truncate(MAX_WAYS);
    Ok(ways)
}

fn link(lock: &Lock, needed: &Dependency) -> Option<Link> {
    let rock = lock.rocks.get(&needed.name)?;
    Some(Link { name: rock.name.clone(), version: rock.version.clone(), needed: needed.clone() })
}

/// This rock and everything that needs it, near or far.
fn leading_to(lock: &Lock, name: &RockName) -> BTreeSet<RockName> {
    let dependents = lock.all_dependents();
    let mut leads = BTreeSet::from([name.clone()]);
    let mut next = vec![name];
    while let Some(name) = next.pop() {
        for other in dependents.get(name).into_iter().flatten() {
            if leads.insert((*other).clone()) {
                next.push(other);
            }
        }
    }
    leads
}

/// A rock in the tree of what needs what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The rock.
    pub name: RockName,
    /// Its version.
    pub version: Version,
    /// As what it was asked for; `None` for an orphan.
    pub needed: Option<Dependency>,
    /// What it needs. Empty where [`Node::again`].
    pub needs: Vec<Node>,
    /// Whether it stands in the tree before, with what it needs.
    pub again: bool,
}

/// What was asked for with everything below it, then the orphans with what is below them. A rock's needs are shown once.
pub fn tree(lock: &Lock) -> Vec<Node> {
    let mut shown = BTreeSet::new();
    let mut roots = Vec::new();
    for wanted in &lock.wanted {
        if let Some(rock) = lock.rocks.get(&wanted.name) {
            roots.push(node(lock, rock, Some(wanted.clone()), &mut shown, 0));
        }
    }
    let orphans = orphans(lock);
    let dependents = lock.all_dependents();
    let is_top = |name: &&RockName| !dependents.contains_key(*name);
    // In a cycle of orphans none is the top one: the first by name stands for it.
    for name in orphans.iter().filter(is_top).chain(&orphans) {
        if let Some(rock) = lock.rocks.get(name).filter(|_| !shown.contains(name)) {
            roots.push(node(lock, rock, None, &mut shown, 0));
        }
    }
    roots
}

/// Deeper than this is not shown; no chain of rocks is so long.
const MAX_DEPTH: usize = 200;

fn node(lock: &Lock, rock: &LockedRock, needed: Option<Dependency>, shown: &mut BTreeSet<RockName>, depth: usize) -> Node {
    let again = !shown.insert(rock.name.clone());
    let mut needs = Vec::new();
    if !again && depth < MAX_DEPTH {
        for dependency in &rock.dependencies {
            if let Some(rock) = lock.rocks.get(&dependency.name) {
                needs.push(node(lock, rock, Some(dependency.clone()), shown, depth + 1));
            }
        }
    }
    let again = again && rock.dependencies.iter().any(|dependency| lock.rocks.contains_key(&dependency.name));
    Node { name: rock.name.clone(), version: rock.version.clone(), needed, needs, again }
}
