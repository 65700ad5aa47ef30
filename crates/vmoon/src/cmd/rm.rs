//! `vmoon rm`: deletes machines, after asking.

use super::lifecycle::{self, Asked, Done};
use crate::{
    ctx::Ctx,
    exit::Exit,
    out,
    select::{Picked, Targets},
    wait::{self, WaitArgs},
};
use vmoon_core::{Code, Error, Result, hosts::DiskFate, machine::Request, name::escape};

const EXAMPLES: &str = "Examples:
  vmoon rm lab
  vmoon rm 'test-*' --yes --force
  vmoon rm lab --yes --missing-ok
  vmoon rm lab:web01 --keep-disks               its disks stay, those that vmoon made too
  vmoon rm kvm:old-server --yes=old-server      one that vmoon has not made: its name has to be said
  vmoon rm lost-one --forget                    drops the record only, of one that cannot be reached";

/// Which machines, and how sure.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    wait: WaitArgs,
    /// Do not ask; needed where there is no terminal to ask on. Of a machine that vmoon has not made the name has to be said:
    /// --yes=NAME
    #[arg(short, long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    yes: Option<String>,
    /// Only drop our record of machines that are lost or broken; touches nothing real
    #[arg(long, conflicts_with = "force")]
    forget: bool,
    /// Delete what runs, too: it is ended first
    #[arg(short, long)]
    force: bool,
    /// Delete every disk that no other machine uses, also those that vmoon has not made
    #[arg(long, conflicts_with_all = ["keep_disks", "forget"])]
    with_disks: bool,
    /// Delete no disk
    #[arg(long, conflicts_with = "forget")]
    keep_disks: bool,
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
    let request = match (args.forget, args.force) {
        (true, _) => Request::Forget,
        (_, true) => Request::DeleteForce,
        _ => Request::Delete,
    };
    let until = args.wait.limit.until(wait::DEFAULT)?;
    let disks = match (args.with_disks, args.keep_disks) {
        (true, _) => Some(DiskFate::All),
        (_, true) => Some(DiskFate::Keep),
        _ => None,
    };
    let asked = Asked { request, deadline_ms: args.wait.deadline_ms()?, until, no_wait: args.wait.no_wait, strict: false, disks };
    if args.dry_run {
        let plan = |picked: Picked| async move { lifecycle::plan(ctx, &asked, picked).await };
        return lifecycle::bulk(ctx, selection.machines, selection.single, plan, lifecycle::show_plan, "planning").await;
    }
    if args.yes.is_none() && !selection.machines.is_empty() && !agreed(&selection.machines, args.forget)? {
        ctx.out.note("nothing was deleted");
        return Ok(Exit(Code::Cancelled.exit()));
    }
    let (missing_ok, single) = (args.missing_ok, selection.single);
    let said = args.yes.as_deref().filter(|name| !name.is_empty());
    let work = |picked: Picked| async move {
        match delete(ctx, &asked, picked, said, single).await {
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

/// Deletes one; if vmoon has not made it, only when its name is said, or typed.
async fn delete(ctx: &Ctx, asked: &Asked, picked: Picked, said: Option<&str>, single: bool) -> Result<Done> {
    let error = match lifecycle::ask_confirmed(ctx, asked, picked.clone(), said.map(str::to_owned)).await {
        Err(error) if single && said.is_none() && error.detail_value().is_some_and(|detail| detail["confirm"].is_string()) => error,
        other => return other,
    };
    let detail = error.detail_value().cloned().unwrap_or_default();
    let name = detail["confirm"].as_str().unwrap_or_default();
    let question = format!("{} was not made by vmoon. To delete it for good, type its name:", escape(name));
    match out::ask(&question) {
        None => Err(error),
        Some(typed) if typed == name => lifecycle::ask_confirmed(ctx, asked, picked, Some(typed)).await,
        Some(_) => Err(Error::new(Code::Cancelled, "that is not its name; nothing was deleted")),
    }
}

fn agreed(machines: &[Picked], forget: bool) -> Result<bool> {
    const SHOWN: usize = 5;
    let mut names: Vec<String> = machines.iter().take(SHOWN).map(|picked| escape(&picked.name)).collect();
    if machines.len() > SHOWN {
        names.push(format!("and {} more", machines.len() - SHOWN));
    }
    let question = match machines.len() {
        n if forget => format!("Forget {n} machines and their transcripts ({})?", names.join(", ")),
        1 => format!("Delete {} and its transcripts?", names[0]),
        n => format!("Delete {n} machines and their transcripts ({})?", names.join(", ")),
    };
    out::confirm(&question).ok_or_else(|| {
        Error::new(Code::Usage, "deleting needs a yes, and there is no terminal to ask on").hint("add --yes if you are sure")
    })
}
