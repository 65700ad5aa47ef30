//! `vmoon interrupt`: stops what runs in a session and keeps its state.

use super::lifecycle::{self, Told};
use crate::{
    ctx::Ctx,
    exit::Exit,
    select::{self, Picked},
};
use vmoon_api::{
    Api as _,
    requests::{CommandRef, Interrupt},
};
use vmoon_core::{CommandId, Result, name::escape};

const EXAMPLES: &str = "Examples:
  vmoon interrupt lab
  vmoon interrupt 'fold-*'
  vmoon interrupt 0198f0c2-0000-7000-8000-000000000001.7      only this command";

/// What to interrupt.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The session: [CONNECTION:]MACHINE[/SESSION], with globs and braces for many, or the id of a command
    #[arg(value_name = "SESSION", add = super::completions::machines())]
    session: String,
}

/// Interrupts it.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    if let Ok(id) = args.session.parse::<CommandId>() {
        let request = CommandRef { command: id.to_string(), wait_ms: None };
        let view = ctx.daemon.ask(async |client| client.interrupt_command(request.clone()).await).await;
        view.map_err(|error| super::no_such_command(error, &id))?;
    } else {
        let selection = select::sessions(&ctx.daemon, std::slice::from_ref(&args.session)).await?;
        let work = |picked: Picked| async move {
            let request = Interrupt { session: picked.machine.clone(), command: None };
            ctx.daemon.ask(async |client| client.interrupt(request.clone()).await).await?;
            Ok(Told(format!("interrupted {}", escape(&picked.name))))
        };
        return lifecycle::bulk(ctx, selection.machines, selection.single, work, Told::tell, "interrupting").await;
    }
    ctx.out.changed(&format!("interrupted {}", escape(&args.session)))?;
    Ok(Exit::OK)
}
