//! Disks of machines that exist: making one larger, putting an image into a drive and taking it out.

use super::{
    Inner,
    devices::is_unseen,
    errors::Doing as _,
    snapshots::{Writable, writable},
    storage::{Storage, unseen},
};
use vmoon_core::{
    Code, Error, Result,
    ability::{Change, Effect},
    size,
};
use vmoon_libvirt_wire::{
    Client, Domain,
    flags::{Affect, VolumeResize, Xml},
};
use vmoon_xml::Element;

/// A disk that is to be larger.
pub(crate) struct Growth {
    disk: Writable,
    /// Bytes.
    to: u64,
}

/// A drive and what is to be in it.
pub(crate) struct Insertion {
    drive: Element,
    /// What is in it, and where it is.
    image: Option<(String, String)>,
    /// The same drive as it was.
    former: Option<Element>,
    /// Of what runs, of what is kept, or both.
    of: Affect,
}

/// What is in the drive of that name, if the domain has it.
fn in_drive(domain: &Element, target: &str) -> Option<String> {
    let mut disks = domain.first("devices").into_iter().flat_map(|devices| devices.named("disk"));
    let drive = disks.find(|disk| disk.first("target").and_then(|found| found.attribute("dev")) == Some(target))?;
    Some(drive.first("source").and_then(|source| source.attribute("file")).unwrap_or("nothing").to_owned())
}

/// The first drive of a definition, with this image in it, or empty.
fn with_image(domain: &Element, image: Option<&str>) -> Option<(Element, String)> {
    let drives = domain.first("devices").into_iter().flat_map(|devices| devices.named("disk"));
    let mut drive = drives.into_iter().find(|disk| disk.attribute("device") == Some("cdrom"))?.clone();
    let before = drive.first("source").and_then(|source| source.attribute("file")).unwrap_or("nothing").to_owned();
    drive.set("type", "file");
    drive.remove(|element| matches!(element.name.as_str(), "source" | "backingStore" | "alias" | "address"));
    if let Some(image) = image {
        drive.children.insert(0, vmoon_xml::Node::Element(Element::new("source").with("file", image)));
    }
    Some((drive, before))
}

impl Inner {
    /// What it takes to make the first disk that large.
    pub(crate) async fn plan_growth(
        &self,
        client: &Client,
        domain: &Domain,
        stored: &Element,
        to: u64,
    ) -> Result<Option<(Growth, Change)>> {
        let Some(disk) = writable(stored).into_iter().next() else {
            return Err(Error::new(Code::SpecInvalid, "settings.disk: the machine has no disk"));
        };
        let before = client.block_info(domain, &disk.target).await.doing("look at the disk")?.capacity;
        if to < before {
            let message =
                format!("settings.disk: the disk has {}; it can only become larger, what is on it would be lost", size::show(before));
            return Err(Error::new(Code::SpecInvalid, message));
        }
        let change = Change {
            setting: "disk".into(),
            what: format!("disk {} {} → {}", disk.target, size::show(before), size::show(to)),
            effect: Effect::Now,
        };
        Ok((to > before).then_some((Growth { disk, to }, change)))
    }

    pub(crate) async fn grow(&self, client: &Client, domain: &Domain, growth: &Growth) -> Result<()> {
        let what = "make the disk larger";
        if domain.id >= 0 {
            return client.block_resize(domain, &growth.disk.target, growth.to).await.doing(what);
        }
        let storage = Storage { client, local: self.link.endpoint.is_local() };
        let Some(volume) = storage.volume_at(&growth.disk.file).await? else {
            return Err(Error::new(Code::DriverFailed, format!("{} is in no storage pool", growth.disk.file))
                .hint("start the machine and try again"));
        };
        client.volume_resize(&volume, growth.to, VolumeResize::NONE).await.doing(what)
    }

    /// What it takes to have that image in the first drive; `None` for nothing in it.
    pub(crate) async fn plan_insertion(
        &self,
        client: &Client,
        domain: &Domain,
        stored: &Element,
        image: Option<&str>,
    ) -> Result<Option<(Insertion, Change)>> {
        let Some((drive, before)) = with_image(stored, image) else {
            return Err(Error::new(Code::SpecInvalid, "settings.iso: the machine has no drive")
                .hint("add one: vmoon device add NAME cdrom path=PATH; or create the machine with iso=PATH"));
        };
        let after = image.unwrap_or("nothing");
        let running = domain.id >= 0;
        let live = match running {
            true => Some(Element::parse(&client.domain_xml(domain, Xml::NONE).await.doing("look at the drive")?)?),
            false => None,
        };
        let target = drive.first("target").and_then(|target| target.attribute("dev")).unwrap_or_default().to_owned();
        // A drive that waits for the next start is not there yet; in one that is there the guest may have opened the tray.
        let now = live.as_ref().and_then(|live| in_drive(live, &target));
        if before == after && now.as_ref().is_none_or(|now| now == after) {
            return Ok(None);
        }
        let (of, effect) = match (running, &now) {
            (true, Some(_)) => (Affect::LIVE | Affect::CONFIG, Effect::Now),
            (true, None) => (Affect::CONFIG, Effect::NextStart),
            (false, _) => (Affect::CONFIG, Effect::Now),
        };
        let kept = before.clone();
        let before = now.unwrap_or(before);
        let storage = Storage { client, local: self.link.endpoint.is_local() };
        if let Some(image) = image
            && !storage.exists(image).await?
        {
            return Err(Error::new(Code::SpecInvalid, format!("settings.iso: there is no {image}")));
        }
        let change = Change { setting: "iso".into(), what: format!("in the drive {before} → {after}"), effect };
        let former = with_image(stored, Some(&kept).filter(|kept| *kept != "nothing").map(String::as_str)).map(|(former, _)| former);
        let image = image.map(|image| (target.clone(), image.to_owned()));
        Ok(Some((Insertion { image, former, drive, of }, change)))
    }

    pub(crate) async fn insert(&self, client: &Client, domain: &Domain, insertion: &Insertion) -> Result<()> {
        let what = "change what is in the drive";
        let storage = Storage { client, local: self.link.endpoint.is_local() };
        let done = client.update_device(domain, &insertion.drive.to_text(), insertion.of).await;
        let Some((target, image)) = &insertion.image else { return done.doing(what) };
        match done {
            Err(error) if storage.local && is_unseen(&error) => return Err(unseen(image).source(error)),
            done => done.doing(what)?,
        }
        let seen = if domain.id < 0 { storage.is_seen(domain, target, image).await } else { Ok(()) };
        if let (Err(_), Some(former)) = (&seen, &insertion.former) {
            client.update_device(domain, &former.to_text(), insertion.of).await.doing("put back what was in the drive")?;
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_goes_in_and_out() {
        let xml =
            "<domain><devices><disk device='disk'/><disk type='file' device='cdrom'><source file='/a.iso'/><target dev='sda' bus='sata'/>
            <readonly/><address type='drive'/></disk></devices></domain>";
        let domain = Element::parse(xml).unwrap();
        let (drive, before) = with_image(&domain, Some("/b & c.iso")).unwrap();
        assert!(before == "/a.iso" && drive.to_text().contains("/b &amp; c.iso") && drive.to_text().contains("dev=\"sda\""));
        let (drive, _) = with_image(&domain, None).unwrap();
        assert!(drive.first("source").is_none() && drive.first("readonly").is_some());
        assert!(with_image(&Element::parse("<domain/>").unwrap(), None).is_none());
        assert_eq!((in_drive(&domain, "sda").as_deref(), in_drive(&domain, "sdb")), (Some("/a.iso"), None));
    }
}
