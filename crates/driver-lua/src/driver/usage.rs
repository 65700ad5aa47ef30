//! What many machines use, cheaply: three small files of `/proc` a machine.
//!
//! Memory is the resident set (`/proc/PID/stat`, field 24) of the machine's process and of what it started. Pages that
//! several processes share count whole in each, and the kernel keeps the number only to within some pages; the proportional
//! share that `vmoon show` tells costs a walk through all of a process's pages.

use super::{Inner, id_of};
use vmoon_core::driver::{Handle, Usage};
use vmoon_sys::usage::{Used, used};

impl Inner {
    /// Those of the machines that run, in the order asked for.
    pub(super) fn usage(&self, handles: &[Handle]) -> Vec<Usage> {
        handles.iter().filter_map(|handle| self.usage_of(handle)).collect()
    }

    fn usage_of(&self, handle: &Handle) -> Option<Usage> {
        // What cannot be read now is left out: the next refresh comes soon.
        let id = id_of(handle)?;
        let process = match self.seen.get(id) {
            Some((_, meta)) => meta.process.clone(),
            None => self.layout.lives(id).ok()?.pop()?.meta().ok()??.process,
        };
        let Used { cpu, resident } = used(&process)?;
        Some(Usage { handle: handle.clone(), pid: Some(process.pid), cpu_us: cpu.as_micros() as u64, memory_bytes: resident })
    }
}
