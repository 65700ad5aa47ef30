//! The pool behind a connection: the client, made when it is needed and anew when what lets us in has changed, and what is read.

use super::{XcpngConfig, display::Screens, handle, lives::Lives, sighting, usage::Meters};
use crate::{
    errors::told,
    settings::{Facts, Named, Template},
    tags,
};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Semaphore;
use vmoon_core::{
    Code, Error, MachineId, Result,
    ability::Address,
    driver::{Found, Observed, Sighting},
    name::escape,
};
use vmoon_guest::console::Consoles;
use vmoon_xapi::{
    Client, Config,
    records::{Console, Host, Network, Pool as PoolRecord, PowerState, Sr, Vm, VmGuestMetrics, VmMetrics},
    trust::Fingerprint,
};

/// How many VMs are created at the same time.
const CREATING: usize = 8;

/// The pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(super) config: XcpngConfig,
    host: String,
    client: Mutex<Option<Made>>,
    pub(super) consoles: Consoles,
    pub(super) screens: Screens,
    pub(super) meters: Meters,
    pub(super) lives: Lives,
    /// Places for creations: a pool that is asked for fifty at once does them a few at a time all the same, and its other users wait.
    pub(super) creating: Semaphore,
    /// How often it was asked which VMs are ours.
    asked: AtomicU64,
    own: tokio::sync::Mutex<Reading>,
}

/// A VM of ours.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) uuid: String,
    /// Whether everything about it was made.
    pub(super) complete: bool,
}

/// Which VMs were ours when they were last read for that.
#[derive(Debug, Default)]
struct Reading {
    /// Whoever asked up to here is served by it.
    covers: u64,
    machines: HashMap<MachineId, Own>,
}

/// A client, and what it was made with.
#[derive(Debug)]
struct Made {
    client: Client,
    fingerprint: Option<String>,
}

/// The host that a URI names.
fn host_of(uri: &str) -> Result<String> {
    let bare = uri.strip_prefix("https://").unwrap_or(uri);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let odd = bare.is_empty() || bare.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '?' | '#'));
    if odd {
        return Err(Error::new(Code::Usage, format!("\"{}\" is no address of a host", escape(uri)))
            .hint("https://HOST or HOST; the user goes into --user, the password is asked for or read with --password-stdin"));
    }
    Ok(bare.to_owned())
}

