//! What the verbs of work in place share: a plan instead of the work, and waiting for its end.

use crate::{
    ctx::Ctx,
    exit::Exit,
    out::time,
    wait::{self, WaitArgs},
};
use std::time::Duration;
use vmoon_api::{Api as _, requests::MachineRef, views::WorkView};
use vmoon_core::{Result, machine::Answer, name::escape};

/// Whether to do it, and how to wait for it.
#[derive(Debug, clap::Args)]
pub(crate) struct WorkArgs {
    /// Say what would be done and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Shows the plan, or waits for the end of the work and tells it.
///
/// # Errors
/// What the operation failed with.
pub(crate) async fn done(ctx: &Ctx, args: &WorkArgs, mut view: WorkView, doing: &str, did: &str) -> Result<Exit> {
    let name = escape(&view.machine.name);
    let rows: Vec<(String, String)> = view.steps.iter().map(|step| ("step".to_owned(), step.clone())).collect();
    let Some(answer) = view.answer else {
        if ctx.out.format().is_machine() {
            ctx.out.one(&view, &view.machine.name, &rows)?;
        } else {
            let steps: String = view.steps.iter().map(|step| format!("\n  {}", escape(step))).collect();
            ctx.out.line(&format!("{name}:{steps}"))?;
        }
        return Ok(Exit::OK);
    };
    let mut took = String::new();
    if let Answer::Started { operation } | Answer::Joined { operation } = answer {
        if args.wait.no_wait {
            ctx.out.line(&operation.to_string())?;
            return Ok(Exit::OK);
        }
        let ended = wait::operation(ctx, operation, &format!("{doing} of {name}"), args.wait.limit.until(wait::DEFAULT)?).await?;
        let ms = ended.ended_ms.unwrap_or(ended.started_ms).saturating_sub(ended.started_ms);
        took = format!(" ({})", time::took(Duration::from_millis(ms)));
    }
    if ctx.out.format().is_machine() {
        let request = MachineRef { machine: view.machine.id.to_string() };
        view.machine = ctx.daemon.ask(async |client| client.show_machine(request.clone()).await).await?;
        ctx.out.one(&view, &view.machine.name, &rows)?;
    } else {
        ctx.out.changed(&format!("{name}: {did}{took}"))?;
    }
    Ok(Exit::OK)
}
