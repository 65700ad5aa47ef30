//! The driver of local Lua machines, as the daemon sees it.
//!
//! It keeps nothing in memory that it could not read again: machines and lives are directories, a holder is a process that
//! `/proc` knows.

mod clone;
mod environment;
mod files;
pub(crate) mod lives;
mod living;
mod snapshot;
mod usage;

use crate::{
    environments::{self, Environments},
    grants::{self, Granter},
    layout::{Layout, Record, remove_dir},
    link, probe,
    settings::{self, Runtime, Settings},
    zygote::Zygotes,
};
use async_trait::async_trait;
use lives::Vital;
use living::Living;
use rustix::fs::Mode;
use serde_json::{Map, Value, json};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use vmoon_core::{
    Code, Error, MachineId, Result,
    driver::{
        Abilities, BEWARE, Channel, ChannelKind, Check, Driver, DriverInfo, Found, Handle, HostFacts, Journal, Observed, Offset, Plan,
        Recovered, SessionLink, Sighting, StopMode,
    },
    machine::Verb,
    operation::{OpRecord, Undo},
    spec::{MachineSpec, Problem, Problems},
};
use vmoon_lua_wire::hello::Versions;
use vmoon_sys::{clock, memory, paths};

/// The kind of machine.
pub const KIND: &str = "lua";
/// The one channel of a Lua machine.
const MAIN: &str = "main";

/// How long what is known of installed interpreters is good.
const FRESH: Duration = Duration::from_secs(2);

/// Where a [`LuaDriver`] finds things.
#[derive(Clone, Debug)]
pub struct LuaConfig {
    /// The state directory; the driver uses `lua/` and `run/` in it.
    pub state: PathBuf,
    /// The program that is a holder: `vmoon` itself.
    pub host_exe: PathBuf,
    /// What makes it one, for example `lua-host`.
    pub host_args: Vec<OsString>,
    /// Finds environments of packages; without it machines have none.
    pub environments: Option<Arc<dyn Environments>>,
}

/// The driver of local Lua machines.
#[derive(Clone, Debug)]
pub struct LuaDriver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    seen: Living,
    exe: PathBuf,
    args: Vec<OsString>,
    zygotes: Zygotes,
    /// Those of the programs of other flavours, once each is needed.
    flavours: Mutex<Vec<(PathBuf, Arc<Zygotes>)>>,
    environments: Option<Arc<dyn Environments>>,
    speaks: Versions,
    /// The interpreters that were found, and when.
    interpreters: Mutex<Option<(Instant, Map<String, Value>)>>,
}

impl LuaDriver {
    /// A driver; touches nothing.
    pub fn new(config: LuaConfig) -> Self {
        Self::speaking(config, Versions::OURS)
    }

    /// A driver that speaks these protocols with its holders, as one of another build does.
    pub fn speaking(config: LuaConfig, speaks: Versions) -> Self {
        let zygotes = Zygotes::new(config.host_exe.clone(), &config.host_args);
        Self(Arc::new(Inner {
            layout: Layout::new(config.state),
            seen: Living::default(),
            exe: config.host_exe,
            args: config.host_args,
            zygotes,
            flavours: Mutex::default(),
            environments: config.environments,
            speaks,
            interpreters: Mutex::default(),
        }))
    }

    pub(crate) fn speaks(&self) -> Versions {
        self.0.speaks
    }

    /// Does something that blocks, on a thread that may.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .unwrap_or_else(|error| Err(Error::internal("the Lua driver failed").source(error)))
    }
}

/// The installed interpreters, by name: a look into every directory of the search path for each.
fn interpreters() -> Map<String, Value> {
    settings::INTERPRETERS
        .iter()
        .filter_map(|name| Some((name.to_string(), settings::find(name).ok()?.installed()?.to_string_lossy().into())))
        .collect()
}

/// The handle of a machine is its id.
fn id_of(handle: &Handle) -> Option<MachineId> {
    handle.0.parse().ok()
}

fn running(life: u64, complete: bool) -> Sighting {
    let channel = Channel { name: MAIN.into(), kind: ChannelKind::Repl, life };
    Sighting { observed: Observed::On(vec![channel]), complete }
}

fn known(handle: &Handle) -> Result<MachineId> {
    id_of(handle).ok_or_else(|| Error::new(Code::MachineBroken, "there is no such Lua machine"))
}

