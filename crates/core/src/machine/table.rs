//! `docs/reference/machine-states.md`, printed from [`super::step::step`] itself so that it cannot say anything else.

use super::{
    Call, Effect, Ending, Input, Phase, Request, Seen, Slot, State, Status, Step, Verb, Verdict,
    step::{is_valid, step},
};
use std::fmt::Write as _;

const ROWS: [(State, Option<Verb>); 22] = [
    (State::Creating, Some(Verb::Create)),
    (State::Stopped, None),
    (State::Stopped, Some(Verb::Work)),
    (State::Starting, Some(Verb::Start)),
    (State::Starting, Some(Verb::Restart)),
    (State::Running, None),
    (State::Running, Some(Verb::Pause)),
    (State::Running, Some(Verb::Work)),
    (State::Paused, None),
    (State::Paused, Some(Verb::Resume)),
    (State::Paused, Some(Verb::Work)),
    (State::Suspending, Some(Verb::Suspend)),
    (State::Suspended, None),
    (State::Suspended, Some(Verb::Work)),
    (State::Resuming, Some(Verb::Resume)),
    (State::Stopping, Some(Verb::Stop)),
    (State::Stopping, Some(Verb::Restart)),
    (State::Killing, Some(Verb::Kill)),
    (State::Broken, None),
    (State::Lost, None),
    (State::Deleting, Some(Verb::Delete)),
    (State::Gone, None),
];

const REQUESTS: [(Request, &str); 12] = [
    (Request::Start, "start"),
    (Request::Stop, "stop"),
    (Request::Kill, "kill"),
    (Request::Restart, "restart"),
    (Request::Pause, "pause"),
    (Request::Resume, "resume"),
    (Request::Suspend, "suspend"),
    (Request::Delete, "delete"),
    (Request::DeleteForce, "delete --force"),
    (Request::Forget, "forget"),
    (Request::Work, "work"),
    (Request::Cancel, "cancel"),
];

const SEEN: [(Seen, &str); 7] = [
    (Seen::Off, "off"),
    (Seen::OffIncomplete, "off, incomplete"),
    (Seen::On, "on"),
    (Seen::Paused, "paused"),
    (Seen::Suspended, "suspended"),
    (Seen::Missing, "missing"),
    (Seen::Unreachable, "unreachable"),
];

const HEAD: &str = "\
# Machine states

Printed from `crates/core/src/machine/step.rs` by `cargo xtask docs`; a test compares. The policy is one
pure function of the machine's status and one input.

* Only requests and observations move the state. A call result or a deadline moves nothing: it asks for an observation, and
  that one answers.
* An observation that was begun before the last driver call returned decides nothing.
* Only kill kills; only delete deletes. A polite stop that is not obeyed fails, and says that `--force` exists.
* A machine that cannot be reached is *Lost*, which is not off: its sessions are held.
* A failure belongs to an operation. There is no failed machine.

## Requests

Rows with a verb in brackets are machines that an operation holds. **Bold**: a new operation begins and this is the state
while it runs. *joins*: the same operation is under way, and its end is the answer. *already*: nothing is to be done. Anything
else is the code of the refusal (`machine.` left out). *overtakes*: the operation that held the machine ends as cancelled first.

";

const CALLS: &str = "
## Call results and deadlines

| input | what it does |
|---|---|
| the call returned Ok | the call has *returned*; look at the machine. Work in place is done. |
| the call returned an error | the operation is *late*; look at the machine. Work in place has failed. |
| the deadline passed | the operation is *late*; the call is abandoned if it is in flight; look at the machine. |
| cancel | as a deadline, and the operation ends as cancelled unless its goal is seen. |

";

const OBSERVATIONS: &str = "\
## Observations

✓ the operation is done, ✗ it has failed (or was cancelled, if that was asked for), – nothing happens.

";

