//! How long things take: an evaluation, a creation, a whole process, twenty commands at once.

use super::{
    Bench, Section,
    child::{Child, LOOP, whole},
    report::{beside, section, summary, targets},
};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use std::{
    ffi::OsString,
    path::Path,
    time::{Duration, Instant},
};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::paths::private_dir;

/// Evaluations on a holder's own socket, beside the same on the pipes of a plain interpreter.
pub(super) fn worker(bench: &Bench) -> Result<Value> {
    let n = bench.rounds(10_000, 1_000);
    let dir = bench.place.dir().join("worker");
    private_dir(&dir)?;
    let times = vmoon_driver_lua::bench::host_roundtrip(bench.place.exe(), &[OsString::from("lua-host")], &dir, n)?;
    let figures = section(
        "evaluation round trip at the worker's socket",
        summary(times),
        bench.lua(|exe| Ok(summary(pipe_round_trips(exe, n)?))),
        Err("the library has no socket".into()),
    );
    Ok(targets(figures, &[("p50_us", if bench.pinned { 20.0 } else { 50.0 }, false)]))
}

fn pipe_round_trips(exe: &Path, n: usize) -> Result<Vec<Duration>> {
    let mut child = Child::spawn(exe, &["-e", LOOP], &[])?;
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let begun = Instant::now();
        child.write("return 1+1")?;
        let answer = child.read()?;
        times.push(begun.elapsed());
        expect(&answer, "2")?;
    }
    Ok(times)
}

fn expect(answer: &str, wanted: &str) -> Result<()> {
    if answer == wanted { Ok(()) } else { Err(Error::new(Code::CommandFailed, format!("\"{answer}\" is not the answer"))) }
}

/// Evaluations through the client library, the daemon and the VM.
pub(super) async fn eval(bench: &Bench) -> Result<Value> {
    let n = bench.rounds(10_000, 1_000);
    bench.place.create("eval").await?;
    for _ in 0..100 {
        bench.place.answer("eval").await?;
    }
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let begun = Instant::now();
        let view = bench.place.eval("eval", "1+1").await?;
        times.push(begun.elapsed());
        expect(&view.values.unwrap_or_default().lossy(), "2")?;
    }
    bench.place.clear().await?;
    let figures = section(
        "evaluation round trip, client library to daemon to VM and back",
        summary(times),
        bench.lua(|exe| Ok(summary(pipe_round_trips(exe, n)?))),
        bench.python(Section::Eval, json!({ "n": bench.rounds(100, 10) })),
    );
    let figures = beside(figures, "lupa", bench.lupa(Section::Eval, json!({ "n": n })));
    Ok(targets(figures, &[("p50_us", 120.0, false), ("p95_us", 400.0, false)]))
}

/// How long nothing is asked between two creations of the second series, as when somebody types: what one has left to be done is done then, and nothing is
/// in the caches any more.
const PAUSE: Duration = Duration::from_millis(20);

/// From asking for a machine to its first answer.
pub(super) async fn create(bench: &Bench) -> Result<Value> {
    let n = bench.rounds(50, 20);
    let mut series = [Vec::with_capacity(n), Vec::with_capacity(n)];
    for (times, pause) in series.iter_mut().zip([Duration::ZERO, PAUSE]) {
        for i in 0..n {
            tokio::time::sleep_until(tokio::time::Instant::now() + pause).await;
            times.push(bench.place.create(&format!("create{}-{i}", pause.as_millis())).await?);
        }
        bench.place.clear().await?;
    }
    let mut waited = Vec::with_capacity(n);
    for i in 0..n {
        waited.push(bench.place.create_and_wait(&format!("waited-{i}")).await?);
    }
    bench.place.clear().await?;
    let [times, paused] = series;
    let phase = |of: &[[Duration; 2]], which: usize| summary(of.iter().map(|phases| phases[which]).collect());
    let mut vmoon = phase(&times, 1);
    for (field, of, which) in [
        ("of_which_until_accepted_p50_us", &times, 0),
        ("after_a_pause_p50_us", &paused, 1),
        ("until_running_p50_us", &waited, 0),
        ("asked_when_it_runs_p50_us", &waited, 1),
    ] {
        vmoon[field] = phase(of, which)["p50_us"].take();
    }
    let children = |exe: &Path, words: &[&str]| {
        let mut times = Vec::with_capacity(n);
        for _ in 0..n {
            let begun = Instant::now();
            let mut child = Child::spawn(exe, &[words, &["-e", LOOP]].concat(), &[])?;
            child.write("return 1+1")?;
            let answer = child.read()?;
            times.push(begun.elapsed());
            expect(&answer, "2")?;
        }
        Ok(summary(times))
    };
    let python = bench.python(Section::Create, json!({ "n": bench.rounds(50, 5) }));
    let figures = section("create and start to first answer", vmoon, bench.lua(|exe| children(exe, &[])), python);
    let figures = beside(figures, "bubblewrap", bench.bubblewrap(children));
    let figures = beside(figures, "lupa", bench.lupa(Section::Create, json!({ "n": n })));
    Ok(targets(figures, &[("p50_us", 1_000.0, false)]))
}

