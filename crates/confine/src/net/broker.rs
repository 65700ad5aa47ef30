//! The broker's loop: takes the calls of `connect` that the kernel holds up, decides, connects the very socket of the caller with its own copy of the
//! address, and answers. One thread, never waits for anything but the next event.
//!
//! What it reads of the confined process (numbers, memory, packets) is hostile. Nothing that process does may block it, make it grow, or end it.

use super::address::{self, Asked, Target};
use super::grants::{Grants, Known, Verdict};
use super::raw::{self, Notice};
use super::report::Report;
use super::wire::{self, Answer, Status};
use libc::{c_int, pid_t};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

/// How many calls may wait for a name or a peer at once; one thread has one.
const MOST_WAITING: usize = 256;
/// How many questions for names may wait at once.
const MOST_QUESTIONS: usize = 32;
/// How often it is checked whether those who wait still do, milliseconds: a thread that a signal takes out of its call says nothing.
const SWEEP: u64 = 1_000;
/// How long after a change the report is written, milliseconds.
const REPORT_DELAY: u64 = 200;
/// How many connections are remembered whose answer came too late.
const MOST_LOST: usize = 16;

/// What the broker was given.
pub(super) struct Parts {
    /// Where the calls of the confined process arrive.
    pub(super) listener: OwnedFd,
    /// That process, and its descriptor.
    pub(super) process: (pid_t, OwnedFd),
    pub(super) grants: Grants,
    /// Where the confined process asks for names.
    pub(super) questions: OwnedFd,
    /// The resolver, if there are names.
    pub(super) resolver: Option<OwnedFd>,
    /// Where the report is kept.
    pub(super) report: Option<File>,
}

/// Why a call waits.
enum Stage {
    /// For the addresses of names.
    Names,
    /// For the peer of a socket that blocks, until then (milliseconds), if it has a timeout.
    Peer { until: Option<u64> },
}

/// A call that waits.
struct Waiting {
    id: u64,
    socket: OwnedFd,
    target: Target,
    stage: Stage,
}

/// A question for a name that waits.
struct Question {
    number: u32,
    name: String,
}

pub(super) struct Broker {
    listener: OwnedFd,
    process: (pid_t, OwnedFd),
    grants: Grants,
    asker: Option<OwnedFd>,
    resolver: Option<OwnedFd>,
    file: Option<File>,
    report: Report,
    /// When the report first differed from what is written.
    changed: Option<u64>,
    waiting: Vec<Waiting>,
    questions: VecDeque<Question>,
    /// The cookies of sockets that were connected when their thread had left the call: the repeated call is told 0, not `EISCONN`.
    lost: VecDeque<u64>,
    /// When it was last checked who still waits.
    swept: u64,
    begun: Instant,
}

