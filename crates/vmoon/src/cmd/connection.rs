//! `vmoon connection`: where machines live.

use super::list::word;
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::table::{Cell, Column, View},
};
use vmoon_api::{Api as _, requests::Empty, views::ConnectionView};
use vmoon_core::Result;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon connection list
  vmoon connection list -o json        with the settings that a machine may have there")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List connections
    #[command(visible_alias = "ls", after_help = "Examples:\n  vmoon connection list\n  vmoon conn list --filter state=up")]
    List {
        #[command(flatten)]
        view: View,
    },
}

const COLUMNS: &[Column<ConnectionView>] = &[
    Column { name: "name", wide: false, get: |c| Cell::text(&c.name) },
    Column { name: "kind", wide: false, get: |c| Cell::text(&c.kind) },
    Column { name: "state", wide: false, get: |c| Cell::text(word(&c.state)) },
    Column { name: "uri", wide: false, get: |c| if c.uri.is_empty() { Cell::Empty } else { Cell::text(&c.uri) } },
    Column { name: "settings", wide: true, get: |c| Cell::text(c.settings.keys().cloned().collect::<Vec<_>>().join(",")) },
    Column { name: "id", wide: true, get: |c| Cell::text(c.id) },
];

/// Runs the verb.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let Verb::List { view } = args.verb;
    let connections = ctx.daemon.ask(async |client| client.list_connections(Empty {}).await).await?;
    ctx.out.list(connections, COLUMNS, &view)?;
    Ok(Exit::OK)
}
