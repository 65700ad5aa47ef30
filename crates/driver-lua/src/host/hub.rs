//! What an engine sees of the holder, and the two threads that run it.
//!
//! # For who writes an engine
//!
//! The main thread belongs to the engine. It calls [`Hub::next`], which serves the socket until there is something to do,
//! obeys, and reports with [`Hub::finish`] (commands) or [`Hub::answer`] (questions); see [`super::engine::run`].
//! While a command runs the engine calls, from the main thread only:
//!
//! * [`Hub::emit`] for output, as it comes: it is bounded and framed here; it may wait for room.
//! * [`Hub::flush`] when what was emitted should be seen now.
//! * [`Hub::ask`] when the program reads its standard input: waits for the next piece, the end of input or an interrupt.
//! * [`Hub::cut`] to learn whether the command was interrupted, and why (also true for a deadline).
//! * [`Hub::exit`] when the program asked to end; it does not return.
//!
//! An interrupt or a passed deadline calls the interrupter that was given to [`Hub::set_interrupter`], from another thread:
//! it must make the engine return soon and must not block. An engine that has not returned after the grace time is
//! ended with its process. A command that was interrupted before its turn never reaches the engine.
//!
//! # The threads
//!
//! The main thread polls while it is idle and a command is answered without any switch of threads. The I/O thread is started with the first command, as most
//! of thousands of machines have none yet, or, where somebody waits for just this machine, when that is ready. When a command begins, a timer
//! is armed unless it still is; if the command runs when it fires, or the main thread has to wait, the I/O thread takes over
//! the descriptors until the command ends. A command that is over before, and did not follow closely on another one, disarms it: waking a thread for
//! nothing costs more than ten such calls. All state is behind one lock and every descriptor is non-blocking, so it is never wrong for either to look.

mod end;
pub(crate) mod fork;
mod idle;
pub(crate) mod room;
mod watch;

pub use super::core::{Command, Stream};
use super::core::{Core, HANDSHAKE, PENDING, Query};
use super::{
    poll::{CLIENT, Polled},
    store::Class,
};
use idle::Idle;
use room::Room;
use rustix::{
    event::{EventfdFlags, eventfd},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};
use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use vmoon_core::{
    driver::Exit,
    frame::{Failure, FailureKind, MAX_PAYLOAD, tag},
};
use vmoon_sys::process::Identity;

/// A command that runs longer than this is watched by the I/O thread.
const TAKE_OVER: Duration = Duration::from_millis(1);
/// Output of a long command is sent on at least this often.
const PROMPT: Duration = Duration::from_millis(2);
/// How long a polite end may take.
const QUIT_GRACE: Duration = Duration::from_secs(2);
/// How often a full disk is tried again.
const DISK_RETRY: Duration = Duration::from_secs(1);
/// The longest error message and traceback that are passed on, bytes.
const MAX_MESSAGE: usize = 1 << 20;

/// What the engine is to do next.
#[derive(Debug)]
pub enum Work {
    /// Run this and call [`Hub::finish`].
    Eval(Command),
    /// Answer this with [`Hub::answer`].
    Query(Query),
    /// The watched descriptor of that index can be read.
    Ready(usize),
    /// Somebody who may wants to copy the process: obey with [`fork::serve`].
    Fork(fork::Asker),
    /// End: call [`Hub::end`].
    Quit,
}

/// How a command ended.
#[derive(Debug)]
pub enum Outcome {
    /// It gave these values, printed.
    Values(Vec<u8>),
    /// It gave nothing.
    Nothing,
    /// It gave values that were wanted as data.
    Data {
        /// As JSON, see [`tag::DATA`].
        data: Vec<u8>,
        /// Printed; `None` if it gave nothing.
        values: Option<Vec<u8>>,
    },
    /// It is unfinished; the compiler's message.
    Incomplete(Vec<u8>),
    /// It failed.
    Failed {
        /// Why; `Interrupted` becomes `Deadline` by itself where a deadline was the reason.
        kind: FailureKind,
        /// The error value as text.
        message: Vec<u8>,
        /// The traceback.
        traceback: Vec<u8>,
    },
    /// The interpreter is gone.
    Ended(Exit),
}

