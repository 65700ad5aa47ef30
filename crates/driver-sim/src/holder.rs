//! The program of a simulated machine: a tiny language behind the frames of [`vmoon_core::frame`], and its output stream.
//!
//! A chunk is a list of lines, run in order: `echo TEXT`, `value TEXT`, `error TEXT`, `hang`, `sleep MS` (of the world's
//! clock), `flood BYTES`, `ask` (waits for input and echoes it), `exit STATUS`. A chunk that ends in `(` is unfinished.
//! Everything happens inside the call that causes it; there is no task. It knows no link but the number of the newest one.

mod terminal;

use crate::machine::Overflow;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use vmoon_core::{
    Code, Error, Result,
    driver::{Exit, LinkItem, Offset},
    frame::{Eval, Failure, FailureKind, Frame, HEADER, MAX_PAYLOAD, tag},
    ring::Ring,
};

const WORDS: [&str; 8] = ["ask", "echo", "error", "exit", "flood", "hang", "sleep", "value"];
/// Output is cut into frames of so many bytes.
const PIECE: usize = 4096;
/// One delivery of a link holds about so many bytes.
const BATCH: usize = 64 << 10;

/// What a new link learns.
pub(crate) struct Opened {
    pub(crate) link: u64,
    pub(crate) end: Offset,
    pub(crate) last_command: u64,
    pub(crate) running: Option<u64>,
    pub(crate) queued: u32,
    pub(crate) waiting_input: bool,
}

/// One life of the program.
pub(crate) struct Holder {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    ring: Ring,
    overflow: Overflow,
    /// Frames that wait for room in the ring.
    outbox: VecDeque<Vec<u8>>,
    /// Frames that a frozen program has not read yet.
    inbox: VecDeque<Vec<u8>>,
    frozen: bool,
    now: u64,
    last_command: u64,
    queue: VecDeque<Chunk>,
    running: Option<Running>,
    ended: Option<Exit>,
    /// The newest link; every other one is broken. 0 for none.
    link: u64,
    links: u64,
    direct: VecDeque<Vec<u8>>,
    /// Whether it is a terminal, and what was typed of its line.
    terminal: bool,
    line: Vec<u8>,
}

struct Chunk {
    id: u64,
    deadline_ms: u32,
    code: String,
}

struct Running {
    id: u64,
    began: u64,
    deadline: Option<u64>,
    lines: VecDeque<String>,
    valued: bool,
    waits: Waits,
}

/// What the running chunk waits for.
enum Waits {
    Nothing,
    Forever,
    Input,
    Clock(u64),
    Room(usize),
}

