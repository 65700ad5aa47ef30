//! The command tree, and the way from arguments to a verb. Knows what every verb is called; nothing of how it works.

use crate::{
    cmd,
    connect::Daemon,
    ctx::Ctx,
    exit::{self, Exit},
    out::{self, Format, Out, color::When},
};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind};
use std::{env, ffi::OsString, process::ExitCode};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::paths::Paths;

const EXAMPLES: &str = "Examples:
  vmoon run                            open a Lua session that is gone when you leave
  vmoon create lab --start             make a machine that stays, and start it
  vmoon eval lab 'return 6 * 7'        evaluate in it
  vmoon attach lab                     work in it; Ctrl-] d detaches

Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 wrong state, 5 ambiguous, 6 permission, \
7 unreachable, 8 timeout, 9 unsupported, 10 a requirement is not met, 130 interrupted.";

/// One manager for machines behind one model of machines and sessions.
#[derive(Debug, Parser)]
#[command(name = "vmoon", version, max_term_width = 110, after_help = EXAMPLES, after_long_help = EXAMPLES, propagate_version = false)]
#[command(subcommand_help_heading = "Verbs", infer_long_args = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// What every verb understands.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Globals {
    /// How to print results; JSON is exactly what the API answers [env: VMOON_OUTPUT]
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", help_heading = "Everywhere")]
    pub(crate) output: Option<Format>,
    /// Print only what was asked for: no progress, no hints, nothing after a change
    #[arg(short, long, global = true, help_heading = "Everywhere")]
    pub(crate) quiet: bool,
    /// Say more, such as which daemon is asked; twice: every call of the API, without what it carries [env: VMOON_LOG]
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Everywhere")]
    pub(crate) verbose: u8,
    /// When to use colour (NO_COLOR and CLICOLOR_FORCE are obeyed)
    #[arg(long, global = true, value_enum, value_name = "WHEN", help_heading = "Everywhere")]
    pub(crate) color: Option<When>,
    /// Show no progress [env: VMOON_NO_PROGRESS]
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) no_progress: bool,
}

/// Every verb.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List machines
    #[command(visible_alias = "ls")]
    List(cmd::list::Args),
    /// Show one machine with its facts and sessions
    #[command(visible_alias = "info")]
    Show(cmd::show::Args),
    /// Create machines
    #[command(visible_alias = "new")]
    Create(cmd::create::Args),
    /// Copy a running machine with its state; both go on
    Clone(cmd::clone::Args),
    /// Start machines
    Start(cmd::lifecycle::StartArgs),
    /// Ask machines to stop; never kills
    #[command(visible_alias = "shutdown")]
    Stop(cmd::lifecycle::StopArgs),
    /// End machines by force
    Kill(cmd::lifecycle::KillArgs),
    /// Stop machines politely and start them again
    Restart(cmd::lifecycle::RestartArgs),
    /// Press the reset button of machines; their guests are not asked
    Reset(cmd::reset::Args),
    /// Freeze machines in memory
    Pause(cmd::lifecycle::PauseArgs),
    /// Write machines to storage and stop them
    Suspend(cmd::lifecycle::SuspendArgs),
    /// Let machines go on that are paused or suspended
    Resume(cmd::lifecycle::ResumeArgs),
    /// Delete machines
    #[command(visible_alias = "delete")]
    Rm(cmd::rm::Args),
    /// Make, list, return to and delete snapshots
    #[command(visible_alias = "snap")]
    Snapshot(cmd::snapshot::Args),
    /// Change settings of a machine that exists
    Set(cmd::set::SetArgs),
    /// List, add and remove devices of a machine: disks, network cards
    #[command(visible_alias = "dev")]
    Device(cmd::device::Args),
    /// Give a machine another name
    Rename(cmd::set::RenameArgs),
    /// Move a running machine to another host of its pool
    Migrate(cmd::migrate::Args),
    /// Say whether a machine starts with its host
    Autostart(cmd::set::AutostartArgs),
    /// Wait for a machine, an operation or a command
    Wait(cmd::wait::Args),
    /// Show what machines use and do, again and again
    #[command(visible_alias = "stats")]
    Top(cmd::top::Args),
    /// Print the address of a machine
    Ip(cmd::ready::Args),
    /// Copy files into and out of machines
    Cp(cmd::cp::Args),
    /// Evaluate code in a session and print what it answers
    Eval(cmd::eval::Args),
    /// Run a Lua program, or open a temporary session
    Run(cmd::run::Args),
    /// Work in a session; it stays when you leave
    #[command(visible_alias = "a")]
    Attach(cmd::attach::Args),
    /// Run a program in a machine
    Exec(cmd::exec::Args),
    /// Log in to a machine, or run a program in it as the user who logs in
    Ssh(cmd::ssh::Args),
    /// Work on the serial console of a machine, or see its screen
    Console(cmd::console::Args),
    /// Take a picture of a machine's screen
    Screenshot(cmd::console::ScreenshotArgs),
    /// Type into a terminal, or answer a command that waits for input
    Send(cmd::send::Args),
    /// Print what a session has said
    Read(cmd::read::Args),
    /// Interrupt what runs in a session; its state is kept
    Interrupt(cmd::interrupt::Args),
    /// Print what happened to a machine and what its sessions said
    Logs(cmd::logs::Args),
    /// Print what changes
    Events(cmd::events::Args),
    /// List, show and detach sessions
    Session(cmd::session::Args),
    /// List, show, wait for and cancel operations
    #[command(visible_alias = "op")]
    Operation(cmd::operation::Args),
    /// Add, list, try and remove connections
    #[command(visible_aliases = ["conn", "remote"])]
    Connection(cmd::connection::Args),
    /// Call the API of XCP-ng and XenServer by its own names
    Xapi(cmd::xapi::Args),
    /// Try vmoon on a pool of XCP-ng that is not there
    Demo(cmd::demo::Args),
    /// Run, start, stop or look at the daemon
    Daemon(cmd::daemon::Args),
    /// Check that everything here is as it should be
    Doctor(cmd::doctor::Args),
    /// Measure vmoon beside the alternatives
    Bench(crate::bench::Args),
    /// Do random things to a private daemon, kill it now and then, and check every answer
    Soak(crate::soak::Args),
    /// Search, install, update and remove Lua packages of environments
    #[command(visible_alias = "package")]
    Pkg(cmd::pkg::Args),
    /// Make, fill, export and apply environments of Lua packages
    #[command(visible_alias = "environment")]
    Env(cmd::env::Args),
    /// Print a shell's completion script
    Completions(cmd::completions::Args),
    /// Print versions
    Version(cmd::version::Args),
    /// Print the reference page of the command line
    #[command(hide = true)]
    HelpMarkdown(cmd::markdown::Args),
}

