//! What machines can do beyond living, through the API: snapshots, programs, addresses, screens, changes, copies.

use crate::{
    connections::add,
    harness::{Hosts, LIMIT, Outside, create, did, finish, until},
};
use std::{sync::Arc, time::Duration};
use vmoon_api::{
    Api,
    requests::{CloneMachine, CreateSnapshot, Exec, MachineRef, Ready, RenameMachine, SnapshotRef, TuneMachine, WaitReady},
    views::WorkView,
};
use vmoon_core::{
    Code, Error, Result,
    ability::Effect,
    machine::{Request, State, Verb},
    operation::Outcome,
};
use vmoon_daemon::service::Service;
use vmoon_driver_sim::{Fault, Gate, World};

pub(crate) async fn running(outside: &Outside, hosts: &Hosts) -> (Arc<Service>, Arc<World>) {
    let world = hosts.open("sim:a");
    let api = outside.with_hosts(hosts).await;
    api.add_connection(add("sim:a", "a")).await.unwrap();
    create(&*api, "vm", serde_json::json!({})).await;
    did(&*api, "vm", Request::Start).await;
    (api, world)
}

pub(crate) fn machine() -> MachineRef {
    MachineRef { machine: "vm".into() }
}

/// Waits for the end of work; its error if it failed.
pub(crate) async fn done(api: &dyn Api, view: Result<WorkView>) -> Result<()> {
    let view = view?;
    let ended = finish(api, &view.answer.expect("it was to be done")).await.expect("an operation");
    assert_eq!(ended.verb, Verb::Work);
    match ended.outcome {
        Some(Outcome::Done) => Ok(()),
        Some(Outcome::Failed { error } | Outcome::Cancelled { error }) => Err(Error::from(error)),
        None => panic!("it does not end"),
    }
}

fn new(name: &str) -> CreateSnapshot {
    CreateSnapshot { machine: "vm".into(), name: name.into(), memory: None, dry_run: false, deadline_ms: None }
}

fn snapshot(name: &str) -> SnapshotRef {
    SnapshotRef { machine: "vm".into(), snapshot: name.into(), dry_run: false, deadline_ms: None }
}

#[tokio::test]
async fn snapshots_are_made_listed_returned_to_and_deleted() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let (api, world) = running(&outside, &hosts).await;
    let plan = api.create_snapshot(CreateSnapshot { dry_run: true, ..new("one") }).await.unwrap();
    assert!(plan.answer.is_none() && plan.steps[0].contains("one"), "{plan:?}");
    assert!(api.list_snapshots(machine()).await.unwrap().is_empty(), "a dry run has done something");
    done(&*api, api.create_snapshot(new("one")).await).await.unwrap();
    done(&*api, api.create_snapshot(CreateSnapshot { memory: Some(false), ..new("two") }).await).await.unwrap();
    let names = |all: &[vmoon_core::ability::Snapshot]| {
        all.iter().map(|one| (one.name.clone(), one.parent.clone(), one.memory, one.current)).collect::<Vec<_>>()
    };
    let all = api.list_snapshots(machine()).await.unwrap();
    assert_eq!(names(&all), [("one".into(), None, true, false), ("two".into(), Some("one".into()), false, true)]);
    for (bad, code) in [("one", Code::SnapshotExists), ("../x", Code::NameInvalid), ("", Code::NameInvalid)] {
        assert_eq!(api.create_snapshot(new(bad)).await.unwrap_err().code(), code, "{bad:?}");
    }
    assert_eq!(api.revert_snapshot(snapshot("three")).await.unwrap_err().code(), Code::SnapshotNotFound);
    // One of disks only: the machine is off after it. One with memory: it runs again.
    done(&*api, api.revert_snapshot(snapshot("two")).await).await.unwrap();
    until(&*api, "vm", State::Stopped).await;
    done(&*api, api.revert_snapshot(snapshot("one")).await).await.unwrap();
    until(&*api, "vm", State::Running).await;
    done(&*api, api.delete_snapshot(snapshot("one")).await).await.unwrap();
    assert_eq!(api.delete_snapshot(snapshot("one")).await.unwrap_err().code(), Code::SnapshotNotFound);
    assert_eq!(names(&api.list_snapshots(machine()).await.unwrap()), [("two".into(), None, false, false)]);
    // Work holds the machine, says what it is, and fails with the driver's own words.
    let gate = Gate::new();
    world.fault("snapshot.create", Fault::Hang(gate.clone()));
    let view = api.create_snapshot(new("slow")).await.unwrap();
    gate.arrived().await;
    let shown = api.show_machine(machine()).await.unwrap();
    assert_eq!(shown.doing, Some(Verb::Work));
    let operations = api.list_operations(vmoon_api::requests::ListOperations { running: Some(true) }).await.unwrap();
    assert!(operations[0].progress.phase.contains("slow"), "{operations:?}");
    assert_eq!(api.create_snapshot(new("other")).await.unwrap_err().code(), Code::MachineBusy);
    gate.open();
    done(&*api, Ok(view)).await.unwrap();
    world.fault("snapshot.create", Fault::Fail(Code::DriverFailed));
    assert_eq!(done(&*api, api.create_snapshot(new("bad")).await).await.unwrap_err().code(), Code::DriverFailed);
    until(&*api, "vm", State::Running).await;
}

