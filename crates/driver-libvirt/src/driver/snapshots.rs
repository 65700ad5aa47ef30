//! Snapshots. Inside the disks' files where all of them are qcow2 and the firmware allows it, with memory if the machine runs; else in overlays beside them,
//! with memory in a file of its own. libvirt before 9.9 cannot return to overlays: then we do (`overlays`).

use super::{
    Inner,
    errors::{Doing as _, failed},
    look,
    storage::Storage,
};
use crate::render::{NAMESPACE, PREFIX, Tag};
use std::path::Path;
use vmoon_core::{
    Code, Error, Result,
    ability::{NewSnapshot, Snapshot},
    driver::Handle,
};
use vmoon_libvirt_wire::{
    self as wire, Client, Domain, ErrorCode,
    flags::{Affect, Revert, SnapshotCreate, SnapshotDelete, Snapshots, Xml},
};
use vmoon_sys::clock;
use vmoon_xml::Element;

/// Since when libvirt returns to snapshots in overlays by itself.
const REVERTS_EXTERNAL: u64 = 9_009_000;
/// Since when snapshots inside of files are allowed with firmware variables in a file.
const INTERNAL_WITH_UEFI: u64 = 10_009_000;

/// A disk that the machine writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Writable {
    pub(crate) target: String,
    pub(crate) file: String,
    pub(crate) qcow2: bool,
}

/// The disks that a machine writes to.
pub(crate) fn writable(domain: &Element) -> Vec<Writable> {
    let disks = domain.first("devices").into_iter().flat_map(|devices| devices.named("disk"));
    let disks = disks.filter(|disk| disk.attribute("device").unwrap_or("disk") == "disk" && disk.first("readonly").is_none());
    let found = disks.filter_map(|disk| {
        let source = disk.first("source")?;
        Some(Writable {
            target: disk.first("target")?.attribute("dev")?.to_owned(),
            file: source.attribute("file").or_else(|| source.attribute("dev"))?.to_owned(),
            qcow2: disk.first("driver").and_then(|driver| driver.attribute("type")) == Some("qcow2"),
        })
    });
    found.collect()
}

/// How a snapshot will be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Inside the files: with memory if the machine runs.
    Internal,
    /// Overlays, and the memory in a file beside them or not at all.
    External { memory: bool },
}

/// Chooses the way, or says why there is none. Pure.
fn way(domain: &Element, disks: &[Writable], running: bool, memory: Option<bool>, libvirt: u64) -> Result<Way> {
    if memory == Some(true) && !running {
        return Err(Error::new(Code::MachineStopped, "the machine does not run, so there is no memory to keep").hint("leave --memory off"));
    }
    if disks.is_empty() {
        return Err(Error::new(Code::DriverUnsupported, "the machine has no disk of its own that a snapshot could be kept in"));
    }
    let uefi = domain.first("os").is_some_and(|os| {
        os.attribute("firmware") == Some("efi") || os.first("loader").and_then(|loader| loader.attribute("type")) == Some("pflash")
    });
    let inside = !(uefi && libvirt < INTERNAL_WITH_UEFI) && disks.iter().all(|disk| disk.qcow2);
    Ok(match (inside, running, memory) {
        // libvirt keeps a running machine inside of its files only together with its memory.
        (true, true, Some(false)) => Way::External { memory: false },
        (true, ..) => Way::Internal,
        (false, running, memory) => Way::External { memory: running && memory != Some(false) },
    })
}

/// Whether a snapshot's XML says that it is in overlays.
fn is_external(snapshot: &Element) -> bool {
    snapshot.first("disks").is_some_and(|disks| disks.named("disk").any(|disk| disk.attribute("snapshot") == Some("external")))
}

