//! Every status times every input, against the rules that must never be broken. Written apart from the policy: nothing
//! here asks `step` what is right, except where it walks.

use super::{super::*, *};
use std::collections::{HashMap, HashSet};

const STATES: [State; 14] = [
    State::Creating,
    State::Stopped,
    State::Starting,
    State::Running,
    State::Paused,
    State::Suspending,
    State::Suspended,
    State::Resuming,
    State::Stopping,
    State::Killing,
    State::Broken,
    State::Lost,
    State::Deleting,
    State::Gone,
];
const VERBS: [Verb; 10] =
    [Verb::Create, Verb::Start, Verb::Stop, Verb::Kill, Verb::Restart, Verb::Pause, Verb::Resume, Verb::Suspend, Verb::Delete, Verb::Work];
const PHASES: [Phase; 3] = [Phase::InFlight, Phase::Returned, Phase::Late];
const SEEN: [Seen; 7] = [Seen::Off, Seen::OffIncomplete, Seen::On, Seen::Paused, Seen::Suspended, Seen::Missing, Seen::Unreachable];
const REQUESTS: [Request; 12] = [
    Request::Start,
    Request::Stop,
    Request::Kill,
    Request::Restart,
    Request::Pause,
    Request::Resume,
    Request::Suspend,
    Request::Delete,
    Request::DeleteForce,
    Request::Forget,
    Request::Work,
    Request::Cancel,
];
const FENCE: Tick = 10;
const STALE: Tick = 9;
const FRESH: Tick = 10;
const LATER: Tick = 20;

fn every_status_even_damaged() -> Vec<Status> {
    let mut all = Vec::new();
    for state in STATES {
        all.push(Status { state, slot: None, fence: FENCE });
        for verb in VERBS {
            for phase in PHASES {
                for cancelled in [false, true] {
                    all.push(Status { state, slot: Some(Slot { verb, phase, cancelled }), fence: FENCE });
                }
            }
        }
    }
    all
}

fn every_status() -> Vec<Status> {
    every_status_even_damaged().into_iter().filter(is_valid).collect()
}

fn every_input() -> Vec<Input> {
    let mut all: Vec<Input> = REQUESTS.map(Input::Request).to_vec();
    all.extend(SEEN.map(|seen| Input::Seen(seen, STALE)));
    all.extend(SEEN.map(|seen| Input::Seen(seen, FRESH)));
    all.extend([Input::Returned(CallResult::Ok, LATER), Input::Returned(CallResult::Err, LATER), Input::Deadline]);
    all
}

fn has(step: &Step, effect: Effect) -> bool {
    step.effects.contains(&effect)
}

fn alive(state: State) -> bool {
    use State as S;
    matches!(
        state,
        S::Running
            | S::Paused
            | S::Lost
            | S::Suspended
            | S::Starting
            | S::Stopping
            | S::Killing
            | S::Deleting
            | S::Suspending
            | S::Resuming
    )
}

/// Calls `check` for every valid status and every input, with a text that says which.
fn everywhere(check: impl Fn(Status, Input, &Step, &str)) {
    let (statuses, inputs) = (every_status(), every_input());
    assert!(statuses.len() > 50 && inputs.len() == 29, "{} statuses, {} inputs", statuses.len(), inputs.len());
    for status in statuses {
        for &input in &inputs {
            let step = step(status, input);
            let text = format!("{status:?}\n  + {input:?}\n  = {step:?}");
            check(status, input, &step, &text);
        }
    }
}

#[test]
fn valid_leads_to_valid_and_requests_alone_are_answered() {
    everywhere(|_, input, step, text| {
        assert!(is_valid(&step.status), "{text}");
        assert_eq!(step.verdict.is_some(), matches!(input, Input::Request(_)), "{text}");
    });
}

#[test]
fn damaged_records_never_panic_and_an_observation_heals_them() {
    for status in every_status_even_damaged() {
        for input in every_input() {
            let _ = step(status, input);
        }
        let late = step(status, Input::Deadline).status;
        if status.slot.is_none() || late.slot.is_some_and(|slot| slot.phase == Phase::Late) {
            for seen in SEEN {
                let seen = step(late, Input::Seen(seen, FRESH)).status;
                assert!(status.state == State::Gone || is_valid(&seen), "{status:?} {seen:?}");
            }
        }
    }
}

