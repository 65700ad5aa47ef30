//! A machine as everyone but its task sees it, and what can be asked of the task.

use super::work::Work;
use crate::session;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};
use vmoon_api::views::{MachineView, PlanView};
use vmoon_core::{
    Code, ConnectionId, Error, MachineId, OperationId, Result, SessionId,
    driver::{Channel, Driver, Handle, Sighting},
    machine::{Answer, Request},
    operation::{OpRecord, Progress},
    target::MAIN,
};

/// What is asked of a machine's task.
pub(crate) enum Msg {
    /// A user's request.
    Request {
        /// What.
        request: Request,
        /// How long its operation may take.
        deadline: Option<Duration>,
        /// Whom to answer.
        answer: oneshot::Sender<Result<Answer>>,
    },
    /// Say what a request would do.
    Plan {
        /// What.
        request: Request,
        /// Whom to answer.
        answer: oneshot::Sender<Result<PlanView>>,
    },
    /// The driver reports progress.
    Progress(OperationId, Progress),
    /// A list that was begun then has shown this machine.
    Glimpse {
        /// What was seen.
        sighting: Sighting,
        /// When the list was begun.
        begun: Instant,
        /// Its name there.
        name: Option<String>,
    },
    /// Open a session for a channel that has none.
    Open {
        /// The channel's name.
        name: String,
        /// Whom to answer.
        answer: oneshot::Sender<Result<Arc<session::Shared>>>,
    },
    /// Do work in place.
    Work {
        /// What.
        work: Work,
        /// How long it may take.
        deadline: Option<Duration>,
        /// Whom to answer.
        answer: oneshot::Sender<Result<Answer>>,
    },
    /// Its connection gets another driver: end, and leave everything as it is.
    Release(oneshot::Sender<()>),
    /// Its connection is removed: drop our record of it, whatever its state.
    Drop(oneshot::Sender<()>),
}

/// How a task begins.
pub(crate) enum Start {
    /// With a machine that was just stored: create it.
    Create(OpRecord, Duration),
    /// With what the store held when the daemon started, and the operation that a crash cut off.
    Adopt(Option<OpRecord>),
    /// With a machine that was found and has just been stored, and what was seen of it.
    Found(Sighting),
}

/// A machine as everyone but its task sees it.
pub(crate) struct Machine {
    /// Its identifier.
    pub(crate) id: MachineId,
    /// Its connection.
    pub(crate) connection: ConnectionId,
    /// Whether we made it.
    pub(crate) ours: bool,
    /// Its driver.
    pub(crate) driver: Arc<dyn Driver>,
    pub(super) tx: mpsc::Sender<Msg>,
    pub(super) view: watch::Receiver<Arc<MachineView>>,
    pub(super) handle: watch::Receiver<Option<Handle>>,
    pub(super) sessions: watch::Receiver<Vec<Arc<session::Shared>>>,
    pub(super) channels: watch::Receiver<Vec<Channel>>,
    pub(super) look: Arc<Notify>,
}

fn gone() -> Error {
    Error::new(Code::MachineGone, "the machine was deleted or forgotten")
}

/// Whether these have the channel of a session in another life.
fn later(channels: &[Channel], shared: &session::Shared) -> bool {
    let of = &shared.row.channel;
    channels.iter().any(|channel| channel.name == of.name && channel.life != of.life)
}

impl Machine {
    /// Asks for something.
    ///
    /// # Errors
    /// The refusal's code, or `store.failed`: then nothing was changed.
    pub(crate) async fn request(&self, request: Request, deadline: Option<Duration>) -> Result<Answer> {
        let (answer, answered) = oneshot::channel();
        self.tx.send(Msg::Request { request, deadline, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// What a request would do.
    ///
    /// # Errors
    /// The refusal's code.
    pub(crate) async fn plan(&self, request: Request) -> Result<PlanView> {
        let (answer, answered) = oneshot::channel();
        self.tx.send(Msg::Plan { request, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// What the API shows, as of now.
    pub(crate) fn view(&self) -> Arc<MachineView> {
        self.view.borrow().clone()
    }

    /// Follows what the API shows. Ends when the machine is gone.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<MachineView>> {
        self.view.clone()
    }

    /// It should be looked at.
    pub(crate) fn look(&self) {
        self.look.notify_one();
    }

    /// Tells what a list that was begun then has shown.
    pub(crate) async fn glimpse(&self, sighting: Sighting, begun: Instant, name: Option<String>) {
        // A machine that is gone need not know.
        let _ = self.tx.send(Msg::Glimpse { sighting, begun, name }).await;
    }

    /// Opens a session for a channel that has none.
    ///
    /// # Errors
    /// [`Code::SessionChannel`] if there is no such channel, `store.failed`.
    pub(crate) async fn open(&self, name: &str) -> Result<Arc<session::Shared>> {
        let (answer, answered) = oneshot::channel();
        self.tx.send(Msg::Open { name: name.into(), answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Asks for work in place.
    ///
    /// # Errors
    /// The refusal's code, or `store.failed`: then nothing was changed.
    pub(crate) async fn work(&self, work: Work, deadline: Option<Duration>) -> Result<Answer> {
        let (answer, answered) = oneshot::channel();
        self.tx.send(Msg::Work { work, deadline, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Ends its task, as a kill of the daemon would; another one adopts what the store holds.
    pub(crate) async fn release(&self) {
        let (answer, answered) = oneshot::channel();
        if self.tx.send(Msg::Release(answer)).await.is_ok() {
            let _ = answered.await;
        }
    }

    /// Drops our record of it, whatever its state.
    pub(crate) async fn drop_record(&self) {
        let (answer, answered) = oneshot::channel();
        if self.tx.send(Msg::Drop(answer)).await.is_ok() {
            let _ = answered.await;
        }
    }

    /// Whether a session's channel is offered in another life by now. Its last words may still be being read; it takes no more.
    pub(crate) fn outlives(&self, shared: &session::Shared) -> bool {
        later(&self.channels.borrow(), shared)
    }

    /// The channels it offers now.
    pub(crate) fn channels(&self) -> Vec<Channel> {
        self.channels.borrow().clone()
    }

    /// The driver's handle, once it is known.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.handle.borrow().clone()
    }

    /// Its sessions, oldest first.
    pub(crate) fn sessions(&self) -> Vec<Arc<session::Shared>> {
        self.sessions.borrow().clone()
    }

    /// The live session of the only channel that it offers, or of `main`.
    pub(crate) fn main_session(&self) -> Option<Arc<session::Shared>> {
        let channels = self.channels.borrow();
        let name = match channels.as_slice() {
            [only] => only.name.as_str(),
            _ => MAIN,
        };
        let sessions = self.sessions.borrow();
        let mut live = sessions.iter().rev().filter(|shared| shared.row.name == name && !shared.ended());
        live.find(|shared| !later(&channels, shared)).cloned()
    }

    /// Its session with this id.
    pub(crate) fn session(&self, id: SessionId) -> Option<Arc<session::Shared>> {
        self.sessions.borrow().iter().find(|shared| shared.row.id == id).cloned()
    }

    /// Follows which sessions it has.
    pub(crate) fn follow_sessions(&self) -> watch::Receiver<Vec<Arc<session::Shared>>> {
        self.sessions.clone()
    }
}
