//! Starting: the lock, the store, adoption, the socket. And ending: machines and sessions live on.

use crate::{
    connections::{Connections, Maker},
    context::Context,
    hooks::Hooks,
    http,
    machine::{Start, task::Task},
    service::{Connected, DEFAULT, Service, packages::Workshop},
    settings::Quota,
    store::{About, Store},
};
use rustix::fs::{FlockOperation, Mode, flock};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};
use vmoon_api::Api;
use vmoon_core::{Code, Error, Result, event::EventKind};
use vmoon_sys::{paths::Paths, secrets::Secrets};

/// The lock that makes a process the daemon of a state directory. Held until it ends, however it ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not used")] File);

impl Lock {
    /// Takes the lock and writes our pid into it.
    ///
    /// # Errors
    /// [`Code::DaemonRunning`] if another daemon has it, with its pid in the detail.
    pub fn take(path: &Path) -> Result<Self> {
        let io = |error: std::io::Error| Error::io(format_args!("lock {}", path.display()), error);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                file.set_len(0).map_err(io)?;
                file.rewind().map_err(io)?;
                write!(file, "{}", std::process::id()).map_err(io)?;
                Ok(Self(file))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let pid: Option<i32> = pid.trim().parse().ok();
                let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                Err(Error::new(Code::DaemonRunning, format!("{who} is the daemon of {} already", path.parent().unwrap_or(path).display()))
                    .hint("use it, or end it: vmoon daemon stop")
                    .detail(serde_json::json!({ "pid": pid })))
            }
            Err(error) => Err(io(error.into())),
        }
    }
}

/// What packages are made with.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Our own program, which evaluates rockspecs and confines builds.
    pub vmoon: std::path::PathBuf,
    /// Where downloads are kept.
    pub cache: std::path::PathBuf,
}

/// A running daemon: everything but its socket.
pub struct Daemon {
    /// What it offers.
    pub service: Arc<Service>,
    /// Told when it is asked to end.
    pub stop: Arc<Notify>,
}

impl Daemon {
    /// Opens the store in `state` and adopts what it tells of.
    ///
    /// # Errors
    /// When the store cannot be opened or read.
    pub async fn start(state: &Path, connections: Vec<Connected>, hooks: Hooks) -> Result<Self> {
        Self::start_limited(state, connections, hooks, Quota::default()).await
    }

    /// The same with quotas of the user's own.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_limited(state: &Path, connections: Vec<Connected>, hooks: Hooks, quota: Quota) -> Result<Self> {
        Self::start_with(state, connections, Vec::new(), hooks, quota).await
    }

    /// The same with drivers for connections that users add.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(state: &Path, given: Vec<Connected>, makers: Vec<Arc<dyn Maker>>, hooks: Hooks, quota: Quota) -> Result<Self> {
        let tools = Tools { vmoon: std::path::PathBuf::new(), cache: state.join("cache") };
        Self::start_equipped(state, given, makers, hooks, quota, tools).await
    }

    /// The same with what packages are made with.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_equipped(
        state: &Path,
        given: Vec<Connected>,
        makers: Vec<Arc<dyn Maker>>,
        hooks: Hooks,
        quota: Quota,
        tools: Tools,
    ) -> Result<Self> {
        let store = Store::open(&state.join("vmoon.db"), hooks.clone())?;
        let known = given.iter().map(|c| c.connection.clone()).collect::<Vec<_>>();
        let begun = store
            .run(move |tx| {
                for connection in &known {
                    tx.put_connection(connection)?;
                }
                tx.event(EventKind::DaemonStarted, About::default(), format!("vmoon {}", env!("CARGO_PKG_VERSION")))?;
                tx.drop_orphaned_sessions()
            })
            .await;
        match begun {
            // Nothing of this is missed, and whoever wants to make room needs us.
            Err(error) if error.code() == Code::DiskFull => tracing::warn!(error = %error.chain(), "the disk is full"),
            other => drop(other?),
        }
        let (machines, sessions, operations, stored, default) = store
            .run(move |tx| {
                let operations = tx.operations(true, usize::MAX >> 1)?;
                Ok((tx.machines()?, tx.sessions()?, operations, tx.connections()?, tx.setting(DEFAULT)?))
            })
            .await?;
        let secrets = Secrets::new(state.join("secrets"));
        let connections = Connections::new(given, stored, makers, |id| secrets.get(id));
        connections.set_default(default.and_then(|id| id.parse().ok()));
        let context = Context::new(store, hooks, state.to_path_buf(), connections);
        context.sweep(&sessions.iter().map(|s| s.id).collect());
        for row in machines {
            let Some(entry) = context.connections.get(row.connection) else {
                tracing::warn!(machine = %row.name, "its connection is gone; it is left alone");
                continue;
            };
            let record = operations.iter().find(|op| Some(op.id) == row.operation).cloned();
            let own = sessions.iter().filter(|s| s.machine == row.id).cloned().collect();
            context.add_machine(Task::start(context.clone(), entry, row, Start::Adopt(record), own));
        }
        Connections::start(&context);
        let stop = Arc::new(Notify::new());
        let workshop = Workshop::new(state, &tools);
        let service = Service::new(context, stop.clone(), quota, workshop);
        service.bury_changes(operations).await?;
        Ok(Self { service: Arc::new(service), stop })
    }
}

