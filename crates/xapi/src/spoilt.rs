//! Tests only: every decoder is fed what was well formed and is spoilt. It refuses or takes it; it neither panics nor hangs.

use crate::{cache::Batch, console, members::Place, model::Model, rpc, rrd::Updates, trust::Fingerprint, value::Time, xml};
use vmoon_driver_sim::Hostile;

/// How many spoilt forms of each sample.
const ROUNDS: usize = 1000;

/// Feeds a decoder spoilt forms of these samples; how many it took and how many it refused.
fn feed(seed: u64, samples: &[&str], mut decode: impl FnMut(&[u8], &str) -> bool) -> [usize; 2] {
    let (mut hostile, mut counts) = (Hostile::new(seed), [0, 0]);
    for sample in samples {
        assert!(decode(sample.as_bytes(), sample), "{sample}");
        for _ in 0..ROUNDS {
            let mut bytes = sample.as_bytes().to_vec();
            hostile.spoil(&mut bytes);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            counts[usize::from(!decode(&bytes, &text))] += 1;
        }
    }
    counts
}

#[test]
fn answers_that_are_spoilt_are_refused_or_read() {
    let samples = [
        r#"{"jsonrpc":"2.0","result":{"uuid":"u","VCPUs_max":"4","other_config":{"a":"b"}},"id":7}"#,
        r#"{"result":["OpaqueRef:NULL"],"error":null,"id":7}"#,
    ];
    let [_, refused] = feed(1, &samples, |bytes, _| rpc::answer::<serde_json::Value>(7, 200, "application/json", bytes).is_ok());
    assert!(refused > ROUNDS / 2);
    feed(2, &["<html><body><h1>HTTP 500</h1>x &amp; y</body></html>"], |bytes, _| rpc::plain(bytes).chars().count() <= 400);
}

#[test]
fn results_of_tasks_that_are_spoilt_are_refused_or_read() {
    let samples = [
        "<value><array><data><value>OpaqueRef:1</value><value><int>7</int></value></data></array></value>",
        "<value><struct><member><name>a &lt; b</name><value><boolean>1</boolean></value></member></struct></value>",
        "<value></value>",
    ];
    let [taken, refused] = feed(3, &samples, |_, text| xml::decode(text).is_ok());
    assert!(taken > 0 && refused > ROUNDS);
}

#[test]
fn statistics_events_and_places_that_are_spoilt_are_refused_or_read() {
    let measured = "<xport><meta><step>5</step><legend><entry>AVERAGE:vm:u:cpu0</entry></legend></meta><data><row><t>1</t><v>0.5</v></row></data></xport>";
    feed(4, &[measured], |_, text| Updates::parse(text).is_ok());
    let batch =
        r#"{"events":[{"id":"1","class":"vm","operation":"mod","ref":"r","snapshot":{"a":1}}],"token":"1,0","valid_ref_counts":{"vm":1}}"#;
    feed(5, &[batch], |bytes, _| serde_json::from_slice::<Batch>(bytes).is_ok());
    feed(6, &["https://10.9.0.1:8443/console?uuid=a-b&session_id=x"], |_, text| {
        // Whatever is taken is one line of a request.
        Place::parse(text, "h").is_ok_and(|place| {
            let line = place.target("s", true);
            assert!(line.bytes().all(|byte| byte > b' ' && byte < 127), "{line:?}");
            true
        })
    });
    feed(7, &["HTTP/1.1 302 Found\r\nLocation: https://h/x"], |bytes, _| console::parse(bytes).is_ok());
    feed(8, &["20261120T18:36:45Z"], |_, text| Time::parse(text).is_some());
    let fingerprint = Fingerprint::of(b"x").to_string();
    feed(9, &[fingerprint.as_str()], |_, text| text.parse::<Fingerprint>().is_ok());
}

#[test]
fn calls_that_are_spoilt_are_refused_or_checked() {
    let model = Model::get();
    // Looking for names that are near takes longest.
    let (mut hostile, sample) = (Hostile::new(10), "Async.VM.set_memory_limits");
    for _ in 0..20 {
        let mut bytes = sample.as_bytes().to_vec();
        hostile.spoil(&mut bytes);
        let _ = model.method(&String::from_utf8_lossy(&bytes)).is_ok();
    }
    let method = model.method("VM.set_other_config").unwrap();
    feed(11, &[r#"{"a":"b","c":"d"}"#], |_, text| model.arguments(&method, &["OpaqueRef:1".to_owned(), text.to_owned()]).is_ok());
}
