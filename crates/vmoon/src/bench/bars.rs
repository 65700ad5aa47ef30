//! What being confined, being many and being adopted costs: beginnings, batches, interrupts, one question to everybody.

use super::{
    Bench,
    child::{Child, LOOP, whole},
    report::{beside, section, summary, targets, us},
};
use serde_json::{Value, json};
use std::{
    ffi::OsString,
    path::Path,
    time::{Duration, Instant},
};
use vmoon_api::{Api as _, Client, requests::EvalMany};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::paths::private_dir;

/// Why a column is empty that could not be otherwise.
const NO_LIBRARY: &str = "the library has no such thing";

fn sorted_middle(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64) * 1e6
}

/// What confinement adds to a creation, by profile; machines of each kind take turns.
pub(super) async fn seal(bench: &Bench) -> Result<Value> {
    let n = bench.rounds(150, 20);
    let dir = bench.place.dir().join("seal");
    private_dir(&dir)?;
    let below = vmoon_driver_lua::bench::sealing(bench.place.exe(), &[OsString::from("lua-host")], &dir, n)?;
    let below = below.each_ref().map(|times| sorted_middle(times));
    let profiles = ["trusted", "files", "sealed"];
    let mut times = [const { Vec::new() }; 3];
    for round in 0..=n {
        for (times, profile) in times.iter_mut().zip(profiles) {
            let took = bench.place.running(&format!("seal-{profile}-{round}"), json!({ "profile": profile })).await?;
            // The first one starts the zygote.
            if round > 0 {
                times.push(took[1]);
            }
        }
    }
    bench.place.clear().await?;
    let [trusted, files, sealed] = times.each_ref().map(|times| sorted_middle(times));
    let tenth = |us: f64| json!((us * 10.0).round() / 10.0);
    let vmoon = json!({
        "n": n,
        "trusted_p50_us": tenth(trusted),
        "files_p50_us": tenth(files),
        "sealed_p50_us": tenth(sealed),
        "files_adds_us": tenth(files - trusted),
        "sealed_adds_us": tenth(sealed - trusted),
        "first_frame_p50_us": below.map(tenth),
        "files_add_to_first_frame_us": tenth(below[1] - below[0]),
        "sealed_adds_to_first_frame_us": tenth(below[2] - below[0]),
    });
    let figures = section(
        "create to running, by profile, and what the profile adds",
        vmoon,
        Err("a plain interpreter confines nothing".into()),
        Err(NO_LIBRARY.into()),
    );
    let wrapped = bench.bubblewrap(|wrap, words| wrapped(bench, wrap, words, n));
    Ok(targets(beside(figures, "bubblewrap", wrapped), &[("sealed_adds_to_first_frame_us", 150.0, false)]))
}

/// A plain interpreter in bubblewrap, beside one without: whole processes.
fn wrapped(bench: &Bench, wrap: &Path, words: &[&str], n: usize) -> Result<Value> {
    let program = ["-e", "print(1)"];
    let times = |exe: &Path, args: &[&str]| -> Result<Vec<Duration>> { (0..n).map(|_| whole(exe, args, &[], "1\n")).collect() };
    let lua = bench.lua.as_ref().map_err(|why| Error::new(Code::NotFound, why.clone()))?;
    let plain = times(lua, &program)?;
    let confined = times(wrap, &[words, &program].concat())?;
    let adds = sorted_middle(&confined) - sorted_middle(&plain);
    Ok(
        json!({ "n": n, "plain_p50_us": sorted_middle(&plain).round(), "wrapped_p50_us": sorted_middle(&confined).round(), "adds_us": adds.round() }),
    )
}

/// Endless loops of several shapes, interrupted.
pub(super) fn interrupt(bench: &Bench) -> Result<Value> {
    let dir = bench.place.dir().join("interrupt");
    private_dir(&dir)?;
    let n = bench.rounds(400, 40);
    let times = vmoon_driver_lua::bench::interrupt_latency(bench.place.exe(), &[OsString::from("lua-host")], &dir, n)?;
    let none = || Err("it has no interrupt that leaves the interpreter alive".into());
    let figures = section("from asking for an interrupt to the end of the command", summary(times), none(), none());
    Ok(targets(figures, &[("p50_us", 1_000.0, false)]))
}