/// Binds the daemon's socket, replacing whatever a dead daemon left there, and says in the state directory where it is. Only the holder of the lock may call
/// this.
///
/// # Errors
/// When the directory or the socket cannot be made; [`Code::DaemonOther`] if the daemon of another state directory listens there.
pub fn bind(paths: &Paths) -> Result<UnixListener> {
    vmoon_sys::paths::private_dir(&paths.runtime)?;
    let socket = paths.socket();
    alone(paths, &socket)?;
    let listener = bind_at(paths, &socket)?;
    if let Err(error) = vmoon_sys::atomic::write(&paths.listens(), socket.as_os_str().as_encoded_bytes()) {
        // On a full disk, for one: who has our runtime directory finds us all the same.
        tracing::warn!(error = %error.chain(), "where the daemon listens could not be written into the state directory");
    }
    Ok(listener)
}

/// Nobody else listens there: the lock is of the state directory alone, so whoever does, and is not us, is the daemon of another one.
fn alone(paths: &Paths, socket: &Path) -> Result<()> {
    let Ok(there) = std::os::unix::net::UnixStream::connect(socket) else { return Ok(()) };
    let who = rustix::net::sockopt::socket_peercred(&there).map(|peer| peer.pid.as_raw_nonzero().get()).ok();
    if who == i32::try_from(std::process::id()).ok() {
        return Ok(());
    }
    let who = who.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    let why = format!("{who} listens at {} and is not the daemon of {}", socket.display(), paths.state.display());
    Err(Error::new(Code::DaemonOther, why)
        .hint("set HOME or XDG_STATE_HOME for that one, or XDG_RUNTIME_DIR to a directory of its own for this one"))
}

fn bind_at(paths: &Paths, socket: &Path) -> Result<UnixListener> {
    let io = |error| Error::io(format_args!("listen on {}", socket.display()), error);
    // Bound under another name in a directory of its own and renamed, so that nobody meets a socket that is not yet 0600.
    let dir = paths.runtime.join(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(io)?;
    let fresh = dir.join("api.sock");
    let bound = (|| {
        let listener = UnixListener::bind(&fresh)?;
        rustix::fs::chmod(&fresh, Mode::RUSR | Mode::WUSR)?;
        std::fs::rename(&fresh, socket)?;
        Ok(listener)
    })();
    let _ = std::fs::remove_dir_all(&dir);
    bound.map_err(io)
}

/// Binds where those do who have no runtime directory, because ours is gone.
fn elsewhere(paths: &Paths, error: Error) -> Result<(UnixListener, Paths)> {
    let other = paths.without_login();
    match other.runtime == paths.runtime || error.code() == Code::DaemonOther {
        true => Err(error),
        false => Ok((bind(&other)?, other)),
    }
}

/// Asks the daemon with this pid to bind its socket anew: somebody removed it.
pub(crate) fn ask_to_rebind(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // It may have ended meanwhile; then there is nothing to ask.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::HUP);
    }
}

/// The signals that the daemon obeys.
pub(crate) struct Signals {
    hup: Signal,
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Watches for them from now on. To be called before the lock is taken: whoever finds it taken sends a HUP, which must not
    /// kill a daemon that is still starting.
    pub(crate) fn watch() -> Result<Self> {
        let watch = |kind| signal(kind).map_err(|error| Error::io("watch for signals", error));
        Ok(Self { hup: watch(SignalKind::hangup())?, term: watch(SignalKind::terminate())?, int: watch(SignalKind::interrupt())? })
    }
}

/// Serves until asked to end. `ready` is written one byte when clients can connect.
pub(crate) async fn serve(paths: &Paths, daemon: Daemon, ready: Option<OwnedFd>, mut signals: Signals) -> Result<()> {
    let mut listener = bind(paths)?;
    if let Some(fd) = ready {
        // Whoever started us may have stopped waiting.
        let _ = File::from(fd).write_all(b"1");
    }
    tracing::info!(socket = %paths.socket().display(), pid = std::process::id(), "ready");
    let api: Arc<dyn Api> = daemon.service.clone();
    let state: Arc<Path> = paths.state.as_path().into();
    let mut bound = paths.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(http::serve_of(stream, api.clone(), Some(state.clone())))),
                Err(error) => {
                    // Out of descriptors, most likely: wait for some to be closed instead of spinning.
                    tracing::warn!(%error, "a connection could not be accepted");
                    crate::timer::pause(Duration::from_millis(100)).await;
                }
            },
            // The runtime directory goes at logout, and machines may keep us here.
            _ = signals.hup.recv() => match bind(paths).map(|new| (new, paths.clone())).or_else(|error| elsewhere(paths, error)) {
                Ok((new, at)) => (listener, bound) = (new, at),
                Err(error) => tracing::error!(error = %error.chain(), "the socket could not be bound anew"),
            },
            _ = signals.term.recv() => break,
            _ = signals.int.recv() => break,
            () = daemon.stop.notified() => {
                // The answer to whoever asked is still on its way.
                crate::timer::pause(Duration::from_millis(20)).await;
                break;
            }
        }
    }
    tracing::info!("ending; machines and sessions live on");
    // What is done to packages is whole or nothing.
    daemon.service.stop_changes();
    let _ = std::fs::remove_file(bound.socket());
    let _ = std::fs::remove_file(paths.listens());
    daemon.service.close().await;
    Ok(())
}
