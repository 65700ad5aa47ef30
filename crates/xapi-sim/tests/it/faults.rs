//! What goes wrong on demand, and what is refused.

use crate::{client, pool};
use serde_json::json;
use vmoon_xapi::{Error, watch::Watch};
use vmoon_xapi_sim::{Server, Settings};

#[tokio::test]
async fn what_is_not_built_is_refused_loudly() {
    let (_server, client) = pool().await;
    for (method, params, code) in [
        ("VM.frobnicate", vec![], "MESSAGE_METHOD_UNKNOWN"),
        ("Nope.get_all", vec![], "MESSAGE_METHOD_UNKNOWN"),
        ("VM.get_all", vec![json!(1), json!(2)], "MESSAGE_PARAMETER_COUNT_MISMATCH"),
        ("VM.start", vec![json!("OpaqueRef:NULL"), json!("notabool"), json!(false)], "INTERNAL_ERROR"),
        ("VM.get_record", vec![json!("OpaqueRef:0")], "HANDLE_INVALID"),
        ("VM.maximise_memory", vec![json!("OpaqueRef:0"), json!(1), json!(true)], "NOT_IMPLEMENTED"),
        ("pool.join", vec![json!("a"), json!("b"), json!("c")], "NOT_IMPLEMENTED"),
        ("event.from", vec![json!(["VM"]), json!("nonsense"), json!(0.0)], "EVENT_FROM_TOKEN_PARSE_FAILURE"),
    ] {
        let error = client.call(method, params).await.unwrap_err();
        assert!(error.is(code), "{method}: {error}");
    }
}

#[tokio::test]
async fn a_restart_ends_sessions_and_everything_is_told_anew() {
    let (server, client) = pool().await;
    let mut watch = Watch::begin(client.clone(), &["VM"]).await.unwrap();
    let before = watch.cache().count("VM");
    let template = client.get::<Vec<String>>("VM.get_by_name_label", vec!["linux-lua".into()]).await.unwrap().remove(0);
    server.sim.restart();
    assert_eq!(server.sim.sessions(), 0);
    let mut changes = watch.next().await.unwrap();
    assert!(changes.is_empty(), "{changes:?}");
    let vm = client.call("VM.clone", vec![template.into(), "new".into()]).await.unwrap();
    while changes.is_empty() {
        changes = watch.next().await.unwrap();
    }
    assert_eq!((changes[0].reference.as_str(), watch.cache().count("VM")), (vm.as_str().unwrap(), before + 1));
    // A deletion that is forgotten before it is told is found by counting.
    client.call("VM.destroy", vec![vm]).await.unwrap();
    server.sim.forget_deletions();
    let host = client.get::<Vec<String>>("pool.get_all", vec![]).await.unwrap().remove(0);
    client.call("event.inject", vec!["pool".into(), host.into()]).await.unwrap();
    let template = client.get::<Vec<String>>("VM.get_by_name_label", vec!["linux-lua".into()]).await.unwrap().remove(0);
    client.call("VM.set_name_description", vec![template.into(), "changed".into()]).await.unwrap();
    let mut gone = false;
    while !gone {
        gone = watch.next().await.unwrap().iter().any(|change| change.what == vmoon_xapi::cache::What::Removed);
    }
    assert_eq!(watch.cache().count("VM"), before);
}

#[tokio::test]
async fn a_member_sends_to_the_coordinator_before_it_looks_at_the_password() {
    let listen = |address: &str| Settings { listen: address.parse().unwrap(), ..Settings::default() };
    let coordinator = Server::start(&listen("127.0.0.2:0")).await.unwrap();
    let port = coordinator.address().port();
    let member = Server::start(&listen(&format!("127.0.0.1:{port}"))).await.unwrap();
    let fingerprint = coordinator.fingerprint().unwrap().to_owned();
    member.sim.faults(|faults| faults.slave_of = Some(("127.0.0.2".into(), fingerprint)));
    let client = client(&member);
    client.read("VM.get_all", vec![]).await.unwrap();
    assert_eq!((member.sim.sessions(), coordinator.sim.sessions()), (0, 1));
    client.close().await;
    assert_eq!(coordinator.sim.sessions(), 0);
}

#[tokio::test]
async fn planned_failures_come_once_each() {
    let (server, client) = pool().await;
    server.sim.faults(|faults| drop(faults.fail.insert("VM.get_all".into(), vec![vec!["SR_BACKEND_FAILURE_46".into(), "a".into()]])));
    assert!(client.call("VM.get_all", vec![]).await.unwrap_err().is("SR_BACKEND_FAILURE_46"));
    client.call("VM.get_all", vec![]).await.unwrap();
    server.sim.faults(|faults| faults.booting = true);
    let error = client.call("VM.get_all", vec![]).await.unwrap_err();
    assert!(matches!(&error, Error::Xapi(failure) if failure.is("HOST_STILL_BOOTING")));
}
