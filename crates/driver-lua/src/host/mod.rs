//! The holder: the process that is a Lua VM.
//!
//! It owns the interpreter, what it has said and nobody has stored, and a private socket. It depends on nothing that may
//! die before it: no daemon, no runtime directory, no terminal.

pub(crate) mod builtin;
pub(crate) mod conn;
pub(crate) mod core;
pub mod engine;
pub(crate) mod external;
pub mod hub;
mod poll;
pub(crate) mod store;
mod term;

use crate::layout::{Meta, Start};
use hub::{Hub, Stream};
use rustix::{
    fs::{Mode, OFlags},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use std::{
    ffi::OsString,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};
use vmoon_core::driver::Exit;
use vmoon_sys::{atomic, process::Identity, random};

/// Stack of the I/O thread, bytes: it keeps a few small buffers and calls no user code.
const IO_STACK: usize = 128 << 10;

/// Runs a holder: `args` are those behind the verb, one directory of a life with its `start.json`.
///
/// It writes one line to descriptor 1 when its socket answers, then makes descriptors 1 and 2 its own. Until then errors go to
/// descriptor 2 and the exit code is 1; afterwards it ends only by itself, with the exit code of the program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match start(args) {
        Ok(never) => match never {},
        Err(message) => {
            let text = format!("{message}\n");
            let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn start(args: impl IntoIterator<Item = OsString>) -> Result<std::convert::Infallible, String> {
    let mut args = args.into_iter();
    let (Some(dir), None) = (args.next().map(PathBuf::from), args.next()) else {
        return Err("usage: lua-host DIRECTORY-OF-A-LIFE (started by vmoon itself)".into());
    };
    let start: Start = atomic::read_json(&dir.join("start.json"))
        .map_err(|error| error.chain())?
        .ok_or_else(|| format!("there is no start.json in {}", dir.display()))?;
    let me = Identity::of(std::process::id() as i32).ok_or("/proc is not mounted")?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| format!("could not become a reaper: {error}"))?;
    keep_signals_harmless();
    // One heap for both threads: the second one allocates next to nothing.
    // SAFETY: sets a number in the allocator, before there is a second thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };

    let store = store::Store::create(&dir, start.ring, start.spill, start.overflow)
        .map_err(|error| format!("could not make the ring of {} bytes: {error}", start.ring))?;
    let listen = listen(&dir).map_err(|error| format!("could not make the socket: {error}"))?;
    rustix::process::chdir(&start.work).map_err(|error| format!("could not enter {}: {error}", start.work.display()))?;

    let ready = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map_err(|error| error.to_string())?;
    let (out_read, out_write) = pipe()?;
    let (err_read, err_write) = pipe()?;
    let captures = [(out_read, Stream::Out), (err_read, Stream::Err)];
    let key = random::key();
    let core = core::Core::new(store, key.clone(), runtime_name(&start.runtime), listen, captures);
    let hub =
        Hub::new(core, me.clone(), dir.join("exit.json"), Duration::from_millis(start.grace_ms)).map_err(|error| error.to_string())?;
    // One hub for the whole life of the process.
    let hub: &'static Hub = Box::leak(Box::new(hub));
    spawn_io(hub)?;

    let engine: Box<dyn engine::Engine> = if start.runtime == crate::settings::BUILTIN {
        Box::new(builtin::Builtin::new(hub, start.memory, &start.lua)?)
    } else {
        external::start(hub, Path::new(&start.runtime), &dir, [out_write.as_fd(), err_write.as_fd()], &start.lua)?
    };
    let runtime = engine.runtime();
    hub.set_runtime(runtime.clone());
    let meta = Meta { key, process: me, life: start.life, runtime };
    atomic::write_json(&dir.join("meta.json"), &meta).map_err(|error| error.chain())?;
    rustix::stdio::dup2_stdout(&out_write).map_err(|error| error.to_string())?;
    rustix::stdio::dup2_stderr(&err_write).map_err(|error| error.to_string())?;
    drop((out_write, err_write));
    let _ = rustix::io::write(&ready, b"ready\n");
    drop(ready);
    // What compiling the program has left free is given back: most machines are idle most of the time.
    // SAFETY: touches only memory that nobody uses.
    unsafe { libc::malloc_trim(0) };
    engine::run(hub, engine)
}

/// What is known before the interpreter has said its version.
fn runtime_name(runtime: &str) -> String {
    Path::new(runtime).file_name().map_or_else(|| runtime.to_owned(), |name| name.to_string_lossy().into_owned())
}

fn pipe() -> Result<(OwnedFd, OwnedFd), String> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| error.to_string())?;
    // Only our end must not block: whoever writes to descriptor 1 expects to wait.
    rustix::io::ioctl_fionbio(&read, true).map_err(|error| error.to_string())?;
    Ok((read, write))
}

/// Binds the socket through a descriptor of its directory, so that the path may be of any length.
fn listen(dir: &Path) -> rustix::io::Result<OwnedFd> {
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/sock", dir.as_raw_fd()))?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
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
