//! `vmoon version`: of this program, and of the daemon if one runs.

use crate::{ctx::Ctx, exit::Exit};
use serde::Serialize;
use vmoon_core::{Result, name::escape};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon version
  vmoon version -o json")]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Versions {
    version: &'static str,
    min_protocol: u32,
    protocol: u32,
    daemon: Option<vmoon_api::views::Hello>,
}

/// Prints them. Starts no daemon.
pub(crate) async fn run(ctx: &Ctx, _args: Args) -> Result<Exit> {
    let daemon = match ctx.daemon.hello_if_running().await {
        Ok(hello) => hello,
        // Which version a daemon has that cannot be talked to is part of the error.
        Err(error) => {
            ctx.out.warn(&escape(&error.chain()));
            None
        }
    };
    let versions =
        Versions { version: env!("CARGO_PKG_VERSION"), min_protocol: vmoon_api::MIN_PROTOCOL, protocol: vmoon_api::PROTOCOL, daemon };
    let running = versions.daemon.as_ref().map_or_else(|| "not running".to_owned(), |hello| hello.version.clone());
    let rows = [
        ("vmoon".to_owned(), versions.version.to_owned()),
        ("api".to_owned(), format!("{} to {}", versions.min_protocol, versions.protocol)),
        ("daemon".to_owned(), running),
    ];
    ctx.out.one(&versions, versions.version, &rows)?;
    Ok(Exit::OK)
}
