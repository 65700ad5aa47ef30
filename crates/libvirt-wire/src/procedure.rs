//! The procedures that are called and the events that are understood, with their numbers.
//!
//! Source: src/remote/remote_protocol.x (`enum remote_procedure`) and src/remote/qemu_protocol.x (`enum qemu_procedure`) of libvirt 9.0.0. Numbers are
//! never changed or given out again: libvirt's support statement calls this protocol a long-term stable interface (docs/support.rst, "RPC protocol").

use crate::frame::{PROGRAM_QEMU, PROGRAM_REMOTE};

macro_rules! procedures {
    ($($name:ident = $number:literal, $program:ident, $wire:literal;)+) => {
        /// A procedure, or the event that is sent under its number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Procedure {
            $(#[doc = concat!("`", $wire, "`.")] $name,)+
        }

        impl Procedure {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its number within its program.
            pub const fn number(self) -> u32 {
                match self { $(Self::$name => $number,)+ }
            }

            /// The program it belongs to.
            pub const fn program(self) -> u32 {
                match self { $(Self::$name => $program,)+ }
            }

            /// What libvirt calls it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $wire,)+ }
            }

            /// The one of this number in this program, if it is one that we know.
            pub fn find(program: u32, number: u32) -> Option<Self> {
                match (program, number) { $(($program, $number) => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

procedures! {
    // The connection and the host.
    ConnectOpen = 1, PROGRAM_REMOTE, "CONNECT_OPEN";
    ConnectClose = 2, PROGRAM_REMOTE, "CONNECT_CLOSE";
    ConnectGetType = 3, PROGRAM_REMOTE, "CONNECT_GET_TYPE";
    ConnectGetVersion = 4, PROGRAM_REMOTE, "CONNECT_GET_VERSION";
    ConnectGetLibVersion = 157, PROGRAM_REMOTE, "CONNECT_GET_LIB_VERSION";
    ConnectGetHostname = 59, PROGRAM_REMOTE, "CONNECT_GET_HOSTNAME";
    ConnectGetUri = 110, PROGRAM_REMOTE, "CONNECT_GET_URI";
    ConnectSupportsFeature = 60, PROGRAM_REMOTE, "CONNECT_SUPPORTS_FEATURE";
    ConnectGetCapabilities = 7, PROGRAM_REMOTE, "CONNECT_GET_CAPABILITIES";
    ConnectBaselineCpu = 162, PROGRAM_REMOTE, "CONNECT_BASELINE_CPU";
    ConnectGetDomainCapabilities = 342, PROGRAM_REMOTE, "CONNECT_GET_DOMAIN_CAPABILITIES";
    NodeGetInfo = 6, PROGRAM_REMOTE, "NODE_GET_INFO";
    NodeGetFreeMemory = 102, PROGRAM_REMOTE, "NODE_GET_FREE_MEMORY";
    AuthList = 66, PROGRAM_REMOTE, "AUTH_LIST";
    AuthPolkit = 70, PROGRAM_REMOTE, "AUTH_POLKIT";
    // Domains: finding, describing, living.
    ConnectListAllDomains = 273, PROGRAM_REMOTE, "CONNECT_LIST_ALL_DOMAINS";
    ConnectGetAllDomainStats = 344, PROGRAM_REMOTE, "CONNECT_GET_ALL_DOMAIN_STATS";
    DomainLookupByUuid = 24, PROGRAM_REMOTE, "DOMAIN_LOOKUP_BY_UUID";
    DomainLookupByName = 23, PROGRAM_REMOTE, "DOMAIN_LOOKUP_BY_NAME";
    DomainDefineXml = 11, PROGRAM_REMOTE, "DOMAIN_DEFINE_XML";
    DomainDefineXmlFlags = 350, PROGRAM_REMOTE, "DOMAIN_DEFINE_XML_FLAGS";
    DomainUndefineFlags = 231, PROGRAM_REMOTE, "DOMAIN_UNDEFINE_FLAGS";
    DomainCreateWithFlags = 196, PROGRAM_REMOTE, "DOMAIN_CREATE_WITH_FLAGS";
    DomainShutdownFlags = 258, PROGRAM_REMOTE, "DOMAIN_SHUTDOWN_FLAGS";
    DomainDestroyFlags = 234, PROGRAM_REMOTE, "DOMAIN_DESTROY_FLAGS";
    DomainReboot = 27, PROGRAM_REMOTE, "DOMAIN_REBOOT";
    DomainReset = 245, PROGRAM_REMOTE, "DOMAIN_RESET";
    DomainSuspend = 34, PROGRAM_REMOTE, "DOMAIN_SUSPEND";
    DomainResume = 28, PROGRAM_REMOTE, "DOMAIN_RESUME";
    DomainManagedSave = 182, PROGRAM_REMOTE, "DOMAIN_MANAGED_SAVE";
    DomainHasManagedSaveImage = 183, PROGRAM_REMOTE, "DOMAIN_HAS_MANAGED_SAVE_IMAGE";
    DomainManagedSaveRemove = 184, PROGRAM_REMOTE, "DOMAIN_MANAGED_SAVE_REMOVE";
    DomainRestoreFlags = 233, PROGRAM_REMOTE, "DOMAIN_RESTORE_FLAGS";
    DomainSaveImageGetXmlDesc = 235, PROGRAM_REMOTE, "DOMAIN_SAVE_IMAGE_GET_XML_DESC";
    DomainGetAutostart = 15, PROGRAM_REMOTE, "DOMAIN_GET_AUTOSTART";
    DomainSetAutostart = 29, PROGRAM_REMOTE, "DOMAIN_SET_AUTOSTART";
    DomainRename = 358, PROGRAM_REMOTE, "DOMAIN_RENAME";
    DomainGetXmlDesc = 14, PROGRAM_REMOTE, "DOMAIN_GET_XML_DESC";
    DomainGetState = 212, PROGRAM_REMOTE, "DOMAIN_GET_STATE";
    DomainGetInfo = 16, PROGRAM_REMOTE, "DOMAIN_GET_INFO";
    DomainIsActive = 150, PROGRAM_REMOTE, "DOMAIN_IS_ACTIVE";
    DomainIsPersistent = 151, PROGRAM_REMOTE, "DOMAIN_IS_PERSISTENT";
    DomainIsUpdated = 202, PROGRAM_REMOTE, "DOMAIN_IS_UPDATED";
    DomainSetMemoryFlags = 204, PROGRAM_REMOTE, "DOMAIN_SET_MEMORY_FLAGS";
    DomainSetVcpusFlags = 199, PROGRAM_REMOTE, "DOMAIN_SET_VCPUS_FLAGS";
    DomainGetVcpusFlags = 200, PROGRAM_REMOTE, "DOMAIN_GET_VCPUS_FLAGS";
    DomainSetMetadata = 264, PROGRAM_REMOTE, "DOMAIN_SET_METADATA";
    DomainGetMetadata = 265, PROGRAM_REMOTE, "DOMAIN_GET_METADATA";
    DomainGetJobStats = 298, PROGRAM_REMOTE, "DOMAIN_GET_JOB_STATS";
    DomainAbortJob = 164, PROGRAM_REMOTE, "DOMAIN_ABORT_JOB";
    DomainSendKey = 226, PROGRAM_REMOTE, "DOMAIN_SEND_KEY";
    DomainGetMessages = 426, PROGRAM_REMOTE, "DOMAIN_GET_MESSAGES";
    // Domains: devices and disks.
    DomainAttachDeviceFlags = 160, PROGRAM_REMOTE, "DOMAIN_ATTACH_DEVICE_FLAGS";
    DomainDetachDeviceFlags = 161, PROGRAM_REMOTE, "DOMAIN_DETACH_DEVICE_FLAGS";
    DomainUpdateDeviceFlags = 174, PROGRAM_REMOTE, "DOMAIN_UPDATE_DEVICE_FLAGS";
    DomainDetachDeviceAlias = 392, PROGRAM_REMOTE, "DOMAIN_DETACH_DEVICE_ALIAS";
    DomainBlockResize = 251, PROGRAM_REMOTE, "DOMAIN_BLOCK_RESIZE";
    DomainGetBlockInfo = 194, PROGRAM_REMOTE, "DOMAIN_GET_BLOCK_INFO";
    DomainBlockCommit = 290, PROGRAM_REMOTE, "DOMAIN_BLOCK_COMMIT";
    DomainBlockPull = 240, PROGRAM_REMOTE, "DOMAIN_BLOCK_PULL";
    DomainGetBlockJobInfo = 238, PROGRAM_REMOTE, "DOMAIN_GET_BLOCK_JOB_INFO";
    DomainBlockJobAbort = 237, PROGRAM_REMOTE, "DOMAIN_BLOCK_JOB_ABORT";
    // Snapshots.
    DomainSnapshotCreateXml = 185, PROGRAM_REMOTE, "DOMAIN_SNAPSHOT_CREATE_XML";
    DomainListAllSnapshots = 274, PROGRAM_REMOTE, "DOMAIN_LIST_ALL_SNAPSHOTS";
    DomainSnapshotLookupByName = 189, PROGRAM_REMOTE, "DOMAIN_SNAPSHOT_LOOKUP_BY_NAME";
    DomainHasCurrentSnapshot = 190, PROGRAM_REMOTE, "DOMAIN_HAS_CURRENT_SNAPSHOT";
    DomainSnapshotCurrent = 191, PROGRAM_REMOTE, "DOMAIN_SNAPSHOT_CURRENT";
    DomainRevertToSnapshot = 192, PROGRAM_REMOTE, "DOMAIN_REVERT_TO_SNAPSHOT";
    DomainSnapshotDelete = 193, PROGRAM_REMOTE, "DOMAIN_SNAPSHOT_DELETE";
    DomainSnapshotGetXmlDesc = 186, PROGRAM_REMOTE, "DOMAIN_SNAPSHOT_GET_XML_DESC";
    DomainSnapshotGetParent = 244, PROGRAM_REMOTE, "DOMAIN_SNAPSHOT_GET_PARENT";
    DomainSnapshotNumChildren = 246, PROGRAM_REMOTE, "DOMAIN_SNAPSHOT_NUM_CHILDREN";
    // Domains: what is inside.
    DomainOpenConsole = 201, PROGRAM_REMOTE, "DOMAIN_OPEN_CONSOLE";
    DomainOpenChannel = 296, PROGRAM_REMOTE, "DOMAIN_OPEN_CHANNEL";
    DomainScreenshot = 211, PROGRAM_REMOTE, "DOMAIN_SCREENSHOT";
    DomainOpenGraphicsFd = 343, PROGRAM_REMOTE, "DOMAIN_OPEN_GRAPHICS_FD";
    DomainInterfaceAddresses = 353, PROGRAM_REMOTE, "DOMAIN_INTERFACE_ADDRESSES";
    DomainGetGuestInfo = 418, PROGRAM_REMOTE, "DOMAIN_GET_GUEST_INFO";
    DomainGetHostname = 277, PROGRAM_REMOTE, "DOMAIN_GET_HOSTNAME";
    DomainFsfreeze = 335, PROGRAM_REMOTE, "DOMAIN_FSFREEZE";
    DomainFsthaw = 336, PROGRAM_REMOTE, "DOMAIN_FSTHAW";
    DomainSetUserPassword = 357, PROGRAM_REMOTE, "DOMAIN_SET_USER_PASSWORD";
    // Networks.
    ConnectListAllNetworks = 283, PROGRAM_REMOTE, "CONNECT_LIST_ALL_NETWORKS";
    NetworkLookupByName = 46, PROGRAM_REMOTE, "NETWORK_LOOKUP_BY_NAME";
    NetworkLookupByUuid = 47, PROGRAM_REMOTE, "NETWORK_LOOKUP_BY_UUID";
    NetworkCreate = 39, PROGRAM_REMOTE, "NETWORK_CREATE";
    NetworkCreateXml = 40, PROGRAM_REMOTE, "NETWORK_CREATE_XML";
    NetworkDefineXml = 41, PROGRAM_REMOTE, "NETWORK_DEFINE_XML";
    NetworkUndefine = 49, PROGRAM_REMOTE, "NETWORK_UNDEFINE";
    NetworkDestroy = 42, PROGRAM_REMOTE, "NETWORK_DESTROY";
    NetworkGetXmlDesc = 43, PROGRAM_REMOTE, "NETWORK_GET_XML_DESC";
    NetworkGetDhcpLeases = 341, PROGRAM_REMOTE, "NETWORK_GET_DHCP_LEASES";
    NetworkGetAutostart = 44, PROGRAM_REMOTE, "NETWORK_GET_AUTOSTART";
    NetworkSetAutostart = 48, PROGRAM_REMOTE, "NETWORK_SET_AUTOSTART";
    NetworkIsActive = 152, PROGRAM_REMOTE, "NETWORK_IS_ACTIVE";
    NetworkGetBridgeName = 45, PROGRAM_REMOTE, "NETWORK_GET_BRIDGE_NAME";
    // Storage pools.
    ConnectListAllStoragePools = 281, PROGRAM_REMOTE, "CONNECT_LIST_ALL_STORAGE_POOLS";
    StoragePoolLookupByName = 84, PROGRAM_REMOTE, "STORAGE_POOL_LOOKUP_BY_NAME";
    StoragePoolLookupByUuid = 85, PROGRAM_REMOTE, "STORAGE_POOL_LOOKUP_BY_UUID";
    StoragePoolLookupByVolume = 86, PROGRAM_REMOTE, "STORAGE_POOL_LOOKUP_BY_VOLUME";
    StoragePoolLookupByTargetPath = 391, PROGRAM_REMOTE, "STORAGE_POOL_LOOKUP_BY_TARGET_PATH";
    StoragePoolCreate = 78, PROGRAM_REMOTE, "STORAGE_POOL_CREATE";
    StoragePoolCreateXml = 76, PROGRAM_REMOTE, "STORAGE_POOL_CREATE_XML";
    StoragePoolDefineXml = 77, PROGRAM_REMOTE, "STORAGE_POOL_DEFINE_XML";
    StoragePoolBuild = 79, PROGRAM_REMOTE, "STORAGE_POOL_BUILD";
    StoragePoolDestroy = 80, PROGRAM_REMOTE, "STORAGE_POOL_DESTROY";
    StoragePoolUndefine = 82, PROGRAM_REMOTE, "STORAGE_POOL_UNDEFINE";
    StoragePoolRefresh = 83, PROGRAM_REMOTE, "STORAGE_POOL_REFRESH";
    StoragePoolGetInfo = 87, PROGRAM_REMOTE, "STORAGE_POOL_GET_INFO";
    StoragePoolGetXmlDesc = 88, PROGRAM_REMOTE, "STORAGE_POOL_GET_XML_DESC";
    StoragePoolGetAutostart = 89, PROGRAM_REMOTE, "STORAGE_POOL_GET_AUTOSTART";
    StoragePoolSetAutostart = 90, PROGRAM_REMOTE, "STORAGE_POOL_SET_AUTOSTART";
    StoragePoolIsActive = 154, PROGRAM_REMOTE, "STORAGE_POOL_IS_ACTIVE";
    StoragePoolListAllVolumes = 282, PROGRAM_REMOTE, "STORAGE_POOL_LIST_ALL_VOLUMES";
    // Storage volumes.
    StorageVolLookupByName = 95, PROGRAM_REMOTE, "STORAGE_VOL_LOOKUP_BY_NAME";
    StorageVolLookupByPath = 97, PROGRAM_REMOTE, "STORAGE_VOL_LOOKUP_BY_PATH";
    StorageVolLookupByKey = 96, PROGRAM_REMOTE, "STORAGE_VOL_LOOKUP_BY_KEY";
    StorageVolCreateXml = 93, PROGRAM_REMOTE, "STORAGE_VOL_CREATE_XML";
    StorageVolCreateXmlFrom = 125, PROGRAM_REMOTE, "STORAGE_VOL_CREATE_XML_FROM";
    StorageVolDelete = 94, PROGRAM_REMOTE, "STORAGE_VOL_DELETE";
    StorageVolResize = 260, PROGRAM_REMOTE, "STORAGE_VOL_RESIZE";
    StorageVolUpload = 208, PROGRAM_REMOTE, "STORAGE_VOL_UPLOAD";
    StorageVolDownload = 209, PROGRAM_REMOTE, "STORAGE_VOL_DOWNLOAD";
    StorageVolGetPath = 100, PROGRAM_REMOTE, "STORAGE_VOL_GET_PATH";
    StorageVolGetXmlDesc = 99, PROGRAM_REMOTE, "STORAGE_VOL_GET_XML_DESC";
    StorageVolGetInfo = 98, PROGRAM_REMOTE, "STORAGE_VOL_GET_INFO";
    // Devices of the host.
    ConnectListAllNodeDevices = 285, PROGRAM_REMOTE, "CONNECT_LIST_ALL_NODE_DEVICES";
    NodeDeviceLookupByName = 113, PROGRAM_REMOTE, "NODE_DEVICE_LOOKUP_BY_NAME";
    NodeDeviceGetXmlDesc = 114, PROGRAM_REMOTE, "NODE_DEVICE_GET_XML_DESC";
    // Asking for events.
    ConnectDomainEventCallbackRegisterAny = 316, PROGRAM_REMOTE, "CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY";
    ConnectNetworkEventRegisterAny = 313, PROGRAM_REMOTE, "CONNECT_NETWORK_EVENT_REGISTER_ANY";
    ConnectStoragePoolEventRegisterAny = 368, PROGRAM_REMOTE, "CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY";
    ConnectNodeDeviceEventRegisterAny = 374, PROGRAM_REMOTE, "CONNECT_NODE_DEVICE_EVENT_REGISTER_ANY";
    ConnectRegisterCloseCallback = 360, PROGRAM_REMOTE, "CONNECT_REGISTER_CLOSE_CALLBACK";
    // Events.
    DomainEventCallbackLifecycle = 318, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_LIFECYCLE";
    DomainEventCallbackReboot = 319, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_REBOOT";
    DomainEventCallbackRtcChange = 320, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_RTC_CHANGE";
    DomainEventCallbackWatchdog = 321, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_WATCHDOG";
    DomainEventCallbackIoError = 322, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_IO_ERROR";
    DomainEventCallbackGraphics = 323, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_GRAPHICS";
    DomainEventCallbackIoErrorReason = 324, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_IO_ERROR_REASON";
    DomainEventCallbackControlError = 325, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_CONTROL_ERROR";
    DomainEventCallbackBlockJob = 326, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_BLOCK_JOB";
    DomainEventCallbackDiskChange = 327, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_DISK_CHANGE";
    DomainEventCallbackTrayChange = 328, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_TRAY_CHANGE";
    DomainEventCallbackPmwakeup = 329, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_PMWAKEUP";
    DomainEventCallbackPmsuspend = 330, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_PMSUSPEND";
    DomainEventCallbackBalloonChange = 331, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_BALLOON_CHANGE";
    DomainEventCallbackPmsuspendDisk = 332, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_PMSUSPEND_DISK";
    DomainEventCallbackDeviceRemoved = 333, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_DEVICE_REMOVED";
    DomainEventBlockJob2 = 339, PROGRAM_REMOTE, "DOMAIN_EVENT_BLOCK_JOB_2";
    DomainEventCallbackTunable = 346, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_TUNABLE";
    DomainEventCallbackAgentLifecycle = 348, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_AGENT_LIFECYCLE";
    DomainEventCallbackDeviceAdded = 354, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_DEVICE_ADDED";
    DomainEventCallbackMigrationIteration = 359, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_MIGRATION_ITERATION";
    DomainEventCallbackJobCompleted = 363, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_JOB_COMPLETED";
    DomainEventCallbackDeviceRemovalFailed = 367, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_DEVICE_REMOVAL_FAILED";
    DomainEventCallbackMetadataChange = 379, PROGRAM_REMOTE, "DOMAIN_EVENT_CALLBACK_METADATA_CHANGE";
    DomainEventBlockThreshold = 385, PROGRAM_REMOTE, "DOMAIN_EVENT_BLOCK_THRESHOLD";
    DomainEventMemoryFailure = 423, PROGRAM_REMOTE, "DOMAIN_EVENT_MEMORY_FAILURE";
    DomainEventMemoryDeviceSizeChange = 438, PROGRAM_REMOTE, "DOMAIN_EVENT_MEMORY_DEVICE_SIZE_CHANGE";
    NetworkEventLifecycle = 315, PROGRAM_REMOTE, "NETWORK_EVENT_LIFECYCLE";
    StoragePoolEventLifecycle = 370, PROGRAM_REMOTE, "STORAGE_POOL_EVENT_LIFECYCLE";
    StoragePoolEventRefresh = 373, PROGRAM_REMOTE, "STORAGE_POOL_EVENT_REFRESH";
    NodeDeviceEventLifecycle = 376, PROGRAM_REMOTE, "NODE_DEVICE_EVENT_LIFECYCLE";
    NodeDeviceEventUpdate = 377, PROGRAM_REMOTE, "NODE_DEVICE_EVENT_UPDATE";
    ConnectEventConnectionClosed = 362, PROGRAM_REMOTE, "CONNECT_EVENT_CONNECTION_CLOSED";
    // Of the program of QEMU.
    QemuDomainAgentCommand = 3, PROGRAM_QEMU, "QEMU_DOMAIN_AGENT_COMMAND";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_given_twice() {
        for procedure in Procedure::ALL {
            assert_eq!(Procedure::find(procedure.program(), procedure.number()), Some(*procedure), "{}", procedure.name());
        }
        assert_eq!(Procedure::find(PROGRAM_REMOTE, 0), None);
        assert_eq!(Procedure::find(PROGRAM_QEMU, 273), None);
    }
}