#[tokio::test]
async fn programs_pass_on_how_they_end() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let (api, world) = running(&outside, &hosts).await;
    let exec = |argv: &[&str]| Exec {
        machine: "vm".into(),
        argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
        stdin: b"\xff\0in"[..].into(),
        deadline_ms: Some(1_000),
        login: false,
    };
    let echoed = api.exec(exec(&["echo", "a b", "--help"])).await.unwrap();
    assert_eq!((echoed.code, echoed.stdout.0.as_slice()), (Some(0), &b"a b --help\n"[..]));
    assert_eq!(api.exec(exec(&["cat"])).await.unwrap().stdout.0, b"\xff\0in");
    assert_eq!(api.exec(exec(&["exit", "7"])).await.unwrap().code, Some(7));
    assert_eq!(api.exec(exec(&["signal", "9"])).await.unwrap().signal, Some(9));
    assert_eq!(api.exec(exec(&["fail", "x"])).await.unwrap().stderr.0, b"x\n");
    for (argv, code) in [(&["nothing"][..], Code::FileNotFound), (&[], Code::Usage), (&[""], Code::Usage), (&["a\0b"], Code::Usage)] {
        assert_eq!(api.exec(exec(argv)).await.unwrap_err().code(), code, "{argv:?}");
    }
    let hang = exec(&["hang"]);
    let hanging = api.exec(hang);
    let crank = async {
        world.until(|world| world.calls("exec") >= 7).await;
        world.advance(1_000);
    };
    let (ended, ()) = tokio::join!(hanging, crank);
    assert_eq!(ended.unwrap_err().code(), Code::OperationDeadline);
    did(&*api, "vm", Request::Stop).await;
    assert_eq!(api.exec(exec(&["echo"])).await.unwrap_err().code(), Code::MachineStopped);
}

#[tokio::test]
async fn an_address_is_waited_for_and_what_is_missing_is_told() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let (api, world) = running(&outside, &hosts).await;
    let id = api.show_machine(machine()).await.unwrap().id;
    let handle = world.find(id).unwrap();
    let wait = |until, ms| WaitReady { machine: "vm".into(), until, channel: None, timeout_ms: Some(ms) };
    assert!(api.list_addresses(machine()).await.unwrap().is_empty());
    let view = api.wait_ready(wait(Ready::Ip, 100)).await.unwrap();
    assert!(!view.ready && view.missing.contains("no address"), "{view:?}");
    world.set_addresses(&handle, &["127.0.0.1", "fe80::1"]);
    assert!(!api.wait_ready(wait(Ready::Ip, 0)).await.unwrap().ready, "an address that leads nowhere");
    let later = async {
        world.until(|world| world.calls("addresses") >= 5).await;
        world.set_addresses(&handle, &["127.0.0.1", "192.0.2.7"]);
    };
    let (view, ()) = tokio::join!(api.wait_ready(wait(Ready::Ip, LIMIT.as_millis() as u64)), later);
    assert_eq!(view.unwrap().address.unwrap().ip, "192.0.2.7");
    assert!(api.wait_ready(wait(Ready::Session, 5_000)).await.unwrap().ready);
    did(&*api, "vm", Request::Stop).await;
    assert_eq!(api.wait_ready(wait(Ready::Ip, 5_000)).await.unwrap_err().code(), Code::MachineStopped);
}