impl Inner {
    fn create(&self, id: MachineId, name: &str, settings: Settings) -> Result<Handle> {
        let handle = Handle(id.to_string());
        if self.layout.record(id)?.is_some_and(|record| record.complete) {
            return Ok(handle);
        }
        let dir = self.layout.machine(id);
        let made = |dir: &Path| rustix::fs::mkdir(dir, Mode::RWXU).is_ok();
        // The directory above is there but for the first time, and each costs several system calls to check.
        if !(made(&dir) && made(&dir.join("work"))) {
            paths::private_dir(&self.layout.machines())?;
            paths::private_dir(&dir)?;
            paths::private_dir(&dir.join("work"))?;
        }
        // Written last, in one piece: a directory without it is that of an unfinished creation.
        let record = Record { id, name: name.to_owned(), settings, complete: true, home: None };
        self.layout.write(&record)?;
        self.seen.made(id);
        Ok(handle)
    }

    /// The program of another flavour than ours, and its zygotes.
    fn zygotes_of(&self, runtime: &Runtime) -> Option<(PathBuf, Arc<Zygotes>)> {
        let Runtime::Embedded(_, Some(exe)) = runtime else { return None };
        let mut known = self.flavours.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.iter().find(|(path, _)| path == exe) {
            return Some(found.clone());
        }
        let new = (exe.clone(), Arc::new(Zygotes::new(exe.clone(), &[])));
        known.push(new.clone());
        Some(new)
    }

    fn record(&self, id: MachineId) -> Result<Record> {
        self.layout.record(id)?.ok_or_else(|| Error::new(Code::MachineBroken, "the directory of the Lua machine is missing"))
    }

    fn delete(&self, id: MachineId) -> Result<()> {
        let io = |error| Error::io("delete a Lua machine", error);
        let home = self.layout.record(id).ok().flatten().and_then(|record| record.home);
        self.force(id)?;
        self.seen.forget(id);
        self.melt_all(id)?;
        remove_dir(&self.layout.lives_dir(id)).map_err(io)?;
        for dir in self.layout.earlier_boots(id) {
            remove_dir(&dir).map_err(io)?;
        }
        remove_dir(&self.layout.machine(id)).map_err(io)?;
        self.layout.leave_home(id, home.as_deref());
        Ok(())
    }

    /// Ends it now. A start that is under way is overtaken first and then waited for.
    fn force(&self, id: MachineId) -> Result<()> {
        lives::kill(&self.layout, id)?;
        let _lock = self.layout.machine(id).is_dir().then(|| lives::lock(&self.layout, id)).transpose()?;
        lives::kill(&self.layout, id)
    }

    fn observe(&self, id: MachineId) -> Result<Sighting> {
        if let Some(seen) = self.glance(id)? {
            return Ok(seen);
        }
        let complete = self.is_complete(id);
        for life in self.layout.lives(id)?.iter().rev().take(1) {
            if let Vital::Alive(_) = lives::examine(id, life)? {
                return Ok(running(life.number, complete));
            }
        }
        Ok(Sighting { observed: Observed::Off(lives::last_exit(&self.layout, id)?), complete })
    }

    /// What can be seen without waiting for anything: that it is missing, that it runs, that it never ran. `None` for a life that is
    /// over or has not begun, which has to be looked at closely.
    fn glance(&self, id: MachineId) -> Result<Option<Sighting>> {
        if let Some((life, _)) = self.seen.get(id) {
            return Ok(Some(running(life, true)));
        }
        // Nobody else has begun a life of it meanwhile.
        if self.seen.is_new(id) && !self.layout.lives_dir(id).exists() {
            return Ok(Some(Sighting { observed: Observed::Off(None), complete: true }));
        }
        if !self.layout.machine(id).is_dir() {
            return Ok(Some(Sighting { observed: Observed::Missing, complete: false }));
        }
        let last = self.layout.lives(id)?.pop();
        Ok(match last {
            Some(life) => {
                let meta = life.meta()?.filter(|meta| meta.process.is_alive());
                meta.map(|meta| match self.layout.record(id).ok().flatten() {
                    // A copy is no machine before its process is one.
                    Some(Record { complete: false, home: Some(_), .. }) => Sighting { observed: Observed::Off(None), complete: false },
                    Some(Record { complete: true, .. }) => {
                        self.seen.saw(id, life.number, meta);
                        running(life.number, true)
                    }
                    _ => running(life.number, false),
                })
            }
            None if self.layout.earlier_boots(id).is_empty() => {
                Some(Sighting { observed: Observed::Off(None), complete: self.is_complete(id) })
            }
            None => None,
        })
    }

