//! The life of a guest with a system in it: console, agent, addresses, screen, settings, a polite stop.

use super::{
    place::{Place, created},
    terminal::{PATIENCE, Terminal, channel},
};
use serde_json::{Value, json};
use vmoon_core::{
    Code,
    ability::{Effect, Program},
    driver::{Driver, Exit, Observed, StopMode},
    frame::tag,
};
use vmoon_libvirt_lab::Lab;

/// Settings of a machine that boots the lab's guest.
pub(crate) fn guest(words: &str) -> Value {
    let guest = Lab::guest();
    json!({
        "memory": "192MiB", "cpus": 1, "disk": "64MiB", "firmware": "bios", "network": "user", "accelerator": "tcg", "graphics": "vnc", "video": "vga",
        "kernel": guest.kernel, "initrd": guest.initrd, "cmdline": format!("console=ttyS0 quiet {words}"),
    })
}

pub(crate) fn program(argv: &[&str], deadline_ms: u64) -> Program {
    Program { argv: argv.iter().map(|word| (*word).to_owned()).collect(), stdin: Vec::new(), deadline_ms }
}

#[tokio::test]
async fn a_guest_is_entered_asked_shown_and_stopped() {
    let place = Place::new().await;
    let driver = place.driver();
    let handle = created(&*driver, "box", guest("name=box")).await;
    driver.start(&handle).await.unwrap();
    let serial = channel(&*driver, &handle).await;
    let mut terminal = Terminal::open(&*driver, &handle, &serial, 0).await;
    terminal.wait_for("GUEST READY box").await;
    assert_eq!(terminal.lost, 0, "the console was listened to from the first moment on");
    terminal.send(tag::RESIZE, &[80, 0, 24, 0]).await;
    terminal.keys("echo $((40 + 2))-ok\r").await;
    terminal.wait_for("42-ok").await;
    // Somebody else sees the same from the beginning.
    let mut second = Terminal::open(&*driver, &handle, &serial, 0).await;
    second.wait_for("42-ok").await;

    let exec = driver.exec().unwrap();
    let ready = tokio::time::timeout(PATIENCE, async {
        loop {
            match exec.exec(&handle, &program(&["/bin/true"], 20_000)).await {
                Ok(ended) => break ended,
                // The agent has not connected yet; its next answer comes when it has.
                Err(error) => assert!(matches!(error.code(), Code::GuestAgent | Code::OperationDeadline), "{}", error.chain()),
            }
        }
    });
    assert_eq!(ready.await.expect("the agent answers").code, Some(0));
    let mut cat = program(&["/bin/busybox", "tr", "a-z", "A-Z"], 20_000);
    cat.stdin = b"a & b <c>\n\0".to_vec();
    let ended = exec.exec(&handle, &cat).await.unwrap();
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), &b"A & B <C>\n\0"[..]));
    assert_eq!(exec.exec(&handle, &program(&["/bin/busybox", "false"], 20_000)).await.unwrap().code, Some(1));
    let error = exec.exec(&handle, &program(&["/no/such"], 20_000)).await.unwrap_err();
    assert!(error.code() == Code::FileNotFound && error.message().contains("/no/such"), "{}", error.chain());
    // A program that takes too long is given up at the deadline, and the next one is answered as if nothing had been.
    let begin = std::time::Instant::now();
    let error = exec.exec(&handle, &program(&["/bin/busybox", "sleep", "1000"], 700)).await.unwrap_err();
    assert_eq!(error.code(), Code::OperationDeadline, "{}", error.chain());
    assert!(begin.elapsed().as_millis() < 3_000, "{:?}", begin.elapsed());
    let ended = exec.exec(&handle, &program(&["/bin/busybox", "echo", "in step"], 20_000)).await.unwrap();
    assert_eq!(ended.stdout, b"in step\n");

    let addresses = driver.addresses().unwrap().addresses(&handle).await.unwrap();
    assert!(addresses.iter().any(|address| address.ip == "10.0.2.15" && address.source == "agent"), "{addresses:?}");
    let picture = driver.display().unwrap().screenshot(&handle).await.unwrap();
    assert!(picture.media_type == "image/png" && picture.bytes.starts_with(b"\x89PNG"), "{}", picture.media_type);
    let offers = driver.display().unwrap().offers(&handle).await.unwrap();
    // QEMU's socket is within the lab, where we do not see it: ours leads there, as for a user who may not open it.
    let socket = offers.iter().find_map(|offer| offer.uri.strip_prefix("vnc+unix://")).unwrap_or_else(|| panic!("{offers:?}"));
    let mut viewer = tokio::net::UnixStream::connect(socket).await.unwrap();
    let mut banner = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut viewer, &mut banner).await.unwrap();
    assert!(banner.starts_with(b"RFB 003."), "{}", banner.escape_ascii());
    drop(viewer);
    let used = driver.usage(std::slice::from_ref(&handle)).await;
    assert!(used.len() == 1 && used[0].cpu_us > 100_000 && used[0].memory_bytes > 1 << 20, "{used:?}");
    let facts = driver.describe(&handle).await;
    assert_eq!(facts.get("accelerator").and_then(Value::as_str), Some("qemu"), "{facts:?}");

    driver.stop(&handle, StopMode::Polite).await.unwrap();
    assert_eq!(terminal.end().await, Exit::Code { code: 0 });
    assert_eq!(driver.observe(&handle).await.observed, Observed::Off(Some(Exit::Code { code: 0 })));
    let error = driver.open(&handle, &serial, terminal.at).await.err().expect("nothing is left to read");
    assert_eq!(error.code(), Code::SessionEnded);
    let before = place.remains();
    assert!(!before.is_empty());
    driver.delete(&handle).await.unwrap();
    assert_eq!(place.remains(), Vec::<String>::new());
}

