//! Machines: their states, what may be asked of them, and the pure policy of both.

pub mod step;
pub mod table;

use crate::{Code, OperationId};
use serde::{Deserialize, Serialize};

/// The state of a machine: what was last observed, or what is being done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its creation has begun.
    Creating,
    /// Seen off.
    Stopped,
    /// It was told to start.
    Starting,
    /// Seen running.
    Running,
    /// Seen paused.
    Paused,
    /// It was told to suspend.
    Suspending,
    /// Seen suspended to storage.
    Suspended,
    /// It was told to resume from storage.
    Resuming,
    /// It was asked to stop.
    Stopping,
    /// It is being ended by force.
    Killing,
    /// The hypervisor answers and does not know it.
    Broken,
    /// The hypervisor does not answer.
    Lost,
    /// It is being deleted.
    Deleting,
    /// It was deleted or forgotten.
    Gone,
}

/// How far the driver call of a transient state has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The call has not returned.
    InFlight,
    /// It returned Ok.
    Returned,
    /// It returned an error, or the deadline passed, or a cancel was asked for.
    Late,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Make the machine.
    Create,
    /// Start it.
    Start,
    /// Stop it politely.
    Stop,
    /// End it by force.
    Kill,
    /// Stop it politely, then start it.
    Restart,
    /// Freeze it in memory.
    Pause,
    /// Go on after pause or suspend.
    Resume,
    /// Write it to storage and stop it.
    Suspend,
    /// Delete it.
    Delete,
    /// Work that leaves the state alone (clone, snapshot, resize, …).
    Work,
}

/// What a user may ask of a machine that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Start it.
    Start,
    /// Stop it politely.
    Stop,
    /// End it by force.
    Kill,
    /// Stop it politely, then start it.
    Restart,
    /// Freeze it in memory.
    Pause,
    /// Go on.
    Resume,
    /// Write it to storage and stop it.
    Suspend,
    /// Delete it, if it does not run.
    Delete,
    /// Delete it, whatever it does.
    DeleteForce,
    /// Drop our record of it; touches nothing real.
    Forget,
    /// Do work in place.
    Work,
    /// Cancel the operation that holds it.
    Cancel,
}

/// What was seen, without the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Seen {
    /// It exists, complete, and does not run.
    Off,
    /// It exists and does not run, but its creation never finished.
    OffIncomplete,
    /// It runs.
    On,
    /// It is paused.
    Paused,
    /// It is suspended.
    Suspended,
    /// There is no such machine.
    Missing,
    /// The hypervisor cannot be asked.
    Unreachable,
}

/// How a driver call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallResult {
    /// It returned Ok.
    Ok,
    /// It returned an error.
    Err,
}

/// A counter of the machine's own task that rises with every observation begun and every call returned.
pub type Tick = u64;

/// Everything [`step::step`] decides from; stored with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Status {
    /// The state.
    pub state: State,
    /// The operation that holds the machine. A transient state always has one; a stable state has one only for pause,
    /// resume and work in place.
    pub slot: Option<Slot>,
    /// Observations begun before this tick decide nothing.
    pub fence: Tick,
}

/// The operation that holds a machine, as far as the policy needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// What it does.
    pub verb: Verb,
    /// How far its current call has come.
    pub phase: Phase,
    /// Whether its cancellation was asked for: it then ends as cancelled unless its goal is seen.
    pub cancelled: bool,
}

/// What happens to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Input {
    /// Somebody asks for something.
    Request(Request),
    /// An observation that was begun at this tick came back.
    Seen(Seen, Tick),
    /// The driver call of the current operation returned, at this tick.
    Returned(CallResult, Tick),
    /// The deadline of the current operation passed.
    Deadline,
}

/// A driver call to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// [`crate::driver::Driver::create`]; made by whoever creates the machine, never by `step`.
    Create,
    /// [`crate::driver::Driver::start`].
    Start,
    /// [`crate::driver::Driver::stop`], polite.
    Stop,
    /// [`crate::driver::Driver::stop`], by force.
    Kill,
    /// [`crate::driver::Pause::pause`].
    Pause,
    /// [`crate::driver::Pause::resume`] of a paused machine.
    Unpause,
    /// [`crate::driver::Suspend::suspend`].
    Suspend,
    /// [`crate::driver::Suspend::resume`] of a suspended machine.
    Resume,
    /// [`crate::driver::Driver::delete`].
    Delete,
    /// The work that was asked for.
    Work,
}

/// What the machine's task has to do, in this order, after storing the new status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The current operation ended.
    End(Ending),
    /// A new operation began; the task gives it an id and stores it before anything else.
    Begin(Verb),
    /// Abandon the driver call in flight; its result no longer counts.
    CancelCall,
    /// Make this driver call.
    Call(Call),
    /// Look at the machine.
    Observe,
    /// End its sessions.
    EndSessions,
    /// Hold its sessions: it cannot be reached.
    HoldSessions,
    /// Its sessions can be reached again.
    ResumeSessions,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Its goal was seen.
    Done,
    /// Another state was seen, or its call failed; the code where no driver error says more.
    Failed(Code),
    /// It was cancelled or overtaken.
    Cancelled,
}

/// The answer to a request. A refusal is not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// An operation was started.
    Started,
    /// The same operation is under way; wait for that one.
    Joined,
    /// It is so already.
    Already,
    /// It cannot be done now.
    Refused(Code),
}

/// A [`Verdict`] with the operation it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// An operation was started.
    Started {
        /// Which.
        operation: OperationId,
    },
    /// The same operation is under way.
    Joined {
        /// Which.
        operation: OperationId,
    },
    /// It is so already.
    Already,
    /// It cannot be done now.
    Refused {
        /// Why.
        code: Code,
    },
}

/// What [`step::step`] decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The new status.
    pub status: Status,
    /// What to do, in order.
    pub effects: Vec<Effect>,
    /// The answer, if the input was a request.
    pub verdict: Option<Verdict>,
}
