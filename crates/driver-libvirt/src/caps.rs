//! What a host offers, read from libvirt's own descriptions: the input of every plan. Pure.
//!
//! Sources: `virConnectGetDomainCapabilities` (schema `domaincaps.rng`), lists of pools and networks. Nothing is assumed that is
//! not said there: firmware, Hyper-V enlightenments, TPM, graphics.

use serde::{Deserialize, Serialize};
use vmoon_core::Result;
use vmoon_xml::Element;

/// A host and what is on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Host {
    /// The hypervisor's URI, for example `qemu:///system`.
    pub(crate) uri: String,
    /// Whether machines run as this user and not as the system's.
    pub(crate) session: bool,
    /// Whether the hypervisor's files are on this computer.
    pub(crate) local: bool,
    /// The version of libvirt: major × 1 000 000 + minor × 1 000 + release.
    pub(crate) libvirt: u64,
    /// The version of the hypervisor, likewise.
    pub(crate) hypervisor: u64,
    /// For example `x86_64`.
    pub(crate) arch: String,
    pub(crate) cpus: u32,
    /// Bytes.
    pub(crate) memory: u64,
    /// What machines with KVM can have; absent where the host has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kvm: Option<DomainCaps>,
    /// Why there is no KVM, where libvirt offers it and the host cannot have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kvm_refused: Option<String>,
    /// What of the processor KVM rests on, if it is known: `vmx` or `svm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) virtualization: Option<String>,
    /// What machines without can have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tcg: Option<DomainCaps>,
    pub(crate) pools: Vec<Pool>,
    pub(crate) networks: Vec<Network>,
}

/// What one kind of domain can have on the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DomainCaps {
    pub(crate) emulator: String,
    /// The exact machine type that was asked about, for example `pc-q35-7.2`.
    pub(crate) machine: String,
    pub(crate) vcpus: u32,
    /// `bios`, `efi`.
    pub(crate) firmware: Vec<String>,
    /// Whether firmware can enforce Secure Boot.
    pub(crate) secure_boot: bool,
    /// Modes that are supported: `host-passthrough`, `maximum`, `host-model`, `custom`.
    pub(crate) cpu_modes: Vec<String>,
    /// Models that are usable here.
    pub(crate) cpu_models: Vec<String>,
    /// Values of `devices/*/enum`, as `disk.bus`, `graphics.type`, `video.modelType`, `tpm.model` and so on.
    pub(crate) devices: Vec<(String, Vec<String>)>,
    /// Hyper-V enlightenments that are offered; libvirt before 8.? says nothing about them.
    pub(crate) hyperv: Vec<String>,
    /// Whether memory can be shared with other processes through a memfd.
    pub(crate) memfd: bool,
}

/// A storage pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Pool {
    pub(crate) name: String,
    /// `dir`, `logical` and so on.
    pub(crate) kind: String,
    pub(crate) active: bool,
    /// Where its volumes are.
    pub(crate) target: String,
    /// Bytes.
    pub(crate) capacity: u64,
    /// Bytes.
    pub(crate) available: u64,
}

impl Pool {
    /// Whether its volumes are plain files in a directory, which may hold qcow2 images.
    pub(crate) fn holds_files(&self) -> bool {
        matches!(self.kind.as_str(), "dir" | "fs" | "netfs")
    }
}

/// A virtual network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Network {
    pub(crate) name: String,
    pub(crate) active: bool,
}

fn supported(element: Option<&Element>) -> bool {
    element.and_then(|element| element.attribute("supported")) == Some("yes")
}

/// The values of an `enum` inside of an element.
fn values(element: &Element, name: &str) -> Vec<String> {
    let of_name = element.named("enum").find(|list| list.attribute("name") == Some(name));
    of_name.map(|list| list.named("value").map(Element::content).collect()).unwrap_or_default()
}

