//! The holder's state, behind one lock: commands, output, input, clients. Nothing in here waits.
//!
//! Whichever thread holds the lock may do any of this; which thread polls the descriptors is the business of
//! [`super::hub`]. This file must not know Lua.

mod clients;

use super::{
    conn::Conn,
    store::{Appended, Class, Store},
};
use crate::forking::Talk;
use rustix::io::Errno;
use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};
use vmoon_core::frame::{self, Eval, FailureKind, tag};
use vmoon_lua_wire::hello::Versions;

/// How many commands may wait.
pub(crate) const MAX_QUEUE: usize = 1024;
/// How many bytes of commands may wait.
pub(crate) const MAX_QUEUE_BYTES: usize = 64 << 20;
/// How many bytes of unread input may wait.
pub(crate) const MAX_INPUT: usize = 16 << 20;
/// Connections that have not proved who they are.
pub(crate) const MAX_GUESTS: usize = 8;
/// How long a connection may take to prove who it is.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pending output of this size is put into the ring at once.
pub(crate) const PENDING: usize = 32 << 10;
/// The largest frame an unauthenticated client may send.
const MAX_HELLO: usize = 4 << 10;

/// Where output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    pub(crate) fn tag(self) -> u8 {
        match self {
            Stream::Out => tag::STDOUT,
            Stream::Err => tag::STDERR,
        }
    }
}

/// A command to run.
#[derive(Debug)]
pub struct Command {
    /// Its number.
    pub id: u64,
    /// The EVAL payload as received, or what a CALL has of one.
    pub(crate) payload: Vec<u8>,
    /// The arguments of a CALL, JSON; empty for none.
    arguments: Vec<u8>,
    /// Whether the values are wanted as data.
    data: bool,
    announced: bool,
    pub(crate) cut: Option<FailureKind>,
}

impl Command {
    fn eval(&self) -> Eval<'_> {
        Eval::decode(&self.payload).unwrap_or(Eval { deadline_ms: 0, token: b"", code: b"" })
    }

    /// The chunk.
    pub fn code(&self) -> &[u8] {
        self.eval().code
    }

    /// Its arguments, a JSON array; empty for none.
    pub fn arguments(&self) -> &[u8] {
        &self.arguments
    }

    /// Whether its values are wanted as data.
    pub fn wants_data(&self) -> bool {
        self.data
    }

    /// How much room it takes, bytes.
    fn size(&self) -> usize {
        self.payload.len() + self.arguments.len()
    }
}

/// A question that only the idle interpreter can answer.
#[derive(Debug)]
pub struct Query {
    /// [`tag::IS_COMPLETE`] or [`tag::COMPLETE`].
    pub tag: u8,
    /// The id to answer with.
    pub id: u64,
    /// The code, or the text before the cursor.
    pub text: Vec<u8>,
}

pub(crate) struct Running {
    pub(crate) id: u64,
    pub(crate) started: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cut: Option<FailureKind>,
    /// When the interpreter was last seen to have to obey an interrupt.
    pub(crate) cut_at: Option<Instant>,
    /// How much it has printed, or wanted to, bytes.
    pub(crate) printed: u64,
}

pub(crate) struct Guest {
    pub(crate) conn: Conn,
    pub(crate) until: Instant,
}

pub(crate) struct Core {
    pub(crate) store: Store,
    pub(crate) key: String,
    pub(crate) runtime: String,
    // Output not yet in the ring.
    pub(crate) pending: Vec<u8>,
    pub(crate) pending_tag: u8,
    /// The most a command may print, bytes.
    pub(crate) output: Option<u64>,
    // Commands.
    pub(crate) queue: VecDeque<Command>,
    queue_bytes: usize,
    pub(crate) last_id: u64,
    pub(crate) running: Option<Running>,
    pub(crate) queries: VecDeque<Query>,
    // Input for the program.
    pub(crate) input: VecDeque<Vec<u8>>,
    pub(crate) input_bytes: usize,
    pub(crate) input_end: bool,
    pub(crate) asking: bool,
    // Clients.
    pub(crate) listen: OwnedFd,
    pub(crate) conn: Option<Conn>,
    /// How many there were.
    pub(crate) clients: u64,
    pub(crate) guests: Vec<Guest>,
    /// Who wants to copy the process.
    pub(crate) asker: Option<Talk>,
    /// What this holder speaks.
    speaks: Versions,
    /// The reading ends of descriptors 1 and 2.
    pub(crate) captures: [(OwnedFd, Stream); 2],
    /// When a polite end was asked for.
    pub(crate) quit: Option<Instant>,
    /// Set by an interrupt of the running command; the hub then wakes the interpreter.
    pub(crate) interrupt_now: bool,
    /// Something changed that a waiting interpreter may wait for.
    pub(crate) changed: bool,
}

impl Core {
    pub(crate) fn new(store: Store, key: String, runtime: String, listen: OwnedFd, captures: [(OwnedFd, Stream); 2]) -> Self {
        Self {
            store,
            key,
            runtime,
            pending: Vec::new(),
            pending_tag: 0,
            output: None,
            queue: VecDeque::new(),
            queue_bytes: 0,
            last_id: 0,
            running: None,
            queries: VecDeque::new(),
            input: VecDeque::new(),
            input_bytes: 0,
            input_end: false,
            asking: false,
            listen,
            conn: None,
            clients: 0,
            guests: Vec::new(),
            asker: None,
            speaks: Versions::OURS,
            captures,
            quit: None,
            interrupt_now: false,
            changed: false,
        }
    }

