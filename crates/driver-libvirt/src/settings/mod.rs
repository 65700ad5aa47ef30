//! The settings of a libvirt machine: what may be asked for, how it is read, and every problem of it at once. Pure.

pub(crate) mod template;
pub(crate) mod value;

use crate::{
    patch::{self, Patch},
    qcow2,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use template::{Guest, Template};
use value::{Reader, is_name, is_path};
use vmoon_core::{
    driver::Setting,
    spec::{MachineSpec, Problems},
};
use vmoon_guest::settings::ENVIRONMENT;
use vmoon_seed::check::{is_hostname, is_package, is_ssh_key, is_user};
use vmoon_xml::Element;

/// The settings, with what they do.
const KNOWN: &[(&str, &str)] = &[
    ("template", "linux-cloud (the default), linux-desktop, windows10 or windows11: what everything below is unless it is said"),
    ("memory", "memory, a size, for example 4GiB"),
    ("cpus", "processors the guest sees"),
    ("sockets", "processor sockets; sockets × cores × threads must be cpus (1 by default)"),
    ("cores", "cores of each socket"),
    ("threads", "threads of each core"),
    ("cpu", "host-passthrough (the default with KVM), host-model, maximum (the default without), or the name of a model"),
    ("accelerator", "kvm, tcg (slow, works everywhere) or auto: KVM if the host has it (the default)"),
    ("machine", "q35 (the default), pc, or an exact machine type of the host"),
    ("firmware", "efi or bios"),
    ("secure-boot", "yes: the firmware runs signed systems only; needs efi"),
    ("tpm", "yes: a TPM 2.0"),
    ("hugepages", "yes: memory from the host's huge pages, which must be reserved"),
    ("pool", "the storage pool for disks and seed (default)"),
    ("disk", "the size of the disk, for example 20GiB; 0 for none. At least that of its base"),
    ("disk-bus", "virtio (the default), scsi, sata (the default for Windows without virtio-win) or usb"),
    ("disk-format", "qcow2 (the default) or raw"),
    ("disk-cache", "none, writeback, writethrough, directsync or unsafe; the hypervisor's choice by default"),
    ("extra-disks", "sizes of more disks, one or a list"),
    ("base", "the image the disk begins as: a path, or the name of a volume of the pool"),
    ("clone", "linked (the default: only changes are stored, the base must stay) or full"),
    ("iso", "images of CD-ROMs, one or a list: paths, or names of volumes of the pool"),
    ("virtio-win", "your image of virtio drivers for Windows, a path or a volume's name"),
    ("network", "NAME of a libvirt network, bridge:NAME, user (no privileges needed) or none; one or a list"),
    ("nic", "the network card: virtio (the default), e1000e (the default for Windows without virtio-win) or rtl8139"),
    ("mac", "hardware addresses, one for each network; made from the machine's id by default"),
    ("forward", "ports of the host that lead into the guest, tcp:HOST:GUEST or udp:HOST:GUEST, one or a list; with network user"),
    ("graphics", "vnc, spice or none; on a private socket of the hypervisor"),
    ("video", "virtio, vga, qxl, bochs or none"),
    ("sound", "yes: a sound card"),
    ("kernel", "a kernel to boot directly, a path on the host"),
    ("initrd", "its initial RAM disk"),
    ("cmdline", "its command line"),
    ("seed", "yes or no: whether a seed tells the guest who it is; yes with a base or any setting of a seed"),
    ("hostname", "the guest's name (the machine's)"),
    ("user", "the user to make in the guest"),
    ("ssh-key", "public SSH keys that may log in, one or a list"),
    (
        "ssh",
        "yes or no: whether the seed lets vmoon in for sessions inside the guest, with its own key and a host key made in advance (yes)",
    ),
    ("packages", "packages to install at the first boot, one or a list"),
    ("user-data", "a file of cloud-init user-data, a path; it has the last word over user, ssh-key and packages"),
    ("locale", "Windows: the language, for example en-US"),
    ("time-zone", "Windows: the time zone (UTC)"),
    ("edition", "Windows: the edition in the image, for example \"Windows 11 Pro\""),
    ("product-key", "Windows: the product key, if you have one"),
    ("autostart", "yes: starts with the host"),
    ("patch", "changes of the XML: a list of {path, attribute, set | remove | append | replace}"),
    ("xml", "the whole domain XML; the settings of hardware may then not be given"),
];

/// Settings that stay meaningful beside raw XML.
const BESIDE_XML: &[&str] = &["template", "autostart", "patch", "xml"];

/// Where the disk's content comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CloneKind {
    #[default]
    Linked,
    Full,
}

