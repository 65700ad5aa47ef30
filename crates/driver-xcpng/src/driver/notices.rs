//! What happens in the pool, pushed by its events.

use super::{handle, pool::Pool};
use crate::tags;
use async_trait::async_trait;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use vmoon_core::{
    Code,
    ability::{Changed, Notices},
};
use vmoon_xapi::{cache::Record, records::Vm, watch::Watch};

/// The first and the longest pause between two tries to reach the pool.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(15);
/// More than this at once is everything.
const MANY: usize = 64;

/// The notices of one pool.
pub(super) struct Events {
    pool: Arc<Pool>,
    watch: Option<Watch>,
    /// The uuids of machines by reference: what is gone can be named.
    machines: HashMap<String, String>,
    ready: VecDeque<Changed>,
    /// When the pool is tried again.
    not_before: Instant,
    pause: Duration,
}

impl Events {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool, watch: None, machines: HashMap::new(), ready: VecDeque::new(), not_before: Instant::now(), pause: FIRST }
    }

    async fn begin(&mut self) -> Result<(), vmoon_core::Error> {
        let client = self.pool.client()?;
        let watch = Watch::begin(client, &["VM"]).await.map_err(|error| self.pool.failed("follow the pool", error))?;
        self.machines = watch.cache().class("VM").filter_map(|(reference, record)| Some((reference.to_owned(), uuid(record)?))).collect();
        self.watch = Some(watch);
        Ok(())
    }

    /// What a batch of changes means for machines.
    fn mean(&mut self, references: Vec<String>) {
        let Some(watch) = &self.watch else { return };
        if references.len() > MANY {
            self.machines =
                watch.cache().class("VM").filter_map(|(reference, record)| Some((reference.to_owned(), uuid(record)?))).collect();
            self.ready.push_back(Changed::All);
            return;
        }
        for reference in references {
            let now = watch.cache().get("VM", &reference).and_then(uuid);
            let before = match &now {
                Some(uuid) => self.machines.insert(reference, uuid.clone()),
                None => self.machines.remove(&reference),
            };
            // A machine that became a template was one.
            if let Some(uuid) = now.or(before) {
                self.ready.push_back(Changed::Machine(handle(&uuid)));
            }
        }
    }

    fn lost(&mut self) {
        self.watch = None;
        self.not_before = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST);
    }
}

/// The uuid of a record that is a machine.
fn uuid(record: &Record) -> Option<String> {
    let vm: Vm = record.read().ok()?;
    tags::is_machine(&vm).then_some(vm.uuid)
}

#[async_trait]
impl Notices for Events {
    async fn next(&mut self) -> Option<Changed> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            match &mut self.watch {
                None => {
                    sleep_until(self.not_before).await;
                    match self.begin().await {
                        Ok(()) => {
                            self.pause = FIRST;
                            return Some(Changed::All);
                        }
                        Err(error) => {
                            tracing::debug!(%error, "the pool cannot be followed");
                            // What only the user can change is tried as rarely as can be.
                            if matches!(error.code(), Code::ConnectionAuth | Code::ConnectionUntrusted | Code::ConnectionLocked) {
                                self.pause = LONGEST;
                            }
                            self.lost();
                        }
                    }
                }
                Some(watch) => match watch.next().await {
                    Ok(changes) => self.mean(changes.into_iter().map(|change| change.reference).collect()),
                    Err(error) => {
                        tracing::debug!(%error, "the pool's events are lost");
                        self.lost();
                        return Some(Changed::All);
                    }
                },
            }
        }
    }
}
