//! The broker of profile `net`: which hosts a confined process may connect to, decided outside it.
//!
//! [`start`] forks a small process, the broker, and puts the caller under a seccomp filter that makes TCP sockets free, refuses every other way to
//! reach the network, and holds up each `connect` until the broker has answered (seccomp user notification, `seccomp_unotify(2)`). The broker copies
//! the address out of the caller's memory, takes the caller's socket (`pidfd_getfd(2)`), decides by its own copy, connects *itself*, and answers: what
//! the caller writes to its memory meanwhile changes nothing. The call itself is never let through.
//!
//! Names are looked up by a third process, from the list that was granted; [`resolve`] is how the confined process asks for them.
//!
//! ```text
//! confined process ── connect ──> kernel ── notice ──> broker ── number of a granted name ──> resolver ──> DNS, hosts file
//!        └───────────── name ── socket ──────────────────┘
//! ```
//!
//! What a caller must know:
//! * Only the broker connects, so the confined process may be under a Landlock that allows no TCP port at all; it should be.
//! * The broker must not be under a Landlock that the confined process is not under, or it could not reach it; nor under one that forbids to connect.
//! * Without its broker every `connect` of the process fails with `ENOSYS`.
//! * The broker ends when no process is left that the filter holds.

mod address;
mod broker;
mod filter;
mod grants;
mod names;
mod raw;
mod report;
pub mod resolve;
mod settle;
mod wire;

pub use report::{KEPT, Report};

use crate::rules::Host;
use broker::{Broker, Parts};
use grants::Grants;
use libc::pid_t;
use resolve::Client;
use settle::Keep;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::time::Duration;
use std::{fmt, fs, io};

/// How long the broker may take to begin; it takes a fraction of a millisecond.
const BEGIN: Duration = Duration::from_secs(10);
/// What the broker says when it serves.
const READY: &[u8] = b"ready";
/// How large the report can be, bytes.
const REPORT_SIZE: u64 = 16 << 10;
/// How many descriptors the broker may have: those that wait, and some.
const OPEN_FILES: u64 = 512;

/// Why there is no broker: a sentence with its reason. Profile `net` is then to be refused.
#[derive(Debug)]
pub struct Error {
    sentence: String,
    source: Option<io::Error>,
}

impl Error {
    fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), source: None }
    }

    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { sentence: format!("{what}: {error}"), source: Some(error) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// A process whose connections are brokered. The broker lives on without it, as long as the process.
#[derive(Debug)]
pub struct Guard {
    broker: pid_t,
    client: Client,
}

impl Guard {
    /// The broker's process, a child of this one.
    pub fn broker(&self) -> i32 {
        self.broker
    }

    /// The client with which this process looks up names.
    pub fn into_client(self) -> Client {
        self.client
    }
}

/// Whether this computer can run a broker, as far as that shows without starting one.
///
/// # Errors
/// What is missing.
pub fn probe() -> Result<(), Error> {
    if !raw::has_action(libc::SECCOMP_RET_USER_NOTIF) {
        return Err(Error::new("the kernel has no seccomp user notification (it needs Linux 5.5 or later, with CONFIG_SECCOMP_FILTER)"));
    }
    if !raw::can_take() {
        return Err(Error::new("the kernel has no pidfd_getfd (it needs Linux 5.6 or later), or a filter refuses it here"));
    }
    // Without Yama there is no such file.
    match fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").as_deref().map(str::trim) {
        Ok("3") => Err(Error::new("Yama forbids every process to reach into another (kernel.yama.ptrace_scope is 3)")),
        Ok("2") if !raw::is_root() => {
            Err(Error::new("Yama lets only root reach into other processes (kernel.yama.ptrace_scope is 2; 1 or 0 is needed)"))
        }
        _ => Ok(()),
    }
}