/// What [`Hub::ask`] gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// The next piece of input, never empty.
    Data(Vec<u8>),
    /// The end of input.
    End,
    /// The command was interrupted.
    Interrupted,
}

type Interrupter = Box<dyn Fn(u64) + Send + Sync>;

struct State {
    core: Core,
    /// There is an I/O thread.
    threaded: bool,
    /// The I/O thread polls.
    taken: bool,
    /// The main thread waits for a change.
    parked: bool,
    /// The I/O thread wants to be told of new output.
    nudge: bool,
    /// When a full disk was last tried.
    tried: Instant,
    /// The timer will fire.
    armed: bool,
    /// When the last command began.
    began: Option<Instant>,
    /// No other command began shortly before the last one.
    lone: bool,
    /// What the main thread waits for while nothing is to be done.
    idle: Option<Idle>,
    /// The I/O thread looks whether the client can be written to.
    watches_write: bool,
    /// This process.
    me: Identity,
    /// Where its end is recorded.
    exit_path: PathBuf,
}

/// The holder, as its threads share it.
pub struct Hub {
    state: Mutex<State>,
    changed: Condvar,
    wake: OwnedFd,
    /// Readable for ever once SIGTERM has come.
    term: OwnedFd,
    timer: OwnedFd,
    interrupter: OnceLock<Interrupter>,
    advice: OnceLock<&'static str>,
    room: OnceLock<Room>,
    /// The deadline of commands that bring none.
    command_time: OnceLock<Duration>,
    grace: Duration,
}

type Guard<'a> = MutexGuard<'a, State>;

