//! What the attempts attack: files, sockets and processes of the test's own, and the processes that attack.

use std::ffi::{CString, c_char, c_int};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fmt, fs, net, process};
use vmoon_confine::attempts::{Attempt, SOURCES};
use vmoon_confine::{Layer, Prepared, Profile, Rules, apply};

/// The compiled attempts.
pub(crate) struct Library {
    entry: extern "C" fn(*const c_char, *const c_char) -> c_int,
    /// The file.
    pub(crate) file: Vec<u8>,
}

/// Compiles and loads them.
pub(crate) fn library() -> Library {
    let temp = tempfile::tempdir().expect("a directory");
    for (name, text) in SOURCES {
        fs::write(temp.path().join(name), text).expect("a file");
    }
    let file = temp.path().join("attempts.so");
    let sources = SOURCES.iter().filter(|(name, _)| name.ends_with(".c")).map(|(name, _)| temp.path().join(name));
    let out = Command::new("gcc")
        .args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread", "-o"])
        .arg(&file)
        .args(sources)
        .output();
    let out = out.expect("gcc is there (Debian: apt-get install gcc)");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let name = c_string(&file);
    // SAFETY: the library has no constructors; it stays loaded.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    assert!(!handle.is_null(), "the library loads");
    // SAFETY: a library that is loaded and a name that ends with NUL.
    let entry = unsafe { libc::dlsym(handle, c"vmoon_attempt".as_ptr()) };
    assert!(!entry.is_null(), "it has its entry");
    // SAFETY: this is how attempts.c declares it.
    let entry = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn(*const c_char, *const c_char) -> c_int>(entry) };
    Library { entry, file: fs::read(&file).expect("it is there") }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Result {
    /// With this exit code: of an attempt, 0 or the number of the error that stopped it.
    Ended(i32),
    /// By this signal.
    Killed(i32),
}

/// Exit codes that are no numbers of errors.
const UNKNOWN: i32 = 201;
const NO_STAGE: i32 = 202;
const NOT_CONFINED: i32 = 203;

impl fmt::Display for Result {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Result::Ended(UNKNOWN) => f.write_str("there is no such attempt"),
            Result::Ended(NO_STAGE) => f.write_str("the stage lacks something"),
            Result::Ended(NOT_CONFINED) => f.write_str("the rules could not be applied"),
            Result::Ended(number) => write!(f, "{}", std::io::Error::from_raw_os_error(number)),
            Result::Killed(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// Runs this in a child; what it returns is the exit code.
pub(crate) fn in_child(run: impl FnOnce() -> i32) -> Result {
    // SAFETY: the child runs on with one thread; the C library makes its own locks usable after a fork.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "a process can be made");
    if pid == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(204);
        // SAFETY: ends the child without what the parent has registered.
        unsafe { libc::_exit(code) };
    }
    ended(pid)
}

fn ended(pid: i32) -> Result {
    let mut status = 0;
    // SAFETY: writes one number.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    if libc::WIFSIGNALED(status) { Result::Killed(libc::WTERMSIG(status)) } else { Result::Ended(libc::WEXITSTATUS(status)) }
}

/// Makes the calling process one of this user, as if it had been started by them.
pub(crate) fn become_user(id: u32) {
    // SAFETY: numbers only. The last call undoes that a process that changes its user cannot be looked into.
    let done = unsafe {
        libc::setgroups(0, std::ptr::null()) == 0
            && libc::setresgid(id, id, id) == 0
            && libc::setresuid(id, id, id) == 0
            && libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
    };
    assert!(done, "the user can be changed");
}

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

/// What there is to attack. All of it ends with it.
pub(crate) struct Stage {
    _temp: tempfile::TempDir,
    /// Granted for writing, where something is.
    pub(crate) work: PathBuf,
    /// Granted for reading.
    pub(crate) granted: PathBuf,
    /// Granted for execution, where something is.
    pub(crate) modules: PathBuf,
    outside: PathBuf,
    sibling: i32,
    text: CString,
    _listeners: (UnixListener, UnixDatagram, UnixListener, net::TcpListener),
    _descriptors: Vec<OwnedFd>,
}

impl Stage {
    /// Sets it up, as files of whoever calls.
    pub(crate) fn set() -> Self {
        let temp = tempfile::tempdir().expect("a directory");
        let root = temp.path().canonicalize().expect("it exists");
        let [work, granted, modules, outside] = ["work", "granted", "modules", "outside"].map(|name| {
            let folder = root.join(name);
            fs::create_dir(&folder).expect("a directory");
            folder
        });
        let stream = UnixListener::bind(outside.join("stream")).expect("a socket");
        let datagram = UnixDatagram::bind(outside.join("datagram")).expect("a socket");
        let name = format!("vmoon-isolation-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let hidden = UnixListener::bind_addr(&address).expect("a socket");
        let tcp = net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = tcp.local_addr().expect("it is bound").port();
        let mut descriptors: Vec<OwnedFd> = vec![fs::File::open("/proc/self/ns/uts").expect("a namespace").into()];
        let uts = descriptors[0].as_raw_fd();
        let tty = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).expect("a terminal");
        rustix::pty::unlockpt(&tty).expect("a terminal");
        let peer =
            rustix::pty::ioctl_tiocgptpeer(&tty, rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).expect("its other end");
        let terminal = peer.as_raw_fd();
        descriptors.extend([tty, peer]);
        let sibling = sibling();
        let text = format!(
            "work={}\ngranted={}\noutside={}\nprogram=/bin/true\nsibling={sibling}\nabstract={name}\ntcp={port}\ntty={terminal}\nuts={uts}\n",
            work.display(),
            granted.display(),
            outside.display()
        );
        let text = CString::new(text).expect("no NUL");
        let listeners = (stream, datagram, hidden, tcp);
        Self { _temp: temp, work, granted, modules, outside, sibling, text, _listeners: listeners, _descriptors: descriptors }
    }

