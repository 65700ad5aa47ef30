//! Exchanges shaped by those of a real xapi, asked of this server.

use vmoon_xapi_sim::replay::{self, Login};

#[tokio::test]
async fn every_exchange_is_answered_in_the_same_shape() {
    let recording = include_str!("../../../xapi/tests/fixtures/exchanges.jsonl");
    let login = Login::find(recording).unwrap();
    let report = replay::run(recording, None, &login).await.unwrap();
    assert!(report.differing.is_empty() && report.excused.is_empty(), "{:#?} {:#?}", report.differing, report.excused);
    assert_eq!(report.matched, recording.lines().count());
    assert!(report.decoded.wrong.is_empty() && report.decoded.answers > 20, "{:?}", report.decoded);
}

#[tokio::test]
async fn a_difference_is_found() {
    let recording = include_str!("../../../xapi/tests/fixtures/exchanges.jsonl");
    let login = Login::find(recording).unwrap();
    for (before, after) in [
        ("VM_IS_TEMPLATE", "VM_IS_SOMETHING"),
        ("\\\"status\\\":\\\"success\\\"", "\\\"status\\\":7"),
        ("\\\"protocol\\\":", "\\\"protokoll\\\":"),
        ("\"status\": 500", "\"status\": 200"),
    ] {
        assert!(recording.contains(before), "{before}");
        let report = replay::run(&recording.replacen(before, after, 1), None, &login).await.unwrap();
        assert_eq!(report.differing.len(), 1, "{before}: {:?}", report.differing);
    }
}
