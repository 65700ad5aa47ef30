//! `vmoon session`: the sessions of machines.

use super::{
    lifecycle::{self, Told},
    list::word,
};
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{
        table::{Cell, Column, View},
        time,
    },
    select::{self, Picked, braces, is_pattern},
};
use vmoon_api::{
    Api as _,
    requests::{ListSessions, SessionRef},
    views::SessionView,
};
use vmoon_core::{Result, name::escape, session::SessionState, target::glob};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon session list
  vmoon session show lab/main
  vmoon session detach lab")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List sessions
    #[command(
        visible_aliases = ["ls", "ps"],
        after_help = "Examples:\n  vmoon session list\n  vmoon session list lab --ended\n  vmoon session list -o json"
    )]
    List {
        /// Only of this machine
        #[arg(value_name = "MACHINE", add = super::completions::machines())]
        machine: Option<String>,
        /// Also sessions that have ended
        #[arg(long)]
        ended: bool,
        #[command(flatten)]
        view: View,
    },
    /// Show one session
    #[command(visible_alias = "info", after_help = "Examples:\n  vmoon session show lab\n  vmoon session show lab/main -o json")]
    Show {
        /// The session: its id, or [CONNECTION:]MACHINE[/SESSION]
        #[arg(value_name = "SESSION", add = super::completions::machines())]
        session: String,
    },
    /// Detach everybody from a session; it lives on
    #[command(after_help = "Examples:\n  vmoon session detach lab\n  vmoon session detach lab/main -q")]
    Detach {
        /// The session: its id, or [CONNECTION:]MACHINE[/SESSION]
        #[arg(value_name = "SESSION", add = super::completions::machines())]
        session: String,
    },
}

const COLUMNS: &[Column<SessionView>] = &[
    Column { name: "session", wide: false, get: |s| Cell::text(format!("{}/{}", s.machine_name, s.name)) },
    Column { name: "state", wide: false, get: |s| Cell::text(state(s)) },
    Column { name: "kind", wide: true, get: |s| Cell::text(word(&s.kind)) },
    Column { name: "command", wide: false, get: |s| s.busy.map_or(Cell::Empty, |n| Cell::Number(n, None)) },
    Column { name: "queued", wide: true, get: |s| Cell::Number(s.queued.into(), None) },
    Column { name: "written", wide: false, get: |s| Cell::Number(s.written, Some(time::bytes(s.written))) },
    Column { name: "attached", wide: false, get: |s| Cell::Number(s.viewers.into(), None) },
    Column { name: "opened", wide: false, get: |s| Cell::Number(s.opened_ms, Some(time::utc(s.opened_ms))) },
    Column { name: "id", wide: true, get: |s| Cell::text(s.id) },
];

/// The state in one or two words.
pub(crate) fn state(session: &SessionView) -> String {
    match &session.state {
        SessionState::Opening => "opening".into(),
        SessionState::Live if session.waiting_input => "waits for input".into(),
        SessionState::Live if session.busy.is_some() => "busy".into(),
        SessionState::Live if session.resting => "resting".into(),
        SessionState::Live => "live".into(),
        SessionState::Held => "held".into(),
        SessionState::Ended { .. } => "ended".into(),
    }
}

/// Runs the verb.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    match args.verb {
        Verb::List { machine, ended, view } => {
            let pattern = machine.clone().filter(|text| is_pattern(text));
            let machine = machine.filter(|text| !is_pattern(text)).as_deref().map(super::show::machine).transpose()?;
            let request = ListSessions { machine, ended: Some(ended) };
            let mut sessions = ctx.daemon.ask(async |client| client.list_sessions(request.clone()).await).await?;
            if let Some(pattern) = pattern {
                let patterns = braces(&pattern)?;
                sessions.retain(|session| patterns.iter().any(|pattern| glob(pattern, &session.machine_name)));
            }
            ctx.out.list(sessions, COLUMNS, &view)?;
        }
        Verb::Show { session } => {
            let request = SessionRef { session };
            let view = ctx.daemon.ask(async |client| client.show_session(request.clone()).await).await?;
            ctx.out.one(&view, &format!("{}/{}", view.machine_name, view.name), &rows(&view))?;
        }
        Verb::Detach { session } => {
            let selection = select::sessions(&ctx.daemon, std::slice::from_ref(&session)).await?;
            if !selection.single {
                let work = |picked: Picked| async move {
                    let request = SessionRef { session: picked.machine };
                    ctx.daemon.ask(async |client| client.detach_session(request.clone()).await).await?;
                    Ok(Told(format!("detached everybody from {}", escape(&picked.name))))
                };
                return lifecycle::bulk(ctx, selection.machines, false, work, Told::tell, "detaching").await;
            }
            let request = SessionRef { session };
            let view = ctx.daemon.ask(async |client| client.detach_session(request.clone()).await).await?;
            let name = format!("{}/{}", view.machine_name, view.name);
            if ctx.out.format().is_machine() {
                ctx.out.one(&view, &name, &rows(&view))?;
            }
            ctx.out.changed(&format!("detached everybody from {}", escape(&name)))?;
        }
    }
    Ok(Exit::OK)
}

fn rows(view: &SessionView) -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> = COLUMNS
        .iter()
        .map(|column| {
            let value = match (column.get)(view) {
                Cell::Text(text) | Cell::Number(_, Some(text)) => text,
                Cell::Number(n, None) => n.to_string(),
                Cell::Empty => "-".into(),
            };
            (column.name.to_owned(), value)
        })
        .collect();
    if let SessionState::Ended { exit } = &view.state {
        rows.push(("ended".into(), super::show::exit(exit)));
    }
    rows.push(("oldest".into(), view.oldest.to_string()));
    rows.push(("next".into(), view.written.to_string()));
    rows.push(("writer".into(), if view.writer { "yes" } else { "no" }.into()));
    if let Some(stalled) = &view.stalled {
        rows.push(("stalled".into(), stalled.message.clone()));
    }
    rows
}
