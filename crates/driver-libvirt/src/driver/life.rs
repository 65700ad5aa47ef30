//! A machine's life: start, stop, kill, pause, save, delete. Nothing here kills but `force`, nothing deletes but `delete`.

use super::{
    Inner,
    errors::{Doing as _, failed},
    look::{self, uuid_of},
    snapshots::writable,
    storage::Storage,
};
use crate::{
    model::is_made_for,
    render::{NAMESPACE, PREFIX, Tag},
};
use std::{collections::HashSet, path::Path, time::Duration};
use tokio::task::JoinSet;
use uuid::Uuid;
use vmoon_core::{Code, Error, Result, driver::Handle};
use vmoon_libvirt_wire::{
    Client, Domain, DomainState, ErrorCode,
    flags::{Affect, Destroy, Domains, Save, Shutdown, Start, Undefine, Xml},
};
use vmoon_sys::clock;
use vmoon_xml::Element;

/// How long the guest's agent may take to say that it will shut down.
const ASK_AGENT: Duration = Duration::from_secs(4);
/// How long libvirt may take to press the power button.
const PRESS: Duration = Duration::from_secs(8);

fn missing() -> Error {
    Error::new(Code::MachineBroken, "libvirt has no such machine any more").hint("it was undefined from outside; vmoon rm forgets it")
}

/// Whether a refusal means that the domain does not run.
fn is_off(error: &vmoon_libvirt_wire::Error) -> bool {
    error.is_not_found() || error.code() == Some(ErrorCode::OPERATION_INVALID)
}

/// The files of a domain's disks, as its XML names them.
pub(crate) fn disk_files(domain: &Element) -> Vec<String> {
    let disks = domain.first("devices").into_iter().flat_map(|devices| devices.named("disk"));
    let sources = disks.filter_map(|disk| disk.first("source"));
    sources.filter_map(|source| source.attribute("file").or_else(|| source.attribute("dev")).map(str::to_owned)).collect()
}

fn directory_of(path: &str) -> Option<String> {
    Path::new(path).parent().and_then(Path::to_str).filter(|directory| !directory.is_empty()).map(str::to_owned)
}

impl Inner {
    /// The domain behind a handle.
    pub(crate) async fn domain(&self, client: &Client, handle: &Handle) -> Result<Domain> {
        let uuid = uuid_of(handle).ok_or_else(missing)?;
        match client.domain(uuid).await {
            Err(error) if error.is_not_found() => Err(missing()),
            found => found.doing("find the machine"),
        }
    }

    pub(crate) async fn start(&self, handle: &Handle) -> Result<()> {
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        let what = "start the machine";
        let (state, _) = client.state(&domain).await.doing(what)?;
        if domain.id >= 0 && !matches!(state, DomainState::Shutoff | DomainState::Crashed) {
            return self.let_run(handle).await;
        }
        let stored = Element::parse(&client.domain_xml(&domain, Xml::INACTIVE).await.doing(what)?)?;
        self.may_be_written(&client, &stored).await?;
        self.start_networks(&client, &stored).await?;
        let tag = look::tag(&client, &domain).await.doing(what)?;
        let how = if tag.is_some() { Start::PAUSED } else { Start::NONE };
        match client.start(&domain, how).await {
            Ok(_) => {}
            // Somebody else was quicker.
            Err(error) if error.code() == Some(ErrorCode::OPERATION_INVALID) && client.is_active(&domain).await.unwrap_or(false) => {}
            Err(error) => return Err(started_badly(error)),
        }
        match tag {
            Some(tag) => self.begin_life(&client, &domain, tag).await,
            None => Ok(()),
        }
    }

    /// Marks a domain of ours that was started, and not yet let run, with the number of its life; then lets it run. The mark is part of what runs: it goes
    /// with it into a saved state and comes back, and is gone when it ends.
    async fn begin_life(&self, client: &Client, domain: &Domain, tag: Tag) -> Result<()> {
        let what = "start the machine";
        // What goes on from a saved state has its number already.
        let live = look::tag(client, domain).await.doing(what)?;
        let life = match live.and_then(|live| live.life) {
            Some(life) => life,
            None => {
                let life = clock::now_ms();
                let element = Tag { life: Some(life), ..tag }.element().to_text();
                client.set_metadata(domain, Some(&element), PREFIX, NAMESPACE, Affect::LIVE).await.doing(what)?;
                life
            }
        };
        // The console is listened to before the guest can say anything.
        self.listen(domain.uuid, life).await;
        client.resume(domain).await.doing(what)
    }

