//! `vmoon help-markdown`: prints the reference page of the command line.

use crate::{ctx::Ctx, exit::Exit, help};
use vmoon_core::Result;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Prints it.
pub(crate) fn run(ctx: &Ctx, _args: Args) -> Result<Exit> {
    ctx.out.bytes(help::markdown().as_bytes())?;
    Ok(Exit::OK)
}
