//! From settings and a host's offers to a blueprint, with everything decided and every refusal named at once. Pure.
//!
//! What a template wishes and the host lacks is replaced and said; what the user asked for and the host lacks is refused.

mod disks;
mod hardware;

use crate::{
    caps::{DomainCaps, Host},
    model::{Blueprint, Content, Domain, Hardware, Kernel, Need, Nic, PoolRef},
    settings::{CloneKind, Net, Settings, template::Guest},
};
use vmoon_core::{Code, driver::BEWARE, size, spec::Problem, spec::Problems};
use vmoon_seed::{Seed, cloud::Cloud, windows::Answers};

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
    steps.extend(beware.into_iter().map(|text| format!("{BEWARE}{text}")));
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
            Content::Again { path: seed } => format!("copy the seed {seed} {place}, for another instance: {path}"),
            Content::Base { path: base, clone: CloneKind::Linked } => {
                format!("make an overlay of {base}, at least {}, {place}: {path}", size::show(volume.size))
            }
            Content::Base { path: base, clone: CloneKind::Full } => {
                format!("copy {base} to a {} disk of at least {} {place}: {path}", volume.format, size::show(volume.size))
            }
        });
    }
    steps.push("mark the domain as complete".into());
    if let Some(environment) = &blueprint.environment {
        steps.push(format!("begin Lua sessions in the guest with the environment {environment}, which is sent before the first"));
    }
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
            environment: settings.environment.clone(),
            copy_of: None,
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
        if kernel.is_none() && settings.base.is_none() && settings.iso.is_empty() {
            self.beware.push("nothing is said to boot from: its disk is empty, and there is no base, no iso and no kernel".into());
        }
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
                entered: settings.ssh,
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

#[cfg(test)]
mod tests;
