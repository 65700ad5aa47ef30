//! The boundary between the daemon and whatever runs machines.
//!
//! Every MUST below has a test of the same name in the contract suite of `vmoon-driver-sim`, which every driver passes.
//! Plain data crosses this boundary. A driver never publishes events, never touches the store, never knows about
//! sessions and never retries for ever. A refusal of the hypervisor is an `Err`; not being able to ask is
//! [`Observed::Unreachable`] or [`Code::DriverUnreachable`](crate::Code::DriverUnreachable).

use crate::{
    Error, MachineId, Result,
    ability::{Addresses, Display, Environments, Exec, Notices, RemoteFiles, Reset, Snapshots, Tune},
    device::Devices,
    hosts::{Disks, Inventories, Migrate},
    operation::{OpRecord, Progress, Undo},
    raw::Raw,
    spec::{MachineSpec, Problems},
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, time::Duration};

pub use crate::{
    link::{LinkItem, LinkReader, LinkWriter, Offset, SessionLink},
    sighting::{Channel, ChannelKind, Exit, Found, Observed, Sighting},
};

/// A driver's name for one of its machines: opaque JSON that only the driver reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handle(pub String);

/// What a driver is, known without any I/O.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DriverInfo {
    /// The kind of machine, for example `lua`.
    pub kind: String,
    /// The settings a specification may hold.
    pub settings: Vec<Setting>,
}

/// One setting of a specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name in [`MachineSpec::settings`].
    pub name: String,
    /// What it does, with units and the default.
    pub help: String,
}

/// One finding of `vmoon doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is required.
    pub requirement: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found.
    pub finding: String,
    /// How to fix it; empty where nothing is to be fixed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

/// How a [`Check`] went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, with a limitation.
    Warn,
    /// It does not work.
    Fail,
}

/// What the host or pool offers; the input of [`Driver::plan`]. The driver's own, opaque to everyone else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostFacts(pub serde_json::Value);

/// What creating a machine will do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The machine's name.
    pub name: String,
    /// What will be done, one sentence each, for `--dry-run`; what is a warning begins with [`BEWARE`]. Kept in no record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// Everything `create` needs, with all defaults filled in; the driver's own.
    pub settings: serde_json::Value,
}

/// How a step of a plan begins that is a warning.
pub const BEWARE: &str = "beware: ";

impl Plan {
    /// What may surprise about the machine: those of its steps that warn.
    pub fn warnings(&self) -> Vec<String> {
        self.steps.iter().filter_map(|step| step.strip_prefix(BEWARE)).map(str::to_owned).collect()
    }
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Ask the guest. May return before it is off, and may never be obeyed.
    Polite,
    /// End it now. Returns when it is off.
    Force,
}

/// What [`Driver::recover`] did with an operation that a crash had cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// The work is done; the machine is addressed by this handle if the operation was a create.
    Finished(Option<Handle>),
    /// Everything was put back.
    Reversed,
}

/// What a machine can do, derived from its driver and its guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Abilities {
    /// It can be paused and resumed.
    pub pause: bool,
    /// It can be suspended and resumed.
    pub suspend: bool,
    /// It has a channel that evaluates code.
    pub eval: bool,
    /// It has snapshots. This and what follows is derived from the driver's accessors by [`Abilities::of`]; a driver need not fill
    /// it in.
    pub snapshots: bool,
    /// Programs can be run in it from outside.
    pub exec: bool,
    /// It has addresses of its own.
    pub addresses: bool,
    /// It may have a screen.
    pub display: bool,
    /// Its settings and its name can be changed.
    pub tune: bool,
    /// It can be copied while it runs.
    pub clone: bool,
    /// Its files can be reached from outside.
    pub files: bool,
    /// It has devices that can be added and removed.
    pub devices: bool,
    /// It has a reset button.
    pub reset: bool,
    /// It can be moved to another host.
    pub migrate: bool,
}

impl Abilities {
    /// What a machine can do: what its driver says of it, and what the driver's accessors show.
    pub fn of(driver: &dyn Driver, handle: &Handle) -> Self {
        Self {
            snapshots: driver.snapshots().is_some(),
            exec: driver.exec().is_some(),
            addresses: driver.addresses().is_some(),
            display: driver.display().is_some(),
            tune: driver.tune().is_some(),
            clone: driver.clones().is_some(),
            files: driver.files().is_some() || driver.remote_files().is_some(),
            devices: driver.devices().is_some(),
            reset: driver.reset().is_some(),
            migrate: driver.migrate().is_some(),
            ..driver.abilities(handle)
        }
    }

