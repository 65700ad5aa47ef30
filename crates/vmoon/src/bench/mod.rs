//! `vmoon bench`: what vmoon costs, beside a plain `lua` child on pipes and the Python library it replaces.
//!
//! Everything happens in a private daemon in a directory of its own; the user's daemon is never asked. The figures are one
//! JSON object: durations in microseconds, memory in bytes. Knows nothing of how the daemon works: it is a client.

mod bars;
mod child;
mod crowd;
mod mirror;
mod packages;
pub(crate) mod place;
mod programs;
mod python;
mod report;
mod speed;
mod truth;

use crate::{ctx::Ctx, exit::Exit, out::json};
use place::Place;
use report::Column;
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use serde_json::{Map, Value, json};
use std::{env, path::PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use vmoon_core::{Code, Error, Result, name::escape};

const EXAMPLES: &str = "Prints JSON. Without --quick everything takes some minutes, and other work on the computer shows in the figures.

Examples:
  vmoon bench > figures.json
  vmoon bench eval create --quick
  vmoon bench --pin --python venv/bin/python";

/// The release of the library that is measured.
const LIBRARY: &str = "pylua-bioxen-vm-lib==0.1.22";

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to measure; everything if none is named
    #[arg(value_enum, value_name = "SECTION")]
    sections: Vec<Section>,
    /// Fewer rounds and fewer machines: rough figures in a minute
    #[arg(long)]
    quick: bool,
    /// The Lua interpreter to compare with
    #[arg(long, value_name = "PROGRAM", default_value = "lua5.4")]
    lua: String,
    /// A Python interpreter that has the library pylua-bioxen-vm-lib (and perhaps lupa); without it those columns are null
    #[arg(long, value_name = "PROGRAM")]
    python: Option<String>,
    /// Bind everything to one processor
    #[arg(long)]
    pin: bool,
}

/// A thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Section {
    /// An evaluation on a VM's own socket
    Worker,
    /// An evaluation through client, daemon and VM
    Eval,
    /// From asking for a machine to its first answer
    Create,
    /// A whole process that runs one line of Lua
    Run,
    /// A whole process of `vmoon list`
    List,
    /// Wrong, missing and reordered answers
    Correct,
    /// What many idle sessions cost
    Idle,
    /// One command to each of 20 sessions at once
    Parallel,
    /// How many sessions answer at once
    Many,
    /// 100 MB of output
    Output,
    /// What confinement adds to a creation
    Seal,
    /// How fast programs run in a sealed VM
    Speed,
    /// How fast they run with another Lua inside
    Flavours,
    /// One script over many items
    Map,
    /// From asking for an interrupt to the end of the command
    Interrupt,
    /// Creations and deletions per second
    Batch,
    /// What a killed daemon's successor needs for each session
    Adopt,
    /// One evaluation sent to 20 and to 1 000 machines
    FanOut,
    /// 10 000 idle machines at once, all answering, and a list of them
    Thousands,
    /// Installing, solving, listing and reading manifests, beside luarocks
    Packages,
}

