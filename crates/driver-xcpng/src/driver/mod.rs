//! The driver, as the daemon sees it.

mod create;
mod disks;
mod life;
mod notices;
mod pool;
mod raw;
mod snapshots;
mod tune;

use crate::{
    errors::told,
    settings::{self, Settings},
    tags,
};
use async_trait::async_trait;
use pool::Pool;
use serde_json::{Map, Value, json};
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::timeout;
use vmoon_core::{
    Code, Error, MachineId, Result,
    ability::{Address, Addresses, Notices, Snapshots, Tune},
    driver::{
        Abilities, Channel, Check, Driver, DriverInfo, Found, Handle, HostFacts, Journal, Observed, Offset, Pause, Plan, Recovered,
        SessionLink, Sighting, StopMode, Suspend, Verdict,
    },
    machine::Verb,
    operation::{OpRecord, Undo},
    raw::Raw,
    spec::{MachineSpec, Problems},
};
use vmoon_xapi::{
    Password,
    records::{PowerState, Vm, VmGuestMetrics},
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
}

impl fmt::Debug for XcpngConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XcpngConfig({}@{})", self.user, self.uri)
    }
}

/// The driver of one pool.
#[derive(Clone, Debug)]
pub struct XcpngDriver(Arc<Pool>);

impl XcpngDriver {
    /// A driver; connects nowhere.
    ///
    /// # Errors
    /// [`Code::Usage`] for a URI that cannot be.
    pub fn new(config: XcpngConfig) -> Result<Self> {
        Pool::new(config).map(|pool| Self(Arc::new(pool)))
    }

    /// Connects and logs in; the pool's name, or that of its coordinator.
    ///
    /// # Errors
    /// Those of the crate's documentation.
    pub async fn test(&self) -> Result<String> {
        self.0.name().await
    }

    /// Logs out.
    pub async fn close(&self) {
        self.0.close().await;
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

fn sighting(vm: &Vm) -> Sighting {
    let observed = match &vm.power_state {
        PowerState::Halted => Observed::Off(None),
        PowerState::Running => Observed::On(Vec::new()),
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
        DriverInfo { kind: KIND.into(), settings: settings::known() }
    }

    async fn probe(&self) -> Vec<Check> {
        let requirement = format!("the pool at {} answers", self.0.host());
        vec![match timeout(LOOK, self.0.name()).await {
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
        }]
    }

    async fn facts(&self) -> Result<HostFacts> {
        Ok(HostFacts(serde_json::to_value(self.0.facts().await?).unwrap_or_default()))
    }

    fn plan(&self, name: &str, spec: &MachineSpec, host: &HostFacts) -> Result<Plan, Problems> {
        let mut problems = Problems::default();
        let settings = settings::resolve(&spec.settings, &settings::facts(host), &mut problems);
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
        match timeout(LOOK, self.0.vm(&uuid)).await {
            Ok(Ok(Some((_, vm)))) => sighting(&vm),
            Ok(Ok(None)) => gone,
            Ok(Err(_)) | Err(_) => Sighting { observed: Observed::Unreachable, complete: false },
        }
    }

    async fn list(&self) -> Result<Vec<Found>> {
        let vms = self.0.vms().await?;
        let found = |vm: &Vm| Found { handle: handle(&vm.uuid), id: tags::owner(vm), name: vm.name_label.clone(), sighting: sighting(vm) };
        Ok(vms.iter().map(|(_, vm)| vm).filter(|vm| tags::is_machine(vm)).map(found).collect())
    }

    async fn recover(&self, op: &OpRecord, _: &[Undo]) -> Result<Recovered> {
        let Some((_, vm)) = self.0.find(op.machine).await? else {
            self.0.sweep_disks(op.machine, None).await?;
            return Ok(if op.verb == Verb::Delete { Recovered::Finished(None) } else { Recovered::Reversed });
        };
        match op.verb {
            Verb::Create if tags::complete(&vm) => Ok(Recovered::Finished(Some(handle(&vm.uuid)))),
            Verb::Create => {
                self.0.delete(&vm.uuid).await?;
                self.0.sweep_disks(op.machine, None).await?;
                Ok(Recovered::Reversed)
            }
            Verb::Delete => {
                self.0.delete(&vm.uuid).await?;
                Ok(Recovered::Finished(None))
            }
            // XAPI has finished what it was asked, or has not begun: the observation tells.
            _ => Ok(Recovered::Finished(None)),
        }
    }

    async fn open(&self, _: &Handle, _: &Channel, _: Offset) -> Result<SessionLink> {
        Err(Error::new(Code::SessionChannel, "the pool gives no channel into a VM")
            .hint("reach the guest over SSH: vmoon connection add ssh"))
    }

    fn abilities(&self, _: &Handle) -> Abilities {
        Abilities { pause: true, suspend: true, ..Abilities::default() }
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

    fn watch(&self) -> Option<Box<dyn Notices>> {
        Some(Box::new(notices::Events::new(self.0.clone())))
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
        self.0.change(&uuid(handle)?, "VM.suspend", PowerState::Suspended, "suspend the VM").await
    }

    async fn resume(&self, handle: &Handle) -> Result<()> {
        self.0.change(&uuid(handle)?, "VM.resume", PowerState::Running, "resume the VM").await
    }
}

#[async_trait]
impl Addresses for XcpngDriver {
    async fn addresses(&self, handle: &Handle) -> Result<Vec<Address>> {
        let uuid = uuid(handle)?;
        let Some((_, vm)) = self.0.vm(&uuid).await? else { return Err(Error::new(Code::MachineBroken, "the pool has no such VM")) };
        let Some(metrics) = vm.guest_metrics.known() else { return Ok(Vec::new()) };
        let client = self.0.client()?;
        let metrics: VmGuestMetrics = match client.get("VM_guest_metrics.get_record", vec![metrics.into()]).await {
            Ok(metrics) => metrics,
            // They are made anew with each boot: it has just been restarted.
            Err(error) if error.is("HANDLE_INVALID") => return Ok(Vec::new()),
            Err(error) => return Err(told("read the VM's addresses", error)),
        };
        let mut macs = std::collections::BTreeMap::new();
        for vif in &vm.vifs {
            if let Ok(vif) = client.get::<vmoon_xapi::records::Vif>("VIF.get_record", vec![vif.into()]).await {
                macs.insert(vif.device, vif.mac);
            }
        }
        Ok(pool::addresses(&metrics, &macs))
    }
}
