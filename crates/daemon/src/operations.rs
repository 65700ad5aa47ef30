//! The operations that run, for whoever waits for one. Ended ones are in the store.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};
use tokio::sync::watch;
use vmoon_core::{OperationId, operation::OpRecord};

/// Every running operation, published with every change.
#[derive(Debug, Default)]
pub(crate) struct Operations(Mutex<HashMap<OperationId, watch::Sender<OpRecord>>>);

impl Operations {
    fn lock(&self) -> MutexGuard<'_, HashMap<OperationId, watch::Sender<OpRecord>>> {
        // Nothing that can panic runs while the lock is held.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Publishes a new or changed operation. One that has ended is published a last time and dropped.
    pub(crate) fn publish(&self, record: &OpRecord) {
        let mut all = self.lock();
        let sender = all.entry(record.id).or_insert_with(|| watch::Sender::new(record.clone()));
        sender.send_replace(record.clone());
        if record.outcome.is_some() {
            all.remove(&record.id);
        }
    }

    /// Follows a running operation.
    pub(crate) fn follow(&self, id: OperationId) -> Option<watch::Receiver<OpRecord>> {
        self.lock().get(&id).map(watch::Sender::subscribe)
    }

    /// The operations that run now.
    pub(crate) fn running(&self) -> Vec<OpRecord> {
        self.lock().values().map(|sender| sender.borrow().clone()).collect()
    }
}
