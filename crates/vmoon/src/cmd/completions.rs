//! `vmoon completions`: the shell's side, and the answers to what the shell asks. Never starts a daemon and never complains.

use crate::{ctx::Ctx, exit::Exit};
use clap_complete::{ArgValueCompleter, CompleteEnv, CompletionCandidate, env::Shells};
use std::{env, ffi::OsStr, time::Duration};
use vmoon_api::{Api as _, Client, requests::Empty, views::MachineView};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::paths::Paths;

/// How long the daemon may take to name its machines.
const PATIENCE: Duration = Duration::from_millis(300);
/// The variable with which a shell asks.
const ASKED: &str = "COMPLETE";

/// Which shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon completions bash > ~/.local/share/bash-completion/completions/vmoon
  vmoon completions fish > ~/.config/fish/completions/vmoon.fish
  vmoon completions zsh                put its output where your fpath finds it, as _vmoon")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_parser = ["bash", "zsh", "fish", "elvish", "powershell"])]
    shell: String,
}

/// Prints the script.
pub(crate) fn run(ctx: &Ctx, args: &Args) -> Result<Exit> {
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell).ok_or_else(|| Error::new(Code::Usage, "there is no such shell"))?;
    let mut script = Vec::new();
    shell.write_registration(ASKED, "vmoon", "vmoon", "vmoon", &mut script).map_err(|error| Error::io("write the script", error))?;
    ctx.out.bytes(&script)?;
    Ok(Exit::OK)
}

/// Answers the shell if it asks; `true` if it did.
pub(crate) fn answer_shell() -> bool {
    if env::var_os(ASKED).is_none_or(|value| value.is_empty()) {
        return false;
    }
    let here = env::current_dir().ok();
    // What goes wrong here would be printed into somebody's command line.
    CompleteEnv::with_factory(crate::cli::command).var(ASKED).try_complete(env::args_os(), here.as_deref()).unwrap_or(true)
}

/// Completes the names of machines.
pub(crate) fn machines() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let typed = current.to_string_lossy();
        names().unwrap_or_default().into_iter().filter(|name| name.starts_with(&*typed)).map(CompletionCandidate::new).collect::<Vec<_>>()
    })
}

fn names() -> Option<Vec<String>> {
    let client = Client::new(Paths::from_env().ok()?.socket());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let machines: Vec<MachineView> =
        runtime.block_on(async { tokio::time::timeout(PATIENCE, client.list_machines(Empty {})).await }).ok()?.ok()?;
    // A name that a shell would take apart is better typed by hand.
    Some(machines.into_iter().map(|machine| machine.name).filter(|name| vmoon_core::name::check(name).is_ok()).collect())
}