    /// The names of what it can do, for people.
    pub fn names(&self) -> Vec<&'static str> {
        [
            (self.eval, "eval"),
            (self.pause, "pause"),
            (self.suspend, "suspend"),
            (self.snapshots, "snapshot"),
            (self.exec, "exec"),
            (self.addresses, "ip"),
            (self.display, "screen"),
            (self.tune, "set"),
            (self.clone, "clone"),
            (self.files, "cp"),
            (self.devices, "device"),
            (self.reset, "reset"),
            (self.migrate, "migrate"),
        ]
        .into_iter()
        .filter_map(|(can, name)| can.then_some(name))
        .collect()
    }
}

/// Where a driver reports progress and journals its undo values. The daemon implements it.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Says what is being done now.
    fn progress(&self, progress: Progress);
    /// Stores an undo value; returns when it is on disk. The step it reverses comes after.
    ///
    /// # Errors
    /// When it cannot be stored: the driver then stops without taking the step.
    async fn undo(&self, undo: Undo) -> Result<()>;
}

/// One connection's machines.
#[async_trait]
pub trait Driver: Send + Sync {
    /// What this driver is. No I/O.
    fn info(&self) -> DriverInfo;

    /// Checks requirements; feeds `vmoon doctor`. Never fails: a failure is a finding.
    async fn probe(&self) -> Vec<Check>;

    /// Who is at the other end, where that can be told from others: two connections of one kind with the same answer show the same machines.
    async fn identity(&self) -> Option<String> {
        None
    }

    /// Makes what [`Driver::probe`] found missing and this driver knows how to make without touching what is there; the user has asked for it. Says what it has
    /// done, or with `dry_run` would do, one sentence each; nothing where all is well. MUST be safe to repeat.
    async fn repair(&self, dry_run: bool) -> Result<Vec<String>> {
        let _ = dry_run;
        Ok(Vec::new())
    }

    /// What the host or pool offers.
    async fn facts(&self) -> Result<HostFacts>;

    /// Turns a specification into a plan. Pure; refuses before anything is touched, all problems at once.
    fn plan(&self, name: &str, spec: &MachineSpec, host: &HostFacts) -> Result<Plan, Problems>;

    /// What puts back whatever [`Self::create`] can leave behind, where that is known beforehand: it is stored together with the machine itself, and `create`
    /// need not journal it.
    fn undo_of_create(&self, id: MachineId, plan: &Plan) -> Option<Undo> {
        let _ = (id, plan);
        None
    }

    /// Creates the machine, stopped (a copy of a running one: running). MUST be idempotent per id; MUST tag what it makes with the id; MUST journal an undo
    /// value before each step that leaves something behind, but for [`Self::undo_of_create`]; writes the tag *complete* last.
    async fn create(&self, id: MachineId, plan: &Plan, journal: &dyn Journal) -> Result<Handle>;

    /// Starts it. MUST be safe to repeat; MUST NOT create a second life while one runs.
    async fn start(&self, handle: &Handle) -> Result<()>;

    /// Stops it. Polite MUST NOT kill; Force MUST return only when it is off. Stopping what is off is `Ok`.
    async fn stop(&self, handle: &Handle, how: StopMode) -> Result<()>;

    /// Deletes it and everything made for it, running or not. Deleting what is missing MUST be `Ok`.
    async fn delete(&self, handle: &Handle) -> Result<()>;

    /// Looks at it. MUST be bounded in time; "cannot ask" MUST be [`Observed::Unreachable`], not `Err`; an unknown handle
    /// is [`Observed::Missing`].
    async fn observe(&self, handle: &Handle) -> Sighting;

    /// Every machine of this connection that this driver made or could manage, in a constant number of round trips. A handle MUST
    /// stay the same as long as the machine lives, unless [`Tune::rename`] has given another one: machines are known again by it.
    async fn list(&self) -> Result<Vec<Found>>;

    /// [`Self::list`] for a caller who knows some machines: made by us, finished, and listed or created before, each with those of its channels that the caller
    /// has open or is about to open. What cannot have changed need not be asked of them again, and [`Found::id`] may be missing where the handle is a known one. Of a
    /// machine that runs, the life of such a channel may be said again without asking: whether it is over shows in opening it, and in [`Self::observe`].
    async fn list_knowing(&self, known: &HashMap<Handle, Vec<Channel>>) -> Result<Vec<Found>> {
        let _ = known;
        self.list().await
    }

