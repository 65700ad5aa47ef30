//! Ends a program at its deadline: politely by a signal its Lua answers, then by force with everything it has started.
//!
//! The program runs in a child; this process only watches. It must not know what runs in the child.

use super::{DEADLINE, OURS, Program, complain};
use rustix::process::Signal;
use std::time::Duration;
use vmoon_sys::{
    process::{Identity, Pidfd, Reaped, reap},
    random, tree,
};

/// How long a program may take to end once its deadline has passed.
const GRACE: Duration = Duration::from_secs(1);
/// How long killing may take.
const KILLING: Duration = Duration::from_secs(10);
/// By this variable everything is found that the program has started.
const MARK: &str = "VMOON_RUN_ID";

/// Runs the program and ends it after `limit`. Returns in both processes.
pub(super) fn run(program: &Program, limit: Duration) -> u8 {
    let id = random::uuid().to_string();
    // SAFETY: the process has one thread, so the child is whole.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        complain(&format!("a process cannot be started: {}", std::io::Error::last_os_error()));
        return OURS;
    }
    if pid == 0 {
        let (name, value) = (format!("{MARK}\0"), format!("{id}\0"));
        // SAFETY: C strings; one thread, so nobody reads the environment meanwhile. The child ends when its watcher does.
        unsafe {
            libc::setenv(name.as_ptr().cast(), value.as_ptr().cast(), 1);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        }
        return super::start(program);
    }
    // Ctrl-C reaches the whole group: the child answers it.
    // SAFETY: ignoring a signal has no preconditions.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    let polite = if program.runtime.as_deref().is_none_or(crate::settings::is_embedded) { Signal::ALARM } else { Signal::INT };
    match watch(pid, limit, polite, &format!("{MARK}={id}")) {
        Ok(Some(code)) => code,
        Ok(None) => {
            complain(&format!("the program ran past its deadline of {limit:?} and was ended"));
            DEADLINE
        }
        Err(error) => {
            complain(&format!("the program cannot be watched: {error}"));
            OURS
        }
    }
}

/// The exit code, or `None` if the deadline passed.
fn watch(pid: i32, limit: Duration, polite: Signal, mark: &str) -> std::io::Result<Option<u8>> {
    // A child that has ended stays a zombie until it is reaped, so its identity can be had.
    let Some(identity) = Identity::of(pid) else { return Ok(Some(ended(pid))) };
    let Some(fd) = Pidfd::open(&identity)? else { return Ok(Some(ended(pid))) };
    if fd.wait(limit)? {
        return Ok(Some(ended(pid)));
    }
    fd.send(polite)?;
    fd.wait(GRACE)?;
    tree::kill(&identity, Some(mark), KILLING)?;
    reap(pid);
    Ok(None)
}

fn ended(pid: i32) -> u8 {
    match reap(pid) {
        Reaped::Code(code) => code as u8,
        Reaped::Signal(signal) => (128 + signal) as u8,
        Reaped::Running | Reaped::Stranger => OURS,
    }
}
