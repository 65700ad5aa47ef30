//! What may happen to a machine: the one pure, total policy of its states.
//!
//! `docs/reference/machine-states.md` is printed from this file by [`super::table`]. It knows no driver, clock, store or
//! session; the machine's task obeys it and adds nothing of its own. The rules that carry it:
//!
//! * Only requests and observations move the state. A call result or a deadline only asks for an observation.
//! * Nothing seen counts while a call is in flight, nor if the observation was begun before the last call returned.
//! * Only kill kills, only delete deletes: a polite stop that times out never becomes more than that.
//! * Unreachable is not off: [`State::Lost`] is left only for what is seen.
//! * Every operation that began ends exactly once.

use super::{Call, CallResult, Effect, Ending, Input, Phase, Request, Seen, Slot, State, Status, Step, Verb, Verdict};
use crate::Code;

/// Decides what an input does to a machine. Pure and total: a status that [`is_valid`] denies is healed by the next
/// observation, never a panic.
///
/// The effects on sessions may be given where there is nothing to do; obeying them twice is harmless. The deadline of an
/// operation begins anew with every [`Effect::Call`], so that the second leg of a restart has one too. Once
/// [`Effect::CancelCall`] was obeyed, the result of that call must not be fed back. [`Effect::Observe`] asks for a new look:
/// one that was begun before must be dropped, because a deadline or a cancel has no tick that would fence it off.
pub fn step(status: Status, input: Input) -> Step {
    match input {
        Input::Request(request) => requested(status, request),
        Input::Seen(_, begun) if begun < status.fence => stay(status),
        Input::Seen(seen, _) => observed(status, seen),
        Input::Returned(result, tick) => returned(status, result, tick),
        Input::Deadline => match status.slot {
            Some(slot) => question(status, slot),
            None => stay(status),
        },
    }
}

/// Whether a status can come about: a transient state is held by its own verb, a stable one by nothing or by an operation
/// in place. For checking what a store holds.
pub fn is_valid(status: &Status) -> bool {
    let Some(Slot { verb, phase, cancelled }) = status.slot else { return !is_transient(status.state) };
    let fits = match status.state {
        State::Creating => verb == Verb::Create,
        State::Starting => matches!(verb, Verb::Start | Verb::Restart),
        State::Stopping => matches!(verb, Verb::Stop | Verb::Restart),
        State::Killing => verb == Verb::Kill,
        State::Suspending => verb == Verb::Suspend,
        State::Resuming => verb == Verb::Resume,
        State::Deleting => verb == Verb::Delete,
        State::Running => matches!(verb, Verb::Pause | Verb::Work),
        State::Paused => matches!(verb, Verb::Resume | Verb::Work),
        State::Stopped | State::Suspended => verb == Verb::Work,
        State::Broken | State::Lost | State::Gone => false,
    };
    // Work ends as its call returns; a cancelled operation waits for an observation only.
    fits && (verb != Verb::Work || phase != Phase::Returned) && (!cancelled || phase == Phase::Late)
}

/// Whether a state says what is being done rather than what was seen.
pub const fn is_transient(state: State) -> bool {
    match state {
        State::Creating | State::Starting | State::Stopping | State::Killing | State::Suspending | State::Resuming | State::Deleting => {
            true
        }
        State::Stopped | State::Running | State::Paused | State::Suspended | State::Broken | State::Lost | State::Gone => false,
    }
}

fn stay(status: Status) -> Step {
    Step { status, effects: Vec::new(), verdict: None }
}

fn answer(status: Status, verdict: Verdict) -> Step {
    Step { status, effects: Vec::new(), verdict: Some(verdict) }
}

fn refuse(status: Status, code: Code) -> Step {
    answer(status, Verdict::Refused(code))
}

/// A new operation with a driver call, ending the one that held the machine.
fn begin(status: Status, state: State, verb: Verb, call: Call) -> Step {
    let mut effects = Vec::with_capacity(4);
    if let Some(slot) = status.slot {
        effects.push(Effect::End(Ending::Cancelled));
        if slot.phase == Phase::InFlight {
            effects.push(Effect::CancelCall);
        }
    }
    effects.extend([Effect::Begin(verb), Effect::Call(call)]);
    let slot = Some(Slot { verb, phase: Phase::InFlight, cancelled: false });
    Step { status: Status { state, slot, ..status }, effects, verdict: Some(Verdict::Started) }
}

