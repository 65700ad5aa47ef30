//! What the task adds to the policy: observations that come late, a world that goes and comes back, a store that is full.

use crate::harness::{LIMIT, Outside, ask, create, did, finish, until};
use vmoon_api::{Api, requests::*};
use vmoon_core::{
    Code,
    driver::Exit,
    machine::{Answer, Request, State},
    operation::Outcome,
    session::SessionState,
};
use vmoon_daemon::hooks::Hooks;
use vmoon_driver_sim::{Fault, Gate};

fn eval(code: &str) -> Eval {
    Eval { session: "a".into(), code: code.into(), args: None, data: false, token: None, deadline_ms: None, wait_ms: None }
}

#[tokio::test]
async fn an_unreachable_world_makes_machines_lost_and_holds_their_sessions_until_it_is_back() {
    let outside = Outside::new();
    let api = outside.daemon(Hooks::default()).await;
    create(&*api, "a", serde_json::json!({})).await;
    did(&*api, "a", Request::Start).await;
    let before = api.eval(eval("value 1")).await.unwrap().id.session;
    outside.world.set_reachable(false);
    until(&*api, "a", State::Lost).await;
    assert_eq!(ask(&*api, "a", Request::Kill).await.unwrap_err().code(), Code::DriverUnreachable);
    let held = async {
        while api.show_session(SessionRef { session: "a".into() }).await.unwrap().state != SessionState::Held {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, held).await.unwrap();
    assert_eq!(api.eval(eval("value 1")).await.unwrap_err().code(), Code::SessionHeld);
    outside.world.set_reachable(true);
    until(&*api, "a", State::Running).await;
    let after = tokio::time::timeout(LIMIT, async {
        loop {
            match api.eval(eval("value 2")).await {
                Ok(view) => break view,
                Err(error) => assert_eq!(error.code(), Code::SessionHeld),
            }
            tokio::task::yield_now().await;
        }
    });
    let after = after.await.unwrap();
    assert_eq!((after.id.session, after.values.unwrap().lossy().as_ref()), (before, "2"), "the session is the same");
}

#[tokio::test]
async fn a_machine_that_ends_by_itself_is_seen_with_its_exit() {
    let outside = Outside::new();
    let api = outside.daemon(Hooks::default()).await;
    let made = create(&*api, "a", serde_json::json!({})).await;
    did(&*api, "a", Request::Start).await;
    let handle = outside.world.find(made.id).unwrap();
    let hang = tokio::spawn({
        let api = api.clone();
        async move { api.eval(eval("echo last words\nhang")).await }
    });
    api.show_command(CommandRef { command: command(&*api).await, wait_ms: None }).await.unwrap();
    outside.world.power_off(&handle, Exit::Signal { signal: 9 });
    let view = until(&*api, "a", State::Stopped).await;
    assert_eq!(view.exit, Some(Exit::Signal { signal: 9 }));
    let lost = tokio::time::timeout(LIMIT, hang).await.unwrap().unwrap().unwrap();
    assert_eq!(lost.state, vmoon_api::views::CommandState::Lost);
    assert_eq!(lost.stdout.lossy().trim_end(), "last words");
}

/// Waits until a command runs in `a` and names it.
async fn command(api: &dyn Api) -> String {
    tokio::time::timeout(LIMIT, async {
        loop {
            if let Ok(session) = api.show_session(SessionRef { session: "a".into() }).await
                && let Some(number) = session.busy
            {
                return format!("{}.{number}", session.id);
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_guest_that_dies_right_after_its_start_fails_the_start_at_once() {
    let outside = Outside::new();
    let api = outside.daemon(Hooks::default()).await;
    create(&*api, "a", serde_json::json!({ "dies_after_start": true })).await;
    let answer = ask(&*api, "a", Request::Start).await.unwrap();
    let Some(Outcome::Failed { error }) = finish(&*api, &answer).await.unwrap().outcome else { panic!("it did not fail") };
    assert_eq!(error.code, Code::OperationFailed);
    until(&*api, "a", State::Stopped).await;
}

#[tokio::test]
async fn an_observation_begun_before_the_call_returned_decides_nothing() {
    let outside = Outside::new();
    let api = outside.daemon(Hooks::default()).await;
    create(&*api, "a", serde_json::json!({})).await;
    // The look begun while the machine was still off comes back after it was started.
    let (slow_start, late_look) = (Gate::new(), Gate::new());
    outside.world.fault("start", Fault::Hang(slow_start.clone()));
    let answer = ask(&*api, "a", Request::Start).await.unwrap();
    slow_start.arrived().await;
    outside.world.fault("observe", Fault::ActThenHang(late_look.clone()));
    slow_start.open();
    late_look.arrived().await;
    late_look.open();
    let ended = finish(&*api, &answer).await.unwrap();
    assert_eq!(ended.outcome, Some(Outcome::Done));
    until(&*api, "a", State::Running).await;
}

#[tokio::test]
async fn a_call_that_fails_after_it_worked_is_judged_by_what_is_seen() {
    let outside = Outside::new();
    let api = outside.daemon(Hooks::default()).await;
    create(&*api, "a", serde_json::json!({})).await;
    outside.world.fault("start", Fault::ActThenFail(Code::DriverUnreachable));
    let answer = ask(&*api, "a", Request::Start).await.unwrap();
    assert_eq!(finish(&*api, &answer).await.unwrap().outcome, Some(Outcome::Done));
    outside.world.fault("stop", Fault::Fail(Code::DriverFailed));
    let answer = ask(&*api, "a", Request::Stop).await.unwrap();
    let Some(Outcome::Failed { error }) = finish(&*api, &answer).await.unwrap().outcome else { panic!("it did not fail") };
    assert_eq!(error.code, Code::DriverFailed, "the driver's own error is told");
    until(&*api, "a", State::Running).await;
}

#[tokio::test]
async fn a_create_that_fails_leaves_nothing_and_frees_the_name() {
    let outside = Outside::new();
    let api = outside.daemon(Hooks::default()).await;
    for step in ["create.disk", "create.define", "create.complete"] {
        outside.world.fault(step, Fault::Fail(Code::DriverFailed));
        let request = CreateMachine {
            name: "a".into(),
            connection: None,
            spec: crate::harness::spec(serde_json::json!({})),
            start: false,
            deadline_ms: None,
        };
        let answered = api.create_machine(request).await.unwrap();
        let ended = finish(&*api, &answered.answer).await.unwrap();
        assert!(matches!(ended.outcome, Some(Outcome::Failed { .. })), "{step}");
        if let Ok(view) = api.show_machine(MachineRef { machine: "a".into() }).await {
            assert_eq!(view.state, State::Broken, "{step}");
            did(&*api, "a", Request::Delete).await;
        }
        assert!(outside.world.machines().is_empty() && outside.world.disks().is_empty(), "{step} leaves something behind");
    }
    create(&*api, "a", serde_json::json!({})).await;
}

#[tokio::test]
async fn what_is_started_together_with_its_creation_runs() {
    let outside = Outside::new();
    let api = outside.daemon(Hooks::default()).await;
    let request = CreateMachine {
        name: "a".into(),
        connection: None,
        spec: crate::harness::spec(serde_json::json!({})),
        start: true,
        deadline_ms: None,
    };
    let Answer::Started { .. } = api.create_machine(request).await.unwrap().answer else { panic!("not started") };
    // It can be used at once: whoever asks waits for it.
    assert_eq!(api.eval(eval("value 1")).await.unwrap().values.unwrap().lossy(), "1");
    until(&*api, "a", State::Running).await;
}

/// Begins a create that hangs in its second step, and gives back its operation and the gate it hangs at.
async fn hanging_create(api: &dyn Api, outside: &Outside) -> (Answer, Gate) {
    let gate = Gate::new();
    outside.world.fault("create.define", Fault::Hang(gate.clone()));
    let request = CreateMachine {
        name: "a".into(),
        connection: None,
        spec: crate::harness::spec(serde_json::json!({})),
        start: false,
        deadline_ms: None,
    };
    let answer = api.create_machine(request).await.unwrap().answer;
    gate.arrived().await;
    (answer, gate)
}

#[tokio::test]
async fn a_create_that_is_cancelled_or_overtaken_leaves_nothing_that_no_record_tells_of() {
    for request in [Request::Cancel, Request::DeleteForce] {
        let outside = Outside::new();
        let api = outside.daemon(Hooks::default()).await;
        let (create, gate) = hanging_create(&*api, &outside).await;
        let answer = ask(&*api, "a", request).await.unwrap();
        gate.open();
        finish(&*api, &create).await;
        finish(&*api, &answer).await;
        let known = api.list_machines(Empty {}).await.unwrap();
        assert_eq!(outside.world.machines().len(), known.len(), "{request:?}");
        assert_eq!(outside.world.disks().len(), known.len(), "{request:?}");
        assert!(request == Request::Cancel || known.is_empty(), "{known:?}");
        for view in known {
            did(&*api, &view.id.to_string(), Request::DeleteForce).await;
        }
        assert!(outside.world.machines().is_empty() && outside.world.disks().is_empty(), "{request:?}");
    }
}

#[tokio::test]
async fn a_machine_is_started_once_with_its_creation_and_never_again_by_itself() {
    let outside = Outside::new();
    let api = outside.daemon(Hooks::default()).await;
    let request = CreateMachine {
        name: "a".into(),
        connection: None,
        spec: crate::harness::spec(serde_json::json!({})),
        start: true,
        deadline_ms: None,
    };
    api.create_machine(request).await.unwrap();
    until(&*api, "a", State::Running).await;
    did(&*api, "a", Request::Stop).await;
    until(&*api, "a", State::Stopped).await;
    drop(api);
    assert_eq!(outside.world.calls("start"), 1);
}

#[tokio::test]
async fn an_input_that_the_machine_refuses_is_refused_to_whoever_sent_it() {
    let outside = Outside::new();
    let api = outside.daemon(Hooks::default()).await;
    create(&*api, "a", serde_json::json!({})).await;
    did(&*api, "a", Request::Start).await;
    api.eval(Eval { wait_ms: Some(0), ..eval("ask") }).await.unwrap();
    let input = Input { session: "a".into(), data: "x\n".into(), end: false };
    tokio::time::timeout(LIMIT, api.input(input)).await.unwrap().unwrap();
}
