//! The loop of the parent: reads lines, starts processes, takes what they send, and gives results out.

use super::{
    Failure, Item, Map, Sink, Summary,
    lines::{LONGEST, Line, Lines},
    order::Order,
    work::{End, Work},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read as _},
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

/// How much is read at once from the input and, of turns, from a process.
const PIECE: usize = 64 << 10;
const TURNS: usize = 16;
/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(100);

/// What the process of an item does with its line and the descriptor for its messages; gives the code with which it ends.
pub(super) type Attempt<'a> = &'a dyn Fn(&[u8], &OwnedFd) -> i32;

/// Runs all of it.
pub(super) fn run(map: &Map, attempt: Attempt<'_>, sink: &mut dyn Sink) -> Result<Summary, Failure> {
    let signals = Signals::new().map_err(Failure::io("signals cannot be awaited"))?;
    let input = open(map.input.as_deref())?;
    let mut run = Run {
        map,
        attempt,
        input,
        lines: Lines::default(),
        held: None,
        next: 0,
        again: VecDeque::new(),
        running: Vec::new(),
        order: Order::new(map.unordered),
        out: Vec::new(),
        summary: Summary::default(),
        told: vmoon_sys::clock::instant(),
    };
    let result = run.all(&signals, sink);
    for work in run.running.drain(..) {
        work.kill();
        // Its end is waited for, so that nothing of it outlives this process.
        let _ = poll(&mut [PollFd::new(&work.pidfd, PollFlags::IN)], None);
        drop(work.end());
    }
    result
}

fn open(path: Option<&Path>) -> Result<File, Failure> {
    match path {
        None => io::stdin().as_fd().try_clone_to_owned().map(File::from).map_err(Failure::io("standard input cannot be read")),
        Some(path) => File::open(path).map_err(|error| Failure::Told(super::super::not_opened(path, &error))),
    }
}

struct Run<'a> {
    map: &'a Map,
    attempt: Attempt<'a>,
    input: File,
    lines: Lines,
    /// A line that was read and may not be started yet.
    held: Option<Line>,
    /// The number of the next item.
    next: u64,
    /// Items that failed and are tried again: number, input, attempts so far.
    again: VecDeque<(u64, Vec<u8>, u32)>,
    running: Vec<Work>,
    order: Order,
    /// What can be given out.
    out: Vec<Item>,
    summary: Summary,
    told: Instant,
}