fn view(snapshot: &Element, current: Option<&str>) -> Option<Snapshot> {
    let name = snapshot.text_at("name")?;
    let memory = matches!(snapshot.first("memory").and_then(|memory| memory.attribute("snapshot")), Some("internal" | "external"));
    let external = is_external(snapshot);
    let running = snapshot.text_at("state").is_some_and(|state| state != "shutoff");
    let note = match (external, memory, running) {
        (true, true, _) => "in overlays and a file beside the disks; firmware keeps the variables it has",
        (true, false, true) => "disks only, in overlays: returning to it is like returning after a power cut",
        (true, _, _) => "in overlays beside the disks",
        _ => "",
    };
    Some(Snapshot {
        current: current == Some(name.as_str()),
        parent: snapshot.text_at("parent/name"),
        created_ms: snapshot.text_at("creationTime").and_then(|time| time.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1000),
        memory,
        note: note.into(),
        name,
    })
}

/// Where the memory of a snapshot in overlays is: beside the first disk.
fn memory_file(disk: &Writable, uuid: uuid::Uuid, label: &str) -> String {
    let directory = Path::new(&disk.file).parent().and_then(Path::to_str).unwrap_or_default();
    format!("{directory}/snapshot-{uuid}-memory.{label}.raw")
}

/// The overlay of a disk for a snapshot: beside the disk, with the machine's id in its name, so that it goes with the machine.
pub(super) fn overlay(disk: &Writable, uuid: uuid::Uuid, label: &str) -> String {
    let directory = Path::new(&disk.file).parent().and_then(Path::to_str).unwrap_or_default();
    format!("{directory}/snapshot-{uuid}-{}.{label}.qcow2", disk.target)
}

impl Inner {
    pub(crate) async fn list_snapshots(&self, handle: &Handle) -> Result<Vec<Snapshot>> {
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        let what = "list the snapshots";
        let current = client.snapshot_current(&domain).await.doing(what)?.map(|snapshot| snapshot.name);
        let mut all = Vec::new();
        for snapshot in client.snapshots(&domain, Snapshots::TOPOLOGICAL).await.doing(what)? {
            match client.snapshot_xml(&snapshot, Xml::NONE).await {
                Ok(text) => all.extend(view(&Element::parse(&text)?, current.as_deref())),
                // It was deleted meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(failed(what, error)),
            }
        }
        Ok(all)
    }

    pub(crate) async fn make_snapshot(&self, handle: &Handle, new: &NewSnapshot) -> Result<Snapshot> {
        vmoon_core::name::check(&new.name)?;
        let what = "make the snapshot";
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        if find(&client, &domain, &new.name).await?.is_some() {
            return Err(Error::new(Code::SnapshotExists, format!("the machine has a snapshot {} already", new.name)));
        }
        let running = domain.id >= 0;
        let xml = Element::parse(&client.domain_xml(&domain, Xml::NONE).await.doing(what)?)?;
        let disks = writable(&xml);
        let libvirt = client.libvirt_version().await.doing(what)?;
        let made = match way(&xml, &disks, running, new.memory, libvirt)? {
            Way::Internal => {
                let asked = Element::new("domainsnapshot").leaf("name", &new.name);
                client.snapshot_create(&domain, &asked.to_text(), SnapshotCreate::NONE).await
            }
            Way::External { memory: true } => {
                let (asked, file) = outside(&new.name, &disks, domain.uuid, true);
                let made = client.snapshot_create(&domain, &asked.to_text(), SnapshotCreate::ATOMIC).await;
                if made.is_err()
                    && let Some(file) = &file
                {
                    Storage { client: &client, local: self.link.endpoint.is_local() }.delete(file).await?;
                }
                match made {
                    // Some devices cannot be saved. Nobody has said that memory must be kept.
                    Err(error) if new.memory.is_none() && error.refusal().is_some() => {
                        tracing::info!(%error, "the memory cannot be kept");
                        disks_only(&client, &domain, &outside(&new.name, &disks, domain.uuid, false).0, running).await
                    }
                    made => made,
                }
            }
            Way::External { memory: false } => {
                disks_only(&client, &domain, &outside(&new.name, &disks, domain.uuid, false).0, running).await
            }
        };
        let made = made.doing(what)?;
        let text = client.snapshot_xml(&made, Xml::NONE).await.doing(what)?;
        let current = client.snapshot_current(&domain).await.doing(what)?.map(|snapshot| snapshot.name);
        view(&Element::parse(&text)?, current.as_deref()).ok_or_else(|| Error::new(Code::WireMalformed, "libvirt describes no snapshot"))
    }

