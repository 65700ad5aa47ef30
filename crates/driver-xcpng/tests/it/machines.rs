//! Machines of a pool: those of others, what is made from templates, snapshots, addresses, notices.

use crate::{cuts::record, driver, pool, ring, settings};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;
use vmoon_core::{
    Code, MachineId, Result,
    ability::{Changed, NewSnapshot},
    driver::{Driver, Handle, Journal, Observed, StopMode},
    operation::{Progress, Undo},
    spec::MachineSpec,
};
use vmoon_driver_xcpng::XcpngDriver;
use vmoon_xapi::{Client, Config, Password};
use vmoon_xapi_sim::Server;

pub(crate) struct Quiet;

#[async_trait]
impl Journal for Quiet {
    fn progress(&self, _: Progress) {}
    async fn undo(&self, _: Undo) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn client(server: &Server) -> Client {
    let mut config = Config::new(server.address().to_string(), "root", Password::new("secret"));
    config.pin("127.0.0.1", server.fingerprint().unwrap().parse().unwrap());
    Client::new(config).unwrap()
}

pub(crate) async fn make(driver: &XcpngDriver, name: &str, given: Value) -> Result<(MachineId, Handle)> {
    let id: MachineId =
        format!("01890000-0000-7000-8000-{:012x}", name.bytes().fold(7u64, |n, b| n * 31 + u64::from(b)) & 0xffff_ffff_ffff)
            .parse()
            .unwrap();
    let spec = MachineSpec { kind: "xcpng".into(), settings: settings(given), ..MachineSpec::default() };
    let facts = driver.facts().await?;
    let plan = driver.plan(name, &spec, &facts).map_err(vmoon_core::Error::from)?;
    Ok((id, driver.create(id, &plan, &Quiet).await?))
}

/// A VM that somebody else makes.
pub(crate) async fn foreign(client: &Client, name: &str) -> String {
    let template: Vec<String> = client.get("VM.get_by_name_label", vec!["linux-lua".into()]).await.unwrap();
    let vm: String = client.get("VM.clone", vec![template[0].clone().into(), name.into()]).await.unwrap();
    client.call("VM.provision", vec![vm.clone().into()]).await.unwrap();
    vm
}

#[tokio::test]
async fn every_option_is_seen_in_the_vm() {
    let server = pool().await;
    let (driver, client) = (driver(&server, ring(&server)), client(&server));
    let given = json!({
        "template": "linux-lua", "memory": "768MiB", "cpus": 3, "disk": ["1GiB", "2GiB"], "copy": "full", "description": "for <tests> & more",
        "network": "Pool-wide network associated with eth0,mac=02:00:00:00:00:07", "sr": "Local storage",
    });
    let (_, handle) = make(&driver, "web", given).await.unwrap();
    let uuid: Value = serde_json::from_str(&handle.0).unwrap();
    let vm: String = client.get("VM.get_by_uuid", vec![uuid["vm"].clone()]).await.unwrap();
    let record: Value = client.get("VM.get_record", vec![vm.into()]).await.unwrap();
    assert_eq!((record["memory_dynamic_max"].as_i64(), record["VCPUs_at_startup"].as_i64()), (Some(768 << 20), Some(3)));
    assert_eq!((record["name_label"].as_str(), record["name_description"].as_str()), (Some("web"), Some("for <tests> & more")));
    assert_eq!((record["VBDs"].as_array().unwrap().len(), record["is_a_template"].as_bool()), (3, Some(false)));
    let vif: Value = client.get("VIF.get_record", vec![record["VIFs"][0].clone()]).await.unwrap();
    assert_eq!(vif["MAC"], "02:00:00:00:00:07");
    let facts = driver.describe(&handle).await;
    assert_eq!((facts["cpus"].as_i64(), facts["memory_bytes"].as_i64()), (Some(3), Some(768 << 20)));
}

#[tokio::test]
async fn machines_of_others_are_listed_and_their_disks_stay() {
    let server = pool().await;
    let (driver, client) = (driver(&server, ring(&server)), client(&server));
    let name = "of others <&> \u{1b}[31m";
    foreign(&client, name).await;
    let found = driver.list().await.unwrap();
    let names: Vec<&str> = found.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, [name], "templates, snapshots and the host's domain are no machines");
    assert!(found[0].id.is_none() && found[0].sighting.complete);
    let disks = server.sim.names("VDI").len();
    driver.start(&found[0].handle).await.unwrap();
    assert!(matches!(driver.observe(&found[0].handle).await.observed, Observed::On(_)));
    driver.delete(&found[0].handle).await.unwrap();
    assert_eq!(server.sim.names("VDI").len(), disks);
    assert_eq!(driver.observe(&found[0].handle).await.observed, Observed::Missing);
}

