//! One-shot programs in another Lua than ours: the program of that flavour is told what to do, and does it as we would. What one script makes of many
//! items comes back over a pipe, in frames.
//!
//! Both sides are this file, in two builds of one version. It must not know how a program is run.

use super::{
    MISSING, OURS, Program, Source, complain,
    map::{self, Failure, Item, Map, Sink, Summary},
};
use crate::{Environment, flavour::Flavour};
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};
use std::{
    convert::Infallible,
    ffi::{CString, OsString},
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use vmoon_core::frame::Frame;
use vmoon_sys::process::reap;

/// The word that makes the program of a flavour run one program and end.
pub(crate) const VERB: &str = "lua-run";

/// The frames of an item, in this order, and those beside them.
mod tag {
    /// What is short about an item, JSON.
    pub(super) const ITEM: u8 = b'H';
    /// Its line.
    pub(super) const INPUT: u8 = b'I';
    /// What it has printed.
    pub(super) const PRINTED: u8 = b'P';
    /// Its result, or why there is none: the item is whole.
    pub(super) const OUTCOME: u8 = b'T';
    /// How far it is, JSON.
    pub(super) const PROGRESS: u8 = b'S';
    /// How it ended, JSON.
    pub(super) const END: u8 = b'Z';
}

/// What is said through a descriptor; whatever may be no UTF-8 is said by arguments.
#[derive(Serialize, Deserialize)]
struct Told {
    access: serde_json::Map<String, serde_json::Value>,
    /// How many of the first arguments are more code.
    more: usize,
    environment: Option<Environment>,
    map: Option<Many>,
}

/// What is more to say of many items.
#[derive(Serialize, Deserialize)]
struct Many {
    /// Whether an argument names their file.
    named: bool,
    jobs: usize,
    retries: u32,
    deadline: Option<Duration>,
    unordered: bool,
    /// Where the frames go.
    answers: RawFd,
}

/// What is short about an item.
#[derive(Serialize, Deserialize)]
struct Head {
    index: u64,
    succeeded: bool,
    left_out: u64,
    took: Duration,
    attempts: u32,
}

/// How it ended.
#[derive(Serialize, Deserialize)]
enum End {
    Summary(Summary),
    Told(u8),
    Io(String),
}

/// The command line: the verb, the number of the descriptor, the source, the file of the items, the arguments.
fn command(
    program: &std::path::Path,
    told: &Told,
    source: &Source,
    input: Option<&PathBuf>,
    args: &[OsString],
) -> Result<Vec<CString>, u8> {
    let failed = |error: io::Error| {
        complain(&format!("the program cannot be handed to another Lua: {error}"));
        OURS
    };
    let fd = rustix::fs::memfd_create(c"vmoon-run", rustix::fs::MemfdFlags::empty()).map_err(|error| failed(error.into()))?;
    let mut file = File::from(fd);
    serde_json::to_writer(&file, told).map_err(|error| failed(error.into()))?;
    file.rewind().map_err(failed)?;
    let (kind, source): (&str, &[u8]) = match source {
        Source::Code(code) => ("code", code),
        Source::File(path) => ("file", path.as_os_str().as_bytes()),
        Source::Stdin => ("stdin", b""),
    };
    let mut words: Vec<Vec<u8>> = vec![program.as_os_str().as_bytes().to_vec(), VERB.into(), file.into_raw_fd().to_string().into()];
    words.extend([kind.into(), source.to_vec(), input.map_or_else(Vec::new, |path| path.as_os_str().as_bytes().to_vec())]);
    words.extend(args.iter().map(|arg| arg.as_bytes().to_vec()));
    words.into_iter().map(CString::new).collect::<Result<_, _>>().map_err(|_| {
        complain("code on the command line and arguments cannot hold a zero byte");
        OURS
    })
}

/// Becomes it; the error that keeps this process from that.
fn become_it(words: &[CString]) -> io::Error {
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: a list of C strings that live, ended by a null pointer.
    unsafe { libc::execv(pointers[0], pointers.as_ptr()) };
    io::Error::last_os_error()
}

fn found(flavour: &Flavour) -> Result<PathBuf, u8> {
    let missing = |why: &str| {
        complain(why);
        MISSING
    };
    flavour.find().map_err(|why| missing(&why))?.ok_or_else(|| missing("that Lua is built in"))
}

/// Replaces this process by that Lua; gives a code only if that fails. The deadline is watched by whoever calls.
pub(super) fn exec(flavour: &Flavour, program: &Program) -> u8 {
    let became = || -> Result<Infallible, u8> {
        let path = found(flavour)?;
        let told = Told { access: program.access.clone(), more: program.more.len(), environment: program.environment.clone(), map: None };
        let more = program.more.iter().cloned().map(OsString::from_vec);
        let args: Vec<OsString> = more.chain(program.args.iter().cloned()).collect();
        let error = become_it(&command(&path, &told, &program.source, None, &args)?);
        complain(&format!("{} cannot be run: {error}", vmoon_core::name::escape(&path.to_string_lossy())));
        Err(OURS)
    };
    match became() {
        Ok(never) => match never {},
        Err(code) => code,
    }
}

/// Runs a script over many items in that Lua.
///
/// # Errors
/// As [`map::run`].
pub(super) fn many(flavour: &Flavour, map: &Map, sink: &mut dyn Sink) -> Result<Summary, Failure> {
    let path = found(flavour).map_err(Failure::Told)?;
    let failed = |error: io::Error| Failure::Io("start another Lua", error);
    let (from, to) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let many = Many {
        named: map.input.is_some(),
        jobs: map.jobs,
        retries: map.retries,
        deadline: map.deadline,
        unordered: map.unordered,
        answers: to.as_raw_fd(),
    };
    let told = Told { access: map.access.clone(), more: 0, environment: map.environment.clone(), map: Some(many) };
    let words = command(&path, &told, &map.source, map.input.as_ref(), &map.args).map_err(Failure::Told)?;
    let child = || {
        // SAFETY: plain system calls in a process that was just forked; the descriptor is open.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::fcntl(to.as_raw_fd(), libc::F_SETFD, 0);
        }
        vmoon_sys::fork::unblock_signals();
        complain(&format!("{} cannot be run: {}", vmoon_core::name::escape(&path.to_string_lossy()), become_it(&words)));
        i32::from(OURS)
    };
    // SAFETY: this process has one thread, by the promise of whoever called `map::run`.
    let pid = unsafe { vmoon_sys::fork::fork(child) }.map_err(failed)?;
    drop(to);
    // Ctrl-C reaches the whole group: the other process ends its items and says how far it was.
    // SAFETY: ignoring a signal has no preconditions.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    let pidfd = rustix::process::Pid::from_raw(pid).map(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()));
    let heard = hear(File::from(from), sink);
    // It has closed its end of the pipe, or finds that nobody reads any more.
    if let Some(Ok(pidfd)) = &pidfd {
        while poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None) == Err(rustix::io::Errno::INTR) {}
    }
    let ended = reap(pid);
    match heard? {
        Some(End::Summary(summary)) => Ok(summary),
        Some(End::Told(code)) => Err(Failure::Told(code)),
        Some(End::Io(sentence)) => Err(Failure::Io("go through the items", io::Error::other(sentence))),
        None => Err(Failure::Io("go through the items", io::Error::other(format!("the other Lua has ended early ({ended:?})")))),
    }
}

