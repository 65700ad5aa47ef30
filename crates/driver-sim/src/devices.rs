//! Devices of simulated machines: disks, which come and go at once, and network cards, which do so while a machine is off and wait for that otherwise. And
//! the reset button.

use crate::{
    driver::{SimDriver, Step, undo},
    machine::{Machine, Power},
    world::native,
};
use async_trait::async_trait;
use serde_json::Value;
use vmoon_core::{
    Code, Error, Result,
    ability::{Change, Effect, Reset},
    device::{self, Device, DeviceChange, DeviceKind, Devices, NewDevice, Presence},
    driver::{Handle, Journal, Setting},
    spec::Problems,
};

const DISK: &str = "disk";
const NIC: &str = "nic";
/// How many of a kind there are names for.
const MOST: usize = 9;

fn kinds() -> Vec<DeviceKind> {
    let setting = |name: &str, help: &str| Setting { name: name.into(), help: help.into() };
    let kind = |name: &str, help: &str, settings| DeviceKind { name: name.into(), help: help.into(), settings };
    vec![
        kind(DISK, "an empty disk", vec![setting("size", "its size in MiB, 1 to 1024 (needed)")]),
        kind(NIC, "a network card", vec![setting("network", "the network it is in (default: default)")]),
    ]
}

/// The device that is asked for, as the machine would have it.
fn wanted(machine: &Machine, new: &NewDevice) -> Result<Device> {
    let offered = kinds();
    let kind = offered.iter().find(|kind| kind.name == new.kind).ok_or_else(|| device::unknown_kind(&new.kind, &offered))?;
    let (mut problems, mut facts) = (Problems::default(), serde_json::Map::new());
    for (name, value) in &new.settings {
        match (new.kind.as_str(), name.as_str(), value) {
            (DISK, "size", Value::Number(size)) if size.as_u64().is_some_and(|mib| (1..=1024).contains(&mib)) => {
                facts.insert("size_bytes".into(), (size.as_u64().unwrap_or(0) << 20).into());
            }
            (NIC, "network", Value::String(_)) => drop(facts.insert("network".into(), value.clone())),
            _ => problems.add(format!("settings.{name}"), format!("{value} does not fit, or a {} has no such setting", kind.name)),
        }
    }
    if new.kind == DISK && !new.settings.contains_key("size") {
        problems.add("settings.size", "how large is it to be?");
    }
    let name = (1..=MOST).map(|n| format!("{}{n}", new.kind)).find(|name| machine.devices.iter().all(|known| known.name != *name));
    let Some(name) = name else {
        problems.add("kind", format!("the machine has {MOST} of them already"));
        return Err(problems.or(()).map_err(Error::from).err().unwrap_or_else(|| Error::internal("a problem that is none")));
    };
    let presence = if new.kind == NIC && machine.power() != Power::Off { Presence::NextStart } else { Presence::Kept };
    let made = new.kind == DISK;
    let device = Device { what: format!("{} {name}", new.kind), name, kind: new.kind.clone(), facts, presence, made };
    Ok(problems.or(device)?)
}

fn known(machine: &Machine, name: &str) -> Result<Device> {
    machine.devices.iter().find(|known| known.name == name).cloned().ok_or_else(|| device::not_found(name))
}

/// What the change does to that device, and when.
fn planned(machine: &Machine, change: &DeviceChange) -> Result<(Device, Change)> {
    let (device, verb) = match change {
        DeviceChange::Add(new) => (wanted(machine, new)?, "added"),
        DeviceChange::Remove { name, .. } => (known(machine, name)?, "removed"),
    };
    let later = device.kind == NIC && machine.power() != Power::Off;
    let effect = if later { Effect::NextStart } else { Effect::Now };
    let told = device::changed(&device.kind, format!("{} {verb}", device.what), effect);
    Ok((device, told))
}

#[async_trait]
impl Devices for SimDriver {
    fn kinds(&self) -> Vec<DeviceKind> {
        kinds()
    }

    async fn list(&self, handle: &Handle) -> Result<Vec<Device>> {
        self.on("device.list", handle, |machine, _| Ok(machine.devices.clone())).await
    }

    async fn plan(&self, handle: &Handle, change: &DeviceChange) -> Result<Vec<Change>> {
        self.on("device.plan", handle, |machine, _| Ok(vec![planned(machine, change)?.1])).await
    }

    async fn change(&self, handle: &Handle, change: &DeviceChange, journal: &dyn Journal) -> Result<()> {
        let (device, _) = self.on("device.plan", handle, |machine, _| planned(machine, change)).await?;
        let native = native(handle).unwrap_or_default();
        let disk = format!("{native}/{}", device.name);
        if let DeviceChange::Remove { name, keep } = change {
            self.on("device.detach", handle, |machine, _| {
                let off = machine.power() == Power::Off;
                for known in machine.devices.iter_mut().filter(|known| known.name == *name && known.kind == NIC && !off) {
                    known.presence = Presence::UntilStopped;
                }
                machine.devices.retain(|known| known.name != *name || known.presence == Presence::UntilStopped);
                Ok(())
            })
            .await?;
            if device.made && !keep {
                self.step("device.erase", |inner| Ok(inner.disks.remove(&disk))).await?;
            }
            return Ok(());
        }
        journal.undo(undo(&Step::Device { native: native.clone(), name: device.name.clone() })?).await?;
        let made = device.made;
        let done = async {
            if made {
                self.step("device.disk", |inner| {
                    let owner = inner.machines.get(&native).and_then(|machine| machine.tag);
                    inner.disks.insert(disk.clone(), owner.unwrap_or(vmoon_core::MachineId::NONE));
                    Ok(())
                })
                .await?;
            }
            self.on("device.attach", handle, |machine, _| {
                machine.devices.push(device.clone());
                Ok(())
            })
            .await
        };
        let done = done.await;
        if done.is_err() {
            self.take_back(&native, &device.name).await?;
        }
        done
    }
}

impl SimDriver {
    /// Takes a device away that was being added.
    pub(crate) async fn take_back(&self, native: &str, name: &str) -> Result<()> {
        self.step("recover.device", |inner| {
            if let Some(machine) = inner.machines.get_mut(native) {
                machine.devices.retain(|known| known.name != name);
            }
            inner.disks.remove(&format!("{native}/{name}"));
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Reset for SimDriver {
    async fn reset(&self, handle: &Handle) -> Result<()> {
        self.on("reset", handle, |machine, _| match machine.power() {
            Power::On => {
                machine.resets += 1;
                Ok(())
            }
            _ => Err(Error::new(Code::MachineStopped, "the machine does not run")),
        })
        .await
    }
}
