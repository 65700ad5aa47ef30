//! What a session's machine says: stored first, then told to whoever waits, then acknowledged.

use super::{
    collect::collect,
    commands::Told,
    task::{Answer, Asked, Task},
    transcript::walk,
};
use std::time::Duration;
use tokio::time::Instant;
use vmoon_api::views::CommandView;
use vmoon_core::{
    Code, Error,
    error::ErrorRecord,
    frame::{Frame, tag},
    session::Input,
};

/// Output is acknowledged when so many bytes were stored since the last time, or with the next command.
const ACK_EVERY: u64 = 16 << 10;
/// How often a transcript that cannot be written is tried again.
const STALL_RETRY: Duration = Duration::from_millis(500);

impl Task {
    /// Stores a batch, then tells of it, then acknowledges it.
    pub(super) async fn stream(&mut self, at: u64, frames: &mut Vec<u8>) {
        let end = self.transcript.end();
        if at > end {
            let lost = (at - end).to_le_bytes();
            let mut with_gap = Frame { tag: tag::GAP, id: 0, payload: &lost }.to_vec();
            with_gap.append(frames);
            *frames = with_gap;
        } else if at < end {
            tracing::error!(session = %self.shared.row.id, at, end, "the driver repeated a part of the stream");
            self.link = None;
            return self.input(Input::LinkBroken).await;
        }
        // Only what goes on from where we are: who repeats itself is asked again ever later.
        self.attempts = 0;
        let mut length = 0;
        walk(frames, |frame, _| length += frame.stream_len());
        if let Err(error) = self.transcript.append(frames, length) {
            // Said once: it is tried again twice a second.
            if self.shared.live.borrow().stalled.is_none() {
                tracing::warn!(session = %self.shared.row.id, error = %error.chain(), "the transcript cannot be written; the machine waits");
            }
            let record: ErrorRecord = error.to_record();
            self.shared.live.send_modify(|live| live.stalled = Some(record));
            // The gap, if one was put in front, is part of the batch now.
            self.stalled = Some((end, std::mem::take(frames)));
            self.stall_retry = Instant::now() + STALL_RETRY;
            return;
        }
        let mut told = Vec::new();
        let mut offset = end;
        let commands = &mut self.commands;
        walk(frames, |frame, _| {
            match commands.take(offset, frame) {
                Told::Nothing | Told::Changed => {}
                news => told.push(news),
            }
            offset += frame.stream_len();
        });
        let (busy, queued) = (self.commands.busy(), self.commands.queued());
        self.shared.live.send_modify(|live| {
            (live.written, live.stalled, live.queued) = (offset, None, queued);
            (live.busy, live.waiting_input) = busy.map_or((None, false), |(number, waits)| (Some(number), waits));
        });
        for news in told {
            match news {
                Told::Accepted(number) => {
                    self.shared.activity.accepted(number);
                    for accepted in self.unaccepted.remove(&number).into_iter().flat_map(|waiting| waiting.accepted) {
                        let _ = accepted.send(Ok(number));
                    }
                }
                Told::Done(number, Some(view)) => {
                    self.shared.activity.done(Some(&view));
                    self.tell(number, &view);
                }
                Told::Done(number, None) => {
                    self.shared.activity.done(None);
                    for waiter in self.waiting.remove(&number).unwrap_or_default() {
                        self.answer_later(number, waiter);
                    }
                }
                Told::Nothing | Told::Changed => {}
            }
        }
        if offset - self.acked >= ACK_EVERY && self.ending.is_none() {
            self.acknowledge().await;
        }
        if !self.inbox.is_empty() || !self.unaccepted.is_empty() {
            self.caught_up().await;
        }
    }

    pub(super) async fn acknowledge(&mut self) {
        self.acked = self.transcript.end();
        self.send(Frame { tag: tag::ACK, id: 0, payload: &self.acked.to_le_bytes() }).await;
    }

    pub(super) fn tell(&mut self, number: u64, view: &CommandView) {
        for waiter in self.waiting.remove(&number).unwrap_or_default() {
            // Whoever asked may have gone.
            let _ = waiter.send(Ok(view.clone()));
        }
    }

    /// Answers from the transcript, without making the session wait for it.
    pub(super) fn answer_later(&self, number: u64, answer: Answer<CommandView>) {
        let (shared, span) = (self.shared.clone(), self.commands.span(number));
        drop(tokio::spawn(async move { answer.send(collect(shared, number, span).await) }));
    }

    pub(super) async fn direct(&mut self, bytes: &[u8]) {
        let Ok(Some((frame, _))) = Frame::decode(bytes) else { return };
        if frame.tag == tag::REFUSED {
            let text = String::from_utf8_lossy(frame.payload);
            let (code, message) = text.split_once('\n').unwrap_or(("internal", &text));
            let error = || Error::new(code.parse().unwrap_or(Code::Unknown), message.to_owned());
            if let Some(waiting) = self.unaccepted.remove(&frame.id) {
                self.waiting.remove(&frame.id);
                for accepted in waiting.accepted {
                    let _ = accepted.send(Err(error()));
                }
            } else {
                match self.asks.remove(&frame.id) {
                    Some(Asked::Question(answer)) => drop(answer.send(Err(error()))),
                    Some(Asked::Input(answer)) => drop(answer.map(|answer| answer.send(Err(error())))),
                    None => {}
                }
            }
        } else {
            match self.asks.remove(&frame.id) {
                Some(Asked::Question(answer)) => drop(answer.send(Ok((frame.tag, frame.payload.to_vec())))),
                Some(Asked::Input(answer)) => drop(answer.map(|answer| answer.send(Ok(())))),
                None => {}
            }
        }
    }
}
