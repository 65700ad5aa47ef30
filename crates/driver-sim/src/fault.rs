//! What can go wrong on the way to the world, scripted by a test. Knows nothing of machines.

use tokio::sync::watch;
use vmoon_core::Code;

/// What happens to one driver call or one step of it, instead of or besides its effect.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It fails with this code and has done nothing.
    Fail(Code),
    /// It does its work, then fails with this code: the answer was lost.
    ActThenFail(Code),
    /// It waits for the gate, then does its work.
    Hang(Gate),
    /// It does its work (or takes its look), then waits for the gate: the answer comes late.
    ActThenHang(Gate),
    /// It waits until the world's clock has advanced by so many milliseconds, then does its work.
    Delay(u64),
}

/// Something to wait at until a test opens it. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(watch::Sender<Entry>);

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    open: bool,
    arrived: usize,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self(watch::Sender::new(Entry::default()))
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.0.send_modify(|entry| entry.open = true);
    }

    /// Waits until somebody stands or stood at the gate.
    pub async fn arrived(&self) {
        let mut entries = self.0.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = entries.wait_for(|entry| entry.arrived > 0).await;
    }

    /// Waits until the gate is open.
    pub async fn pass(&self) {
        self.0.send_modify(|entry| entry.arrived += 1);
        let mut entries = self.0.subscribe();
        let _ = entries.wait_for(|entry| entry.open).await;
    }
}
