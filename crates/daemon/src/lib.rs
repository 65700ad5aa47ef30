//! The per-user daemon: machine tasks, session tasks, operations, events, the store, HTTP.
//!
//! Everything in it is replaceable: machines and their holders live outside, the truth about them is observed, and what must
//! be remembered is in the store before anything is done. Killing it loses nothing. It runs on one thread, since waking an
//! idle core costs more than an evaluation; the store has a thread of its own.

mod awake;
pub mod connections;
mod context;
mod directory;
mod drivers;
mod environments;
pub mod hooks;
mod http;
mod machine;
mod operations;
pub mod service;
mod session;
mod settings;
mod start;
mod store;
mod timer;

pub use http::serve as serve_connection;
pub use settings::Quota;
pub use start::{Daemon, Lock, Tools, bind};

use std::{ffi::OsString, os::fd::OwnedFd, path::PathBuf};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::paths::Paths;

/// What evaluates the Lua text of strangers for a daemon whose program is `vmoon`: a sealed process for each text.
pub fn evaluator(vmoon: PathBuf) -> impl vmoon_packages::Evaluator {
    service::packages::evaluator(vmoon)
}

/// What a daemon is started with.
#[derive(Debug)]
pub struct Config {
    /// Where it keeps things.
    pub paths: Paths,
    /// The program that holds a Lua VM: our own binary.
    pub host_exe: PathBuf,
    /// Its first arguments.
    pub host_args: Vec<OsString>,
    /// Written one byte when clients can connect.
    pub ready_fd: Option<OwnedFd>,
}

/// Runs the daemon until it is asked to end.
///
/// # Errors
/// [`Code::DaemonRunning`] if there is one already: it was asked to bind its socket anew, in case somebody removed it.
pub fn run(config: Config) -> Result<()> {
    config.paths.make()?;
    let quota = settings::read(&config.paths.config)?;
    raise_limits();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| Error::io("start the runtime", error))?;
    let (signals, lock) = runtime.block_on(async {
        let signals = start::Signals::watch()?;
        let lock = Lock::take(&config.paths.lock()).inspect_err(|error| {
            if error.code() == Code::DaemonRunning
                && let Some(pid) = error.detail_value().and_then(|d| d["pid"].as_i64())
            {
                start::ask_to_rebind(pid as i32);
            }
        })?;
        Ok::<_, Error>((signals, lock))
    })?;
    let served = runtime.block_on(async {
        let tools = Tools { vmoon: config.host_exe.clone(), cache: config.paths.cache.clone() };
        let connections = drivers::connect(&config)?;
        let makers = drivers::makers(&config.paths.state, service::packages::packages(&config.paths.state, &tools));
        let daemon = Daemon::start_equipped(&config.paths.state, connections, makers, hooks::Hooks::default(), quota, tools).await?;
        start::serve(&config.paths, daemon, config.ready_fd, signals).await
    });
    // Whatever a driver still does on a thread of the runtime ends before another daemon may begin.
    drop(runtime);
    drop(lock);
    served
}

/// Each session costs a descriptor or two: use as many as the system lets us have.
fn raise_limits() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Refused only where the hard limit was lowered meanwhile; then the old limit stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