    /// Whether what [`Self::list`] finds and vmoon has not made is shown as a machine, too. Then `list` is asked once when the daemon
    /// starts, after each [`Changed::All`](crate::ability::Changed::All), and again and again, ever more rarely, while it fails.
    fn adopts(&self) -> bool {
        true
    }

    /// After a crash: finishes or reverses a cut-off operation, newest undo value last in `undos`. MUST be idempotent.
    async fn recover(&self, op: &OpRecord, undos: &[Undo]) -> Result<Recovered>;

    /// Opens a channel and delivers everything from that offset. Also after the machine has ended, as long as undelivered
    /// output is left: then the link ends with [`LinkItem::Ended`].
    ///
    /// # Errors
    /// [`Code::SessionEnded`](crate::Code::SessionEnded) when that life of the channel is over and nothing is left.
    async fn open(&self, handle: &Handle, channel: &Channel, from: Offset) -> Result<SessionLink>;

    /// Whether a session of this channel is opened when somebody wants to use it, and not as soon as its machine is seen running: what it costs is
    /// then not paid for machines that nobody enters. A failure that trying again cannot help is told, and tried again when it is wanted again.
    fn on_demand(&self, channel: &Channel) -> bool {
        let _ = channel;
        false
    }

    /// After how long without use the link of a session of this channel is closed, to be opened again by whoever wants to use it. Only for channels whose other
    /// end goes on without a link and keeps what it says meanwhile; nothing means that the link stays open.
    fn rests(&self, channel: &Channel) -> Option<Duration> {
        let _ = channel;
        None
    }

    /// What people should know of the connection although it works, as far as it has shown by now, each a sentence without its end. No I/O.
    fn concerns(&self) -> Vec<String> {
        Vec::new()
    }

    /// What this machine can do. Derived from the accessors below and from the guest; no I/O.
    fn abilities(&self, handle: &Handle) -> Abilities;

    /// Facts to show about a machine, for people (runtime, limits, directories); never needed by programs of ours.
    async fn describe(&self, handle: &Handle) -> serde_json::Map<String, serde_json::Value>;

    /// What these machines use now, in no order. Machines that do not run or of which nothing is known are left out; a
    /// driver that cannot tell answers nothing. MUST be cheap: it is asked of all machines at once, every few seconds.
    async fn usage(&self, handles: &[Handle]) -> Vec<Usage> {
        let _ = handles;
        Vec::new()
    }

    /// Files of a machine, where they can be reached from outside it.
    fn files(&self) -> Option<&dyn Files> {
        None
    }

    /// Files of a machine that are reached through its connection. A machine has these or [`Driver::files`].
    fn remote_files(&self) -> Option<&dyn RemoteFiles> {
        None
    }

    /// Copying machines, where that can be done.
    fn clones(&self) -> Option<&dyn Clones> {
        None
    }

    /// Pausing, where the hypervisor has it.
    fn pause(&self) -> Option<&dyn Pause> {
        None
    }

    /// Suspending to storage, where the hypervisor has it.
    fn suspend(&self) -> Option<&dyn Suspend> {
        None
    }

    /// Snapshots, where there are any.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }

    /// Programs in machines, where they can be run from outside.
    fn exec(&self) -> Option<&dyn Exec> {
        None
    }

    /// Addresses, where machines have any of their own.
    fn addresses(&self) -> Option<&dyn Addresses> {
        None
    }

    /// Screens, where machines have any.
    fn display(&self) -> Option<&dyn Display> {
        None
    }

    /// Changing machines that exist, where that can be done.
    fn tune(&self) -> Option<&dyn Tune> {
        None
    }

    /// Devices of machines, where they can be changed.
    fn devices(&self) -> Option<&dyn Devices> {
        None
    }

    /// The reset button, where machines have one.
    fn reset(&self) -> Option<&dyn Reset> {
        None
    }

    /// Environments of packages, where machines use them.
    fn environments(&self) -> Option<&dyn Environments> {
        None
    }

    /// Moving machines between hosts, where there are several.
    fn migrate(&self) -> Option<&dyn Migrate> {
        None
    }

    /// Deciding what becomes of disks, where machines have any that may outlive them.
    fn disks(&self) -> Option<&dyn Disks> {
        None
    }

    /// What the hosts have to offer, where that is known.
    fn inventories(&self) -> Option<&dyn Inventories> {
        None
    }

