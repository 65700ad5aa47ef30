//! `vmoon wait`: until a machine is in a state, an operation has ended, or a command is answered.

use super::{eval, lifecycle, list::word};
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{Format, progress::Progress, time},
    select::{Picked, Selection, Targets},
    wait::{self, Interrupts, Left, Limit},
};
use std::time::Duration;
use tokio::time::Instant;
use vmoon_api::{
    Api as _,
    requests::{CommandRef, MachineRef, OperationRef, Ready, WaitMachine},
    views::{CommandState, CommandView, MachineView, ReadyView},
};
use vmoon_core::{Code, CommandId, Error, OperationId, Result, machine::State, name::escape};

const EXAMPLES: &str = "Examples:
  vmoon wait lab --until stopped
  vmoon wait lab --until gone --timeout 30s
  vmoon wait web01 --until ssh --timeout 5m
  vmoon wait 0198f0c2-0000-7000-8000-000000000001.7      a command id, as eval --no-wait prints it
  vmoon wait lab                                         until nothing is being done to it

Waiting for a command ends with the exit code that eval would have ended with.";

/// For what, and how long.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A machine (globs and braces mean many), the id of an operation, or the id of a command
    #[arg(value_name = "WHAT", add = super::completions::machines())]
    what: String,
    /// Wait until the machine is in this state, or has an address (ip), greets by SSH (ssh), or has a session (session)
    #[arg(long, value_name = "STATE", value_parser = goal)]
    until: Option<Goal>,
    #[command(flatten)]
    limit: Limit,
}

/// What a machine is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    State(State),
    Ready(Ready),
}

fn goal(text: &str) -> Result<Goal, String> {
    ready(text).map(Goal::Ready).or_else(|_| state(text).map(Goal::State))
}

/// What a machine is waited for to have.
pub(super) fn ready(text: &str) -> Result<Ready, String> {
    serde_json::from_value(serde_json::Value::from(text.to_ascii_lowercase())).map_err(|_| "write ip, ssh or session".to_owned())
}

fn state(text: &str) -> Result<State, String> {
    serde_json::from_value(serde_json::Value::from(text.to_ascii_lowercase())).map_err(|_| {
        "the states are creating, stopped, starting, running, paused, suspending, suspended, resuming, stopping, killing, broken, lost, deleting and gone; and there are ip, ssh and session"
            .to_owned()
    })
}

/// Waits.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let until = args.limit.until(wait::DEFAULT)?;
    if let Ok(id) = args.what.parse::<CommandId>() {
        return command(ctx, id, until).await;
    }
    if let Ok(id) = args.what.parse::<OperationId>() {
        let request = OperationRef { operation: id.to_string() };
        match ctx.daemon.ask(async |client| client.show_operation(request.clone()).await).await {
            Err(error) if error.code() == Code::OperationNotFound => {}
            Err(error) => return Err(error),
            Ok(view) => return super::operation::wait(ctx, &view, until).await,
        }
    }
    let selection = Targets { machines: vec![args.what.clone()], all: false }.find(&ctx.daemon).await?;
    let goal = match args.until {
        Some(Goal::Ready(goal)) => return until_ready(ctx, selection, goal, until).await,
        Some(Goal::State(state)) => Some(state),
        None => None,
    };
    let work = |picked: Picked| async move { machine(ctx, &picked.machine, goal, until).await };
    let tell = |ctx: &Ctx, Reached(view): &Reached| {
        let Some(view) = view else {
            ctx.out.note("it is gone");
            return Ok(());
        };
        if ctx.out.format() != Format::Table || !ctx.out.is_quiet() {
            ctx.out.one(view, &view.name, &[("name".into(), view.name.clone()), ("state".into(), word(&view.state))])?;
        }
        Ok(())
    };
    lifecycle::bulk(ctx, selection.machines, selection.single, work, tell, "waiting for").await
}

/// Waits until machines have what is wanted, and tells the address of each.
async fn until_ready(ctx: &Ctx, selection: Selection, goal: Ready, until: Option<Instant>) -> Result<Exit> {
    let work = |picked: Picked| async move { super::ready::wait(ctx, &picked.machine, &picked.name, goal, until).await.map(Has) };
    let tell = |ctx: &Ctx, Has(view): &Has| match &view.address {
        Some(address) => ctx.out.line(&escape(&address.ip)),
        None => ctx.out.changed("it has a session"),
    };
    lifecycle::bulk(ctx, selection.machines, selection.single, work, tell, "waiting for").await
}

/// A machine that has what was waited for.
struct Has(ReadyView);

