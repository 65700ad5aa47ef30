//! What libvirt talks about: domains, networks, pools, volumes, snapshots, devices, and values with names. Shapes as in src/remote/remote_protocol.x of
//! libvirt 9.0.0.

use crate::xdr::{Decode, Decoder, Encode, Encoder, Malformed, wire_struct};
use std::fmt;
use uuid::Uuid;

/// A domain: what libvirt calls a virtual machine. Daemons find it by its UUID; name and number are for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its UUID, for its whole life.
    pub uuid: Uuid,
    /// Its number while it runs; -1 when it does not.
    pub id: i32,
}
wire_struct!(Domain { name: String, uuid: Uuid, id: i32 });

impl Domain {
    /// One of which only the UUID is known; enough for every call that does not create something.
    pub fn of(uuid: Uuid) -> Self {
        Self { name: uuid.to_string(), uuid, id: -1 }
    }
}

/// A virtual network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
}
wire_struct!(Network { name: String, uuid: Uuid });

/// A storage pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
}
wire_struct!(Pool { name: String, uuid: Uuid });

/// A volume of a storage pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Volume {
    /// The name of its pool.
    pub pool: String,
    /// Its name there.
    pub name: String,
    /// What names it everywhere; for files, the path.
    pub key: String,
}
wire_struct!(Volume { pool: String, name: String, key: String });

/// A snapshot of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// Its name, unique among those of its domain.
    pub name: String,
    /// Its domain.
    pub domain: Domain,
}
wire_struct!(Snapshot { name: String, domain: Domain });

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeDevice {
    /// Its name, for example `pci_0000_01_00_0`.
    pub name: String,
}
wire_struct!(NodeDevice { name: String });

/// A value with a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its name, for example `balloon.current`.
    pub name: String,
    /// Its value.
    pub value: Value,
}
wire_struct!(Param { name: String, value: Value });

/// A value of one of seven types (`remote_typed_param_value`).
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Signed, 32 bits.
    Int(i32),
    /// Unsigned, 32 bits.
    UInt(u32),
    /// Signed, 64 bits.
    Long(i64),
    /// Unsigned, 64 bits.
    ULong(u64),
    /// A fraction.
    Double(f64),
    /// Yes or no.
    Bool(bool),
    /// Text.
    Text(String),
}

impl Value {
    /// As a number that is not negative.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Int(value) => u64::try_from(*value).ok(),
            Self::UInt(value) => Some(u64::from(*value)),
            Self::Long(value) => u64::try_from(*value).ok(),
            Self::ULong(value) => Some(*value),
            Self::Bool(value) => Some(u64::from(*value)),
            Self::Double(_) | Self::Text(_) => None,
        }
    }

    /// As text, if it is text.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => value.fmt(f),
            Self::UInt(value) => value.fmt(f),
            Self::Long(value) => value.fmt(f),
            Self::ULong(value) => value.fmt(f),
            Self::Double(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

impl Encode for Value {
    fn encode(&self, to: &mut Encoder) {
        // The numbers are `virTypedParameterType` of include/libvirt/libvirt-common.h.
        match self {
            Self::Int(value) => (1, value).encode(to),
            Self::UInt(value) => (2, value).encode(to),
            Self::Long(value) => (3, value).encode(to),
            Self::ULong(value) => (4, value).encode(to),
            Self::Double(value) => (5, value).encode(to),
            Self::Bool(value) => (6, value).encode(to),
            Self::Text(value) => (7, value).encode(to),
        }
    }
}

impl Decode for Value {
    const LEAST: usize = 8;
    fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        Ok(match from.u32()? {
            1 => Self::Int(Decode::decode(from)?),
            2 => Self::UInt(Decode::decode(from)?),
            3 => Self::Long(Decode::decode(from)?),
            4 => Self::ULong(Decode::decode(from)?),
            5 => Self::Double(Decode::decode(from)?),
            6 => Self::Bool(Decode::decode(from)?),
            7 => Self::Text(Decode::decode(from)?),
            _ => return Err(from.malformed("a value of an unknown type")),
        })
    }
}