#[tokio::test]
async fn settings_and_names_are_changed_and_what_was_asked_for_is_kept() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let (api, world) = running(&outside, &hosts).await;
    let tune = |settings: serde_json::Value, dry_run| TuneMachine {
        machine: "vm".into(),
        settings: settings.as_object().unwrap().clone(),
        dry_run,
        deadline_ms: None,
    };
    let plan = api.tune_machine(tune(serde_json::json!({ "memory": 64, "autostart": true }), true)).await.unwrap();
    assert_eq!(plan.changes.iter().map(|change| change.effect).collect::<Vec<_>>(), [Effect::NextStart, Effect::Now]);
    let error = api.tune_machine(tune(serde_json::json!({ "memory": 9999, "colour": "red" }), false)).await.unwrap_err();
    assert_eq!(error.code(), Code::SpecInvalid);
    assert!(error.message().contains("memory") && error.message().contains("colour"), "{error}");
    done(&*api, api.tune_machine(tune(serde_json::json!({ "memory": 64 }), false)).await).await.unwrap();
    let spec = api.show_machine(machine()).await.unwrap().spec.unwrap();
    assert_eq!(spec.settings["memory"], 64);
    let again = api.tune_machine(tune(serde_json::json!({ "memory": 32 }), true)).await.unwrap();
    assert!(again.steps[0].contains("64 MiB → 32 MiB"), "{again:?}");
    let rename = |name: &str| RenameMachine { machine: "vm".into(), name: name.into(), dry_run: false, deadline_ms: None };
    world.add_foreign("taken");
    let seen = async {
        while api.show_machine(MachineRef { machine: "taken".into() }).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap();
    assert_eq!(api.rename_machine(rename("taken")).await.unwrap_err().code(), Code::MachineExists);
    assert_eq!(api.rename_machine(rename("../x")).await.unwrap_err().code(), Code::NameInvalid);
    done(&*api, api.rename_machine(rename("web")).await).await.unwrap();
    until(&*api, "web", State::Running).await;
    assert_eq!(api.show_machine(machine()).await.unwrap_err().code(), Code::MachineNotFound);
    create(&*api, "vm", serde_json::json!({})).await;
}

#[tokio::test]
async fn screens_are_offered_pictured_and_copies_go_on() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let (api, _) = running(&outside, &hosts).await;
    let picture = api.screenshot(machine()).await.unwrap();
    assert!(picture.media_type == "image/png" && picture.data.0.starts_with(b"\x89PNG"), "{picture:?}");
    assert_eq!(api.list_displays(machine()).await.unwrap()[0].protocol, "vnc");
    let shown = api.show_machine(machine()).await.unwrap();
    for name in ["snapshot", "exec", "ip", "screen", "set", "clone", "pause", "eval"] {
        assert!(shown.abilities.names().contains(&name), "{name}: {:?}", shown.abilities);
    }
    let copy = api
        .clone_machine(CloneMachine { machine: "vm".into(), name: "copy".into(), settings: Default::default(), deadline_ms: None })
        .await
        .unwrap();
    finish(&*api, &copy.answer).await;
    until(&*api, "copy", State::Running).await;
    until(&*api, "vm", State::Running).await;
    did(&*api, "vm", Request::Stop).await;
    assert!(api.list_displays(machine()).await.unwrap().is_empty());
    assert_eq!(api.screenshot(machine()).await.unwrap_err().code(), Code::MachineStopped);
}