    pub(crate) async fn revert_snapshot(&self, handle: &Handle, name: &str) -> Result<()> {
        let what = "return to the snapshot";
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        let Some(snapshot) = find(&client, &domain, name).await? else {
            return Err(Error::new(Code::SnapshotNotFound, format!("the machine has no snapshot {}", vmoon_core::name::escape(name))));
        };
        let text = client.snapshot_xml(&snapshot, Xml::SECURE).await.doing(what)?;
        let described = Element::parse(&text)?;
        let libvirt = client.libvirt_version().await.doing(what)?;
        if is_external(&described) && libvirt < REVERTS_EXTERNAL {
            self.revert_to_overlays(&client, &domain, &described, &text).await?;
            return self.another_life(&client, &domain).await;
        }
        match client.revert(&snapshot, Revert::NONE).await {
            Err(error) if error.code() == Some(ErrorCode::SNAPSHOT_REVERT_RISKY) => {
                client.revert(&snapshot, Revert::FORCE).await.doing(what)?
            }
            done => done.doing(what)?,
        }
        self.another_life(&client, &domain).await
    }

    /// What runs now is another life: its past is not that of the streams before.
    async fn another_life(&self, client: &Client, domain: &Domain) -> Result<()> {
        let what = "return to the snapshot";
        let Ok(now) = client.domain(domain.uuid).await else { return Ok(()) };
        if now.id >= 0
            && let Some(tag) = look::tag(client, &now).await.doing(what)?
        {
            let element = Tag { life: Some(clock::now_ms()), ..tag }.element().to_text();
            client.set_metadata(&now, Some(&element), PREFIX, NAMESPACE, Affect::LIVE).await.doing(what)?;
        }
        Ok(())
    }

    pub(crate) async fn delete_snapshot(&self, handle: &Handle, name: &str) -> Result<()> {
        let what = "delete the snapshot";
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        let Some(snapshot) = find(&client, &domain, name).await? else { return Ok(()) };
        let described = match client.snapshot_xml(&snapshot, Xml::NONE).await {
            Ok(text) => Element::parse(&text)?,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(failed(what, error)),
        };
        match client.snapshot_delete(&snapshot, SnapshotDelete::NONE).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) if is_external(&described) && (error.is_unsupported() || error.code() == Some(ErrorCode::CONFIG_UNSUPPORTED)) => {
                tracing::debug!(%error, "libvirt does not delete the snapshot by itself");
                self.merge(&client, &domain, &described).await?;
                client.snapshot_delete(&snapshot, SnapshotDelete::METADATA_ONLY).await.doing(what)?;
            }
            Err(error) => return Err(failed(what, error)),
        }
        // An older libvirt merges the overlays and leaves the memory.
        match described.first("memory").and_then(|memory| memory.attribute("file")) {
            Some(file) => Storage { client: &client, local: self.link.endpoint.is_local() }.delete(file).await,
            None => Ok(()),
        }
    }
}

/// A snapshot in overlays, as libvirt is asked for it, and the file of its memory.
fn outside(name: &str, disks: &[Writable], uuid: uuid::Uuid, memory: bool) -> (Element, Option<String>) {
    let label = format!("{name}-{:x}", clock::now_ms());
    let mut list = Element::new("disks");
    for disk in disks {
        let file = overlay(disk, uuid, &label);
        let entry = Element::new("disk").with("name", &disk.target).with("snapshot", "external");
        let entry = entry.child(Element::new("driver").with("type", "qcow2"));
        list = list.child(entry.child(Element::new("source").with("file", file)));
    }
    let mut asked = Element::new("domainsnapshot").leaf("name", name);
    let file = disks.first().filter(|_| memory).map(|disk| memory_file(disk, uuid, &label));
    if let Some(file) = &file {
        asked = asked.child(Element::new("memory").with("snapshot", "external").with("file", file));
    }
    (asked.child(list), file)
}