    /// Lets a domain of ours run that was started and is still held. Others are left as they are.
    pub(crate) async fn let_run(&self, handle: &Handle) -> Result<()> {
        // `virDomainPausedReason`: started by us and never let run; or by a start that was cut off.
        const STARTING_UP: i32 = 11;
        const BY_USER: i32 = 1;
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        let (state, reason) = client.state(&domain).await.doing("start the machine")?;
        let Some(tag) = look::tag(&client, &domain).await.doing("start the machine")? else { return Ok(()) };
        let held = reason == STARTING_UP || (reason == BY_USER && tag.life.is_none());
        if state == DomainState::Paused && held { self.begin_life(&client, &domain, tag).await } else { Ok(()) }
    }

    /// Starts the networks that the machine's cards are in.
    async fn start_networks(&self, client: &Client, domain: &Element) -> Result<()> {
        let what = "start the machine's network";
        let cards = domain.first("devices").into_iter().flat_map(|devices| devices.named("interface"));
        let names: HashSet<String> = cards.filter_map(|card| card.first("source")?.attribute("network").map(str::to_owned)).collect();
        for name in names {
            let network = match client.network_named(&name).await {
                Ok(network) => network,
                // libvirt says so better when the machine is started.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(failed(what, error)),
            };
            if !client.network_is_active(&network).await.doing(what)? {
                match client.network_start(&network).await {
                    Err(error) if error.code() != Some(ErrorCode::OPERATION_INVALID) => return Err(failed(what, error)),
                    _ => tracing::info!(network = %name, "started"),
                }
            }
        }
        Ok(())
    }

    /// Asks the guest to shut down: its agent, then by the power button. Returns when it was asked.
    pub(crate) async fn ask_to_stop(&self, handle: &Handle) -> Result<()> {
        let client = self.link.client().await?;
        let domain = match self.domain(&client, handle).await {
            Err(error) if error.code() == Code::MachineBroken => return Ok(()),
            found => found?,
        };
        if domain.id < 0 {
            return Ok(());
        }
        match client.within(ASK_AGENT).shutdown(&domain, Shutdown::AGENT).await {
            Ok(()) => return Ok(()),
            Err(error) if is_off(&error) => return Ok(()),
            // No agent, or one that does not answer: it may have obeyed all the same.
            Err(error) => tracing::debug!(domain = %domain.uuid, %error, "the agent does not shut the guest down"),
        }
        match client.within(PRESS).shutdown(&domain, Shutdown::ACPI).await {
            Err(error) if !is_off(&error) => Err(failed("ask the guest to shut down", error)),
            _ => Ok(()),
        }
    }

    /// Ends it now; a saved state is thrown away. Returns when it is off.
    pub(crate) async fn force(&self, handle: &Handle) -> Result<()> {
        let client = self.link.client().await?;
        let domain = match self.domain(&client, handle).await {
            Err(error) if error.code() == Code::MachineBroken => return Ok(()),
            found => found?,
        };
        self.end(&client, &domain).await
    }

    async fn end(&self, client: &Client, domain: &Domain) -> Result<()> {
        match client.destroy(domain, Destroy::NONE).await {
            Ok(()) => Ok(()),
            Err(error) if is_off(&error) => {
                if client.has_managed_save(domain).await.unwrap_or(false) {
                    client.remove_managed_save(domain).await.doing("throw the saved state away")?;
                }
                Ok(())
            }
            Err(error) => Err(failed("end the machine", error)),
        }
    }

    pub(crate) async fn pause(&self, handle: &Handle) -> Result<()> {
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        let paused = client.pause(&domain).await;
        match paused {
            Err(error) if client.state(&domain).await.is_ok_and(|(state, _)| state == DomainState::Paused) => {
                tracing::debug!(%error, "it is paused already");
                Ok(())
            }
            paused => paused.doing("pause the machine"),
        }
    }

    pub(crate) async fn resume(&self, handle: &Handle) -> Result<()> {
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        let (state, _) = client.state(&domain).await.doing("resume the machine")?;
        match state {
            DomainState::Running | DomainState::Blocked => Ok(()),
            _ => client.resume(&domain).await.doing("resume the machine"),
        }
    }

    /// Writes memory to storage and ends it.
    pub(crate) async fn save(&self, handle: &Handle) -> Result<()> {
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        if client.has_managed_save(&domain).await.doing("suspend the machine")? && domain.id < 0 {
            return Ok(());
        }
        // Whatever it was, it runs when it comes back: that is what resume promises.
        client.managed_save(&domain, Save::RUNNING).await.doing("suspend the machine")
    }

