//! The zygote's own process. It has one thread, no async runtime, and no Lua state: each child makes its own, so that no two
//! have the same seeds.
//!
//! Requests of one client are obeyed in their order. What it changes in its memory after a fork is a page more for that child,
//! so it changes little.
//!
//! When nobody asks it anything it forks *spares*: processes that have made all that no machine has of its own and wait to be told which
//! machine they are. Machines that were asked for before had a *shape*, and a spare is made in one of those: confined by its profile, but for the directories
//! that are a machine's own. A request is handed to a spare of its shape if there is one. They are nobody's: nothing is recorded of them, they end with the zygote, and
//! one is given its mark by the zygote, before it is told anything, so that a process of a machine is found by that from its first moment.

use super::{Answer, Fork, PREFIX, READY, Request, VERSION};
use crate::{
    host::{self, Birth, hub::fork::Looks, store},
    layout::{self, Shape},
    settings,
};
use rustix::{
    fs::{Mode, OFlags},
    net::{AddressFamily, SocketFlags, SocketType},
};
use serde_json::value::RawValue;
use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
    path::PathBuf,
    process::ExitCode,
    rc::Rc,
    time::Duration,
};
use vmoon_confine::Ruleset;
use vmoon_core::{MachineId, driver::Exit};
use vmoon_sys::{
    atomic,
    face::{Face, Slot, show},
    fork::{self, ChildSignal},
    passing::{self, MAX_MESSAGE, Received},
    peer,
    process::{Identity, Reaped, ticks},
    tree,
};

/// How long nobody may need it before it ends: the driver that has started it needs a moment to connect.
const IDLE: Duration = Duration::from_secs(1);
/// Clients at once; each is a thread of a daemon that waits for a machine.
const MAX_CLIENTS: usize = 1024;
/// How many requests of one client are obeyed before the next client's turn.
const TURN: usize = 64;
/// How many spares there are at most of the newest shape and of each before it. Each takes the memory of a machine that has done nothing.
const SPARES: [usize; 3] = [4, 2, 2];
/// How long nobody has asked for anything when the first spare of the newest shape is made: who asks for many machines at once wants the processors for
/// those.
const QUIET: Duration = Duration::from_micros(200);
/// The same for all others: who has just got one waits for its first answer, and wants the processors for that.
const CALM: Duration = Duration::from_millis(2);

struct Zygote {
    me: Identity,
    listen: OwnedFd,
    /// The directory of this boot's lives.
    dir: OwnedFd,
    signal: ChildSignal,
    clients: Vec<OwnedFd>,
    /// Whose process each child is.
    children: HashMap<i32, (MachineId, u64)>,
    face: Face,
    mark: Slot,
    /// The variable that says who is a zygote, or a spare of one.
    own: Slot,
    spares: Vec<Spare>,
    /// The shapes that machines were asked for in, the newest first. Empty until somebody wants a machine, and where spares cannot be used.
    shapes: Vec<Rc<Wanted>>,
    /// Clients that wait until everything is settled.
    settling: Vec<RawFd>,
    buffer: Vec<u8>,
    polled: Vec<libc::pollfd>,
}

/// A shape that somebody has wanted.
struct Wanted {
    /// As it came, by which it is known again.
    text: Box<str>,
    /// None if nothing of it can be made ahead.
    shape: Option<Rc<Shape>>,
}

/// A process that waits to become a machine.
struct Spare {
    pid: i32,
    /// Where it is told.
    socket: OwnedFd,
    /// How it was made.
    made: Rc<Wanted>,
    /// What it will be held to.
    ruleset: Option<Ruleset>,
}

