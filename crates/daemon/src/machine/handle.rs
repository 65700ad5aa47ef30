//! A machine as everyone but its task sees it, and what can be asked of the task.

use crate::session;
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot, watch};
use vmoon_api::views::{MachineView, PlanView};
use vmoon_core::{
    Code, Error, MachineId, OperationId, Result,
    driver::{Driver, Handle},
    machine::{Answer, Request},
    operation::{OpRecord, Progress},
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
}

/// How a task begins.
pub(crate) enum Start {
    /// With a machine that was just stored: create it.
    Create(OpRecord, Duration),
    /// With what the store held when the daemon started, and the operation that a crash cut off.
    Adopt(Option<OpRecord>),
}

/// A machine as everyone but its task sees it.
pub(crate) struct Machine {
    /// Its identifier.
    pub(crate) id: MachineId,
    /// Its driver.
    pub(crate) driver: Arc<dyn Driver>,
    pub(super) tx: mpsc::Sender<Msg>,
    pub(super) view: watch::Receiver<Arc<MachineView>>,
    pub(super) handle: watch::Receiver<Option<Handle>>,
    pub(super) sessions: watch::Receiver<Vec<Arc<session::Shared>>>,
}

fn gone() -> Error {
    Error::new(Code::MachineGone, "the machine was deleted or forgotten")
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

    /// The driver's handle, once it is known.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.handle.borrow().clone()
    }

    /// Its sessions, oldest first.
    pub(crate) fn sessions(&self) -> Vec<Arc<session::Shared>> {
        self.sessions.borrow().clone()
    }

    /// Follows which sessions it has.
    pub(crate) fn follow_sessions(&self) -> watch::Receiver<Vec<Arc<session::Shared>>> {
        self.sessions.clone()
    }
}
