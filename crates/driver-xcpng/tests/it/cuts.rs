//! The connection is cut at every call of a change: before the call, and after it was done with only its answer lost. A driver that knows nothing but the journal
//! then finds what was made, and finishes it or puts it back.

use crate::{
    driver,
    machines::{client, foreign},
    pool, ring, settings,
};
use async_trait::async_trait;
use serde_json::json;
use std::{sync::Mutex, time::Duration};
use vmoon_core::{
    MachineId, Result,
    device::{DeviceChange, NewDevice},
    driver::{Driver, Handle, Journal, Observed, Recovered},
    machine::Verb,
    operation::{OpRecord, Progress, Undo},
    spec::MachineSpec,
};
use vmoon_xapi_sim::{Cut, Server};

/// A journal as the store keeps it.
#[derive(Default)]
struct Kept(Mutex<Vec<Undo>>);

#[async_trait]
impl Journal for Kept {
    fn progress(&self, _: Progress) {}
    async fn undo(&self, undo: Undo) -> Result<()> {
        self.0.lock().unwrap().push(undo);
        Ok(())
    }
}

/// An operation that was cut off.
pub(crate) fn record(verb: Verb, machine: MachineId) -> OpRecord {
    OpRecord::new("01890000-0000-7000-8000-0000000000aa".parse().unwrap(), verb, machine, 0, Duration::ZERO)
}

fn names(server: &Server) -> Vec<String> {
    let all = ["VM", "VDI", "VBD", "VIF"].iter();
    all.flat_map(|class| server.sim.names(class).into_iter().map(move |name| format!("{class} {name}"))).collect()
}

fn cut(server: &Server, at: Option<(u64, bool)>) {
    server.sim.faults(|faults| faults.cut = at.map(|(after, done)| Cut { after, done }));
}

/// How often something can be cut at most; it has fewer calls than that.
const MOST: u64 = 200;

#[tokio::test]
async fn a_creation_cut_at_any_call_is_found_and_put_back_or_finished() {
    let server = pool().await;
    let id: MachineId = "01890000-0000-7000-8000-000000000001".parse().unwrap();
    let given = json!({
        "template": "Debian Bookworm 12", "disk": "1GiB", "memory": "1GiB", "cpus": 2, "user": "ada", "description": "x",
        "network": "Pool-wide network associated with eth0",
    });
    let before = names(&server);
    for done in [false, true] {
        let mut calls = 0;
        loop {
            assert!(calls < MOST, "it never comes to its end");
            let first = driver(&server, ring(&server));
            let spec = MachineSpec { kind: "xcpng".into(), settings: settings(given.clone()), ..MachineSpec::default() };
            let plan = first.plan("web", &spec, &first.facts().await.unwrap()).unwrap();
            let journal = Kept::default();
            cut(&server, Some((calls, done)));
            let made = first.create(id, &plan, &journal).await;
            cut(&server, None);
            drop(first);
            let second = driver(&server, ring(&server));
            if let Ok(handle) = made {
                second.delete(&handle).await.unwrap();
                assert_eq!(names(&server), before, "deleting leaves nothing");
                break;
            }
            let undos = journal.0.lock().unwrap().clone();
            let recovered = second.recover(&record(Verb::Create, id), &undos).await.unwrap();
            // A second try finds nothing else to do.
            second.recover(&record(Verb::Create, id), &undos).await.unwrap();
            match recovered {
                Recovered::Reversed => assert_eq!(names(&server), before, "cut at call {calls}, done {done}"),
                Recovered::Finished(handle) => {
                    let handle = handle.expect("a handle");
                    let sighting = second.observe(&handle).await;
                    assert!(sighting.complete && matches!(sighting.observed, Observed::Off(_)), "cut at call {calls}, done {done}");
                    second.delete(&handle).await.unwrap();
                    assert_eq!(names(&server), before, "cut at call {calls}, done {done}");
                }
            }
            calls += 1;
        }
        assert!(calls > 15, "only {calls} calls were cut");
    }
}

/// A VM with a disk and a seed of its own.
fn with_seed() -> MachineSpec {
    MachineSpec {
        kind: "xcpng".into(),
        settings: settings(json!({"template": "linux-lua", "disk": "1GiB", "user": "ada"})),
        ..MachineSpec::default()
    }
}

