//! What goes away in the middle: a machine that somebody undefines, libvirtd killed during every kind of operation. And no program is started for any of it.

use super::{
    place::{Place, Unread, created, new_id, spec},
    terminal::PATIENCE,
};
use serde_json::{Value, json};
use std::{env, fs, process::Command, sync::Mutex, time::Duration};
use vmoon_core::{
    Code, OperationId, Result,
    ability::{NewSnapshot, Program},
    device::{DeviceChange, NewDevice, Presence},
    driver::{Driver, Handle, Journal, Observed, StopMode},
    machine::Verb,
    operation::{OpRecord, Progress, Undo},
};
use vmoon_driver_libvirt::{LibvirtConfig, LibvirtDriver};
use vmoon_libvirt_wire::{
    Domain,
    flags::{Destroy, Undefine},
};

fn small() -> Value {
    json!({"memory": "64MiB", "cpus": 1, "disk": "16MiB", "firmware": "bios", "network": "none", "accelerator": "tcg", "graphics": "vnc",
        "seed": false})
}

fn disk() -> DeviceChange {
    DeviceChange::Add(NewDevice { kind: "disk".into(), settings: json!({"size": "4MiB"}).as_object().cloned().unwrap() })
}

fn snapshot(name: &str) -> NewSnapshot {
    NewSnapshot { name: name.into(), memory: None }
}

#[tokio::test]
async fn a_machine_that_vanishes_is_told_to_be_gone_by_everything() {
    let place = Place::new().await;
    let driver = place.driver();
    let handle = created(&*driver, "short", small()).await;
    driver.start(&handle).await.unwrap();
    let Observed::On(channels) = driver.observe(&handle).await.observed else { panic!("it runs") };
    let domain = Domain::of(handle.0.parse().unwrap());
    let client = place.client().await;
    // In the middle of an operation: its firmware lets no device go, so the removal waits, and the machine ends under it.
    let devices = driver.devices().unwrap();
    devices.change(&handle, &disk(), &Unread).await.unwrap();
    let remove = DeviceChange::Remove { name: "vdb".into(), keep: true };
    let begin = std::time::Instant::now();
    let (removed, ()) = tokio::join!(devices.change(&handle, &remove, &Unread), async {
        client.destroy(&domain, Destroy::NONE).await.unwrap();
    });
    removed.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert!(begin.elapsed().as_secs() < 15, "nobody waits for a guest that has ended: {:?}", begin.elapsed());
    assert!(devices.list(&handle).await.unwrap().iter().all(|device| device.name != "vdb"));
    client.undefine(&domain, Undefine::SNAPSHOTS_METADATA).await.unwrap();

    assert_eq!(driver.observe(&handle).await.observed, Observed::Missing);
    driver.stop(&handle, StopMode::Polite).await.unwrap();
    driver.stop(&handle, StopMode::Force).await.unwrap();
    let program = Program { argv: vec!["/bin/true".into()], stdin: Vec::new(), deadline_ms: 3_000 };
    let tuned = json!({"memory": "128MiB"}).as_object().cloned().unwrap();
    let all: Vec<(&str, Result<()>)> = vec![
        ("start", driver.start(&handle).await),
        ("pause", driver.pause().unwrap().pause(&handle).await),
        ("resume", driver.pause().unwrap().resume(&handle).await),
        ("suspend", driver.suspend().unwrap().suspend(&handle).await),
        ("restore", driver.suspend().unwrap().resume(&handle).await),
        ("snapshot", driver.snapshots().unwrap().create(&handle, &snapshot("x")).await.map(drop)),
        ("snapshots", driver.snapshots().unwrap().list(&handle).await.map(drop)),
        ("set", driver.tune().unwrap().tune(&handle, &tuned, false).await.map(drop)),
        ("rename", driver.tune().unwrap().rename(&handle, "other").await.map(drop)),
        ("devices", devices.list(&handle).await.map(drop)),
        ("add", devices.change(&handle, &disk(), &Unread).await),
        ("exec", driver.exec().unwrap().exec(&handle, &program).await.map(drop)),
        ("screenshot", driver.display().unwrap().screenshot(&handle).await.map(drop)),
        ("clone", driver.clones().unwrap().plan("copy", &handle).await.map(drop)),
        ("reset", driver.reset().unwrap().reset(&handle).await),
    ];
    for (what, done) in all {
        assert_eq!(done.map_err(|error| error.code()), Err(Code::MachineBroken), "{what}");
    }
    let opened = driver.open(&handle, &channels[0], 0).await.map(drop);
    assert!(opened.is_ok() || opened.is_err_and(|error| error.code() == Code::SessionEnded));
    assert!(driver.describe(&handle).await.is_empty() && driver.list().await.unwrap().is_empty());
    driver.delete(&handle).await.unwrap();
    assert_eq!(place.remains(), Vec::<String>::new());
}

