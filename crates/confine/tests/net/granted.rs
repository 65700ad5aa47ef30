//! What is granted works as without a broker: blocking or not, from several threads, with the kernel's own errors.

use crate::calls::*;
use crate::process::*;
use std::io::Read as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

#[test]
fn blocking_sockets_are_connected_over_both_protocols() {
    for address in [greeting(Ipv4Addr::LOCALHOST), greeting(Ipv6Addr::LOCALHOST)] {
        confined(&[grant(address)], |_guard| {
            let mut stream = TcpStream::connect(address).unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            assert_eq!((byte, stream.peer_addr().unwrap()), (*b"!", address));
            let fd = tcp(address, 0);
            assert_eq!(connect(fd, address), Ok(()));
            // Still a blocking socket: this waits for the greeting.
            assert!(greeted(fd));
            assert_eq!(connect(fd, address), Err(libc::EISCONN));
        });
    }
}

#[test]
fn a_socket_that_does_not_block_is_told_that_it_is_in_progress() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    confined(&[grant(address), grant(nobody)], |_guard| {
        let fd = tcp(address, libc::SOCK_NONBLOCK);
        assert_eq!(connect(fd, address), Err(libc::EINPROGRESS));
        assert!(writable(fd, 5_000));
        assert_eq!(socket_error(fd), 0);
        assert_eq!(connect(fd, address), Ok(()), "as Linux says the first time after");
        assert_eq!(connect(fd, address), Err(libc::EISCONN));
        let fd = tcp(nobody, libc::SOCK_NONBLOCK);
        assert!(matches!(connect(fd, nobody), Err(libc::EINPROGRESS | libc::ECONNREFUSED)));
        assert!(writable(fd, 5_000));
    });
}

#[test]
fn errors_are_those_of_the_kernel() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    confined(&[grant(address), grant(nobody)], |_guard| {
        assert_eq!(dial(nobody), Err(libc::ECONNREFUSED));
        let fd = tcp(address, 0);
        let good = bytes(address);
        assert_eq!(connect_raw(fd, &good[..1]), Err(libc::EINVAL));
        assert_eq!(connect_raw(fd, &good[..15]), Err(libc::EINVAL));
        assert_eq!(connect_raw(fd, &[0xff; 200]), Err(libc::EINVAL));
        // SAFETY: the kernel checks the address, which is what is tested.
        let at = |fd: i32, address: usize, size: u32| result(unsafe { libc::connect(fd, address as *const _, size) });
        assert_eq!(at(fd, 8, 16), Err(libc::EFAULT));
        assert_eq!(at(fd, 0, 16), Err(libc::EFAULT));
        assert_eq!(at(fd, usize::MAX - 3, 16), Err(libc::EFAULT));
        assert_eq!(at(fd, good.as_ptr() as usize, u32::MAX), Err(libc::EINVAL));
        assert_eq!(connect(9_999, address), Err(libc::EBADF));
        assert_eq!(connect(-1, address), Err(libc::EBADF));
        let (file, _other) = pipe();
        assert_eq!(connect(std::os::fd::AsRawFd::as_raw_fd(&file), address), Err(libc::ENOTSOCK));
        assert_eq!(connect(fd, address), Ok(()), "none of this has harmed the socket");
    });
}

#[test]
fn other_forms_of_a_granted_address_are_that_address() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    let port = address.port();
    confined(&[host("127.0.0.1", port)], |_guard| {
        let mapped: SocketAddr = (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into();
        for form in [mapped, (Ipv4Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), port).into()] {
            let fd = tcp(form, 0);
            assert_eq!(connect(fd, form), Ok(()), "{form}");
            assert!(greeted(fd), "{form}");
        }
        // A socket of the other protocol: the kernel's own refusal.
        assert!(connect(tcp(address, 0), mapped).is_err());
    });
}

#[test]
fn a_connection_can_be_dissolved_and_made_again() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    let (trap, elsewhere) = forbidden(Ipv4Addr::LOCALHOST);
    confined(&[grant(address)], |_guard| {
        let fd = tcp(address, 0);
        assert_eq!(connect(fd, address), Ok(()));
        assert_eq!(connect_raw(fd, &[0; 16]), Ok(()));
        assert_eq!(connect(fd, elsewhere), Err(libc::EACCES));
        assert_eq!(connect(fd, address), Ok(()));
        assert!(greeted(fd));
    });
    trap.was_not_reached();
}

#[test]
fn one_connection_that_hangs_delays_no_other() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    let slow = hanging();
    let (mut told, tell) = pipe();
    let process = fork(|| {
        let _guard = vmoon_confine::net::start(&[grant(address), grant(slow.address)], None).unwrap();
        let (hangs, waits) = mpsc::channel();
        let hanging = thread::spawn(move || {
            hangs.send(()).unwrap();
            dial(slow.address)
        });
        waits.recv().unwrap();
        let threads: Vec<_> = (0..2).map(|_| thread::spawn(move || (0..200).for_each(|_| assert_eq!(dial(address), Ok(()))))).collect();
        for each in threads {
            each.join().unwrap();
        }
        assert!(!hanging.is_finished());
        std::io::Write::write_all(&mut &tell, b"x").unwrap();
        assert_eq!(hanging.join().unwrap(), Ok(()), "connected once the listener took somebody");
    });
    // Ours would keep the pipe open, should the process end without a word.
    drop(tell);
    let _taken = told.read_exact(&mut [0]).is_ok().then(|| slow.listener.accept().unwrap());
    process.join();
}

#[test]
fn the_timeout_of_a_socket_counts_for_its_connection() {
    let slow = hanging();
    confined(&[grant(slow.address)], |_guard| {
        let fd = tcp(slow.address, 0);
        set_send_timeout(fd, 100);
        assert_eq!(connect(fd, slow.address), Err(libc::EINPROGRESS));
        set_send_timeout(fd, 0);
        let (end, ended) = mpsc::channel();
        thread::spawn(move || end.send(connect(fd, slow.address)));
        let still = ended.recv_timeout(std::time::Duration::from_millis(300));
        assert_eq!(still, Err(mpsc::RecvTimeoutError::Timeout), "without it the same socket waits on");
    });
}
