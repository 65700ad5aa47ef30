//! `vmoon reset`: the reset button.

use super::{
    lifecycle::{self, Told},
    work::WorkArgs,
};
use crate::{
    ctx::Ctx,
    exit::Exit,
    select::{Picked, Targets},
    wait,
};
use vmoon_api::{Api as _, requests::ResetMachine};
use vmoon_core::{Result, machine::Answer, name::escape};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon reset web01                    its guest is not asked; what it has not written is lost
  vmoon reset 'test-*' --dry-run")]
pub(crate) struct Args {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    work: WorkArgs,
}

/// Presses it.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let selection = args.targets.find(&ctx.daemon).await?;
    let deadline_ms = args.work.wait.deadline_ms()?;
    let until = args.work.wait.limit.until(wait::DEFAULT)?;
    let (dry_run, no_wait) = (args.work.dry_run, args.work.wait.no_wait);
    let work = |picked: Picked| async move {
        let request = ResetMachine { machine: picked.machine, dry_run, deadline_ms };
        let view = ctx.daemon.ask_once(async |client| client.reset_machine(request.clone()).await).await?;
        let name = escape(&view.machine.name);
        match view.answer {
            Some(Answer::Started { operation } | Answer::Joined { operation }) if no_wait => Ok(Told(operation.to_string())),
            Some(Answer::Started { operation } | Answer::Joined { operation }) => {
                wait::operation(ctx, operation, &format!("resetting {name}"), until).await?;
                Ok(Told(format!("reset {name}")))
            }
            _ => Ok(Told(view.steps.join(", "))),
        }
    };
    lifecycle::bulk(ctx, selection.machines, selection.single, work, Told::tell, "resetting").await
}
