//! Who is let in, and who is not believed.

use crate::{Ring, driver, pool, ring};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use vmoon_core::{
    Code,
    driver::{Driver, Handle, Observed, Verdict},
};
use vmoon_driver_xcpng::{XcpngConfig, XcpngDriver};
use vmoon_xapi_sim::{Certificate, Server, Settings};

#[tokio::test]
async fn an_unknown_certificate_is_shown_and_taken_once_it_is_accepted() {
    let server = pool().await;
    let keys = ring(&server);
    *keys.fingerprint.lock().unwrap() = None;
    let driver = driver(&server, keys.clone());
    let error = driver.test().await.unwrap_err();
    let detail = error.to_record().detail.unwrap();
    let fingerprint = format!("SHA256:{}", server.fingerprint().unwrap());
    assert_eq!((error.code(), detail["fingerprint"].as_str()), (Code::ConnectionUntrusted, Some(fingerprint.as_str())));
    assert_eq!(server.sim.sessions(), 0);
    *keys.fingerprint.lock().unwrap() = Some(fingerprint.clone());
    assert_eq!(driver.test().await.unwrap(), "sim");
    // Another one is refused, with both.
    let other = "SHA256:".to_owned() + "AB:".repeat(32).trim_end_matches(':');
    *keys.fingerprint.lock().unwrap() = Some(other.clone());
    let error = driver.test().await.unwrap_err();
    let detail = error.to_record().detail.unwrap();
    assert_eq!((detail["expected"].as_str(), detail["fingerprint"].as_str()), (Some(other.as_str()), Some(fingerprint.as_str())));
}

/// Whoever has accepted a certificate by its fingerprint knows whose it is; hosts go on showing theirs after its end. Nobody else is believed after it.
#[tokio::test]
async fn a_certificate_after_its_end_is_said_to_be_that_unless_it_was_accepted() {
    let certificate = Certificate { expired: true, ..Certificate::default() };
    let server = Server::start(&Settings { certificate, tools: Duration::ZERO, ..Settings::default() }).await.unwrap();
    let keys = ring(&server);
    let accepted = keys.fingerprint.lock().unwrap().take();
    let driver = driver(&server, keys.clone());
    let error = driver.test().await.unwrap_err();
    assert_eq!(error.code(), Code::ConnectionUntrusted);
    assert!(error.message().contains("it has expired"), "{}", error.message());
    assert_eq!(error.to_record().detail.unwrap()["fingerprint"].as_str(), accepted.as_deref());
    assert_eq!(server.sim.sessions(), 0, "nothing was sent to it");
    assert!(driver.concerns().is_empty(), "it is not taken");
    *keys.fingerprint.lock().unwrap() = accepted;
    assert_eq!(driver.test().await.unwrap(), "sim");
    // It is used, and not without a word.
    let concerns = driver.concerns();
    assert!(concerns.len() == 1 && concerns[0].contains("but it has expired"), "{concerns:?}");
    let checks = driver.probe().await;
    assert_eq!(checks.iter().map(|check| check.verdict).collect::<Vec<_>>(), [Verdict::Ok, Verdict::Warn]);
}

#[tokio::test]
async fn a_password_that_is_missing_wrong_or_new() {
    let server = pool().await;
    let keys = ring(&server);
    *keys.password.lock().unwrap() = None;
    let driver = driver(&server, keys.clone());
    assert_eq!(driver.list().await.unwrap_err().code(), Code::ConnectionLocked);
    *keys.password.lock().unwrap() = Some("wrong-password".into());
    let error = driver.list().await.unwrap_err();
    assert_eq!(error.code(), Code::ConnectionAuth);
    assert!(!format!("{error:?} {driver:?}").contains("wrong-password"));
    *keys.password.lock().unwrap() = Some("secret".into());
    driver.list().await.unwrap();
    driver.close().await;
    assert_eq!(server.sim.sessions(), 0);
}

#[tokio::test]
async fn a_pool_that_does_not_answer_is_not_one_without_machines() {
    let server = pool().await;
    let (keys, address) = (ring(&server), server.address());
    let driver = driver(&server, keys);
    drop(server);
    assert_eq!(driver.list().await.unwrap_err().code(), Code::DriverUnreachable);
    assert_eq!(driver.observe(&Handle(r#"{"vm":"x"}"#.into())).await.observed, Observed::Unreachable);
    let checks = driver.probe().await;
    assert!(checks[0].verdict == Verdict::Fail && checks[0].requirement.contains(&address.to_string()), "{checks:?}");
}

#[test]
fn addresses_that_cannot_be_are_refused_at_once() {
    for uri in ["", "http://x", "https://root:secret@x", "https://x:99999", "x y"] {
        let keys = Arc::new(Ring { password: Mutex::default(), fingerprint: Mutex::default() });
        let error = XcpngDriver::new(XcpngConfig { uri: uri.into(), user: "root".into(), keys, guests: None, runtime: None }).unwrap_err();
        assert_eq!(error.code(), Code::Usage, "{uri}");
    }
}
