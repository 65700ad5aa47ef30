//! `vmoon exec`: runs a program in a machine and ends as it ends.

use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{Format, time},
};
use std::{ffi::OsString, io::Read as _, time::Duration};
use vmoon_api::{Api as _, Data, requests::Exec, views::ExecView};
use vmoon_core::{Code, Error, Result, frame::MAX_PAYLOAD};

const EXAMPLES: &str = "Examples:
  vmoon exec web01 -- uname -a
  vmoon exec web01 --stdin -- tee /etc/motd < motd
  vmoon exec web01 --deadline 10m -- apt-get -y upgrade

The exit code is that of the program, 128 and the number of the signal that ended it, 127 if there is no such program, 126 if it may not be run, \
and 125 if vmoon itself failed.";

/// What to run, and where.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The machine
    #[arg(value_name = "MACHINE", add = super::completions::machines())]
    machine: String,
    /// The program and its arguments, after --; no shell is between
    #[arg(value_name = "ARGV", required = true, last = true)]
    argv: Vec<OsString>,
    /// Give it our standard input, which is read to its end first (at most 16 MiB)
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Run it as the user who logs in over SSH, not by the guest's agent
    #[arg(long)]
    login: bool,
    /// How long it may take [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = time::parse_duration)]
    deadline: Option<Duration>,
}

/// The exit code of a failure of ours.
pub(super) fn code(error: &Error) -> u8 {
    match error.code() {
        Code::FileNotFound => 127,
        Code::Permission => 126,
        Code::Usage => Code::Usage.exit(),
        _ => 125,
    }
}

/// Runs it.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    match exec(ctx, args).await {
        Ok(view) => told(ctx, &view),
        Err(error) => {
            ctx.out.error(&error);
            Ok(Exit(code(&error)))
        }
    }
}

/// A program's words as text.
pub(super) fn words(argv: Vec<OsString>) -> Result<Vec<String>> {
    argv.into_iter().map(|arg| arg.into_string().map_err(|_| Error::new(Code::Usage, "an argument is not valid UTF-8"))).collect()
}

/// Our standard input to its end, if it is wanted.
pub(super) fn input(wanted: bool) -> Result<Vec<u8>> {
    let mut stdin = Vec::new();
    if wanted {
        let limit = MAX_PAYLOAD as u64 + 1;
        std::io::stdin().lock().take(limit).read_to_end(&mut stdin).map_err(|error| Error::io("read the standard input", error))?;
        if stdin.len() > MAX_PAYLOAD {
            return Err(Error::new(Code::CommandTooLarge, "the input is larger than 16 MiB").hint("copy it first"));
        }
    }
    Ok(stdin)
}

async fn exec(ctx: &Ctx, args: Args) -> Result<ExecView> {
    let (argv, stdin) = (words(args.argv)?, input(args.stdin)?);
    let deadline_ms = args.deadline.map(|deadline| time::wire_ms(deadline).map(u64::from)).transpose()?;
    let request = Exec { machine: args.machine, argv, stdin: Data(stdin), deadline_ms, login: args.login };
    // The answer comes when the program has ended; the daemon bounds how long that may take.
    ctx.daemon.hello().await?;
    ctx.daemon.client().exec(request).await
}

pub(super) fn told(ctx: &Ctx, view: &ExecView) -> Result<Exit> {
    match ctx.out.format() {
        Format::Json | Format::Yaml => ctx.out.one(view, "", &[])?,
        _ => {
            ctx.out.err_bytes(&view.stderr.0);
            ctx.out.bytes(&view.stdout.0)?;
        }
    }
    if view.truncated {
        ctx.out.warn("the output was cut off: it was longer than the driver keeps");
    }
    Ok(Exit(match (view.code, view.signal) {
        (Some(code), _) => u8::try_from(code & 0xff).unwrap_or(1),
        (None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        (None, None) => 125,
    }))
}
