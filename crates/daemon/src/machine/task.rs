//! The task that owns a machine. It obeys `core::machine::step` and adds nothing of its own.
//!
//! This file has what it holds and its loop; `inputs` turns what happens into the policy's inputs, `stepping` stores what the
//! policy decides, `effects` carries it out, `sessions` keeps a session for every channel. The driver's calls and looks run as
//! futures of this task, one of each at most.

use super::{
    handle::{Machine, Msg, Start},
    stepping::Change,
    view::view,
    work::Work,
};
use crate::{
    connections::Entry,
    context::Context,
    session,
    store::{MachineRow, SessionRow},
    timer,
};
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};
use vmoon_api::views::MachineView;
use vmoon_core::{
    Error, Result,
    driver::{Channel, Driver, Exit, Handle, Sighting},
    machine::{Call, Input, Request, State, Tick},
    operation::OpRecord,
};

/// How long an operation may take, unless the request says otherwise.
pub(super) const DEADLINE: Duration = Duration::from_secs(5 * 60);
/// How soon a state that could not be stored is tried again.
pub(super) const SAVE_RETRY: Duration = Duration::from_secs(1);

pub(super) type CallFuture = Pin<Box<dyn Future<Output = Result<Option<Handle>>> + Send>>;
pub(super) type LookFuture = Pin<Box<dyn Future<Output = (Sighting, Option<Handle>)> + Send>>;

pub(super) struct Operation {
    pub(super) record: OpRecord,
    pub(super) error: Option<Error>,
    pub(super) late: bool,
    pub(super) allowed: Duration,
}

/// The task.
pub(crate) struct Task {
    pub(super) context: Arc<Context>,
    pub(super) driver: Arc<dyn Driver>,
    pub(super) entry: Arc<Entry>,
    pub(super) row: MachineRow,
    pub(super) operation: Option<Operation>,
    pub(super) tick: Tick,
    pub(super) call: Option<CallFuture>,
    /// Whether that call creates the machine.
    pub(super) creating: bool,
    pub(super) looking: Option<(Tick, LookFuture)>,
    /// Channels that were not offered when somebody wanted them, while the machine was being looked at.
    pub(super) opens: Vec<(String, oneshot::Sender<Result<Arc<session::Shared>>>)>,
    /// Whether that look waits for a create that was cancelled.
    pub(super) look_creates: bool,
    pub(super) look_again: Option<Instant>,
    /// Somebody asked for a look while one was under way, which may have begun too early for them.
    pub(super) look_wanted: bool,
    pub(super) looks: u32,
    /// A create that was cancelled or overtaken: it is never dropped midway, so that it can be put back.
    pub(super) unfinished: Option<CallFuture>,
    /// The exit of the life that ended, for its sessions.
    pub(super) last_exit: Option<Exit>,
    /// Ended operations that the store could not take yet, or a whole state that it could not.
    pub(super) unsaved: Vec<OpRecord>,
    /// Sessions to store together with the next change, and to open then.
    pub(super) opening: Vec<SessionRow>,
    /// Operations to publish together with the view.
    pub(super) unpublished: Vec<OpRecord>,
    pub(super) save_again: Option<Instant>,
    pub(super) deadline: Option<Instant>,
    pub(super) rx: mpsc::Receiver<Msg>,
    pub(super) tx: mpsc::WeakSender<Msg>,
    pub(super) view: watch::Sender<Arc<MachineView>>,
    pub(super) handle: watch::Sender<Option<Handle>>,
    pub(super) sessions: watch::Sender<Vec<Arc<session::Shared>>>,
    /// The channels it offers.
    pub(super) channels: watch::Sender<Vec<Channel>>,
    pub(super) look: Arc<Notify>,
    /// What a list shows that was begun before then is not news.
    pub(super) settled: Instant,
    /// What the next call of work does, and what the one under way does.
    pub(super) work: Option<Work>,
    pub(super) working: Option<Work>,
    /// Our record of it is dropped, or is another task's.
    pub(super) dropped: bool,
}