/// The whole tree, for help, completion and tests.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// Parses, runs, reports.
pub(crate) fn main() -> ExitCode {
    if cmd::completions::answer_shell() {
        return ExitCode::SUCCESS;
    }
    let args: Vec<OsString> = env::args_os().collect();
    let cli = match parse(&args) {
        Ok(cli) => cli,
        Err(error) => return usage(&args, &error),
    };
    let out = match out(&cli.globals) {
        Ok(out) => out,
        Err(error) => return exit::code(&Out::plain(), Err(error)),
    };
    let ran = start(&out, cli);
    exit::code(&out, ran)
}

/// The command line, understood.
///
/// # Errors
/// What clap says.
pub(crate) fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    let cli = Cli::try_parse_from(args)?;
    match &cli.verb {
        Some(Verb::Run(run)) if run.is_code() => {
            Cli::from_arg_matches(&command().mut_subcommand("run", cmd::run::freely).try_get_matches_from(args)?)
        }
        _ => Ok(cli),
    }
}

fn out(globals: &Globals) -> Result<Out> {
    let format = match globals.output {
        Some(format) => format,
        None => Format::from_env()?,
    };
    Ok(Out::new(format, globals))
}

fn start(out: &Out, cli: Cli) -> Result<Exit> {
    // The daemon has a runtime of its own, and nothing here may be alive in it.
    if let Some(Verb::Daemon(args)) = &cli.verb
        && let Some(run) = args.foreground()
    {
        return cmd::daemon::foreground(&run);
    }
    out::log::init(cli.globals.verbose)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| Error::io("start the event loop", error))?;
    let ctx = Ctx { out: out.clone(), daemon: Daemon::new(Paths::from_env()?, out.clone()) };
    runtime.block_on(dispatch(&ctx, cli.verb, cli.globals.output))
}

