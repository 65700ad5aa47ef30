//! What becomes of disks when their VM is deleted. What was decided stands in the VM's `other_config`, where a deletion that was cut off finds it again.

use super::{XcpngDriver, pool::Pool, uuid};
use crate::tags;
use async_trait::async_trait;
use vmoon_core::{
    Result,
    driver::Handle,
    hosts::{DiskFate, Disks},
    name::escape,
    size,
};
use vmoon_xapi::records::{Vdi, Vm};

impl Pool {
    /// The disks that go with a VM, and those that stay, with their records.
    pub(super) async fn doomed(&self, vm: &Vm, fate: DiskFate) -> Result<(Vec<(String, Vdi)>, Vec<(String, Vdi)>)> {
        let owner = tags::owner(vm);
        let (mut go, mut stay) = (Vec::new(), Vec::new());
        for disk in self.disks_of(vm).await? {
            let record: Vdi = self.get("read a disk of the VM", "VDI.get_record", vec![disk.clone().into()]).await?;
            let shared = record.vbds.len() > 1;
            let ours = match owner {
                // While it is being made, all are.
                Some(id) => !tags::complete(vm) || tags::is_our_disk(&record.other_config, id),
                None => tags::is_disk_of(&record.other_config, &vm.uuid),
            };
            let goes = !shared
                && !record.read_only
                && match fate {
                    DiskFate::Own => ours,
                    DiskFate::All => true,
                    // What tells the guest who it is is of no use to anybody else.
                    DiskFate::Keep => ours && (!tags::complete(vm) || record.other_config.contains_key(tags::SEED)),
                };
            if goes { go.push((disk, record)) } else { stay.push((disk, record)) }
        }
        Ok((go, stay))
    }

    async fn decide(&self, uuid: &str, fate: DiskFate, dry_run: bool) -> Result<Vec<String>> {
        let Some((reference, vm)) = self.vm(uuid).await? else { return Ok(Vec::new()) };
        let (go, stay) = self.doomed(&vm, fate).await?;
        let size = |vdi: &Vdi| size::show(u64::try_from(vdi.virtual_size).unwrap_or(0));
        let say = |(_, vdi): &(String, Vdi), what: &str| format!("the disk {} ({}) {what}", escape(&vdi.name_label), size(vdi));
        let mut said: Vec<String> = go.iter().map(|disk| say(disk, "is deleted")).collect();
        said.extend(stay.iter().map(|disk| say(disk, "stays")));
        if dry_run {
            return Ok(said);
        }
        if fate != DiskFate::Own {
            self.put("VM", &reference, "other_config", tags::DISKS, tags::fate_word(fate)).await?;
        } else if vm.other_config.contains_key(tags::DISKS) {
            let params = vec![reference.into(), tags::DISKS.into()];
            self.call("decide about the disks", "VM.remove_from_other_config", params).await?;
        }
        Ok(said)
    }
}

#[async_trait]
impl Disks for XcpngDriver {
    async fn decide(&self, handle: &Handle, fate: DiskFate, dry_run: bool) -> Result<Vec<String>> {
        self.0.decide(&uuid(handle)?, fate, dry_run).await
    }
}
