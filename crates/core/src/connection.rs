//! Connections: where machines live. `local` always exists.

use crate::ConnectionId;
use serde::{Deserialize, Serialize};

/// The name of the connection to this computer, which always exists.
pub const LOCAL: &str = "local";

/// Where a driver finds its machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its identifier.
    pub id: ConnectionId,
    /// Its name, unique among connections.
    pub name: String,
    /// The name of its driver: `lua`, `xcpng`, `libvirt`, `ssh` or `sim`.
    pub kind: String,
    /// Where it leads, in the driver's own form; empty for `local`.
    #[serde(default)]
    pub uri: String,
}

/// What is known about the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// It answers.
    Up,
    /// It does not answer and is being tried again.
    Reconnecting,
    /// It does not answer and is not being tried.
    Down,
    /// It waits for a secret that was not stored.
    Locked,
}