impl Holder {
    pub(crate) fn new(capacity: usize, overflow: Overflow, now: u64) -> Self {
        let state = State {
            ring: Ring::new(capacity.max(2 * PIECE)),
            overflow,
            outbox: VecDeque::new(),
            inbox: VecDeque::new(),
            frozen: false,
            now,
            last_command: 0,
            queue: VecDeque::new(),
            running: None,
            ended: None,
            link: 0,
            links: 0,
            direct: VecDeque::new(),
            terminal: false,
            line: Vec::new(),
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// One behind a terminal, which has said what it says when it starts.
    pub(crate) fn terminal(capacity: usize, overflow: Overflow, now: u64) -> Self {
        let holder = Self::new(capacity, overflow, now);
        holder.change(|state| {
            state.terminal = true;
            state.print(terminal::BOOT);
        });
        holder
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let result = act(&mut self.lock());
        self.changed.notify_waiters();
        result
    }

    pub(crate) fn ended(&self) -> Option<Exit> {
        self.lock().ended.clone()
    }

    pub(crate) fn end(&self, exit: Exit) {
        self.change(|state| state.end(exit));
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        self.change(|state| {
            state.frozen = frozen;
            state.turn();
        });
    }

    pub(crate) fn advance(&self, now: u64) {
        self.change(|state| {
            state.now = now;
            state.turn();
        });
    }

    pub(crate) fn break_link(&self) {
        self.change(|state| state.link = 0);
    }

    /// A new link that reads from there. The former link is broken: one reader per source.
    pub(crate) fn open(&self, from: Offset) -> Result<Opened> {
        self.change(|state| {
            if from > state.ring.end() || !state.is_boundary(from) {
                return Err(Error::new(Code::WireMalformed, format!("stream offset {from} is not between two frames")));
            }
            if state.ended.is_some() && from == state.ring.end() && state.outbox.is_empty() {
                return Err(Error::new(Code::SessionEnded, "that life of the channel is over and was read to its end"));
            }
            state.links += 1;
            state.link = state.links;
            state.direct.clear();
            Ok(Opened {
                link: state.link,
                end: state.ring.end(),
                last_command: state.last_command,
                running: state.running.as_ref().map(|running| running.id),
                queued: state.queue.len() as u32,
                waiting_input: state.running.as_ref().is_some_and(|running| matches!(running.waits, Waits::Input)),
            })
        })
    }

    /// Nobody reads that link any more.
    pub(crate) fn left(&self, link: u64) {
        self.change(|state| {
            if state.link == link {
                state.link = 0;
            }
        });
    }

    /// Whether anybody has a link.
    pub(crate) fn is_linked(&self) -> bool {
        self.lock().link != 0
    }

    /// Takes a frame from that link.
    pub(crate) fn receive(&self, link: u64, frame: Frame<'_>) -> Result<()> {
        self.change(|state| {
            if state.link != link {
                return Err(Error::new(Code::DriverUnreachable, "the link is broken"));
            }
            if state.ended.is_some() && frame.tag != tag::ACK {
                return Err(Error::new(Code::SessionEnded, "the program has ended"));
            }
            if frame.payload.len() > MAX_PAYLOAD {
                return Err(Error::new(Code::CommandTooLarge, "a frame holds at most 16 MiB"));
            }
            state.inbox.push_back(frame.to_vec());
            state.turn();
            Ok(())
        })
    }

    /// The next item for that link, reading from `at`, which moves.
    pub(crate) async fn next(&self, link: u64, at: &mut Offset, buf: &mut Vec<u8>) -> LinkItem {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(item) = self.lock().deliver(link, at, buf) {
                return item;
            }
            changed.await;
        }
    }
}

impl State {
    /// Whether a kept frame, or the next one, begins there. What is lost is not known any more and believed.
    fn is_boundary(&self, offset: Offset) -> bool {
        let mut at = self.ring.start();
        while at < offset {
            at += self.frame_len(at);
        }
        at == offset || offset < self.ring.start()
    }

    /// The encoded length of the frame that begins there.
    fn frame_len(&self, at: Offset) -> u64 {
        let head = self.ring.read(at, 4).to_vec();
        head.first_chunk::<4>().map_or(1, |len| u64::from(u32::from_le_bytes(*len)) + 4)
    }

    fn deliver(&mut self, link: u64, at: &mut Offset, buf: &mut Vec<u8>) -> Option<LinkItem> {
        buf.clear();
        if self.link != link {
            return Some(LinkItem::Broken);
        }
        if let Some(frame) = self.direct.pop_front() {
            buf.extend_from_slice(&frame);
            return Some(LinkItem::Direct);
        }
        let begin = *at;
        if let Some((from, to)) = self.ring.read(begin, 0).gap {
            Frame { tag: tag::GAP, id: 0, payload: &(to - from).to_le_bytes() }.encode(buf);
            *at = to;
            return Some(LinkItem::Stream { at: begin });
        }
        let mut end = begin;
        while end < self.ring.end() && (end == begin || end - begin < BATCH as u64) {
            end += self.frame_len(end);
        }
        if end > begin {
            for part in self.ring.read(begin, (end - begin) as usize).bytes {
                buf.extend_from_slice(part);
            }
            *at = end;
            return Some(LinkItem::Stream { at: begin });
        }
        match &self.ended {
            Some(exit) if self.outbox.is_empty() => Some(LinkItem::Ended(exit.clone())),
            _ => None,
        }
    }

    fn end(&mut self, exit: Exit) {
        if self.ended.is_none() {
            self.ended = Some(exit);
            self.running = None;
            self.queue.clear();
            self.inbox.clear();
        }
    }

    fn say(&mut self, tag: u8, id: u64, payload: &[u8]) {
        self.outbox.push_back(Frame { tag, id, payload }.to_vec());
        self.flush();
    }

    fn answer(&mut self, tag: u8, id: u64, payload: &[u8]) {
        self.direct.push_back(Frame { tag, id, payload }.to_vec());
    }

