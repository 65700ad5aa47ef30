//! `vmoon device`: disks, network cards and whatever else machines can be given and relieved of.

use super::{
    create::setting,
    list::word,
    work::{self, WorkArgs},
};
use crate::{
    ctx::Ctx,
    exit::Exit,
    out,
    out::table::{Cell, Column, View},
};
use serde_json::Map;
use vmoon_api::{
    Api as _,
    requests::{AddDevice, MachineRef, RemoveDevice},
    views::{DevicesView, WorkView},
};
use vmoon_core::{
    Code, Error, Result,
    ability::Effect,
    device::{Device, DeviceKind, Presence},
    name::escape,
};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon device list web01
  vmoon device add web01 disk size=20G
  vmoon device add web01 nic network=default
  vmoon device rm web01 vdb")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List a machine's devices, and what can be added
    #[command(visible_alias = "ls", after_help = "Examples:\n  vmoon device list web01\n  vmoon device ls web01 -o json")]
    List {
        /// The machine
        #[arg(value_name = "MACHINE", add = super::completions::machines())]
        machine: String,
        /// List the kinds that can be added, with their settings
        #[arg(long)]
        kinds: bool,
        #[command(flatten)]
        view: View,
    },
    /// Add a device: at once where the machine can, else with its next start
    #[command(after_help = "Examples:
  vmoon device add web01 disk size=20G
  vmoon device add web01 disk path=/images/data.qcow2 readonly=yes
  vmoon device add web01 nic network=default --dry-run")]
    Add {
        /// The machine
        #[arg(value_name = "MACHINE", add = super::completions::machines())]
        machine: String,
        /// The kind of device: vmoon device list MACHINE --kinds shows what there is
        #[arg(value_name = "KIND")]
        kind: String,
        /// What is said of it
        #[arg(value_name = "KEY=VALUE", value_parser = super::create::pair)]
        settings: Vec<(String, String)>,
        #[command(flatten)]
        work: WorkArgs,
    },
    /// Take a device away, and delete what vmoon has made for it
    #[command(
        visible_alias = "delete",
        after_help = "Examples:\n  vmoon device rm web01 vdb\n  vmoon device rm web01 vdb --keep-disks\n  vmoon device rm web01 vdb --yes=vdb"
    )]
    Rm {
        /// The machine
        #[arg(value_name = "MACHINE", add = super::completions::machines())]
        machine: String,
        /// The device's name
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Keep what it holds, also if vmoon has made it
        #[arg(long)]
        keep_disks: bool,
        /// The device's name again: do not ask; needed where there is no terminal to ask on and a disk will be deleted
        #[arg(short, long, value_name = "DEVICE", require_equals = true)]
        yes: Option<String>,
        #[command(flatten)]
        work: WorkArgs,
    },
}

const COLUMNS: &[Column<Device>] = &[
    Column { name: "name", wide: false, get: |d| Cell::text(&d.name) },
    Column { name: "kind", wide: false, get: |d| Cell::text(&d.kind) },
    Column { name: "what", wide: false, get: |d| Cell::text(&d.what) },
    Column { name: "when", wide: false, get: |d| Cell::text(word(&d.presence)) },
    Column { name: "made", wide: true, get: |d| Cell::text(if d.made { "yes" } else { "no" }) },
];

/// Runs the verb.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    match args.verb {
        Verb::List { machine, kinds, view } => list(ctx, machine, kinds, &view).await,
        Verb::Add { machine, kind, settings, work } => {
            let mut map = Map::new();
            for (name, value) in &settings {
                if map.insert(name.clone(), setting(value)).is_some() {
                    return Err(Error::new(Code::Usage, format!("{} stands there twice", escape(name))));
                }
            }
            let request = AddDevice { machine, kind, settings: map, dry_run: work.dry_run, deadline_ms: work.wait.deadline_ms()? };
            let view = ctx.daemon.ask_once(async |client| client.add_device(request.clone()).await).await?;
            done(ctx, &work, view, "adding a device").await
        }
        Verb::Rm { machine, device, keep_disks, yes, work } => {
            if !work.dry_run && !keep_disks && !sure(ctx, &machine, &device, yes.as_deref()).await? {
                return Ok(Exit(Code::Cancelled.exit()));
            }
            let request = RemoveDevice { machine, device, keep: keep_disks, dry_run: work.dry_run, deadline_ms: work.wait.deadline_ms()? };
            let view = ctx.daemon.ask_once(async |client| client.remove_device(request.clone()).await).await?;
            done(ctx, &work, view, "removing the device").await
        }
    }
}

