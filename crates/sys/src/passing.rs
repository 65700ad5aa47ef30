//! Small messages with descriptors beside them, over a local socket that keeps messages apart (unix(7), `SOCK_SEQPACKET`).

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg,
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

/// The most descriptors that go with one message.
pub const MAX_FDS: usize = 4;
/// The longest message, bytes.
pub const MAX_MESSAGE: usize = 16 << 10;

/// What arrived.
#[derive(Debug)]
pub enum Received {
    /// A message of so many bytes and the descriptors that came with it, all close-on-exec.
    Message(usize, Vec<OwnedFd>),
    /// Nothing for now.
    Later,
    /// The other end is gone.
    Gone,
}

/// Sends one message whole, or nothing.
///
/// # Errors
/// Those of sendmsg(2); `WouldBlock` if `flags` forbid to wait and the other end does not read.
///
/// # Panics
/// With more than [`MAX_FDS`] descriptors.
pub fn send(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>], wait: bool) -> io::Result<()> {
    assert!(fds.len() <= MAX_FDS, "too many descriptors for one message");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        beside.push(SendAncillaryMessage::ScmRights(fds));
    }
    let flags = SendFlags::NOSIGNAL | if wait { SendFlags::empty() } else { SendFlags::DONTWAIT };
    loop {
        match sendmsg(&socket, &[IoSlice::new(message)], &mut beside, flags) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes the next message into `buffer`.
///
/// # Errors
/// Those of recvmsg(2); `InvalidData` for a message that is longer than the buffer or has more descriptors than [`MAX_FDS`].
pub fn receive(socket: impl AsFd, buffer: &mut [u8], wait: bool) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let got = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut beside, flags) {
            Ok(got) => break got,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Received::Later),
            Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Received::Gone),
            Err(error) => return Err(error.into()),
        }
    };
    let mut fds = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    if got.bytes == 0 && fds.is_empty() {
        return Ok(Received::Gone);
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Received::Message(got.bytes, fds))
}

/// A listening socket of this type at `name` in the directory `dir`, through whose descriptor the path may be of any length.
///
/// # Errors
/// Those of bind(2), `AddrInUse` if the name exists.
pub fn listen(dir: BorrowedFd<'_>, name: &str, kind: SocketType, backlog: i32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    rustix::net::bind(&socket, &address(dir, name)?)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// A blocking connection to the socket `name` in the directory `dir`.
///
/// # Errors
/// Those of connect(2): `NotFound` if there is no such name, `ConnectionRefused` if nobody listens any more.
pub fn connect(dir: BorrowedFd<'_>, name: &str, kind: SocketType) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    loop {
        match rustix::net::connect(&socket, &address(dir, name)?) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn address(dir: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_message_keeps_its_bounds_and_its_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let at = std::fs::File::open(dir.path()).unwrap();
        let listener = listen(at.as_fd(), "s", SocketType::SEQPACKET, 4).unwrap();
        assert_eq!(listen(at.as_fd(), "s", SocketType::SEQPACKET, 4).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(connect(at.as_fd(), "t", SocketType::SEQPACKET).unwrap_err().kind(), io::ErrorKind::NotFound);
        let client = connect(at.as_fd(), "s", SocketType::SEQPACKET).unwrap();
        let server = rustix::net::accept(&listener).unwrap();
        let mut buffer = [0; 8];
        assert!(matches!(receive(&server, &mut buffer, false).unwrap(), Received::Later));
        let (mut reader, writer) = io::pipe().unwrap();
        send(&client, b"one", &[writer.as_fd()], true).unwrap();
        send(&client, b"two", &[], true).unwrap();
        drop(writer);
        let Received::Message(3, mut fds) = receive(&server, &mut buffer, true).unwrap() else { panic!() };
        std::fs::File::from(fds.remove(0)).write_all(b"through").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), &buffer[..3]), ("through", &b"one"[..]));
        let Received::Message(3, fds) = receive(&server, &mut buffer, true).unwrap() else { panic!() };
        assert!(fds.is_empty());
        send(&client, b"far too long", &[], true).unwrap();
        assert_eq!(receive(&server, &mut buffer, true).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(client);
        assert!(matches!(receive(&server, &mut buffer, true).unwrap(), Received::Gone));
        drop(listener);
        assert_eq!(connect(at.as_fd(), "s", SocketType::SEQPACKET).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
