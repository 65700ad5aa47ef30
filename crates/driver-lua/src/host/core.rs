//! The holder's state, behind one lock: commands, output, input, clients. Nothing in here waits.
//!
//! Whichever thread holds the lock may do any of this; which thread polls the descriptors is the business of
//! [`super::hub`]. This file must not know Lua.

use super::{
    asker::same,
    conn::{Conn, Read},
    store::{Appended, Class, Store},
};
use crate::forking::Talk;
use rustix::io::Errno;
use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};
use vmoon_core::{
    Code, Error,
    frame::{self, Call, Eval, FailureKind, Frame, tag},
};
use vmoon_lua_wire::hello::{ClientHello, HolderHello, Versions, negotiate};

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

    /// Takes as much of `bytes` as pending output may hold; 0 if it must be put into the store first.
    pub(crate) fn pend(&mut self, stream: Stream, bytes: &[u8]) -> usize {
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
                        self.pend(stream, &buffer[..n]);
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

    /// Reads what the client has sent and obeys it: all of it, or what one poll told of.
    pub(crate) fn read_client(&mut self, all: bool) {
        loop {
            let Some(conn) = &mut self.conn else { return };
            let read = conn.receive(64 << 10);
            if read != Read::Later {
                self.obey_inbox();
            }
            match read {
                Read::Some => {
                    // A short read has emptied the socket: poll tells of more.
                    if !all && self.conn.as_ref().is_none_or(|conn| conn.inbox.is_empty()) {
                        return;
                    }
                }
                Read::Later => return,
                Read::Gone => return self.drop_client(),
            }
        }
    }

    /// The client is gone; the program may have waited for it.
    pub(crate) fn drop_client(&mut self) {
        self.conn = None;
        self.changed = true;
    }

    fn obey_inbox(&mut self) {
        let Some(conn) = &mut self.conn else { return };
        let inbox = std::mem::take(&mut conn.inbox);
        let mut used = 0;
        let mut malformed = None;
        loop {
            match Frame::decode(&inbox[used..]) {
                Ok(Some((frame, n))) => {
                    used += n;
                    self.obey(frame);
                }
                Ok(None) => break,
                Err(error) => {
                    malformed = Some(error);
                    break;
                }
            }
        }
        let Some(conn) = &mut self.conn else { return };
        conn.inbox = inbox;
        conn.consume(used);
        if let Some(error) = malformed {
            conn.direct(tag::REFUSED, 0, refusal(Code::WireMalformed, &error.to_string()).as_slice());
            conn.flush(&self.store);
            self.drop_client();
        }
    }

    fn refuse(&mut self, id: u64, code: Code, message: &str) {
        if let Some(conn) = &mut self.conn {
            conn.direct(tag::REFUSED, id, &refusal(code, message));
        }
    }

    fn obey(&mut self, frame: Frame<'_>) {
        match frame.tag {
            tag::EVAL => match Eval::decode(frame.payload) {
                Some(_) => self.obey_eval(frame.id, frame.payload.to_vec(), Vec::new(), false),
                None => self.refuse(frame.id, Code::WireMalformed, "the command is cut short"),
            },
            tag::CALL if self.protocol() >= 2 => match Call::decode(frame.payload) {
                Some(call) => self.obey_eval(frame.id, call.eval.to_vec(), call.arguments.to_vec(), call.data),
                None => self.refuse(frame.id, Code::WireMalformed, "the command is cut short"),
            },
            tag::INTERRUPT => self.interrupt(frame.id, FailureKind::Interrupted),
            tag::ACK => {
                if let (Some(to), Some(conn)) = (frame.payload.first_chunk::<8>(), &self.conn) {
                    let to = u64::from_le_bytes(*to).min(conn.sent);
                    self.store.ack(to);
                    self.changed = true;
                }
            }
            tag::INPUT => {
                if self.input_bytes + frame.payload.len() > MAX_INPUT {
                    self.refuse(frame.id, Code::SessionQueueFull, "16 MiB of input wait to be read");
                } else if !frame.payload.is_empty() {
                    self.input_bytes += frame.payload.len();
                    self.input.push_back(frame.payload.to_vec());
                    self.changed = true;
                }
            }
            tag::INPUT_END => {
                self.input_end = true;
                self.changed = true;
            }
            tag::IS_COMPLETE | tag::COMPLETE => {
                if self.running.is_some() || !self.queue.is_empty() || self.queries.len() >= 64 {
                    self.answer_busy(frame.tag, frame.id);
                } else {
                    self.queries.push_back(Query { tag: frame.tag, id: frame.id, text: frame.payload.to_vec() });
                }
            }
            tag::QUIT => self.ask_to_quit(),
            // Unknown tags are skipped: a newer daemon may send what it can do without.
            _ => {}
        }
    }

    /// Somebody asked for a polite end: the running command is interrupted and no more are taken.
    pub(crate) fn ask_to_quit(&mut self) {
        if self.quit.is_none() {
            self.quit = Some(Instant::now());
            self.interrupt(0, FailureKind::Interrupted);
            self.changed = true;
        }
    }

    pub(crate) fn answer_busy(&mut self, asked: u8, id: u64) {
        if let Some(conn) = &mut self.conn {
            if asked == tag::IS_COMPLETE {
                conn.direct(tag::COMPLETENESS, id, b"b");
            } else {
                conn.direct(tag::NAMES, id, br#"{"busy":true,"from":0,"names":[]}"#);
            }
        }
    }

    /// The protocol spoken with the client.
    fn protocol(&self) -> u32 {
        self.conn.as_ref().map_or(self.speaks.max, |conn| conn.protocol)
    }

    fn obey_eval(&mut self, id: u64, payload: Vec<u8>, arguments: Vec<u8>, data: bool) {
        if id <= self.last_id {
            return; // written twice by a daemon that could not know that the first got through
        }
        if self.quit.is_some() {
            return self.refuse(id, Code::SessionEnded, "the machine is ending");
        }
        let command = Command { id, payload, arguments, data, announced: false, cut: None };
        if self.queue.len() >= MAX_QUEUE || self.queue_bytes + command.size() > MAX_QUEUE_BYTES {
            return self.refuse(id, Code::SessionQueueFull, "1024 commands or 64 MiB of code wait already");
        }
        self.last_id = id;
        self.store.set_last_command(id);
        self.queue_bytes += command.size();
        self.queue.push_back(command);
        self.announce(MAX_QUEUE);
    }

    /// Interrupts the command of that number, or whatever runs if it is 0.
    pub(crate) fn interrupt(&mut self, id: u64, kind: FailureKind) {
        match &mut self.running {
            Some(running) if id == 0 || running.id == id => {
                if running.cut.is_none() {
                    running.cut = Some(kind);
                    running.cut_at = Some(Instant::now());
                }
                self.interrupt_now = true;
                self.changed = true;
            }
            _ => {
                if let Some(command) = self.queue.iter_mut().find(|command| id != 0 && command.id == id) {
                    command.cut.get_or_insert(kind);
                }
            }
        }
    }

    /// Takes new connections.
    pub(crate) fn accept(&mut self) {
        let flags = rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC;
        while let Ok(fd) = rustix::net::accept_with(&self.listen, flags) {
            if self.guests.len() >= MAX_GUESTS {
                // Some may have left or said who they are meanwhile.
                self.read_guests(Instant::now());
            }
            if self.guests.len() < MAX_GUESTS && vmoon_sys::peer::check(&fd).is_ok() {
                self.guests.push(Guest { conn: Conn::new(fd), until: Instant::now() + HANDSHAKE });
            }
        }
    }

    /// Reads what unauthenticated connections have sent; the first with the key becomes the client.
    pub(crate) fn read_guests(&mut self, now: Instant) {
        let mut index = 0;
        while index < self.guests.len() {
            let guest = &mut self.guests[index];
            let read = guest.conn.receive(MAX_HELLO);
            let inbox = std::mem::take(&mut guest.conn.inbox);
            if let Ok(Some((frame, _))) = Frame::decode(&inbox)
                && frame.tag == tag::FORK
            {
                let conn = self.guests.swap_remove(index).conn;
                self.welcome(Talk::new(conn.fd), frame.payload);
                continue;
            }
            let verdict = match Frame::decode(&inbox) {
                Ok(Some((frame, n))) => Some((self.judge(frame), n)),
                Ok(None) if inbox.len() <= MAX_HELLO => None,
                _ => Some((Err(Error::new(Code::WireMalformed, "the first frame is no hello")), 0)),
            };
            let guest = &mut self.guests[index];
            guest.conn.inbox = inbox;
            match verdict {
                Some((Ok((from, protocol)), n)) => {
                    let mut conn = self.guests.swap_remove(index).conn;
                    conn.consume(n);
                    self.promote(conn, from, protocol);
                }
                Some((Err(error), _)) => {
                    guest.conn.direct(tag::HELLO, 0, &HolderHello::refusal(self.speaks, &error).to_vec());
                    guest.conn.start(self.store.end());
                    guest.conn.flush(&self.store);
                    self.guests.swap_remove(index);
                }
                None if read == Read::Gone || guest.until <= now => {
                    self.guests.swap_remove(index);
                }
                None => index += 1,
            }
        }
    }

    /// From where, and in which protocol, the stream is sent to whoever said this.
    fn judge(&self, frame: Frame<'_>) -> Result<(u64, u32), Error> {
        if frame.tag != tag::HELLO {
            return Err(Error::new(Code::WireMalformed, "the first frame is no hello"));
        }
        let hello = ClientHello::decode(frame.payload)?;
        if !same(hello.key.as_bytes(), self.key.as_bytes()) {
            return Err(Error::new(Code::Permission, "the key is not that of this machine"));
        }
        let protocol = negotiate(self.speaks, hello.versions())?;
        if hello.from > self.store.end() {
            return Err(Error::new(Code::WireMalformed, format!("offset {} is not written yet", hello.from)));
        }
        if !self.store.is_boundary(hello.from) {
            return Err(Error::new(Code::WireMalformed, format!("offset {} is inside a frame", hello.from)));
        }
        Ok((hello.from, protocol))
    }

    fn promote(&mut self, mut conn: Conn, from: u64, protocol: u32) {
        // What the old client had written is obeyed first, so that a command already sent runs exactly once.
        self.read_client(true);
        self.store.stop_dropping();
        conn.start(from);
        conn.protocol = protocol;
        let hello = HolderHello {
            protocol: self.speaks.max,
            min_protocol: self.speaks.min,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime: self.runtime.clone(),
            pid: std::process::id(),
            at: from,
            oldest: self.store.oldest(),
            end: self.store.end(),
            last_command: self.last_id,
            running: self.running.as_ref().map(|running| running.id),
            queued: self.queue.len() as u32,
            waiting_input: self.asking,
            overflow: self.store.overflow().as_str().to_owned(),
            lost: self.store.lost(),
            error: None,
        };
        conn.direct(tag::HELLO, 0, &hello.to_vec());
        self.conn = Some(conn);
        self.changed = true;
        self.obey_inbox();
    }

    /// Sends what can be sent; a client that fails is dropped after what it wrote has been obeyed.
    pub(crate) fn send(&mut self) {
        if let Some(conn) = &mut self.conn {
            conn.flush(&self.store);
            if conn.is_broken() {
                self.read_client(true);
                self.drop_client();
            }
        }
    }
}

/// The payload of a REFUSED frame.
fn refusal(code: Code, message: &str) -> Vec<u8> {
    format!("{}\n{message}", code.as_str()).into_bytes()
}
