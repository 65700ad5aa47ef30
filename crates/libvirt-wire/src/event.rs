//! What a daemon says without being asked, and how it is heard: each listener has a bounded queue, and what does not fit becomes one notice that
//! everything may have changed.

use crate::{
    procedure::Procedure,
    types::{Domain, Network, NodeDevice, Params, Pool},
    xdr::{Decode, Malformed, decode_all},
};
use std::sync::Arc;
use tokio::sync::broadcast;

/// Something happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// To a domain.
    Domain {
        /// Which one.
        domain: Domain,
        /// What.
        what: DomainEvent,
    },
    /// A network was defined (0), undefined (1), started (2) or stopped (3) (`virNetworkEventLifecycleType`).
    Network {
        /// Which one.
        network: Network,
        /// What.
        event: i32,
    },
    /// A storage pool was defined (0), undefined (1), started (2), stopped (3), created (4) or deleted (5) (`virStoragePoolEventLifecycleType`).
    Pool {
        /// Which one.
        pool: Pool,
        /// What.
        event: i32,
    },
    /// The volumes of a pool were looked at again.
    PoolRefreshed(Pool),
    /// A device of the host was created (0), deleted (1), defined (2) or undefined (3) (`virNodeDeviceEventLifecycleType`).
    NodeDevice {
        /// Which one.
        device: NodeDevice,
        /// What.
        event: i32,
    },
    /// What is known of a device of the host changed.
    NodeDeviceUpdated(NodeDevice),
    /// The daemon lost the daemon behind it (`virConnectCloseReason`).
    HypervisorLost {
        /// 0 error, 1 end of file, 2 keepalive, 3 asked by the client.
        reason: i32,
    },
    /// Events were lost: anything may have changed.
    Everything,
    /// The connection ended; the last event.
    Closed(Arc<str>),
}

/// What happened to a domain.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DomainEvent {
    /// A step of its life. The second number is libvirt's detail, of an enumeration for each step (`virDomainEvent…DetailType`).
    Life(Life, i32),
    /// The guest restarted.
    Rebooted,
    /// The guest set its clock, this many seconds off the host's.
    ClockChanged(i64),
    /// The watchdog did this (`virDomainEventWatchdogAction`).
    Watchdog(i32),
    /// A disk failed.
    IoError {
        /// Its file.
        path: String,
        /// Its alias.
        device: String,
        /// 0 nothing was done, 1 the domain is paused, 2 the guest was told.
        action: i32,
        /// For example `enospc`; empty if unknown.
        reason: String,
    },
    /// A viewer connected (0), was let in (1) or left (2).
    Graphics(i32),
    /// libvirt lost QEMU's monitor: the domain cannot be controlled.
    ControlError,
    /// A block job ended or is ready.
    BlockJob {
        /// Which disk: its target, `vda`; with the older event its path.
        disk: String,
        /// See [`crate::types::BlockJob::kind`].
        kind: i32,
        /// 0 completed, 1 failed, 2 cancelled, 3 ready for the pivot (`virConnectDomainEventBlockJobStatus`).
        status: i32,
    },
    /// A removable disk has other media.
    DiskChanged {
        /// The file before.
        old: Option<String>,
        /// The file now.
        new: Option<String>,
        /// Its alias.
        device: String,
    },
    /// A tray was opened (0) or closed (1).
    Tray {
        /// The drive's alias.
        device: String,
        /// Which.
        reason: i32,
    },
    /// The guest sleeps: in memory, or on disk.
    Asleep {
        /// Whether on disk.
        disk: bool,
    },
    /// The guest woke up.
    Awake,
    /// The guest has this much memory now, KiB.
    Balloon(u64),
    /// A device is there.
    DeviceAdded {
        /// Its alias.
        device: String,
    },
    /// A device is gone.
    DeviceRemoved {
        /// Its alias.
        device: String,
    },
    /// The guest did not let a device go.
    DeviceRemovalFailed {
        /// Its alias.
        device: String,
    },
    /// Limits changed.
    Tuned(Params),
    /// The guest agent connected (1) or disconnected (2).
    Agent {
        /// Which.
        state: i32,
        /// 0 unknown, 1 the domain was started, 2 the channel changed.
        reason: i32,
    },
    /// A round of a migration.
    MigrationRound(i32),
    /// A job that saved, copied or moved the domain ended.
    JobCompleted(Params),
    /// Title (1), description (0) or an element (2, with its namespace) of the metadata changed.
    Metadata {
        /// Which kind.
        kind: i32,
        /// The namespace.
        uri: Option<String>,
    },
    /// A disk is filled beyond the mark that was set.
    BlockThreshold {
        /// Which disk.
        disk: String,
        /// Its file.
        path: Option<String>,
        /// The mark, bytes.
        threshold: u64,
        /// How far beyond, bytes.
        excess: u64,
    },
    /// The host's memory failed under the domain.
    MemoryFailure {
        /// 0 the hypervisor, 1 the guest.
        recipient: i32,
        /// What was done (`virDomainMemoryFailureActionType`).
        action: i32,
    },
    /// A memory device has another size now.
    MemoryDeviceSize {
        /// Its alias.
        device: String,
        /// Its size, KiB.
        size: u64,
    },
}

