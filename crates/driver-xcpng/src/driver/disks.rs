//! Disks: which are ours, and removing those.

use super::pool::Pool;
use crate::{errors::theirs, tags};
use serde_json::Value;
use std::collections::HashMap;
use vmoon_core::{MachineId, Result};
use vmoon_xapi::records::{Vbd, VbdType, Vdi, Vm};

/// The disks among what a VM has, without discs in drives: what attaches each, and its reference.
pub(super) fn disks(drives: &[(String, Vbd)]) -> impl Iterator<Item = (&(String, Vbd), &str)> {
    let is_disk = |vbd: &Vbd| vbd.kind == VbdType::Disk && !vbd.empty && !vbd.vdi.is_null();
    drives.iter().filter(move |(_, vbd)| is_disk(vbd)).map(|drive| (drive, drive.1.vdi.as_str()))
}

impl Pool {
    /// What a VM has for disks and discs, with references, in their order.
    pub(super) async fn drives(&self, vm: &Vm) -> Result<Vec<(String, Vbd)>> {
        let mut all: Vec<(String, Vbd)> = Vec::new();
        for vbd in &vm.vbds {
            match self.get::<Vbd>("look at the VM's disks", "VBD.get_record", vec![vbd.into()]).await {
                Ok(record) => all.push((vbd.as_str().to_owned(), record)),
                // It was taken away meanwhile.
                Err(error) if theirs(&error) == Some("HANDLE_INVALID") => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by_key(|(_, vbd)| vbd.userdevice.parse::<u32>().unwrap_or(u32::MAX));
        Ok(all)
    }

    /// References of the disks of a VM, without discs in drives.
    pub(super) async fn disks_of(&self, vm: &Vm) -> Result<Vec<String>> {
        Ok(disks(&self.drives(vm).await?).map(|(_, disk)| disk.to_owned()).collect())
    }

    /// Says whose a disk is.
    pub(super) async fn tag_disk(&self, disk: &str, id: MachineId) -> Result<()> {
        self.put("VDI", disk, "other_config", tags::ID, &id.to_string()).await
    }

    /// Sets one key of a map; whatever it was.
    pub(super) async fn put(&self, class: &str, reference: &str, field: &str, key: &str, value: &str) -> Result<()> {
        let what = format!("write {key}");
        self.call(&what, &format!("{class}.remove_from_{field}"), vec![reference.into(), key.into()]).await?;
        self.call(&what, &format!("{class}.add_to_{field}"), vec![reference.into(), key.into(), value.into()]).await.map(drop)
    }

    /// Removes a disk; missing is fine.
    pub(super) async fn remove_disk(&self, disk: &str) -> Result<()> {
        match self.call("delete a disk", "VDI.destroy", vec![disk.into()]).await {
            Err(error) if theirs(&error) == Some("HANDLE_INVALID") => Ok(()),
            other => other.map(drop),
        }
    }

    /// Removes disks of a machine that no VM has: what a crash has left between a disk and its VM, and what somebody has detached is not of them, as it has another name.
    pub(super) async fn sweep_disks(&self, id: MachineId, keep: Option<&str>) -> Result<()> {
        let all: HashMap<String, Vdi> = self.get("read every disk", "VDI.get_all_records", Vec::<Value>::new()).await?;
        for (reference, vdi) in all {
            let ours = tags::is_our_disk(&vdi.other_config, id) && !vdi.is_a_snapshot;
            if ours && vdi.vbds.is_empty() && keep != Some(reference.as_str()) {
                self.remove_disk(&reference).await?;
            }
        }
        Ok(())
    }
}
