//! One look at every process, shared by all who asked for it before it began.
//!
//! Ending two thousand machines at once asks for two thousand looks; each would read two thousand processes. Whoever asks
//! while a look is under way waits for the next one, which serves everybody who waits.

use super::ZYGOTE;
use crate::process::Stat;
use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError},
};

/// A process as one look saw it.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    pub(super) stat: Stat,
    environ: OnceLock<Vec<u8>>,
}

impl Process {
    /// Whether it was started with this `NAME=value` in its environment. A process that says of itself that it is a zygote
    /// ([`ZYGOTE`]) bears no mark: it wears that of its next child for a moment.
    pub(super) fn bears(&self, mark: &[u8]) -> bool {
        let environ = self.environ.get_or_init(|| fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default());
        let zygote = format!("{ZYGOTE}={}", self.pid);
        let mut entries = environ.split(|byte| *byte == 0);
        entries.clone().any(|entry| entry == mark) && !entries.any(|entry| entry == zygote.as_bytes())
    }
}

/// What one look saw.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By process id.
    pub(super) processes: HashMap<i32, Process>,
    /// The children of each process.
    pub(super) children: HashMap<i32, Vec<i32>>,
    /// The processes of each session.
    pub(super) sessions: HashMap<i32, Vec<i32>>,
}

#[derive(Default)]
struct Looks {
    running: bool,
    finished: u64,
    latest: Arc<Table>,
}

static LOOKS: OnceLock<(Mutex<Looks>, Condvar)> = OnceLock::new();

/// A look that began after this call.
pub(super) fn now() -> Arc<Table> {
    let (looks, changed) = LOOKS.get_or_init(Default::default);
    let mut state = looks.lock().unwrap_or_else(PoisonError::into_inner);
    // One that is under way began before this call.
    let wanted = state.finished + 1 + u64::from(state.running);
    loop {
        if state.finished >= wanted {
            return state.latest.clone();
        }
        if state.running {
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        state.running = true;
        drop(state);
        let table = Arc::new(look());
        state = looks.lock().unwrap_or_else(PoisonError::into_inner);
        state.running = false;
        state.finished += 1;
        state.latest = table;
        changed.notify_all();
    }
}

fn look() -> Table {
    let mut table = Table::default();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Some(stat) = Stat::read(pid) else { continue };
        table.children.entry(stat.parent).or_default().push(pid);
        table.sessions.entry(stat.session).or_default().push(pid);
        table.processes.insert(pid, Process { pid, stat, environ: OnceLock::new() });
    }
    table
}
