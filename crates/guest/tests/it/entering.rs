//! Trust, addresses, connections that are shared and closed, and machines that are not ours.

use crate::place::{At, Talk, channel, exec, guests, known, machine, seeded, set};
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};
use tokio::net::TcpListener;
use vmoon_core::Code;
use vmoon_ssh_lab::{Lab, Tools};

#[tokio::test]
async fn a_foreign_key_is_confirmed_once_and_another_one_is_refused() {
    let (dir, lab) = (tempfile::tempdir().unwrap(), Lab::new(Tools::System, "lua5.4").await);
    let at = At::lab(&lab);
    let guests = guests(dir.path());
    let error = exec(&guests, &at, &["true"]).await.unwrap_err();
    assert!(error.code() == Code::DriverUnsupported && error.hint_text().unwrap().contains("ssh-user"), "{error:?}");
    set(&guests, json!({ "ssh-user": vmoon_ssh_lab::me(), "ssh-identity": lab.identity() })).unwrap();
    let error = exec(&guests, &at, &["true"]).await.unwrap_err();
    assert_eq!(error.code(), Code::ConnectionUntrusted);
    assert_eq!(error.detail_value().unwrap()["fingerprint"], lab.fingerprint());
    assert!(error.hint_text().unwrap().ends_with(&format!("vmoon set web01 ssh-fingerprint={}", lab.fingerprint())), "{error:?}");
    let changes = set(&guests, json!({ "ssh-fingerprint": lab.fingerprint() })).unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(exec(&guests, &at, &["sh", "-c", "exit 3"]).await.unwrap().code, Some(3));
    // Somebody else answers now.
    set(&guests, json!({ "ssh-fingerprint": format!("SHA256:{}", "A".repeat(43)) })).unwrap();
    let error = exec(&guests, &at, &["true"]).await.unwrap_err();
    assert!(error.code() == Code::ConnectionUntrusted && error.message().contains("has changed"), "{error}");
    assert!(error.hint_text().unwrap().contains("only if"), "{error:?}");
    let problems = set(&guests, json!({ "ssh-identity": "/no/such/key" })).unwrap_err();
    assert_eq!(problems.code(), Code::SpecInvalid);
}

#[tokio::test]
async fn the_first_address_that_lets_us_in_is_taken() {
    let (dir, lab) = (tempfile::tempdir().unwrap(), Lab::new(Tools::System, "lua5.4").await);
    let guests = guests(dir.path());
    seeded(&guests, &lab);
    assert_eq!(exec(&guests, &At(Vec::new()), &["true"]).await.unwrap_err().code(), Code::GuestNoAddress);
    // One that takes the connection and never says anything; one where nobody listens; and the guest.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let silent = silent.local_addr().map(|place| (place.port(), silent)).unwrap();
    let local = |port| ("127.0.0.1".to_owned(), port);
    let error = exec(&guests, &At(vec![local(closed)]), &["true"]).await.unwrap_err();
    assert!(error.code() == Code::DriverUnreachable && error.chain().contains("refused"), "{}", error.chain());
    let begin = std::time::Instant::now();
    let at = At(vec![local(silent.0), local(closed), local(lab.place.port())]);
    assert_eq!(exec(&guests, &at, &["true"]).await.unwrap().code, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(exec(&guests, &At::lab(&lab), &["true"]).await.unwrap().code, Some(0));
    assert_eq!(lab.connections(), 1, "the connection is shared");
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed_and_made_again() {
    let (dir, lab) = (tempfile::tempdir().unwrap(), Lab::new(Tools::System, "lua5.4").await);
    let at = At::lab(&lab);
    let guests = guests(dir.path());
    seeded(&guests, &lab);
    let inside = guests.connection(&machine(1), &at).await.unwrap();
    let connection = (*inside).clone();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert!(!connection.is_closed(), "it is in use");
    drop(inside);
    tokio::task::yield_now().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let end = tokio::time::timeout(crate::place::PATIENCE, connection.closed()).await;
    end.expect("it is closed");
    assert_eq!(exec(&guests, &at, &["true"]).await.unwrap().code, Some(0));
    assert_eq!(lab.connections(), 2);
}

#[tokio::test]
async fn a_lua_session_that_nobody_is_linked_to_needs_no_connection() {
    let (dir, lab) = (tempfile::tempdir().unwrap(), Lab::new(Tools::System, "lua5.4").await);
    let at = At::lab(&lab);
    let guests = guests(dir.path());
    seeded(&guests, &lab);
    let main = channel(&guests, 1, "main");
    assert!(vmoon_guest::rests(&main).is_some() && vmoon_guest::rests(&channel(&guests, 1, "shell")).is_none());
    let mut talk = Talk::open(&guests, &at, 1, &main, 0).await.unwrap();
    talk.eval("x = 42").await;
    let from = talk.at;
    let connection = (*guests.connection(&machine(1), &at).await.unwrap()).clone();
    drop(talk);
    // The session's task sees that its link is gone; then a minute passes.
    let end = async {
        loop {
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(61)).await;
            tokio::time::resume();
            if connection.is_closed() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::place::PATIENCE * 1_000, end).await.expect("it is closed");
    assert!(!guests.describe("vm-1").contains_key("ssh_place"), "what is shown is true");
    assert_eq!(lab.connections(), 1);
    let mut talk = Talk::open(&guests, &at, 1, &main, from).await.unwrap();
    assert_eq!(talk.eval("print(x)").await, "42\n");
    assert_eq!(lab.connections(), 2);
}

#[tokio::test]
async fn our_key_is_one_private_and_kept_and_records_are_private() {
    let (dir, lab) = (tempfile::tempdir().unwrap(), Lab::new(Tools::System, "lua5.4").await);
    let guests = guests(dir.path());
    let first = guests.prepare("vm-1", "ada").unwrap();
    let second = crate::place::guests(dir.path()).prepare("vm-2", "ada").unwrap();
    assert_eq!(first.key, second.key);
    assert_ne!(first.host.fingerprint(), second.host.fingerprint());
    let mode = |name: &str| fs::metadata(dir.path().join("guests").join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("key"), mode("c1"), mode("c1/vm-1.json")), (0o700, 0o600, 0o700, 0o600));
    let record = fs::read_to_string(dir.path().join("guests/c1/vm-1.json")).unwrap();
    assert!(!record.contains("PRIVATE") && record.contains(first.host.fingerprint()));
    // A damaged record is as none, and can be written anew.
    fs::write(dir.path().join("guests/c1/vm-1.json"), "{").unwrap();
    let guests = crate::place::guests(dir.path());
    assert!(!guests.is_known("vm-1"));
    set(&guests, known(&lab)).unwrap();
    assert!(guests.is_known("vm-1"));
    fs::write(dir.path().join("guests/key"), "not a key").unwrap();
    assert!(guests.prepare("vm-3", "ada").is_err());
    guests.clear().unwrap();
    assert!(!guests.is_known("vm-1"));
    // Names of machines lead nowhere else.
    assert!(guests.prepare("../vm", "ada").is_err());
}
