//! One machine that is known: its record, its connection while there is one, and how many use that.

use crate::{enter::Entered, record::Record};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(60);

/// A machine.
pub(crate) struct One {
    pub(crate) key: String,
    record: Mutex<Record>,
    /// The life of the shell that runs, or of the next. It ends with its connection, so no older number ever comes back.
    shell: AtomicU64,
    connection: Mutex<Connected>,
    /// Held while connecting: whoever comes meanwhile gets the same connection.
    pub(crate) door: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Connected {
    entered: Option<Arc<Entered>>,
    users: u32,
    /// Rises with each use: an old timer sees that it is old.
    uses: u64,
}

impl One {
    pub(crate) fn new(key: &str, record: Record, now: u64) -> Self {
        let (shell, door) = (AtomicU64::new(now), tokio::sync::Mutex::default());
        Self { key: key.into(), record: Mutex::new(record), shell, connection: Mutex::default(), door }
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        // Nothing that can panic runs while it is held.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shell(&self) -> u64 {
        self.shell.load(Ordering::Relaxed)
    }

    /// That shell is over; the next one has another number.
    pub(crate) fn shell_over(&self, life: u64, now: u64) {
        let _ = self.shell.compare_exchange(life, now.max(life + 1), Ordering::Relaxed, Ordering::Relaxed);
    }

    fn connected(&self) -> MutexGuard<'_, Connected> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, if there is one.
    pub(crate) fn entered(&self) -> Option<Arc<Entered>> {
        self.connected().entered.clone()
    }

    /// Another connection takes the place of the former.
    pub(crate) fn enter(&self, entered: Arc<Entered>) {
        self.connected().entered = Some(entered);
    }

    /// Lets go of the connection: it ends when nobody uses it any more.
    pub(crate) fn leave(&self) {
        self.connected().entered = None;
    }

    /// Somebody uses the connection from now on, until what is given is dropped.
    pub(crate) fn used(self: &Arc<Self>) -> Use {
        let mut connected = self.connected();
        connected.users += 1;
        connected.uses += 1;
        Use(self.clone())
    }
}

/// A use of a machine's connection.
pub(crate) struct Use(Arc<One>);

impl Drop for Use {
    fn drop(&mut self) {
        let uses = {
            let mut connected = self.0.connected();
            connected.users -= 1;
            if connected.users > 0 {
                return;
            }
            connected.uses
        };
        // Outside of the event loop nothing is left that could use it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let one = Arc::downgrade(&self.0);
        drop(runtime.spawn(async move {
            sleep_until(Instant::now() + IDLE).await;
            let Some(one) = one.upgrade() else { return };
            let entered = {
                let mut connected = one.connected();
                if connected.users > 0 || connected.uses != uses { None } else { connected.entered.take() }
            };
            if let Some(entered) = entered {
                entered.close().await;
            }
        }));
    }
}
