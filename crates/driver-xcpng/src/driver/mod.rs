//! The driver, as the daemon sees it.

mod checks;
mod clone;
mod console;
mod create;
mod devices;
mod disks;
mod display;
mod fate;
mod guest;
mod hosts;
mod life;
mod lives;
mod media;
mod notices;
mod pool;
mod raw;
mod rfb;
mod seeding;
mod snapshots;
mod tune;
mod usage;

use crate::{
    errors::restless,
    settings::{self, Settings},
    tags,
};
use async_trait::async_trait;
use pool::Pool;
use serde_json::{Map, Value, json};
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};
use tokio::time::timeout;
use vmoon_core::{
    Code, Error, MachineId, Result,
    ability::{Address, Addresses, Display, Environments, Exec, Notices, RemoteFiles, Reset, Snapshots, Tune},
    device::Devices,
    driver::{
        Abilities, Channel, Check, Clones, Driver, DriverInfo, Found, Handle, HostFacts, Journal, Observed, Offset, Pause, Plan, Recovered,
        SessionLink, Sighting, StopMode, Suspend, Usage, Verdict,
    },
    hosts::{Disks, Inventories, Migrate},
    machine::Verb,
    name::escape,
    operation::{OpRecord, Undo},
    raw::Raw,
    spec::{MachineSpec, Problems},
};
use vmoon_guest::{Guests, OverSsh};
use vmoon_xapi::{
    Password,
    records::{PowerState, Vm},
};

/// The kind of these machines.
const KIND: &str = "xcpng";
/// How long looking at one VM may take, connecting included.
const LOOK: Duration = Duration::from_secs(9);

/// What lets the driver in, as it is now: asked whenever it connects.
pub trait Keys: Send + Sync {
    /// The password; none while there is none.
    fn password(&self) -> Option<Password>;
    /// The fingerprint of the certificate that the user has accepted.
    fn fingerprint(&self) -> Option<String>;
}

/// One connection.
#[derive(Clone)]
pub struct XcpngConfig {
    /// `https://host[:port]`, or the host alone: the coordinator or any member.
    pub uri: String,
    /// Who logs in.
    pub user: String,
    /// With what.
    pub keys: Arc<dyn Keys>,
    /// How the machines' guests are entered over SSH; without it they are not.
    pub guests: Option<Guests>,
    /// The directory of this user's sockets (`XDG_RUNTIME_DIR`): there those of screens are made; without it there are none.
    pub runtime: Option<PathBuf>,
}

impl fmt::Debug for XcpngConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XcpngConfig({}@{})", self.user, self.uri)
    }
}

/// The driver of one pool, and what its guests offer.
#[derive(Clone, Debug)]
pub struct XcpngDriver(Arc<Pool>, OverSsh<Pool>);

impl XcpngDriver {
    /// A driver; connects nowhere.
    ///
    /// # Errors
    /// [`Code::Usage`] for a URI that cannot be.
    pub fn new(config: XcpngConfig) -> Result<Self> {
        let pool = Arc::new(Pool::new(config)?);
        Ok(Self(pool.clone(), OverSsh::new(pool)))
    }

    /// Connects and logs in; the pool's name, or that of its coordinator.
    ///
    /// # Errors
    /// Those of the crate's documentation.
    pub async fn test(&self) -> Result<String> {
        self.0.name().await
    }
}

/// The handle of a VM is its uuid, which never changes.
fn handle(uuid: &str) -> Handle {
    Handle(json!({ "vm": uuid }).to_string())
}

fn uuid(handle: &Handle) -> Result<String> {
    let value: Option<Value> = serde_json::from_str(&handle.0).ok();
    let uuid = value.and_then(|value| value.get("vm")?.as_str().map(str::to_owned));
    uuid.ok_or_else(|| Error::new(Code::MachineBroken, "the pool has no such VM"))
}

/// What is seen of a VM; of one that runs, with what it offers.
fn sighting(vm: &Vm, offers: impl FnOnce() -> Observed) -> Sighting {
    let observed = match &vm.power_state {
        PowerState::Halted => Observed::Off(None),
        PowerState::Running => offers(),
        PowerState::Paused => Observed::Paused,
        PowerState::Suspended => Observed::Suspended,
        PowerState::Other(word) => {
            tracing::warn!(word, "a power state that is not known");
            Observed::Unreachable
        }
    };
    Sighting { observed, complete: tags::complete(vm) }
}

#[async_trait]
impl Driver for XcpngDriver {
    fn info(&self) -> DriverInfo {
        let mut settings = settings::known();
        settings.extend(vmoon_guest::settings::known());
        DriverInfo { kind: KIND.into(), settings }
    }

