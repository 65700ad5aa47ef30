//! What a session was used for, in few words: how many commands, when last, and what went wrong last.
//!
//! Kept in memory only. A daemon that has just started takes its own beginning for the last use.

use std::{
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use vmoon_api::views::CommandView;

/// How much of an error's message is kept, characters.
const ERROR: usize = 200;

/// Microseconds of the monotonic clock, from the first time somebody asks in this process.
pub(crate) fn now_us() -> u64 {
    static BEGINNING: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    now.saturating_duration_since(*BEGINNING.get_or_init(|| now)).as_micros() as u64
}

/// The same in milliseconds.
pub(crate) fn now_ms() -> u64 {
    now_us() / 1_000
}

/// The use of one session. Written by its task and its attachments, read by whoever shows it.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    commands: AtomicU64,
    used_ms: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Activity {
    /// Somebody used it now.
    pub(super) fn used(&self) {
        self.used_ms.fetch_max(now_ms(), Ordering::Relaxed);
    }

    /// A command was accepted under this number; the first of a session has number 1.
    pub(super) fn accepted(&self, number: u64) {
        self.commands.fetch_max(number, Ordering::Relaxed);
        self.used();
    }

    /// A command ended.
    pub(super) fn done(&self, view: Option<&CommandView>) {
        self.used();
        if let Some(error) = view.and_then(|view| view.error.as_ref()) {
            let text = error.message.lossy();
            *self.last_error.lock().unwrap_or_else(|e| e.into_inner()) = Some(text.chars().take(ERROR).collect());
        }
    }

    /// How many commands it has accepted.
    pub(crate) fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    /// When it was last used, by [`now_ms`].
    pub(crate) fn used_ms(&self) -> u64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    /// For how long nobody has used it.
    pub(super) fn unused(&self) -> Duration {
        Duration::from_millis(now_ms().saturating_sub(self.used_ms()))
    }

    /// The message of the last command that failed.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}
