//! `vmoon set`, `rename`, `autostart`: changes of machines that exist.

use super::{
    create::setting,
    work::{self, WorkArgs},
};
use crate::{ctx::Ctx, exit::Exit};
use serde_json::{Map, Value};
use vmoon_api::{
    Api as _,
    requests::{RenameMachine, TuneMachine},
};
use vmoon_core::{Code, Error, Result, ability::Effect, name::escape};

/// Arguments of `set`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon set web01 memory=4G cpus=2
  vmoon set web01 memory=8G --dry-run")]
pub(crate) struct SetArgs {
    /// The machine
    #[arg(value_name = "MACHINE", add = super::completions::machines())]
    machine: String,
    /// Settings, as `vmoon create --set` takes them
    #[arg(value_name = "KEY=VALUE", required = true, value_parser = super::create::pair)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    work: WorkArgs,
}

/// Arguments of `rename`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon rename web01 web-old
  vmoon rename kvm:web01 web-old --dry-run")]
pub(crate) struct RenameArgs {
    /// The machine
    #[arg(value_name = "MACHINE", add = super::completions::machines())]
    machine: String,
    /// Its new name
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    work: WorkArgs,
}

/// Arguments of `autostart`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon autostart web01 on
  vmoon autostart web01 off")]
pub(crate) struct AutostartArgs {
    /// The machine
    #[arg(value_name = "MACHINE", add = super::completions::machines())]
    machine: String,
    /// Whether it starts with its host
    #[arg(value_name = "on|off", value_parser = ["on", "off"])]
    how: String,
    #[command(flatten)]
    work: WorkArgs,
}

/// Changes settings.
pub(crate) async fn set(ctx: &Ctx, args: SetArgs) -> Result<Exit> {
    let mut settings = Map::new();
    for (name, value) in &args.settings {
        if settings.insert(name.clone(), setting(value)).is_some() {
            return Err(Error::new(Code::Usage, format!("{} stands there twice", escape(name))));
        }
    }
    tune(ctx, args.machine, settings, &args.work).await
}

/// Gives it another name.
pub(crate) async fn rename(ctx: &Ctx, args: RenameArgs) -> Result<Exit> {
    let request = RenameMachine {
        machine: args.machine,
        name: args.name.clone(),
        dry_run: args.work.dry_run,
        deadline_ms: args.work.wait.deadline_ms()?,
    };
    let view = ctx.daemon.ask_once(async |client| client.rename_machine(request.clone()).await).await?;
    work::done(ctx, &args.work, view, "the new name", &format!("is called {} now", escape(&args.name))).await
}

/// Says whether it starts with its host.
pub(crate) async fn autostart(ctx: &Ctx, args: AutostartArgs) -> Result<Exit> {
    let settings = [("autostart".to_owned(), Value::Bool(args.how == "on"))].into_iter().collect();
    tune(ctx, args.machine, settings, &args.work).await
}

async fn tune(ctx: &Ctx, machine: String, settings: Map<String, Value>, work: &WorkArgs) -> Result<Exit> {
    let request = TuneMachine { machine, settings, dry_run: work.dry_run, deadline_ms: work.wait.deadline_ms()? };
    let view = ctx.daemon.ask_once(async |client| client.tune_machine(request.clone()).await).await?;
    let later = view.changes.iter().any(|change| change.effect == Effect::NextStart);
    let did = if view.steps.is_empty() {
        "nothing to change".to_owned()
    } else {
        view.steps.iter().map(|step| escape(step)).collect::<Vec<_>>().join(", ")
    };
    let name = escape(&view.machine.name);
    let exit = work::done(ctx, work, view, "changing settings", &did).await?;
    if later && !work.dry_run {
        ctx.out.hint(&format!("it takes effect with the next start: vmoon restart {name}"));
    }
    Ok(exit)
}
