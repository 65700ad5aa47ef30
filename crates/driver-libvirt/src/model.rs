//! What a machine will be, with everything decided: the domain and the volumes it needs. Plain data, stored in the plan. Pure.

use crate::{
    patch::Patch,
    settings::{CloneKind, Forward, Net, template::Guest},
};
use serde::{Deserialize, Serialize};
use vmoon_core::MachineId;
use vmoon_seed::Seed;

/// A planned machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Blueprint {
    pub(crate) name: String,
    pub(crate) template: String,
    pub(crate) hardware: Hardware,
    /// In the order of their making.
    pub(crate) volumes: Vec<NewVolume>,
    /// Where they are made; absent where nothing is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pool: Option<PoolRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<Seed>,
    /// What Lua sessions in the guest begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) environment: Option<String>,
    /// The handle of the machine that this one is a copy of, and is entered like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) copy_of: Option<String>,
    /// Files of the user that must be there before anything is made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) needs: Vec<Need>,
    pub(crate) autostart: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) patches: Vec<Patch>,
}

/// A file that must exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Need {
    /// The setting that names it.
    pub(crate) setting: String,
    pub(crate) path: String,
}

/// A pool, as far as making volumes needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolRef {
    pub(crate) name: String,
    pub(crate) target: String,
    /// Whether its volumes are plain files.
    pub(crate) files: bool,
}

/// The domain: described by us, or by the user's XML.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Hardware {
    Ours(Box<Domain>),
    Raw(String),
}

/// A domain of ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Domain {
    /// `kvm` or `qemu`.
    pub(crate) kind: String,
    pub(crate) arch: String,
    pub(crate) machine: String,
    pub(crate) guest: Guest,
    /// Bytes.
    pub(crate) memory: u64,
    pub(crate) cpus: u32,
    /// Sockets, cores, threads.
    pub(crate) topology: [u32; 3],
    pub(crate) cpu: Cpu,
    pub(crate) efi: bool,
    pub(crate) secure_boot: bool,
    pub(crate) tpm: bool,
    pub(crate) hugepages: bool,
    pub(crate) hyperv: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<Kernel>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) nics: Vec<Nic>,
    /// `vnc`, `spice` or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) graphics: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) video: Option<String>,
    pub(crate) sound: bool,
    pub(crate) rng: bool,
}

/// The processor the guest sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cpu {
    /// Whatever the hypervisor takes.
    Default,
    Mode(String),
    Model(String),
}

/// A kernel that is booted directly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kernel {
    pub(crate) kernel: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) initrd: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cmdline: Option<String>,
}

/// A disk or CD-ROM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Disk {
    /// For example `vda`.
    pub(crate) target: String,
    pub(crate) bus: String,
    pub(crate) cdrom: bool,
    pub(crate) readonly: bool,
    pub(crate) format: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) boot: Option<u32>,
    pub(crate) source: Source,
}

/// Where a disk's content is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// A volume that is made with the machine, by its disk.
    Made,
    /// A file of the user.
    Path(String),
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Nic {
    pub(crate) net: Net,
    pub(crate) model: String,
    /// The address, where the user said which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mac: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) forwards: Vec<Forward>,
}

/// A volume to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NewVolume {
    /// The disk it is for.
    pub(crate) target: String,
    /// `qcow2` or `raw`.
    pub(crate) format: String,
    /// Bytes; at least those of the base.
    pub(crate) size: u64,
    pub(crate) content: Content,
}

/// What a new volume holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    Empty,
    /// The seed.
    Seed,
    /// The seed at that path, for another instance.
    Again {
        path: String,
    },
    /// What is at that path.
    Base {
        path: String,
        clone: CloneKind,
    },
}

/// The name of a volume that is made for a machine. It holds the machine's id, so it is nobody else's.
pub(crate) fn volume_name(machine: &str, id: Option<MachineId>, volume: &NewVolume) -> String {
    let id = id.map_or_else(|| "ID".to_owned(), |id| id.to_string());
    let extension = match (&volume.content, volume.format.as_str()) {
        (Content::Seed | Content::Again { .. }, _) => "iso",
        (_, format) => format,
    };
    format!("{machine}-{id}-{}.{extension}", volume.target)
}

/// Whether a volume of that name was made for the machine.
pub(crate) fn is_made_for(volume: &str, id: MachineId) -> bool {
    volume.contains(&format!("-{id}-"))
}

/// The hardware address of a machine's n-th card: within QEMU's prefix, from the random end of the id, so that it stays the same.
pub(crate) fn mac(id: MachineId, n: usize) -> String {
    let bytes = id.uuid().into_bytes();
    format!("52:54:00:{:02x}:{:02x}:{:02x}", bytes[13], bytes[14], bytes[15].wrapping_add(n as u8))
}

impl Blueprint {
    /// The path a new volume will have.
    pub(crate) fn path_of(&self, id: Option<MachineId>, volume: &NewVolume) -> String {
        let target = self.pool.as_ref().map(|pool| pool.target.as_str()).unwrap_or_default();
        format!("{target}/{}", volume_name(&self.name, id, volume))
    }
}
