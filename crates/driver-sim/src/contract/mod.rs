//! The contract suite: one test for each MUST of [`vmoon_core::driver::Driver`], under the same name.
//!
//! A driver's crate implements [`Fixture`] and writes `vmoon_driver_sim::contract_tests!(Fixture::new());` into a test file;
//! that makes one `#[tokio::test]` of each rule. Rules know only the trait. They never sleep: each waits for what it wants to
//! see, at most [`PATIENCE`]. Whatever a driver lacks by design (a guest that ignores a stop, pausing, a repl) skips the
//! rules about it.

mod abilities;
mod channels;
mod devices;
mod lifecycle;
mod talk;

pub use abilities::*;
pub use channels::*;
pub use devices::*;
pub use lifecycle::*;

use async_trait::async_trait;
use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use uuid::Uuid;
use vmoon_core::{
    Code, Error, MachineId, OperationId, Result,
    device::NewDevice,
    driver::{Channel, ChannelKind, Driver, Handle, Journal, Observed, Plan, StopMode},
    machine::Verb,
    operation::{OpRecord, Progress, Undo},
    spec::MachineSpec,
};

/// How long any one thing may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a driver's tests provide. Each rule gets a fixture of its own, with an empty world or directory behind it.
pub trait Fixture: Send + Sync {
    /// A new driver value over the same world, as after a restart of the daemon: nothing is remembered in memory.
    fn driver(&self) -> impl Future<Output = Arc<dyn Driver>> + Send;

    /// A specification that works.
    fn spec(&self) -> MachineSpec;

    /// One whose guest ignores a polite stop, where there can be such a guest.
    fn stubborn(&self) -> Option<MachineSpec> {
        None
    }

    /// A chunk in the language of the machine's repl.
    fn code(&self, what: Snippet<'_>) -> String;

    /// Whether its machines have a repl; without one the rules about repls are skipped without making a machine.
    fn has_repl(&self) -> bool {
        true
    }

    /// Whether its machines can be copied while they run; those of an older build, or with disks that change, may not.
    fn copies(&self) -> bool {
        true
    }

    /// Whether snapshots can be made of its machines while they run.
    fn snapshots(&self) -> bool {
        true
    }

    /// Names of everything that exists because the driver made it (disks, directories, processes), whether it can still be
    /// found by an id or not. A rule that cleans up after itself finds the same afterwards as before.
    fn remains(&self) -> Vec<String>;

    /// A program of the guest that writes this text to its standard output, where programs can be run.
    fn program(&self, _text: &str) -> Option<Vec<String>> {
        None
    }

    /// A change of settings that can be made to a machine that is off.
    fn change(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        None
    }

    /// A device that can be added to a machine that is off, where devices can be added.
    fn device(&self) -> Option<NewDevice> {
        None
    }

    /// Keys for the machine's terminal, and what it shows after them.
    fn keys(&self) -> Option<(String, String)> {
        None
    }

    /// Waits until a machine that was just started is up, where it has a system that boots first. A rule's own patience begins after it.
    fn up(&self, _driver: &Arc<dyn Driver>, _handle: &Handle) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Lets so many milliseconds pass, where the machine's clock is not the real one. Must not sleep.
    fn pass(&self, _ms: u64) {}
}

/// A chunk that the suite needs. `TEXT` is ASCII letters, digits and blanks only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snippet<'a> {
    /// Writes TEXT to standard output.
    Print(&'a str),
    /// Gives TEXT as its value.
    Value(&'a str),
    /// Fails with TEXT in the message.
    Fail(&'a str),
    /// Runs until it is interrupted.
    Forever,
    /// Is the beginning of a chunk.
    Unfinished,
    /// Writes so many bytes to standard output, in one or many pieces.
    Flood(usize),
    /// Reads one line from standard input and writes it to standard output.
    Ask,
    /// Ends the program with this status.
    Exit(i32),
}

impl Snippet<'_> {
    /// The chunk in Lua, every version of it.
    pub fn in_lua(self) -> String {
        match self {
            Snippet::Print(text) => format!("print('{text}')"),
            Snippet::Value(text) => format!("return '{text}'"),
            Snippet::Fail(text) => format!("error('{text}')"),
            Snippet::Forever => "while true do end".into(),
            Snippet::Unfinished => "for i = 1, 10 do".into(),
            Snippet::Flood(bytes) => format!("io.write(('x'):rep({bytes}))"),
            Snippet::Ask => "print((io.read()))".into(),
            Snippet::Exit(status) => format!("os.exit({status})"),
        }
    }
}

/// Waits for `what`, at most [`PATIENCE`].
async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {PATIENCE:?}"),
    }
}

