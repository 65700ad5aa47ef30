//! Peers that are no XAPI, have another certificate, say nonsense, too much, or nothing.

use crate::server::{Reply, Server};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};
use tracing::{
    Event, Level, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};
use vmoon_xapi::{Client, Config, Error, Password, trust::Fingerprint, watch::Watch};

async fn error(client: &Client) -> Error {
    client.read("VM.get_all_records", vec![]).await.unwrap_err()
}

#[tokio::test]
async fn a_certificate_is_taken_if_it_is_pinned_and_only_then() {
    let server = Server::start().await;
    let bare = Config::new(&server.host, "root", Password::new("right"));
    let found = error(&Client::new(bare.clone()).unwrap()).await;
    assert!(matches!(&found, Error::Untrusted { found, .. } if *found == server.fingerprint), "{found}");
    assert!(found.to_string().contains(&server.fingerprint.to_string()));
    let mut other = bare.clone();
    let pinned = Fingerprint::of(b"another certificate");
    other.pin("127.0.0.1", pinned);
    match error(&Client::new(other).unwrap()).await {
        Error::Changed { pinned: was, found, .. } => assert_eq!((was, found), (pinned, server.fingerprint)),
        error => panic!("{error}"),
    }
    assert_eq!(server.world().calls.len(), 0, "something was sent before the certificate was known");
    let mut blind = bare;
    blind.trust.blindly = true;
    let client = Client::new(blind).unwrap();
    assert!(client.is_blind());
    let warnings = Warnings::default();
    let _listens = tracing::subscriber::set_default(warnings.clone());
    let mut before = 0;
    for _ in 0..3 {
        client.read("VM.get_all_records", vec![]).await.unwrap();
        let now = warnings.0.load(Ordering::SeqCst);
        assert!(now > before, "a call without a word of it");
        before = now;
    }
}

/// Counts what is warned of.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn what_is_no_xapi_is_said_to_be_none() {
    let server = Server::start().await;
    let client = server.client();
    server.once("session.login_with_password", Reply::Raw(200, "text/html", b"<html><body>Welcome to nginx!".to_vec()));
    let page = error(&client).await;
    assert!(matches!(&page, Error::Http { status: 200, text } if text.contains("nginx")), "{page}");
    server.once("session.login_with_password", Reply::Raw(404, "text/plain", b"nothing here".to_vec()));
    assert!(matches!(error(&client).await, Error::Http { status: 404, .. }));
    server.once("session.login_with_password", Reply::Raw(200, "application/json", b"{\"jsonrpc\":".to_vec()));
    assert!(matches!(error(&client).await, Error::Protocol(_)));
    // Plain text where TLS is expected.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let _ = tcp.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        }
    });
    let client = Client::new(Config::new(host, "root", Password::new("right"))).unwrap();
    assert!(matches!(error(&client).await, Error::Connection { .. }));
    task.abort();
}

#[tokio::test]
async fn a_silent_peer_is_waited_for_as_long_as_was_said() {
    let server = Server::start().await;
    let mut config = server.config();
    config.deadline = Duration::from_millis(300);
    let client = Client::new(config.clone()).unwrap();
    client.read("VM.get_all_records", vec![]).await.unwrap();
    server.once("VM.get_all_records", Reply::Silence);
    let late = error(&client).await;
    assert!(matches!(&late, Error::Deadline { what, .. } if what == "VM.get_all_records"), "{late}");
    // The others go on.
    client.read("VM.get_all_records", vec![]).await.unwrap();
    // Nobody listens, or accepts and does not speak.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = listener.local_addr().unwrap().to_string();
    config.host = mute;
    config.connect = Duration::from_millis(200);
    assert!(matches!(error(&Client::new(config.clone()).unwrap()).await, Error::Connection { .. }));
    config.host = "127.0.0.1:1".into();
    assert!(matches!(error(&Client::new(config).unwrap()).await, Error::Connection { .. }));
}

#[tokio::test]
async fn an_answer_larger_than_allowed_is_not_read() {
    let server = Server::start().await;
    let mut config = server.config();
    config.max_answer = 1 << 20;
    let client = Client::new(config).unwrap();
    server.once("VM.get_all_records", Reply::Raw(200, "application/json", vec![b' '; 100 << 20]));
    assert!(error(&client).await.to_string().contains("more than 1048576 bytes"));
    client.read("VM.get_all_records", vec![]).await.unwrap();
}

#[tokio::test]
async fn an_answer_of_100_mb_is_read_for_what_is_wanted() {
    let server = Server::start().await;
    let client = server.client();
    client.read("VM.get_all_records", vec![]).await.unwrap();
    let mut body = br#"{"jsonrpc":"2.0","result":{"OpaqueRef:1":{"name_label":"web","name_description":""#.to_vec();
    body.resize(100 << 20, b'x');
    body.extend_from_slice(br#""}}}"#);
    server.once("VM.get_all_records", Reply::Raw(200, "application/json", body));
    let mut watch = Watch::begin(client.clone(), &["VM"]).await.unwrap();
    assert_eq!(watch.cache().get("VM", "OpaqueRef:1").unwrap().value()["name_label"], "web");
    // The next look finds that XAPI has no such VM any more.
    server.restart();
    assert_eq!(watch.next().await.unwrap().len(), 1);
    assert_eq!(watch.cache().count("VM"), 0);
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_not_made_twice() {
    let server = Server::start().await;
    let client = server.client();
    client.read("VM.get_all_records", vec![]).await.unwrap();
    server.once("VM.start", Reply::Drop);
    let lost = client.call("VM.start", vec!["OpaqueRef:vm".into()]).await.unwrap_err();
    assert!(lost.is_of_the_connection(), "{lost}");
    assert_eq!(server.count("VM.start"), 1);
}

#[tokio::test]
async fn a_request_that_is_too_large_never_leaves() {
    let server = Server::start().await;
    let client = server.client();
    let error = client.call("VM.start", vec!["x".repeat(400_000).into()]).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }));
    assert_eq!(server.count("VM.start"), 0);
}
