//! Requests about what some machines can do beyond living.

use crate::Data;
use serde::{Deserialize, Serialize};

/// Makes a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateSnapshot {
    /// Of which machine.
    pub machine: String,
    /// Its name.
    pub name: String,
    /// Whether to keep the running state; the driver decides if not said (yes if the machine runs and it can be done).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// How long the operation may take, milliseconds; 5 minutes if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Names a snapshot to return to or to delete.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotRef {
    /// Of which machine.
    pub machine: String,
    /// Its name.
    pub snapshot: String,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// How long the operation may take, milliseconds; 5 minutes if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Changes settings of a machine that exists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TuneMachine {
    /// Which.
    pub machine: String,
    /// The settings, by the names and in the form of a specification.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// How long the operation may take, milliseconds; 5 minutes if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Gives a machine another name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenameMachine {
    /// Which.
    pub machine: String,
    /// Its name from then on.
    pub name: String,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// How long the operation may take, milliseconds; 5 minutes if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Adds a device to a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddDevice {
    /// To which machine.
    pub machine: String,
    /// Its kind, one of those that the machine's devices are listed with.
    pub kind: String,
    /// What is said of it, by the names of that kind's settings.
    #[serde(default)]
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// How long the operation may take, milliseconds; 5 minutes if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Takes a device away from a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemoveDevice {
    /// From which machine.
    pub machine: String,
    /// The device's name.
    pub device: String,
    /// Keep what it holds, even if vmoon has made it for this machine.
    #[serde(default)]
    pub keep: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// How long the operation may take, milliseconds; 5 minutes if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Makes what is missing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Repair {
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Presses the reset button of a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResetMachine {
    /// Which.
    pub machine: String,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// How long the operation may take, milliseconds; 5 minutes if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Moves a running machine to another host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MigrateMachine {
    /// Which.
    pub machine: String,
    /// The host, by its name or id.
    pub host: String,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// How long the operation may take, milliseconds; 30 minutes if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Runs a program in a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exec {
    /// Which machine.
    pub machine: String,
    /// The program and its arguments; no shell is between.
    pub argv: Vec<String>,
    /// What it reads from its standard input.
    #[serde(default)]
    pub stdin: Data,
    /// How long it may take, milliseconds; 5 minutes if not said, at most a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// As a user who logs in to the guest, not by its agent.
    #[serde(default)]
    pub login: bool,
}

/// What a machine is waited for to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// An address.
    Ip,
    /// An address where an SSH server greets.
    Ssh,
    /// A live session.
    Session,
}

/// Waits until a machine has something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitReady {
    /// Which.
    pub machine: String,
    /// What.
    pub until: Ready,
    /// Of which channel the session is to be; `main` if the machine has it, else the first, if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Answer with what is missing after so many milliseconds (at most 60 000, 30 000 if not said).
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}
