//! Hostile and mistaken peers on the daemon's socket: each gets a clear answer, and the next one is served as ever.

use crate::harness::{LIMIT, Outside, create, did};
use futures_util::{SinkExt, StreamExt};
use std::path::PathBuf;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest},
};
use vmoon_api::{Api, Client, requests::*};
use vmoon_core::machine::Request;

async fn socket() -> (Outside, Client, PathBuf) {
    let outside = Outside::new();
    let (_, client) = outside.client().await;
    let path = outside.dir.path().join("api.sock");
    (outside, client, path)
}

/// Sends raw bytes and gives back everything that is answered until the daemon closes.
async fn raw(path: &PathBuf, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // A daemon that has heard enough may close before everything is written.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(LIMIT, read).await.expect("the daemon answers or closes");
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: vmoon\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

#[tokio::test]
async fn requests_that_make_no_sense_get_a_code() {
    let (_outside, client, path) = socket().await;
    let post = |body: &str| {
        format!("POST /v1/machines HTTP/1.1\r\nhost: vmoon\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            .into_bytes()
    };
    for (request, status, code) in [
        (get("/v1/nothing", ""), "404", "not_found"),
        (get("/v1/machines/%ff", ""), "404", "not_found"),
        (get("/v1/machines/x/wait?until=flying", ""), "400", "wire.malformed"),
        (get("/v1/events/stream", ""), "400", "wire.malformed"),
        (get("/v1/hello", "vmoon-protocol: banana\r\n"), "426", "wire.version"),
        (get("/v1/hello", "vmoon-protocol: 7-9\r\n"), "426", "wire.version"),
        (get("/v1/hello", "vmoon-protocol: 0-0\r\n"), "426", "wire.version"),
        (post("{"), "400", "wire.malformed"),
        (post("[]"), "400", "wire.malformed"),
        (post("{\"name\":7}"), "400", "wire.malformed"),
        (b"POST /v1/plan HTTP/1.1\r\nhost: vmoon\r\ncontent-length: 99999999999\r\n\r\n{".to_vec(), "413", "command.too_large"),
    ] {
        let answer = raw(&path, &request).await;
        let told = answer.contains(&format!("\"code\":\"{code}\""));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && told, "{}\n{answer}", String::from_utf8_lossy(&request));
    }
    // Both sides are told which of them is too old.
    assert!(raw(&path, &get("/v1/hello", "vmoon-protocol: 7-9\r\n")).await.contains("the client is newer"));
    assert!(raw(&path, &get("/v1/hello", "vmoon-protocol: 0-0\r\n")).await.contains("the client is older"));
    // A newer client that still speaks our version is served.
    assert!(raw(&path, &get("/v1/hello", "vmoon-protocol: 1-9\r\n")).await.starts_with("HTTP/1.1 200"));
    for garbage in [&b"\0\xff\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n"] {
        raw(&path, garbage).await;
    }
    // A request that never ends costs its own connection only.
    let mut endless = UnixStream::connect(&path).await.unwrap();
    endless.write_all(&[b'x'; 100_000]).await.unwrap();
    client.hello(Empty {}).await.unwrap();
}

#[tokio::test]
async fn streams_that_make_no_sense_end_with_a_code_and_harm_nobody() {
    let (_outside, client, path) = socket().await;
    create(&client, "a", serde_json::json!({})).await;
    did(&client, "a", Request::Start).await;
    client
        .eval(Eval { session: "a".into(), code: "value 1".into(), args: None, data: false, token: None, deadline_ms: None, wait_ms: None })
        .await
        .unwrap();
    let open = async |protocol: &str| {
        let mut request = "ws://vmoon/v1/sessions/a/stream?mode=writer".into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        client_async(request, UnixStream::connect(&path).await.unwrap()).await
    };
    assert!(open("binary").await.is_err(), "the subprotocol is another one");
    let huge = [&0xffff_ffffu32.to_le_bytes()[..], b"E"].concat();
    let short = [&3u32.to_le_bytes()[..], b"abc"].concat();
    let torn = [&50u32.to_le_bytes()[..], b"E1234567"].concat();
    for bad in [huge, short, torn, b"".to_vec(), vec![0xff; 70_000]] {
        let (mut stream, _) = open(vmoon_api::SESSION_PROTOCOL).await.unwrap();
        stream.send(Message::Binary(bad.clone().into())).await.unwrap();
        let told = async {
            while let Some(Ok(message)) = stream.next().await {
                if let Message::Text(text) = message {
                    return text.to_string();
                }
            }
            String::new()
        };
        let told = tokio::time::timeout(LIMIT, told).await.unwrap();
        assert!(told.contains("wire.malformed"), "{} bytes: {told}", bad.len());
        // The pen is free as soon as the daemon has seen the end of this stream.
        drop(stream);
        while client.show_session(SessionRef { session: "a".into() }).await.unwrap().writer {
            tokio::task::yield_now().await;
        }
    }
    let view = client
        .eval(Eval { session: "a".into(), code: "value 2".into(), args: None, data: false, token: None, deadline_ms: None, wait_ms: None })
        .await
        .unwrap();
    assert_eq!(view.values.unwrap().lossy(), "2");
}

/// A client that reads nothing is waited for by nobody.
#[tokio::test]
async fn a_reader_that_never_reads_delays_nobody() {
    let (_outside, client, path) = socket().await;
    create(&client, "a", serde_json::json!({})).await;
    did(&client, "a", Request::Start).await;
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut request = "ws://vmoon/v1/sessions/a/stream?mode=viewer&from=0".into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", vmoon_api::SESSION_PROTOCOL.parse().unwrap());
        client
            .eval(Eval {
                session: "a".into(),
                code: "value 0".into(),
                args: None,
                data: false,
                token: None,
                deadline_ms: None,
                wait_ms: None,
            })
            .await
            .unwrap();
        deaf.push(client_async(request, UnixStream::connect(&path).await.unwrap()).await.unwrap());
    }
    for _ in 0..5 {
        let flood = Eval {
            session: "a".into(),
            code: "flood 4000000\nvalue x".into(),
            args: None,
            data: false,
            token: None,
            deadline_ms: None,
            wait_ms: None,
        };
        let view = tokio::time::timeout(LIMIT, client.eval(flood)).await.expect("nobody waits for the deaf").unwrap();
        assert_eq!(view.values.unwrap().lossy(), "x");
    }
    let session = client.show_session(SessionRef { session: "a".into() }).await.unwrap();
    assert_eq!(session.viewers, 4, "they are still attached, and read when they like");
}