    /// A record that cannot be read is that of an unfinished creation or of a damaged disk; either way the machine exists.
    fn is_complete(&self, id: MachineId) -> bool {
        self.layout.record(id).ok().flatten().is_some_and(|record| record.complete)
    }

    fn list(&self) -> Result<Vec<Found>> {
        let dir = self.layout.machines();
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io(format_args!("read {}", dir.display()), error)),
        };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<MachineId>().ok()) else { continue };
            let name = self.layout.record(id).ok().flatten().map_or_else(|| id.to_string(), |record| record.name);
            let sighting = self.observe(id)?;
            found.push(Found { handle: Handle(id.to_string()), id: Some(id), name, sighting });
        }
        Ok(found)
    }

    fn recover(&self, op: &OpRecord) -> Result<Recovered> {
        let id = op.machine;
        match op.verb {
            Verb::Create => {
                // A record that cannot be read now is no reason to delete a machine.
                if self.layout.record(id)?.is_some_and(|record| record.complete) {
                    return Ok(Recovered::Finished(Some(Handle(id.to_string()))));
                }
                self.delete(id)?;
                Ok(Recovered::Reversed)
            }
            Verb::Delete => {
                self.delete(id)?;
                Ok(Recovered::Finished(None))
            }
            Verb::Kill => {
                self.force(id)?;
                Ok(Recovered::Finished(None))
            }
            _ => {
                // A start that was cut off before the holder answered is taken back; everything else is as it is seen.
                if let Some(life) = self.layout.lives(id)?.last()
                    && let Vital::Unborn = lives::examine(id, life)?
                {
                    lives::end_unborn(id, life)?;
                    return Ok(Recovered::Reversed);
                }
                let on = matches!(self.observe(id)?.observed, Observed::On(_));
                let done = match op.verb {
                    Verb::Start | Verb::Restart => on,
                    Verb::Stop => !on,
                    _ => true,
                };
                Ok(if done { Recovered::Finished(None) } else { Recovered::Reversed })
            }
        }
    }

    fn describe(&self, id: MachineId) -> Result<Map<String, Value>> {
        let record = self.record(id)?;
        let settings = &record.settings;
        let mut facts = Map::new();
        facts.insert("runtime".into(), settings.runtime.clone().into());
        facts.insert("directory".into(), self.layout.work(&record).to_string_lossy().into());
        if let Some(name) = &settings.env {
            facts.insert("env".into(), name.clone().into());
        }
        facts.insert("profile".into(), settings.confinement.profile.as_str().into());
        facts.insert("grants".into(), grants::list(&settings.confinement).into());
        facts.insert("overflow".into(), settings.overflow.as_str().into());
        facts.insert("ring_bytes".into(), settings.ring.into());
        facts.insert("spill_bytes".into(), settings.spill.into());
        if let Some(limit) = settings.memory {
            facts.insert("memory_limit_bytes".into(), limit.into());
        }
        facts.insert("limits".into(), grants::limits(settings).into());
        if let Some(life) = self.layout.lives(id)?.last()
            && let Vital::Alive(meta) = lives::examine(id, life)?
        {
            if let Some(used) = life.environments().pop() {
                facts.insert("env".into(), used.name.into());
                facts.insert("generation".into(), used.generation.into());
            }
            facts.insert("lua".into(), meta.runtime.clone().into());
            facts.insert("pid".into(), meta.process.pid.into());
            if let Some(layers) = life.layers() {
                facts.insert("isolation".into(), layers.layers.iter().map(|layer| format!("{} {}", layer.layer, layer.status)).collect());
            }
            facts.insert("life".into(), life.number.into());
            if let Some(memory) = memory::of(meta.process.pid) {
                facts.insert("memory_bytes".into(), memory.pss.into());
            }
            if let Some(cpu) = memory::cpu_time(meta.process.pid) {
                facts.insert("cpu_ms".into(), (cpu.as_millis() as u64).into());
            }
        }
        Ok(facts)
    }
}

