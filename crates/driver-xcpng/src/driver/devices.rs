//! Disks, drives and network interfaces of VMs that exist: added and removed, at once where the VM runs.
//!
//! What is added bears a mark with the number of the change until the change is done, so that a change that was cut off is found and put back. A device that is
//! taken away is journalled as it was; what it holds is deleted last.

use super::{XcpngDriver, checks::allowed, hosts::only, pool::Pool, uuid};
use crate::{
    errors::theirs,
    settings::{self, Facts},
    tags,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use vmoon_core::{
    Code, Error, Result,
    ability::{Change, Effect},
    device::{Device, DeviceChange, DeviceKind, Devices, NewDevice, Presence, changed, not_found, unknown_kind},
    driver::{Handle, Journal, Setting},
    name::escape,
    operation::Undo,
    size,
    spec::Problems,
};
use vmoon_sys::random;
use vmoon_xapi::records::{Network, PowerState, Sr, Strings, Vbd, VbdType, Vdi, Vif, Vm};

/// What reverses a change that was cut off.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "undo_of", rename_all = "snake_case")]
pub(super) enum DeviceUndo {
    /// Remove what bears this mark, of a VM that had these devices.
    Added { vm: String, mark: String, before: Vec<String> },
    /// Attach this disk again, unless it is gone.
    Disk { vm: String, vdi: String, userdevice: String, mode: String, bootable: bool },
    /// Connect this interface again.
    Nic { vm: String, network: String, device: String, mac: String },
}

/// A device with the references it is made of.
struct Found {
    device: Device,
    /// Of the VBD or VIF.
    reference: String,
    /// The disk.
    vdi: Option<String>,
    /// Whether another VM has that disk, too.
    shared: bool,
    attached: bool,
}

/// A checked addition.
enum Addition {
    Disk { size: i64, sr: String, sr_name: String },
    Nic { network: String, network_name: String, mac: String },
}

/// The name a Linux guest gives a disk.
fn disk_name(number: &str) -> String {
    match number.parse::<u8>() {
        Ok(n) if n < 26 => format!("xvd{}", char::from(b'a' + n)),
        _ => format!("xvd{number}"),
    }
}

/// A VBD or VIF with its mark.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Marked {
    #[serde(rename = "VDI")]
    vdi: String,
    other_config: Strings,
    currently_attached: bool,
}

fn is_marked(config: &Strings, mark: &str) -> bool {
    config.get(tags::ADDING).is_some_and(|found| found == mark)
}

fn kinds() -> Vec<DeviceKind> {
    let setting = |name: &str, help: &str| Setting { name: name.into(), help: help.into() };
    vec![
        DeviceKind {
            name: "disk".into(),
            help: "a new disk of the VM".into(),
            settings: vec![
                setting("size", "how large, for example 20GiB; needed"),
                setting("sr", "the storage repository: its name or uuid; the pool's default if not given"),
            ],
        },
        DeviceKind {
            name: "nic".into(),
            help: "a network interface".into(),
            settings: vec![
                setting("network", "the network: its name or uuid; needed"),
                setting("mac", "its hardware address; the pool chooses one if not given"),
            ],
        },
    ]
}

/// Checks what is said of a new device.
fn addition(new: &NewDevice, facts: &Facts) -> Result<Addition> {
    let offered = kinds();
    let Some(kind) = offered.iter().find(|kind| kind.name == new.kind) else { return Err(unknown_kind(&new.kind, &offered)) };
    let mut problems = Problems::default();
    for name in new.settings.keys().filter(|name| !kind.settings.iter().any(|known| known.name == **name)) {
        let known: Vec<&str> = kind.settings.iter().map(|setting| setting.name.as_str()).collect();
        problems.add(format!("settings.{}", escape(name)), format!("a {} has no such setting; it has: {}", kind.name, known.join(", ")));
    }
    let text = |name: &str| new.settings.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if new.kind == "disk" {
        let size = new.settings.get("size").and_then(settings::bytes);
        if size.is_none() {
            problems.add("settings.size", "how large is the disk to be? for example 20GiB");
        }
        let sr = match (text("sr"), &facts.default_storage) {
            (Some(wanted), _) => settings::storage(facts, wanted).map_err(|why| problems.add("settings.sr", why)).ok(),
            (None, Some(default)) => settings::storage(facts, default).ok(),
            (None, None) => {
                problems.add("settings.sr", "the pool has no default storage repository; name one");
                None
            }
        };
        problems.or(())?;
        let (Some(size), Some(sr)) = (size, sr) else { return Err(Error::internal("a disk without a size passed")) };
        return Ok(Addition::Disk { size, sr: sr.uuid.clone(), sr_name: sr.name.clone() });
    }
    let network = match text("network") {
        Some(wanted) => settings::network(facts, wanted).map_err(|why| problems.add("settings.network", why)).ok(),
        None => {
            problems.add("settings.network", "which network? give its name or uuid");
            None
        }
    };
    let mac = text("mac").unwrap_or_default().to_lowercase();
    if !mac.is_empty() && !settings::is_mac(&mac) {
        problems.add("settings.mac", format!("\"{}\" is no hardware address", escape(&mac)));
    }
    problems.or(())?;
    let Some(network) = network else { return Err(Error::internal("an interface without a network passed")) };
    Ok(Addition::Nic { network: network.uuid.clone(), network_name: network.name.clone(), mac })
}

