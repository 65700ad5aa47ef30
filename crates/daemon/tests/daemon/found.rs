//! Machines that vmoon has not made: they appear and disappear as they do there, keep their ids, and are deleted only by name.

use crate::{
    connections::{add, connection, reaches},
    harness::{Hosts, LIMIT, Outside, ask, finish, life, until},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use vmoon_api::{
    Api,
    requests::{Attach, CreateMachine, Empty, Events, MachineRequest, Mode, Read, SessionRef},
    views::MachineView,
};
use vmoon_core::{
    Code,
    connection::ConnectionState,
    driver::{Exit, Handle},
    event::EventKind,
    frame::{Frame, tag},
    machine::{Request, State},
    session::SessionState,
};
use vmoon_daemon::service::Service;
use vmoon_driver_sim::{Guest, World};

async fn started(outside: &Outside, hosts: &Hosts) -> (Arc<Service>, Arc<World>) {
    let world = hosts.open("sim:a");
    let api = outside.with_hosts(hosts).await;
    if api.list_connections(Empty {}).await.unwrap().len() == 1 {
        api.add_connection(add("sim:a", "a")).await.unwrap();
    } else {
        reaches(&*api, "a", ConnectionState::Up).await;
    }
    (api, world)
}

async fn machines(api: &dyn Api) -> Vec<MachineView> {
    api.list_machines(Empty {}).await.unwrap()
}

/// Waits for news. An event may come a moment before what it speaks of can be read, so it is read again soon.
async fn again(events: &mut dyn vmoon_api::EventStream) {
    let _ = tokio::time::timeout(Duration::from_millis(50), events.next()).await;
}

/// Waits until the machines are as wanted.
async fn settle(api: &dyn Api, what: &str, is: impl Fn(&[MachineView]) -> bool) -> Vec<MachineView> {
    let mut events = api.follow_events(Events { since: None, machine: None }).await.unwrap();
    let wait = async {
        loop {
            let all = machines(api).await;
            if is(&all) {
                return all;
            }
            again(&mut *events).await;
        }
    };
    match tokio::time::timeout(LIMIT, wait).await {
        Ok(all) => all,
        Err(_) => panic!("{what}: {:?}", machines(api).await),
    }
}

#[test]
fn they_come_go_and_change_as_they_do_there_and_keep_their_ids() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let (fewer, handle) = life(come_and_go(&outside, &hosts));
    // What happens while no daemon runs is seen by the next one; who stays keeps its id.
    let world = hosts.open("sim:a");
    world.vanish(&handle);
    world.add_foreign("new");
    life(async {
        let (api, _) = started(&outside, &hosts).await;
        let is = |all: &[MachineView]| all.iter().any(|v| v.name == "new") && !all.iter().any(|v| v.name == "web");
        let after = settle(&*api, "one gone, one new", is).await;
        for view in after.iter().filter(|view| view.name != "new") {
            assert!(fewer.iter().any(|before| before.id == view.id && before.name == view.name), "{view:?}");
        }
    });
}

async fn come_and_go(outside: &Outside, hosts: &Hosts) -> (Vec<MachineView>, Handle) {
    let (api, world) = started(outside, hosts).await;
    let names = ["web", "web", "a & b <c>\n\u{1b}[31m", "../x", "--help", ""];
    let handles: Vec<_> = names.iter().map(|name| world.add_foreign(name)).collect();
    let all = settle(&*api, "all are found", |all| all.len() == names.len()).await;
    assert!(all.iter().all(|view| view.spec.is_none() && view.state == State::Stopped && view.connection == "a"));
    let ambiguous = api.show_machine(vmoon_api::requests::MachineRef { machine: "web".into() }).await.unwrap_err();
    assert_eq!(ambiguous.code(), Code::NameAmbiguous);
    let odd = all.iter().find(|view| view.name == names[2]).unwrap().clone();
    world.power_on(&handles[2]);
    until(&*api, &odd.id.to_string(), State::Running).await;
    world.pause(&handles[2]);
    until(&*api, &odd.id.to_string(), State::Paused).await;
    world.rename(&handles[3], "y");
    settle(&*api, "the new name", |all| all.iter().any(|view| view.name == "y")).await;
    world.vanish(&handles[0]);
    let fewer = settle(&*api, "one is gone", |all| all.len() == names.len() - 1).await;
    (fewer, handles[1].clone())
}

#[tokio::test]
async fn a_machine_that_somebody_else_made_is_deleted_by_its_name_only() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let (api, world) = started(&outside, &hosts).await;
    let handle = world.add_foreign("old server");
    let view = settle(&*api, "it is found", |all| all.len() == 1).await.remove(0);
    let delete = |confirm: Option<&str>| MachineRequest {
        machine: view.id.to_string(),
        request: Request::DeleteForce,
        confirm: confirm.map(Into::into),
        disks: None,
        deadline_ms: None,
    };
    for wrong in [None, Some(""), Some("old-server")] {
        let error = api.request_machine(delete(wrong)).await.unwrap_err();
        assert_eq!((error.code(), &error.detail_value().unwrap()["confirm"]), (Code::Usage, &"old server".into()));
    }
    assert!(world.look(&handle).is_some());
    // It is there: forgetting it would only let it come back.
    assert_eq!(ask(&*api, &view.id.to_string(), Request::Forget).await.unwrap_err().code(), Code::MachineState);
    let answered = api.request_machine(delete(Some("old server"))).await.unwrap();
    finish(&*api, &answered.answer).await;
    assert!(world.look(&handle).is_none());
    settle(&*api, "it is gone", <[_]>::is_empty).await;
}

