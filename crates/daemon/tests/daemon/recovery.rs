//! A kill between every two steps: of the daemon (each write of the store, each driver call) and of the world (each step of
//! each driver call). Whatever is cut off, the next daemon finds a world and a store that agree, ends every operation exactly
//! once, leaves no orphan, and everything can be done again.

use crate::harness::{Outside, ask, did, finish, spec, until};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::{runtime::Builder, sync::Notify};
use vmoon_api::{Api, requests::*};
use vmoon_core::{
    driver::Exit,
    machine::{Request, State},
};
use vmoon_daemon::hooks::Hooks;

/// A whole life, which begins with a creation, or with one that is to be started at once. Ends early when something was cut off; errors are of no interest here.
async fn life(api: &dyn Api, start: bool) {
    let request = CreateMachine { name: "a".into(), connection: None, spec: spec(serde_json::json!({})), start, deadline_ms: None };
    let Ok(answered) = api.create_machine(request).await else { return };
    finish(api, &answered.answer).await;
    for request in [
        Request::Start,
        Request::Restart,
        Request::Suspend,
        Request::Resume,
        Request::Pause,
        Request::Resume,
        Request::Stop,
        Request::Delete,
    ] {
        match ask(api, "a", request).await {
            Ok(answer) => drop(finish(api, &answer).await),
            Err(_) => return,
        }
    }
}

/// Runs a life until `cut` says stop, then drops everything that a kill would take.
fn run_and_kill(outside: &Outside, start: bool, hooks: Hooks, cut: impl Future<Output = ()>) -> bool {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::select! {
            () = cut => true,
            () = async { life(&*outside.daemon(hooks).await, start).await } => false,
        }
    })
}

/// What must hold after any kill.
fn check(outside: &Outside, what: &str) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let api = outside.daemon(Hooks::default()).await;
        // Every operation that was under way ends.
        for op in api.list_operations(ListOperations { running: Some(true) }).await.unwrap() {
            finish(&*api, &vmoon_core::machine::Answer::Started { operation: op.id }).await;
        }
        assert!(api.list_operations(ListOperations { running: Some(true) }).await.unwrap().is_empty(), "{what}: an operation never ends");
        // A look for everything, so that the states are what is seen now.
        let machines = api.list_machines(Empty {}).await.unwrap();
        for view in &machines {
            let handle = outside.world.find(view.id);
            let real = handle.and_then(|h| outside.world.look(&h));
            match (view.state, real) {
                (State::Broken, _) => {}
                (_, Some(real)) => assert!(real.complete, "{what}: {view:?} is shown as whole and is not"),
                (state, None) => panic!("{what}: shown as {state:?} and there is no such machine"),
            }
        }
        // Nothing is in the world that no record tells of.
        let known = machines.len();
        assert!(outside.world.machines().len() <= known, "{what}: an orphan machine: {:?}", outside.world.machines());
        assert!(outside.world.disks().len() <= known, "{what}: an orphan disk: {:?}", outside.world.disks());
        // What ends by itself now has ended: nobody waits for the start any more that was to follow its creation.
        for view in machines.iter().filter(|view| view.state == State::Running) {
            let handle = outside.world.find(view.id).unwrap();
            outside.world.power_off(&handle, Exit::Code { code: 3 });
            let view = until(&*api, &view.id.to_string(), State::Stopped).await;
            assert_eq!((view.exit, view.operation.is_none()), (Some(Exit::Code { code: 3 }), true), "{what}");
        }
        // Everything can be done again.
        for view in machines {
            did(&*api, &view.id.to_string(), Request::DeleteForce).await;
        }
        assert!(outside.world.machines().is_empty() && outside.world.disks().is_empty(), "{what}: something is left");
        life(&*api, false).await;
        assert!(api.list_machines(Empty {}).await.unwrap().is_empty(), "{what}: a whole life is possible again");
    });
}

#[test]
fn the_daemon_is_killed_between_every_two_steps() {
    for start in [false, true] {
        killed_everywhere(start);
    }
}

fn killed_everywhere(start: bool) {
    let mut cuts = 0;
    for n in 1.. {
        let outside = Outside::new();
        let (count, reached) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let hooks = Hooks::new({
            let reached = reached.clone();
            move |_| {
                let stop = count.fetch_add(1, Ordering::SeqCst) + 1 >= n;
                if stop {
                    reached.notify_one();
                }
                Box::pin(async move {
                    if stop {
                        std::future::pending::<()>().await;
                    }
                })
            }
        });
        if !run_and_kill(&outside, start, hooks, reached.notified()) {
            break;
        }
        cuts += 1;
        check(&outside, &format!("killed at the daemon's step {n}, started at once: {start}"));
    }
    assert!(cuts > 60, "only {cuts} steps were seen");
}

#[test]
fn the_driver_is_cut_off_between_every_two_steps() {
    for start in [false, true] {
        cut_off_everywhere(start);
    }
}

fn cut_off_everywhere(start: bool) {
    let mut cuts = 0;
    for n in 1.. {
        let outside = Outside::new();
        outside.world.cut_after(n);
        let world = outside.world.clone();
        if !run_and_kill(&outside, start, Hooks::default(), async move { world.was_cut().await }) {
            break;
        }
        cuts += 1;
        check(&outside, &format!("cut off at the world's step {n}, started at once: {start}"));
    }
    assert!(cuts > 30, "only {cuts} steps were seen");
}
