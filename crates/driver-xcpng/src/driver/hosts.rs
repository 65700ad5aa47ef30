//! Hosts of the pool: where a VM could run and moving it there, and what there is to see of them. Devices are shown, and not given to VMs here.

use super::{XcpngDriver, checks::allowed, pool::Pool, uuid};
use crate::errors::told;
use async_trait::async_trait;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{collections::HashMap, time::Duration};
use vmoon_core::{
    Code, Error, Result,
    driver::Handle,
    hosts::{DeviceClass, HostDevice, HostInfo, Inventories, Inventory, Migrate, NamedThing, Place, StorageInfo},
    name::escape,
};
use vmoon_xapi::{
    records::{Host, Network, Pool as PoolRecord, PowerState, Sr, Strings, Vdi, Vm},
    value::{Ref, int},
};

/// How long moving a VM may take: its memory goes over the network.
const MOVE: Duration = Duration::from_secs(2 * 3600);

/// What of a host [`Host`] does not have.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Hardware {
    metrics: String,
    cpu_info: Strings,
}

/// How a host does.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HostMetrics {
    #[serde(deserialize_with = "int")]
    memory_total: i64,
    #[serde(deserialize_with = "int")]
    memory_free: i64,
    live: bool,
}

/// A PCI device of a host.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pci {
    class_name: String,
    vendor_name: String,
    device_name: String,
    host: Ref<Host>,
    pci_id: String,
}

/// A graphics processor of a host.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pgpu {
    #[serde(rename = "PCI")]
    pci: String,
    #[serde(rename = "GPU_group")]
    group: String,
    #[serde(rename = "resident_VGPUs")]
    resident: Vec<String>,
    #[serde(rename = "supported_VGPU_types")]
    supported_types: Vec<String>,
    is_system_display_device: bool,
}

/// A graphics processor of a VM.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Vgpu {
    #[serde(rename = "VM")]
    vm: Ref<Vm>,
    #[serde(rename = "GPU_group")]
    group: String,
}

/// A USB device of a host.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pusb {
    host: Ref<Host>,
    path: String,
    vendor_id: String,
    product_id: String,
    vendor_desc: String,
    product_desc: String,
    passthrough_enabled: bool,
    #[serde(rename = "USB_group")]
    group: String,
}

/// A USB device of a VM.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Vusb {
    #[serde(rename = "VM")]
    vm: Ref<Vm>,
    #[serde(rename = "USB_group")]
    group: String,
}

/// A group of graphics processors.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Group {
    name_label: String,
}

fn bytes(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|bytes| *bytes > 0)
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

impl Pool {
    /// Every record of a class; none where the pool's release does not know it.
    async fn perhaps<T: DeserializeOwned>(&self, class: &str) -> Result<HashMap<String, T>> {
        match self.all(class).await {
            Err(error) if error.code() == Code::DriverUnsupported => Ok(HashMap::new()),
            other => other,
        }
    }

    /// Every host, and what XAPI says of running the VM there.
    pub(super) async fn places_of(&self, reference: &str, vm: &Vm) -> Result<Vec<Place>> {
        let hosts: HashMap<String, Host> = self.all("host").await?;
        let client = self.client()?;
        let mut places = Vec::new();
        for (host, record) in hosts {
            let here = vm.power_state == PowerState::Running && vm.resident_on.as_str() == host;
            let refusal = match client.call("VM.assert_can_boot_here", vec![reference.into(), host.clone().into()]).await {
                _ if here => None,
                Ok(_) => None,
                Err(error @ vmoon_xapi::Error::Xapi(_)) => {
                    let text = told("", error).to_string();
                    Some(text.strip_prefix(": ").unwrap_or(&text).to_owned())
                }
                Err(error) => return Err(self.failed("ask where the VM could run", error)),
            };
            places.push(Place { name: record.name_label, id: record.uuid, here, refusal });
        }
        places.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(places)
    }

    /// Says why no host takes it, after XAPI has said that none does.
    pub(super) async fn nowhere(&self, reference: &str, vm: &Vm, error: Error) -> Error {
        let Ok(places) = self.places_of(reference, vm).await else { return error };
        let reasons: Vec<String> =
            places.iter().filter_map(|place| Some(format!("{}: {}", escape(&place.name), place.refusal.as_deref()?))).collect();
        if reasons.is_empty() {
            return error;
        }
        let record = error.to_record();
        let told = Error::new(error.code(), format!("{} ({})", record.message, reasons.join("; ")));
        let told = told.hint(record.hint.unwrap_or_default());
        if let Some(detail) = record.detail { told.detail(detail) } else { told }
    }

