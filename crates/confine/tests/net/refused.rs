//! What is not granted is refused, by whichever way it is tried.

use crate::calls::*;
use crate::process::*;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

const NO: Result<(), i32> = Err(libc::EACCES);

#[test]
fn other_ports_and_other_addresses_are_refused() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    let (trap, elsewhere) = forbidden(Ipv4Addr::LOCALHOST);
    let (sixth, six) = forbidden(Ipv6Addr::LOCALHOST);
    let (beside, neighbour) = forbidden_at((Ipv4Addr::new(127, 0, 0, 2), address.port()).into());
    confined(&[grant(address)], |_guard| {
        let mapped: SocketAddr = (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), elsewhere.port()).into();
        let zero: SocketAddr = (Ipv4Addr::UNSPECIFIED, elsewhere.port()).into();
        let no_port: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        for target in [elsewhere, six, neighbour, mapped, zero, no_port] {
            for flags in [0, libc::SOCK_NONBLOCK] {
                let fd = tcp(target, flags);
                assert_eq!(connect(fd, target), NO, "{target}");
                close(fd);
            }
        }
        assert_eq!(dial(address), Ok(()));
    });
    for trap in [trap, sixth, beside] {
        trap.was_not_reached();
    }
}

#[test]
fn without_hosts_nothing_is_reached() {
    let (trap, address) = forbidden(Ipv4Addr::LOCALHOST);
    confined(&[], |_guard| assert_eq!(dial(address), NO));
    trap.was_not_reached();
}

