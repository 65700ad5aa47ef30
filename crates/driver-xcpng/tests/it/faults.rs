//! What happens to a pool while it is worked with: another host becomes its coordinator, somebody else deletes what is being made or started.

use crate::{
    cuts::record,
    driver,
    machines::{Quiet, client, foreign, make},
    pool, ring, settings,
};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::timeout;
use vmoon_core::{
    Code, MachineId,
    ability::Changed,
    driver::{Driver, Handle, Observed, Recovered, StopMode},
    machine::Verb,
    spec::MachineSpec,
};
use vmoon_driver_xcpng::XcpngDriver;
use vmoon_xapi_sim::{Server, Settings};

const PATIENCE: Duration = Duration::from_secs(30);

/// A server at that address of the loopback network.
async fn at(address: &str, port: u16) -> Server {
    let listen: SocketAddr = format!("{address}:{port}").parse().unwrap();
    Server::start(&Settings { tools: Duration::ZERO, listen, ..Settings::default() }).await.unwrap()
}

/// The second host takes over: it has the database, and the first one sends everybody there.
fn takes_over(old: &Server, new: &Server, address: &str) {
    new.sim.load(&old.sim.dump()).unwrap();
    let fingerprint = new.fingerprint().unwrap().to_owned();
    old.sim.faults(|faults| faults.slave_of = Some((address.to_owned(), fingerprint)));
}

#[tokio::test]
async fn another_coordinator_is_followed_and_no_machine_is_lost() {
    let old = at("127.0.0.31", 0).await;
    let new = at("127.0.0.32", old.address().port()).await;
    let driver = driver(&old, ring(&old));
    let (id, handle) = make(&driver, "web", json!({"template": "linux-lua"})).await.unwrap();
    driver.start(&handle).await.unwrap();
    let mut notices = driver.watch().unwrap();
    assert_eq!(notices.next().await, Some(Changed::All));
    takes_over(&old, &new, "127.0.0.32");
    // The same machine, in the same state, by the same handle.
    let listed = driver.list().await.unwrap();
    assert!(listed.len() == 1 && listed[0].id == Some(id) && listed[0].handle == handle, "{listed:?}");
    assert!(matches!(driver.observe(&handle).await.observed, Observed::On(_)));
    assert_eq!(driver.inventories().unwrap().inventory().await.unwrap().hosts.len(), 1);
    // What changes something goes to the new one, and only there.
    driver.stop(&handle, StopMode::Force).await.unwrap();
    assert!(matches!(driver.observe(&handle).await.observed, Observed::Off(_)));
    let (_, second) = make(&driver, "second", json!({"template": "linux-lua"})).await.unwrap();
    assert!(new.sim.names("VM").contains(&"second".to_owned()) && !old.sim.names("VM").contains(&"second".to_owned()));
    // Whoever follows the pool hears of it.
    let about = Changed::Machine(second.clone());
    let waiting = async {
        loop {
            match notices.next().await {
                Some(changed) if changed == about || changed == Changed::All => break,
                Some(_) => {}
                None => panic!("nothing is told any more"),
            }
        }
    };
    timeout(PATIENCE, waiting).await.expect("the new coordinator is not followed");
    driver.delete(&second).await.unwrap();
}

#[tokio::test]
async fn a_coordinator_that_changes_in_the_middle_of_a_creation_leaves_nothing_half_made() {
    let old = at("127.0.0.33", 0).await;
    let new = at("127.0.0.34", old.address().port()).await;
    let driver = Arc::new(driver(&old, ring(&old)));
    let before = (old.sim.names("VM"), old.sim.names("VDI"));
    old.sim.faults(|faults| faults.delay = Duration::from_millis(3));
    let work = tokio::spawn({
        let driver = driver.clone();
        async move { make(&driver, "web", json!({"template": "linux-lua", "disk": "1GiB"})).await }
    });
    until(|| old.sim.names("VM").len() > before.0.len()).await;
    takes_over(&old, &new, "127.0.0.34");
    match work.await.unwrap() {
        Ok((_, handle)) => driver.delete(&handle).await.unwrap(),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            recover(&driver, Verb::Create, id_of(&driver).await).await;
        }
    }
    assert_eq!((new.sim.names("VM"), new.sim.names("VDI")), before);
}

/// Waits until it is so, looking whenever the others have had their turn.
async fn until(so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it never is so");
}

