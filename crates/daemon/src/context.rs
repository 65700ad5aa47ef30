//! What every part of one daemon shares.

use crate::{
    connections::Connections, directory::Directory, hooks::Hooks, machine::Machine, operations::Operations, session::Shared, store::Store,
};
use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
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
    machines: RwLock<Directory<Arc<Machine>>>,
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

    fn directory(&self) -> RwLockReadGuard<'_, Directory<Arc<Machine>>> {
        self.machines.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every machine, in no order.
    pub(crate) fn machines(&self) -> Vec<Arc<Machine>> {
        self.directory().all().cloned().collect()
    }

    /// How many machines there are that we made.
    pub(crate) fn count(&self) -> u64 {
        self.ours.load(Ordering::Relaxed)
    }

    /// The machines of a connection, in no order.
    pub(crate) fn machines_of(&self, connection: ConnectionId) -> Vec<Arc<Machine>> {
        self.directory().all().filter(|machine| machine.connection == connection).cloned().collect()
    }

    /// One machine.
    pub(crate) fn machine(&self, id: MachineId) -> Option<Arc<Machine>> {
        self.directory().get(id).cloned()
    }

    /// The machines of this name, of all connections.
    pub(crate) fn machines_named(&self, name: &str) -> Vec<Arc<Machine>> {
        self.directory().named(name).filter(|machine| machine.view().name == name).cloned().collect()
    }

    /// The only machine of this name, if there is just one.
    pub(crate) fn only_machine_named(&self, name: &str) -> Option<Arc<Machine>> {
        let directory = self.directory();
        let mut named = directory.named(name);
        match (named.next(), named.next()) {
            (Some(only), None) => Some(only.clone()),
            _ => None,
        }
    }

    /// The session with this id.
    pub(crate) fn session(&self, id: SessionId) -> Option<Arc<Shared>> {
        self.directory().all().find_map(|machine| machine.session(id))
    }

    /// Makes a machine findable.
    pub(crate) fn add_machine(&self, machine: Arc<Machine>) {
        let (ours, name) = (u64::from(machine.ours), machine.view().name.clone());
        if self.machines.write().unwrap_or_else(PoisonError::into_inner).add(machine.id, &name, machine) {
            self.ours.fetch_add(ours, Ordering::Relaxed);
        }
    }

    /// A machine has another name.
    pub(crate) fn rename_machine(&self, id: MachineId, name: &str) {
        self.machines.write().unwrap_or_else(PoisonError::into_inner).rename(id, name);
    }

    /// Forgets a machine that is gone.
    pub(crate) fn forget_machine(&self, id: MachineId) {
        if let Some(machine) = self.machines.write().unwrap_or_else(PoisonError::into_inner).remove(id) {
            self.ours.fetch_sub(u64::from(machine.ours), Ordering::Relaxed);
        }
    }

    /// Where a session's transcript is.
    pub(crate) fn session_dir(&self, id: SessionId) -> PathBuf {
        self.state.join("sessions").join(id.to_string())
    }

    /// Drops a session and its transcript.
    pub(crate) async fn forget_session(&self, shared: &Shared) {
        let (machine, id) = (shared.row.machine, shared.row.id);
        shared.forget().await;
        if let Err(error) = self.store.run(move |tx| tx.delete_session(machine, id)).await {
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