#[tokio::test]
async fn a_lost_connection_holds_what_it_has_and_misses_nothing() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let (api, world) = started(&outside, &hosts).await;
    let handles: Vec<_> = ["a1", "a2", "a3", "a4"].iter().map(|name| world.add_foreign(name)).collect();
    for handle in &handles[..3] {
        world.power_on(handle);
    }
    settle(&*api, "three run", |all| all.iter().filter(|view| view.state == State::Running).count() == 3).await;
    let session = api.open_session(SessionRef { session: "a1".into() }).await.unwrap();
    let since = api.list_events(Events { since: None, machine: None }).await.unwrap().last().unwrap().seq;
    world.set_reachable(false);
    reaches(&*api, "a", ConnectionState::Reconnecting).await;
    settle(&*api, "all are lost", |all| all.iter().all(|view| view.state == State::Lost)).await;
    let held = settle_session(&*api, &session.id.to_string(), |state| *state == SessionState::Held).await;
    assert_eq!(held.id, session.id);
    // Meanwhile one ends, one is paused, one goes, one comes.
    world.power_off(&handles[1], Exit::Code { code: 0 });
    world.pause(&handles[2]);
    world.vanish(&handles[3]);
    world.add_foreign("a5");
    world.set_reachable(true);
    reaches(&*api, "a", ConnectionState::Up).await;
    let state = |all: &[MachineView], name: &str| all.iter().find(|view| view.name == name).map(|view| view.state);
    let all = settle(&*api, "all are as they are", |all| {
        [("a1", State::Running), ("a2", State::Stopped), ("a3", State::Paused), ("a5", State::Stopped)]
            .iter()
            .all(|(name, want)| state(all, name) == Some(*want))
            && state(all, "a4").is_none()
    })
    .await;
    assert_eq!(all.len(), 4);
    settle_session(&*api, &session.id.to_string(), |state| *state == SessionState::Live).await;
    let events = api.list_events(Events { since: Some(since), machine: None }).await.unwrap();
    let count = |kind| events.iter().filter(|event| event.kind == kind).count();
    assert_eq!((count(EventKind::MachineGone), count(EventKind::MachineAdded)), (1, 1), "{events:?}");
    assert_eq!(count(EventKind::ConnectionChanged), 2, "{events:?}");
}

