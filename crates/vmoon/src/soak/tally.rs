//! What was done, and what was wrong.

use std::collections::BTreeMap;

/// How many wrong things are told one by one.
const TOLD: usize = 50;

/// The count of one soak.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// How often each thing was done.
    pub(super) done: BTreeMap<&'static str, u64>,
    /// What was not as it must be.
    pub(super) wrong: Vec<String>,
    /// Questions that a killed daemon had not answered.
    pub(super) asked_again: u64,
    /// How many daemons were killed.
    pub(super) daemons_killed: u64,
    /// Lives that were ended by a signal, of which nobody knew that.
    pub(super) reasons_lost: u64,
}

impl Tally {
    /// One more of these.
    pub(super) fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// Something is not as it must be.
    pub(super) fn wrong(&mut self, what: String) {
        if self.wrong.len() < TOLD {
            self.wrong.push(what);
        }
    }
}
