//! What drivers of whole hosts and pools can do beyond single machines: say what there is, move machines, decide about disks. Abilities like those of
//! [`ability`](crate::ability): plain data, reached through accessors of [`Driver`](crate::driver::Driver) that answer `None` where there is none.

use crate::{Result, driver::Handle};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// A host where a machine could run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The host's name.
    pub name: String,
    /// The hypervisor's id of it, which is unique where names are not.
    pub id: String,
    /// Whether the machine runs there now.
    pub here: bool,
    /// Why it cannot run there; nothing where it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// Moves running machines between hosts.
#[async_trait]
pub trait Migrate: Send + Sync {
    /// Every host, and whether the machine could run there.
    async fn places(&self, handle: &Handle) -> Result<Vec<Place>>;
    /// Moves it to a host, given by its name or id, while it runs. Moving it to where it is is `Ok`.
    ///
    /// # Errors
    /// [`Code::HostNotFound`](crate::Code::HostNotFound), [`Code::NameAmbiguous`](crate::Code::NameAmbiguous),
    /// [`Code::MachineStopped`](crate::Code::MachineStopped).
    async fn migrate(&self, handle: &Handle, host: &str) -> Result<()>;
}

/// What becomes of a machine's disks when it is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFate {
    /// Those that we made go, the others stay.
    #[default]
    Own,
    /// All go that no other machine uses.
    All,
    /// All stay.
    Keep,
}

/// Decides what becomes of disks. The decision is kept where the machine is, so that a crash in the middle of deleting changes nothing about it.
#[async_trait]
pub trait Disks: Send + Sync {
    /// Decides, for the next [`Driver::delete`](crate::driver::Driver::delete); one sentence for each disk. With `dry_run` it only says them. Of a
    /// machine that is missing there is nothing to say.
    async fn decide(&self, handle: &Handle, fate: DiskFate, dry_run: bool) -> Result<Vec<String>>;
}

/// What hosts have to offer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    /// The hosts.
    pub hosts: Vec<HostInfo>,
    /// Devices of theirs that could be given to machines.
    pub devices: Vec<HostDevice>,
    /// Where disks can be.
    pub storage: Vec<StorageInfo>,
    /// What machines can be connected to.
    pub networks: Vec<NamedThing>,
    /// What machines can be made from.
    pub templates: Vec<NamedThing>,
    /// Images for drives.
    pub images: Vec<NamedThing>,
}

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostInfo {
    /// Its name.
    pub name: String,
    /// The hypervisor's id of it.
    pub id: String,
    /// Its address.
    pub address: String,
    /// What it runs, for people.
    pub software: String,
    /// How many processors it has, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u64>,
    /// How much memory it has, bytes, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// How much of it nobody uses, bytes, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_free_bytes: Option<u64>,
    /// Whether machines may be started on it.
    pub enabled: bool,
    /// What else people should know: that it coordinates the pool, say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What a device of a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceClass {
    /// A graphics processor.
    Gpu,
    /// Another PCI device.
    Pci,
    /// A USB device.
    Usb,
}

/// A device of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDevice {
    /// What it is.
    pub class: DeviceClass,
    /// The host's name.
    pub host: String,
    /// Where it is there: `0000:04:00.0`, `1-2`.
    pub address: String,
    /// Maker and model.
    pub name: String,
    /// What it can be shared as, or what else people should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The machines that have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<String>,
}

/// A place for disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageInfo {
    /// Its name.
    pub name: String,
    /// The hypervisor's id of it.
    pub id: String,
    /// The hypervisor's word for its kind.
    pub kind: String,
    /// Bytes, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Bytes that nothing takes, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Whether every host reaches it.
    pub shared: bool,
    /// Whether disks are made there if nothing is said.
    pub default: bool,
}

/// Something that is named in specifications.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamedThing {
    /// Its name.
    pub name: String,
    /// The hypervisor's id of it, which is unique where names are not.
    pub id: String,
    /// What people should know about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Says what hosts have to offer.
#[async_trait]
pub trait Inventories: Send + Sync {
    /// Everything, in a constant number of round trips.
    async fn inventory(&self) -> Result<Inventory>;
}
