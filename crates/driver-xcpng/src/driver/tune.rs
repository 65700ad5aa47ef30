//! Changing VMs that exist.

use super::{XcpngDriver, checks::allowed, uuid};
use crate::settings::bytes;
use async_trait::async_trait;
use serde_json::{Map, Value};
use vmoon_core::{
    Code, Error, Result,
    ability::{Change, Effect, Tune},
    driver::Handle,
    spec::Problems,
};
use vmoon_xapi::records::PowerState;

#[async_trait]
impl Tune for XcpngDriver {
    async fn tune(&self, handle: &Handle, settings: &Map<String, Value>, dry_run: bool) -> Result<Vec<Change>> {
        let uuid = uuid(handle)?;
        let (reference, vm) = self.0.known(&uuid).await?;
        let mut problems = Problems::default();
        let (mut memory, mut cpus, mut description, mut disk, mut iso) = (None, None, None, None, None);
        let mut settings = settings.clone();
        // How a guest is entered is nothing of the pool's.
        let entering = vmoon_guest::settings::Wanted::take(&mut settings, &mut problems);
        for (name, value) in &settings {
            let path = format!("settings.{name}");
            match name.as_str() {
                "memory" => match bytes(value).filter(|bytes| *bytes >= 16 << 20) {
                    Some(bytes) => memory = Some(bytes),
                    None => problems.add(path, "a size of at least 16MiB is wanted, for example 2GiB"),
                },
                "cpus" => match value.as_i64().or_else(|| value.as_str()?.parse().ok()).filter(|n| (1..=128).contains(n)) {
                    Some(number) => cpus = Some(number),
                    None => problems.add(path, "a number from 1 to 128 is wanted"),
                },
                "description" => match value.as_str() {
                    Some(text) => description = Some(text.to_owned()),
                    None => problems.add(path, "text is wanted"),
                },
                "disk" => match bytes(value) {
                    Some(bytes) => disk = Some(bytes),
                    None => problems.add(path, "a size is wanted, for example 40GiB: that of the first disk"),
                },
                "iso" => match value.as_str() {
                    Some("" | "none") => iso = Some(None),
                    Some(image) => iso = Some(Some(image.to_owned())),
                    None => problems.add(path, "the name or uuid of an image is wanted, or none to take it out"),
                },
                _ => problems.add(path, "this cannot be changed; memory, cpus, description, disk, iso, env and ssh-… can"),
            }
        }
        problems.or(())?;
        let mut changes = Vec::new();
        let mut say = |setting: &str, what: String| changes.push(Change { setting: setting.into(), what, effect: Effect::Now });
        if let Some(bytes) = memory {
            say("memory", format!("memory {} MiB → {} MiB", vm.memory_dynamic_max >> 20, bytes >> 20));
        }
        if let Some(number) = cpus {
            say("cpus", format!("processors {} → {number}", vm.vcpus_at_startup));
        }
        if description.is_some() {
            say("description", "description".into());
        }
        let mut growth = None;
        if let Some(bytes) = disk
            && let Some((planned, change)) = self.0.plan_growth(&vm, bytes).await?
        {
            growth = Some(planned);
            changes.push(change);
        }
        let mut disc = None;
        if let Some(image) = &iso
            && let Some((planned, change)) = self.0.plan_disc(&vm, image.as_deref()).await?
        {
            disc = Some(planned);
            changes.push(change);
        }
        if vm.power_state != PowerState::Halted && (memory.is_some() || cpus.is_some()) {
            return Err(Error::new(Code::MachineRunning, "memory and processors of a VM change only while it is off").hint("stop it first"));
        }
        if memory.is_some() || cpus.is_some() {
            allowed(&vm, "changing_static_range", "change the VM")?;
        }
        if !entering.is_empty() {
            let guests = self.0.guests().ok_or_else(|| Error::new(Code::DriverUnsupported, "nothing here enters guests"))?;
            guests.check(&entering).await?;
            changes.extend(guests.tune(&uuid, &entering, dry_run)?);
        }
        if dry_run {
            return Ok(changes);
        }
        if let Some(bytes) = memory {
            let low: i64 = self.0.get("read the VM", "VM.get_memory_static_min", vec![reference.clone().into()]).await?;
            let params = vec![reference.clone().into(), low.min(bytes).into(), bytes.into(), bytes.into(), bytes.into()];
            self.0.call("set the VM's memory", "VM.set_memory_limits", params).await?;
        }
        if let Some(number) = cpus {
            self.0.processors(&reference, number).await?;
        }
        if let Some(growth) = &growth {
            self.0.grow(growth).await?;
        }
        if let Some(disc) = &disc {
            self.0.change_disc(&reference, disc).await?;
        }
        if let Some(text) = description {
            self.0.call("describe the VM", "VM.set_name_description", vec![reference.into(), text.into()]).await?;
        }
        Ok(changes)
    }

    async fn rename(&self, handle: &Handle, name: &str) -> Result<Handle> {
        let (reference, _) = self.0.known(&uuid(handle)?).await?;
        self.0.call("rename the VM", "VM.set_name_label", vec![reference.into(), name.into()]).await?;
        Ok(handle.clone())
    }
}
