//! Forking a process that has one thread, and the ends of the children.
//!
//! Only the zygote does this: it is small, so that a fork is cheap, and single-threaded, so that the child may go on as if
//! nothing had happened.

use crate::process::Reaped;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

/// Forks. In the child `run` is called, and the child ends when it returns, with the status it gives.
///
/// # Errors
/// Those of fork(2): too many processes, no memory.
///
/// # Safety
/// The caller is the only thread of the process: what other threads had locked would stay locked in the child for ever.
pub unsafe fn fork(run: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: one thread, by the caller's promise.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let status = run();
            // SAFETY: plain system call; the parent's destructors are not ours to run.
            unsafe { libc::_exit(status) }
        }
        pid => Ok(pid),
    }
}

/// The next child that has ended and how; `None` if none has. Never waits.
pub fn reap_any() -> Option<(i32, Reaped)> {
    let mut status = 0;
    loop {
        // SAFETY: waitpid writes one int to a valid place; WNOHANG keeps it from waiting.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return None;
        }
        if libc::WIFEXITED(status) {
            return Some((pid, Reaped::Code(libc::WEXITSTATUS(status))));
        }
        if libc::WIFSIGNALED(status) {
            return Some((pid, Reaped::Signal(libc::WTERMSIG(status))));
        }
    }
}

/// A descriptor that can be read when a child has ended (signalfd(2)). The signal is blocked for the whole process.
#[derive(Debug)]
pub struct ChildSignal(OwnedFd);

impl ChildSignal {
    /// Blocks SIGCHLD and opens the descriptor.
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub fn new() -> io::Result<Self> {
        let mut set = std::mem::MaybeUninit::uninit();
        // SAFETY: the set is emptied before it is used; the descriptor is new and ours.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
            libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(OwnedFd::from_raw_fd(fd))) }
        }
    }

    /// Forgets the signals that have come.
    pub fn clear(&self) {
        let mut buffer = [0; size_of::<libc::signalfd_siginfo>() * 8];
        while rustix::io::read(&self.0, &mut buffer).is_ok_and(|n| n == buffer.len()) {}
    }
}

impl AsFd for ChildSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets every signal through, as a new program expects it.
pub fn unblock_signals() {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: the set is emptied before it is used.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Closes every descriptor from 3 on but those of `keep`.
///
/// # Safety
/// Nobody uses any of the closed descriptors afterwards: their owners are never dropped.
pub unsafe fn close_all_but(keep: &mut [RawFd]) {
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.iter().copied().filter(|fd| *fd >= 3).chain([RawFd::MAX]) {
        if fd > from {
            // SAFETY: close_range(2) closes numbers; nobody uses them, by the caller's promise.
            unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
        }
        from = fd.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn children_are_told_apart_and_descriptors_closed() {
        let kept = std::fs::File::open("/dev/null").unwrap();
        let closed = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: the child makes plain system calls only, so that it does not matter what other threads of the test hold.
        let pid = unsafe {
            fork(|| {
                close_all_but(&mut [kept.as_raw_fd(), 1]);
                let open = |fd: RawFd| libc::fcntl(fd, libc::F_GETFD) >= 0;
                if open(kept.as_raw_fd()) && !open(closed.as_raw_fd()) && open(0) { 7 } else { 1 }
            })
        };
        let pid = pid.unwrap();
        loop {
            match crate::process::reap(pid) {
                Reaped::Running => std::thread::yield_now(),
                other => break assert_eq!(other, Reaped::Code(7)),
            }
        }
    }
}