impl DomainCaps {
    /// Reads what libvirt answers.
    ///
    /// # Errors
    /// If it is no XML.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let root = Element::parse(text)?;
        let os = root.first("os").cloned().unwrap_or_default();
        let mut cpu_modes = Vec::new();
        let mut cpu_models = Vec::new();
        for mode in root.first("cpu").into_iter().flat_map(|cpu| cpu.named("mode")).filter(|mode| supported(Some(mode))) {
            cpu_modes.extend(mode.attribute("name").map(str::to_owned));
            if mode.attribute("name") == Some("custom") {
                cpu_models.extend(mode.named("model").filter(|model| model.attribute("usable") != Some("no")).map(Element::content));
            }
        }
        let mut devices = Vec::new();
        for device in root.first("devices").into_iter().flat_map(Element::elements).filter(|device| supported(Some(device))) {
            devices.push((device.name.clone(), Vec::new()));
            for list in device.named("enum") {
                let name = format!("{}.{}", device.name, list.attribute("name").unwrap_or_default());
                devices.push((name, list.named("value").map(Element::content).collect()));
            }
        }
        let hyperv = root.at("features/hyperv").filter(|hyperv| supported(Some(hyperv)));
        let memory = root.first("memoryBacking").filter(|memory| supported(Some(memory)));
        Ok(Self {
            emulator: root.text_at("path").unwrap_or_default(),
            machine: root.text_at("machine").unwrap_or_default(),
            vcpus: root.first("vcpu").and_then(|vcpu| vcpu.attribute("max")?.parse().ok()).unwrap_or(1),
            firmware: values(&os, "firmware"),
            secure_boot: os.first("loader").is_some_and(|loader| values(loader, "secure").iter().any(|value| value == "yes")),
            cpu_modes,
            cpu_models,
            devices,
            hyperv: hyperv.map(|hyperv| values(hyperv, "features")).unwrap_or_default(),
            memfd: memory.is_some_and(|memory| values(memory, "sourceType").iter().any(|value| value == "memfd")),
        })
    }

    /// Whether a device, or a value of one of its lists, is offered: `tpm`, or `disk.bus` with `virtio`. What is not described at all
    /// (by an older libvirt) is offered: libvirt's validation has the last word.
    pub(crate) fn offers(&self, list: &str, value: &str) -> bool {
        self.devices.iter().find(|(name, _)| name == list).is_none_or(|(_, values)| values.iter().any(|known| known == value))
    }

    /// Whether there is such a device, for which a silence is a no.
    pub(crate) fn has(&self, device: &str) -> bool {
        self.devices.iter().any(|(name, _)| name == device)
    }

    /// The values of a list, for messages.
    pub(crate) fn list(&self, list: &str) -> String {
        self.devices.iter().find(|(name, _)| name == list).map(|(_, values)| values.join(", ")).unwrap_or_default()
    }
}

