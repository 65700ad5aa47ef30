//! What `vmoon doctor` asks of a libvirt: each finding with what was seen and the command that helps.

use super::Inner;
use crate::caps::{Host, Pool};
use std::path::Path;
use vmoon_core::{
    Code,
    driver::{Check, Verdict},
};

/// The oldest libvirt that is known to work, and its version for people.
const OLDEST: (u64, &str) = (7_000_000, "7.0");
/// Below this much free space a pool is worth a word, bytes.
const LITTLE: u64 = 10 << 30;

fn check(requirement: &str, verdict: Verdict, finding: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { requirement: requirement.into(), verdict, finding: finding.into(), fix: fix.into() }
}

fn version(number: u64) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}

/// Findings about a host that answers. Pure.
fn judge(host: &Host, kvm_device: Option<bool>) -> Vec<Check> {
    let uri = &host.uri;
    let mut all = Vec::new();
    let verdict = if host.libvirt < OLDEST.0 { Verdict::Warn } else { Verdict::Ok };
    let finding = format!("libvirt {}, hypervisor {}", version(host.libvirt), version(host.hypervisor));
    all.push(check(
        "libvirt answers",
        verdict,
        finding,
        if verdict == Verdict::Ok { String::new() } else { format!("use libvirt {} or newer", OLDEST.1) },
    ));
    all.push(match (&host.kvm, &host.tcg, kvm_device) {
        (Some(_), ..) => {
            let rests = host.virtualization.as_ref().map(|feature| format!(", and the host's processor has {feature}"));
            check("KVM", Verdict::Ok, format!("libvirt offers machines with KVM{}", rests.unwrap_or_default()), "")
        }
        (None, Some(_), _) if host.kvm_refused.is_some() => check(
            "KVM",
            Verdict::Warn,
            format!("{}: machines are emulated, which is slow", host.kvm_refused.clone().unwrap_or_default()),
            "allow nested virtualization for this host where it is a virtual machine itself, or use another host",
        ),
        (None, Some(_), Some(false)) => check(
            "KVM",
            Verdict::Warn,
            "there is no /dev/kvm: machines are emulated, which is slow",
            "enable virtualization in the computer's firmware and load kvm_intel or kvm_amd; in a virtual machine, allow nesting",
        ),
        (None, Some(_), _) => check(
            "KVM",
            Verdict::Warn,
            "the hypervisor cannot use /dev/kvm: machines are emulated, which is slow",
            "let QEMU's user open it (group kvm), then restart libvirtd: it looks at its start only",
        ),
        (None, None, _) => {
            check("KVM", Verdict::Fail, format!("{uri} offers no machines"), "install QEMU (Debian: apt-get install qemu-system-x86)")
        }
    });
    if let Some(caps) = host.kvm.as_ref().or(host.tcg.as_ref()) {
        let efi = caps.firmware.iter().any(|kind| kind == "efi");
        let secure = efi && caps.secure_boot;
        let (verdict, finding) = match (efi, secure) {
            (_, true) => (Verdict::Ok, "UEFI with Secure Boot"),
            (true, false) => (Verdict::Warn, "UEFI without Secure Boot: Windows 11 cannot be had"),
            (false, _) => (Verdict::Warn, "no UEFI: machines get a BIOS, Windows 11 cannot be had"),
        };
        all.push(check("firmware", verdict, finding, if verdict == Verdict::Ok { "" } else { "Debian: apt-get install ovmf" }));
        let tpm = caps.has("tpm") && caps.offers("tpm.backendModel", "emulator");
        all.push(if tpm {
            check("emulated TPM (swtpm)", Verdict::Ok, "there is one", "")
        } else {
            check(
                "emulated TPM (swtpm)",
                Verdict::Warn,
                "there is none: Windows 11 cannot be had",
                "Debian: apt-get install swtpm swtpm-tools",
            )
        });
    }
    all.extend(network(host));
    all.extend(pools(host));
    all
}

fn network(host: &Host) -> Vec<Check> {
    let uri = &host.uri;
    match host.networks.iter().find(|network| network.name == "default") {
        Some(network) if network.active => vec![check("network default", Verdict::Ok, "it is active", "")],
        Some(_) => vec![check("network default", Verdict::Ok, "it is not active; starting a machine in it starts it", "")],
        None if host.session => {
            vec![check("network default", Verdict::Ok, "a session has no networks of its own; machines get network=user", "")]
        }
        None => vec![check(
            "network default",
            Verdict::Warn,
            "there is none: name another network, bridge:NAME or user",
            format!("vmoon doctor --fix, or virsh -c {uri} net-define /usr/share/libvirt/networks/default.xml"),
        )],
    }
}

fn pools(host: &Host) -> Vec<Check> {
    let uri = &host.uri;
    let mut all: Vec<Check> = host.pools.iter().map(|pool| of_pool(uri, pool)).collect();
    if !host.pools.iter().any(|pool| pool.name == "default") {
        let target = if host.session { "$HOME/.local/share/libvirt/images" } else { super::repair::IMAGES };
        let fix = format!("vmoon doctor --fix, or virsh -c {uri} pool-create-as default dir --target {target} --build");
        let verdict = if host.pools.is_empty() { Verdict::Fail } else { Verdict::Warn };
        all.push(check("storage pool default", verdict, "there is none: disks need pool=NAME", fix));
    }
    // Windows needs the user's own image of drivers; a look at its usual place.
    let places = ["/usr/share/virtio-win/virtio-win.iso", "/var/lib/libvirt/images/virtio-win.iso"];
    if host.local {
        let there = places.iter().find(|place| Path::new(place).exists());
        all.push(match there {
            Some(place) => check("virtio drivers for Windows", Verdict::Ok, format!("{place}: name it with virtio-win"), ""),
            None => check(
                "virtio drivers for Windows",
                Verdict::Ok,
                "none at the usual places; only Windows needs them, and any path can be named with virtio-win",
                "",
            ),
        });
    }
    all
}

