//! Waiting for any of the holder's descriptors.

use super::core::{Core, MAX_GUESTS, PENDING};
use std::{
    os::fd::{AsRawFd as _, RawFd},
    time::Duration,
};

/// Index of the client's descriptor, behind what wakes us, the listening socket and both captures.
pub(super) const CLIENT: usize = 4;

/// A set of descriptors for poll(2), by number: the state is not locked while they are waited for, so one may be closed
/// meanwhile; that only makes an answer useless, since every descriptor is non-blocking.
#[derive(Clone)]
pub(super) struct Polled {
    fds: [libc::pollfd; Self::MAX],
    len: usize,
    /// Index of the first descriptor of the engine.
    pub(super) own: usize,
}

impl Polled {
    const MAX: usize = CLIENT + 1 + MAX_GUESTS + 8;

    pub(super) fn empty() -> Self {
        Self { fds: [libc::pollfd { fd: -1, events: 0, revents: 0 }; Self::MAX], len: 0, own: 0 }
    }

    pub(super) fn new(core: &Core, wake: RawFd) -> Self {
        let mut this = Self::empty();
        this.add(wake, libc::POLLIN);
        this.add(core.listen.as_raw_fd(), libc::POLLIN);
        for (fd, _) in &core.captures {
            // Output that has no room stays in the pipe, unlooked at.
            this.add(if core.pending.len() >= PENDING / 2 { -1 } else { fd.as_raw_fd() }, libc::POLLIN);
        }
        match &core.conn {
            Some(conn) => this.add(conn.fd.as_raw_fd(), libc::POLLIN | if conn.wants_write(&core.store) { libc::POLLOUT } else { 0 }),
            None => this.add(-1, 0),
        }
        for guest in &core.guests {
            this.add(guest.conn.fd.as_raw_fd(), libc::POLLIN);
        }
        this.own = this.len;
        this
    }

    pub(super) fn add(&mut self, fd: RawFd, events: i16) {
        if let Some(slot) = self.fds.get_mut(self.len) {
            *slot = libc::pollfd { fd, events, revents: 0 };
            self.len += 1;
        }
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) {
        let limit = timeout.map(|limit| libc::timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() });
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the array and the timeout live until the call returns; no signal mask is given. EINTR leaves no events.
        let n = unsafe { libc::ppoll(self.fds.as_mut_ptr(), self.len as libc::nfds_t, limit, std::ptr::null()) };
        if n < 0 {
            self.fds.iter_mut().for_each(|fd| fd.revents = 0);
        }
    }

    /// Takes over what was found in another way: the descriptors up to the client's of these indexes can be read.
    pub(super) fn found(&mut self, indexes: impl Iterator<Item = usize>) {
        (self.len, self.own) = (CLIENT + 1, CLIENT + 1);
        for index in indexes {
            if let Some(fd) = self.fds.get_mut(index) {
                fd.revents = libc::POLLIN;
            }
        }
    }

    pub(super) fn clone_wait(mut self, timeout: Option<Duration>) -> Self {
        self.wait(timeout);
        self
    }

    pub(super) fn ready(&self, index: usize) -> bool {
        index < self.len && self.fds[index].revents != 0
    }
}
