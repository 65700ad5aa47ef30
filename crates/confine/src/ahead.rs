//! Confining a process before it is known which directories are its own: all but Landlock first, and Landlock when they are known.
//!
//! Whoever is not confined makes the ruleset with what is granted alike, and grants in it what is the process's own; the process itself, which may make none,
//! enters it (landlock_restrict_self(2) is the one call of Landlock that the filter lets pass).

use crate::{
    apply::{Next, Prepared, apply_but},
    landlock,
    report::{Error, Report, Status},
    rules::{Layer, Profile, Rules},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// What will be granted to a process. The process and who makes it hold the same one, by descriptors of their own.
#[derive(Debug)]
pub struct Ruleset {
    fd: OwnedFd,
    abi: u32,
}

impl Ruleset {
    /// What these rules grant; `None` where Landlock holds nothing: this kernel has none, or it is switched off, or the profile is [`Profile::Trusted`].
    ///
    /// # Errors
    /// A path cannot be granted.
    pub fn new(rules: &Rules, prepared: &Prepared) -> Result<Option<Self>, Error> {
        match prepared.landlock() {
            Some(abi) if rules.profile != Profile::Trusted && !rules.without.contains(&Layer::Landlock) => {
                Ok(Some(Self { fd: landlock::ruleset(rules, abi)?, abi }))
            }
            _ => Ok(None),
        }
    }

    /// The same ruleset by another descriptor, for the process that will enter it.
    ///
    /// # Errors
    /// Those of fcntl(2): too many descriptors.
    pub fn share(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, abi: self.abi })
    }

    /// Grants reading, writing and mapping for execution of a directory and what is in it.
    ///
    /// # Errors
    /// It is not there, or there is a symbolic link on the way to it.
    pub fn own(&self, path: &Path) -> Result<(), Error> {
        landlock::own(&self.fd, path, self.abi)
    }

    /// Restricts the calling thread, and what it starts from now on. `no_new_privs` must be set, as [`apply_ahead`] does.
    ///
    /// # Errors
    /// The kernel has refused.
    pub fn enter(self) -> Result<Status, Error> {
        landlock::enter(&self.fd, self.abi)?;
        Ok(landlock::status(self.abi))
    }
}

impl AsFd for Ruleset {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// As [`crate::apply_forkable`], but for Landlock if there is a ruleset for it: what that has said is to be added to the report. The process can still open
/// files until then.
///
/// # Errors
/// As [`crate::apply`].
pub fn apply_ahead(rules: &Rules, prepared: &Prepared, token: u64, ruleset: Option<&Ruleset>) -> Result<Report, Error> {
    apply_but(ruleset.map(|_| Layer::Landlock), rules, prepared, Next::Stay(token))
}