/// Gives out what comes, until how it ended; nothing if that never came.
fn hear(mut from: File, sink: &mut dyn Sink) -> Result<Option<End>, Failure> {
    let (mut bytes, mut item) = (Vec::new(), Item::default());
    let mut succeeded = false;
    let nonsense = |what: String| Failure::Io("go through the items", io::Error::new(io::ErrorKind::InvalidData, what));
    loop {
        let mut used = 0;
        while let Some((frame, n)) = Frame::decode(&bytes[used..]).map_err(|error| nonsense(error.to_string()))? {
            used += n;
            let bad = |error: serde_json::Error| nonsense(error.to_string());
            match frame.tag {
                tag::ITEM => {
                    let head: Head = serde_json::from_slice(frame.payload).map_err(bad)?;
                    let Head { index, left_out, took, attempts, .. } = head;
                    succeeded = head.succeeded;
                    item = Item { index, left_out, took, attempts, ..Item::default() };
                }
                tag::INPUT => item.input = frame.payload.to_vec(),
                tag::PRINTED => item.printed = frame.payload.to_vec(),
                tag::OUTCOME => {
                    let text = String::from_utf8_lossy(frame.payload).into_owned();
                    item.outcome = if succeeded { Ok(text) } else { Err(text) };
                    sink.item(&item).map_err(|error| Failure::Io("write the standard output", error))?;
                }
                tag::PROGRESS => sink.progress(&serde_json::from_slice(frame.payload).map_err(bad)?),
                tag::END => return Ok(Some(serde_json::from_slice(frame.payload).map_err(bad)?)),
                _ => {}
            }
        }
        bytes.drain(..used);
        let mut piece = [0; 64 << 10];
        match from.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::Io("go through the items", error)),
        }
    }
}

/// The other side: sends what it is given.
struct Relay(File);

impl Relay {
    fn send(&mut self, parts: &[(u8, &[u8])]) -> io::Result<()> {
        let mut bytes = Vec::new();
        parts.iter().for_each(|(tag, payload)| Frame { tag: *tag, id: 0, payload }.encode(&mut bytes));
        self.0.write_all(&bytes)
    }
}

