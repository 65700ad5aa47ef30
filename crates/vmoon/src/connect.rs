//! The daemon as the command line sees it: asked over the socket, started when it does not answer, asked again when it dies.

use crate::out::Out;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
};
use std::{
    env,
    ffi::OsStr,
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use tokio::time::timeout;
use vmoon_api::{Api as _, Client, requests::Empty, views::Hello};
use vmoon_core::{Code, Error, Result, name::escape};
use vmoon_sys::{
    paths::Paths,
    process::{Detached, Reaped, reap},
};

/// How long a daemon may take until it answers.
const START: Duration = Duration::from_secs(10);
/// How long a daemon that holds the lock is waited for before it is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long an answer may take that waits for nothing.
const ANSWER: Duration = Duration::from_secs(30);
/// How long an answer may take that waits: the daemon answers after at most a minute.
const LONG_ANSWER: Duration = Duration::from_secs(90);
/// How often one question is asked of daemons that die over it.
const TRIES: u32 = 25;
/// A log larger than this is set aside when a daemon is started, bytes.
const LOG_MAX: u64 = 8 << 20;

/// The daemon of this user.
pub(crate) struct Daemon {
    paths: Paths,
    client: Client,
    out: Out,
    autostart: bool,
    /// Whether it was said which daemon is asked.
    introduced: AtomicBool,
}

impl Daemon {
    /// Nothing is connected yet.
    pub(crate) fn new(paths: Paths, out: Out) -> Self {
        let off = env::var_os("VMOON_NO_AUTOSTART").is_some_and(|value| !value.is_empty() && value != "0");
        Self { client: Client::of(&paths.state, paths.found_socket()), paths, out, autostart: !off, introduced: AtomicBool::new(false) }
    }

    /// Where it keeps things.
    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The client. Its calls neither start the daemon nor are they repeated; see [`Self::ask`].
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Asks something that may be asked twice. A daemon that does not answer is started, and asked again if it dies.
    ///
    /// # Errors
    /// Those of the call; `daemon.unreachable` when no daemon can be started or none lives long enough to answer.
    pub(crate) async fn ask<T>(&self, call: impl AsyncFn(&Client) -> Result<T>) -> Result<T> {
        self.repeat(ANSWER, call).await
    }

    /// As [`Self::ask`], for calls that the daemon answers after up to a minute.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn hold<T>(&self, call: impl AsyncFn(&Client) -> Result<T>) -> Result<T> {
        self.repeat(LONG_ANSWER, call).await
    }

    /// As [`Self::hold`], for what takes as long as it takes, and is the same question whenever it is asked again.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn linger<T>(&self, call: impl AsyncFn(&Client) -> Result<T>) -> Result<T> {
        loop {
            // Asked anew now and then, so that a daemon that hangs is noticed by who looks at its log.
            if let Ok(answer) = timeout(LONG_ANSWER, self.repeat(2 * LONG_ANSWER, &call)).await {
                return answer;
            }
        }
    }

    /// Asks something that must not be asked twice: a daemon is there before, and an answer that is lost stays lost.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn ask_once<T>(&self, call: impl AsyncFn(&Client) -> Result<T>) -> Result<T> {
        self.hello().await?;
        bounded(ANSWER, call(&self.client)).await
    }

    /// Who answers, after starting it if need be.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn hello(&self) -> Result<Hello> {
        self.ask(async |client| client.hello(Empty {}).await).await
    }

    /// Who answers; `None` if nobody does. Starts nothing.
    ///
    /// # Errors
    /// Those of a daemon that answers with an error.
    pub(crate) async fn hello_if_running(&self) -> Result<Option<Hello>> {
        match bounded(ANSWER, self.client.hello(Empty {})).await {
            Ok(hello) => Ok(Some(hello)),
            Err(error) if is_away(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn repeat<T>(&self, limit: Duration, call: impl AsyncFn(&Client) -> Result<T>) -> Result<T> {
        for _ in 1..TRIES {
            self.introduce().await;
            match bounded(limit, call(&self.client)).await {
                Err(error) if is_away(&error) => {
                    tracing::debug!(error = %error.chain(), "no daemon answers");
                    self.ensure().await?;
                }
                answer => return answer,
            }
        }
        bounded(limit, call(&self.client)).await
    }

    /// Says with -v which daemon is asked, once. One that does not answer is no concern of this.
    async fn introduce(&self) {
        if !self.out.is_verbose() || self.introduced.load(Ordering::Relaxed) {
            return;
        }
        if let Ok(hello) = bounded(ANSWER, self.client.hello(Empty {})).await {
            self.introduced.store(true, Ordering::Relaxed);
            let (pid, version) = (hello.pid, escape(&hello.version));
            self.out.step(&format!("asking the daemon at {} (process {pid}, version {version})", self.client.socket().display()));
        }
    }

    /// Starts the daemon because the user says so, whatever the environment forbids.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub(crate) async fn start(&self) -> Result<()> {
        self.ensure_as(true).await
    }

    /// Makes sure that a daemon answers.
    ///
    /// # Errors
    /// `daemon.unreachable`, with the last lines of its log.
    pub(crate) async fn ensure(&self) -> Result<()> {
        self.ensure_as(self.autostart).await
    }

    async fn ensure_as(&self, autostart: bool) -> Result<()> {
        let deadline = vmoon_sys::clock::instant() + START;
        loop {
            // One that was started meanwhile may listen elsewhere: it says so in the state directory.
            self.client.moved(self.paths.found_socket());
            // A connection alone says that it listens; the question itself says whether it speaks our version.
            match tokio::net::UnixStream::connect(self.client.socket()).await {
                Ok(_) => return Ok(()),
                Err(error) if !autostart => {
                    return Err(Error::new(Code::DaemonUnreachable, "no daemon answers, and VMOON_NO_AUTOSTART forbids to start one")
                        .source(error)
                        .hint("vmoon daemon start"));
                }
                Err(_) => {}
            }
            self.paths.make()?;
            // Watched from before the start, so that a daemon that says meanwhile where it listens is not missed.
            let watch = watch(&self.paths.state);
            if self.spawn(deadline)? {
                continue;
            }
            // Another one was quicker. It was asked to bind its socket anew, or starts just now and binds it when it is ready.
            if vmoon_sys::clock::instant() >= deadline {
                return Err(self.failed("another daemon holds the lock and does not answer"));
            }
            if let Ok(watch) = watch
                && tokio::net::UnixStream::connect(self.paths.found_socket()).await.is_err()
            {
                readable(&watch, deadline.min(vmoon_sys::clock::instant() + AGAIN))?;
            }
        }
    }

    /// Starts a daemon and waits until it says that it listens. `false` if another one holds the lock.
    fn spawn(&self, deadline: Instant) -> Result<bool> {
        let exe = own_program()?;
        let log = self.log()?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| Error::io("make a pipe", error.into()))?;
        self.out.step("starting the daemon");
        // The standard output of the new daemon is the pipe on which it says that it listens.
        let args = ["daemon", "run", "--ready-fd", "1"].map(OsStr::new).to_vec();
        let pid = Detached { exe: &exe, args, env: vec![], stdio: [None, Some(write.as_fd()), Some(log.as_fd())] }
            .spawn()
            .map_err(|error| Error::io("start the daemon", error))?;
        drop(write);
        match wait_ready(&read, deadline)? {
            Ready::Yes => Ok(true),
            Ready::Late => Err(self.failed("the daemon was started and did not answer within 10 seconds")),
            Ready::Ended => match wait_end(pid) {
                Reaped::Code(code) if code == i32::from(Code::DaemonRunning.exit()) => Ok(false),
                _ => Err(self.failed("the daemon was started and ended at once")),
            },
        }
    }

    fn log(&self) -> Result<fs::File> {
        let path = self.paths.log();
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_MAX) {
            // Where this fails the log goes on growing; no reason not to start.
            let _ = fs::rename(&path, path.with_extension("log.1"));
        }
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::io(format_args!("open the log {}", path.display()), error))
    }

    fn failed(&self, what: &'static str) -> Error {
        let tail = last_lines(&self.paths.log(), 3);
        let message = if tail.is_empty() { what.to_owned() } else { format!("{what}; its log ends: {}", tail.join(" | ")) };
        Error::new(Code::DaemonUnreachable, message).hint(format!("see {}, or run `vmoon daemon` to watch it", self.paths.log().display()))
    }
}

