//! What an interpreter has to be able to do, and the loop that lets it.

use super::hub::{Command, Hub, Outcome, Work, fork};
use std::os::fd::BorrowedFd;
use vmoon_core::{driver::Exit, frame::tag};
use vmoon_sys::process::Identity;

/// An interpreter. All calls come from the main thread.
pub trait Engine {
    /// Its name, for example `Lua 5.4`.
    fn runtime(&self) -> String;

    /// Runs a command; see [`super::hub`] for what it may call meanwhile.
    fn eval(&mut self, hub: &Hub, command: &Command) -> Outcome;

    /// The payload of a COMPLETENESS frame: `c`, `i` or `x`, then a message.
    fn is_complete(&mut self, hub: &Hub, code: &[u8]) -> Vec<u8>;

    /// The payload of a NAMES frame, JSON.
    fn complete(&mut self, hub: &Hub, text: &[u8]) -> Vec<u8>;

    /// Descriptors to look at while idle (at most 8), for example the pipes of a child.
    fn watch(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// The watched descriptor of that index can be read while no command runs. `Some` if the interpreter is gone.
    fn ready(&mut self, hub: &Hub, index: usize) -> Option<Exit> {
        let _ = (hub, index);
        None
    }

    /// Whether all of it is in this process, so that a copy of the process is a copy of it.
    fn can_be_copied(&self) -> bool {
        false
    }

    /// Called in a copy of the process: what must differ is changed, and the work directory is another.
    ///
    /// # Errors
    /// A sentence; the copy is then ended.
    fn copied(&mut self, work: &str, process: Identity) -> Result<(), String> {
        let _ = (work, process);
        Err("this interpreter cannot be copied".into())
    }

    /// Called once when it can be used and nobody waits for that any more.
    fn settle(&mut self) {}

    /// Called once before the process ends politely.
    fn quit(&mut self) {}
}

/// Runs the holder's main thread. Returns only by ending the process.
pub fn run(hub: &'static Hub, mut engine: Box<dyn Engine>) -> ! {
    loop {
        let work = hub.next(&engine.watch());
        match work {
            Work::Eval(command) => {
                let outcome = engine.eval(hub, &command);
                hub.finish(outcome);
            }
            Work::Query(query) => {
                let payload = match query.tag {
                    tag::IS_COMPLETE => engine.is_complete(hub, &query.text),
                    _ => engine.complete(hub, &query.text),
                };
                hub.answer(&query, &payload);
            }
            Work::Ready(index) => {
                if let Some(exit) = engine.ready(hub, index) {
                    hub.end(&exit);
                }
            }
            Work::Fork(asker) => fork::serve(hub, &mut *engine, asker),
            Work::Quit => {
                engine.quit();
                hub.end(&Exit::Code { code: 0 });
            }
        }
    }
}
