//! `vmoon run`: a Lua program in this very process, or a temporary session.

use super::{
    access::{Access, seconds},
    run_map::{self, Mapping},
};
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{Format, time},
    repl,
};
use std::{
    env,
    ffi::OsString,
    io::{self, IsTerminal as _},
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use vmoon_api::{
    Api as _,
    requests::{CreateMachine, MachineRequest, Mode, SessionRef, WaitMachine, WaitOperation},
    views::MachineView,
};
use vmoon_core::{
    Code, Error, Result,
    machine::{Answer, Request, State},
    spec::{Lifetime, MachineSpec},
};
use vmoon_driver_lua::oneshot::{self, Program, Source};

const EXAMPLES: &str = "\
Options stand before FILE: what is behind it is the program's, as with every interpreter. With -e they may stand anywhere, and the \
program's own arguments are plain words, or whatever follows --.

With no program on a terminal a temporary session is opened, which is gone when you leave it.

The exit code is that of the program. Three are ours: 125 it could not be run, 126 it cannot be read, 127 it is not there.

A program may compute, read its standard input, the folder of its file and installed Lua packages, and nothing else, unless it is \
granted more; --profile trusted grants whatever you may do. A folder that holds more than the program (your home directory, /tmp) \
must be named with --read.

What a program prints is its own: -o is refused. For values as JSON there are `vmoon eval -o json` and --map.

Examples:
  vmoon run fold.lua genome.fa -v
  vmoon run -e 'return 6 * 7' --deadline 5s
  vmoon run -e 'return ...' one -- --two
  generate | vmoon run - one two
  vmoon run --read ../genomes --write out fold.lua
  vmoon run --env bio -e 'return require [[cjson]].encode {1, 2}'
  vmoon run --runtime lua5.1 --deadline 30s old.lua
  vmoon run --map inputs.jsonl --jobs 2 --retries 1 score.lua > results.jsonl";

/// How long a new machine is waited for.
const READY: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Run this code and print the values it returns; more of them run one after the other as one program
    #[arg(short = 'e', value_name = "CODE", allow_hyphen_values = true)]
    code: Vec<OsString>,
    /// The Lua interpreter: builtin, builtin-luajit, builtin-5.1, builtin-5.5, lua5.1 to lua5.4, luajit, or a path [default: builtin]
    #[arg(long)]
    runtime: Option<String>,
    /// End the program and what it has started after so long (exit code 8)
    #[arg(long, value_name = "TIME", value_parser = time::parse_duration)]
    deadline: Option<Duration>,
    #[command(flatten)]
    access: Access,
    /// In a temporary session, how long a command may run that brings no deadline of its own, in whole seconds
    #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with_all = ["code", "words"], help_heading = "What it may do")]
    command_time: Option<u64>,
    #[command(flatten)]
    map: Mapping,
    /// The program's file, - for standard input, and its arguments; with -e arguments only
    #[arg(value_name = "FILE", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

impl Args {
    /// The program; `None` for a temporary session.
    fn program(self, keyboard: bool) -> Result<Option<Program>> {
        let mut code = self.code.into_iter().map(OsString::into_vec);
        let mut words = self.words.into_iter().peekable();
        let source = match code.next() {
            Some(code) => Source::Code(code),
            None => {
                let source = match words.next() {
                    Some(word) if word == "-" => Source::Stdin,
                    Some(word) => Source::File(PathBuf::from(word)),
                    None if keyboard => return Ok(None),
                    None => Source::Stdin,
                };
                words.next_if(|word| word == "--");
                source
            }
        };
        let (environment, access) = (self.access.environment()?, self.access.settings()?);
        let (runtime, deadline) = (self.runtime, self.deadline);
        Ok(Some(Program { source, more: code.collect(), args: words.collect(), runtime, deadline, access, environment }))
    }

    /// Whether the program is on the command line, so that options may follow it: see [`freely`].
    pub(crate) fn is_code(&self) -> bool {
        !self.code.is_empty()
    }
}

/// The verb as it is understood where there is code: options wherever they stand, and arguments that look like them behind `--` only.
/// Elsewhere everything behind the file is the program's.
pub(crate) fn freely(verb: clap::Command) -> clap::Command {
    verb.mut_arg("words", |words| words.trailing_var_arg(false).allow_hyphen_values(false))
}

/// Runs a program whose command line needs no help, before anything else is set up: start-up time is most of what a small
/// program costs.
pub(crate) fn at_once() -> Option<ExitCode> {
    let mut args = env::args_os().skip(1);
    if args.next()? != "run" {
        return None;
    }
    // What is wrong is said where everything is.
    let program = plain(args)?.program(false).ok()??;
    Some(ExitCode::from(oneshot::run(&program)))
}

/// The arguments, if they hold nothing but what is dealt with here; what is wrong with others is said by the real parser.
fn plain(mut args: impl Iterator<Item = OsString>) -> Option<Args> {
    let mut found = Args {
        code: Vec::new(),
        runtime: None,
        deadline: None,
        access: Access::default(),
        command_time: None,
        map: Mapping::default(),
        words: Vec::new(),
    };
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("-e") => found.code.push(args.next()?),
            Some("--runtime") => found.runtime = Some(args.next()?.into_string().ok()?),
            Some("--deadline") => found.deadline = Some(time::parse_duration(args.next()?.to_str()?).ok()?),
            Some("--") if found.is_code() => found.words.extend(args.by_ref()),
            Some(option) if option.starts_with("--") => found.access.take(option, &args.next()?)?,
            Some(text) if text != "-" && text.starts_with('-') => return None,
            _ => {
                found.words.push(arg);
                if !found.is_code() {
                    found.words.extend(args.by_ref());
                }
            }
        }
    }
    // A word before the first code is a file, and everything behind it the program's: never both.
    (found.is_code() || !found.words.is_empty()).then_some(found)
}

