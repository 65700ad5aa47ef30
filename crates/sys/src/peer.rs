//! Who is at the other end of a socket of this computer. We never cross users, root included.

use std::{
    fs,
    net::{SocketAddr, SocketAddrV4},
    os::fd::AsFd,
};
use vmoon_core::{Code, Error, Result};

/// Checks that the peer's user is ours.
///
/// # Errors
/// [`Code::WirePeer`] if it is another user, or if the kernel does not tell.
pub fn check(socket: impl AsFd) -> Result<()> {
    let ours = rustix::process::getuid().as_raw();
    let peer = rustix::net::sockopt::socket_peercred(socket)
        .map_err(|error| Error::new(Code::WirePeer, "the kernel does not tell who is at the other end of the socket").source(error))?;
    check_uid(peer.uid.as_raw(), ours)
}

/// Checks that the peer of a connection over the loopback's IPv4 is of our user. The kernel lists who has which socket (`/proc/net/tcp`, proc_pid_net(5)).
///
/// # Errors
/// [`Code::WirePeer`] if it is another user, or if the kernel does not tell.
pub fn check_tcp(socket: impl AsFd) -> Result<()> {
    let unknown = || Error::new(Code::WirePeer, "the kernel does not tell who is at the other end of the connection");
    let of = |address: Option<rustix::net::SocketAddrAny>| match address.and_then(|address| SocketAddr::try_from(address).ok()) {
        Some(SocketAddr::V4(address)) => Ok(address),
        _ => Err(unknown()),
    };
    let (ours, theirs) = (of(rustix::net::getsockname(&socket).ok())?, of(rustix::net::getpeername(&socket).ok().flatten())?);
    let table = fs::read_to_string("/proc/net/tcp").map_err(|error| unknown().source(error))?;
    check_uid(owner(&table, theirs, ours).ok_or_else(unknown)?, rustix::process::getuid().as_raw())
}

/// The user whose socket is bound to one address and connected to the other.
fn owner(table: &str, from: SocketAddrV4, to: SocketAddrV4) -> Option<u32> {
    // Addresses stand there as the computer has them in memory.
    let shown = |at: SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(at.ip().octets()), at.port());
    let (from, to) = (shown(from), shown(to));
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(8).collect();
        (fields.get(1..3)? == [from.as_str(), to.as_str()]).then(|| fields.get(7)?.parse().ok())?
    })
}

/// The rule of [`check`], apart from the system call.
///
/// # Errors
/// [`Code::WirePeer`] if the two differ.
pub fn check_uid(peer: u32, ours: u32) -> Result<()> {
    if peer == ours {
        return Ok(());
    }
    Err(Error::new(Code::WirePeer, format!("the other end of the socket belongs to user {peer}, not to user {ours}"))
        .hint("every user has a daemon of their own; run vmoon as the user whose machines you mean"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_user_passes_and_root_is_no_exception() {
        check_uid(1000, 1000).unwrap();
        assert_eq!(check_uid(0, 1000).unwrap_err().code(), Code::WirePeer);
        assert_eq!(check_uid(1000, 0).unwrap_err().code(), Code::WirePeer);
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        check(&a).unwrap();
    }

    #[test]
    fn who_has_a_connection_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 20 4 30 10 -1\n   \
            1: 0100007F:D431 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 2 1 0 20 4 30 10 -1\n";
        let at = |port| SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
        assert_eq!((owner(table, at(0xD431), at(8080)), owner(table, at(8080), at(0xD431))), (Some(1001), Some(1000)));
        assert_eq!((owner(table, at(1), at(8080)), owner("", at(1), at(2)), owner("x\ny\n", at(1), at(2))), (None, None, None));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        check_tcp(listener.accept().unwrap().0).unwrap();
    }
}
