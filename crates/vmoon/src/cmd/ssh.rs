//! `vmoon ssh`: a shell in a machine that stays when its terminal goes, or one program there.

use super::{exec, ready};
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{self, time},
    repl,
    wait::{self, Limit},
};
use serde_json::{Map, Value};
use std::{ffi::OsString, path::PathBuf, time::Duration};
use tokio::time::Instant;
use vmoon_api::{
    Api as _, Data,
    requests::{Exec, Mode, Ready, SessionRef, TuneMachine},
    views::ExecView,
};
use vmoon_core::{Code, Error, Result, machine::Answer, name::escape};

/// The channel of a shell.
const SHELL: &str = "shell";

const EXAMPLES: &str = "Examples:
  vmoon ssh web01                        a shell; Ctrl-] d leaves it, and it goes on
  vmoon ssh web01 -- uname -a            one program, with its exit code
  vmoon ssh old-vm --user debian --identity ~/.ssh/id_lab

A machine that vmoon has made from a seed needs nothing more. For any other one, vmoon keeps who logs in and which key its server shows; it writes nothing \
into the machine. The key of a server that is not known is shown and asked about; where nobody can be asked, `vmoon set NAME ssh-fingerprint=…` confirms it.";

/// Where to, as whom, and what for.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The machine
    #[arg(value_name = "MACHINE", add = super::completions::machines())]
    machine: String,
    /// The program and its arguments, after --; a shell if none is given
    #[arg(value_name = "ARGV", last = true)]
    argv: Vec<OsString>,
    /// Who logs in; kept for the machine
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The private key to log in with; its path is kept for the machine
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    identity: Option<PathBuf>,
    /// The port of its SSH server; kept for the machine
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Take the shell over from whoever types there
    #[arg(long, conflicts_with = "argv")]
    take: bool,
    /// Give the program our standard input, which is read to its end first (at most 16 MiB)
    #[arg(short = 'i', long, requires = "argv")]
    stdin: bool,
    /// How long the program may take [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = time::parse_duration, requires = "argv")]
    deadline: Option<Duration>,
    #[command(flatten)]
    limit: Limit,
}

/// What of a failure can be helped by saying something about the machine.
struct Helped {
    user: bool,
    key: bool,
}

/// Logs in.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let machine = super::show::machine(&args.machine)?;
    let until = args.limit.until(wait::DEFAULT)?;
    let mut settings = Map::new();
    if let Some(user) = &args.user {
        settings.insert("ssh-user".into(), user.clone().into());
    }
    if let Some(identity) = &args.identity {
        let path = std::path::absolute(identity).map_err(|error| Error::io(format_args!("find {}", identity.display()), error))?;
        settings.insert("ssh-identity".into(), path.display().to_string().into());
    }
    if let Some(port) = args.port {
        settings.insert("ssh-port".into(), port.into());
    }
    if !settings.is_empty() {
        set(ctx, &machine, settings, until).await?;
    }
    // Who has said who logs in means nobody else.
    let mut helped = Helped { user: args.user.is_some(), key: false };
    if args.argv.is_empty() {
        return shell(ctx, &machine, args.take, until, &mut helped).await;
    }
    let ran = async {
        let deadline_ms = args.deadline.map(|deadline| time::wire_ms(deadline).map(u64::from)).transpose()?;
        let stdin = Data(exec::input(args.stdin)?);
        let request = Exec { machine: machine.clone(), argv: exec::words(args.argv)?, stdin, deadline_ms, login: true };
        program(ctx, request, until, &mut helped).await
    };
    match ran.await {
        Ok(view) => exec::told(ctx, &view),
        Err(error) => {
            ctx.out.error(&error);
            Ok(Exit(exec::code(&error)))
        }
    }
}

/// Runs one program.
async fn program(ctx: &Ctx, request: Exec, until: Option<Instant>, helped: &mut Helped) -> Result<ExecView> {
    ctx.daemon.hello().await?;
    loop {
        match ctx.daemon.client().exec(request.clone()).await {
            Ok(view) => return Ok(view),
            Err(error) => help(ctx, &request.machine, error, until, helped).await?,
        }
    }
}

/// Works in a shell.
async fn shell(ctx: &Ctx, machine: &str, take: bool, until: Option<Instant>, helped: &mut Helped) -> Result<Exit> {
    // A machine that boots is waited for, and what is missing is told meanwhile.
    while let Err(error) = ready::wait_for(ctx, machine, machine, Ready::Session, Some(SHELL), until).await {
        help(ctx, machine, error, until, helped).await?;
    }
    let request = SessionRef { session: format!("{machine}/{SHELL}") };
    let session = ctx.daemon.hold(async |client| client.open_session(request.clone()).await).await?;
    let mode = if take { Mode::Takeover } else { Mode::Writer };
    repl::attach(ctx, session, None, mode, true).await
}

/// Does what helps against a failure, each thing once.
///
/// # Errors
/// The failure, if nothing does.
async fn help(ctx: &Ctx, machine: &str, error: Error, until: Option<Instant>, helped: &mut Helped) -> Result<()> {
    let name = escape(machine);
    match error.code() {
        // Nobody has said who logs in: as ssh does, the user of this name.
        Code::SessionChannel | Code::DriverUnsupported if !std::mem::replace(&mut helped.user, true) => {
            let hopeless = |error: Error| error.hint(format!("nobody can log in to {name}; to work in it: vmoon attach {name}"));
            let Some(user) = vmoon_sys::login::Login::from_env().user else { return Err(hopeless(error)) };
            let settings = [("ssh-user".to_owned(), Value::from(user.as_str()))].into_iter().collect();
            if set(ctx, machine, settings, until).await.is_err() {
                return Err(hopeless(error));
            }
            ctx.out.note(&format!("nobody has said who logs in to {name}: {} does, unless you say --user", escape(&user)));
            Ok(())
        }
        Code::ConnectionUntrusted if !std::mem::replace(&mut helped.key, true) => {
            let detail = error.detail_value().cloned().unwrap_or_default();
            let Some(shown) = detail.get("fingerprint").and_then(Value::as_str).filter(|_| detail.get("expected").is_none()) else {
                return Err(error);
            };
            let question = format!("The key of {name} is not known. Its fingerprint is\n  {}\nIs that the right one?", escape(shown));
            match out::confirm(&question) {
                Some(true) => {
                    let settings = [("ssh-fingerprint".to_owned(), Value::from(shown))].into_iter().collect();
                    set(ctx, machine, settings, until).await
                }
                Some(false) | None => Err(error),
            }
        }
        _ => Err(error),
    }
}

/// Says how a machine is entered.
async fn set(ctx: &Ctx, machine: &str, settings: Map<String, Value>, until: Option<Instant>) -> Result<()> {
    let request = TuneMachine { machine: machine.to_owned(), settings, dry_run: false, deadline_ms: None };
    let view = ctx.daemon.ask_once(async |client| client.tune_machine(request.clone()).await).await?;
    match view.answer {
        Some(Answer::Started { operation } | Answer::Joined { operation }) => {
            wait::operation(ctx, operation, &format!("changing settings of {}", escape(machine)), until).await.map(drop)
        }
        Some(Answer::Refused { code }) => Err(Error::new(code, code.meaning().trim_end_matches('.').to_owned())),
        Some(Answer::Already) | None => Ok(()),
    }
}