    fn refuse(&mut self, id: u64, code: Code, why: &str) {
        self.answer(tag::REFUSED, id, format!("{code}\n{why}").as_bytes());
    }

    /// Moves what was said into the ring, as far as there is room.
    fn flush(&mut self) {
        while let Some(frame) = self.outbox.front() {
            let need = frame.len();
            while self.ring.room() < need && !self.ring.is_empty() && self.overflow == Overflow::Drop {
                let oldest = self.ring.start() + self.frame_len(self.ring.start());
                self.ring.ack(oldest);
            }
            if self.ring.room() < need {
                return;
            }
            self.ring.push(frame);
            self.outbox.pop_front();
        }
    }

    /// Does everything that can be done now.
    fn turn(&mut self) {
        while !self.frozen || self.ended.is_some() {
            if let Some(bytes) = self.inbox.pop_front() {
                if let Ok(Some((frame, _))) = Frame::decode(&bytes) {
                    self.obey(frame);
                }
                continue;
            }
            self.flush();
            if self.ended.is_some() || !self.outbox.is_empty() {
                break;
            }
            let late = self.running.as_ref().filter(|running| running.deadline.is_some_and(|at| at <= self.now));
            if let Some(id) = late.map(|running| running.id) {
                self.fail(id, FailureKind::Deadline, "the deadline passed");
            } else if !self.work() {
                break;
            }
        }
    }

    fn obey(&mut self, frame: Frame<'_>) {
        if self.terminal {
            return self.typed(frame);
        }
        let busy = self.running.is_some();
        match frame.tag {
            tag::EVAL => self.accept(frame),
            tag::ACK => self.acknowledge(frame),
            tag::INTERRUPT => match self.running.as_ref().map(|running| running.id) {
                Some(id) if frame.id == 0 || frame.id == id => self.fail(id, FailureKind::Interrupted, "interrupted"),
                _ if frame.id == 0 => {}
                _ => match self.queue.iter().position(|chunk| chunk.id == frame.id) {
                    Some(place) => {
                        self.queue.remove(place);
                        self.fail(frame.id, FailureKind::Interrupted, "interrupted before it began");
                    }
                    None => self.refuse(frame.id, Code::CommandNotFound, "no such command runs or waits"),
                },
            },
            tag::INPUT | tag::INPUT_END => match &mut self.running {
                Some(running) if matches!(running.waits, Waits::Input) => {
                    running.waits = Waits::Nothing;
                    let id = running.id;
                    self.say(tag::STDOUT, id, frame.payload);
                }
                _ => self.refuse(frame.id, Code::SessionNotWaiting, "no command waits for input"),
            },
            tag::IS_COMPLETE => {
                let code = String::from_utf8_lossy(frame.payload);
                let verdict = match () {
                    () if busy => "b".to_owned(),
                    () if is_unfinished(&code) => "ia closing bracket is missing".to_owned(),
                    () => code.lines().find_map(unknown_word).map_or("c".to_owned(), |word| format!("xunknown word '{word}'")),
                };
                self.answer(tag::COMPLETENESS, frame.id, verdict.as_bytes());
            }
            tag::COMPLETE => {
                let start = String::from_utf8_lossy(frame.payload);
                let names: Vec<&str> = WORDS.into_iter().filter(|word| !busy && word.starts_with(&*start)).collect();
                let reply = serde_json::json!({ "busy": busy, "from": 0, "names": names });
                self.answer(tag::NAMES, frame.id, reply.to_string().as_bytes());
            }
            tag::QUIT => self.end(Exit::Code { code: 0 }),
            _ => {}
        }
    }