/// A journal that keeps what it is told.
#[derive(Default)]
struct Notes(Mutex<Vec<Undo>>);

#[async_trait::async_trait]
impl Journal for Notes {
    fn progress(&self, _: Progress) {}
    async fn undo(&self, undo: Undo) -> Result<()> {
        self.0.lock().unwrap().push(undo);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Start,
    Pause,
    Resume,
    Suspend,
    Restore,
    Snapshot,
    Tune,
    AddDisk,
    Reset,
    Kill,
    Delete,
}

async fn act(driver: &LibvirtDriver, handle: &Handle, what: Act, notes: &Notes) -> Result<()> {
    match what {
        Act::Start => driver.start(handle).await,
        Act::Pause => driver.pause().unwrap().pause(handle).await,
        Act::Resume => driver.pause().unwrap().resume(handle).await,
        Act::Suspend => driver.suspend().unwrap().suspend(handle).await,
        Act::Restore => driver.suspend().unwrap().resume(handle).await,
        Act::Snapshot => match driver.snapshots().unwrap().create(handle, &snapshot("s")).await {
            Err(error) if error.code() == Code::SnapshotExists => Ok(()),
            done => done.map(drop),
        },
        Act::Tune => {
            let settings = json!({"cpus": 2}).as_object().cloned().unwrap();
            driver.tune().unwrap().tune(handle, &settings, false).await.map(drop)
        }
        Act::AddDisk => driver.devices().unwrap().change(handle, &disk(), notes).await,
        Act::Reset => driver.reset().unwrap().reset(handle).await,
        Act::Kill => driver.stop(handle, StopMode::Force).await,
        Act::Delete => driver.delete(handle).await,
    }
}

#[tokio::test]
async fn libvirtd_is_killed_during_every_operation() {
    let mut place = Place::new().await;
    let driver = place.driver();
    let handle = created(&*driver, "tried", small()).await;
    let id = handle.0.parse().unwrap();
    let acts = [
        Act::Tune,
        Act::Start,
        Act::Pause,
        Act::Resume,
        Act::Reset,
        Act::AddDisk,
        Act::Suspend,
        Act::Restore,
        Act::Snapshot,
        Act::Kill,
        Act::Delete,
    ];
    for what in acts {
        let notes = Notes::default();
        let first = {
            let running = act(&driver, &handle, what, &notes);
            tokio::pin!(running);
            // Begun, and no further than to what has to be asked.
            let early = tokio::select! {
                biased;
                done = &mut running => Some(done),
                () = tokio::task::yield_now() => None,
            };
            place.lab.kill_daemon();
            match early {
                Some(done) => done,
                None => tokio::time::timeout(PATIENCE, running).await.unwrap_or_else(|_| panic!("{what:?} hangs")),
            }
        };
        if let Err(error) = &first {
            assert_eq!(error.code(), Code::DriverUnreachable, "{what:?}: {}", error.chain());
        }
        place.lab.start_daemon();
        let back = async {
            while driver.observe(&handle).await.observed == Observed::Unreachable {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, back).await.unwrap_or_else(|_| panic!("{what:?}: libvirt is not found again"));
        let undos = notes.0.lock().unwrap().clone();
        if first.is_err() && !undos.is_empty() {
            let operation = OpRecord::new(OperationId::from_uuid(id), Verb::Work, vmoon_core::MachineId::from_uuid(id), 0, Duration::MAX);
            driver.recover(&operation, &undos).await.unwrap_or_else(|error| panic!("{what:?}: {}", error.chain()));
        }
        // What was cut off can be done again, or is done.
        if first.is_err() || matches!(what, Act::Start | Act::Pause) {
            let again = act(&driver, &handle, what, &Notes::default()).await;
            again.unwrap_or_else(|error| panic!("{what:?} again: {}", error.chain()));
        }
        match what {
            Act::Start | Act::Resume | Act::Reset | Act::Restore => {
                assert!(matches!(driver.observe(&handle).await.observed, Observed::On(_)), "{what:?}");
            }
            Act::Pause => assert_eq!(driver.observe(&handle).await.observed, Observed::Paused),
            Act::Suspend => assert_eq!(driver.observe(&handle).await.observed, Observed::Suspended),
            Act::Kill => assert!(matches!(driver.observe(&handle).await.observed, Observed::Off(_))),
            Act::AddDisk => {
                let all = driver.devices().unwrap().list(&handle).await.unwrap();
                let added: Vec<_> = all.iter().filter(|device| device.kind == "disk" && device.name != "vda").collect();
                assert!(added.len() == 1 && added[0].presence == Presence::Kept, "{all:?}");
            }
            Act::Tune => assert_eq!(driver.describe(&handle).await["cpus"].as_u64(), Some(2)),
            Act::Snapshot => assert_eq!(driver.snapshots().unwrap().list(&handle).await.unwrap().len(), 1),
            Act::Delete => {}
        }
    }
    assert_eq!(place.remains(), Vec::<String>::new());
}

/// Where the test below finds the libvirt of the test that started it.
const SOCKET: &str = "VMOON_TEST_WITHOUT_PROGRAMS";

/// How many page faults children of this process have had that have ended: none if there were none. And those that live.
fn children() -> (u64, usize) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // After the name in brackets, which may hold anything: the ninth field is `cminflt` (proc(5), field 11).
    let faults = stat.rsplit_once(") ").unwrap().1.split_whitespace().nth(8).unwrap().parse().unwrap();
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let living = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    (faults, living.map(|ids| ids.split_whitespace().count()).sum())
}

/// Does nothing unless it was started by the test below.
#[tokio::test]
async fn inner() {
    let Ok(uri) = env::var(SOCKET) else { return };
    assert_eq!(children(), (0, 0));
    let driver = LibvirtDriver::connect(&LibvirtConfig { uri, ..LibvirtConfig::default() }).unwrap();
    let handle = created(&driver, "quiet", small()).await;
    driver.start(&handle).await.unwrap();
    let Observed::On(channels) = driver.observe(&handle).await.observed else { panic!("it runs") };
    let _link = driver.open(&handle, &channels[0], 0).await.unwrap();
    assert_eq!(driver.list().await.unwrap().len(), 1);
    driver.usage(std::slice::from_ref(&handle)).await;
    driver.display().unwrap().screenshot(&handle).await.unwrap();
    driver.devices().unwrap().change(&handle, &disk(), &Unread).await.unwrap();
    driver.snapshots().unwrap().create(&handle, &snapshot("s")).await.unwrap();
    driver.stop(&handle, StopMode::Polite).await.unwrap();
    driver.stop(&handle, StopMode::Force).await.unwrap();
    driver.snapshots().unwrap().delete(&handle, "s").await.unwrap();
    let plan = driver.clones().unwrap().plan("copy", &handle).await.unwrap();
    let copy = driver.create(new_id(), &plan, &Unread).await.unwrap();
    let base = driver.describe(&handle).await["disks"][0].as_str().unwrap().rsplit(' ').next().unwrap().to_owned();
    let mut linked = spec(small());
    linked.settings.insert("base".into(), base.into());
    let plan = driver.plan("linked", &linked, &driver.facts().await.unwrap()).unwrap_or_else(|problems| panic!("{problems:?}"));
    let linked = driver.create(new_id(), &plan, &Unread).await.unwrap();
    for handle in [linked, copy, handle] {
        driver.delete(&handle).await.unwrap();
    }
    assert_eq!(children(), (0, 0), "a program was started");
}

#[tokio::test]
async fn no_program_is_started_for_anything() {
    let place = Place::new().await;
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "gone::inner", "--nocapture"])
        .env(SOCKET, place.uri())
        .output()
        .expect("this test can be started again");
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // The measure can fail: this process has started one, which has ended.
    assert!(children().0 > 0);
}

