//! Items in an installed interpreter: the process of each becomes it, confined as the installed interpreter of a machine is, and a small Lua
//! program in it sends the same messages as the embedded one.
//!
//! This file must not know the embedded Lua.

use super::{
    super::{OURS, UNUSABLE, access, complain},
    Failure, Map, Sink, Summary, nothing,
    run::run as go_through,
    tag,
    work::Heard,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::{AsRawFd as _, IntoRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    time::Duration,
};
use vmoon_core::name::escape;
use vmoon_lua_wire::program::{INPUT_FD, Item, OUTPUT_FD, item_arguments};
use vmoon_sys::{
    process::{Reaped, reap},
    random,
};

/// How long an interpreter may take to start and to compile the script.
const PATIENCE: Duration = Duration::from_secs(10);

/// What every item's process is given by its parent's memory.
struct Job {
    path: PathBuf,
    access: access::Access,
    /// What the libraries are told that they grant, unless that is everything.
    grants: Option<String>,
    beside: Vec<u8>,
    name: Vec<u8>,
    code: Vec<u8>,
    /// The table `arg`, from 0 on.
    args: Vec<OsString>,
    nothing: OwnedFd,
}

/// Runs the script over all items in this interpreter.
///
/// # Errors
/// As [`super::run`].
pub(super) fn run(runtime: &str, map: &Map, sink: &mut dyn Sink) -> Result<Summary, Failure> {
    let path = access::interpreter(runtime).map_err(Failure::Told)?;
    let chunk = super::super::load(&map.source).map_err(Failure::Told)?;
    let access = access::decide(&map.access, &map.source, Some(&path), map.environment.as_ref()).map_err(Failure::Told)?;
    if !access.is_free()
        && let Some(sentence) = access::weakness(&access.rules, &vmoon_confine::probe())
    {
        complain(&sentence);
    }
    let mut name = chunk.name;
    // Only the embedded Lua wants a zero byte at its end.
    name.pop();
    let job = Job {
        path,
        grants: (!access.grants.is_trusted()).then(|| access.grants.settings()),
        beside: access.folder.as_deref().map(super::super::vm::templates).unwrap_or_default(),
        access,
        name,
        code: chunk.text,
        args: [chunk.zero].into_iter().chain(map.args.iter().cloned()).collect(),
        nothing: nothing()?,
    };
    job.check()?;
    go_through(map, &|item, to| job.attempt(item, to), sink)
}

/// Sees whether this program runs Lua as an interpreter does, held as the program itself will be. Must be called while the process has one thread.
///
/// # Errors
/// The exit code; the reason was told.
pub(in super::super) fn verify(path: &Path, access: &access::Access) -> Result<(), u8> {
    let told = |failure| match failure {
        Failure::Told(code) => code,
        Failure::Io(what, error) => {
            complain(&format!("{what}: {error}"));
            OURS
        }
    };
    let job = Job {
        path: path.to_owned(),
        grants: (!access.grants.is_trusted()).then(|| access.grants.settings()),
        beside: Vec::new(),
        access: access.clone(),
        name: b"=verify".to_vec(),
        code: Vec::new(),
        args: vec!["verify".into()],
        nothing: nothing().map_err(told)?,
    };
    job.check().map_err(told)
}

impl Job {
    /// Has the interpreter compile the script, before anything is run.
    fn check(&self) -> Result<(), Failure> {
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (from, to) = pipe.map_err(|error| Failure::io("start the interpreter")(error.into()))?;
        // SAFETY: this process has one thread, by the promise of whoever called `super::run`.
        let pid = unsafe { vmoon_sys::fork::fork(|| self.attempt(b"", &to)) }.map_err(Failure::io("start the interpreter"))?;
        drop(to);
        let (mut heard, status, late) = hear(pid, from);
        let refused = |code: u8, sentence: String| {
            complain(&sentence);
            Err(Failure::Told(code))
        };
        let said = heard.has_verdict();
        match (heard.outcome(late.then_some(PATIENCE), status), status) {
            (Ok(_), _) => Ok(()),
            (Err((why, _)), Reaped::Code(0)) if said => refused(1, why),
            (Err((why, _)), Reaped::Code(code)) if code == i32::from(UNUSABLE) => refused(UNUSABLE, why),
            (Err((why, _)), _) => {
                let shown = escape(&self.path.to_string_lossy());
                refused(UNUSABLE, format!("{shown} does not behave as lua5.1 to lua5.4 or luajit do: {why}"))
            }
        }
    }

    /// Becomes the interpreter that runs the script on this item; returns a code only if that fails. To be called in a process that was just forked; the caller
    /// ends it at once.
    fn attempt(&self, item: &[u8], to: &OwnedFd) -> i32 {
        let args: Vec<&[u8]> = self.args.iter().map(|arg| arg.as_bytes()).collect();
        let input = Item {
            seed: random::number() as u32,
            modules: self.access.modules.as_ref(),
            beside: &self.beside,
            grants: self.grants.as_deref(),
            name: &self.name,
            code: &self.code,
            args: &args,
            item,
        };
        let why = match self.become_one(&input.to_vec(), to) {
            Ok(()) => self.execute(),
            Err(error) => error.to_string(),
        };
        let text = format!("the interpreter {} cannot be run: {why}", escape(&self.path.to_string_lossy()));
        let message = [&[tag::ERROR], &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        // SAFETY: as many bytes as are there. If the parent has gone there is nobody to tell.
        unsafe { libc::write(OUTPUT_FD, message.as_ptr().cast(), message.len()) };
        i32::from(UNUSABLE)
    }

    /// Gives up what the parent has open and takes nothing of its signals; has the input and the way for messages where the interpreter looks for them.
    fn become_one(&self, input: &[u8], to: &OwnedFd) -> io::Result<()> {
        let mut file = memory()?;
        // Beyond all numbers that are given out below.
        let high = |fd: RawFd| -> io::Result<RawFd> {
            // SAFETY: plain system call about an open descriptor.
            let fd = unsafe { libc::fcntl(fd, libc::F_DUPFD, OUTPUT_FD + 2) };
            if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
        };
        file.write_all(input)?;
        let (from, to, nothing) = (high(file.as_raw_fd())?, high(to.as_raw_fd())?, high(self.nothing.as_raw_fd())?);
        // SAFETY: plain system calls in a process with one thread that never goes back to its parent's code; the descriptors that are
        // closed belong to values that are never dropped here, but for `file`, whose number is one of those that are closed.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // Ctrl-C would reach the whole group, and interpreters listen to it; the parent decides.
            libc::setpgid(0, 0);
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            // What C code prints must not come between the results.
            for (from, at) in [(nothing, 0), (2, 1), (from, INPUT_FD), (to, OUTPUT_FD)] {
                if libc::dup2(from, at) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            libc::close_range(OUTPUT_FD as u32 + 1, u32::MAX, 0);
        }
        let _ = file.into_raw_fd();
        vmoon_sys::fork::unblock_signals();
        Ok(())
    }

    /// Becomes the interpreter; why it could not.
    fn execute(&self) -> String {
        let command: Vec<&OsStr> = [self.path.as_os_str()].into_iter().chain(item_arguments().map(OsStr::new)).collect();
        if self.access.is_free() {
            return replace(&command);
        }
        let handed = || -> io::Result<(File, File, File)> {
            let mut rules = memory()?;
            serde_json::to_writer(&rules, &self.access.rules)?;
            rules.rewind()?;
            let report = memory()?;
            Ok((rules, report.try_clone()?, report))
        };
        let (rules, said, mut report) = match handed() {
            Ok(files) => files,
            Err(error) => return error.to_string(),
        };
        let numbers = [rules.into_raw_fd(), said.into_raw_fd()].map(|fd| OsString::from(fd.to_string()));
        // Returns only if the interpreter could not be executed.
        let _ = vmoon_confine::launch::main(numbers.into_iter().chain(command.into_iter().map(OsStr::to_owned)));
        let mut lines = Vec::new();
        let _ = report.rewind().and_then(|()| report.read_to_end(&mut lines));
        vmoon_confine::launch::outcome(&lines).err().unwrap_or_default()
    }
}

/// Becomes this program, without a launcher; why it could not.
fn replace(command: &[&OsStr]) -> String {
    let Ok(words) = command.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>() else {
        return "its path holds a zero byte".into();
    };
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: a list of C strings that live and that ends with a null pointer; the process has one thread.
    unsafe { libc::execv(pointers[0], pointers.as_ptr()) };
    io::Error::last_os_error().to_string()
}

/// A file in memory that is closed when the process becomes another.
fn memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create(c"vmoon-run", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

/// All that a child has said, how it has ended, and whether it was ended because it took too long.
fn hear(pid: i32, from: OwnedFd) -> (Heard, Reaped, bool) {
    let (mut heard, mut from, mut buffer) = (Heard::default(), File::from(from), [0; 4096]);
    let began = vmoon_sys::clock::instant();
    let mut late = false;
    loop {
        let left = PATIENCE.saturating_sub(vmoon_sys::clock::instant().duration_since(began));
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => {
                late = true;
                break;
            }
            Ok(_) => match from.read(&mut buffer) {
                Ok(n) if n > 0 && heard.take(&buffer[..n]) => {}
                _ => break,
            },
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    if late && let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // It is our child and not reaped, so the number is its own.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    // It has closed its end of the pipe or finds that nobody reads any more; its end is not far.
    let raw = rustix::process::Pid::from_raw(pid);
    if let Some(Ok(pidfd)) = raw.map(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())) {
        while poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None) == Err(rustix::io::Errno::INTR) {}
    }
    (heard, reap(pid), late)
}
