//! What the main thread of a machine waits for that has answered: the same descriptors as in [`Polled`], but known to the kernel beforehand.
//!
//! A machine that is asked now and then has nothing of poll(2) in the processor's caches any more, and pays for each of five descriptors twice. An
//! epoll(7) instance looks only at what has something. It is made when a machine has run a command, and made anew for another client, so that it
//! never holds on to a connection that is gone.

use crate::host::{
    core::Core,
    poll::{CLIENT, Polled},
};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use std::{
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

pub(super) struct Idle {
    set: OwnedFd,
    /// The client that is looked at, as [`Core::clients`] counts them.
    client: u64,
}

impl Idle {
    /// Whether nothing is to be waited for but what comes from outside: no room, no time, no one who has not said who he is.
    pub(super) fn will_do(core: &Core) -> bool {
        core.guests.is_empty() && core.pending.is_empty() && core.conn.as_ref().is_some_and(|conn| !conn.wants_write(&core.store))
    }

    /// The one that is there, if it is for this client, else a new one; none if the kernel has no more descriptors.
    pub(super) fn of(known: Option<Self>, core: &Core, term: &OwnedFd) -> Option<Self> {
        if let Some(idle) = known.filter(|idle| idle.client == core.clients) {
            return Some(idle);
        }
        let set = epoll::create(CreateFlags::CLOEXEC).ok()?;
        let [out, err] = &core.captures;
        let all = [Some(term.as_fd()), Some(core.listen.as_fd()), Some(out.0.as_fd()), Some(err.0.as_fd())];
        let client = core.conn.as_ref().map(|conn| conn.fd.as_fd());
        // In the order of `Polled`.
        for (index, fd) in (0..).zip(all.into_iter().chain([client])) {
            epoll::add(&set, fd?, EventData::new_u64(index), EventFlags::IN).ok()?;
        }
        Some(Self { set, client: core.clients })
    }

    /// Waits, and tells what has something.
    pub(super) fn wait(&self) -> Polled {
        let mut woken = Polled::empty();
        let mut events = [const { MaybeUninit::<Event>::uninit() }; CLIENT + 1];
        // Interrupted by a signal it tells of nothing, as poll does.
        if let Ok((events, _)) = epoll::wait(&self.set, &mut events, None) {
            woken.found(events.iter().map(|event| event.data.u64() as usize));
        }
        woken
    }

    /// Its descriptor.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}
