//! Copying a running machine: what cannot be copied, its files, and the conversation with its holder (`forking` says what is said).
//! Everything here blocks for a bounded time.

use super::{Inner, LuaDriver, known, lives};
use crate::{
    flavour::Flavour,
    forking::{Birth, Said, Talk, Told},
    homes,
    host::{BACKLOG, store},
    layout::{Life, Meta, Record, Start},
    settings::{self, Settings},
    zygote,
};
use async_trait::async_trait;
use rustix::{
    fs::{Mode, OFlags},
    net::SocketType,
};
use serde_json::Value;
use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};
use vmoon_confine::{Profile, narrow};
use vmoon_core::{
    Code, Error, MachineId, Result,
    driver::{Clones, Driver, Exit, Handle, Plan, as_original},
    frame::tag,
    name::escape,
};
use vmoon_sys::{copy, passing, paths, peer, process::Identity, random, tree};

/// Where a plan says whose copy the machine is.
pub(super) const ORIGINAL: &str = "copy_of";
/// The main thread and that for I/O.
const THREADS: usize = 2;
/// How long a copy that failed may take to be dead.
const DEATH: Duration = Duration::from_secs(10);

/// Whose copy a plan makes, if any.
pub(super) fn original(plan: &Plan) -> Result<Option<MachineId>> {
    let bad = |error| Error::internal("the plan is not one of the Lua driver").source(error);
    plan.settings.get(ORIGINAL).map(|id| serde_json::from_value(id.clone()).map_err(bad)).transpose()
}

/// What a copy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It goes on as a machine.
    Living,
    /// It waits, to be copied itself.
    Frozen,
}

fn refused(name: &str, why: &[String]) -> Error {
    let list: Vec<String> = why.iter().map(|one| escape(one)).collect();
    let error = Error::new(Code::MachineNotCopyable, format!("{} cannot be copied now: {}", escape(name), list.join("; ")));
    if why.iter().any(|one| one.starts_with("descriptor")) {
        return error.hint("close what is open; what nothing refers to any more is closed by collectgarbage()");
    }
    error
}

/// What of a machine's settings can never be copied.
fn hindrances(settings: &Settings) -> Vec<String> {
    let mut why = Vec::new();
    if !settings::is_embedded(&settings.runtime) {
        why.push(format!("its interpreter {} is a program of its own", settings.runtime));
    }
    if settings.confinement.profile == Profile::Net {
        why.push("its connections are made by a broker that knows only this process (profile net)".into());
    }
    why
}

/// What the process has that a copy would lack, or share.
fn possessions(meta: &Meta, descriptors: &[i32], settings: &Settings) -> io::Result<Vec<String>> {
    let pid = meta.process.pid;
    let mut why = Vec::new();
    let children = tree::count(&meta.process, None);
    if children > 0 {
        why.push(format!("{children} processes that it has started"));
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task"))?.count();
    if threads > THREADS {
        why.push(format!("{} threads that a C module has started", threads - THREADS));
    }
    let mut open = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if !descriptors.contains(&number) {
            let what = fs::read_link(entry.path()).map_or_else(|_| "?".into(), |path| path.to_string_lossy().into_owned());
            open.push((number, what));
        }
    }
    open.sort_unstable();
    why.extend(open.into_iter().map(|(number, what)| format!("descriptor {number} is open ({what})")));
    let confined = settings.confinement.profile != Profile::Trusted;
    if confined && let Some(parent) = &meta.zygote {
        // A module could keep the token, with which it could fork as often as it likes.
        let born_with = code(parent.process.pid)?;
        // What a Lua that compiles has made is Lua, and no file holds it.
        let compiles = Flavour::of(&settings.runtime).is_some_and(|flavour| flavour.compiles);
        let made = |path: &str| compiles && path == NO_FILE;
        let mut modules: Vec<String> = code(pid)?.into_iter().filter(|path| !born_with.contains(path) && !made(path)).collect();
        modules.sort_unstable();
        why.extend(modules.into_iter().map(|path| format!("C module {path} is loaded")));
    }
    Ok(why)
}

/// Code that no file holds.
const NO_FILE: &str = "without a file";

/// What a process has mapped for execution (proc_pid_maps(5)).
fn code(pid: i32) -> io::Result<HashSet<String>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let of = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let executable = fields.nth(1)?.contains('x');
        executable.then(|| fields.skip(3).collect::<Vec<_>>().join(" "))
    };
    Ok(maps.lines().filter_map(of).map(|path| if path.is_empty() { NO_FILE.into() } else { path }).collect())
}

