//! The calls that the tests make, with the errno as their result.

use libc::c_int;
use std::io;
use std::mem::size_of;
use std::net::SocketAddr;

pub(crate) fn result(value: impl Into<i64>) -> Result<i64, c_int> {
    let value = value.into();
    if value < 0 { Err(io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(value) }
}

pub(crate) fn socket(family: c_int, of_type: c_int, protocol: c_int) -> Result<c_int, c_int> {
    // SAFETY: takes numbers.
    result(unsafe { libc::socket(family, of_type | libc::SOCK_CLOEXEC, protocol) }).map(|fd| fd as c_int)
}

/// A TCP socket for addresses of this kind.
pub(crate) fn tcp(address: SocketAddr, flags: c_int) -> c_int {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    socket(family, libc::SOCK_STREAM | flags, 0).unwrap()
}

/// The bytes of a `struct sockaddr`.
pub(crate) fn bytes(address: SocketAddr) -> Vec<u8> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u16;
    let mut bytes = [family.to_ne_bytes(), address.port().to_be_bytes()].concat();
    match address {
        SocketAddr::V4(address) => {
            bytes.extend(address.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(address) => {
            bytes.extend([0; 4]);
            bytes.extend(address.ip().octets());
            bytes.extend(address.scope_id().to_ne_bytes());
        }
    }
    bytes
}

pub(crate) fn connect_raw(fd: c_int, address: &[u8]) -> Result<(), c_int> {
    // SAFETY: the bytes live through the call and have that length.
    result(unsafe { libc::connect(fd, address.as_ptr().cast(), address.len() as u32) }).map(drop)
}

pub(crate) fn connect(fd: c_int, address: SocketAddr) -> Result<(), c_int> {
    connect_raw(fd, &bytes(address))
}

/// A new socket, connected.
pub(crate) fn dial(address: SocketAddr) -> Result<(), c_int> {
    let fd = tcp(address, 0);
    let result = connect(fd, address);
    close(fd);
    result
}

pub(crate) fn close(fd: c_int) {
    // SAFETY: the tests close what they have opened.
    unsafe { libc::close(fd) };
}

pub(crate) fn send_to(fd: c_int, flags: c_int, address: Option<SocketAddr>) -> Result<i64, c_int> {
    let address = address.map(bytes).unwrap_or_default();
    let pointer = if address.is_empty() { std::ptr::null() } else { address.as_ptr() };
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: data and address live through the call and have those lengths.
    result(unsafe { libc::sendto(fd, b"x".as_ptr().cast(), 1, flags, pointer.cast(), address.len() as u32) } as i64)
}

pub(crate) fn send_message(fd: c_int, flags: c_int, address: SocketAddr) -> Result<i64, c_int> {
    let mut address = bytes(address);
    let mut iov = libc::iovec { iov_base: b"x".as_ptr().cast_mut().cast(), iov_len: 1 };
    // SAFETY: all zeros is a valid message; what it points to lives through the call and is only read.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_name = address.as_mut_ptr().cast();
        message.msg_namelen = address.len() as u32;
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        result(libc::sendmsg(fd, &raw const message, flags | libc::MSG_NOSIGNAL) as i64)
    }
}

pub(crate) fn send_messages(fd: c_int, flags: c_int, address: SocketAddr) -> Result<i64, c_int> {
    let mut address = bytes(address);
    // SAFETY: all zeros is a valid message without data; the address lives through the call and is only read.
    unsafe {
        let mut message: libc::mmsghdr = std::mem::zeroed();
        message.msg_hdr.msg_name = address.as_mut_ptr().cast();
        message.msg_hdr.msg_namelen = address.len() as u32;
        result(libc::sendmmsg(fd, &raw mut message, 1, flags as _))
    }
}

pub(crate) fn set_option(fd: c_int, level: c_int, name: c_int, value: c_int) -> Result<(), c_int> {
    // SAFETY: the value lives through the call and has that size.
    result(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<c_int>() as u32) }).map(drop)
}

pub(crate) fn set_send_timeout(fd: c_int, milliseconds: i64) {
    let value = libc::timeval { tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000 };
    let size = size_of::<libc::timeval>() as u32;
    // SAFETY: the value lives through the call and has that size.
    let done = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, (&raw const value).cast(), size) };
    assert_eq!(done, 0);
}

pub(crate) fn socket_error(fd: c_int) -> c_int {
    let (mut value, mut size) = (0, size_of::<c_int>() as u32);
    // SAFETY: value and size live through the call and belong together.
    unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut value).cast(), &raw mut size) };
    value
}

/// Waits until the socket can be written or the time is over.
pub(crate) fn writable(fd: c_int, milliseconds: c_int) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry, which is ours.
    unsafe { libc::poll(&raw mut entry, 1, milliseconds) == 1 }
}

/// Reads the greeting.
pub(crate) fn greeted(fd: c_int) -> bool {
    let mut byte = 0u8;
    // SAFETY: room for one byte.
    unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, 0) == 1 && byte == b'!' }
}