impl Pool {
    async fn devices_of(&self, vm: &Vm) -> Result<Vec<Found>> {
        let client = self.client()?;
        let mut found = Vec::new();
        for vbd in &vm.vbds {
            let record: Vbd = match client.get("VBD.get_record", vec![vbd.into()]).await {
                Ok(record) => record,
                Err(error) if error.is("HANDLE_INVALID") => continue,
                Err(error) => return Err(self.failed("look at the VM's disks", error)),
            };
            let vdi: Option<Vdi> = match record.vdi.known() {
                Some(vdi) => Some(self.get("look at the VM's disks", "VDI.get_record", vec![vdi.into()]).await?),
                None => None,
            };
            let sr: Option<Sr> = match vdi.as_ref().and_then(|vdi| vdi.sr.known()) {
                Some(sr) => Some(self.get("look at the VM's disks", "SR.get_record", vec![sr.into()]).await?),
                None => None,
            };
            let mut facts = Map::new();
            facts.insert("number".into(), record.userdevice.clone().into());
            let mut what = "an empty drive".to_owned();
            let mut made = false;
            if let Some(vdi) = &vdi {
                let bytes = u64::try_from(vdi.virtual_size).unwrap_or(0);
                facts.insert("size_bytes".into(), bytes.into());
                facts.insert("vdi".into(), vdi.uuid.clone().into());
                facts.insert("name".into(), escape(&vdi.name_label).into());
                facts.insert("read_only".into(), (vdi.read_only || record.mode == "RO").into());
                let on = sr.as_ref().map(|sr| escape(&sr.name_label)).unwrap_or_default();
                facts.insert("sr".into(), on.clone().into());
                what = format!("{} {} on {on}", escape(&vdi.name_label), size::show(bytes));
                made = match tags::owner(vm) {
                    Some(id) => tags::is_our_disk(&vdi.other_config, id),
                    None => tags::is_disk_of(&vdi.other_config, &vm.uuid),
                };
            }
            let kind = if record.kind == VbdType::Cd { "cdrom" } else { "disk" };
            found.push(Found {
                device: Device { name: disk_name(&record.userdevice), kind: kind.into(), what, facts, presence: Presence::Kept, made },
                reference: vbd.as_str().to_owned(),
                shared: vdi.as_ref().is_some_and(|vdi| vdi.vbds.len() > 1),
                vdi: record.vdi.known().map(|vdi| vdi.as_str().to_owned()),
                attached: record.currently_attached,
            });
        }
        for vif in &vm.vifs {
            let record: Vif = match client.get("VIF.get_record", vec![vif.into()]).await {
                Ok(record) => record,
                Err(error) if error.is("HANDLE_INVALID") => continue,
                Err(error) => return Err(self.failed("look at the VM's interfaces", error)),
            };
            let network: Network = self.get("look at the VM's interfaces", "network.get_record", vec![record.network.into()]).await?;
            let mut facts = Map::new();
            facts.insert("number".into(), record.device.clone().into());
            facts.insert("mac".into(), record.mac.clone().into());
            facts.insert("network".into(), escape(&network.name_label).into());
            let what = format!("interface {} on {}", escape(&record.device), escape(&network.name_label));
            found.push(Found {
                device: Device { name: record.mac, kind: "nic".into(), what, facts, presence: Presence::Kept, made: false },
                reference: vif.as_str().to_owned(),
                vdi: None,
                shared: false,
                attached: record.currently_attached,
            });
        }
        found.sort_by(|a, b| (&a.device.kind, &a.device.name).cmp(&(&b.device.kind, &b.device.name)));
        Ok(found)
    }

