//! How the process ends: by its program, by whoever asked, or because the program did not yield. None of it returns.

use super::{Guard, Hub};
use crate::host::store::Class;
use std::time::Duration;
use vmoon_core::{driver::Exit, frame::tag};
use vmoon_sys::{atomic, tree};

impl Hub {
    /// The program asked to end. Everything it said is kept; the process ends.
    pub fn exit(&self, code: i32) -> ! {
        let mut state = self.captured(self.lock());
        state = self.flushed(state);
        if let Some((id, started)) = state.core.running.as_ref().map(|running| (running.id, running.started)) {
            state = self.put(state, tag::EXIT, id, &code.to_le_bytes(), Class::Answer);
            state = self.put(state, tag::DONE, id, &(started.elapsed().as_micros() as u64).to_le_bytes(), Class::Answer);
        }
        self.end_with(state, &Exit::Code { code })
    }

    /// Ends the process with everything it started.
    pub fn end(&self, exit: &Exit) -> ! {
        self.end_with(self.lock(), exit)
    }

    fn end_with(&self, mut state: Guard<'_>, exit: &Exit) -> ! {
        // Only what needs no waiting: the program may be in the middle of anything.
        state.core.capture();
        state.core.put_pending();
        state.core.store.set_exit(exit);
        // The header has it already, should the disk be full.
        let _ = atomic::write_json(&state.exit_path, exit);
        state.core.send();
        // As their reaper we have a child as long as there is any descendant.
        let mut status = 0;
        // SAFETY: waitpid writes one int to a valid place; WNOHANG keeps it from waiting.
        if unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } >= 0 {
            let _ = tree::kill_offspring(&state.me, Duration::from_secs(5));
        }
        let code = match exit {
            Exit::Code { code } => *code,
            _ => 1,
        };
        // SAFETY: plain system call. Destructors of the interpreter must not run: it may be in the middle of a call.
        unsafe { libc::_exit(code) }
    }

    /// The same from the I/O thread, while the interpreter's own does not yield.
    pub(super) fn end_now(&self, state: &mut Guard<'_>, exit: &Exit) -> ! {
        state.core.capture();
        state.core.put_pending();
        state.core.store.set_exit(exit);
        let _ = atomic::write_json(&state.exit_path, exit);
        state.core.send();
        let _ = tree::kill_offspring(&state.me, Duration::from_secs(5));
        // SAFETY: plain system call; the interpreter's thread does not yield, so nothing can be unwound.
        unsafe { libc::_exit(if *exit == (Exit::Code { code: 0 }) { 0 } else { 1 }) }
    }
}