#[tokio::test]
async fn a_copy_that_somebody_makes_of_ours_is_theirs() {
    let server = pool().await;
    let (driver, client) = (driver(&server, ring(&server)), client(&server));
    let (id, handle) = make(&driver, "ours", json!({"template": "linux-lua"})).await.unwrap();
    let vm: Vec<String> = client.get("VM.get_by_name_label", vec!["ours".into()]).await.unwrap();
    client.call("VM.clone", vec![vm[0].clone().into(), "theirs".into()]).await.unwrap();
    let found = driver.list().await.unwrap();
    assert_eq!(found.iter().filter(|found| found.id == Some(id)).count(), 1);
    assert_eq!(found.len(), 2);
    driver.delete(&handle).await.unwrap();
    let left = driver.list().await.unwrap();
    assert_eq!((left.len(), left[0].name.as_str()), (1, "theirs"));
    // Its disk, a copy of one that bears our tag, is in use and stays.
    let disks: Value = client
        .get("VM.get_VBDs", vec![client.get::<Vec<String>>("VM.get_by_name_label", vec!["theirs".into()]).await.unwrap()[0].clone().into()])
        .await
        .unwrap();
    let vdi: String = client.get("VBD.get_VDI", vec![disks[0].clone()]).await.unwrap();
    client.get::<Value>("VDI.get_record", vec![vdi.into()]).await.unwrap();
}

#[tokio::test]
async fn the_guest_tells_its_address_and_obeys_or_says_why_not() {
    let server = pool().await;
    let (driver, client) = (driver(&server, ring(&server)), client(&server));
    let (_, handle) = make(&driver, "a", json!({"template": "linux-lua"})).await.unwrap();
    assert!(driver.addresses().unwrap().addresses(&handle).await.unwrap().is_empty());
    driver.start(&handle).await.unwrap();
    let addresses = driver.addresses().unwrap().addresses(&handle).await.unwrap();
    assert!(addresses[0].ip.starts_with("10.64.") && addresses[0].mac.len() == 17, "{addresses:?}");
    driver.stop(&handle, StopMode::Polite).await.unwrap();
    // One without tools cannot be asked, and is not ended by force.
    let vm: Vec<String> = client.get("VM.get_by_name_label", vec!["a".into()]).await.unwrap();
    client.call("VM.add_to_other_config", vec![vm[0].clone().into(), "sim:guest".into(), "none".into()]).await.unwrap();
    while !matches!(driver.observe(&handle).await.observed, Observed::Off(_)) {
        tokio::task::yield_now().await;
    }
    driver.start(&handle).await.unwrap();
    let refused = driver.stop(&handle, StopMode::Polite).await.unwrap_err();
    assert_eq!(refused.code(), Code::GuestAgent);
    assert!(matches!(driver.observe(&handle).await.observed, Observed::On(_)));
    driver.stop(&handle, StopMode::Force).await.unwrap();
}

