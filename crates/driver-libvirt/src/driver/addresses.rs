//! Addresses of machines: what the guest's agent says first, then leases of libvirt's networks that have not run out. A lease is no proof of life: the source
//! is told with each address.

use super::{Inner, errors::failed};
use std::{collections::HashSet, net::IpAddr, time::Duration};
use vmoon_core::{Code, Result, ability::Address, driver::Handle};
use vmoon_libvirt_wire::{Addresses, Client, Domain, GuestInterface, flags::Xml};
use vmoon_sys::clock;

/// How long the agent may take.
const ASK_AGENT: Duration = Duration::from_secs(5);
/// The most addresses that are taken from a guest.
const MAX: usize = 256;

/// What is worth telling of interfaces: addresses that parse, not the guest's own loopback; those of the link alone last.
fn useful(interfaces: Vec<GuestInterface>, source: &str) -> Vec<Address> {
    let mut found: Vec<(bool, Address)> = Vec::new();
    for interface in interfaces {
        for address in interface.addresses {
            let Ok(ip) = address.address.parse::<IpAddr>() else { continue };
            if ip.is_loopback() || ip.is_unspecified() || found.len() >= MAX {
                continue;
            }
            let link_only = match ip {
                IpAddr::V4(ip) => ip.is_link_local(),
                IpAddr::V6(ip) => ip.is_unicast_link_local(),
            };
            let mac = interface.mac.clone().unwrap_or_default().to_lowercase();
            let name = vmoon_core::name::escape(&interface.name).chars().take(64).collect();
            let source = source.to_owned();
            // A lease is known by the host's name for the card, which says nothing to people.
            let interface = if source == "lease" { String::new() } else { name };
            found.push((link_only, Address { ip: ip.to_string(), interface, mac, source }));
        }
    }
    found.sort_by_key(|(link_only, address)| (*link_only, address.ip.contains(':')));
    found.into_iter().map(|(_, address)| address).collect()
}

impl Inner {
    /// Every address that is known now, the most trustworthy first.
    pub(crate) async fn addresses(&self, handle: &Handle) -> Result<Vec<Address>> {
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        if domain.id < 0 {
            return Ok(Vec::new());
        }
        let mut all = match client.within(ASK_AGENT).addresses(&domain, Addresses::Agent).await {
            Ok(interfaces) => useful(interfaces, "agent"),
            Err(error) => {
                let error = failed("ask the guest's agent", error);
                if error.code() == Code::ConnectionPermission {
                    return Err(error);
                }
                tracing::debug!(domain = %domain.uuid, error = %error.chain(), "no addresses from the agent");
                Vec::new()
            }
        };
        let known: HashSet<String> = all.iter().map(|address| address.ip.clone()).collect();
        all.extend(leases(&client, &domain).await.into_iter().filter(|lease| !known.contains(&lease.ip)));
        Ok(all)
    }
}

/// Leases of the machine's cards that are still good, the newest first.
async fn leases(client: &Client, domain: &Domain) -> Vec<Address> {
    let read = async || -> vmoon_libvirt_wire::Result<Vec<vmoon_libvirt_wire::Lease>> {
        let xml = client.domain_xml(domain, Xml::NONE).await?;
        let mut found = Vec::new();
        let Ok(xml) = vmoon_xml::Element::parse(&xml) else { return Ok(found) };
        for card in xml.first("devices").into_iter().flat_map(|devices| devices.named("interface")) {
            let network = card.first("source").and_then(|source| source.attribute("network"));
            let mac = card.first("mac").and_then(|mac| mac.attribute("address"));
            let (Some(network), Some(mac)) = (network, mac) else { continue };
            let network = client.network_named(network).await?;
            found.extend(client.leases(&network, Some(mac)).await?);
        }
        Ok(found)
    };
    let mut found = read().await.unwrap_or_else(|error| {
        tracing::debug!(domain = %domain.uuid, %error, "no leases");
        Vec::new()
    });
    let now = i64::try_from(clock::now_ms() / 1000).unwrap_or(i64::MAX);
    found.retain(|lease| lease.expires == 0 || lease.expires > now);
    found.sort_by_key(|lease| std::cmp::Reverse(lease.expires));
    let good = found.into_iter().filter(|lease| lease.address.parse::<IpAddr>().is_ok());
    good.map(|lease| Address { ip: lease.address, interface: String::new(), mac: lease.mac.unwrap_or_default(), source: "lease".into() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_libvirt_wire::GuestAddress;

    #[test]
    fn loopback_and_nonsense_are_left_out_and_link_addresses_come_last() {
        let address = |text: &str| GuestAddress { family: 0, address: text.into(), prefix: 24 };
        let addresses = ["127.0.0.1", "fe80::1", "::1", "2001:db8::7", "x; rm", "10.0.2.15", "0.0.0.0"].map(address).to_vec();
        let found = useful(vec![GuestInterface { name: "eth0\n".into(), mac: Some("52:54:00:AA:00:01".into()), addresses }], "agent");
        let ips: Vec<&str> = found.iter().map(|address| address.ip.as_str()).collect();
        assert_eq!(ips, ["10.0.2.15", "2001:db8::7", "fe80::1"]);
        assert_eq!((found[0].interface.as_str(), found[0].mac.as_str()), ("eth0\\n", "52:54:00:aa:00:01"));
    }
}
