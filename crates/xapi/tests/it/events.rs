//! The copy follows what happens, through restarts and missed deletions.

use crate::server::Server;
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;
use vmoon_xapi::{cache::Change, watch::Watch};

const PATIENCE: Duration = Duration::from_secs(10);

async fn next(watch: &mut Watch) -> Vec<String> {
    let changes: Vec<Change> = timeout(PATIENCE, watch.next()).await.expect("nothing is told").unwrap();
    let mut all: Vec<String> = changes.iter().map(|change| format!("{:?} {}", change.what, change.reference)).collect();
    all.sort();
    all
}

#[tokio::test]
async fn changes_are_told_and_nothing_falls_between_the_records_and_the_events() {
    let server = Server::start().await;
    server.event("vm", "add", "a", json!({"name_label": "one"}));
    let mut watch = Watch::begin(server.client(), &["VM"]).await.unwrap();
    assert_eq!(watch.cache().count("VM"), 1);
    server.event("vm", "mod", "a", json!({"name_label": "two"}));
    server.event("vm", "add", "b", json!({}));
    assert_eq!(next(&mut watch).await, ["Added b", "Changed a"]);
    assert_eq!(watch.cache().get("vm", "a").unwrap().value()["name_label"], "two");
    server.event("vm", "del", "a", json!(null));
    assert_eq!(next(&mut watch).await, ["Removed a"]);
    assert_eq!(server.count("VM.get_all_records"), 1, "something was read again without a reason");
}

#[tokio::test]
async fn a_call_that_is_dropped_loses_nothing() {
    let server = Server::start().await;
    let mut watch = Watch::begin(server.client(), &["VM"]).await.unwrap();
    assert!(timeout(Duration::from_millis(50), watch.next()).await.is_err());
    server.event("vm", "add", "a", json!({}));
    assert_eq!(next(&mut watch).await, ["Added a"]);
}

#[tokio::test]
async fn after_a_restart_only_what_is_different_is_told() {
    let server = Server::start().await;
    server.event("vm", "add", "a", json!({"n": 1}));
    server.event("vm", "add", "b", json!({"n": 1}));
    let mut watch = Watch::begin(server.client(), &["VM"]).await.unwrap();
    // While nobody looks: a is changed, b is gone, and no event tells of it.
    server.world().vms.insert("a".into(), json!({"n": 2}));
    server.world().vms.remove("b");
    server.restart();
    assert_eq!(next(&mut watch).await, ["Changed a", "Removed b"]);
    server.event("vm", "add", "c", json!({}));
    assert_eq!(next(&mut watch).await, ["Added c"]);
}

#[tokio::test]
async fn a_deletion_that_was_not_told_is_found() {
    let server = Server::start().await;
    server.event("vm", "add", "a", json!({}));
    let mut watch = Watch::begin(server.client(), &["VM"]).await.unwrap();
    server.world().vms.remove("a");
    server.event("vm", "add", "b", json!({}));
    assert_eq!(next(&mut watch).await, ["Added b", "Removed a"]);
}
