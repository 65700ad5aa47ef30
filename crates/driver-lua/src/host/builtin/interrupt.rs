//! Interrupting a running chunk at no cost while nobody does.
//!
//! The I/O thread sends SIGUSR1 to the main thread; the handler arms a hook on the Lua thread that runs at this moment. The
//! hook raises at every step until the command is over, so that no `pcall` can swallow it. A signal that arrives late finds
//! another command number and does nothing; one that arrives early is obeyed when its command begins.

use super::{super::hub::Hub, CHUNK};
use mlua_sys::{self as ffi, lua_Debug, lua_State};
use std::{
    ffi::{CStr, c_int},
    ptr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, Ordering::*},
    },
};
use vmoon_sys::{process::Identity, tree};

/// The error value of an interrupted chunk.
pub(super) const MESSAGE: &CStr = c"interrupted!";

/// The Lua thread that runs; null while none does.
static CURRENT: AtomicPtr<lua_State> = AtomicPtr::new(ptr::null_mut());
/// The running command.
static RUNNING: AtomicU64 = AtomicU64::new(0);
/// The command to interrupt.
static WANTED: AtomicU64 = AtomicU64::new(0);
/// The running command is being interrupted.
static CUT: AtomicBool = AtomicBool::new(false);
/// The error of the interrupt was raised in the running command.
static RAISED: AtomicBool = AtomicBool::new(false);
/// The program waits for a child that it started with `os.execute`.
static CHILDREN: AtomicBool = AtomicBool::new(false);
/// This process.
static PROCESS: Mutex<Option<Identity>> = Mutex::new(None);
/// What interrupts a copied process: the number of a timer, the first of which is 0; -1 in a process that was not copied.
static TIMER: AtomicIsize = AtomicIsize::new(-1);

const MASK: c_int = ffi::LUA_MASKCALL | ffi::LUA_MASKRET | ffi::LUA_MASKCOUNT;

unsafe extern "C-unwind" fn hook(lua: *mut lua_State, activation: *mut lua_Debug) {
    // SAFETY: called by Lua with a valid state and activation record; raising from a hook is allowed (Lua 5.4 manual, 4.7).
    unsafe {
        if !CUT.load(Relaxed) {
            // A coroutine that was armed and survived its command.
            ffi::lua_sethook(lua, None, 0, 0);
            return;
        }
        // Our own frames are let through, so that the error unwinds to them and no further.
        if ffi::lua_getinfo(lua, c"S".as_ptr(), activation) == 0 {
            return;
        }
        let source = (*activation).source;
        if source.is_null() || *(*activation).what == b'C' as std::ffi::c_char || CStr::from_ptr(source) == CHUNK {
            return;
        }
        // Where our own frames catch it, as those that print values do, the command was cut all the same.
        RAISED.store(true, Release);
        ffi::lua_pushstring(lua, MESSAGE.as_ptr());
        ffi::lua_error(lua);
    }
}

fn arm(lua: *mut lua_State) {
    // SAFETY: lua_sethook may be called from a signal handler on the running thread (Lua 5.4, ldebug.c); `lua` is that one.
    unsafe { ffi::lua_sethook(lua, Some(hook), MASK, 1) };
}

extern "C" fn on_signal(_: c_int) {
    let lua = CURRENT.load(Acquire);
    let running = RUNNING.load(Acquire);
    if !lua.is_null() && running != 0 && WANTED.load(Acquire) == running {
        CUT.store(true, Release);
        arm(lua);
    }
}

/// Installs the handler and tells the hub how to interrupt. To be called on the main thread.
pub(super) fn install(hub: &Hub) {
    // SAFETY: the handler does only what is safe in one. No SA_RESTART: a read that waits shall end.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut());
    }
    // SAFETY: plain system calls without arguments.
    let (pid, thread) = unsafe { (libc::getpid(), libc::gettid()) };
    *process() = Some(hub.process());
    hub.set_interrupter(move |id| {
        WANTED.store(id, Release);
        let me = process().clone();
        if CHILDREN.load(Acquire)
            && let Some(me) = &me
        {
            // As Ctrl-C on a terminal: the program's child gets it, not the program that waits for it.
            tree::signal_offspring(me, rustix::process::Signal::INT);
        }
        let timer = TIMER.load(Acquire);
        if timer >= 0 {
            let at_once = libc::timespec { tv_sec: 0, tv_nsec: 1 };
            let once = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at_once };
            // SAFETY: a timer that `copied` has made and nobody deletes.
            unsafe { libc::timer_settime(timer as libc::timer_t, 0, &raw const once, ptr::null_mut()) };
        } else {
            // SAFETY: a signal to a thread of our own that lives as long as the process.
            unsafe { libc::syscall(libc::SYS_tgkill, pid, thread, libc::SIGUSR1) };
        }
    });
}

fn process() -> MutexGuard<'static, Option<Identity>> {
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This process is a copy: it is interrupted by a timer of its own, for its filter lets signals pass to the pid of its original only
/// (and its ruleset does not). To be called on the main thread.
///
/// # Errors
/// A sentence: the kernel gives no timer.
pub(super) fn copied(me: Identity) -> Result<(), String> {
    for number in [&RUNNING, &WANTED] {
        // Commands are counted anew.
        number.store(0, Release);
    }
    let mut timer: libc::timer_t = ptr::null_mut();
    // SAFETY: the event is plain data of which zero is a value; the call writes the timer to a valid place.
    let made = unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGUSR1;
        event.sigev_notify_thread_id = libc::gettid();
        libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer)
    };
    if made != 0 {
        return Err(format!("the kernel gives no timer: {}", std::io::Error::last_os_error()));
    }
    TIMER.store(timer as isize, Release);
    *process() = Some(me);
    Ok(())
}

/// A command begins on `lua`.
pub(super) fn begin(lua: *mut lua_State, id: u64) {
    CUT.store(false, Release);
    RAISED.store(false, Release);
    CHILDREN.store(false, Release);
    RUNNING.store(id, Release);
    CURRENT.store(lua, Release);
    // The signal may have come between the beginning of the command and now, when the handler could not know of it yet.
    if WANTED.load(Acquire) == id {
        CUT.store(true, Release);
        arm(lua);
    }
}

/// The command is over; tells whether it was interrupted.
pub(super) fn end(lua: *mut lua_State) -> bool {
    CURRENT.store(ptr::null_mut(), Release);
    RUNNING.store(0, Release);
    CHILDREN.store(false, Release);
    let cut = CUT.swap(false, AcqRel);
    if cut {
        // SAFETY: disarms the hook of an idle state.
        unsafe { ffi::lua_sethook(lua, None, 0, 0) };
    }
    cut
}

/// The Lua thread `lua` runs from now on.
pub(super) fn switch(lua: *mut lua_State) {
    if CURRENT.load(Relaxed).is_null() {
        return; // a coroutine resumed by the completer: nobody interrupts that
    }
    CURRENT.store(lua, Release);
    if CUT.load(Acquire) {
        arm(lua);
    }
}

/// The error of the interrupt is about to be raised outside of the hook.
pub(super) fn raise() {
    RAISED.store(true, Release);
}

/// Whether the running command is being interrupted.
pub(super) fn is_wanted() -> bool {
    CUT.load(Acquire)
}

/// Whether it was, in the command that has just ended.
pub(super) fn was_raised() -> bool {
    RAISED.load(Acquire)
}

/// The program begins or ends to wait for a child.
pub(super) fn children(wait: bool) {
    CHILDREN.store(wait, Release);
}
