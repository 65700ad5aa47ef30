//! Processes: who they are, whether they live, how to wait for them, and how to start one that outlives us.
//!
//! A pid alone names nothing, since the kernel gives it out again; an [`Identity`] does.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::{CString, OsStr},
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    sync::OnceLock,
    time::{Duration, Instant},
};

/// One process and no other: its pid, when it began, and in which boot of the computer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The process id.
    pub pid: i32,
    /// When it began, in clock ticks since boot (field 22 of `/proc/PID/stat`, proc_pid_stat(5)).
    pub start: u64,
    /// The boot it belongs to; see [`boot_id`].
    pub boot: String,
}

impl Identity {
    /// The process that has this id now, if it is a living child of that one.
    pub fn of_child(pid: i32, parent: i32) -> Option<Self> {
        let stat = Stat::read(pid).filter(|stat| stat.parent == parent && !stat.is_dead())?;
        Some(Self { pid, start: stat.start, boot: boot_id().to_owned() })
    }

    /// The identity of the process that has this pid now; `None` if there is none.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start: Stat::read(pid)?.start, boot: boot_id().to_owned() })
    }

    /// The calling process, which was forked when [`ticks`] said `before` or a moment later. The first look of a new process into `/proc`
    /// takes as long as a third of its fork; where both moments are in one tick there is nothing to look for.
    pub fn newborn(before: u64) -> Option<Self> {
        let pid = std::process::id() as i32;
        if ticks() == before { Some(Self { pid, start: before, boot: boot_id().to_owned() }) } else { Self::of(pid) }
    }

    /// Whether exactly this process runs. A zombie does not. Where that cannot be found out, for want of a descriptor say, it
    /// counts as running: nobody is taken for dead because we could not look.
    pub fn is_alive(&self) -> bool {
        if self.boot != boot_id() || self.pid <= 0 {
            return false;
        }
        match Stat::look(self.pid) {
            Ok(stat) => stat.is_some_and(|stat| stat.start == self.start && !stat.is_dead()),
            Err(error) => error.kind() != io::ErrorKind::NotFound && error.raw_os_error() != Some(libc::ESRCH),
        }
    }

    /// Waits until all its threads have ended, so that whoever is its parent can take its exit status; `false` if they have not
    /// after `limit`.
    ///
    /// # Errors
    /// Those of pidfd_open(2) and poll(2).
    pub fn wait_end(&self, limit: Duration) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(true) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // The descriptor pins the process; only now is the comparison free of races.
            Ok(fd) if Stat::read(self.pid).is_some_and(|stat| stat.start == self.start) => Pidfd(fd).wait(limit),
            Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes its exit status if it is a child of ours that has ended; see [`reap`].
    pub fn reap(&self) -> Reaped {
        // Only a process of this start time: the pid may be that of another child by now.
        match Stat::read(self.pid) {
            Some(stat) if self.boot == boot_id() && stat.start == self.start => reap(self.pid),
            _ => Reaped::Stranger,
        }
    }
}

/// Clock ticks since boot: what a process that began now has as its beginning (`start_boottime`, which `/proc/PID/stat` shows in whole ticks).
pub fn ticks() -> u64 {
    // SAFETY: sysconf reads a constant.
    let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    (now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64) / (1_000_000_000 / hertz)
}

/// The identifier of this boot of the computer, a UUID in text; `unknown` where the kernel does not tell.
pub fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    })
}

/// What vmoon reads of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) state: u8,
    pub(crate) parent: i32,
    pub(crate) session: i32,
    /// User and system time, clock ticks.
    pub(crate) cpu: u64,
    /// Clock ticks since boot.
    pub(crate) start: u64,
}

impl Stat {
    pub(crate) fn read(pid: i32) -> Option<Self> {
        if pid <= 0 { None } else { Self::look(pid).ok()? }
    }

    fn look(pid: i32) -> io::Result<Option<Self>> {
        // One read gives all: the line is shorter, and the kernel makes it anew for every read.
        let file = fs::File::open(format!("/proc/{pid}/stat"))?;
        let mut line = [0; 1024];
        let n = io::Read::read(&mut &file, &mut line)?;
        Ok(Self::parse(&line[..n]))
    }

