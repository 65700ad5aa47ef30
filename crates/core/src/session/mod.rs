//! Sessions: one life of one channel of one machine, and the policy of its states.

pub mod step;

use crate::{Code, driver::Exit};
use serde::{Deserialize, Serialize};

/// The state of a session. Busy and waiting for input are fields of a live session; attached or not is derived from its
/// attachments.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SessionState {
    /// Its channel is being opened.
    Opening,
    /// It can be used. Its link may be closed while nobody uses it; then it is opened by whoever does.
    Live,
    /// Its machine cannot be reached; it is kept.
    Held,
    /// It is over; its transcript can still be read.
    Ended {
        /// Why.
        exit: Exit,
    },
}

/// What happens to a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The link is open.
    Opened,
    /// The link could not be opened or was lost; the channel may live on.
    LinkBroken,
    /// The link delivered the channel's end, and everything before it.
    ChannelEnded(Exit),
    /// The machine ended ([`crate::machine::Effect::EndSessions`]).
    MachineEnded(Exit),
    /// The machine cannot be reached ([`crate::machine::Effect::HoldSessions`]).
    MachineHeld,
    /// The machine can be reached again ([`crate::machine::Effect::ResumeSessions`]).
    MachineBack,
    /// Nobody has used it for a while, and nothing is lost without a link ([`crate::driver::Driver::rests`]).
    Unused,
    /// Somebody wants to use it, and its link was closed because nobody did.
    Wanted,
}

/// What the session's task has to do, in this order, after storing the new state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Open the channel from the last stored offset. After [`Input::LinkBroken`] the task waits a while of its own choice first.
    OpenLink,
    /// Close the link, or stop opening it.
    CloseLink,
    /// Read what the ended channel still holds into the transcript, opening it once more if there is no link. An exit that
    /// the channel itself reports is more exact than the one the session was ended with.
    Drain,
    /// Everybody who waits for an answer of the session gets this error.
    FailWaiting(Code),
    /// Tell that the session has changed.
    Announce,
}

/// What [`step::step`] decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The new state.
    pub state: SessionState,
    /// What to do, in order.
    pub effects: Vec<Effect>,
}
