//! The task of one connection: lists its machines when anything may have changed, looks at those of which its driver tells,
//! and says how the connection does.
//!
//! Nothing is polled while it answers. While it does not, it is asked again ever more rarely.

use super::{Entry, Live, locked_error, reconcile};
use crate::{context::Context, machine::Machine, store::About, timer};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;
use vmoon_core::{
    Code, Error, Result,
    ability::{Changed, Notices},
    connection::ConnectionState,
    driver::{Channel, Handle},
    event::EventKind,
    machine::State,
};
use vmoon_sys::clock::now_ms;

/// How long a list may take.
const LIST: Duration = Duration::from_secs(60);
/// What is told within so long is looked at together.
const TOGETHER: Duration = Duration::from_millis(5);
/// More machines than this at once are listed instead of being looked at one by one.
const ONE_BY_ONE: usize = 32;

/// Starts it, where there is something to keep true.
pub(super) fn start(context: &Arc<Context>, entry: Arc<Entry>) {
    if !entry.driver.adopts() {
        return;
    }
    let notices = entry.driver.watch();
    entry.watched.store(notices.is_some(), Ordering::Relaxed);
    let task = Task { context: context.clone(), entry: entry.clone(), notices, pending: HashSet::new(), due: None, again: None, tries: 0 };
    let running = tokio::spawn(task.run());
    *entry.task.lock().unwrap_or_else(|p| p.into_inner()) = Some(running);
}

struct Task {
    context: Arc<Context>,
    entry: Arc<Entry>,
    notices: Option<Box<dyn Notices>>,
    /// Machines of which the driver has told.
    pending: HashSet<Handle>,
    /// When to look at them.
    due: Option<Instant>,
    /// When to list again because the last list failed.
    again: Option<Instant>,
    tries: u32,
}

impl Task {
    async fn run(mut self) {
        self.list().await;
        loop {
            let (due, again) = (self.due, self.again);
            tokio::select! {
                notice = async { match &mut self.notices { Some(notices) => notices.next().await, None => std::future::pending().await } } => {
                    match notice {
                        Some(Changed::Machine(handle)) => {
                            self.pending.insert(handle);
                            self.due.get_or_insert_with(|| Instant::now() + TOGETHER);
                        }
                        Some(Changed::All) => self.list().await,
                        None => {
                            self.notices = None;
                            self.entry.watched.store(false, Ordering::Relaxed);
                        }
                    }
                }
                () = self.entry.nudge.notified() => self.list().await,
                () = timer::until(due) => self.look().await,
                () = timer::until(again) => self.list().await,
            }
        }
    }

    /// Looks at the machines of which was told.
    async fn look(&mut self) {
        self.due = None;
        let handles = std::mem::take(&mut self.pending);
        let known = self.context.machines_of(self.entry.id);
        let unknown = handles.iter().any(|handle| !known.iter().any(|machine| machine.handle().as_ref() == Some(handle)));
        if unknown || handles.len() > ONE_BY_ONE {
            return self.list().await;
        }
        for machine in known.iter().filter(|machine| machine.handle().is_some_and(|handle| handles.contains(&handle))) {
            machine.look();
        }
    }

    /// Lists everything and makes our machines agree.
    async fn list(&mut self) {
        (self.due, self.again) = (None, None);
        self.pending.clear();
        let begun = Instant::now();
        let found = if self.entry.is_locked() {
            Err(locked_error(&self.entry.name))
        } else {
            let known = self.known();
            tokio::time::timeout(LIST, self.entry.driver.list_knowing(&known)).await.unwrap_or_else(|_| {
                Err(Error::new(Code::Timeout, format!("{} did not list its machines within {} s", self.entry.name, LIST.as_secs())))
            })
        };
        let outcome: Result<()> = match found {
            Ok(found) => reconcile::reconcile(&self.context, &self.entry, found, begun).await,
            Err(error) => {
                reconcile::lost(&self.context, &self.entry, &error, begun).await;
                Err(error)
            }
        };
        match outcome {
            Ok(()) => {
                self.tries = 0;
                self.tell(ConnectionState::Up, None);
            }
            Err(error) => {
                let state = ConnectionState::after(&error);
                if state == ConnectionState::Reconnecting {
                    self.tries += 1;
                    self.again = Some(Instant::now() + timer::back_off(self.tries));
                }
                self.tell(state, Some(error));
            }
        }
    }

    /// Machines of ours that were finished: a driver need not ask whether they are. With the channels of their sessions, which are open or opened next.
    fn known(&self) -> HashMap<Handle, Vec<Channel>> {
        let ours = self.context.machines_of(self.entry.id).into_iter().filter(|machine| machine.ours);
        let whole = ours.filter(|machine| {
            let state = machine.view().state;
            !matches!(state, State::Creating | State::Broken | State::Deleting | State::Gone)
        });
        let channels = |machine: &Machine| {
            let sessions = machine.sessions().into_iter().filter(|session| !session.ended());
            sessions.filter(|session| !machine.outlives(session)).map(|session| session.row.channel.clone()).collect()
        };
        whole.filter_map(|machine| Some((machine.handle()?, channels(&machine)))).collect()
    }

    fn tell(&self, state: ConnectionState, error: Option<Error>) {
        let before = self.entry.live().state;
        let record = error.as_ref().map(Error::to_record);
        let name = &self.entry.name;
        let since_ms = if before == state { self.entry.live().since_ms } else { now_ms() };
        self.entry.live.send_replace(Live { state, error: record, since_ms });
        if before == state {
            return;
        }
        let why = error.map(|error| format!(": {}", error.chain())).unwrap_or_default();
        let text = match state {
            ConnectionState::Up => format!("connection {name} is up"),
            ConnectionState::Reconnecting => format!("connection {name} is lost and tried again{why}"),
            ConnectionState::Down => format!("connection {name} is down{why}"),
            ConnectionState::Locked => format!("connection {name} is locked{why}"),
        };
        tracing::info!("{text}");
        let about = About { connection: Some(self.entry.id), ..About::default() };
        self.context.store.announce(EventKind::ConnectionChanged, about, text);
    }
}