impl Sink for Relay {
    fn item(&mut self, item: &Item) -> io::Result<()> {
        let Item { index, left_out, took, attempts, .. } = *item;
        let head = serde_json::to_vec(&Head { index, succeeded: item.outcome.is_ok(), left_out, took, attempts })?;
        let (Ok(text) | Err(text)) = &item.outcome;
        self.send(&[(tag::ITEM, &head), (tag::INPUT, &item.input), (tag::PRINTED, &item.printed), (tag::OUTCOME, text.as_bytes())])
    }

    fn progress(&mut self, so_far: &Summary) {
        // Who cannot be told is found to be gone with the next item.
        let _ = serde_json::to_vec(so_far).map(|text| self.send(&[(tag::PROGRESS, &text)]));
    }
}

/// Runs what the arguments behind [`VERB`] say.
pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match told(args) {
        Some(code) => ExitCode::from(code),
        None => {
            complain("this is started by vmoon itself; see vmoon run --runtime");
            ExitCode::from(OURS)
        }
    }
}

fn told(args: impl IntoIterator<Item = OsString>) -> Option<u8> {
    let mut args = args.into_iter();
    let number: RawFd = args.next()?.to_str()?.parse().ok().filter(|number| *number > 2)?;
    // SAFETY: whoever started us has given us this descriptor, and nobody else in this process uses it.
    let file = unsafe { File::from_raw_fd(number) };
    let told: Told = serde_json::from_reader(file).ok()?;
    let (kind, source, input) = (args.next()?, args.next()?, args.next()?);
    let source = match kind.to_str()? {
        "code" => Source::Code(source.into_vec()),
        "file" => Source::File(source.into()),
        "stdin" => Source::Stdin,
        _ => return None,
    };
    let more = args.by_ref().take(told.more).map(OsString::into_vec).collect();
    let (args, access, environment) = (args.collect(), told.access, told.environment);
    let Some(many) = told.map else {
        return Some(super::run(&Program { source, more, args, runtime: None, deadline: None, access, environment }));
    };
    // SAFETY: as above.
    let answers = unsafe { OwnedFd::from_raw_fd(many.answers) };
    rustix::io::fcntl_setfd(&answers, rustix::io::FdFlags::CLOEXEC).ok()?;
    let mut relay = Relay(answers.into());
    let Many { named, jobs, retries, deadline, unordered, .. } = many;
    let input = named.then(|| input.into());
    let map = Map { source, args, runtime: None, input, jobs, retries, deadline, unordered, access, environment };
    let (end, code) = match map::run(&map, &mut relay) {
        Ok(summary) => (End::Summary(summary), 0),
        Err(Failure::Told(code)) => (End::Told(code), code),
        Err(Failure::Io(what, error)) => (End::Io(format!("{what}: {error}")), OURS),
    };
    let _ = serde_json::to_vec(&end).map(|text| relay.send(&[(tag::END, &text)]));
    Some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what it is given.
    #[derive(Default)]
    struct Kept(Vec<Item>, u32);

    impl Sink for Kept {
        fn item(&mut self, item: &Item) -> io::Result<()> {
            self.0.push(item.clone());
            Ok(())
        }

        fn progress(&mut self, _: &Summary) {
            self.1 += 1;
        }
    }

    #[test]
    fn items_come_over_as_they_were() {
        let (from, to) = rustix::pipe::pipe().unwrap();
        let took = Duration::from_micros(7);
        let good =
            Item { index: 3, input: b"\xff\n".to_vec(), outcome: Ok("[1]".into()), printed: b"p\0".to_vec(), took, ..Item::default() };
        let bad = Item { index: 4, outcome: Err("no".into()), left_out: 9, attempts: 2, ..Item::default() };
        let mut relay = Relay(to.into());
        relay.item(&good).unwrap();
        relay.progress(&Summary::default());
        relay.item(&bad).unwrap();
        let end = serde_json::to_vec(&End::Summary(Summary { succeeded: 1, failed: 1, ..Summary::default() })).unwrap();
        relay.send(&[(tag::END, &end)]).unwrap();
        drop(relay);
        let mut kept = Kept::default();
        let Ok(Some(End::Summary(summary))) = hear(from.into(), &mut kept) else { panic!() };
        assert_eq!((summary.succeeded, summary.failed), (1, 1));
        assert_eq!((kept.0, kept.1), (vec![good, bad], 1));
    }

    #[test]
    fn one_that_ends_early_or_talks_nonsense_is_no_summary() {
        for bytes in [&b""[..], b"\x0a\0\0\0H\0\0\0\0\0\0\0\0x", b"\0\0\0\0\0\0\0\0"] {
            let (from, to) = rustix::pipe::pipe().unwrap();
            File::from(to).write_all(bytes).unwrap();
            assert!(!matches!(hear(from.into(), &mut Kept::default()), Ok(Some(_))));
        }
    }
}