    /// The hypervisor's own language, where it has one that people use.
    fn raw(&self) -> Option<&dyn Raw> {
        None
    }

    /// Notices of what happened to machines, where the hypervisor pushes them. Asked once.
    fn watch(&self) -> Option<Box<dyn Notices>> {
        None
    }

    /// It is not needed any more: whoever holds a session on the other side ends it. Machines go on. MUST return within some seconds, also where nobody answers.
    async fn close(&self) {}
}

/// What one running machine uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The machine.
    pub handle: Handle,
    /// Its process on this computer, if it is one.
    pub pid: Option<i32>,
    /// Processor time since it was started, microseconds; it never falls within one life.
    pub cpu_us: u64,
    /// Memory it occupies, bytes; the driver's documentation says how pages that are shared are counted.
    pub memory_bytes: u64,
}

/// Reaches the files of a machine on this computer.
#[async_trait]
pub trait Files: Send + Sync {
    /// The machine's work directory, open for nothing but finding what is below it; running or not.
    ///
    /// # Errors
    /// [`Code::MachineBroken`](crate::Code::MachineBroken) when there is none.
    async fn directory(&self, handle: &Handle) -> Result<std::os::fd::OwnedFd>;
}

/// Copies machines: with their state while they run, or, where a copy is one of disks, while they are off.
#[async_trait]
pub trait Clones: Send + Sync {
    /// The plan of a machine that goes on from where this one is when [`Driver::create`] is called with it. That `create` leaves
    /// it running; the original goes on, too, and MUST be unchanged if it fails.
    ///
    /// # Errors
    /// [`Code::MachineNotCopyable`](crate::Code::MachineNotCopyable) with every reason that is known by now,
    /// [`Code::MachineStopped`](crate::Code::MachineStopped) if it does not run.
    async fn plan(&self, name: &str, original: &Handle) -> Result<Plan>;

    /// The same for a copy that differs from its original in these settings, by the names and in the form of a specification.
    ///
    /// # Errors
    /// As [`Self::plan`]; [`Code::SpecInvalid`](crate::Code::SpecInvalid) for settings that a copy cannot have otherwise, see [`as_original`].
    async fn plan_with(&self, name: &str, original: &Handle, settings: &serde_json::Map<String, serde_json::Value>) -> Result<Plan>;
}

/// What is wrong with these settings of a copy, which may have those of `otherwise` alone as it likes. `tunes` is whether machines of this kind can be changed
/// afterwards.
pub fn as_original(info: &DriverInfo, otherwise: &[&str], tunes: bool, settings: &serde_json::Map<String, serde_json::Value>) -> Problems {
    let mut problems = Problems::default();
    let names = || info.settings.iter().map(|setting| setting.name.as_str());
    for setting in settings.keys().filter(|setting| !otherwise.contains(&setting.as_str())) {
        let shown = crate::name::escape(setting);
        let mut what = "a copy has this as its original does".to_owned();
        if !otherwise.is_empty() {
            what.push_str(&format!("; {} can be said", otherwise.join(", ")));
        }
        if !names().any(|name| name == setting) {
            let known: Vec<&str> = names().collect();
            what = format!("machines of kind {} have no such setting; they have {}", info.kind, known.join(", "));
        } else if tunes {
            what.push_str("; what can be changed at all is changed afterwards, with vmoon set");
        } else {
            what.push_str(&format!(
                ", and machines of kind {} cannot be changed afterwards; a new one can have it otherwise: vmoon create NAME --set {shown}=VALUE",
                info.kind
            ));
        }
        problems.add(format!("settings.{shown}"), what);
    }
    problems
}

/// Freezes a machine in memory.
#[async_trait]
pub trait Pause: Send + Sync {
    /// Pauses it; pausing what is paused is `Ok`.
    async fn pause(&self, handle: &Handle) -> Result<()>;
    /// Resumes it; resuming what runs is `Ok`.
    async fn resume(&self, handle: &Handle) -> Result<()>;
}

/// Writes a machine's memory to storage and stops it.
#[async_trait]
pub trait Suspend: Send + Sync {
    /// Suspends it.
    async fn suspend(&self, handle: &Handle) -> Result<()>;
    /// Resumes it from storage.
    async fn resume(&self, handle: &Handle) -> Result<()>;
}

/// Refuses an ability that a driver lacks, in one voice.
pub fn unsupported(kind: &str, what: &str) -> Error {
    Error::new(crate::Code::DriverUnsupported, format!("machines of kind {kind} cannot {what}"))
}
