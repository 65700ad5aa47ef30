//! The holder: the process that is a Lua VM.
//!
//! It owns the interpreter, what it has said and nobody has stored, and a private socket. It depends on nothing that may
//! die before it: no daemon, no runtime directory, no terminal.

mod asker;
pub(crate) mod builtin;
pub(crate) mod conn;
pub(crate) mod core;
pub mod engine;
pub(crate) mod external;
pub mod hub;
mod names;
mod poll;
pub(crate) mod store;
mod term;

use crate::{
    forking::scrub,
    layout::{Meta, Shape, Start, trusted},
    settings,
    zygote::{Fork, Parent, Request},
};
use hub::{
    Hub, Stream,
    fork::{Looks, keep_looks},
    room::Room,
};
use rustix::{
    fs::{Mode, OFlags},
    net::SocketType,
};
use serde::de::IgnoredAny;
use std::{
    ffi::OsString,
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};
use vmoon_confine::{Layer, Prepared, Profile, Report, Rules, Ruleset, Status};
use vmoon_core::driver::Exit;
use vmoon_lua_wire::program::Options;
use vmoon_sys::{
    atomic, fork, passing,
    process::{Identity, boot_id},
    random,
};

/// The hidden verb of the launcher that confines itself and becomes an installed interpreter.
pub const LAUNCHER: &str = "lua-confine";
/// Stack of the I/O thread, bytes: it keeps a few small buffers and calls no user code.
const IO_STACK: usize = 128 << 10;
/// Clients that may wait to be taken.
pub(crate) const BACKLOG: i32 = 16;

/// What a holder is given at its start, in whichever way it is started.
struct Given {
    start: Start,
    /// The key that clients must show.
    key: String,
    /// The directory of this life.
    dir: PathBuf,
    /// Its listening socket.
    listen: OwnedFd,
    /// The zygote that has forked us.
    zygote: Option<Parent>,
    /// This process.
    me: Option<Identity>,
    /// What it had made before it knew all that.
    bare: Option<Bare>,
}

/// What holds a process that does not know yet which machine it is.
struct Held {
    /// Nothing if the profile holds nothing.
    layers: Option<Report>,
    /// What the files are held to that it opens, once those of its own are granted, too.
    ruleset: Option<Ruleset>,
    /// What its filter lets have it forked. In one place, to be forgotten there.
    token: Box<u64>,
}

/// What a holder makes that is the same for every machine.
struct Bare {
    /// The pipes behind descriptors 1 and 2: where they are read, and where they are written to.
    out: (OwnedFd, OwnedFd),
    err: (OwnedFd, OwnedFd),
    /// The embedded interpreter, if it was time for that.
    state: Option<builtin::Begun>,
    /// What keeps output, with files that have no names yet.
    store: Option<store::Store>,
    /// It is confined.
    held: Option<Held>,
}

impl Bare {
    fn new() -> Result<Self, String> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| format!("could not become a reaper: {error}"))?;
        keep_signals_harmless();
        Ok(Self { out: pipe()?, err: pipe()?, state: None, store: None, held: None })
    }

    fn with_state(files: Option<[File; 2]>) -> Result<Self, String> {
        // For the overflow and the spill file's size that most machines have; others are said when it is named.
        let store = files.and_then(|files| store::Store::map(files, settings::RING, 0, store::Overflow::default()).ok());
        Ok(Self { state: Some(builtin::Begun::new()?), store, ..Self::new()? })
    }

    /// Confines it to a shape, but for files: it opens some of its own later.
    fn hold(&mut self, shape: &Shape, ruleset: Option<Ruleset>) -> Result<(), String> {
        let token = Box::new(random::number());
        let layers = if shape.rules == trusted() {
            None
        } else {
            let report = vmoon_confine::apply_ahead(&shape.rules, prepared(), *token, ruleset.as_ref());
            Some(report.map_err(|error| error.to_string())?)
        };
        scrub::<{ 8 << 10 }>();
        if let Some(state) = &mut self.state {
            state.hold(&shape.lua)?;
            state.settle();
        }
        self.held = Some(Held { layers, ruleset, token });
        Ok(())
    }
}

