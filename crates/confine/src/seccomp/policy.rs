//! Which system calls a confined process may make. Policy only: what it says is compiled by `program` and installed by its parent.
//!
//! A list of what is allowed, not of what is forbidden: a call that nobody thought of is refused. It closes what Landlock does not cover
//! (landlock(7), "Current limitations": `chmod`, `chown`, `utime`, extended attributes, datagram sockets, sockets with a path) and everything that is not about
//! files. Two things are visible all the same, because programs cannot work without them: what `stat` says of any path, and `chdir`.

use super::program::{Condition, Verdict};
use libc::c_long;
use std::collections::BTreeMap;

/// What the verdicts depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Variant {
    /// TCP sockets may be made and connected: for profile `net`.
    pub(crate) tcp: bool,
    /// Memory may be mapped for execution: something is granted for execution.
    pub(crate) map_code: bool,
    /// Landlock does not stop truncate(2) here (before Linux 6.2).
    pub(crate) no_truncate: bool,
    /// The one execveat(2) that may happen, by the addresses of its path, arguments and environment.
    pub(crate) exec: Option<[u64; 3]>,
    /// Who knows the token may fork a sibling.
    pub(crate) fork: bool,
    /// Other programs may be started: for builders.
    pub(crate) programs: bool,
}

/// Numbers from here on are unknown to this table and answered with ENOSYS: `file_setattr` of Linux 6.17 is the last that it knows of. Numbers since 424
/// are the same on all architectures.
pub(crate) const UNKNOWN_FROM: u32 = 470;

/// Calls that are allowed whatever their arguments are.
const ALLOWED: &[c_long] = &[
    // Descriptors that are open.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_copy_file_range,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    // Paths: Landlock decides.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_umask,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_signalfd4,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_getitimer,
    libc::SYS_setitimer,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_gettime,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_delete,
    // Memory. Mapping for execution is below.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_msync,
    libc::SYS_membarrier,
    // Signals to nobody in particular. Sending is below.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
    libc::SYS_sigaltstack,
    // The process itself.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getpgid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_getrusage,
    libc::SYS_getrlimit,
    libc::SYS_sched_getaffinity,
    libc::SYS_setsid,
    libc::SYS_landlock_restrict_self, // only takes away; making rulesets is not here
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getcpu,
    libc::SYS_getrandom,
    // Sockets that are open: those the process was born with, and in `net` those it made.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
];

/// Those that only older architectures have beside their successors.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_signalfd,
    libc::SYS_pause,
    libc::SYS_alarm,
    libc::SYS_time,
    libc::SYS_getpgrp,
    libc::SYS_arch_prctl,
];
/// Those that only older architectures have beside their successors.
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

/// What build tools need besides: processes and programs, which Landlock limits to what is granted for execution, and modes of open files.
const OF_PROGRAMS: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fchmod,
    libc::SYS_setpgid,
    libc::SYS_getsid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    // posix_spawn(3) with POSIX_SPAWN_RESETIDS, as make does it. Without capabilities a process can only become what it is already.
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
];
/// Those that only older architectures have beside their successors.
#[cfg(target_arch = "x86_64")]
const OF_PROGRAMS_HERE: &[c_long] = &[libc::SYS_fork, libc::SYS_vfork];
/// Those that only older architectures have beside their successors.
#[cfg(not(target_arch = "x86_64"))]
const OF_PROGRAMS_HERE: &[c_long] = &[];

/// What build tools want and nobody gets: attributes by path, which Landlock does not limit. They are told that it was done, or they would give up.
const PRETENDED: &[c_long] = &[libc::SYS_fchmodat, libc::SYS_fchown, libc::SYS_fchownat];
/// Those that only older architectures have beside their successors.
#[cfg(target_arch = "x86_64")]
const PRETENDED_HERE: &[c_long] =
    &[libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat];
/// Those that only older architectures have beside their successors.
#[cfg(not(target_arch = "x86_64"))]
const PRETENDED_HERE: &[c_long] = &[];
/// `fchmodat2` of Linux 6.6; the libc crate does not name it.
const FCHMODAT2: u32 = 452;

