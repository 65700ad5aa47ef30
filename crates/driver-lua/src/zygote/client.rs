//! The driver's side: finds or starts the zygote of our program, and asks it.
//!
//! A connection belongs to one thread while that waits for an answer. Idle ones are kept: as long as the driver has one, the
//! zygote stays.

use super::{Answer, Fork, PID_ROOM, PREFIX, ROOM, Request, VERSION, arguments, name, read};
use crate::layout::{Layout, MARK, Shape};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{AtFlags, FlockOperation, Mode, OFlags, chmodat, flock, unlinkat},
    net::SocketType,
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use vmoon_core::MachineId;
use vmoon_sys::{
    clock,
    passing::{self, MAX_MESSAGE, Received},
    peer,
    process::{Detached, Identity, Reaped, boot_id, reap},
    tree,
};

/// How long a zygote may take to say hello, or to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long nobody tries again after one could not be started.
const REST: Duration = Duration::from_secs(10);
/// Connections kept for the next request.
const KEEP: usize = 8;
/// How many zygotes may end under our hands until we give up.
const TRIES: usize = 3;
/// How many clients may wait for the zygote to take them.
const BACKLOG: i32 = 1024;

/// The zygote whose child a holder is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parent {
    pub(crate) process: Identity,
}

/// A connection that has said hello.
#[derive(Debug)]
pub(crate) struct Conn {
    fd: OwnedFd,
}

impl Conn {
    /// Sends a request; the descriptors stay ours.
    pub(crate) fn send(&self, request: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        passing::send(&self.fd, request, fds, true)
    }

