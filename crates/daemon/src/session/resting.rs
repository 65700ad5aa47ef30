//! Giving up the link of a session that nobody uses, where nothing is lost by that, and opening it again for who does.
//!
//! The session goes on where it is held and stays live; only the way there is closed. What it may have said meanwhile, and whether it has ended, shows when it is
//! opened again.

use super::task::Task;
use crate::store::About;
use std::time::Duration;
use tokio::time::Instant;
use vmoon_core::{
    event::EventKind,
    session::{Input, SessionState},
};

impl Task {
    /// After how long without use the link may be closed.
    pub(super) fn may_rest(&self) -> Option<Duration> {
        self.driver.rests(&self.shared.row.channel)
    }

    /// Closes the link if nobody has used it for that long; else says when to look again.
    pub(super) async fn rest(&mut self) {
        self.rest_at = None;
        let Some(after) = self.may_rest().filter(|_| self.state == SessionState::Live && self.link.is_some()) else { return };
        let waits = !(self.inbox.is_empty() && self.unaccepted.is_empty() && self.waiting.is_empty() && self.asks.is_empty());
        let works = self.commands.busy().is_some() || self.commands.queued() > 0 || !self.ready();
        let used = *self.shared.attachments.borrow() > 0 || waits || works || self.stalled.is_some() || self.ending.is_some();
        let left = if used { after } else { after.saturating_sub(self.shared.activity.unused()) };
        if !left.is_zero() {
            self.rest_at = Some(Instant::now() + left);
            return;
        }
        tracing::debug!(session = %self.shared.row.id, "nobody uses it: its link is closed");
        self.input(Input::Unused).await;
        self.shared.live.send_modify(|live| live.resting = true);
        self.tell_of("rests");
    }

    /// Somebody wants to use it: a link that was closed because nobody did is opened, and so is one that was given up.
    pub(super) async fn wanted(&mut self) {
        if self.shared.live.borrow().resting {
            self.attempts = 0;
            self.input(Input::Wanted).await;
        } else {
            self.unpark();
        }
    }

    /// It has no link that could be missed, or has one again.
    pub(super) fn awake(&mut self) {
        self.rest_at = None;
        self.shared.live.send_if_modified(|live| std::mem::take(&mut live.resting));
    }

    fn tell_of(&self, what: &str) {
        let row = &self.shared.row;
        let about = About { machine: Some(row.machine), session: Some(row.id), ..About::default() };
        self.store.announce(EventKind::SessionChanged, about, format!("session {} {what}", row.name));
    }
}
