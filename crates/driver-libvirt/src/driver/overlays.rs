//! Returning to snapshots in overlays where libvirt does not do so by itself: fresh overlays over what was frozen, and the memory from its file.

use super::{
    Inner,
    errors::{Doing as _, failed},
    snapshots::{overlay, writable},
    storage::Storage,
};
use crate::render::lead_to;
use std::collections::HashSet;
use vmoon_core::{Code, Error, Result};
use vmoon_libvirt_wire::{
    Client, Domain, ErrorCode,
    flags::{Define, Destroy, Save, SnapshotCreate, Snapshots, Xml},
};
use vmoon_sys::clock;
use vmoon_xml::Element;

impl Inner {
    /// Returns to disks that were frozen: a fresh overlay over each, the definition led to it, and what was written since deleted where no other snapshot
    /// is based on it. With memory the machine goes on from there, else it is off afterwards.
    pub(super) async fn revert_to_overlays(&self, client: &Client, domain: &Domain, snapshot: &Element, text: &str) -> Result<()> {
        let what = "return to the snapshot";
        let storage = Storage { client, local: self.link.endpoint.is_local() };
        let memory = snapshot.first("memory").filter(|memory| memory.attribute("snapshot") == Some("external"));
        let memory = memory.and_then(|memory| memory.attribute("file")).map(str::to_owned);
        // Read before anything is changed: without it there is no way there.
        let mut saved = match &memory {
            Some(file) => Some(Element::parse(&client.saved_xml(file, Xml::SECURE).await.doing("read the snapshot's memory")?)?),
            None => None,
        };
        // The domain as it was, whose disks are what is frozen now.
        let frozen = snapshot.first("domain").map(writable).unwrap_or_default();
        if frozen.is_empty() {
            return Err(Error::new(Code::DriverFailed, "libvirt does not say which disks the snapshot has"));
        }
        for disk in &frozen {
            if !storage.exists(&disk.file).await? {
                return Err(Error::new(Code::DriverFailed, format!("{}, which the snapshot needs, is gone", disk.file)));
            }
        }
        let mut stored = Element::parse(&client.domain_xml(domain, Xml::INACTIVE | Xml::SECURE).await.doing(what)?)?;
        let before = writable(&stored);
        match client.destroy(domain, Destroy::NONE).await {
            Err(error) if error.code() != Some(ErrorCode::OPERATION_INVALID) => return Err(failed(what, error)),
            _ => {}
        }
        let name = snapshot.text_at("name").unwrap_or_default();
        let label = format!("{name}-{:x}", clock::now_ms());
        for disk in &frozen {
            let fresh = overlay(disk, domain.uuid, &label);
            storage.overlay(&disk.file, &fresh).await?;
            for definition in std::iter::once(&mut stored).chain(&mut saved) {
                lead_to(definition, &disk.target, &fresh, "qcow2");
            }
        }
        client.define(&stored.to_text(), Define::NONE).await.doing(what)?;
        client.snapshot_create(domain, text, SnapshotCreate::REDEFINE | SnapshotCreate::CURRENT).await.doing(what)?;
        // What nothing is based on any more.
        let mut kept: HashSet<String> = writable(&stored).into_iter().map(|disk| disk.file).collect();
        for other in client.snapshots(domain, Snapshots::NONE).await.doing(what)? {
            let described = Element::parse(&client.snapshot_xml(&other, Xml::NONE).await.doing(what)?)?;
            kept.extend(described.first("domain").map(writable).unwrap_or_default().into_iter().map(|disk| disk.file));
        }
        for disk in before.into_iter().filter(|disk| !kept.contains(&disk.file)) {
            storage.delete(&disk.file).await?;
        }
        if let (Some(file), Some(saved)) = (memory, saved) {
            client.restore(&file, Some(&saved.to_text()), Save::NONE).await.doing("go on from the snapshot's memory")?;
        }
        Ok(())
    }
}
