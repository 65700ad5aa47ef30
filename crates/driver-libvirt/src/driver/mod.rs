//! The driver, as the daemon sees it. It keeps nothing in memory that libvirt could not tell again, but what consoles have said.

mod addresses;
mod agent;
mod clone;
mod console;
mod devices;
mod display;
mod endpoint;
mod errors;
mod guest;
mod host;
mod life;
mod link;
mod look;
mod make;
mod media;
mod merge;
mod overlays;
mod probe;
mod repair;
mod screen;
mod snapshots;
mod storage;
mod tune;
mod watch;

use crate::{caps::Host, plan, settings, settings::Settings};
use async_trait::async_trait;
use endpoint::{Endpoint, SshOptions};
use link::Link;
use serde_json::{Map, Value};
use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};
use vmoon_core::{
    Error, MachineId, Result, ability,
    device::{Device, DeviceChange, DeviceKind, Devices},
    driver::{
        Abilities, Channel, Check, Clones, Driver, DriverInfo, Found, Handle, HostFacts, Journal, Offset, Pause, Plan, Recovered,
        SessionLink, Sighting, StopMode, Suspend, Usage, as_original,
    },
    operation::{OpRecord, Undo},
    spec::{MachineSpec, Problems},
};
use vmoon_guest::{Guests, OverSsh};

/// The kind of machine.
pub const KIND: &str = "libvirt";

/// Where a [`LibvirtDriver`] leads.
#[derive(Clone, Debug, Default)]
pub struct LibvirtConfig {
    /// `qemu:///system`, `qemu:///session`, `qemu+ssh://[USER@]HOST[:PORT]/system`, `qemu+unix:///system?socket=PATH` or `test:///default`.
    pub uri: String,
    /// The user at the other computer, where the URI names none.
    pub user: Option<String>,
    /// The absolute path of a private key for SSH, where the URI names none.
    pub identity: Option<String>,
    /// The directory of this user's sockets (`XDG_RUNTIME_DIR`): there `qemu:///session` listens, and sockets of screens are made.
    pub runtime: Option<std::path::PathBuf>,
    /// Where programs of this user keep what they make (`XDG_DATA_HOME`): a pool for `qemu:///session` is made below.
    pub data: Option<std::path::PathBuf>,
    /// How the machines' guests are entered over SSH; without it they are not.
    pub guests: Option<Guests>,
}

/// The driver of one libvirt, and what its guests offer.
#[derive(Clone)]
pub struct LibvirtDriver(Arc<Inner>, OverSsh<Inner>);

pub(crate) struct Inner {
    link: link::Shared,
    tags: look::Tags,
    host: host::Cache,
    consoles: vmoon_guest::console::Consoles,
    screens: screen::Screens,
    data: Option<std::path::PathBuf>,
    guests: Option<Guests>,
}

impl LibvirtDriver {
    /// A driver for that address. It connects when it is first asked something, and again by itself after each loss.
    ///
    /// # Errors
    /// [`vmoon_core::Code::Usage`] if the URI is none that it takes.
    pub fn connect(config: &LibvirtConfig) -> Result<Self> {
        let ssh = SshOptions { user: config.user.clone(), identity: config.identity.clone() };
        let endpoint = Endpoint::parse(&config.uri, config.runtime.as_deref().map(Path::new), &ssh)?;
        let link = Arc::new(Link::new(endpoint));
        let inner = Inner {
            link,
            tags: look::Tags::default(),
            host: host::Cache::default(),
            consoles: vmoon_guest::console::Consoles::default(),
            screens: screen::Screens::new(config.runtime.as_deref()),
            data: config.data.clone(),
            guests: config.guests.clone(),
        };
        let inner = Arc::new(inner);
        Ok(Self(inner.clone(), OverSsh::new(inner)))
    }
}

#[async_trait]
impl Driver for LibvirtDriver {
    fn info(&self) -> DriverInfo {
        DriverInfo { kind: KIND.into(), settings: settings::known() }
    }

    async fn probe(&self) -> Vec<Check> {
        self.0.probe().await
    }

    async fn identity(&self) -> Option<String> {
        self.0.identity().await
    }

    async fn repair(&self, dry_run: bool) -> Result<Vec<String>> {
        self.0.repair(dry_run).await
    }