impl Pool {
    pub(super) fn new(config: XcpngConfig) -> Result<Self> {
        let host = host_of(&config.uri)?;
        Client::new(Config::new(&host, &config.user, vmoon_xapi::Password::new("")))
            .map_err(|error| Error::new(Code::Usage, error.to_string()).hint("https://HOST or HOST"))?;
        Ok(Self {
            config,
            host,
            client: Mutex::default(),
            consoles: Consoles::default(),
            screens: Screens::default(),
            meters: Meters::default(),
            lives: Lives::default(),
            creating: Semaphore::new(CREATING),
            asked: AtomicU64::new(0),
            own: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The client.
    ///
    /// # Errors
    /// [`Code::ConnectionLocked`] without a password.
    pub(super) fn client(&self) -> Result<Client> {
        let fingerprint = self.config.keys.fingerprint();
        let mut made = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made
            && made.fingerprint == fingerprint
        {
            return Ok(made.client.clone());
        }
        let password = self.config.keys.password().ok_or_else(|| {
            Error::new(Code::ConnectionLocked, "the connection has no password")
                .hint("give it: --password-stdin where the connection is added, later vmoon connection login NAME --password-stdin")
        })?;
        let mut config = Config::new(&self.host, &self.config.user, password);
        if let Some(text) = &fingerprint {
            let pin: Fingerprint = text.parse().map_err(|error| told("read the accepted fingerprint", error))?;
            let name = self.host.strip_prefix('[').and_then(|rest| rest.split(']').next());
            let name = name.unwrap_or_else(|| self.host.split(':').next().unwrap_or(&self.host));
            config.pin(name, pin);
        }
        let client = Client::new(config).map_err(|error| told("connect", error))?;
        *made = Some(Made { client: client.clone(), fingerprint });
        Ok(client)
    }

    /// What is wrong with certificates that are taken all the same, because somebody has accepted them.
    pub(super) fn concerns(&self) -> Vec<String> {
        let made = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let concerns = made.as_ref().map(|made| made.client.concerns()).unwrap_or_default();
        let say = |(host, why): (String, String)| {
            format!("the certificate of {} is taken because its fingerprint was accepted, but {why}", escape(&host))
        };
        concerns.into_iter().map(say).collect()
    }

    /// Tells of a failure; one of being let in has the keys asked again with the next call.
    pub(super) fn failed(&self, what: &str, error: vmoon_xapi::Error) -> Error {
        let error = told(what, error);
        if matches!(error.code(), Code::ConnectionAuth | Code::ConnectionUntrusted) {
            self.client.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        error
    }

    pub(super) async fn close(&self) {
        let made = self.client.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(made) = made {
            made.client.close().await;
        }
    }

    /// A call that must go well.
    pub(super) async fn call(&self, what: &str, method: &str, params: Vec<Value>) -> Result<Value> {
        self.client()?.call(method, params).await.map_err(|error| self.failed(what, error))
    }

    pub(super) async fn get<T: serde::de::DeserializeOwned>(&self, what: &str, method: &str, params: Vec<Value>) -> Result<T> {
        self.client()?.get(method, params).await.map_err(|error| self.failed(what, error))
    }

    pub(super) async fn all<T: serde::de::DeserializeOwned>(&self, class: &str) -> Result<HashMap<String, T>> {
        self.get(&format!("read every {class}"), &format!("{class}.get_all_records"), Vec::new()).await
    }

    /// Every VM, template and snapshot, with its reference.
    pub(super) async fn vms(&self) -> Result<Vec<(String, Vm)>> {
        Ok(self.all::<Vm>("VM").await?.into_iter().collect())
    }

    /// One VM and its reference; none if the pool does not know it.
    pub(super) async fn vm(&self, uuid: &str) -> Result<Option<(String, Vm)>> {
        let client = self.client()?;
        let missing = |error: &vmoon_xapi::Error| error.is("UUID_INVALID") || error.is("HANDLE_INVALID");
        let reference: String = match client.get("VM.get_by_uuid", vec![uuid.into()]).await {
            Ok(reference) => reference,
            Err(error) if missing(&error) => return Ok(None),
            Err(error) => return Err(self.failed("look at the VM", error)),
        };
        match client.get::<Vm>("VM.get_record", vec![reference.clone().into()]).await {
            Ok(vm) => Ok(Some((reference, vm))),
            Err(error) if missing(&error) => Ok(None),
            Err(error) => Err(self.failed("look at the VM", error)),
        }
    }

    /// The same, which must be there.
    pub(super) async fn known(&self, uuid: &str) -> Result<(String, Vm)> {
        self.vm(uuid).await?.ok_or_else(|| Error::new(Code::MachineBroken, "the pool has no such VM"))
    }

    /// Our machine of that id. Every VM has to be read for that, so those who ask while a reading is under way share the next one.
    pub(super) async fn find(&self, id: MachineId) -> Result<Option<Own>> {
        let ticket = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut last = self.own.lock().await;
        if last.covers < ticket {
            // It begins now: whoever has asked by now is served by it.
            let covers = self.asked.load(Ordering::Relaxed);
            let mut machines = HashMap::new();
            for vm in self.vms().await?.into_iter().map(|(_, vm)| vm).filter(|vm| !vm.is_a_snapshot) {
                if let Some(owner) = tags::owner(&vm) {
                    let complete = tags::complete(&vm);
                    machines.entry(owner).or_insert(Own { uuid: vm.uuid, complete });
                }
            }
            *last = Reading { covers, machines };
        }
        Ok(last.machines.get(&id).cloned())
    }

    /// What is seen of a VM; none if the pool does not know it.
    pub(super) async fn look(&self, uuid: &str) -> Result<Option<Sighting>> {
        let Some((_, vm)) = self.vm(uuid).await? else { return Ok(None) };
        self.note(&vm);
        if vm.power_state != PowerState::Running {
            return Ok(Some(sighting(&vm, || Observed::Unreachable)));
        }
        let (run, console) = (self.run_of(&vm).await?, self.text_console(&vm).await?.is_some());
        Ok(Some(sighting(&vm, || self.channels(&vm, run, console))))
    }

    /// What a state says about lives.
    fn note(&self, vm: &Vm) {
        match vm.power_state {
            PowerState::Halted => {
                self.lives.over(&vm.uuid);
                self.end_console(&vm.uuid);
            }
            PowerState::Suspended => self.lives.goes_on(&vm.uuid),
            _ => {}
        }
    }

    /// What is seen of every machine, in three questions.
    pub(super) async fn look_at_all(&self) -> Result<Vec<Found>> {
        let (vms, metrics, consoles) = tokio::try_join!(self.vms(), self.all::<VmMetrics>("VM_metrics"), self.all::<Console>("console"))?;
        let texts: HashSet<&str> =
            consoles.values().filter(|console| console.protocol == "vt100").map(|console| console.vm.as_str()).collect();
        let found = |(reference, vm): &(String, Vm)| {
            let started = metrics.get(vm.metrics.as_str()).and_then(|metrics| metrics.start_time).filter(|time| !time.is_never());
            let run = started.and_then(|time| u64::try_from(time.unix).ok()).unwrap_or_else(|| u64::try_from(vm.domid).unwrap_or(0));
            self.note(vm);
            let sighting = sighting(vm, || self.channels(vm, run, texts.contains(reference.as_str())));
            Found { handle: handle(&vm.uuid), id: tags::owner(vm), name: vm.name_label.clone(), sighting }
        };
        Ok(vms.iter().filter(|(_, vm)| tags::is_machine(vm)).map(found).collect())
    }

    /// The pool's name, or that of its coordinator.
    pub(super) async fn name(&self) -> Result<String> {
        let pools: HashMap<String, PoolRecord> = self.all("pool").await?;
        let Some(pool) = pools.into_values().next() else { return Err(Error::new(Code::WireMalformed, "there is no pool")) };
        if !pool.name_label.is_empty() {
            return Ok(pool.name_label);
        }
        let host: Host = self.get("read the coordinator", "host.get_record", vec![pool.master.into()]).await?;
        Ok(host.name_label)
    }

    /// What it offers.
    pub(super) async fn facts(&self) -> Result<Facts> {
        let (vms, storage, networks, pools) =
            tokio::try_join!(self.vms(), self.all::<Sr>("SR"), self.all::<Network>("network"), self.all::<PoolRecord>("pool"),)?;
        let named = |uuid: String, name: String| Named { uuid, name };
        let template = |vm: Vm| Template {
            default: vm.is_default_template || vm.other_config.get("default_template").is_some_and(|text| text == "true"),
            memory_min: vm.memory_dynamic_min.min(vm.memory_dynamic_max),
            named: named(vm.uuid, vm.name_label),
        };
        let default = pools.into_values().next().map(|pool| pool.default_sr).unwrap_or_default();
        let default_storage = storage.get(default.as_str()).map(|sr| sr.uuid.clone());
        let mut facts = Facts {
            templates: vms.into_iter().map(|(_, vm)| vm).filter(|vm| vm.is_a_template && !vm.is_a_snapshot).map(template).collect(),
            storage: storage.into_values().filter(|sr| sr.content_type != "iso").map(|sr| named(sr.uuid, sr.name_label)).collect(),
            default_storage,
            networks: networks.into_values().map(|network| named(network.uuid, network.name_label)).collect(),
        };
        // A map has no order of its own, and a plan must be the same twice.
        facts.templates.sort_by(|a, b| (&a.named.name, &a.named.uuid).cmp(&(&b.named.name, &b.named.uuid)));
        for list in [&mut facts.storage, &mut facts.networks] {
            list.sort_by(|a, b| (&a.name, &a.uuid).cmp(&(&b.name, &b.uuid)));
        }
        Ok(facts)
    }

    /// What people want to know of a VM.
    pub(super) async fn describe(&self, uuid: &str) -> Result<Map<String, Value>> {
        let (_, vm) = self.known(uuid).await?;
        let mut facts = Map::new();
        facts.insert("uuid".into(), vm.uuid.into());
        facts.insert("memory_bytes".into(), vm.memory_dynamic_max.into());
        facts.insert("cpus".into(), vm.vcpus_at_startup.into());
        if !vm.name_description.is_empty() {
            facts.insert("description".into(), escape(&vm.name_description).into());
        }
        facts.insert("allowed".into(), json!(vm.allowed_operations));
        if !vm.blocked_operations.is_empty() {
            facts.insert("blocked".into(), json!(vm.blocked_operations));
        }
        if let Some(host) = vm.resident_on.known()
            && let Ok(host) = self.get::<Host>("read the host", "host.get_record", vec![host.into()]).await
        {
            facts.insert("host".into(), escape(&host.name_label).into());
        }
        if let Some(guests) = self.guests() {
            facts.extend(guests.describe(uuid));
        }
        Ok(facts)
    }
}

/// The addresses that a guest's tools have told: by interface, those that can be routed first, version 4 before 6.
pub(super) fn addresses(metrics: &VmGuestMetrics, macs: &BTreeMap<String, String>) -> Vec<Address> {
    let mut all: Vec<Address> = Vec::new();
    for (key, ip) in &metrics.networks {
        let Some((device, _)) = key.split_once('/') else { continue };
        if ip.is_empty() || all.iter().any(|address| address.ip == *ip) {
            continue;
        }
        let mac = macs.get(device).cloned().unwrap_or_default();
        all.push(Address { ip: ip.clone(), interface: device.to_owned(), mac, source: "metrics".into() });
    }
    let rank = |address: &Address| {
        let six = address.ip.contains(':');
        let local =
            address.ip.to_ascii_lowercase().starts_with("fe80:") || address.ip.starts_with("169.254.") || address.ip.starts_with("127.");
        let device: u32 = address.interface.parse().unwrap_or(u32::MAX);
        (local, six, device, address.ip.clone())
    };
    all.sort_by_key(rank);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_uris() {
        for (uri, host) in [("https://xcp1.lab", "xcp1.lab"), ("xcp1:8443", "xcp1:8443"), ("https://[::1]:8443/", "[::1]:8443")] {
            assert_eq!(host_of(uri).unwrap(), host);
        }
        for bad in ["", "http://x", "https://root:secret@x", "https://x/path", "a b", "x\n"] {
            assert_eq!(host_of(bad).unwrap_err().code(), Code::Usage, "{bad}");
        }
    }

    #[test]
    fn addresses_that_can_be_used_come_first() {
        let networks = [
            ("1/ip", "10.0.0.9"),
            ("0/ipv6/0", "fe80::1"),
            ("0/ip", "192.168.1.5"),
            ("0/ipv4/0", "192.168.1.5"),
            ("0/ipv6/1", "2001:db8::5"),
            ("odd", "x"),
            ("0/ipv4/1", ""),
        ];
        let metrics = VmGuestMetrics { networks: networks.map(|(k, v)| (k.to_owned(), v.to_owned())).into(), ..VmGuestMetrics::default() };
        let macs = BTreeMap::from([("0".to_owned(), "aa:aa:aa:aa:aa:aa".to_owned())]);
        let found = addresses(&metrics, &macs);
        let ips: Vec<&str> = found.iter().map(|address| address.ip.as_str()).collect();
        assert_eq!(ips, ["192.168.1.5", "10.0.0.9", "2001:db8::5", "fe80::1"]);
        assert_eq!((found[0].mac.as_str(), found[1].mac.as_str()), ("aa:aa:aa:aa:aa:aa", ""));
    }
}