/// Waits for `what`, which must go well.
async fn fine<T>(what: &str, future: impl Future<Output = Result<T>>) -> T {
    match within(what, future).await {
        Ok(value) => value,
        Err(error) => panic!("{what} failed: {}: {}", error.code(), error.chain()),
    }
}

/// A journal that remembers, and refuses from the `limit`th undo value on.
struct Notes {
    undos: Mutex<Vec<Undo>>,
    limit: usize,
}

impl Notes {
    fn new() -> Self {
        Self::refusing_after(usize::MAX)
    }

    fn refusing_after(limit: usize) -> Self {
        Self { undos: Mutex::default(), limit }
    }

    fn undos(&self) -> Vec<Undo> {
        self.undos.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Journal for Notes {
    fn progress(&self, progress: Progress) {
        assert!(progress.percent.is_none_or(|percent| percent <= 100), "{progress:?}");
    }

    async fn undo(&self, undo: Undo) -> Result<()> {
        let mut undos = self.undos.lock().unwrap_or_else(PoisonError::into_inner);
        if undos.len() >= self.limit {
            return Err(Error::new(Code::StoreFailed, "the journal was told to refuse"));
        }
        undos.push(undo);
        Ok(())
    }
}

/// A name that no other rule uses.
const NAME: &str = "contract";

fn new_id() -> MachineId {
    MachineId::from_uuid(Uuid::now_v7())
}

fn record(verb: Verb, machine: MachineId) -> OpRecord {
    OpRecord::new(OperationId::from_uuid(Uuid::now_v7()), verb, machine, 0, Duration::MAX)
}

async fn plan(driver: &dyn Driver, spec: &MachineSpec) -> Plan {
    let facts = fine("facts", driver.facts()).await;
    match driver.plan(NAME, spec, &facts) {
        Ok(plan) => plan,
        Err(problems) => panic!("the fixture's specification is refused: {problems:?}"),
    }
}

/// A machine, and what it takes to talk about it.
struct Subject {
    driver: Arc<dyn Driver>,
    id: MachineId,
    handle: Handle,
}

impl Subject {
    /// A new machine, off.
    async fn created(fixture: &impl Fixture, spec: &MachineSpec) -> Self {
        let driver = fixture.driver().await;
        let id = new_id();
        let plan = plan(&*driver, spec).await;
        let handle = fine("create", driver.create(id, &plan, &Notes::new())).await;
        Self { driver, id, handle }
    }

    /// A new machine that runs.
    async fn running(fixture: &impl Fixture) -> Self {
        let subject = Self::created(fixture, &fixture.spec()).await;
        subject.start(fixture).await;
        subject
    }

    async fn start(&self, fixture: &impl Fixture) {
        fine("start", self.driver.start(&self.handle)).await;
        fixture.up(&self.driver, &self.handle).await;
    }

    async fn kill(&self) {
        fine("stop by force", self.driver.stop(&self.handle, StopMode::Force)).await;
    }

    async fn observe(&self) -> Observed {
        within("observe", self.driver.observe(&self.handle)).await.observed
    }

    /// The channels of a machine that must run.
    async fn channels(&self) -> Vec<Channel> {
        match self.observe().await {
            Observed::On(channels) => channels,
            other => panic!("the machine should run and is {other:?}"),
        }
    }

    /// Its repl, if its kind has one.
    async fn repl(&self) -> Option<Channel> {
        self.channels().await.into_iter().find(|channel| channel.kind == ChannelKind::Repl)
    }

    async fn delete(self) {
        fine("delete", self.driver.delete(&self.handle)).await;
        assert_eq!(self.observe().await, Observed::Missing, "a deleted machine");
    }
}

/// Calls `$then! { $given; RULES }` with the names of all rules, so that they stand in one place.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract_rules {
    ($then:path { $($given:tt)* }) => {
        $then! { $($given)*;
            info_names_its_kind
            plan_reports_all_problems_at_once
            plan_refuses_unknown_settings
            plan_is_pure
            create_is_idempotent_per_id
            create_makes_a_stopped_machine
            create_tags_what_it_makes
            create_journals_before_it_leaves_something_behind
            create_writes_complete_last
            recover_is_idempotent
            recover_of_a_finished_create_keeps_the_machine
            recover_of_a_delete_is_idempotent
            start_is_safe_to_repeat
            start_does_not_create_a_second_life
            each_start_is_a_new_life
            starting_what_is_missing_is_an_error
            polite_stop_ends_an_obedient_guest
            polite_stop_does_not_kill
            force_stop_returns_when_off
            stopping_what_is_off_is_ok
            delete_takes_everything
            delete_takes_what_runs
            deleting_what_is_missing_is_ok
            observe_is_bounded
            unknown_handle_is_missing
            list_shows_what_observe_shows
            a_fresh_driver_sees_the_same_machines
            abilities_match_accessors
            pause_and_resume_are_safe_to_repeat
            suspend_and_resume_keep_the_life
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
            snapshots_are_listed_parents_first
            a_snapshot_name_is_taken_once
            revert_returns_to_a_machine_that_works
            deleting_a_snapshot_keeps_its_children
            exec_passes_status_and_output
            addresses_of_what_is_off_are_none
            a_dry_run_of_changes_changes_nothing
            rename_keeps_the_machine
            a_copy_goes_on_and_so_does_the_original
            a_terminal_carries_keys_and_bytes
            devices_come_and_go_without_a_trace
            a_device_is_journalled_before_it_leaves_something_behind
            unknown_devices_are_refused
            reset_keeps_the_life
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __contract_tests {
    ($fixture:expr; $($rule:ident)*) => {$(
        #[test]
        fn $rule() {
            let runtime = $crate::__tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime for the test").block_on(async {
                let fixture = $fixture;
                $crate::contract::$rule(&fixture).await;
            });
        }
    )*};
}

/// One test of each rule of the contract. The expression makes a new fixture for each; it may await.
#[macro_export]
macro_rules! contract_tests {
    ($fixture:expr) => {
        $crate::__contract_rules! { $crate::__contract_tests { $fixture } }
    };
}

macro_rules! all_rules {
    (; $($rule:ident)*) => {
        /// The name of every rule.
        pub const RULES: &[&str] = &[$(stringify!($rule),)*];

        /// Every rule, one after the other, each with a fixture of its own.
        pub async fn all<F: Fixture, Made: Future<Output = F>>(mut fixture: impl FnMut() -> Made) {
            $($rule(&fixture().await).await;)*
        }
    };
}

__contract_rules! { all_rules {} }

#[cfg(test)]
mod tests {
    #[test]
    fn every_rule_is_in_the_list() {
        for file in [include_str!("lifecycle.rs"), include_str!("channels.rs"), include_str!("abilities.rs")] {
            for line in file.lines().filter_map(|line| line.strip_prefix("pub async fn ")) {
                let name = line.split('(').next().unwrap_or(line);
                assert!(super::RULES.contains(&name), "{name} is not run");
            }
        }
    }
}
