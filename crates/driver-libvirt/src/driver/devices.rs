//! Disks and network cards of machines that exist: told of, added and taken away, in what runs and in what is kept. A device is added to both by one call of
//! libvirt, which does both or neither; the image of a new disk is made before, journalled, and goes again when that fails.

use super::{
    Inner,
    errors::{Doing as _, failed},
    look::{self, uuid_of},
    make::{Left, note},
    storage::Storage,
};
use crate::{
    device::{self, Part, Wanted, WantedDisk},
    model::{Content, NewVolume, PoolRef, volume_name},
    settings::Net,
};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;
use vmoon_core::{
    Code, Error, MachineId, Result,
    ability::{Change, Effect},
    device::{Device, DeviceChange, NewDevice, Presence, changed, not_found},
    driver::{Handle, Journal},
    size,
    spec::Problems,
};
use vmoon_libvirt_wire::{
    Client, Domain, DomainEvent, Event, Topic,
    flags::{Affect, Snapshots, Xml},
};
use vmoon_sys::clock;
use vmoon_xml::Element;

/// How long a guest may take to let a device go.
const RELEASE: Duration = Duration::from_secs(20);
/// What images made for machines of others are called by: no image of anybody else is.
const FOREIGN: &str = "vmoon";

/// A machine whose devices are looked at or changed.
struct Subject {
    client: Client,
    domain: Domain,
    /// Whether vmoon has made it.
    ours: bool,
    /// What is kept, with what only the owner may see.
    stored: Element,
    /// What runs, if it does.
    running: Option<Element>,
}

impl Subject {
    fn definitions(&self) -> Vec<&Element> {
        std::iter::once(&self.stored).chain(&self.running).collect()
    }

    fn id(&self) -> MachineId {
        MachineId::from_uuid(self.domain.uuid)
    }

    /// Whether what is behind a device was made for this machine.
    fn made(&self, file: &str) -> bool {
        made_for(self.ours, self.id(), file)
    }

    fn find(&self, name: &str) -> (Option<Part<'_>>, Option<Part<'_>>) {
        let of = |domain| device::parts(domain).into_iter().find(|part: &Part<'_>| part.name == name);
        (of(&self.stored), self.running.as_ref().and_then(of))
    }
}

/// Whether libvirt's refusal says that it does not find a file: the words of `qemuDomainDetermineDiskChain`.
pub(crate) fn is_unseen(error: &vmoon_libvirt_wire::Error) -> bool {
    error.refusal().is_some() && error.to_string().contains("Cannot access storage file")
}

/// Whether an image was made for a machine: by its name, which for a machine of somebody else has to be one that nobody else gives.
pub(crate) fn made_for(ours: bool, id: MachineId, file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or_default();
    if ours { crate::model::is_made_for(name, id) } else { name.starts_with(&format!("{FOREIGN}-{id}-")) }
}

/// A device that will be added.
struct Addition {
    name: String,
    xml: Element,
    volume: Option<(PoolRef, NewVolume, String)>,
    /// The new image.
    path: Option<String>,
    /// The file behind it, new or not.
    file: Option<String>,
    /// Why what runs cannot take it.
    later: Option<String>,
    told: Change,
}

/// A device that will be taken away.
struct Removal {
    name: String,
    /// The image that is deleted afterwards.
    path: Option<String>,
    later: Option<String>,
    told: Change,
}

impl Inner {
    async fn subject(&self, handle: &Handle) -> Result<Subject> {
        let what = "look at the machine";
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        let ours = look::tag(&client, &Domain::of(domain.uuid)).await.doing(what)?.is_some();
        let stored = Element::parse(&client.domain_xml(&domain, Xml::INACTIVE | Xml::SECURE).await.doing(what)?)?;
        let running = match domain.id >= 0 {
            true => Some(Element::parse(&client.domain_xml(&domain, Xml::NONE).await.doing(what)?)?),
            false => None,
        };
        Ok(Subject { client, domain, ours, stored, running })
    }

    pub(crate) async fn devices(&self, handle: &Handle) -> Result<Vec<Device>> {
        let subject = self.subject(handle).await?;
        let kept = device::parts(&subject.stored);
        let live = subject.running.as_ref().map(device::parts).unwrap_or_default();
        let mut found = Vec::new();
        for part in live.iter().chain(kept.iter().filter(|part| live.iter().all(|other| other.name != part.name))) {
            let (now, later) = (live.iter().any(|other| other.name == part.name), kept.iter().any(|other| other.name == part.name));
            let presence = match (subject.running.is_some(), now, later) {
                (true, true, false) => Presence::UntilStopped,
                (true, false, _) => Presence::NextStart,
                _ => Presence::Kept,
            };
            let bytes = match part.file() {
                Some(_) => subject.client.block_info(&subject.domain, &part.name).await.ok().map(|info| info.capacity),
                None => None,
            };
            let made = part.is_disk() && part.file().is_some_and(|file| subject.made(file));
            found.push(part.view(presence, made, bytes.filter(|bytes| *bytes > 0)));
        }
        Ok(found)
    }