#[test]
fn a_refusal_changes_nothing() {
    everywhere(|status, _, step, text| {
        if let Some(Verdict::Refused(_)) = step.verdict {
            assert!(step.status == status && step.effects.is_empty(), "{text}");
        }
    });
}

#[test]
fn only_kill_kills_and_only_delete_deletes() {
    everywhere(|_, input, step, text| {
        if has(step, Effect::Call(Call::Kill)) || has(step, Effect::Begin(Verb::Kill)) {
            assert_eq!(input, Input::Request(Request::Kill), "{text}");
        }
        if has(step, Effect::Call(Call::Delete)) || has(step, Effect::Begin(Verb::Delete)) {
            assert!(matches!(input, Input::Request(Request::Delete | Request::DeleteForce)), "{text}");
        }
        if has(step, Effect::Call(Call::Create)) {
            panic!("creating is begun elsewhere: {text}");
        }
    });
}

#[test]
fn plain_delete_never_takes_what_lives() {
    everywhere(|status, input, step, text| {
        if input == Input::Request(Request::Delete) && has(step, Effect::Call(Call::Delete)) {
            assert!(matches!(status.state, State::Stopped | State::Broken) && status.slot.is_none(), "{text}");
        }
    });
}

#[test]
fn unreachable_is_not_off() {
    everywhere(|status, input, step, text| {
        if status.state == State::Lost && step.status.state == State::Stopped {
            assert_eq!(input, Input::Seen(Seen::Off, FRESH), "{text}");
        }
        if step.status.state == State::Lost && status.state != State::Lost {
            assert_eq!(input, Input::Seen(Seen::Unreachable, FRESH), "{text}");
            assert!(!has(step, Effect::EndSessions), "{text}");
        }
    });
}

#[test]
fn call_results_and_clocks_never_move_the_state() {
    everywhere(|status, input, step, text| {
        if matches!(input, Input::Returned(..) | Input::Deadline) {
            assert_eq!(step.status.state, status.state, "{text}");
            assert!(!step.effects.iter().any(|effect| matches!(effect, Effect::Call(_) | Effect::Begin(_))), "{text}");
            let asks = has(step, Effect::Observe);
            assert!(asks || status.state == State::Gone || (input == Input::Deadline && status.slot.is_none()), "{text}");
        }
        if matches!(input, Input::Returned(..)) && status.state != State::Gone {
            assert_eq!(step.status.fence, LATER, "{text}");
        } else {
            assert_eq!(step.status.fence, FENCE, "{text}");
        }
    });
}

#[test]
fn a_stale_observation_decides_nothing() {
    everywhere(|status, input, step, text| {
        if matches!(input, Input::Seen(_, STALE)) {
            assert!(step.status == status && step.effects.is_empty(), "{text}");
        }
    });
}

#[test]
fn nothing_seen_counts_while_a_call_is_in_flight() {
    everywhere(|status, input, step, text| {
        if matches!(input, Input::Seen(..)) && status.slot.is_some_and(|slot| slot.phase == Phase::InFlight) {
            assert!(step.status == status && step.effects.is_empty(), "{text}");
        }
    });
}

#[test]
fn every_operation_begins_once_and_ends_once() {
    everywhere(|status, input, step, text| {
        let mut open = status.slot.is_some();
        let mut begun = None;
        for effect in &step.effects {
            match effect {
                Effect::End(_) => {
                    assert!(open, "ended without one: {text}");
                    open = false;
                }
                Effect::Begin(verb) => {
                    assert!(!open, "begun over another: {text}");
                    open = true;
                    begun = Some(*verb);
                }
                Effect::Call(_) => assert!(open, "a call without an operation: {text}"),
                _ => {}
            }
        }
        assert_eq!(open, step.status.slot.is_some(), "{text}");
        if let Some(verb) = begun {
            let slot = Slot { verb, phase: Phase::InFlight, cancelled: false };
            assert_eq!(step.status.slot, Some(slot), "{text}");
            assert!(matches!(step.effects.last(), Some(Effect::Call(_))), "{text}");
        }
        assert_eq!(begun.is_some(), step.verdict == Some(Verdict::Started), "{text}");
        // Ended by a request only when overtaken, and then as cancelled, before anything else is done.
        if matches!(input, Input::Request(_)) && step.effects.iter().any(|effect| matches!(effect, Effect::End(_))) {
            assert_eq!(step.effects[0], Effect::End(Ending::Cancelled), "{text}");
            assert!(begun.is_some(), "{text}");
        }
    });
}