/// Values with names, as a list in which one can look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params(pub Vec<Param>);
wire_struct!(Params { 0: Vec<Param> });

impl Params {
    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|param| param.name == name).map(|param| &param.value)
    }

    /// The value of this name, as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.number()
    }

    /// The value of this name, as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.text()
    }
}

/// What is known of a domain from one call about all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainStats {
    /// Which one.
    pub domain: Domain,
    /// Names such as `state.state`, `cpu.time` (nanoseconds), `balloon.current` (KiB), `block.0.rd.bytes`.
    pub params: Params,
}
wire_struct!(DomainStats { domain: Domain, params: Params });

impl DomainStats {
    /// The state, if it was asked for.
    pub fn state(&self) -> Option<DomainState> {
        Some(DomainState::from_number(i32::try_from(self.params.number("state.state")?).ok()?))
    }

    /// Why it is in that state, if it was asked for; the numbers depend on the state.
    pub fn reason(&self) -> Option<i32> {
        i32::try_from(self.params.number("state.reason")?).ok()
    }
}

/// The state of a domain (`virDomainState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DomainState {
    /// None is known.
    None,
    /// It runs.
    Running,
    /// It waits for something.
    Blocked,
    /// It is paused.
    Paused,
    /// It goes down.
    Shutdown,
    /// It is off.
    Shutoff,
    /// It crashed.
    Crashed,
    /// The guest put itself to sleep.
    PmSuspended,
    /// One that is newer than this program.
    Other(i32),
}

impl DomainState {
    /// From libvirt's number.
    pub fn from_number(number: i32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Running,
            2 => Self::Blocked,
            3 => Self::Paused,
            4 => Self::Shutdown,
            5 => Self::Shutoff,
            6 => Self::Crashed,
            7 => Self::PmSuspended,
            other => Self::Other(other),
        }
    }
}

/// Why a domain that is off is off (`virDomainShutoffReason`).
pub mod shutoff {
    /// Nobody knows.
    pub const UNKNOWN: i32 = 0;
    /// The guest shut down.
    pub const SHUTDOWN: i32 = 1;
    /// Somebody ended it.
    pub const DESTROYED: i32 = 2;
    /// It crashed.
    pub const CRASHED: i32 = 3;
    /// It is elsewhere.
    pub const MIGRATED: i32 = 4;
    /// Its state was saved.
    pub const SAVED: i32 = 5;
    /// It could not be started.
    pub const FAILED: i32 = 6;
    /// It went back to a snapshot of when it was off.
    pub const FROM_SNAPSHOT: i32 = 7;
    /// The daemon lost it.
    pub const DAEMON: i32 = 8;
}

/// State, memory, processors (`remote_domain_get_info_ret`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainInfo {
    /// The state.
    pub state: DomainState,
    /// The most memory it may have, KiB.
    pub memory_max_kib: u64,
    /// The memory it has, KiB.
    pub memory_kib: u64,
    /// Its processors.
    pub vcpus: u32,
    /// Processor time it used, nanoseconds.
    pub cpu_time_ns: u64,
}

impl Decode for DomainInfo {
    const LEAST: usize = 32;
    fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        // `unsigned char` and `unsigned short` take four bytes each.
        let (state, memory_max_kib, memory_kib, vcpus, cpu_time_ns) = Decode::decode(from)?;
        Ok(Self { state: DomainState::from_number(state), memory_max_kib, memory_kib, vcpus, cpu_time_ns })
    }
}

/// What the host has (`remote_node_get_info_ret`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// The processor's architecture, for example `x86_64`.
    pub model: String,
    /// Memory, KiB.
    pub memory_kib: u64,
    /// Active processors.
    pub cpus: i32,
    /// Their frequency, MHz; 0 if unknown.
    pub mhz: i32,
    /// NUMA nodes.
    pub nodes: i32,
    /// Sockets of each.
    pub sockets: i32,
    /// Cores of each.
    pub cores: i32,
    /// Threads of each.
    pub threads: i32,
}

