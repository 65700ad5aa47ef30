//! The simulated driver: one connection to a [`World`]. It keeps no state of its own, so that dropping it is a crash.

use crate::{
    link,
    machine::{Guest, Machine, Overflow, Power, StopAnswer},
    notices::Watching,
    world::{Inner, Line, World, handle, native},
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Duration};
use vmoon_core::{
    Code, Error, MachineId, Result,
    ability::{Addresses, Display, Exec, Notices, Reset, Snapshots, Tune},
    device::Devices,
    driver::{
        Abilities, Channel, Check, Clones, Driver, DriverInfo, Exit, Found, Handle, HostFacts, Journal, Observed, Offset, Pause, Plan,
        Recovered, SessionLink, Setting, Sighting, StopMode, Suspend, Verdict,
    },
    machine::Verb,
    operation::{OpRecord, Progress, Undo},
    spec::{MachineSpec, Problems},
};

/// The kind of simulated machines.
const KIND: &str = "sim";
/// The settings of a specification, with their help.
const SETTINGS: [(&str, &str); 7] = [
    ("memory", "memory in MiB, 1 to 1024 (default 16); looked at and not used"),
    ("ignores_stop", "true: the guest ignores a polite stop (default false)"),
    ("stop_after", "the guest leaves so many milliseconds of the world's clock after a polite stop (default: at once)"),
    ("dies_after_start", "true: the guest ends with status 1 as soon as it was started (default false)"),
    ("ring", "bytes of output that are kept until acknowledged, at least 8192 (default 33554432)"),
    ("serial", "true: the machine has a serial console, too (default false)"),
    ("overflow", "what happens when the ring is full: wait (default) or drop"),
];
/// The calls that change nothing.
const READS: [&str; 10] =
    ["open", "describe", "snapshot.list", "device.list", "device.plan", "exec", "addresses", "display", "screenshot", "clone"];
/// The memory of the simulated host, in MiB.
const HOST_MEMORY: u64 = 1024;

/// A connection to a world.
pub struct SimDriver {
    world: Arc<World>,
    line: Line,
    abilities: Abilities,
    adopts: bool,
    door: Option<Door>,
    rests: Option<Duration>,
}

/// Says whether a connection is let in.
pub type Door = Arc<dyn Fn() -> Result<()> + Send + Sync>;

/// What reverses a step of `create`. Stored as JSON in the operation.
#[derive(Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "snake_case")]
pub(crate) enum Step {
    /// Remove the disk.
    Disk { native: String },
    /// Remove the definition.
    Define { native: String },
    /// Take a device away, with its disk.
    Device { native: String, name: String },
}

impl SimDriver {
    /// A fresh connection to the world, with every ability.
    pub fn new(world: Arc<World>) -> Self {
        Self::with_abilities(world, Abilities { pause: true, suspend: true, eval: true, ..Abilities::default() })
    }

    /// A fresh connection to the world that lacks what `abilities` lack. `eval` is always there.
    pub fn with_abilities(world: Arc<World>, abilities: Abilities) -> Self {
        Self { world, line: Line::default(), abilities: Abilities { eval: true, ..abilities }, adopts: false, door: None, rests: None }
    }

    /// A fresh connection as to a hypervisor: it shows what others have made, and tells what happens.
    pub fn hypervisor(world: Arc<World>) -> Self {
        Self { adopts: true, ..Self::new(world) }
    }

    /// The same behind a door: every list asks whether it is let in.
    pub fn behind(self, door: Door) -> Self {
        Self { door: Some(door), ..self }
    }

