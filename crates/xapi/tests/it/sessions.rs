//! Logins: one for all, renewed when they end, sent on to the coordinator, never tried everywhere.

use crate::server::{Reply, Server};
use serde_json::json;
use std::time::Duration;
use vmoon_xapi::{Client, Config, Error, Password};

#[tokio::test]
async fn many_calls_at_once_make_one_login_and_close_ends_it() {
    let server = Server::start().await;
    let client = server.client();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn({
                let client = client.clone();
                async move { client.read("VM.get_all_records", vec![]).await }
            })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), json!({}));
    }
    assert_eq!(server.logins(), 1);
    // So does the end of a session that all of them use.
    server.restart();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.read("VM.get_all_records", vec![]).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.logins(), 2);
    client.close().await;
    assert!(server.world().sessions.is_empty(), "the session was left behind");
}

#[tokio::test]
async fn a_session_that_ended_is_renewed_once_and_only_reads_are_repeated() {
    let server = Server::start().await;
    let client = server.client();
    client.read("VM.get_all_records", vec![]).await.unwrap();
    server.restart();
    client.read("VM.get_all_records", vec![]).await.unwrap();
    assert_eq!((server.logins(), server.count("VM.get_all_records")), (2, 3));
    server.restart();
    let error = client.call("VM.start", vec!["OpaqueRef:vm".into()]).await.unwrap_err();
    assert!(error.is("SESSION_INVALID"), "{error}");
    assert_eq!((server.logins(), server.count("VM.start")), (3, 1));
    client.call("VM.start", vec!["OpaqueRef:vm".into()]).await.unwrap();
    // A server that ends every session at once is not asked for ever.
    for _ in 0..9 {
        let session = format!("OpaqueRef:session-{}", server.logins());
        server.once("VM.get_all_records", Reply::Failure(vec!["SESSION_INVALID", session.leak()]));
    }
    let logins = server.logins();
    client.read("VM.get_all_records", vec![]).await.unwrap_err();
    assert!(server.logins() - logins <= 2);
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    let (server, other) = (Server::start().await, Server::start().await);
    server.world().addresses = vec![other.host.clone()];
    let mut config = server.config();
    config.password = Password::new("wrong");
    let client = Client::new(config).unwrap();
    let error = client.read("VM.get_all_records", vec![]).await.unwrap_err();
    assert!(error.is("SESSION_AUTHENTICATION_FAILED"), "{error}");
    assert_eq!((server.count("session.login_with_password"), other.world().calls.len()), (1, 0));
    // Nor is it told to anybody.
    assert!(!format!("{client:?} {error:?} {:?}", Config::new("h", "u", Password::new("wrong"))).contains("wrong"));
}

#[tokio::test]
async fn a_member_sends_us_to_the_coordinator_and_vouches_for_its_certificate() {
    let coordinator = Server::at("127.0.0.2").await;
    let (_, port) = coordinator.host.split_once(':').unwrap();
    let member = Server::bind(&format!("127.0.0.1:{port}")).await;
    member.world().slave_of = Some(("127.0.0.2".into(), Some(coordinator.fingerprint.to_string())));
    let client = member.client();
    client.read("VM.get_all_records", vec![]).await.unwrap();
    assert_eq!((coordinator.logins(), coordinator.count("VM.get_all_records")), (1, 1));
    assert_eq!(client.pins().get("127.0.0.2"), Some(&coordinator.fingerprint));
    // A member that vouches for nothing leaves us with a certificate that nobody has signed.
    member.world().slave_of = Some(("127.0.0.2".into(), None));
    let error = member.client().read("VM.get_all_records", vec![]).await.unwrap_err();
    assert!(matches!(&error, Error::Untrusted { found, .. } if *found == coordinator.fingerprint), "{error}");
    // What was pinned counts more than what a member says.
    member.world().slave_of = Some(("127.0.0.2".into(), Some(member.fingerprint.to_string())));
    let mut config = member.config();
    config.pin("127.0.0.2", coordinator.fingerprint);
    Client::new(config).unwrap().read("VM.get_all_records", vec![]).await.unwrap();
}

#[tokio::test]
async fn members_that_send_us_in_circles_are_given_up() {
    let (one, port) = {
        let one = Server::start().await;
        let port = one.host.split_once(':').unwrap().1.to_owned();
        (one, port)
    };
    let two = Server::bind(&format!("127.0.0.2:{port}")).await;
    one.world().slave_of = Some(("127.0.0.2".into(), Some(two.fingerprint.to_string())));
    two.world().slave_of = Some(("127.0.0.1".into(), Some(one.fingerprint.to_string())));
    let error = one.client().read("VM.get_all_records", vec![]).await.unwrap_err();
    assert!(error.to_string().contains("from one to the other"), "{error}");
    assert!(one.world().calls.len() + two.world().calls.len() <= 3);
}

#[tokio::test]
async fn a_dead_coordinator_is_looked_for_among_the_members_of_the_last_login() {
    let coordinator = Server::start().await;
    let port = coordinator.host.split_once(':').unwrap().1.to_owned();
    let next = Server::bind(&format!("127.0.0.2:{port}")).await;
    coordinator.world().addresses = vec!["127.0.0.1".into(), "127.0.0.2".into()];
    let mut config = coordinator.config();
    config.pin("127.0.0.2", next.fingerprint);
    config.connect = Duration::from_secs(2);
    let client = Client::new(config).unwrap();
    client.read("VM.get_all_records", vec![]).await.unwrap();
    drop(coordinator);
    // The kept connections of the dead one still answer; XAPI's death ends them.
    client.close().await;
    client.read("VM.get_all_records", vec![]).await.unwrap();
    assert_eq!(next.logins(), 1);
}

/// A host that was ejected is a pool of its own: it is not asked for what belongs to this one.
#[tokio::test]
async fn who_was_a_member_at_an_earlier_login_is_not_asked_any_more() {
    let coordinator = Server::at("127.0.0.31").await;
    let port = coordinator.host.split_once(':').unwrap().1.to_owned();
    let (ejected, next) = (Server::bind(&format!("127.0.0.32:{port}")).await, Server::bind(&format!("127.0.0.33:{port}")).await);
    let mut config = coordinator.config();
    for server in [&coordinator, &ejected, &next] {
        config.pin(server.host.split_once(':').unwrap().0, server.fingerprint);
    }
    config.connect = Duration::from_secs(2);
    let client = Client::new(config).unwrap();
    let members = |of: [&str; 2]| coordinator.world().addresses = of.map(str::to_owned).to_vec();
    members(["127.0.0.31", "127.0.0.32"]);
    client.read("VM.get_all_records", vec![]).await.unwrap();
    members(["127.0.0.31", "127.0.0.33"]);
    coordinator.restart();
    client.read("VM.get_all_records", vec![]).await.unwrap();
    assert_eq!(coordinator.logins(), 2);
    drop(coordinator);
    client.close().await;
    client.read("VM.get_all_records", vec![]).await.unwrap();
    assert_eq!((ejected.world().calls.len(), next.logins()), (0, 1));
}
