//! The holder is copied: the original stands still, forks, and goes on; the copy becomes another machine.
//!
//! The copy has the main thread only, in the middle of [`serve`], with the hub's lock held by itself. The I/O thread of the original
//! was either waiting for that lock or for a descriptor: outside the lock it holds nothing, and allocates only while it looks at the work directory
//! (`room`), which is waited for.

use super::{Guard, Hub, room::Room};
use crate::{
    forking::{Birth, PATIENCE, STILL, Said, Talk, Told, scrub},
    host::{self, core::Core, engine::Engine, hub::Stream, store::Store, term},
    layout::mark,
};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{Mode, OFlags},
    io::Errno,
    time::{TimerfdClockId, TimerfdFlags, timerfd_create},
};
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    sync::OnceLock,
    time::Instant,
};
use vmoon_core::frame::tag;
use vmoon_sys::{
    face::{Face, Slot},
    fork::{Forked, sibling},
};

/// Whoever wants a copy, and has shown the key.
#[derive(Debug)]
pub struct Asker(pub(super) Talk);

/// What `/proc` shows of this process, so that a copy can show itself.
#[derive(Debug)]
pub(crate) struct Looks {
    pub(crate) face: Face,
    pub(crate) mark: Slot,
}

static LOOKS: OnceLock<Looks> = OnceLock::new();

/// Keeps that. Without it there are no copies.
pub(crate) fn keep_looks(looks: Looks) {
    let _ = LOOKS.set(looks);
}

/// Obeys whoever wants a copy. Returns in both processes.
pub(crate) fn serve(hub: &'static Hub, engine: &mut dyn Engine, asker: Asker) {
    let mut talk = asker.0;
    let ready = match (engine.can_be_copied(), LOOKS.get()) {
        (true, Some(_)) => Said::Ready { descriptors: hub.descriptors(&talk), runtime: engine.runtime() },
        _ => Said::Refused { why: vec!["its interpreter is a program of its own".into()] },
    };
    if talk.say(tag::FORKING, &ready, &[]).is_err() {
        return;
    }
    // Whoever closes the connection has found something that cannot be copied.
    let Ok((Told::Fork { mut token }, _)) = talk.hear(tag::FORK, STILL) else { return };
    let mut state = hub.lock();
    let still = hub.room.get().map(Room::still);
    // SAFETY: the main thread; the lock is held, see the head of this file.
    let forked = unsafe { sibling(token) };
    drop(still);
    // Neither of the two keeps it: code that is loaded later would find it.
    host::wipe(&mut token);
    scrub::<{ 64 << 10 }>();
    let said = match forked {
        Ok(Forked::Copy) => match hub.become_other(&mut state, engine, &mut talk) {
            Ok(()) => {
                drop(state);
                Said::Born
            }
            Err(error) => fail(&talk, error.to_string()),
        },
        Ok(Forked::Original(pid)) => Said::Forked { pid },
        Err(error) => Said::Failed { error: error.to_string() },
    };
    // Who does not hear that finds out by the end of the connection, or by the machine.
    let _ = talk.say(tag::FORKING, &said, &[]);
}

/// The copy could not become a machine.
fn fail(talk: &Talk, error: String) -> ! {
    let _ = talk.say(tag::FORKING, &Said::Failed { error }, &[]);
    // SAFETY: plain system call; what would be unwound belongs to the original.
    unsafe { libc::_exit(1) }
}

impl Hub {
    /// The descriptors that a copy does without or gets its own of.
    fn descriptors(&self, talk: &Talk) -> Vec<RawFd> {
        let state = self.lock();
        let core = &state.core;
        let mut all = vec![0, 1, 2, self.wake.as_raw_fd(), self.term.as_raw_fd(), self.timer.as_raw_fd()];
        all.extend([core.listen.as_raw_fd(), talk.descriptor()]);
        all.extend(core.store.descriptors());
        all.extend(self.room.get().map(|room| room.descriptor().as_raw_fd()));
        all.extend(state.idle.iter().map(|idle| idle.descriptor().as_raw_fd()));
        all.extend(core.captures.iter().map(|(fd, _)| fd.as_raw_fd()));
        all.extend(core.conn.iter().chain(core.guests.iter().map(|guest| &guest.conn)).map(|conn| conn.fd.as_raw_fd()));
        all
    }

