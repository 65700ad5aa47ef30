//! Virtual networks.

use super::Client;
use crate::{
    error::Result,
    flags::{Networks, Xml},
    procedure::Procedure as P,
    types::{Lease, Network},
};
use uuid::Uuid;

impl Client {
    /// Every network, or those of the kinds that are named.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn networks(&self, which: Networks) -> Result<Vec<Network>> {
        let (networks, _count): (_, u32) = self.quick(P::ConnectListAllNetworks, (true, which)).await?;
        Ok(networks)
    }

    /// The network of this name.
    ///
    /// # Errors
    /// One for which [`crate::Error::is_not_found`] holds if there is none.
    pub async fn network_named(&self, name: &str) -> Result<Network> {
        self.quick(P::NetworkLookupByName, name).await
    }

    /// The network with this UUID.
    ///
    /// # Errors
    /// One for which [`crate::Error::is_not_found`] holds if there is none.
    pub async fn network(&self, uuid: Uuid) -> Result<Network> {
        self.quick(P::NetworkLookupByUuid, uuid).await
    }

    /// Stores a definition.
    ///
    /// # Errors
    /// What libvirt finds wrong with it.
    pub async fn network_define(&self, xml: &str) -> Result<Network> {
        self.quick(P::NetworkDefineXml, xml).await
    }

    /// Starts one that is not stored.
    ///
    /// # Errors
    /// What libvirt finds wrong with it.
    pub async fn network_create(&self, xml: &str) -> Result<Network> {
        self.slow(P::NetworkCreateXml, xml).await
    }

    /// Starts it.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn network_start(&self, network: &Network) -> Result<()> {
        self.slow(P::NetworkCreate, network).await
    }

    /// Stops it.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn network_stop(&self, network: &Network) -> Result<()> {
        self.slow(P::NetworkDestroy, network).await
    }

    /// Forgets its definition.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn network_undefine(&self, network: &Network) -> Result<()> {
        self.quick(P::NetworkUndefine, network).await
    }

    /// Its definition; with [`Xml::INACTIVE`] the stored one.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn network_xml(&self, network: &Network, what: Xml) -> Result<String> {
        // For networks "inactive" is another bit (`virNetworkXMLFlags`).
        self.quick(P::NetworkGetXmlDesc, (network, u32::from(what.contains(Xml::INACTIVE)))).await
    }

    /// What its DHCP server has given out: to this hardware address, or to all.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn leases(&self, network: &Network, mac: Option<&str>) -> Result<Vec<Lease>> {
        let (leases, _count): (_, u32) = self.quick(P::NetworkGetDhcpLeases, (network, mac, true, 0_u32)).await?;
        Ok(leases)
    }

    /// Whether it starts with the host.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn network_autostart(&self, network: &Network) -> Result<bool> {
        self.quick(P::NetworkGetAutostart, network).await
    }

    /// Says whether it starts with the host.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn set_network_autostart(&self, network: &Network, on: bool) -> Result<()> {
        self.quick(P::NetworkSetAutostart, (network, on)).await
    }

    /// Whether it is up.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn network_is_active(&self, network: &Network) -> Result<bool> {
        self.quick(P::NetworkIsActive, network).await
    }

    /// The name of its bridge on the host.
    ///
    /// # Errors
    /// Those of a call; it may have none.
    pub async fn network_bridge(&self, network: &Network) -> Result<String> {
        self.quick(P::NetworkGetBridgeName, network).await
    }
}
