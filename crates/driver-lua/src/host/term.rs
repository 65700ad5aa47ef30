//! SIGTERM asks the holder for a polite end, as a QUIT frame does, without taking the client's place at the socket.

use std::{
    ffi::c_int,
    os::fd::RawFd,
    sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst},
};

static ASKED: AtomicBool = AtomicBool::new(false);
static WAKE: AtomicI32 = AtomicI32::new(-1);
static TERM: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(_: c_int) {
    ASKED.store(true, SeqCst);
    for fd in [&TERM, &WAKE] {
        let one = 1u64.to_ne_bytes();
        // SAFETY: write is safe in a handler; the descriptors are eventfds that live as long as the process.
        unsafe { libc::write(fd.load(SeqCst), one.as_ptr().cast(), one.len()) };
    }
}

/// Installs the handler; the signal is then written to both eventfds.
pub(super) fn install(wake: RawFd, term: RawFd) {
    WAKE.store(wake, SeqCst);
    TERM.store(term, SeqCst);
    // SAFETY: the handler does only what is safe in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGTERM, &raw const action, std::ptr::null_mut());
    }
}

/// A copy of the process has not been asked.
pub(super) fn forget() {
    ASKED.store(false, SeqCst);
}

/// Whether the signal has come.
pub(super) fn asked() -> bool {
    ASKED.load(SeqCst)
}
