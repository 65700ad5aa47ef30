//! Operations: what is being done to a machine, by whom it can be watched and cancelled, and how it ended.

use crate::{MachineId, OperationId, error::ErrorRecord, machine::Verb};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// The goal was seen to be met.
    Done,
    /// The goal was not met; the error says what was seen instead.
    Failed {
        /// Why.
        error: ErrorRecord,
    },
    /// It was cancelled, or overtaken by another operation.
    Cancelled {
        /// By what.
        error: ErrorRecord,
    },
}

/// Progress as a driver reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done now, for people.
    pub phase: String,
    /// How much of it is done, 0 to 100, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
}

/// An undo value: the driver's own, opaque to everyone else, stored before the step that it reverses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Undo(pub serde_json::Value);

/// An operation as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpRecord {
    /// Its identifier.
    pub id: OperationId,
    /// What is being done.
    pub verb: Verb,
    /// To which machine; [`MachineId::NONE`] if not to a machine.
    pub machine: MachineId,
    /// To which environment of packages, if not to a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// What is done, for people, where the verb does not say it: `install lpeg`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub what: String,
    /// When it began, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When it must be done, milliseconds since the Unix epoch.
    pub deadline_ms: u64,
    /// When it ended, milliseconds since the Unix epoch.
    #[serde(default)]
    pub ended_ms: Option<u64>,
    /// The driver's last report.
    #[serde(default)]
    pub progress: Progress,
    /// How it ended; `None` while it runs.
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// What came of it, where more is to be said than that it is done: for `apply` what the API calls `AppliedView`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
}

impl OpRecord {
    /// One that begins at `started_ms` (milliseconds since the Unix epoch) and may take so long.
    pub fn new(id: OperationId, verb: Verb, machine: MachineId, started_ms: u64, allowed: Duration) -> Self {
        Self {
            id,
            verb,
            machine,
            environment: None,
            what: String::new(),
            started_ms,
            deadline_ms: started_ms.saturating_add(u64::try_from(allowed.as_millis()).unwrap_or(u64::MAX)),
            ended_ms: None,
            progress: Progress::default(),
            outcome: None,
            result: None,
        }
    }
}
