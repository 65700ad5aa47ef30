//! The seccomp programs of the broker: what the confined process may do with sockets, and what the broker itself may do. Pure, but for the two functions that
//! install them.
//!
//! They are written here instruction by instruction because the compilers of such programs know neither user notification nor masks.
//! The format is that of the kernel's `Documentation/userspace-api/seccomp_filter.rst`.

use super::raw;
use libc::{c_int, c_long, sock_filter};
use std::io;
use std::os::fd::OwnedFd;

const LD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JEQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JGE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JSET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RET: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// `offsetof(struct seccomp_data, arch)`.
const ARCH_AT: u32 = 4;
/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_AARCH64` of `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;
/// `__X32_SYSCALL_BIT`: the third calling convention of x86-64, under the same architecture.
const X32: u32 = 0x4000_0000;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;

const fn errno(code: c_int) -> u32 {
    libc::SECCOMP_RET_ERRNO | (code as u32 & libc::SECCOMP_RET_DATA)
}

/// The lower half of an argument: `offsetof(struct seccomp_data, args)` is 16, and both architectures are little-endian.
const fn argument_at(argument: u32) -> u32 {
    16 + 8 * argument
}

/// A program that is being written.
struct Program(Vec<sock_filter>);

/// One test of an argument of a call; the first that fails decides.
enum Test {
    /// The lower half of the argument, after the mask, is one of these; else the errno.
    OneOf { argument: u32, mask: u32, values: &'static [c_int], errno: c_int },
    /// None of the bits is set in the lower half; else the errno.
    NoneOf { argument: u32, bits: c_int, errno: c_int },
    /// The pointer is null; else the errno.
    Null { argument: u32, errno: c_int },
}

impl Program {
    /// Begins with what every program needs: other architectures and calling conventions do not exist.
    fn new() -> Self {
        let mut program = Self(Vec::new());
        program.push(LD, ARCH_AT, 0, 0);
        program.push(JEQ, ARCH, 1, 0);
        program.push(RET, errno(libc::ENOSYS), 0, 0);
        program.push(LD, 0, 0, 0);
        if cfg!(target_arch = "x86_64") {
            program.push(JGE, X32, 0, 1);
            program.push(RET, errno(libc::ENOSYS), 0, 0);
        }
        program
    }

    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) {
        self.0.push(sock_filter { code, jt, jf, k });
    }

    /// Decides about a call whatever its arguments.
    fn call(&mut self, number: c_long, action: u32) {
        self.push(JEQ, number as u32, 0, 1);
        self.push(RET, action, 0, 0);
    }

    /// Decides about a call by its arguments: passed if all tests are. The number of the call is loaded again only by leaving, so a call has one rule.
    fn call_if(&mut self, number: c_long, tests: &[Test], action: u32) {
        let mut body = Self(Vec::new());
        for test in tests {
            body.test(test);
        }
        body.push(RET, action, 0, 0);
        let skip = u8::try_from(body.0.len()).expect("a rule of a few instructions");
        self.push(JEQ, number as u32, 0, skip);
        self.0.extend(body.0);
    }

    /// Passes a call that sets an option of a socket (level and name are its second and third argument) if the option is listed; else the errno.
    fn options(&mut self, number: c_long, options: &[(c_int, &[c_int])], code: c_int) {
        let mut body = Self(Vec::new());
        body.push(LD, argument_at(1), 0, 0);
        for (level, names) in options {
            let mut known = Self(Vec::new());
            known.push(LD, argument_at(2), 0, 0);
            for name in *names {
                known.call(c_long::from(*name), ALLOW);
            }
            known.push(RET, errno(code), 0, 0);
            let skip = u8::try_from(known.0.len()).expect("a few options");
            body.push(JEQ, *level as u32, 0, skip);
            body.0.extend(known.0);
        }
        body.push(RET, errno(code), 0, 0);
        let skip = u8::try_from(body.0.len()).expect("a few levels");
        self.push(JEQ, number as u32, 0, skip);
        self.0.extend(body.0);
    }

