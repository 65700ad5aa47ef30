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
    SessionId,
    driver::{Channel, Exit},
    event::EventKind,
    machine::State,
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
                Some(shared) => shared.machine(SessionInput::MachineEnded(self.row.exit.clone().unwrap_or(Exit::Lost))).await,
                None if known.iter().any(|s| s.row.channel == channel) => continue,
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
        self.opening = channels.iter().filter(missing).map(|channel| self.new_session(channel.clone())).collect();
    }

    pub(super) fn put_session(tx: &mut Tx<'_>, row: &SessionRow) -> rusqlite::Result<()> {
        tx.put_session(row)?;
        let about = About { machine: Some(row.machine), session: Some(row.id), ..About::default() };
        tx.event(EventKind::SessionOpened, about, format!("session {} opened", row.name))
    }

    /// Opens a session that the store has.
    pub(super) async fn open_stored(&mut self, row: SessionRow) {
        let id = row.id;
        if !self.open_session(row) {
            // Tried again, under another id, with the next look.
            let _ = self.context.store.run(move |tx| tx.delete_session(id)).await;
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