impl Inner {
    /// Which life of a machine is to be copied, and who it is.
    pub(super) fn living(&self, record: &Record) -> Result<(Life, Arc<Meta>)> {
        let mut why = hindrances(&record.settings);
        let life = self.layout.lives(record.id)?.pop();
        let vital = life.as_ref().map(|life| lives::examine(record.id, life)).transpose()?;
        let (Some(life), Some(lives::Vital::Alive(meta))) = (life, vital) else {
            return Err(Error::new(Code::MachineStopped, format!("{} does not run, so there is no state to copy", escape(&record.name))));
        };
        if why.is_empty() && (meta.fork_token.is_none() || meta.zygote.is_none()) {
            why.push("its process was started by an older vmoon, or without a zygote; stop and start it".into());
        }
        if why.is_empty() { Ok((life, meta)) } else { Err(refused(&record.name, &why)) }
    }

    fn plan_copy(&self, name: &str, original: MachineId) -> Result<Plan> {
        let record = self.record(original)?;
        self.living(&record)?;
        let mut settings = serde_json::to_value(&record.settings).unwrap_or_default();
        settings[ORIGINAL] = Value::from(original.to_string());
        let steps = vec![
            format!("stop {} between two commands", record.name),
            format!("copy its work directory for {name}"),
            format!("fork its process; {} and {name} go on with equal states", record.name),
        ];
        Ok(Plan { name: name.to_owned(), steps, settings })
    }

    /// Makes a machine that goes on from where another one is.
    pub(super) fn copy(&self, id: MachineId, name: &str, settings: Settings, original: MachineId) -> Result<Handle> {
        let handle = Handle(id.to_string());
        if self.layout.record(id)?.is_some_and(|record| record.complete) {
            return Ok(handle);
        }
        let source = self.record(original)?;
        let _lock = lives::lock(&self.layout, original)?;
        let (source_life, source_meta) = self.living(&source)?;
        let (talk, runtime) = self.hold(&source, &source_life, &source_meta)?;

        paths::private_dir(&self.layout.machines())?;
        paths::private_dir(&self.layout.machine(id))?;
        let home = homes::fresh(&self.layout.nursery(&source), id);
        let mut record = Record { id, name: name.to_owned(), settings, complete: false, home: Some(home) };
        // Before there is a home: whoever deletes what a crash has left finds it.
        self.layout.write(&record)?;
        self.layout.make_nursery(&source)?;
        self.layout.make_home(&record)?;
        self.copy_files(&source, &record)?;
        let life = lives::make_life(&self.layout, id, 1)?;
        if let Err(error) = self.fork(talk, (&source_life, &source_meta), &record, &life, runtime, Kind::Living) {
            // The record of the failure is worth less than the failure.
            let _ = life.write_exit(&Exit::Code { code: 1 });
            return Err(error);
        }
        record.complete = true;
        self.layout.write(&record)?;
        Ok(handle)
    }

    /// Has the holder stand still, as long as the connection lasts, and looks at what it has; what it says of its runtime.
    pub(super) fn hold(&self, record: &Record, life: &Life, meta: &Meta) -> Result<(Talk, String)> {
        let broken = |error: io::Error| Error::new(Code::DriverUnreachable, "the machine's process does not answer").source(error);
        let socket = rustix::fs::open(&life.dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|dir| passing::connect(dir.as_fd(), "sock", SocketType::STREAM))
            .map_err(broken)?;
        peer::check(&socket)?;
        let mut talk = Talk::new(socket);
        talk.say(tag::FORK, &Told::Ask { key: meta.key.clone() }, &[]).map_err(broken)?;
        let mut why = match talk.answer() {
            Ok(Said::Ready { descriptors, runtime }) => {
                let why =
                    possessions(meta, &descriptors, &record.settings).map_err(|error| Error::io("look at the machine's process", error))?;
                if why.is_empty() {
                    return Ok((talk, runtime));
                }
                why
            }
            Ok(Said::Refused { why }) => why,
            // It has answered as to a hello.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => vec!["its process is of an older vmoon; stop and start it".into()],
            Ok(_) => return Err(broken(io::ErrorKind::InvalidData.into())),
            Err(error) => return Err(broken(error)),
        };
        why.truncate(32);
        Err(refused(&record.name, &why))
    }