/// Whether an error says that there is no daemon to talk to, as opposed to one that says no.
pub(crate) fn is_away(error: &Error) -> bool {
    matches!(error.code(), Code::DaemonUnreachable | Code::DaemonStopping)
}

async fn bounded<T>(limit: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(limit, call).await.unwrap_or_else(|_| {
        Err(Error::new(Code::Timeout, format!("the daemon took the question and did not answer within {} s", limit.as_secs()))
            .hint("see the daemon's log; sessions live on while it is replaced: vmoon daemon stop"))
    })
}

/// Our own program; where it was replaced while we run, the new one.
///
/// # Errors
/// Where the system does not tell.
pub(crate) fn own_program() -> Result<PathBuf> {
    let exe = env::current_exe().map_err(|error| Error::io("find our own program", error))?;
    // proc_pid_exe(5): the kernel marks the path of a file that is not there any more.
    let replaced = exe.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(replaced.filter(|path| !exe.exists() && path.exists()).unwrap_or(exe))
}

enum Ready {
    Yes,
    Ended,
    Late,
}

/// A descriptor that becomes readable when something appears in the directory.
fn watch(dir: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    let watch = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    add_watch(&watch, dir, WatchFlags::MOVED_TO)?;
    Ok(watch)
}

/// Waits until there is something to read, or until then; `false` if the time is over.
fn readable(fd: &OwnedFd, deadline: Instant) -> Result<bool> {
    loop {
        let rest = deadline.saturating_duration_since(vmoon_sys::clock::instant());
        let limit = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::io("wait for the daemon", error.into())),
        }
    }
}