    async fn probe(&self) -> Vec<Check> {
        let requirement = format!("the pool at {} answers", self.0.host());
        let mut checks = vec![match timeout(LOOK, self.0.name()).await {
            Ok(Ok(name)) => Check { requirement, verdict: Verdict::Ok, finding: format!("pool {name}"), fix: String::new() },
            Ok(Err(error)) => {
                let fix = error.to_record().hint.unwrap_or_default();
                Check { requirement, verdict: Verdict::Fail, finding: error.to_string(), fix }
            }
            Err(_) => Check {
                requirement,
                verdict: Verdict::Fail,
                finding: format!("no answer within {} s", LOOK.as_secs()),
                fix: "look at the network and at the host".into(),
            },
        }];
        checks.extend(self.0.concerns().into_iter().map(|finding| Check {
            requirement: "certificates are in their time".into(),
            verdict: Verdict::Warn,
            finding,
            fix: "make a new one there (xe host-emergency-reset-server-certificate) and accept that: vmoon connection login NAME".into(),
        }));
        checks
    }

    fn concerns(&self) -> Vec<String> {
        self.0.concerns()
    }

    async fn facts(&self) -> Result<HostFacts> {
        Ok(HostFacts(serde_json::to_value(self.0.facts().await?).unwrap_or_default()))
    }

    fn plan(&self, name: &str, spec: &MachineSpec, host: &HostFacts) -> Result<Plan, Problems> {
        let mut problems = Problems::default();
        let mut settings = settings::resolve(name, &spec.settings, &settings::facts(host), &mut problems);
        if let Some(cloud) = &mut settings.seed {
            cloud.entered &= self.0.guests().is_some();
        }
        if settings.environment.is_some() && !settings.seed.as_ref().is_some_and(|cloud| cloud.entered) {
            let why = "is sent into the guest over SSH, and nothing would let vmoon in: it needs a seed (seed=yes), and ssh not no";
            problems.add("settings.env", why);
        }
        let steps = create::steps(name, &settings);
        problems.or(Plan { name: name.to_owned(), steps, settings: serde_json::to_value(settings).unwrap_or_default() })
    }

    async fn create(&self, id: MachineId, plan: &Plan, journal: &dyn Journal) -> Result<Handle> {
        let settings: Settings = serde_json::from_value(plan.settings.clone())
            .map_err(|error| Error::internal("the plan is not one of the XCP-ng driver").source(error))?;
        self.0.create(id, &plan.name, &settings, journal).await
    }

    async fn start(&self, handle: &Handle) -> Result<()> {
        self.0.start(&uuid(handle)?).await
    }

    async fn stop(&self, handle: &Handle, how: StopMode) -> Result<()> {
        let Ok(uuid) = uuid(handle) else { return Ok(()) };
        match how {
            StopMode::Polite => self.0.ask_to_stop(&uuid).await,
            StopMode::Force => self.0.force_off(&uuid).await,
        }
    }

    async fn delete(&self, handle: &Handle) -> Result<()> {
        let Ok(uuid) = uuid(handle) else { return Ok(()) };
        self.0.delete(&uuid).await
    }

    async fn observe(&self, handle: &Handle) -> Sighting {
        let gone = Sighting { observed: Observed::Missing, complete: false };
        let Ok(uuid) = uuid(handle) else { return gone };
        match timeout(LOOK, self.0.look(&uuid)).await {
            Ok(Ok(Some(sighting))) => sighting,
            Ok(Ok(None)) => gone,
            Ok(Err(_)) | Err(_) => Sighting { observed: Observed::Unreachable, complete: false },
        }
    }

    async fn list(&self) -> Result<Vec<Found>> {
        self.0.look_at_all().await
    }

    async fn recover(&self, op: &OpRecord, undos: &[Undo]) -> Result<Recovered> {
        if op.verb == Verb::Work {
            let mut reversed = false;
            for undo in undos.iter().rev().filter_map(devices::read_undo) {
                reversed |= self.0.put_back(&undo).await?;
            }
            return Ok(if reversed { Recovered::Reversed } else { Recovered::Finished(None) });
        }
        let Some(own) = self.0.find(op.machine).await? else {
            self.0.sweep_disks(op.machine, None).await?;
            return Ok(if op.verb == Verb::Delete { Recovered::Finished(None) } else { Recovered::Reversed });
        };
        match op.verb {
            Verb::Create if own.complete => Ok(Recovered::Finished(Some(handle(&own.uuid)))),
            Verb::Create => {
                self.0.delete(&own.uuid).await?;
                self.0.sweep_disks(op.machine, None).await?;
                Ok(Recovered::Reversed)
            }
            Verb::Delete => {
                self.0.delete(&own.uuid).await?;
                Ok(Recovered::Finished(None))
            }
            // XAPI has finished what it was asked, or has not begun: the observation tells.
            _ => Ok(Recovered::Finished(None)),
        }
    }

