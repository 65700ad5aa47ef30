//! Starting, ending and burying the lives of a machine. Everything here blocks for a bounded time and is called on a thread
//! that may.

use crate::{
    layout::{Layout, Life, MARK, Meta, Record, Start, mark, remove_dir},
    ring::Remains,
    settings,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, Mode, OFlags, flock},
    process::Signal,
};
use std::{
    ffi::OsString,
    fs,
    io::Read as _,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use vmoon_core::{Code, Error, MachineId, Result, driver::Exit};
use vmoon_sys::{
    atomic, paths,
    process::{Detached, Identity, Pidfd, Reaped, boot_id, reap},
    tree,
};

/// How long a holder may take until its socket answers.
const READY: Duration = Duration::from_secs(20);
/// How long killed processes may take to disappear.
const DEATH: Duration = Duration::from_secs(20);
/// How long an interrupted command may go on.
const GRACE_MS: u64 = 1000;

/// What a life is doing.
pub(super) enum Vital {
    /// Its holder runs.
    Alive(Meta),
    /// It is over.
    Dead(Exit),
    /// It was begun and has not said that it answers.
    Unborn,
}

/// Holds off everybody else who would start or end this machine, in this process or another.
pub(super) struct Lock(#[expect(dead_code, reason = "the lock lasts as long as the descriptor")] OwnedFd);

pub(super) fn lock(layout: &Layout, id: MachineId) -> Result<Lock> {
    let dir = layout.machine(id);
    let failed = |error: rustix::io::Errno| Error::io(format_args!("lock {}", dir.display()), error.into());
    let fd = rustix::fs::open(&dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    loop {
        match flock(&fd, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(Lock(fd)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Looks at a life; what is dead is buried: its exit is recorded and nothing of it goes on.
pub(super) fn examine(id: MachineId, life: &Life) -> Result<Vital> {
    let Some(meta) = life.meta()? else {
        return Ok(life.exit().map_or(Vital::Unborn, Vital::Dead));
    };
    if meta.process.is_alive() {
        return Ok(Vital::Alive(meta));
    }
    bury(id, life, &meta.process).map(Vital::Dead)
}

/// Records how a dead holder ended, and ends what it left behind.
fn bury(id: MachineId, life: &Life, process: &Identity) -> Result<Exit> {
    let status = process.reap();
    if let Some(exit) = life.exit() {
        return Ok(exit);
    }
    let said = Remains::open(&life.dir).ok().flatten().and_then(|remains| remains.exit);
    let exit = said.unwrap_or(match status {
        Reaped::Code(code) => Exit::Code { code },
        Reaped::Signal(signal) => Exit::Signal { signal },
        Reaped::Running | Reaped::Stranger => Exit::Lost,
    });
    // It did not end by itself, so nobody has looked after its children.
    let mark = format!("{MARK}={}", mark(id, life.number));
    tree::kill(process, Some(&mark), DEATH).map_err(|error| Error::io("end what a dead machine left behind", error))?;
    life.write_exit(&exit)?;
    Ok(exit)
}

/// Ends a life that was begun by somebody who died before it answered.
pub(super) fn end_unborn(id: MachineId, life: &Life) -> Result<()> {
    let mark = format!("{MARK}={}", mark(id, life.number));
    // No process has this pid: only the mark counts.
    let nobody = Identity { pid: i32::MAX, start: 0, boot: boot_id().to_owned() };
    tree::kill(&nobody, Some(&mark), DEATH).map_err(|error| Error::io("end a machine that was half started", error))?;
    // It may have come up meanwhile, and even ended by itself.
    if life.exit().is_none() {
        life.write_exit(&Exit::Killed)?;
    }
    if let Some(meta) = life.meta()? {
        meta.process.reap();
    }
    Ok(())
}

/// Starts a new life and returns when its socket answers.
pub(super) fn start(layout: &Layout, exe: &Path, exe_args: &[OsString], record: &Record) -> Result<()> {
    let id = record.id;
    let _lock = lock(layout, id)?;
    for life in layout.lives(id)? {
        match examine(id, &life)? {
            Vital::Alive(_) => return Ok(()),
            Vital::Dead(_) => {}
            Vital::Unborn => end_unborn(id, &life)?,
        }
    }
    let runtime = settings::find(&record.settings.runtime).map_err(|message| Error::new(Code::RuntimeNotFound, message))?;
    let number = layout.last_number(id)? + 1;
    tidy(layout, id, number)?;
    let life = make_life(layout, record, number, runtime)?;
    match spawn(exe, exe_args, id, &life) {
        Ok(()) => Ok(()),
        Err(error) => {
            // The record of the failure is worth less than the failure.
            let _ = life.write_exit(&Exit::Code { code: 1 });
            Err(error)
        }
    }
}

fn make_life(layout: &Layout, record: &Record, number: u64, runtime: Option<PathBuf>) -> Result<Life> {
    let dir = layout.lives_dir(record.id).join(number.to_string());
    let made = |dir: &Path| paths::private_dir(dir);
    made(&layout.runs())?;
    made(&layout.runs().join(boot_id()))?;
    made(&layout.lives_dir(record.id))?;
    made(&dir)?;
    let life = Life { number, dir };
    let settings = &record.settings;
    let start = Start {
        machine: record.id,
        life: number,
        work: layout.machine(record.id).join("work"),
        runtime: runtime.map_or_else(|| settings::BUILTIN.to_owned(), |path| path.to_string_lossy().into_owned()),
        overflow: settings.overflow,
        ring: settings.ring,
        spill: settings.spill,
        memory: settings.memory,
        grace_ms: GRACE_MS,
        lua: Default::default(),
    };
    atomic::write_json(&life.dir.join("start.json"), &start)?;
    Ok(life)
}

fn spawn(exe: &Path, exe_args: &[OsString], id: MachineId, life: &Life) -> Result<()> {
    let stderr_path = life.dir.join("stderr");
    let io = |what: &str, error: std::io::Error| Error::io(format_args!("{what} for a new machine"), error);
    let stderr = fs::File::create(&stderr_path).map_err(|error| io("make a file", error))?;
    let (mut ready, writer) = std::io::pipe().map_err(|error| io("make a pipe", error))?;
    let mut args: Vec<&std::ffi::OsStr> = exe_args.iter().map(OsString::as_os_str).collect();
    args.push(life.dir.as_os_str());
    let mark = mark(id, life.number);
    let child = Detached { exe, args, env: vec![(MARK, &mark)], stdio: [None, Some(writer.as_fd()), Some(stderr.as_fd())] };
    let pid = child.spawn().map_err(|error| {
        Error::new(Code::DriverFailed, format!("could not start {}", exe.display())).source(error).hint("is vmoon installed where it was?")
    })?;
    drop(writer);
    let identity = Identity::of(pid);
    let until = Instant::now() + READY;
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&ready, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) => break,
            _ => {}
        }
        let mut byte = [0];
        match ready.read(&mut byte) {
            Ok(1) => {
                // Nothing reads it any more, and a crash later has its own record.
                let _ = fs::remove_file(&stderr_path);
                return Ok(());
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    if let Some(identity) = identity {
        tree::kill(&identity, Some(&format!("{MARK}={mark}")), DEATH).map_err(|error| io("end a failed start", error))?;
    }
    reap(pid);
    let said = fs::read(&stderr_path).unwrap_or_default();
    let said = String::from_utf8_lossy(&said[..said.len().min(4096)]).trim().to_owned();
    let late = Instant::now() >= until;
    let why = if said.is_empty() && late { format!("it did not answer within {} s", READY.as_secs()) } else { said };
    let code = if why.contains("No space left") || why.contains("os error 28") { Code::DiskFull } else { Code::DriverFailed };
    Err(Error::new(code, format!("the machine's process could not start: {}", vmoon_core::name::escape(&why))))
}

/// Removes the files of lives that nobody can want any more: all but the previous one, and that too if it was read to its end.
fn tidy(layout: &Layout, id: MachineId, next: u64) -> Result<()> {
    for life in layout.lives(id)? {
        let unread = Remains::open(&life.dir).ok().flatten().is_some_and(|remains| remains.acked < remains.end());
        if life.number + 1 < next || !unread {
            // What cannot be removed now is tried again at the next start.
            let _ = remove_dir(&life.dir);
        }
    }
    for dir in layout.earlier_boots(id) {
        let _ = remove_dir(&dir);
    }
    Ok(())
}

/// Asks for a polite end. Does not wait.
pub(super) fn ask(process: &Identity) -> Result<()> {
    let failed = |error| Error::io("ask the machine to end", error);
    match Pidfd::open(process).map_err(failed)? {
        Some(fd) => fd.send(Signal::TERM).map_err(failed),
        None => Ok(()),
    }
}

/// Ends every life of the machine now, with everything it started.
pub(super) fn kill(layout: &Layout, id: MachineId) -> Result<()> {
    for life in layout.lives(id)? {
        match examine(id, &life)? {
            Vital::Dead(_) => {}
            Vital::Unborn => end_unborn(id, &life)?,
            Vital::Alive(meta) => {
                let mark = format!("{MARK}={}", mark(id, life.number));
                tree::kill_subreaper(&meta.process, Some(&mark), DEATH).map_err(|error| Error::io("end the machine", error))?;
                meta.process.reap();
                // It may have ended by itself in the last moment; then that is what happened.
                if life.exit().is_none() {
                    life.write_exit(&Exit::Killed)?;
                }
            }
        }
    }
    Ok(())
}

/// How the last run of a machine without a living holder ended; `None` if it never ran.
pub(super) fn last_exit(layout: &Layout, id: MachineId) -> Result<Option<Exit>> {
    if let Some(life) = layout.lives(id)?.last() {
        return Ok(Some(life.exit().unwrap_or(Exit::Lost)));
    }
    let lives = layout.earlier_boots(id).into_iter().flat_map(|dir| {
        let entries = fs::read_dir(&dir).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>()
    });
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
    Ok(lives.max_by_key(number).map(|dir| Life { number: 0, dir }.exit().unwrap_or(Exit::Rebooted)))
}
