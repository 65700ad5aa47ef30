//! `vmoon rm`: deletes machines, after asking.

use super::lifecycle::{self, Asked, Done};
use crate::{
    ctx::Ctx,
    exit::Exit,
    out,
    select::{Picked, Targets},
    wait::{self, WaitArgs},
};
use vmoon_core::{Code, Error, Result, machine::Request, name::escape};

const EXAMPLES: &str = "Examples:
  vmoon rm lab
  vmoon rm 'test-*' --yes --force
  vmoon rm lab --yes --missing-ok";

/// Which machines, and how sure.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    wait: WaitArgs,
    /// Do not ask; needed where there is no terminal to ask on
    #[arg(short, long)]
    yes: bool,
    /// Delete what runs, too: it is ended first
    #[arg(short, long)]
    force: bool,
    /// A machine that does not exist is deleted already
    #[arg(long)]
    missing_ok: bool,
    /// Say what would be done and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Deletes them.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let selection = match args.targets.find(&ctx.daemon).await {
        Err(error) if args.missing_ok && error.code() == Code::MachineNotFound => return Ok(Exit::OK),
        other => other?,
    };
    let request = if args.force { Request::DeleteForce } else { Request::Delete };
    let until = args.wait.limit.until(wait::DEFAULT)?;
    let asked = Asked { request, deadline_ms: args.wait.deadline_ms()?, until, no_wait: args.wait.no_wait, strict: false };
    if args.dry_run {
        let plan = |picked: Picked| async move { lifecycle::plan(ctx, &asked, picked).await };
        return lifecycle::bulk(ctx, selection.machines, selection.single, plan, lifecycle::show_plan, "planning").await;
    }
    if !args.yes && !selection.machines.is_empty() && !agreed(&selection.machines)? {
        ctx.out.note("nothing was deleted");
        return Ok(Exit(Code::Cancelled.exit()));
    }
    let missing_ok = args.missing_ok;
    let work = |picked: Picked| async move {
        match lifecycle::ask(ctx, &asked, picked).await {
            Err(error) if missing_ok && matches!(error.code(), Code::MachineNotFound | Code::MachineGone) => Ok(None),
            done => done.map(Some),
        }
    };
    let tell = |ctx: &Ctx, done: &Option<Done>| match done {
        Some(done) => lifecycle::report(ctx, done),
        None => Ok(()),
    };
    lifecycle::bulk(ctx, selection.machines, selection.single, work, tell, "deleting").await
}

impl lifecycle::Value for Option<Done> {
    fn value(&self) -> serde_json::Value {
        self.as_ref().map(lifecycle::Value::value).unwrap_or_default()
    }
}

fn agreed(machines: &[Picked]) -> Result<bool> {
    const SHOWN: usize = 5;
    let mut names: Vec<String> = machines.iter().take(SHOWN).map(|picked| escape(&picked.name)).collect();
    if machines.len() > SHOWN {
        names.push(format!("and {} more", machines.len() - SHOWN));
    }
    let question = match machines.len() {
        1 => format!("Delete {} and its transcripts?", names[0]),
        n => format!("Delete {n} machines and their transcripts ({})?", names.join(", ")),
    };
    out::confirm(&question).ok_or_else(|| {
        Error::new(Code::Usage, "deleting needs a yes, and there is no terminal to ask on").hint("add --yes if you are sure")
    })
}
