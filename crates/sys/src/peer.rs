//! Who is at the other end of a Unix socket. We never cross users, root included.

use std::os::fd::AsFd;
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
}
