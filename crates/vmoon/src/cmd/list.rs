//! `vmoon list`: machines, one a row.

use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{
        table::{Cell, Column, View},
        time,
    },
    select::{all_braces, unclosed},
};
use vmoon_api::{Api as _, requests::Empty, views::MachineView};
use vmoon_core::{
    Result,
    target::{glob, is_broken},
};

const EXAMPLES: &str = "Examples:
  vmoon list
  vmoon list 'web*' --filter state=running,label.team=a
  vmoon list -o json
  vmoon list --columns name,state --sort -since --no-header";

/// Which machines, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only machines whose name matches one of these globs
    #[arg(value_name = "GLOB", add = super::completions::machines())]
    names: Vec<String>,
    #[command(flatten)]
    view: View,
}

/// The columns of a list of machines.
pub(crate) const COLUMNS: &[Column<MachineView>] = &[
    Column { name: "name", wide: false, get: |m| Cell::text(&m.name) },
    Column { name: "state", wide: false, get: |m| Cell::text(word(&m.state)) },
    Column { name: "kind", wide: false, get: |m| Cell::text(&m.kind) },
    Column { name: "connection", wide: false, get: |m| Cell::text(&m.connection) },
    Column { name: "doing", wide: false, get: |m| m.doing.as_ref().map_or(Cell::Empty, |verb| Cell::text(word(verb))) },
    Column { name: "since", wide: false, get: |m| Cell::Number(m.since_ms, Some(time::utc(m.since_ms))) },
    Column { name: "created", wide: true, get: |m| Cell::Number(m.created_ms, Some(time::utc(m.created_ms))) },
    Column { name: "exit", wide: true, get: |m| m.exit.as_ref().map_or(Cell::Empty, |exit| Cell::text(super::show::exit(exit))) },
    Column { name: "labels", wide: true, get: labels },
    Column { name: "error", wide: true, get: |m| m.last_error.as_ref().map_or(Cell::Empty, |e| Cell::text(e.code)) },
    Column { name: "id", wide: true, get: |m| Cell::text(m.id) },
];

fn labels(machine: &MachineView) -> Cell {
    let Some(spec) = machine.spec.as_ref().filter(|spec| !spec.labels.is_empty()) else { return Cell::Empty };
    Cell::text(spec.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","))
}

/// The word that JSON uses for a value of an enumeration.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::from("?"),
    }
}

/// Lists them.
pub(crate) async fn run(ctx: &Ctx, mut args: Args) -> Result<Exit> {
    args.names = all_braces(&args.names)?;
    let labels = args.view.take_filters("label.")?;
    let mut machines = ctx.daemon.ask(async |client| client.list_machines(Empty {}).await).await?;
    let broken = |name: &&String| is_broken(name) && !machines.iter().any(|machine| glob(name, &machine.name));
    if let Some(name) = args.names.iter().find(broken) {
        return Err(unclosed(name));
    }
    machines.retain(|machine| {
        let label = |name: &str| machine.spec.as_ref().and_then(|spec| spec.labels.get(name).cloned());
        let named = args.names.is_empty() || args.names.iter().any(|name| glob(name, &machine.name));
        named && labels.iter().all(|(name, value)| label(name).is_some_and(|have| glob(value, &have)))
    });
    ctx.out.list(machines, COLUMNS, &args.view)?;
    Ok(Exit::OK)
}