/// Runs the program, or opens a temporary session.
pub(crate) async fn run(ctx: &Ctx, args: Args, asked: Option<Format>) -> Result<Exit> {
    formats(asked, args.map.is_wanted())?;
    if args.map.is_wanted() {
        if args.code.len() > 1 {
            return Err(Error::new(Code::Usage, "--map runs one script on each item, and -e is given more than once")
                .hint("write the code as one -e, or as a file"));
        }
        let mapping = args.map.clone();
        let Some(program) = args.program(false)? else {
            return Err(Error::new(Code::Usage, "a script is missing").hint("vmoon run --map inputs.jsonl script.lua"));
        };
        return run_map::run(ctx, mapping, program);
    }
    let (runtime, access, command_time) = (args.runtime.clone(), args.access.clone(), args.command_time);
    let keyboard = io::stdin().is_terminal() && io::stdout().is_terminal();
    match args.program(keyboard)? {
        Some(program) => Ok(Exit(oneshot::run(&program))),
        None => {
            let mut settings = access.settings()?;
            settings.extend(runtime.map(|runtime| ("runtime".to_owned(), runtime.into())));
            settings.extend(command_time.map(|seconds| ("command-time".to_owned(), seconds.into())));
            temporary(ctx, settings).await
        }
    }
}

/// Refuses a format that was asked for and could not be kept: what a program prints is its own.
fn formats(asked: Option<Format>, map: bool) -> Result<()> {
    match asked {
        None | Some(Format::Table) => Ok(()),
        Some(Format::Json) if map => Ok(()),
        Some(_) if map => Err(Error::new(Code::Usage, "the results of --map are JSON, one a line, and nothing else").hint("leave out -o")),
        Some(_) => Err(Error::new(Code::Usage, "run prints what its program prints, so -o has no meaning here")
            .hint("vmoon eval NAME CODE -o json gives values and errors of a machine as JSON; run --map gives results as JSON")),
    }
}