/// One network card's other end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Net {
    Network(String),
    Bridge(String),
    User,
}

/// A port of the host that leads into the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forward {
    pub(crate) protocol: String,
    pub(crate) host: u16,
    pub(crate) guest: u16,
}

/// The settings of a machine, checked for themselves, with the template's beneath.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) template: String,
    /// What the template is, for people.
    pub(crate) summary: String,
    pub(crate) guest: Guest,
    pub(crate) drivers: String,
    /// Bytes.
    pub(crate) memory: u64,
    pub(crate) cpus: u32,
    pub(crate) sockets: u32,
    pub(crate) cores: u32,
    pub(crate) threads: u32,
    pub(crate) cpu: Option<String>,
    /// `kvm`, `tcg` or `auto`.
    pub(crate) accelerator: &'static str,
    pub(crate) machine: String,
    pub(crate) efi: bool,
    pub(crate) secure_boot: bool,
    pub(crate) tpm: bool,
    pub(crate) hugepages: bool,
    pub(crate) pool: String,
    /// Bytes; 0 for none.
    pub(crate) disk: u64,
    pub(crate) disk_bus: Option<&'static str>,
    pub(crate) disk_format: &'static str,
    pub(crate) disk_cache: Option<&'static str>,
    pub(crate) extra_disks: Vec<u64>,
    pub(crate) base: Option<String>,
    pub(crate) clone: CloneKind,
    pub(crate) iso: Vec<String>,
    pub(crate) virtio_win: Option<String>,
    pub(crate) networks: Vec<Net>,
    pub(crate) nic: Option<&'static str>,
    pub(crate) macs: Vec<String>,
    pub(crate) forwards: Vec<Forward>,
    /// `vnc`, `spice` or `none`.
    pub(crate) graphics: &'static str,
    pub(crate) video: Option<&'static str>,
    pub(crate) sound: bool,
    pub(crate) kernel: Option<String>,
    pub(crate) initrd: Option<String>,
    pub(crate) cmdline: Option<String>,
    pub(crate) seed: bool,
    pub(crate) hostname: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) ssh_keys: Vec<String>,
    pub(crate) packages: Vec<String>,
    pub(crate) user_data: Option<String>,
    /// Whether the seed lets us in.
    pub(crate) ssh: bool,
    /// What Lua sessions in the guest begin with.
    pub(crate) environment: Option<String>,
    pub(crate) locale: String,
    pub(crate) time_zone: String,
    pub(crate) edition: String,
    pub(crate) product_key: Option<String>,
    pub(crate) autostart: bool,
    pub(crate) patches: Vec<Patch>,
    pub(crate) xml: Option<Element>,
    /// The names of what the user wrote, as opposed to the template: what cannot be had is refused then, not replaced.
    pub(crate) given: BTreeSet<String>,
}

/// The settings and what they do.
pub(crate) fn known() -> Vec<Setting> {
    let own = KNOWN.iter().map(|(name, help)| Setting { name: (*name).into(), help: (*help).into() });
    own.chain(vmoon_guest::settings::known()).collect()
}

fn template<'a>(given: &Map<String, Value>, problems: &mut Problems) -> (&'a str, Option<&'a Template>) {
    let all = template::all();
    let asked = match given.get("template") {
        None => Some(template::DEFAULT),
        Some(value) => value.as_str(),
    };
    if let Some((name, template)) = asked.and_then(|name| all.get_key_value(name)) {
        return (name, Some(template));
    }
    let names: Vec<&str> = all.keys().map(String::as_str).collect();
    problems.add("settings.template", format!("must be one of {}", names.join(", ")));
    (template::DEFAULT, all.get(template::DEFAULT))
}

fn forward(text: &str) -> Option<Forward> {
    let mut parts = text.split(':');
    let (protocol, host, guest) = (parts.next()?, parts.next()?, parts.next()?);
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    (matches!(protocol, "tcp" | "udp") && parts.next().is_none()).then_some(Forward {
        protocol: protocol.into(),
        host: port(host)?,
        guest: port(guest)?,
    })
}

pub(crate) fn net(text: &str) -> Option<Net> {
    match text.split_once(':') {
        Some(("bridge", name)) => (name.len() <= 15 && is_name(name) && !name.is_empty()).then(|| Net::Bridge(name.into())),
        Some(_) => None,
        None if text == "user" => Some(Net::User),
        None => is_name(text).then(|| Net::Network(text.into())),
    }
}

