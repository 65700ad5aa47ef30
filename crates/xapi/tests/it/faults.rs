//! What goes wrong between a client and its pool: connections cut at every byte, dead members, another coordinator, another host under the old name.

use crate::server::{Reply, Server};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, ServerConfig, pki_types::PrivateKeyDer},
};
use vmoon_xapi::{Client, Config, Error, Password, trust::Fingerprint, watch::Watch};

/// A server that answers each connection's first request with these bytes, and closes it: the first `cut` of them for the connection of that number.
async fn cutting(whole: Vec<u8>) -> (String, Fingerprint, JoinHandle<()>) {
    let made = rcgen::generate_simple_self_signed(vec!["xcp.test".into()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(tls)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let host = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        for cut in 0.. {
            let Ok((tcp, _)) = listener.accept().await else { return };
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&whole[..cut % whole.len()]).await;
            let _ = stream.shutdown().await;
        }
    });
    (host, Fingerprint::of(made.cert.der()), task)
}

#[tokio::test]
async fn an_answer_that_is_cut_at_any_byte_is_never_taken_for_one() {
    let body = r#"{"jsonrpc":"2.0","result":"OpaqueRef:session","id":1}"#;
    let whole = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let count = whole.len();
    let (host, fingerprint, task) = cutting(whole).await;
    for cut in 0..count {
        let mut config = Config::new(&host, "root", Password::new("right"));
        config.pin("127.0.0.1", fingerprint);
        config.deadline = Duration::from_secs(5);
        let error = Client::new(config).unwrap().read("VM.get_all", vec![]).await.unwrap_err();
        assert!(matches!(error, Error::Connection { .. } | Error::Protocol(_)), "cut at {cut}: {error}");
    }
    task.abort();
}

#[tokio::test]
async fn another_coordinator_is_found_in_the_middle_of_a_session() {
    let old = Server::at("127.0.0.21").await;
    let port = old.host.rsplit(':').next().unwrap();
    let new = Server::bind(&format!("127.0.0.22:{port}")).await;
    let mut config = old.config();
    config.pin("127.0.0.21", old.fingerprint);
    let client = Client::new(config).unwrap();
    client.read("VM.get_all_records", vec![]).await.unwrap();
    old.world().slave_of = Some(("127.0.0.22".into(), Some(new.fingerprint.to_string())));
    // Also what changes something: the member has not looked at it.
    client.call("VM.start", vec!["OpaqueRef:vm".into()]).await.unwrap();
    assert_eq!((old.logins(), new.logins()), (1, 1));
    assert_eq!((new.count("VM.start"), client.pins()["127.0.0.22"]), (1, new.fingerprint));
    // And back again.
    old.world().slave_of = None;
    new.world().slave_of = Some(("127.0.0.21".into(), None));
    client.read("VM.get_all_records", vec![]).await.unwrap();
    assert_eq!(old.logins(), 2);
}

#[tokio::test]
async fn another_host_under_the_old_address_is_not_spoken_to() {
    let server = Server::at("127.0.0.23").await;
    let (address, pinned) = (server.host.clone(), server.fingerprint);
    let mut config = server.config();
    config.pin("127.0.0.23", pinned);
    let client = Client::new(config).unwrap();
    client.read("VM.get_all_records", vec![]).await.unwrap();
    drop(server);
    client.close().await;
    // The listener is closed when its task has ended.
    let other = loop {
        match tokio::net::TcpListener::bind(&address).await {
            Ok(free) => {
                drop(free);
                break Server::bind(&address).await;
            }
            Err(_) => tokio::task::yield_now().await,
        }
    };
    match client.read("VM.get_all_records", vec![]).await.unwrap_err() {
        Error::Changed { pinned: was, found, .. } => assert_eq!((was, found), (pinned, other.fingerprint)),
        error => panic!("{error}"),
    }
    assert!(other.world().calls.is_empty(), "it was asked something");
}

#[tokio::test]
async fn calls_that_a_dead_member_holds_do_not_block_the_others_for_longer_than_their_deadline() {
    let server = Server::start().await;
    let mut config = server.config();
    (config.in_flight, config.deadline) = (2, Duration::from_millis(400));
    let client = Client::new(config).unwrap();
    client.read("VM.get_all_records", vec![]).await.unwrap();
    server.once("VM.start", Reply::Silence);
    server.once("VM.start", Reply::Silence);
    let start = |client: Client| tokio::spawn(async move { client.call("VM.start", vec!["OpaqueRef:vm".into()]).await });
    let (a, b) = (start(client.clone()), start(client.clone()));
    for dead in [a, b] {
        assert!(matches!(dead.await.unwrap(), Err(Error::Deadline { .. })));
    }
    // Their places are free again, and neither was sent twice.
    client.read("VM.get_all_records", vec![]).await.unwrap();
    assert_eq!(server.count("VM.start"), 2);
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_was_said() {
    let server = Server::start().await;
    let mut config = server.config();
    config.in_flight = 4;
    let client = Client::new(config).unwrap();
    client.read("VM.get_all_records", vec![]).await.unwrap();
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.read("VM.get_all_records", vec![]).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let most = server.world().busy[1];
    assert!((2..=4).contains(&most), "{most}");
}

#[tokio::test]
async fn events_that_are_slow_hold_nothing_else() {
    let server = Server::start().await;
    let mut config = server.config();
    config.in_flight = 1;
    let client = Client::new(config).unwrap();
    let mut watch = Watch::begin(client.clone(), &["VM"]).await.unwrap();
    let waiting = tokio::spawn(async move { watch.next().await.map(|changes| changes.len()) });
    for _ in 0..20 {
        client.read("VM.get_all_records", vec![]).await.unwrap();
    }
    assert!(!waiting.is_finished());
    server.event("vm", "add", "OpaqueRef:new", serde_json::json!({"name_label": "new"}));
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
}
