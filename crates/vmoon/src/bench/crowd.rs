//! What many sessions cost while they do nothing, and how many answer at once.

use super::{
    Bench, Section,
    bars::ask_all,
    child::{Child, LOOP, whole},
    place::AT_ONCE,
    report::{section, targets, us},
};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, Instant},
};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::memory;

/// How long nothing is done before idleness is measured.
const SETTLE: Duration = Duration::from_secs(3);
/// How long idleness is measured.
const WINDOW: Duration = Duration::from_secs(10);

/// The processor time of a process. The scheduler counts nanoseconds; the usual figure counts hundredths of a second, in
/// which a thousand idle processes would all be zero.
fn processor(pid: i32) -> Duration {
    let exact = || -> Option<Duration> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let mut total = Duration::ZERO;
        for thread in threads {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            total += Duration::from_nanos(text.split(' ').next()?.parse().ok()?);
        }
        Some(total)
    };
    exact().or_else(|| memory::cpu_time(pid)).unwrap_or_default()
}

fn sum(pids: &[i32]) -> Duration {
    pids.iter().map(|pid| processor(*pid)).sum()
}

/// Does nothing for a while: this is the measurement itself.
async fn pause(time: Duration) {
    tokio::time::sleep_until(tokio::time::Instant::now() + time).await;
}

/// How many processors these processes use together while nobody asks them anything.
async fn idle_cores(pids: &[i32]) -> f64 {
    pause(SETTLE).await;
    let (begun, first) = (Instant::now(), sum(pids));
    pause(WINDOW).await;
    let used = sum(pids).saturating_sub(first);
    (used.as_secs_f64() / begun.elapsed().as_secs_f64() * 1e5).round() / 1e5
}

/// Proportional and private memory of these processes together, bytes.
fn memory_of(pids: &[i32]) -> (u64, u64) {
    pids.iter().filter_map(|pid| memory::of(*pid)).fold((0, 0), |(pss, private), one| (pss + one.pss, private + one.private))
}

/// Memory and processor time of idle sessions, each of which has answered once.
pub(super) async fn idle(bench: &Bench) -> Result<Value> {
    let n = bench.rounds(1_000, 100);
    let begun = Instant::now();
    bench.place.create_many("idle", n).await?;
    let created = begun.elapsed();
    let holders = bench.place.holders();
    if holders.len() != n {
        return Err(Error::new(Code::Internal, format!("{} holders were found for {n} machines", holders.len())));
    }
    let (pss, private) = memory_of(&holders);
    let (daemon, _) = memory_of(&[bench.place.daemon()]);
    let mut all = holders.clone();
    all.push(bench.place.daemon());
    let cores = idle_cores(&all).await;
    let vmoon = json!({
        "sessions": n,
        "pss_per_vm_bytes": pss / n as u64,
        "private_per_vm_bytes": private / n as u64,
        "pss_total_bytes": pss + daemon,
        "pss_daemon_bytes": daemon,
        "idle_cores": cores,
        "created_in_us": us(created),
    });
    bench.place.clear().await?;
    let lua = idle_children(bench, n).await;
    // A session costs the library a tenth of a second, so fewer are made; its processor time grows with their number.
    let python = bench.python(Section::Idle, json!({ "n": bench.rounds(200, 20), "seconds": WINDOW.as_secs() }));
    Ok(targets(section("idle sessions, each of which has answered once", vmoon, lua, python), &[("idle_cores", 0.005, false)]))
}

async fn idle_children(bench: &Bench, n: usize) -> Result<Value, String> {
    let exe = bench.lua.clone()?;
    let children = (0..n).map(|_| {
        let mut child = Child::spawn(&exe, &["-e", LOOP], &[])?;
        child.write("return 1+1")?;
        child.read()?;
        Ok(child)
    });
    let children = children.collect::<Result<Vec<Child>>>().map_err(|error| error.chain())?;
    let pids: Vec<i32> = children.iter().map(Child::pid).collect();
    let (pss, private) = memory_of(&pids);
    let cores = idle_cores(&pids).await;
    Ok(json!({
        "sessions": n,
        "pss_per_vm_bytes": pss / n as u64,
        "private_per_vm_bytes": private / n as u64,
        "pss_total_bytes": pss,
        "idle_cores": cores,
    }))
}