pub(crate) fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let bytes: Option<Vec<u8>> = parts.iter().map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok())?).collect();
    // An address of a group of cards cannot be that of one.
    bytes.is_some_and(|bytes| bytes.len() == 6 && bytes[0] & 1 == 0)
}

impl Settings {
    /// Reads the settings of a specification.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn read(spec: &MachineSpec) -> Result<Self, Problems> {
        let given = &spec.settings;
        let mut problems = Problems::default();
        for name in given.keys().filter(|name| name.as_str() != ENVIRONMENT && !KNOWN.iter().any(|(known, _)| known == name)) {
            problems.add(
                format!("settings.{name}"),
                match vmoon_guest::settings::is_known(name) {
                    true => "is said of a machine that exists: vmoon set",
                    false => "is not a setting of libvirt machines",
                },
            );
        }
        let (template_name, template) = template(given, &mut problems);
        let Some(template) = template else { return Err(problems) };
        let mut values = template.settings.clone();
        values.extend(given.iter().map(|(name, value)| (name.clone(), value.clone())));
        let mut read = Reader { values: &values, problems };

        let cpus = read.count("cpus", 1, 512).unwrap_or(1);
        let topology = [read.count("sockets", 1, 64), read.count("cores", 1, 512), read.count("threads", 1, 8)];
        let threads = topology[2].unwrap_or(1);
        let sockets = topology[0].unwrap_or(1);
        let cores = topology[1].unwrap_or_else(|| (cpus / sockets.max(1) / threads.max(1)).max(1));
        if u64::from(sockets) * u64::from(cores) * u64::from(threads) != u64::from(cpus) {
            let product = format!("sockets × cores × threads is {sockets} × {cores} × {threads}, which is not {cpus}");
            read.add("cpus", product);
        }
        let image = |text: &str| is_path(text) || (is_name(text) && !text.contains('/'));
        let firmware = read.choice("firmware", &["efi", "bios"]).unwrap_or("bios");
        let secure_boot = read.flag("secure-boot").unwrap_or(false);
        if secure_boot && firmware == "bios" {
            read.add("secure-boot", "needs firmware efi");
        }
        let networks = read.texts("network", "a network's name, bridge:NAME, user or none", |text| text == "none" || net(text).is_some());
        let networks: Vec<Net> = networks.unwrap_or_default().iter().filter(|text| *text != "none").filter_map(|text| net(text)).collect();
        let macs = read.texts("mac", "a hardware address, for example 52:54:00:12:34:56", is_mac).unwrap_or_default();
        if macs.len() > networks.len() {
            read.add("mac", format!("there are {} for {} network cards", macs.len(), networks.len()));
        }
        let forwards = read.texts("forward", "tcp:HOST:GUEST or udp:HOST:GUEST", |text| forward(text).is_some()).unwrap_or_default();
        let forwards: Vec<Forward> = forwards.iter().filter_map(|text| forward(text)).collect();
        if !forwards.is_empty() && !networks.contains(&Net::User) {
            read.add("forward", "needs network user; a guest of another network is reached by its own address");
        }
        let graphics = read.choice("graphics", &["vnc", "spice", "none"]).unwrap_or("none");
        let kernel = read.text("kernel", "an absolute path", is_path);
        let initrd = read.text("initrd", "an absolute path", is_path);
        let cmdline = read.text("cmdline", "a text", |_| true);
        if kernel.is_none() {
            for (name, given) in [("initrd", initrd.is_some()), ("cmdline", cmdline.is_some())] {
                if given {
                    read.add(name, "means nothing without a kernel");
                }
            }
        }
        let disk = read.size("disk", 0, qcow2::MAX_SIZE).unwrap_or(0);
        let base = read.text("base", "an absolute path or the name of a volume", image);
        let clone = match read.choice("clone", &["linked", "full"]) {
            Some("full") => CloneKind::Full,
            _ => CloneKind::Linked,
        };
        let disk_format = read.choice("disk-format", &["qcow2", "raw"]).unwrap_or("qcow2");
        if base.is_some() && clone == CloneKind::Linked && disk_format == "raw" {
            read.add("disk-format", "a linked clone is qcow2; ask for clone=full to have it raw");
        }
        if base.is_none() && given.contains_key("clone") {
            read.add("clone", "means nothing without a base");
        }
        if base.is_some() && disk == 0 {
            read.add("disk", "a machine with a base has a disk");
        }
        let hostname = read.text("hostname", "a host name: letters, digits, '-' and '.'", is_hostname);
        let user = read.text("user", "a user's name: letters, digits, '_', '-' and '.'", is_user);
        let ssh_keys =
            read.texts("ssh-key", "a public SSH key, for example \"ssh-ed25519 AAAA… you@host\"", is_ssh_key).unwrap_or_default();
        let packages = read.texts("packages", "a package's name", is_package).unwrap_or_default();
        let user_data = read.text("user-data", "an absolute path", is_path);
        let wanted = ["hostname", "user", "ssh-key", "user-data", "locale", "edition", "product-key", "time-zone"];
        let ssh = read.flag("ssh");
        let asked =
            base.is_some() || ssh == Some(true) || wanted.iter().any(|name| given.contains_key(*name)) || given.contains_key("packages");
        let unattended = template.guest == Guest::Windows && given.contains_key("iso");
        let seed = read.flag("seed").unwrap_or(asked || unattended);
        if !seed && ssh == Some(true) {
            read.add("ssh", "is put in by a seed, and seed is no");
        }
        if !seed {
            for name in wanted.iter().chain(&["packages"]).filter(|name| given.contains_key(**name)) {
                read.add(name, "is told to the guest by a seed, and seed is no");
            }
        }
        let lets_in = seed && template.guest == Guest::Linux && ssh.unwrap_or(true);
        let environment = match given.get(ENVIRONMENT).map(vmoon_guest::settings::environment) {
            Some(Err(why)) => {
                read.add(ENVIRONMENT, why);
                None
            }
            Some(Ok(_)) if !lets_in => {
                read.add(ENVIRONMENT, "is sent into the guest over SSH, and nothing would let vmoon in: it needs a seed, and ssh not no");
                None
            }
            Some(Ok(name)) => Some(name.to_owned()),
            None => None,
        };
        for (name, guest) in [
            ("ssh-key", Guest::Linux),
            ("ssh", Guest::Linux),
            ("packages", Guest::Linux),
            ("user-data", Guest::Linux),
            ("locale", Guest::Windows),
            ("time-zone", Guest::Windows),
            ("edition", Guest::Windows),
            ("product-key", Guest::Windows),
            ("virtio-win", Guest::Windows),
        ] {
            if given.contains_key(name) && template.guest != guest {
                read.add(name, format!("is not for the template {template_name}"));
            }
        }
        let patches = match values.get("patch") {
            Some(list) => patch::read(list, "settings.patch", &mut read.problems),
            None => Vec::new(),
        };
        let xml = raw_xml(given, &mut read);
        let settings = Self {
            template: template_name.to_owned(),
            summary: template.summary.clone(),
            guest: template.guest,
            drivers: template.drivers.clone(),
            memory: read.size("memory", 1 << 20, 64 << 40).unwrap_or(1 << 30),
            cpus,
            sockets,
            cores,
            threads,
            cpu: read.text("cpu", "host-passthrough, host-model, maximum or the name of a model", is_package),
            accelerator: read.choice("accelerator", &["auto", "kvm", "tcg"]).unwrap_or("auto"),
            machine: read.text("machine", "q35, pc or a machine type", is_package).unwrap_or_else(|| "q35".into()),
            efi: firmware == "efi",
            secure_boot,
            tpm: read.flag("tpm").unwrap_or(false),
            hugepages: read.flag("hugepages").unwrap_or(false),
            pool: read.text("pool", "the name of a storage pool", is_name).unwrap_or_else(|| "default".into()),
            disk,
            disk_bus: read.choice("disk-bus", &["virtio", "scsi", "sata", "usb"]),
            disk_format,
            disk_cache: read.choice("disk-cache", &["none", "writeback", "writethrough", "directsync", "unsafe"]),
            extra_disks: read.sizes("extra-disks", 1, qcow2::MAX_SIZE),
            base,
            clone,
            iso: read.texts("iso", "an absolute path or the name of a volume", image).unwrap_or_default(),
            virtio_win: read.text("virtio-win", "an absolute path or the name of a volume", image),
            networks,
            nic: read.choice("nic", &["virtio", "e1000e", "rtl8139"]),
            macs,
            forwards,
            graphics,
            video: read.choice("video", &["virtio", "vga", "qxl", "bochs", "none"]),
            sound: read.flag("sound").unwrap_or(false),
            kernel,
            initrd,
            cmdline,
            seed,
            hostname,
            user,
            ssh_keys,
            packages,
            user_data,
            ssh: lets_in,
            environment,
            locale: read.text("locale", "a language, for example en-US", is_package).unwrap_or_else(|| "en-US".into()),
            time_zone: read.text("time-zone", "a time zone of Windows", |text| text.len() <= 64).unwrap_or_else(|| "UTC".into()),
            edition: read.text("edition", "an edition", |text| text.len() <= 64).unwrap_or_else(|| template.edition.clone()),
            product_key: read.text("product-key", "a product key", is_package),
            autostart: read.flag("autostart").unwrap_or(false),
            patches,
            xml,
            given: given.keys().cloned().collect(),
        };
        read.problems.or(settings)
    }
}

