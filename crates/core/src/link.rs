//! An open channel of a machine, as a driver gives it to a session: frames from it, frames to it.

use crate::{Result, frame::Frame, sighting::Exit};
use async_trait::async_trait;

/// A byte offset in the stream of a channel, from the channel's beginning.
pub type Offset = u64;

/// What a session's link delivers.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkItem {
    /// Whole stream frames, encoded, in `buf`, beginning at this stream offset.
    Stream {
        /// Offset of the first frame.
        at: Offset,
    },
    /// One direct frame, encoded, in `buf`.
    Direct,
    /// The channel is over; everything it had said was delivered before.
    Ended(Exit),
    /// The connection to the machine was lost; the channel may live on. Open it again from the last offset.
    Broken,
}

/// The reading half of a session's link. One reader per byte source, ever.
#[async_trait]
pub trait LinkReader: Send {
    /// Waits for the next item; its bytes replace the content of `buf`. Dropping the future loses nothing.
    async fn next(&mut self, buf: &mut Vec<u8>) -> Result<LinkItem>;
}

/// The writing half of a session's link.
#[async_trait]
pub trait LinkWriter: Send {
    /// Sends one frame to the machine.
    ///
    /// # Errors
    /// [`Code::DriverUnreachable`](crate::Code::DriverUnreachable) when the link is broken.
    async fn send(&mut self, frame: Frame<'_>) -> Result<()>;

    /// Whether the machine understands frames of this tag. An older one skips what it does not know, and would never answer.
    fn takes(&self, tag: u8) -> bool {
        tag != crate::frame::tag::CALL
    }
}

/// An open channel of a machine.
pub struct SessionLink {
    /// From the machine.
    pub reader: Box<dyn LinkReader>,
    /// To the machine.
    pub writer: Box<dyn LinkWriter>,
    /// Where the stream ended when the link was opened: everything before it is delivered.
    pub end: Offset,
    /// The number of the last command the machine has accepted, 0 for none.
    pub last_command: u64,
    /// The command that runs now.
    pub running: Option<u64>,
    /// How many commands wait behind it.
    pub queued: u32,
    /// Whether the running command waits for input.
    pub waiting_input: bool,
}