    fn test(&mut self, test: &Test) {
        match *test {
            Test::OneOf { argument, mask, values, errno: code } => {
                self.push(LD, argument_at(argument), 0, 0);
                self.push(AND, mask, 0, 0);
                for (at, value) in values.iter().enumerate() {
                    let past_refusal = (values.len() - at) as u8;
                    self.push(JEQ, *value as u32, past_refusal, 0);
                }
                self.push(RET, errno(code), 0, 0);
            }
            Test::NoneOf { argument, bits, errno: code } => {
                self.push(LD, argument_at(argument), 0, 0);
                self.push(JSET, bits as u32, 0, 1);
                self.push(RET, errno(code), 0, 0);
            }
            Test::Null { argument, errno: code } => {
                for half in [0, 4] {
                    self.push(LD, argument_at(argument) + half, 0, 0);
                    self.push(JEQ, 0, 1, 0);
                    self.push(RET, errno(code), 0, 0);
                }
            }
        }
    }

    fn end(mut self, action: u32) -> Vec<sock_filter> {
        self.push(RET, action, 0, 0);
        self.0
    }
}

/// `SOCK_TYPE_MASK` of `linux/net.h`: the type without its flags.
const TYPE: u32 = 0xf;
const ALL: u32 = u32::MAX;

/// What the confined process may do with sockets. TCP sockets are made freely, and `connect` is answered by the broker. All that could connect, name a
/// peer or wait for one in another way is refused; so are options that change the way packets take or that connect later.
pub(super) fn confined() -> Vec<sock_filter> {
    const NO: c_int = libc::EACCES;
    let mut p = Program::new();
    p.call(libc::SYS_connect, NOTIFY);
    p.call_if(
        libc::SYS_socket,
        &[
            Test::OneOf { argument: 0, mask: ALL, values: &[libc::AF_INET, libc::AF_INET6], errno: NO },
            Test::OneOf { argument: 1, mask: TYPE, values: &[libc::SOCK_STREAM], errno: NO },
            // Not SCTP, MPTCP or SMC, which are "streams", too, and connect by other calls or to further addresses.
            Test::OneOf { argument: 2, mask: ALL, values: &[0, libc::IPPROTO_TCP], errno: NO },
        ],
        ALLOW,
    );
    // A pair of datagram sockets can be sent from to any path, by a name in memory that no filter sees.
    p.call_if(
        libc::SYS_socketpair,
        &[
            Test::OneOf { argument: 0, mask: ALL, values: &[libc::AF_UNIX], errno: NO },
            Test::OneOf { argument: 1, mask: TYPE, values: &[libc::SOCK_STREAM, libc::SOCK_SEQPACKET], errno: NO },
        ],
        ALLOW,
    );
    // TCP fast open connects while sending.
    p.call_if(
        libc::SYS_sendto,
        &[Test::Null { argument: 4, errno: NO }, Test::NoneOf { argument: 3, bits: libc::MSG_FASTOPEN, errno: NO }],
        ALLOW,
    );
    p.call_if(libc::SYS_sendmsg, &[Test::NoneOf { argument: 2, bits: libc::MSG_FASTOPEN, errno: NO }], ALLOW);
    p.options(libc::SYS_setsockopt, OPTIONS, libc::ENOPROTOOPT);
    for call in [libc::SYS_sendmmsg, libc::SYS_bind, libc::SYS_listen] {
        p.call(call, errno(NO));
    }
    // Its requests pass no filter.
    for call in [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register] {
        p.call(call, errno(libc::ENOSYS));
    }
    p.end(ALLOW)
}

/// The options of a socket that the confined process may set: those of buffers, timeouts, delays and keep-alive. Not among them: fast open, source
/// routes, binding to an interface, programs that filter packets, upper layers.
const OPTIONS: &[(c_int, &[c_int])] = &[
    (
        libc::SOL_SOCKET,
        &[
            libc::SO_REUSEADDR,
            libc::SO_BROADCAST,
            libc::SO_SNDBUF,
            libc::SO_RCVBUF,
            libc::SO_KEEPALIVE,
            libc::SO_OOBINLINE,
            libc::SO_LINGER,
            libc::SO_RCVLOWAT,
            libc::SO_RCVTIMEO,
            libc::SO_SNDTIMEO,
        ],
    ),
    (
        libc::IPPROTO_TCP,
        &[
            libc::TCP_NODELAY,
            libc::TCP_CORK,
            libc::TCP_KEEPIDLE,
            libc::TCP_KEEPINTVL,
            libc::TCP_KEEPCNT,
            libc::TCP_LINGER2,
            libc::TCP_QUICKACK,
            libc::TCP_USER_TIMEOUT,
            libc::TCP_NOTSENT_LOWAT,
        ],
    ),
    (libc::IPPROTO_IP, &[libc::IP_TOS, libc::IP_TTL]),
    (libc::IPPROTO_IPV6, &[libc::IPV6_V6ONLY, libc::IPV6_TCLASS, libc::IPV6_UNICAST_HOPS]),
];

