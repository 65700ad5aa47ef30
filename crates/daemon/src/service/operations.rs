//! Operations, as the API asks for them.

use super::Service;
use std::time::Duration;
use vmoon_api::views::OperationView;
use vmoon_core::{Code, Error, MachineId, OperationId, Result, machine::Request, name::escape, operation::OpRecord};

/// How many operations are listed.
const LISTED: usize = 200;

impl Service {
    fn shown(&self, record: OpRecord) -> OperationView {
        let name = match &record.environment {
            Some(environment) => environment.clone(),
            None => self.context.machine(record.machine).map(|m| m.view().name.clone()).unwrap_or_default(),
        };
        OperationView {
            id: record.id,
            verb: record.verb,
            machine: (record.machine != MachineId::NONE).then_some(record.machine),
            environment: record.environment,
            name,
            what: record.what,
            started_ms: record.started_ms,
            deadline_ms: record.deadline_ms,
            ended_ms: record.ended_ms,
            progress: record.progress,
            outcome: record.outcome,
            result: record.result,
        }
    }

    pub(super) async fn operations(&self, running: bool) -> Result<Vec<OperationView>> {
        let mut records = self.context.store.run(move |tx| tx.operations(running, LISTED)).await?;
        for live in self.context.operations.running() {
            if let Some(record) = records.iter_mut().find(|r| r.id == live.id) {
                *record = live;
            }
        }
        Ok(records.into_iter().map(|record| self.shown(record)).collect())
    }

    async fn record(&self, text: &str) -> Result<OpRecord> {
        let unknown = || {
            Error::new(Code::OperationNotFound, format!("no operation has the id \"{}\"", escape(text))).hint("see `vmoon operation list`")
        };
        if let Ok(id) = text.parse::<OperationId>() {
            if let Some(live) = self.context.operations.follow(id) {
                return Ok(live.borrow().clone());
            }
            return self.context.store.run(move |tx| tx.operation(id)).await?.ok_or_else(unknown);
        }
        if text.len() < 4 {
            return Err(unknown());
        }
        let records = self.context.store.run(|tx| tx.operations(false, 10_000)).await?;
        let mut fits = records.into_iter().filter(|r| r.id.to_string().starts_with(&text.to_ascii_lowercase()));
        match (fits.next(), fits.next()) {
            (Some(one), None) => Ok(self.context.operations.follow(one.id).map_or(one, |live| live.borrow().clone())),
            (None, _) => Err(unknown()),
            _ => Err(Error::new(Code::NameAmbiguous, format!("several operations begin with {}", escape(text)))),
        }
    }

    pub(super) async fn operation(&self, text: &str) -> Result<OperationView> {
        Ok(self.shown(self.record(text).await?))
    }

    pub(super) async fn wait_operation_end(&self, text: &str, patience: Duration) -> Result<OperationView> {
        let record = self.record(text).await?;
        let Some(mut live) = self.context.operations.follow(record.id).filter(|_| record.outcome.is_none()) else {
            let id = record.id;
            let newest = self.context.store.run(move |tx| tx.operation(id)).await?;
            return Ok(self.shown(newest.unwrap_or(record)));
        };
        // The sender is dropped with the last publication, which holds the outcome.
        let _ = tokio::time::timeout(patience, live.wait_for(|r| r.outcome.is_some())).await;
        let last = live.borrow().clone();
        Ok(self.shown(last))
    }

    pub(super) async fn cancel(&self, text: &str) -> Result<OperationView> {
        let record = self.record(text).await?;
        let over = || Error::new(Code::OperationEnded, "the operation is over");
        if record.environment.is_some() {
            return if self.workshop.cancel(record.id) { self.operation(&record.id.to_string()).await } else { Err(over()) };
        }
        let machine = self.context.machine(record.machine).ok_or_else(over)?;
        if record.outcome.is_some() || machine.view().operation != Some(record.id) {
            return Err(over());
        }
        machine.request(Request::Cancel, None).await?;
        self.operation(&record.id.to_string()).await
    }
}