/// A step in the life of a domain (`virDomainEventType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    /// Its definition was stored or changed.
    Defined,
    /// Its definition is gone.
    Undefined,
    /// It runs.
    Started,
    /// It is paused.
    Suspended,
    /// It goes on.
    Resumed,
    /// It is off.
    Stopped,
    /// It goes down.
    Shutdown,
    /// It put itself to sleep.
    PmSuspended,
    /// It crashed.
    Crashed,
    /// A step that is newer than this program.
    Other(i32),
}

impl Life {
    /// From libvirt's number.
    pub fn from_number(number: i32) -> Self {
        const ALL: [Life; 9] = [
            Life::Defined,
            Life::Undefined,
            Life::Started,
            Life::Suspended,
            Life::Resumed,
            Life::Stopped,
            Life::Shutdown,
            Life::PmSuspended,
            Life::Crashed,
        ];
        usize::try_from(number).ok().and_then(|at| ALL.get(at).copied()).unwrap_or(Self::Other(number))
    }
}

/// What one can listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Events of domains, by libvirt's number (`virDomainEventID`): see the constants of this type.
    Domain(i32),
    /// Networks come and go.
    Networks,
    /// Storage pools come and go.
    Pools,
    /// Storage pools were refreshed.
    PoolRefresh,
    /// Devices of the host come and go.
    NodeDevices,
    /// Devices of the host change.
    NodeDeviceUpdates,
}

impl Topic {
    /// Steps of their life.
    pub const LIFE: Self = Self::Domain(0);
    /// Restarts of guests.
    pub const REBOOT: Self = Self::Domain(1);
    /// Clocks of guests.
    pub const CLOCK: Self = Self::Domain(2);
    /// Watchdogs.
    pub const WATCHDOG: Self = Self::Domain(3);
    /// Viewers.
    pub const GRAPHICS: Self = Self::Domain(5);
    /// Disks that fail, with the reason.
    pub const IO_ERROR: Self = Self::Domain(6);
    /// QEMU's monitor lost.
    pub const CONTROL_ERROR: Self = Self::Domain(7);
    /// Media of drives.
    pub const DISK_CHANGE: Self = Self::Domain(9);
    /// Trays of drives.
    pub const TRAY: Self = Self::Domain(10);
    /// Guests wake up.
    pub const AWAKE: Self = Self::Domain(11);
    /// Guests sleep in memory.
    pub const ASLEEP: Self = Self::Domain(12);
    /// Memory of guests.
    pub const BALLOON: Self = Self::Domain(13);
    /// Guests sleep on disk.
    pub const ASLEEP_ON_DISK: Self = Self::Domain(14);
    /// Devices are gone.
    pub const DEVICE_REMOVED: Self = Self::Domain(15);
    /// Block jobs, by the disk's target.
    pub const BLOCK_JOB: Self = Self::Domain(16);
    /// Limits.
    pub const TUNABLE: Self = Self::Domain(17);
    /// Guest agents.
    pub const AGENT: Self = Self::Domain(18);
    /// Devices are there.
    pub const DEVICE_ADDED: Self = Self::Domain(19);
    /// Jobs that ended.
    pub const JOB_COMPLETED: Self = Self::Domain(21);
    /// Devices that did not go.
    pub const DEVICE_REMOVAL_FAILED: Self = Self::Domain(22);
    /// Metadata.
    pub const METADATA: Self = Self::Domain(23);
    /// Disks that fill.
    pub const BLOCK_THRESHOLD: Self = Self::Domain(24);
    /// Memory that fails.
    pub const MEMORY_FAILURE: Self = Self::Domain(25);