/// Runs a zygote. Its descriptor 0 is the listening socket and 1 the directory of this boot's lives; it makes both its own.
/// The variables of the mark and of the zygote must be there with room for their values.
///
/// What is wrong with that goes to descriptor 2, and the exit code is 1.
pub fn main() -> ExitCode {
    match Zygote::new() {
        Ok(mut zygote) => {
            zygote.run();
            ExitCode::SUCCESS
        }
        Err(error) => {
            let text = format!("a zygote is started by vmoon itself: {error}\n");
            let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// Whether a spare has said that it waits; asked once.
fn is_ready(socket: &OwnedFd) -> bool {
    matches!(passing::receive(socket, &mut [0; READY.len()], false), Ok(Received::Message(..)))
}

impl Zygote {
    fn new() -> io::Result<Self> {
        let listen = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let dir = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        rustix::net::sockopt::socket_acceptconn(&listen)?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        drop(null);
        rustix::process::chdir("/")?;
        rustix::process::umask(Mode::from_raw_mode(0o077));
        let me = Identity::of(std::process::id() as i32).ok_or(io::ErrorKind::Unsupported)?;
        let face = Face::find()?;
        let missing = |name: &str| io::Error::new(io::ErrorKind::NotFound, format!("the variable {name} is missing"));
        // SAFETY: the only thread; it keeps no reference to its environment.
        let (mark, zygote) = unsafe { (face.variable(layout::MARK), face.variable(tree::ZYGOTE)) };
        let mark = mark.ok_or_else(|| missing(layout::MARK))?;
        let zygote = zygote.ok_or_else(|| missing(tree::ZYGOTE))?;
        // SAFETY: as above.
        unsafe {
            zygote.set(me.pid.to_string().as_bytes());
            mark.set(b"");
            face.set_args(&["vmoon", super::VERB]);
        }
        host::prepare();
        Ok(Self {
            me,
            listen,
            dir,
            signal: ChildSignal::new()?,
            clients: Vec::with_capacity(16),
            children: HashMap::with_capacity(1024),
            face,
            mark,
            own: zygote,
            spares: Vec::with_capacity(SPARES.iter().sum()),
            shapes: Vec::with_capacity(SPARES.len() + 1),
            settling: Vec::new(),
            buffer: vec![0; MAX_MESSAGE],
            polled: Vec::with_capacity(64),
        })
    }

    fn run(&mut self) {
        loop {
            let unused = self.clients.is_empty() && self.children.is_empty();
            if unused {
                // Nobody asks for machines any more: those who wait to become one go.
                self.spares.clear();
            }
            let lacking = if unused { None } else { self.lacking() };
            let quiet = lacking.as_ref().map(|(_, urgent)| if *urgent { QUIET } else { CALM });
            let events = self.wait(if unused { Some(IDLE) } else { quiet });
            if let Some((shape, _)) = lacking.filter(|_| events == 0) {
                // What cannot be forked now is not tried again before the next machine.
                if !self.make_spare(shape) {
                    self.shapes.clear();
                }
                continue;
            }
            self.accept();
            if unused && events == 0 && self.clients.is_empty() && self.leave() {
                return;
            }
            self.reap();
            self.serve(false);
            if !self.settling.is_empty() {
                // Whoever sent something before has it in its socket, or in the queue of those who connect.
                self.accept();
                self.serve(true);
                self.reap();
                let text = serde_json::to_vec(&Answer::Settled).unwrap_or_default();
                for waiting in std::mem::take(&mut self.settling) {
                    if let Some(client) = self.clients.iter().find(|client| client.as_raw_fd() == waiting) {
                        // Who does not read is not waited for.
                        let _ = passing::send(client, &text, &[], false);
                    }
                }
            }
        }
    }

    /// Waits until there is something to do; how many descriptors have something.
    fn wait(&mut self, limit: Option<Duration>) -> usize {
        self.polled.clear();
        let fds = [self.signal.as_fd().as_raw_fd(), self.listen.as_raw_fd()]
            .into_iter()
            .chain(self.clients.iter().map(|client| client.as_raw_fd()));
        self.polled.extend(fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }));
        let limit = limit.map(|limit| libc::timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() });
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the array and the timeout live until the call returns; no signal mask is given.
        let n = unsafe { libc::ppoll(self.polled.as_mut_ptr(), self.polled.len() as libc::nfds_t, limit, std::ptr::null()) };
        if n < 0 {
            // Interrupted: it is looked again.
            self.polled.iter_mut().for_each(|fd| fd.revents = 0);
            return 1;
        }
        n as usize
    }

    /// Takes new clients, of our own user only.
    fn accept(&mut self) {
        while self.clients.len() < MAX_CLIENTS {
            let Ok(client) = rustix::net::accept_with(&self.listen, rustix::net::SocketFlags::CLOEXEC) else { return };
            if peer::check(&client).is_err() {
                continue;
            }
            let hello = Answer::Hello { version: VERSION, min_version: VERSION, process: self.me.clone() };
            if passing::send(&client, &serde_json::to_vec(&hello).unwrap_or_default(), &[], false).is_ok() {
                self.clients.push(client);
            }
        }
    }

    /// The first shape of which there are not enough spares, and whether the next who asks would find none.
    fn lacking(&self) -> Option<(Rc<Wanted>, bool)> {
        self.shapes.iter().zip(SPARES).enumerate().find_map(|(at, (shape, most))| {
            let count = self.spares.iter().filter(|spare| Rc::ptr_eq(&spare.made, shape)).count();
            (count < most).then(|| (shape.clone(), at == 0 && count == 0))
        })
    }

    /// A machine is wanted in this shape: it is the newest one, and spares of one that nobody has wanted for long go.
    fn wanted(&mut self, text: &str) -> Option<Rc<Wanted>> {
        let shape = match self.shapes.iter().position(|known| *known.text == *text) {
            Some(0) => return self.shapes.first().cloned(),
            Some(at) => self.shapes.remove(at),
            None => {
                let shape: Shape = serde_json::from_str(text).ok()?;
                Rc::new(Wanted { text: text.into(), shape: shape.can_be_made_ahead().then(|| Rc::new(shape)) })
            }
        };
        self.shapes.insert(0, shape.clone());
        self.shapes.truncate(SPARES.len());
        self.spares.retain(|spare| self.shapes.iter().any(|shape| Rc::ptr_eq(&spare.made, shape)));
        Some(shape)
    }

    /// Forks a spare of this shape; whether it could.
    fn make_spare(&mut self, made: Rc<Wanted>) -> bool {
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let Ok((ours, theirs)) = rustix::net::socketpair(kind.0, kind.1, kind.2, None) else { return false };
        // What cannot be granted now is said to who wants such a machine next.
        let Ok(ruleset) = made.shape.as_deref().map_or(Ok(None), |shape| Ruleset::new(&shape.rules, host::prepared())) else {
            return false;
        };
        let Ok(shared) = ruleset.as_ref().map(Ruleset::share).transpose() else { return false };
        let ahead = made.shape.clone().map(|shape| (shape, shared));
        let (face, own, dir) = (&self.face, &self.own, &self.dir);
        let birth = Birth { before: ticks(), zygote: self.me.clone(), looks: Looks { face: face.clone(), mark: self.mark.clone() } };
        // SAFETY: as in `fork`.
        let forked = unsafe {
            fork::fork(|| {
                let ruleset = ahead.as_ref().and_then(|(_, ruleset)| ruleset.as_ref()).map(|ruleset| ruleset.as_fd().as_raw_fd());
                let ours = [theirs.as_raw_fd()].into_iter().chain(ruleset);
                // Our own socket above all: while somebody holds it, clients of a zygote that was killed wait for an answer.
                fork::close_all_but(&mut ours.clone().chain([dir.as_raw_fd()]).collect::<Vec<_>>());
                // Without them it makes its own later.
                let files = store::unnamed(dir, settings::RING).ok();
                let kept = files.iter().flatten().map(|file| file.as_raw_fd());
                fork::close_all_but(&mut kept.chain(ours).collect::<Vec<_>>());
                fork::unblock_signals();
                own.set(std::process::id().to_string().as_bytes());
                face.set_args(&["vmoon", super::HOLDER, "spare"]);
                let _ = rustix::process::setsid();
                host::spare(theirs, files, birth, ahead)
            })
        };
        forked.map(|pid| self.spares.push(Spare { pid, socket: ours, made, ruleset })).is_ok()
    }

    /// Makes a spare the holder of this request, if there is one that can be; its process.
    fn hand_over(&mut self, fork: &Fork<&RawValue>, message: &[u8], fds: &[BorrowedFd<'_>]) -> Option<i32> {
        let (machine, life) = (fork.start.own.machine, fork.start.own.life);
        let shape = self.wanted(fork.start.shape.get())?;
        // One that is still making itself would write over what it is told.
        while let Some(at) = self.spares.iter().rposition(|spare| Rc::ptr_eq(&spare.made, &shape) && is_ready(&spare.socket)) {
            let Spare { pid, socket, ruleset, .. } = self.spares.swap_remove(at);
            if ruleset.is_some_and(|ruleset| fork.start.own.places.iter().any(|place| ruleset.own(place).is_err())) {
                // One that is forked says why.
                return None;
            }
            let mark = layout::mark(machine, life);
            let me = self.me.pid.to_string();
            let variables = [(&self.mark, mark.as_bytes()), (&self.own, me.as_bytes())];
            if show(pid, &self.face, &["vmoon", super::HOLDER, &mark], &variables).is_err() {
                // Gone, or this may not be done here: then it cannot be done to others either.
                self.spares.clear();
                self.shapes.clear();
                return None;
            }
            self.children.insert(pid, (machine, life));
            if passing::send(&socket, message, fds, false).is_ok() {
                return Some(pid);
            }
            // It has ended by itself, and is nobody's.
            self.children.remove(&pid);
        }
        None
    }

    /// Obeys what clients have sent: a turn of each, or all of it.
    fn serve(&mut self, all: bool) {
        let mut index = 0;
        while index < self.clients.len() {
            let ready = all || self.polled.get(index + 2).is_some_and(|polled| polled.revents != 0);
            let mut stays = true;
            let mut turns = if all { MAX_CLIENTS } else { TURN };
            while ready && stays && turns > 0 {
                turns -= 1;
                let mut buffer = std::mem::take(&mut self.buffer);
                let received = passing::receive(&self.clients[index], &mut buffer, false);
                let answer = match received {
                    Ok(Received::Later) => {
                        turns = 0;
                        None
                    }
                    Ok(Received::Gone) => {
                        stays = false;
                        None
                    }
                    Ok(Received::Message(len, fds)) => self.obey(&buffer[..len], fds, self.clients[index].as_raw_fd()),
                    Err(error) => Some(Answer::Failed { error: error.to_string() }),
                };
                self.buffer = buffer;
                if let Some(answer) = answer {
                    let text = serde_json::to_vec(&answer).unwrap_or_default();
                    // A client that sends much and reads nothing is none.
                    stays = passing::send(&self.clients[index], &text, &[], false).is_ok();
                }
            }
            if stays {
                index += 1;
            } else {
                // The order of those behind it must stay that of the poll.
                let gone = self.clients.remove(index);
                self.settling.retain(|waiting| *waiting != gone.as_raw_fd());
                if self.polled.len() > index + 2 {
                    self.polled.remove(index + 2);
                }
            }
        }
    }

    fn obey(&mut self, message: &[u8], fds: Vec<OwnedFd>, client: RawFd) -> Option<Answer> {
        let failed = |error: String| Some(Answer::Failed { error });
        match serde_json::from_slice::<Request<&RawValue>>(message) {
            Ok(Request::Settle) => {
                self.settling.push(client);
                None
            }
            Ok(Request::Fork(fork)) => match <[OwnedFd; 2]>::try_from(fds) {
                Ok([listen, ready]) => {
                    if let Some(pid) = self.hand_over(&fork, message, &[listen.as_fd(), ready.as_fd()]) {
                        return Some(Answer::Forked { pid });
                    }
                    let whole = match serde_json::from_slice(message) {
                        Ok(Request::Fork(whole)) => whole,
                        Ok(_) => return failed("not a request to fork".into()),
                        Err(error) => return failed(format!("not a request: {error}")),
                    };
                    match self.fork(*whole, listen, ready) {
                        Ok(pid) => Some(Answer::Forked { pid }),
                        Err(error) => failed(format!("no process can be made: {error}")),
                    }
                }
                Err(fds) => failed(format!("a request to fork has {} descriptors instead of 2", fds.len())),
            },
            Ok(Request::Adopt { pid, machine, life }) => {
                self.children.insert(pid, (machine, life));
                Some(Answer::Adopted)
            }
            Err(error) => failed(format!("not a request: {error}")),
        }
    }

    /// Forks a holder. It bears its mark from its first moment, so that it is found whatever happens.
    fn fork(&mut self, fork: Fork, listen: OwnedFd, ready: OwnedFd) -> io::Result<i32> {
        let (machine, life) = (fork.start.own.machine, fork.start.own.life);
        let mark = layout::mark(machine, life);
        let face = &self.face;
        let birth = Birth { before: ticks(), zygote: self.me.clone(), looks: Looks { face: face.clone(), mark: self.mark.clone() } };
        // SAFETY: one thread, here and in the child until it starts another; no reference to arguments or environment is
        // kept; the child uses none of the descriptors it closes, for it never returns from here.
        let forked = unsafe {
            self.mark.set(mark.as_bytes());
            let forked = fork::fork(|| {
                fork::close_all_but(&mut [listen.as_raw_fd(), ready.as_raw_fd()]);
                fork::unblock_signals();
                face.set_args(&["vmoon", super::HOLDER, &mark]);
                let _ = rustix::process::setsid();
                host::forked(fork, (listen, ready), birth)
            });
            self.mark.set(b"");
            forked
        };
        let pid = forked?;
        self.children.insert(pid, (machine, life));
        Ok(pid)
    }

    /// Records how children have ended, beside what they have recorded themselves. The kernel looks at every child to find those, so it is asked only
    /// when one has said it is one of them.
    fn reap(&mut self) {
        if !self.signal.clear() {
            return;
        }
        while let Some((pid, how)) = fork::reap_any() {
            self.spares.retain(|spare| spare.pid != pid);
            let Some((machine, life)) = self.children.remove(&pid) else { continue };
            let exit = match how {
                Reaped::Code(code) => Exit::Code { code },
                Reaped::Signal(signal) => Exit::Signal { signal },
                Reaped::Running | Reaped::Stranger => continue,
            };
            let dir = PathBuf::from(format!("/proc/self/fd/{}/{machine}/{life}", self.dir.as_raw_fd()));
            // Who has ended it has said so before, or may have recorded that and removed the rest.
            if !["exit.json", layout::CONDEMNED].iter().any(|said| dir.join(said).exists()) {
                let _ = atomic::write_json(&dir.join(layout::STATUS), &exit);
            }
        }
    }

    /// Takes the socket away; `false` if somebody is about to connect.
    fn leave(&mut self) -> bool {
        // Whoever starts a zygote holds this lock until it is connected or has given up.
        let Ok(dir) = rustix::fs::openat(&self.dir, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else { return true };
        if rustix::fs::flock(&dir, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            return false;
        }
        self.accept();
        if !self.clients.is_empty() {
            return false;
        }
        // Another one may have taken the name: a socket's own address tells which it was bound to, not who has it now.
        let name = rustix::net::getsockname(&self.listen).ok().and_then(|address| rustix::net::SocketAddrUnix::try_from(address).ok());
        let name = name.and_then(|address| Some(address.path()?.to_string_lossy().rsplit('/').next()?.to_owned()));
        if let Some(name) = name.filter(|name| name.starts_with(PREFIX)) {
            let ours = passing::connect(self.dir.as_fd(), &name, rustix::net::SocketType::SEQPACKET).is_ok()
                && rustix::net::accept(&self.listen).is_ok();
            if ours {
                let _ = rustix::fs::unlinkat(&self.dir, name, rustix::fs::AtFlags::empty());
            }
        }
        true
    }
}