    /// Goes on from a saved state.
    pub(crate) async fn restore(&self, handle: &Handle) -> Result<()> {
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        if domain.id >= 0 {
            return Ok(());
        }
        if !client.has_managed_save(&domain).await.doing("resume the machine")? {
            return Err(Error::new(Code::MachineStopped, "the machine has no saved state to go on from").hint("start it"));
        }
        client.start(&domain, Start::NONE).await.map(drop).doing("resume the machine")
    }

    /// Deletes it: refuses while something depends on its disks, then ends it, forgets it with all that libvirt keeps of it, and only then its disks.
    /// Disks of a machine that vmoon has not made are kept.
    pub(crate) async fn delete(&self, handle: &Handle) -> Result<()> {
        let Some(uuid) = uuid_of(handle) else { return Ok(()) };
        let client = self.link.client().await?;
        let storage = Storage { client: &client, local: self.link.endpoint.is_local() };
        let domain = match client.domain(uuid).await {
            Ok(domain) => Some(domain),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(failed("find the machine", error)),
        };
        let id = vmoon_core::MachineId::from_uuid(uuid);
        let ours = match &domain {
            Some(domain) => look::tag(&client, &Domain::of(domain.uuid)).await.doing("look at the machine")?.is_some(),
            // What a cut-off deletion has left bears the id in its name; no other machine's files do.
            None => uuid.get_version_num() == 7,
        };
        let directories: HashSet<String> = match &domain {
            Some(domain) if ours => {
                let xml = Element::parse(&client.domain_xml(domain, Xml::INACTIVE).await.doing("look at the machine")?)?;
                disk_files(&xml).iter().filter(|file| is_made_for(file, id)).filter_map(|file| directory_of(file)).collect()
            }
            None if ours => super::host::pools(&client).await?.into_iter().filter(|pool| pool.active).map(|pool| pool.target).collect(),
            _ => HashSet::new(),
        };
        let mut files = Vec::new();
        for directory in &directories {
            match storage.made_for(id, directory).await {
                Ok(found) => files.extend(found),
                Err(error) if domain.is_none() => tracing::debug!(%directory, error = %error.chain(), "a pool cannot be looked into"),
                Err(error) => return Err(error),
            }
        }
        if let Some(domain) = domain.as_ref().filter(|_| !ours) {
            // A machine of somebody else keeps its disks, but those that were made for it here.
            let xml = Element::parse(&client.domain_xml(domain, Xml::INACTIVE).await.doing("look at the machine")?)?;
            files.extend(disk_files(&xml).into_iter().filter(|file| super::devices::made_for(false, id, file)));
        }
        if domain.is_some() && !files.is_empty() {
            self.nothing_depends_on(&storage, uuid, &files).await?;
        }
        if let Some(domain) = &domain {
            self.end(&client, domain).await?;
            self.undefine(&client, domain.uuid).await?;
        }
        self.consoles.forget(&uuid.to_string());
        self.forget_inside(uuid);
        for file in files {
            storage.delete(&file).await?;
        }
        Ok(())
    }

    /// Forgets a definition with everything that libvirt keeps beside it: saved state, snapshots, firmware variables, the TPM's state.
    pub(crate) async fn undefine(&self, client: &Client, uuid: Uuid) -> Result<()> {
        let domain = Domain::of(uuid);
        let most = Undefine::MANAGED_SAVE | Undefine::SNAPSHOTS_METADATA | Undefine::CHECKPOINTS_METADATA | Undefine::NVRAM;
        // A domain that runs would live on without its definition.
        self.end(client, &domain).await?;
        let mut last = None;
        // An older libvirt does not know the last flags.
        for flags in [most | Undefine::TPM, most, Undefine::MANAGED_SAVE | Undefine::SNAPSHOTS_METADATA | Undefine::NVRAM] {
            match client.undefine(&domain, flags).await {
                // Somebody may have started it in between: then it runs on without a definition, and on disks that are about to go.
                Ok(()) => return self.end(client, &domain).await,
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if matches!(error.code(), Some(ErrorCode::INVALID_ARG | ErrorCode::ARGUMENT_UNSUPPORTED)) => last = Some(error),
                Err(error) => return Err(failed("undefine the machine", error)),
            }
        }
        match last {
            Some(error) => Err(failed("undefine the machine", error)),
            None => Ok(()),
        }
    }

