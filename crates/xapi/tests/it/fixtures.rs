//! Answers as real hosts give them, and odd ones, replayed to the client: what it makes of each.

use crate::server::{Reply, Server};
use serde_json::Value;
use vmoon_xapi::{
    Error,
    model::Model,
    records::{PowerState, Vm},
};

fn lines(text: &'static str) -> impl Iterator<Item = Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap())
}

/// What an answer became, in a few words.
fn shown(answer: Result<Vm, Error>) -> String {
    match answer {
        Ok(vm) => {
            let metrics = if vm.guest_metrics.is_null() { "null" } else { "some" };
            let when = if vm.snapshot_time.is_some_and(|time| time.is_never()) { "never" } else { "then" };
            let PowerState::Other(state) = vm.power_state else { panic!("{:?}", vm.power_state) };
            format!("{state} {} {} {metrics} {when} {}", vm.memory_static_max, vm.vcpus_max, vm.vbds[0])
        }
        Err(Error::Xapi(failure)) => std::iter::once(failure.code).chain(failure.params).collect::<Vec<_>>().join(" "),
        Err(Error::Http { status, .. }) => format!("http {status}"),
        Err(Error::Protocol(_)) => "protocol".into(),
        Err(other) => format!("{other:?}"),
    }
}

#[tokio::test]
async fn odd_answers_become_what_they_mean() {
    let server = Server::start().await;
    let client = server.client();
    client.read("VM.get_all_records", vec![]).await.unwrap();
    let mut count = 0;
    for line in lines(include_str!("../fixtures/odd.jsonl")) {
        let status = u16::try_from(line["status"].as_u64().unwrap()).unwrap();
        let body = line["body"].as_str().unwrap().to_owned();
        server.once("VM.get_record", Reply::Fixture(status, line["type"].as_str().unwrap().to_owned(), body));
        let answer = client.get::<Vm>("VM.get_record", vec!["OpaqueRef:vm".into()]).await;
        assert_eq!(shown(answer), line["becomes"].as_str().unwrap(), "{}", line["note"]);
        count += 1;
    }
    assert!(count > 15);
    // None of them has spoilt the connection or the session.
    client.read("VM.get_all_records", vec![]).await.unwrap();
    assert_eq!(server.logins(), 1);
}

#[tokio::test]
async fn requests_are_written_and_answers_read_as_they_were() {
    let server = Server::start().await;
    let client = server.client();
    client.read("VM.get_all_records", vec![]).await.unwrap();
    let mut count = 0;
    for line in lines(include_str!("../fixtures/exchanges.jsonl")) {
        let (Ok(call), Ok(answer)) = (
            serde_json::from_str::<Value>(line["request"]["body"].as_str().unwrap()),
            serde_json::from_str::<Value>(line["response"]["body"].as_str().unwrap()),
        ) else {
            continue;
        };
        let (Some(method), Some(params)) = (call["method"].as_str(), call["params"].as_array()) else { continue };
        // Calls as the client makes them: with a session, and of the data model.
        let known = Model::get().check(method, params.len().saturating_sub(1));
        if params.is_empty()
            || call["jsonrpc"] != "2.0"
            || !known.is_ok_and(|method| method.session)
            || params[0] == "OpaqueRef:00000000-0000-0000-0000-000000000000"
        {
            continue;
        }
        let mut body = answer.clone();
        body["id"] = "ID".into();
        server.once(method, Reply::Fixture(200, "application/json".into(), body.to_string()));
        let told = client.call(method, params[1..].to_vec()).await;
        match (told, answer.get("error")) {
            (Ok(result), None) => assert_eq!(result, answer["result"], "{}", line["note"]),
            (Err(Error::Xapi(failure)), Some(error)) => {
                assert_eq!(error["message"], failure.code.as_str(), "{}", line["note"]);
                assert_eq!(error["data"], serde_json::json!(failure.params), "{}", line["note"]);
            }
            (told, _) => panic!("{}: {told:?}", line["note"]),
        }
        let sent = server.world().bodies.last().cloned().unwrap();
        assert_eq!(sent["method"], call["method"]);
        assert_eq!(sent["params"].as_array().unwrap()[1..], params[1..], "{}", line["note"]);
        assert!(sent["id"].is_u64() && sent["jsonrpc"] == "2.0");
        count += 1;
    }
    assert!(count > 25, "{count}");
}
