//! Names: those that are granted are found by the broker, for connections and for the C library's functions; no other is.

use crate::calls::*;
use crate::process::*;
use libc::{addrinfo, c_int};
use std::ffi::{CStr, CString};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::ptr::null_mut;
use std::thread;
use vmoon_confine::net::resolve::{self, LookupError};

#[test]
fn a_granted_name_grants_its_addresses() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    let (trap, elsewhere) = forbidden(Ipv4Addr::LOCALHOST);
    let (beside, neighbour) = forbidden_at((Ipv4Addr::new(127, 0, 0, 2), address.port()).into());
    confined(&[host("LocalHost.", address.port())], |_guard| {
        assert_eq!(dial(elsewhere), Err(libc::EACCES));
        assert_eq!(dial(neighbour), Err(libc::EACCES), "on the port of a name: after its lookup");
        assert_eq!(dial(address), Ok(()));
    });
    confined(&[host("localhost", address.port())], |_guard| {
        // Several at once wait for the same lookup.
        let threads: Vec<_> = (0..8).map(|n| thread::spawn(move || dial(if n % 2 == 0 { address } else { neighbour }))).collect();
        for (n, each) in threads.into_iter().enumerate() {
            assert_eq!(each.join().unwrap(), if n % 2 == 0 { Ok(()) } else { Err(libc::EACCES) });
        }
    });
    trap.was_not_reached();
    beside.was_not_reached();
}

#[test]
fn only_granted_names_are_looked_up() {
    confined(&[host("localhost", 1), host("no-such-host.invalid", 1), host("192.0.2.1", 1)], |guard| {
        let client = guard.into_client();
        let found = client.lookup("LOCALHOST").unwrap();
        assert!(found.contains(&(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)), "{found:?}");
        assert_eq!(client.lookup("192.0.2.1").unwrap(), [(IpAddr::from([192, 0, 2, 1]), 0)]);
        for name in ["example.org", "", "localhost\0", "a b", &"x".repeat(253), &"x".repeat(5_000), "ü.example", "\u{1b}[31m"] {
            assert_eq!(client.lookup(name), Err(LookupError::NotGranted), "{name:?}");
        }
    });
}

#[test]
fn a_name_without_an_address_grants_nothing() {
    let (trap, address) = forbidden(Ipv4Addr::LOCALHOST);
    // Longer than a label may be: refused by the C library itself, so no server is asked.
    let name = format!("{}.invalid", "x".repeat(64));
    confined(&[host(&name, address.port())], |guard| {
        assert_eq!(dial(address), Err(libc::EACCES));
        assert_eq!(guard.into_client().lookup(&name), Err(LookupError::NotFound));
    });
    trap.was_not_reached();
}

#[test]
fn any_packets_on_the_socket_for_names_leave_the_broker_well() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    confined(&[grant(address), host("localhost", address.port())], |guard| {
        let client = guard.into_client();
        let fd = client.as_raw_fd();
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut packet = vec![0u8; 4_096];
        for round in 0..20_000usize {
            for byte in packet.iter_mut().take(64) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = state as u8;
            }
            let size = (state >> 20) as usize % if round % 100 == 0 { 4_096 } else { 300 };
            // Never waits, and reads no answer: the queues fill up on both ways.
            // SAFETY: the packet lives through the call and is longer than that.
            unsafe { libc::send(fd, packet.as_ptr().cast(), size, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        }
        send_descriptors(fd);
        assert_eq!(dial(address), Ok(()), "the broker serves on");
        let refused: SocketAddr = (Ipv4Addr::new(127, 0, 0, 9), address.port()).into();
        assert_eq!(dial(refused), Err(libc::EACCES));
        // The broker may still be at the rest of the packets, and lose answers that nobody fetches.
        let answered = (0..4).map(|_| client.lookup("localhost")).find(|answer| *answer != Err(LookupError::TryAgain));
        assert!(answered.unwrap().is_ok());
    });
}

