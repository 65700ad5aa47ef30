//! Doors for `crates/fuzz`: what a host answers. Nothing else may use them.

use crate::{cache, cache::Batch, console, members::Place, records, rpc, rrd::Updates, skim, trust::Fingerprint, value::Time, xml};

/// The body of an answer to a call, and results as our records.
///
/// # Panics
/// If the two readers of long answers do not agree that it is JSON.
pub fn answer(body: &[u8]) {
    let _ = rpc::answer::<serde_json::Value>(7, 200, "application/json", body);
    let _ = rpc::answer::<records::Vm>(7, 200, "application/json", body);
    let _ = rpc::answer::<records::Host>(7, 200, "application/json", body);
    let _ = rpc::plain(body);
    if skim::members(body).is_some() {
        assert!(serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok(), "{}", body.escape_ascii());
    }
    if let Ok(batch) = rpc::answer::<Batch>(7, 200, "application/json", body) {
        let mut cache = cache::Cache::default();
        cache.apply(batch.events);
    }
}

/// What is no answer to a call: results of tasks, statistics, heads of HTTP, places, times.
///
/// # Panics
/// If a place makes more than one line of a request.
pub fn others(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = xml::decode(&text);
    let _ = Updates::parse(&text);
    let _ = console::parse(bytes);
    if let Ok(place) = Place::parse(&text, "h") {
        let line = place.target("s", true);
        assert!(line.bytes().all(|byte| byte > b' ' && byte < 127), "{line:?}");
    }
    let _ = Time::parse(&text);
    let _ = text.parse::<Fingerprint>();
}
