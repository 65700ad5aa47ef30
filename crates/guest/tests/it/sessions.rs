//! The Lua session of a guest through daemons, runs and reboots; shells.

use crate::place::{At, PATIENCE, Talk, channel, exec, guests, machine, seeded, set};
use serde_json::json;
use std::fs;
use vmoon_core::{Code, driver::Exit, frame::tag};
use vmoon_ssh_lab::{Lab, Tools};

#[tokio::test]
async fn a_session_outlives_the_daemon_and_ends_with_the_run() {
    let (dir, lab) = (tempfile::tempdir().unwrap(), Lab::new(Tools::BusyBox, "lua5.4").await);
    let at = At::lab(&lab);
    let first = guests(dir.path());
    assert!(first.channels("vm-1", 7).is_empty() && !first.is_known("vm-1"), "nobody has said how it is entered");
    seeded(&first, &lab);
    let main = channel(&first, 7, "main");
    assert_eq!(lab.connections(), 0, "an observation needs no network");
    let mut talk = Talk::open(&first, &at, 7, &main, 0).await.unwrap();
    assert_eq!(talk.eval("x = 42 print('hello')").await, "hello\n");
    let facts = first.describe("vm-1");
    assert!(
        facts["ssh_place"].as_str().unwrap().starts_with("127.0.0.1:") && facts["lua"].as_str().unwrap().ends_with("/lua"),
        "{facts:?}"
    );
    let from = talk.at;
    drop((talk, first));

    // Another daemon.
    let second = guests(dir.path());
    assert_eq!(channel(&second, 7, "main"), main, "the same life");
    let mut talk = Talk::open(&second, &at, 7, &main, from).await.unwrap();
    assert_eq!(talk.eval("print(x)").await, "42\n");
    let from = talk.at;
    // The connection is lost and the daemon opens it again.
    lab.cut();
    while talk.next().await.is_ok() {}
    let mut talk = Talk::open(&second, &at, 7, &main, from).await.unwrap();
    assert_eq!(talk.eval("print(x + 1)").await, "43\n");

    // The machine was stopped and started.
    let next = channel(&second, 8, "main");
    assert!(next.life > main.life);
    assert_eq!(Talk::open(&second, &at, 8, &main, talk.at).await.err().unwrap().code(), Code::SessionEnded);
    drop(talk);
    // A life of its own ends when the session does, and the next one begins empty.
    let mut talk = Talk::open(&second, &at, 8, &next, 0).await.unwrap();
    talk.eval("y = 1").await;
    talk.send(tag::QUIT, 0, &[]).await;
    let exit = loop {
        if let Err(exit) = talk.next().await.unwrap() {
            break exit;
        }
    };
    assert_eq!(exit, Exit::Code { code: 0 });
    let after = channel(&second, 8, "main");
    assert!(after.life > next.life);
    let mut talk = Talk::open(&second, &at, 8, &after, 0).await.unwrap();
    assert_eq!(talk.eval("print(y)").await, "nil\n");
}

#[tokio::test]
async fn a_guest_that_has_lost_everything_was_booted_anew() {
    let (dir, lab) = (tempfile::tempdir().unwrap(), Lab::new(Tools::System, "lua5.4").await);
    let at = At::lab(&lab);
    let guests = guests(dir.path());
    seeded(&guests, &lab);
    let main = channel(&guests, 1, "main");
    let mut talk = Talk::open(&guests, &at, 1, &main, 0).await.unwrap();
    talk.eval("x = 1").await;
    let from = talk.at;
    drop((talk, guests));
    // As after a boot of a guest that keeps no disk: its boot is another, and the session's directory is gone.
    fs::remove_dir_all(lab.path().join("state/vmoon")).unwrap();
    let file = dir.path().join("guests/c1/vm-1.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    record["bound"]["boot"] = "another".into();
    fs::write(&file, record.to_string()).unwrap();

    let guests = crate::place::guests(dir.path());
    let mut talk = Talk::open(&guests, &at, 1, &main, from).await.unwrap();
    assert_eq!(talk.next().await.unwrap(), Err(Exit::Rebooted));
    let next = channel(&guests, 1, "main");
    assert!(next.life > main.life);
    let mut talk = Talk::open(&guests, &at, 1, &next, 0).await.unwrap();
    assert_eq!(talk.eval("print(x)").await, "nil\n");
}

#[tokio::test]
async fn a_guest_without_lua_says_so_and_has_a_shell() {
    let (dir, lab) = (tempfile::tempdir().unwrap(), Lab::new(Tools::NoLua, "lua5.4").await);
    let at = At::lab(&lab);
    let guests = guests(dir.path());
    seeded(&guests, &lab);
    let main = channel(&guests, 1, "main");
    let error = Talk::open(&guests, &at, 1, &main, 0).await.err().unwrap();
    assert_eq!(error.code(), Code::GuestNoLua);
    assert!(error.hint_text().unwrap().contains("vmoon ssh web01"), "{error:?}");
    let shell = channel(&guests, 1, "shell");
    let mut talk = Talk::open(&guests, &at, 1, &shell, 0).await.unwrap();
    talk.send(tag::INPUT, 0, b"echo $((40 + 2))-ok; exit 3\r").await;
    let mut said = Vec::new();
    let exit = loop {
        match talk.next().await.unwrap() {
            Ok(frames) => frames.into_iter().for_each(|(_, payload)| said.extend(payload)),
            Err(exit) => break exit,
        }
    };
    assert!(String::from_utf8_lossy(&said).contains("42-ok"), "{}", said.escape_ascii());
    assert_eq!(exit, Exit::Code { code: 3 });
    // Its number is told once its task is done.
    let next = tokio::time::timeout(PATIENCE, async {
        loop {
            let next = channel(&guests, 1, "shell");
            if next.life > shell.life {
                break next;
            }
            tokio::task::yield_now().await;
        }
    });
    next.await.expect("the next shell is another");
    assert_eq!(Talk::open(&guests, &at, 1, &shell, 0).await.err().unwrap().code(), Code::SessionEnded);
}

#[tokio::test]
async fn another_user_has_another_session_and_nobody_has_none() {
    let (dir, lab) = (tempfile::tempdir().unwrap(), Lab::new(Tools::System, "lua5.4").await);
    let at = At::lab(&lab);
    let guests = guests(dir.path());
    seeded(&guests, &lab);
    let main = channel(&guests, 1, "main");
    let talk = Talk::open(&guests, &at, 1, &main, 0).await.unwrap();
    drop(talk);
    let changes = set(&guests, json!({"ssh-user": "nobody-here"})).unwrap();
    assert!(changes[0].what.contains("left alone"), "{changes:?}");
    let other = channel(&guests, 1, "main");
    assert!(other.life > main.life);
    let error = Talk::open(&guests, &at, 1, &other, 0).await.err().unwrap();
    assert_eq!(error.code(), Code::ConnectionAuth, "{error}");
    assert!(error.hint_text().unwrap().contains("vmoon set web01 ssh-user=USER"), "{error:?}");
    set(&guests, json!({"ssh-user": ""})).unwrap();
    assert!(guests.channels("vm-1", 1).is_empty() && !guests.is_known("vm-1"));
    let error = exec(&guests, &at, &["true"]).await.unwrap_err();
    assert_eq!(error.code(), Code::DriverUnsupported);
    guests.forget("vm-1").unwrap();
    assert!(guests.connection(&machine(1), &at).await.is_err());
    assert_eq!(fs::read_dir(dir.path().join("guests/c1")).unwrap().count(), 0);
}
