//! What the session's task shares with those who look at it: its published state, its attachments, its transcript.

use super::{
    task::{Msg, gone},
    transcript::Reader,
};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::{mpsc, watch};
use vmoon_api::{requests::Mode, views::SessionView};
use vmoon_core::{Code, Error, Result, driver::Exit, error::ErrorRecord, session::SessionState};

use crate::store::SessionRow;

/// The changing part of a session, published with every change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Live {
    /// Its state.
    pub state: SessionState,
    /// Stream offset after the last byte stored.
    pub written: u64,
    /// The command that runs.
    pub busy: Option<u64>,
    /// How many wait behind it.
    pub queued: u32,
    /// Whether it waits for input.
    pub waiting_input: bool,
    /// Whether the link is closed because nobody uses it.
    pub resting: bool,
    /// Why the transcript cannot be written now.
    pub stalled: Option<ErrorRecord>,
    /// Why the channel could not be opened when that was last tried.
    pub trouble: Option<ErrorRecord>,
}

/// Who is attached.
#[derive(Debug, Default)]
struct Attached {
    viewers: u32,
    /// The attachment that holds the pen.
    pen: Option<u64>,
    /// The number of the next attachment.
    next: u64,
    /// Attachments numbered below this one were told to go.
    dismissed: u64,
    /// And these, from whom the pen was taken.
    ousted: HashSet<u64>,
}

/// A session as everyone but its task sees it.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What never changes: id, machine, name, channel. The state in it is that of the opening.
    pub row: SessionRow,
    /// The machine's name.
    pub machine_name: String,
    /// The changing part.
    pub live: watch::Sender<Live>,
    /// What it was used for.
    pub activity: super::activity::Activity,
    tx: mpsc::Sender<Msg>,
    transcript: Reader,
    attached: Mutex<Attached>,
    /// Rises when the attachments change; whoever waits for the last one to go watches this.
    pub attachments: watch::Sender<u32>,
}

impl Shared {
    pub(super) fn new(row: SessionRow, machine_name: String, live: Live, transcript: Reader, tx: mpsc::Sender<Msg>) -> Arc<Self> {
        Arc::new(Self {
            row,
            machine_name,
            live: watch::Sender::new(live),
            activity: Default::default(),
            tx,
            transcript,
            attached: Mutex::default(),
            attachments: watch::Sender::new(0),
        })
    }

    /// A reader of the transcript at this offset.
    pub(crate) fn reader(&self, at: u64) -> Reader {
        self.transcript.fork(at)
    }

    /// Whether the session is over.
    pub(crate) fn ended(&self) -> bool {
        matches!(self.live.borrow().state, SessionState::Ended { .. })
    }

    /// How it ended, if it is over.
    pub(crate) fn exit(&self) -> Option<Exit> {
        if let SessionState::Ended { exit } = &self.live.borrow().state { Some(exit.clone()) } else { None }
    }

    /// What the API shows.
    pub(crate) fn view(&self) -> SessionView {
        let live = self.live.borrow().clone();
        let attached = self.lock();
        SessionView {
            id: self.row.id,
            name: self.row.name.clone(),
            machine: self.row.machine,
            machine_name: self.machine_name.clone(),
            kind: self.row.channel.kind,
            state: live.state,
            opened_ms: self.row.opened_ms,
            oldest: self.transcript.bounds().0,
            written: live.written,
            busy: live.busy,
            queued: live.queued,
            waiting_input: live.waiting_input,
            resting: live.resting,
            viewers: attached.viewers,
            writer: attached.pen.is_some(),
            stalled: live.stalled,
            trouble: live.trouble,
        }
    }

    /// Sends a message to the task.
    ///
    /// # Errors
    /// [`Code::SessionEnded`] when the session is over, [`Code::SessionQueueFull`] when its task is far behind.
    pub(crate) fn tell(&self, msg: Msg) -> Result<()> {
        self.tx.try_send(msg).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::new(Code::SessionQueueFull, "the session has too many requests waiting"),
            mpsc::error::TrySendError::Closed(_) => gone(),
        })
    }

    /// Tells the task what happened to the machine; waits for room, since this must not be lost.
    pub(crate) async fn machine(&self, input: vmoon_core::session::Input) {
        // A session that is over need not know.
        let _ = self.tx.send(Msg::Machine(input)).await;
    }

    /// Somebody wants to use it: a channel that could not be opened is tried again, if nothing else does that. Returns when it is.
    pub(crate) async fn wake(&self) {
        let (answer, done) = tokio::sync::oneshot::channel();
        // A session that is over is not woken.
        if self.tx.send(Msg::Wake(answer)).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Somebody watches it: its link is opened if it was closed because nobody did.
    pub(crate) async fn rouse(&self) {
        self.activity.used();
        if self.live.borrow().resting {
            self.wake().await;
        }
    }

    /// Ends the task, whatever it does: the session is dropped.
    pub(crate) async fn forget(&self) {
        // A task that has ended need not be told.
        let _ = self.tx.send(Msg::Forget).await;
    }

    /// Refuses when somebody holds the pen.
    ///
    /// # Errors
    /// [`Code::SessionBusy`].
    pub(crate) fn pen_is_free(&self) -> Result<()> {
        if self.lock().pen.is_some() { Err(self.busy()) } else { Ok(()) }
    }

    /// The refusal of whatever only a repl can do.
    pub(crate) fn evaluates_nothing(&self) -> Error {
        let name = format!("{}/{}", self.machine_name, self.row.name);
        Error::new(Code::SessionChannel, format!("{name} is a terminal: it evaluates nothing"))
            .hint(format!("work in it: vmoon attach {name}; or type into it: vmoon send {name} TEXT"))
    }

    fn busy(&self) -> Error {
        Error::new(Code::SessionBusy, format!("somebody else writes to {}/{}", self.machine_name, self.row.name))
            .hint("attach with --read-only to watch, or with --take to take the pen from them")
    }

    /// Registers an attachment, with the pen if asked for.
    pub(super) fn enter(&self, mode: Mode) -> Result<u64> {
        let pen = mode != Mode::Viewer;
        let mut attached = self.lock();
        let mut ousted = false;
        if pen && let Some(holder) = attached.pen {
            if mode != Mode::Takeover {
                return Err(self.busy());
            }
            attached.ousted.insert(holder);
            ousted = true;
        }
        attached.next += 1;
        let number = attached.next;
        if pen {
            attached.pen = Some(number);
        } else {
            attached.viewers += 1;
        }
        drop(attached);
        self.attachments.send_modify(|n| *n += 1);
        if ousted {
            // Whoever held the pen looks again.
            self.live.send_modify(|_| {});
        }
        Ok(number)
    }

    pub(super) fn leave(&self, number: u64, pen: bool) {
        let mut attached = self.lock();
        if pen {
            self.activity.used();
            attached.pen = attached.pen.filter(|holder| *holder != number);
        } else {
            attached.viewers -= 1;
        }
        attached.ousted.remove(&number);
        drop(attached);
        self.attachments.send_modify(|n| *n -= 1);
    }

    /// Tells everybody who is attached now to go.
    pub(crate) fn dismiss(&self) {
        let mut attached = self.lock();
        attached.dismissed = attached.next + 1;
        attached.pen = None;
        drop(attached);
        // Waiting attachments look again.
        self.live.send_modify(|_| {});
    }

    pub(super) fn dismissed(&self, number: u64) -> bool {
        let attached = self.lock();
        number < attached.dismissed || attached.ousted.contains(&number)
    }

    fn lock(&self) -> MutexGuard<'_, Attached> {
        // Nothing that can panic runs while the lock is held.
        self.attached.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
