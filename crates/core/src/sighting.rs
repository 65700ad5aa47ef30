//! What a driver can see of a machine: that it runs and with which channels, or how its last run ended.

use crate::{MachineId, driver::Handle};
use serde::{Deserialize, Serialize};

/// What a driver can see of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// It exists and does not run. The exit is that of its last run, where known.
    Off(Option<Exit>),
    /// It runs and offers these channels.
    On(Vec<Channel>),
    /// It is paused.
    Paused,
    /// It is suspended to storage.
    Suspended,
    /// The hypervisor answers that there is no such machine.
    Missing,
    /// The hypervisor cannot be asked.
    Unreachable,
}

/// What was seen, and whether `create` had finished its work on the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// What was seen.
    pub observed: Observed,
    /// Whether the machine bears the tag *complete*, which `create` writes last.
    pub complete: bool,
}

/// How the last run of a machine ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Exit {
    /// It ended by itself or by a polite stop, with this status.
    Code {
        /// The status.
        code: i32,
    },
    /// A signal ended it.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// vmoon ended it by force.
    Killed,
    /// It ignored an interrupt and was ended.
    DidNotYield,
    /// The computer was restarted.
    Rebooted,
    /// It ended and nothing tells how.
    Lost,
}

/// What a channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// Framed requests and answers of a language VM.
    Repl,
    /// Bytes of a shell or a console.
    Terminal,
}

/// One channel of a running machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Channel {
    /// Its name; sessions are opened by it.
    pub name: String,
    /// What it carries.
    pub kind: ChannelKind,
    /// Which life of the machine it belongs to; offsets start anew with each.
    pub life: u64,
}

/// A machine that a driver found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// How to address it.
    pub handle: Handle,
    /// The tag with our id, if it bears one.
    pub id: Option<MachineId>,
    /// Its name there.
    pub name: String,
    /// What was seen of it.
    pub sighting: Sighting,
}
