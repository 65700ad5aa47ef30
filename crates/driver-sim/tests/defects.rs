//! The contract suite can fail: each rule catches the defect it is there for.

use async_trait::async_trait;
use serde_json::{Map, Value};
use std::sync::{Arc, Mutex};
use vmoon_core::{
    Code, Error, MachineId, Result,
    driver::{
        Abilities, Channel, Check, Driver, DriverInfo, Exit, Found, Handle, HostFacts, Journal, LinkItem, LinkReader, LinkWriter, Observed,
        Offset, Pause, Plan, Recovered, SessionLink, Sighting, StopMode, Suspend,
    },
    frame::{Frame, tag},
    operation::{OpRecord, Progress, Undo},
    spec::{MachineSpec, Problems},
};
use vmoon_driver_sim::{
    SimDriver, World,
    contract::{self, Fixture, Snippet},
};

/// What is wrong with a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    None,
    UnknownSettingsIgnored,
    FirstProblemOnly,
    NotTagged,
    UndoAfter,
    DeleteLeavesDisk,
    CompleteFirst,
    RecoverForgets,
    StartRestarts,
    PoliteKills,
    ForceReturnsEarly,
    StopOfOffFails,
    DeleteOfMissingFails,
    ObserveHangs,
    UnreachableForMissing,
    OpensFromTheStart,
    FirstFrameLost,
    EndUntold,
    InterruptKills,
}

struct Bad {
    sim: SimDriver,
    world: Arc<World>,
    defect: Defect,
}

/// Stores each undo value after its step.
struct Late<'a>(&'a dyn Journal, Mutex<Option<Undo>>);