    /// Makes this process, a copy, the machine that it is told to be.
    fn become_other(&self, state: &mut Guard<'_>, engine: &mut dyn Engine, talk: &mut Talk) -> io::Result<()> {
        // Out of the original's session, whose end would be ours.
        rustix::process::setsid()?;
        term::forget();
        let (told, beside) = talk.hear(tag::FORK, PATIENCE)?;
        let Told::Live(birth) = told else { return Err(io::ErrorKind::InvalidData.into()) };
        let mut beside = beside.into_iter();
        let (Some(listen), Some(ring), Some(spill)) = (beside.next(), beside.next(), beside.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        if let Some(looks) = LOOKS.get() {
            let text = mark(birth.machine, birth.life);
            // SAFETY: a copy has one thread until the I/O thread is started; nobody keeps a reference to arguments or environment.
            unsafe {
                looks.mark.set(text.as_bytes());
                looks.face.set_args(&["vmoon", "lua-host", &text]);
            }
        }
        rustix::process::chdir(&birth.work)?;
        if let Some(room) = self.room.get() {
            match rustix::fs::open(".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(work) => replace(room.descriptor(), &work)?,
                // Profile sealed: nothing can be written there.
                Err(Errno::ACCESS) => {}
                Err(error) => return Err(error.into()),
            }
            room.begin_anew();
        }
        match (birth.narrow, beside.next()) {
            (Some(abi), Some(ruleset)) => {
                vmoon_confine::narrow::enter(&ruleset, abi).map_err(|error| io::Error::other(error.to_string()))?
            }
            (None, None) if birth.frozen => {}
            (None, None) => {
                // Not confined: it may have children.
                rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        self.begin_anew(state, &birth, listen, [ring.into(), spill.into()])?;
        let work = birth.work.to_string_lossy().into_owned();
        engine.copied(&work, birth.process).map_err(io::Error::other)
    }

    /// Replaces everything that is the original's. The numbers of the descriptors that handlers know stay.
    fn begin_anew(&self, state: &mut Guard<'_>, birth: &Birth, listen: OwnedFd, files: [File; 2]) -> io::Result<()> {
        let store = Store::map(files, birth.ring, birth.spill, birth.overflow)?;
        let ((out_read, out_write), (err_read, err_write)) =
            (host::pipe().map_err(io::Error::other)?, host::pipe().map_err(io::Error::other)?);
        rustix::stdio::dup2_stdout(&out_write)?;
        rustix::stdio::dup2_stderr(&err_write)?;
        drop((out_write, err_write));
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        replace(&self.wake, &eventfd(0, flags)?)?;
        replace(&self.term, &eventfd(0, flags)?)?;
        replace(&self.timer, &timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?)?;
        let captures = [(out_read, Stream::Out), (err_read, Stream::Err)];
        let core = Core::new(store, birth.key.clone(), state.core.runtime.clone(), listen, captures);
        // The original's socket, clients, pipes and files are closed, and its ring is unmapped.
        drop(std::mem::replace(&mut state.core, core));
        // It looks at what the original has.
        (state.idle, state.began) = (None, None);
        // The I/O thread has stayed with the original.
        state.threaded = false;
        (state.taken, state.parked, state.nudge, state.armed, state.watches_write) = (false, false, false, false, false);
        state.tried = Instant::now();
        state.me = birth.process.clone();
        state.exit_path = birth.dir.join("exit.json");
        Ok(())
    }
}

/// Puts another open file behind a descriptor's number.
fn replace(old: &OwnedFd, new: &OwnedFd) -> io::Result<()> {
    // SAFETY: both are open and ours; the number goes on to name an open file.
    if unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
