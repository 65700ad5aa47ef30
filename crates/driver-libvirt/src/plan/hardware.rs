//! Processor, firmware, TPM, enlightenments and screen, as far as the host has them. Pure.

use super::Planner;
use crate::{caps::DomainCaps, model::Cpu, settings::template::Guest};

/// Hyper-V enlightenments in the order of libvirt's schema, with those each needs.
const HYPERV: &[(&str, &[&str])] = &[
    ("relaxed", &[]),
    ("vapic", &[]),
    ("spinlocks", &[]),
    ("vpindex", &[]),
    ("runtime", &[]),
    ("synic", &["vpindex"]),
    ("stimer", &["synic", "vpindex"]),
    ("reset", &[]),
    ("frequencies", &[]),
    ("tlbflush", &["vpindex"]),
    ("ipi", &["vpindex"]),
];
/// Those of a host with KVM whose libvirt does not say which it has.
const HYPERV_OF_OLD: &[&str] = &["relaxed", "vapic", "spinlocks"];
impl Planner<'_> {
    pub(super) fn cpu(&mut self) -> Cpu {
        let has = |caps: &DomainCaps, mode: &str| caps.cpu_modes.iter().any(|known| known == mode);
        match self.settings.cpu.as_deref() {
            Some(mode @ ("host-passthrough" | "host-model" | "maximum")) => {
                if !has(&self.caps, mode) {
                    let modes = self.caps.cpu_modes.join(", ");
                    self.add("cpu", format!("{mode} is not offered here; there is {modes}"));
                }
                Cpu::Mode(mode.into())
            }
            Some(model) => {
                if !self.caps.cpu_models.is_empty() && !self.caps.cpu_models.iter().any(|known| known == model) {
                    self.add("cpu", format!("the model {model} is not usable here; virsh domcapabilities lists those that are"));
                }
                Cpu::Model(model.into())
            }
            None => {
                let wanted = if self.kvm { ["host-passthrough", "host-model"] } else { ["maximum", "host-model"] };
                wanted.iter().find(|mode| has(&self.caps, mode)).map_or(Cpu::Default, |mode| Cpu::Mode((*mode).into()))
            }
        }
    }

    pub(super) fn firmware(&mut self) -> (bool, bool) {
        let mut efi = self.settings.efi;
        if efi && !self.caps.firmware.iter().any(|kind| kind == "efi") {
            let instead = if self.settings.secure_boot { "" } else { "the machine gets a BIOS" };
            self.lacks("firmware", "the host has no UEFI firmware (Debian: apt-get install ovmf)".into(), instead);
            efi = false;
        }
        let secure = self.settings.secure_boot && efi;
        if secure && !self.caps.secure_boot {
            self.add("secure-boot", "the host has no firmware that enforces it (Debian: apt-get install ovmf)");
        }
        (efi, secure)
    }

    pub(super) fn tpm(&mut self) -> bool {
        if self.settings.tpm && !(self.caps.has("tpm") && self.caps.offers("tpm.backendModel", "emulator")) {
            self.add("tpm", "the host has no emulated TPM (Debian: apt-get install swtpm swtpm-tools)");
        }
        self.settings.tpm
    }

    pub(super) fn hyperv(&self) -> Vec<String> {
        if self.settings.guest != Guest::Windows {
            return Vec::new();
        }
        let silent = self.caps.hyperv.is_empty() && self.kvm;
        let has = |name: &str| {
            if silent { HYPERV_OF_OLD.contains(&name) } else { self.caps.hyperv.iter().any(|known| known == name) }
        };
        // libvirt describes them for both kinds of domain; QEMU implements them with KVM alone.
        let wanted = HYPERV.iter().filter(|(name, needs)| self.kvm && has(name) && needs.iter().all(|needed| has(needed)));
        wanted.map(|(name, _)| (*name).to_owned()).collect()
    }

    pub(super) fn graphics(&mut self) -> Option<String> {
        let wanted = self.settings.graphics;
        if wanted == "none" {
            return None;
        }
        if self.caps.offers("graphics.type", wanted) {
            return Some(wanted.into());
        }
        let offered = self.caps.list("graphics.type");
        self.lacks("graphics", format!("{wanted} is not offered here; there is {offered}"), "the machine gets vnc");
        Some("vnc".into())
    }

    pub(super) fn video(&mut self, screen: bool) -> Option<String> {
        match self.settings.video {
            None if !screen => None,
            Some(model) if self.caps.offers("video.modelType", model) => Some(model.into()),
            Some(model) => {
                let offered = self.caps.list("video.modelType");
                self.lacks("video", format!("{model} is not offered here; there is {offered}"), "the machine gets vga");
                Some("vga".into())
            }
            None => Some(if self.caps.offers("video.modelType", "virtio") { "virtio" } else { "vga" }.into()),
        }
    }
}