fn raw_xml(given: &Map<String, Value>, read: &mut Reader<'_>) -> Option<Element> {
    let value = given.get("xml")?;
    for name in given.keys().filter(|name| !BESIDE_XML.contains(&name.as_str()) && KNOWN.iter().any(|(known, _)| known == name)) {
        read.add(name, "cannot be given beside xml, which says everything; use patch to change it");
    }
    let Some(text) = value.as_str() else {
        read.add("xml", "must be the text of a domain's XML");
        return None;
    };
    match Element::parse(text) {
        Ok(root) if root.name == "domain" => Some(root),
        Ok(root) => {
            let found: String = vmoon_core::name::escape(&root.name).chars().take(40).collect();
            read.add("xml", format!("must be a <domain>, not a <{found}>"));
            None
        }
        Err(error) => {
            read.add("xml", error.message().to_owned());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(settings: Value) -> Result<Settings, Problems> {
        let Value::Object(settings) = settings else { panic!("settings are an object") };
        Settings::read(&MachineSpec { kind: "libvirt".into(), settings, ..MachineSpec::default() })
    }

    #[test]
    fn templates_are_beneath_what_is_said() {
        let windows = read(json!({"template": "windows11", "memory": "6GiB"})).unwrap();
        assert!(windows.secure_boot && windows.tpm && windows.efi && windows.guest == Guest::Windows);
        assert_eq!((windows.memory, windows.cores, windows.disk), (6 << 30, 4, 80 << 30));
        assert_eq!(read(json!({})).unwrap().networks, [Net::Network("default".into())]);
    }

    #[test]
    fn every_setting_refuses_nonsense_by_its_name() {
        let mut settings = Map::new();
        for (name, _) in KNOWN {
            settings.insert((*name).into(), json!([[null]]));
        }
        let problems = read(settings.clone().into()).unwrap_err();
        for name in settings.keys() {
            let path = format!("settings.{name}");
            assert!(problems.0.iter().any(|problem| problem.path.starts_with(&path)), "{path}: {problems:?}");
        }
    }

    #[test]
    fn contradictions_are_named() {
        for (bad, path) in [
            (json!({"cpus": 6, "sockets": 2, "cores": 4}), "settings.cpus"),
            (json!({"secure-boot": true, "firmware": "bios"}), "settings.secure-boot"),
            (json!({"forward": "tcp:2222:22"}), "settings.forward"),
            (json!({"mac": ["52:54:00:00:00:01", "52:54:00:00:00:02"]}), "settings.mac"),
            (json!({"mac": "01:00:00:00:00:00"}), "settings.mac"),
            (json!({"initrd": "/x"}), "settings.initrd"),
            (json!({"base": "b", "disk-format": "raw"}), "settings.disk-format"),
            (json!({"clone": "full"}), "settings.clone"),
            (json!({"seed": false, "user": "x"}), "settings.user"),
            (json!({"locale": "de-DE"}), "settings.locale"),
            (json!({"xml": "<domain/>", "memory": "1GiB"}), "settings.memory"),
            (json!({"xml": "<network/>"}), "settings.xml"),
            (json!({"iso": "../../etc/shadow"}), "settings.iso"),
            (json!({"pool": "a/../b"}), "settings.pool"),
            (json!({"user": "--help"}), "settings.user"),
            (json!({"hostname": "x\n"}), "settings.hostname"),
            (json!({"cmdline": "\u{1b}"}), "settings.cmdline"),
            (json!({"ssh-key": "ssh-rsa x\nssh-rsa y"}), "settings.ssh-key"),
            (json!({"template": "macos"}), "settings.template"),
        ] {
            // The kernel that a command line needs is not what this is about.
            let mut asked = bad.clone();
            if asked.get("cmdline").is_some() {
                asked["kernel"] = "/k".into();
            }
            let problems = read(asked).unwrap_err();
            assert!(problems.0.iter().any(|problem| problem.path == path), "{bad}: {problems:?}");
        }
    }
}
