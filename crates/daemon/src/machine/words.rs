//! What machines' states, verbs and refusals are called in sentences.

use vmoon_core::{
    Code, Error,
    machine::{Call, Effect, Request, State, Verb},
};

/// "is running", "is being created", ….
pub(crate) fn state(state: State) -> &'static str {
    match state {
        State::Creating => "is being created",
        State::Stopped => "is stopped",
        State::Starting => "is starting",
        State::Running => "is running",
        State::Paused => "is paused",
        State::Suspending => "is being suspended",
        State::Suspended => "is suspended",
        State::Resuming => "is resuming",
        State::Stopping => "is stopping",
        State::Killing => "is being killed",
        State::Broken => "is broken: the real thing behind it is missing",
        State::Lost => "cannot be reached",
        State::Deleting => "is being deleted",
        State::Gone => "is gone",
    }
}

/// "start", "delete", ….
pub(crate) fn verb(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "create",
        Verb::Start => "start",
        Verb::Stop => "stop",
        Verb::Kill => "kill",
        Verb::Restart => "restart",
        Verb::Pause => "pause",
        Verb::Resume => "resume",
        Verb::Suspend => "suspend",
        Verb::Delete => "delete",
        Verb::Work => "work",
    }
}

/// What an operation of that verb waits for.
pub(crate) fn goal(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "the machine to be created",
        Verb::Start | Verb::Restart | Verb::Resume => "the machine to run",
        Verb::Stop | Verb::Kill => "the machine to be off",
        Verb::Pause => "the machine to be paused",
        Verb::Suspend => "the machine to be suspended",
        Verb::Delete => "the machine to be gone",
        Verb::Work => "the work to be done",
    }
}

/// The error that a refusal becomes.
pub(crate) fn refusal(name: &str, now: State, request: Request, code: Code) -> Error {
    let asked = match request {
        Request::Delete | Request::DeleteForce => "deleted",
        Request::Start => "started",
        Request::Stop => "stopped",
        Request::Kill => "killed",
        Request::Restart => "restarted",
        Request::Pause => "paused",
        Request::Resume => "resumed",
        Request::Suspend => "suspended",
        Request::Forget => "forgotten",
        Request::Work => "worked on",
        Request::Cancel => return Error::new(code, format!("nothing is being done to {name}")),
    };
    let error = Error::new(code, format!("{name} cannot be {asked} now: it {}", state(now)));
    match code {
        Code::MachineState if request == Request::Forget => {
            error.hint("it is there and would come back at once; delete it, or remove its connection: vmoon connection rm NAME")
        }
        Code::MachineBusy => error.hint(format!("wait for it: vmoon wait {name}; or see what is being done: vmoon operation list")),
        Code::MachineRunning => error.hint(format!("stop it first: vmoon stop {name}; or delete it as it is: vmoon rm --force {name}")),
        Code::MachineStopped => error.hint(format!("start it: vmoon start {name}")),
        Code::MachinePaused | Code::MachineSuspended => error.hint(format!("resume it: vmoon resume {name}")),
        Code::MachineBroken => error.hint(format!("delete our record of it: vmoon rm {name}")),
        Code::DriverUnreachable => error.hint("it is looked at again and again; nothing is lost meanwhile"),
        _ => error,
    }
}

/// What the effects of a request do, for `--dry-run`.
pub(crate) fn steps(name: &str, effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .filter_map(|effect| {
            Some(match effect {
                Effect::End(_) => format!("the operation that holds {name} ends as cancelled"),
                Effect::Call(Call::Start) => format!("{name} is started"),
                Effect::Call(Call::Stop) => format!("{name} is asked to stop; it is not killed if it does not"),
                Effect::Call(Call::Kill) => format!("{name} is ended by force; what it holds in memory is lost"),
                Effect::Call(Call::Pause) => format!("{name} is paused"),
                Effect::Call(Call::Unpause | Call::Resume) => format!("{name} goes on"),
                Effect::Call(Call::Suspend) => format!("{name} is suspended to storage"),
                Effect::Call(Call::Delete) => format!("{name} is deleted, with everything made for it and its transcripts"),
                Effect::EndSessions => format!("the sessions of {name} end"),
                _ => return None,
            })
        })
        .collect()
}