    pub(crate) async fn plan_device(&self, handle: &Handle, change: &DeviceChange) -> Result<Vec<Change>> {
        let subject = self.subject(handle).await?;
        match change {
            DeviceChange::Add(new) => {
                let addition = self.addition(&subject, new).await?;
                Ok(vec![addition.told])
            }
            DeviceChange::Remove { name, keep } => {
                let removal = self.removal(&subject, name, *keep).await?;
                let mut told = vec![removal.told];
                told.extend(removal.path.map(|path| changed(device::DISK, format!("{path} deleted"), Effect::Now)));
                Ok(told)
            }
        }
    }

    pub(crate) async fn change_device(&self, handle: &Handle, change: &DeviceChange, journal: &dyn Journal) -> Result<()> {
        let subject = self.subject(handle).await?;
        match change {
            DeviceChange::Add(new) => {
                let addition = self.addition(&subject, new).await?;
                let left = Left::Device { uuid: subject.domain.uuid, name: addition.name.clone(), path: addition.path.clone() };
                note(journal, &left).await?;
                let done = self.plug(&subject, &addition).await;
                if done.is_err()
                    && let Err(second) = self.take_back(subject.domain.uuid, &addition.name, addition.path.as_deref()).await
                {
                    tracing::warn!(device = %addition.name, error = %second.chain(), "a failed change left something behind");
                }
                done
            }
            DeviceChange::Remove { name, keep } => {
                let removal = self.removal(&subject, name, *keep).await?;
                note(journal, &Left::Removal { uuid: subject.domain.uuid, name: name.clone(), path: removal.path.clone() }).await?;
                self.unplug(&subject, &removal).await
            }
        }
    }

    /// Works out what a new device will be.
    async fn addition(&self, subject: &Subject, new: &NewDevice) -> Result<Addition> {
        match device::read(new)? {
            Wanted::Nic { net, model, mac } => self.new_card(subject, &net, model, mac).await,
            Wanted::Disk(disk) => self.new_disk(subject, &new.kind, disk).await,
        }
    }

    async fn new_card(&self, subject: &Subject, net: &Net, model: &str, mac: Option<String>) -> Result<Addition> {
        let mut problems = Problems::default();
        let host = self.host().await?;
        if let Net::Network(name) = net
            && !host.networks.iter().any(|network| network.name == *name)
        {
            let names: Vec<&str> = host.networks.iter().map(|network| network.name.as_str()).collect();
            let names = if names.is_empty() { "there are none; user needs none".into() } else { format!("there is {}", names.join(", ")) };
            problems.add("settings.network", format!("there is no libvirt network {name}; {names}"));
        }
        let mac = mac.unwrap_or_else(|| device::free_mac(&subject.definitions(), subject.id()));
        if subject.find(&mac) != (None, None) {
            problems.add("settings.mac", format!("the machine has a card with the address {mac} already"));
        }
        problems.or(())?;
        let later = subject.running.as_ref().and_then(|running| device::not_live(running, "virtio", true));
        let place = match net {
            Net::Network(name) => format!("in the network {name}"),
            Net::Bridge(name) => format!("at the bridge {name}"),
            Net::User => "in a network of its user".into(),
        };
        let told = told(device::NIC, format!("{mac} {model} {place} added"), later.as_deref());
        Ok(Addition { xml: device::card(net, model, &mac), name: mac, volume: None, path: None, file: None, later, told })
    }