#[tokio::test]
async fn a_guest_that_does_not_listen_lives_on() {
    let place = Place::new().await;
    let driver = place.driver();
    let handle = created(&*driver, "deaf", guest("name=deaf deaf mute")).await;
    driver.start(&handle).await.unwrap();
    let serial = channel(&*driver, &handle).await;
    let mut terminal = Terminal::open(&*driver, &handle, &serial, 0).await;
    terminal.wait_for("GUEST READY deaf").await;
    driver.stop(&handle, StopMode::Polite).await.unwrap();
    terminal.keys("echo still-$((1 + 1))\r").await;
    terminal.wait_for("still-2").await;
    let error = driver.exec().unwrap().exec(&handle, &program(&["/bin/true"], 3_000)).await.unwrap_err();
    assert!(matches!(error.code(), Code::GuestAgent | Code::OperationDeadline), "{}", error.chain());
    assert_eq!(channel(&*driver, &handle).await, serial, "the same life");
    driver.delete(&handle).await.unwrap();
}

#[tokio::test]
async fn settings_and_names_of_machines_change() {
    let place = Place::new().await;
    let driver = place.driver();
    let settings = json!({"memory": "64MiB", "cpus": 1, "disk": 0, "firmware": "bios", "network": "none", "accelerator": "tcg"});
    let handle = created(&*driver, "one", settings).await;
    let tune = driver.tune().unwrap();
    let wanted = json!({"memory": "96MiB", "cpus": 2, "autostart": true}).as_object().cloned().unwrap();
    let planned = tune.tune(&handle, &wanted, true).await.unwrap();
    assert_eq!((planned.len(), driver.describe(&handle).await["cpus"].as_u64()), (3, Some(1)), "a dry run changes nothing");
    let done = tune.tune(&handle, &wanted, false).await.unwrap();
    assert!(done == planned && done.iter().all(|change| change.effect == Effect::Now), "{done:?}");
    let facts = driver.describe(&handle).await;
    assert_eq!(
        (facts["cpus"].as_u64(), facts["memory_bytes"].as_u64(), facts["autostart"].as_bool()),
        (Some(2), Some(96 << 20), Some(true))
    );
    assert!(tune.tune(&handle, &wanted, false).await.unwrap().is_empty(), "nothing is left to change");

    driver.start(&handle).await.unwrap();
    let more = json!({"memory": "128MiB", "cpus": 3}).as_object().cloned().unwrap();
    let later = tune.tune(&handle, &more, false).await.unwrap();
    assert!(later.iter().all(|change| change.effect == Effect::NextStart), "{later:?}");
    assert_eq!(tune.rename(&handle, "two").await.unwrap_err().code(), Code::MachineRunning);
    driver.stop(&handle, StopMode::Force).await.unwrap();
    assert_eq!(driver.describe(&handle).await["cpus"].as_u64(), Some(3));
    assert_eq!(tune.rename(&handle, "two").await.unwrap(), handle);
    assert_eq!(driver.list().await.unwrap()[0].name, "two");
    assert!(tune.rename(&handle, "../x").await.is_err());
    let other = created(&*driver, "three", json!({"disk": 0, "firmware": "bios", "network": "none", "accelerator": "tcg"})).await;
    assert!(tune.rename(&other, "two").await.is_err(), "the name is taken");
    for handle in [handle, other] {
        driver.delete(&handle).await.unwrap();
    }
}
