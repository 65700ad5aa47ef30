//! The I/O thread's half of the hub: it takes over the descriptors while a command runs, and holds commands to their limits.

use super::{DISK_RETRY, Guard, Hub, PROMPT, QUIT_GRACE, State, Stream, TAKE_OVER};
use crate::host::{poll::Polled, term};
use std::{
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};
use vmoon_core::{driver::Exit, frame::FailureKind};

impl Hub {
    /// The I/O thread.
    pub(crate) fn io_thread(&self) {
        let mut bytes = [0; 8];
        loop {
            let mut asleep = Polled::empty();
            asleep.add(self.wake.as_raw_fd(), libc::POLLIN);
            asleep.add(self.timer.as_raw_fd(), libc::POLLIN);
            asleep.wait(None);
            let _ = rustix::io::read(&self.wake, &mut bytes);
            let fired = rustix::io::read(&self.timer, &mut bytes).is_ok();
            let mut state = self.lock();
            state.armed &= !fired;
            if state.core.running.is_none() && !state.parked {
                continue;
            }
            let young = state.core.running.as_ref().map_or(Duration::ZERO, |running| TAKE_OVER.saturating_sub(running.started.elapsed()));
            if !state.parked && !term::asked() && !young.is_zero() {
                // The timer was armed for an earlier command.
                state.armed = true;
                self.arm(young);
                continue;
            }
            state.taken = true;
            // The next command may wait already: its wake-up can have come together with the end of the last one.
            while state.taken || state.parked {
                state.taken = true;
                state = self.attend(state);
            }
        }
    }

    /// One round of the I/O thread while a command runs.
    fn attend<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        let now = Instant::now();
        self.check_limits(&mut state, now);
        state = self.check_room(state, now);
        // The signal or the interrupt may have come before this thread took over.
        if term::asked() {
            state.core.ask_to_quit();
        }
        let printed = !state.core.pending.is_empty();
        let full = state.core.store.disk_full;
        state.core.capture();
        state.core.put_pending();
        state.core.announce(usize::MAX);
        // What the main thread waits for was done here.
        state.core.changed |= full && !state.core.store.disk_full;
        state.core.send();
        self.act(&mut state);
        // While output comes it is looked for regularly; when it has stopped, the next piece wakes us.
        state.nudge = !printed;
        let mut timeout = state.core.timeout(now);
        let mut at_most = |limit: Duration| timeout = Some(timeout.map_or(limit, |known| known.min(limit)));
        if state.core.store.disk_full {
            at_most(DISK_RETRY);
        } else if printed {
            at_most(PROMPT);
        }
        if let Some(limit) = self.next_limit(&state) {
            at_most(limit.saturating_duration_since(now));
        }
        let polled = Polled::new(&state.core, self.wake.as_raw_fd());
        state.watches_write = state.core.conn.as_ref().is_some_and(|conn| conn.wants_write(&state.core.store));
        drop(state);
        let woken = polled.clone_wait(timeout);
        let mut state = self.lock();
        if woken.ready(0) {
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        if term::asked() {
            state.core.ask_to_quit();
        }
        if state.taken {
            self.serve(&mut state, &woken);
            if state.parked && state.core.store.disk_full && state.tried.elapsed() >= DISK_RETRY {
                state.tried = Instant::now();
                state.core.changed = true;
            }
            self.act(&mut state);
        }
        state
    }

    /// Passes an interrupt on to the interpreter, and a change to the main thread if it waits for one.
    fn act(&self, state: &mut Guard<'_>) {
        if std::mem::take(&mut state.core.interrupt_now)
            && let (Some(interrupt), Some(running)) = (self.interrupter.get(), &state.core.running)
        {
            interrupt(running.id);
        }
        if state.core.changed {
            self.changed.notify_all();
        }
    }

    fn next_limit(&self, state: &State) -> Option<Instant> {
        let running = state.core.running.as_ref()?;
        let deadline = running.deadline.filter(|_| running.cut.is_none());
        let grace = running.cut_at.filter(|_| !state.parked).map(|at| at + self.grace);
        let quit = state.core.quit.map(|at| at + QUIT_GRACE);
        let room = running.cut.is_none().then(|| self.next_room(running.id)).flatten();
        [deadline, grace, quit, room].into_iter().flatten().min()
    }

    fn check_limits(&self, state: &mut Guard<'_>, now: Instant) {
        let parked = state.parked;
        let Some(running) = &state.core.running else { return };
        let id = running.id;
        if running.cut.is_none() && running.deadline.is_some_and(|at| at <= now) {
            state.core.interrupt(id, FailureKind::Deadline);
            state.core.interrupt_now = false;
            if let Some(interrupt) = self.interrupter.get() {
                interrupt(id);
            }
            self.changed.notify_all();
        } else if state.core.quit.is_some_and(|at| at + QUIT_GRACE <= now) {
            self.end_now(state, &Exit::Code { code: 0 });
        } else if !parked && running.cut_at.is_some_and(|at| at + self.grace <= now) {
            if let Some(advice) = self.advice.get() {
                state.core.capture();
                state.core.note(Stream::Err, advice.as_bytes());
            }
            self.end_now(state, &Exit::DidNotYield);
        }
    }
}