impl Section {
    fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What every section measures with.
struct Bench {
    place: Place,
    quick: bool,
    pinned: bool,
    lua: Result<PathBuf, String>,
    python: Result<python::Python, String>,
}

impl Bench {
    /// This many, or that many when it has to be quick.
    fn rounds(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// The column of the plain interpreter.
    fn lua(&self, measure: impl FnOnce(&std::path::Path) -> Result<Value>) -> Column {
        self.lua.clone().and_then(|exe| measure(&exe).map_err(|error| error.chain()))
    }

    /// The column of a plain interpreter that bubblewrap confines about as a sealed machine is: the program, and its words before the interpreter's.
    fn bubblewrap(&self, measure: impl FnOnce(&std::path::Path, &[&str]) -> Result<Value>) -> Column {
        let wrap = child::find("bwrap").ok_or("there is no program bwrap")?;
        let lua = self.lua.clone()?;
        let lua = lua.to_string_lossy();
        let words = ["--ro-bind", "/", "/", "--unshare-all", "--die-with-parent", "--", &lua];
        measure(&wrap, &words).map_err(|error| error.chain())
    }

    /// A column of the Python that is measured: Lua in its own process by lupa, if it has that.
    fn lupa(&self, section: Section, parameters: Value) -> Column {
        self.python.as_ref().map_err(Clone::clone)?.measure(&format!("lupa-{}", section.name()), &parameters)
    }

    /// The column of the Python library.
    fn python(&self, section: Section, parameters: Value) -> Column {
        self.python.as_ref().map_err(Clone::clone)?.measure(&section.name(), &parameters)
    }

    async fn measure(&self, section: Section) -> Result<Value> {
        match section {
            Section::Worker => speed::worker(self),
            Section::Eval => speed::eval(self).await,
            Section::Create => speed::create(self).await,
            Section::Run => speed::run(self),
            Section::List => speed::list(self).await,
            Section::Correct => truth::correct(self).await,
            Section::Idle => crowd::idle(self).await,
            Section::Parallel => speed::parallel(self).await,
            Section::Many => crowd::many(self).await,
            Section::Output => truth::output(self).await,
            Section::Seal => bars::seal(self).await,
            Section::Speed => programs::speed(self).await,
            Section::Flavours => programs::flavours(self).await,
            Section::Map => programs::map(self),
            Section::Interrupt => bars::interrupt(self),
            Section::Batch => bars::batch(self).await,
            Section::Adopt => bars::adopt(self).await,
            Section::FanOut => bars::fan_out(self).await,
            Section::Thousands => crowd::thousands(self).await,
            Section::Packages => packages::packages(self),
        }
    }
}

/// Measures and prints. The exit code is 1 when a section could not be measured; its place in the JSON says why.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    raise_limits();
    // Before anything is bound: it counts the processors that there are.
    let mut machine = report::machine();
    let pinned = args.pin.then(pin).transpose()?;
    machine.insert("pinned_to_cpu".into(), json!(pinned));
    machine.insert("quick".into(), json!(args.quick));
    let sections = if args.sections.is_empty() { <Section as clap::ValueEnum>::value_variants().to_vec() } else { args.sections };

    let lua = child::find(&args.lua).ok_or_else(|| format!("there is no program {}", escape(&args.lua)));
    machine.insert("lua".into(), lua.as_ref().map_or(Value::Null, |exe| child::first_line(exe, &["-v"]).into()));
    let place = Place::open()?;
    let python = match &args.python {
        Some(python) => python::Python::find(python, &args.lua, place.dir()),
        None => Err(format!("not asked for: --python names an interpreter that has {LIBRARY}")),
    };
    machine.insert("python".into(), python.as_ref().map_or(Value::Null, |python| python.version().into()));

    let bench = Bench { place, quick: args.quick, pinned: pinned.is_some(), lua, python };
    let mut stop = [SignalKind::interrupt(), SignalKind::terminate()].into_iter().map(signal);
    let (Some(Ok(mut interrupt)), Some(Ok(mut terminate))) = (stop.next(), stop.next()) else {
        bench.place.close().await?;
        return Err(Error::internal("signals cannot be listened for"));
    };
    let mut figures = Map::new();
    let mut failed = Vec::new();
    let work = async {
        for section in sections {
            ctx.out.step(&format!("measuring {}", section.name()));
            let figure = bench.measure(section).await.unwrap_or_else(|error| {
                failed.push(section.name());
                json!({ "error": error.chain() })
            });
            figures.insert(section.name(), figure);
        }
    };
    let stopped = tokio::select! {
        () = work => false,
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
    };
    let left = bench.place.close().await?;
    if stopped {
        return Err(Error::new(Code::Cancelled, "the measurement was stopped"));
    }
    if left > 0 {
        failed.push(format!("{left} processes were left over when every machine was deleted"));
    }
    let report = json!({ "machine": machine, "sections": figures, "failed": failed, "left_over_processes": left });
    ctx.out.bytes(&json::pretty(&report)?)?;
    Ok(if failed.is_empty() { Exit::OK } else { Exit(1) })
}

/// Binds this thread, and so everything it starts from now on, to the first processor it may use.
fn pin() -> Result<usize> {
    let failed = |error: rustix::io::Errno| Error::io("bind the measurement to one processor", error.into());
    let allowed = sched_getaffinity(None).map_err(failed)?;
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap_or(0);
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).map_err(failed)?;
    Ok(first)
}

/// A plain child costs two descriptors, and a thousand are measured.
fn raise_limits() {
    let limit = getrlimit(Resource::Nofile);
    // Refused only where the hard limit was lowered meanwhile; then the old limit stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Where temporary files go.
fn temporary() -> PathBuf {
    env::var_os("TMPDIR").map(PathBuf::from).filter(|dir| dir.is_absolute()).unwrap_or_else(|| "/tmp".into())
}