impl Late<'_> {
    async fn flush(&self) -> Result<()> {
        let late = self.1.lock().unwrap().take();
        match late {
            Some(undo) => self.0.undo(undo).await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Journal for Late<'_> {
    fn progress(&self, progress: Progress) {
        self.0.progress(progress);
    }
    async fn undo(&self, undo: Undo) -> Result<()> {
        self.flush().await?;
        *self.1.lock().unwrap() = Some(undo);
        Ok(())
    }
}

/// Stores no undo values.
struct NoJournal;

#[async_trait]
impl Journal for NoJournal {
    fn progress(&self, _: Progress) {}
    async fn undo(&self, _: Undo) -> Result<()> {
        Ok(())
    }
}

struct BadReader(Box<dyn LinkReader>, Defect, bool);
struct BadWriter(Box<dyn LinkWriter>, Defect, Arc<World>, Handle);

#[async_trait]
impl LinkReader for BadReader {
    async fn next(&mut self, buf: &mut Vec<u8>) -> Result<LinkItem> {
        let item = self.0.next(buf).await?;
        match (self.1, &item) {
            (Defect::EndUntold, LinkItem::Ended(_)) => std::future::pending().await,
            (Defect::FirstFrameLost, LinkItem::Stream { .. }) if !std::mem::replace(&mut self.2, true) => self.0.next(buf).await,
            _ => Ok(item),
        }
    }
}

#[async_trait]
impl LinkWriter for BadWriter {
    async fn send(&mut self, frame: Frame<'_>) -> Result<()> {
        if self.1 == Defect::InterruptKills && frame.tag == tag::INTERRUPT {
            self.2.power_off(&self.3, Exit::Killed);
            return Ok(());
        }
        self.0.send(frame).await
    }
}

#[async_trait]
impl Driver for Bad {
    fn info(&self) -> DriverInfo {
        self.sim.info()
    }
    async fn probe(&self) -> Vec<Check> {
        self.sim.probe().await
    }
    async fn facts(&self) -> Result<HostFacts> {
        self.sim.facts().await
    }
    fn plan(&self, name: &str, spec: &MachineSpec, host: &HostFacts) -> Result<Plan, Problems> {
        let mut spec = spec.clone();
        if self.defect == Defect::UnknownSettingsIgnored {
            spec.settings.retain(|name, _| self.info().settings.iter().any(|setting| setting.name == *name));
        }
        self.sim.plan(name, &spec, host).map_err(|mut problems| {
            if self.defect == Defect::FirstProblemOnly {
                problems.0.truncate(1);
            }
            problems
        })
    }
    async fn create(&self, id: MachineId, plan: &Plan, journal: &dyn Journal) -> Result<Handle> {
        match self.defect {
            Defect::UndoAfter => {
                let late = Late(journal, Mutex::new(None));
                let handle = self.sim.create(id, plan, &late).await?;
                late.flush().await?;
                Ok(handle)
            }
            Defect::CompleteFirst => {
                let handle = self.sim.create(id, plan, &NoJournal).await?;
                self.sim.create(MachineId::from_uuid(uuid::Uuid::now_v7()), plan, journal).await?;
                Ok(handle)
            }
            _ => self.sim.create(id, plan, journal).await,
        }
    }
    async fn start(&self, handle: &Handle) -> Result<()> {
        if self.defect == Defect::StartRestarts {
            self.world.power_off(handle, Exit::Killed);
        }
        self.sim.start(handle).await
    }
    async fn stop(&self, handle: &Handle, how: StopMode) -> Result<()> {
        let on = matches!(self.sim.observe(handle).await.observed, Observed::On(_));
        match (self.defect, how) {
            (Defect::PoliteKills, _) => self.sim.stop(handle, StopMode::Force).await,
            (Defect::ForceReturnsEarly, StopMode::Force) => Ok(()),
            (Defect::StopOfOffFails, _) if !on => Err(Error::new(Code::DriverFailed, "it is off")),
            _ => self.sim.stop(handle, how).await,
        }
    }
    async fn delete(&self, handle: &Handle) -> Result<()> {
        if self.defect == Defect::DeleteOfMissingFails && self.world.look(handle).is_none() {
            return Err(Error::new(Code::DriverFailed, "no such machine"));
        }
        if self.defect == Defect::DeleteLeavesDisk {
            let _ = self
                .sim
                .create(MachineId::from_uuid(uuid::Uuid::now_v7()), &self.plan("x", &spec(), &HostFacts::default())?, &NoJournal)
                .await;
        }
        self.sim.delete(handle).await
    }
    async fn observe(&self, handle: &Handle) -> Sighting {
        let mut seen = self.sim.observe(handle).await;
        if self.defect == Defect::ObserveHangs && matches!(seen.observed, Observed::On(_)) {
            std::future::pending::<()>().await;
        }
        if self.defect == Defect::UnreachableForMissing && seen.observed == Observed::Missing {
            seen.observed = Observed::Unreachable;
        }
        seen
    }
    async fn list(&self) -> Result<Vec<Found>> {
        let mut list = self.sim.list().await?;
        if self.defect == Defect::NotTagged {
            list.iter_mut().for_each(|found| found.id = None);
        }
        Ok(list)
    }
    async fn recover(&self, op: &OpRecord, undos: &[Undo]) -> Result<Recovered> {
        let undos = if self.defect == Defect::RecoverForgets { &[] } else { undos };
        self.sim.recover(op, undos).await
    }
    async fn open(&self, handle: &Handle, channel: &Channel, from: Offset) -> Result<SessionLink> {
        let from = if self.defect == Defect::OpensFromTheStart { 0 } else { from };
        let mut link = self.sim.open(handle, channel, from).await?;
        link.reader = Box::new(BadReader(link.reader, self.defect, false));
        link.writer = Box::new(BadWriter(link.writer, self.defect, self.world.clone(), handle.clone()));
        Ok(link)
    }
    fn abilities(&self, handle: &Handle) -> Abilities {
        self.sim.abilities(handle)
    }
    async fn describe(&self, handle: &Handle) -> Map<String, Value> {
        self.sim.describe(handle).await
    }
    fn pause(&self) -> Option<&dyn Pause> {
        Driver::pause(&self.sim)
    }
    fn suspend(&self) -> Option<&dyn Suspend> {
        Driver::suspend(&self.sim)
    }
}

fn spec() -> MachineSpec {
    MachineSpec { kind: "sim".into(), ..MachineSpec::default() }
}

struct Workshop(Arc<World>, Defect);

impl Fixture for Workshop {
    async fn driver(&self) -> Arc<dyn Driver> {
        Arc::new(Bad { sim: SimDriver::new(self.0.clone()), world: self.0.clone(), defect: self.1 })
    }
    fn spec(&self) -> MachineSpec {
        spec()
    }
    fn stubborn(&self) -> Option<MachineSpec> {
        let mut spec = self.spec();
        spec.settings.insert("ignores_stop".into(), true.into());
        Some(spec)
    }
    fn remains(&self) -> Vec<String> {
        [self.0.machines(), self.0.disks()].concat()
    }
    fn code(&self, what: Snippet<'_>) -> String {
        match what {
            Snippet::Print(text) => format!("echo {text}"),
            Snippet::Value(text) => format!("value {text}"),
            Snippet::Forever => "hang".into(),
            _ => "echo x".into(),
        }
    }
}

macro_rules! caught {
    ($($test:ident: $rule:ident catches $defect:ident;)*) => {$(
        #[test]
        #[should_panic]
        fn $test() {
            // A defect that hangs is caught by the suite's patience; paused time makes that patience pass at once.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            runtime.block_on(contract::$rule(&Workshop(World::new(), Defect::$defect)));
        }
    )*
        /// So that the panics above come from the defects.
        #[tokio::test]
        async fn without_a_defect_the_same_rules_pass() {
            $(contract::$rule(&Workshop(World::new(), Defect::None)).await;)*
        }
    };
}

caught! {
    unknown_settings_ignored: plan_refuses_unknown_settings catches UnknownSettingsIgnored;
    first_problem_only: plan_reports_all_problems_at_once catches FirstProblemOnly;
    not_tagged: create_tags_what_it_makes catches NotTagged;
    undo_after: create_journals_before_it_leaves_something_behind catches UndoAfter;
    delete_leaves_disk: delete_takes_everything catches DeleteLeavesDisk;
    complete_first: create_writes_complete_last catches CompleteFirst;
    recover_forgets: create_journals_before_it_leaves_something_behind catches RecoverForgets;
    start_restarts: start_does_not_create_a_second_life catches StartRestarts;
    polite_kills: polite_stop_does_not_kill catches PoliteKills;
    force_returns_early: force_stop_returns_when_off catches ForceReturnsEarly;
    stop_of_off_fails: stopping_what_is_off_is_ok catches StopOfOffFails;
    delete_of_missing_fails: deleting_what_is_missing_is_ok catches DeleteOfMissingFails;
    observe_hangs: observe_is_bounded catches ObserveHangs;
    unreachable_for_missing: unknown_handle_is_missing catches UnreachableForMissing;
    opens_from_the_start: open_delivers_from_any_offset catches OpensFromTheStart;
    first_frame_lost: evaluation_is_accepted_first_and_done_last catches FirstFrameLost;
    end_untold: a_link_tells_the_end catches EndUntold;
    interrupt_kills: interrupt_ends_the_command_and_keeps_the_machine catches InterruptKills;
}