    async fn facts(&self) -> Result<HostFacts> {
        let host = serde_json::to_value(self.0.host().await?);
        host.map(HostFacts).map_err(|error| Error::internal("what the host offers cannot be written").source(error))
    }

    fn plan(&self, name: &str, spec: &MachineSpec, host: &HostFacts) -> Result<Plan, Problems> {
        let mut settings = Settings::read(spec)?;
        settings.ssh &= self.0.guests.is_some();
        let mut problems = Problems::default();
        let host: Host = serde_json::from_value(host.0.clone()).unwrap_or_else(|error| {
            problems.add("host", format!("what the host offers cannot be read: {error}"));
            Host::default()
        });
        problems.or(())?;
        let (blueprint, steps) = plan::plan(name, &settings, &host)?;
        Ok(Plan { name: name.to_owned(), steps, settings: serde_json::to_value(&blueprint).unwrap_or_default() })
    }

    async fn create(&self, id: MachineId, plan: &Plan, journal: &dyn Journal) -> Result<Handle> {
        self.0.create(id, plan, journal).await
    }

    async fn start(&self, handle: &Handle) -> Result<()> {
        self.0.start(handle).await
    }

    async fn stop(&self, handle: &Handle, how: StopMode) -> Result<()> {
        match how {
            StopMode::Polite => self.0.ask_to_stop(handle).await,
            StopMode::Force => self.0.force(handle).await,
        }
    }

    async fn delete(&self, handle: &Handle) -> Result<()> {
        self.0.delete(handle).await
    }

    async fn observe(&self, handle: &Handle) -> Sighting {
        self.0.look(handle).await
    }

    async fn list(&self) -> Result<Vec<Found>> {
        self.0.look_at_all(&HashMap::new()).await
    }

    async fn list_knowing(&self, known: &HashMap<Handle, Vec<Channel>>) -> Result<Vec<Found>> {
        self.0.look_at_all(known).await
    }

    async fn recover(&self, op: &OpRecord, undos: &[Undo]) -> Result<Recovered> {
        self.0.recover(op, undos).await
    }

    async fn open(&self, handle: &Handle, channel: &Channel, from: Offset) -> Result<SessionLink> {
        match guest::is_inside(channel) {
            true => self.0.open_inside(handle, channel, from).await,
            false => self.0.open(handle, channel, from).await,
        }
    }

    fn on_demand(&self, channel: &Channel) -> bool {
        guest::is_inside(channel)
    }

    fn rests(&self, channel: &Channel) -> Option<Duration> {
        vmoon_guest::rests(channel)
    }

    fn abilities(&self, handle: &Handle) -> Abilities {
        let eval = self.0.guests.as_ref().is_some_and(|guests| guests.is_known(&handle.0));
        Abilities { pause: true, suspend: true, eval, ..Abilities::default() }
    }

    async fn describe(&self, handle: &Handle) -> Map<String, Value> {
        self.0.describe(handle).await.unwrap_or_else(|error| {
            tracing::debug!(?handle, error = %error.chain(), "cannot be described");
            Map::new()
        })
    }

    async fn usage(&self, handles: &[Handle]) -> Vec<Usage> {
        self.0.used(handles).await.unwrap_or_default()
    }

    fn clones(&self) -> Option<&dyn Clones> {
        Some(self)
    }

    fn pause(&self) -> Option<&dyn Pause> {
        Some(self)
    }

    fn suspend(&self) -> Option<&dyn Suspend> {
        Some(self)
    }

    fn snapshots(&self) -> Option<&dyn ability::Snapshots> {
        Some(self)
    }

    fn exec(&self) -> Option<&dyn ability::Exec> {
        Some(self)
    }

    fn addresses(&self) -> Option<&dyn ability::Addresses> {
        Some(self)
    }

    fn display(&self) -> Option<&dyn ability::Display> {
        Some(self)
    }

    fn tune(&self) -> Option<&dyn ability::Tune> {
        Some(self)
    }

    fn devices(&self) -> Option<&dyn Devices> {
        Some(self)
    }

    fn reset(&self) -> Option<&dyn ability::Reset> {
        Some(self)
    }

    fn environments(&self) -> Option<&dyn ability::Environments> {
        self.0.guests.as_ref().filter(|guests| guests.has_environments()).map(|_| &self.1 as &dyn ability::Environments)
    }

    fn remote_files(&self) -> Option<&dyn ability::RemoteFiles> {
        self.0.guests.as_ref().map(|_| &self.1 as &dyn ability::RemoteFiles)
    }