fn requested(status: Status, request: Request) -> Step {
    use Request as R;
    use State as S;
    if request == R::Cancel {
        return cancel(status);
    }
    if let Some(slot) = status.slot {
        return held(status, slot, request);
    }
    let start = |state, verb, call| begin(status, state, verb, call);
    let no = |code| refuse(status, code);
    let already = answer(status, Verdict::Already);
    match (status.state, request) {
        (_, R::Cancel) => cancel(status),
        (S::Gone, _) => no(Code::MachineGone),

        (S::Lost | S::Broken, R::Forget) => Step {
            status: Status { state: S::Gone, ..status },
            effects: sessions(status.state, S::Gone).collect(),
            verdict: Some(Verdict::Already), // done at once: nothing real is touched, so there is no operation
        },
        (S::Lost, _) => no(Code::DriverUnreachable),
        (S::Broken, R::Stop | R::Kill) => already,
        (S::Broken, R::Delete | R::DeleteForce) => start(S::Deleting, Verb::Delete, Call::Delete),
        (S::Broken, _) => no(Code::MachineBroken),

        (S::Stopped | S::Running | S::Paused | S::Suspended, R::DeleteForce) => start(S::Deleting, Verb::Delete, Call::Delete),
        (S::Stopped | S::Running | S::Paused | S::Suspended, R::Work) => start(status.state, Verb::Work, Call::Work),
        (S::Stopped | S::Running | S::Paused | S::Suspended, R::Forget) => no(Code::MachineState),

        (S::Stopped, R::Start) => start(S::Starting, Verb::Start, Call::Start),
        (S::Stopped, R::Stop | R::Kill) => already,
        (S::Stopped, R::Restart) => no(Code::MachineStopped),
        (S::Stopped, R::Pause | R::Resume | R::Suspend) => no(Code::MachineState),
        (S::Stopped, R::Delete) => start(S::Deleting, Verb::Delete, Call::Delete),

        (S::Running | S::Paused | S::Suspended, R::Kill) => start(S::Killing, Verb::Kill, Call::Kill),

        (S::Running, R::Start | R::Resume) => already,
        (S::Running, R::Stop) => start(S::Stopping, Verb::Stop, Call::Stop),
        (S::Running, R::Restart) => start(S::Stopping, Verb::Restart, Call::Stop),
        (S::Running, R::Pause) => start(S::Running, Verb::Pause, Call::Pause),
        (S::Running, R::Suspend) => start(S::Suspending, Verb::Suspend, Call::Suspend),
        (S::Running | S::Paused, R::Delete) => no(Code::MachineRunning),

        (S::Paused, R::Pause) => already,
        (S::Paused, R::Resume) => start(S::Paused, Verb::Resume, Call::Unpause),
        (S::Paused, R::Start | R::Stop | R::Restart | R::Suspend) => no(Code::MachinePaused),

        (S::Suspended, R::Suspend) => already,
        (S::Suspended, R::Resume) => start(S::Resuming, Verb::Resume, Call::Resume),
        (S::Suspended, R::Start | R::Stop | R::Restart | R::Pause | R::Delete) => no(Code::MachineSuspended),

        // A transient state always has a slot; one without is a damaged record that the next observation heals.
        (S::Creating | S::Starting | S::Stopping | S::Killing | S::Suspending | S::Resuming | S::Deleting, _) => no(Code::MachineBusy),
    }
}

/// A request while an operation holds the machine: it joins, overtakes, or has to wait.
fn held(status: Status, slot: Slot, request: Request) -> Step {
    use Request as R;
    let same = match request {
        R::Start => status.state == State::Starting,
        R::Stop => status.state == State::Killing || slot.verb == Verb::Stop,
        R::Kill => slot.verb == Verb::Kill,
        R::Restart => slot.verb == Verb::Restart,
        R::Pause => slot.verb == Verb::Pause,
        R::Resume => slot.verb == Verb::Resume,
        R::Suspend => slot.verb == Verb::Suspend,
        R::Delete | R::DeleteForce => slot.verb == Verb::Delete,
        R::Forget | R::Work | R::Cancel => false,
    };
    // What is being cancelled will not reach the goal that the newcomer asks for.
    if same && !slot.cancelled {
        return answer(status, Verdict::Joined);
    }
    match request {
        R::Kill if !matches!(status.state, State::Creating | State::Deleting) => begin(status, State::Killing, Verb::Kill, Call::Kill),
        R::DeleteForce => begin(status, State::Deleting, Verb::Delete, Call::Delete),
        _ => refuse(status, Code::MachineBusy),
    }
}

/// The deadline passed, or the call failed, or a cancel was asked for: the next observation answers.
fn question(status: Status, slot: Slot) -> Step {
    let mut effects = Vec::with_capacity(2);
    if slot.phase == Phase::InFlight {
        effects.push(Effect::CancelCall);
    }
    effects.push(Effect::Observe);
    Step { status: Status { slot: Some(Slot { phase: Phase::Late, ..slot }), ..status }, effects, verdict: None }
}

fn cancel(status: Status) -> Step {
    match status.slot {
        Some(slot) => Step { verdict: Some(Verdict::Joined), ..question(status, Slot { cancelled: true, ..slot }) },
        None => refuse(status, Code::OperationEnded),
    }
}

