//! Calls that take long: followed to their end, cancelled, late, gone.

use crate::server::Server;
use serde_json::json;
use std::{future::pending, time::Duration};
use vmoon_xapi::{
    Error,
    task::{End, run},
};

const LONG: Duration = Duration::from_secs(10);
const TASK: &str = "OpaqueRef:task-0";

/// Starts a VM as a task, and has this happen to the task once it is there.
async fn start(server: &Server, happens: &[(&str, serde_json::Value)], deadline: Duration) -> (vmoon_xapi::Result<End>, Vec<f64>) {
    let (client, mut told) = (server.client(), Vec::new());
    let work = run(&client, "VM.start", vec!["OpaqueRef:vm".into()], deadline, |part| told.push(part), pending());
    let feed = async {
        while !server.world().calls.iter().any(|call| call == "event.from") {
            tokio::task::yield_now().await;
        }
        for (operation, record) in happens {
            server.event("task", operation, TASK, record.clone());
        }
    };
    let (end, ()) = tokio::join!(work, feed);
    (end, told)
}

#[tokio::test]
async fn a_task_is_followed_and_destroyed() {
    let server = Server::start().await;
    let happens = [
        ("mod", json!({"status": "pending", "progress": 0.5})),
        ("mod", json!({"status": "success", "progress": 1.0, "result": "<value>OpaqueRef:new</value>"})),
    ];
    let (end, told) = start(&server, &happens, LONG).await;
    assert_eq!(end.unwrap(), End::Done("OpaqueRef:new".into()));
    assert!(told.first() == Some(&0.0) && told.last() == Some(&1.0) && told.is_sorted(), "{told:?}");
    assert_eq!(server.count("task.destroy"), 1);
}

#[tokio::test]
async fn the_failure_of_a_task_is_that_of_the_call() {
    let server = Server::start().await;
    let happens = [("mod", json!({"status": "failure", "error_info": ["NO_HOSTS_AVAILABLE"]}))];
    let (end, _) = start(&server, &happens, LONG).await;
    assert!(end.unwrap_err().is("NO_HOSTS_AVAILABLE"));
    assert_eq!(server.count("task.destroy"), 1);
}

#[tokio::test]
async fn a_task_that_is_gone_is_no_failure_and_no_success() {
    let server = Server::start().await;
    let (end, _) = start(&server, &[("del", json!(null))], LONG).await;
    assert_eq!(end.unwrap(), End::Vanished);
}

#[tokio::test]
async fn a_late_task_is_asked_to_stop() {
    let server = Server::start().await;
    let client = server.client();
    let work = run(&client, "VM.start", vec![], Duration::from_millis(200), |_| {}, pending());
    let feed = async {
        while server.count("task.cancel") == 0 {
            tokio::task::yield_now().await;
        }
        server.event("task", "mod", TASK, json!({"status": "cancelled"}));
    };
    let (end, ()) = tokio::join!(work, feed);
    assert!(matches!(end, Err(Error::Deadline { .. })), "{end:?}");
}

#[tokio::test]
async fn a_cancelled_task_that_was_quicker_is_done() {
    for (record, cancelled) in [(json!({"status": "cancelled"}), true), (json!({"status": "success", "result": "<value></value>"}), false)]
    {
        let server = Server::start().await;
        let client = server.client();
        let asked = async {
            while server.count("event.from") == 0 {
                tokio::task::yield_now().await;
            }
        };
        let work = run(&client, "VM.start", vec![], LONG, |_| {}, asked);
        let feed = async {
            while server.count("task.cancel") == 0 {
                tokio::task::yield_now().await;
            }
            server.event("task", "mod", TASK, record.clone());
        };
        let (end, ()) = tokio::join!(work, feed);
        assert_eq!(matches!(end, Err(Error::Cancelled)), cancelled, "{record} {end:?}");
    }
}
