//! The first disk of a VM made larger, and what is in its drive.

use super::{hosts::only, pool::Pool};
use crate::{errors::theirs, tags};
use serde_json::json;
use std::collections::HashMap;
use vmoon_core::{
    Code, Error, Result,
    ability::{Change, Effect},
    name::escape,
    size,
    spec::Problems,
};
use vmoon_xapi::records::{PowerState, Sr, Vbd, VbdType, Vdi, Vm};

/// A disk that is to be larger.
pub(super) struct Growth {
    vdi: String,
    to: i64,
}

/// What is to be in the drive.
pub(super) struct Disc {
    /// The image; nothing takes out what is there.
    image: Option<String>,
    drive: Option<(String, Vbd)>,
}

fn problem(setting: &str, what: String) -> Error {
    let mut problems = Problems::default();
    problems.add(format!("settings.{setting}"), what);
    problems.or(()).map_or_else(Error::from, |()| Error::internal("a problem that is none"))
}

impl Pool {
    /// What it takes to make the first disk that large.
    pub(super) async fn plan_growth(&self, vm: &Vm, to: i64) -> Result<Option<(Growth, Change)>> {
        let mut found = None;
        for (_, vbd) in self.drives(vm).await? {
            let Some(vdi) = vbd.vdi.known().filter(|_| vbd.kind == VbdType::Disk && vbd.mode != "RO") else { continue };
            let record: Vdi = self.get("look at the VM's disk", "VDI.get_record", vec![vdi.into()]).await?;
            if !record.read_only && !record.other_config.contains_key(tags::SEED) {
                found = Some((vdi.as_str().to_owned(), record));
                break;
            }
        }
        let Some((vdi, record)) = found else { return Err(problem("disk", "the VM has no disk".into())) };
        let show = |bytes: i64| size::show(u64::try_from(bytes).unwrap_or(0));
        if to < record.virtual_size {
            let has = show(record.virtual_size);
            return Err(problem("disk", format!("the disk has {has}; it can only become larger, what is on it would be lost")));
        }
        if to == record.virtual_size {
            return Ok(None);
        }
        if vm.power_state != PowerState::Halted {
            return Err(Error::new(Code::MachineRunning, "disks of a VM become larger only while it is off").hint("stop it first"));
        }
        let what = format!("disk {} {} → {}", escape(&record.name_label), show(record.virtual_size), show(to));
        Ok(Some((Growth { vdi, to }, Change { setting: "disk".into(), what, effect: Effect::Now })))
    }

    pub(super) async fn grow(&self, growth: &Growth) -> Result<()> {
        self.run("make the disk larger", "VDI.resize", vec![growth.vdi.clone().into(), growth.to.into()]).await.map(drop)
    }

    /// The image of that name or uuid.
    async fn image(&self, wanted: &str) -> Result<(String, String)> {
        let (storage, disks) = tokio::try_join!(self.all::<Sr>("SR"), self.all::<Vdi>("VDI"))?;
        let is_image = |vdi: &Vdi| storage.get(vdi.sr.as_str()).is_some_and(|sr| sr.content_type == "iso");
        let images: HashMap<&String, &Vdi> = disks.iter().filter(|(_, vdi)| is_image(vdi)).collect();
        if let Some((reference, vdi)) = images.iter().find(|(_, vdi)| vdi.uuid == wanted) {
            return Ok(((*reference).clone(), vdi.name_label.clone()));
        }
        let mut named: Vec<_> = images.iter().filter(|(_, vdi)| vdi.name_label == wanted).collect();
        named.sort_by(|(_, a), (_, b)| a.uuid.cmp(&b.uuid));
        match named.as_slice() {
            [(reference, vdi)] => Ok(((**reference).clone(), vdi.name_label.clone())),
            [] => {
                let mut names: Vec<String> = images.values().map(|vdi| escape(&vdi.name_label)).collect();
                names.sort();
                names.truncate(12);
                Err(problem("iso", format!("the pool has no image \"{}\"; it has: {}", escape(wanted), names.join(", "))))
            }
            many => {
                let uuids: Vec<&str> = many.iter().map(|(_, vdi)| vdi.uuid.as_str()).collect();
                Err(problem("iso", format!("the pool has several of that name; give one of these uuids: {}", uuids.join(", "))))
            }
        }
    }

    /// What it takes to put an image into the drive, or to take it out.
    pub(super) async fn plan_disc(&self, vm: &Vm, wanted: Option<&str>) -> Result<Option<(Disc, Change)>> {
        let drive = self.drives(vm).await?.into_iter().find(|(_, vbd)| vbd.kind == VbdType::Cd);
        let image = match wanted {
            Some(wanted) => Some(self.image(wanted).await?),
            None => None,
        };
        let before: Option<String> = match drive.as_ref().and_then(|(_, vbd)| vbd.vdi.known()) {
            Some(vdi) => Some(self.get("look at the drive", "VDI.get_name_label", vec![vdi.into()]).await?),
            None => None,
        };
        let inside = drive.as_ref().and_then(|(_, vbd)| vbd.vdi.known()).map(|vdi| vdi.as_str().to_owned());
        if inside == image.as_ref().map(|(reference, _)| reference.clone()) {
            return Ok(None);
        }
        if drive.is_none() && vm.power_state != PowerState::Halted {
            return Err(Error::new(Code::MachineRunning, "the VM has no drive, and gets one only while it is off").hint("stop it first"));
        }
        let show = |name: Option<&str>| name.map_or_else(|| "nothing".to_owned(), escape);
        let what = format!("drive {} → {}", show(before.as_deref()), show(image.as_ref().map(|(_, name)| name.as_str())));
        let disc = Disc { image: image.map(|(reference, _)| reference), drive };
        Ok(Some((disc, Change { setting: "iso".into(), what, effect: Effect::Now })))
    }

    pub(super) async fn change_disc(&self, vm: &str, disc: &Disc) -> Result<()> {
        let drive = match &disc.drive {
            Some((drive, vbd)) => {
                if !vbd.empty {
                    match self.run("take the image out", "VBD.eject", only(drive)).await {
                        Err(error) if theirs(&error) == Some("VBD_IS_EMPTY") => {}
                        other => drop(other?),
                    }
                }
                drive.clone()
            }
            None => {
                let vbd = json!({
                    "VM": vm, "VDI": vmoon_xapi::value::NULL, "userdevice": "autodetect", "bootable": true, "mode": "RO", "type": "CD", "empty": true,
                    "unpluggable": false, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
                });
                self.get("make a drive", "VBD.create", vec![vbd]).await?
            }
        };
        match &disc.image {
            Some(image) => self.run("put the image in", "VBD.insert", vec![drive.into(), image.clone().into()]).await.map(drop),
            None => Ok(()),
        }
    }
}