fn of_pool(uri: &str, pool: &Pool) -> Check {
    let requirement = format!("storage pool {}", vmoon_core::name::escape(&pool.name));
    if !pool.active {
        let ours = if pool.name == super::repair::DEFAULT { "vmoon doctor --fix, or " } else { "" };
        return check(&requirement, Verdict::Warn, "it is not active", format!("{ours}virsh -c {uri} pool-start {}", pool.name));
    }
    let free = format!("{:.1} GiB free of {:.1} GiB in {}", gib(pool.available), gib(pool.capacity), pool.target);
    if pool.capacity > 0 && pool.available < LITTLE {
        return check(&requirement, Verdict::Warn, free, "delete what is not needed, or name another pool");
    }
    check(&requirement, Verdict::Ok, free, "")
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

impl Inner {
    pub(crate) async fn probe(&self) -> Vec<Check> {
        let at = vmoon_libvirt_wire::Connect::describe(&self.link.endpoint);
        let host = match self.host().await {
            Ok(host) => host,
            Err(error) => {
                let fix = error.hint_text().unwrap_or_default().to_owned();
                let requirement = if error.code() == Code::ConnectionPermission { "this user may use libvirt" } else { "libvirt answers" };
                return vec![check(requirement, Verdict::Fail, format!("{}: {}", at, error.chain()), fix)];
            }
        };
        let device = host.local.then(|| Path::new("/dev/kvm").exists());
        judge(&host, device)
    }

    /// Facts about a machine, for people.
    pub(crate) async fn describe(
        &self,
        handle: &vmoon_core::driver::Handle,
    ) -> vmoon_core::Result<serde_json::Map<String, serde_json::Value>> {
        use super::errors::Doing as _;
        use vmoon_libvirt_wire::flags::Xml;
        let what = "describe the machine";
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        let text = client.domain_xml(&domain, Xml::NONE).await.doing(what)?;
        let xml = vmoon_xml::Element::parse(&text)?;
        let mut facts = serde_json::Map::new();
        facts.insert("domain".into(), domain.name.clone().into());
        facts.insert("hypervisor".into(), self.link.endpoint.uri.clone().into());
        facts.insert("accelerator".into(), xml.attribute("type").unwrap_or_default().into());
        if let Some(machine) = xml.at("os/type").and_then(|kind| kind.attribute("machine")) {
            facts.insert("machine".into(), machine.into());
        }
        let flash = xml.at("os/loader").and_then(|loader| loader.attribute("type")) == Some("pflash");
        let firmware = xml.first("os").and_then(|os| os.attribute("firmware")).unwrap_or(if flash { "efi" } else { "bios" });
        facts.insert("firmware".into(), firmware.into());
        let info = client.info(&domain).await.doing(what)?;
        facts.insert("cpus".into(), info.vcpus.into());
        facts.insert("memory_bytes".into(), info.memory_max_kib.saturating_mul(1024).into());
        if domain.id >= 0 {
            facts.insert("cpu_ms".into(), (info.cpu_time_ns / 1_000_000).into());
        }
        let devices = || xml.first("devices").into_iter();
        let disks = devices().flat_map(|devices| devices.named("disk")).filter_map(|disk| {
            let target = disk.first("target")?.attribute("dev")?;
            let source = disk.first("source").and_then(|source| source.attribute("file").or_else(|| source.attribute("dev")));
            Some(format!("{target} {} {}", disk.attribute("device").unwrap_or("disk"), source.unwrap_or("(empty)")))
        });
        facts.insert("disks".into(), disks.collect());
        let cards = devices().flat_map(|devices| devices.named("interface")).map(|card| {
            let kind = card.attribute("type").unwrap_or_default();
            let source = card.first("source").and_then(|source| source.attribute(kind)).unwrap_or_default();
            let mac = card.first("mac").and_then(|mac| mac.attribute("address")).unwrap_or_default();
            format!("{kind} {source} {mac}")
        });
        facts.insert("networks".into(), cards.collect());
        if let Some(tag) = crate::render::Tag::of_domain(&xml) {
            facts.insert("template".into(), tag.template.into());
        }
        if client.is_persistent(&domain).await.doing(what)? {
            facts.insert("autostart".into(), client.autostart(&domain).await.doing(what)?.into());
        }
        if let Some(guests) = &self.guests {
            facts.extend(guests.describe(&handle.0));
        }
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::tests::{host, host_with_kvm};

    #[test]
    fn each_finding_has_evidence_and_a_fix() {
        for (host, device) in [(host(), Some(false)), (host_with_kvm(), Some(true)), (Host::default(), None)] {
            for check in judge(&host, device) {
                assert!(!check.finding.is_empty(), "{check:?}");
                assert_eq!(check.verdict == Verdict::Ok, check.fix.is_empty(), "{check:?}");
            }
        }
        let verdict = |host: &Host, name: &str| {
            judge(host, Some(false)).into_iter().find(|check| check.requirement == name).map(|check| check.verdict)
        };
        assert_eq!((verdict(&host(), "KVM"), verdict(&host_with_kvm(), "KVM")), (Some(Verdict::Warn), Some(Verdict::Ok)));
        assert_eq!(verdict(&Host { pools: Vec::new(), ..host() }, "storage pool default"), Some(Verdict::Fail));
        assert_eq!(verdict(&Host { networks: Vec::new(), ..host() }, "network default"), Some(Verdict::Warn));
    }
}
