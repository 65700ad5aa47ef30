//! `vmoon ip`, and waiting until a machine has an address, greets by SSH, or has a session.

use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{
        progress::Progress,
        table::{Cell, Column, View},
    },
    wait::{self, Interrupts, Left},
};
use tokio::time::Instant;
use vmoon_api::{
    Api as _,
    requests::{MachineRef, Ready, WaitReady},
    views::ReadyView,
};
use vmoon_core::{Code, Error, Result, ability::Address, name::escape};

/// Arguments of `ip`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon ip web01
  vmoon ip web01 --all
  ssh root@\"$(vmoon ip web01)\"")]
pub(crate) struct Args {
    /// The machine
    #[arg(value_name = "MACHINE", add = super::completions::machines())]
    machine: String,
    /// Every address, with its interface and who tells it
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    view: View,
}

const COLUMNS: &[Column<Address>] = &[
    Column { name: "ip", wide: false, get: |a| Cell::text(&a.ip) },
    Column { name: "interface", wide: false, get: |a| if a.interface.is_empty() { Cell::Empty } else { Cell::text(&a.interface) } },
    Column { name: "mac", wide: false, get: |a| if a.mac.is_empty() { Cell::Empty } else { Cell::text(&a.mac) } },
    Column { name: "source", wide: false, get: |a| Cell::text(&a.source) },
];

/// Tells addresses.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let request = MachineRef { machine: args.machine.clone() };
    let addresses = ctx.daemon.hold(async |client| client.list_addresses(request.clone()).await).await?;
    if args.all || ctx.out.format().is_machine() {
        ctx.out.list(addresses, COLUMNS, &args.view)?;
        return Ok(Exit::OK);
    }
    let name = escape(&args.machine);
    let first = addresses.first().ok_or_else(|| {
        Error::new(Code::GuestNoAddress, format!("no address of {name} is known"))
            .hint(format!("it may not have one yet: vmoon wait {name} --until ip"))
    })?;
    ctx.out.line(&escape(&first.ip))?;
    Ok(Exit::OK)
}

/// What it is in words.
fn what(goal: Ready) -> &'static str {
    match goal {
        Ready::Ip => "has an address",
        Ready::Ssh => "greets by SSH",
        Ready::Session => "has a session",
    }
}

/// Waits until a machine has it.
///
/// # Errors
/// `timeout`, with what is missing; `machine.stopped` if it does not run.
pub(crate) async fn wait(ctx: &Ctx, machine: &str, name: &str, goal: Ready, until: Option<Instant>) -> Result<ReadyView> {
    wait_for(ctx, machine, name, goal, None, until).await
}

/// The same for the session of that channel.
///
/// # Errors
/// As [`wait`], and why the session cannot be opened if waiting would not help.
pub(crate) async fn wait_for(
    ctx: &Ctx,
    machine: &str,
    name: &str,
    goal: Ready,
    channel: Option<&str>,
    until: Option<Instant>,
) -> Result<ReadyView> {
    let channel = channel.map(str::to_owned);
    let what = format!("waiting until {} {}", escape(name), what(goal));
    let mut interrupts = Interrupts::listen()?;
    let mut progress = Progress::new(&ctx.out, what.clone());
    let work = async {
        loop {
            let timeout_ms = Some(progress.interval().as_millis() as u64);
            let request = WaitReady { machine: machine.to_owned(), until: goal, channel: channel.clone(), timeout_ms };
            let view = ctx.daemon.hold(async |client| client.wait_ready(request.clone()).await).await?;
            if view.ready {
                return Ok(view);
            }
            progress.tell(&view.missing, None);
        }
    };
    let ended = interrupts.guard(ctx, until, "stopped waiting; the machine goes on", work).await;
    progress.finish();
    match ended? {
        Ok(view) => Ok(view),
        Err(Left::Late) => {
            // Why, as it is now.
            let request = WaitReady { machine: machine.to_owned(), until: goal, channel, timeout_ms: Some(0) };
            let why = match ctx.daemon.hold(async |client| client.wait_ready(request.clone()).await).await {
                Ok(view) if view.ready => return Ok(view),
                Ok(view) => format!(": {}", escape(&view.missing)),
                Err(error) => format!(": {}", error.chain()),
            };
            Err(Error::new(Code::Timeout, format!("{what}: the time to wait is over{why}"))
                .hint(format!("look at it: vmoon console {}", escape(name))))
        }
        Err(_) => Err(wait::detached(&what)),
    }
}
