//! What a world tells those who watch it, in order and with a bound: whoever falls behind learns that anything may have changed.

use crate::world::World;
use async_trait::async_trait;
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;
use vmoon_core::{
    ability::{Changed, Notices},
    driver::Handle,
};

/// How many notices are kept for those who fall behind.
const KEPT: usize = 256;

/// The newest notices.
#[derive(Default)]
pub(crate) struct Board {
    /// How many there ever were.
    total: u64,
    newest: VecDeque<Changed>,
}

impl Board {
    /// Adds one.
    pub(crate) fn add(&mut self, changed: Changed) {
        self.total += 1;
        self.newest.push_back(changed);
        if self.newest.len() > KEPT {
            self.newest.pop_front();
        }
    }

    /// About this machine.
    pub(crate) fn machine(&mut self, handle: Handle) {
        self.add(Changed::Machine(handle));
    }

    /// The notice after the first `seen` ones, which moves.
    fn after(&self, seen: &mut u64) -> Option<Changed> {
        let oldest = self.total - self.newest.len() as u64;
        if *seen < oldest {
            *seen = self.total;
            return Some(Changed::All);
        }
        let notice = self.newest.get((*seen - oldest) as usize).cloned()?;
        *seen += 1;
        Some(notice)
    }
}

/// One who watches.
pub(crate) struct Watching {
    world: Arc<World>,
    seen: u64,
    reachable: bool,
    changes: watch::Receiver<u64>,
}

impl Watching {
    /// From now on.
    pub(crate) fn new(world: Arc<World>) -> Self {
        let (seen, reachable, changes) = (world.lock().board.total, world.is_reachable(), world.changes());
        Self { world, seen, reachable, changes }
    }
}

#[async_trait]
impl Notices for Watching {
    async fn next(&mut self) -> Option<Changed> {
        loop {
            self.changes.mark_unchanged();
            // A lost connection is noticed, and so is that it is back; of what happens meanwhile nobody is told.
            if self.world.is_reachable() != self.reachable {
                self.reachable = !self.reachable;
                return Some(Changed::All);
            }
            if self.reachable
                && let Some(notice) = self.world.lock().board.after(&mut self.seen)
            {
                return Some(notice);
            }
            self.changes.changed().await.ok()?;
        }
    }
}
