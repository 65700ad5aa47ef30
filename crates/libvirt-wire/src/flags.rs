//! What calls can be told to do, by sets of flags. Names and numbers as in include/libvirt/*.h of libvirt 9.0.0.

use crate::xdr::{Encode, Encoder};
use std::ops::{BitOr, BitOrAssign};

macro_rules! flags {
    ($($(#[$doc:meta])* $type:ident { $($name:ident = $bit:expr, $text:literal;)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $type(pub u32);

        impl $type {
            /// None of them: what the daemon does by itself.
            pub const NONE: Self = Self(0);
            $(#[doc = $text] pub const $name: Self = Self($bit);)+

            /// Whether all of these are among them.
            pub const fn contains(self, these: Self) -> bool {
                self.0 & these.0 == these.0
            }
        }

        impl BitOr for $type {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl BitOrAssign for $type {
            fn bitor_assign(&mut self, other: Self) {
                self.0 |= other.0;
            }
        }

        impl Encode for $type {
            fn encode(&self, to: &mut Encoder) {
                to.u32(self.0);
            }
        }
    )+};
}

flags! {
    /// Which domains (`virConnectListAllDomainsFlags`). None means all.
    Domains {
        ACTIVE = 1, "Those that run.";
        INACTIVE = 1 << 1, "Those that do not.";
        PERSISTENT = 1 << 2, "Those with a stored definition.";
        TRANSIENT = 1 << 3, "Those that vanish when they end.";
        MANAGED_SAVE = 1 << 8, "Those with a saved state.";
        AUTOSTART = 1 << 10, "Those that start with the host.";
        HAS_SNAPSHOT = 1 << 12, "Those with a snapshot.";
    }

    /// What to say of each domain (`virDomainStatsTypes`). None means all.
    Stats {
        STATE = 1, "State and reason.";
        CPU_TOTAL = 1 << 1, "Processor time.";
        BALLOON = 1 << 2, "Memory.";
        VCPU = 1 << 3, "Each virtual processor.";
        INTERFACE = 1 << 4, "Each network interface.";
        BLOCK = 1 << 5, "Each disk.";
        PERF = 1 << 6, "Performance counters.";
        IOTHREAD = 1 << 7, "I/O threads.";
        MEMORY = 1 << 8, "Memory bandwidth.";
        DIRTYRATE = 1 << 9, "How fast memory is written.";
        VM = 1 << 10, "What the hypervisor says.";
    }

    /// How to ask for the statistics (`virConnectGetAllDomainStatsFlags`).
    StatsHow {
        ACTIVE = 1, "Of domains that run.";
        INACTIVE = 1 << 1, "Of domains that do not run.";
        NOWAIT = 1 << 29, "Leave out what a busy domain would make wait for.";
        BACKING = 1 << 30, "Also each file below a disk.";
        ENFORCE = 1 << 31, "Refuse what is not supported, instead of leaving it out.";
    }

    /// What the XML of a domain or snapshot is to hold (`virDomainXMLFlags`).
    Xml {
        SECURE = 1, "Passwords too.";
        INACTIVE = 1 << 1, "What is stored for the next start, of a domain that runs.";
        UPDATE_CPU = 1 << 2, "The processor as the host would give it.";
        MIGRATABLE = 1 << 3, "What another host takes.";
    }

    /// How to store a definition (`virDomainDefineFlags`).
    Define {
        VALIDATE = 1, "Against the schema, first.";
    }

    /// How to start (`virDomainCreateFlags`).
    Start {
        PAUSED = 1, "Do not let it run yet.";
        AUTODESTROY = 1 << 1, "End it with this connection.";
        BYPASS_CACHE = 1 << 2, "Read a saved state past the host's cache.";
        FORCE_BOOT = 1 << 3, "Throw a saved state away.";
        VALIDATE = 1 << 4, "Validate first.";
        RESET_NVRAM = 1 << 5, "With fresh firmware variables.";
    }

    /// How to ask for a shutdown (`virDomainShutdownFlagValues`). None lets the driver choose.
    Shutdown {
        ACPI = 1, "Press the power button.";
        AGENT = 1 << 1, "Ask the guest agent.";
        INITCTL = 1 << 2, "Tell init.";
        SIGNAL = 1 << 3, "Send a signal.";
        PARAVIRT = 1 << 4, "Ask by the paravirtual way.";
    }

    /// How to end it (`virDomainDestroyFlagsValues`).
    Destroy {
        GRACEFUL = 1, "Only SIGTERM: refuse instead of killing a QEMU that is stuck.";
        REMOVE_LOGS = 1 << 1, "And its logs.";
    }

    /// What goes with a definition (`virDomainUndefineFlagsValues`).
    Undefine {
        MANAGED_SAVE = 1, "The saved state.";
        SNAPSHOTS_METADATA = 1 << 1, "What is known of snapshots.";
        NVRAM = 1 << 2, "The firmware variables.";
        KEEP_NVRAM = 1 << 3, "Not the firmware variables.";
        CHECKPOINTS_METADATA = 1 << 4, "What is known of checkpoints.";
        TPM = 1 << 5, "The state of the trusted platform module.";
        KEEP_TPM = 1 << 6, "Not the state of the trusted platform module.";
    }

    /// How to save the running state (`virDomainSaveRestoreFlags`).
    Save {
        BYPASS_CACHE = 1, "Past the host's cache.";
        RUNNING = 1 << 1, "It will run when it comes back.";
        PAUSED = 1 << 2, "It will be paused when it comes back.";
    }

    /// To what a change applies (`virDomainModificationImpact`; for devices with `virDomainDeviceModifyFlags`). None means the domain as it is now.
    Affect {
        LIVE = 1, "The one that runs.";
        CONFIG = 1 << 1, "The one that will be started.";
        MAXIMUM = 1 << 2, "The greatest value of memory or processors; for devices: force, open a locked tray.";
        GUEST = 1 << 3, "Processors: ask the guest agent.";
        HOTPLUGGABLE = 1 << 4, "Processors: make them removable.";
    }

    /// How to resize a disk (`virDomainBlockResizeFlags`).
    BlockResize {
        BYTES = 1, "The size is in bytes, not KiB.";
    }

    /// How to commit (`virDomainBlockCommitFlags`).
    BlockCommit {
        SHALLOW = 1, "One layer.";
        DELETE = 1 << 1, "Delete what is no longer needed.";
        ACTIVE = 1 << 2, "The layer that is being written; ends with a pivot.";
        RELATIVE = 1 << 3, "Keep paths relative.";
        BANDWIDTH_BYTES = 1 << 4, "The limit is in bytes each second, not MiB.";
    }

    /// How to end a block job (`virDomainBlockJobAbortFlags`).
    BlockAbort {
        ASYNC = 1, "Do not wait for its end.";
        PIVOT = 1 << 1, "Go over to the new layer.";
    }

    /// How to make a snapshot (`virDomainSnapshotCreateFlags`).
    SnapshotCreate {
        REDEFINE = 1, "Only make known again one that exists.";
        CURRENT = 1 << 1, "And it is the current one.";
        NO_METADATA = 1 << 2, "Do not remember it.";
        HALT = 1 << 3, "Stop the domain after it.";
        DISK_ONLY = 1 << 4, "Disks only, not memory.";
        REUSE_EXT = 1 << 5, "The files are there.";
        QUIESCE = 1 << 6, "Have the guest agent freeze the file systems.";
        ATOMIC = 1 << 7, "All disks or none.";
        LIVE = 1 << 8, "Save memory while the guest runs.";
        VALIDATE = 1 << 9, "Against the schema, first.";
    }

    /// Which snapshots (`virDomainSnapshotListFlags`).
    Snapshots {
        ROOTS = 1, "Those without a parent.";
        LEAVES = 1 << 2, "Those without a child.";
        DISK_ONLY = 1 << 7, "Those without memory.";
        INTERNAL = 1 << 8, "Those inside the disks' files.";
        EXTERNAL = 1 << 9, "Those in files of their own.";
        TOPOLOGICAL = 1 << 10, "Parents before their children.";
    }

    /// How to go back to a snapshot (`virDomainSnapshotRevertFlags`).
    Revert {
        RUNNING = 1, "It shall run.";
        PAUSED = 1 << 1, "It shall be paused.";
        FORCE = 1 << 2, "Even if that needs a new QEMU.";
        RESET_NVRAM = 1 << 3, "With fresh firmware variables.";
    }

    /// What of a snapshot to delete (`virDomainSnapshotDeleteFlags`).
    SnapshotDelete {
        CHILDREN = 1, "It and all below it.";
        METADATA_ONLY = 1 << 1, "Only forget it.";
        CHILDREN_ONLY = 1 << 2, "All below it.";
    }

    /// How to open a console (`virDomainConsoleFlags`) or channel (`virDomainChannelFlags`).
    Console {
        FORCE = 1, "Take it from whoever has it.";
        SAFE = 1 << 1, "Only if nobody else can have it at the same time.";
    }

    /// How to open a graphics connection (`virDomainOpenGraphicsFlags`).
    Graphics {
        SKIP_AUTH = 1, "Without the password.";
    }

    /// What the guest agent is to tell (`virDomainGuestInfoTypes`). None means all it can.
    GuestInfo {
        USERS = 1, "Who is logged in.";
        OS = 1 << 1, "The operating system.";
        TIMEZONE = 1 << 2, "The time zone.";
        HOSTNAME = 1 << 3, "The host name.";
        FILESYSTEM = 1 << 4, "File systems.";
        DISKS = 1 << 5, "Disks.";
        INTERFACES = 1 << 6, "Interfaces.";
    }

    /// How to set a password (`virDomainSetUserPasswordFlags`).
    Password {
        ENCRYPTED = 1, "It is a hash already.";
    }

    /// Which networks (`virConnectListAllNetworksFlags`). None means all.
    Networks {
        INACTIVE = 1, "Those that are down.";
        ACTIVE = 1 << 1, "Those that are up.";
    }

    /// Which storage pools (`virConnectListAllStoragePoolsFlags`). None means all.
    Pools {
        INACTIVE = 1, "Those that are not started.";
        ACTIVE = 1 << 1, "Those that are.";
        DIR = 1 << 6, "Those that are directories.";
    }

    /// How to start a pool (`virStoragePoolCreateFlags`).
    PoolStart {
        BUILD = 1, "Make its folder first.";
        BUILD_OVERWRITE = 1 << 1, "Make it, over whatever is there.";
        BUILD_NO_OVERWRITE = 1 << 2, "Make it, unless something is there.";
    }

    /// How to make a volume (`virStorageVolCreateFlags`).
    VolumeCreate {
        PREALLOC_METADATA = 1, "Reserve its tables.";
        REFLINK = 1 << 1, "Share blocks with the original where the file system can.";
    }

    /// How to delete a volume (`virStorageVolDeleteFlags`).
    VolumeDelete {
        ZEROED = 1, "Write zeroes first.";
        WITH_SNAPSHOTS = 1 << 1, "And its snapshots.";
    }

    /// How to resize a volume (`virStorageVolResizeFlags`).
    VolumeResize {
        ALLOCATE = 1, "Reserve the space.";
        DELTA = 1 << 1, "By this much, not to this much.";
        SHRINK = 1 << 2, "It may become smaller.";
    }

    /// Which devices of the host (`virConnectListAllNodeDeviceFlags`). None means all.
    NodeDevices {
        SYSTEM = 1, "The computer.";
        PCI = 1 << 1, "PCI devices.";
        USB = 1 << 2, "USB devices.";
        USB_INTERFACE = 1 << 3, "Interfaces of USB devices.";
        NET = 1 << 4, "Network interfaces.";
        SCSI_HOST = 1 << 5, "SCSI hosts.";
        SCSI = 1 << 7, "SCSI devices.";
        STORAGE = 1 << 8, "Disks.";
        DRM = 1 << 12, "Graphics.";
        MDEV_TYPES = 1 << 13, "Devices that can be divided.";
        MDEV = 1 << 14, "Their divisions.";
    }

    /// How to open a connection (`virConnectFlags`).
    Open {
        READ_ONLY = 1, "Only to look.";
        NO_ALIASES = 1 << 1, "Take the URI as it is.";
    }
}