/// The whole page.
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    header(&mut page, "state", REQUESTS.map(|(_, name)| name));
    for (state, verb) in ROWS {
        let status = status(state, verb, Phase::InFlight);
        row(&mut page, &label(state, verb, None), REQUESTS.map(|(request, _)| asked(&status, &step(status, Input::Request(request)))));
    }
    page.push_str(CALLS);
    page.push_str(OBSERVATIONS);
    header(&mut page, "state", SEEN.map(|(_, name)| name));
    let in_flight = status(State::Creating, Some(Verb::Create), Phase::InFlight);
    row(&mut page, "any, while a call is in flight", looks(in_flight));
    for (state, verb) in ROWS {
        if verb.is_none() {
            row(&mut page, &label(state, verb, None), looks(status(state, verb, Phase::InFlight)));
            continue;
        }
        let [returned, late] = [Phase::Returned, Phase::Late].map(|phase| status(state, verb, phase));
        match (is_valid(&returned), looks(returned) == looks(late)) {
            (true, true) => row(&mut page, &label(state, verb, Some("returned or late")), looks(late)),
            (true, false) => {
                row(&mut page, &label(state, verb, Some("returned")), looks(returned));
                row(&mut page, &label(state, verb, Some("late")), looks(late));
            }
            (false, _) => row(&mut page, &label(state, verb, Some("late")), looks(late)),
        }
    }
    page
}

fn status(state: State, verb: Option<Verb>, phase: Phase) -> Status {
    Status { state, slot: verb.map(|verb| Slot { verb, phase, cancelled: false }), fence: 0 }
}

fn header<const N: usize>(page: &mut String, first: &str, cells: [&str; N]) {
    row(page, first, cells.map(str::to_owned));
    page.push_str(&"|---".repeat(N + 1));
    page.push_str("|\n");
}

fn row<const N: usize>(page: &mut String, first: &str, cells: [String; N]) {
    let _ = writeln!(page, "| {first} | {} |", cells.join(" | "));
}

fn label(state: State, verb: Option<Verb>, phase: Option<&str>) -> String {
    let mut text = format!("{state:?}");
    if let Some(verb) = verb {
        let _ = write!(text, " ({})", format!("{verb:?}").to_lowercase());
    }
    if let Some(phase) = phase {
        let _ = write!(text, ", {phase}");
    }
    text
}

fn asked(before: &Status, step: &Step) -> String {
    match step.verdict {
        Some(Verdict::Refused(code)) => format!("`{}`", code.as_str().trim_start_matches("machine.")),
        Some(Verdict::Joined) if step.effects.is_empty() => "joins".into(),
        Some(Verdict::Joined) => "asks".into(),
        Some(Verdict::Already) if step.status.state != before.state => format!("**{:?}** at once", step.status.state),
        Some(Verdict::Already) => "already".into(),
        Some(Verdict::Started) => {
            let stays = step.status.state == before.state;
            let call = step.effects.iter().find_map(|effect| match effect {
                Effect::Call(Call::Unpause) => Some("resume".to_owned()),
                Effect::Call(call) => Some(format!("{call:?}").to_lowercase()),
                _ => None,
            });
            let mut text = match call {
                Some(call) if stays => format!("**{:?}** ({call})", step.status.state),
                _ => format!("**{:?}**", step.status.state),
            };
            if step.effects.contains(&Effect::End(Ending::Cancelled)) {
                text.push_str(", overtakes");
            }
            text
        }
        None => "–".into(),
    }
}

fn looks(before: Status) -> [String; 7] {
    SEEN.map(|(seen, _)| {
        let step = step(before, Input::Seen(seen, 0));
        if step.status == before && step.effects.is_empty() {
            return "–".into();
        }
        let mut text = format!("{:?}", step.status.state);
        for effect in &step.effects {
            text.push_str(match effect {
                Effect::End(Ending::Done) => " ✓",
                Effect::End(_) => " ✗",
                Effect::EndSessions => ", end sessions",
                Effect::HoldSessions => ", hold sessions",
                Effect::ResumeSessions => ", resume sessions",
                Effect::Call(Call::Start) => ", start",
                _ => "",
            });
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_held_machine_looks_the_same_while_a_call_is_in_flight() {
        for (state, verb) in ROWS {
            assert!(is_valid(&status(state, verb, Phase::InFlight)), "{state:?} {verb:?}");
            if verb.is_some() {
                assert!(looks(status(state, verb, Phase::InFlight)).iter().all(|cell| cell == "–"), "{state:?} {verb:?}");
            }
        }
    }
}
