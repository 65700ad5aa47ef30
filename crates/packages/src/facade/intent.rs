//! What a change means for an environment: what is to be asked for from now on, what may change, what goes. Pure.

use crate::{constraint::Dependency, lock::Lock, name::RockName, plan, solve::Update};
use std::collections::BTreeSet;
use vmoon_core::{Code, Error, Result, name::escape, package::Change};

/// What is to become of an environment's list of packages.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Intent {
    /// What is asked for from now on.
    pub(super) wanted: Vec<Dependency>,
    /// Versions that are asked for this time only.
    pub(super) pins: Vec<Dependency>,
    /// Which locked rocks may change although they need not.
    pub(super) update: Update,
    /// Rocks that were named to go.
    pub(super) remove: Vec<RockName>,
    /// Whether what nothing needs any more goes.
    pub(super) orphans: bool,
}

/// A package as somebody asks for it: `lpeg`, `lpeg@1.1`, `lpeg@~>1.0`, `lpeg >= 1.0, < 2`.
///
/// # Errors
/// [`Code::Usage`], saying what is wrong.
pub(super) fn wish(text: &str) -> Result<Dependency> {
    let text = text.trim_matches(' ');
    let parsed = match text.contains(char::is_control) {
        true => Err(Error::new(Code::Usage, "it has characters that cannot be seen")),
        // It knows what stands behind an @, too: a version, or constraints.
        false => text.parse(),
    };
    parsed.map_err(|error: Error| {
        let shown: String = escape(text).chars().take(80).collect();
        Error::new(Code::Usage, format!("\"{shown}\" is no package: {}", error.message()))
            .hint("write a name, NAME@VERSION, or a name with constraints: 'lpeg >= 1.0, < 2'")
    })
}

/// Several of them; all problems at once.
///
/// # Errors
/// [`Code::Usage`].
pub(super) fn wishes(packages: &[String]) -> Result<Vec<Dependency>> {
    let (good, bad): (Vec<_>, Vec<_>) = packages.iter().map(|text| wish(text)).partition(Result::is_ok);
    let problems: Vec<String> = bad.into_iter().filter_map(|result| result.err().map(|error| error.message().to_owned())).collect();
    if problems.is_empty() {
        return Ok(good.into_iter().flatten().collect());
    }
    Err(Error::new(Code::Usage, problems.join("; ")).hint("write a name, NAME@VERSION, or a name with constraints: 'lpeg >= 1.0, < 2'"))
}

/// Adds wishes to a list: one of the same name takes the place of the old one.
fn add(wanted: &mut Vec<Dependency>, wishes: Vec<Dependency>) {
    for wish in wishes {
        match wanted.iter_mut().find(|old| old.name == wish.name) {
            Some(old) => *old = wish,
            None => wanted.push(wish),
        }
    }
}

impl Intent {
    /// Wishes that are added.
    pub(super) fn adding(lock: &Lock, wishes: Vec<Dependency>) -> Self {
        let mut wanted = lock.wanted.clone();
        add(&mut wanted, wishes);
        Self { wanted, ..Self::default() }
    }