async fn settle_session(api: &dyn Api, id: &str, is: impl Fn(&SessionState) -> bool) -> vmoon_api::views::SessionView {
    let mut events = api.follow_events(Events { since: None, machine: None }).await.unwrap();
    let wait = async {
        loop {
            let view = api.show_session(SessionRef { session: id.into() }).await.unwrap();
            if is(&view.state) {
                return view;
            }
            again(&mut *events).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap()
}

#[test]
fn their_sessions_are_opened_by_first_use_and_a_terminal_evaluates_nothing() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    life(use_a_terminal(&outside, &hosts));
    // The next daemon goes on where this one was.
    life(async {
        let (api, _) = started(&outside, &hosts).await;
        let view = api.open_session(SessionRef { session: "vm/serial".into() }).await.unwrap();
        assert!(view.written > 100 && view.oldest == 0, "{view:?}");
    });
}

async fn use_a_terminal(outside: &Outside, hosts: &Hosts) {
    let (api, world) = started(outside, hosts).await;
    let handle = world.add_foreign("vm");
    world.set_guest(&handle, Guest { serial: true, ..Guest::default() });
    world.power_on(&handle);
    until_running(&*api).await;
    assert_eq!(world.calls("open"), 0, "what nobody uses is left in peace");
    let error = api.open_session(SessionRef { session: "vm/nothing".into() }).await.unwrap_err();
    assert_eq!(error.code(), Code::SessionChannel);
    assert!(error.hint_text().unwrap().contains("main, serial"), "{error:?}");
    let eval = vmoon_api::requests::Eval {
        session: "vm/serial".into(),
        code: "echo x".into(),
        args: None,
        data: false,
        token: None,
        deadline_ms: None,
        wait_ms: None,
    };
    let refused = api.eval(eval).await.unwrap_err();
    assert_eq!(refused.code(), Code::SessionChannel);
    assert!(refused.hint_text().unwrap().contains("vmoon attach vm/serial"), "{refused:?}");
    let writer = || Attach { session: "vm/serial".into(), from: Some(0), mode: Mode::Writer };
    let mut pen = api.attach(writer()).await.unwrap();
    assert_eq!(api.attach(writer()).await.err().unwrap().code(), Code::SessionBusy);
    let mut watcher = api.attach(Attach { mode: Mode::Viewer, ..writer() }).await.unwrap();
    pen.send(Frame { tag: tag::RESIZE, id: 0, payload: &[100, 0, 30, 0] }).await.unwrap();
    pen.send(Frame { tag: tag::INPUT, id: 0, payload: b"echo hi\r" }).await.unwrap();
    let wanted = "booted\r\nsim$ [100x30]\r\necho hi\r\nhi\r\nsim$ ";
    assert_eq!(shown(&mut *pen, wanted.len()).await, wanted);
    assert_eq!(shown(&mut *watcher, wanted.len()).await, wanted);
    assert_eq!(watcher.send(Frame { tag: tag::INPUT, id: 0, payload: b"x" }).await.unwrap_err().code(), Code::SessionBusy);
    // Taking over sends the former writer away, and nobody else.
    let mut taker = api.attach(Attach { from: None, mode: Mode::Takeover, ..writer() }).await.unwrap();
    assert_eq!(pen.next().await.unwrap_err().code(), Code::Cancelled);
    drop(pen);
    taker.send(Frame { tag: tag::INPUT, id: 0, payload: b"echo two\r" }).await.unwrap();
    assert!(shown(&mut *watcher, 20).await.starts_with("echo two"));
    drop(taker);
    // Sent without being attached, and read.
    let input = vmoon_api::requests::Input { session: "vm/serial".into(), data: "echo three\r".into(), end: false };
    api.input(input).await.unwrap();
    let mut text = String::new();
    let mut from = None;
    while !text.contains("three\r\nthree\r\n") {
        let read = Read { session: "vm/serial".into(), from, max: None, command: None, wait_ms: Some(5_000) };
        let view = api.read(read).await.unwrap();
        assert!(!view.pieces.is_empty(), "{text:?}");
        text.extend(view.pieces.iter().map(|piece| piece.data.lossy().into_owned()));
        from = Some(view.next);
    }
}

async fn until_running(api: &dyn Api) {
    settle(api, "it runs", |all| all.iter().any(|view| view.state == State::Running)).await;
}

/// So many bytes of what a terminal shows, and what came with them.
async fn shown(attachment: &mut dyn vmoon_api::Attachment, bytes: usize) -> String {
    let mut text = Vec::new();
    while text.len() < bytes {
        let next = tokio::time::timeout(LIMIT, attachment.next()).await;
        let Ok(Ok(vmoon_api::Message::Stream { frames, .. })) = next else { panic!("{next:?} after {:?}", String::from_utf8_lossy(&text)) };
        let mut rest = frames.as_slice();
        while let Ok(Some((frame, len))) = Frame::decode(rest) {
            if frame.tag == tag::STDOUT && frame.id == 0 {
                text.extend_from_slice(frame.payload);
            }
            rest = &rest[len..];
        }
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_thousand_are_found_listed_and_lost_without_a_call_for_each() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let world = hosts.open("sim:a");
    let handles: Vec<_> = (0..1_000).map(|n| world.add_foreign(&format!("vm-{n}"))).collect();
    handles.iter().step_by(2).for_each(|handle| world.power_on(handle));
    let (api, _) = started(&outside, &hosts).await;
    let began = Instant::now();
    let all = settle(&*api, "all are found", |all| all.len() == 1_000).await;
    assert_eq!(all.iter().filter(|view| view.state == State::Running).count(), 500);
    assert_eq!((world.calls("observe"), world.calls("open")), (0, 0));
    assert_eq!(connection(&*api, "a").await.machines, 1_000);
    let found = began.elapsed();
    let lists = world.calls("list");
    world.shake();
    world.set_reachable(false);
    settle(&*api, "all are lost", |all| all.iter().all(|view| view.state == State::Lost)).await;
    world.set_reachable(true);
    settle(&*api, "all are back", |all| all.iter().filter(|view| view.state == State::Running).count() == 500).await;
    assert!(world.calls("list") > lists);
    // They are no load on the user's quota.
    assert_eq!(api.hello(Empty {}).await.unwrap().quota.machines.used, 0);
    assert!(found < LIMIT, "{found:?}");
}

#[test]
fn machines_of_ours_are_known_again_by_the_first_list_without_a_call_for_each() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let before = life(async {
        let (api, world) = started(&outside, &hosts).await;
        for n in 0..5 {
            let spec = crate::harness::spec(serde_json::json!({}));
            let request = CreateMachine { name: format!("own-{n}"), connection: Some("a".into()), spec, start: n == 0, deadline_ms: None };
            let answered = api.create_machine(request).await.unwrap();
            finish(&*api, &answered.answer).await;
        }
        until(&*api, "own-0", State::Running).await;
        world.calls("observe")
    });
    life(async {
        let (api, world) = started(&outside, &hosts).await;
        let is = |all: &[MachineView]| all.len() == 5 && all.iter().filter(|view| view.state == State::Stopped).count() == 4;
        settle(&*api, "all are there", is).await;
        assert_eq!(world.calls("observe"), before);
    });
}