#[test]
fn one_driver_call_at_a_time() {
    everywhere(|status, _, step, text| {
        let calls = step.effects.iter().filter(|effect| matches!(effect, Effect::Call(_))).count();
        assert!(calls <= 1, "{text}");
        let was = status.slot.is_some_and(|slot| slot.phase == Phase::InFlight);
        let is = step.status.slot.is_some_and(|slot| slot.phase == Phase::InFlight);
        let cancelled = has(step, Effect::CancelCall);
        assert!(!cancelled || was, "cancels a call that is not in flight: {text}");
        if calls == 1 {
            assert!(is && (!was || cancelled), "{text}");
            let cancel = step.effects.iter().position(|effect| *effect == Effect::CancelCall);
            let call = step.effects.iter().position(|effect| matches!(effect, Effect::Call(_)));
            assert!(cancel.is_none() || cancel < call, "{text}");
        } else {
            assert!(!is || was, "in flight without a call: {text}");
        }
    });
}

#[test]
fn an_operation_is_done_only_when_its_goal_is_seen() {
    everywhere(|status, input, step, text| {
        let Some(Slot { verb, cancelled, .. }) = status.slot else { return };
        for effect in &step.effects {
            let Effect::End(ending) = effect else { continue };
            match ending {
                Ending::Done => {
                    let (state, wanted): (State, &[Seen]) = match verb {
                        Verb::Create if step.status.state == State::Running => (State::Running, &[Seen::On]),
                        Verb::Create => (State::Stopped, &[Seen::Off, Seen::OffIncomplete]),
                        Verb::Stop | Verb::Kill => (State::Stopped, &[Seen::Off, Seen::OffIncomplete]),
                        Verb::Start | Verb::Restart | Verb::Resume => (State::Running, &[Seen::On]),
                        Verb::Pause => (State::Paused, &[Seen::Paused]),
                        Verb::Suspend => (State::Suspended, &[Seen::Suspended]),
                        Verb::Delete => (State::Gone, &[Seen::Missing]),
                        Verb::Work => {
                            assert_eq!(input, Input::Returned(CallResult::Ok, LATER), "{text}");
                            continue;
                        }
                    };
                    assert_eq!(step.status.state, state, "{text}");
                    assert!(matches!(input, Input::Seen(seen, FRESH) if wanted.contains(&seen)), "{text}");
                    assert!(verb != Verb::Restart || status.state == State::Starting, "half a restart: {text}");
                }
                Ending::Cancelled => assert!(cancelled || step.verdict == Some(Verdict::Started), "{text}"),
                Ending::Failed(_) => assert!(!cancelled, "{text}"),
            }
        }
    });
}

#[test]
fn whoever_is_late_is_answered_by_the_next_observation() {
    for status in every_status() {
        let Some(slot) = status.slot else { continue };
        if slot.phase != Phase::Late {
            continue;
        }
        for seen in SEEN {
            let step = step(status, Input::Seen(seen, FRESH));
            let second_leg = slot.verb == Verb::Restart && step.status.state == State::Starting && status.state == State::Stopping;
            assert!(second_leg || step.status.slot.is_none(), "{status:?} {seen:?} {step:?}");
            if is_transient(status.state) {
                assert_ne!(step.status.state, status.state, "{seen:?}");
            }
            assert!(!(second_leg && slot.cancelled), "a cancelled restart went on: {step:?}");
        }
    }
}