/// Sends packets that carry descriptors, more than the broker may have.
fn send_descriptors(fd: c_int) {
    let mut byte = 0u8;
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = [0u64; 32];
    for _ in 0..2_000 {
        // SAFETY: the message has room for a header and sixteen descriptors; all it points to lives through the call.
        unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &raw mut iov;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(64) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(64) as _;
            libc::CMSG_DATA(header).cast::<[c_int; 16]>().write_unaligned([fd; 16]);
            libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
        }
    }
}

#[test]
fn the_functions_of_the_c_library_ask_the_broker() {
    let address = greeting(Ipv4Addr::LOCALHOST);
    confined(&[host("localhost", address.port())], |guard| {
        guard.into_client().install().map_err(drop).unwrap();
        let port = address.port().to_string();
        let wanted = |family, flags| -> addrinfo {
            // SAFETY: all zeros is a valid value.
            let mut hints: addrinfo = unsafe { std::mem::zeroed() };
            (hints.ai_family, hints.ai_flags, hints.ai_socktype) = (family, flags, libc::SOCK_STREAM);
            hints
        };
        let any = wanted(libc::AF_UNSPEC, libc::AI_CANONNAME | libc::AI_ADDRCONFIG);
        let (code, found, canonical) = get(Some("localhost"), Some(&port), &any);
        assert_eq!(code, 0);
        assert!(found.contains(&bytes(address)), "{found:?}");
        assert_eq!(canonical.as_deref(), Some("localhost"));
        let (code, found, _) = get(Some("localhost"), Some(&port), &wanted(libc::AF_INET, 0));
        assert_eq!((code, found), (0, vec![bytes(address)]));
        let (code, found, _) = get(Some("127.0.0.1"), Some(&port), &any);
        assert_eq!((code, found), (0, vec![bytes(address)]), "addresses need no broker");
        assert_eq!(get(None, Some(&port), &wanted(libc::AF_INET, libc::AI_PASSIVE)).0, 0);
        assert_eq!(get(Some("example.org"), Some(&port), &any).0, libc::EAI_FAIL);
        assert_eq!(get(Some("localhost"), Some(&port), &wanted(0, libc::AI_NUMERICHOST)).0, libc::EAI_NONAME);

        // SAFETY: the result is read before the thread's next call.
        unsafe {
            let host = resolve::gethostbyname(c"localhost".as_ptr());
            assert!(!host.is_null());
            assert_eq!(CStr::from_ptr((*host).h_name), c"localhost");
            assert_eq!((**(*host).h_addr_list).cast_unsigned(), 127);
            assert!((*(*host).h_addr_list.add(1)).is_null() && (*(*host).h_aliases).is_null());
            assert!(resolve::gethostbyname(c"example.org".as_ptr()).is_null());
            assert!(!resolve::gethostbyname(c"127.0.0.1".as_ptr()).is_null());
        }
    });
}

/// The answer's code, its addresses as bytes, and the canonical name.
fn get(node: Option<&str>, service: Option<&str>, hints: &addrinfo) -> (c_int, Vec<Vec<u8>>, Option<String>) {
    let text = |text: Option<&str>| text.map(|text| CString::new(text).unwrap());
    let (node, service) = (text(node), text(service));
    let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    let mut list = null_mut();
    let mut found = Vec::new();
    let mut canonical = None;
    // SAFETY: strings, hints and room live through the call; the list is freed once.
    unsafe {
        let code = resolve::getaddrinfo(pointer(&node), pointer(&service), hints, &raw mut list);
        if code == 0 {
            canonical = (!(*list).ai_canonname.is_null()).then(|| CStr::from_ptr((*list).ai_canonname).to_str().unwrap().to_owned());
            let mut node = list;
            while !node.is_null() {
                found.push(std::slice::from_raw_parts((*node).ai_addr.cast::<u8>(), (*node).ai_addrlen as usize).to_vec());
                node = (*node).ai_next;
            }
            resolve::freeaddrinfo(list);
        }
        (code, found, canonical)
    }
}
