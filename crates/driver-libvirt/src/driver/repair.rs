//! What a fresh libvirt may lack and every first machine needs: the storage pool and the network named default. Made when the user asks for it, and only if
//! they are not there.

use super::{
    Inner,
    errors::{Doing as _, failed},
};
use crate::caps::Host;
use vmoon_core::{Code, Error, Result};
use vmoon_libvirt_wire::{Client, flags::PoolStart};
use vmoon_xml::Element;

/// The name of the pool and of the network that are meant where none is named.
pub(crate) const DEFAULT: &str = "default";
/// Where libvirt itself keeps images of the system's machines.
pub(crate) const IMAGES: &str = "/var/lib/libvirt/images";
/// The networks that are tried, as the third number of 192.168.N.0/24: the first is libvirt's own choice.
const SUBNETS: std::ops::RangeInclusive<u8> = 122..=131;

/// What is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Pool,
    PoolStart,
    Network,
}

/// What a host lacks. Pure.
fn missing(host: &Host) -> Vec<Missing> {
    let mut all = Vec::new();
    match host.pools.iter().find(|pool| pool.name == DEFAULT) {
        None => all.push(Missing::Pool),
        Some(pool) if !pool.active => all.push(Missing::PoolStart),
        Some(_) => {}
    }
    // A session has no networks of its own.
    if !host.session && !host.networks.iter().any(|network| network.name == DEFAULT) {
        all.push(Missing::Network);
    }
    all
}

fn pool(target: &str) -> Element {
    Element::new("pool").with("type", "dir").leaf("name", DEFAULT).child(Element::new("target").leaf("path", target))
}

/// A network behind address translation, with addresses given out.
fn network(subnet: u8) -> Element {
    let address = |host: u8| format!("192.168.{subnet}.{host}");
    let range = Element::new("range").with("start", address(2)).with("end", address(254));
    let ip = Element::new("ip").with("address", address(1)).with("netmask", "255.255.255.0").child(Element::new("dhcp").child(range));
    Element::new("network")
        .leaf("name", DEFAULT)
        .child(Element::new("forward").with("mode", "nat"))
        .child(Element::new("bridge").with("stp", "on").with("delay", 0))
        .child(ip)
}

impl Inner {
    /// Makes what is missing; says what was done, or would be.
    pub(crate) async fn repair(&self, dry_run: bool) -> Result<Vec<String>> {
        let host = self.host().await?;
        let client = self.link.client().await?;
        let mut said = Vec::new();
        for missing in missing(&host) {
            match missing {
                Missing::Pool => {
                    let target = self.images(&host)?;
                    said.push(format!("make the storage pool {DEFAULT} in {target}, and let it start with libvirt"));
                    if !dry_run {
                        make_pool(&client, &target).await?;
                    }
                }
                Missing::PoolStart => {
                    said.push(format!("start the storage pool {DEFAULT}"));
                    if !dry_run {
                        let found = client.pool_named(DEFAULT).await.doing("find the storage pool")?;
                        client.pool_start(&found, PoolStart::NONE).await.doing("start the storage pool")?;
                    }
                }
                Missing::Network => {
                    said.push(format!("make the network {DEFAULT}, behind address translation, and start it"));
                    if !dry_run {
                        make_network(&client).await?;
                    }
                }
            }
        }
        Ok(said)
    }

    /// Where a pool of images belongs.
    fn images(&self, host: &Host) -> Result<String> {
        if !host.session {
            return Ok(IMAGES.to_owned());
        }
        let unknown = || {
            Error::new(Code::DriverUnsupported, "where images of a session on another computer belong is not known")
                .hint("make the pool there: virsh pool-define-as default dir --target DIRECTORY")
        };
        let data = self.data.as_ref().filter(|_| host.local).ok_or_else(unknown)?;
        data.join("libvirt/images").to_str().map(str::to_owned).ok_or_else(unknown)
    }
}

async fn make_pool(client: &Client, target: &str) -> Result<()> {
    let what = "make the storage pool";
    let made = client.pool_define(&pool(target).to_text()).await.doing(what)?;
    let begun = async {
        client.pool_build(&made).await.doing(what)?;
        client.pool_start(&made, PoolStart::NONE).await.doing(what)?;
        client.set_pool_autostart(&made, true).await.doing(what)
    };
    let begun = begun.await;
    if begun.is_err() {
        // What cannot be used is not left behind; its directory may hold files of others and stays.
        let _not_active = client.pool_undefine(&made).await;
    }
    begun
}

async fn make_network(client: &Client) -> Result<()> {
    let what = "make the network";
    let mut last = None;
    for subnet in SUBNETS {
        let made = client.network_define(&network(subnet).to_text()).await.doing(what)?;
        match client.network_start(&made).await {
            Ok(()) => return client.set_network_autostart(&made, true).await.doing(what),
            Err(error) => {
                client.network_undefine(&made).await.doing(what)?;
                // Something of the host has these addresses: others are tried.
                let taken = error.to_string().contains("already in use");
                let error = failed("start the network", error);
                if !taken {
                    return Err(error);
                }
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| Error::internal("no network was tried")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::tests::host;

    #[test]
    fn only_what_is_missing_is_made() {
        assert_eq!(missing(&host()), []);
        let bare = Host { pools: Vec::new(), networks: Vec::new(), ..host() };
        assert_eq!(missing(&bare), [Missing::Pool, Missing::Network]);
        assert_eq!(missing(&Host { session: true, ..bare }), [Missing::Pool]);
        let mut asleep = host();
        asleep.pools[0].active = false;
        assert_eq!(missing(&asleep), [Missing::PoolStart]);
    }
}