    fn watch(&self) -> Option<Box<dyn ability::Notices>> {
        Some(Box::new(watch::Watch::new(self.0.link.clone())))
    }
}

#[async_trait]
impl Clones for LibvirtDriver {
    async fn plan(&self, name: &str, original: &Handle) -> Result<Plan> {
        self.0.plan_copy(name, original).await
    }

    async fn plan_with(&self, name: &str, original: &Handle, settings: &Map<String, Value>) -> Result<Plan> {
        as_original(&self.info(), &[], self.tune().is_some(), settings).or(())?;
        Clones::plan(self, name, original).await
    }
}

#[async_trait]
impl Pause for LibvirtDriver {
    async fn pause(&self, handle: &Handle) -> Result<()> {
        self.0.pause(handle).await
    }
    async fn resume(&self, handle: &Handle) -> Result<()> {
        self.0.resume(handle).await
    }
}

#[async_trait]
impl Suspend for LibvirtDriver {
    async fn suspend(&self, handle: &Handle) -> Result<()> {
        self.0.save(handle).await
    }
    async fn resume(&self, handle: &Handle) -> Result<()> {
        self.0.restore(handle).await
    }
}

#[async_trait]
impl ability::Snapshots for LibvirtDriver {
    async fn list(&self, handle: &Handle) -> Result<Vec<ability::Snapshot>> {
        self.0.list_snapshots(handle).await
    }
    async fn create(&self, handle: &Handle, new: &ability::NewSnapshot) -> Result<ability::Snapshot> {
        self.0.make_snapshot(handle, new).await
    }
    async fn revert(&self, handle: &Handle, name: &str) -> Result<()> {
        self.0.revert_snapshot(handle, name).await
    }
    async fn delete(&self, handle: &Handle, name: &str) -> Result<()> {
        self.0.delete_snapshot(handle, name).await
    }
}

#[async_trait]
impl ability::Exec for LibvirtDriver {
    async fn exec(&self, handle: &Handle, program: &ability::Program) -> Result<ability::Ended> {
        self.0.exec_somehow(handle, program).await
    }
    async fn enter(&self, handle: &Handle, program: &ability::Program) -> Result<ability::Ended> {
        self.0.exec_inside(handle, program).await
    }
}

#[async_trait]
impl ability::Addresses for LibvirtDriver {
    async fn addresses(&self, handle: &Handle) -> Result<Vec<ability::Address>> {
        self.0.addresses(handle).await
    }
    async fn ssh(&self, handle: &Handle) -> Result<Option<Vec<(String, u16)>>> {
        self.0.ssh_places(handle).await.map(Some)
    }
    async fn greets(&self, handle: &Handle) -> Option<Result<()>> {
        self.0.answers_there(handle).await
    }
}

#[async_trait]
impl ability::Display for LibvirtDriver {
    async fn offers(&self, handle: &Handle) -> Result<Vec<ability::DisplayOffer>> {
        self.0.offers(handle).await
    }
    async fn screenshot(&self, handle: &Handle) -> Result<ability::Picture> {
        self.0.screenshot(handle).await
    }
}

#[async_trait]
impl Devices for LibvirtDriver {
    fn kinds(&self) -> Vec<DeviceKind> {
        crate::device::kinds()
    }
    async fn list(&self, handle: &Handle) -> Result<Vec<Device>> {
        self.0.devices(handle).await
    }
    async fn plan(&self, handle: &Handle, change: &DeviceChange) -> Result<Vec<ability::Change>> {
        self.0.plan_device(handle, change).await
    }
    async fn change(&self, handle: &Handle, change: &DeviceChange, journal: &dyn Journal) -> Result<()> {
        self.0.change_device(handle, change, journal).await
    }
}

#[async_trait]
impl ability::Reset for LibvirtDriver {
    async fn reset(&self, handle: &Handle) -> Result<()> {
        self.0.press_reset(handle).await
    }
}

#[async_trait]
impl ability::Tune for LibvirtDriver {
    async fn tune(&self, handle: &Handle, settings: &Map<String, Value>, dry_run: bool) -> Result<Vec<ability::Change>> {
        self.0.tune(handle, settings, dry_run).await
    }
    async fn rename(&self, handle: &Handle, name: &str) -> Result<Handle> {
        self.0.rename(handle, name).await
    }
}