/// A session that is gone when it is left; the daemon deletes it too when its writer is.
pub(crate) async fn temporary(ctx: &Ctx, settings: serde_json::Map<String, serde_json::Value>) -> Result<Exit> {
    let spec = MachineSpec { kind: "lua".into(), settings, lifetime: Lifetime::Attached, ..MachineSpec::default() };
    let mut bytes = [0; 4];
    vmoon_sys::random::fill(&mut bytes);
    let name = format!("tmp-{:08x}", u32::from_ne_bytes(bytes));
    let request = CreateMachine { name, connection: None, spec, start: true, deadline_ms: None };
    let machine = ctx.daemon.ask_once(async |client| client.create_machine(request.clone()).await).await?.machine;
    let id = machine.id.to_string();
    let left = match ready(ctx, &id).await {
        Ok(()) => {
            let request = SessionRef { session: id.clone() };
            match ctx.daemon.ask(async |client| client.open_session(request.clone()).await).await {
                Ok(session) => repl::attach(ctx, session, None, Mode::Writer, false).await,
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    // It may be deleted already; the daemon does it in any case.
    if let Err(error) = remove(ctx, &id).await {
        tracing::debug!(error = %error.chain(), "the temporary machine is left to the daemon");
    }
    left
}

async fn ready(ctx: &Ctx, id: &str) -> Result<()> {
    let until = vmoon_sys::clock::instant() + READY;
    let mut known = None;
    while vmoon_sys::clock::instant() < until {
        let request = WaitMachine { machine: id.to_owned(), until: None, generation: known, timeout_ms: Some(5_000) };
        let view: MachineView = ctx.daemon.hold(async |client| client.wait_machine(request.clone()).await).await?;
        if view.state == State::Running {
            return Ok(());
        }
        if let Some(error) = view.last_error {
            return Err(error.into());
        }
        known = Some(view.generation);
    }
    Err(Error::new(Code::Timeout, "the temporary machine did not start within a minute").hint("vmoon doctor"))
}

async fn remove(ctx: &Ctx, id: &str) -> Result<()> {
    let request = MachineRequest { machine: id.to_owned(), request: Request::DeleteForce, confirm: None, disks: None, deadline_ms: None };
    let answered = ctx.daemon.ask(async |client| client.request_machine(request.clone()).await).await?;
    if let Answer::Started { operation } | Answer::Joined { operation } = answered.answer {
        let request = WaitOperation { operation: operation.to_string(), timeout_ms: Some(10_000) };
        ctx.daemon.hold(async |client| client.wait_operation(request.clone()).await).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn quick(words: &[&str]) -> Option<Program> {
        plain(words.iter().map(OsString::from)).and_then(|args| args.program(false).unwrap())
    }

    fn slow(words: &[&str]) -> Program {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: Args,
        }
        use clap::{CommandFactory as _, FromArgMatches as _, Parser as _};
        let all: Vec<_> = [OsStr::new("vmoon")].into_iter().chain(words.iter().map(OsStr::new)).collect();
        let mut args = Cli::parse_from(&all).args;
        if args.is_code() {
            args = Cli::from_arg_matches(&freely(Cli::command()).try_get_matches_from(&all).unwrap()).unwrap().args;
        }
        args.program(false).unwrap().unwrap()
    }

    #[test]
    fn both_parsers_understand_the_same() {
        for words in [
            &["a.lua"][..],
            &["a.lua", "-x", "--help", "-"],
            &["a.lua", "--", "x"],
            &["-", "x", "-e"],
            &["-e", "return 1"],
            &["-e", "x", "--deadline", "5s"],
            &["-e", "x", "--memory", "1M", "a", "--profile", "sealed", "-", "--cpu", "5s", "b", "--", "--read", "--"],
            &["-e", "x", "-e", "-- y", "z", "-e", "--deadline"],
            &["a.lua", "-e", "x", "--deadline", "5s"],
            &["-e", "x", "--", "-q"],
            &["-e", "x", "--", "--", "y"],
            &["--deadline", "5s", "--runtime", "lua5.1", "-e", "-1", "y"],
            &["--read", "/a", "--write", "b", "--read", "-c", "--memory", "1G", "--cpu", "5s", "x.lua", "--read", "y"],
            &["--profile", "files", "--net", "a:1", "--file-size", "1K", "--open-files", "9", "-"],
        ] {
            assert_eq!(quick(words), Some(slow(words)), "{words:?}");
        }
    }

    #[test]
    fn what_needs_help_is_left_to_the_real_parser() {
        for words in [
            &[][..],
            &["-h"],
            &["--help"],
            &["-e"],
            &["--nope", "x"],
            &["--deadline", "soon", "x"],
            &["-q", "x"],
            &["--", "x"],
            &["-e", "x", "-q"],
            &["-e", "x", "a", "-x"],
            &["-e", "x", "--deadline"],
        ] {
            assert_eq!(quick(words), None, "{words:?}");
        }
    }
}
