//! A process of a test's own: forked, put under a broker, with its verdict on a pipe.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use vmoon_confine::net::{self, Guard};
use vmoon_confine::rules::Host;

/// Seconds after which a test's process is ended by a signal, which fails the test.
const PATIENCE: u32 = 60;

/// A process that was forked and has not been waited for.
pub(crate) struct Process {
    pub(crate) pid: libc::pid_t,
    verdict: File,
}

pub(crate) fn pipe() -> (File, File) {
    let mut fds = [0; 2];
    // SAFETY: there is room for two descriptors, which are nobody else's.
    unsafe {
        assert_eq!(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(fds[0]).into(), OwnedFd::from_raw_fd(fds[1]).into())
    }
}

/// Forks a process that does this and ends.
pub(crate) fn fork(body: impl FnOnce()) -> Process {
    let (verdict, mut told) = pipe();
    // SAFETY: the child uses what glibc keeps usable after a fork (its allocator among it), and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        drop(verdict);
        // SAFETY: takes a number.
        unsafe { libc::alarm(PATIENCE) };
        let panics = told.try_clone().unwrap();
        std::panic::set_hook(Box::new(move |what| drop(panics.try_clone().and_then(|mut to| writeln!(to, "{what}")))));
        if catch_unwind(AssertUnwindSafe(body)).is_ok() {
            let _ = told.write_all(b"fine");
        }
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(0) };
    }
    Process { pid, verdict }
}

impl Process {
    /// Waits for the end; panics with what the process has panicked with. A broker keeps no end of the pipe.
    pub(crate) fn join(mut self) {
        let mut verdict = String::new();
        self.verdict.read_to_string(&mut verdict).unwrap();
        self.wait();
        assert_eq!(verdict, "fine", "the process failed");
    }

    /// Waits for the end, whatever it is.
    pub(crate) fn wait(&self) -> i32 {
        let mut status = 0;
        // SAFETY: room for the status; the process is our child.
        assert_eq!(unsafe { libc::waitpid(self.pid, &raw mut status, 0) }, self.pid);
        status
    }
}

/// Runs this in a process under a broker.
pub(crate) fn confined(hosts: &[Host], body: impl FnOnce(Guard)) {
    fork(|| body(net::start(hosts, None).unwrap())).join();
}

pub(crate) fn host(host: impl ToString, port: u16) -> Host {
    Host { host: host.to_string(), port }
}

/// A grant for exactly this address.
pub(crate) fn grant(address: SocketAddr) -> Host {
    host(address.ip(), address.port())
}

/// A listener on a free port whose connections are accepted and greeted with one byte.
pub(crate) fn greeting(ip: impl Into<IpAddr>) -> SocketAddr {
    let listener = TcpListener::bind((ip.into(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for peer in listener.incoming().flatten() {
            let _ = (&peer).write_all(b"!");
        }
    });
    address
}

/// A listener that must never be reached.
pub(crate) struct Forbidden(TcpListener);

pub(crate) fn forbidden(ip: impl Into<IpAddr>) -> (Forbidden, SocketAddr) {
    forbidden_at((ip.into(), 0).into())
}

pub(crate) fn forbidden_at(address: SocketAddr) -> (Forbidden, SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    (Forbidden(listener), address)
}

impl Forbidden {
    /// Panics if anybody has connected.
    pub(crate) fn was_not_reached(&self) {
        self.0.set_nonblocking(true).unwrap();
        let error = self.0.accept().expect_err("somebody reached the forbidden port");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}

/// A listener whose queue is full: who connects now hangs until somebody is accepted. What fills it is kept with it.
pub(crate) struct Hanging {
    pub(crate) address: SocketAddr,
    pub(crate) listener: TcpListener,
    _fill: Vec<std::net::TcpStream>,
}

pub(crate) fn hanging() -> Hanging {
    use std::os::fd::AsRawFd as _;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // SAFETY: takes numbers; a second listen only changes the length of the queue.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().unwrap();
    // The kernel takes one more than the length.
    let fill = vec![std::net::TcpStream::connect(address).unwrap()];
    Hanging { address, listener, _fill: fill }
}
