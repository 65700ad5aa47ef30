//! `vmoon completions`: the shell's side, and the answers to what the shell asks. Never starts a daemon and never complains.

use crate::{ctx::Ctx, exit::Exit};
use clap_complete::{ArgValueCompleter, CompleteEnv, CompletionCandidate, env::Shells};
use std::{
    env,
    ffi::{OsStr, OsString},
    time::Duration,
};
use vmoon_api::{
    Api as _, Client,
    requests::{Empty, ListPackages, ListServers, SearchPackages},
};
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

/// What begins with what was typed.
fn completer(all: fn() -> Option<Vec<String>>) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        let typed = current.to_string_lossy();
        let fits = |name: &String| name.starts_with(&*typed) && vmoon_core::name::escape(name) == name.as_str();
        all().unwrap_or_default().into_iter().filter(fits).map(CompletionCandidate::new).collect::<Vec<_>>()
    })
}

/// Completes the names of machines.
pub(crate) fn machines() -> ArgValueCompleter {
    completer(|| {
        let machines = ask(async |client| client.list_machines(Empty {}).await)?;
        // A name that a shell would take apart is better typed by hand.
        Some(machines.into_iter().map(|machine| machine.name).filter(|name| vmoon_core::name::check(name).is_ok()).collect())
    })
}

/// Completes the names of environments.
pub(crate) fn environments() -> ArgValueCompleter {
    completer(|| {
        let all = ask(async |client| client.list_environments(Empty {}).await)?;
        Some(all.into_iter().map(|environment| environment.name).collect())
    })
}

/// Completes the names of what is installed in the environment that the line names.
pub(crate) fn installed() -> ArgValueCompleter {
    completer(|| {
        let request = ListPackages { environment: environment_of(env::args_os()), newer: None, offline: Some(true) };
        let all = ask(async |client| client.list_packages(request).await)?;
        Some(all.into_iter().map(|rock| rock.name).collect())
    })
}

/// Completes the names of packages that servers have, as far as that is known without asking them.
pub(crate) fn packages() -> ArgValueCompleter {
    completer(|| {
        let request = SearchPackages { query: String::new(), environment: environment_of(env::args_os()), offline: Some(true) };
        let all = ask(async |client| client.search_packages(request).await)?;
        Some(all.into_iter().map(|rock| rock.name).collect())
    })
}

/// Completes the names of profiles.
pub(crate) fn profiles() -> ArgValueCompleter {
    completer(|| {
        let all = ask(async |client| client.list_profiles(Empty {}).await)?;
        Some(all.into_iter().map(|profile| profile.name).collect())
    })
}

/// Completes the names of rocks servers.
pub(crate) fn servers() -> ArgValueCompleter {
    completer(|| {
        let named = environment_of(env::args_os());
        let request = ListServers { environment: Some(named).filter(|name| name != super::pkg::CHOSEN) };
        let all = ask(async |client| client.list_servers(request).await)?;
        Some(all.into_iter().map(|server| server.name).collect())
    })
}

/// The environment that a line names: by `--env NAME` or `--env=NAME`, else by the variable, else the one that was chosen.
fn environment_of(line: impl Iterator<Item = OsString>) -> String {
    let mut words = line.map(|word| word.to_string_lossy().into_owned());
    let mut named = None;
    while let Some(word) = words.next() {
        if word == "--env" {
            named = words.next();
        } else if let Some(name) = word.strip_prefix("--env=") {
            named = Some(name.to_owned());
        }
    }
    named.filter(|name| !name.is_empty() && !name.starts_with('-')).unwrap_or_else(|| super::pkg::Of::default().name())
}

/// What the daemon answers, if it runs and is quick.
fn ask<T>(question: impl AsyncFnOnce(Client) -> Result<T>) -> Option<T> {
    let paths = Paths::from_env().ok()?;
    let client = Client::of(&paths.state, paths.found_socket());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, question(client)).await }).ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_the_one_that_the_line_names() {
        let of = |line: &str| environment_of(line.split(' ').map(OsString::from));
        assert_eq!(of("vmoon -- vmoon pkg rm --env work lp"), "work");
        assert_eq!(of("vmoon -- vmoon pkg rm --env=old lp"), "old");
        assert_eq!(of("vmoon -- vmoon pkg rm --env"), super::super::pkg::Of::default().name());
    }
}