/// Many creations under way at once, through the API and, below it, at the zygote.
pub(super) async fn batch(bench: &Bench) -> Result<Value> {
    let n = bench.rounds(1_000, 100);
    let dir = bench.place.dir().join("zygote");
    private_dir(&dir)?;
    // First: on some file systems making a file takes longer for some seconds after many were deleted.
    let below =
        vmoon_driver_lua::bench::creation(bench.place.exe(), &[OsString::from("lua-host")], &dir, n.min(500), super::place::AT_ONCE)?;
    let begun = Instant::now();
    bench.place.run_many("batch", n).await?;
    let took = begun.elapsed();
    let begun = Instant::now();
    bench.place.clear().await?;
    let deleted = begun.elapsed();
    let rate = |n: usize, took: Duration| json!((n as f64 / took.as_secs_f64()).round());
    let vmoon = json!({
        "machines": n,
        "created_per_second": rate(n, took),
        "deleted_per_second": rate(n, deleted),
        "zygote_per_second": below.per_second.round(),
        "zygote_first_frame_p50_us": sorted_middle(&below.first_frame).round(),
        "zygote_first_answer_p50_us": sorted_middle(&below.first_answer).round(),
    });
    let children = |exe: &Path, words: &[&str], n: usize| {
        let begun = Instant::now();
        let args = [words, &["-e", LOOP]].concat();
        let mut children = (0..n).map(|_| Child::spawn(exe, &args, &[])).collect::<Result<Vec<Child>>>()?;
        for child in &mut children {
            child.write("return 1+1")?;
        }
        for child in &mut children {
            child.read()?;
        }
        Ok(json!({ "machines": n, "created_per_second": rate(n, begun.elapsed()) }))
    };
    let lua = bench.lua(|exe| children(exe, &[], n));
    // Fewer: each is three processes, and the kernel takes namespaces down slowly.
    let wrapped = bench.bubblewrap(|wrap, words| children(wrap, words, n.min(200)));
    let figures = section("machines created, started and deleted, 32 under way at once", vmoon, lua, Err(NO_LIBRARY.into()));
    let figures = beside(figures, "bubblewrap", wrapped);
    Ok(targets(figures, &[("created_per_second", 5_000.0, true), ("zygote_first_frame_p50_us", 300.0, false)]))
}

/// The daemon is killed; a new one has every session again.
pub(super) async fn adopt(bench: &Bench) -> Result<Value> {
    let n = bench.rounds(1_000, 100);
    let names = bench.place.run_many("adopt", n).await?;
    ask_all(bench.place.client(), &names).await?;
    let mut times = Vec::new();
    for _ in 0..bench.rounds(5, 2) {
        let begun = Instant::now();
        bench.place.replace_daemon()?;
        // The connections of the other client are to the daemon that is dead.
        ask_all(&bench.place.new_client(), &names).await?;
        times.push(begun.elapsed());
    }
    // What asking alone takes of it.
    let begun = Instant::now();
    ask_all(bench.place.client(), &names).await?;
    let asked = begun.elapsed();
    bench.place.clear().await?;
    let median = sorted_middle(&times);
    let each = (median - asked.as_secs_f64() * 1e6) / n as f64;
    let vmoon = json!({
        "sessions": n,
        "killed_to_all_answered_p50_us": median.round(),
        "asking_alone_us": us(asked),
        "each_us": (each * 10.0).round() / 10.0,
    });
    let lost = || Err("its machines end with it".into());
    let figures = section("a killed daemon is replaced, until every session has answered the new one", vmoon, lost(), lost());
    Ok(targets(figures, &[("each_us", 250.0, false)]))
}

/// One evaluation in every one of these machines, all of which must answer.
pub(super) async fn ask_all(client: &Client, names: &[String]) -> Result<()> {
    let request = EvalMany {
        sessions: names.to_vec(),
        code: "1+1".into(),
        args: None,
        data: false,
        token: None,
        deadline_ms: None,
        wait_ms: None,
        max: None,
    };
    let views = client.eval_many(request).await?;
    let right = |view: &&vmoon_api::views::ManyView| {
        view.command.as_ref().and_then(|command| command.values.as_ref()).is_some_and(|values| values.0 == b"2")
    };
    match views.iter().find(|view| !right(view)) {
        None if views.len() == names.len() => Ok(()),
        wrong => Err(Error::new(Code::CommandFailed, format!("of {} sessions one answered {wrong:?}", names.len()))),
    }
}

/// One evaluation sent to 20 and to 1 000 machines with one request.
pub(super) async fn fan_out(bench: &Bench) -> Result<Value> {
    let sizes = [20, bench.rounds(1_000, 100)];
    let names = bench.place.run_many("fan", sizes[1]).await?;
    let mut vmoon = json!({ "sessions": sizes });
    let mut lua = json!({ "sessions": sizes });
    let mut plain = bench.lua.clone();
    for (size, field) in sizes.into_iter().zip(["few_p50_us", "many_p50_us"]) {
        let mut times = Vec::new();
        for round in 0..bench.rounds(100, 20) {
            let begun = Instant::now();
            ask_all(bench.place.client(), &names[..size]).await?;
            if round > 0 {
                times.push(begun.elapsed());
            }
        }
        vmoon[field] = sorted_middle(&times).round().into();
        match plain.as_ref().map_err(Clone::clone).and_then(|exe| ask_children(exe, size).map_err(|error| error.chain())) {
            Ok(times) => lua[field] = sorted_middle(&times).round().into(),
            Err(reason) => plain = Err(reason),
        }
    }
    bench.place.clear().await?;
    let figures = section(
        "one evaluation sent to some machines and to many, until all have answered",
        vmoon,
        plain.map(|_| lua),
        Err(NO_LIBRARY.into()),
    );
    Ok(targets(figures, &[("few_p50_us", 500.0, false), ("many_p50_us", 25_000.0, false)]))
}

fn ask_children(exe: &std::path::Path, n: usize) -> Result<Vec<Duration>> {
    let mut children = (0..n).map(|_| Child::spawn(exe, &["-e", LOOP], &[])).collect::<Result<Vec<Child>>>()?;
    let mut times = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        for child in &mut children {
            child.write("return 1+1")?;
        }
        for child in &mut children {
            child.read()?;
        }
        times.push(begun.elapsed());
    }
    Ok(times)
}