    async fn new_disk(&self, subject: &Subject, kind: &str, disk: WantedDisk) -> Result<Addition> {
        let mut problems = Problems::default();
        let host = self.host().await?;
        let caps = if subject.stored.attribute("type") == Some("kvm") { &host.kvm } else { &host.tcg };
        if let Some(caps) = caps
            && !caps.offers("disk.bus", disk.bus)
        {
            problems.add("settings.bus", format!("{} is not offered here; there is {}", disk.bus, caps.list("disk.bus")));
        }
        let target = device::free_target(&subject.definitions(), disk.bus);
        if target.is_none() {
            problems.add("kind", "the machine has as many disks as there are names for");
        }
        let target = target.unwrap_or_default();
        let storage = Storage { client: &subject.client, local: self.link.endpoint.is_local() };
        let needs_pool = disk.size > 0 || disk.path.as_ref().is_some_and(|path| !path.starts_with('/'));
        let pool = host.pools.iter().find(|pool| pool.name == disk.pool).filter(|_| needs_pool);
        if needs_pool {
            match pool {
                None => problems
                    .add("settings.pool", format!("there is no storage pool {}; vmoon doctor --fix makes the default one", disk.pool)),
                Some(pool) if !pool.active => {
                    problems.add("settings.pool", format!("the storage pool {0} is not active: virsh pool-start {0}", pool.name));
                }
                Some(_) => {}
            }
        }
        let mut format = disk.format.unwrap_or("qcow2").to_owned();
        let (mut path, mut volume, mut files) = (None, None, true);
        if let (Some(pool), true) = (pool, disk.size > 0) {
            if !pool.holds_files() {
                disk.format.filter(|format| *format == "qcow2").into_iter().for_each(|_| {
                    problems.add("settings.format", format!("the pool {} is of kind {}, which holds raw disks only", pool.name, pool.kind));
                });
                (format, files) = ("raw".into(), false);
            }
            let limit = if format == "raw" { pool.available } else { pool.capacity };
            if pool.capacity > 0 && disk.size > limit {
                let text = format!("{} do not fit: the pool {} has {}", size::show(disk.size), pool.name, size::show(limit));
                problems.add("settings.size", text);
            }
            let new = NewVolume { target: target.clone(), format: format.clone(), size: disk.size, content: Content::Empty };
            let of = if subject.ours { subject.domain.name.as_str() } else { FOREIGN };
            let name = volume_name(of, Some(subject.id()), &new);
            path = Some(format!("{}/{name}", pool.target));
            let place = PoolRef { name: pool.name.clone(), target: pool.target.clone(), files };
            volume = Some((place, new, name));
        }
        let mut image = path.clone();
        if let Some(given) = &disk.path {
            let file = match pool {
                Some(pool) => format!("{}/{given}", pool.target),
                None => given.clone(),
            };
            match self.usable(&storage, subject, &disk, &file).await? {
                Ok(found) => format = disk.format.map_or(found, str::to_owned),
                Err((setting, why)) => problems.add(format!("settings.{setting}"), why),
            }
            files = !file.starts_with("/dev/");
            image = Some(file);
        }
        problems.or(())?;
        let shown = match (&image, disk.size) {
            (None, _) => "empty".to_owned(),
            (Some(image), 0) => image.clone(),
            (Some(image), size) => format!("{} {format}, new: {image}", size::show(size)),
        };
        let model = crate::model::Disk {
            target: target.clone(),
            bus: disk.bus.into(),
            cdrom: disk.cdrom,
            readonly: disk.readonly,
            format: if disk.cdrom { "raw".into() } else { format },
            cache: disk.cache.map(str::to_owned),
            boot: None,
            source: crate::model::Source::Path(image.clone().unwrap_or_default()),
        };
        let mut xml = model.element(image.clone().unwrap_or_default(), files);
        if disk.cdrom && disk.path.is_none() {
            xml.remove(|element| element.name == "source");
        }
        let later = subject.running.as_ref().and_then(|running| device::not_live(running, disk.bus, true));
        let told = told(kind, format!("{target} {} {shown} added", disk.bus), later.as_deref());
        Ok(Addition { name: target, xml, volume, path, file: image, later, told })
    }

    /// The format of an image that is there and may be used; or which setting is wrong, and why.
    async fn usable(
        &self,
        storage: &Storage<'_>,
        subject: &Subject,
        disk: &WantedDisk,
        file: &str,
    ) -> Result<std::result::Result<String, (&'static str, String)>> {
        if !storage.exists(file).await? {
            return Ok(Err(("path", format!("there is no {file}"))));
        }
        let known = subject.definitions().iter().flat_map(|domain| device::parts(domain)).any(|part| part.file() == Some(file));
        if known {
            return Ok(Err(("path", format!("the machine has {file} already"))));
        }
        if !disk.readonly {
            let users = self.users_of(storage, subject.domain.uuid, &[file.to_owned()]).await?;
            if !users.is_empty() {
                let users: Vec<String> = users.iter().take(5).map(|user| vmoon_core::name::escape(user)).collect();
                return Ok(Err(("path", format!("{file} is in use by {}: with readonly=yes it may be shared", users.join(", ")))));
            }
        }
        if !storage.local && storage.volume_at(file).await?.is_none() {
            let unknown = || ("format", format!("{file} is in no storage pool, so it cannot be looked at: say qcow2 or raw"));
            return Ok(disk.format.map(str::to_owned).ok_or_else(unknown));
        }
        storage.base(file).await.map(|base| Ok(base.format))
    }