/// Starts a broker for the calling process and lets it connect to these hosts only, from now on and for good, in all its threads and children.
///
/// To be called once, while the process has one thread, before the other layers. `report` is where the broker keeps a small text that
/// [`Report`] reads, rewritten from its beginning some time after each change.
///
/// # Errors
/// A host that is none; more than one thread; a kernel that cannot; a process that has such a filter already (only one can be). After an error the
/// process may already be under the filter, without anybody who answers: it should end.
pub fn start(hosts: &[Host], report: Option<OwnedFd>) -> Result<Guard, Error> {
    let grants = Grants::new(hosts).map_err(Error::new)?;
    let process = std::process::id() as pid_t;
    let (ours, brokers) = raw::pair().map_err(Error::io("no socket for the broker"))?;
    let (questions, brokers_questions) = raw::pair().map_err(Error::io("no socket for names"))?;
    let of_process = raw::pidfd(process, true).map_err(Error::io("no descriptor of this process"))?;
    raw::set_receive_timeout(&ours, BEGIN).map_err(Error::io("no deadline for the broker"))?;
    raw::set_receive_timeout(&questions, resolve::PATIENCE).map_err(Error::io("no deadline for names"))?;
    raw::no_new_privileges().map_err(Error::io("no_new_privs was refused"))?;

    let mark = Box::new(*b"vmoon");
    let test = SelfTest { descriptor: questions.as_raw_fd(), address: mark.as_ptr() as u64, content: *mark };
    let born = Born { control: brokers, questions: brokers_questions, process: (process, of_process), grants, report, test };
    let broker = match raw::fork() {
        Ok(Some(broker)) => broker,
        Ok(None) => live(born),
        Err(error) if raw::errno_of(&error) == libc::EBUSY => {
            return Err(Error::new("the broker must be started before any thread: the filter would not hold the others"));
        }
        Err(error) => return Err(Error::io("the broker could not be forked")(error)),
    };
    // The broker's ends are its own.
    drop(born);
    raw::allow_tracer(broker);

    let began = begin(&ours);
    if began.is_err() {
        // It ends when its socket closes, or has ended.
        drop(ours);
        raw::collect(broker);
    }
    drop(mark);
    began.map(|()| Guard { broker, client: Client::new(questions) })
}

/// Installs the filter, hands its listener over, and waits for the broker's word. The listener must not stay here: who has it answers the calls.
fn begin(control: &OwnedFd) -> Result<(), Error> {
    let listener = filter::notified().map_err(Error::io("the kernel refused the filter that notifies the broker"))?;
    raw::send_descriptor(control, &listener).map_err(Error::io("the broker could not be given its listener"))?;
    drop(listener);
    let mut word = [0; 512];
    let size = raw::recv(control.as_fd(), &mut word, true).map_err(Error::io("the broker did not begin"))?;
    match &word[..size] {
        READY => Ok(()),
        [] => Err(Error::new("the broker ended before it began")),
        reason => Err(Error::new(format!("the broker cannot serve: {}", String::from_utf8_lossy(reason)))),
    }
}

/// What the broker tries before it says that it serves: to take a descriptor and to read memory of the process.
struct SelfTest {
    descriptor: RawFd,
    address: u64,
    content: [u8; 5],
}

/// What the broker is born with.
struct Born {
    control: OwnedFd,
    questions: OwnedFd,
    process: (pid_t, OwnedFd),
    grants: Grants,
    report: Option<OwnedFd>,
    test: SelfTest,
}

/// The life of the broker's process.
fn live(born: Born) -> ! {
    let mut keep = vec![born.control.as_raw_fd(), born.questions.as_raw_fd(), born.process.1.as_raw_fd()];
    keep.extend(born.report.as_ref().map(|report| report.as_raw_fd()));
    let control = born.control.try_clone();
    let prepared = settle::leave(c"vmoon-broker", &keep).map_err(Error::io("it could not leave its parent")).and_then(|()| prepare(born));
    match (prepared, control) {
        (Ok(broker), _) => broker.run(),
        (Err(error), Ok(control)) => {
            let _ = raw::send(control.as_fd(), error.to_string().as_bytes(), false);
        }
        (Err(_), Err(_)) => {}
    }
    raw::end(0)
}

fn prepare(born: Born) -> Result<Broker, Error> {
    let Born { control, questions, process, grants, report, test } = born;
    let names: Vec<Option<String>> = grants.names().map(|name| name.map(str::to_owned)).collect();
    let resolver = if names.iter().any(Option::is_some) {
        Some(names::start(&names).map_err(Error::io("the resolver could not be started"))?)
    } else {
        None
    };
    settle::drop_privileges(Keep::Tracing, OPEN_FILES, REPORT_SIZE).map_err(Error::io("it could not drop its privileges"))?;
    let listener = raw::receive_descriptor(&control).map_err(Error::io("it got no listener"))?;
    raw::wake_up_here(&listener);
    raw::take(&process.1, test.descriptor).map_err(Error::io("it may not take the process's sockets (pidfd_getfd)"))?;
    let mut content = [0; 5];
    raw::read_memory(process.0, test.address, &mut content)
        .map_err(Error::io("it may not read the process's memory (process_vm_readv)"))?;
    if content != test.content {
        return Err(Error::new("it reads something else than the process's memory"));
    }
    let broker = Broker::new(Parts { listener, process, grants, questions, resolver, report: report.map(File::from) });
    filter::narrow().map_err(Error::io("the kernel refused its own filter"))?;
    raw::send(control.as_fd(), READY, false).map_err(Error::io("nobody listens"))?;
    Ok(broker)
}