    async fn move_to(&self, uuid: &str, host: &str) -> Result<()> {
        let what = "move the VM";
        let (reference, vm) = self.known(uuid).await?;
        let hosts: HashMap<String, Host> = self.all("host").await?;
        let mut wanted = hosts.iter().filter(|(_, record)| record.uuid == host || record.name_label == host);
        let Some((target, _)) = wanted.next() else {
            return Err(Error::new(Code::HostNotFound, format!("the pool has no host \"{}\"", escape(host))));
        };
        if wanted.next().is_some() {
            return Err(Error::new(Code::NameAmbiguous, format!("the pool has several hosts named {}", escape(host))).hint("give a uuid"));
        }
        match vm.power_state {
            PowerState::Running if vm.resident_on.as_str() == target => return Ok(()),
            PowerState::Running => {}
            PowerState::Halted => return Err(Error::new(Code::MachineStopped, "a VM that is off is on no host")),
            _ => return Err(Error::new(Code::MachineState, "only a running VM is moved").hint("resume it first")),
        }
        allowed(&vm, "pool_migrate", what)?;
        let params = vec![reference.clone().into(), target.clone().into(), json!({ "live": "true" })];
        self.lives.goes_on(uuid);
        let moved = self.run_within(what, "VM.pool_migrate", params, MOVE, |_| {}).await;
        self.look_on(uuid).await;
        match moved {
            Err(error) => {
                // It may be there all the same: the answer was lost.
                let there = self.vm(uuid).await.ok().flatten().is_some_and(|(_, vm)| vm.resident_on.as_str() == target);
                if there && error.code() == Code::DriverUnreachable { Ok(()) } else { Err(error) }
            }
            Ok(_) => Ok(()),
        }
    }

    async fn inventory(&self) -> Result<Inventory> {
        let (hosts, hardware, metrics, pools) = tokio::try_join!(
            self.all::<Host>("host"),
            self.all::<Hardware>("host"),
            self.all::<HostMetrics>("host_metrics"),
            self.all::<PoolRecord>("pool"),
        )?;
        let (storage, networks, vms, disks) =
            tokio::try_join!(self.all::<Sr>("SR"), self.all::<Network>("network"), self.all::<Vm>("VM"), self.all::<Vdi>("VDI"))?;
        let devices = self.devices(&hosts, &vms).await?;
        let pool = pools.into_values().next().unwrap_or_default();
        let mut inventory = Inventory { devices, ..Inventory::default() };
        for (reference, host) in &hosts {
            let hardware = hardware.get(reference);
            let metrics = hardware.and_then(|hardware| metrics.get(&hardware.metrics));
            let mut notes = Vec::new();
            if pool.master.as_str() == reference {
                notes.push("coordinates the pool");
            }
            if metrics.is_some_and(|metrics| !metrics.live) {
                notes.push("does not answer the pool");
            }
            if pool.ha_enabled {
                notes.push("high availability is on");
            }
            let said = |key: &str| host.software_version.get(key).cloned().unwrap_or_default();
            inventory.hosts.push(HostInfo {
                name: host.name_label.clone(),
                id: host.uuid.clone(),
                address: host.address.clone(),
                software: format!("{} {}", said("product_brand"), said("product_version")).trim().to_owned(),
                cpus: hardware.and_then(|hardware| hardware.cpu_info.get("cpu_count")?.parse().ok()),
                memory_bytes: metrics.and_then(|metrics| bytes(metrics.memory_total)),
                memory_free_bytes: metrics.filter(|metrics| metrics.memory_total > 0).and_then(|metrics| bytes(metrics.memory_free)),
                enabled: host.enabled,
                note: notes.join(", "),
            });
        }
        for (reference, sr) in &storage {
            let size = bytes(sr.physical_size);
            inventory.storage.push(StorageInfo {
                name: sr.name_label.clone(),
                id: sr.uuid.clone(),
                kind: sr.kind.clone(),
                size_bytes: size,
                free_bytes: size.map(|size| size.saturating_sub(bytes(sr.physical_utilisation).unwrap_or(0))),
                shared: sr.shared,
                default: pool.default_sr.as_str() == reference,
            });
        }
        let thing = |name: &str, id: &str, note: &str| NamedThing { name: name.into(), id: id.into(), note: note.into() };
        inventory.networks = networks.values().map(|network| thing(&network.name_label, &network.uuid, &network.bridge)).collect();
        inventory.templates = vms
            .values()
            .filter(|vm| vm.is_a_template && !vm.is_a_snapshot)
            .map(|vm| thing(&vm.name_label, &vm.uuid, if vm.is_default_template { "of the product" } else { "" }))
            .collect();
        let images = |vdi: &&Vdi| storage.get(vdi.sr.as_str()).is_some_and(|sr| sr.content_type == "iso");
        let place = |vdi: &Vdi| storage.get(vdi.sr.as_str()).map(|sr| sr.name_label.clone()).unwrap_or_default();
        inventory.images = disks.values().filter(images).map(|vdi| thing(&vdi.name_label, &vdi.uuid, &place(vdi))).collect();
        // Maps have no order of their own, and the same pool is to look the same twice.
        inventory.hosts.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        inventory.storage.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        for list in [&mut inventory.networks, &mut inventory.templates, &mut inventory.images] {
            list.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        }
        Ok(inventory)
    }

