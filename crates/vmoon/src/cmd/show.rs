//! `vmoon show`: machines, each with everything that is known about it.

use super::lifecycle;
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{Format, time},
    select::{Picked, Targets},
};
use vmoon_api::{
    Api as _,
    requests::MachineRef,
    views::{MachineView, SessionView},
};
use vmoon_core::{Result, driver, name::escape, target::Target};

const EXAMPLES: &str = "Examples:
  vmoon show lab
  vmoon show 'web*' -o json
  vmoon show local:lab -o yaml";

/// Which machine.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    targets: Targets,
}

/// How a run ended, in words.
pub(crate) fn exit(exit: &driver::Exit) -> String {
    match exit {
        driver::Exit::Code { code } => format!("exit code {code}"),
        driver::Exit::Signal { signal: libc::SIGXCPU } => "its processor time was used up".into(),
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
    let selection = args.targets.find(&ctx.daemon).await?;
    let look = |picked: Picked| async move {
        let request = MachineRef { machine: picked.machine };
        ctx.daemon.ask(async |client| client.show_machine(request.clone()).await).await.map(Shown)
    };
    if selection.single {
        let Some(picked) = selection.machines.into_iter().next() else { return Ok(Exit::OK) };
        let Shown(view) = look(picked).await?;
        ctx.out.one(&view, &view.name, &rows(&view))?;
        return Ok(Exit::OK);
    }
    let tell = |ctx: &Ctx, shown: &Shown| match ctx.out.format() {
        Format::Name => ctx.out.line(&escape(&shown.0.name)),
        _ => {
            ctx.out.one(&shown.0, &shown.0.name, &rows(&shown.0))?;
            ctx.out.line("")
        }
    };
    lifecycle::bulk(ctx, selection.machines, false, look, tell, "showing").await
}

/// A machine of several.
struct Shown(MachineView);

impl lifecycle::Value for Shown {
    fn value(&self) -> serde_json::Value {
        serde_json::to_value(&self.0).unwrap_or_default()
    }
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
    if let Some(why) = &view.expired {
        row("stopped", why.clone());
    }
    if let Some(seconds) = view.spec.as_ref().and_then(|spec| spec.idle_seconds) {
        row("expires", format!("when idle for {seconds} s"));
    }
    if let Some(error) = &view.last_error {
        row("error", format!("{} ({})", error.message, error.code));
    }
    if let Some(spec) = &view.spec {
        // What is known of the machine itself may have changed since it was asked for: its environment can.
        let known = |name: &String| view.facts.as_ref().is_some_and(|facts| facts.contains_key(name));
        for (name, value) in spec.settings.iter().filter(|(name, _)| !known(name)) {
            row(name, plain(value));
        }
        for (name, value) in &spec.labels {
            row(&format!("label {name}"), value.clone());
        }
    }
    for (name, value) in view.facts.iter().flatten() {
        row(name, plain(value));
    }
    if !view.abilities.names().is_empty() {
        row("can", view.abilities.names().join(", "));
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
    use serde_json::Value;
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