#[test]
fn sessions_end_on_every_way_out_of_life_and_held_ones_are_not_forgotten() {
    everywhere(|status, _, step, text| {
        let (from, to) = (status.state, step.status.state);
        let over = matches!(to, State::Stopped | State::Broken | State::Gone);
        if alive(from) && over {
            assert!(has(step, Effect::EndSessions), "{text}");
        }
        if from == State::Stopping && to == State::Starting {
            assert!(has(step, Effect::EndSessions), "the old life is over: {text}");
        }
        if matches!(from, State::Running | State::Paused | State::Stopping | State::Killing) && matches!(to, State::Lost | State::Suspended)
        {
            assert!(has(step, Effect::HoldSessions), "{text}");
        }
        if matches!(from, State::Lost | State::Suspended | State::Resuming | State::Killing | State::Deleting)
            && matches!(to, State::Running | State::Paused)
        {
            assert!(has(step, Effect::ResumeSessions), "{text}");
        }
        if from == to {
            assert!(!has(step, Effect::EndSessions) && !has(step, Effect::HoldSessions), "{text}");
        }
    });
}

#[test]
fn gone_is_final_and_in_reach_of_everything() {
    let mut back: HashMap<Status, HashSet<Status>> = HashMap::new();
    let norm = |status: Status| Status { fence: FENCE, ..status };
    for status in every_status() {
        for input in every_input() {
            let next = step(status, input);
            if status.state == State::Gone {
                assert!(next.status == status && next.effects.is_empty(), "{input:?}");
            }
            back.entry(norm(next.status)).or_default().insert(status);
        }
    }
    let gone = Status { state: State::Gone, slot: None, fence: FENCE };
    let mut found = HashSet::from([gone]);
    let mut todo = vec![gone];
    while let Some(status) = todo.pop() {
        for &before in back.get(&status).into_iter().flatten() {
            if found.insert(before) {
                todo.push(before);
            }
        }
    }
    for status in every_status() {
        assert!(found.contains(&status), "no way from {status:?} to Gone");
    }
}

#[test]
fn a_walk_from_creation_meets_every_valid_status_and_no_other() {
    let first =
        Status { state: State::Creating, slot: Some(Slot { verb: Verb::Create, phase: Phase::InFlight, cancelled: false }), fence: FENCE };
    let mut met = HashSet::from([first]);
    let mut todo = vec![first];
    while let Some(status) = todo.pop() {
        for input in every_input() {
            let next = Status { fence: FENCE, ..step(status, input).status };
            assert!(is_valid(&next), "{status:?} {input:?} {next:?}");
            if met.insert(next) {
                todo.push(next);
            }
        }
    }
    let valid: HashSet<Status> = every_status().into_iter().collect();
    let unmet: Vec<_> = valid.difference(&met).collect();
    assert!(unmet.is_empty(), "never reached: {unmet:?}");
}

/// Follows one machine through inputs and gives the last step.
fn follow(mut status: Status, inputs: &[Input]) -> Step {
    let mut last = None;
    for &input in inputs {
        let next = step(status, input);
        status = next.status;
        last = Some(next);
    }
    last.unwrap_or_else(|| panic!("no inputs"))
}

fn stable(state: State) -> Status {
    Status { state, slot: None, fence: 0 }
}

#[test]
fn restart_is_one_operation_of_two_legs() {
    use Input as I;
    let off = [I::Request(Request::Restart), I::Returned(CallResult::Ok, 1), I::Seen(Seen::On, 2), I::Seen(Seen::Off, 3)];
    let leg = follow(stable(State::Running), &off);
    assert_eq!(leg.status.state, State::Starting);
    assert_eq!(leg.status.slot, Some(Slot { verb: Verb::Restart, phase: Phase::InFlight, cancelled: false }));
    assert_eq!(leg.effects, [Effect::EndSessions, Effect::Call(Call::Start)]);
    assert_eq!(step(leg.status, I::Request(Request::Restart)).verdict, Some(Verdict::Joined));
    let done = follow(leg.status, &[I::Returned(CallResult::Ok, 4), I::Seen(Seen::Off, 3), I::Seen(Seen::On, 5)]);
    assert_eq!((done.status.state, done.effects), (State::Running, vec![Effect::End(Ending::Done)]));
    // A daemon that was killed in the first leg knows nothing of its call, and goes on.
    let lost = follow(stable(State::Running), &[I::Request(Request::Restart), I::Returned(CallResult::Err, 1), I::Seen(Seen::Off, 2)]);
    assert_eq!(lost.effects.last(), Some(&Effect::Call(Call::Start)));
    // Nobody who asks to stop is told that a restart does it.
    let first = follow(stable(State::Running), &off[..1]);
    assert_eq!(step(first.status, I::Request(Request::Stop)).verdict, Some(Verdict::Refused(Code::MachineBusy)));
}