impl Task {
    /// Starts the task of a stored machine.
    pub(crate) fn start(context: Arc<Context>, entry: Arc<Entry>, row: MachineRow, start: Start, old: Vec<SessionRow>) -> Arc<Machine> {
        let (tx, rx) = mpsc::channel(256);
        let driver = entry.driver.clone();
        let operation = match &start {
            Start::Create(record, allowed) => Some((record.clone(), *allowed)),
            Start::Adopt(record) => record.clone().map(|record| (record, DEADLINE)),
            Start::Found(_) => None,
        };
        let (id, connection, ours) = (row.id, row.connection, row.spec.is_some());
        let (view, handle) = (view(&row, &entry.name, &*driver, operation.as_ref().map(|(r, _)| r)), row.handle.clone());
        let mut task = Self {
            context,
            driver: driver.clone(),
            entry,
            operation: operation.map(|(record, allowed)| Operation { record, error: None, late: false, allowed }),
            tick: row.status.fence,
            row,
            call: None,
            creating: false,
            looking: None,
            opens: Vec::new(),
            look_creates: false,
            look_again: None,
            look_wanted: false,
            looks: 0,
            unfinished: None,
            last_exit: None,
            unsaved: Vec::new(),
            unpublished: Vec::new(),
            opening: Vec::new(),
            save_again: None,
            deadline: None,
            rx,
            tx: tx.downgrade(),
            view: watch::Sender::new(Arc::new(view)),
            handle: watch::Sender::new(handle),
            sessions: watch::Sender::new(Vec::new()),
            channels: watch::Sender::new(Vec::new()),
            look: Arc::new(Notify::new()),
            settled: Instant::now(),
            work: None,
            working: None,
            dropped: false,
        };
        if let Some(op) = &task.operation {
            task.context.operations.publish(&op.record);
        }
        task.adopt_sessions(old);
        let machine = Arc::new(Machine {
            id,
            connection,
            ours,
            driver,
            tx,
            view: task.view.subscribe(),
            handle: task.handle.subscribe(),
            sessions: task.sessions.subscribe(),
            channels: task.channels.subscribe(),
            look: task.look.clone(),
        });
        drop(tokio::spawn(Box::new(task).run(start)));
        machine
    }

    /// Of ten thousand machines almost all only wait: what is done now and then has its state in a box of its own.
    async fn run(mut self: Box<Self>, start: Start) {
        match start {
            Start::Create(_, allowed) => {
                self.deadline = Some(Instant::now() + allowed);
                self.make_call(Call::Create);
            }
            // What is listed is seen with the first list of its connection, which is one question for all.
            Start::Adopt(None) if self.row.spec.is_none() || (self.entry.driver.adopts() && self.row.handle.is_some()) => {}
            Start::Adopt(None) => self.begin_look(),
            Start::Found(sighting) => {
                self.tick += 1;
                Box::pin(self.saw(self.tick, sighting)).await;
            }
            Start::Adopt(Some(_)) => Box::pin(self.recover()).await,
        }
        while !self.dropped && (self.row.status.state != State::Gone || self.save_again.is_some()) {
            let (deadline, save_again) = (self.deadline, self.save_again);
            let look_again = self.look_again;
            let abandoned = self.abandoned();
            tokio::select! {
                result = pending(self.call.as_mut()) => Box::pin(self.returned(result)).await,
                (begun, (sighting, handle)) = async {
                    match &mut self.looking { Some((begun, look)) => (*begun, look.await), None => std::future::pending().await }
                } => {
                    if handle.is_some() {
                        self.created(handle);
                    }
                    Box::pin(self.saw(begun, sighting)).await;
                }
                () = timer::until(save_again) => {
                    self.save_again = None;
                    // What could not be stored is stored now, or is tried again.
                    let _ = Box::pin(self.store(Change::default())).await;
                }
                msg = self.rx.recv() => match msg {
                    Some(msg) => Box::pin(self.message(msg)).await,
                    None => return,
                },
                () = self.look.notified() => self.begin_look(),
                () = timer::until(look_again) => {
                    self.look_again = None;
                    self.begin_look();
                }
                () = timer::until(deadline) => {
                    self.deadline = None;
                    if let Some(op) = &mut self.operation {
                        op.late = true;
                    }
                    self.input(Input::Deadline, None).await;
                }
                () = abandoned => {
                    tracing::info!(machine = %self.row.name, "nobody is attached any more: the temporary machine is deleted");
                    self.input(Input::Request(Request::DeleteForce), None).await;
                }
            }
        }
    }
}

async fn pending<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
