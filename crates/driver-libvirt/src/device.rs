//! Devices of domains: which there are, what may be said of a new one, and whether a running machine can take it. Pure.

use crate::{
    model::{Nic, mac},
    settings::{
        Net,
        value::{Reader, is_name, is_path},
    },
};
use serde_json::{Map, Value};
use std::collections::HashSet;
use vmoon_core::{
    MachineId, Result,
    device::{Device, DeviceKind, NewDevice, Presence, unknown_kind},
    driver::Setting,
    size,
    spec::Problems,
};
use vmoon_xml::Element;

pub(crate) const DISK: &str = "disk";
pub(crate) const CDROM: &str = "cdrom";
pub(crate) const NIC: &str = "nic";

const BUSES: &[&str] = &["virtio", "scsi", "sata", "usb"];
const DRIVES: &[&str] = &["sata", "scsi", "usb"];
const MODELS: &[&str] = &["virtio", "e1000e", "e1000", "rtl8139"];
const CACHES: &[&str] = &["default", "none", "writeback", "writethrough", "directsync", "unsafe"];

const DISK_SETTINGS: &[(&str, &str)] = &[
    ("size", "make an empty disk of this size, for example 20GiB"),
    ("path", "take the image at this absolute path instead, or the one of this name in the pool; it is never deleted"),
    ("format", "qcow2 or raw (default: qcow2 for a new disk, else what the image is)"),
    ("bus", "virtio (default), scsi, sata or usb; a running machine takes all but sata"),
    ("readonly", "yes or no (default no)"),
    ("cache", "default, none, writeback, writethrough, directsync or unsafe (default: the hypervisor's)"),
    ("pool", "the storage pool in which a new disk is made (default: default)"),
];
const CDROM_SETTINGS: &[(&str, &str)] = &[
    ("path", "the absolute path of the image in it, or its name in the pool (default: nothing)"),
    ("bus", "sata (default), scsi or usb; a running machine takes scsi and usb"),
    ("pool", "the storage pool in which an image is looked for by name (default: default)"),
];
const NIC_SETTINGS: &[(&str, &str)] = &[
    ("network", "the libvirt network, bridge:NAME, or user (default: default)"),
    ("model", "virtio (default), e1000e, e1000 or rtl8139"),
    ("mac", "its hardware address (default: one that follows from the machine's)"),
];

/// What can be added.
pub(crate) fn kinds() -> Vec<DeviceKind> {
    let kind = |name: &str, help: &str, settings: &[(&str, &str)]| DeviceKind {
        name: name.into(),
        help: help.into(),
        settings: settings.iter().map(|(name, help)| Setting { name: (*name).into(), help: (*help).into() }).collect(),
    };
    vec![
        kind(DISK, "a disk: a new one, or an image that is there", DISK_SETTINGS),
        kind(CDROM, "a drive for images", CDROM_SETTINGS),
        kind(NIC, "a network card", NIC_SETTINGS),
    ]
}

/// A device that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Disk(WantedDisk),
    Nic { net: Net, model: &'static str, mac: Option<String> },
}

/// A disk or drive that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedDisk {
    pub(crate) cdrom: bool,
    /// Bytes of a new one; 0 if it is none.
    pub(crate) size: u64,
    pub(crate) path: Option<String>,
    pub(crate) format: Option<&'static str>,
    pub(crate) bus: &'static str,
    pub(crate) readonly: bool,
    pub(crate) cache: Option<&'static str>,
    pub(crate) pool: String,
}

