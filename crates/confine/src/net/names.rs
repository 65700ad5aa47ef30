//! The resolver: a process beside the broker that looks up the granted names, because the system's functions wait, open files and load libraries,
//! none of which the broker may do.
//!
//! It knows the names from its birth and is asked by their numbers, so the confined program cannot make it look up anything else. One lookup at a
//! time: a server that does not answer delays the others, up to the deadline that the broker sets.

use super::grants::{Address, MOST_ADDRESSES};
use super::raw;
use super::settle::{self, Keep};
use super::wire::{self, Answer, Status};
use std::ffi::CStr;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

/// What the system's lookup reads: its configuration, its libraries, and the files and sockets of local resolvers.
const READS: &[&CStr] = &[
    c"/etc",
    c"/usr",
    c"/lib",
    c"/lib64",
    c"/nix/store",
    c"/gnu/store",
    c"/run/systemd/resolve",
    c"/run/resolvconf",
    c"/run/NetworkManager",
    c"/run/connman",
    c"/run/nscd",
    c"/var/run/nscd",
    c"/var/lib/sss",
    c"/mnt/wsl",
];
/// The port of DNS, used by TCP for long answers.
const DNS: u64 = 53;

/// Starts it and returns the socket on which it is asked. Ends with the calling process.
pub(super) fn start(names: &[Option<String>]) -> io::Result<OwnedFd> {
    let (ours, its) = raw::pair()?;
    let parent = std::process::id();
    match raw::fork()? {
        Some(_) => Ok(ours),
        None => {
            let result = settle::leave(c"vmoon-names", &[its.as_raw_fd()])
                .and_then(|()| settle::die_with(parent as libc::pid_t))
                .and_then(|()| settle::drop_privileges(Keep::Nothing, 256, 0))
                .and_then(|()| settle::only_read(READS, DNS));
            if result.is_ok() {
                serve(&its, names);
            }
            raw::end(0)
        }
    }
}

/// Answers until the broker is gone.
fn serve(socket: &OwnedFd, names: &[Option<String>]) {
    let mut packet = [0; wire::LARGEST];
    loop {
        let size = match raw::recv(socket.as_fd(), &mut packet, true) {
            Ok(0) => return,
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let Some((number, _)) = wire::read_question(&packet[..size]) else { continue };
        let addresses = names.get(number as usize).and_then(Option::as_deref).map(lookup).unwrap_or_default();
        let status = if addresses.is_empty() { Status::Nothing } else { Status::Found };
        if raw::send(socket.as_fd(), &Answer { number, status, addresses }.write(), true).is_err() {
            return;
        }
    }
}

/// The system's answer, or nothing.
fn lookup(name: &str) -> Vec<Address> {
    let found = (name, 0).to_socket_addrs().into_iter().flatten();
    let addresses = found.map(|address| match address {
        SocketAddr::V4(address) => Address { ip: (*address.ip()).into(), scope: 0 },
        SocketAddr::V6(address) => Address { ip: (*address.ip()).into(), scope: address.scope_id() },
    });
    addresses.take(MOST_ADDRESSES).collect()
}
