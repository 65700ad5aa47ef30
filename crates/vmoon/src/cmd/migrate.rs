//! `vmoon migrate`: moves a running machine to another host, or says where it could run.

use super::work::{self, WorkArgs};
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::table::{Cell, Column, View},
};
use vmoon_api::{
    Api as _,
    requests::{MachineRef, MigrateMachine},
};
use vmoon_core::{Result, hosts::Place, name::escape};

/// Which machine, and where to.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon migrate web01                  where it could run, and why not elsewhere
  vmoon migrate web01 xcp2
  vmoon migrate lab:web01 xcp2 --dry-run")]
pub(crate) struct Args {
    /// The machine
    #[arg(value_name = "MACHINE", add = super::completions::machines())]
    machine: String,
    /// The host, by name or id; without one the hosts are listed
    #[arg(value_name = "HOST")]
    host: Option<String>,
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    view: View,
}

const COLUMNS: &[Column<Place>] = &[
    Column { name: "host", wide: false, get: |place| Cell::text(&place.name) },
    Column { name: "here", wide: false, get: |place| if place.here { Cell::text("yes") } else { Cell::Empty } },
    Column { name: "refusal", wide: false, get: |place| place.refusal.as_ref().map_or(Cell::Empty, Cell::text) },
    Column { name: "id", wide: true, get: |place| Cell::text(&place.id) },
];

/// Moves it.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let Some(host) = args.host else {
        let request = MachineRef { machine: args.machine };
        let places = ctx.daemon.ask(async |client| client.list_places(request.clone()).await).await?;
        ctx.out.list(places, COLUMNS, &args.view)?;
        return Ok(Exit::OK);
    };
    let request = MigrateMachine { machine: args.machine, host, dry_run: args.work.dry_run, deadline_ms: args.work.wait.deadline_ms()? };
    let view = ctx.daemon.ask_once(async |client| client.migrate_machine(request.clone()).await).await?;
    let did = view.steps.iter().map(|step| escape(step)).collect::<Vec<_>>().join(", ");
    work::done(ctx, &args.work, view, "moving", &did).await
}