#[tokio::test]
async fn snapshots_form_a_tree_and_bring_everything_back() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    let before = server.sim.names("VDI").len();
    let (_, handle) = make(&driver, "a", json!({"template": "linux-lua", "cpus": 1})).await.unwrap();
    let snapshots = driver.snapshots().unwrap();
    let new = |name: &str, memory| NewSnapshot { name: name.into(), memory };
    snapshots.create(&handle, &new("one", None)).await.unwrap();
    driver.tune().unwrap().tune(&handle, &settings(json!({"cpus": 4})), false).await.unwrap();
    let second = snapshots.create(&handle, &new("two", None)).await.unwrap();
    assert_eq!((second.parent.as_deref(), second.memory), (Some("one"), false));
    assert_eq!(snapshots.create(&handle, &new("two", None)).await.unwrap_err().code(), Code::SnapshotExists);
    assert_eq!(snapshots.create(&handle, &new("three", Some(true))).await.unwrap_err().code(), Code::MachineState);
    snapshots.revert(&handle, "one").await.unwrap();
    assert_eq!(driver.describe(&handle).await["cpus"], 1);
    let all = snapshots.list(&handle).await.unwrap();
    let shown: Vec<(&str, bool)> = all.iter().map(|one| (one.name.as_str(), one.current)).collect();
    assert_eq!(shown, [("one", true), ("two", false)]);
    assert_eq!(snapshots.revert(&handle, "never").await.unwrap_err().code(), Code::SnapshotNotFound);
    // With memory, of one that runs: it runs again from there.
    driver.start(&handle).await.unwrap();
    snapshots.create(&handle, &new("warm", Some(true))).await.unwrap();
    driver.stop(&handle, StopMode::Force).await.unwrap();
    snapshots.revert(&handle, "warm").await.unwrap();
    assert!(matches!(driver.observe(&handle).await.observed, Observed::On(_)));
    snapshots.delete(&handle, "two").await.unwrap();
    snapshots.delete(&handle, "two").await.unwrap();
    // Deleting takes snapshots and disks along, those that a return has made too.
    driver.delete(&handle).await.unwrap();
    assert_eq!(server.sim.names("VDI").len(), before);
    assert!(!server.sim.names("VM").iter().any(|name| name == "one" || name == "warm"));
}

#[tokio::test]
async fn what_happens_in_the_pool_is_told() {
    let server = pool().await;
    let (driver, client) = (driver(&server, ring(&server)), client(&server));
    let mut notices = driver.watch().unwrap();
    let mut next = async || timeout(Duration::from_secs(10), notices.next()).await.expect("nothing is told").unwrap();
    assert_eq!(next().await, Changed::All);
    let vm = foreign(&client, "new").await;
    let uuid: String = client.get("VM.get_uuid", vec![vm.clone().into()]).await.unwrap();
    let about = Changed::Machine(Handle(json!({ "vm": uuid }).to_string()));
    assert_eq!(next().await, about);
    client.call("VM.destroy", vec![vm.into()]).await.unwrap();
    loop {
        assert_eq!(next().await, about);
        if driver.observe(&Handle(json!({ "vm": uuid }).to_string())).await.observed == Observed::Missing {
            break;
        }
    }
    // After a restart everything is looked at again.
    server.sim.restart();
    let vm = foreign(&client, "later").await;
    let uuid: String = client.get("VM.get_uuid", vec![vm.into()]).await.unwrap();
    let about = Changed::Machine(Handle(json!({ "vm": uuid }).to_string()));
    while next().await != about {}
}

#[tokio::test]
async fn a_template_that_is_not_there_or_ambiguous_is_named() {
    let server = pool().await;
    let (driver, client) = (driver(&server, ring(&server)), client(&server));
    let error = make(&driver, "a", json!({"template": "debian"})).await.unwrap_err();
    assert!(error.code() == Code::SpecInvalid && error.to_string().contains("Debian Bookworm 12"), "{error}");
    let vm = foreign(&client, "linux-lua").await;
    client.call("VM.set_is_a_template", vec![vm.into(), true.into()]).await.unwrap();
    let error = make(&driver, "a", json!({"template": "linux-lua"})).await.unwrap_err();
    assert!(error.to_string().contains("several of that name"), "{error}");
}

#[tokio::test]
async fn a_full_repository_leaves_nothing_behind() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    let before = (server.sim.names("VM"), server.sim.names("VDI"));
    let (id, error) = {
        let error = make(&driver, "a", json!({"template": "linux-lua", "disk": "100TiB"})).await.unwrap_err();
        let id = driver.list().await.unwrap()[0].id.unwrap();
        (id, error)
    };
    assert_eq!(error.code(), Code::DiskFull);
    driver.recover(&record(vmoon_core::machine::Verb::Create, id), &[]).await.unwrap();
    assert_eq!((server.sim.names("VM"), server.sim.names("VDI")), before);
}