/// The copy has disks that bear the tag of the original until they bear its own, and a seed that is read and written anew.
#[tokio::test]
async fn a_copy_cut_at_any_call_is_found_and_put_back_or_finished_and_its_original_stays() {
    let server = pool().await;
    let [original, id] = ["4", "5"].map(|n| format!("01890000-0000-7000-8000-00000000000{n}").parse::<MachineId>().unwrap());
    let first = driver(&server, ring(&server));
    let plan = first.plan("web", &with_seed(), &first.facts().await.unwrap()).unwrap();
    let web = first.create(original, &plan, &Kept::default()).await.unwrap();
    let before = names(&server);
    for done in [false, true] {
        for calls in 0.. {
            assert!(calls < MOST, "it never comes to its end");
            let first = driver(&server, ring(&server));
            let plan = first.clones().unwrap().plan("copy", &web).await.unwrap();
            let journal = Kept::default();
            cut(&server, Some((calls, done)));
            let made = first.create(id, &plan, &journal).await;
            cut(&server, None);
            let second = driver(&server, ring(&server));
            if let Ok(handle) = made {
                second.delete(&handle).await.unwrap();
                assert_eq!(names(&server), before, "deleting leaves the original");
                assert!(calls > 10, "only {calls} calls were cut");
                break;
            }
            let undos = journal.0.lock().unwrap().clone();
            match second.recover(&record(Verb::Create, id), &undos).await.unwrap() {
                Recovered::Reversed => {}
                Recovered::Finished(handle) => second.delete(&handle.expect("a handle")).await.unwrap(),
            }
            assert_eq!(names(&server), before, "cut at call {calls}, done {done}");
            assert!(second.observe(&web).await.complete);
        }
    }
}

#[tokio::test]
async fn a_deletion_cut_at_any_call_is_finished() {
    let server = pool().await;
    let id: MachineId = "01890000-0000-7000-8000-000000000002".parse().unwrap();
    let before = names(&server);
    for done in [false, true] {
        for calls in 0..MOST {
            let first = driver(&server, ring(&server));
            let plan = first.plan("web", &with_seed(), &first.facts().await.unwrap()).unwrap();
            let handle = first.create(id, &plan, &Kept::default()).await.unwrap();
            cut(&server, Some((calls, done)));
            let deleted = first.delete(&handle).await;
            cut(&server, None);
            let second = driver(&server, ring(&server));
            let recovered = second.recover(&record(Verb::Delete, id), &[]).await.unwrap();
            assert_eq!(recovered, Recovered::Finished(None));
            assert_eq!(names(&server), before, "cut at call {calls}, done {done}");
            if deleted.is_ok() {
                assert!(calls > 3, "only {calls} calls were cut");
                break;
            }
        }
    }
}

async fn devices(driver: &dyn Driver, handle: &Handle) -> Vec<String> {
    driver.devices().unwrap().list(handle).await.unwrap().into_iter().map(|device| device.name).collect()
}

#[tokio::test]
async fn a_change_of_devices_cut_at_any_call_leaves_all_or_nothing() {
    let server = pool().await;
    let id: MachineId = "01890000-0000-7000-8000-000000000003".parse().unwrap();
    foreign(&client(&server), "old").await;
    let handle = driver(&server, ring(&server)).list().await.unwrap()[0].handle.clone();
    driver(&server, ring(&server)).start(&handle).await.unwrap();
    let add = |kind: &str, settings: serde_json::Value| {
        DeviceChange::Add(NewDevice { kind: kind.into(), settings: settings.as_object().cloned().unwrap() })
    };
    let changes = [
        add("disk", json!({"size": "1GiB"})),
        add("nic", json!({"network": "Pool-wide network associated with eth0", "mac": "02:00:00:00:00:09"})),
        DeviceChange::Remove { name: "xvdb".into(), keep: false },
        DeviceChange::Remove { name: "02:00:00:00:00:09".into(), keep: false },
    ];
    for change in changes {
        let first = driver(&server, ring(&server));
        let (before, all) = (devices(&first, &handle).await, names(&server));
        for (calls, done) in (0..MOST).flat_map(|calls| [(calls, false), (calls, true)]) {
            let journal = Kept::default();
            cut(&server, Some((calls, done)));
            let changed = first.devices().unwrap().change(&handle, &change, &journal).await;
            cut(&server, None);
            if changed.is_ok() {
                assert!(calls > 0, "only {calls} calls were cut: {change:?}");
                break;
            }
            let second = driver(&server, ring(&server));
            let undos = journal.0.lock().unwrap().clone();
            let recovered = second.recover(&record(Verb::Work, id), &undos).await.unwrap();
            // Before anything is journalled nothing is done.
            if recovered == Recovered::Reversed || undos.is_empty() {
                assert_eq!((devices(&second, &handle).await, names(&server)), (before.clone(), all.clone()), "{calls} {done} {change:?}");
            } else {
                // It was done and only the answer lost: that is how it stays.
                assert_ne!(devices(&second, &handle).await, before, "{calls} {done} {change:?}");
                break;
            }
        }
        let after = devices(&driver(&server, ring(&server)), &handle).await;
        assert_eq!(after.len().abs_diff(before.len()), 1, "{change:?}");
    }
}