#[async_trait]
impl Driver for LuaDriver {
    fn info(&self) -> DriverInfo {
        DriverInfo { kind: KIND.into(), settings: settings::known() }
    }

    async fn probe(&self) -> Vec<Check> {
        let exe = self.0.exe.clone();
        tokio::task::spawn_blocking(move || probe::checks(&exe)).await.unwrap_or_default()
    }

    async fn facts(&self) -> Result<HostFacts> {
        let mut known = self.0.interpreters.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match &*known {
            Some((at, found)) if at.elapsed() < FRESH => found.clone(),
            _ => {
                let found = interpreters();
                *known = Some((clock::instant(), found.clone()));
                found
            }
        };
        drop(known);
        Ok(HostFacts(json!({ "interpreters": found })))
    }

    fn plan(&self, name: &str, spec: &MachineSpec, _: &HostFacts) -> Result<Plan, Problems> {
        let settings = Settings::read(spec)?;
        let mut problems = Problems::default();
        let warnings =
            Granter { state: self.0.layout.real_state(), home: grants::home().as_deref() }.judge(&settings.confinement, &mut problems);
        let environment = environments::wanted(&settings, self.0.environments.as_deref());
        let environment = environment.unwrap_or_else(|error| {
            problems.0.push(Problem { path: "settings.env".into(), message: error.message().to_owned(), code: Some(error.code()) });
            None
        });
        problems.or(())?;
        let mut steps = vec![
            format!("make a directory for the Lua machine {name}, with an empty working directory"),
            format!("record its settings: runtime {}, overflow {}", settings.runtime, settings.overflow.as_str()),
            grants::sentence(&settings),
        ];
        steps.extend(environment.map(|environment| {
            format!(
                "let it find the packages of the environment {} (Lua {}), as they are when it starts",
                environment.name, environment.lua
            )
        }));
        steps.extend(warnings.into_iter().map(|warning| format!("{BEWARE}{warning}")));
        let settings = serde_json::to_value(&settings).unwrap_or_default();
        Ok(Plan { name: name.to_owned(), steps, settings })
    }

    fn undo_of_create(&self, id: MachineId, _: &Plan) -> Option<Undo> {
        Some(Undo(json!({ "delete": id })))
    }

    async fn create(&self, id: MachineId, plan: &Plan, _: &dyn Journal) -> Result<Handle> {
        let settings: Settings = serde_json::from_value(plan.settings.clone())
            .map_err(|error| Error::internal("the plan is not one of the Lua driver").source(error))?;
        // There is one step, which is over before anybody could read of it: no progress is told.
        let (name, original) = (plan.name.clone(), clone::original(plan)?);
        self.blocking(move |inner| match original {
            Some(original) => inner.copy(id, &name, settings, original),
            None => inner.create(id, &name, settings),
        })
        .await
    }

    async fn start(&self, handle: &Handle) -> Result<()> {
        let id = known(handle)?;
        self.blocking(move |inner| {
            inner.seen.forget(id);
            let record = inner.record(id)?;
            let runtime = settings::find(&record.settings.runtime).map_err(|message| Error::new(Code::RuntimeNotFound, message))?;
            let others = inner.zygotes_of(&runtime);
            let ways = match &others {
                Some((exe, zygotes)) => lives::Ways { zygotes, exe, args: &[], speaks: inner.speaks },
                None => lives::Ways { zygotes: &inner.zygotes, exe: &inner.exe, args: &inner.args, speaks: inner.speaks },
            };
            let begun = lives::start(&inner.layout, ways, inner.environments.as_deref(), &record, &runtime)?;
            // Whoever looks at it next need not look for it.
            if let Some(lives::Begun { life, call }) = begun.filter(|_| record.complete)
                && let Some(meta) = life.meta()?
            {
                inner.seen.saw(id, life.number, meta);
                if let Some(call) = call {
                    inner.seen.called(id, life.number, call);
                }
            }
            Ok(())
        })
        .await
    }

    async fn stop(&self, handle: &Handle, how: StopMode) -> Result<()> {
        let Some(id) = id_of(handle) else { return Ok(()) };
        self.blocking(move |inner| match how {
            StopMode::Force => inner.force(id),
            StopMode::Polite => match inner.layout.lives(id)?.last().map(|life| lives::examine(id, life)).transpose()? {
                Some(Vital::Alive(meta)) => lives::ask(&meta.process),
                _ => Ok(()),
            },
        })
        .await
    }