/// Many sessions alive at once, each asked once.
pub(super) async fn many(bench: &Bench) -> Result<Value> {
    let n = bench.rounds(2_000, 200);
    let begun = Instant::now();
    let names = bench.place.create_many("many", n).await?;
    let created = begun.elapsed();
    let begun = Instant::now();
    let answers: Vec<Result<()>> = stream::iter(&names).map(|name| bench.place.answer(name)).buffer_unordered(AT_ONCE * 4).collect().await;
    let asked = begun.elapsed();
    let answered = answers.iter().filter(|answer| answer.is_ok()).count();
    let first_error = answers.into_iter().find_map(Result::err).map(|error| error.chain());
    let begun = Instant::now();
    bench.place.clear().await?;
    let vmoon = json!({
        "sessions": n,
        "answered": answered,
        "created_in_us": us(created),
        "all_answered_in_us": us(asked),
        "deleted_in_us": us(begun.elapsed()),
        "first_error": first_error,
    });
    let lua = bench.lua(|exe| {
        let mut children = (0..n).map(|_| Child::spawn(exe, &["-e", LOOP], &[])).collect::<Result<Vec<Child>>>()?;
        for child in &mut children {
            child.write("return 1+1")?;
        }
        let answered = children.iter_mut().filter_map(|child| child.read().ok()).filter(|answer| answer == "2").count();
        Ok(json!({ "sessions": n, "answered": answered }))
    });
    let python = bench.python(Section::Many, json!({ "n": bench.rounds(600, 40) }));
    Ok(targets(section("sessions at once, all answering", vmoon, lua, python), &[("answered", n as f64, true)]))
}

/// What the computer has left, bytes.
fn available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or_default() << 10
}

/// Thousands of machines that idle, and a list of them.
pub(super) async fn thousands(bench: &Bench) -> Result<Value> {
    let n = bench.rounds(10_000, 300);
    // What the first one starts is no part of the others.
    bench.place.running("first", json!({})).await?;
    let before = available();
    let begun = Instant::now();
    let names = bench.place.run_many("idle", n).await?;
    let created = begun.elapsed();
    let begun = Instant::now();
    ask_all(bench.place.client(), &names).await?;
    let asked = begun.elapsed();
    let machine = before.saturating_sub(available()) / n as u64;
    let env = bench.place.env();
    let listed: Result<Vec<Duration>> =
        (0..bench.rounds(20, 5)).map(|_| whole(bench.place.exe(), &["list", "-o", "name"], &env, "first\n")).collect();
    let holders = bench.place.holders();
    let (daemon, _) = memory_of(&[bench.place.daemon()]);
    let mut all = holders;
    all.push(bench.place.daemon());
    let cores = idle_cores(&all).await;
    let begun = Instant::now();
    bench.place.clear().await?;
    let mut listed = listed?;
    listed.sort_unstable();
    let vmoon = json!({
        "sessions": n,
        "answered": n,
        "created_in_us": us(created),
        "all_answered_in_us": us(asked),
        "list_p50_us": us(listed[listed.len() / 2]),
        "idle_cores": cores,
        "machine_bytes_per_vm": machine,
        "pss_daemon_bytes": daemon,
        "deleted_in_us": us(begun.elapsed()),
    });
    let none = || Err("it cannot be had for so many".into());
    let figures = section("thousands of machines that idle, and a list of them", vmoon, none(), none());
    Ok(targets(
        figures,
        &[
            ("list_p50_us", 150_000.0, false),
            ("idle_cores", 0.01, false),
            ("machine_bytes_per_vm", f64::from(240 << 10), false),
            ("answered", n as f64, true),
        ],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_in_the_processor_time_within_less_than_a_tick() {
        let me = std::process::id() as i32;
        let (before, begun) = (processor(me), Instant::now());
        // Other tests' threads end meanwhile, and with them what they have counted: the most that was seen is what matters.
        let mut most = Duration::ZERO;
        while begun.elapsed() < Duration::from_secs(10) && most < Duration::from_millis(5) {
            most = most.max(processor(me).saturating_sub(before));
        }
        assert!(most >= Duration::from_millis(5), "the count does not move");
        assert_eq!(processor(-1), Duration::ZERO);
    }
}
