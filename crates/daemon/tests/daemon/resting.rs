//! Sessions whose link is closed while nobody uses them.

use crate::harness::{LIMIT, Outside, create, did, life};
use std::{sync::Arc, time::Duration};
use vmoon_api::{Api, requests::*, views::SessionView};
use vmoon_core::{
    Code, MachineId,
    driver::{Exit, Handle},
    machine::Request,
    session::SessionState,
};
use vmoon_daemon::{hooks::Hooks, service::Service};
use vmoon_driver_sim::SimDriver;

/// After how long without use a link is closed here.
const SOON: Duration = Duration::from_millis(30);

fn eval(code: &str, wait_ms: Option<u64>) -> Eval {
    Eval { session: "a".into(), code: code.into(), args: None, data: false, token: None, deadline_ms: None, wait_ms }
}

async fn started(outside: &Outside) -> (Arc<Service>, Handle) {
    let api = outside.driven(SimDriver::new(outside.world.clone()).resting(SOON), Hooks::default()).await;
    let made = create(&*api, "a", serde_json::json!({})).await;
    did(&*api, "a", Request::Start).await;
    let id: MachineId = made.id;
    let handle = outside.world.find(id).unwrap();
    (api, handle)
}

/// Waits until the session is as it should be.
async fn settle(api: &dyn Api, what: &str, is: impl Fn(&SessionView) -> bool) -> SessionView {
    let mut last = None;
    let wait = async {
        loop {
            let view = api.show_session(SessionRef { session: "a".into() }).await.unwrap();
            if is(&view) {
                return view;
            }
            last = Some(view);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{what}: {last:?}"))
}

#[test]
fn a_link_that_nobody_uses_is_closed_and_opened_by_the_next_use() {
    let outside = Outside::new();
    life(async {
        let (api, handle) = started(&outside).await;
        for n in 1..4_u64 {
            let view = settle(&*api, "nobody uses it", |view| view.resting).await;
            assert_eq!((view.state, outside.world.is_linked(&handle)), (SessionState::Live, false));
            let view = api.eval(eval("value 7", None)).await.unwrap();
            assert_eq!((view.id.number, view.values.unwrap().lossy().as_ref()), (n, "7"), "the session went on");
        }
        // Who watches has it open, and so has a command that runs.
        settle(&*api, "nobody uses it", |view| view.resting).await;
        let request = Attach { session: "a".into(), from: None, mode: Mode::Viewer };
        let attached = api.attach(request).await.unwrap();
        settle(&*api, "somebody watches", |view| view.state == SessionState::Live && !view.resting).await;
        tokio::time::timeout(4 * SOON, settle(&*api, "", |view| view.resting)).await.expect_err("it is watched");
        drop(attached);
        settle(&*api, "nobody uses it", |view| view.resting).await;
        let running = api.eval(eval("echo a\nask\nvalue 8", Some(0))).await.unwrap();
        settle(&*api, "it waits for input", |view| view.waiting_input).await;
        tokio::time::timeout(4 * SOON, settle(&*api, "", |view| view.resting)).await.expect_err("a command runs");
        api.input(Input { session: "a".into(), data: "x\n".into(), end: false }).await.unwrap();
        let done = api.show_command(CommandRef { command: running.id.to_string(), wait_ms: Some(20_000) }).await.unwrap();
        assert_eq!(done.stdout.lossy(), "a\nx\n");
        settle(&*api, "nobody uses it", |view| view.resting).await;
    });
    // Another daemon sees what is true, and gives the link up again.
    life(async {
        let api = outside.driven(SimDriver::new(outside.world.clone()).resting(SOON), Hooks::default()).await;
        settle(&*api, "nobody uses it", |view| view.resting).await;
        assert_eq!(api.eval(eval("value 9", None)).await.unwrap().id.number, 5);
    });
}

#[test]
fn what_becomes_of_the_machine_is_seen_while_its_session_rests() {
    let outside = Outside::new();
    life(async {
        let (api, handle) = started(&outside).await;
        settle(&*api, "nobody uses it", |view| view.resting).await;
        // It cannot be reached when somebody wants it: what was asked waits until it can.
        outside.world.fault("open", vmoon_driver_sim::Fault::Fail(Code::DriverUnreachable));
        assert_eq!(api.eval(eval("value 2", None)).await.unwrap().values.unwrap().lossy(), "2");
        settle(&*api, "nobody uses it", |view| view.resting).await;
        // It ended while nobody was connected: the next use is told, and what is shown is true again.
        outside.world.power_off(&handle, Exit::Code { code: 3 });
        let refused = api.eval(eval("value 3", None)).await.unwrap_err();
        assert!(matches!(refused.code(), Code::SessionEnded | Code::MachineStopped), "{refused:?}");
        let request = ListSessions { machine: Some("a".into()), ended: Some(true) };
        let ended = api.list_sessions(request).await.unwrap();
        assert!(ended.iter().all(|view| !view.resting && matches!(view.state, SessionState::Ended { .. })), "{ended:?}");
    });
}