impl lifecycle::Value for Has {
    fn value(&self) -> serde_json::Value {
        serde_json::to_value(&self.0).unwrap_or_default()
    }
}

/// A machine that was waited for; `None` if it was gone before.
struct Reached(Option<MachineView>);

impl lifecycle::Value for Reached {
    fn value(&self) -> serde_json::Value {
        self.0.as_ref().and_then(|view| serde_json::to_value(view).ok()).unwrap_or_default()
    }
}

async fn machine(ctx: &Ctx, name: &str, goal: Option<State>, until: Option<Instant>) -> Result<Reached> {
    let shown = escape(name);
    let what = goal.map_or_else(|| format!("waiting for {shown}"), |goal| format!("waiting until {shown} is {}", word(&goal)));
    let mut interrupts = Interrupts::listen()?;
    let mut progress = Progress::new(&ctx.out, what.clone());
    let work = async {
        let first = MachineRef { machine: name.to_owned() };
        let mut seen = match ctx.daemon.ask(async |client| client.show_machine(first.clone()).await).await {
            Ok(view) => view,
            Err(error) if goal == Some(State::Gone) && is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        // From here on by id: the name may pass to another machine.
        let machine = seen.id.to_string();
        loop {
            if goal.map_or(seen.operation.is_none(), |goal| seen.state == goal) {
                return Ok(Some(seen));
            }
            let timeout_ms = Some(progress.interval().as_millis() as u64);
            let request = WaitMachine { machine: machine.clone(), until: goal, generation: Some(seen.generation), timeout_ms };
            match ctx.daemon.hold(async |client| client.wait_machine(request.clone()).await).await {
                Ok(view) => seen = view,
                Err(error) if goal == Some(State::Gone) && is_gone(&error) => return Ok(Some(MachineView { state: State::Gone, ..seen })),
                Err(error) => return Err(error),
            }
            progress.tell(&format!("it is {}", word(&seen.state)), None);
        }
    };
    let ended = interrupts.guard(ctx, until, "stopped waiting", work).await;
    progress.finish();
    match ended? {
        Ok(seen) => Ok(Reached(seen)),
        Err(Left::Late) => Err(Error::new(Code::Timeout, format!("{what}: the time to wait is over")).hint(format!("vmoon show {shown}"))),
        Err(_) => Err(wait::detached(&what)),
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error.code(), Code::MachineGone | Code::MachineNotFound)
}

/// Waits until a command is answered and ends as `eval` would have ended.
async fn command(ctx: &Ctx, id: CommandId, until: Option<Instant>) -> Result<Exit> {
    let what = format!("waiting for the command {id}");
    let mut interrupts = Interrupts::listen()?;
    let mut progress = Progress::new(&ctx.out, what.clone());
    let work = async {
        loop {
            let request = CommandRef { command: id.to_string(), wait_ms: Some(progress.interval().as_millis() as u64) };
            let view = ctx.daemon.hold(async |client| client.show_command(request.clone()).await).await;
            let view = view.map_err(|error| super::no_such_command(error, &id))?;
            if view.state != CommandState::Running {
                return Ok(view);
            }
            progress.tell(if view.waiting_input { "it waits for input" } else { "" }, None);
        }
    };
    let ended = interrupts.guard(ctx, until, "stopped waiting; the command goes on", work).await?;
    progress.finish();
    let view = match ended {
        Ok(view) => view,
        Err(Left::Late) => {
            return Err(Error::new(Code::Timeout, format!("{what}: the time to wait is over")).hint(format!("vmoon read --command {id}")));
        }
        Err(_) => return Err(wait::detached(&what)),
    };
    if ctx.out.format().is_machine() {
        ctx.out.one(&view, &id.to_string(), &[])?;
    } else {
        ctx.out.changed(&told(&view))?;
    }
    eval::ended(ctx, &view)
}

fn told(view: &CommandView) -> String {
    let took = view.duration_us.map(|us| format!(" ({})", time::took(Duration::from_micros(us)))).unwrap_or_default();
    match (view.state, &view.error) {
        (CommandState::Lost, _) => format!("{} was lost", view.id),
        (_, Some(error)) => format!("{} ended with {}{took}", view.id, error.code),
        _ => format!("{} is done{took}", view.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_the_words_of_the_api() {
        assert_eq!(goal("ip"), Ok(Goal::Ready(Ready::Ip)));
        assert_eq!(goal("lost"), Ok(Goal::State(State::Lost)));
        assert_eq!(state("running"), Ok(State::Running));
        assert_eq!(state("Gone"), Ok(State::Gone));
        assert!(state("off").unwrap_err().contains("stopped"));
    }
}