impl Hub {
    /// A hub of the process that calls it.
    ///
    /// # Errors
    /// When the kernel gives no more descriptors.
    pub(crate) fn new(core: Core, me: Identity, exit_path: PathBuf, grace: Duration) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let term = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        super::term::install(wake.as_raw_fd(), term.as_raw_fd());
        Ok(Self {
            state: Mutex::new(State {
                core,
                threaded: false,
                taken: false,
                parked: false,
                nudge: false,
                tried: Instant::now(),
                armed: false,
                began: None,
                lone: false,
                idle: None,
                watches_write: false,
                me,
                exit_path,
            }),
            changed: Condvar::new(),
            wake,
            term,
            timer: timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?,
            interrupter: OnceLock::new(),
            advice: OnceLock::new(),
            room: OnceLock::new(),
            command_time: OnceLock::new(),
            grace,
        })
    }

    fn lock(&self) -> Guard<'_> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process.
    pub(crate) fn process(&self) -> Identity {
        self.lock().me.clone()
    }

    /// Says how the running command is interrupted; the argument is the command's number. Only the first call counts.
    pub fn set_interrupter(&self, interrupter: impl Fn(u64) + Send + Sync + 'static) {
        let _ = self.interrupter.set(Box::new(interrupter));
    }

    /// What is said on standard error before a program that did not yield is ended: a line. Only the first call counts.
    pub fn set_advice(&self, advice: &'static str) {
        let _ = self.advice.set(advice);
    }

    /// What the hello says of the runtime.
    pub(crate) fn set_runtime(&self, runtime: String) {
        self.lock().core.runtime = runtime;
    }

    /// Serves the socket until there is something to do. Descriptors in `watch` are looked at, too.
    pub fn next(&'static self, watch: &[BorrowedFd<'_>]) -> Work {
        let mut state = self.lock();
        loop {
            if state.core.quit.is_some() {
                return Work::Quit;
            }
            if let Some(query) = state.core.queries.pop_front() {
                return Work::Query(query);
            }
            if let Some(asker) = state.core.asker.take() {
                return Work::Fork(fork::Asker(asker));
            }
            if let Some((command, announce)) = state.core.take_command() {
                let threaded = self.threaded(&mut state);
                state = self.begin(state, &command, announce);
                let (kind, message) = match (command.cut, threaded) {
                    (None, Ok(())) => return Work::Eval(command),
                    (Some(kind), _) => (kind, b"interrupted!".to_vec()),
                    (None, Err(error)) => (FailureKind::Runtime, error.into_bytes()),
                };
                let traceback = Vec::new();
                state = self.conclude(state, Outcome::Failed { kind, message, traceback });
                continue;
            }
            state.core.send();
            if state.core.has_work() {
                // A client that is gone had written something before it went.
                continue;
            }
            let calm = watch.is_empty() && state.threaded && Idle::will_do(&state.core);
            let idle = if calm { Idle::of(state.idle.take(), &state.core, &self.term) } else { None };
            let mut polled;
            if let Some(idle) = idle {
                drop(state);
                polled = idle.wait();
                state = self.lock();
                state.idle = Some(idle);
            } else {
                polled = Polled::new(&state.core, self.term.as_raw_fd());
                for fd in watch {
                    polled.add(fd.as_raw_fd(), libc::POLLIN);
                }
                let timeout = state.core.timeout(Instant::now());
                drop(state);
                polled.wait(timeout);
                state = self.lock();
            }
            self.serve(&mut state, &polled);
            state.core.put_pending();
            if super::term::asked() {
                state.core.ask_to_quit();
            }
            if let Some(index) = (0..watch.len()).find(|index| polled.ready(polled.own + index)) {
                return Work::Ready(index);
            }
        }
    }

    /// Sees to it that there is an I/O thread, without which no command may run.
    fn threaded(&'static self, state: &mut Guard<'_>) -> Result<(), String> {
        if !state.threaded {
            super::spawn_io(self)?;
            state.threaded = true;
        }
        Ok(())
    }

    /// Starts the I/O thread before the first command: somebody will send one soon. What goes wrong is said to that command.
    pub(crate) fn expect_command(&'static self) {
        let _ = self.threaded(&mut self.lock());
    }

    /// Limits commands that bring no deadline of their own. Only the first call counts.
    pub(crate) fn set_command_time(&self, limit: Duration) {
        let _ = self.command_time.set(limit);
    }

    /// Limits what a command may print, bytes.
    pub(crate) fn set_output(&self, limit: Option<u64>) {
        self.lock().core.output = limit;
    }

    fn begin<'a>(&'a self, mut state: Guard<'a>, command: &Command, announce: bool) -> Guard<'a> {
        let started = Instant::now();
        let limit = vmoon_core::frame::Eval::decode(&command.payload).map_or(0, |eval| eval.deadline_ms);
        let own = (limit > 0).then(|| Duration::from_millis(limit.into()));
        let deadline = own.or_else(|| self.command_time.get().copied()).and_then(|limit| started.checked_add(limit));
        state.core.put_pending();
        state.lone = state.began.replace(started).is_none_or(|last| started.duration_since(last) >= TAKE_OVER);
        state.core.running = Some(super::core::Running { id: command.id, started, deadline, cut: None, cut_at: None, printed: 0 });
        // A timer that is armed already is left alone: arming one costs as much as a small command.
        if !std::mem::replace(&mut state.armed, true) {
            self.arm(TAKE_OVER);
        }
        if announce {
            state = self.put(state, tag::ACCEPTED, command.id, &command.payload, Class::Answer);
            state.core.announce(usize::MAX);
        }
        state
    }

    /// The number of the running command, 0 for none.
    pub fn running(&self) -> u64 {
        self.lock().core.running.as_ref().map_or(0, |running| running.id)
    }

    /// Whether the running command was interrupted, and why.
    pub fn cut(&self) -> Option<FailureKind> {
        self.lock().core.running.as_ref().and_then(|running| running.cut)
    }

    /// Output of the program. Waits where the overflow policy says so.
    pub fn emit(&self, stream: Stream, mut bytes: &[u8]) {
        let mut state = self.lock();
        while !bytes.is_empty() {
            let n = state.core.pend(stream, bytes);
            bytes = &bytes[n..];
            if n == 0 || state.core.pending.len() >= PENDING {
                if state.core.put_pending() {
                    state.core.send();
                } else {
                    state = self.park(state);
                }
            }
        }
        self.tell(&mut state);
    }

    /// Tells the I/O thread of output that it could not know of.
    fn tell(&self, state: &mut Guard<'_>) {
        if !state.taken {
            return;
        }
        let blocked = !state.watches_write && state.core.conn.as_ref().is_some_and(|conn| conn.wants_write(&state.core.store));
        if blocked || state.core.interrupt_now || (state.nudge && !state.core.pending.is_empty()) {
            state.nudge = false;
            state.watches_write = true;
            self.wake();
        }
    }

    /// Sends what was emitted, as far as the client takes it now.
    pub fn flush(&self) {
        let mut state = self.flushed(self.lock());
        state.core.send();
        self.tell(&mut state);
    }

    /// Moves what C code and children have written to descriptors 1 and 2 behind what was emitted so far.
    pub fn capture(&self) {
        drop(self.captured(self.lock()));
    }

    /// Waits for input of the program.
    pub fn ask(&self) -> Input {
        let mut state = self.captured(self.lock());
        state = self.flushed(state);
        let input = loop {
            let core = &mut state.core;
            if core.running.as_ref().is_some_and(|running| running.cut.is_some()) || core.quit.is_some() {
                break Input::Interrupted;
            }
            if let Some(piece) = core.input.pop_front() {
                core.input_bytes -= piece.len();
                break Input::Data(piece);
            }
            if core.input_end {
                core.input_end = false;
                break Input::End;
            }
            if !core.asking {
                core.asking = true;
                let id = core.running.as_ref().map_or(0, |running| running.id);
                state = self.put(state, tag::WANTS_INPUT, id, b"", Class::Answer);
                state.core.send();
                continue;
            }
            state = self.park(state);
        };
        state.core.asking = false;
        input
    }

    /// Reports how the running command ended.
    pub fn finish(&self, outcome: Outcome) {
        if let Outcome::Ended(exit) = outcome {
            self.end(&exit);
        }
        let state = self.captured(self.lock());
        let mut state = self.conclude(state, outcome);
        state.core.send();
        if state.lone && state.armed && !state.core.has_work() {
            state.armed = false;
            self.arm(Duration::ZERO);
        }
    }

    fn conclude<'a>(&'a self, state: Guard<'a>, outcome: Outcome) -> Guard<'a> {
        let mut state = self.flushed(state);
        let mut outcome = outcome;
        if let Some(text) = state.core.too_much() {
            state.core.note(Stream::Err, text.as_bytes());
            state = self.flushed(state);
            if !matches!(outcome, Outcome::Failed { .. } | Outcome::Ended(_)) {
                // It was over before the interrupt came, and what it said is not whole all the same.
                let message = b"it printed more than a command may".to_vec();
                outcome = Outcome::Failed { kind: FailureKind::Interrupted, message, traceback: Vec::new() };
            }
        }
        let Some((id, started, cut)) = state.core.running.as_ref().map(|running| (running.id, running.started, running.cut)) else {
            return state;
        };
        let cap = |mut bytes: Vec<u8>, max: usize| {
            bytes.truncate(max);
            bytes
        };
        let outcome = match outcome {
            Outcome::Data { data, values } => {
                state = self.put(state, tag::DATA, id, &data, Class::Answer);
                values.map_or(Outcome::Nothing, Outcome::Values)
            }
            other => other,
        };
        let (tag, payload) = match outcome {
            Outcome::Values(text) => (tag::VALUES, cap(text, MAX_PAYLOAD)),
            Outcome::Incomplete(message) => (tag::INCOMPLETE, cap(message, MAX_MESSAGE)),
            Outcome::Failed { kind, message, traceback } => {
                let kind = if kind == FailureKind::Interrupted { cut.unwrap_or(kind) } else { kind };
                let (message, traceback) = (cap(message, MAX_MESSAGE), cap(traceback, MAX_MESSAGE));
                (tag::ERROR, Failure { kind, message: &message, traceback: &traceback }.to_vec())
            }
            Outcome::Nothing | Outcome::Data { .. } | Outcome::Ended(_) => (0, Vec::new()),
        };
        if tag != 0 {
            state = self.put(state, tag, id, &payload, Class::Answer);
        }
        state = self.put(state, tag::DONE, id, &(started.elapsed().as_micros() as u64).to_le_bytes(), Class::Answer);
        state.core.running = None;
        state.core.interrupt_now = false;
        if std::mem::take(&mut state.taken) {
            self.wake();
        }
        state
    }

    /// Answers a question: `payload` is that of a COMPLETENESS or NAMES frame.
    pub fn answer(&self, query: &Query, payload: &[u8]) {
        let mut state = self.lock();
        let tag = if query.tag == tag::IS_COMPLETE { tag::COMPLETENESS } else { tag::NAMES };
        if let Some(conn) = &mut state.core.conn {
            conn.direct(tag, query.id, payload);
        }
        state.core.send();
    }

    /// Waits until a frame is in the store.
    fn put<'a>(&'a self, mut state: Guard<'a>, tag: u8, id: u64, payload: &[u8], class: Class) -> Guard<'a> {
        let mut done = 0;
        while !state.core.put_piece(tag, id, payload, class, &mut done) {
            state = self.park(state);
        }
        state
    }

    fn flushed<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        while !state.core.put_pending() {
            state = self.park(state);
        }
        state
    }

    fn captured<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        while !state.core.capture() {
            state = self.park(state);
        }
        state
    }

    /// Lets the I/O thread serve the socket until something has changed.
    fn park<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        state.core.changed = false;
        state.core.send();
        state.parked = true;
        self.wake();
        while !state.core.changed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.parked = false;
        if state.core.running.is_none() {
            // Nobody will end a command and take the descriptors back.
            state.taken = false;
            self.wake();
        }
        if let Some(running) = &mut state.core.running
            && running.cut.is_some()
        {
            // Time spent waiting for a reader is not the program's fault.
            running.cut_at = Some(Instant::now());
        }
        state
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Arms the timer that makes the I/O thread look whether to take over; disarms it if that is never.
    fn arm(&self, after: Duration) {
        let value = Timespec { tv_sec: after.as_secs() as i64, tv_nsec: after.subsec_nanos().into() };
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: none, it_value: value });
    }

    fn serve(&self, state: &mut Guard<'_>, polled: &Polled) {
        let core = &mut state.core;
        if polled.ready(2) || polled.ready(3) {
            core.capture();
        }
        if polled.ready(CLIENT) {
            core.read_client(false);
        }
        if !core.guests.is_empty() {
            core.read_guests(Instant::now());
        }
        // Last, when those who left have made room.
        if polled.ready(1) {
            core.accept();
        }
    }
}

impl Core {
    /// How long a poll may last before something has to be looked at.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let handshake = self.guests.iter().map(|guest| guest.until.saturating_duration_since(now)).min();
        debug_assert!(handshake.is_none_or(|limit| limit <= HANDSHAKE));
        let disk = (!self.pending.is_empty() && self.store.disk_full).then_some(DISK_RETRY);
        [handshake, disk].into_iter().flatten().min()
    }
}
