//! A planned machine as a domain's XML, and our tags in it. Pure: the same plan gives the same text.
//!
//! Which elements and why: libvirt's `formatdomain`; no path of a firmware, no versioned machine type and no emulator is named,
//! libvirt chooses them and keeps its choice in the definition.

use crate::{
    model::{Blueprint, Cpu, Disk, Domain, Hardware, Nic, Source, mac},
    settings::{Net, template::Guest},
};
use vmoon_core::{Error, MachineId, Result};
use vmoon_xml::Element;

/// The namespace of our elements in a domain's metadata.
pub(crate) const NAMESPACE: &str = "urn:vmoon:libvirt:1";
/// The prefix we write it with.
pub(crate) const PREFIX: &str = "vmoon";
/// Ports for devices that are plugged in later; without spare ones hot-plugging on q35 fails.
const SPARE_PORTS: usize = 8;

/// What our element in the metadata says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) id: MachineId,
    /// Written last.
    pub(crate) complete: bool,
    pub(crate) template: String,
    /// Only in the description of what runs: which life it is.
    pub(crate) life: Option<u64>,
}

impl Tag {
    /// The element, as `virDomainSetMetadata` takes it: libvirt adds the namespace.
    pub(crate) fn element(&self) -> Element {
        Element::new("machine")
            .with("id", self.id)
            .with("complete", if self.complete { "yes" } else { "no" })
            .with("template", &self.template)
            .with_some("life", self.life)
    }

    /// Reads our element.
    pub(crate) fn read(element: &Element) -> Option<Self> {
        Some(Self {
            id: element.attribute("id")?.parse().ok()?,
            complete: element.attribute("complete") == Some("yes"),
            template: element.attribute("template").unwrap_or_default().to_owned(),
            life: element.attribute("life").and_then(|life| life.parse().ok()),
        })
    }

    /// The tag in a domain's XML, if it bears one of ours: an element of our namespace, by whatever prefix.
    pub(crate) fn of_domain(domain: &Element) -> Option<Self> {
        domain.first("metadata")?.elements().find_map(|element| {
            let (prefix, name) = element.name.split_once(':')?;
            let declared = element.attribute(&format!("xmlns:{prefix}"));
            (name == "machine" && declared == Some(NAMESPACE)).then(|| Self::read(element))?
        })
    }

    fn write_into(&self, domain: &mut Element) {
        let mut ours = self.element();
        ours.name = format!("{PREFIX}:machine");
        ours.set(&format!("xmlns:{PREFIX}"), NAMESPACE);
        let metadata = domain.ensure("metadata");
        metadata.remove(|element| {
            element
                .name
                .split_once(':')
                .is_some_and(|(prefix, name)| name == "machine" && element.attribute(&format!("xmlns:{prefix}")) == Some(NAMESPACE))
        });
        metadata.children.push(vmoon_xml::Node::Element(ours));
    }
}

impl Blueprint {
    /// The domain's XML. Without an id it is what a plan shows: without UUID, tags and hardware addresses.
    ///
    /// # Errors
    /// A change of the user's list that does not fit.
    pub(crate) fn xml(&self, id: Option<MachineId>, complete: bool) -> Result<Element> {
        let mut domain = match &self.hardware {
            Hardware::Ours(domain) => domain.xml(self, id),
            Hardware::Raw(text) => {
                let mut domain = Element::parse(text)?;
                for volume in &self.volumes {
                    lead_to(&mut domain, &volume.target, &self.path_of(id, volume), &volume.format);
                }
                domain
            }
        };
        for (n, patch) in self.patches.iter().enumerate() {
            patch.apply(&mut domain).map_err(|why| Error::new(vmoon_core::Code::SpecInvalid, format!("settings.patch[{n}]: {why}")))?;
        }
        domain.remove(|element| matches!(element.name.as_str(), "name" | "uuid"));
        let mut first = vec![Element::new("name").text(&self.name)];
        first.extend(id.map(|id| Element::new("uuid").text(id)));
        let rest = std::mem::take(&mut domain.children);
        domain = domain.all(first);
        domain.children.extend(rest);
        if let Some(id) = id {
            Tag { id, complete, template: self.template.clone(), life: None }.write_into(&mut domain);
        }
        Ok(domain)
    }
}

/// Leads a disk of a definition to another file.
pub(crate) fn lead_to(domain: &mut Element, target: &str, file: &str, format: &str) {
    let disks = domain.first_mut("devices").into_iter().flat_map(Element::elements_mut);
    for disk in disks.filter(|disk| disk.name == "disk") {
        if disk.first("target").and_then(|found| found.attribute("dev")) != Some(target) {
            continue;
        }
        disk.set("type", "file");
        disk.remove(|element| element.name == "backingStore");
        let source = disk.ensure("source");
        source.attributes.clear();
        source.children.clear();
        source.set("file", file);
        disk.ensure("driver").set("type", format);
    }
}