#[test]
fn cancel_asks_and_never_kills() {
    use Input as I;
    let asked = follow(stable(State::Running), &[I::Request(Request::Stop), I::Request(Request::Cancel)]);
    assert_eq!(asked.effects, [Effect::CancelCall, Effect::Observe]);
    assert_eq!(asked.verdict, Some(Verdict::Joined));
    let on = step(asked.status, I::Seen(Seen::On, 1));
    assert_eq!((on.status.state, on.effects), (State::Running, vec![Effect::End(Ending::Cancelled)]));
    let off = step(asked.status, I::Seen(Seen::Off, 1));
    assert_eq!((off.status.state, off.effects), (State::Stopped, vec![Effect::EndSessions, Effect::End(Ending::Done)]));
    assert_eq!(step(asked.status, I::Request(Request::Stop)).verdict, Some(Verdict::Refused(Code::MachineBusy)));
    assert_eq!(step(on.status, I::Request(Request::Cancel)).verdict, Some(Verdict::Refused(Code::OperationEnded)));
}

#[test]
fn a_kill_overtakes() {
    use Input as I;
    for first in [Request::Stop, Request::Restart, Request::Pause, Request::Suspend, Request::Work] {
        let over = follow(stable(State::Running), &[I::Request(first), I::Request(Request::Kill)]);
        let wanted = [Effect::End(Ending::Cancelled), Effect::CancelCall, Effect::Begin(Verb::Kill), Effect::Call(Call::Kill)];
        assert_eq!((over.status.state, &over.effects[..]), (State::Killing, &wanted[..]), "{first:?}");
        let over = follow(stable(State::Running), &[I::Request(first), I::Deadline, I::Request(Request::Kill)]);
        assert_eq!(&over.effects[..], [&wanted[..1], &wanted[2..]].concat(), "{first:?}: its call is not in flight any more");
    }
}

#[test]
fn a_half_made_machine_is_broken_and_stays_so() {
    use Input as I;
    let creating =
        Status { state: State::Creating, slot: Some(Slot { verb: Verb::Create, phase: Phase::InFlight, cancelled: false }), fence: 0 };
    let broken = follow(creating, &[I::Deadline, I::Seen(Seen::OffIncomplete, 1)]);
    assert_eq!(broken.status.state, State::Broken);
    assert_eq!(broken.effects, [Effect::End(Ending::Failed(Code::OperationFailed))]);
    let again = follow(broken.status, &[I::Seen(Seen::OffIncomplete, 2), I::Seen(Seen::Unreachable, 3), I::Seen(Seen::OffIncomplete, 4)]);
    assert_eq!(again.status.state, State::Broken, "the next look must not make it startable");
    let whole = follow(creating, &[I::Deadline, I::Seen(Seen::Off, 1)]);
    assert_eq!((whole.status.state, whole.effects), (State::Stopped, vec![Effect::End(Ending::Done)]), "the deadline only asked");
}

#[test]
fn a_guest_that_dies_right_after_its_start_is_seen_at_once() {
    use Input as I;
    let dead = follow(stable(State::Stopped), &[I::Request(Request::Start), I::Returned(CallResult::Ok, 1), I::Seen(Seen::Off, 2)]);
    assert_eq!(dead.status.state, State::Stopped);
    assert_eq!(dead.effects.last(), Some(&Effect::End(Ending::Failed(Code::OperationFailed))));
}