    async fn plan_device(&self, uuid: &str, change: &DeviceChange) -> Result<Vec<Change>> {
        let (_, vm) = self.known(uuid).await?;
        match change {
            DeviceChange::Add(new) => Ok(vec![match addition(new, &self.facts().await?)? {
                Addition::Disk { size, sr_name, .. } => {
                    let bytes = u64::try_from(size).unwrap_or(0);
                    changed("disk", format!("a disk of {} is made on {} and attached", size::show(bytes), escape(&sr_name)), Effect::Now)
                }
                Addition::Nic { network_name, mac, .. } => {
                    let mac = if mac.is_empty() { "a hardware address that the pool chooses" } else { &mac };
                    changed("nic", format!("an interface on {} is added, with {mac}", escape(&network_name)), Effect::Now)
                }
            }]),
            DeviceChange::Remove { name, keep } => {
                let found = self.device(&vm, name).await?;
                let mut changes =
                    vec![changed(&found.device.kind, format!("{} {} is removed", found.device.kind, escape(name)), Effect::Now)];
                if found.vdi.is_some() && found.device.kind == "disk" {
                    let goes = found.device.made && !keep && !found.shared;
                    let what = if goes { "is deleted" } else { "stays" };
                    changes.push(changed("disk", format!("{} {what}", found.device.what), Effect::Now));
                }
                Ok(changes)
            }
        }
    }

    async fn device(&self, vm: &Vm, name: &str) -> Result<Found> {
        self.devices_of(vm).await?.into_iter().find(|found| found.device.name == name).ok_or_else(|| not_found(name))
    }

    async fn change_device(&self, uuid: &str, change: &DeviceChange, journal: &dyn Journal) -> Result<()> {
        let (reference, vm) = self.known(uuid).await?;
        match change {
            DeviceChange::Add(new) => {
                let addition = addition(new, &self.facts().await?)?;
                let mark = random::uuid().to_string();
                let before = self.devices_of(&vm).await?.into_iter().map(|found| found.device.name).collect();
                journal.undo(undo(&DeviceUndo::Added { vm: uuid.to_owned(), mark: mark.clone(), before })).await?;
                match self.add_device(&reference, &vm, addition, &mark).await {
                    Ok(()) => Ok(()),
                    Err(error) => {
                        self.drop_marked(&mark).await?;
                        Err(error)
                    }
                }
            }
            DeviceChange::Remove { name, keep } => {
                let found = self.device(&vm, name).await?;
                let undone = self.as_it_was(uuid, &found).await?;
                journal.undo(undo(&undone)).await?;
                if let Err(error) = self.take_device(&found).await {
                    self.put_back(&undone).await?;
                    return Err(error);
                }
                match &found.vdi {
                    Some(vdi) if found.device.made && !keep && !found.shared && found.device.kind == "disk" => self.remove_disk(vdi).await,
                    _ => Ok(()),
                }
            }
        }
    }

    async fn add_device(&self, vm: &str, record: &Vm, addition: Addition, mark: &str) -> Result<()> {
        let runs = record.power_state == PowerState::Running;
        let marked = json!({ tags::ADDING: mark });
        match addition {
            Addition::Disk { size, sr, .. } => {
                let sr: String = self.get("find the storage repository", "SR.get_by_uuid", vec![sr.into()]).await?;
                let name = format!("{} disk", record.name_label);
                let vdi = json!({
                    "name_label": name, "SR": sr, "virtual_size": size, "type": "user", "sharable": false, "read_only": false, "other_config": marked,
                });
                let vdi: String = self.get("make a disk", "VDI.create", vec![vdi]).await?;
                let vbd = json!({
                    "VM": vm, "VDI": vdi, "userdevice": "autodetect", "bootable": false, "mode": "RW", "type": "Disk", "empty": false, "unpluggable": true,
                    "other_config": marked, "qos_algorithm_type": "", "qos_algorithm_params": {},
                });
                let vbd: String = self.get("attach a disk", "VBD.create", vec![vbd]).await?;
                if runs {
                    self.run("attach a disk to the running VM", "VBD.plug", only(&vbd)).await?;
                }
                match tags::owner(record) {
                    Some(id) => self.put("VDI", &vdi, "other_config", tags::ID, &id.to_string()).await?,
                    None => self.put("VDI", &vdi, "other_config", tags::VM, &record.uuid).await?,
                }
                self.unmark("VBD", &vbd).await?;
                self.unmark("VDI", &vdi).await
            }
            Addition::Nic { network, mac, .. } => {
                let network: String = self.get("find the network", "network.get_by_uuid", vec![network.into()]).await?;
                let free: Vec<String> = self.get("find a number for it", "VM.get_allowed_VIF_devices", only(vm)).await?;
                let device = free.into_iter().next().ok_or_else(|| {
                    Error::new(Code::DriverFailed, "the VM has as many interfaces as it can have").hint("remove one first")
                })?;
                let vif = json!({
                    "device": device, "network": network, "VM": vm, "MAC": mac, "MTU": 1500, "other_config": marked, "qos_algorithm_type": "",
                    "qos_algorithm_params": {},
                });
                let vif: String = self.get("connect the VM", "VIF.create", vec![vif]).await?;
                if runs {
                    self.run("connect the running VM", "VIF.plug", only(&vif)).await?;
                }
                self.unmark("VIF", &vif).await
            }
        }
    }