fn returned(status: Status, result: CallResult, tick: u64) -> Step {
    if status.state == State::Gone {
        return stay(status);
    }
    let mut next = Status { fence: tick, ..status };
    let mut effects = Vec::with_capacity(2);
    match (&mut next.slot, result) {
        // What it did cannot be seen in a state, so here the result is the answer. It still moves no state.
        (Some(Slot { verb: Verb::Work, phase: Phase::InFlight, .. }), result) => {
            next.slot = None;
            effects.push(Effect::End(match result {
                CallResult::Ok => Ending::Done,
                CallResult::Err => Ending::Failed(Code::DriverFailed),
            }));
        }
        (Some(slot), CallResult::Ok) if slot.phase == Phase::InFlight => slot.phase = Phase::Returned,
        (Some(slot), CallResult::Err) => slot.phase = Phase::Late,
        (Some(_), CallResult::Ok) | (None, _) => {}
    }
    effects.push(Effect::Observe);
    Step { status: next, effects, verdict: None }
}

/// An observation that was begun late enough to count.
fn observed(status: Status, seen: Seen) -> Step {
    if status.state == State::Gone {
        return stay(status);
    }
    let from = status.state;
    let to = settled(&status, seen);
    let Some(slot) = status.slot else {
        return Step { status: Status { state: to, ..status }, effects: sessions(from, to).collect(), verdict: None };
    };
    // A guest that was asked to stop may take its time after the call has returned.
    let leaving = from == State::Stopping && slot.phase == Phase::Returned && matches!(seen, Seen::On | Seen::Paused);
    if slot.phase == Phase::InFlight || leaving {
        return stay(status);
    }
    if slot.verb == Verb::Restart && from == State::Stopping && to == State::Stopped && !slot.cancelled {
        return Step {
            status: Status { state: State::Starting, slot: Some(Slot { phase: Phase::InFlight, ..slot }), ..status },
            effects: vec![Effect::EndSessions, Effect::Call(Call::Start)],
            verdict: None,
        };
    }
    let ending = match goal(slot.verb) {
        // A copy of a running machine runs as soon as it exists.
        Some(_) if slot.verb == Verb::Create && to == State::Running => Ending::Done,
        // A machine that ignored the polite stop runs, but was not restarted.
        Some(goal) if goal == to && !(slot.verb == Verb::Restart && from == State::Stopping) => Ending::Done,
        _ if slot.cancelled => Ending::Cancelled,
        _ => Ending::Failed(Code::OperationFailed),
    };
    // Sessions first: whoever waits for the operation finds them as they will stay.
    let effects = sessions(from, to).chain([Effect::End(ending)]).collect();
    Step { status: Status { state: to, slot: None, ..status }, effects, verdict: None }
}

/// The state in which an operation has reached its goal; work in place has none that could be seen.
fn goal(verb: Verb) -> Option<State> {
    match verb {
        Verb::Create | Verb::Stop | Verb::Kill => Some(State::Stopped),
        Verb::Start | Verb::Restart | Verb::Resume => Some(State::Running),
        Verb::Pause => Some(State::Paused),
        Verb::Suspend => Some(State::Suspended),
        Verb::Delete => Some(State::Gone),
        Verb::Work => None,
    }
}

/// The stable state that an observation shows.
fn settled(status: &Status, seen: Seen) -> State {
    match seen {
        Seen::Off => State::Stopped,
        Seen::OffIncomplete => match status.state {
            // The driver says that it finished.
            State::Creating if status.slot.is_some_and(|slot| slot.phase == Phase::Returned) => State::Stopped,
            // Nothing says that it was ever whole, or not any longer.
            State::Creating | State::Broken | State::Lost | State::Deleting => State::Broken,
            _ => State::Stopped,
        },
        Seen::On => State::Running,
        Seen::Paused => State::Paused,
        Seen::Suspended => State::Suspended,
        // The name of a machine that never came to be is free again.
        Seen::Missing if matches!(status.state, State::Creating | State::Deleting) => State::Gone,
        Seen::Missing => State::Broken,
        Seen::Unreachable => State::Lost,
    }
}

/// What a change of state means for the machine's sessions.
fn sessions(from: State, to: State) -> impl Iterator<Item = Effect> {
    use State as S;
    let none = matches!(from, S::Creating | S::Stopped | S::Broken | S::Gone);
    // Killing and deleting may have begun on a suspended machine.
    let maybe_held = matches!(from, S::Lost | S::Suspended | S::Resuming | S::Killing | S::Deleting);
    let surely_held = matches!(from, S::Lost | S::Suspended | S::Resuming);
    let effect = match to {
        S::Stopped | S::Broken | S::Gone if !none => Some(Effect::EndSessions),
        S::Lost | S::Suspended if !none && !surely_held => Some(Effect::HoldSessions),
        S::Running | S::Paused if maybe_held => Some(Effect::ResumeSessions),
        _ => None,
    };
    effect.into_iter()
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