    async fn plug(&self, subject: &Subject, addition: &Addition) -> Result<()> {
        let storage = Storage { client: &subject.client, local: self.link.endpoint.is_local() };
        if let Some((pool, volume, name)) = &addition.volume {
            storage.make(pool, name, volume, None).await?;
            self.is_found(&storage, pool, &format!("{}/{name}", pool.target)).await?;
        }
        let live = subject.running.is_some() && addition.later.is_none();
        let of = if live { Affect::LIVE | Affect::CONFIG } else { Affect::CONFIG };
        let what = if live { "add the device to the running machine" } else { "add the device" };
        match (subject.client.attach(&subject.domain, &addition.xml.to_text(), of).await, &addition.file) {
            (Err(error), Some(file)) if storage.local && is_unseen(&error) => Err(super::storage::unseen(file).source(error)),
            (Ok(()), Some(file)) if !live => storage.is_seen(&subject.domain, &addition.name, file).await,
            (done, _) => done.doing(what),
        }
    }

    /// Works out how a device goes.
    async fn removal(&self, subject: &Subject, name: &str, keep: bool) -> Result<Removal> {
        let (stored, running) = subject.find(name);
        let part = running.as_ref().or(stored.as_ref()).ok_or_else(|| not_found(name))?;
        let bus = part.element.first("target").and_then(|target| target.attribute("bus")).unwrap_or("virtio");
        let later = running.as_ref().zip(subject.running.as_ref()).and_then(|(_, running)| device::not_live(running, bus, false));
        let file = part.file().filter(|_| part.is_disk()).map(str::to_owned);
        let path = file.clone().filter(|file| !keep && subject.made(file));
        let what = "look at the machine's snapshots";
        if part.is_disk()
            && part.element.first("readonly").is_none()
            && !subject.client.snapshots(&subject.domain, Snapshots::NONE).await.doing(what)?.is_empty()
        {
            return Err(Error::new(Code::DeviceInUse, format!("snapshots of the machine hold the disk {name}"))
                .hint("delete them first: vmoon snapshot list MACHINE"));
        }
        if let (Some(path), Some(why)) = (&path, &later) {
            return Err(Error::new(Code::MachineRunning, format!("{why}, so {path} cannot be deleted now"))
                .hint("stop the machine first, or add --keep-disks"));
        }
        if let Some(path) = &path {
            let storage = Storage { client: &subject.client, local: self.link.endpoint.is_local() };
            self.nothing_depends_on(&storage, subject.domain.uuid, std::slice::from_ref(path)).await?;
        }
        let kind = if part.is_disk() { part.element.attribute("device").unwrap_or(device::DISK) } else { device::NIC };
        let shown = file.map(|file| format!(" {file}")).unwrap_or_default();
        let told = told(kind, format!("{name}{shown} removed"), later.as_deref());
        Ok(Removal { name: name.to_owned(), path, later, told })
    }

    /// Takes a device away: from what runs, whose guest has to let it go, then from what is kept, then what it held.
    async fn unplug(&self, subject: &Subject, removal: &Removal) -> Result<()> {
        let (stored, running) = subject.find(&removal.name);
        if let Some(part) = running.filter(|_| removal.later.is_none()) {
            self.release(subject, &part).await?;
        }
        if let Some(part) = stored {
            match subject.client.detach(&subject.domain, &part.element.to_text(), Affect::CONFIG).await {
                Err(error) if !error.is_not_found() => return Err(failed("remove the device", error)),
                _ => {}
            }
        }
        if let Some(path) = &removal.path {
            let storage = Storage { client: &subject.client, local: self.link.endpoint.is_local() };
            storage.delete(path).await?;
        }
        Ok(())
    }

