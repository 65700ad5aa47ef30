//! Connections that come and go: tried before they are kept, let in with a secret that is nowhere but in its file, back by themselves
//! after a restart, or locked until somebody logs in.

use crate::harness::{Hosts, LIMIT, Outside, create, did, life, spec, until};
use std::{os::unix::fs::PermissionsExt as _, path::Path, time::Duration};
use vmoon_api::{
    Api,
    requests::{AddConnection, ConnectionRef, CreateMachine, Empty, Events, LoginConnection, MachineRef, Password, RemoveConnection},
    views::ConnectionView,
};
use vmoon_core::{
    Code,
    connection::{ConnectionState, SecretPlace},
    event::EventKind,
    machine::{Request, State},
};

const PASSWORD: &str = "correct-horse-battery";
const KEY: &str = "SHA256:uNiVztksCsDhcc0u9e8BrotYbfkaeBBDGfQNDkG8RsA";

pub(super) fn add(uri: &str, name: &str) -> AddConnection {
    AddConnection {
        kind: "sim".into(),
        uri: uri.into(),
        name: name.into(),
        user: None,
        identity: None,
        password: None,
        store: None,
        fingerprint: None,
    }
}

fn login(name: &str, password: &str) -> LoginConnection {
    LoginConnection { connection: name.into(), password: Some(Password::new(password)), store: None, fingerprint: None }
}

pub(super) async fn connection(api: &dyn Api, name: &str) -> ConnectionView {
    api.list_connections(Empty {}).await.unwrap().into_iter().find(|c| c.name == name).unwrap()
}