    async fn open(&self, handle: &Handle, channel: &Channel, from: Offset) -> Result<SessionLink> {
        let uuid = uuid(handle)?;
        match channel.name.as_str() {
            console::SERIAL => self.0.open_console(&uuid, channel.life, from).await,
            _ if guest::is_inside(channel) => self.0.open_inside(&uuid, channel, from).await,
            other => Err(Error::new(Code::SessionChannel, format!("the machine has no channel {}", escape(other)))),
        }
    }

    fn on_demand(&self, channel: &Channel) -> bool {
        guest::is_inside(channel)
    }

    fn rests(&self, channel: &Channel) -> Option<Duration> {
        vmoon_guest::rests(channel)
    }

    fn abilities(&self, handle: &Handle) -> Abilities {
        let eval = uuid(handle).is_ok_and(|uuid| self.0.guests().is_some_and(|guests| guests.is_known(&uuid)));
        Abilities { pause: true, suspend: true, eval, ..Abilities::default() }
    }

    async fn describe(&self, handle: &Handle) -> Map<String, Value> {
        let Ok(uuid) = uuid(handle) else { return Map::new() };
        timeout(LOOK, self.0.describe(&uuid)).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    fn addresses(&self) -> Option<&dyn Addresses> {
        Some(self)
    }

    fn pause(&self) -> Option<&dyn Pause> {
        Some(self)
    }

    fn suspend(&self) -> Option<&dyn Suspend> {
        Some(self)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn tune(&self) -> Option<&dyn Tune> {
        Some(self)
    }

    fn raw(&self) -> Option<&dyn Raw> {
        Some(self)
    }

    fn exec(&self) -> Option<&dyn Exec> {
        self.0.guests().map(|_| self as &dyn Exec)
    }

    fn environments(&self) -> Option<&dyn Environments> {
        self.0.guests().filter(|guests| guests.has_environments()).map(|_| &self.1 as &dyn Environments)
    }

    fn remote_files(&self) -> Option<&dyn RemoteFiles> {
        self.0.guests().map(|_| &self.1 as &dyn RemoteFiles)
    }

    fn display(&self) -> Option<&dyn Display> {
        Some(self)
    }

    fn clones(&self) -> Option<&dyn Clones> {
        Some(self)
    }

    fn devices(&self) -> Option<&dyn Devices> {
        Some(self)
    }

    fn reset(&self) -> Option<&dyn Reset> {
        Some(self)
    }

    fn migrate(&self) -> Option<&dyn Migrate> {
        Some(self)
    }

    fn disks(&self) -> Option<&dyn Disks> {
        Some(self)
    }

    fn inventories(&self) -> Option<&dyn Inventories> {
        Some(self)
    }

    async fn usage(&self, handles: &[Handle]) -> Vec<Usage> {
        self.0.usage(handles).await
    }

    fn watch(&self) -> Option<Box<dyn Notices>> {
        Some(Box::new(notices::Events::new(self.0.clone())))
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[async_trait]
impl Pause for XcpngDriver {
    async fn pause(&self, handle: &Handle) -> Result<()> {
        self.0.change(&uuid(handle)?, "VM.pause", PowerState::Paused, "pause the VM").await
    }

    async fn resume(&self, handle: &Handle) -> Result<()> {
        self.0.change(&uuid(handle)?, "VM.unpause", PowerState::Running, "resume the VM").await
    }
}

#[async_trait]
impl Suspend for XcpngDriver {
    async fn suspend(&self, handle: &Handle) -> Result<()> {
        let what = "suspend the VM";
        self.0.change(&uuid(handle)?, "VM.suspend", PowerState::Suspended, what).await.map_err(|error| restless(what, error))
    }

    async fn resume(&self, handle: &Handle) -> Result<()> {
        self.0.change(&uuid(handle)?, "VM.resume", PowerState::Running, "resume the VM").await
    }
}

#[async_trait]
impl Reset for XcpngDriver {
    async fn reset(&self, handle: &Handle) -> Result<()> {
        self.0.press_reset(&uuid(handle)?).await
    }
}

#[async_trait]
impl Addresses for XcpngDriver {
    async fn addresses(&self, handle: &Handle) -> Result<Vec<Address>> {
        let (_, vm) = self.0.known(&uuid(handle)?).await?;
        self.0.addresses_of(&vm).await
    }

    async fn ssh(&self, handle: &Handle) -> Result<Option<Vec<(String, u16)>>> {
        self.0.ssh_places(&uuid(handle)?).await.map(Some)
    }

    async fn missing(&self, handle: &Handle) -> Result<Option<String>> {
        let (_, vm) = self.0.known(&uuid(handle)?).await?;
        Ok(Some(format!("no address is known: {}", self.0.why_no_address(&vm).await?)))
    }
}
