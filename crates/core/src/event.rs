//! Events say THAT something changed; a read says WHAT it is now.

use crate::{ConnectionId, MachineId, OperationId, SessionId};
use serde::{Deserialize, Serialize};

/// What kind of thing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A machine was made or adopted.
    MachineAdded,
    /// A machine's state, operation or specification changed.
    MachineChanged,
    /// Nothing used a machine for as long as its specification allows: it is stopped, or deleted if it was temporary.
    MachineExpired,
    /// A machine is gone.
    MachineGone,
    /// An operation began.
    OperationStarted,
    /// An operation reported progress.
    OperationProgress,
    /// An operation ended.
    OperationEnded,
    /// A session was opened.
    SessionOpened,
    /// A session's state or its attachments changed.
    SessionChanged,
    /// A session ended.
    SessionEnded,
    /// A connection was added.
    ConnectionAdded,
    /// A connection's state changed.
    ConnectionChanged,
    /// A connection was removed.
    ConnectionGone,
    /// The daemon started.
    DaemonStarted,
    /// A kind that this version does not know.
    #[serde(other)]
    Other,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number; rises by one, also across restarts of the daemon.
    pub seq: u64,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What kind of thing changed.
    pub kind: EventKind,
    /// The machine it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// The session it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The operation it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationId>,
    /// The connection it concerns, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionId>,
    /// One short sentence for people, never needed by programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}
