//! How a process of the broker leaves the one it was forked from: its descriptors, signals, terminal and privileges.

use super::raw::{self, check};
use libc::{c_int, c_long, pid_t};
use std::ffi::CStr;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

/// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// `CAP_SYS_PTRACE`.
const PTRACE: u32 = 19;

/// Leaves the parent behind: name, signals and their handlers, session and terminal, all descriptors but `keep`.
pub(super) fn leave(name: &CStr, keep: &[RawFd]) -> io::Result<()> {
    for signal in 1..=64 {
        // SAFETY: the default action installs no code; numbers that are none of a program's are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: all zeros is a valid set, which `sigemptyset` then makes empty; the name lives through the call; the rest are numbers.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0);
        libc::setsid();
        // Nobody of the same user may trace it or read its memory and descriptors.
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).into())?;
    }
    close_all_but(keep)?;
    // What is printed by a library goes nowhere, rather than into a socket that got a low number.
    for _ in 0..=2 {
        // SAFETY: the path is a C string.
        let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
        if fd > 2 {
            // SAFETY: made just now, and nobody else's.
            unsafe { libc::close(fd) };
            break;
        }
    }
    Ok(())
}

fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep = keep.to_vec();
    keep.sort_unstable();
    let mut from = 0;
    for fd in keep {
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = fd + 1;
    }
    close_range(from, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: the descriptors in these gaps belong to the copy of a process that does not go on here; nothing uses them any more.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Ends this process when its parent does.
pub(super) fn die_with(parent: pid_t) -> io::Result<()> {
    // SAFETY: takes numbers.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0).into())?;
        if libc::getppid() != parent {
            return Err(io::ErrorKind::NotConnected.into());
        }
    }
    Ok(())
}

/// Which capabilities a process keeps, if it has any.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// None.
    Nothing,
    /// That to take descriptors of other processes: a process of root that keeps its capabilities could not be served otherwise.
    Tracing,
}

/// Drops capabilities and limits resources.
pub(super) fn drop_privileges(keep: Keep, open_files: u64, file_size: u64) -> io::Result<()> {
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Set {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    raw::no_new_privileges()?;
    let header = [CAPABILITY_VERSION, 0];
    let mut sets = [Set::default(); 2];
    // SAFETY: version 3 has a header of two words and two sets.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) })?;
    let kept = sets[0].permitted & if keep == Keep::Tracing { 1 << PTRACE } else { 0 };
    let sets = [Set { effective: kept, permitted: kept, inheritable: 0 }, Set::default()];
    // SAFETY: as above; only read.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) })?;
    for (resource, limit) in [(libc::RLIMIT_CORE, 0), (libc::RLIMIT_NOFILE, open_files), (libc::RLIMIT_FSIZE, file_size)] {
        let mut both = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure lives through the calls.
        unsafe {
            check(libc::getrlimit(resource, &raw mut both).into())?;
            let limit = limit.min(both.rlim_max);
            both = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            check(libc::setrlimit(resource, &raw const both).into())?;
        }
    }
    Ok(())
}

/// `struct landlock_ruleset_attr` of ABI 4.
#[repr(C)]
struct Ruleset {
    files: u64,
    net: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    access: u64,
    parent: c_int,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct Port {
    access: u64,
    port: u64,
}

/// Reads files below these paths, connects by TCP to this port, and else neither touches files nor connects, as far as the kernel's Landlock reaches.
pub(super) fn only_read(paths: &[&CStr], tcp_port: u64) -> io::Result<()> {
    /// `LANDLOCK_ACCESS_FS_READ_FILE` and `…_READ_DIR`.
    const READ: u64 = 1 << 2 | 1 << 3;
    /// `LANDLOCK_ACCESS_NET_BIND_TCP` and `…_CONNECT_TCP`.
    const NET: u64 = 1 | 2;
    // SAFETY: with the flag LANDLOCK_CREATE_RULESET_VERSION the kernel only tells its version.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Ruleset>(), 0, 1) };
    let files = match version {
        ..1 => return Ok(()),
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    let net = version >= 4;
    let rules = Ruleset { files: (1 << files) - 1, net: if net { NET } else { 0 } };
    let size = if net { size_of::<Ruleset>() } else { size_of::<u64>() };
    // SAFETY: the structure lives through the call, and the size is that of the version.
    let set = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const rules, size, 0) })?;
    let set = owned(set);
    for path in paths {
        // SAFETY: the path is a C string.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
        if fd < 0 {
            continue;
        }
        let parent = owned(fd.into());
        let rule = Beneath { access: READ, parent: parent.as_raw_fd() };
        // SAFETY: the rule lives through the call; 1 is LANDLOCK_RULE_PATH_BENEATH. A file cannot be read as a directory: EINVAL, and no rule.
        unsafe { libc::syscall(libc::SYS_landlock_add_rule, set.as_raw_fd(), 1, &raw const rule, 0) };
    }
    if net {
        let rule = Port { access: 2, port: tcp_port };
        // SAFETY: the rule lives through the call; 2 is LANDLOCK_RULE_NET_PORT.
        check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, set.as_raw_fd(), 2, &raw const rule, 0) })?;
    }
    // SAFETY: takes numbers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, set.as_raw_fd(), 0) }).map(drop)
}

fn owned(fd: c_long) -> OwnedFd {
    use std::os::fd::FromRawFd as _;
    // SAFETY: the callers pass what the kernel has just made for them.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}
