//! libvirtd goes and comes back: machines are out of reach, not gone; consoles go on with a gap; bad input leaves nothing.

use super::{
    life::guest,
    place::{Place, Unread, created, new_id, spec},
    terminal::{PATIENCE, Terminal, channel},
};
use serde_json::json;
use std::{sync::Mutex, time::Duration};
use vmoon_core::{
    Code, OperationId, Result,
    ability::Changed,
    driver::{Driver, Journal, Observed, Recovered},
    machine::Verb,
    operation::{OpRecord, Progress, Undo},
};
use vmoon_libvirt_lab::Lab;
use vmoon_libvirt_wire::flags::PoolStart;

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
    driver.delete(&taken).await.unwrap();
}

/// A journal that keeps what it is told, and kills libvirtd when it is told the n-th time.
struct Deadly<'a> {
    lab: Mutex<&'a mut Lab>,
    at: usize,
    told: Mutex<Vec<Undo>>,
}

#[async_trait::async_trait]
impl Journal for Deadly<'_> {
    fn progress(&self, _: Progress) {}
    async fn undo(&self, undo: Undo) -> Result<()> {
        let mut told = self.told.lock().unwrap();
        told.push(undo);
        if told.len() == self.at {
            self.lab.lock().unwrap().kill_daemon();
        }
        Ok(())
    }
}

#[tokio::test]
async fn libvirtd_is_killed_at_each_step_of_a_creation() {
    let mut place = Place::new().await;
    let settings = json!({"disk": "16MiB", "firmware": "bios", "network": "none", "accelerator": "tcg", "user": "ada", "pool": "far"});
    // A pool that only libvirt may write: each step needs it.
    let client = place.client().await;
    let xml = "<pool type='dir'><name>far</name><target><path>/run/far-pool</path></target></pool>";
    let pool = client.pool_define(xml).await.unwrap();
    client.pool_start(&pool, PoolStart::BUILD).await.unwrap();
    drop(client);
    let before = place.remains();
    for at in 1..=3 {
        let driver = place.driver();
        let plan = driver.plan("killed", &spec(settings.clone()), &driver.facts().await.unwrap()).unwrap();
        let id = new_id();
        let journal = Deadly { lab: Mutex::new(&mut place.lab), at, told: Mutex::default() };
        let error = driver.create(id, &plan, &journal).await.unwrap_err();
        assert_eq!(error.code(), Code::DriverUnreachable, "{}", error.chain());
        let undos = journal.told.into_inner().unwrap();
        place.lab.start_daemon();
        let client = place.client().await;
        let pool = client.pool_named("far").await.unwrap();
        if !client.pool_is_active(&pool).await.unwrap() {
            client.pool_start(&pool, PoolStart::NONE).await.unwrap();
        }
        let operation = OpRecord::new(OperationId::from_uuid(id.uuid()), Verb::Create, id, 0, Duration::MAX);
        for _ in 0..2 {
            assert_eq!(place.driver().recover(&operation, &undos).await.unwrap(), Recovered::Reversed, "at {at}");
        }
        let far = std::fs::read_dir(place.lab.path().join("run/far-pool")).unwrap().count();
        assert_eq!((place.remains(), far), (before.clone(), 0), "at {at}");
        assert!(place.driver().list().await.unwrap().is_empty());
    }
}