    async fn devices(&self, hosts: &HashMap<String, Host>, vms: &HashMap<String, Vm>) -> Result<Vec<HostDevice>> {
        let (pcis, pgpus, vgpus, groups) = tokio::try_join!(
            self.perhaps::<Pci>("PCI"),
            self.perhaps::<Pgpu>("PGPU"),
            self.perhaps::<Vgpu>("VGPU"),
            self.perhaps::<Group>("GPU_group")
        )?;
        let (pusbs, vusbs) = tokio::try_join!(self.perhaps::<Pusb>("PUSB"), self.perhaps::<Vusb>("VUSB"))?;
        let host = |reference: &Ref<Host>| hosts.get(reference.as_str()).map(|host| host.name_label.clone()).unwrap_or_default();
        let name = |reference: &Ref<Vm>| vms.get(reference.as_str()).map(|vm| vm.name_label.clone());
        let mut found = Vec::new();
        for (reference, pci) in &pcis {
            let mut device = HostDevice {
                class: DeviceClass::Pci,
                host: host(&pci.host),
                address: pci.pci_id.clone(),
                name: one_line(&format!("{} {}", pci.vendor_name, pci.device_name)),
                note: one_line(&pci.class_name),
                // `pci` of a VM's other_config lists what it is given: `0/0000:04:01.0`.
                used_by: vms
                    .values()
                    .filter(|vm| vm.other_config.get("pci").is_some_and(|list| list.split(',').any(|one| one.ends_with(&pci.pci_id))))
                    .map(|vm| vm.name_label.clone())
                    .collect(),
            };
            if let Some(gpu) = pgpus.values().find(|gpu| gpu.pci == *reference) {
                device.class = DeviceClass::Gpu;
                let group = groups.get(&gpu.group).map(|group| group.name_label.clone()).unwrap_or_default();
                let shared = if gpu.supported_types.len() > 1 { ", can be shared" } else { "" };
                let screen = if gpu.is_system_display_device { ", shows the host's screen" } else { "" };
                device.note = format!("group {group}{shared}{screen}");
                let users = vgpus.iter().filter(|(vgpu, record)| {
                    gpu.resident.contains(vgpu) || (gpu.resident.is_empty() && pgpus.len() == 1 && record.group == gpu.group)
                });
                device.used_by.extend(users.filter_map(|(_, vgpu)| name(&vgpu.vm)));
            }
            device.used_by.sort();
            device.used_by.dedup();
            found.push(device);
        }
        for usb in pusbs.values() {
            let mut used_by: Vec<String> =
                vusbs.values().filter(|vusb| vusb.group == usb.group).filter_map(|vusb| name(&vusb.vm)).collect();
            used_by.sort();
            found.push(HostDevice {
                class: DeviceClass::Usb,
                host: host(&usb.host),
                address: usb.path.clone(),
                name: one_line(&format!("{} {} ({}:{})", usb.vendor_desc, usb.product_desc, usb.vendor_id, usb.product_id)),
                note: if usb.passthrough_enabled { "may be given to VMs".into() } else { String::new() },
                used_by,
            });
        }
        let order = |device: &HostDevice| (device.host.clone(), device.class as u8, device.address.clone(), device.name.clone());
        found.sort_by_key(order);
        Ok(found)
    }
}

#[async_trait]
impl Migrate for XcpngDriver {
    async fn places(&self, handle: &Handle) -> Result<Vec<Place>> {
        let (reference, vm) = self.0.known(&uuid(handle)?).await?;
        self.0.places_of(&reference, &vm).await
    }

    async fn migrate(&self, handle: &Handle, host: &str) -> Result<()> {
        self.0.move_to(&uuid(handle)?, host).await
    }
}

#[async_trait]
impl Inventories for XcpngDriver {
    async fn inventory(&self) -> Result<Inventory> {
        self.0.inventory().await
    }
}

/// The parameters of a call that has but a reference.
pub(super) fn only(reference: &str) -> Vec<Value> {
    vec![reference.into()]
}