    /// By which procedure one asks for it, and which number it has there.
    pub(crate) fn register(self) -> (Procedure, i32) {
        match self {
            Self::Domain(number) => (Procedure::ConnectDomainEventCallbackRegisterAny, number),
            Self::Networks => (Procedure::ConnectNetworkEventRegisterAny, 0),
            Self::Pools => (Procedure::ConnectStoragePoolEventRegisterAny, 0),
            Self::PoolRefresh => (Procedure::ConnectStoragePoolEventRegisterAny, 1),
            Self::NodeDevices => (Procedure::ConnectNodeDeviceEventRegisterAny, 0),
            Self::NodeDeviceUpdates => (Procedure::ConnectNodeDeviceEventRegisterAny, 1),
        }
    }
}

/// Reads the event that came under this procedure; `None` if it is none that we know.
///
/// # Errors
/// If it is an event that we know and the body is something else.
pub fn decode(procedure: Procedure, body: &[u8]) -> Result<Option<Event>, Malformed> {
    use DomainEvent as D;
    use Procedure as P;
    // Each begins with the number of the callback it was asked for with, except the last but one below.
    fn of<T: Decode>(body: &[u8], what: impl FnOnce(T) -> D) -> Result<Option<Event>, Malformed> {
        let (_callback, domain, rest): (i32, Domain, T) = decode_all(body)?;
        Ok(Some(Event::Domain { domain, what: what(rest) }))
    }
    fn slept(body: &[u8], what: D) -> Result<Option<Event>, Malformed> {
        let (_callback, _reason, domain): (i32, i32, Domain) = decode_all(body)?;
        Ok(Some(Event::Domain { domain, what }))
    }
    match procedure {
        P::DomainEventCallbackLifecycle => of(body, |(event, detail)| D::Life(Life::from_number(event), detail)),
        P::DomainEventCallbackReboot => of(body, |()| D::Rebooted),
        P::DomainEventCallbackRtcChange => of(body, D::ClockChanged),
        P::DomainEventCallbackWatchdog => of(body, D::Watchdog),
        P::DomainEventCallbackIoError => of(body, |(path, device, action)| D::IoError { path, device, action, reason: String::new() }),
        P::DomainEventCallbackIoErrorReason => of(body, |(path, device, action, reason)| D::IoError { path, device, action, reason }),
        P::DomainEventCallbackGraphics => of(body, |(phase, _local, _remote, _scheme, _subject): Viewer| D::Graphics(phase)),
        P::DomainEventCallbackControlError => of(body, |()| D::ControlError),
        P::DomainEventCallbackBlockJob | P::DomainEventBlockJob2 => of(body, |(disk, kind, status)| D::BlockJob { disk, kind, status }),
        P::DomainEventCallbackDiskChange => of(body, |(old, new, device, _reason): (_, _, _, i32)| D::DiskChanged { old, new, device }),
        P::DomainEventCallbackTrayChange => of(body, |(device, reason)| D::Tray { device, reason }),
        P::DomainEventCallbackPmwakeup => slept(body, D::Awake),
        P::DomainEventCallbackPmsuspend => slept(body, D::Asleep { disk: false }),
        P::DomainEventCallbackPmsuspendDisk => slept(body, D::Asleep { disk: true }),
        P::DomainEventCallbackBalloonChange => of(body, D::Balloon),
        P::DomainEventCallbackDeviceRemoved => of(body, |device| D::DeviceRemoved { device }),
        P::DomainEventCallbackDeviceAdded => of(body, |device| D::DeviceAdded { device }),
        P::DomainEventCallbackDeviceRemovalFailed => of(body, |device| D::DeviceRemovalFailed { device }),
        P::DomainEventCallbackTunable => of(body, D::Tuned),
        P::DomainEventCallbackAgentLifecycle => of(body, |(state, reason)| D::Agent { state, reason }),
        P::DomainEventCallbackMigrationIteration => of(body, D::MigrationRound),
        P::DomainEventCallbackJobCompleted => of(body, D::JobCompleted),
        P::DomainEventCallbackMetadataChange => of(body, |(kind, uri)| D::Metadata { kind, uri }),
        P::DomainEventBlockThreshold => of(body, |(disk, path, threshold, excess)| D::BlockThreshold { disk, path, threshold, excess }),
        P::DomainEventMemoryFailure => of(body, |(recipient, action, _flags): (_, _, u32)| D::MemoryFailure { recipient, action }),
        P::DomainEventMemoryDeviceSizeChange => of(body, |(device, size)| D::MemoryDeviceSize { device, size }),
        P::NetworkEventLifecycle => {
            let (_callback, network, event, _detail): (i32, Network, i32, i32) = decode_all(body)?;
            Ok(Some(Event::Network { network, event }))
        }
        P::StoragePoolEventLifecycle => {
            let (_callback, pool, event, _detail): (i32, Pool, i32, i32) = decode_all(body)?;
            Ok(Some(Event::Pool { pool, event }))
        }
        P::StoragePoolEventRefresh => {
            let (_callback, pool): (i32, Pool) = decode_all(body)?;
            Ok(Some(Event::PoolRefreshed(pool)))
        }
        P::NodeDeviceEventLifecycle => {
            let (_callback, device, event, _detail): (i32, NodeDevice, i32, i32) = decode_all(body)?;
            Ok(Some(Event::NodeDevice { device, event }))
        }
        P::NodeDeviceEventUpdate => {
            let (_callback, device): (i32, NodeDevice) = decode_all(body)?;
            Ok(Some(Event::NodeDeviceUpdated(device)))
        }
        P::ConnectEventConnectionClosed => Ok(Some(Event::HypervisorLost { reason: decode_all(body)? })),
        _ => Ok(None),
    }
}

/// Of a viewer: the phase, both addresses, how it was let in, who it is.
type Viewer = (i32, (i32, String, String), (i32, String, String), String, Vec<(String, String)>);

/// A listener. It does not keep the client: when that is dropped, it hears [`Event::Closed`].
#[derive(Debug)]
pub struct Events {
    pub(crate) from: broadcast::Receiver<Event>,
    pub(crate) unsupported: Vec<Topic>,
    pub(crate) last: Option<Event>,
}

impl Events {
    /// The next event. After [`Event::Closed`] only that comes, at once. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Event {
        if let Some(last) = &self.last {
            return last.clone();
        }
        match self.from.recv().await {
            Ok(event) => {
                if matches!(event, Event::Closed(_)) {
                    self.last = Some(event.clone());
                }
                event
            }
            Err(broadcast::error::RecvError::Lagged(_)) => Event::Everything,
            Err(broadcast::error::RecvError::Closed) => {
                let last = Event::Closed("it was closed here".into());
                self.last = Some(last.clone());
                last
            }
        }
    }

    /// What was asked for and this daemon does not have.
    pub fn unsupported(&self) -> &[Topic] {
        &self.unsupported
    }
}