    /// The command name may hold blanks and brackets: everything counts from the last bracket.
    fn parse(line: &[u8]) -> Option<Self> {
        let end = line.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&line[end + 1..]).ok()?;
        // By their numbers in proc_pid_stat(5): the first behind the name is the third.
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let mut last = 3;
        let mut number = |field: usize| {
            let text = fields.nth(field - last - 1)?;
            last = field;
            text.parse::<u64>().ok()
        };
        Some(Self { state, parent: number(4)? as i32, session: number(6)? as i32, cpu: number(14)? + number(15)?, start: number(22)? })
    }

    /// Stopped by a signal or by a tracer.
    pub(crate) fn is_frozen(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }

    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// A descriptor of one process: signals sent through it can never reach another.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Opens it; `None` if the process does not run any more.
    ///
    /// # Errors
    /// Those of pidfd_open(2) other than ESRCH.
    pub fn open(identity: &Identity) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(identity.pid) else { return Ok(None) };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The descriptor pins the process; only now is the comparison free of races.
        Ok(identity.is_alive().then_some(Self(fd)))
    }

    /// Sends a signal. A process that has ended already is not an error.
    ///
    /// # Errors
    /// Those of pidfd_send_signal(2) other than ESRCH.
    pub fn send(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.0, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the process has ended; `false` if it has not after `limit`.
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        let until = Instant::now() + limit;
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Pidfd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// How a child of ours ended, by waitpid(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// It runs.
    Running,
    /// It ended with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It is no child of ours, or was reaped before.
    Stranger,
}

/// Takes the exit status of a child of ours, if it has ended. Never waits.
pub fn reap(pid: i32) -> Reaped {
    let mut status = 0;
    // SAFETY: waitpid writes one int to a valid place; WNOHANG keeps it from waiting.
    match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
        0 => Reaped::Running,
        n if n == pid && libc::WIFEXITED(status) => Reaped::Code(libc::WEXITSTATUS(status)),
        n if n == pid && libc::WIFSIGNALED(status) => Reaped::Signal(libc::WTERMSIG(status)),
        n if n == pid => Reaped::Running,
        _ => Reaped::Stranger,
    }
}

/// A process to start that shall outlive us.
#[derive(Debug)]
pub struct Detached<'a> {
    /// The program, a path.
    pub exe: &'a Path,
    /// Its arguments, without the program's own name.
    pub args: Vec<&'a OsStr>,
    /// Variables added to our environment.
    pub env: Vec<(&'a str, &'a str)>,
    /// Its standard streams; `/dev/null` where there is none.
    pub stdio: [Option<BorrowedFd<'a>>; 3],
}

impl Detached<'_> {
    /// Starts it in a session of its own, with default signal dispositions, no signal blocked, and no descriptor of ours
    /// but its standard streams. Gives back its pid. It stays our child until [`reap`]ed, and lives on when we end.
    ///
    /// # Errors
    /// Those of posix_spawn(3): no such program, no permission, no memory, too many processes.
    pub fn spawn(&self) -> io::Result<i32> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let exe = text(self.exe.as_os_str().as_bytes())?;
        let mut args = vec![exe.clone()];
        for arg in &self.args {
            args.push(text(arg.as_bytes())?);
        }
        let mut env = Vec::new();
        for (name, value) in std::env::vars_os() {
            if !self.env.iter().any(|(ours, _)| name == *ours) {
                env.push(text(&[name.as_bytes(), b"=", value.as_bytes()].concat())?);
            }
        }
        for (name, value) in &self.env {
            env.push(text(format!("{name}={value}").as_bytes())?);
        }
        let pointers = |list: &[CString]| list.iter().map(|s| s.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect::<Vec<_>>();
        let (argv, envp) = (pointers(&args), pointers(&env));

        let actions = Actions::new()?;
        let attributes = Attributes::new()?;
        let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        // Sources first go above the standard three, so that one cannot overwrite another.
        let mut high = Vec::new();
        for stream in &self.stdio {
            let source = stream.unwrap_or_else(|| null.as_fd());
            high.push(rustix::io::fcntl_dupfd_cloexec(source, 10)?);
        }
        for (target, source) in high.iter().enumerate() {
            actions.dup2(source.as_raw_fd(), target as i32)?;
        }
        actions.close_from(3)?;
        let mut pid = 0;
        // SAFETY: every pointer is to a nul-terminated string or a null-terminated array that lives until the call returns,
        // and both objects were initialised.
        let rc = unsafe {
            libc::posix_spawn(&raw mut pid, exe.as_ptr(), actions.0.as_ptr(), attributes.0.as_ptr(), argv.as_ptr(), envp.as_ptr())
        };
        check(rc).map(|()| pid)
    }
}

fn check(rc: i32) -> io::Result<()> {
    if rc == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(rc)) }
}