    /// Whether no other domain uses these files and no other image is based on them.
    pub(crate) async fn nothing_depends_on(&self, storage: &Storage<'_>, uuid: Uuid, files: &[String]) -> Result<()> {
        let users = self.users_of(storage, uuid, files).await?;
        if users.is_empty() {
            return Ok(());
        }
        let shown: Vec<String> = users.iter().take(5).map(|user| vmoon_core::name::escape(user)).collect();
        let more = if users.len() > 5 { format!(" and {} more", users.len() - 5) } else { String::new() };
        Err(Error::new(Code::MachineBusy, format!("its disks are in use by {}{more}; nothing was deleted", shown.join(", ")))
            .hint("delete what is based on it first, or make it independent"))
    }

    /// The other domains that use these files, and the images that are based on them.
    pub(crate) async fn users_of(&self, storage: &Storage<'_>, uuid: Uuid, files: &[String]) -> Result<Vec<String>> {
        let what = "see whether other machines use its disks";
        let files: HashSet<&str> = files.iter().map(String::as_str).collect();
        let mut reading = JoinSet::new();
        for other in storage.client.domains(Domains::NONE).await.doing(what)?.into_iter().filter(|other| other.uuid != uuid) {
            let client = storage.client.clone();
            reading.spawn(async move { (client.domain_xml(&other, Xml::INACTIVE).await, other.name) });
        }
        let mut users = Vec::new();
        while let Some(done) = reading.join_next().await {
            let Ok((text, name)) = done else { continue };
            match text {
                Ok(text) if disk_files(&Element::parse(&text)?).iter().any(|file| files.contains(file.as_str())) => users.push(name),
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(failed(what, error)),
            }
        }
        users.extend(self.based_on(storage, &files).await?);
        users.sort();
        Ok(users)
    }

    /// The images beside these files that are based on one of them.
    async fn based_on(&self, storage: &Storage<'_>, files: &HashSet<&str>) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let directories: HashSet<String> = files.iter().filter_map(|file| directory_of(file)).collect();
        for directory in directories {
            for image in storage.images_in(&directory).await?.into_iter().filter(|image| !files.contains(image.as_str())) {
                let base = storage.base_of(&image).await?;
                let base = base.map(|base| if base.starts_with('/') { base } else { format!("{directory}/{base}") });
                if base.is_some_and(|base| files.contains(base.as_str())) {
                    found.push(image);
                }
            }
        }
        Ok(found)
    }

    /// Whether a machine may write to its disks: not if another image is based on one of them, which would be spoilt.
    async fn may_be_written(&self, client: &Client, domain: &Element) -> Result<()> {
        let disks = writable(domain);
        let files: HashSet<&str> = disks.iter().map(|disk| disk.file.as_str()).collect();
        let storage = Storage { client, local: self.link.endpoint.is_local() };
        match self.based_on(&storage, &files).await?.as_slice() {
            [] => Ok(()),
            [first, ..] => {
                let first = vmoon_core::name::escape(first);
                Err(Error::new(Code::MachineBusy, format!("{first} is based on a disk of this machine and would be spoilt if it ran"))
                    .hint("make clones of it full, or leave it off and work with a clone of it"))
            }
        }
    }
}

/// Why a start failed, with what helps where that is known.
fn started_badly(error: vmoon_libvirt_wire::Error) -> Error {
    let message = error.to_string();
    let hint = if ["/dev/kvm", "KVM", "kvm/", "accel=kvm"].iter().any(|word| message.contains(word)) {
        Some(
            "the host's KVM does not work for the hypervisor: check /dev/kvm, or make the machine with accelerator=tcg, which is slow and works everywhere",
        )
    } else if message.contains("network") && message.contains("not active") {
        Some("start the network: virsh net-start NAME")
    } else if message.contains("Cannot access storage file") || message.contains("No such file") {
        Some("a disk or image is missing or the hypervisor's user may not read it; files below a home directory often are closed to it")
    } else if message.contains("annot allocate memory") {
        Some("the host has too little free memory; give the machine less")
    } else if message.contains("hugetlbfs") || message.contains("hugepages") {
        Some("reserve huge pages on the host (vm.nr_hugepages) and mount hugetlbfs, or make the machine with hugepages=no")
    } else if message.contains("interface MTU") || message.contains("to bridge") {
        Some("the host has no bridge of that name; see: ip link show type bridge")
    } else {
        None
    };
    let failed = failed("start the machine", error);
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}
