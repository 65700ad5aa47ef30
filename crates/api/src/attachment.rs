//! Attachments: a session's stream and the event stream, seen from a front end.

use async_trait::async_trait;
use vmoon_core::{Result, event::Event, frame::Frame};

/// What an attachment delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Whole stream frames, encoded, beginning at this offset.
    Stream {
        /// The offset of the first frame.
        at: u64,
        /// The frames.
        frames: Vec<u8>,
    },
    /// One direct frame, encoded: the answer to a question this attachment asked.
    Direct(Vec<u8>),
    /// The session is over; everything it had said was delivered before.
    Ended,
}

/// One attachment to a session. Dropping it detaches; the session lives on.
#[async_trait]
pub trait Attachment: Send {
    /// Waits for the next message. Dropping the future loses nothing.
    ///
    /// # Errors
    /// `daemon.unreachable` when the link to the daemon is lost: attach again from the last offset.
    async fn next(&mut self) -> Result<Message>;

    /// Sends a frame: EVAL, INPUT, INPUT_END, INTERRUPT, IS_COMPLETE and COMPLETE need the pen; PAUSE, RESUME and ACK do not.
    /// The id of an EVAL is ignored: the daemon numbers commands, and its ACCEPTED frame repeats the token.
    ///
    /// # Errors
    /// `session.busy` when somebody else holds the pen, `session.ended`, `daemon.unreachable`.
    async fn send(&mut self, frame: Frame<'_>) -> Result<()>;
}

/// The stream of events.
#[async_trait]
pub trait EventStream: Send {
    /// Waits for the next event.
    ///
    /// # Errors
    /// `events.gap` when events were missed: read the state anew and follow from now on; `daemon.unreachable`.
    async fn next(&mut self) -> Result<Event>;
}