impl Decode for NodeInfo {
    const LEAST: usize = 160;
    fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        // `char model[32]` is an array of 32 numbers of four bytes.
        let mut model = [0; 32];
        for byte in &mut model {
            *byte = from.u32()? as u8;
        }
        let end = model.iter().position(|byte| *byte == 0).unwrap_or(model.len());
        let model = String::from_utf8_lossy(&model[..end]).into_owned();
        let (memory_kib, cpus, mhz) = Decode::decode(from)?;
        let (nodes, sockets, cores, threads) = Decode::decode(from)?;
        Ok(Self { model, memory_kib, cpus, mhz, nodes, sockets, cores, threads })
    }
}

/// An interface of a guest, with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestInterface {
    /// Its name: in the guest, or `vnet0` for leases.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<String>,
    /// Its addresses.
    pub addresses: Vec<GuestAddress>,
}
wire_struct!(GuestInterface { name: String, mac: Option<String>, addresses: Vec<GuestAddress> });

/// An address of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestAddress {
    /// 0 for IPv4, 1 for IPv6 (`virIPAddrType`).
    pub family: i32,
    /// The address as text.
    pub address: String,
    /// The length of the network's prefix.
    pub prefix: u32,
}
wire_struct!(GuestAddress { family: i32, address: String, prefix: u32 });

/// A lease of a network's DHCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The network's bridge.
    pub interface: String,
    /// When it ends, seconds since the Unix epoch.
    pub expires: i64,
    /// 0 for IPv4, 1 for IPv6.
    pub family: i32,
    /// The guest's hardware address.
    pub mac: Option<String>,
    /// The identity association, IPv6 only.
    pub iaid: Option<String>,
    /// The address.
    pub address: String,
    /// The length of the network's prefix.
    pub prefix: u32,
    /// What the guest calls itself.
    pub hostname: Option<String>,
    /// The client's identifier.
    pub client: Option<String>,
}
wire_struct!(Lease {
    interface: String,
    expires: i64,
    family: i32,
    mac: Option<String>,
    iaid: Option<String>,
    address: String,
    prefix: u32,
    hostname: Option<String>,
    client: Option<String>,
});

/// The size and fill of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolInfo {
    /// 0 inactive, 1 being built, 2 running, 3 degraded, 4 inaccessible (`virStoragePoolState`).
    pub state: i32,
    /// Its size, bytes.
    pub capacity: u64,
    /// What is used, bytes.
    pub allocation: u64,
    /// What is free, bytes.
    pub available: u64,
}
wire_struct!(PoolInfo { state: i32, capacity: u64, allocation: u64, available: u64 });

/// The size of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// 0 file, 1 block device, 2 directory, 3 network, 4 network directory, 5 ploop (`virStorageVolType`).
    pub kind: i32,
    /// What a guest sees, bytes.
    pub capacity: u64,
    /// What it takes, bytes.
    pub allocation: u64,
}
wire_struct!(VolumeInfo { kind: i32, capacity: u64, allocation: u64 });

/// The size of a disk of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// The highest byte that is allocated.
    pub allocation: u64,
    /// What the guest sees, bytes.
    pub capacity: u64,
    /// What the file takes, bytes.
    pub physical: u64,
}
wire_struct!(BlockInfo { allocation: u64, capacity: u64, physical: u64 });

/// A job that works on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockJob {
    /// 1 pull, 2 copy, 3 commit, 4 commit of the active layer, 5 backup (`virDomainBlockJobType`).
    pub kind: i32,
    /// Its limit; 0 for none.
    pub bandwidth: u64,
    /// How far it is, in units of its own.
    pub done: u64,
    /// Where it ends; may grow.
    pub total: u64,
}
wire_struct!(BlockJob { kind: i32, bandwidth: u64, done: u64, total: u64 });

/// A job that works on a domain: saving, snapshots, migration.
#[derive(Clone, Debug, PartialEq)]
pub struct JobStats {
    /// 0 none, 1 bounded, 2 unbounded, 3 completed, 4 failed, 5 cancelled (`virDomainJobType`).
    pub kind: i32,
    /// Names such as `data_total`, `data_processed` (bytes), `time_elapsed` (milliseconds).
    pub params: Params,
}
wire_struct!(JobStats { kind: i32, params: Params });
