//! The clients of the holder: what they send is obeyed, who comes is let in or refused.

use super::{Command, Core, Guest, HANDSHAKE, MAX_GUESTS, MAX_HELLO, MAX_INPUT, MAX_QUEUE, MAX_QUEUE_BYTES, Query};
use crate::{
    forking::Talk,
    host::{
        asker::same,
        conn::{Conn, Read},
    },
};
use std::time::Instant;
use vmoon_core::{
    Code, Error,
    frame::{Call, Eval, FailureKind, Frame, tag},
};
use vmoon_lua_wire::hello::{ClientHello, HolderHello, negotiate};

impl Core {
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
        self.clients += 1;
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
