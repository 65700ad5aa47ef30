//! The rules of the contract suite about channels. Machines of this kind cannot be made, started or stopped, so the rules about that do not
//! apply; here the life of the Lua session stands for the life of a machine.

use crate::driver::config;
use async_trait::async_trait;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use vmoon_core::{
    MachineId, Result,
    driver::{
        Abilities, Channel, Check, Driver, DriverInfo, Exit, Found, Handle, HostFacts, Journal, Observed, Offset, Plan, Recovered,
        SessionLink, Sighting, StopMode,
    },
    operation::{OpRecord, Undo},
    spec::{MachineSpec, Problems},
};
use vmoon_driver_sim::contract::{self, Fixture, Snippet};
use vmoon_driver_ssh::SshDriver;
use vmoon_ssh_lab::{Lab, Tools};

struct World {
    lab: Lab,
    /// The life that runs, 0 for none.
    life: Arc<AtomicU64>,
}

impl World {
    async fn new(tools: Tools, lua: &str) -> Self {
        Self { lab: Lab::new(tools, lua).await, life: Arc::default() }
    }
}

impl Fixture for World {
    async fn driver(&self) -> Arc<dyn Driver> {
        let ssh = SshDriver::new(config(&self.lab)).expect("a driver");
        Arc::new(Machine { ssh, life: self.life.clone(), state: self.lab.path().join("state/vmoon/guest/lab/main") })
    }

    fn spec(&self) -> MachineSpec {
        MachineSpec { kind: "ssh".into(), ..MachineSpec::default() }
    }

    fn code(&self, what: Snippet<'_>) -> String {
        what.in_lua()
    }

    fn remains(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The host's Lua session, as a machine.
struct Machine {
    ssh: SshDriver,
    life: Arc<AtomicU64>,
    state: std::path::PathBuf,
}

impl Machine {
    fn exit(&self, life: u64) -> Option<Exit> {
        let text = std::fs::read_to_string(self.state.join(life.to_string()).join("exit")).ok()?;
        match text.trim() {
            "killed" => Some(Exit::Killed),
            code => code.parse().ok().map(|code| Exit::Code { code }),
        }
    }
}

#[async_trait]
impl Driver for Machine {
    fn info(&self) -> DriverInfo {
        self.ssh.info()
    }
    async fn probe(&self) -> Vec<Check> {
        self.ssh.probe().await
    }
    async fn facts(&self) -> Result<HostFacts> {
        self.ssh.facts().await
    }
    fn plan(&self, name: &str, _: &MachineSpec, _: &HostFacts) -> Result<Plan, Problems> {
        Ok(Plan { name: name.into(), steps: Vec::new(), settings: serde_json::Value::Null })
    }
    async fn create(&self, _: MachineId, _: &Plan, _: &dyn Journal) -> Result<Handle> {
        Ok(self.ssh.list().await?.remove(0).handle)
    }
    async fn start(&self, _: &Handle) -> Result<()> {
        self.life.store(self.ssh.guest().look().await?.next_life(), Ordering::SeqCst);
        Ok(())
    }
    async fn stop(&self, _: &Handle, _: StopMode) -> Result<()> {
        self.ssh.guest().kill(self.life.load(Ordering::SeqCst)).await
    }
    async fn delete(&self, handle: &Handle) -> Result<()> {
        self.stop(handle, StopMode::Force).await?;
        self.life.store(0, Ordering::SeqCst);
        Ok(())
    }
    async fn observe(&self, handle: &Handle) -> Sighting {
        let life = self.life.load(Ordering::SeqCst);
        let mut sighting = self.ssh.observe(handle).await;
        if let Observed::On(channels) = &mut sighting.observed {
            channels.retain(|channel| channel.name == "main" && channel.life == life);
            if life == 0 {
                sighting.observed = Observed::Missing;
            } else if channels.is_empty() {
                sighting.observed = Observed::Off(self.exit(life));
            }
        }
        sighting
    }
    async fn list(&self) -> Result<Vec<Found>> {
        self.ssh.list().await
    }
    async fn recover(&self, op: &OpRecord, undos: &[Undo]) -> Result<Recovered> {
        self.ssh.recover(op, undos).await
    }
    async fn open(&self, handle: &Handle, channel: &Channel, from: Offset) -> Result<SessionLink> {
        self.ssh.open(handle, channel, from).await
    }
    fn abilities(&self, handle: &Handle) -> Abilities {
        self.ssh.abilities(handle)
    }
    async fn describe(&self, handle: &Handle) -> serde_json::Map<String, serde_json::Value> {
        self.ssh.describe(handle).await
    }
}

macro_rules! rules {
    ($($rule:ident)*) => {$(
        #[tokio::test]
        async fn $rule() {
            contract::$rule(&World::new(Tools::BusyBox, "lua5.4").await).await;
        }
    )*};
}

rules! {
    evaluation_is_accepted_first_and_done_last
    values_errors_and_unfinished_chunks_are_told_apart
    commands_are_numbered_in_the_order_they_are_accepted
    open_delivers_from_any_offset
    open_tells_the_last_command
    an_offset_inside_a_frame_is_refused
    a_dropped_link_loses_nothing
    dropping_a_read_loses_nothing
    acknowledged_output_need_not_be_kept
    open_after_end_delivers_the_rest_then_ended
    a_link_tells_the_end
    a_new_life_has_a_new_stream
    interrupt_ends_the_command_and_keeps_the_machine
    a_deadline_ends_the_command_and_keeps_the_machine
    input_reaches_the_program
    completeness_is_answered
    an_exit_of_the_program_is_the_exit_of_the_machine
    quit_ends_politely
    abilities_match_accessors
}
