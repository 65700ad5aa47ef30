//! Devices of machines: disks, network cards and whatever else can be plugged in and taken out. Plain data, and the ability to change it.
//!
//! A kind of device that a driver cannot add is not among its [`Devices::kinds`]; it is refused by its absence. So kinds that come later need no change here.

use crate::{
    Error, Result,
    ability::{Change, Effect},
    driver::{Handle, Journal, Setting},
    spec::Problems,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A kind of device that can be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceKind {
    /// Its name, for example `disk` or `nic`.
    pub name: String,
    /// What it is, in a sentence.
    pub help: String,
    /// What can be said of a new one.
    pub settings: Vec<Setting>,
}

/// A device that a machine has, or will have with its next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name, unique among those of its machine, the same as long as it is there: for example `vdb`, or the hardware address of a network card.
    pub name: String,
    /// What it is: `disk`, `cdrom`, `nic`, ….
    pub kind: String,
    /// What it is, for people.
    pub what: String,
    /// Facts by name, for programs: `size_bytes`, `path`, `bus`, `mac`, `network`, `model`, as far as they are known.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub facts: Map<String, Value>,
    /// Whether the machine has it now, or only before or after its next start.
    pub presence: Presence,
    /// Whether what it holds was made by vmoon for this machine, so that removing the device deletes it.
    pub made: bool,
}

/// When a machine has a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Now and after its next start.
    Kept,
    /// From its next start on.
    NextStart,
    /// Until it is stopped.
    UntilStopped,
}

/// A device to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDevice {
    /// One of [`Devices::kinds`].
    pub kind: String,
    /// What is said of it, by the names of that kind's settings.
    #[serde(default)]
    pub settings: Map<String, Value>,
}

/// A change of a machine's devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChange {
    /// Add one.
    Add(NewDevice),
    /// Take one away.
    Remove {
        /// Its name.
        name: String,
        /// Keep what it holds, even if vmoon has made it.
        keep: bool,
    },
}

/// Changes the devices of machines, running or not.
#[async_trait]
pub trait Devices: Send + Sync {
    /// What can be added here. No I/O.
    fn kinds(&self) -> Vec<DeviceKind>;

    /// Every device of the machine that can be told of, in a stable order.
    async fn list(&self, handle: &Handle) -> Result<Vec<Device>>;

    /// Says what a change would do, and when each part takes effect. Touches nothing; what `change` would refuse is refused here, all problems at once.
    ///
    /// # Errors
    /// [`Code::SpecInvalid`](crate::Code::SpecInvalid) with every problem of a new device, a kind that is not offered among them (see [`unknown_kind`]);
    /// [`Code::DeviceNotFound`](crate::Code::DeviceNotFound) for one to remove that is not there;
    /// [`Code::DeviceInUse`](crate::Code::DeviceInUse) for one that something else depends on.
    async fn plan(&self, handle: &Handle, change: &DeviceChange) -> Result<Vec<Change>>;

    /// Makes the change: at once where the machine can, and for its next start. MUST journal an undo value before each step that leaves something behind; a
    /// failure MUST leave the machine with the devices it had, and [`Driver::recover`](crate::driver::Driver::recover) does the same after a crash. A device that
    /// the guest does not let go of stays, and that is an error. What a removed device held is deleted last, and only if it was made for this machine.
    ///
    /// # Errors
    /// Those of `plan`.
    async fn change(&self, handle: &Handle, change: &DeviceChange, journal: &dyn Journal) -> Result<()>;
}

/// A device that was added or removed, as a [`Change`]: `disk vdb 10 GiB added`.
pub fn changed(kind: &str, what: impl Into<String>, effect: Effect) -> Change {
    Change { setting: kind.to_owned(), what: what.into(), effect }
}

/// Refuses a kind of device that a driver does not offer, in one voice.
pub fn unknown_kind(kind: &str, offered: &[DeviceKind]) -> Error {
    let names: Vec<&str> = offered.iter().map(|kind| kind.name.as_str()).collect();
    let mut problems = Problems::default();
    problems
        .add("kind", format!("devices of kind {} cannot be added here; what can be are {}", crate::name::escape(kind), names.join(", ")));
    match problems.or(()) {
        Err(problems) => problems.into(),
        Ok(()) => Error::internal("a problem that is none"),
    }
}

/// There is no device of that name.
pub fn not_found(name: &str) -> Error {
    let text = format!("the machine has no device named {}", crate::name::escape(name));
    Error::new(crate::Code::DeviceNotFound, text).hint("vmoon device list MACHINE names them")
}