    /// Of the changes that ask for something of the servers; nothing for the others.
    ///
    /// # Errors
    /// [`Code::Usage`], [`Code::PackageNotFound`] for packages that are not installed, [`Code::PackageRequired`] for some that others need.
    pub(super) fn of(lock: &Lock, change: &Change) -> Result<Option<Self>> {
        Ok(Some(match change {
            Change::Install { packages } => Self::adding(lock, wishes(packages)?),
            Change::Update { packages } if packages.is_empty() => {
                Self { wanted: lock.wanted.clone(), update: Update::Everything, ..Self::default() }
            }
            Change::Update { packages } => {
                let wishes = wishes(packages)?;
                let missing: Vec<&str> =
                    wishes.iter().map(|wish| &wish.name).filter(|name| !lock.rocks.contains_key(*name)).map(RockName::as_str).collect();
                if !missing.is_empty() {
                    return Err(Error::new(Code::PackageNotFound, format!("not installed here: {}", missing.join(", ")))
                        .hint("install it: vmoon pkg install"));
                }
                let names: BTreeSet<RockName> = wishes.iter().map(|wish| wish.name.clone()).collect();
                let mut wanted = lock.wanted.clone();
                // A constraint that was given is asked for; a bare name says nothing new.
                add(&mut wanted, wishes.into_iter().filter(|wish| !wish.constraints.is_empty()).collect());
                Self { wanted, update: Update::Rocks(names), ..Self::default() }
            }
            Change::Remove { packages, orphans } => {
                let names: Vec<RockName> = wishes(packages)?.into_iter().map(|wish| wish.name).collect();
                plan::removable(lock, &names)?;
                let wanted = lock.wanted.iter().filter(|wanted| !names.contains(&wanted.name)).cloned().collect();
                Self { wanted, remove: names, orphans: *orphans, ..Self::default() }
            }
            Change::Sync | Change::Bootstrap { .. } | Change::Rollback { .. } | Change::Import { .. } => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lock::{Arch, LockedRock, Why},
        lua_version::LuaVersion,
    };

    fn lock() -> Lock {
        let mut lock = Lock::empty(LuaVersion::V54);
        lock.wanted = vec!["lpeg < 2".parse().unwrap(), "penlight".parse().unwrap()];
        for (name, needs) in [("lpeg", vec![]), ("penlight", vec!["luafilesystem"]), ("luafilesystem", vec![])] {
            let name: RockName = name.parse().unwrap();
            let rock = LockedRock {
                name: name.clone(),
                version: "1.0-1".parse().unwrap(),
                arch: Arch::All,
                url: String::new(),
                sha256: String::new(),
                source: None,
                dependencies: needs.iter().map(|need: &&str| need.parse().unwrap()).collect(),
                why: Why::Asked,
                modules: Vec::new(),
            };
            lock.rocks.insert(name, rock);
        }
        lock.reason();
        lock
    }

    fn shown(wanted: &[Dependency]) -> Vec<String> {
        wanted.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn wishes_are_read_and_mistakes_are_all_told() {
        assert_eq!(wish("lpeg@1.1").unwrap(), "lpeg == 1.1".parse().unwrap());
        assert_eq!(wish("lpeg >= 1.0, < 2").unwrap().name.as_str(), "lpeg");
        assert_eq!(wish("lpeg@>=1.0, <2").unwrap(), wish("lpeg >= 1.0, < 2").unwrap());
        for bad in ["", "../x", "x\n", "--help me", "@1", "lpeg@", "lpeg >> 1"] {
            assert_eq!(wish(bad).unwrap_err().code(), Code::Usage, "{bad:?}");
        }
        let error = wishes(&["a".into(), "../x".into(), "-y".into()]).unwrap_err();
        assert!(error.message().contains("../x") && error.message().contains("-y"), "{error}");
    }

    #[test]
    fn what_is_wanted_follows_from_the_change() {
        let lock = lock();
        let of = |change: Change| Intent::of(&lock, &change).map(Option::unwrap);
        let packages = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let intent = of(Change::Install { packages: packages(&["lpeg@1.1", "inspect"]) }).unwrap();
        assert_eq!(shown(&intent.wanted), ["lpeg == 1.1", "penlight", "inspect"]);
        assert_eq!(intent.update, Update::Nothing);
        let intent = of(Change::Update { packages: packages(&["luafilesystem"]) }).unwrap();
        assert_eq!((shown(&intent.wanted).len(), intent.update != Update::Nothing), (2, true));
        assert_eq!(of(Change::Update { packages: vec![] }).unwrap().update, Update::Everything);
        assert_eq!(of(Change::Update { packages: packages(&["nope"]) }).unwrap_err().code(), Code::PackageNotFound);
        let intent = of(Change::Remove { packages: packages(&["penlight"]), orphans: true }).unwrap();
        assert_eq!((shown(&intent.wanted), intent.orphans), (vec!["lpeg < 2".to_owned()], true));
        let refused = of(Change::Remove { packages: packages(&["luafilesystem"]), orphans: false }).unwrap_err();
        assert_eq!(refused.code(), Code::PackageRequired);
        assert_eq!(Intent::of(&lock, &Change::Sync).unwrap(), None);
    }
}
