//! `vmoon attach`: work in a session that stays, or watch one.

use crate::{ctx::Ctx, exit::Exit, repl};
use vmoon_api::{
    Api as _,
    requests::{Mode, SessionRef},
};
use vmoon_core::{Result, target::Target};

const EXAMPLES: &str = "Keys:
  Tab completes from the running machine, Ctrl-C interrupts, Ctrl-] d or Ctrl-D detaches, Alt-Enter begins a new line

Examples:
  vmoon attach lab
  vmoon attach lab --read-only --replay
  vmoon attach web01/serial                        a console: every key goes there; Ctrl-] d detaches
  vmoon attach lab/main < script.lua";

/// Which session, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The session: [CONNECTION:]NAME[/SESSION]
    #[arg(value_name = "NAME", add = super::completions::machines())]
    session: String,
    /// Watch only; any number of people can
    #[arg(short, long, visible_alias = "watch")]
    read_only: bool,
    /// Take it over from whoever writes there; they are detached
    #[arg(long, conflicts_with = "read_only")]
    take: bool,
    /// Show first what was said since this offset of the session's stream
    #[arg(long, value_name = "OFFSET", conflicts_with = "replay")]
    from: Option<u64>,
    /// Show first everything that is kept
    #[arg(long)]
    replay: bool,
}

/// Attaches.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    Target::parse(&args.session)?;
    let request = SessionRef { session: args.session };
    let session = ctx.daemon.ask(async |client| client.open_session(request.clone()).await).await?;
    let from = if args.replay { Some(session.oldest) } else { args.from };
    let mode = match (args.read_only, args.take) {
        (true, _) => Mode::Viewer,
        (_, true) => Mode::Takeover,
        _ => Mode::Writer,
    };
    repl::attach(ctx, session, from, mode, true).await
}