    /// Fills the empty work directory of one with that of the other.
    pub(super) fn copy_files(&self, source: &Record, record: &Record) -> Result<()> {
        let failed = |error: io::Error| Error::io("copy the work directory", error);
        let open = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))
        };
        let (from, to) = (open(&self.layout.work(source))?, open(&self.layout.work(record))?);
        copy::tree(from.as_fd(), to.as_fd()).map_err(failed)
    }

    /// Forks the holder that stands still, and makes the copy this life.
    pub(super) fn fork(
        &self,
        mut talk: Talk,
        (source_life, source): (&Life, &Meta),
        record: &Record,
        life: &Life,
        runtime: String,
        kind: Kind,
    ) -> Result<()> {
        let failed = |what: &str, error: io::Error| Error::io(format_args!("{what} for the copy of a machine"), error);
        let place = settings::find(&record.settings.runtime).map_err(|message| Error::new(Code::RuntimeNotFound, message))?;
        let (start, _) = lives::plan(&self.layout, record, life, &place, self.environments.as_deref())?;
        life.inherits(source_life)?;
        let [ring, spill] = store::files(&life.dir, start.own.ring).map_err(|error| failed("make files", error))?;
        let listen = rustix::fs::open(&life.dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|dir| passing::listen(dir.as_fd(), "sock", SocketType::STREAM, BACKLOG))
            .map_err(|error| failed("make a socket", error))?;
        // What runs no code is narrowed no further, so that its own copies may be given any home it could have had.
        let ruleset = if kind == Kind::Frozen { None } else { ruleset(&start)? };

        let unheard = |error: io::Error| {
            let why = if error.kind() == io::ErrorKind::BrokenPipe { "the process has ended" } else { "the process does not answer" };
            Error::new(Code::DriverFailed, format!("the machine could not be copied: {why}")).source(error)
        };
        let said = |said: Said| match said {
            Said::Failed { error } => Error::new(Code::DriverFailed, format!("the machine could not be copied: {}", escape(&error))),
            _ => Error::new(Code::WireMalformed, "the machine's process says something unexpected"),
        };
        talk.say(tag::FORK, &Told::Fork { token: source.fork_token.unwrap_or(0) }, &[]).map_err(unheard)?;
        let pid = match talk.answer().map_err(unheard)? {
            Said::Forked { pid } => pid,
            other => return Err(said(other)),
        };
        let process = self.sibling(pid, source)?;
        let meta = Meta {
            key: random::key(),
            process: process.clone(),
            life: life.number,
            runtime,
            zygote: source.zygote.clone(),
            fork_token: source.fork_token,
            // What holds the original holds the copy.
            layers: source_life.layers(),
        };
        if kind == Kind::Living
            && let Some(parent) = &meta.zygote
            && let Err(error) = zygote::adopt(life.boot(), parent, pid, record.id, life.number)
        {
            tracing::warn!(%error, machine = %record.name, "how the copy ends will not be recorded by its zygote");
        }
        // From here on it is found, whatever happens to us.
        meta.record(&life.dir.join("meta.json"))?;
        let birth = Birth {
            machine: record.id,
            life: life.number,
            key: meta.key.clone(),
            process,
            dir: life.dir.clone(),
            work: start.own.work,
            overflow: start.own.overflow,
            ring: start.own.ring,
            spill: start.own.spill,
            narrow: ruleset.is_some().then(narrow::abi),
            frozen: kind == Kind::Frozen,
        };
        let mut beside = vec![listen.as_fd(), ring.as_fd(), spill.as_fd()];
        beside.extend(ruleset.as_ref().map(OwnedFd::as_fd));
        let born = talk.say(tag::FORK, &Told::Live(Box::new(birth)), &beside).map_err(unheard).and_then(|()| {
            match talk.answer().map_err(unheard)? {
                Said::Born => Ok(()),
                other => Err(said(other)),
            }
        });
        if born.is_err() {
            drop(talk);
            tree::kill(&meta.process, None, DEATH).map_err(|error| failed("end what was made", error))?;
        }
        born
    }

    /// The process that the original says it has forked: a child of the same zygote.
    fn sibling(&self, pid: i32, source: &Meta) -> Result<Identity> {
        let found = source.zygote.as_ref().and_then(|zygote| Identity::of_child(pid, zygote.process.pid));
        found.ok_or_else(|| Error::new(Code::DriverFailed, format!("the machine's process says that {pid} is its copy, which it is not")))
    }
}

/// What leaves the copy its own directory only.
fn ruleset(start: &Start) -> Result<Option<OwnedFd>> {
    if start.shape.rules.profile == Profile::Trusted {
        return Ok(None);
    }
    narrow::ruleset(&start.rules())
        .map(Some)
        .map_err(|error| Error::new(Code::DriverFailed, format!("the machine cannot be copied: {error}")))
}

#[async_trait]
impl Clones for LuaDriver {
    async fn plan(&self, name: &str, original: &Handle) -> Result<Plan> {
        let (id, name) = (known(original)?, name.to_owned());
        self.blocking(move |inner| inner.plan_copy(&name, id)).await
    }

    async fn plan_with(&self, name: &str, original: &Handle, settings: &serde_json::Map<String, Value>) -> Result<Plan> {
        as_original(&self.info(), &[], self.tune().is_some(), settings).or(())?;
        Clones::plan(self, name, original).await
    }
}