impl Domain {
    fn xml(&self, blueprint: &Blueprint, id: Option<MachineId>) -> Element {
        let mut root = Element::new("domain").with("type", &self.kind);
        if id.is_some() {
            root = root.child(Element::new("metadata"));
        }
        root = root.child(Element::new("memory").with("unit", "KiB").text(self.memory.div_ceil(1024)));
        if self.hugepages {
            root = root.child(Element::new("memoryBacking").child(Element::new("hugepages")));
        }
        root = root.child(Element::new("vcpu").with("placement", "static").text(self.cpus));
        root.child(self.os())
            .child(self.features())
            .all(self.cpu())
            .child(self.clock())
            .leaf("on_poweroff", "destroy")
            .leaf("on_reboot", "restart")
            .leaf("on_crash", "destroy")
            .all(self.pm())
            .child(self.devices(blueprint, id))
    }

    fn os(&self) -> Element {
        let mut os = Element::new("os");
        if self.efi {
            os.set("firmware", "efi");
        }
        os = os.child(Element::new("type").with("arch", &self.arch).with("machine", &self.machine).text("hvm"));
        if self.efi {
            let state = if self.secure_boot { "yes" } else { "no" };
            let feature = |name: &str| Element::new("feature").with("enabled", state).with("name", name);
            os = os.child(Element::new("firmware").child(feature("secure-boot")).child(feature("enrolled-keys")));
            if self.secure_boot {
                os = os.child(Element::new("loader").with("secure", "yes"));
            }
        }
        if let Some(kernel) = &self.kernel {
            os = os.leaf("kernel", &kernel.kernel);
            for (name, value) in [("initrd", &kernel.initrd), ("cmdline", &kernel.cmdline)] {
                if let Some(value) = value {
                    os = os.leaf(name, value);
                }
            }
        }
        os
    }

    fn features(&self) -> Element {
        let mut features = Element::new("features").child(Element::new("acpi")).child(Element::new("apic"));
        if !self.hyperv.is_empty() {
            let mut hyperv = Element::new("hyperv").with("mode", "custom");
            for name in &self.hyperv {
                let feature = Element::new(name.as_str()).with("state", "on");
                hyperv = hyperv.child(match name.as_str() {
                    "spinlocks" => feature.with("retries", 8191),
                    "stimer" => feature.child(Element::new("direct").with("state", "on")),
                    _ => feature,
                });
            }
            features = features.child(hyperv);
        }
        if self.guest == Guest::Windows && self.arch == "x86_64" {
            features = features.child(Element::new("vmport").with("state", "off"));
        }
        if self.secure_boot {
            features = features.child(Element::new("smm").with("state", "on"));
        }
        features
    }

    fn cpu(&self) -> Option<Element> {
        let cpu = Element::new("cpu");
        let cpu = match &self.cpu {
            Cpu::Default if self.topology == [self.cpus, 1, 1] => return None,
            Cpu::Default => cpu,
            Cpu::Mode(mode) if mode == "host-passthrough" => cpu.with("mode", mode).with("check", "none").with("migratable", "on"),
            Cpu::Mode(mode) => cpu.with("mode", mode),
            Cpu::Model(model) => {
                let model = Element::new("model").with("fallback", "forbid").text(model);
                cpu.with("mode", "custom").with("match", "exact").child(model)
            }
        };
        let [sockets, cores, threads] = self.topology;
        let topology = Element::new("topology").with("sockets", sockets).with("dies", 1).with("cores", cores).with("threads", threads);
        Some(cpu.child(topology))
    }

    fn clock(&self) -> Element {
        let timer = |name: &str| Element::new("timer").with("name", name);
        let windows = self.guest == Guest::Windows;
        let mut clock = Element::new("clock").with("offset", if windows { "localtime" } else { "utc" });
        if self.arch == "x86_64" {
            clock = clock
                .child(timer("rtc").with("tickpolicy", "catchup"))
                .child(timer("pit").with("tickpolicy", "delay"))
                .child(timer("hpet").with("present", "no"));
        }
        if windows && !self.hyperv.is_empty() {
            clock = clock.child(timer("hypervclock").with("present", "yes"));
        }
        clock
    }

    fn pm(&self) -> Option<Element> {
        // A Windows guest that sleeps by itself looks hung; with Secure Boot it does not wake up.
        let no = |name: &str| Element::new(name).with("enabled", "no");
        (self.guest == Guest::Windows).then(|| Element::new("pm").child(no("suspend-to-mem")).child(no("suspend-to-disk")))
    }