/// What the broker itself may do: wait, read addresses, take and connect sockets, answer, and write its report. No file can be opened, no process
/// started or signalled, no socket made.
pub(super) fn broker() -> Vec<sock_filter> {
    const NO: c_int = libc::EPERM;
    let mut p = Program::new();
    for call in [
        libc::SYS_ppoll,
        libc::SYS_pidfd_getfd,
        libc::SYS_pidfd_open,
        libc::SYS_process_vm_readv,
        libc::SYS_connect,
        libc::SYS_getsockopt,
        libc::SYS_close,
        libc::SYS_recvfrom,
        libc::SYS_pwrite64,
        libc::SYS_ftruncate,
        libc::SYS_clock_gettime,
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_getrandom,
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigreturn,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ] {
        p.call(call, ALLOW);
    }
    #[cfg(target_arch = "x86_64")]
    p.call(libc::SYS_poll, ALLOW);
    p.call_if(
        libc::SYS_sendto,
        &[Test::Null { argument: 4, errno: NO }, Test::NoneOf { argument: 3, bits: libc::MSG_FASTOPEN, errno: NO }],
        ALLOW,
    );
    p.call_if(libc::SYS_fcntl, &[Test::OneOf { argument: 1, mask: ALL, values: &[libc::F_GETFL, libc::F_SETFL], errno: NO }], ALLOW);
    p.call_if(
        libc::SYS_ioctl,
        &[Test::OneOf {
            argument: 1,
            mask: ALL,
            values: &[
                libc::SECCOMP_IOCTL_NOTIF_RECV as c_int,
                libc::SECCOMP_IOCTL_NOTIF_SEND as c_int,
                libc::SECCOMP_IOCTL_NOTIF_ID_VALID as c_int,
            ],
            errno: NO,
        }],
        ALLOW,
    );
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        p.call_if(call, &[Test::NoneOf { argument: 2, bits: libc::PROT_EXEC, errno: NO }], ALLOW);
    }
    p.end(errno(NO))
}

/// Puts the calling thread under [`confined`] and returns the descriptor on which its calls are notified.
///
/// # Errors
/// The kernel's: `EINVAL` before Linux 5.5, `EBUSY` if a filter of this process notifies somebody already, `EACCES` without `no_new_privs`.
pub(super) fn notified() -> io::Result<OwnedFd> {
    raw::seccomp_with_listener(&confined())
}