    /// The next answer.
    ///
    /// # Errors
    /// `BrokenPipe` if the zygote is gone, `TimedOut` if it does not answer, `InvalidData` if that is no answer.
    pub(crate) fn answer(&self) -> io::Result<(Answer, Vec<OwnedFd>)> {
        let until = Instant::now() + ANSWER;
        let mut buffer = [0; 1024];
        loop {
            match passing::receive(&self.fd, &mut buffer, false)? {
                Received::Message(len, fds) => return Ok((read(&buffer[..len])?, fds)),
                Received::Gone => return Err(io::ErrorKind::BrokenPipe.into()),
                Received::Later => {}
            }
            let rest = until.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A connection to the zygote of that name; its hello is read.
    fn open(dir: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        Self::meet(dir, name).map(|(conn, _)| conn)
    }

    /// The same, and which process it is.
    fn meet(dir: BorrowedFd<'_>, name: &str) -> io::Result<(Self, Identity)> {
        let this = Self { fd: passing::connect(dir, name, SocketType::SEQPACKET)? };
        peer::check(&this.fd).map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, error.to_string()))?;
        match this.answer()? {
            (Answer::Hello { version, min_version, process }, _) if (min_version..=version).contains(&VERSION) => Ok((this, process)),
            (Answer::Hello { .. }, _) => Err(io::Error::new(io::ErrorKind::Unsupported, "the zygote speaks another version")),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Has the zygote record how a copy of one of its children ends.
    fn adopt(&self, pid: i32, machine: MachineId, life: u64) -> io::Result<()> {
        self.send(&serde_json::to_vec(&Request::<Shape>::Adopt { pid, machine, life })?, &[])?;
        match self.answer()? {
            (Answer::Adopted, _) => Ok(()),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn settle(&self) -> io::Result<()> {
        self.send(&serde_json::to_vec(&Request::<Shape>::Settle)?, &[])?;
        match self.answer()? {
            (Answer::Settled, _) => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The zygotes that one driver asks to fork.
#[derive(Debug)]
pub(crate) struct Zygotes {
    exe: PathBuf,
    /// What makes the program a zygote; `None` if it cannot be one.
    args: Option<Vec<OsString>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Conn>,
    /// Those we have started: ours to reap.
    started: Vec<i32>,
    not_before: Option<Instant>,
}

impl Zygotes {
    /// Those of the program `exe`, which `holder_args` make a holder. Starts nothing.
    pub(crate) fn new(exe: PathBuf, holder_args: &[OsString]) -> Self {
        Self { exe, args: arguments(holder_args), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request to fork; the connection will have the answer. `None` where there is no zygote and none can be started: the
    /// holder is then started as a program.
    pub(crate) fn fork(&self, layout: &Layout, fork: Fork, fds: &[BorrowedFd<'_>]) -> Option<Conn> {
        let args = self.args.as_ref()?;
        let request = serde_json::to_vec(&Request::Fork(Box::new(fork))).ok().filter(|request| request.len() <= MAX_MESSAGE)?;
        loop {
            let Some(idle) = self.lock().idle.pop() else { break };
            // One that has ended is found out here; a request that was sent whole was not sent twice.
            if idle.send(&request, fds).is_ok() {
                return Some(idle);
            }
        }
        if self.lock().not_before.is_some_and(|at| clock::instant() < at) {
            return None;
        }
        match self.connect(layout, args).and_then(|conn| conn.send(&request, fds).map(|()| conn)) {
            Ok(conn) => Some(conn),
            Err(error) => {
                tracing::warn!(%error, "there is no zygote; machines are started as programs");
                self.lock().not_before = Some(clock::instant() + REST);
                None
            }
        }
    }

    /// Gives a connection back whose every request is answered.
    pub(crate) fn keep(&self, conn: Conn) {
        let mut state = self.lock();
        if state.idle.len() < KEEP {
            state.idle.push(conn);
        }
    }

    fn connect(&self, layout: &Layout, args: &[OsString]) -> io::Result<Conn> {
        let boot = layout.runs().join(boot_id());
        let dir = open_dir(&boot)?;
        let name = name(&self.exe)?;
        let mut last = io::Error::from(io::ErrorKind::BrokenPipe);
        for _ in 0..TRIES {
            self.lock().started.retain(|pid| reap(*pid) == Reaped::Running);
            match Conn::open(dir.as_fd(), &name) {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    match self.start(&boot, &dir, &name, args) {
                        Err(error) if ended(&error) => last = error,
                        started => return started,
                    }
                }
                // It has ended as we came.
                Err(error) if ended(&error) => last = error,
                opened => return opened,
            }
        }
        Err(last)
    }

    /// Starts a zygote, unless somebody else just did.
    fn start(&self, boot: &Path, dir: &OwnedFd, name: &str, args: &[OsString]) -> io::Result<Conn> {
        // A descriptor of its own: the lock belongs to it, and the zygote must not inherit that.
        let locked = open_dir(boot)?;
        while let Err(error) = flock(&locked, FlockOperation::LockExclusive) {
            if error != rustix::io::Errno::INTR {
                return Err(error.into());
            }
        }
        match Conn::open(dir.as_fd(), name) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
            opened => return opened,
        }
        sweep(dir);
        let listen = passing::listen(dir.as_fd(), name, SocketType::SEQPACKET, BACKLOG)?;
        chmodat(dir, name, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        let (mark, zygote) = ("-".repeat(ROOM), "-".repeat(PID_ROOM));
        let mut args: Vec<_> = args.iter().map(OsString::as_os_str).collect();
        // Room for the arguments that its children show.
        args.push(mark.as_ref());
        let env = vec![(MARK, mark.as_str()), (tree::ZYGOTE, zygote.as_str())];
        let pid = Detached { exe: &self.exe, args, env, stdio: [Some(listen.as_fd()), Some(dir.as_fd()), None] }.spawn()?;
        drop(listen);
        self.lock().started.push(pid);
        // It keeps the lock from its last look until it is gone: nobody connects to one that leaves.
        Conn::open(dir.as_fd(), name)
    }
}

fn ended(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotFound)
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The names of the sockets of zygotes, whatever program they run.
fn names(dir: &OwnedFd) -> Vec<String> {
    let Ok(entries) = rustix::fs::Dir::read_from(dir) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(PREFIX)).collect()
}

/// Removes the sockets that zygotes have left which were killed. Only for who holds the lock.
fn sweep(dir: &OwnedFd) {
    for name in names(dir) {
        let refused = passing::connect(dir.as_fd(), &name, SocketType::SEQPACKET)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if refused {
            let _ = unlinkat(dir, &name, AtFlags::empty());
        }
    }
}

/// Waits until this zygote has recorded how its children have ended. It may be gone: then nobody knows.
pub(crate) fn settle(layout_boot: &Path, parent: &Parent) {
    if parent.process.is_alive() {
        settle_all(layout_boot);
    }
}

/// Has a zygote record how this process ends, a child of it that it has not forked itself.
///
/// # Errors
/// `NotFound` if it is gone, `Unsupported` if it is too old for that.
pub(crate) fn adopt(boot: &Path, parent: &Parent, pid: i32, machine: MachineId, life: u64) -> io::Result<()> {
    let dir = open_dir(boot)?;
    for name in names(&dir) {
        if let Ok((conn, process)) = Conn::meet(dir.as_fd(), &name)
            && process == parent.process
        {
            return conn.adopt(pid, machine, life);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Waits until no zygote has a request that was sent before this call, by somebody who is dead now, say.
pub(crate) fn settle_all(boot: &Path) {
    let Ok(dir) = open_dir(boot) else { return };
    for name in names(&dir) {
        // One that does not answer is ending or was killed.
        let _ = Conn::open(dir.as_fd(), &name).and_then(|conn| conn.settle());
    }
}
