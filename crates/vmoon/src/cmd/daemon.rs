//! `vmoon daemon`: the daemon in the foreground, and its life in the background.

use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{log, time},
};
use rustix::fd::OwnedFd;
use std::{ffi::OsString, os::fd::AsFd as _, time::Duration};
use vmoon_api::{
    Api as _,
    requests::Empty,
    views::{Hello, Share},
};
use vmoon_core::{Code, Error, Result, name::escape};
use vmoon_sys::{
    paths::Paths,
    process::{Identity, Pidfd},
};

/// How long a daemon may take to end.
const END: Duration = Duration::from_secs(10);

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon daemon                         run it here and see its log; Ctrl-C ends it
  vmoon daemon status
  vmoon daemon stop                    machines and sessions live on

Every verb starts the daemon if it is needed. VMOON_NO_AUTOSTART=1 forbids that.")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Run it in the foreground
    #[command(after_help = "Examples:\n  vmoon daemon run\n  VMOON_LOG=debug vmoon daemon run\n  vmoon daemon run --no-progress")]
    Run(RunArgs),
    /// Start it in the background, if it does not run
    #[command(after_help = "Examples:\n  vmoon daemon start\n  vmoon daemon start -o json")]
    Start,
    /// End it; machines and sessions live on
    #[command(after_help = "Examples:\n  vmoon daemon stop\n  vmoon daemon stop -q")]
    Stop,
    /// Say whether it runs; exit code 7 if not
    #[command(after_help = "Examples:\n  vmoon daemon status\n  vmoon daemon status -o json")]
    Status,
}

/// Arguments of `run`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct RunArgs {
    /// The descriptor on which to say that it listens: 1
    #[arg(long, hide = true, value_parser = clap::value_parser!(i32).range(1..=1))]
    ready_fd: Option<i32>,
}

impl Args {
    /// How to run in the foreground, if that is what is asked for.
    pub(crate) fn foreground(&self) -> Option<RunArgs> {
        match &self.verb {
            None => Some(RunArgs::default()),
            Some(Verb::Run(args)) => Some(args.clone()),
            _ => None,
        }
    }
}

/// Runs the daemon in this process until it is told to end.
pub(crate) fn foreground(args: &RunArgs) -> Result<Exit> {
    log::init_daemon()?;
    let paths = Paths::from_env()?;
    let host_exe = crate::connect::own_program()?;
    let ready_fd = args.ready_fd.map(|_| take_stdout()).transpose()?;
    vmoon_daemon::run(vmoon_daemon::Config { paths, host_exe, host_args: vec![OsString::from("lua-host")], ready_fd })?;
    Ok(Exit::OK)
}

/// Takes the pipe that stands where the standard output would; the log takes its place, so that the pipe has one owner and
/// closes when the daemon is ready or dead.
fn take_stdout() -> Result<OwnedFd> {
    let failed = |error: rustix::io::Errno| Error::io("take over the standard output", error.into());
    let pipe = rustix::io::fcntl_dupfd_cloexec(std::io::stdout().as_fd(), 3).map_err(failed)?;
    rustix::stdio::dup2_stdout(std::io::stderr()).map_err(failed)?;
    Ok(pipe)
}

/// Runs the verb.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    match args.verb {
        None | Some(Verb::Run(_)) => Err(Error::internal("the daemon runs before any verb")),
        Some(Verb::Start) => {
            let before = ctx.daemon.hello_if_running().await?;
            if before.is_none() {
                ctx.daemon.start().await?;
            }
            let hello = ctx.daemon.hello().await?;
            if ctx.out.format().is_machine() {
                ctx.out.one(&hello, "daemon", &rows(&hello))?;
            }
            let what = if before.is_some() { "already runs" } else { "started" };
            ctx.out.changed(&format!("the daemon {what} (process {})", hello.pid))?;
            Ok(Exit::OK)
        }
        Some(Verb::Stop) => stop(ctx).await,
        Some(Verb::Status) => match ctx.daemon.hello_if_running().await? {
            Some(hello) => {
                ctx.out.one(&hello, "daemon", &rows(&hello))?;
                Ok(Exit::OK)
            }
            None => Err(Error::new(Code::DaemonUnreachable, "the daemon does not run").hint("it starts by itself when it is needed")),
        },
    }
}

fn share(share: Share, shown: impl Fn(u64) -> String) -> String {
    match share.limit {
        Some(limit) => format!("{} of {}", shown(share.used), shown(limit)),
        None => "none".into(),
    }
}

fn rows(hello: &Hello) -> Vec<(String, String)> {
    vec![
        ("state".into(), "running".into()),
        ("process".into(), hello.pid.to_string()),
        ("version".into(), hello.version.clone()),
        ("started".into(), time::utc(hello.started_ms)),
        ("directory".into(), hello.state_dir.clone()),
        ("kinds".into(), hello.kinds.join(", ")),
        ("machines".into(), format!("{} ({} running)", hello.machines, hello.running)),
        ("quota machines".into(), share(hello.quota.machines, |n| n.to_string())),
        ("quota running".into(), share(hello.quota.running, |n| n.to_string())),
        ("quota memory".into(), share(hello.quota.memory, time::bytes)),
    ]
}

/// Ends it, and waits until it has ended.
async fn stop(ctx: &Ctx) -> Result<Exit> {
    let Some(hello) = ctx.daemon.hello_if_running().await? else {
        ctx.out.changed("the daemon does not run")?;
        return Ok(Exit::OK);
    };
    let pid = i32::try_from(hello.pid).map_err(|_| Error::new(Code::WireMalformed, "the daemon says it has an impossible process id"))?;
    let process = Identity::of(pid).and_then(|identity| Pidfd::open(&identity).ok().flatten());
    match ctx.daemon.client().stop_daemon(Empty {}).await {
        Err(error) if !crate::connect::is_away(&error) => return Err(error),
        _ => {}
    }
    if let Some(process) = process {
        let ended = process.wait(END).map_err(|error| Error::io("wait for the daemon", error))?;
        if !ended {
            return Err(Error::new(Code::Timeout, format!("the daemon (process {pid}) was told to end and has not after 10 s"))
                .hint(format!("see {}", escape(&ctx.daemon.paths().log().to_string_lossy()))));
        }
    }
    ctx.out.changed("the daemon has ended; machines and sessions live on")?;
    Ok(Exit::OK)
}
