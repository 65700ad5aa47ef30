//! How a broker begins and ends, and with which other layers it works.

use crate::calls::*;
use crate::process::*;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::thread;
use vmoon_confine::net::{self, resolve::LookupError};
use vmoon_confine::{Prepared, Profile, Rules};

/// Waits until a process that need not be our child has ended.
fn ended(pid: i32, milliseconds: i32) -> bool {
    // SAFETY: takes numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as i32;
    if fd < 0 {
        return true;
    }
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which is ours; the descriptor was made above.
    unsafe {
        let ready = libc::poll(&raw mut entry, 1, milliseconds) == 1;
        libc::close(fd);
        ready
    }
}

#[test]
fn this_computer_can_run_one() {
    net::probe().unwrap();
}

#[test]
fn a_broker_that_is_killed_leaves_a_process_without_connections() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    let slow = hanging();
    confined(&[grant(address), host("localhost", 1), grant(slow.address)], |guard| {
        assert_eq!(dial(address), Ok(()));
        let (broker, client) = (guard.broker(), guard.into_client());
        let (hangs, waits) = mpsc::channel();
        let hanging = thread::spawn(move || {
            hangs.send(()).unwrap();
            dial(slow.address)
        });
        waits.recv().unwrap();
        // SAFETY: takes numbers; the process is our child and has not been waited for.
        unsafe { libc::kill(broker, libc::SIGKILL) };
        assert!(ended(broker, 10_000));
        assert_eq!(hanging.join().unwrap(), Err(libc::ENOSYS), "who waits is told");
        assert_eq!(dial(address), Err(libc::ENOSYS));
        assert_eq!(client.lookup("localhost"), Err(LookupError::NoBroker));
    });
}

#[test]
fn the_broker_ends_with_the_last_process_it_serves() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    for with_name in [false, true] {
        let hosts = if with_name { vec![grant(address), host("localhost", 1)] } else { vec![grant(address)] };
        let (mut told, tell) = pipe();
        let process = fork(|| {
            let guard = net::start(&hosts, None).unwrap();
            assert_eq!(dial(address), Ok(()));
            (&tell).write_all(&guard.broker().to_le_bytes()).unwrap();
            loop {
                thread::park();
            }
        });
        let mut broker = [0; 4];
        told.read_exact(&mut broker).unwrap();
        let broker = i32::from_le_bytes(broker);
        assert!(!ended(broker, 0));
        // SAFETY: takes numbers; the process is our child and has not been waited for.
        unsafe { libc::kill(process.pid, libc::SIGKILL) };
        process.wait();
        assert!(ended(broker, 10_000), "the broker outlives its process");
    }
}

#[test]
fn a_fork_of_the_process_keeps_the_broker() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    let (mut told, tell) = pipe();
    let first = fork(|| {
        let _guard = net::start(&[grant(address)], None).unwrap();
        let first = std::process::id() as i32;
        let second = fork(|| {
            assert!(ended(first, 10_000));
            let result = dial(address).err().unwrap_or(0);
            (&tell).write_all(&result.to_le_bytes()).unwrap();
        });
        drop(second);
    });
    first.join();
    let mut result = [0xff; 4];
    told.read_exact(&mut result).unwrap();
    assert_eq!(i32::from_le_bytes(result), 0);
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    fork(|| {
        let error = net::start(&[host("a b", 1)], None).unwrap_err().to_string();
        assert!(error.contains("\"a b\" is neither a name nor an address"), "{error}");
        let (end, wait) = mpsc::channel::<()>();
        let other = thread::spawn(move || wait.recv());
        let error = net::start(&[], None).unwrap_err().to_string();
        assert!(error.contains("before any thread"), "{error}");
        drop(end);
        let _ = other.join();
    })
    .join();
    fork(|| {
        let _guard = net::start(&[], None).unwrap();
        let error = net::start(&[], None).unwrap_err().to_string();
        assert!(error.contains("refused the filter"), "{error}");
    })
    .join();
}

#[test]
fn it_works_below_the_other_layers() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    let (trap, elsewhere) = forbidden(Ipv4Addr::LOCALHOST);
    let prepared = Prepared::new();
    fork(|| {
        let hosts = vec![grant(address), host("localhost", address.port())];
        let guard = net::start(&hosts, None).unwrap();
        let rules = Rules { profile: Profile::Net, hosts, ..Rules::default() };
        vmoon_confine::apply(&rules, &prepared).unwrap();
        assert_eq!(dial(address), Ok(()));
        assert_eq!(dial(elsewhere), Err(libc::EACCES));
        assert!(guard.into_client().lookup("localhost").is_ok());
        thread::spawn(move || assert_eq!(dial(address), Ok(()))).join().unwrap();
    })
    .join();
    trap.was_not_reached();
}

#[test]
fn an_ordinary_user_has_one_too() {
    /// `nobody` of Linux.
    const NOBODY: u32 = 65_534;
    let address = greeting(Ipv4Addr::LOCALHOST);
    fork(|| {
        // SAFETY: takes numbers. Who is an ordinary user already stays that one. A change of user makes the process undumpable, which `exec` would
        // undo, and no broker of the same user could reach it.
        unsafe {
            if libc::geteuid() == 0 {
                assert_eq!(libc::setresuid(NOBODY, NOBODY, NOBODY), 0);
                assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
            }
        }
        let _guard = net::start(&[grant(address), host("localhost", address.port())], None).unwrap();
        assert_eq!(dial(address), Ok(()));
    })
    .join();
}

#[test]
fn the_confined_process_cannot_reach_its_broker() {
    confined(&[host("localhost", 1)], |guard| {
        let broker = guard.broker();
        // SAFETY: takes numbers; nothing of ours is touched.
        unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, broker, 0);
            assert!(fd >= 0);
            let root = libc::geteuid() == 0;
            // Root is kept out by the layer that takes its capabilities away; here it has them.
            if !root {
                assert_eq!(result(libc::syscall(libc::SYS_pidfd_getfd, fd, 3, 0)), Err(libc::EPERM));
                assert_eq!(result(libc::ptrace(libc::PTRACE_ATTACH, broker, 0, 0)), Err(libc::EPERM));
            }
        }
    });
}