/// Puts the calling thread under [`broker`].
///
/// # Errors
/// The kernel's.
pub(super) fn narrow() -> io::Result<()> {
    raw::seccomp(&broker())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program on a call, as the kernel would (only the instructions used here).
    fn run(program: &[sock_filter], arch: u32, number: c_long, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend((number as u32).to_ne_bytes());
        data.extend(arch.to_ne_bytes());
        data.extend([0; 8]);
        data.extend(args.iter().flat_map(|arg| arg.to_ne_bytes()));
        let (mut at, mut a) = (0, 0u32);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                LD => a = u32::from_ne_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
                AND => a &= k,
                RET => return k,
                JEQ => at += usize::from(if a == k { jt } else { jf }),
                JGE => at += usize::from(if a >= k { jt } else { jf }),
                JSET => at += usize::from(if a & k != 0 { jt } else { jf }),
                _ => panic!("instruction {code}"),
            }
        }
    }

    fn confined_on(number: c_long, args: &[c_int]) -> u32 {
        let mut six = [0; 6];
        for (to, from) in six.iter_mut().zip(args) {
            *to = *from as u32 as u64;
        }
        run(&confined(), ARCH, number, six)
    }

    #[test]
    fn only_tcp_sockets_are_made() {
        use libc::{
            AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_RAW, SOCK_SEQPACKET,
            SOCK_STREAM,
        };
        let socket = |args: &[c_int]| confined_on(libc::SYS_socket, args);
        let no = errno(libc::EACCES);
        assert_eq!(socket(&[AF_INET, SOCK_STREAM, 0]), ALLOW);
        assert_eq!(socket(&[AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 6]), ALLOW);
        for refused in [
            [AF_UNIX, SOCK_STREAM, 0],
            [AF_INET, SOCK_DGRAM, 0],
            [AF_INET, SOCK_RAW, 6],
            [AF_INET, SOCK_SEQPACKET, 132],
            [AF_INET, SOCK_STREAM, 132],
            [AF_INET, SOCK_STREAM, 262],
            [AF_NETLINK, SOCK_RAW, 0],
            [AF_PACKET, SOCK_RAW, 0],
            [40, SOCK_STREAM, 0],
        ] {
            assert_eq!(socket(&refused), no, "{refused:?}");
        }
        let pair = |args: &[c_int]| confined_on(libc::SYS_socketpair, args);
        assert_eq!(pair(&[AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0]), ALLOW);
        assert_eq!(pair(&[AF_UNIX, SOCK_DGRAM, 0]), no);
    }

    #[test]
    fn what_connects_in_other_ways_is_refused() {
        let no = errno(libc::EACCES);
        assert_eq!(confined_on(libc::SYS_connect, &[3, 0, 16]), NOTIFY);
        assert_eq!(confined_on(libc::SYS_sendto, &[3, 1, 1, 0, 0, 0]), ALLOW);
        assert_eq!(confined_on(libc::SYS_sendto, &[3, 1, 1, 0, 1, 16]), no);
        assert_eq!(run(&confined(), ARCH, libc::SYS_sendto, [3, 1, 1, 0, 1 << 32, 16]), no, "an address above 4 GiB");
        assert_eq!(confined_on(libc::SYS_sendto, &[3, 1, 1, libc::MSG_FASTOPEN, 0, 0]), no);
        assert_eq!(confined_on(libc::SYS_sendmsg, &[3, 1, libc::MSG_NOSIGNAL]), ALLOW);
        assert_eq!(confined_on(libc::SYS_sendmsg, &[3, 1, libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL]), no);
        for call in [libc::SYS_bind, libc::SYS_listen, libc::SYS_sendmmsg] {
            assert_eq!(confined_on(call, &[3]), no);
        }
        assert_eq!(confined_on(libc::SYS_io_uring_setup, &[3]), errno(libc::ENOSYS));
    }

    #[test]
    fn only_listed_options_are_set() {
        let set = |level, name| confined_on(libc::SYS_setsockopt, &[3, level, name]);
        for (level, names) in OPTIONS {
            for name in *names {
                assert_eq!(set(*level, *name), ALLOW);
            }
        }
        let no = errno(libc::ENOPROTOOPT);
        for (level, name) in [
            (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT),
            (libc::IPPROTO_TCP, libc::TCP_ULP),
            (libc::IPPROTO_TCP, libc::TCP_REPAIR),
            (libc::IPPROTO_IP, libc::IP_OPTIONS),
            (libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
            (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
            (libc::SOL_SOCKET, libc::SO_MARK),
            (libc::IPPROTO_IPV6, libc::IPV6_RTHDR),
            (255, 1),
        ] {
            assert_eq!(set(level, name), no, "{level} {name}");
        }
    }

    #[test]
    fn other_conventions_do_not_exist_and_the_rest_passes() {
        for program in [confined(), broker()] {
            assert_eq!(run(&program, 0x4000_0003, libc::SYS_read, [0; 6]), errno(libc::ENOSYS));
            if cfg!(target_arch = "x86_64") {
                assert_eq!(run(&program, ARCH, libc::SYS_connect | c_long::from(X32), [0; 6]), errno(libc::ENOSYS));
            }
            assert!(program.len() < 4096);
        }
        assert_eq!(confined_on(libc::SYS_read, &[]), ALLOW);
    }

    #[test]
    fn the_broker_can_do_little() {
        for call in [
            libc::SYS_openat,
            libc::SYS_socket,
            libc::SYS_execve,
            libc::SYS_clone,
            libc::SYS_kill,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_prctl,
        ] {
            assert_eq!(run(&broker(), ARCH, call, [0; 6]), errno(libc::EPERM));
        }
        assert_eq!(run(&broker(), ARCH, libc::SYS_mmap, [0, 0, libc::PROT_EXEC as u64, 0, 0, 0]), errno(libc::EPERM));
        assert_eq!(run(&broker(), ARCH, libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0, 0, 0]), errno(libc::EPERM));
    }
}