    /// Puts the files back as they were before an attempt.
    fn reset(&self, library: &Library) {
        for folder in [&self.work, &self.outside, &self.granted] {
            for entry in fs::read_dir(folder).expect("a directory").flatten() {
                let kind = entry.file_type().expect("a kind");
                if kind.is_dir() {
                    fs::remove_dir(entry.path()).expect("an empty directory");
                } else if !["stream", "datagram", "module.so"].iter().any(|kept| entry.file_name() == *kept) {
                    fs::remove_file(entry.path()).expect("a file of ours");
                }
            }
        }
        for file in [self.work.join("seed"), self.granted.join("data"), self.outside.join("secret"), self.outside.join("victim")] {
            fs::write(file, "content").expect("a file");
        }
        if !self.outside.join("module.so").exists() {
            fs::write(self.outside.join("module.so"), &library.file).expect("a file");
        }
    }

    /// Makes one attempt in a process of its own that keeps to these rules.
    pub(crate) fn make(&self, library: &Library, attempt: &Attempt, rules: &Rules, prepared: &Prepared) -> Result {
        self.reset(library);
        let name = CString::new(attempt.name).expect("no NUL");
        in_child(|| {
            if apply(rules, prepared).is_err() {
                return NOT_CONFINED;
            }
            match (library.entry)(name.as_ptr(), self.text.as_ptr()) {
                -1 => UNKNOWN,
                -2 => NO_STAGE,
                number => number,
            }
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // SAFETY: our child, which is reaped only after it.
        unsafe { libc::kill(self.sibling, libc::SIGKILL) };
        ended(self.sibling);
    }
}

/// A process beside the one that attacks: without capabilities, or only root could look into it, and with no other protection.
fn sibling() -> i32 {
    let (ready, tell) = std::io::pipe().expect("a pipe");
    // SAFETY: as in `in_child`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "a process can be made");
    if pid == 0 {
        let without = vec![Layer::Rlimits, Layer::Landlock, Layer::Seccomp];
        let confined = apply(&Rules { profile: Profile::Sealed, without, ..Rules::default() }, &Prepared::new());
        // It ends with its parent, if that fails before it could end it. SAFETY: a number, and a wait for a signal.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
        drop((ready, tell));
        // SAFETY: as above; the end if nothing was given up.
        unsafe {
            if confined.is_ok() {
                loop {
                    libc::pause();
                }
            }
            libc::_exit(1)
        }
    }
    drop(tell);
    // Its end of the pipe is closed when it is as it should be.
    let _ = std::io::Read::read(&mut &ready, &mut [0]);
    pid
}