    /// The same, whose sessions need no link after so long without use.
    pub fn resting(self, after: Duration) -> Self {
        Self { rests: Some(after), ..self }
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    pub(crate) async fn step<T>(&self, name: &str, act: impl FnOnce(&mut Inner) -> Result<T> + Send) -> Result<T> {
        self.world.step(&self.line, name, act).await
    }

    /// One call on one machine.
    pub(crate) async fn on<T>(&self, name: &str, handle: &Handle, act: impl FnOnce(&mut Machine, u64) -> Result<T> + Send) -> Result<T> {
        self.step(name, |inner| {
            let now = inner.now;
            let machine = native(handle).and_then(|native| inner.machines.get_mut(&native));
            let result = act(machine.ok_or_else(|| missing(name))?, now);
            if result.is_ok() && !READS.contains(&name) {
                inner.board.machine(handle.clone());
            }
            result
        })
        .await
    }

    /// Removes a machine in steps that can each be repeated; its definition, which bears the tag, goes last.
    async fn remove(&self, native: &str) -> Result<()> {
        self.step("delete.off", |inner| {
            if let Some(machine) = inner.machines.get_mut(native) {
                machine.power_off(Exit::Killed);
                machine.complete = false;
            }
            Ok(())
        })
        .await?;
        self.step("delete.disk", |inner| {
            inner.disks.retain(|disk, _| disk.split('/').next() != Some(native));
            Ok(())
        })
        .await?;
        self.step("delete.undefine", |inner| {
            inner.machines.remove(native);
            inner.board.machine(handle(native));
            Ok(())
        })
        .await
    }

    async fn reverse(&self, step: &Step) -> Result<()> {
        match step {
            Step::Define { native } => {
                self.step("recover.undefine", |inner| {
                    if let Some(mut machine) = inner.machines.remove(native) {
                        machine.power_off(Exit::Killed);
                    }
                    Ok(())
                })
                .await
            }
            Step::Device { native, name } => self.take_back(native, name).await,
            Step::Disk { native } => {
                self.step("recover.disk", |inner| {
                    inner.disks.remove(native);
                    Ok(())
                })
                .await
            }
        }
    }
}

#[async_trait]
impl Driver for SimDriver {
    fn info(&self) -> DriverInfo {
        let settings = SETTINGS.map(|(name, help)| Setting { name: name.into(), help: help.into() });
        DriverInfo { kind: KIND.into(), settings: settings.into() }
    }

    async fn probe(&self) -> Vec<Check> {
        let (verdict, finding, fix) = match self.step("probe", |_| Ok(())).await {
            Ok(()) => (Verdict::Ok, "it answers".to_owned(), String::new()),
            Err(error) => (Verdict::Fail, error.message().to_owned(), "make the world reachable".into()),
        };
        vec![Check { requirement: "the simulated host answers".into(), verdict, finding, fix }]
    }

    async fn facts(&self) -> Result<HostFacts> {
        self.step("facts", |_| Ok(HostFacts(json!({ "memory": HOST_MEMORY })))).await
    }

    fn plan(&self, name: &str, spec: &MachineSpec, host: &HostFacts) -> Result<Plan, Problems> {
        let mut problems = Problems::default();
        if let Err(error) = vmoon_core::name::check(name) {
            problems.add("name", error.message());
        }
        if spec.kind != KIND {
            problems.add("kind", format!("this driver makes machines of kind {KIND}, not {}", vmoon_core::name::escape(&spec.kind)));
        }
        let mut guest = Guest::default();
        let mut memory = 16;
        let limit = host.0.get("memory").and_then(Value::as_u64).unwrap_or(HOST_MEMORY);
        for (key, value) in &spec.settings {
            let number = value.as_u64();
            let good = match key.as_str() {
                "memory" => number.filter(|n| (1..=limit).contains(n)).map(|n| memory = n).is_some(),
                "ignores_stop" => value.as_bool().map(|on| guest.stop = if on { StopAnswer::Ignore } else { guest.stop }).is_some(),
                "stop_after" => number.map(|ms| guest.stop = StopAnswer::After(ms)).is_some(),
                "dies_after_start" => value.as_bool().map(|on| guest.dies_after_start = on).is_some(),
                "ring" => number.filter(|n| (8192..=1 << 30).contains(n)).map(|n| guest.ring = n as usize).is_some(),
                "serial" => value.as_bool().map(|on| guest.serial = on).is_some(),
                "overflow" => Overflow::deserialize(value).map(|overflow| guest.overflow = overflow).is_ok(),
                _ => {
                    let known: Vec<&str> = SETTINGS.iter().map(|(name, _)| *name).collect();
                    problems.add(format!("settings.{key}"), format!("there is no such setting; there are {}", known.join(", ")));
                    continue;
                }
            };
            if !good {
                let help = SETTINGS.iter().find(|(name, _)| name == key).map_or("", |(_, help)| help);
                problems.add(format!("settings.{key}"), format!("{value} does not fit: {help}"));
            }
        }
        problems.or(Plan {
            name: name.to_owned(),
            steps: vec!["make a disk".into(), format!("define a machine with {memory} MiB of memory"), "tag it complete".into()],
            settings: json!({ "memory": memory, "guest": guest }),
        })
    }