#[test]
fn other_sockets_are_not_made() {
    confined(&[], |_guard| {
        for (family, of_type, protocol) in [
            (libc::AF_INET, libc::SOCK_DGRAM, 0),
            (libc::AF_INET6, libc::SOCK_DGRAM, 0),
            (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
            (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
            (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
            (libc::AF_UNIX, libc::SOCK_STREAM, 0),
            (libc::AF_UNIX, libc::SOCK_DGRAM, 0),
            (libc::AF_NETLINK, libc::SOCK_RAW, 0),
            (libc::AF_PACKET, libc::SOCK_RAW, 0),
            (libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        ] {
            assert_eq!(socket(family, of_type, protocol), Err(libc::EACCES), "{family} {of_type} {protocol}");
        }
        let mut fds = [0; 2];
        // SAFETY: room for two descriptors.
        let pair = |of_type, fds: &mut [i32; 2]| result(unsafe { libc::socketpair(libc::AF_UNIX, of_type, 0, fds.as_mut_ptr()) });
        assert_eq!(pair(libc::SOCK_DGRAM, &mut fds), Err(libc::EACCES));
        assert_eq!(pair(libc::SOCK_STREAM, &mut fds), Ok(0));
        let mut path = vec![libc::AF_UNIX as u8, 0];
        path.extend(b"/run/x\0");
        assert_eq!(connect_raw(fds[0], &path), NO, "a pair of sockets is not TCP");
    });
}

#[test]
fn sockets_that_were_there_before_are_no_way_out() {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = receiver.local_addr().unwrap();
    confined(&[host("127.0.0.1", address.port())], |_guard| {
        use std::os::fd::AsRawFd as _;
        let fd = receiver.as_raw_fd();
        assert_eq!(connect(fd, address), NO, "a UDP socket, to a granted address");
        assert_eq!(send_to(fd, 0, Some(address)), Err(libc::EACCES));
        assert_eq!(send_messages(fd, 0, address), Err(libc::EACCES));
    });
    receiver.set_nonblocking(true).unwrap();
    assert!(receiver.recv(&mut [0]).is_err());
}

#[test]
fn nothing_connects_while_it_sends() {
    let (trap, address) = forbidden(Ipv4Addr::LOCALHOST);
    confined(&[], |_guard| {
        let fd = tcp(address, 0);
        assert_eq!(send_to(fd, libc::MSG_FASTOPEN, Some(address)), Err(libc::EACCES));
        assert_eq!(send_to(fd, libc::MSG_FASTOPEN, None), Err(libc::EACCES));
        assert_eq!(send_to(fd, 0, Some(address)), Err(libc::EACCES));
        assert_eq!(send_message(fd, libc::MSG_FASTOPEN, address), Err(libc::EACCES));
        assert_eq!(send_message(fd, 0, address), Err(libc::EPIPE), "a name in a message connects no TCP socket");
        assert_eq!(send_messages(fd, libc::MSG_FASTOPEN, address), Err(libc::EACCES));
        assert_eq!(set_option(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1), Err(libc::ENOPROTOOPT));
        assert_eq!(set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1), Ok(()));
        assert_eq!(connect(fd, address), NO);
    });
    trap.was_not_reached();
}

#[test]
fn nobody_is_waited_for() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    confined(&[grant(address)], |_guard| {
        let fd = tcp(address, 0);
        let any = bytes((Ipv4Addr::LOCALHOST, 0).into());
        // SAFETY: the bytes live through the call and have that length.
        assert_eq!(result(unsafe { libc::bind(fd, any.as_ptr().cast(), any.len() as u32) }), Err(libc::EACCES));
        // SAFETY: takes numbers.
        assert_eq!(result(unsafe { libc::listen(fd, 1) }), Err(libc::EACCES));
        assert_eq!(connect(fd, address), Ok(()));
    });
}

#[test]
fn copies_of_a_descriptor_and_children_are_held_alike() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    let (trap, elsewhere) = forbidden(Ipv4Addr::LOCALHOST);
    confined(&[grant(address)], |_guard| {
        let fd = tcp(address, 0);
        // SAFETY: takes a number.
        let copy = unsafe { libc::dup(fd) };
        assert_eq!(connect(copy, elsewhere), NO);
        // The child has another memory and another table of descriptors: its own must be looked at.
        let mut target = bytes(address);
        fork(|| {
            target.copy_from_slice(&bytes(elsewhere));
            assert_eq!(connect_raw(copy, &target), NO);
            let moved = 700;
            // SAFETY: takes numbers.
            assert_eq!(unsafe { libc::dup2(copy, moved) }, moved);
            assert_eq!(connect(moved, address), Ok(()));
            assert_eq!(connect(moved, elsewhere), Err(libc::EACCES));
        })
        .join();
        assert_eq!(connect(fd, address), Err(libc::EISCONN), "the child has connected the socket they share");
        assert_eq!(connect(700, address), Err(libc::EBADF));
    });
    trap.was_not_reached();
}

#[test]
fn ten_thousand_refusals_do_no_harm() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    let (trap, elsewhere) = forbidden(Ipv4Addr::LOCALHOST);
    let report = tempfile::tempfile().unwrap();
    let copy = report.try_clone().unwrap();
    fork(|| {
        // A name among them: it is looked up once, not ten thousand times.
        let hosts = [grant(address), host("localhost", elsewhere.port() - 1)];
        let _guard = vmoon_confine::net::start(&hosts, Some(copy.into())).unwrap();
        for round in 0..10_000u32 {
            let target: SocketAddr = (Ipv4Addr::from(0x7f00_0000 + 2 + round), elsewhere.port()).into();
            assert_eq!(dial(target), NO, "{round}");
        }
        assert_eq!(dial(address), Ok(()));
    })
    .join();
    trap.was_not_reached();
    // The broker writes the last time when the process is gone, and then ends.
    let read = || {
        let mut text = vec![0; 65_536];
        let size = std::os::unix::fs::FileExt::read_at(&report, &mut text, 0).unwrap();
        String::from_utf8(text[..size].to_vec()).unwrap().parse::<vmoon_confine::net::Report>().unwrap()
    };
    let mut last = read();
    while last.refused < 10_000 || last.made < 1 {
        std::thread::yield_now();
        last = read();
    }
    assert_eq!((last.refused, last.made, last.last.len()), (10_000, 1, vmoon_confine::net::KEPT));
    assert!(last.last.back().unwrap().starts_with("127.0.39.17:"), "{last:?}");
}