    /// Speaks no newer protocol than this one, as a holder of an older build.
    pub(crate) fn speak_at_most(&mut self, protocol: u32) {
        self.speaks.max = protocol.clamp(self.speaks.min, self.speaks.max);
    }

    fn command(&self) -> u64 {
        self.running.as_ref().map_or(0, |running| running.id)
    }

    /// Puts a whole frame into the store; `false` if there is no room. Not to be called between the pieces of another frame.
    pub(crate) fn put(&mut self, tag: u8, id: u64, payload: &[u8], class: Class) -> bool {
        let mut done = 0;
        self.put_piece(tag, id, payload, class, &mut done)
    }

    /// Puts the rest of a frame into the store, from byte `done` on.
    pub(crate) fn put_piece(&mut self, tag: u8, id: u64, payload: &[u8], class: Class, done: &mut usize) -> bool {
        let head = frame::header(tag, id, payload.len());
        let connected = self.conn.is_some();
        let all = self.store.append(&head, payload, done, class, connected) == Appended::Done;
        self.store.mid_frame = !all && *done > 0;
        all
    }

    /// Puts pending output into the store; `false` if there is no room.
    pub(crate) fn put_pending(&mut self) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        if self.store.mid_frame {
            return false;
        }
        let pending = std::mem::take(&mut self.pending);
        let done = self.put(self.pending_tag, self.command(), &pending, Class::Output);
        self.pending = pending;
        if done {
            self.pending.clear();
        }
        done
    }

    /// Takes output of the program: as much of `bytes` as pending output may hold; 0 if it must be put into the store first. What is beyond the limit of
    /// the running command interrupts it and is left out.
    pub(crate) fn pend(&mut self, stream: Stream, bytes: &[u8]) -> usize {
        let (Some(limit), Some(running)) = (self.output, &self.running) else { return self.note(stream, bytes) };
        let (id, left) = (running.id, limit.saturating_sub(running.printed));
        let within = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let taken = if within > 0 || bytes.is_empty() {
            self.note(stream, &bytes[..within])
        } else {
            self.interrupt(id, FailureKind::Interrupted);
            bytes.len()
        };
        if let Some(running) = &mut self.running {
            running.printed = running.printed.saturating_add(taken as u64);
        }
        taken
    }

    /// What is said of a command that has printed more than it may; a line.
    pub(crate) fn too_much(&self) -> Option<String> {
        let (limit, printed) = (self.output?, self.running.as_ref()?.printed);
        let text =
            |left_out| format!("vmoon: a command may print {limit} bytes here: it is interrupted, and {left_out} bytes are left out\n");
        (printed > limit).then(|| text(printed - limit))
    }

    /// As [`Self::pend`], for what we say ourselves.
    pub(crate) fn note(&mut self, stream: Stream, bytes: &[u8]) -> usize {
        if self.pending_tag != stream.tag() {
            if !self.put_pending() {
                return 0;
            }
            self.pending_tag = stream.tag();
        }
        let n = bytes.len().min(PENDING.saturating_sub(self.pending.len()));
        self.pending.extend_from_slice(&bytes[..n]);
        n
    }

    /// Moves what was written to descriptors 1 and 2 into pending output; `false` if there is no room for all of it.
    pub(crate) fn capture(&mut self) -> bool {
        let mut buffer = [0; 4096];
        for index in 0..self.captures.len() {
            loop {
                // Room first: what is taken out of the pipe must not be lost.
                if self.pending.len() + buffer.len() > PENDING && !self.put_pending() {
                    return false;
                }
                let (fd, stream) = &self.captures[index];
                let stream = *stream;
                if self.pending_tag != stream.tag() && !self.pending.is_empty() {
                    let mut peek = 0;
                    // SAFETY: FIONREAD writes one int to a valid place.
                    let rc = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(fd), libc::FIONREAD, &raw mut peek) };
                    if rc < 0 || peek == 0 {
                        break;
                    }
                    if !self.put_pending() {
                        return false;
                    }
                    continue;
                }
                match rustix::io::read(fd, &mut buffer) {
                    Ok(0) => break,
                    Ok(n) => {
                        let mut rest = &buffer[..n];
                        while !rest.is_empty() {
                            rest = &rest[self.pend(stream, rest)..];
                        }
                        if n < buffer.len() {
                            break;
                        }
                    }
                    Err(Errno::INTR) => {}
                    Err(_) => break,
                }
            }
        }
        true
    }

    /// Announces commands in the stream as far as there is room; the first `n` are enough.
    pub(crate) fn announce(&mut self, n: usize) -> bool {
        if self.store.mid_frame {
            return false;
        }
        for index in 0..self.queue.len().min(n) {
            if self.queue[index].announced {
                continue;
            }
            let payload = std::mem::take(&mut self.queue[index].payload);
            let id = self.queue[index].id;
            let large = payload.len() > PENDING;
            // A large one may go in pieces, which only the interpreter's thread may do, when its turn comes.
            let done = !large && self.put(tag::ACCEPTED, id, &payload, Class::Answer);
            self.queue[index].payload = payload;
            self.queue[index].announced = done;
            if !done {
                return false;
            }
        }
        true
    }

    /// Whether the interpreter's thread has something to do.
    pub(crate) fn has_work(&self) -> bool {
        self.quit.is_some() || !self.queue.is_empty() || !self.queries.is_empty() || self.asker.is_some()
    }

    /// The next command, and whether it still has to be announced.
    pub(crate) fn take_command(&mut self) -> Option<(Command, bool)> {
        let command = self.queue.pop_front()?;
        self.queue_bytes -= command.size();
        let announced = command.announced;
        Some((command, !announced))
    }
}