    async fn create(&self, id: MachineId, plan: &Plan, journal: &dyn Journal) -> Result<Handle> {
        let guest = plan.settings.get("guest").map(Guest::deserialize).transpose();
        let guest = guest.map_err(|error| Error::new(Code::SpecInvalid, "the plan is damaged").source(error))?.unwrap_or_default();
        let afterwards = self.world.enter(&self.line, "create").await?;
        // The name follows from the id, so that whoever repeats the call finds what was made.
        let native = format!("sim-{id}");
        let done = self.world.lock().machines.get(&native).is_some_and(|machine| machine.complete);
        if !done {
            let say = |phase: &str, percent| journal.progress(Progress { phase: phase.into(), percent: Some(percent) });
            say("making a disk", 0);
            journal.undo(undo(&Step::Disk { native: native.clone() })?).await?;
            self.step("create.disk", |inner| {
                inner.disks.insert(native.clone(), id);
                Ok(())
            })
            .await?;
            say("defining the machine", 50);
            journal.undo(undo(&Step::Define { native: native.clone() })?).await?;
            self.step("create.define", |inner| {
                let new = || Machine::new(plan.name.clone(), Some(id), false, guest);
                inner.machines.entry(native.clone()).or_insert_with(new);
                Ok(())
            })
            .await?;
            say("tagging it complete", 90);
            self.step("create.complete", |inner| {
                let now = inner.now;
                let machine = inner.machines.get_mut(&native).ok_or_else(|| missing("create"))?;
                machine.complete = true;
                machine.memory = plan.settings.get("memory").and_then(Value::as_u64).unwrap_or(machine.memory);
                if plan.settings.get("clone").is_some() {
                    machine.power_on(now);
                }
                inner.board.machine(handle(&native));
                Ok(())
            })
            .await?;
        }
        self.world.leave(&self.line, "create", afterwards).await?;
        Ok(handle(&native))
    }

    async fn start(&self, handle: &Handle) -> Result<()> {
        self.on("start", handle, |machine, now| match machine.power() {
            _ if !machine.complete => Err(Error::new(Code::DriverFailed, "the creation of the machine never finished")),
            Power::Paused | Power::Suspended => Err(Error::new(Code::DriverFailed, "the machine is paused or suspended")),
            Power::On => Ok(()),
            Power::Off => {
                machine.power_on(now);
                Ok(())
            }
        })
        .await
    }

    async fn stop(&self, handle: &Handle, how: StopMode) -> Result<()> {
        let name = match how {
            StopMode::Polite => "stop",
            StopMode::Force => "kill",
        };
        self.on(name, handle, |machine, now| {
            match how {
                StopMode::Polite => machine.ask_to_stop(now),
                StopMode::Force => machine.power_off(Exit::Killed),
            }
            Ok(())
        })
        .await
    }

    async fn delete(&self, handle: &Handle) -> Result<()> {
        let afterwards = self.world.enter(&self.line, "delete").await?;
        if let Some(native) = native(handle) {
            self.remove(&native).await?;
        }
        self.world.leave(&self.line, "delete", afterwards).await
    }

    async fn observe(&self, handle: &Handle) -> Sighting {
        let seen = self
            .step("observe", |inner| {
                let machine = native(handle).and_then(|native| inner.machines.get(&native));
                Ok(machine.map_or(Sighting { observed: Observed::Missing, complete: false }, Machine::sighting))
            })
            .await;
        seen.unwrap_or(Sighting { observed: Observed::Unreachable, complete: false })
    }

    async fn list(&self) -> Result<Vec<Found>> {
        if let Some(door) = &self.door {
            door()?;
        }
        self.step("list", |inner| {
            let found = |(native, machine): (&String, &Machine)| Found {
                handle: handle(native),
                id: machine.tag,
                name: machine.name.clone(),
                sighting: machine.sighting(),
            };
            Ok(inner.machines.iter().map(found).collect())
        })
        .await
    }

