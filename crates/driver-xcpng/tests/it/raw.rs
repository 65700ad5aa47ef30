//! Calls of XAPI by their names, through the driver: checked before they are sent, and tasks followed.

use crate::{driver, pool, ring};
use serde_json::{Value, json};
use vmoon_core::{
    Code, Error,
    driver::Driver,
    raw::{RawAnswer, RawCall},
};

async fn call(driver: &dyn Driver, method: &str, arguments: &[&str], background: bool) -> Result<RawAnswer, Error> {
    let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
    let call = RawCall { method: method.to_owned(), arguments, background, deadline_ms: 10_000 };
    driver.raw().unwrap().call(&call).await
}

fn usage(error: Error, part: &str) -> Option<String> {
    let record = error.to_record();
    assert_eq!(error.code(), Code::Usage, "{record:?}");
    assert!(record.message.contains(part), "{record:?}");
    record.hint
}

#[tokio::test]
async fn calls_are_made_with_the_session_that_the_driver_has() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    let found = call(&driver, "VM.get_by_name_label", &["linux-lua"], false).await.unwrap();
    assert_eq!(found.task, None);
    let template = found.result[0].as_str().unwrap().to_owned();
    call(&driver, "VM.add_to_other_config", &[&template, "k", "a \"b\""], false).await.unwrap();
    let config = call(&driver, "VM.get_other_config", &[&template], false).await.unwrap().result;
    assert_eq!(config["k"], "a \"b\"");
    let refused = call(&driver, "VM.start", &[&template, "false", "false"], false).await.unwrap_err();
    assert_eq!(refused.detail_value(), Some(&json!({"xapi": "VM_IS_TEMPLATE", "params": [template, "start"]})));
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_it_is_sent() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    let hint = usage(call(&driver, "VM.strat", &[], false).await.unwrap_err(), "no method \"VM.strat\"").unwrap();
    assert!(hint.contains("VM.start"), "{hint}");
    usage(call(&driver, "VM.start", &["OpaqueRef:1"], false).await.unwrap_err(), "takes 3 arguments beside the session, 1 are given");
    usage(call(&driver, "VM.start", &["web", "x", "true"], false).await.unwrap_err(), "\"start_paused\" takes bool");
    usage(call(&driver, "VM.get_record", &["OpaqueRef:1"], true).await.unwrap_err(), "cannot be a task");
    usage(call(&driver, "session.logout", &[], false).await.unwrap_err(), "the daemon holds the session");
    usage(call(&driver, "x\u{1b}[2J", &[], false).await.unwrap_err(), "\\u{1b}");
}

#[tokio::test]
async fn what_is_newer_than_the_table_is_sent_if_the_host_has_it() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    usage(call(&driver, "VM.teleport", &["web"], false).await.unwrap_err(), "no method \"VM.teleport\"");
    server.sim.faults(|faults| drop(faults.newer.insert("VM.teleport".into(), "done".into())));
    let answer = call(&driver, "VM.teleport", &["web", "[1]", "true", "7", "\"8\""], false).await.unwrap();
    // The server answers with what it was given.
    assert_eq!(answer.result, json!({"answer": "done", "given": ["web", [1], true, "7", "8"]}));
    assert!(answer.note.unwrap().contains("unchecked"));
    let task = call(&driver, "VM.teleport", &["web"], true).await.unwrap().task.unwrap();
    let raw = driver.raw().unwrap();
    let mut known = None;
    while let Ok(standing) = raw.follow(&task, known, 10_000).await {
        if standing.ended {
            return;
        }
        known = Some(standing.progress);
    }
    panic!("it does not end");
}

#[tokio::test]
async fn tasks_are_followed_to_their_end() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    let raw = driver.raw().unwrap();
    let template = call(&driver, "VM.get_by_name_label", &["linux-lua"], false).await.unwrap().result[0].as_str().unwrap().to_owned();
    let task = call(&driver, "VM.clone", &[&template, "copy"], true).await.unwrap().task.unwrap();
    let mut known = None;
    let result = loop {
        let standing = raw.follow(&task, known, 10_000).await.unwrap();
        if standing.ended {
            break standing.result;
        }
        known = Some(standing.progress);
    };
    assert!(result.as_str().unwrap().starts_with("OpaqueRef:"));
    assert!(server.sim.names("VM").contains(&"copy".to_owned()));
    // It was cleared away.
    assert_eq!(call(&driver, "task.get_all", &[], false).await.unwrap().result, json!([]));
    assert_eq!(raw.follow(&task, None, 1_000).await.unwrap_err().code(), Code::DriverFailed);
    // One that fails says why.
    let task = call(&driver, "Async.VM.start", &[&template, "false", "false"], false).await.unwrap().task.unwrap();
    let failed = loop {
        match raw.follow(&task, Some(0.0), 10_000).await {
            Ok(standing) => assert!(!standing.ended),
            Err(error) => break error,
        }
    };
    assert_eq!(failed.detail_value().map(|detail| detail["xapi"].clone()), Some(Value::from("VM_IS_TEMPLATE")));
}