/// Reads a pool's XML.
///
/// # Errors
/// If it is no XML.
pub(crate) fn pool(text: &str, active: bool) -> Result<Pool> {
    let root = Element::parse(text)?;
    let bytes = |name| root.text_at(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(Pool {
        name: root.text_at("name").unwrap_or_default(),
        kind: root.attribute("type").unwrap_or_default().to_owned(),
        active,
        target: root.text_at("target/path").unwrap_or_default(),
        capacity: bytes("capacity"),
        available: bytes("available"),
    })
}

/// Which of the features on which KVM rests a processor has, from a `cpu` element with every feature named.
pub(crate) fn virtualization(cpu: &str) -> Result<Option<String>> {
    let cpu = Element::parse(cpu)?;
    let names = cpu.named("feature").filter(|feature| feature.attribute("policy") != Some("disable"));
    let found = names.filter_map(|feature| feature.attribute("name")).find(|name| matches!(*name, "vmx" | "svm"));
    Ok(found.map(str::to_owned))
}

/// The host's own processor, from its capabilities.
pub(crate) fn processor(capabilities: &str) -> Result<Option<String>> {
    Ok(Element::parse(capabilities)?.at("host/cpu").map(Element::to_text))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a libvirt 9.0 with OVMF and swtpm says, shortened.
    pub(crate) const TCG: &str = "<domainCapabilities>
      <path>/usr/bin/qemu-system-x86_64</path><domain>qemu</domain><machine>pc-q35-7.2</machine><arch>x86_64</arch><vcpu max='288'/>
      <os supported='yes'><enum name='firmware'><value>bios</value><value>efi</value></enum>
        <loader supported='yes'><enum name='secure'><value>yes</value><value>no</value></enum></loader></os>
      <cpu><mode name='host-passthrough' supported='no'/><mode name='maximum' supported='yes'/>
        <mode name='custom' supported='yes'><model usable='yes'>qemu64</model><model usable='no'>EPYC</model></mode></cpu>
      <memoryBacking supported='yes'><enum name='sourceType'><value>memfd</value></enum></memoryBacking>
      <devices>
        <disk supported='yes'><enum name='bus'><value>scsi</value><value>virtio</value><value>usb</value><value>sata</value></enum></disk>
        <graphics supported='yes'><enum name='type'><value>vnc</value><value>spice</value></enum></graphics>
        <video supported='yes'><enum name='modelType'><value>vga</value><value>qxl</value><value>virtio</value><value>none</value></enum></video>
        <rng supported='yes'><enum name='model'><value>virtio</value></enum></rng>
        <tpm supported='yes'><enum name='model'><value>tpm-tis</value><value>tpm-crb</value></enum>
          <enum name='backendModel'><value>emulator</value></enum><enum name='backendVersion'><value>2.0</value></enum></tpm>
      </devices>
      <features><hyperv supported='yes'><enum name='features'><value>relaxed</value><value>vapic</value></enum></hyperv></features>
    </domainCapabilities>";

    /// A host without KVM.
    pub(crate) fn host() -> Host {
        Host {
            uri: "qemu:///system".into(),
            local: true,
            libvirt: 9_000_000,
            hypervisor: 7_002_022,
            arch: "x86_64".into(),
            cpus: 8,
            memory: 16 << 30,
            tcg: Some(DomainCaps::read(TCG).unwrap()),
            pools: vec![Pool {
                name: "default".into(),
                kind: "dir".into(),
                active: true,
                target: "/var/lib/libvirt/images".into(),
                capacity: 200 << 30,
                available: 100 << 30,
            }],
            networks: vec![Network { name: "default".into(), active: false }],
            ..Host::default()
        }
    }

    /// The same with KVM and all of Hyper-V.
    pub(crate) fn host_with_kvm() -> Host {
        let mut host = host();
        let mut caps = host.tcg.clone().unwrap_or_default();
        caps.cpu_modes = vec!["host-passthrough".into(), "maximum".into(), "host-model".into()];
        let all = "relaxed vapic spinlocks vpindex runtime synic stimer reset frequencies reenlightenment tlbflush ipi avic evmcs";
        caps.hyperv = all.split(' ').map(str::to_owned).collect();
        host.kvm = Some(caps);
        host
    }

    #[test]
    fn capabilities_are_read() {
        let caps = DomainCaps::read(TCG).unwrap();
        assert_eq!((caps.vcpus, caps.machine.as_str(), caps.cpu_modes.join(" ")), (288, "pc-q35-7.2", "maximum custom".into()));
        assert_eq!((caps.cpu_models.join(" "), caps.hyperv.len()), ("qemu64".into(), 2));
        assert!(caps.secure_boot && caps.memfd && caps.has("tpm") && !caps.has("sound"));
        assert!(caps.offers("disk.bus", "sata") && !caps.offers("disk.bus", "ide") && caps.offers("unheard.of", "x"));
        assert!(DomainCaps::read("<a>").is_err());
    }

    #[test]
    fn kvm_rests_on_the_processor() {
        let cpu = "<cpu><model>kvm64</model><feature policy='require' name='hypervisor'/><feature policy='disable' name='svm'/></cpu>";
        assert_eq!(virtualization(cpu).unwrap(), None);
        assert_eq!(virtualization(&cpu.replace("hypervisor", "vmx")).unwrap().as_deref(), Some("vmx"));
        let host = processor(&format!("<capabilities><host><uuid>u</uuid>{cpu}</host></capabilities>")).unwrap().unwrap();
        assert_eq!(virtualization(&host).unwrap(), None);
        assert_eq!(processor("<capabilities/>").unwrap(), None);
    }

    #[test]
    fn pools_are_read() {
        let text = "<pool type='dir'><name>a &amp; b</name><capacity unit='bytes'>10</capacity><available unit='bytes'>5</available>
            <target><path>/images</path></target></pool>";
        let pool = pool(text, true).unwrap();
        assert_eq!((pool.name.as_str(), pool.target.as_str(), pool.capacity, pool.available), ("a & b", "/images", 10, 5));
        assert!(pool.holds_files());
    }
}