/// Reads what is asked for.
///
/// # Errors
/// Every problem, at once.
pub(crate) fn read(new: &NewDevice) -> Result<Wanted> {
    let (known, nic) = match new.kind.as_str() {
        DISK => (DISK_SETTINGS, false),
        CDROM => (CDROM_SETTINGS, false),
        NIC => (NIC_SETTINGS, true),
        other => return Err(unknown_kind(other, &kinds())),
    };
    let mut reader = Reader { values: &new.settings, problems: Problems::default() };
    for name in new.settings.keys().filter(|name| !known.iter().any(|(known, _)| known == name)) {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let message = format!("a {} has no such setting; there are {}", new.kind, names.join(", "));
        reader.add(&vmoon_core::name::escape(name), message);
    }
    let wanted = if nic {
        let what = "the name of a network, bridge:NAME or user";
        let net = reader.text("network", what, |text| crate::settings::net(text).is_some()).and_then(|text| crate::settings::net(&text));
        let mac = reader.text("mac", "a hardware address of one card, 52:54:00:12:34:56", crate::settings::is_mac);
        let model = reader.choice("model", MODELS).unwrap_or("virtio");
        Wanted::Nic { net: net.unwrap_or_else(|| Net::Network("default".into())), model, mac: mac.map(|mac| mac.to_lowercase()) }
    } else {
        disk(&mut reader, new.kind == CDROM)
    };
    Ok(reader.problems.or(wanted)?)
}

fn disk(reader: &mut Reader<'_>, cdrom: bool) -> Wanted {
    let size = reader.size("size", 1 << 20, crate::qcow2::MAX_SIZE).unwrap_or(0);
    let path = reader.text("path", "an absolute path, or the name of a volume of the pool", |text| is_path(text) || is_name(text));
    if !cdrom {
        match (reader.values.contains_key("size"), reader.values.contains_key("path")) {
            (true, true) => reader.add("path", "a disk is either new, with a size, or an image that is there: not both"),
            (false, false) => reader.add("size", "how large is it to be? Or name an image that is there with path"),
            _ => {}
        }
    }
    let readonly = reader.flag("readonly").unwrap_or(cdrom);
    if readonly && size > 0 {
        reader.add("readonly", "a new disk that nobody can write to would stay empty");
    }
    let bus = reader.choice("bus", if cdrom { DRIVES } else { BUSES });
    Wanted::Disk(WantedDisk {
        cdrom,
        size,
        path,
        format: reader.choice("format", &["qcow2", "raw"]),
        bus: bus.unwrap_or(if cdrom { "sata" } else { "virtio" }),
        readonly,
        cache: reader.choice("cache", CACHES),
        pool: reader.text("pool", "the name of a storage pool", is_name).unwrap_or_else(|| "default".into()),
    })
}

/// A device of a definition: its name, and the element that describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) name: String,
    pub(crate) element: &'a Element,
}

impl Part<'_> {
    /// The file or device behind a disk.
    pub(crate) fn file(&self) -> Option<&str> {
        let source = self.element.first("source")?;
        source.attribute("file").or_else(|| source.attribute("dev"))
    }

    pub(crate) fn is_disk(&self) -> bool {
        self.element.name == "disk"
    }

    fn bus(&self) -> &str {
        self.element.first("target").and_then(|target| target.attribute("bus")).unwrap_or_default()
    }

    fn kind(&self) -> &str {
        match self.element.name.as_str() {
            "interface" => NIC,
            _ => self.element.attribute("device").unwrap_or(DISK),
        }
    }

    /// What it is, for people and for programs.
    pub(crate) fn view(&self, presence: Presence, made: bool, bytes: Option<u64>) -> Device {
        let mut facts = Map::new();
        let mut fact = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                facts.insert(name.into(), value.into());
            }
        };
        let what = if self.is_disk() {
            let format = self.element.first("driver").and_then(|driver| driver.attribute("type"));
            fact("bus", Some(self.bus()));
            fact("path", self.file());
            fact("format", format);
            let size = bytes.map(|bytes| format!(" {}", size::show(bytes))).unwrap_or_default();
            let readonly = if self.element.first("readonly").is_some() && self.kind() == DISK { " readonly" } else { "" };
            format!("{}{size} {}{readonly} {}", self.name, self.bus(), self.file().unwrap_or("(empty)"))
        } else {
            let kind = self.element.attribute("type").unwrap_or_default();
            let source = self.element.first("source").and_then(|source| source.attribute(kind));
            let model = self.element.first("model").and_then(|model| model.attribute("type"));
            fact("mac", Some(&self.name));
            fact("type", Some(kind));
            fact(kind, source);
            fact("model", model);
            format!("{} {kind} {} {}", self.name, source.unwrap_or_default(), model.unwrap_or_default()).replace("  ", " ")
        };
        if let Some(bytes) = bytes {
            facts.insert("size_bytes".into(), bytes.into());
        }
        if self.is_disk() && self.element.first("readonly").is_some() {
            facts.insert("readonly".into(), Value::Bool(true));
        }
        Device { name: self.name.clone(), kind: self.kind().into(), what, facts, presence, made }
    }
}

