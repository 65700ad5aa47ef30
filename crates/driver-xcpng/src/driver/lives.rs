//! Which life a VM is in. Pure.
//!
//! XAPI numbers runs of the hypervisor's domain, and a reset, or suspending and resuming, begins another one; for those who talk to the machine it is the same life. So
//! a life has the number of the run it began with, and keeps it over what is known to continue it. That is known of what happens while the driver is there: after a
//! restart of the daemon a VM that was reset before is in a life of the number of its run.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

#[derive(Clone, Copy, Debug)]
struct Life {
    number: u64,
    run: u64,
    /// Another run is the same life.
    goes_on: bool,
}

/// The lives of the VMs that run, by uuid.
#[derive(Debug, Default)]
pub(super) struct Lives(Mutex<HashMap<String, Life>>);

impl Lives {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Life>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a VM that is seen in this run.
    pub(super) fn seen(&self, uuid: &str, run: u64) -> u64 {
        let mut all = self.all();
        match all.get_mut(uuid) {
            Some(life) if life.run == run || life.goes_on => {
                life.run = run;
                life.number
            }
            _ => {
                all.insert(uuid.to_owned(), Life { number: run, run, goes_on: false });
                run
            }
        }
    }

    /// Whatever run comes next is the same life.
    pub(super) fn goes_on(&self, uuid: &str) {
        if let Some(life) = self.all().get_mut(uuid) {
            life.goes_on = true;
        }
    }

    /// The run that goes on was seen: another one is another life again.
    pub(super) fn went_on(&self, uuid: &str) {
        if let Some(life) = self.all().get_mut(uuid) {
            life.goes_on = false;
        }
    }

    /// It was seen off, or is gone.
    pub(super) fn over(&self, uuid: &str) {
        self.all().remove(uuid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_goes_on_over_a_reset_and_ends_with_the_machine() {
        let lives = Lives::default();
        assert_eq!((lives.seen("a", 5), lives.seen("a", 5)), (5, 5));
        lives.goes_on("a");
        assert_eq!(lives.seen("a", 6), 5);
        lives.went_on("a");
        assert_eq!(lives.seen("a", 6), 5);
        assert_eq!(lives.seen("a", 7), 7, "somebody else has started it anew");
        lives.over("a");
        assert_eq!(lives.seen("a", 9), 9);
        lives.goes_on("never seen");
    }
}