#[tokio::test]
async fn two_connections_to_one_libvirt_are_known_to_be_the_same() {
    let (one, two) = (Place::new().await, Place::new().await);
    let identity = one.driver().identity().await.expect("a system has one");
    assert_eq!(Some(identity.clone()), one.driver().identity().await);
    assert_ne!(Some(identity), two.driver().identity().await);
}

/// Each step of one falls between any two of the other: a machine that was started while it was undefined would run on without its disks.
#[tokio::test]
async fn two_clients_that_start_and_delete_at_once_leave_nothing() {
    let place = Place::new().await;
    let (one, two) = (place.driver(), place.driver());
    let client = place.client().await;
    for n in 0..8_u32 {
        let handle = created(&*one, &format!("both{n}"), small()).await;
        let later = async {
            for _ in 0..n * 40 {
                tokio::task::yield_now().await;
            }
            two.delete(&handle).await
        };
        let (started, deleted) = tokio::join!(one.start(&handle), later);
        if let Err(error) = &started {
            assert!(matches!(error.code(), Code::MachineBroken | Code::DriverFailed | Code::MachineBusy), "{n}: {}", error.chain());
        }
        if let Err(error) = deleted {
            // It was in the middle of being started; who asks again is obeyed.
            assert!(matches!(error.code(), Code::DriverFailed | Code::MachineBusy | Code::Timeout), "{n}: {}", error.chain());
            two.delete(&handle).await.unwrap();
        }
        let (again, also) = tokio::join!(one.delete(&handle), two.delete(&handle));
        assert!(again.is_ok() && also.is_ok(), "what is gone is deleted: {again:?}, {also:?}");
        assert!(client.domains(vmoon_libvirt_wire::flags::Domains::NONE).await.unwrap().is_empty(), "{n}: nothing lives on");
        assert_eq!(place.remains(), Vec::<String>::new(), "{n}");
    }
}
