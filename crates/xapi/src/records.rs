//! The records that are used most, with the fields that are used. Fields that are missing are as if empty, unknown ones are ignored, unknown words of enums are kept as they are:
//! a record of any release can be read. Names are those of the data model.

use crate::value::{Ref, Time, int};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Text by text.
pub type Strings = BTreeMap<String, String>;

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[serde(from = "String")]
        pub enum $name {
            $($(#[$what])* $variant,)*
            /// A word that is not known here.
            Other(String),
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                // Events and errors write some in lower case.
                $(if text.eq_ignore_ascii_case($text) { return Self::$variant; })*
                Self::Other(text)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::Other(String::new())
            }
        }
    };
}

words! {
    /// What a VM does.
    PowerState {
        /// It is off.
        Halted = "Halted",
        /// It is frozen in memory.
        Paused = "Paused",
        /// It runs.
        Running = "Running",
        /// It is written to storage.
        Suspended = "Suspended",
    }
}

words! {
    /// What a virtual block device is.
    VbdType {
        /// A disk.
        Disk = "Disk",
        /// A drive for ISO images.
        Cd = "CD",
        /// A floppy drive.
        Floppy = "Floppy",
    }
}

/// A VM, a template, a snapshot or a control domain: all four are of this class.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Vm {
    /// For ever.
    pub uuid: String,
    /// What people call it; need not be unique.
    pub name_label: String,
    /// What people say of it.
    pub name_description: String,
    /// What it does.
    pub power_state: PowerState,
    /// Whether it is a template; snapshots are, too.
    pub is_a_template: bool,
    /// Whether it came with the product.
    pub is_default_template: bool,
    /// Whether it is a snapshot.
    pub is_a_snapshot: bool,
    /// Of what.
    pub snapshot_of: Ref<Vm>,
    /// When it was made.
    pub snapshot_time: Option<Time>,
    /// Its snapshots.
    pub snapshots: Vec<Ref<Vm>>,
    /// The snapshot or VM it goes on from.
    pub parent: Ref<Vm>,
    /// Whether it is the domain that controls a host.
    pub is_control_domain: bool,
    /// Where it runs.
    pub resident_on: Ref<Host>,
    /// The most memory it may ever have, bytes.
    #[serde(deserialize_with = "int")]
    pub memory_static_max: i64,
    /// The most it may have now, bytes.
    #[serde(deserialize_with = "int")]
    pub memory_dynamic_max: i64,
    /// The least it has, bytes.
    #[serde(deserialize_with = "int")]
    pub memory_dynamic_min: i64,
    /// The most virtual processors it may have.
    #[serde(rename = "VCPUs_max", deserialize_with = "int")]
    pub vcpus_max: i64,
    /// How many it starts with.
    #[serde(rename = "VCPUs_at_startup", deserialize_with = "int")]
    pub vcpus_at_startup: i64,
    /// Its block devices.
    #[serde(rename = "VBDs")]
    pub vbds: Vec<Ref<Vbd>>,
    /// Its network interfaces.
    #[serde(rename = "VIFs")]
    pub vifs: Vec<Ref<Vif>>,
    /// Its consoles; anew with each boot.
    pub consoles: Vec<Ref<Console>>,
    /// What the hypervisor has told of it.
    pub metrics: Ref<VmMetrics>,
    /// The number of its domain; another one with each boot, and on each host.
    #[serde(deserialize_with = "int")]
    pub domid: i64,
    /// What its tools have told; anew with each boot.
    pub guest_metrics: Ref<VmGuestMetrics>,
    /// What may be done now. Advice: XAPI decides when it is done.
    pub allowed_operations: Vec<String>,
    /// What is being done, by task.
    pub current_operations: Strings,
    /// Operations that somebody has blocked, and why.
    pub blocked_operations: Strings,
    /// Whatever clients keep there.
    pub other_config: Strings,
    /// Labels.
    pub tags: Vec<String>,
}

/// What the hypervisor has told of a VM.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VmMetrics {
    /// For ever.
    pub uuid: String,
    /// When it was last started; the same after it was moved.
    pub start_time: Option<Time>,
}

/// What the tools in a guest have told.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VmGuestMetrics {
    /// For ever, or until the next boot.
    pub uuid: String,
    /// Addresses: `0/ip`, `0/ipv4/0`, `0/ipv6/1`, by the number of the interface.
    pub networks: Strings,
    /// The system: `name`, `distro`, `major`, ….
    pub os_version: Strings,
    /// The version of the tools' drivers.
    #[serde(rename = "PV_drivers_version")]
    pub pv_drivers_version: Strings,
    /// Whether they answer.
    pub live: bool,
    /// When they last told something.
    pub last_updated: Option<Time>,
}

/// A host of a pool.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Host {
    /// For ever.
    pub uuid: String,
    /// What people call it.
    pub name_label: String,
    /// Its name in the network.
    pub hostname: String,
    /// The address of its management interface, without a port.
    pub address: String,
    /// Whether VMs may be started on it.
    pub enabled: bool,
    /// What it runs: `product_brand`, `product_version`, `xapi`, ….
    pub software_version: Strings,
}