/// `futex_wake`, `futex_wait` and `futex_requeue` of Linux 6.7 (`asm-generic/unistd.h`); the libc crate does not name them.
const FUTEX2: [u32; 3] = [454, 455, 456];

const EPERM: u16 = libc::EPERM as u16;
const MSG_FASTOPEN: u32 = libc::MSG_FASTOPEN as u32;

/// All flags of clone(2) that make a namespace.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// Commands of ioctl(2) that only concern the descriptor: is it a terminal, how large, how much waits, may it block, is it kept over exec.
const IOCTLS: [u32; 8] = [
    libc::TCGETS as u32,
    libc::TIOCGWINSZ as u32,
    libc::TIOCOUTQ as u32,
    libc::FIONREAD as u32,
    libc::FIONBIO as u32,
    libc::FIOCLEX as u32,
    libc::FIONCLEX as u32,
    0x802C_542A, // TCGETS2, with which newer C libraries ask whether it is a terminal
];

/// Ranges of commands of fcntl(2): descriptors, their flags, locks, the size of a pipe. Not: owners of signals, leases, notifications.
const FCNTLS: [(i32, i32); 4] = [
    (libc::F_DUPFD, libc::F_SETLKW),
    (libc::F_GETOWN, libc::F_GETOWN),
    (libc::F_OFD_GETLK, libc::F_OFD_SETLKW),
    (libc::F_DUPFD_CLOEXEC, libc::F_GETPIPE_SZ),
];

/// Ranges of options of prctl(2).
const PRCTLS: [(i32, i32); 7] = [
    (libc::PR_SET_PDEATHSIG, libc::PR_GET_DUMPABLE),
    (libc::PR_SET_NAME, libc::PR_GET_NAME),
    (libc::PR_GET_SECCOMP, libc::PR_GET_SECCOMP),
    (libc::PR_CAPBSET_READ, libc::PR_CAPBSET_READ),
    (libc::PR_SET_TIMERSLACK, libc::PR_GET_TIMERSLACK),
    (libc::PR_SET_NO_NEW_PRIVS, libc::PR_GET_NO_NEW_PRIVS),
    (libc::PR_SET_VMA, libc::PR_SET_VMA), // the C library names its heaps with it
];

/// Options of setsockopt(2) on TCP sockets, by level: ranges. What attaches programs, switches protocols or sets addresses is not here.
const SOCKET_OPTIONS: [(i32, i32, i32); 9] = [
    (libc::SOL_SOCKET, libc::SO_REUSEADDR, libc::SO_REUSEADDR),
    (libc::SOL_SOCKET, libc::SO_SNDBUF, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_LINGER, libc::SO_LINGER),
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO, libc::SO_SNDTIMEO),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_CORK, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_QUICKACK, libc::TCP_QUICKACK),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, libc::IPV6_V6ONLY),
];

