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

thread_local! {
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Stays awake for a moment from now on.
pub(crate) fn stay() {
    let running = UNTIL.replace(Some(Instant::now() + MOMENT)).is_some();
    if running {
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
