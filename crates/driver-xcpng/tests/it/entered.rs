//! The suite that every driver passes, with guests that are entered: at a private SSH server that stands for each VM, and, those rules that a system of its own makes a
//! difference to, with guests that boot.

use crate::{contract::everything, driver_with, ring, settings};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::time::timeout;
use vmoon_core::{
    ability::Program,
    driver::{Driver, Handle},
    spec::MachineSpec,
};
use vmoon_driver_sim::contract::{self, Fixture, Snippet};
use vmoon_guest::{Config, Guests};
use vmoon_guest_image::Guest;
use vmoon_sys::login::Login;
use vmoon_xapi_sim::{
    Server, Settings,
    machines::{Qemu, Sshd},
};

/// How long a guest may take to boot, by plain emulation and beside others.
const BOOT: Duration = Duration::from_secs(120);
/// How long it may take to obey its power button; one that is deaf is waited for as long.
const BUTTON: Duration = Duration::from_secs(5);

/// A pool, what it had before anything was made, and what a daemon keeps of its guests.
struct Entered {
    server: Server,
    before: Vec<String>,
    folder: TempDir,
    /// The one who logs in, where that is not the guest's own.
    user: Option<String>,
    boots: bool,
}

impl Entered {
    async fn new(boots: bool) -> Self {
        let mut server = Server::start(&Settings { tools: Duration::ZERO, ..Settings::default() }).await.unwrap();
        if boots {
            let guest = Guest::kept().unwrap_or_else(|why| panic!("{why}"));
            server.boot(Box::new(Qemu::new(guest).unwrap()), BUTTON).unwrap();
        } else {
            let sshd = Sshd::new("a test wants it").unwrap_or_else(|why| panic!("{why}; run cargo xtask install"));
            server.boot(Box::new(sshd), BUTTON).unwrap();
        }
        let before = everything(&server);
        // The paths of sockets must stay short.
        let folder = tempfile::Builder::new().prefix("xe").tempdir_in("/tmp").unwrap();
        let user = (!boots).then(|| Login::from_env().user.unwrap_or_else(|| "root".into()));
        Self { server, before, folder, user, boots }
    }

    fn of(&self, template: &str) -> MachineSpec {
        let mut settings = settings(json!({"template": template, "seed": "yes"}));
        settings.extend(self.user.clone().map(|user| ("user".to_owned(), user.into())));
        MachineSpec { kind: "xcpng".into(), settings, ..MachineSpec::default() }
    }
}

impl Fixture for Entered {
    async fn driver(&self) -> Arc<dyn Driver> {
        let login = Login { home: Some(self.folder.path().into()), ..Login::from_env() };
        let config = Config { dir: self.folder.path().join("guests"), connection: "lab".into(), login, environments: None };
        Arc::new(driver_with(&self.server, ring(&self.server), Some(Guests::new(config)), Some(self.folder.path().into())))
    }

    fn spec(&self) -> MachineSpec {
        self.of("guest")
    }

    fn stubborn(&self) -> Option<MachineSpec> {
        Some(self.of("guest-deaf"))
    }

    fn code(&self, what: Snippet<'_>) -> String {
        what.in_lua()
    }

    fn remains(&self) -> Vec<String> {
        let mut left = everything(&self.server);
        for known in &self.before {
            left.remove(left.iter().position(|name| name == known).unwrap_or_else(|| panic!("{known} is gone")));
        }
        left
    }

    fn copies(&self) -> bool {
        // Of VMs that are off only.
        false
    }

    fn program(&self, text: &str) -> Option<Vec<String>> {
        Some(["printf", "%s\\n", text].map(str::to_owned).to_vec())
    }

    fn keys(&self) -> Option<(String, String)> {
        // The first terminal is a shell in the guest.
        Some(("echo a$((40 + 2))\n".into(), "a42".into()))
    }

    async fn up(&self, driver: &Arc<dyn Driver>, handle: &Handle) {
        let yes = Program { argv: vec!["true".into()], stdin: Vec::new(), deadline_ms: 30_000 };
        let mut notices = driver.watch().unwrap();
        let waiting = async {
            while let Err(error) = driver.exec().unwrap().exec(handle, &yes).await {
                assert!(self.boots || error.code() != vmoon_core::Code::ConnectionAuth, "{error}");
                let _ = timeout(Duration::from_millis(200), notices.next()).await;
            }
        };
        timeout(BOOT, waiting).await.expect("it does not come up");
    }
}

macro_rules! rules {
    ($boots:expr; $($rule:ident)*) => {
        pub(super) const RULES: &[&str] = &[$(stringify!($rule),)*];
        $(
            #[tokio::test]
            async fn $rule() {
                contract::$rule(&Entered::new($boots).await).await;
            }
        )*
    };
}

/// All but those that a guest cannot obey: what a session ends with is not the end of its VM, and what it still had to say goes with the guest that is off; that it is off
/// the daemon hears of the pool, not of the session's link; a shell ends with the driver that holds it, and has another number at the next; and nothing has a memory here that could
/// be kept.
mod by_ssh {
    use super::{Entered, contract};

    rules! {
        false;
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
        polite_stop_does_not_kill
        force_stop_returns_when_off
        stopping_what_is_off_is_ok
        delete_takes_everything
        delete_takes_what_runs
        deleting_what_is_missing_is_ok
        observe_is_bounded
        unknown_handle_is_missing
        list_shows_what_observe_shows
        abilities_match_accessors
        pause_and_resume_are_safe_to_repeat
        evaluation_is_accepted_first_and_done_last
        values_errors_and_unfinished_chunks_are_told_apart
        commands_are_numbered_in_the_order_they_are_accepted
        open_delivers_from_any_offset
        open_tells_the_last_command
        an_offset_inside_a_frame_is_refused
        a_dropped_link_loses_nothing
        dropping_a_read_loses_nothing
        acknowledged_output_need_not_be_kept
        a_new_life_has_a_new_stream
        interrupt_ends_the_command_and_keeps_the_machine
        a_deadline_ends_the_command_and_keeps_the_machine
        input_reaches_the_program
        completeness_is_answered
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
}

mod that_boot {
    use super::{Entered, contract};

    rules! {
        true;
        each_start_is_a_new_life
        polite_stop_does_not_kill
        delete_takes_what_runs
        pause_and_resume_are_safe_to_repeat
        suspend_and_resume_keep_the_life
        evaluation_is_accepted_first_and_done_last
        open_delivers_from_any_offset
        a_dropped_link_loses_nothing
        a_new_life_has_a_new_stream
        interrupt_ends_the_command_and_keeps_the_machine
        revert_returns_to_a_machine_that_works
        exec_passes_status_and_output
        a_terminal_carries_keys_and_bytes
        reset_keeps_the_life
    }
}

/// A rule that is added to the suite is run here, too, or is named with those that a guest cannot obey.
#[test]
fn every_rule_is_run_or_named() {
    const NOT: [&str; 6] = [
        "polite_stop_ends_an_obedient_guest",
        "a_fresh_driver_sees_the_same_machines",
        "open_after_end_delivers_the_rest_then_ended",
        "a_link_tells_the_end",
        "an_exit_of_the_program_is_the_exit_of_the_machine",
        "quit_ends_politely",
    ];
    for rule in contract::RULES {
        let run = by_ssh::RULES.contains(rule) || that_boot::RULES.contains(rule);
        assert_ne!(run, NOT.contains(rule), "{rule}");
    }
}