    fn acknowledge(&mut self, frame: Frame<'_>) {
        if let Some(to) = frame.payload.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))
            && to <= self.ring.end()
            && self.is_boundary(to)
        {
            self.ring.ack(to);
        } else {
            self.refuse(frame.id, Code::WireMalformed, "no frame ends there");
        }
    }

    fn accept(&mut self, frame: Frame<'_>) {
        let Some(eval) = Eval::decode(frame.payload) else {
            return self.refuse(frame.id, Code::WireMalformed, "the request is cut short");
        };
        if frame.payload.len() + 2 * HEADER > self.ring.len() + self.ring.room() {
            return self.refuse(frame.id, Code::CommandTooLarge, "the chunk is larger than the ring");
        }
        match frame.id {
            0 => self.refuse(0, Code::WireMalformed, "commands are numbered from 1"),
            // Asked again after a broken link: it was accepted, and its answers are in the stream.
            id if id <= self.last_command => {}
            id => {
                self.last_command = id;
                self.say(tag::ACCEPTED, id, frame.payload);
                let code = String::from_utf8_lossy(eval.code).into_owned();
                self.queue.push_back(Chunk { id, deadline_ms: eval.deadline_ms, code });
            }
        }
    }

    /// One step of the running chunk, or the beginning of the next; whether there was one.
    fn work(&mut self) -> bool {
        let Some(mut running) = self.running.take() else {
            let Some(chunk) = self.queue.pop_front() else { return false };
            self.start(chunk);
            return true;
        };
        let id = running.id;
        match running.waits {
            Waits::Forever | Waits::Input => {
                self.running = Some(running);
                return false;
            }
            Waits::Clock(at) if at > self.now => {
                self.running = Some(running);
                return false;
            }
            Waits::Room(left) if left > 0 => {
                let piece = left.min(PIECE);
                running.waits = Waits::Room(left - piece);
                self.running = Some(running);
                self.say(tag::STDOUT, id, &[b'x'; PIECE][..piece]);
                return true;
            }
            Waits::Nothing | Waits::Clock(_) | Waits::Room(_) => running.waits = Waits::Nothing,
        }
        let line = running.lines.pop_front();
        let valued = running.valued;
        let Some(line) = line else {
            self.running = Some(running);
            if !valued {
                self.say(tag::VALUES, id, b"");
            }
            self.done(id);
            return true;
        };
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let mut said: Option<(u8, Vec<u8>)> = None;
        match word {
            "echo" => said = Some((tag::STDOUT, format!("{rest}\n").into_bytes())),
            "value" => {
                running.valued = true;
                said = Some((tag::VALUES, rest.into()));
            }
            "hang" => running.waits = Waits::Forever,
            "ask" => {
                running.waits = Waits::Input;
                said = Some((tag::WANTS_INPUT, Vec::new()));
            }
            "sleep" => running.waits = Waits::Clock(self.now + rest.parse().unwrap_or(0)),
            "flood" => running.waits = Waits::Room(rest.parse().unwrap_or(0)),
            _ => {}
        }
        self.running = Some(running);
        if let Some((tag, payload)) = said {
            self.say(tag, id, &payload);
        }
        match word {
            "error" => self.fail(id, FailureKind::Runtime, rest),
            "exit" => {
                let code: i32 = rest.parse().unwrap_or(0);
                self.say(tag::EXIT, id, &code.to_le_bytes());
                self.done(id);
                self.end(Exit::Code { code });
            }
            _ => {}
        }
        true
    }

    fn start(&mut self, chunk: Chunk) {
        let Chunk { id, deadline_ms, code } = chunk;
        let now = self.now;
        let deadline = (deadline_ms > 0).then(|| now + u64::from(deadline_ms));
        let lines: VecDeque<String> = code.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        let unknown = lines.iter().find_map(|line| unknown_word(line)).map(str::to_owned);
        self.running = Some(Running { id, began: now, deadline, lines, valued: false, waits: Waits::Nothing });
        if is_unfinished(&code) {
            self.say(tag::INCOMPLETE, id, b"a closing bracket is missing");
            self.done(id);
        } else if let Some(word) = unknown {
            self.fail(id, FailureKind::Syntax, &format!("unknown word '{word}'"));
        }
    }

    fn fail(&mut self, id: u64, kind: FailureKind, message: &str) {
        let traceback: &[u8] = if kind == FailureKind::Syntax { b"" } else { b"stack traceback:\n\tchunk" };
        self.say(tag::ERROR, id, &Failure { kind, message: message.as_bytes(), traceback }.to_vec());
        self.done(id);
    }

    fn done(&mut self, id: u64) {
        let began = self.running.take_if(|running| running.id == id).map_or(self.now, |running| running.began);
        self.say(tag::DONE, id, &((self.now - began) * 1000).to_le_bytes());
    }
}

fn is_unfinished(code: &str) -> bool {
    code.trim_end().ends_with('(')
}

fn unknown_word(line: &str) -> Option<&str> {
    let word = line.split(' ').next().unwrap_or("");
    (!WORDS.contains(&word) && !line.trim().is_empty()).then_some(word)
}
