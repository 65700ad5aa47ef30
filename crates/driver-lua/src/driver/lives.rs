//! Starting, ending and burying the lives of a machine. Everything here blocks for a bounded time and is called on a thread
//! that may.

use crate::{
    environments::{self, Environment, Environments},
    grants::{Granter, home, libraries, linked},
    host::BACKLOG,
    layout::{FLAGS, Layout, Life, MARK, Meta, Own, Record, Shape, Start, mark, remove_dir},
    link,
    ring::Remains,
    settings::{self, Runtime},
    zygote::{self, Answer, Fork, Zygotes},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, Mode, OFlags, flock},
    net::SocketType,
    process::Signal,
};
use std::{
    ffi::OsString,
    fs,
    io::{self, PipeReader, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use vmoon_confine::Profile;
use vmoon_core::{Code, Error, MachineId, Result, driver::Exit};
use vmoon_lua_wire::{hello::Versions, program::Options};
use vmoon_sys::{
    atomic, passing, paths,
    process::{Detached, Identity, Pidfd, Reaped, boot_id, reap},
    random, tree,
};

/// How long a holder may take until its socket answers.
const READY: Duration = Duration::from_secs(20);
/// How long killed processes may take to disappear.
const DEATH: Duration = Duration::from_secs(20);
/// How long an interrupted command may go on.
const GRACE_MS: u64 = 1000;

/// What a life is doing.
pub(super) enum Vital {
    /// Its holder runs.
    Alive(Arc<Meta>),
    /// It is over.
    Dead(Exit),
    /// It was begun and has not said that it answers.
    Unborn,
}

/// Holds off everybody else who would start or end this machine, in this process or another.
pub(super) struct Lock(#[expect(dead_code, reason = "the lock lasts as long as the descriptor")] OwnedFd);

pub(super) fn lock(layout: &Layout, id: MachineId) -> Result<Lock> {
    let dir = layout.machine(id);
    let failed = |error: rustix::io::Errno| Error::io(format_args!("lock {}", dir.display()), error.into());
    let fd = rustix::fs::open(&dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    loop {
        match flock(&fd, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(Lock(fd)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Looks at a life; what is dead is buried: its exit is recorded and nothing of it goes on.
pub(super) fn examine(id: MachineId, life: &Life) -> Result<Vital> {
    let Some(meta) = life.meta()? else {
        return Ok(life.exit().map_or(Vital::Unborn, Vital::Dead));
    };
    if meta.process.is_alive() {
        return Ok(Vital::Alive(Arc::new(meta)));
    }
    bury(id, life, &meta).map(Vital::Dead)
}

/// Records how a dead holder ended, and ends what it left behind.
fn bury(id: MachineId, life: &Life, meta: &Meta) -> Result<Exit> {
    let process = &meta.process;
    // What is recorded is true; only who has not recorded anything makes us ask its parent, which takes a while.
    if meta.zygote.is_some()
        && let Some(exit) = life.exit()
    {
        let _ = process.wait_end(DEATH);
        return Ok(exit);
    }
    // Nor does anybody ask how a process ended that was killed by us.
    let status = if meta.zygote.is_some() && life.is_condemned() { None } else { status(life, meta) };
    if let Some(exit) = life.exit() {
        return Ok(exit);
    }
    let said = Remains::open(&life.dir).ok().flatten().and_then(|remains| remains.exit);
    let exit = match said.or(status) {
        // Whoever kills a machine says so before, and may be later than us to say that it has worked.
        None | Some(Exit::Signal { signal: libc::SIGKILL }) if life.is_condemned() => Exit::Killed,
        exit => exit.unwrap_or(Exit::Lost),
    };
    // It did not end by itself, so nobody has looked after its children; unless it could have none, that costs a look at every process.
    if meta.zygote.is_none() || !life.is_alone() {
        let mark = format!("{MARK}={}", mark(id, life.number));
        tree::kill(process, Some(&mark), DEATH).map_err(|error| Error::io("end what a dead machine left behind", error))?;
    } else {
        process.wait_end(DEATH).map_err(|error| Error::io("wait for the end of a dead machine", error))?;
    }
    recorded(life.write_exit(&exit))?;
    Ok(exit)
}

/// What a full disk does not take is found out again by whoever asks next.
fn recorded(written: Result<()>) -> Result<()> {
    written.or_else(|error| if error.code() == Code::DiskFull { Ok(()) } else { Err(error) })
}

/// How a dead holder's process ended, by its parent: a zygote, or us. `None` if nobody knows.
fn status(life: &Life, meta: &Meta) -> Option<Exit> {
    if let Some(parent) = &meta.zygote {
        // A process is dead for its parent when its last thread is.
        let _ = meta.process.wait_end(DEATH);
        zygote::settle(life.boot(), parent);
        return life.status();
    }
    match meta.process.reap() {
        Reaped::Code(code) => Some(Exit::Code { code }),
        Reaped::Signal(signal) => Some(Exit::Signal { signal }),
        Reaped::Running | Reaped::Stranger => None,
    }
}

/// Ends a life that was begun by somebody who died before it answered.
pub(super) fn end_unborn(id: MachineId, life: &Life) -> Result<()> {
    // Whoever has begun it may have died with a request under way.
    zygote::settle_all(life.boot());
    kill_marked(id, life).map_err(|error| Error::io("end a machine that was half started", error))?;
    // It may have come up meanwhile, and even ended by itself.
    if life.exit().is_none() {
        recorded(life.write_exit(&Exit::Killed))?;
    }
    if let Some(meta) = life.meta()? {
        meta.process.reap();
    }
    Ok(())
}

/// Ends every process of a life of which no process is known.
pub(super) fn kill_marked(id: MachineId, life: &Life) -> io::Result<()> {
    // No process has this pid: only the mark counts.
    let nobody = Identity { pid: i32::MAX, start: 0, boot: boot_id().to_owned() };
    tree::kill(&nobody, Some(&format!("{MARK}={}", mark(id, life.number))), DEATH)
}

/// The ways to start a holder.
#[derive(Clone, Copy)]
pub(crate) struct Ways<'a> {
    /// Forks those with the embedded runtime.
    pub(crate) zygotes: &'a Zygotes,
    /// The program that is a holder.
    pub(crate) exe: &'a Path,
    /// What makes it one.
    pub(crate) args: &'a [OsString],
    /// What is spoken with it.
    pub(crate) speaks: Versions,
}

/// A life whose socket answers.
pub(super) struct Begun {
    pub(super) life: Life,
    /// The holder was called already, and will answer there.
    pub(super) call: Option<UnixStream>,
}

/// Starts a new life and returns it when its socket answers; `None` if one runs already.
pub(super) fn start(
    layout: &Layout,
    ways: Ways<'_>,
    environments: Option<&dyn Environments>,
    record: &Record,
    runtime: &Runtime,
) -> Result<Option<Begun>> {
    let id = record.id;
    let _lock = lock(layout, id)?;
    let lives = layout.lives(id)?;
    for life in &lives {
        match examine(id, life)? {
            Vital::Alive(_) => return Ok(None),
            Vital::Dead(_) => {}
            Vital::Unborn => end_unborn(id, life)?,
        }
    }
    let number = layout.last_number(id, &lives)? + 1;
    tidy(layout, id, &lives, number);
    let life = make_life(layout, id, number)?;
    let (start, environment) = plan(layout, record, &life, runtime, environments)?;
    if let Some(environment) = environment {
        life.uses(&environment)?;
    }
    match bear(layout, ways, &life, start) {
        Ok(call) => Ok(Some(Begun { life, call })),
        Err(error) => {
            // The record of the failure is worth less than the failure.
            let _ = life.write_exit(&Exit::Code { code: 1 });
            Err(error)
        }
    }
}

/// What the holder is told, and the environment it uses.
pub(super) fn plan(
    layout: &Layout,
    record: &Record,
    life: &Life,
    runtime: &Runtime,
    environments: Option<&dyn Environments>,
) -> Result<(Start, Option<Environment>)> {
    let settings = &record.settings;
    let state = layout.real_state();
    let work = layout.real_work(record);
    // An installed interpreter is told of an interrupt by a file, too.
    let flags = life.dir.join(FLAGS);
    let program = runtime.installed();
    if program.is_some() {
        paths::private_dir(&flags)?;
    }
    let flag = program.and_then(|_| flags.canonicalize().ok());
    let mut rules = Granter { state, home: home().as_deref() }
        .rules(settings, program, flag.as_deref())
        .map_err(|why| Error::new(Code::SpecInvalid, format!("what the machine was granted cannot be granted now: {why}")))?;
    rules.compiles = rules.profile != Profile::Trusted && matches!(runtime, Runtime::Embedded(flavour, _) if flavour.compiles);
    let mut places = Vec::new();
    if matches!(rules.profile, Profile::Files | Profile::Net) {
        places.push(work.clone());
        if program.is_none() && rules.profile == Profile::Files {
            places.push(layout.make_nursery(record)?);
        }
    }
    let mut grants = libraries(settings, Some(Path::new("")));
    let environment = environments::wanted(settings, environments)?;
    let root =
        if matches!(rules.profile, Profile::Files | Profile::Net) { environments.map(Environments::root).transpose()? } else { None };
    let linked = if rules.profile == Profile::Sealed && environment.is_some() { linked() } else { Vec::new() };
    environments::grant(&mut rules, &mut grants, root, environment.as_ref(), &linked);
    let modules = environment.as_ref().map(|environment| environment.modules(rules.profile != Profile::Sealed)).transpose();
    let modules = modules.map_err(|why| Error::new(Code::SpecInvalid, why))?;
    let own = Own {
        machine: record.id,
        life: life.number,
        work,
        places,
        overflow: settings.overflow,
        ring: settings.ring,
        spill: settings.spill,
        memory: settings.memory,
        grace_ms: GRACE_MS,
        command_time: settings.command_time,
        output: settings.output,
        work_size: settings.confinement.work_size,
    };
    let runtime = program.map_or_else(|| settings::BUILTIN.to_owned(), |path| path.to_string_lossy().into_owned());
    let lua = Options { grants, interrupt: settings.interrupt, modules, protocol: None };
    let start = Start { own, shape: Shape { runtime, rules, lua } };
    Ok((start, environment))
}

/// Makes the directory of a life.
pub(crate) fn make_life(layout: &Layout, id: MachineId, number: u64) -> Result<Life> {
    let (lives, life) = (layout.lives_dir(id), layout.life(id, number));
    // The directories above are there but for the first time, and each costs three system calls to check.
    if rustix::fs::mkdir(&lives, Mode::RWXU) == Err(rustix::io::Errno::NOENT) {
        paths::private_dir(&layout.runs())?;
        paths::private_dir(&layout.runs().join(boot_id()))?;
        paths::private_dir(&lives)?;
    }
    match rustix::fs::mkdir(&life.dir, Mode::RWXU) {
        Ok(()) => Ok(life),
        // A start that died between this and its first process.
        Err(_) => paths::private_dir(&life.dir).map(|()| life),
    }
}

/// Starts the process of a life and waits until it answers. Gives the call that was made to it meanwhile, if one was.
pub(crate) fn bear(layout: &Layout, ways: Ways<'_>, life: &Life, start: Start) -> Result<Option<UnixStream>> {
    if start.shape.runtime == settings::BUILTIN
        && let Some(newborn) = fork(layout, ways.zygotes, life, &start)?
    {
        let call = link::call(life, &newborn.key, ways.speaks);
        match newborn.outcome(ways.zygotes, life) {
            Born::Ready => return Ok(call),
            Born::Failed(error) => return Err(error),
            // The zygote was killed under our hands: what it may have made is ended, and this life begins anew.
            Born::Orphaned => {
                kill_marked(start.own.machine, life).map_err(|error| Error::io("end a failed start", error))?;
                remove_dir(&life.dir).map_err(|error| Error::io("begin a failed start anew", error))?;
                make_life(layout, start.own.machine, life.number)?;
            }
        }
    }
    atomic::write_json(&life.dir.join("start.json"), &start)?;
    spawn(ways.exe, ways.args, start.own.machine, life).map(|()| None)
}

/// A holder that a zygote was asked for.
pub(crate) struct Newborn {
    machine: MachineId,
    pub(crate) key: String,
    ready: PipeReader,
    conn: zygote::Conn,
}

enum Born {
    Ready,
    Failed(Error),
    Orphaned,
}

fn for_new(what: &str, error: io::Error) -> Error {
    Error::io(format_args!("{what} for a new machine"), error)
}

/// Asks a zygote for a holder; `None` if there is no zygote.
pub(crate) fn fork(layout: &Layout, zygotes: &Zygotes, life: &Life, start: &Start) -> Result<Option<Newborn>> {
    let listen = rustix::fs::open(&life.dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|dir| passing::listen(dir.as_fd(), "sock", SocketType::STREAM, BACKLOG))
        .map_err(|error| for_new("make a socket", error))?;
    let (ready, writer) = io::pipe().map_err(|error| for_new("make a pipe", error))?;
    let key = random::key();
    let fork = Fork { dir: life.dir.clone(), key: key.clone(), start: start.clone() };
    if let Some(conn) = zygotes.fork(layout, fork, &[listen.as_fd(), writer.as_fd()]) {
        return Ok(Some(Newborn { machine: start.own.machine, key, ready, conn }));
    }
    // The program makes its own.
    let _ = fs::remove_file(life.dir.join("sock"));
    Ok(None)
}

impl Newborn {
    /// Waits until it can be used.
    ///
    /// # Errors
    /// What the process has said, or that it was ended meanwhile.
    pub(crate) fn wait(self, zygotes: &Zygotes, life: &Life) -> Result<()> {
        match self.outcome(zygotes, life) {
            Born::Ready => Ok(()),
            Born::Failed(error) => Err(error),
            Born::Orphaned => Err(failure(b"the zygote was killed", false)),
        }
    }

    fn outcome(mut self, zygotes: &Zygotes, life: &Life) -> Born {
        let (said, late) = listen_to(&mut self.ready);
        let answer = self.conn.answer();
        if said == b"ready\n" {
            // An answer that cannot be read says nothing of the holder, which has spoken for itself.
            if answer.is_ok() {
                zygotes.keep(self.conn);
            }
            return Born::Ready;
        }
        let said = match answer {
            Ok((Answer::Failed { error }, _)) => error.into_bytes(),
            Ok(_) => said,
            Err(_) if said.is_empty() && !late => return Born::Orphaned,
            Err(_) => said,
        };
        if let Err(error) = kill_marked(self.machine, life) {
            return Born::Failed(Error::io("end a failed start", error));
        }
        zygotes.keep(self.conn);
        Born::Failed(failure(&said, late))
    }
}

/// What the holder says before it is ready, up to a line, and whether it took too long.
fn listen_to(ready: &mut PipeReader) -> (Vec<u8>, bool) {
    let until = Instant::now() + READY;
    let mut said = Vec::new();
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&*ready, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) => return (said, true),
            _ => {}
        }
        let mut bytes = [0; 512];
        match ready.read(&mut bytes) {
            Ok(n) if n > 0 && said.len() < 4096 => {
                said.extend_from_slice(&bytes[..n]);
                if said == b"ready\n" {
                    return (said, false);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return (said, false),
        }
    }
}

/// The error of a start, from what the process has said.
fn failure(said: &[u8], late: bool) -> Error {
    let said = String::from_utf8_lossy(&said[..said.len().min(4096)]).trim().to_owned();
    let why = if said.is_empty() && late { format!("it did not answer within {} s", READY.as_secs()) } else { said };
    let code = if why.contains("No space left") || why.contains("os error 28") { Code::DiskFull } else { Code::DriverFailed };
    Error::new(code, format!("the machine's process could not start: {}", vmoon_core::name::escape(&why)))
}

/// Starts a holder as a program.
fn spawn(exe: &Path, exe_args: &[OsString], id: MachineId, life: &Life) -> Result<()> {
    let stderr_path = life.dir.join("stderr");
    let stderr = fs::File::create(&stderr_path).map_err(|error| for_new("make a file", error))?;
    let (mut ready, writer) = io::pipe().map_err(|error| for_new("make a pipe", error))?;
    let mut args: Vec<&std::ffi::OsStr> = exe_args.iter().map(OsString::as_os_str).collect();
    args.push(life.dir.as_os_str());
    let mark = mark(id, life.number);
    let child = Detached { exe, args, env: vec![(MARK, &mark)], stdio: [None, Some(writer.as_fd()), Some(stderr.as_fd())] };
    let pid = child.spawn().map_err(|error| {
        Error::new(Code::DriverFailed, format!("could not start {}", exe.display())).source(error).hint("is vmoon installed where it was?")
    })?;
    drop(writer);
    let identity = Identity::of(pid);
    let (said, late) = listen_to(&mut ready);
    if said == b"ready\n" {
        // Nothing reads it any more, and a crash later has its own record.
        let _ = fs::remove_file(&stderr_path);
        return Ok(());
    }
    if let Some(identity) = identity {
        tree::kill(&identity, Some(&format!("{MARK}={mark}")), DEATH).map_err(|error| for_new("end a failed start", error))?;
    }
    reap(pid);
    Err(failure(&fs::read(&stderr_path).unwrap_or_default(), late))
}

/// Removes the files of lives that nobody can want any more: all but the previous one, and that too if it was read to its end.
pub(super) fn tidy(layout: &Layout, id: MachineId, lives: &[Life], next: u64) {
    for life in lives {
        let unread = Remains::open(&life.dir).ok().flatten().is_some_and(|remains| remains.acked < remains.end());
        if life.number + 1 < next || !unread {
            // What cannot be removed now is tried again at the next start.
            let _ = remove_dir(&life.dir);
        }
    }
    for dir in layout.earlier_boots(id) {
        let _ = remove_dir(&dir);
    }
}

/// Asks for a polite end. Does not wait.
pub(super) fn ask(process: &Identity) -> Result<()> {
    let failed = |error| Error::io("ask the machine to end", error);
    match Pidfd::open(process).map_err(failed)? {
        Some(fd) => fd.send(Signal::TERM).map_err(failed),
        None => Ok(()),
    }
}

/// Ends every life of the machine now, with everything it started.
pub(super) fn kill(layout: &Layout, id: MachineId) -> Result<()> {
    for life in layout.lives(id)? {
        match examine(id, &life)? {
            Vital::Dead(_) => {}
            Vital::Unborn => end_unborn(id, &life)?,
            Vital::Alive(meta) => {
                recorded(life.condemn())?;
                let mark = format!("{MARK}={}", mark(id, life.number));
                let ended = if life.is_alone() {
                    tree::kill_alone(&meta.process, DEATH)
                } else {
                    tree::kill_subreaper(&meta.process, Some(&mark), DEATH)
                };
                ended.map_err(|error| Error::io("end the machine", error))?;
                meta.process.reap();
                // It may have ended by itself in the last moment; then that is what happened.
                if life.exit().is_none() {
                    recorded(life.write_exit(&Exit::Killed))?;
                }
            }
        }
    }
    Ok(())
}

/// How the last run of a machine without a living holder ended; `None` if it never ran.
pub(super) fn last_exit(layout: &Layout, id: MachineId) -> Result<Option<Exit>> {
    if let Some(life) = layout.lives(id)?.last() {
        return Ok(Some(life.exit().unwrap_or(Exit::Lost)));
    }
    let lives = layout.earlier_boots(id).into_iter().flat_map(|dir| {
        let entries = fs::read_dir(&dir).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>()
    });
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
    Ok(lives.max_by_key(number).map(|dir| Life { number: 0, dir }.exit().unwrap_or(Exit::Rebooted)))
}