impl Run<'_> {
    fn all(&mut self, signals: &Signals, sink: &mut dyn Sink) -> Result<Summary, Failure> {
        loop {
            self.start();
            self.give(sink)?;
            if self.running.is_empty() && self.again.is_empty() && self.held.is_none() && self.lines.is_over() {
                return Ok(self.summary);
            }
            if let Some(signal) = self.wait(signals)? {
                self.summary.signal = Some(signal);
                self.summary.running = self.running.len() as u64;
                self.out = self.order.rest();
                self.give(sink)?;
                return Ok(self.summary);
            }
            let now = vmoon_sys::clock::instant();
            if now.duration_since(self.told) >= PROGRESS {
                self.told = now;
                self.summary.running = self.running.len() as u64;
                sink.progress(&self.summary);
            }
        }
    }

    /// Starts as many items as may run.
    fn start(&mut self) {
        while self.running.len() < self.map.jobs.max(1) {
            if let Some((index, input, attempts)) = self.again.pop_front() {
                self.fork(index, input, attempts + 1);
                continue;
            }
            if self.held.is_none() {
                self.held = self.lines.next();
            }
            if !self.order.may_start(self.next) {
                return;
            }
            let Some(line) = self.held.take() else { return };
            let index = self.next;
            self.next += 1;
            match line {
                Line::Text(input) => self.fork(index, input, 1),
                Line::TooLong(bytes) => {
                    self.done(Item {
                        index,
                        outcome: Err(format!("the line has {bytes} bytes, an item may have {LONGEST}")),
                        ..Item::default()
                    });
                }
            }
        }
    }

    fn fork(&mut self, index: u64, input: Vec<u8>, attempts: u32) {
        let limit = self.map.deadline;
        match self.process(&input) {
            Ok((pid, from)) => match Work::new(index, input, attempts, pid, from, limit) {
                Ok(work) => self.running.push(work),
                Err(error) => {
                    // Without a descriptor it cannot be watched; it gets the broken pipe and ends.
                    let outcome = Err(format!("its process cannot be watched: {error}"));
                    self.done(Item { index, outcome, attempts, ..Item::default() });
                }
            },
            Err(error) => {
                let outcome = Err(format!("a process cannot be started: {error}"));
                self.done(Item { index, input, outcome, attempts, ..Item::default() });
            }
        }
    }

    fn process(&self, input: &[u8]) -> io::Result<(i32, OwnedFd)> {
        let (from, to) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&from, true)?;
        // SAFETY: this process has one thread, by the promise of whoever called `super::run`.
        let pid = unsafe { vmoon_sys::fork::fork(|| (self.attempt)(input, &to)) }?;
        Ok((pid, from))
    }

    fn done(&mut self, item: Item) {
        match item.outcome {
            Ok(_) => self.summary.succeeded += 1,
            Err(_) => self.summary.failed += 1,
        }
        self.order.done(item, &mut self.out);
    }

    fn give(&mut self, sink: &mut dyn Sink) -> Result<(), Failure> {
        self.out.drain(..).try_for_each(|item| sink.item(&item)).map_err(Failure::io("write the standard output"))
    }

    /// Waits for something to happen and takes it in; a signal that ends everything.
    fn wait(&mut self, signals: &Signals) -> Result<Option<i32>, Failure> {
        let wants_input = self.held.is_none() && self.lines.is_open() && self.running.len() < self.map.jobs.max(1);
        let mut fds = vec![PollFd::new(&signals.0, PollFlags::IN)];
        fds.extend(self.running.iter().flat_map(|work| [PollFd::new(&work.pidfd, PollFlags::IN), PollFd::new(&work.from, PollFlags::IN)]));
        if wants_input {
            fds.push(PollFd::new(&self.input, PollFlags::IN));
        }
        let now = vmoon_sys::clock::instant();
        let due = self.running.iter().filter_map(|work| work.due).min();
        let rest = due.map_or(PROGRESS, |due| due.saturating_duration_since(now).min(PROGRESS));
        let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::Io("processes cannot be awaited", error.into())),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[0]
            && let Some(signal) = signals.next()
        {
            return Ok(Some(signal));
        }
        self.works(&ready[1..]);
        if wants_input && ready.last() == Some(&true) {
            self.read()?;
        }
        Ok(None)
    }

    /// Takes what the processes have sent, ends those whose time is over and takes those that have ended.
    fn works(&mut self, ready: &[bool]) {
        let now = vmoon_sys::clock::instant();
        for (at, work) in std::mem::take(&mut self.running).into_iter().enumerate() {
            let mut work = work;
            if ready[2 * at + 1] && !ready[2 * at] {
                work.receive(TURNS);
            }
            if let Some(limit) = self.map.deadline.filter(|_| work.due.is_some_and(|due| due <= now) && !ready[2 * at]) {
                work.expire(limit);
            }
            if !ready[2 * at] {
                self.running.push(work);
                continue;
            }
            match work.end() {
                End::Failed(item) if item.attempts <= self.map.retries => {
                    self.summary.retried += 1;
                    self.again.push_back((item.index, item.input, item.attempts));
                }
                End::Done(item) | End::Failed(item) => self.done(item),
            }
        }
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; PIECE];
        match self.input.read(&mut buffer) {
            Ok(0) => self.lines.end(),
            Ok(n) => self.lines.feed(&buffer[..n]),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(Failure::Io("read the items", error)),
        }
        Ok(())
    }
}

/// SIGINT and SIGTERM as something to read (signalfd(2)); from now on they do nothing else to this process.
struct Signals(OwnedFd);

impl Signals {
    fn new() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: the set is initialised by the first call; plain system calls with valid places.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGINT, libc::SIGTERM] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(OwnedFd::from_raw_fd(fd))) }
        }
    }

    fn next(&self) -> Option<i32> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: reads into a place of that size; it is looked at only if it was filled.
        unsafe {
            let n = libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size);
            (n == size as isize).then(|| info.assume_init().ssi_signo as i32)
        }
    }
}