async fn devices(ctx: &Ctx, machine: &str) -> Result<DevicesView> {
    let request = MachineRef { machine: machine.to_owned() };
    ctx.daemon.ask(async |client| client.list_devices(request.clone()).await).await
}

async fn list(ctx: &Ctx, machine: String, kinds: bool, view: &View) -> Result<Exit> {
    let found = devices(ctx, &machine).await?;
    if kinds {
        return offered(ctx, &found.kinds);
    }
    let pending = found.devices.iter().any(|device| device.presence != Presence::Kept);
    ctx.out.list(found.devices, COLUMNS, view)?;
    if pending {
        ctx.out.hint(&format!("what waits takes effect when {0} is stopped and started: vmoon restart {0}", escape(&machine)));
    }
    Ok(Exit::OK)
}

/// Tells what can be added.
fn offered(ctx: &Ctx, kinds: &[DeviceKind]) -> Result<Exit> {
    if ctx.out.format().is_machine() {
        let values: Vec<serde_json::Value> = kinds.iter().map(|kind| serde_json::to_value(kind).unwrap_or_default()).collect();
        ctx.out.values(&values)?;
        return Ok(Exit::OK);
    }
    for kind in kinds {
        ctx.out.line(&format!("{}: {}", escape(&kind.name), escape(&kind.help)))?;
        let width = kind.settings.iter().map(|setting| setting.name.chars().count()).max().unwrap_or(0);
        for setting in &kind.settings {
            ctx.out.line(&format!("  {:width$}  {}", escape(&setting.name), escape(&setting.help)))?;
        }
    }
    Ok(Exit::OK)
}

/// Whether somebody is sure, where something of which there may be no other copy will be deleted.
async fn sure(ctx: &Ctx, machine: &str, device: &str, yes: Option<&str>) -> Result<bool> {
    let found = devices(ctx, machine).await?.devices.into_iter().find(|known| known.name == device);
    // What is not there is refused by whoever has to remove it.
    let Some(found) = found.filter(|found| found.made) else { return Ok(true) };
    let shown = escape(device);
    if let Some(yes) = yes {
        let wrong =
            || Error::new(Code::Usage, format!("--yes={} is not the name of the device", escape(yes))).hint(format!("--yes={shown}"));
        return if yes == device { Ok(true) } else { Err(wrong()) };
    }
    let question = format!("{} will be deleted with all that is on it. Its name, if you are sure:", escape(&found.what));
    let said = out::ask(&question).ok_or_else(|| {
        Error::new(Code::Usage, "this deletes a disk, and there is no terminal to ask on")
            .hint(format!("--yes={shown} if you are sure, or --keep-disks"))
    })?;
    let sure = said.trim() == device;
    if !sure {
        ctx.out.note("nothing was changed");
    }
    Ok(sure)
}

async fn done(ctx: &Ctx, work: &WorkArgs, view: WorkView, doing: &str) -> Result<Exit> {
    let later = view.changes.iter().any(|change| change.effect == Effect::NextStart);
    let did = view.steps.iter().map(|step| escape(step)).collect::<Vec<_>>().join(", ");
    let name = escape(&view.machine.name);
    let exit = work::done(ctx, work, view, doing, &did).await?;
    if later && !work.dry_run {
        ctx.out.hint(&format!("it takes effect with the next start: vmoon restart {name}"));
    }
    Ok(exit)
}