/// The verdict on every call that is not simply refused.
pub(crate) fn verdicts(variant: Variant) -> BTreeMap<u32, Verdict> {
    let mut all: BTreeMap<u32, Verdict> =
        ALLOWED.iter().chain(ALLOWED_HERE).map(|call| *call as u32).chain(FUTEX2).map(|call| (call, Verdict::Allow)).collect();
    let mut when = |call: c_long, cases: Vec<Vec<Condition>>| {
        all.insert(call as u32, Verdict::When(cases, EPERM));
    };

    // Threads, not processes. The C library falls back to clone, whose flags can be seen, if clone3 is not there.
    let thread = vec![bits(0, libc::CLONE_THREAD as u32 | NAMESPACES, libc::CLONE_THREAD as u32)];
    // A copy of the process, for whoever shows the token where this kind of clone(2) looks at nothing (vmoon_sys::fork::sibling).
    let sibling = vec![
        Condition::Whole { arg: 0, value: (libc::CLONE_PARENT | libc::SIGCHLD) as u64 },
        Condition::Whole { arg: 1, value: 0 },
        Condition::Token { arg: 2 },
    ];
    when(libc::SYS_clone, if variant.fork { vec![thread, sibling] } else { vec![thread] });
    if let Some([path, args, env]) = variant.exec {
        let whole = |arg, value| Condition::Whole { arg, value };
        when(libc::SYS_execveat, vec![vec![whole(1, path), whole(2, args), whole(3, env)]]);
    }

    // Signals to itself. A thread is named together with its process, or it could be anybody's.
    for call in [libc::SYS_kill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo] {
        when(call, vec![vec![Condition::OwnPid { arg: 0 }]]);
    }
    // Its own limits can be read.
    let read_only = Condition::Whole { arg: 2, value: 0 };
    when(libc::SYS_prlimit64, vec![vec![is(0, 0), read_only.clone()], vec![Condition::OwnPid { arg: 0 }, read_only]]);

    when(libc::SYS_fcntl, FCNTLS.iter().map(|(from, to)| vec![between(1, *from, *to)]).collect());
    when(libc::SYS_ioctl, IOCTLS.iter().map(|command| vec![is(1, *command)]).collect());
    when(libc::SYS_prctl, PRCTLS.iter().map(|(from, to)| vec![between(0, *from, *to)]).collect());

    // Sending goes where the socket is connected to.
    when(libc::SYS_sendto, vec![vec![bits(3, MSG_FASTOPEN, 0), Condition::Whole { arg: 4, value: 0 }]]);
    when(libc::SYS_sendmsg, vec![vec![bits(2, MSG_FASTOPEN, 0)]]);
    if variant.tcp {
        let mut cases = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            // TCP and nothing else that is a stream: Landlock does not know MPTCP, SCTP or SMC.
            for protocol in [0, libc::IPPROTO_TCP] {
                cases.push(vec![is(0, family as u32), bits(1, 0xf, libc::SOCK_STREAM as u32), is(2, protocol as u32)]);
            }
        }
        when(libc::SYS_socket, cases);
        when(
            libc::SYS_setsockopt,
            SOCKET_OPTIONS.iter().map(|(level, from, to)| vec![is(1, *level as u32), between(2, *from, *to)]).collect(),
        );
    }

    if !variant.map_code {
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            when(call, vec![vec![bits(2, libc::PROT_EXEC as u32, 0)]]);
        }
    }
    let also = [
        (libc::SYS_mmap, variant.map_code),
        (libc::SYS_mprotect, variant.map_code),
        (libc::SYS_connect, variant.tcp),
        (libc::SYS_truncate, !variant.no_truncate),
    ];
    all.extend(also.into_iter().filter(|(_, allowed)| *allowed).map(|(call, _)| (call as u32, Verdict::Allow)));
    all.insert(libc::SYS_clone3 as u32, Verdict::Errno(libc::ENOSYS as u16));
    if variant.programs {
        of_programs(&mut all);
    }
    all
}

fn of_programs(all: &mut BTreeMap<u32, Verdict>) {
    all.extend(OF_PROGRAMS.iter().chain(OF_PROGRAMS_HERE).map(|call| (*call as u32, Verdict::Allow)));
    all.extend(PRETENDED.iter().chain(PRETENDED_HERE).map(|call| *call as u32).chain([FCHMODAT2]).map(|call| (call, Verdict::Errno(0))));
    // Threads and processes, but no namespaces.
    all.insert(libc::SYS_clone as u32, Verdict::When(vec![vec![bits(0, NAMESPACES, 0)]], EPERM));
    // Times of an open file; those by a path are pretended.
    all.insert(libc::SYS_utimensat as u32, Verdict::When(vec![vec![Condition::Whole { arg: 1, value: 0 }]], 0));
    // A pair of sockets between processes of its own leads nowhere else.
    all.insert(libc::SYS_socketpair as u32, Verdict::When(vec![vec![is(0, libc::AF_UNIX as u32)]], EPERM));
    // Its own limits, which cannot rise above what is set.
    all.insert(libc::SYS_prlimit64 as u32, Verdict::When(vec![vec![is(0, 0)], vec![Condition::OwnPid { arg: 0 }]], EPERM));
}