fn devices(domain: &Element) -> impl Iterator<Item = &Element> {
    domain.first("devices").into_iter().flat_map(Element::elements)
}

/// The devices of a definition that can be told of, in its order. Whatever has a name twice is told of once.
pub(crate) fn parts(domain: &Element) -> Vec<Part<'_>> {
    let mut seen = HashSet::new();
    let named = devices(domain).filter_map(|element| {
        let name = match element.name.as_str() {
            "disk" => element.first("target")?.attribute("dev")?.to_owned(),
            "interface" => element.first("mac")?.attribute("address")?.to_lowercase(),
            _ => return None,
        };
        Some(Part { name, element })
    });
    named.filter(|part| seen.insert(part.name.clone())).collect()
}

/// The first name of a disk on that bus that neither definition has.
pub(crate) fn free_target(definitions: &[&Element], bus: &str) -> Option<String> {
    let taken: HashSet<String> = definitions.iter().flat_map(|domain| parts(domain)).map(|part| part.name).collect();
    let prefix = if bus == "virtio" { "vd" } else { "sd" };
    let name = |n: u8| format!("{prefix}{}", char::from(b'a' + n));
    (0..26).map(name).find(|name| !taken.contains(name))
}

/// A hardware address that neither definition has: it follows from the machine's id, so that a plan says what will be.
pub(crate) fn free_mac(definitions: &[&Element], id: MachineId) -> String {
    let taken: HashSet<String> = definitions.iter().flat_map(|domain| parts(domain)).map(|part| part.name).collect();
    (0..256).map(|n| mac(id, n)).find(|mac| !taken.contains(mac)).unwrap_or_else(|| mac(id, 0))
}

/// The card as XML.
pub(crate) fn card(net: &Net, model: &str, mac: &str) -> Element {
    Nic { net: net.clone(), model: model.into(), mac: Some(mac.into()), forwards: Vec::new() }.xml(None, 0)
}

