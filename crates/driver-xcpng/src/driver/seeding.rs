//! The seed of a VM that is made: a small read-only disk that tells its guest who it is. It bears a mark of its own and goes with its VM. A copy has one that says
//! the same of another instance: without one cloud-init takes its system for a new one, makes other host keys and asks nobody who may log in; with the very same one
//! it takes it for the old one, and what it had set up for the original's network card is not set up for the copy's.

use super::{disks::disks, hosts::only, pool::Pool};
use crate::{settings::Settings, tags};
use serde_json::json;
use std::path::Path;
use vmoon_core::{Code, Error, MachineId, Result};
use vmoon_seed::{
    Seed,
    cloud::{self, Cloud, Entry},
};
use vmoon_xapi::{
    records::{Vbd, Vdi, Vm},
    transfer::{Format, Transfer},
};

/// The largest file of user-data, bytes: a seed is not for software.
const USER_DATA: usize = 1 << 20;
/// What disks of every kind of repository are multiples of, bytes.
const PIECE: usize = 4 << 20;
/// The largest disk that is taken for a seed of ours, bytes.
const LARGEST: usize = 16 << 20;

impl Pool {
    /// What the user's own file holds, if one was named. Read before anything is made.
    pub(super) async fn user_data(&self, settings: &Settings) -> Result<Option<Vec<u8>>> {
        let Some(path) = settings.seed.as_ref().and_then(|cloud| cloud.user_data.clone()) else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || {
            let data = vmoon_sys::image::head(Path::new(&path), USER_DATA + 1)
                .map_err(|error| Error::io(format_args!("read the user-data {path}"), error))?;
            if data.len() > USER_DATA {
                return Err(Error::new(Code::SpecInvalid, format!("the user-data {path} is larger than 1 MiB")));
            }
            Ok(data)
        });
        read.await.map_err(|error| Error::internal("reading the user-data panicked").source(error))?.map(Some)
    }

    /// Makes the seed and attaches it.
    pub(super) async fn add_seed(
        &self,
        (vm, uuid): (&str, &str),
        id: MachineId,
        cloud: &Cloud,
        user_data: Option<Vec<u8>>,
        storage: &str,
    ) -> Result<()> {
        let guests = if cloud.entered { self.guests() } else { None };
        let entry = match guests {
            Some(guests) => Some(guests.prepare(uuid, cloud.user.as_deref().unwrap_or(vmoon_guest::USER))?),
            None => None,
        };
        let entry = entry.as_ref().map(|entry| Entry {
            user: &entry.user,
            key: &entry.key,
            host_private: entry.host.private(),
            host_public: entry.host.public(),
        });
        let mut image = Seed::Cloud(cloud.clone()).image_with(id, user_data, entry)?;
        image.resize(image.len().next_multiple_of(PIECE), 0);
        let vdi = json!({
            "name_label": format!("{} seed", cloud.hostname), "SR": storage, "virtual_size": image.len(), "type": "user", "sharable": false,
            "read_only": false, "other_config": { tags::ID: id.to_string(), tags::SEED: "1" },
        });
        let vdi: String = self.get("make the seed", "VDI.create", vec![vdi]).await?;
        self.upload(&vdi, image).await?;
        let vbd = json!({
            "VM": vm, "VDI": vdi, "userdevice": "autodetect", "bootable": false, "mode": "RO", "type": "Disk", "empty": false, "unpluggable": true,
            "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
        });
        self.call("attach the seed", "VBD.create", vec![vbd]).await.map(drop)
    }

    async fn upload(&self, vdi: &str, image: Vec<u8>) -> Result<()> {
        let length = image.len() as u64;
        let what = Transfer::import_disk(vdi, Format::Raw);
        let sent = self.client()?.send(&what, std::io::Cursor::new(image), length, |_| {}, std::future::pending()).await;
        sent.map(drop).map_err(|error| self.failed("write the seed", error))
    }

    /// The seeds among what a VM has: disks that are not written to and bear our mark; what attaches each, its reference and its record. XAPI copies such disks with
    /// their VM, too.
    async fn seeds(&self, drives: &[(String, Vbd)]) -> Result<Vec<(String, String, Vdi)>> {
        let mut seeds = Vec::new();
        for ((attached, _), vdi) in disks(drives).filter(|((_, vbd), _)| vbd.mode == "RO") {
            let record: Vdi = self.get("look at the VM's disks", "VDI.get_record", only(vdi)).await?;
            if record.other_config.contains_key(tags::SEED) {
                seeds.push((attached.clone(), vdi.to_owned(), record));
            }
        }
        Ok(seeds)
    }

    /// Whether a VM has a seed.
    pub(super) async fn has_seed(&self, vm: &Vm) -> Result<bool> {
        Ok(!self.seeds(&self.drives(vm).await?).await?.is_empty())
    }

    /// Makes the seeds of a copy those of another instance. What is none of ours, or was made for another system, stays as it is.
    pub(super) async fn renew_seeds(&self, drives: &[(String, Vbd)], id: MachineId) -> Result<()> {
        for (_, vdi, record) in self.seeds(drives).await? {
            if record.vbds.len() > 1 || usize::try_from(record.virtual_size).map_or(true, |size| size > LARGEST) {
                continue;
            }
            let what = Transfer::export_disk(&vdi, Format::Raw);
            let read = self.client()?.fetch_small(&what, LARGEST).await;
            let mut image = read.map_err(|error| self.failed("read the seed", error))?;
            if cloud::renew(&mut image, id) {
                self.upload(&vdi, image).await?;
            }
        }
        Ok(())
    }

    /// Takes the seeds of a template from what was made of it: it gets one of its own, and two would contradict each other.
    pub(super) async fn drop_seeds(&self, drives: &[(String, Vbd)]) -> Result<()> {
        for (attached, vdi, record) in self.seeds(drives).await? {
            self.call("take the template's seed away", "VBD.destroy", vec![attached.into()]).await?;
            if record.vbds.len() <= 1 {
                self.remove_disk(&vdi).await?;
            }
        }
        Ok(())
    }
}
