//! What may happen to a session: the one pure, total policy of its states.
//!
//! It knows no link, transcript or clock. A session outlives its links: only the channel's or the machine's end ends it, and
//! that for good. Whoever waits for an answer keeps waiting through a broken link or an unreachable machine, because the
//! answer is in the stream.

use super::{Effect, Input, SessionState, Step};
use crate::Code;

/// Decides what an input does to a session.
pub fn step(state: SessionState, input: Input) -> Step {
    use Effect::{Announce, CloseLink, Drain, FailWaiting, OpenLink};
    use SessionState::{Ended, Held, Live, Opening};
    let (state, effects): (SessionState, &[Effect]) = match (state, input) {
        // Whatever was under way when it ended or was held comes too late.
        (state @ (Ended { .. } | Held), Input::Opened) => (state, &[CloseLink]),
        (state @ Ended { .. }, _) => (state, &[]),

        (_, Input::ChannelEnded(exit)) => (Ended { exit }, &[CloseLink, FailWaiting(Code::CommandLost), Announce]),
        (_, Input::MachineEnded(exit)) => (Ended { exit }, &[Drain, CloseLink, FailWaiting(Code::CommandLost), Announce]),

        (Opening | Live, Input::MachineHeld) => (Held, &[CloseLink, Announce]),
        (Held, Input::MachineBack) => (Opening, &[OpenLink, Announce]),
        (Held, Input::MachineHeld | Input::LinkBroken) => (Held, &[]),

        (Opening, Input::Opened) => (Live, &[Announce]),
        (Opening, Input::LinkBroken) => (Opening, &[OpenLink]),
        (Live, Input::LinkBroken) => (Opening, &[OpenLink, Announce]),
        (state @ (Opening | Live), Input::MachineBack) => (state, &[]),
        (Live, Input::Opened) => (Live, &[]),
        // It goes on where it is held; only the way there is given up, until somebody wants it.
        (Live, Input::Unused) => (Live, &[CloseLink]),
        (Live, Input::Wanted) => (Opening, &[OpenLink, Announce]),
        (state @ (Opening | Held), Input::Unused | Input::Wanted) => (state, &[]),
    };
    Step { state, effects: effects.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Exit;
    use std::collections::HashSet;

    fn states() -> [SessionState; 4] {
        [SessionState::Opening, SessionState::Live, SessionState::Held, SessionState::Ended { exit: Exit::Killed }]
    }

    fn inputs() -> [Input; 8] {
        let exit = Exit::Code { code: 3 };
        [
            Input::Opened,
            Input::LinkBroken,
            Input::ChannelEnded(exit.clone()),
            Input::MachineEnded(exit),
            Input::MachineHeld,
            Input::MachineBack,
            Input::Unused,
            Input::Wanted,
        ]
    }

    #[test]
    fn every_state_and_input_keeps_the_rules() {
        for before in states() {
            for input in inputs() {
                let Step { state: after, effects } = step(before.clone(), input.clone());
                let text = format!("{before:?} + {input:?} = {after:?} {effects:?}");
                let ended = |state: &SessionState| matches!(state, SessionState::Ended { .. });
                let has = |effect| effects.contains(&effect);
                if ended(&before) {
                    assert_eq!(after, before, "the end is final: {text}");
                    assert!(!has(Effect::Announce) && !has(Effect::OpenLink), "{text}");
                } else {
                    let end = matches!(input, Input::ChannelEnded(_) | Input::MachineEnded(_));
                    assert_eq!(ended(&after), end, "{text}");
                    assert_eq!(has(Effect::FailWaiting(Code::CommandLost)), end, "{text}");
                    assert_eq!(has(Effect::Drain), matches!(input, Input::MachineEnded(_)), "nothing said is lost: {text}");
                }
                assert_eq!(has(Effect::Announce), after != before, "changes are told, once: {text}");
                assert!(!has(Effect::OpenLink) || after == SessionState::Opening, "{text}");
                let entered = after == SessionState::Opening && before != SessionState::Opening;
                assert!(!entered || has(Effect::OpenLink), "nobody opens it: {text}");
                let left = before == SessionState::Live && matches!(after, SessionState::Held | SessionState::Ended { .. });
                assert!(!left || has(Effect::CloseLink), "{text}");
                let unique: HashSet<_> = effects.iter().collect();
                assert_eq!(unique.len(), effects.len(), "{text}");
            }
        }
    }

    #[test]
    fn a_held_session_reopens_only_when_its_machine_is_back() {
        for input in inputs() {
            let after = step(SessionState::Held, input.clone()).state;
            assert_eq!(after == SessionState::Opening, input == Input::MachineBack, "{input:?}");
            assert_ne!(after, SessionState::Live, "{input:?}");
        }
    }
}
