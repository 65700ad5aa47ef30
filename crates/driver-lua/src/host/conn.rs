//! One client on the holder's socket: what it has sent and not yet been read as frames, and what it still has to be sent.
//!
//! Stream bytes go out straight from the ring; direct frames and gaps are staged and go out only between two whole
//! frames. Nothing here waits or knows what a frame means.

use super::store::Store;
use crate::ring::Here;
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send, sendmsg},
};
use std::{io::IoSlice, os::fd::OwnedFd};
use vmoon_core::frame::{Frame, HEADER, tag};

/// Direct bytes that may wait for a client that does not read; beyond, it is disconnected.
const MAX_DIRECT: usize = 40 << 20;
/// The most that is copied from the spill file at once.
const STAGE: usize = 64 << 10;
/// A buffer larger than this is given back when it is empty.
const KEEP: usize = 64 << 10;

/// What reading from a client gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Nothing more for now.
    Later,
    /// So many more bytes are in [`Conn::inbox`].
    Some,
    /// It is gone.
    Gone,
}

pub(crate) struct Conn {
    pub(crate) fd: OwnedFd,
    /// The protocol spoken with it, known once it has said hello.
    pub(crate) protocol: u32,
    /// Bytes received and not consumed.
    pub(crate) inbox: Vec<u8>,
    /// Stream offset of the next byte to send.
    pub(crate) sent: u64,
    /// Offset of a frame's first byte, at or before `sent`.
    boundary: u64,
    staged: Vec<u8>,
    staged_done: usize,
    direct: Vec<u8>,
    broken: bool,
}

impl Conn {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            protocol: 0,
            inbox: Vec::new(),
            sent: 0,
            boundary: 0,
            staged: Vec::new(),
            staged_done: 0,
            direct: Vec::new(),
            broken: false,
        }
    }

    /// The stream is sent from this offset.
    pub(crate) fn start(&mut self, from: u64) {
        self.sent = from;
        self.boundary = from;
    }

    /// Reads what is there, at most about `max` bytes.
    pub(crate) fn receive(&mut self, max: usize) -> Read {
        let start = self.inbox.len();
        self.inbox.reserve(max.min(16 << 10));
        let result = recv(&self.fd, rustix::buffer::spare_capacity(&mut self.inbox), RecvFlags::DONTWAIT);
        match result {
            Ok(_) if self.inbox.len() == start => Read::Gone,
            Ok(_) => Read::Some,
            Err(Errno::AGAIN | Errno::INTR) => Read::Later,
            Err(_) => Read::Gone,
        }
    }

    /// Forgets the first `n` received bytes.
    pub(crate) fn consume(&mut self, n: usize) {
        if n == self.inbox.len() {
            self.inbox.clear();
            if self.inbox.capacity() > KEEP {
                self.inbox = Vec::new();
            }
        } else {
            self.inbox.drain(..n);
        }
    }

    /// Queues a direct frame.
    pub(crate) fn direct(&mut self, tag: u8, id: u64, payload: &[u8]) {
        Frame { tag, id, payload }.encode(&mut self.direct);
        self.broken |= self.direct.len() > MAX_DIRECT;
    }

    /// Whether something waits for the client to read.
    pub(crate) fn wants_write(&self, store: &Store) -> bool {
        self.staged_done < self.staged.len() || !self.direct.is_empty() || self.sent < store.end()
    }

    /// Whether the connection failed and should be dropped.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Sends what can be sent now.
    pub(crate) fn flush(&mut self, store: &Store) {
        while !self.broken {
            if self.staged_done < self.staged.len() {
                match send(&self.fd, &self.staged[self.staged_done..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                    Ok(n) => self.staged_done += n,
                    Err(error) => return self.failed(error),
                }
                if self.staged_done < self.staged.len() {
                    continue;
                }
                self.staged_done = 0;
                self.staged.clear();
                if self.staged.capacity() > KEEP {
                    self.staged = Vec::new();
                }
            }
            if !self.direct.is_empty() && self.at_boundary(store) {
                std::mem::swap(&mut self.staged, &mut self.direct);
                continue;
            }
            if self.sent >= store.end() {
                return;
            }
            let limit = if self.direct.is_empty() { usize::MAX } else { self.to_boundary(store) };
            if let Some((a, b)) = store.ring_slices(self.sent, limit) {
                let want = a.len() + b.len();
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                let result = if b.is_empty() {
                    send(&self.fd, a, flags)
                } else {
                    sendmsg(&self.fd, &[IoSlice::new(a), IoSlice::new(b)], &mut Default::default(), flags)
                };
                match result {
                    Ok(n) => {
                        self.sent += n as u64;
                        self.advance(store);
                        if n < want {
                            continue;
                        }
                    }
                    Err(error) => return self.failed(error),
                }
                continue;
            }
            let mut chunk = std::mem::take(&mut self.staged);
            chunk.resize(limit.min(STAGE), 0);
            match store.read(self.sent, &mut chunk) {
                Here::Bytes(n) => {
                    chunk.truncate(n);
                    self.sent += n as u64;
                }
                Here::Gap(n) => {
                    chunk.clear();
                    Frame { tag: tag::GAP, id: 0, payload: &n.to_le_bytes() }.encode(&mut chunk);
                    self.sent += n;
                    self.boundary = self.sent;
                }
                Here::End => chunk.clear(),
            }
            self.staged = chunk;
            self.advance(store);
        }
    }

    fn failed(&mut self, error: Errno) {
        if !matches!(error, Errno::AGAIN | Errno::INTR) {
            self.broken = true;
        }
    }

    /// Moves `boundary` to the last frame start at or before `sent`.
    fn advance(&mut self, store: &Store) {
        if self.sent == store.end() && !store.mid_frame {
            self.boundary = self.sent;
            return;
        }
        while let Some(next) = self.next_boundary(store) {
            if next > self.sent {
                break;
            }
            self.boundary = next;
        }
    }

    fn next_boundary(&self, store: &Store) -> Option<u64> {
        let mut head = [0; HEADER];
        match store.read(self.boundary, &mut head) {
            Here::Bytes(n) if n >= 4 => Some(self.boundary + 4 + u64::from(u32::from_le_bytes([head[0], head[1], head[2], head[3]]))),
            Here::Gap(n) => Some(self.boundary + n),
            _ => None,
        }
    }

    fn at_boundary(&self, store: &Store) -> bool {
        self.boundary == self.sent || (self.sent == store.end() && !store.mid_frame)
    }

    /// Bytes from `sent` to the end of the frame that is being sent.
    fn to_boundary(&self, store: &Store) -> usize {
        self.next_boundary(store).map_or(1, |next| next.saturating_sub(self.sent).max(1) as usize)
    }
}