/// Whole processes that run one line of Lua.
pub(super) fn run(bench: &Bench) -> Result<Value> {
    let n = bench.rounds(300, 50);
    let times = |exe: &Path, args: &[&str]| -> Result<Value> {
        let env = bench.place.env();
        let times: Result<Vec<Duration>> = (0..n).map(|_| whole(exe, args, &env, "1\n")).collect();
        Ok(summary(times?))
    };
    let mut python = bench.python(Section::Run, json!({ "n": n }));
    if let (Ok(figures), Ok(interpreter)) = (&mut python, &bench.python) {
        // The figures are of a call in a Python that runs already; a user who starts one pays this as well.
        let env = [];
        let import: Result<Vec<Duration>> =
            (0..5).map(|_| whole(interpreter.exe(), &["-c", "import pylua_bioxen_vm_lib"], &env, "")).collect();
        figures["whole_process_of_an_import"] = import.map_or(Value::Null, summary);
    }
    let program = ["-e", "print(1)"];
    let figures = section(
        "one-shot run of print(1), whole process",
        times(bench.place.exe(), &[&["run"][..], &program].concat())?,
        bench.lua(|exe| times(exe, &program)),
        python,
    );
    Ok(beside(figures, "bubblewrap", bench.bubblewrap(|wrap, words| times(wrap, &[words, &program].concat()))))
}

/// Whole processes of `vmoon list`.
pub(super) async fn list(bench: &Bench) -> Result<Value> {
    let n = bench.rounds(200, 50);
    bench.place.create_many("list", 10).await?;
    let env = bench.place.env();
    let times: Result<Vec<Duration>> = (0..n).map(|_| whole(bench.place.exe(), &["list", "-o", "name"], &env, "list0\n")).collect();
    bench.place.clear().await?;
    let figures = section(
        "vmoon list with a running daemon and 10 machines, whole process",
        summary(times?),
        Err("a plain interpreter has no list".into()),
        Err("the library forgets its machines when its process ends".into()),
    );
    Ok(targets(figures, &[("p50_us", 10_000.0, false)]))
}

/// One command to each of 20 sessions at once; a round is over when all have answered.
pub(super) async fn parallel(bench: &Bench) -> Result<Value> {
    let (sessions, n) = (20, bench.rounds(200, 50));
    let names = bench.place.create_many("parallel", sessions).await?;
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let begun = Instant::now();
        try_join_all(names.iter().map(|name| bench.place.answer(name))).await?;
        times.push(begun.elapsed());
    }
    bench.place.clear().await?;
    let lua = bench.lua(|exe| {
        let mut children = (0..sessions).map(|_| Child::spawn(exe, &["-e", LOOP], &[])).collect::<Result<Vec<Child>>>()?;
        let mut times = Vec::with_capacity(n);
        for _ in 0..n {
            let begun = Instant::now();
            for child in &mut children {
                child.write("return 1+1")?;
            }
            for child in &mut children {
                expect(&child.read()?, "2")?;
            }
            times.push(begun.elapsed());
        }
        Ok(of_sessions(sessions, times))
    });
    let python = bench.python(Section::Parallel, json!({ "n": sessions }));
    Ok(section("one command to each of 20 sessions at once, until all have answered", of_sessions(sessions, times), lua, python))
}

fn of_sessions(sessions: usize, times: Vec<Duration>) -> Value {
    let mut figures = summary(times);
    figures["sessions"] = sessions.into();
    figures["answered"] = sessions.into();
    figures
}
