//! What the hypervisor offers, asked for when a machine is planned.

use super::{Inner, endpoint::Way, errors::Doing as _};
use crate::caps::{self, DomainCaps, Host, Network, Pool};
use tokio::{sync::Mutex, task::JoinSet};
use vmoon_core::Result;
use vmoon_libvirt_wire::{
    Client,
    flags::{Networks, Pools, Xml},
};
use vmoon_xml::Element;

/// What does not change while a libvirt runs.
#[derive(Clone)]
struct Fixed {
    host: Host,
}

/// The last answer, as long as its client lives.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Option<(Client, Fixed)>>);

impl Inner {
    /// The host's own UUID with what is asked of it. A session is another one for each user: on this computer its socket tells whose, on another one the login name, if it was
    /// said; without that it has none.
    pub(crate) async fn identity(&self) -> Option<String> {
        let endpoint = &self.link.endpoint;
        let client = self.link.client().await.ok().filter(|_| endpoint.uri.starts_with("qemu:"))?;
        let whose = match (endpoint.session, &endpoint.way, &endpoint.gate) {
            (false, ..) => String::new(),
            (true, Way::Sockets(places), _) => places.iter().find_map(|place| place.canonicalize().ok())?.display().to_string(),
            (true, Way::Ssh(_), gate) => gate.as_ref()?.user.clone()?,
        };
        let described = Element::parse(&client.capabilities().await.ok()?).ok()?;
        let host = described.text_at("host/uuid").filter(|uuid| !uuid.is_empty())?;
        Some(format!("{host} {} {whose}", endpoint.uri).trim_end().to_owned())
    }

    /// The host and what is on it: capabilities once for each connection, pools and networks each time.
    pub(crate) async fn host(&self) -> Result<Host> {
        let client = self.link.client().await?;
        let mut host = self.fixed(&client).await?.host;
        let (pools, networks) = tokio::try_join!(pools(&client), networks(&client))?;
        (host.pools, host.networks) = (pools, networks);
        Ok(host)
    }

    async fn fixed(&self, client: &Client) -> Result<Fixed> {
        let mut cache = self.host.0.lock().await;
        if let Some((of, fixed)) = &*cache
            && of.ended().is_none()
        {
            return Ok(fixed.clone());
        }
        let what = "ask what the host offers";
        let (libvirt, hypervisor, node) =
            tokio::try_join!(client.libvirt_version(), async { Ok(client.hypervisor_version().await.unwrap_or(0)) }, client.node_info())
                .doing(what)?;
        let arch = if node.model.is_empty() { "x86_64".to_owned() } else { node.model.clone() };
        let machine = if arch == "x86_64" { "q35" } else { "virt" };
        let mut kvm = domain_caps(client, &arch, machine, "kvm").await?;
        let (mut virtualization, mut kvm_refused) = (None, None);
        if kvm.is_some() && arch == "x86_64" {
            match rests_on(client).await {
                Ok(Some(feature)) => virtualization = Some(feature),
                Ok(None) => {
                    kvm = None;
                    kvm_refused = Some(
                        "libvirt offers it, but the host's processor has neither VMX nor SVM: it is a virtual machine without nesting"
                            .into(),
                    );
                }
                // What cannot be asked is believed.
                Err(error) => tracing::debug!(error = %error.chain(), "the host's processor is not known"),
            }
        }
        let host = Host {
            uri: self.link.endpoint.uri.clone(),
            session: self.link.endpoint.session,
            local: self.link.endpoint.is_local(),
            libvirt,
            hypervisor,
            cpus: u32::try_from(node.cpus).unwrap_or(0),
            memory: node.memory_kib.saturating_mul(1024),
            kvm,
            kvm_refused,
            virtualization,
            tcg: domain_caps(client, &arch, machine, "qemu").await?,
            arch,
            ..Host::default()
        };
        let fixed = Fixed { host };
        *cache = Some((client.clone(), fixed.clone()));
        Ok(fixed)
    }
}

/// Which feature of the host's processor KVM rests on, if it has any. Without one the kernel may still offer a KVM that emulates every instruction.
async fn rests_on(client: &Client) -> Result<Option<String>> {
    let what = "ask for the host's processor";
    let Some(processor) = caps::processor(&client.capabilities().await.doing(what)?)? else {
        return Err(vmoon_core::Error::new(vmoon_core::Code::DriverUnsupported, "libvirt does not describe the processor"));
    };
    caps::virtualization(&client.baseline_cpu(&[&processor]).await.doing(what)?)
}

/// What domains of a kind can have; `None` if the host has no such domains.
async fn domain_caps(client: &Client, arch: &str, machine: &str, kind: &str) -> Result<Option<DomainCaps>> {
    match client.domain_capabilities(None, Some(arch), Some(machine), Some(kind)).await {
        Ok(text) => DomainCaps::read(&text).map(Some),
        Err(error) if error.refusal().is_some() => {
            tracing::debug!(%error, kind, "the host has no such machines");
            Ok(None)
        }
        Err(error) => Err(error).doing("ask what the host offers"),
    }
}

/// Every storage pool.
pub(crate) async fn pools(client: &Client) -> Result<Vec<Pool>> {
    let what = "list the storage pools";
    let (active, all) = match tokio::try_join!(client.pools(Pools::ACTIVE), client.pools(Pools::NONE)) {
        Ok(found) => found,
        // A hypervisor without storage.
        Err(error) if error.is_unsupported() => return Ok(Vec::new()),
        Err(error) => return Err(error).doing(what),
    };
    let mut reading = JoinSet::new();
    for pool in all {
        let (client, active) = (client.clone(), active.iter().any(|known| known.uuid == pool.uuid));
        reading.spawn(async move { (client.pool_xml(&pool, Xml::NONE).await, active) });
    }
    let mut pools = Vec::new();
    while let Some(done) = reading.join_next().await {
        let Ok((text, active)) = done else { continue };
        match text {
            Ok(text) => pools.push(caps::pool(&text, active)?),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error).doing(what),
        }
    }
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pools)
}

async fn networks(client: &Client) -> Result<Vec<Network>> {
    let (active, all) = match tokio::try_join!(client.networks(Networks::ACTIVE), client.networks(Networks::NONE)) {
        Ok(found) => found,
        Err(error) if error.is_unsupported() => return Ok(Vec::new()),
        Err(error) => return Err(error).doing("list the networks"),
    };
    let mut networks: Vec<Network> = all
        .into_iter()
        .map(|network| Network { active: active.iter().any(|known| known.uuid == network.uuid), name: network.name })
        .collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(networks)
}
