//! libvirtd goes and comes back: machines are out of reach, not gone; consoles go on with a gap; bad input leaves nothing.

use super::{
    life::guest,
    place::{Place, Unread, created, new_id, spec},
    terminal::{PATIENCE, Terminal, channel},
};
use serde_json::json;
use vmoon_core::{
    Code,
    ability::Changed,
    driver::{Driver, Observed},
};

#[tokio::test]
async fn a_restart_of_libvirtd_is_survived() {
    let mut place = Place::new().await;
    let driver = place.driver();
    let handle = created(&*driver, "stays", guest("name=stays")).await;
    driver.start(&handle).await.unwrap();
    let serial = channel(&*driver, &handle).await;
    let mut terminal = Terminal::open(&*driver, &handle, &serial, 0).await;
    terminal.wait_for("GUEST READY stays").await;
    let mut notices = driver.watch().unwrap();
    assert_eq!(notices.next().await, Some(Changed::All));
    place.lab.kill_daemon();
    while notices.next().await != Some(Changed::All) {}
    assert_eq!(driver.observe(&handle).await.observed, Observed::Unreachable);
    assert_eq!(driver.list().await.unwrap_err().code(), Code::DriverUnreachable);
    place.lab.start_daemon();
    let back = tokio::time::timeout(PATIENCE, notices.next()).await.expect("a notice that it is back");
    assert_eq!(back, Some(Changed::All));
    assert_eq!(channel(&*driver, &handle).await, serial, "the same life");
    // The console goes on by itself, and says that something may be missing.
    terminal.keys("echo back-$((2 + 3))\r").await;
    terminal.wait_for("back-5").await;
    assert!(terminal.lost >= 1, "{:?}", terminal.screen);
    // A daemon of ours that starts anew goes on from where the transcript ends.
    let fresh = place.driver();
    let at = terminal.at;
    drop((terminal, driver, notices));
    let mut terminal = Terminal::open(&*fresh, &handle, &serial, at).await;
    terminal.keys("echo anew-$((3 + 3))\r").await;
    terminal.wait_for("anew-6").await;
    assert_eq!(terminal.lost, 1);
    fresh.delete(&handle).await.unwrap();
    assert_eq!(place.remains(), Vec::<String>::new());
}

#[tokio::test]
async fn bad_input_is_refused_and_leaves_nothing() {
    let place = Place::new().await;
    let driver = place.driver();
    let facts = driver.facts().await.unwrap();
    let small = json!({"disk": "16MiB", "firmware": "bios", "network": "none", "accelerator": "tcg"});
    let taken = created(&*driver, "taken", small.clone()).await;
    let before = place.remains();
    let with = |more: serde_json::Value| {
        let mut all = small.clone();
        all.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        all
    };
    for (name, settings, code) in [
        ("taken", small.clone(), Code::MachineExists),
        ("a", with(json!({"iso": ["/no/such.iso", "nor-this.iso"]})), Code::SpecInvalid),
        ("b", with(json!({"user": "ada", "user-data": "/no/such/file"})), Code::FileFailed),
        ("c", json!({"xml": "<domain type='qemu'><memory>65536</memory><os><type>hvm</type></os><nonsense/></domain>"}), Code::SpecInvalid),
        (
            "d",
            json!({"xml": "<domain type='qemu'><memory>65536</memory><vcpu>3</vcpu><os><type arch='x86_64'>hvm</type></os>\
                     <cpu><topology sockets='1' cores='2' threads='1'/></cpu></domain>"}),
            Code::SpecInvalid,
        ),
    ] {
        let plan = driver.plan(name, &spec(settings), &facts).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        let error = driver.create(new_id(), &plan, &Unread).await.unwrap_err();
        assert_eq!(error.code(), code, "{name}: {}", error.chain());
        assert_eq!(place.remains(), before, "{name}");
    }
    // libvirtd is killed in the middle: what was begun can be recovered from its journal.
    driver.delete(&taken).await.unwrap();
}
