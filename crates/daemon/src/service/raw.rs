//! Calls in a hypervisor's own language, passed to the driver that holds the session.

use super::{LONGEST_WAIT, Service};
use crate::connections::Entry;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use vmoon_api::requests::{CallRaw, FollowRaw, RawTaskRef};
use vmoon_core::{
    Code, Error, Result,
    driver::unsupported,
    name::escape,
    raw::{Raw, RawAnswer, RawCall, RawTask},
};

/// How long a call may take if nothing is said, milliseconds.
const DEADLINE_MS: u64 = 10 * 60 * 1000;
/// The same at most.
const LONGEST_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a task is waited for if nothing is said, milliseconds.
const FOLLOW_MS: u64 = 30_000;
/// How much longer than it was told the driver may take.
const GRACE: Duration = Duration::from_secs(10);

fn raw(entry: &Entry) -> Result<&dyn Raw> {
    entry.driver.raw().ok_or_else(|| unsupported(&entry.kind, "be called in a language of their own"))
}

async fn within<T>(ms: u64, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let limit = Duration::from_millis(ms) + GRACE;
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(Error::new(Code::OperationDeadline, format!("{what} took longer than {} s; it may still run", ms / 1000))))
}

impl Service {
    fn entry(&self, name: &str) -> Result<Arc<Entry>> {
        self.context.connections.find(name)
    }

    pub(super) async fn raw_call(&self, request: CallRaw) -> Result<RawAnswer> {
        let entry = self.entry(&request.connection)?;
        let deadline_ms = request.deadline_ms.unwrap_or(DEADLINE_MS).clamp(1, LONGEST_MS);
        let (method, arguments) = (request.method, request.arguments);
        let what = escape(&method);
        let call = RawCall { method, arguments, background: request.background, deadline_ms };
        within(deadline_ms, &what, raw(&entry)?.call(&call)).await
    }

    pub(super) async fn raw_task(&self, request: FollowRaw) -> Result<RawTask> {
        let entry = self.entry(&request.connection)?;
        let patience = request.timeout_ms.unwrap_or(FOLLOW_MS).min(LONGEST_WAIT);
        within(patience, "asking for the task", raw(&entry)?.follow(&request.task, request.known, patience)).await
    }

    pub(super) async fn raw_cancel(&self, request: RawTaskRef) -> Result<()> {
        let entry = self.entry(&request.connection)?;
        within(FOLLOW_MS, "cancelling the task", raw(&entry)?.cancel(&request.task)).await
    }
}
