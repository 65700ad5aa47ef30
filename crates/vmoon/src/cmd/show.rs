//! `vmoon show`: one machine with everything that is known about it.

use crate::{ctx::Ctx, exit::Exit, out::time};
use vmoon_api::{
    Api as _,
    requests::MachineRef,
    views::{MachineView, SessionView},
};
use vmoon_core::{Result, driver, target::Target};

const EXAMPLES: &str = "Examples:
  vmoon show lab
  vmoon show lab -o json
  vmoon show local:lab -o yaml";

/// Which machine.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The machine: [CONNECTION:]NAME, an id or a prefix of one
    #[arg(value_name = "MACHINE", add = super::completions::machines())]
    machine: String,
}

/// How a run ended, in words.
pub(crate) fn exit(exit: &driver::Exit) -> String {
    match exit {
        driver::Exit::Code { code } => format!("exit code {code}"),
        driver::Exit::Signal { signal } => format!("signal {signal}"),
        driver::Exit::Killed => "killed".into(),
        driver::Exit::DidNotYield => "ignored an interrupt and was ended".into(),
        driver::Exit::Rebooted => "the computer was restarted".into(),
        driver::Exit::Lost => "ended, nothing tells how".into(),
    }
}

/// The name, the id or the prefix of a machine that may be written with a session.
pub(crate) fn machine(text: &str) -> Result<String> {
    Ok(crate::select::machine_of(&Target::parse(text)?))
}

/// Shows it.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let request = MachineRef { machine: machine(&args.machine)? };
    let view = ctx.daemon.ask(async |client| client.show_machine(request.clone()).await).await?;
    ctx.out.one(&view, &view.name, &rows(&view))?;
    Ok(Exit::OK)
}

fn rows(view: &MachineView) -> Vec<(String, String)> {
    let word = super::list::word;
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    row("name", view.name.clone());
    row("state", word(&view.state));
    row("kind", view.kind.clone());
    row("connection", view.connection.clone());
    row("id", view.id.to_string());
    row("created", time::utc(view.created_ms));
    row("since", time::utc(view.since_ms));
    if let (Some(operation), Some(doing)) = (view.operation, view.doing) {
        row("operation", format!("{} {operation}", super::list::word(&doing)));
    }
    if let Some(ended) = &view.exit {
        row("ended", exit(ended));
    }
    if let Some(error) = &view.last_error {
        row("error", format!("{} ({})", error.message, error.code));
    }
    if let Some(spec) = &view.spec {
        for (name, value) in &spec.settings {
            row(name, plain(value));
        }
        for (name, value) in &spec.labels {
            row(&format!("label {name}"), value.clone());
        }
    }
    for (name, value) in view.facts.iter().flatten() {
        row(name, plain(value));
    }
    for session in view.sessions.iter().flatten() {
        row("session", session_text(session));
    }
    rows
}

fn session_text(session: &SessionView) -> String {
    let mut text = format!("{} {}", session.name, super::session::state(session));
    if session.stalled.is_some() {
        text.push_str(", waits: its transcript cannot be written");
    }
    text.push_str(&format!(", {} written", time::bytes(session.written)));
    if session.viewers > 0 {
        text.push_str(&format!(", {} attached", session.viewers));
    }
    text
}

/// A JSON value as people write it.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