    async fn unmark(&self, class: &str, reference: &str) -> Result<()> {
        let method = format!("{class}.remove_from_other_config");
        self.call("finish the change", &method, vec![reference.into(), tags::ADDING.into()]).await.map(drop)
    }

    /// Removes everything that bears the mark of a change that did not come to its end. Whether there was anything.
    async fn drop_marked(&self, mark: &str) -> Result<bool> {
        let mut any = false;
        let disks: HashMap<String, Vdi> = self.all("VDI").await?;
        let disks: Vec<String> = disks.into_iter().filter(|(_, vdi)| is_marked(&vdi.other_config, mark)).map(|(disk, _)| disk).collect();
        for class in ["VBD", "VIF"] {
            let all: HashMap<String, Marked> = self.all(class).await?;
            for (reference, record) in all {
                if is_marked(&record.other_config, mark) || disks.contains(&record.vdi) {
                    any = true;
                    if record.currently_attached {
                        self.run("put back", &format!("{class}.unplug"), only(&reference)).await?;
                    }
                    self.gone(class, &reference).await?;
                }
            }
        }
        for disk in &disks {
            any = true;
            self.remove_disk(disk).await?;
        }
        Ok(any)
    }

    /// Destroys it; missing is fine.
    async fn gone(&self, class: &str, reference: &str) -> Result<()> {
        match self.call("remove a device", &format!("{class}.destroy"), only(reference)).await {
            Err(error) if theirs(&error) == Some("HANDLE_INVALID") => Ok(()),
            other => other.map(drop),
        }
    }

    async fn take_device(&self, found: &Found) -> Result<()> {
        let class = if found.device.kind == "nic" { "VIF" } else { "VBD" };
        if found.attached {
            let what = format!("take {} from the running VM", found.device.name);
            match self.run(&what, &format!("{class}.unplug"), only(&found.reference)).await {
                Err(error) if theirs(&error) == Some("DEVICE_ALREADY_DETACHED") => {}
                other => drop(other?),
            }
        }
        self.gone(class, &found.reference).await
    }

    async fn as_it_was(&self, vm: &str, found: &Found) -> Result<DeviceUndo> {
        if found.device.kind == "nic" {
            let vif: Vif = self.get("look at the interface", "VIF.get_record", only(&found.reference)).await?;
            let network: String = self.get("look at the interface", "network.get_uuid", vec![vif.network.into()]).await?;
            return Ok(DeviceUndo::Nic { vm: vm.into(), network, device: vif.device, mac: vif.mac });
        }
        let vbd: Vbd = self.get("look at the disk", "VBD.get_record", only(&found.reference)).await?;
        let bootable: bool = self.get("look at the disk", "VBD.get_bootable", only(&found.reference)).await?;
        let vdi: String = match vbd.vdi.known() {
            Some(vdi) => self.get("look at the disk", "VDI.get_uuid", vec![vdi.into()]).await?,
            None => String::new(),
        };
        Ok(DeviceUndo::Disk { vm: vm.into(), vdi, userdevice: vbd.userdevice, mode: vbd.mode, bootable })
    }

