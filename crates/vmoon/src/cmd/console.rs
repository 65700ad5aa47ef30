//! `vmoon console` and `vmoon screenshot`: what a machine shows, as text, as a picture, or in a viewer.

use super::viewer::{self, VIEWER};
use crate::{ctx::Ctx, exit::Exit, out::time, repl};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
};
use vmoon_api::{
    Api as _,
    requests::{MachineRef, Mode, SessionRef},
};
use vmoon_core::{Code, Error, Result, name::escape, target::Target};

/// The channel of a serial console.
const SERIAL: &str = "serial";

/// Arguments of `console`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon console web01                  its serial console; Ctrl-] d leaves it
  vmoon console web01 --take           also if somebody else types there
  vmoon console web01 --viewer         its screen, in a window of remote-viewer")]
pub(crate) struct Args {
    /// The machine
    #[arg(value_name = "MACHINE", add = super::completions::machines())]
    machine: String,
    /// Watch only
    #[arg(short, long, visible_alias = "watch")]
    read_only: bool,
    /// Take it over from whoever types there
    #[arg(long, conflicts_with = "read_only")]
    take: bool,
    /// Show its screen in remote-viewer, or say where it can be seen if that is not installed
    #[arg(long, conflicts_with_all = ["read_only", "take"])]
    viewer: bool,
}

/// Arguments of `screenshot`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon screenshot web01 web01.png
  vmoon screenshot web01 - > now.png")]
pub(crate) struct ScreenshotArgs {
    /// The machine
    #[arg(value_name = "MACHINE", add = super::completions::machines())]
    machine: String,
    /// The file to write; - is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Shows the console.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let machine = super::show::machine(&args.machine)?;
    if args.viewer {
        return view(ctx, machine).await;
    }
    Target::parse(&args.machine)?;
    let request = SessionRef { session: format!("{machine}/{SERIAL}") };
    let session = match ctx.daemon.hold(async |client| client.open_session(request.clone()).await).await {
        Err(error) if error.code() == Code::SessionChannel => {
            let request = MachineRef { machine: machine.clone() };
            let screens = ctx.daemon.hold(async |client| client.list_displays(request.clone()).await).await;
            let name = escape(&machine);
            return Err(error.hint(if screens.is_ok_and(|screens| !screens.is_empty()) {
                format!("its sessions: vmoon show {name}; its screen: vmoon console {name} --viewer")
            } else {
                format!("it has no serial console; its sessions: vmoon show {name}, and to work in one: vmoon attach {name}")
            }));
        }
        opened => opened?,
    };
    let mode = match (args.read_only, args.take) {
        (true, _) => Mode::Viewer,
        (_, true) => Mode::Takeover,
        _ => Mode::Writer,
    };
    repl::attach(ctx, session, None, mode, true).await
}

async fn view(ctx: &Ctx, machine: String) -> Result<Exit> {
    let request = MachineRef { machine: machine.clone() };
    let offers = ctx.daemon.hold(async |client| client.list_displays(request.clone()).await).await?;
    let Some(offer) = offers.first() else {
        return Err(Error::new(Code::DriverUnsupported, format!("{} shows no screen now", escape(&machine)))
            .hint("a machine that is off shows none; one without graphics has a serial console: vmoon console NAME"));
    };
    if ctx.out.format().is_machine() {
        let values: Vec<serde_json::Value> = offers.iter().map(|offer| serde_json::to_value(offer).unwrap_or_default()).collect();
        ctx.out.values(&values)?;
        return Ok(Exit::OK);
    }
    match viewer::find(std::env::var_os("PATH")) {
        Some(program) => {
            let told = format!("{VIEWER} shows {}", escape(&offer.uri));
            match viewer::needs_a_way(offer) {
                Some(socket) => {
                    ctx.out.changed(&format!("{told}, until its window is closed"))?;
                    viewer::show(&program, &socket).await?;
                }
                None => {
                    viewer::start(&program, &offer.uri)?;
                    ctx.out.changed(&told)?;
                }
            }
            Ok(Exit::OK)
        }
        None => {
            ctx.out.line(&escape(&offer.uri))?;
            ctx.out.hint(&format!(
                "{VIEWER} is not installed (package virt-viewer); any viewer of {} takes this address",
                escape(&offer.protocol)
            ));
            Ok(Exit::OK)
        }
    }
}

/// Takes a picture.
pub(crate) async fn screenshot(ctx: &Ctx, args: ScreenshotArgs) -> Result<Exit> {
    let request = MachineRef { machine: args.machine.clone() };
    let picture = ctx.daemon.hold(async |client| client.screenshot(request.clone()).await).await?;
    if args.file == Path::new("-") {
        ctx.out.bytes(&picture.data.0)?;
        return Ok(Exit::OK);
    }
    let io = |error| Error::io(format_args!("write {}", args.file.display()), error);
    std::fs::File::create(&args.file).and_then(|mut file| file.write_all(&picture.data.0)).map_err(io)?;
    let size = time::bytes(picture.data.0.len() as u64);
    ctx.out.changed(&format!("wrote {} ({}, {size})", args.file.display(), escape(&picture.media_type)))?;
    Ok(Exit::OK)
}