    async fn recover(&self, op: &OpRecord, undos: &[Undo]) -> Result<Recovered> {
        let afterwards = self.world.enter(&self.line, "recover").await?;
        let ours = self.world.find(op.machine);
        let complete = ours.as_ref().and_then(|handle| self.world.look(handle)).is_some_and(|seen| seen.complete);
        let recovered = match op.verb {
            Verb::Create if complete => Recovered::Finished(ours),
            Verb::Delete => {
                // The name follows from the id; a machine that somebody else made is found by its handle alone.
                self.remove(&format!("sim-{}", op.machine)).await?;
                Recovered::Finished(None)
            }
            _ => {
                for undo in undos.iter().rev() {
                    let step = Step::deserialize(&undo.0);
                    self.reverse(&step.map_err(|error| Error::new(Code::DriverFailed, "an undo value is damaged").source(error))?).await?;
                }
                Recovered::Reversed
            }
        };
        self.world.leave(&self.line, "recover", afterwards).await?;
        Ok(recovered)
    }

    async fn open(&self, handle: &Handle, channel: &Channel, from: Offset) -> Result<SessionLink> {
        self.on("open", handle, |machine, _| match machine.holder_of(channel) {
            Some(_) if machine.power() == Power::Suspended => Err(Error::new(Code::DriverUnreachable, "the machine is suspended")),
            Some(holder) => link::open(holder, from),
            None if machine.knows(channel) => Err(Error::new(Code::SessionEnded, "that life of the channel is over")),
            None => Err(Error::new(Code::SessionChannel, "the machine has no such channel")),
        })
        .await
    }

    fn rests(&self, _: &Channel) -> Option<Duration> {
        self.rests
    }

    fn abilities(&self, _handle: &Handle) -> Abilities {
        self.abilities
    }

    async fn describe(&self, handle: &Handle) -> Map<String, Value> {
        let mut facts = Map::new();
        let name = self.on("describe", handle, |machine, _| Ok(machine.name.clone())).await;
        if let (Ok(name), Some(native)) = (name, native(handle)) {
            facts.insert("native".into(), native.into());
            facts.insert("name".into(), name.into());
        }
        facts
    }

    fn adopts(&self) -> bool {
        self.adopts
    }

    fn watch(&self) -> Option<Box<dyn Notices>> {
        self.adopts.then(|| Box::new(Watching::new(self.world.clone())) as Box<dyn Notices>)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn exec(&self) -> Option<&dyn Exec> {
        Some(self)
    }

    fn addresses(&self) -> Option<&dyn Addresses> {
        Some(self)
    }

    fn display(&self) -> Option<&dyn Display> {
        Some(self)
    }

    fn tune(&self) -> Option<&dyn Tune> {
        Some(self)
    }

    fn devices(&self) -> Option<&dyn Devices> {
        Some(self)
    }

    fn reset(&self) -> Option<&dyn Reset> {
        Some(self)
    }

    fn clones(&self) -> Option<&dyn Clones> {
        Some(self)
    }

    fn pause(&self) -> Option<&dyn Pause> {
        self.abilities.pause.then_some(self)
    }

    fn suspend(&self) -> Option<&dyn Suspend> {
        self.abilities.suspend.then_some(self)
    }
}

#[async_trait]
impl Pause for SimDriver {
    async fn pause(&self, handle: &Handle) -> Result<()> {
        self.on("pause", handle, |machine, _| freeze(machine, Power::On, Power::Paused)).await
    }

    async fn resume(&self, handle: &Handle) -> Result<()> {
        self.on("unpause", handle, |machine, _| freeze(machine, Power::Paused, Power::On)).await
    }
}

#[async_trait]
impl Suspend for SimDriver {
    async fn suspend(&self, handle: &Handle) -> Result<()> {
        self.on("suspend", handle, |machine, _| freeze(machine, Power::On, Power::Suspended)).await
    }

    async fn resume(&self, handle: &Handle) -> Result<()> {
        self.on("resume", handle, |machine, _| freeze(machine, Power::Suspended, Power::On)).await
    }
}

fn freeze(machine: &mut Machine, from: Power, to: Power) -> Result<()> {
    match machine.power() {
        power if power == to => Ok(()),
        power if power == from => {
            machine.set_frozen(to);
            Ok(())
        }
        power => Err(Error::new(Code::DriverFailed, format!("the machine is {power:?}"))),
    }
}

pub(crate) fn undo(step: &Step) -> Result<Undo> {
    let value = serde_json::to_value(step).map_err(|error| Error::internal("an undo value cannot be written").source(error))?;
    Ok(Undo(value))
}

fn missing(name: &str) -> Error {
    Error::new(Code::DriverFailed, format!("the simulated host knows no such machine ({name})"))
}
