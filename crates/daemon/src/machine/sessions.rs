//! A session for every channel of a running machine, and the end of machines that live only as long as somebody is attached.

use super::task::{SAVE_RETRY, Task};
use crate::{
    session,
    store::{About, SessionRow, Tx},
    timer,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use vmoon_core::{
    Code, Error, Result, SessionId,
    driver::{Channel, Exit},
    event::EventKind,
    machine::State,
    name::escape,
    operation::{OpRecord, Outcome},
    session::{Input as SessionInput, SessionState},
    spec::Lifetime,
};
use vmoon_sys::{clock::now_ms, random};

/// How long a machine of `Lifetime::Attached` outlives its last attachment: long enough to reconnect.
const ABANDONED: Duration = Duration::from_secs(5);
/// How many ended sessions of a machine are kept.
const SESSIONS_KEPT: usize = 8;

impl Task {
    pub(super) fn adopt_sessions(&mut self, old: Vec<SessionRow>) {
        for row in old {
            self.open_session(row);
        }
    }

    pub(super) fn open_session(&mut self, row: SessionRow) -> bool {
        let Some(handle) = self.row.handle.clone() else { return false };
        let dir = self.context.session_dir(row.id);
        let started = session::task::Task::start(
            row,
            self.row.name.clone(),
            &dir,
            self.driver.clone(),
            handle,
            self.context.store.clone(),
            self.look.clone(),
        );
        let opened = started.is_ok();
        match started {
            Ok(shared) => self.sessions.send_modify(|all| all.push(shared)),
            Err(ref error) => tracing::error!(machine = %self.row.name, error = %error.chain(), "a session could not be opened"),
        }
        opened
    }

    /// Opens a session for every channel of this life that has none.
    pub(super) async fn ensure_sessions(&mut self, channels: Vec<Channel>) {
        let known = self.sessions.borrow().clone();
        for channel in channels {
            let same = |s: &&Arc<session::Shared>| s.row.channel.name == channel.name && !s.ended();
            match known.iter().find(same) {
                Some(shared) if shared.row.channel.life == channel.life => {
                    // A daemon that was killed in between may have told the machine's return to nobody.
                    let held = shared.live.borrow().state == SessionState::Held;
                    if held {
                        shared.machine(SessionInput::MachineBack).await;
                    }
                    continue;
                }
                // A life we did not see the end of.
                Some(shared) => {
                    shared.machine(SessionInput::MachineEnded(self.row.exit.clone().unwrap_or(Exit::Lost))).await;
                    if !self.opens_at_once(&channel) {
                        continue;
                    }
                }
                None if !self.opens_at_once(&channel) || known.iter().any(|s| s.row.channel == channel) => continue,
                None => {}
            }
            let row = self.new_session(channel);
            let stored = row.clone();
            match self.context.store.run(move |tx| Self::put_session(tx, &stored)).await {
                Ok(()) => self.open_stored(row).await,
                Err(error) => {
                    tracing::warn!(machine = %self.row.name, error = %error.chain(), "a session could not be stored");
                    self.look_again = Some(Instant::now() + SAVE_RETRY);
                }
            }
        }
        self.drop_old_sessions().await;
    }

    /// Opens a session for a channel of a running machine that has none yet.
    pub(super) async fn open_channel(&mut self, name: &str) -> Result<Arc<session::Shared>> {
        let offered = self.channels.borrow().clone();
        let Some(channel) = offered.iter().find(|channel| channel.name == name) else {
            return Err(crate::service::no_channel(&self.row.name, name, &offered));
        };
        // One of an earlier life may still be read for its last words.
        let live = |all: &[Arc<session::Shared>]| all.iter().find(|s| s.row.channel == *channel && !s.ended()).cloned();
        if let Some(shared) = live(&self.sessions.borrow()) {
            return Ok(shared);
        }
        let row = self.new_session(channel.clone());
        let stored = row.clone();
        self.context.store.run(move |tx| Self::put_session(tx, &stored)).await?;
        self.open_stored(row).await;
        self.drop_old_sessions().await;
        live(&self.sessions.borrow()).ok_or_else(|| Error::internal("a session could not be opened; the daemon's log says why"))
    }

    /// Another name was given to it there, if it is one that we did not give.
    pub(super) async fn called(&mut self, name: String) {
        if self.row.spec.is_some() || self.row.name == name || self.row.status.state == State::Gone {
            return;
        }
        let before = std::mem::replace(&mut self.row.name, name);
        self.row.generation += 1;
        let row = self.row.clone();
        let stored = self
            .context
            .store
            .run(move |tx| {
                tx.put_machine(&row)?;
                let about = About { machine: Some(row.id), ..About::default() };
                tx.event(EventKind::MachineChanged, about, format!("{} is called {} now", escape(&before), escape(&row.name)))
            })
            .await;
        if let Err(error) = stored {
            // The next list tells it again.
            tracing::warn!(machine = %self.row.id, error = %error.chain(), "a machine's name could not be stored");
        }
        self.publish();
    }

    /// Its connection is removed: our record goes, with its sessions; nothing real is touched.
    pub(super) async fn drop_record(&mut self) {
        (self.call, self.looking, self.unfinished, self.dropped) = (None, None, None, true);
        let (id, name) = (self.row.id, self.row.name.clone());
        let ended = self.operation.take().map(|op| {
            let error = Error::new(Code::OperationCancelled, "the machine's connection was removed").to_record();
            OpRecord { ended_ms: Some(now_ms()), outcome: Some(Outcome::Cancelled { error }), ..op.record }
        });
        let record = ended.clone();
        let dropped = self
            .context
            .store
            .run(move |tx| {
                if let Some(record) = &record {
                    tx.put_operation(record)?;
                    tx.drop_undos(record.id)?;
                }
                tx.delete_machine(id)?;
                let about = About { machine: Some(id), ..About::default() };
                tx.event(EventKind::MachineGone, about, format!("{} is forgotten", escape(&name)))
            })
            .await;
        if let Err(error) = dropped {
            // It goes with its connection's record.
            tracing::warn!(machine = %id, error = %error.chain(), "a machine's record could not be dropped");
        }
        self.context.forget_machine(id);
        self.farewell().await;
        self.row.status.state = State::Gone;
        self.unpublished.extend(ended);
        self.publish();
    }

    /// Whether a session of that channel is opened as soon as the machine runs. What we did not make is left in peace until somebody wants to use it.
    fn opens_at_once(&self, channel: &Channel) -> bool {
        self.row.spec.is_some() && !self.driver.on_demand(channel)
    }

    fn new_session(&self, channel: Channel) -> SessionRow {
        SessionRow {
            id: SessionId::from_uuid(random::uuid()),
            machine: self.row.id,
            name: channel.name.clone(),
            channel,
            state: SessionState::Opening,
            opened_ms: now_ms(),
        }
    }

    /// The sessions of a new life: stored together with the news that it runs, so that nobody who hears of it finds none.
    pub(super) fn first_sessions(&mut self, channels: &[Channel]) {
        let known = self.sessions.borrow().clone();
        let missing =
            |channel: &&Channel| !known.iter().any(|s| s.row.channel == **channel || (s.row.channel.name == channel.name && !s.ended()));
        self.opening = channels
            .iter()
            .filter(|channel| self.opens_at_once(channel) && missing(channel))
            .map(|channel| self.new_session(channel.clone()))
            .collect();
    }

    pub(super) fn put_session(tx: &mut Tx<'_>, row: &SessionRow) -> rusqlite::Result<()> {
        tx.put_session(row)?;
        let about = About { machine: Some(row.machine), session: Some(row.id), ..About::default() };
        tx.event(EventKind::SessionOpened, about, format!("session {} opened", row.name))
    }

    /// Opens a session that the store has.
    pub(super) async fn open_stored(&mut self, row: SessionRow) {
        let (machine, id) = (row.machine, row.id);
        if !self.open_session(row) {
            // Tried again, under another id, with the next look.
            let _ = self.context.store.run(move |tx| tx.delete_session(machine, id)).await;
            self.look_again = Some(Instant::now() + SAVE_RETRY);
        }
    }

    pub(super) async fn drop_old_sessions(&mut self) {
        loop {
            let mut old = None;
            self.sessions.send_if_modified(|all| {
                let ended = all.iter().filter(|s| s.ended()).count();
                if ended > SESSIONS_KEPT
                    && let Some(position) = all.iter().position(|s| s.ended())
                {
                    old = Some(all.remove(position));
                }
                old.is_some()
            });
            let Some(shared) = old else { return };
            self.context.forget_session(&shared).await;
        }
    }

    pub(super) async fn tell_sessions(&mut self, input: &SessionInput) {
        let sessions = self.sessions.borrow().clone();
        for shared in sessions {
            if !shared.ended() {
                shared.machine(input.clone()).await;
            }
        }
    }

    /// Ends when a temporary machine has had no attachment for a while.
    pub(super) fn abandoned(&self) -> impl Future<Output = ()> + use<> {
        let temporary = self.row.spec.as_ref().is_some_and(|spec| spec.lifetime == Lifetime::Attached);
        let settled = matches!(self.row.status.state, State::Running | State::Stopped | State::Broken) && self.operation.is_none();
        let sessions = self.sessions.borrow().clone();
        async move {
            if !temporary || !settled {
                return std::future::pending().await;
            }
            let live = sessions.iter().find(|s| !s.ended()).cloned();
            let Some(shared) = live else { return timer::pause(ABANDONED).await };
            let mut attachments = shared.attachments.subscribe();
            loop {
                let nobody = *attachments.borrow_and_update() == 0;
                tokio::select! {
                    changed = attachments.changed() => if changed.is_err() { return },
                    () = timer::pause(ABANDONED), if nobody => return,
                }
            }
        }
    }

    /// The machine is gone and its sessions with it, in the store too: their tasks end and their transcripts are removed.
    pub(super) async fn farewell(&mut self) {
        for shared in self.sessions.send_replace(Vec::new()) {
            shared.forget().await;
            self.context.remove_transcript(shared.row.id);
        }
    }
}
