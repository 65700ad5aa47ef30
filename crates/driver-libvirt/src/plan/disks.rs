//! Which disks a machine gets, where they are made, and whether they fit. Pure.

use super::Planner;
use crate::{
    caps::Pool,
    model::{Blueprint, Content, Disk, Need, NewVolume, Source},
    settings::template::Guest,
};
use vmoon_core::size;
use vmoon_seed::Seed;

impl Planner<'_> {
    pub(super) fn pool(&mut self, seed: bool) -> Option<Pool> {
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
    pub(super) fn room(&mut self, pool: &Pool) {
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
    pub(super) fn image(&mut self, setting: &str, image: &str, pool: Option<&Pool>, blueprint: &mut Blueprint) -> String {
        let path = match (image.starts_with('/'), pool) {
            (true, _) => image.to_owned(),
            (false, Some(pool)) => format!("{}/{image}", pool.target),
            (false, None) => String::new(),
        };
        blueprint.needs.push(Need { setting: setting.into(), path: path.clone() });
        path
    }

    pub(super) fn disks(&mut self, blueprint: &mut Blueprint, pool: Option<&Pool>) -> Vec<Disk> {
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
