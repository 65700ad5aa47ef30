//! Figures as JSON: what was measured, on what machine, and whether a target was met.

use serde_json::{Map, Value, json};
use std::{fs, thread, time::Duration};

/// The figures of an alternative, or why there are none.
pub(super) type Column = Result<Value, String>;

/// Microseconds with one decimal.
pub(super) fn us(time: Duration) -> Value {
    json!((time.as_nanos() as f64 / 100.0).round() / 10.0)
}

/// The time below which this part (in percent) of the sorted times lie.
fn percentile(sorted: &[Duration], part: usize) -> Duration {
    let rank = (sorted.len() * part).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// The distribution of times.
pub(super) fn summary(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let mut out = Map::new();
    out.insert("n".into(), times.len().into());
    for part in [50, 95, 99] {
        out.insert(format!("p{part}_us"), us(percentile(&times, part)));
    }
    out.insert("max_us".into(), us(times.last().copied().unwrap_or_default()));
    Value::Object(out)
}

/// One section: the columns side by side.
pub(super) fn section(what: &str, vmoon: Value, lua: Column, python: Column) -> Value {
    let mut out = Map::new();
    out.insert("what".into(), what.into());
    out.insert("vmoon".into(), vmoon);
    beside(beside(Value::Object(out), "lua", lua), "python", python)
}

/// Adds a column to a section.
pub(super) fn beside(mut section: Value, name: &str, column: Column) -> Value {
    match column {
        Ok(value) => section[name] = value,
        Err(reason) => (section[name], section[format!("{name}_reason")]) = (Value::Null, reason.into()),
    }
    section
}

/// Adds what the figures of vmoon should be, and whether each is: `(field, bound, whether larger is better)`.
pub(super) fn targets(mut section: Value, bounds: &[(&str, f64, bool)]) -> Value {
    let mut all = true;
    let mut listed = Map::new();
    for (field, bound, larger) in bounds {
        let value = section["vmoon"][*field].as_f64();
        let met = value.is_some_and(|value| if *larger { value >= *bound } else { value <= *bound });
        all &= met;
        listed.insert((*field).to_owned(), json!({ if *larger { "at_least" } else { "at_most" }: bound, "met": met }));
    }
    section["targets"] = Value::Object(listed);
    section["met"] = all.into();
    section
}

/// The computer and this build.
pub(super) fn machine() -> Map<String, Value> {
    let uname = rustix::system::uname();
    let mut out = Map::new();
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    out.insert("at_ms".into(), vmoon_sys::clock::now_ms().into());
    out.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    out.insert("optimised".into(), (!cfg!(debug_assertions)).into());
    out.insert("cpus".into(), thread::available_parallelism().map_or(0, usize::from).into());
    out.insert("cpu".into(), json!(field("/proc/cpuinfo", "model name")));
    let memory = field("/proc/meminfo", "MemTotal").and_then(|text| text.strip_suffix(" kB")?.parse::<u64>().ok());
    out.insert("memory_bytes".into(), json!(memory.map(|kib| kib << 10)));
    out.insert("kernel".into(), uname.release().to_string_lossy().into());
    let load = fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    out.insert("load_before".into(), json!(load));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_times_themselves() {
        let times = |n: u64| (1..=n).rev().map(Duration::from_micros).collect::<Vec<_>>();
        let figures = summary(times(100));
        assert_eq!(figures["p50_us"], 50.0);
        assert_eq!(figures["p95_us"], 95.0);
        assert_eq!(figures["p99_us"], 99.0);
        assert_eq!(figures["max_us"], 100.0);
        assert_eq!(summary(times(1))["p50_us"], 1.0);
        assert_eq!(summary(vec![])["p50_us"], 0.0);
    }

    #[test]
    fn a_target_is_met_or_missed_and_a_figure_that_is_missing_misses_it() {
        let figures = || section("x", json!({ "a": 5, "b": 5 }), Err("none".into()), Ok(json!(1)));
        assert_eq!(targets(figures(), &[("a", 5.0, false), ("b", 5.0, true)])["met"], true);
        assert_eq!(targets(figures(), &[("a", 4.9, false)])["met"], false);
        assert_eq!(targets(figures(), &[("b", 5.1, true)])["targets"]["b"]["met"], false);
        assert_eq!(targets(figures(), &[("c", 1.0, false)])["met"], false);
        assert_eq!((&figures()["lua"], &figures()["lua_reason"]), (&Value::Null, &json!("none")));
    }
}
