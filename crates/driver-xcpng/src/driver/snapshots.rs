//! Snapshots.

use super::{XcpngDriver, pool::Pool, uuid};
use crate::errors::restless;
use async_trait::async_trait;
use std::collections::HashMap;
use vmoon_core::{
    Code, Error, Result,
    ability::{NewSnapshot, Snapshot, Snapshots},
    driver::Handle,
    name::{self, escape},
};
use vmoon_xapi::records::{PowerState, Vm};

impl Pool {
    /// Those of a VM, with their references, parents first.
    async fn snapshots_of(&self, uuid: &str) -> Result<(String, Vm, Vec<(String, Vm)>)> {
        let (reference, vm) = self.known(uuid).await?;
        let mut all = Vec::new();
        for snapshot in &vm.snapshots {
            match self.get::<Vm>("read a snapshot", "VM.get_record", vec![snapshot.into()]).await {
                Ok(record) => all.push((snapshot.as_str().to_owned(), record)),
                // It was removed meanwhile.
                Err(error) if error.code() == Code::MachineBroken => {}
                Err(error) => return Err(error),
            }
        }
        let when = |vm: &Vm| vm.snapshot_time.map_or(0, |time| time.unix);
        all.sort_by(|(a, x), (b, y)| (when(x), &x.uuid, a).cmp(&(when(y), &y.uuid, b)));
        Ok((reference, vm, all))
    }

    /// Removes a snapshot with its disks; missing is fine.
    pub(super) async fn remove_snapshot(&self, reference: &str) -> Result<()> {
        let record: Vm = match self.get("read a snapshot", "VM.get_record", vec![reference.into()]).await {
            Ok(record) => record,
            Err(error) if error.code() == Code::MachineBroken => return Ok(()),
            Err(error) => return Err(error),
        };
        let disks = self.disks_of(&record).await?;
        self.call("remove a snapshot", "VM.destroy", vec![reference.into()]).await?;
        for disk in disks {
            self.remove_disk(&disk).await?;
        }
        Ok(())
    }

    async fn named(&self, vm: &str, wanted: &str) -> Result<Option<(String, Vm)>> {
        let (_, _, all) = self.snapshots_of(vm).await?;
        let mut found = all.into_iter().filter(|(_, snapshot)| snapshot.name_label == wanted || snapshot.uuid == wanted);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(Error::new(Code::NameAmbiguous, format!("the VM has several snapshots named {}", escape(wanted)))
                .hint("others have made them; rename one with their tools, or give a uuid")),
            (one, _) => Ok(one),
        }
    }
}

fn missing(name: &str) -> Error {
    Error::new(Code::SnapshotNotFound, format!("the VM has no snapshot {}", escape(name)))
}

fn shown(snapshot: &Vm, parent: Option<String>, current: bool) -> Snapshot {
    Snapshot {
        name: snapshot.name_label.clone(),
        parent,
        created_ms: snapshot.snapshot_time.map_or(0, |time| time.unix.max(0).unsigned_abs() * 1000),
        memory: snapshot.power_state == PowerState::Suspended,
        current,
        note: String::new(),
    }
}

#[async_trait]
impl Snapshots for XcpngDriver {
    async fn list(&self, handle: &Handle) -> Result<Vec<Snapshot>> {
        let (_, vm, all) = self.0.snapshots_of(&uuid(handle)?).await?;
        let names: HashMap<&str, &str> = all.iter().map(|(reference, one)| (reference.as_str(), one.name_label.as_str())).collect();
        let parent = |of: &Vm| names.get(of.parent.as_str()).map(|name| (*name).to_owned());
        Ok(all.iter().map(|(reference, one)| shown(one, parent(one), vm.parent.as_str() == reference)).collect())
    }

    async fn create(&self, handle: &Handle, new: &NewSnapshot) -> Result<Snapshot> {
        name::check(&new.name)?;
        let uuid = uuid(handle)?;
        let (reference, vm, all) = self.0.snapshots_of(&uuid).await?;
        if all.iter().any(|(_, one)| one.name_label == new.name) {
            return Err(Error::new(Code::SnapshotExists, format!("the VM has a snapshot {} already", new.name)).hint("choose another name"));
        }
        // Memory is kept only if asked for: it takes room as large as the memory, and the guest's tools.
        let memory = new.memory == Some(true);
        if memory && vm.power_state != PowerState::Running {
            return Err(Error::new(Code::MachineState, "only a running VM has memory to keep").hint("leave out --memory, or start it"));
        }
        let method = if memory { "VM.checkpoint" } else { "VM.snapshot" };
        let params = vec![reference.into(), new.name.clone().into()];
        let what = "take a snapshot";
        let taken = self.0.run(what, method, params).await;
        taken.map_err(|error| if memory { restless(&format!("{what} with its memory"), error) } else { error })?;
        let made = self.0.named(&uuid, &new.name).await?;
        let (_, record) = made.ok_or_else(|| Error::new(Code::DriverFailed, "the snapshot was not made, and nothing tells why"))?;
        let parent = all.iter().find(|(reference, _)| record.parent.as_str() == reference).map(|(_, one)| one.name_label.clone());
        Ok(shown(&record, parent, true))
    }

    async fn revert(&self, handle: &Handle, name: &str) -> Result<()> {
        let uuid = uuid(handle)?;
        let (snapshot, record) = self.0.named(&uuid, name).await?.ok_or_else(|| missing(name))?;
        let (_, vm) = self.0.known(&uuid).await?;
        // The disks it has now are replaced by copies of the snapshot's, which bear the tags of their own.
        self.0.run("return to the snapshot", "VM.revert", vec![snapshot.into()]).await?;
        if let Some(id) = crate::tags::owner(&vm) {
            let (_, now) = self.0.known(&uuid).await?;
            for disk in self.0.disks_of(&now).await? {
                self.0.tag_disk(&disk, id).await?;
            }
        }
        if record.power_state == PowerState::Suspended {
            self.0.change(&uuid, "VM.resume", PowerState::Running, "go on from the snapshot's memory").await?;
        }
        Ok(())
    }

    async fn delete(&self, handle: &Handle, name: &str) -> Result<()> {
        match self.0.named(&uuid(handle)?, name).await? {
            Some((snapshot, _)) => self.0.remove_snapshot(&snapshot).await,
            None => Ok(()),
        }
    }
}