    async fn delete(&self, handle: &Handle) -> Result<()> {
        let Some(id) = id_of(handle) else { return Ok(()) };
        self.blocking(move |inner| inner.delete(id)).await
    }

    async fn observe(&self, handle: &Handle) -> Sighting {
        let missing = Sighting { observed: Observed::Missing, complete: false };
        let Some(id) = id_of(handle) else { return missing };
        // A handful of small files takes less time than a thread to wake up.
        let seen = match self.0.glance(id) {
            Ok(Some(seen)) => Ok(seen),
            Ok(None) => self.blocking(move |inner| inner.observe(id)).await,
            Err(error) => Err(error),
        };
        seen.unwrap_or(Sighting { observed: Observed::Unreachable, complete: false })
    }

    async fn list(&self) -> Result<Vec<Found>> {
        self.blocking(Inner::list).await
    }

    async fn recover(&self, op: &OpRecord, _: &[Undo]) -> Result<Recovered> {
        let op = op.clone();
        self.blocking(move |inner| inner.recover(&op)).await
    }

    async fn open(&self, handle: &Handle, channel: &Channel, from: Offset) -> Result<SessionLink> {
        let id = known(handle)?;
        let ended = || Error::new(Code::SessionEnded, "this life of the machine is over and everything it said was read");
        if channel.name != MAIN {
            return Err(ended());
        }
        // A daemon that takes over opens sessions and looks at their machines next: what is read for the one is not read again for the other.
        if !self.0.seen.knows(id) {
            let _ = self.0.glance(id);
        }
        let (life, mut holder) = self.0.seen.find(&self.0.layout, id, channel.life)?.ok_or_else(ended)?;
        // A holder that is ending may refuse; then its files have the rest.
        for _ in 0..2 {
            let this = life.clone();
            let vital = match holder.take() {
                Some(meta) => Vital::Alive(meta),
                None => self.blocking(move |_| lives::examine(id, &this)).await?,
            };
            match vital {
                Vital::Alive(meta) => {
                    // A call says that nothing was read yet.
                    let call = if from == 0 { self.0.seen.call(id, life.number) } else { None };
                    if let Some(link) = link::connect(self.clone(), id, &life, &meta, from, call).await? {
                        return Ok(link);
                    }
                }
                Vital::Dead(exit) => return link::remains(&life, exit, from)?.ok_or_else(ended),
                Vital::Unborn => break,
            }
        }
        Err(Error::new(Code::DriverUnreachable, "the machine's process does not answer"))
    }

    fn adopts(&self) -> bool {
        // Everything here was made by vmoon; what is in no record is an orphan, which `vmoon doctor` tells.
        false
    }

    fn abilities(&self, _: &Handle) -> Abilities {
        Abilities { eval: true, ..Abilities::default() }
    }

    async fn usage(&self, handles: &[Handle]) -> Vec<vmoon_core::driver::Usage> {
        let handles = handles.to_vec();
        self.blocking(move |inner| Ok(inner.usage(&handles))).await.unwrap_or_default()
    }

    fn clones(&self) -> Option<&dyn vmoon_core::driver::Clones> {
        Some(self)
    }

    fn environments(&self) -> Option<&dyn vmoon_core::ability::Environments> {
        self.0.environments.is_some().then_some(self)
    }

    fn files(&self) -> Option<&dyn vmoon_core::driver::Files> {
        Some(self)
    }

    fn snapshots(&self) -> Option<&dyn vmoon_core::ability::Snapshots> {
        Some(self)
    }

    async fn describe(&self, handle: &Handle) -> Map<String, Value> {
        let Some(id) = id_of(handle) else { return Map::new() };
        self.blocking(move |inner| inner.describe(id)).await.unwrap_or_default()
    }
}

impl LuaDriver {
    /// How a life ended whose holder was seen to die.
    pub(crate) async fn exit_of(&self, id: MachineId, life: &crate::layout::Life) -> Option<vmoon_core::driver::Exit> {
        let life = life.clone();
        match self.blocking(move |_| lives::examine(id, &life)).await {
            Ok(Vital::Dead(exit)) => Some(exit),
            _ => None,
        }
    }
}