impl Broker {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { listener, process, grants, questions, resolver, report } = parts;
        Self {
            listener,
            process,
            grants,
            asker: Some(questions),
            resolver,
            file: report,
            report: Report::default(),
            changed: Some(0),
            waiting: Vec::new(),
            questions: VecDeque::new(),
            lost: VecDeque::new(),
            swept: 0,
            begun: Instant::now(),
        }
    }

    /// Serves until no process is left that the filter holds.
    pub(super) fn run(mut self) {
        let mut fds = Vec::new();
        while self.turn(&mut fds) {}
        self.write_report();
    }

    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// Waits for events and handles them; false at the end.
    fn turn(&mut self, fds: &mut Vec<libc::pollfd>) -> bool {
        fds.clear();
        let entry = |fd: Option<&OwnedFd>, events| libc::pollfd { fd: fd.map_or(-1, |fd| fd.as_raw_fd()), events, revents: 0 };
        fds.push(entry(Some(&self.listener), libc::POLLIN));
        fds.push(entry(self.asker.as_ref(), libc::POLLIN));
        fds.push(entry(self.resolver.as_ref(), libc::POLLIN));
        for waiting in &self.waiting {
            let peer = matches!(waiting.stage, Stage::Peer { .. });
            fds.push(entry(peer.then_some(&waiting.socket), libc::POLLOUT));
        }
        match raw::poll(fds, self.timeout()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(_) => return false,
        }
        // From the end, because those who have their answer leave the list.
        for at in (0..self.waiting.len()).rev() {
            if fds[3 + at].revents != 0 {
                self.peer_ready(at);
            }
        }
        if fds[2].revents != 0 {
            self.resolver_ready();
        }
        if fds[1].revents & !libc::POLLIN != 0 {
            // Nobody is left who would read an answer.
            self.asker = None;
        } else if fds[1].revents != 0 {
            self.asker_ready();
        }
        if fds[0].revents & libc::POLLIN != 0 {
            match raw::receive(&self.listener) {
                Ok(notice) => self.call(&notice),
                Err(error) if matches!(raw::errno_of(&error), libc::ENOENT | libc::EINTR) => {}
                Err(_) => return false,
            }
        } else if fds[0].revents != 0 {
            return false;
        }
        self.deadlines();
        true
    }

    /// Milliseconds until something is due, or -1.
    fn timeout(&self) -> c_int {
        let now = self.now();
        let report = self.changed.filter(|_| self.file.is_some()).map(|at| at + REPORT_DELAY);
        let sweep = (!self.waiting.is_empty()).then_some(self.swept + SWEEP);
        let peers = self.waiting.iter().filter_map(|waiting| match waiting.stage {
            Stage::Peer { until } => until,
            Stage::Names => None,
        });
        let first = peers.chain(report).chain(sweep).chain(self.grants.next_deadline()).min();
        // One more, so that it is past when we wake up.
        first.map_or(-1, |at| c_int::try_from(at.saturating_sub(now) + 1).unwrap_or(c_int::MAX))
    }

    fn deadlines(&mut self) {
        let now = self.now();
        if self.grants.next_deadline().is_some_and(|at| at <= now) {
            self.grants.give_up(now);
            self.names_changed();
        }
        let sweep = self.swept + SWEEP <= now;
        if sweep {
            self.swept = now;
        }
        for at in (0..self.waiting.len()).rev() {
            let waiting = &self.waiting[at];
            let late = matches!(waiting.stage, Stage::Peer { until: Some(until) } if until <= now);
            if late || (sweep && !raw::still_waits(&self.listener, waiting.id)) {
                // What the kernel says when the time for sending is over; the attempt goes on.
                let waiting = self.waiting.swap_remove(at);
                raw::answer(&self.listener, waiting.id, libc::EINPROGRESS);
            }
        }
        if self.changed.is_some_and(|at| at + REPORT_DELAY <= now) {
            self.write_report();
        }
    }

    fn answer(&self, id: u64, result: Result<(), i32>) -> bool {
        raw::answer(&self.listener, id, result.err().unwrap_or(0))
    }

    fn refuse(&mut self, id: u64, what: impl std::fmt::Display, why: &str) {
        self.note_refusal(what, why);
        self.answer(id, Err(libc::EACCES));
    }

    fn note_refusal(&mut self, what: impl std::fmt::Display, why: &str) {
        self.report.refuse(what, why);
        let now = self.now();
        self.changed.get_or_insert(now);
    }

    /// One call of `connect`.
    fn call(&mut self, notice: &Notice) {
        let (socket, bytes) = match self.look(notice) {
            Ok(seen) => seen,
            Err(errno) => {
                self.answer(notice.id, Err(errno));
                return;
            }
        };
        // Only now is it certain that the thread whose memory and descriptor these are is the one that calls.
        if !raw::still_waits(&self.listener, notice.id) {
            return;
        }
        match kind(&socket) {
            Err(errno) => {
                self.answer(notice.id, Err(errno));
            }
            Ok(false) => self.refuse(notice.id, "a socket", "only TCP sockets of the Internet are connected"),
            Ok(true) => match address::read(&bytes) {
                Err(errno) => {
                    self.answer(notice.id, Err(errno));
                }
                Ok(Asked::Disconnect) => {
                    let unspecified = [0; 16];
                    let result = raw::connect(&socket, &unspecified).map_err(|error| raw::errno_of(&error));
                    self.answer(notice.id, result);
                }
                Ok(Asked::Connect(target)) => self.decide(notice.id, socket, target),
            },
        }
    }

    /// Takes the socket and copies the address, once.
    fn look(&self, notice: &Notice) -> Result<(OwnedFd, Vec<u8>), i32> {
        let [number, from, size, ..] = notice.args;
        // The kernel looks at the lower halves of these two only.
        let socket = self.take(notice.thread, number as c_int).map_err(|error| raw::errno_of(&error))?;
        let size = usize::try_from(size as c_int).ok().filter(|size| *size <= address::LARGEST).ok_or(libc::EINVAL)?;
        let mut bytes = vec![0; size];
        if size > 0 {
            raw::read_memory(notice.thread, from, &mut bytes).map_err(|error| raw::errno_of(&error))?;
        }
        Ok((socket, bytes))
    }

    fn take(&self, thread: pid_t, number: c_int) -> io::Result<OwnedFd> {
        if thread != self.process.0 {
            match raw::pidfd(thread, false) {
                Ok(of_thread) => return raw::take(&of_thread, number),
                // Before Linux 6.9 only whole processes have one: then it is a thread of ours, or nobody we know.
                Err(error) if raw::errno_of(&error) == libc::EINVAL => {}
                Err(error) => return Err(error),
            }
        }
        raw::take(&self.process.1, number)
    }

    fn decide(&mut self, id: u64, socket: OwnedFd, target: Target) {
        let now = self.now();
        let verdict = self.grants.decide(&target, now);
        match verdict {
            Verdict::Granted => self.connect(id, socket, target),
            Verdict::Refused => self.refuse(id, target, "not granted"),
            Verdict::Ask(numbers) => {
                for number in numbers {
                    self.ask(number, now);
                }
                // Without a resolver the answer is there already.
                match self.grants.decide(&target, now) {
                    Verdict::Granted => self.connect(id, socket, target),
                    Verdict::Wait => self.wait(Waiting { id, socket, target, stage: Stage::Names }),
                    Verdict::Refused | Verdict::Ask(_) => self.refuse(id, target, "not granted"),
                }
            }
            Verdict::Wait => self.wait(Waiting { id, socket, target, stage: Stage::Names }),
        }
    }

    fn wait(&mut self, waiting: Waiting) {
        if self.waiting.len() >= MOST_WAITING {
            // The peer's answer is waited for by the program itself then; without the names' addresses there is no attempt.
            match waiting.stage {
                Stage::Peer { .. } => self.answer(waiting.id, Err(libc::EINPROGRESS)),
                Stage::Names => self.answer(waiting.id, Err(libc::EAGAIN)),
            };
            return;
        }
        self.waiting.push(waiting);
    }

    /// Connects a socket as its owner would: at once if it does not block, else the answer comes with the peer's.
    fn connect(&mut self, id: u64, socket: OwnedFd, target: Target) {
        let bytes = address::write(&target);
        let (blocks, mut result) = connect_without_waiting(&socket, &bytes);
        if result != Err(libc::EALREADY) {
            self.report.made = self.report.made.saturating_add(1);
            let now = self.now();
            self.changed.get_or_insert(now);
        }
        if blocks && result == Err(libc::EINPROGRESS) {
            // A peer on this computer has answered by now.
            result = connect_without_waiting(&socket, &bytes).1;
        }
        if blocks && matches!(result, Err(libc::EINPROGRESS | libc::EALREADY)) {
            let until = raw::send_timeout(&socket).ok().flatten().map(|length| self.now() + length.as_millis() as u64);
            self.wait(Waiting { id, socket, target, stage: Stage::Peer { until } });
            return;
        }
        self.finish(id, &socket, result);
    }

    /// The peer of a socket that blocks has answered, one way or the other.
    fn peer_ready(&mut self, at: usize) {
        let Waiting { id, socket, target, stage } = self.waiting.swap_remove(at);
        // Asking consumes the answer, so it is not asked for a thread that has left.
        if !raw::still_waits(&self.listener, id) {
            return;
        }
        let (_, result) = connect_without_waiting(&socket, &address::write(&target));
        if matches!(result, Err(libc::EINPROGRESS | libc::EALREADY)) {
            self.waiting.push(Waiting { id, socket, target, stage });
            return;
        }
        self.finish(id, &socket, result);
    }

    fn finish(&mut self, id: u64, socket: &OwnedFd, mut result: Result<(), i32>) {
        let cookie = raw::cookie(socket).unwrap_or(0);
        if result == Err(libc::EISCONN)
            && let Some(at) = self.lost.iter().position(|lost| *lost == cookie)
        {
            self.lost.remove(at);
            result = Ok(());
        }
        if !self.answer(id, result) && result.is_ok() {
            if self.lost.len() == MOST_LOST {
                self.lost.pop_front();
            }
            self.lost.push_back(cookie);
        }
    }

    /// Starts the lookup of a name; without a resolver it has failed.
    fn ask(&mut self, number: usize, now: u64) {
        self.grants.asked(number, now);
        let sent = self.resolver.as_ref().is_some_and(|resolver| {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            raw::send(resolver.as_fd(), &wire::question(number, ""), false).is_ok()
        });
        if !sent {
            self.grants.answered(number, &[], now);
        }
    }

    fn resolver_ready(&mut self) {
        let Some(resolver) = &self.resolver else { return };
        let mut packet = [0; wire::LARGEST];
        let now = self.now();
        match raw::recv(resolver.as_fd(), &mut packet, false) {
            Ok(size) if size > 0 => {
                if let Some(answer) = Answer::read(&packet[..size]) {
                    self.grants.answered(answer.number as usize, &answer.addresses, now);
                }
            }
            Err(error) if matches!(raw::errno_of(&error), libc::EAGAIN | libc::EINTR) => return,
            // It is gone: those who wait are told when their deadline comes, later ones at once.
            _ => self.resolver = None,
        }
        self.names_changed();
    }

    /// Decides again for all that wait for names.
    fn names_changed(&mut self) {
        let (names, others) = std::mem::take(&mut self.waiting).into_iter().partition(|w| matches!(w.stage, Stage::Names));
        self.waiting = others;
        let names: Vec<Waiting> = names;
        for Waiting { id, socket, target, .. } in names {
            if raw::still_waits(&self.listener, id) {
                self.decide(id, socket, target);
            }
        }
        for question in std::mem::take(&mut self.questions) {
            self.question(question);
        }
    }

    /// A packet of the confined process; anything may be in it.
    fn asker_ready(&mut self) {
        let Some(asker) = &self.asker else { return };
        let mut packet = [0; wire::LARGEST];
        match raw::recv(asker.as_fd(), &mut packet, false) {
            Ok(size) if size > 0 => {
                if let Some((number, name)) = wire::read_question(&packet[..size]) {
                    let name = name.to_owned();
                    self.question(Question { number, name });
                }
            }
            // An empty packet: the end is told by poll.
            Ok(_) => {}
            Err(error) if matches!(raw::errno_of(&error), libc::EAGAIN | libc::EINTR) => {}
            _ => self.asker = None,
        }
    }

    fn question(&mut self, question: Question) {
        let now = self.now();
        if let Known::Ask(number) = self.grants.known(&question.name, now) {
            self.ask(number, now);
        }
        let (status, addresses) = match self.grants.known(&question.name, now) {
            Known::Addresses(addresses) => (Status::Found, addresses),
            Known::Nothing => (Status::Nothing, Vec::new()),
            Known::NotGranted => {
                self.note_refusal(format_args!("the name {:?}", question.name), "not granted");
                (Status::NotGranted, Vec::new())
            }
            Known::Ask(_) | Known::Wait if self.questions.len() < MOST_QUESTIONS => {
                self.questions.push_back(question);
                return;
            }
            Known::Ask(_) | Known::Wait => (Status::Busy, Vec::new()),
        };
        if let Some(asker) = &self.asker {
            let answer = Answer { number: question.number, status, addresses };
            // Who does not read its answers loses them.
            let _ = raw::send(asker.as_fd(), &answer.write(), false);
        }
    }

    fn write_report(&mut self) {
        self.changed = None;
        if let Some(file) = &self.file {
            let text = self.report.to_string();
            // A full disk or a file that shrank loses the report, nothing else.
            let _ = file.write_all_at(text.as_bytes(), 0).and_then(|()| file.set_len(text.len() as u64));
        }
    }
}

