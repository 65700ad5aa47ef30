//! From a template to a VM: copied, tagged, provisioned, sized, given disks and interfaces, and said to be complete.
//!
//! One undo value is journalled before the first call: everything that follows is found by the id in the VM's first name or tag and in the tags of disks.

use super::{disks::disks, handle, pool::Pool};
use crate::{
    settings::{Interface, Settings},
    tags,
};
use serde_json::{Value, json};
use std::time::Duration;
use vmoon_core::{
    Code, Error, MachineId, Result,
    driver::{Handle, Journal},
    name::escape,
    operation::{Progress, Undo},
};
use vmoon_seed::Seed;
use vmoon_xapi::records::Vm;

/// How long copying disks may take: in full, that is hours.
const COPY: Duration = Duration::from_secs(6 * 3600);

/// What creating does, for people.
pub(super) fn steps(name: &str, settings: &Settings) -> Vec<String> {
    let how = if settings.full { "copy" } else { "clone" };
    let mut steps = vec![format!("{how} the template {} as {name}", escape(&settings.template_name))];
    if settings.default_template {
        steps.push(format!("make the disks it describes on the storage repository {}", settings.storage.as_deref().unwrap_or("?")));
    }
    if let Some(bytes) = settings.memory {
        steps.push(format!("give it {} MiB of memory", bytes >> 20));
    }
    if let Some(cpus) = settings.cpus {
        steps.push(format!("give it {cpus} virtual processors"));
    }
    for disk in &settings.disks {
        steps.push(format!("make a disk of {} MiB and attach it", disk.size >> 20));
    }
    for interface in settings.interfaces.iter().flatten() {
        let mac = if interface.mac.is_empty() { "an address that the pool chooses" } else { &interface.mac };
        steps.push(format!("connect it to the network {} with {mac}", interface.network));
    }
    if let Some(cloud) = &settings.seed {
        steps.push(format!("attach {}", Seed::Cloud(cloud.clone()).sentence()));
    }
    if let Some(environment) = &settings.environment {
        steps.push(format!("begin Lua sessions in the guest with the environment {environment}, which is sent before the first"));
    }
    steps.push("tag it and its disks as made by vmoon".into());
    steps
}

impl Pool {
    pub(super) async fn create(&self, id: MachineId, name: &str, settings: &Settings, journal: &dyn Journal) -> Result<Handle> {
        if let Some(own) = self.find(id).await? {
            if own.complete {
                return Ok(handle(&own.uuid));
            }
            // A first try that was cut off.
            self.delete(&own.uuid).await?;
        }
        let tell = |phase: &str, percent: Option<u8>| journal.progress(Progress { phase: phase.to_owned(), percent });
        let user_data = self.user_data(settings).await?;
        if let (Some(environment), Some(guests)) = (&settings.environment, self.guests()) {
            guests.look_for(environment).await?;
        }
        tell("waiting for its turn", Some(0));
        let _turn = self.creating.acquire().await.map_err(|_| Error::internal("nothing is created any more"))?;
        journal.undo(Undo(json!({ "delete": id }))).await?;

        let (kind, source) = match &settings.original {
            Some(original) => ("VM", original),
            None => ("template", &settings.template),
        };
        let doing = format!("{} the {kind}", if settings.full { "copying" } else { "cloning" });
        tell(&doing, Some(0));
        let what = format!("copy the {kind}");
        let source: String = self.get(&format!("find the {kind}"), "VM.get_by_uuid", vec![source.clone().into()]).await?;
        let first = tags::first_name(id);
        let mut params = vec![source.into(), first.clone().into()];
        if settings.full {
            params.push(self.storage(settings).await?.into());
        }
        let method = if settings.full { "VM.copy" } else { "VM.clone" };
        let part = |part: f64| tell(&doing, Some((part * 80.0) as u8));
        let copied = self.run_within(&what, method, params, COPY, part).await?;
        let vm = match copied.as_ref().and_then(Value::as_str) {
            Some(reference) => reference.to_owned(),
            // The task was cleared away before it could be read: the name tells.
            None => {
                let found: Vec<String> = self.get("find the copy", "VM.get_by_name_label", vec![first.into()]).await?;
                found
                    .into_iter()
                    .next()
                    .ok_or_else(|| Error::new(Code::DriverFailed, format!("the {kind} was not copied, and nothing tells why")))?
            }
        };
        let uuid: String = self.get("read the copy", "VM.get_uuid", vec![vm.clone().into()]).await?;
        // What the original bore of ours is not the copy's.
        for key in [tags::COMPLETE, tags::DISKS] {
            self.call("tag the VM", "VM.remove_from_other_config", vec![vm.clone().into(), key.into()]).await?;
        }
        self.put("VM", &vm, "other_config", tags::ID, &tags::tag(id, &uuid)).await?;
        if settings.original.is_none() {
            tell("provisioning", Some(82));
            self.provision(&vm, settings).await?;
        }
        self.call("name the VM", "VM.set_name_label", vec![vm.clone().into(), name.into()]).await?;
        if !settings.description.is_empty() {
            self.call("describe the VM", "VM.set_name_description", vec![vm.clone().into(), settings.description.clone().into()]).await?;
        }
        self.size(&vm, settings).await?;
        tell("disks and networks", Some(90));
        let record: Vm = self.get("read the VM", "VM.get_record", vec![vm.clone().into()]).await?;
        let drives = self.drives(&record).await?;
        for (_, disk) in disks(&drives) {
            self.tag_disk(disk, id).await?;
        }
        match &settings.seed {
            Some(_) => self.drop_seeds(&drives).await?,
            None => self.renew_seeds(&drives, id).await?,
        }
        if let (Some(original), Some(guests)) = (&settings.original, self.guests()) {
            guests.inherit(original, &uuid)?;
        }
        self.add_disks(&vm, id, name, settings).await?;
        if settings.original.is_none() {
            self.connect(&vm, &record, settings).await?;
        }
        if let Some(cloud) = &settings.seed {
            tell("writing the seed", Some(95));
            let storage = self.storage(settings).await?;
            self.add_seed((&vm, &uuid), id, cloud, user_data, &storage).await?;
            if let (Some(environment), Some(guests)) = (&settings.environment, self.guests()) {
                guests.want(&uuid, environment)?;
            }
        }
        self.put("VM", &vm, "other_config", tags::COMPLETE, &uuid).await?;
        Ok(handle(&uuid))
    }