    /// Reverses a change that was cut off. Whether everything is as it was before; if not, the change is done.
    pub(super) async fn put_back(&self, undo: &DeviceUndo) -> Result<bool> {
        let (class, vm, record, there) = match undo {
            DeviceUndo::Added { vm, mark, before } => {
                if self.drop_marked(mark).await? {
                    return Ok(true);
                }
                // Nothing bears the mark: nothing was made yet, or the last step was taken.
                let Some((_, known)) = self.vm(vm).await? else { return Ok(true) };
                return Ok(self.devices_of(&known).await?.iter().all(|found| before.contains(&found.device.name)));
            }
            DeviceUndo::Disk { vm, vdi, userdevice, mode, bootable } => {
                let Some((reference, known)) = self.vm(vm).await? else { return Ok(false) };
                let there = self.devices_of(&known).await?.iter().any(|found| found.device.name == disk_name(userdevice));
                let disk: Option<String> = match vdi.as_str() {
                    "" => None,
                    uuid => match self.get("find the disk", "VDI.get_by_uuid", vec![uuid.into()]).await {
                        Ok(found) => Some(found),
                        Err(error) if theirs(&error) == Some("UUID_INVALID") => return Ok(false),
                        Err(error) => return Err(error),
                    },
                };
                let kind = if disk.is_some() { "Disk" } else { "CD" };
                let record = json!({
                    "VM": reference, "VDI": disk.clone().unwrap_or_else(|| vmoon_xapi::value::NULL.into()), "userdevice": userdevice,
                    "bootable": bootable, "mode": mode, "type": kind, "empty": disk.is_none(), "unpluggable": true, "other_config": {},
                    "qos_algorithm_type": "", "qos_algorithm_params": {},
                });
                ("VBD", known, record, there)
            }
            DeviceUndo::Nic { vm, network, device, mac } => {
                let Some((reference, known)) = self.vm(vm).await? else { return Ok(false) };
                let there = self.devices_of(&known).await?.iter().any(|found| found.device.name == *mac);
                let network: String = self.get("find the network", "network.get_by_uuid", vec![network.clone().into()]).await?;
                let record = json!({
                    "device": device, "network": network, "VM": reference, "MAC": mac, "MTU": 1500, "other_config": {}, "qos_algorithm_type": "",
                    "qos_algorithm_params": {},
                });
                ("VIF", known, record, there)
            }
        };
        if !there {
            let made: String = self.get("put a device back", &format!("{class}.create"), vec![record]).await?;
            if vm.power_state == PowerState::Running {
                self.run("put a device back", &format!("{class}.plug"), only(&made)).await?;
            }
        }
        Ok(true)
    }
}

fn undo(value: &DeviceUndo) -> Undo {
    Undo(serde_json::to_value(value).unwrap_or_default())
}

/// What an undo value of a change of devices says; nothing if it is another one.
pub(super) fn read_undo(undo: &Undo) -> Option<DeviceUndo> {
    serde_json::from_value(undo.0.clone()).ok()
}

#[async_trait]
impl Devices for XcpngDriver {
    fn kinds(&self) -> Vec<DeviceKind> {
        kinds()
    }

    async fn list(&self, handle: &Handle) -> Result<Vec<Device>> {
        let (_, vm) = self.0.known(&uuid(handle)?).await?;
        Ok(self.0.devices_of(&vm).await?.into_iter().map(|found| found.device).collect())
    }

    async fn plan(&self, handle: &Handle, change: &DeviceChange) -> Result<Vec<Change>> {
        self.0.plan_device(&uuid(handle)?, change).await
    }

    async fn change(&self, handle: &Handle, change: &DeviceChange, journal: &dyn Journal) -> Result<()> {
        let uuid = uuid(handle)?;
        let (_, vm) = self.0.known(&uuid).await?;
        allowed(&vm, "update_allowed_operations", "change its devices")?;
        self.0.change_device(&uuid, change, journal).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Named;

    fn pool() -> Facts {
        let named = |uuid: &str, name: &str| Named { uuid: uuid.into(), name: name.into() };
        Facts { storage: vec![named("s1", "local")], networks: vec![named("n1", "lan")], ..Facts::default() }
    }

    fn refused(kind: &str, settings: Value) -> String {
        let new = NewDevice { kind: kind.into(), settings: settings.as_object().cloned().unwrap() };
        addition(&new, &pool()).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn new_devices_are_checked_all_at_once() {
        assert_eq!(refused("disk", json!({"size": "1GiB", "sr": "local"})), "");
        assert_eq!(refused("nic", json!({"network": "lan", "mac": "02:00:00:00:00:01"})), "");
        let all = refused("disk", json!({"size": 0, "colour": "red\u{1b}"}));
        for part in ["settings.size", "no default storage", "settings.colour"] {
            assert!(all.contains(part), "{part}: {all}");
        }
        let all = refused("nic", json!({"mac": "zz"}));
        assert!(all.contains("which network") && all.contains("\"zz\" is no"), "{all}");
        assert!(refused("gpu", json!({})).contains("disk, nic"));
    }

    #[test]
    fn disks_have_the_names_that_guests_give_them() {
        assert_eq!((disk_name("0").as_str(), disk_name("3").as_str(), disk_name("255").as_str()), ("xvda", "xvdd", "xvd255"));
    }
}