/// Whether this is a TCP socket over IPv4 or IPv6.
fn kind(socket: &OwnedFd) -> Result<bool, i32> {
    let option = |name| raw::option(socket, libc::SOL_SOCKET, name).map_err(|error| raw::errno_of(&error));
    let domain = option(libc::SO_DOMAIN)?;
    let (of_type, protocol) = (option(libc::SO_TYPE)?, option(libc::SO_PROTOCOL)?);
    Ok(matches!(domain, libc::AF_INET | libc::AF_INET6) && of_type == libc::SOCK_STREAM && protocol == libc::IPPROTO_TCP)
}

/// Whether the socket blocks, and the result of a `connect` that does not. The flag belongs to the open socket, which the owner shares, so it differs
/// for some microseconds only.
fn connect_without_waiting(socket: &OwnedFd, bytes: &[u8]) -> (bool, Result<(), i32>) {
    let flags = match raw::flags(socket) {
        Ok(flags) => flags,
        Err(error) => return (false, Err(raw::errno_of(&error))),
    };
    let blocks = flags & libc::O_NONBLOCK == 0;
    if blocks && let Err(error) = raw::set_flags(socket, flags | libc::O_NONBLOCK) {
        return (blocks, Err(raw::errno_of(&error)));
    }
    let result = raw::connect(socket, bytes).map_err(|error| raw::errno_of(&error));
    if blocks {
        // Cannot fail: it is the value it had. The owner may have changed it meanwhile, which is lost; that harms nobody else.
        let _ = raw::set_flags(socket, flags);
    }
    (blocks, result)
}
