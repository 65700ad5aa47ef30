//! One more layer of Landlock for a process that is confined already: what a copy of a machine keeps of the grants it was born with. The ruleset is
//! made by somebody who is not confined, and entered by the process it is given to, which may make none itself.

use crate::{
    landlock,
    report::Error,
    rules::{Layer, Rules},
};
use std::os::fd::OwnedFd;

/// The first ABI that stops signals out of the domain: the filter of a copied process still names the process it was copied from as its own.
const SIGNALS: u32 = 6;

/// What these rules grant.
///
/// # Errors
/// This kernel cannot keep two copies of a process apart, or a path cannot be granted.
pub fn ruleset(rules: &Rules) -> Result<OwnedFd, Error> {
    let abi = landlock::abi().map_err(|why| Error::new(Layer::Landlock, why))?;
    if abi < SIGNALS {
        return Err(Error::new(
            Layer::Landlock,
            "this kernel cannot keep a copy from signalling its original (Linux 6.12 and later)".to_owned(),
        ));
    }
    landlock::ruleset(rules, abi)
}

/// Restricts the calling thread, and what it starts from now on, by a ruleset that [`ruleset`] has made. `abi` must be that of the process that has
/// made it, which [`abi`] tells.
///
/// # Errors
/// The kernel has refused.
pub fn enter(ruleset: &OwnedFd, abi: u32) -> Result<(), Error> {
    landlock::enter(ruleset, abi)
}

/// The version of Landlock of this kernel, 0 for none.
pub fn abi() -> u32 {
    landlock::abi().unwrap_or(0)
}