    /// The repository for new disks.
    async fn storage(&self, settings: &Settings) -> Result<String> {
        match &settings.storage {
            Some(uuid) => self.get("find the storage repository", "SR.get_by_uuid", vec![uuid.clone().into()]).await,
            None => Ok(vmoon_xapi::value::NULL.into()),
        }
    }

    /// Makes of the copy a VM. Templates of the product describe their disks without saying where; provisioning one like that would fail when it is no
    /// template any more.
    async fn provision(&self, vm: &str, settings: &Settings) -> Result<()> {
        let config: std::collections::BTreeMap<String, String> = self.get("read the VM", "VM.get_other_config", vec![vm.into()]).await?;
        if let (Some(disks), Some(storage)) = (config.get("disks"), &settings.storage) {
            self.put("VM", vm, "other_config", "disks", &disks.replace("sr=\"\"", &format!("sr=\"{storage}\""))).await?;
        }
        self.run("provision the VM", "VM.provision", vec![vm.into()]).await.map(drop)
    }

    async fn size(&self, vm: &str, settings: &Settings) -> Result<()> {
        if let Some(bytes) = settings.memory {
            let low: i64 = self.get("read the VM", "VM.get_memory_static_min", vec![vm.into()]).await?;
            let params = vec![vm.into(), low.min(bytes).into(), bytes.into(), bytes.into(), bytes.into()];
            self.call("set the VM's memory", "VM.set_memory_limits", params).await?;
        }
        match settings.cpus {
            Some(cpus) => self.processors(vm, cpus).await,
            None => Ok(()),
        }
    }

    /// Sets how many processors it starts with, and may have: in the order that is never wrong in between.
    pub(super) async fn processors(&self, vm: &str, cpus: i64) -> Result<()> {
        let most: i64 = self.get("read the VM", "VM.get_VCPUs_max", vec![vm.into()]).await?;
        let order =
            if cpus >= most { ["VM.set_VCPUs_max", "VM.set_VCPUs_at_startup"] } else { ["VM.set_VCPUs_at_startup", "VM.set_VCPUs_max"] };
        for method in order {
            self.call("set the VM's processors", method, vec![vm.into(), cpus.into()]).await?;
        }
        Ok(())
    }

    async fn add_disks(&self, vm: &str, id: MachineId, name: &str, settings: &Settings) -> Result<()> {
        if settings.disks.is_empty() {
            return Ok(());
        }
        let storage = self.storage(settings).await?;
        for (n, disk) in settings.disks.iter().enumerate() {
            // It bears the tag from its first moment, so that it is found should we end before it has a VM.
            let vdi = json!({
                "name_label": format!("{name} disk {}", n + 1), "SR": storage, "virtual_size": disk.size, "type": "user", "sharable": false,
                "read_only": false, "other_config": { tags::ID: id.to_string() },
            });
            let vdi: String = self.get("make a disk", "VDI.create", vec![vdi]).await?;
            let vbd = json!({
                "VM": vm, "VDI": vdi, "userdevice": "autodetect", "bootable": false, "mode": "RW", "type": "Disk", "empty": false, "unpluggable": true,
                "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
            });
            self.call("attach a disk", "VBD.create", vec![vbd]).await?;
        }
        Ok(())
    }

    /// Gives it the interfaces that were asked for in place of the template's; one without any gets one.
    async fn connect(&self, vm: &str, record: &Vm, settings: &Settings) -> Result<()> {
        let wanted: Vec<Interface> = match (&settings.interfaces, record.vifs.is_empty()) {
            (Some(wanted), _) => {
                for vif in &record.vifs {
                    self.call("remove an interface of the template", "VIF.destroy", vec![vif.into()]).await?;
                }
                wanted.clone()
            }
            (None, true) => {
                settings.fallback_network.iter().map(|network| Interface { network: network.clone(), mac: String::new() }).collect()
            }
            (None, false) => return Ok(()),
        };
        for (n, interface) in wanted.iter().enumerate() {
            let network: String = self.get("find the network", "network.get_by_uuid", vec![interface.network.clone().into()]).await?;
            let vif = json!({
                "device": n.to_string(), "network": network, "VM": vm, "MAC": interface.mac, "MTU": 1500, "other_config": {},
                "qos_algorithm_type": "", "qos_algorithm_params": {},
            });
            self.call("connect the VM", "VIF.create", vec![vif]).await?;
        }
        Ok(())
    }
}