/// Why what runs cannot take, or let go of, a device on that bus; `None` if it can. `plugged` says whether it is to be added and needs a place.
pub(crate) fn not_live(running: &Element, bus: &str, plugged: bool) -> Option<String> {
    if matches!(bus, "sata" | "ide" | "fdc") {
        return Some(format!("a running machine keeps its {bus} devices"));
    }
    let ports: Vec<u32> = devices(running)
        .filter(|element| element.name == "controller" && element.attribute("model") == Some("pcie-root-port"))
        .filter_map(|port| port.attribute("index")?.parse().ok())
        .collect();
    let express = devices(running).any(|element| element.attribute("model") == Some("pcie-root"));
    let has = |kind: &str| devices(running).any(|element| element.name == "controller" && element.attribute("type") == Some(kind));
    let needs_port = match bus {
        "usb" => return (!has("usb")).then(|| "the running machine has no USB controller".into()),
        "scsi" => !has("scsi"),
        _ => true,
    };
    if !(express && plugged && needs_port) {
        return None;
    }
    let bus_of = |element: &Element| {
        let address = element.first("address").filter(|address| address.attribute("type") == Some("pci"))?;
        u32::from_str_radix(address.attribute("bus")?.trim_start_matches("0x"), 16).ok()
    };
    let used: HashSet<u32> = devices(running).filter_map(bus_of).collect();
    ports.iter().all(|port| used.contains(port)).then(|| "the running machine has no PCI Express port left".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn new(kind: &str, settings: Value) -> NewDevice {
        NewDevice { kind: kind.into(), settings: settings.as_object().cloned().unwrap_or_default() }
    }

    #[test]
    fn what_is_asked_for_is_read_and_every_problem_is_told() {
        let Wanted::Disk(disk) = read(&new("disk", json!({"size": "20GiB"}))).unwrap() else { panic!("a disk") };
        assert_eq!((disk.size, disk.bus, disk.readonly, disk.pool.as_str()), (20 << 30, "virtio", false, "default"));
        let Wanted::Nic { net, model, .. } = read(&new("nic", json!({"network": "bridge:br0"}))).unwrap() else { panic!("a card") };
        assert_eq!((net, model), (Net::Bridge("br0".into()), "virtio"));
        assert!(matches!(read(&new("cdrom", json!({}))).unwrap(), Wanted::Disk(WantedDisk { cdrom: true, readonly: true, .. })));
        let problems = [
            ("disk", json!({}), 1),
            ("disk", json!({"size": "1GiB", "path": "/a"}), 1),
            ("disk", json!({"path": "../x", "bus": "ide", "readonly": 7, "colour": "red"}), 4),
            ("disk", json!({"size": "9EiB", "cache": "x"}), 2),
            ("nic", json!({"network": "a/b", "mac": "ff:ff:ff:ff:ff:ff", "model": "ne2k"}), 3),
            ("gpu", json!({}), 1),
        ];
        for (kind, settings, count) in problems {
            let error = read(&new(kind, settings.clone())).unwrap_err();
            assert_eq!(error.message().split("; settings.").count(), count, "{settings}: {error}");
        }
    }

    const RUNNING: &str = "<domain><devices>
        <disk device='disk'><source file='/a'/><target dev='vda' bus='virtio'/><address type='pci' bus='0x01'/></disk>
        <disk device='cdrom'><target dev='sda' bus='sata'/><readonly/><address type='drive'/></disk>
        <controller type='pci' index='0' model='pcie-root'/><controller type='pci' index='1' model='pcie-root-port'><address type='pci' bus='0x00'/></controller>
        <controller type='usb'/><interface type='network'><mac address='52:54:00:AA:00:01'/><source network='default'/><model type='virtio'/></interface>
        </devices></domain>";

    #[test]
    fn devices_are_told_of_and_places_found() {
        let domain = Element::parse(RUNNING).unwrap();
        let all = parts(&domain);
        let names: Vec<(&str, &str)> = all.iter().map(|part| (part.name.as_str(), part.kind())).collect();
        assert_eq!(names, [("vda", "disk"), ("sda", "cdrom"), ("52:54:00:aa:00:01", "nic")]);
        let view = all[2].view(Presence::Kept, false, None);
        assert!(view.what == "52:54:00:aa:00:01 network default virtio" && view.facts["network"] == "default", "{view:?}");
        assert_eq!(all[0].view(Presence::Kept, true, Some(7 << 20)).what, "vda 7 MiB virtio /a");
        assert_eq!((free_target(&[&domain], "virtio").as_deref(), free_target(&[&domain], "usb").as_deref()), (Some("vdb"), Some("sdb")));
        assert!(not_live(&domain, "virtio", true).is_some_and(|why| why.contains("port")) && not_live(&domain, "virtio", false).is_none());
        assert!(not_live(&domain, "sata", false).is_some() && not_live(&domain, "usb", true).is_none());
        let more = RUNNING.replace("<controller type='usb'/>", "<controller type='pci' index='2' model='pcie-root-port'/>");
        let more = Element::parse(&more).unwrap();
        assert!(not_live(&more, "virtio", true).is_none() && not_live(&more, "usb", true).is_some());
    }
}
