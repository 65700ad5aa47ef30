//! The connection itself and the host behind it.

use super::Client;
use crate::{
    error::Result,
    flags::NodeDevices,
    procedure::Procedure as P,
    types::{NodeDevice, NodeInfo},
};

impl Client {
    /// The kind of hypervisor: `QEMU`, `TEST`.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn hypervisor(&self) -> Result<String> {
        self.quick(P::ConnectGetType, ()).await
    }

    /// The hypervisor's version: 1 000 000 × major + 1 000 × minor + release.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn hypervisor_version(&self) -> Result<u64> {
        self.quick(P::ConnectGetVersion, ()).await
    }

    /// libvirt's version, in the same form.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn libvirt_version(&self) -> Result<u64> {
        self.quick(P::ConnectGetLibVersion, ()).await
    }

    /// The host's name.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn host_name(&self) -> Result<String> {
        self.quick(P::ConnectGetHostname, ()).await
    }

    /// The URI as the daemon understood it.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn canonical_uri(&self) -> Result<String> {
        self.quick(P::ConnectGetUri, ()).await
    }

    /// Whether the daemon or its driver has a feature, by libvirt's number (`virDrvFeature`, src/libvirt_internal.h).
    ///
    /// # Errors
    /// Those of a call.
    pub async fn supports_feature(&self, feature: i32) -> Result<bool> {
        self.quick(P::ConnectSupportsFeature, feature).await
    }

    /// What the host can do, XML.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn capabilities(&self) -> Result<String> {
        // The first time after its start the daemon asks every emulator, which takes seconds.
        self.slow(P::ConnectGetCapabilities, ()).await
    }

    /// What a domain can have there, XML: for an emulator, an architecture, a machine type and a kind (`kvm`, `qemu`), each left to the daemon if `None`.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn domain_capabilities(
        &self,
        emulator: Option<&str>,
        arch: Option<&str>,
        machine: Option<&str>,
        kind: Option<&str>,
    ) -> Result<String> {
        self.slow(P::ConnectGetDomainCapabilities, (emulator, arch, machine, kind, 0_u32)).await
    }

    /// The richest processor that all of these are (elements `cpu`), XML, with every feature named.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn baseline_cpu(&self, processors: &[&str]) -> Result<String> {
        // `virConnectBaselineCPUFlags`, include/libvirt/libvirt-host.h.
        const EXPAND_FEATURES: u32 = 1;
        self.slow(P::ConnectBaselineCpu, (processors, EXPAND_FEATURES)).await
    }

    /// Processors and memory of the host.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn node_info(&self) -> Result<NodeInfo> {
        self.quick(P::NodeGetInfo, ()).await
    }

    /// Memory of the host that is free, bytes.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn node_free_memory(&self) -> Result<u64> {
        self.quick(P::NodeGetFreeMemory, ()).await
    }

    /// Devices of the host.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn node_devices(&self, which: NodeDevices) -> Result<Vec<NodeDevice>> {
        let (devices, _count): (_, u32) = self.quick(P::ConnectListAllNodeDevices, (true, which)).await?;
        Ok(devices)
    }

    /// The device of this name.
    ///
    /// # Errors
    /// One for which [`crate::Error::is_not_found`] holds if there is none.
    pub async fn node_device(&self, name: &str) -> Result<NodeDevice> {
        self.quick(P::NodeDeviceLookupByName, name).await
    }

    /// What is known of a device of the host, XML.
    ///
    /// # Errors
    /// One for which [`crate::Error::is_not_found`] holds if it is gone.
    pub async fn node_device_xml(&self, device: &NodeDevice) -> Result<String> {
        self.quick(P::NodeDeviceGetXmlDesc, (&device.name, 0_u32)).await
    }
}
