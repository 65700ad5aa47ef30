//! `vmoon operation`: what is being done and what was done.

use super::list::word;
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{
        table::{Cell, Column, View},
        time,
    },
    wait::{self as waiting, Limit},
};
use std::time::Duration;
use tokio::time::Instant;
use vmoon_api::{
    Api as _,
    requests::{CommandRef, ListOperations, OperationRef},
    views::OperationView,
};
use vmoon_core::{CommandId, Result, name::escape, operation::Outcome};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon operation list
  vmoon op wait 0198f0c2
  vmoon op cancel 0198f0c2")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List operations, the newest first
    #[command(visible_alias = "ls", after_help = "Examples:\n  vmoon operation list\n  vmoon op list --running -o json")]
    List {
        /// Only those that run
        #[arg(long)]
        running: bool,
        #[command(flatten)]
        view: View,
    },
    /// Show one operation
    #[command(visible_alias = "info", after_help = "Examples:\n  vmoon operation show 0198f0c2\n  vmoon op show 0198f0c2 -o json")]
    Show {
        /// The operation's id, or a prefix of it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Wait for the end of an operation and fail if it failed
    #[command(visible_alias = "attach", after_help = "Examples:\n  vmoon operation wait 0198f0c2\n  vmoon op wait 0198f0c2 --timeout 30s")]
    Wait {
        /// The operation's id, or a prefix of it
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        limit: Limit,
    },
    /// Ask an operation to be cancelled, or interrupt a command; never kills
    #[command(
        after_help = "Examples:\n  vmoon operation cancel 0198f0c2\n  vmoon op cancel 0198f0c2-0000-7000-8000-000000000001.7      a command id"
    )]
    Cancel {
        /// The operation's id, a prefix of it, or the id of a command
        #[arg(value_name = "ID")]
        id: String,
    },
}

const COLUMNS: &[Column<OperationView>] = &[
    Column { name: "id", wide: false, get: |o| Cell::text(o.id) },
    Column { name: "verb", wide: false, get: |o| Cell::text(doing(o)) },
    Column { name: "machine", wide: false, get: |o| Cell::text(&o.name) },
    Column { name: "result", wide: false, get: |o| Cell::text(result(o)) },
    Column { name: "started", wide: false, get: |o| Cell::Number(o.started_ms, Some(time::utc(o.started_ms))) },
    Column { name: "took", wide: false, get: took },
    Column { name: "phase", wide: true, get: |o| Cell::text(&o.progress.phase) },
];

/// The verb, or what is done where it does not say that.
fn doing(operation: &OperationView) -> String {
    if operation.what.is_empty() { word(&operation.verb) } else { escape(&operation.what) }
}

fn result(operation: &OperationView) -> &'static str {
    match &operation.outcome {
        None => "running",
        Some(Outcome::Done) => "done",
        Some(Outcome::Failed { .. }) => "failed",
        Some(Outcome::Cancelled { .. }) => "cancelled",
    }
}

fn took(operation: &OperationView) -> Cell {
    let Some(ended) = operation.ended_ms else { return Cell::Empty };
    let ms = ended.saturating_sub(operation.started_ms);
    Cell::Number(ms, Some(time::took(Duration::from_millis(ms))))
}

fn rows(view: &OperationView) -> Vec<(String, String)> {
    let mut rows = vec![
        ("id".to_owned(), view.id.to_string()),
        ("verb".to_owned(), doing(view)),
        (if view.environment.is_some() { "environment" } else { "machine" }.to_owned(), view.name.clone()),
        ("result".to_owned(), result(view).to_owned()),
        ("started".to_owned(), time::utc(view.started_ms)),
        ("deadline".to_owned(), time::utc(view.deadline_ms)),
    ];
    rows.extend(view.ended_ms.map(|ended| ("ended".to_owned(), time::utc(ended))));
    if !view.progress.phase.is_empty() {
        rows.push(("phase".to_owned(), view.progress.phase.clone()));
    }
    if let Some(Outcome::Failed { error } | Outcome::Cancelled { error }) = &view.outcome {
        rows.push(("error".to_owned(), format!("{} ({})", error.message, error.code)));
    }
    rows
}

/// Waits for the end of an operation and tells it.
pub(crate) async fn wait(ctx: &Ctx, view: &OperationView, until: Option<Instant>) -> Result<Exit> {
    let what = format!("{} of {}", doing(view), escape(&view.name));
    let ended = waiting::operation(ctx, view.id, &what, until).await?;
    if ctx.out.format().is_machine() {
        ctx.out.one(&ended, &ended.id.to_string(), &rows(&ended))?;
    }
    ctx.out.changed(&format!("{what} is done"))?;
    Ok(Exit::OK)
}

/// Runs the verb.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    match args.verb {
        Verb::List { running, view } => {
            let request = ListOperations { running: running.then_some(true) };
            let operations = ctx.daemon.ask(async |client| client.list_operations(request.clone()).await).await?;
            ctx.out.list(operations, COLUMNS, &view)?;
            Ok(Exit::OK)
        }
        Verb::Show { id } => {
            let view = show(ctx, id).await?;
            ctx.out.one(&view, &view.id.to_string(), &rows(&view))?;
            Ok(Exit::OK)
        }
        Verb::Wait { id, limit } => {
            let until = limit.until(waiting::DEFAULT)?;
            let view = show(ctx, id).await?;
            wait(ctx, &view, until).await
        }
        Verb::Cancel { id } => cancel(ctx, id).await,
    }
}

async fn show(ctx: &Ctx, id: String) -> Result<OperationView> {
    let request = OperationRef { operation: id };
    ctx.daemon.ask(async |client| client.show_operation(request.clone()).await).await
}

async fn cancel(ctx: &Ctx, id: String) -> Result<Exit> {
    if let Ok(command) = id.parse::<CommandId>() {
        let request = CommandRef { command: command.to_string(), wait_ms: None };
        let view = ctx.daemon.ask(async |client| client.interrupt_command(request.clone()).await).await;
        let view = view.map_err(|error| super::no_such_command(error, &command))?;
        if ctx.out.format().is_machine() {
            ctx.out.one(&view, &id, &[])?;
        }
        ctx.out.changed(&format!("interrupted {command}"))?;
        return Ok(Exit::OK);
    }
    let request = OperationRef { operation: id };
    let view = ctx.daemon.ask(async |client| client.cancel_operation(request.clone()).await).await?;
    if ctx.out.format().is_machine() {
        ctx.out.one(&view, &view.id.to_string(), &rows(&view))?;
    }
    ctx.out.changed(&format!("asked to cancel {} of {}", doing(&view), escape(&view.name)))?;
    Ok(Exit::OK)
}
