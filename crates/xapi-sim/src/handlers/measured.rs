//! Statistics: what hosts and running VMs would have measured. Values follow from numbers that the records have, so they are the same each time.

use super::Query;
use crate::{
    server::{Answer, full},
    sim::Sim,
    store::{Row, Store},
};
use bytes::Bytes;
use hyper::Response;
use quick_xml::escape::escape;
use serde_json::Value;
use std::fmt::Write as _;

/// Seconds between two values.
const STEP: u64 = 5;
/// Rows of an answer, whatever is asked for: one minute, as XAPI keeps at this step for ten.
const ROWS: u64 = 12;

fn series(store: &Store, with_host: bool) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    let number = |row: &Row, field: &str| row.fields.get(field).and_then(Value::as_f64).unwrap_or_default();
    let text = |row: &Row, field: &str| row.fields.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    for (_, vm) in store.rows("VM").filter(|(_, row)| text(row, "power_state") == "Running") {
        let uuid = text(vm, "uuid");
        let domain = number(vm, "domid");
        let mut say = |name: &str, value: f64| all.push((format!("AVERAGE:vm:{uuid}:{name}"), value));
        for cpu in 0..number(vm, "VCPUs_at_startup") as u64 {
            say(&format!("cpu{cpu}"), (domain % 10.0) / 100.0);
        }
        say("memory", number(vm, "memory_dynamic_max"));
        // KiB, and only where the guest's tools tell it.
        say("memory_internal_free", number(vm, "memory_dynamic_max") / 4096.0);
    }
    for (_, host) in store.rows("host").filter(|_| with_host) {
        let uuid = text(host, "uuid");
        for (name, value) in [("cpu_avg", 0.05), ("memory_total_kib", 67_108_864.0), ("memory_free_kib", 33_554_432.0)] {
            all.push((format!("AVERAGE:host:{uuid}:{name}"), value));
        }
    }
    all
}

pub(super) fn answer(sim: &Sim, query: &Query) -> Response<Answer> {
    let series = series(&sim.state().store, query.get("host").is_some_and(|host| host == "true"));
    let end = vmoon_sys::clock::now_ms() / 1000 / STEP * STEP;
    let start = end.saturating_sub(STEP * ROWS);
    let mut out = format!(
        "<xport><meta><start>{start}</start><step>{STEP}</step><end>{end}</end><rows>{ROWS}</rows><columns>{}</columns><legend>",
        series.len()
    );
    for (name, _) in &series {
        let _ = write!(out, "<entry>{}</entry>", escape(name.as_str()));
    }
    out.push_str("</legend></meta><data>");
    for row in 0..ROWS {
        let _ = write!(out, "<row><t>{}</t>", end - row * STEP);
        for (_, value) in &series {
            // The newest is often not there yet.
            let _ = if row == 0 { write!(out, "<v>NaN</v>") } else { write!(out, "<v>{value:.10e}</v>") };
        }
        out.push_str("</row>");
    }
    out.push_str("</data></xport>");
    full(Bytes::from(out), "text/xml")
}
