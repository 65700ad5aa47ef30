//! From settings and a host's offers to a blueprint, with everything decided and every refusal named at once. Pure.
//!
//! What a template wishes and the host lacks is replaced and said; what the user asked for and the host lacks is refused.

use crate::{
    caps::{DomainCaps, Host, Pool},
    model::{Blueprint, Content, Cpu, Disk, Domain, Hardware, Kernel, Need, NewVolume, Nic, PoolRef, Source},
    settings::{CloneKind, Net, Settings, template::Guest},
};
use vmoon_core::{Code, size, spec::Problem, spec::Problems};
use vmoon_seed::{Seed, cloud::Cloud, windows::Answers};

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
/// The most a Windows computer's name may have.
const NETBIOS: usize = 15;

struct Planner<'a> {
    settings: &'a Settings,
    host: &'a Host,
    caps: DomainCaps,
    kvm: bool,
    problems: Problems,
    /// What is different from what one may expect.
    beware: Vec<String>,
}

/// Plans a machine. Gives the blueprint and what will be done, one sentence each.
///
/// # Errors
/// Every reason why it cannot be.
pub(crate) fn plan(name: &str, settings: &Settings, host: &Host) -> Result<(Blueprint, Vec<String>), Problems> {
    let kvm = host.kvm.is_some() && settings.accelerator != "tcg";
    let caps = if kvm { host.kvm.clone() } else { host.tcg.clone() };
    let mut planner =
        Planner { settings, host, kvm, caps: caps.clone().unwrap_or_default(), problems: Problems::default(), beware: Vec::new() };
    if settings.xml.is_none() {
        if caps.is_none() && (settings.accelerator != "kvm" || host.kvm.is_some()) {
            planner.add("accelerator", format!("{} offers no machines of type {} here", host.uri, settings.machine));
        }
        planner.accelerator();
    }
    let blueprint = planner.blueprint(name);
    // Rendering is the last check: the user's changes have to fit.
    let xml = blueprint.xml(None, true);
    if let Err(error) = &xml {
        planner.problems.add("settings", error.message().to_owned());
    }
    let Planner { problems, beware, .. } = planner;
    let mut steps = problems.or(steps(&blueprint, host))?;
    if settings.xml.is_none() {
        steps.insert(0, format!("begin with the template {}: {}", settings.template, settings.summary));
    }
    steps.extend(beware.into_iter().map(|text| format!("beware: {text}")));
    if let Ok(xml) = xml {
        steps.push(format!("the XML, before libvirt adds what is not said:\n{}", xml.to_text()));
    }
    Ok((blueprint, steps))
}

fn steps(blueprint: &Blueprint, host: &Host) -> Vec<String> {
    let mut steps = vec![format!("define the domain {}, after libvirt has validated it, marked as incomplete", blueprint.name)];
    let place = blueprint.pool.as_ref().map(|pool| format!("in the pool {}", pool.name)).unwrap_or_default();
    for volume in &blueprint.volumes {
        let path = blueprint.path_of(None, volume);
        steps.push(match &volume.content {
            Content::Empty => format!("make an empty {} disk of {} {place}: {path}", volume.format, size::show(volume.size)),
            Content::Seed => {
                let seed = blueprint.seed.as_ref().map(Seed::sentence).unwrap_or_default();
                format!("make {seed} {place}: {path}")
            }
            Content::Base { path: base, clone: CloneKind::Linked } => {
                format!("make an overlay of {base}, at least {}, {place}: {path}", size::show(volume.size))
            }
            Content::Base { path: base, clone: CloneKind::Full } => {
                format!("copy {base} to a {} disk of at least {} {place}: {path}", volume.format, size::show(volume.size))
            }
        });
    }
    steps.push("mark the domain as complete".into());
    if blueprint.autostart {
        steps.push("let it start with the host".into());
    }
    if let Hardware::Ours(domain) = &blueprint.hardware {
        for nic in &domain.nics {
            let Net::Network(name) = &nic.net else { continue };
            if host.networks.iter().any(|network| network.name == *name && !network.active) {
                steps.push(format!("the network {name} is not active: it is started when the machine starts"));
            }
        }
    }
    steps
}