async fn dispatch(ctx: &Ctx, verb: Option<Verb>, asked: Option<Format>) -> Result<Exit> {
    let Some(verb) = verb else { return cmd::status::run(ctx).await };
    match verb {
        Verb::List(args) => cmd::list::run(ctx, args).await,
        Verb::Show(args) => cmd::show::run(ctx, args).await,
        Verb::Create(args) => cmd::create::run(ctx, args).await,
        Verb::Clone(args) => cmd::clone::run(ctx, args).await,
        Verb::Start(args) => cmd::lifecycle::start(ctx, args).await,
        Verb::Stop(args) => cmd::lifecycle::stop(ctx, args).await,
        Verb::Kill(args) => cmd::lifecycle::kill(ctx, args).await,
        Verb::Restart(args) => cmd::lifecycle::restart(ctx, args).await,
        Verb::Reset(args) => cmd::reset::run(ctx, args).await,
        Verb::Pause(args) => cmd::lifecycle::pause(ctx, args).await,
        Verb::Suspend(args) => cmd::lifecycle::suspend(ctx, args).await,
        Verb::Resume(args) => cmd::lifecycle::resume(ctx, args).await,
        Verb::Rm(args) => cmd::rm::run(ctx, args).await,
        Verb::Snapshot(args) => cmd::snapshot::run(ctx, args).await,
        Verb::Set(args) => cmd::set::set(ctx, args).await,
        Verb::Device(args) => cmd::device::run(ctx, args).await,
        Verb::Rename(args) => cmd::set::rename(ctx, args).await,
        Verb::Migrate(args) => cmd::migrate::run(ctx, args).await,
        Verb::Autostart(args) => cmd::set::autostart(ctx, args).await,
        Verb::Ip(args) => cmd::ready::run(ctx, args).await,
        Verb::Exec(args) => cmd::exec::run(ctx, args).await,
        Verb::Ssh(args) => cmd::ssh::run(ctx, args).await,
        Verb::Console(args) => cmd::console::run(ctx, args).await,
        Verb::Screenshot(args) => cmd::console::screenshot(ctx, args).await,
        Verb::Wait(args) => cmd::wait::run(ctx, args).await,
        Verb::Top(args) => cmd::top::run(ctx, args).await,
        Verb::Cp(args) => cmd::cp::run(ctx, args).await,
        Verb::Eval(args) => cmd::eval::run(ctx, args).await,
        Verb::Run(args) => cmd::run::run(ctx, args, asked).await,
        Verb::Attach(args) => cmd::attach::run(ctx, args).await,
        Verb::Send(args) => cmd::send::run(ctx, args).await,
        Verb::Read(args) => cmd::read::run(ctx, args).await,
        Verb::Interrupt(args) => cmd::interrupt::run(ctx, args).await,
        Verb::Logs(args) => cmd::logs::run(ctx, args).await,
        Verb::Events(args) => cmd::events::run(ctx, args).await,
        Verb::Session(args) => cmd::session::run(ctx, args).await,
        Verb::Operation(args) => cmd::operation::run(ctx, args).await,
        Verb::Connection(args) => cmd::connection::run(ctx, args).await,
        Verb::Xapi(args) => cmd::xapi::run(ctx, args).await,
        Verb::Demo(args) => cmd::demo::run(ctx, args).await,
        Verb::Daemon(args) => cmd::daemon::run(ctx, args).await,
        Verb::Doctor(args) => cmd::doctor::run(ctx, args).await,
        Verb::Bench(args) => crate::bench::run(ctx, args).await,
        Verb::Soak(args) => crate::soak::run(ctx, args).await,
        Verb::Pkg(args) => cmd::pkg::run(ctx, args).await,
        Verb::Env(args) => cmd::env::run(ctx, args).await,
        Verb::Completions(args) => cmd::completions::run(ctx, &args),
        Verb::Version(args) => cmd::version::run(ctx, args).await,
        Verb::HelpMarkdown(args) => cmd::markdown::run(ctx, args),
    }
}

/// Prints help where it was asked for, and what is wrong with the command line elsewhere.
fn usage(args: &[OsString], error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let out = Out::plain();
            let shown = out.help(&error.render());
            exit::code(&out, shown.map(|()| Exit::OK))
        }
        _ => {
            let out = Out::guess(args);
            if out.format() == Format::Json {
                let text = error.render().to_string();
                let text = text.trim_start_matches("error: ");
                let first = text.split("\n\nUsage:").next().unwrap_or(text).split_whitespace().collect::<Vec<_>>().join(" ");
                return exit::code(&out, Err(Error::new(Code::Usage, first).hint("see `vmoon help`")));
            }
            out.usage(&error.render());
            ExitCode::from(Code::Usage.exit())
        }
    }
}