impl Held {
    /// Holds it to its files, too; what holds it, and what its filter lets have it forked, which is forgotten here.
    fn enter(mut self, shape: &Shape) -> Result<(Option<Report>, u64), String> {
        let mut layers = self.layers;
        if let Some(ruleset) = self.ruleset {
            let status = ruleset.enter().map_err(|error| error.to_string())?;
            layers.iter_mut().for_each(|report| report.set(Layer::Landlock, status.clone()));
        }
        layers.iter_mut().for_each(|report| report.set(Layer::Lua, of_libraries(&shape.lua)));
        let token = *self.token;
        wipe(&mut self.token);
        Ok((layers, token))
    }
}

/// How the libraries hold a program.
fn of_libraries(options: &Options) -> Status {
    if options.grants.is_trusted() { Status::off("switched off on request") } else { Status::On }
}

/// Runs a holder: `args` are those behind the verb, one directory of a life with its `start.json`.
///
/// It writes one line to descriptor 1 when its socket answers, then makes descriptors 1 and 2 its own. Until then errors go to
/// descriptor 2 and the exit code is 1; afterwards it ends only by itself, with the exit code of the program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match from_directory(args).and_then(|(given, ready)| Ok((start(given, &ready)?, ready))) {
        Ok((started, ready)) => {
            drop(ready);
            run(started, false)
        }
        Err(message) => {
            let text = format!("{message}\n");
            let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// What it is given, and where `ready\n` is written when the interpreter can be used.
fn from_directory(args: impl IntoIterator<Item = OsString>) -> Result<(Given, OwnedFd), String> {
    let mut args = args.into_iter().peekable();
    // As a holder of an older build: what tests of the protocol's versions start.
    let older = args.next_if(|arg| arg == "--protocol").and_then(|_| args.next()).and_then(|arg| arg.to_str()?.parse().ok());
    let (Some(dir), None) = (args.next().map(PathBuf::from), args.next()) else {
        return Err("usage: lua-host DIRECTORY-OF-A-LIFE (started by vmoon itself)".into());
    };
    let mut start: Start = atomic::read_json(&dir.join("start.json"))
        .map_err(|error| error.chain())?
        .ok_or_else(|| format!("there is no start.json in {}", dir.display()))?;
    start.shape.lua.protocol = older.or(start.shape.lua.protocol);
    rustix::process::umask(Mode::from_raw_mode(0o077));
    one_heap();
    let listen = rustix::fs::open(&dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(std::io::Error::from)
        .and_then(|at| passing::listen(at.as_fd(), "sock", SocketType::STREAM, BACKLOG))
        .map_err(|error| format!("could not make the socket: {error}"))?;
    let ready = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map_err(|error| error.to_string())?;
    Ok((Given { start, key: random::key(), dir, listen, zygote: None, me: Identity::of(std::process::id() as i32), bare: None }, ready))
}

/// What a process that a zygote has forked knows from there.
pub(crate) struct Birth {
    /// What [`ticks`](vmoon_sys::process::ticks) had said before.
    pub(crate) before: u64,
    pub(crate) zygote: Identity,
    pub(crate) looks: Looks,
}

/// Goes on as a holder in a process that a zygote has just forked. Returns only if that fails, with the exit code of the process.
pub(crate) fn forked(fork: Fork, beside: (OwnedFd, OwnedFd), birth: Birth) -> i32 {
    keep_looks(birth.looks);
    let me = Identity::newborn(birth.before);
    hold(fork, beside, birth.zygote, me, None)
}

/// Has all ready that no machine has of its own, and waits until the zygote says at this socket which machine it is. The files, if there are some, become
/// its ring and its spill file. Ahead of that it takes a shape, if it is given one. Returns if nobody wants it, or as [`forked`].
pub(crate) fn spare(socket: OwnedFd, files: Option<[File; 2]>, birth: Birth, ahead: Option<(Rc<Shape>, Option<Ruleset>)>) -> i32 {
    keep_looks(birth.looks);
    let me = Identity::newborn(birth.before);
    let Ok(mut bare) = Bare::with_state(files) else { return 1 };
    let shape = match ahead {
        Some((shape, ruleset)) => match bare.hold(&shape, ruleset) {
            Ok(()) => Some(shape),
            // One that is forked says why.
            Err(_) => return 1,
        },
        None => None,
    };
    give_back();
    let mut buffer = vec![0; passing::MAX_MESSAGE];
    // From here on the zygote may write to our memory who we are: nothing of ours writes there any more.
    if passing::send(&socket, crate::zygote::READY, &[], false).is_err() {
        return 0;
    }
    let told = passing::receive(&socket, &mut buffer, true);
    let Ok(passing::Received::Message(len, beside)) = told else { return 0 };
    drop(socket);
    let fork = match shape {
        Some(shape) => match serde_json::from_slice::<Request<IgnoredAny>>(&buffer[..len]) {
            Ok(Request::Fork(fork)) => {
                let Fork { dir, key, start } = *fork;
                Some(Fork { dir, key, start: Start { own: start.own, shape: Rc::unwrap_or_clone(shape) } })
            }
            _ => None,
        },
        None => match serde_json::from_slice(&buffer[..len]) {
            Ok(Request::Fork(fork)) => Some(*fork),
            _ => None,
        },
    };
    let (Some(fork), Ok([listen, ready])) = (fork, <[OwnedFd; 2]>::try_from(beside)) else { return 1 };
    drop(buffer);
    hold(fork, (listen, ready), birth.zygote, me, Some(bare))
}

fn hold(fork: Fork, (listen, ready): (OwnedFd, OwnedFd), zygote: Identity, me: Option<Identity>, bare: Option<Bare>) -> i32 {
    // Machines that are made one after the other come of spares, and whoever makes one will ask it something next.
    let awaited = bare.is_some();
    let given = Given { start: fork.start, key: fork.key, dir: fork.dir, listen, zygote: Some(Parent { process: zygote }), me, bare };
    match start(given, &ready) {
        Ok(started) => {
            drop(ready);
            run(started, awaited)
        }
        Err(message) => {
            let _ = rustix::io::write(&ready, message.as_bytes());
            1
        }
    }
}

/// What a zygote does once for all its children.
pub(crate) fn prepare() {
    one_heap();
    boot_id();
    fork::prepare_sibling();
    builtin::prepare();
    prepared();
    // What the C library finds for itself when the first thread starts, each child would have to find again. Without a thread there is nothing to find.
    let _ = thread::Builder::new().stack_size(IO_STACK).spawn(|| {}).map(thread::JoinHandle::join);
    fork::share_file_pages();
    // Children begin with a heap without holes: what they fill between our blocks they would have to copy.
    // SAFETY: touches only memory that nobody uses.
    unsafe { libc::malloc_trim(0) };
}

/// One heap for both threads: the second one allocates next to nothing.
fn one_heap() {
    // SAFETY: sets a number in the allocator, before there is a second thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// A holder whose interpreter can be used.
type Started = (&'static Hub, Box<dyn engine::Engine>);

fn start(given: Given, ready: &OwnedFd) -> Result<Started, String> {
    let Given { start, key, dir, listen, zygote, me, bare } = given;
    let Start { own, shape } = &start;
    let me = me.ok_or("/proc is not mounted")?;
    let Bare { out: (out_read, out_write), err: (err_read, err_write), state, store, held } = bare.map_or_else(Bare::new, Ok)?;
    rustix::process::chdir(&own.work).map_err(|error| format!("could not enter {}: {error}", own.work.display()))?;

    let store = store
        .and_then(|store| store.become_that_of(&dir, own.ring, own.spill, own.overflow))
        .map_or_else(|| store::Store::create(&dir, own.ring, own.spill, own.overflow), Ok)
        .map_err(|error| format!("could not make the ring of {} bytes: {error}", own.ring))?;
    let captures = [(out_read, Stream::Out), (err_read, Stream::Err)];
    let embedded = shape.runtime == crate::settings::BUILTIN;
    let mut core = core::Core::new(store, key.clone(), runtime_name(&shape.runtime), listen, captures);
    if let Some(protocol) = shape.lua.protocol {
        core.speak_at_most(protocol);
    }
    // Who has asked for us may wait for the first frame already.
    core.accept();
    core.read_guests(Instant::now());
    core.send();
    let hub = Hub::new(core, me.clone(), dir.join("exit.json"), Duration::from_millis(own.grace_ms)).map_err(|error| error.to_string())?;
    // One hub for the whole life of the process.
    let hub: &'static Hub = Box::leak(Box::new(hub));
    if let Some(seconds) = own.command_time {
        hub.set_command_time(Duration::from_secs(seconds));
    }
    hub.set_output(own.output);
    if let Some(limit) = own.work_size {
        hub.set_room(Room::new(&own.work, limit).map_err(|error| format!("could not open the work directory: {error}"))?);
    }
    let mut meta = Meta { key, process: me, life: own.life, runtime: runtime_name(&shape.runtime), zygote, fork_token: None, layers: None };
    let path = dir.join("meta.json");

    let engine: Box<dyn engine::Engine> = if embedded {
        // Opened now, written when it is known what holds us.
        let record = File::create_new(&path).map_err(|error| format!("could not make a file: {error}"))?;
        let is_held = held.is_some();
        let (layers, mut token) = match held {
            Some(held) => held.enter(shape)?,
            None => {
                let token = random::number();
                (confine(&start.rules(), &shape.lua, &dir, token)?, token)
            }
        };
        (meta.layers, meta.fork_token) = (layers, Some(token));
        meta.write(&record).map_err(|error| format!("could not write a file: {error}"))?;
        drop(record);
        wipe(&mut token);
        scrub::<{ 8 << 10 }>();
        meta.fork_token.as_mut().map(wipe);
        let mut state = state.map_or_else(builtin::Begun::new, Ok)?;
        if !is_held {
            state.hold(&shape.lua)?;
        }
        Box::new(builtin::Builtin::new(state, hub, own.memory, &own.work.to_string_lossy())?)
    } else {
        let engine = external::start(hub, &start, &dir, [out_write.as_fd(), err_write.as_fd()])?;
        meta.runtime = engine.runtime();
        meta.record(&path).map_err(|error| error.chain())?;
        engine
    };
    hub.set_runtime(engine.runtime());
    rustix::stdio::dup2_stdout(&out_write).map_err(|error| error.to_string())?;
    rustix::stdio::dup2_stderr(&err_write).map_err(|error| error.to_string())?;
    drop((out_write, err_write));
    let _ = rustix::io::write(ready, b"ready\n");
    Ok((hub, engine))
}

fn run((hub, mut engine): Started, awaited: bool) -> ! {
    if awaited {
        hub.expect_command();
    }
    engine.settle();
    give_back();
    engine::run(hub, engine)
}

/// Gives back what beginning has used: most machines are idle most of the time.
fn give_back() {
    release_stack();
    // SAFETY: touches only memory that nobody uses.
    unsafe { libc::malloc_trim(0) };
}

/// Gives back the pages of the stack that starting has used and that lie below what is used now.
fn release_stack() {
    const PAGE: usize = 4096;
    const REACH: usize = 128 << 10;
    let mark = 0_u8;
    // The frame of this function and of the call, and what a signal may leave below them, stay.
    let top = ((&raw const mark as usize) & !(PAGE - 1)) - PAGE;
    // SAFETY: nothing is kept below the end of the stack; it grows again as new pages. The error for what is not mapped there does not matter.
    unsafe { libc::madvise((top - REACH) as *mut std::ffi::c_void, REACH, libc::MADV_DONTNEED) };
}

/// Confines a machine with the embedded runtime: there is one thread, every file and socket is open, and no code of the user has
/// run. From here on nothing opens a file by its path, reads `/proc` or makes a socket, but for a record that the ring's header has,
/// too (`exit.json`).
/// Whoever knows the token can have it forked. Gives what holds it.
fn confine(rules: &Rules, options: &Options, dir: &Path, token: u64) -> Result<Option<Report>, String> {
    if *rules == trusted() {
        return Ok(None);
    }
    let io = |error: std::io::Error| format!("could not make a file: {error}");
    let broker = if rules.profile == Profile::Net && !rules.without.contains(&Layer::Broker) {
        let report = File::create(dir.join("connections")).map_err(io)?;
        let guard = vmoon_confine::net::start(&rules.hosts, Some(report.into())).map_err(|error| error.to_string())?;
        guard.into_client().install().map_err(|_| "the broker for names is installed already".to_owned())?;
        true
    } else {
        false
    };
    let mut report = vmoon_confine::apply_forkable(rules, prepared(), token).map_err(|error| error.to_string())?;
    if broker {
        report.set(Layer::Broker, Status::On);
    }
    report.set(Layer::Lua, of_libraries(options));
    Ok(Some(report))
}

/// What the kernel can do and the filters for it, once for a zygote and all its children.
pub(crate) fn prepared() -> &'static Prepared {
    static PREPARED: OnceLock<Prepared> = OnceLock::new();
    PREPARED.get_or_init(|| {
        unsafe extern "C" {
            fn tzset();
        }
        // Local time is read from files that not every machine may open afterwards.
        // SAFETY: takes no arguments; there is one thread, so nobody changes the environment meanwhile.
        unsafe { tzset() };
        Prepared::new()
    })
}

/// What is known before the interpreter has said its version.
fn runtime_name(runtime: &str) -> String {
    if runtime == crate::settings::BUILTIN {
        return builtin::RUNTIME.to_owned();
    }
    Path::new(runtime).file_name().map_or_else(|| runtime.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Forgets a number.
fn wipe(number: &mut u64) {
    // SAFETY: a valid, aligned place. Volatile: the compiler knows that nobody reads it any more.
    unsafe { std::ptr::write_volatile(number, 0) };
}

fn pipe() -> Result<(OwnedFd, OwnedFd), String> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| error.to_string())?;
    // Only our end must not block: whoever writes to descriptor 1 expects to wait.
    rustix::io::ioctl_fionbio(&read, true).map_err(|error| error.to_string())?;
    Ok((read, write))
}

/// SIGPIPE and SIGXFSZ (a spill file at its size limit) do nothing to us, yet kill the programs we start as they expect: a
/// handler, unlike "ignore", is not inherited.
fn keep_signals_harmless() {
    extern "C" fn nothing(_: std::ffi::c_int) {}
    // SAFETY: a handler that does nothing is safe in any thread at any time.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGPIPE, &raw const action, std::ptr::null_mut());
        libc::sigaction(libc::SIGXFSZ, &raw const action, std::ptr::null_mut());
    }
}

/// Starts the I/O thread.
fn spawn_io(hub: &'static Hub) -> Result<(), String> {
    // A thread inherits the signal mask: SIGUSR1 is for the main thread only.
    let mut old = std::mem::MaybeUninit::uninit();
    // SAFETY: both sets are written before they are read.
    unsafe {
        let mut all = std::mem::MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
    }
    let spawned = thread::Builder::new().name("io".into()).stack_size(IO_STACK).spawn(move || hub.io_thread());
    // SAFETY: `old` was written by the call above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), std::ptr::null_mut()) };
    spawned.map(drop).map_err(|error| format!("could not start the I/O thread: {error}"))
}

/// How an interpreter that is gone has ended, from its wait status.
pub(crate) fn exit_of(status: std::process::ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code { code },
        (None, Some(signal)) => Exit::Signal { signal },
        (None, None) => Exit::Lost,
    }
}

/// Runs the launcher: `args` are those behind [`LAUNCHER`].
pub fn launch(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    vmoon_confine::launch::main(args)
}