fn wait_ready(pipe: &OwnedFd, deadline: Instant) -> Result<Ready> {
    if !readable(pipe, deadline)? {
        return Ok(Ready::Late);
    }
    let mut byte = [0];
    let n = rustix::io::read(pipe, &mut byte).map_err(|error| Error::io("hear from the daemon", error.into()))?;
    Ok(if n == 0 { Ready::Ended } else { Ready::Yes })
}

/// The daemon closed its pipe: it ends now. Waits for that, so that its exit status is known.
fn wait_end(pid: i32) -> Reaped {
    if let Some(identity) = vmoon_sys::process::Identity::of(pid)
        && let Ok(Some(process)) = vmoon_sys::process::Pidfd::open(&identity)
    {
        let _ = process.wait(START);
    }
    reap(pid)
}

/// The last lines of a file, made safe to show; none where it cannot be read.
fn last_lines(path: &std::path::Path, count: usize) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.take(4096).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| escape(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_end_of_a_log_is_shown_whatever_is_in_it() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[&[b'x'; 9000][..], b"\none\n\n\xfftwo\x1b\nthree\n"].concat()).unwrap();
        assert_eq!(last_lines(file.path(), 2), ["\u{fffd}two\\u{1b}", "three"]);
        assert!(last_lines(std::path::Path::new("/no/such/log"), 2).is_empty());
    }

    #[test]
    fn a_watched_directory_tells_of_what_appears_in_it() {
        let soon = || vmoon_sys::clock::instant() + Duration::from_millis(20);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("new")).unwrap();
        let watch = watch(dir.path()).unwrap();
        assert!(!readable(&watch, soon()).unwrap());
        std::fs::rename(dir.path().join("new"), dir.path().join("api.sock")).unwrap();
        assert!(readable(&watch, soon()).unwrap());
    }

    #[test]
    fn a_pipe_tells_ready_from_ended_from_late() {
        let soon = || vmoon_sys::clock::instant() + Duration::from_millis(20);
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        assert!(matches!(wait_ready(&read, soon()), Ok(Ready::Late)));
        rustix::io::write(&write, b"1").unwrap();
        assert!(matches!(wait_ready(&read, soon()), Ok(Ready::Yes)));
        drop(write);
        assert!(matches!(wait_ready(&read, soon()), Ok(Ready::Ended)));
    }
}