/// Waits until a connection is in this state.
pub(super) async fn reaches(api: &dyn Api, name: &str, state: ConnectionState) -> ConnectionView {
    let mut events = api.follow_events(Events { since: None, machine: None }).await.unwrap();
    let wait = async {
        loop {
            let view = connection(api, name).await;
            if view.state == state {
                return view;
            }
            // An event may come a moment before what it speaks of can be read, so it is read again soon.
            let _ = tokio::time::timeout(Duration::from_millis(50), events.next()).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap()
}

/// Every file below a directory that holds this text.
fn holding(dir: &Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if std::fs::read(&path).unwrap_or_default().windows(text.len()).any(|w| w == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn what_does_not_answer_or_lets_nobody_in_is_not_kept() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let world = hosts.set("sim:a", Some(PASSWORD), Some(KEY));
    let api = outside.with_hosts(&hosts).await;
    let error = api.add_connection(add("sim:a", "a")).await.unwrap_err();
    assert_eq!(error.code(), Code::ConnectionUntrusted);
    assert_eq!(error.detail_value().unwrap()["fingerprint"], KEY);
    let trusted = || AddConnection { fingerprint: Some(KEY.into()), ..add("sim:a", "a") };
    let with = |password: &str| AddConnection { password: Some(Password::new(password)), ..trusted() };
    for (request, code) in [
        (trusted(), Code::ConnectionAuth),
        (with("wrong"), Code::ConnectionAuth),
        (add("sim:nowhere", "a"), Code::Usage),
        (AddConnection { kind: "toaster".into(), ..with(PASSWORD) }, Code::Usage),
        (AddConnection { name: "../x".into(), ..with(PASSWORD) }, Code::NameInvalid),
        (AddConnection { name: "local".into(), ..with(PASSWORD) }, Code::ConnectionExists),
        (with(""), Code::Usage),
    ] {
        assert_eq!(api.add_connection(request).await.unwrap_err().code(), code);
    }
    world.set_reachable(false);
    assert_eq!(api.add_connection(with(PASSWORD)).await.unwrap_err().code(), Code::DriverUnreachable);
    assert_eq!(api.list_connections(Empty {}).await.unwrap().len(), 1);
    assert!(holding(outside.dir.path(), PASSWORD).is_empty(), "a password that was not needed was kept");
    world.set_reachable(true);
    let view = api.add_connection(with(PASSWORD)).await.unwrap();
    assert_eq!((view.state, view.secret, view.fingerprint.as_deref()), (ConnectionState::Up, SecretPlace::Stored, Some(KEY)));
    assert_eq!(api.add_connection(with(PASSWORD)).await.unwrap_err().code(), Code::ConnectionExists);
}

#[test]
fn a_stored_secret_is_in_its_file_and_nowhere_else_and_goes_with_its_connection() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    hosts.set("sim:a", Some(PASSWORD), None);
    let view = life(async {
        let api = outside.with_hosts(&hosts).await;
        let request = AddConnection { password: Some(Password::new(PASSWORD)), ..add("sim:a", "a") };
        assert!(!format!("{request:?}").contains(PASSWORD), "it is printed");
        let view = api.add_connection(request).await.unwrap();
        let file = outside.dir.path().join("secrets").join(view.id.to_string());
        assert_eq!(holding(outside.dir.path(), PASSWORD), std::slice::from_ref(&file));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        view
    });
    life(async {
        let api = outside.with_hosts(&hosts).await;
        reaches(&*api, "a", ConnectionState::Up).await;
        let events = api.list_events(Events { since: None, machine: None }).await.unwrap();
        assert!(!format!("{events:?}").contains(PASSWORD));
        assert!(events.iter().any(|event| event.kind == EventKind::ConnectionAdded && event.connection == Some(view.id)));
        api.remove_connection(RemoveConnection { connection: "a".into(), force: false }).await.unwrap();
        assert!(holding(outside.dir.path(), PASSWORD).is_empty());
        assert_eq!(api.test_connection(ConnectionRef { connection: "a".into() }).await.unwrap_err().code(), Code::ConnectionNotFound);
        let local = RemoveConnection { connection: "local".into(), force: true };
        assert_eq!(api.remove_connection(local).await.unwrap_err().code(), Code::Usage);
    });
}

#[test]
fn a_secret_that_is_not_stored_locks_the_connection_until_somebody_logs_in() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let world = hosts.set("sim:a", Some(PASSWORD), None);
    let handle = world.add_foreign("web01");
    world.power_on(&handle);
    let before = life(async {
        let api = outside.with_hosts(&hosts).await;
        let request = AddConnection { password: Some(Password::new(PASSWORD)), store: Some(false), ..add("sim:a", "a") };
        assert_eq!(api.add_connection(request).await.unwrap().secret, SecretPlace::Memory);
        let before = until(&*api, "web01", State::Running).await;
        assert!(holding(outside.dir.path(), PASSWORD).is_empty());
        before
    });
    life(async {
        let api = outside.with_hosts(&hosts).await;
        let locked = reaches(&*api, "a", ConnectionState::Locked).await;
        assert_eq!(locked.error.unwrap().code, Code::ConnectionLocked);
        until(&*api, "web01", State::Lost).await;
        assert_eq!(api.login_connection(login("a", "wrong")).await.unwrap_err().code(), Code::ConnectionAuth);
        assert_eq!(connection(&*api, "a").await.state, ConnectionState::Locked);
        let view = api.login_connection(login("a", PASSWORD)).await.unwrap();
        assert_eq!((view.state, view.secret), (ConnectionState::Up, SecretPlace::Memory));
        assert_eq!(until(&*api, "web01", State::Running).await.id, before.id);
        // It can be stored after all, and then is back unasked.
        api.login_connection(LoginConnection { store: Some(true), ..login("a", PASSWORD) }).await.unwrap();
    });
    life(async {
        let api = outside.with_hosts(&hosts).await;
        reaches(&*api, "a", ConnectionState::Up).await;
    });
}

#[tokio::test]
async fn a_password_that_was_changed_is_not_tried_again_and_again() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let world = hosts.set("sim:a", Some(PASSWORD), None);
    let api = outside.with_hosts(&hosts).await;
    api.add_connection(AddConnection { password: Some(Password::new(PASSWORD)), ..add("sim:a", "a") }).await.unwrap();
    hosts.set("sim:a", Some("another"), None);
    world.shake();
    let down = reaches(&*api, "a", ConnectionState::Down).await;
    assert_eq!(down.error.unwrap().code, Code::ConnectionAuth);
    api.login_connection(login("a", "another")).await.unwrap();
    assert_eq!(connection(&*api, "a").await.state, ConnectionState::Up);
}

