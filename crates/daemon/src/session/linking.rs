//! A session's link to its machine: opening it, losing it, and reading the last words of a machine that has ended.

use super::{
    collect::rebuild,
    commands::Commands,
    task::{LAST_WORDS, LastWords, Link, Msg, Task},
};
use crate::timer;
use std::time::Duration;
use tokio::time::Instant;
use vmoon_core::{
    Code, Error, Result,
    codes::Retry,
    driver::{Exit, LinkItem, SessionLink},
    frame::{Frame, tag},
    session::{Input, SessionState},
};

/// How long a frame may take to leave; a machine that takes none for so long is looked at.
const SEND_LIMIT: Duration = Duration::from_secs(30);

impl Task {
    pub(super) fn open(&mut self) {
        self.parked = false;
        let (driver, handle, channel) = (self.driver.clone(), self.handle.clone(), self.shared.row.channel.clone());
        let (from, wait) = (self.transcript.end(), timer::back_off(self.attempts));
        self.attempts += 1;
        self.opening = Some(Box::pin(async move {
            timer::pause(wait).await;
            driver.open(&handle, &channel, from).await
        }));
    }

    pub(super) async fn opened(&mut self, opened: Result<SessionLink>) {
        match opened {
            Ok(link) => {
                self.shared.live.send_if_modified(|live| live.trouble.take().is_some());
                self.acked = self.transcript.end();
                self.catch_up = (link.last_command, link.end);
                let known = link.running.is_none_or(|number| self.commands.knows(number));
                let all = link.queued as usize + usize::from(link.running.is_some());
                if let Some(number) = link.running {
                    self.commands.runs(number, link.waiting_input);
                }
                self.link = Some(Link { reader: link.reader, writer: link.writer });
                self.rest_at = self.may_rest().map(|after| Instant::now() + after);
                if self.older && (!known || self.commands.unfinished() < all || self.commands.last() < link.last_command) {
                    self.rebuild();
                }
                // A session that was held is read for its last words and opens no more.
                if self.ending.is_none() || self.state == SessionState::Opening {
                    self.input(Input::Opened).await;
                }
                if let Some(size) = self.size {
                    self.send(Frame { tag: tag::RESIZE, id: 0, payload: &size }).await;
                }
                // What the transcript has need not be kept by the machine, which may wait for room.
                self.acknowledge().await;
                for msg in std::mem::take(&mut self.inbox) {
                    if matches!(msg, Msg::Eval { .. }) || self.link.is_none() {
                        self.inbox.push_back(msg);
                    } else {
                        self.forward(msg).await;
                    }
                }
                self.caught_up().await;
            }
            Err(error) if error.code() == Code::SessionEnded => {
                // Nothing is left to read; how it ended is the machine's to say.
                self.look.notify_one();
                match &mut self.ending {
                    Some(_) => self.finish().await,
                    None => self.ending = Some(LastWords { exit: Exit::Lost, until: Instant::now() + LAST_WORDS, read: true }),
                }
            }
            Err(error) => {
                tracing::debug!(session = %self.shared.row.id, error = %error.chain(), "the channel could not be opened");
                if error.code().retry() == Retry::Never {
                    for msg in std::mem::take(&mut self.inbox) {
                        self.refuse(msg, error.to_record().into());
                    }
                }
                let record = error.to_record();
                self.shared.live.send_if_modified(|live| {
                    let news = live.trouble.as_ref() != Some(&record);
                    live.trouble = Some(record);
                    news
                });
                let hopeless = error.code().retry() == Retry::Never && self.driver.on_demand(&self.shared.row.channel);
                if hopeless && self.ending.is_none() {
                    // Nobody is helped by asking again and again, and a guest may lock out who does.
                    self.parked = true;
                    self.look.notify_one();
                } else {
                    self.broken(None).await;
                }
            }
        }
    }

    pub(super) async fn item(&mut self, item: Result<LinkItem>, buf: &mut Vec<u8>) {
        match item {
            Ok(LinkItem::Stream { at }) => self.stream(at, buf).await,
            Ok(LinkItem::Direct) => self.direct(buf).await,
            Ok(LinkItem::Ended(exit)) => {
                self.ending = None;
                self.input(Input::ChannelEnded(exit)).await;
                self.look.notify_one();
            }
            Ok(LinkItem::Broken) => self.broken(None).await,
            Err(error) => self.broken(Some(error)).await,
        }
    }

    pub(super) async fn broken(&mut self, error: Option<Error>) {
        if let Some(error) = error {
            tracing::info!(session = %self.shared.row.id, error = %error.chain(), "the link broke");
        }
        self.link = None;
        self.look.notify_one();
        if self.ending.is_some() {
            // Whatever the channel still holds is read from where the transcript ends.
            self.open();
        } else {
            self.input(Input::LinkBroken).await;
        }
    }

    /// The machine has ended and there is nothing more to read.
    pub(super) async fn finish(&mut self) {
        let exit = self.ending.take().map_or(Exit::Lost, |ending| ending.exit);
        self.input(Input::MachineEnded(exit)).await;
    }

    /// Reads the whole transcript for the commands and tokens that opening it has not shown.
    pub(super) fn rebuild(&mut self) {
        self.older = false;
        let commands = Commands::new(self.shared.row.id, &self.shared.machine_name);
        self.rebuilding = Some(Box::pin(rebuild(self.shared.reader(0), commands)));
    }

    pub(super) async fn rebuilt(&mut self, rebuilt: Result<Commands>) {
        match rebuilt {
            Ok(mut commands) => {
                if let Some((number, waiting)) = self.commands.busy() {
                    commands.runs(number, waiting);
                }
                self.commands = commands;
            }
            Err(error) => tracing::warn!(session = %self.shared.row.id, error = %error.chain(), "the transcript could not be read"),
        }
        self.caught_up().await;
    }

    /// Sends a frame; `false` if the link is broken or absent.
    pub(super) async fn send(&mut self, frame: Frame<'_>) -> bool {
        let Some(link) = &mut self.link else { return false };
        match tokio::time::timeout(SEND_LIMIT, link.writer.send(frame)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                self.broken(Some(error)).await;
                false
            }
            Err(_) => {
                self.broken(Some(Error::new(Code::DriverUnreachable, "the machine takes nothing in"))).await;
                false
            }
        }
    }
}