    /// Has a running guest let a device go. libvirt waits for that itself, but not long.
    async fn release(&self, subject: &Subject, part: &Part<'_>) -> Result<()> {
        let what = "remove the device from the running machine";
        let (client, domain) = (&subject.client, &subject.domain);
        let alias = part.element.first("alias").and_then(|alias| alias.attribute("name")).unwrap_or_default();
        let mut events = client.watch(&[Topic::DEVICE_REMOVED, Topic::DEVICE_REMOVAL_FAILED, Topic::LIFE]).await.doing(what)?;
        match client.detach(domain, &part.element.to_text(), Affect::LIVE).await {
            // It ended meanwhile, and holds nothing any more.
            Err(error) if error.refusal().is_some() && !client.is_active(domain).await.unwrap_or(true) => return Ok(()),
            asked => asked.doing(what)?,
        }
        let until = Instant::from_std(clock::instant()) + RELEASE;
        loop {
            let text = match client.domain_xml(domain, Xml::NONE).await {
                Ok(text) => text,
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(failed(what, error)),
            };
            let there = device::parts(&Element::parse(&text)?).iter().any(|other| other.name == part.name);
            // What has ended holds nothing any more.
            if !there || !client.is_active(domain).await.doing(what)? {
                return Ok(());
            }
            let heard = async {
                loop {
                    match events.next().await {
                        Event::Domain { domain: of, what: DomainEvent::DeviceRemoved { device } }
                            if of.uuid == domain.uuid && device == alias =>
                        {
                            return true;
                        }
                        Event::Domain { domain: of, what: DomainEvent::DeviceRemovalFailed { device } }
                            if of.uuid == domain.uuid && device == alias =>
                        {
                            return false;
                        }
                        Event::Domain { domain: of, what: DomainEvent::Life(..) } if of.uuid == domain.uuid => return true,
                        Event::Everything | Event::Closed(_) => return true,
                        _ => {}
                    }
                }
            };
            match tokio::time::timeout_at(until, heard).await {
                Ok(true) => {}
                Ok(false) | Err(_) => {
                    let text = format!("the guest does not let {} go; it was asked to, and the machine still has it", part.name);
                    return Err(Error::new(Code::DeviceInUse, text)
                        .hint("unmount or disable it in the guest and try again, or stop the machine first"));
                }
            }
        }
    }

    /// Takes back what adding a device has left, as far as it came.
    pub(crate) async fn take_back(&self, uuid: Uuid, name: &str, path: Option<&str>) -> Result<()> {
        let Some(subject) = self.subject_of(uuid).await? else { return self.erase(path).await };
        let (stored, running) = subject.find(name);
        if let Some(part) = running {
            self.release(&subject, &part).await?;
        }
        if let Some(part) = stored {
            subject.client.detach(&subject.domain, &part.element.to_text(), Affect::CONFIG).await.doing("remove the device")?;
        }
        self.erase(path).await
    }

    /// Goes on with a removal that was cut off, if the device is gone from what runs; else the machine keeps it.
    pub(crate) async fn finish_removal(&self, uuid: Uuid, name: &str, path: Option<&str>) -> Result<bool> {
        let Some(subject) = self.subject_of(uuid).await? else {
            self.erase(path).await?;
            return Ok(true);
        };
        let (stored, running) = subject.find(name);
        match (stored, running) {
            (Some(_), Some(_)) => return Ok(false),
            (Some(_), None) if subject.running.is_none() => return Ok(false),
            (Some(part), None) => {
                subject.client.detach(&subject.domain, &part.element.to_text(), Affect::CONFIG).await.doing("remove the device")?;
            }
            (None, Some(_)) => return Ok(true),
            (None, None) => {}
        }
        self.erase(path).await?;
        Ok(true)
    }

    async fn subject_of(&self, uuid: Uuid) -> Result<Option<Subject>> {
        match self.subject(&look::handle_of(uuid)).await {
            Ok(subject) => Ok(Some(subject)),
            Err(error) if error.code() == Code::MachineBroken => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn erase(&self, path: Option<&str>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        let client = self.link.client().await?;
        Storage { client: &client, local: self.link.endpoint.is_local() }.delete(path).await
    }

    /// Presses the reset button.
    pub(crate) async fn press_reset(&self, handle: &Handle) -> Result<()> {
        let client = self.link.client().await?;
        let domain = Domain::of(uuid_of(handle).ok_or_else(|| Error::new(Code::MachineBroken, "libvirt has no such machine any more"))?);
        let off = || Error::new(Code::MachineStopped, "the machine does not run").hint("start it");
        match client.reset(&domain).await {
            Err(error) if !error.is_not_found() && !client.is_active(&domain).await.unwrap_or(true) => {
                tracing::debug!(%error, "it is off");
                Err(off())
            }
            done => done.doing("reset the machine"),
        }
    }
}

/// A change, with why it has to wait if it has to.
fn told(kind: &str, what: String, later: Option<&str>) -> Change {
    match later {
        None => changed(kind, what, Effect::Now),
        Some(why) => changed(kind, format!("{what}: {why}"), Effect::NextStart),
    }
}
