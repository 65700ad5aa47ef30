//! `vmoon pkg server`: where packages come from.

use super::Of;
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::table::{Cell, Column, View},
};
use vmoon_api::{
    Api as _,
    requests::{ChangeServers, ListServers},
};
use vmoon_core::{
    Result,
    name::escape,
    package::{ServerChange, ServerInfo},
};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without --env the list is that of every environment that has none of its own.

Examples:
  vmoon pkg server list
  vmoon pkg server add ours https://rocks.example.org --first
  vmoon pkg server add mirror file:///srv/rocks --env work")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List servers in the order they are asked
    #[command(visible_alias = "ls", after_help = "Examples:\n  vmoon pkg server list\n  vmoon pkg server list --env work -o json")]
    List {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        view: View,
    },
    /// Add a server
    #[command(
        after_help = "Examples:\n  vmoon pkg server add ours https://rocks.example.org\n  vmoon pkg server add mirror file:///srv/rocks --first"
    )]
    Add {
        /// What to call it
        #[arg(value_name = "NAME")]
        name: String,
        /// Where it is: https://…, file:///…, or http:// on this computer
        #[arg(value_name = "ADDRESS")]
        url: String,
        /// Ask it before all others
        #[arg(long)]
        first: bool,
        /// Allow http:// to another computer, which anybody between can change
        #[arg(long)]
        insecure: bool,
        #[command(flatten)]
        of: Of,
    },
    /// Take a server away
    #[command(visible_alias = "remove", after_help = "Examples:\n  vmoon pkg server rm ours\n  vmoon pkg server rm luarocks --env work")]
    Rm {
        /// Its name
        #[arg(value_name = "NAME", add = crate::cmd::completions::servers())]
        name: String,
        #[command(flatten)]
        of: Of,
    },
    /// Ask these servers first, in this order
    #[command(after_help = "Examples:\n  vmoon pkg server order ours luarocks\n  vmoon pkg server order builtin --env work")]
    Order {
        /// Their names
        #[arg(value_name = "NAME", required = true, add = crate::cmd::completions::servers())]
        names: Vec<String>,
        #[command(flatten)]
        of: Of,
    },
    /// Go back to the list that is there from the beginning, or for an environment to that of all
    #[command(after_help = "Examples:\n  vmoon pkg server reset\n  vmoon pkg server reset --env work")]
    Reset {
        #[command(flatten)]
        of: Of,
    },
}

const COLUMNS: &[Column<ServerInfo>] = &[
    Column { name: "name", wide: false, get: |s| Cell::text(&s.name) },
    Column { name: "url", wide: false, get: |s| Cell::text(&s.url) },
    Column { name: "insecure", wide: true, get: |s| Cell::text(if s.insecure { "yes" } else { "no" }) },
];

/// Runs the verb.
pub(super) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let (of, change, said) = match args.verb {
        Verb::List { of, view } => {
            let request = ListServers { environment: of.named() };
            let servers = ctx.daemon.ask(async |client| client.list_servers(request.clone()).await).await?;
            ctx.out.list(servers, COLUMNS, &view)?;
            return Ok(Exit::OK);
        }
        Verb::Add { name, url, first, insecure, of } => {
            let said = format!("added {}", escape(&name));
            (of, ServerChange::Add { server: ServerInfo { name, url, insecure }, at: first.then_some(0) }, said)
        }
        Verb::Rm { name, of } => {
            let said = format!("removed {}", escape(&name));
            (of, ServerChange::Remove { name }, said)
        }
        Verb::Order { names, of } => (of, ServerChange::Order { names }, "ordered".to_owned()),
        Verb::Reset { of } => (of, ServerChange::Reset, "reset".to_owned()),
    };
    let request = ChangeServers { environment: of.named(), change };
    let servers = ctx.daemon.ask(async |client| client.change_servers(request.clone()).await).await?;
    let names: Vec<String> = servers.iter().map(|server| escape(&server.name)).collect();
    if ctx.out.format().is_machine() {
        ctx.out.list(servers, COLUMNS, &View::default())?;
    }
    ctx.out.changed(&format!("{said}; asked in this order: {}", names.join(", ")))?;
    Ok(Exit::OK)
}
