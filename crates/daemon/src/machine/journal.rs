//! Where a driver reports progress and journals its undo values: the store, and the machine's task.

use super::handle::Msg;
use crate::store::Store;
use async_trait::async_trait;
use tokio::sync::mpsc;
use vmoon_core::{
    OperationId, Result,
    driver::Journal,
    operation::{Progress, Undo},
};

pub(super) struct OperationJournal {
    pub(super) operation: OperationId,
    pub(super) store: Store,
    pub(super) task: mpsc::Sender<Msg>,
}

#[async_trait]
impl Journal for OperationJournal {
    fn progress(&self, progress: Progress) {
        // A report that finds the task busy is dropped: the next one says more.
        let _ = self.task.try_send(Msg::Progress(self.operation, progress));
    }

    async fn undo(&self, undo: Undo) -> Result<()> {
        let operation = self.operation;
        self.store.run(move |tx| tx.put_undo(operation, &undo)).await
    }
}
