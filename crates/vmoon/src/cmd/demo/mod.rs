//! `vmoon demo`: something to try where there is nothing to manage.
//!
//! It is built in with the feature `demo` only: a server of XAPI is nothing that everybody should carry.

#[cfg(feature = "demo")]
mod xcpng;

use crate::{ctx::Ctx, exit::Exit};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};
use vmoon_core::{Code, Error, Result};

/// How long a demonstration may take to end its machines and remove its connection.
const END: Duration = Duration::from_secs(60);

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon demo xcpng                     a pool of XCP-ng with VMs that boot, until Ctrl-C
  vmoon create demo:moon --set template=guest --set seed=yes --until session
  vmoon demo stop

Only in a vmoon that was built with it: cargo build --release --features demo")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Run a pool of XCP-ng on this computer, with a connection to it, until Ctrl-C or `vmoon demo stop`
    #[command(after_help = "Examples:
  vmoon demo xcpng
  vmoon demo xcpng --name lab --rows   VMs that only pretend to run

Its guest is made of Debian packages that `cargo xtask install` unpacks; without them, or without QEMU, a VM is a private SSH server on this computer.")]
    Xcpng(Xcpng),
    /// End a demonstration that runs
    #[command(after_help = "Examples:\n  vmoon demo stop\n  vmoon demo stop -q")]
    Stop,
}

/// How the pool is to be.
#[derive(Debug, clap::Args)]
pub(crate) struct Xcpng {
    /// The name of the connection
    #[arg(long, value_name = "NAME", default_value = "demo")]
    name: String,
    /// The folder with the guest's Debian packages, each unpacked in a folder of its name [default: that of cargo's target directory]
    #[arg(long, value_name = "FOLDER")]
    packages: Option<PathBuf>,
    /// Boot nothing: VMs only pretend to run
    #[arg(long)]
    rows: bool,
}

/// Runs the verb.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    match args.verb {
        #[cfg(feature = "demo")]
        Verb::Xcpng(args) => xcpng::run(ctx, &args).await,
        #[cfg(not(feature = "demo"))]
        Verb::Xcpng(args) => Err(without(args)),
        Verb::Stop => stop(ctx).await,
    }
}

/// What is said where it is not built in.
#[cfg(not(feature = "demo"))]
fn without(Xcpng { name, packages, rows }: Xcpng) -> Error {
    // They mean nothing here.
    drop((name, packages, rows));
    Error::new(Code::DriverUnsupported, "this vmoon was built without the demonstration")
        .hint("build one with it: cargo build --release --features demo")
}

/// What is said to a demonstration that shall end.
const STOP: [u8; 4] = *b"stop";

/// Where a demonstration that runs listens. Whoever says [`STOP`] there is let go when it has ended.
fn socket(ctx: &Ctx) -> PathBuf {
    ctx.daemon.paths().runtime.join("demo.sock")
}

/// Connects to the one that runs, if one does.
async fn running(socket: &Path) -> Result<Option<UnixStream>> {
    match UnixStream::connect(socket).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(Error::io(format_args!("connect to {}", socket.display()), error)),
    }
}

async fn stop(ctx: &Ctx) -> Result<Exit> {
    let Some(mut stream) = running(&socket(ctx)).await? else {
        ctx.out.note("no demonstration runs");
        return Ok(Exit::OK);
    };
    let mut rest = Vec::new();
    stream.write_all(&STOP).await.map_err(|error| Error::io("speak to the demonstration", error))?;
    match timeout(END, stream.read_to_end(&mut rest)).await {
        Ok(_) => ctx.out.changed("the demonstration has ended")?,
        Err(_) => return Err(Error::new(Code::Timeout, format!("the demonstration has not ended within {} s", END.as_secs()))),
    }
    Ok(Exit::OK)
}