struct Actions(Box<MaybeUninit<libc::posix_spawn_file_actions_t>>);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut this = Self(Box::new(MaybeUninit::uninit()));
        // SAFETY: init writes the whole object.
        check(unsafe { libc::posix_spawn_file_actions_init(this.0.as_mut_ptr()) })?;
        Ok(this)
    }

    fn dup2(&self, from: i32, to: i32) -> io::Result<()> {
        // SAFETY: the object was initialised; nobody else uses it.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(self.0.as_ptr().cast_mut(), from, to) })
    }

    fn close_from(&self, first: i32) -> io::Result<()> {
        // SAFETY: as above.
        check(unsafe { libc::posix_spawn_file_actions_addclosefrom_np(self.0.as_ptr().cast_mut(), first) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: it was initialised in `new` and is not used after this.
        unsafe { libc::posix_spawn_file_actions_destroy(self.0.as_mut_ptr()) };
    }
}

struct Attributes(Box<MaybeUninit<libc::posix_spawnattr_t>>);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut this = Self(Box::new(MaybeUninit::uninit()));
        let at = this.0.as_mut_ptr();
        let mut none = MaybeUninit::uninit();
        let mut all = MaybeUninit::uninit();
        let flags = libc::POSIX_SPAWN_SETSID | (libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF) as libc::c_short;
        // SAFETY: init writes the whole object, sigemptyset and sigfillset write whole sets before they are read.
        unsafe {
            check(libc::posix_spawnattr_init(at))?;
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigfillset(all.as_mut_ptr());
            check(libc::posix_spawnattr_setsigmask(at, none.as_ptr()))?;
            check(libc::posix_spawnattr_setsigdefault(at, all.as_ptr()))?;
            check(libc::posix_spawnattr_setflags(at, flags))?;
        }
        Ok(this)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: it was initialised in `new` and is not used after this.
        unsafe { libc::posix_spawnattr_destroy(self.0.as_mut_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn who_cannot_be_looked_at_is_not_taken_for_dead() {
        let me = Identity::of(std::process::id() as i32).unwrap();
        assert!(me.is_alive());
        assert!(!Identity { pid: i32::MAX, ..me.clone() }.is_alive());
        assert!(!Identity { start: me.start + 1, ..me }.is_alive());
    }

    #[test]
    fn we_are_alive_and_somebody_else_with_our_pid_is_not() {
        let me = Identity::of(std::process::id() as i32).unwrap();
        assert!(me.is_alive());
        assert!(!Identity { start: me.start + 1, ..me.clone() }.is_alive());
        assert!(!Identity { boot: "earlier".into(), ..me }.is_alive());
        assert_eq!(Identity::of(-1), None);
    }

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let line = b"7 (a) R (b) S 3 5 6 0 -1 0 0 0 0 0 11 22 0 0 20 0 1 0 4711 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.session, stat.cpu, stat.start), (b'S', 3, 6, 33, 4711));
        for cut in 0..40 {
            assert!(Stat::parse(&line[..cut]).is_none(), "{cut}");
        }
    }

    #[test]
    fn a_detached_process_has_a_session_of_its_own_and_only_three_descriptors() {
        let (mut reader, writer) = io::pipe().unwrap();
        let child = Detached {
            exe: Path::new("/bin/sh"),
            args: vec!["-c".as_ref(), "echo $VMOON_TEST; cut -d' ' -f6 /proc/self/stat; exec ls /proc/self/fd".as_ref()],
            env: vec![("VMOON_TEST", "yes")],
            stdio: [None, Some(writer.as_fd()), None],
        };
        let pid = child.spawn().unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        // `ls` itself opens the directory as descriptor 3.
        assert_eq!(lines, ["yes", &pid.to_string(), "0", "1", "2", "3"]);
        let identity = Identity { pid, start: 0, boot: boot_id().to_owned() };
        assert!(Pidfd::open(&identity).unwrap().is_none(), "a foreign process was taken for ours");
        loop {
            match reap(pid) {
                Reaped::Running => std::thread::yield_now(),
                other => break assert_eq!(other, Reaped::Code(0)),
            }
        }
        assert_eq!(reap(pid), Reaped::Stranger);
    }

    #[test]
    fn a_pidfd_ends_exactly_its_process_and_tells_when() {
        let pid = Detached { exe: Path::new("/bin/sleep"), args: vec!["1000".as_ref()], env: vec![], stdio: [None; 3] }.spawn().unwrap();
        let identity = Identity::of(pid).unwrap();
        let fd = Pidfd::open(&identity).unwrap().unwrap();
        assert!(!fd.wait(Duration::ZERO).unwrap());
        fd.send(Signal::KILL).unwrap();
        assert!(fd.wait(Duration::from_secs(10)).unwrap());
        assert!(!identity.is_alive(), "a zombie counts as dead");
        assert_eq!(reap(pid), Reaped::Signal(9));
        fd.send(Signal::KILL).unwrap();
    }

    #[test]
    fn what_cannot_be_started_is_an_error() {
        let nothing = Detached { exe: Path::new("/no/such/program"), args: vec![], env: vec![], stdio: [None; 3] };
        assert_eq!(nothing.spawn().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