fn bits(arg: u8, mask: u32, value: u32) -> Condition {
    Condition::Bits { arg, mask, value }
}

fn is(arg: u8, value: u32) -> Condition {
    bits(arg, u32::MAX, value)
}

fn between(arg: u8, low: i32, high: i32) -> Condition {
    Condition::Between { arg, low: low as u32, high: high as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls that no profile may ever make, whatever the arguments: what is dangerous and somebody might one day put on the list.
    const NEVER: &[c_long] = &[
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_pidfd_send_signal,
        libc::SYS_tkill,
        libc::SYS_execve,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_keyctl,
        libc::SYS_shmget,
        libc::SYS_mq_open,
        libc::SYS_memfd_create,
        libc::SYS_socketpair,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_sendmmsg,
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_fchownat,
        libc::SYS_utimensat,
        libc::SYS_setxattr,
        libc::SYS_personality,
        libc::SYS_seccomp,
        libc::SYS_setrlimit,
        libc::SYS_open_by_handle_at,
    ];

    #[test]
    fn the_dangerous_calls_are_on_no_list() {
        for tcp in [false, true] {
            for map_code in [false, true] {
                let all = verdicts(Variant { tcp, map_code, ..Variant::default() });
                for call in NEVER {
                    assert!(!all.contains_key(&(*call as u32)), "call {call}");
                }
                assert!(all.keys().all(|number| *number < UNKNOWN_FROM));
                assert_eq!(all.contains_key(&(libc::SYS_socket as u32)), tcp);
                assert_eq!(all.contains_key(&(libc::SYS_connect as u32)), tcp);
            }
        }
    }

    #[test]
    fn builders_start_programs_and_reach_nobody() {
        let all = verdicts(Variant { map_code: true, programs: true, ..Variant::default() });
        for call in NEVER.iter().filter(|call| ![libc::SYS_execve, libc::SYS_fchmod].contains(call)) {
            match all.get(&(*call as u32)) {
                None | Some(Verdict::Errno(0)) => {}
                Some(Verdict::When(..)) if [libc::SYS_utimensat, libc::SYS_socketpair].contains(call) => {}
                other => panic!("call {call}: {other:?}"),
            }
        }
        for call in [libc::SYS_socket, libc::SYS_connect, libc::SYS_bind] {
            assert!(!all.contains_key(&(call as u32)));
        }
    }

    #[test]
    fn a_fork_needs_the_token_and_is_no_other_kind_of_process() {
        let cases = |variant| match verdicts(variant).remove(&(libc::SYS_clone as u32)) {
            Some(Verdict::When(cases, _)) => cases,
            other => panic!("{other:?}"),
        };
        assert_eq!(cases(Variant::default()).len(), 1, "threads only");
        let forkable = cases(Variant { fork: true, ..Variant::default() });
        assert_eq!(forkable.len(), 2);
        assert!(forkable[1].contains(&Condition::Token { arg: 2 }) && forkable[1].contains(&Condition::Whole { arg: 1, value: 0 }));
        assert!(forkable[1].contains(&Condition::Whole { arg: 0, value: 0x8000 | 17 }), "CLONE_PARENT and SIGCHLD, nothing else");
    }

    #[test]
    fn exec_is_gated_and_truncate_can_be_closed() {
        let plain = verdicts(Variant::default());
        assert!(!plain.contains_key(&(libc::SYS_execveat as u32)) && plain.contains_key(&(libc::SYS_truncate as u32)));
        let other = verdicts(Variant { exec: Some([1, 2, 3]), no_truncate: true, ..Variant::default() });
        assert!(
            matches!(other.get(&(libc::SYS_execveat as u32)), Some(Verdict::When(cases, _)) if cases.len() == 1 && cases[0].len() == 3)
        );
        assert!(!other.contains_key(&(libc::SYS_truncate as u32)));
    }
}
