//! Forking a process that has one thread, and the ends of the children.
//!
//! The zygote does this: it is small, so that a fork is cheap, and single-threaded, so that the child may go on as if
//! nothing had happened. A holder does it to be copied ([`sibling`]).

use crate::process::Reaped;
use std::{
    ffi::{c_int, c_long},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::fs::FileExt as _,
    },
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
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

/// Has children begin with the pages of the program and its libraries that this process has used.
///
/// fork(2) leaves those out: a child takes a page fault for each sixteen of them, forty for what a Lua machine does. It copies the tables of a mapping
/// only if that holds a page of the process's own, for which one byte that is written to where it was read is enough (`vma_needs_copy` in the
/// kernel's mm/memory.c). Where the kernel does not let a process write to its own program (`proc_mem.force_override`), children are as before.
pub fn share_file_pages() {
    let (Ok(maps), Ok(memory)) = (fs::read_to_string("/proc/self/maps"), File::options().read(true).write(true).open("/proc/self/mem"))
    else {
        return;
    };
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, access, path) =
            (fields.next().unwrap_or_default(), fields.next().unwrap_or_default(), fields.nth(3).unwrap_or_default());
        let start = range.split_once('-').and_then(|(start, _)| u64::from_str_radix(start, 16).ok());
        if let Some(at) = start
            && matches!(access, "r--p" | "r-xp")
            && path.starts_with('/')
        {
            let mut byte = [0];
            let _ = memory.read_exact_at(&mut byte, at).and_then(|()| memory.write_all_at(&byte, at));
        }
    }
}

/// Which of the two a process is after [`sibling`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The one that has asked; the id of the other.
    Original(i32),
    /// The new one.
    Copy,
}

/// Where the C library keeps the id of the main thread; null if the kernel does not tell.
static THREAD_ID: AtomicPtr<c_int> = AtomicPtr::new(ptr::null_mut());

/// Finds out what [`sibling`] needs and a confined process cannot ask for any more.
pub fn prepare_sibling() {
    const PR_GET_TID_ADDRESS: c_int = 40; // linux/prctl.h; only with CONFIG_CHECKPOINT_RESTORE
    let mut at: *mut c_int = ptr::null_mut();
    // SAFETY: the call writes one address to a valid place.
    if unsafe { libc::prctl(PR_GET_TID_ADDRESS, &raw mut at) } == 0 {
        THREAD_ID.store(at, Ordering::Relaxed);
    }
}

/// Forks a copy of this process that is not its child but its sibling: a child of the same parent, which reaps it. `token` is for the
/// filter of a confined process: clone(2) itself does not look at that argument without CLONE_PARENT_SETTID.
///
/// # Errors
/// Those of clone(2), `PermissionDenied` if the token is wrong.
///
/// # Safety
/// The caller is the main thread, and no other thread is inside the allocator or holds a lock that the copy will want: only the caller
/// lives on in the copy.
pub unsafe fn sibling(token: u64) -> io::Result<Forked> {
    // SAFETY: plain system call.
    let me = unsafe { libc::gettid() };
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with no stack given it returns twice, each time on its own copy of this stack.
    match unsafe { libc::syscall(libc::SYS_clone, c_long::from(flags), 0 as c_long, token, 0 as c_long, 0 as c_long) } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let at = THREAD_ID.load(Ordering::Relaxed);
            // SAFETY: the kernel has told this address of ours, and the C library's fork writes the same to it. It is only believed if it
            // holds what it should.
            unsafe {
                if !at.is_null() && at.read_volatile() == me {
                    at.write_volatile(libc::gettid());
                }
            }
            Ok(Forked::Copy)
        }
        pid => Ok(Forked::Original(pid as i32)),
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

    /// Forgets the signals that have come; whether one had.
    pub fn clear(&self) -> bool {
        let mut buffer = [0; size_of::<libc::signalfd_siginfo>() * 8];
        let mut came = false;
        while let Ok(n @ 1..) = rustix::io::read(&self.0, &mut buffer) {
            came = true;
            if n < buffer.len() {
                break;
            }
        }
        came
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

    #[test]
    fn a_newborn_knows_when_it_began() {
        use crate::process::{Identity, ticks};
        for _ in 0..20 {
            crate::process::boot_id();
            let before = ticks();
            // SAFETY: the child allocates, which is as safe as the C library's fork makes it: its allocator is usable in the child.
            let pid = unsafe { fork(|| i32::from(Identity::newborn(before) != Identity::of(std::process::id() as i32))) }.unwrap();
            loop {
                match crate::process::reap(pid) {
                    Reaped::Running => std::thread::yield_now(),
                    other => break assert_eq!(other, Reaped::Code(0)),
                }
            }
        }
    }
}
