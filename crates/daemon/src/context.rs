//! What every part of one daemon shares.

use crate::{connections::Connections, hooks::Hooks, machine::Machine, operations::Operations, session::Shared, store::Store};
use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};
use vmoon_core::{ConnectionId, MachineId, SessionId};

/// The daemon's shared parts. Each machine's task owns its machine; this only finds it.
pub(crate) struct Context {
    /// The store.
    pub(crate) store: Store,
    /// The named points.
    pub(crate) hooks: Hooks,
    /// The running operations.
    pub(crate) operations: Operations,
    /// The state directory.
    pub(crate) state: PathBuf,
    /// The connections.
    pub(crate) connections: Connections,
    machines: RwLock<HashMap<MachineId, Arc<Machine>>>,
    /// How many of them we made.
    ours: AtomicU64,
}

impl Context {
    /// The parts of a daemon that keeps its state in `state`.
    pub(crate) fn new(store: Store, hooks: Hooks, state: PathBuf, connections: Connections) -> Arc<Self> {
        Arc::new(Self {
            store,
            hooks,
            operations: Operations::default(),
            state,
            connections,
            machines: RwLock::default(),
            ours: AtomicU64::new(0),
        })
    }

    /// Every machine, in no order.
    pub(crate) fn machines(&self) -> Vec<Arc<Machine>> {
        self.machines.read().unwrap_or_else(|p| p.into_inner()).values().cloned().collect()
    }

    /// How many machines there are that we made.
    pub(crate) fn count(&self) -> u64 {
        self.ours.load(Ordering::Relaxed)
    }

    /// The machines of a connection, in no order.
    pub(crate) fn machines_of(&self, connection: ConnectionId) -> Vec<Arc<Machine>> {
        self.machines.read().unwrap_or_else(|p| p.into_inner()).values().filter(|m| m.connection == connection).cloned().collect()
    }

    /// One machine.
    pub(crate) fn machine(&self, id: MachineId) -> Option<Arc<Machine>> {
        self.machines.read().unwrap_or_else(|p| p.into_inner()).get(&id).cloned()
    }

    /// Makes a machine findable.
    pub(crate) fn add_machine(&self, machine: Arc<Machine>) {
        let ours = u64::from(machine.ours);
        if self.machines.write().unwrap_or_else(|p| p.into_inner()).insert(machine.id, machine).is_none() {
            self.ours.fetch_add(ours, Ordering::Relaxed);
        }
    }

    /// Forgets a machine that is gone.
    pub(crate) fn forget_machine(&self, id: MachineId) {
        if let Some(machine) = self.machines.write().unwrap_or_else(|p| p.into_inner()).remove(&id) {
            self.ours.fetch_sub(u64::from(machine.ours), Ordering::Relaxed);
        }
    }

    /// Where a session's transcript is.
    pub(crate) fn session_dir(&self, id: SessionId) -> PathBuf {
        self.state.join("sessions").join(id.to_string())
    }

    /// Drops a session and its transcript.
    pub(crate) async fn forget_session(&self, shared: &Shared) {
        let id = shared.row.id;
        shared.forget().await;
        if let Err(error) = self.store.run(move |tx| tx.delete_session(id)).await {
            tracing::warn!(session = %id, error = %error.chain(), "a session could not be dropped");
        }
        self.remove_transcript(id);
    }

    /// Removes a transcript.
    pub(crate) fn remove_transcript(&self, id: SessionId) {
        if let Err(error) = std::fs::remove_dir_all(self.session_dir(id))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(session = %id, %error, "a transcript could not be removed");
        }
    }

    /// Removes the transcripts of sessions that are in no record: a kill came between dropping a session and removing it.
    pub(crate) fn sweep(&self, known: &HashSet<SessionId>) {
        for entry in std::fs::read_dir(self.state.join("sessions")).into_iter().flatten().flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<SessionId>().ok());
            if id.is_some_and(|id| !known.contains(&id))
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "a transcript could not be removed");
            }
        }
    }
}
