//! Staying awake for a moment where an answer is near: around an evaluation, during a commit, during a look at a machine.
//!
//! Waking a process on an idle processor costs more than the evaluation itself (40 to 60 µs on a virtual machine, and a round
//! trip would pay it four times). So for a moment after a command was sent or answered the runtime looks for events instead
//! of sleeping, giving the processor to whoever wants it between two looks. A daemon that nobody asks anything never does.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// How long after the last evaluation: what a fast answer, or the next command of a busy client, takes.
const MOMENT: Duration = Duration::from_micros(150);
/// How long for a commit, at most: most take half of it, those that wait for a disk are slept for.
const COMMIT: Duration = Duration::from_micros(400);

thread_local! {
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Stays awake for a moment from now on.
pub(crate) fn stay() {
    stay_until(Instant::now() + MOMENT);
}

/// Stays awake for a commit that begins now.
pub(crate) fn stay_for_commit() {
    stay_until(Instant::now() + COMMIT);
}

fn stay_until(until: Instant) {
    let before = UNTIL.get();
    UNTIL.set(before.max(Some(until)));
    if before.is_some() {
        return;
    }
    drop(tokio::spawn(async {
        while UNTIL.get().is_some_and(|until| Instant::now() < until) {
            rustix::thread::sched_yield();
            // Looks for events once, without waiting.
            tokio::task::yield_now().await;
        }
        UNTIL.set(None);
    }));
}