    fn devices(&self, blueprint: &Blueprint, id: Option<MachineId>) -> Element {
        let mut devices = Element::new("devices");
        devices = devices.all(self.disks.iter().map(|disk| disk.xml(blueprint, id)));
        if self.disks.iter().any(|disk| disk.bus == "scsi") {
            devices = devices.child(Element::new("controller").with("type", "scsi").with("index", 0).with("model", "virtio-scsi"));
        }
        if self.machine.contains("q35") || self.machine == "virt" {
            let port = || Element::new("controller").with("type", "pci").with("model", "pcie-root-port");
            devices = devices.child(Element::new("controller").with("type", "pci").with("index", 0).with("model", "pcie-root"));
            devices = devices.all((0..SPARE_PORTS + self.disks.len() + self.nics.len()).map(|_| port()));
        }
        devices =
            devices.child(Element::new("controller").with("type", "usb").with("index", 0).with("model", "qemu-xhci").with("ports", 15));
        devices = devices.all(self.nics.iter().enumerate().map(|(n, nic)| nic.xml(id, n)));
        devices = devices
            .child(Element::new("serial").with("type", "pty").child(Element::new("target").with("port", 0)))
            .child(Element::new("console").with("type", "pty").child(Element::new("target").with("type", "serial").with("port", 0)));
        let channel = |kind: &str, name: &str| {
            let target = Element::new("target").with("type", "virtio").with("name", name);
            Element::new("channel").with("type", kind).child(target)
        };
        devices = devices.child(channel("unix", "org.qemu.guest_agent.0"));
        if self.graphics.as_deref() == Some("spice") {
            devices = devices.child(channel("spicevmc", "com.redhat.spice.0"));
        }
        if self.graphics.is_some() {
            devices = devices.child(Element::new("input").with("type", "tablet").with("bus", "usb"));
        }
        if self.tpm {
            let backend = Element::new("backend").with("type", "emulator").with("version", "2.0");
            devices = devices.child(Element::new("tpm").with("model", "tpm-crb").child(backend));
        }
        if let Some(graphics) = &self.graphics {
            // On a socket of the hypervisor: no port is open, and no password pretends to protect one.
            let listen = Element::new("listen").with("type", "socket");
            devices = devices.child(Element::new("graphics").with("type", graphics).child(listen));
        }
        if self.sound {
            devices = devices.child(Element::new("sound").with("model", "ich9"));
        }
        if let Some(video) = &self.video {
            devices = devices.child(Element::new("video").child(Element::new("model").with("type", video)));
        }
        devices = devices.child(Element::new("memballoon").with("model", "virtio").with("freePageReporting", "on"));
        if self.rng {
            let backend = Element::new("backend").with("model", "random").text("/dev/urandom");
            devices = devices.child(Element::new("rng").with("model", "virtio").child(backend));
        }
        devices
    }
}

impl Disk {
    fn xml(&self, blueprint: &Blueprint, id: Option<MachineId>) -> Element {
        let path = match &self.source {
            Source::Path(path) => path.clone(),
            Source::Made => blueprint
                .volumes
                .iter()
                .find(|volume| volume.target == self.target)
                .map(|volume| blueprint.path_of(id, volume))
                .unwrap_or_default(),
        };
        let files = matches!(self.source, Source::Path(_)) || blueprint.pool.as_ref().is_none_or(|pool| pool.files);
        self.element(path, files)
    }

    /// The disk as XML, with what is at that path: a file, or a device of the host.
    pub(crate) fn element(&self, path: String, files: bool) -> Element {
        let (kind, attribute) = if files { ("file", "file") } else { ("block", "dev") };
        let mut driver = Element::new("driver").with("name", "qemu").with("type", &self.format).with_some("cache", self.cache.as_deref());
        if !self.readonly {
            driver = driver.with("discard", "unmap").with("detect_zeroes", "unmap");
        }
        let mut disk = Element::new("disk")
            .with("type", kind)
            .with("device", if self.cdrom { "cdrom" } else { "disk" })
            .child(driver)
            .child(Element::new("source").with(attribute, path))
            .child(Element::new("target").with("dev", &self.target).with("bus", &self.bus));
        if let Some(order) = self.boot {
            disk = disk.child(Element::new("boot").with("order", order));
        }
        if self.readonly { disk.child(Element::new("readonly")) } else { disk }
    }
}

impl Nic {
    /// The card as XML: the n-th of a machine, whose id gives it an address if it has none.
    pub(crate) fn xml(&self, id: Option<MachineId>, n: usize) -> Element {
        let kind = match &self.net {
            Net::Network(_) => "network",
            Net::Bridge(_) => "bridge",
            Net::User => "user",
        };
        let mut nic = Element::new("interface").with("type", kind);
        if let Some(mac) = self.mac.clone().or_else(|| id.map(|id| mac(id, n))) {
            nic = nic.child(Element::new("mac").with("address", mac));
        }
        match &self.net {
            Net::Network(name) => nic = nic.child(Element::new("source").with("network", name)),
            Net::Bridge(name) => nic = nic.child(Element::new("source").with("bridge", name)),
            Net::User => {}
        }
        if !self.forwards.is_empty() {
            nic = nic.child(Element::new("backend").with("type", "passt"));
        }
        for forward in &self.forwards {
            let range = Element::new("range").with("start", forward.host).with("to", forward.guest);
            nic = nic.child(Element::new("portForward").with("proto", &forward.protocol).child(range));
        }
        nic.child(Element::new("model").with("type", &self.model))
    }
}