/// Makes a snapshot of disks in overlays, with the guest's file systems at rest where its agent can do that.
async fn disks_only(client: &Client, domain: &Domain, asked: &Element, running: bool) -> wire::Result<wire::Snapshot> {
    let (text, flags) = (asked.to_text(), SnapshotCreate::DISK_ONLY | SnapshotCreate::ATOMIC);
    if running {
        match client.snapshot_create(domain, &text, flags | SnapshotCreate::QUIESCE).await {
            Err(error) if error.refusal().is_some() => {
                tracing::debug!(%error, "the guest's file systems cannot be brought to rest");
            }
            made => return made,
        }
    }
    client.snapshot_create(domain, &text, flags).await
}

async fn find(client: &Client, domain: &Domain, name: &str) -> Result<Option<wire::Snapshot>> {
    match client.snapshot_named(domain, name).await {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(failed("find the snapshot", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::lead_to;

    fn domain(os: &str, formats: &[&str]) -> Element {
        let disks: String = formats
            .iter()
            .enumerate()
            .map(|(n, format)| format!("<disk device='disk'><driver type='{format}'/><source file='/i/{n}'/><target dev='vd{n}'/></disk>"))
            .collect();
        let seed = "<disk device='disk'><source file='/i/seed'/><target dev='vdz'/><readonly/></disk><disk device='cdrom'><target dev='sda'/></disk>";
        Element::parse(&format!("<domain>{os}<devices>{disks}{seed}</devices></domain>")).unwrap()
    }

    fn chosen(os: &str, formats: &[&str], running: bool, memory: Option<bool>, libvirt: u64) -> Result<Way, Code> {
        let domain = domain(os, formats);
        way(&domain, &writable(&domain), running, memory, libvirt).map_err(|error| error.code())
    }

    #[test]
    fn the_way_follows_from_firmware_disks_and_wishes() {
        let (bios, efi) = ("<os/>", "<os firmware='efi'/>");
        assert_eq!(chosen(bios, &["qcow2"], true, None, 9_000_000), Ok(Way::Internal));
        let (disks, all) = (Ok(Way::External { memory: false }), Ok(Way::External { memory: true }));
        assert_eq!(chosen(bios, &["qcow2"], true, Some(false), 9_000_000), disks);
        assert_eq!(chosen(bios, &["qcow2"], false, Some(false), 9_000_000), Ok(Way::Internal));
        assert_eq!(chosen(bios, &["qcow2", "raw"], true, None, 9_000_000), all);
        assert_eq!(chosen(bios, &["raw"], true, Some(true), 9_000_000), all);
        assert_eq!(chosen(bios, &["raw"], false, None, 9_000_000), disks);
        assert_eq!(chosen(efi, &["qcow2"], true, None, 9_000_000), all);
        assert_eq!(chosen(efi, &["qcow2"], true, Some(true), 9_000_000), all);
        assert_eq!(chosen(efi, &["qcow2"], true, Some(false), 9_000_000), disks);
        assert_eq!(chosen(efi, &["qcow2"], true, Some(true), 10_009_000), Ok(Way::Internal));
        assert_eq!(chosen(bios, &["qcow2"], false, Some(true), 9_000_000), Err(Code::MachineStopped));
        assert_eq!(chosen(bios, &[], true, None, 9_000_000), Err(Code::DriverUnsupported));
    }

    #[test]
    fn a_disk_is_led_elsewhere_and_nothing_else_changes() {
        let mut domain = domain("<os/>", &["raw", "qcow2"]);
        lead_to(&mut domain, "vd0", "/i/new", "qcow2");
        let files: Vec<(String, bool)> = writable(&domain).into_iter().map(|disk| (disk.file, disk.qcow2)).collect();
        assert_eq!(files, [("/i/new".to_owned(), true), ("/i/1".to_owned(), true)]);
    }
}
