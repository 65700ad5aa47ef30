//! Resource limits of the calling process: address space, processor time, size of files, open descriptors, core files.

use crate::report::Error;
use crate::rules::{Layer, Limits};
use std::{fs, io};

/// What the limits are counted from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    /// As many bytes of address space as are mapped: the process goes on as it is.
    Mapped(u64),
    /// What an interpreter of this computer maps when it starts, because the process is about to become one.
    Program,
}

/// Which descriptors are the process's own, so that its program may open as many as it is granted besides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    /// Those that are open.
    Open,
    /// Those, and more that it opens for itself: [`BEGINNING`] in all.
    Opening,
    /// Those that an interpreter is started with.
    Inherited,
}

/// As many descriptors has a process of its own that is confined before it has opened all that it needs for itself.
const BEGINNING: u64 = 16;
/// As many descriptors does an interpreter open for its session.
const SESSION: u64 = 2;
/// As many descriptors more may be open at once until the process is confined and its program runs.
const CONFINING: u64 = 4;
/// Address space of an interpreter that has just started, with its libraries, bytes. `lua5.4` and `luajit` map 5 to 10 MiB on Debian 12.
const IMAGE: u64 = 32 << 20;

/// Applies them. Where `strict` is false only what `limits` names is limited, otherwise core files are forbidden, too.
pub(crate) fn apply(limits: &Limits, (base, own): (Base, Own), strict: bool) -> Result<(), Error> {
    if let Some(memory) = limits.memory {
        let mapped = match base {
            Base::Mapped(bytes) => bytes,
            Base::Program => IMAGE,
        };
        set(libc::RLIMIT_AS, mapped.saturating_add(memory), "address space")?;
    }
    if let Some(seconds) = limits.cpu {
        // SIGXCPU at the soft limit can be caught, so the hard one follows a second later, with SIGKILL.
        set_both(libc::RLIMIT_CPU, seconds, seconds.saturating_add(1), "processor time")?;
    }
    if let Some(bytes) = limits.file_size {
        set(libc::RLIMIT_FSIZE, bytes, "size of files")?;
        // A write beyond it then fails with EFBIG, which a program can handle; the signal would end it.
        // SAFETY: ignoring a signal installs no code.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    }
    if let Some(more) = limits.open_files {
        let (open, inherited) = open_descriptors();
        let most = match own {
            Own::Open => open.saturating_add(more),
            Own::Opening => open.max(BEGINNING).saturating_add(more),
            Own::Inherited => inherited.saturating_add(SESSION).saturating_add(more).max(open.saturating_add(CONFINING)),
        };
        set(libc::RLIMIT_NOFILE, most, "open descriptors")?;
    }
    if strict {
        set(libc::RLIMIT_CORE, 0, "core files")?;
    }
    Ok(())
}

fn set(resource: libc::__rlimit_resource_t, value: u64, name: &str) -> Result<(), Error> {
    set_both(resource, value, value, name)
}

/// Sets a soft and a hard limit, but none above the hard limit that is there.
fn set_both(resource: libc::__rlimit_resource_t, soft: u64, hard: u64, name: &str) -> Result<(), Error> {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes one rlimit, which lives.
    let read = unsafe { libc::getrlimit(resource, &raw mut now) };
    let new = libc::rlimit { rlim_cur: soft.min(now.rlim_max), rlim_max: hard.min(now.rlim_max) };
    // SAFETY: setrlimit(2) reads one rlimit, which lives.
    if read != 0 || unsafe { libc::setrlimit(resource, &raw const new) } != 0 {
        return Err(Error::new(Layer::Rlimits, format!("the limit of {name} was refused: {}", io::Error::last_os_error())));
    }
    Ok(())
}

/// Bytes of address space that are mapped, as RLIMIT_AS counts them: the first field of `/proc/self/statm`, proc_pid_statm(5). The first look of a new process
/// into `/proc` costs 50 microseconds, so one that is forked is told what its parent has mapped.
pub(crate) fn mapped() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').next().and_then(|field| field.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    // SAFETY: sysconf(3) with a number.
    Ok(pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64)
}

/// How many descriptors are open, and how many of them a program is started with. Asks poll(2) for many at once, which marks those that are not open; a
/// directory listing of `/proc/self/fd` takes ten times as long.
fn open_descriptors() -> (u64, u64) {
    const AT_ONCE: i32 = 64;
    let (mut all, mut kept) = (0, 0);
    for first in (0..4096).step_by(AT_ONCE as usize) {
        let mut asked = [libc::pollfd { fd: 0, events: 0, revents: 0 }; AT_ONCE as usize];
        asked.iter_mut().zip(first..).for_each(|(one, fd)| one.fd = fd);
        // SAFETY: as many entries as are there, no waiting.
        if unsafe { libc::poll(asked.as_mut_ptr(), AT_ONCE as libc::nfds_t, 0) } < 0 {
            return (AT_ONCE as u64, AT_ONCE as u64); // fewer descriptors than that are allowed already
        }
        let before = all;
        for one in asked.iter().filter(|one| one.revents & libc::POLLNVAL == 0) {
            all += 1;
            // SAFETY: fcntl(2) with F_GETFD reads one number of ours.
            let flags = unsafe { libc::fcntl(one.fd, libc::F_GETFD) };
            kept += u64::from(flags & libc::FD_CLOEXEC == 0);
        }
        if all == before {
            break; // nobody opens descriptors so far apart
        }
    }
    (all, kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn open_descriptors_are_counted() {
        // Other tests of this process open and close some meanwhile.
        let file = fs::File::open("/").expect("the root directory");
        let copies = |how: libc::c_int| -> Vec<libc::c_int> {
            // SAFETY: F_DUPFD makes a descriptor of ours from one of ours.
            (0..60).map(|_| unsafe { libc::fcntl(file.as_raw_fd(), how, 0) }).collect()
        };
        let (before, _) = open_descriptors();
        let kept = copies(libc::F_DUPFD);
        let (all, inherited) = open_descriptors();
        assert!(all + 20 > before + 60 && inherited >= 60, "{before} {all} {inherited}");
        let closed = copies(libc::F_DUPFD_CLOEXEC);
        let (more, same) = open_descriptors();
        assert!(more + 20 > all + 60 && same < inherited + 20, "{all} {more} {inherited} {same}");
        for fd in kept.into_iter().chain(closed) {
            // SAFETY: it was made above and nobody else knows it.
            unsafe { libc::close(fd) };
        }
    }

    #[test]
    fn what_is_mapped_is_more_than_nothing() {
        assert!(mapped().expect("/proc is mounted") > 1 << 20);
    }
}