impl Planner<'_> {
    fn add(&mut self, setting: &str, message: impl Into<String>) {
        self.problems.add(format!("settings.{setting}"), message);
    }

    fn given(&self, setting: &str) -> bool {
        self.settings.given.contains(setting)
    }

    /// What cannot be had: refused if the user asked for it, else said.
    fn lacks(&mut self, setting: &str, refusal: String, instead: &str) {
        if self.given(setting) || instead.is_empty() {
            self.add(setting, refusal);
        } else {
            self.beware.push(format!("{refusal}: {instead}"));
        }
    }

    fn accelerator(&mut self) {
        match self.settings.accelerator {
            "kvm" if self.host.kvm.is_none() => {
                let why = self.host.kvm_refused.clone();
                let why = why.unwrap_or_else(|| "/dev/kvm is missing or the hypervisor may not open it".into());
                self.add("accelerator", format!("the host has no usable KVM: {why}; vmoon doctor tells more, tcg emulates"));
            }
            "auto" if !self.kvm => self.beware.push("the host has no usable KVM: the machine is emulated, which is slow".into()),
            _ => {}
        }
    }

    fn blueprint(&mut self, name: &str) -> Blueprint {
        let settings = self.settings;
        let mut blueprint = Blueprint {
            name: name.to_owned(),
            template: settings.template.clone(),
            hardware: Hardware::Raw(String::new()),
            volumes: Vec::new(),
            pool: None,
            seed: None,
            needs: Vec::new(),
            autostart: settings.autostart,
            patches: settings.patches.clone(),
        };
        if let Some(xml) = &settings.xml {
            blueprint.hardware = Hardware::Raw(xml.to_text());
            return blueprint;
        }
        blueprint.seed = self.seed(name);
        let pool = self.pool(blueprint.seed.is_some());
        let disks = self.disks(&mut blueprint, pool.as_ref());
        let kernel = self.kernel(&mut blueprint);
        blueprint.pool = pool.map(|pool| PoolRef { files: pool.holds_files(), name: pool.name, target: pool.target });
        let (efi, secure_boot) = self.firmware();
        let graphics = self.graphics();
        let domain = Domain {
            kind: if self.kvm { "kvm" } else { "qemu" }.into(),
            arch: self.host.arch.clone(),
            machine: settings.machine.clone(),
            guest: settings.guest,
            memory: self.memory(),
            cpus: self.cpus(),
            topology: [settings.sockets, settings.cores, settings.threads],
            cpu: self.cpu(),
            efi,
            secure_boot,
            tpm: self.tpm(),
            hugepages: settings.hugepages,
            hyperv: self.hyperv(),
            kernel,
            disks,
            nics: self.nics(),
            video: self.video(graphics.is_some()),
            graphics,
            sound: settings.sound,
            rng: self.caps.has("rng"),
        };
        blueprint.hardware = Hardware::Ours(Box::new(domain));
        blueprint
    }

    fn memory(&mut self) -> u64 {
        let (wanted, there) = (self.settings.memory, self.host.memory);
        if there > 0 && wanted > there {
            self.beware.push(format!("the machine's {} are more than the host's {}", size::show(wanted), size::show(there)));
        }
        wanted
    }

    fn cpus(&mut self) -> u32 {
        let (wanted, most) = (self.settings.cpus, self.caps.vcpus);
        if most > 0 && wanted > most {
            self.add("cpus", format!("the hypervisor gives at most {most}"));
        } else if self.host.cpus > 0 && wanted > self.host.cpus {
            self.beware.push(format!("the machine's {wanted} processors are more than the host's {}", self.host.cpus));
        }
        wanted
    }

    fn cpu(&mut self) -> Cpu {
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

    fn firmware(&mut self) -> (bool, bool) {
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

    fn tpm(&mut self) -> bool {
        if self.settings.tpm && !(self.caps.has("tpm") && self.caps.offers("tpm.backendModel", "emulator")) {
            self.add("tpm", "the host has no emulated TPM (Debian: apt-get install swtpm swtpm-tools)");
        }
        self.settings.tpm
    }

    fn hyperv(&self) -> Vec<String> {
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

    fn graphics(&mut self) -> Option<String> {
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

    fn video(&mut self, screen: bool) -> Option<String> {
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

    fn nics(&mut self) -> Vec<Nic> {
        let settings = self.settings;
        let plain = settings.guest == Guest::Windows && settings.virtio_win.is_none();
        let model = settings.nic.unwrap_or(if plain { "e1000e" } else { "virtio" });
        let mut nics = Vec::new();
        for (n, net) in settings.networks.iter().enumerate() {
            if let Net::Network(name) = net
                && !self.host.networks.iter().any(|network| network.name == *name)
            {
                let names: Vec<&str> = self.host.networks.iter().map(|network| network.name.as_str()).collect();
                let names =
                    if names.is_empty() { "there are none; user needs none".to_owned() } else { format!("there is {}", names.join(", ")) };
                let instead =
                    if self.host.networks.is_empty() && self.host.session { "the machine gets a network of its own user" } else { "" };
                self.lacks("network", format!("there is no libvirt network {name}; {names}"), instead);
                nics.push(Nic { net: Net::User, model: model.into(), mac: settings.macs.get(n).cloned(), forwards: Vec::new() });
                continue;
            }
            let forwards = if *net == Net::User { settings.forwards.clone() } else { Vec::new() };
            nics.push(Nic { net: net.clone(), model: model.into(), mac: settings.macs.get(n).cloned(), forwards });
        }
        let passt = self.caps.has("interface") && self.caps.offers("interface.backendType", "passt");
        if !settings.forwards.is_empty() && !passt {
            self.add("forward", "this libvirt cannot forward ports: that needs passt and a libvirt that says so (9.2 or newer)");
        }
        nics
    }

    fn pool(&mut self, seed: bool) -> Option<Pool> {
        let settings = self.settings;
        let makes = settings.disk > 0 || settings.base.is_some() || seed || !settings.extra_disks.is_empty();
        let names = settings.iso.iter().chain(&settings.virtio_win).any(|image| !image.starts_with('/'));
        if !makes && !names {
            return None;
        }
        let found = self.host.pools.iter().find(|pool| pool.name == settings.pool).cloned();
        if found.is_none() {
            let names: Vec<&str> = self.host.pools.iter().map(|pool| pool.name.as_str()).collect();
            let known = if names.is_empty() {
                "there is none yet; vmoon doctor --fix makes it".into()
            } else {
                format!("there is {}", names.join(", "))
            };
            self.add("pool", format!("there is no storage pool {}; {known}", settings.pool));
        }
        let pool = found?;
        if !pool.active {
            self.add(
                "pool",
                format!("the storage pool {0} is not active; start it: virsh -c {1} pool-start {0}", pool.name, self.host.uri),
            );
        }
        if !pool.holds_files() && (settings.disk_format == "qcow2" || settings.base.is_some()) {
            self.add("disk-format", format!("the pool {} is of kind {}, which holds raw disks without a base only", pool.name, pool.kind));
        }
        self.room(&pool);
        Some(pool)
    }

    /// Whether the disks fit. What grows may be promised more than there is, not more than there can ever be.
    fn room(&mut self, pool: &Pool) {
        if pool.capacity == 0 {
            return;
        }
        let settings = self.settings;
        let disks = std::iter::once(("disk", settings.disk)).chain(settings.extra_disks.iter().map(|size| ("extra-disks", *size)));
        let mut all = 0u64;
        for (setting, size) in disks {
            let limit = if settings.disk_format == "raw" { pool.available } else { pool.capacity };
            if size > limit {
                let what = if settings.disk_format == "raw" { "free" } else { "in all" };
                self.add(setting, format!("{} do not fit: the pool {} has {} {what}", size::show(size), pool.name, size::show(limit)));
            }
            all = all.saturating_add(size);
        }
        if all > pool.available && settings.disk_format == "qcow2" {
            self.beware.push(format!(
                "the disks may grow to {}, and the pool {} has {} free",
                size::show(all),
                pool.name,
                size::show(pool.available)
            ));
        }
    }

    /// Where an image of the user is: a path stays one, a name is that of a volume of the pool.
    fn image(&mut self, setting: &str, image: &str, pool: Option<&Pool>, blueprint: &mut Blueprint) -> String {
        let path = match (image.starts_with('/'), pool) {
            (true, _) => image.to_owned(),
            (false, Some(pool)) => format!("{}/{image}", pool.target),
            (false, None) => String::new(),
        };
        blueprint.needs.push(Need { setting: setting.into(), path: path.clone() });
        path
    }

    fn disks(&mut self, blueprint: &mut Blueprint, pool: Option<&Pool>) -> Vec<Disk> {
        let settings = self.settings;
        let windows = settings.guest == Guest::Windows;
        let bus = settings.disk_bus.unwrap_or(if windows && settings.virtio_win.is_none() { "sata" } else { "virtio" });
        if !self.caps.offers("disk.bus", bus) {
            let offered = self.caps.list("disk.bus");
            self.add("disk-bus", format!("{bus} is not offered here; there is {offered}"));
        }
        let mut names = Targets::default();
        let mut disks = Vec::new();
        let mut made = Vec::new();
        if settings.disk > 0 {
            let content = match &settings.base {
                Some(base) => Content::Base { path: self.image("base", base, pool, blueprint), clone: settings.clone },
                None => Content::Empty,
            };
            made.push((settings.disk, content, Some(1)));
        }
        made.extend(settings.extra_disks.iter().map(|size| (*size, Content::Empty, None)));
        for (size, content, boot) in made {
            let target = names.next(bus);
            blueprint.volumes.push(NewVolume { target: target.clone(), format: settings.disk_format.into(), size, content });
            let cache = settings.disk_cache.map(str::to_owned);
            let format = settings.disk_format.into();
            disks.push(Disk { target, bus: bus.into(), cdrom: false, readonly: false, format, cache, boot, source: Source::Made });
        }
        let drive = ["sata", "scsi", "usb"].into_iter().find(|bus| self.caps.offers("disk.bus", bus)).unwrap_or("sata");
        for (setting, image) in
            settings.iso.iter().map(|image| ("iso", image)).chain(settings.virtio_win.iter().map(|image| ("virtio-win", image)))
        {
            let path = self.image(setting, image, pool, blueprint);
            // The first one is what is installed from, once the disk has nothing to boot.
            let boot = (setting == "iso" && !disks.iter().any(|disk: &Disk| disk.cdrom)).then_some(2);
            disks.push(cdrom(names.next(drive), drive, boot, Source::Path(path)));
        }
        match &blueprint.seed {
            // Kernels of cloud images may lack drivers of SATA; all have virtio.
            Some(Seed::Cloud(_)) => {
                let bus = if self.caps.offers("disk.bus", "virtio") { "virtio" } else { drive };
                let disk = Disk { cdrom: bus != "virtio", ..cdrom(names.next(bus), bus, None, Source::Made) };
                blueprint.volumes.push(NewVolume { target: disk.target.clone(), format: "raw".into(), size: 0, content: Content::Seed });
                disks.push(disk);
            }
            Some(Seed::Windows(_)) => {
                let disk = cdrom(names.next(drive), drive, None, Source::Made);
                blueprint.volumes.push(NewVolume { target: disk.target.clone(), format: "raw".into(), size: 0, content: Content::Seed });
                disks.push(disk);
            }
            None => {}
        }
        disks
    }

    fn kernel(&mut self, blueprint: &mut Blueprint) -> Option<Kernel> {
        let settings = self.settings;
        let kernel = settings.kernel.clone()?;
        for (setting, path) in [("kernel", Some(&kernel)), ("initrd", settings.initrd.as_ref())] {
            if let Some(path) = path {
                blueprint.needs.push(Need { setting: setting.into(), path: path.clone() });
            }
        }
        Some(Kernel { kernel, initrd: settings.initrd.clone(), cmdline: settings.cmdline.clone() })
    }

    fn seed(&mut self, name: &str) -> Option<Seed> {
        let settings = self.settings;
        if !settings.seed {
            return None;
        }
        if let Some(file) = &settings.user_data
            && !self.host.local
        {
            self.problems.0.push(Problem {
                path: "settings.user-data".into(),
                message: format!("{file} cannot be read: the hypervisor is on another computer, and so would be the file"),
                code: Some(Code::SpecInvalid),
            });
        }
        let hostname = settings.hostname.clone().unwrap_or_else(|| plain(name));
        Some(match settings.guest {
            Guest::Linux => Seed::Cloud(Cloud {
                hostname,
                user: settings.user.clone(),
                ssh_keys: settings.ssh_keys.clone(),
                packages: settings.packages.clone(),
                user_data: settings.user_data.clone(),
                ..Cloud::default()
            }),
            Guest::Windows => {
                if settings.virtio_win.is_none() && settings.disk_bus == Some("virtio") {
                    self.add("disk-bus", "Windows Setup has no driver for virtio; name your image of drivers with virtio-win");
                }
                Seed::Windows(Answers {
                    computer: hostname.chars().filter(|char| *char != '.').take(NETBIOS).collect(),
                    user: settings.user.clone().unwrap_or_else(|| "user".into()),
                    locale: settings.locale.clone(),
                    time_zone: settings.time_zone.clone(),
                    edition: settings.edition.clone(),
                    product_key: settings.product_key.clone(),
                    drivers: settings.drivers.clone(),
                    virtio: settings.virtio_win.is_some(),
                    efi: settings.efi,
                })
            }
        })
    }
}

/// A machine's name as a host name.
fn plain(name: &str) -> String {
    let label: String = name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '-' }).take(63).collect();
    label.trim_matches('-').to_owned()
}

fn cdrom(target: String, bus: &str, boot: Option<u32>, source: Source) -> Disk {
    Disk { target, bus: bus.into(), cdrom: true, readonly: true, format: "raw".into(), cache: None, boot, source }
}

/// Names of disks as guests have them: vda, vdb, sda.
#[derive(Default)]
struct Targets {
    virtio: u8,
    others: u8,
}

impl Targets {
    fn next(&mut self, bus: &str) -> String {
        let (prefix, count) = if bus == "virtio" { ("vd", &mut self.virtio) } else { ("sd", &mut self.others) };
        let n = *count;
        *count += 1;
        let letter = |n: u8| char::from(b'a' + n % 26);
        match n / 26 {
            0 => format!("{prefix}{}", letter(n)),
            first => format!("{prefix}{}{}", letter(first - 1), letter(n)),
        }
    }
}

#[cfg(test)]
mod tests;