/// A pool: each connection is to exactly one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pool {
    /// For ever.
    pub uuid: String,
    /// What people call it; may be empty.
    pub name_label: String,
    /// Its coordinator.
    pub master: Ref<Host>,
    /// Where disks are made if nothing else is said.
    #[serde(rename = "default_SR")]
    pub default_sr: Ref<Sr>,
    /// Whether high availability is on: it starts VMs by itself.
    pub ha_enabled: bool,
}

/// A storage repository.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Sr {
    /// For ever.
    pub uuid: String,
    /// What people call it.
    pub name_label: String,
    /// `lvm`, `ext`, `nfs`, `iso`, `udev`, ….
    #[serde(rename = "type")]
    pub kind: String,
    /// `user`, `iso`, `disk`, ….
    pub content_type: String,
    /// Whether every host reaches it.
    pub shared: bool,
    /// Bytes.
    #[serde(deserialize_with = "int")]
    pub physical_size: i64,
    /// Bytes.
    #[serde(deserialize_with = "int")]
    pub physical_utilisation: i64,
    /// Bytes promised to disks.
    #[serde(deserialize_with = "int")]
    pub virtual_allocation: i64,
    /// Its disks.
    #[serde(rename = "VDIs")]
    pub vdis: Vec<Ref<Vdi>>,
}

/// A virtual disk.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Vdi {
    /// For ever.
    pub uuid: String,
    /// What people call it.
    pub name_label: String,
    /// Where it is.
    #[serde(rename = "SR")]
    pub sr: Ref<Sr>,
    /// What uses it.
    #[serde(rename = "VBDs")]
    pub vbds: Vec<Ref<Vbd>>,
    /// Bytes.
    #[serde(deserialize_with = "int")]
    pub virtual_size: i64,
    /// Whether nothing can be written.
    pub read_only: bool,
    /// Whether several may write.
    pub sharable: bool,
    /// `user`, `system`, `suspend`, ….
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is one of a snapshot.
    pub is_a_snapshot: bool,
    /// Whatever clients keep there.
    pub other_config: Strings,
}

/// A disk or drive of a VM.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Vbd {
    /// For ever.
    pub uuid: String,
    /// Whose.
    #[serde(rename = "VM")]
    pub vm: Ref<Vm>,
    /// What is in it; nothing for an empty drive.
    #[serde(rename = "VDI")]
    pub vdi: Ref<Vdi>,
    /// Its number, as text.
    pub userdevice: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: VbdType,
    /// `RW` or `RO`.
    pub mode: String,
    /// Whether it is a drive without a disk.
    pub empty: bool,
    /// Whether the VM has it now.
    pub currently_attached: bool,
}

/// A network interface of a VM.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Vif {
    /// For ever.
    pub uuid: String,
    /// Whose.
    #[serde(rename = "VM")]
    pub vm: Ref<Vm>,
    /// Its number, as text.
    pub device: String,
    /// Where it leads.
    pub network: Ref<Network>,
    /// `aa:bb:cc:dd:ee:ff`.
    #[serde(rename = "MAC")]
    pub mac: String,
    /// Whether the VM has it now.
    pub currently_attached: bool,
}

/// A network of a pool.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Network {
    /// For ever.
    pub uuid: String,
    /// What people call it.
    pub name_label: String,
    /// The bridge on the hosts.
    pub bridge: String,
    /// Bytes of a packet.
    #[serde(rename = "MTU", deserialize_with = "int")]
    pub mtu: i64,
}

/// A console of a VM.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Console {
    /// For this boot.
    pub uuid: String,
    /// `rfb` or `vt100`.
    pub protocol: String,
    /// `https://HOST/console?uuid=…`: of the host it runs on.
    pub location: String,
    /// Whose.
    #[serde(rename = "VM")]
    pub vm: Ref<Vm>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_record_of_any_release_is_read() {
        let vm: Vm = serde_json::from_value(json!({
            "uuid": "u", "name_label": "web <01>", "power_state": "Running", "memory_static_max": "2147483648", "VCPUs_max": 2,
            "guest_metrics": "OpaqueRef:NULL", "snapshot_time": "19700101T00:00:00Z", "from_the_future": {"x": [1]}, "other_config": {"a": "b"},
        }))
        .unwrap();
        assert_eq!((vm.power_state, vm.memory_static_max, vm.vcpus_max), (PowerState::Running, 2 << 30, 2));
        assert!(vm.guest_metrics.is_null() && vm.snapshot_time.unwrap().is_never() && !vm.is_a_template);
        let old: Vm = serde_json::from_value(json!({})).unwrap();
        assert_eq!(old.power_state, PowerState::Other(String::new()));
    }

    #[test]
    fn words_are_known_in_either_case_and_others_are_kept() {
        let of = |text: &str| serde_json::from_value::<PowerState>(text.into()).unwrap();
        assert_eq!(of("halted"), PowerState::Halted);
        assert_eq!(of("Dreaming"), PowerState::Other("Dreaming".into()));
        assert!(serde_json::from_value::<Vm>(json!({"memory_static_max": "many"})).is_err());
    }
}