#[tokio::test]
async fn a_key_that_changed_is_refused_until_it_is_accepted() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let world = hosts.set("sim:a", None, Some(KEY));
    let api = outside.with_hosts(&hosts).await;
    api.add_connection(AddConnection { fingerprint: Some(KEY.into()), ..add("sim:a", "a") }).await.unwrap();
    hosts.set("sim:a", None, Some("SHA256:other"));
    world.shake();
    reaches(&*api, "a", ConnectionState::Down).await;
    let error = api.test_connection(ConnectionRef { connection: "a".into() }).await.unwrap_err();
    let detail = error.detail_value().unwrap();
    assert_eq!(
        (error.code(), &detail["fingerprint"], &detail["expected"]),
        (Code::ConnectionUntrusted, &"SHA256:other".into(), &KEY.into())
    );
    let accept = LoginConnection { connection: "a".into(), password: None, store: None, fingerprint: Some("SHA256:other".into()) };
    let view = api.login_connection(accept).await.unwrap();
    assert_eq!((view.state, view.fingerprint.as_deref()), (ConnectionState::Up, Some("SHA256:other")));
}

#[test]
fn machines_are_made_on_the_connection_that_is_named_or_the_default() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let (a, b) = (hosts.open("sim:a"), hosts.open("sim:b"));
    life(async {
        let api = outside.with_hosts(&hosts).await;
        api.add_connection(add("sim:a", "a")).await.unwrap();
        api.add_connection(add("sim:b", "b")).await.unwrap();
        let request = |name: &str, connection: Option<&str>, kind: &str| {
            let mut spec = spec(serde_json::json!({}));
            spec.kind = kind.into();
            CreateMachine { name: name.into(), connection: connection.map(Into::into), spec, start: false, deadline_ms: None }
        };
        let error = api.create_machine(request("x", None, "sim")).await.unwrap_err();
        assert_eq!(error.code(), Code::NameAmbiguous, "two connections make that kind");
        let made = api.create_machine(request("x", Some("b"), "")).await.unwrap();
        assert_eq!((made.machine.connection.as_str(), made.machine.kind.as_str()), ("b", "sim"));
        until(&*api, "b:x", State::Stopped).await;
        let view = api.default_connection(ConnectionRef { connection: "a".into() }).await.unwrap();
        assert!(view.default);
        create(&*api, "x", serde_json::json!({})).await;
        until(&*api, "a:x", State::Stopped).await;
        assert_eq!((a.machines().len(), b.machines().len()), (1, 1));
        let ambiguous = api.show_machine(MachineRef { machine: "x".into() }).await.unwrap_err();
        assert_eq!(ambiguous.code(), Code::NameAmbiguous);
        assert_eq!(api.create_machine(request("y", Some("nowhere"), "")).await.unwrap_err().code(), Code::ConnectionNotFound);
        let wrong = api.create_machine(request("y", Some("a"), "lua")).await.unwrap_err();
        assert_eq!(wrong.code(), Code::SpecInvalid);
    });
    life(async {
        let api = outside.with_hosts(&hosts).await;
        assert!(connection(&*api, "a").await.default, "the default outlives the daemon");
        // What we made is in use; what is forgotten with its connection stays there.
        let remove = |force| RemoveConnection { connection: "a".into(), force };
        assert_eq!(api.remove_connection(remove(false)).await.unwrap_err().code(), Code::ConnectionInUse);
        api.remove_connection(remove(true)).await.unwrap();
        assert_eq!(a.machines().len(), 1);
        until(&*api, "x", State::Stopped).await;
        did(&*api, "b:x", Request::Delete).await;
        assert!(b.machines().is_empty());
        // Added again, it shows what was left there, as a machine that somebody else made.
        api.add_connection(add("sim:a", "a")).await.unwrap();
        let found = until(&*api, "a:x", State::Stopped).await;
        assert!(found.spec.is_none());
    });
}
