//! Full copies of machines that are off: their disks are copied by libvirt, everything that names one machine is new. Linked clones are machines whose `base` is
//! another's disk.

use super::{Inner, errors::Doing as _, host, snapshots::writable};
use crate::{
    model::{Blueprint, Content, Hardware, NewVolume, PoolRef, is_made_for},
    render::Tag,
    settings::CloneKind,
};
use vmoon_core::{
    Code, Error, MachineId, Result,
    driver::{BEWARE, Handle, Plan},
};
use vmoon_libvirt_wire::flags::Xml;
use vmoon_xml::Element;

/// The seeds that were made for this machine, by target: disks that are not written to.
fn seeds(domain: &Element, id: MachineId) -> Vec<(String, String)> {
    let disks = domain.first("devices").into_iter().flat_map(|devices| devices.named("disk"));
    disks
        .filter(|disk| disk.attribute("device").unwrap_or("disk") == "disk" && disk.first("readonly").is_some())
        .filter_map(|disk| Some((disk.first("target")?.attribute("dev")?.to_owned(), disk.first("source")?.attribute("file")?.to_owned())))
        .filter(|(_, file)| is_made_for(file.rsplit('/').next().unwrap_or_default(), id))
        .collect()
}

/// The definition without what names this one machine, and without disks that are not written to, but for those at these targets.
fn anonymous(mut domain: Element, kept: &[NewVolume]) -> Element {
    domain.remove(|element| matches!(element.name.as_str(), "name" | "uuid" | "genid"));
    if let Some(os) = domain.first_mut("os") {
        // libvirt makes new firmware variables.
        os.remove(|element| element.name == "nvram");
    }
    if let Some(devices) = domain.first_mut("devices") {
        let is_disk = |element: &Element| element.name == "disk" && element.attribute("device").unwrap_or("disk") == "disk";
        let target = |element: &Element| element.first("target").and_then(|target| target.attribute("dev")).map(str::to_owned);
        let is_kept = |element: &Element| kept.iter().any(|volume| target(element).as_ref() == Some(&volume.target));
        devices.remove(|element| is_disk(element) && element.first("readonly").is_some() && !is_kept(element));
        for card in devices.elements_mut().filter(|element| element.name == "interface") {
            card.remove(|element| element.name == "mac");
        }
    }
    domain
}

impl Inner {
    /// The plan of a copy.
    pub(crate) async fn plan_copy(&self, name: &str, original: &Handle) -> Result<Plan> {
        let what = "look at the machine";
        let client = self.link.client().await?;
        let domain = self.domain(&client, original).await?;
        let mut reasons = Vec::new();
        if domain.id >= 0 {
            reasons.push("it runs, and its disks change while they are copied: stop it first".to_owned());
        }
        if client.has_managed_save(&domain).await.doing(what)? {
            reasons.push("its memory is saved and belongs to its disks: resume and stop it first".to_owned());
        }
        let xml = Element::parse(&client.domain_xml(&domain, Xml::INACTIVE | Xml::SECURE).await.doing(what)?)?;
        let disks = writable(&xml);
        let pools = host::pools(&client).await?;
        let mut pool: Option<PoolRef> = None;
        for disk in &disks {
            let directory = disk.file.rsplit_once('/').map(|(directory, _)| directory).unwrap_or_default();
            match pools.iter().find(|pool| pool.active && pool.holds_files() && pool.target == directory) {
                None => reasons.push(format!("{} is in no active storage pool of files, so libvirt cannot copy it", disk.file)),
                Some(found) if pool.as_ref().is_some_and(|pool| pool.name != found.name) => {
                    reasons.push("its disks are in more than one storage pool".to_owned());
                }
                Some(found) => pool = Some(PoolRef { name: found.name.clone(), target: found.target.clone(), files: true }),
            }
        }
        if !reasons.is_empty() {
            let message = format!("{} cannot be copied: {}", vmoon_core::name::escape(&domain.name), reasons.join("; "));
            return Err(Error::new(Code::MachineNotCopyable, message).detail(reasons.into()));
        }
        let mut steps = Vec::new();
        let mut volumes = Vec::new();
        for disk in disks {
            steps.push(format!("copy {}, all of it", disk.file));
            let content = Content::Base { path: disk.file, clone: CloneKind::Full };
            let format = if disk.qcow2 { "qcow2" } else { "raw" };
            volumes.push(NewVolume { target: disk.target, format: format.into(), size: 0, content });
        }
        // Without a seed cloud-init takes the system for a new one, makes other host keys, and asks nobody who may log in. With just the same it takes it for the old
        // one, and what it had set up for the original's network card is not set up for this one.
        for (target, path) in seeds(&xml, MachineId::from_uuid(domain.uuid)) {
            if pool.as_ref().is_some_and(|pool| path.rsplit_once('/').is_some_and(|(directory, _)| directory == pool.target)) {
                steps.push(format!(
                    "copy {path}, the seed, as that of another instance: cloud-init sets the system up once more, with the same keys"
                ));
                let content = Content::Again { path };
                volumes.push(NewVolume { target, format: "raw".into(), size: 0, content });
            }
        }
        steps.push(format!(
            "define {name} like {}, with an id, addresses and firmware variables of its own",
            vmoon_core::name::escape(&domain.name)
        ));
        steps.push(format!(
            "{BEWARE}the system in it is the same, with its host name, SSH host keys and machine id, by which a network may take both for one"
        ));
        let entered = self.guests.as_ref().is_some_and(|guests| guests.is_known(&original.0));
        let shown = vmoon_core::name::escape(&domain.name);
        steps.push(match entered {
            true => format!("enter it as {shown} is entered: the same login, the same keys"),
            false => format!("nobody has said how {shown} is entered, so its copy is not; if you know: vmoon set {name} ssh-user=USER"),
        });
        let blueprint = Blueprint {
            name: name.to_owned(),
            template: Tag::of_domain(&xml).map(|tag| tag.template).unwrap_or_default(),
            hardware: Hardware::Raw(anonymous(xml, &volumes).to_text()),
            volumes,
            pool,
            seed: None,
            environment: None,
            copy_of: entered.then(|| original.0.clone()),
            needs: Vec::new(),
            autostart: false,
            patches: Vec::new(),
        };
        let settings = serde_json::to_value(&blueprint).map_err(|error| Error::internal("a plan cannot be written").source(error))?;
        Ok(Plan { name: name.to_owned(), steps, settings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_one_machine_is_gone_and_the_rest_stays() {
        let xml = "<domain type='kvm'><name>a</name><uuid>u</uuid><os firmware='efi'><type>hvm</type><nvram>/n</nvram></os><devices>
            <disk device='disk'><target dev='vda'/></disk><disk type='file'><target dev='vdb'/><readonly/></disk>
            <disk device='cdrom'><target dev='sda'/><readonly/></disk>
            <interface type='network'><mac address='x'/><source network='n'/></interface></devices></domain>";
        let left = anonymous(Element::parse(xml).unwrap(), &[]).to_text();
        for gone in ["<name>", "<uuid>", "nvram", "vdb", "<mac"] {
            assert!(!left.contains(gone), "{gone}: {left}");
        }
        for kept in ["vda", "sda", "network=\"n\"", "firmware=\"efi\"", "type=\"kvm\""] {
            assert!(left.contains(kept), "{kept}: {left}");
        }
    }
}