async fn id_of(driver: &XcpngDriver) -> MachineId {
    driver
        .list()
        .await
        .unwrap()
        .iter()
        .find_map(|found| found.id)
        .unwrap_or_else(|| "01890000-0000-7000-8000-0000000000ff".parse().unwrap())
}

async fn recover(driver: &XcpngDriver, verb: Verb, machine: MachineId) -> Recovered {
    driver.recover(&record(verb, machine), &[]).await.unwrap()
}

#[tokio::test]
async fn a_vm_that_somebody_deletes_while_it_is_made_is_said_to_be_gone_and_leaves_nothing() {
    let server = pool().await;
    let (driver, other) = (Arc::new(driver(&server, ring(&server))), client(&server));
    let before = (server.sim.names("VM"), server.sim.names("VDI"));
    let id: MachineId = "01890000-0000-7000-8000-0000000000b1".parse().unwrap();
    let first = format!("vmoon-creating-{id}");
    let given = settings(json!({"template": "linux-lua", "disk": "1GiB", "memory": "1GiB", "cpus": 2}));
    let spec = MachineSpec { kind: "xcpng".into(), settings: given, ..MachineSpec::default() };
    let plan = driver.plan("web", &spec, &driver.facts().await.unwrap()).unwrap();
    server.sim.faults(|faults| faults.delay = Duration::from_millis(3));
    let work = tokio::spawn({
        let driver = driver.clone();
        async move { driver.create(id, &plan, &Quiet).await }
    });
    until(|| server.sim.names("VM").contains(&first)).await;
    let vm: Vec<String> = other.get("VM.get_by_name_label", vec![first.into()]).await.unwrap();
    other.call("VM.destroy", vec![vm[0].clone().into()]).await.unwrap();
    let error = work.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::MachineBroken, "{error}");
    assert!(error.to_string().contains("no such VM"), "{error}");
    assert_eq!(recover(&driver, Verb::Create, id).await, Recovered::Reversed);
    // The clone's own disk is that of whoever deleted the VM and left it; of ours none is left.
    let left: Vec<String> = server.sim.names("VDI").into_iter().filter(|name| name.starts_with("web")).collect();
    assert!(left.is_empty() && server.sim.names("VM") == before.0, "{left:?}");
}

#[tokio::test]
async fn a_vm_that_somebody_deletes_while_it_is_worked_with_is_missing_and_not_off() {
    let server = pool().await;
    let (driver, other) = (driver(&server, ring(&server)), client(&server));
    let vm = foreign(&other, "theirs").await;
    let handle = driver.list().await.unwrap()[0].handle.clone();
    let snapshots = driver.snapshots().unwrap();
    other.call("VM.destroy", vec![vm.into()]).await.unwrap();
    assert_eq!(driver.observe(&handle).await.observed, Observed::Missing);
    for error in [
        driver.start(&handle).await.unwrap_err(),
        snapshots.list(&handle).await.unwrap_err(),
        driver.addresses().unwrap().addresses(&handle).await.unwrap_err(),
        driver.migrate().unwrap().places(&handle).await.unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::MachineBroken, "{error}");
    }
    // To delete it is done already.
    driver.delete(&handle).await.unwrap();
}

#[tokio::test]
async fn names_and_descriptions_of_others_are_text_and_nothing_else() {
    let server = pool().await;
    let (driver, other) = (driver(&server, ring(&server)), client(&server));
    let long = "x".repeat(20_000);
    let hostile =
        ["../x", "a & b <c>", "--help", "x\n\u{1b}[2J", "OpaqueRef:NULL", "\"'`$(id)", "\u{202e}gnp.exe", "%00%n", "", long.as_str()];
    for name in hostile {
        let vm = foreign(&other, name).await;
        other.call("VM.set_name_description", vec![vm.into(), name.into()]).await.unwrap();
    }
    let found = driver.list().await.unwrap();
    assert_eq!(found.len(), hostile.len());
    for one in &found {
        assert!(hostile.contains(&one.name.as_str()), "names are told as they are: {:?}", one.name);
        let facts = driver.describe(&one.handle).await;
        let shown = Value::Object(facts).to_string();
        assert!(!shown.contains('\u{1b}') && !shown.contains("\\u001b"), "{shown}");
        driver.start(&one.handle).await.unwrap();
        driver.stop(&one.handle, StopMode::Force).await.unwrap();
    }
    let odd = Handle(json!({ "vm": "../x\" or \"1\"=\"1" }).to_string());
    assert_eq!(driver.observe(&odd).await.observed, Observed::Missing);
}
