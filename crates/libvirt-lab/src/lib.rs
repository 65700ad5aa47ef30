//! For tests: a libvirt daemon of their own, in namespaces of its own, with guests that boot in seconds under plain emulation.
//!
//! [`Lab::start`] makes new mount, network and process namespaces, in which `/run`, the folders of libvirt below `/var` and its configuration are private
//! directories, and runs virtlogd and libvirtd there. A libvirtd that runs on the computer does not notice. The socket is reachable from outside at
//! [`Lab::socket`]. When the lab is dropped, or the process that made it dies in whatever way, the kernel ends everything in it.
//!
//! Needs root, and what `cargo xtask install` installs; without them it panics and says so, because a test that does not run must not pass.

mod kept;
mod machine;
mod namespace;

pub use machine::Machine;
pub use vmoon_guest_image::Guest;

use namespace::Namespace;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::{UnixDatagram, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// How long a daemon may take to start: the first time it asks every emulator what it can do.
const START: Duration = Duration::from_secs(60);

/// What of libvirt is private: where it is in the lab, and where libvirt finds it.
const FOLDERS: [(&str, &str); 6] = [
    ("run", "/run"),
    ("lib", "/var/lib/libvirt"),
    ("log", "/var/log/libvirt"),
    ("cache", "/var/cache/libvirt"),
    ("etc", "/etc/libvirt"),
    ("localca", "/var/lib/swtpm-localca"),
];

/// QEMU as root and without what needs a running system: control groups, a security driver, device nodes of its own.
const QEMU_CONF: &str = "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\ncgroup_controllers = [ ]\nremember_owner = 0\nnamespaces = [ ]\n\
     swtpm_user = \"root\"\nswtpm_group = \"root\"\n";

/// How a lab differs from the usual one.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// More lines of `libvirtd.conf`.
    pub libvirtd_conf: String,
    /// Runs the daemon as this user (and group of the same number), without any right: it serves `qemu:///session`.
    pub user: Option<u32>,
}

/// A running libvirt daemon that belongs to a test. Dropped, everything in it ends before its files go.
#[derive(Debug)]
pub struct Lab {
    daemon: Option<Child>,
    logd: Child,
    namespace: Namespace,
    user: Option<u32>,
    folder: TempDir,
}

impl Lab {
    /// Starts one.
    ///
    /// # Panics
    /// If it cannot be started; the message says what is missing.
    pub fn start() -> Self {
        Self::start_with(&Setup::default())
    }

    /// Starts one that differs.
    ///
    /// # Panics
    /// As [`Lab::start`].
    pub fn start_with(setup: &Setup) -> Self {
        Self::make(setup, None).unwrap_or_else(|why| panic!("no libvirt for this test: {why}"))
    }

    /// Starts one from within another, as if that were the computer.
    ///
    /// # Panics
    /// As [`Lab::start`].
    pub fn start_inside(outer: &Lab) -> Self {
        Self::make(&Setup::default(), Some(&outer.namespace)).unwrap_or_else(|why| panic!("no libvirt for this test: {why}"))
    }

    fn make(setup: &Setup, outer: Option<&Namespace>) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("it needs root, for namespaces of its own".to_owned());
        }
        for program in ["unshare", "nsenter", "setpriv", "mount", "ip", "libvirtd", "virtlogd", "qemu-system-x86_64"] {
            if !namespace::on_path(program) {
                return Err(format!("{program} is not installed; `cargo xtask install` installs what tests need"));
            }
        }
        let folder = tempfile::Builder::new().prefix("lab").tempdir().map_err(|e| format!("no directory: {e}"))?;
        let path = folder.path();
        prepare(path, setup).map_err(|e| format!("{}: {e}", path.display()))?;
        let known = kept::Capabilities::open(setup.user.is_some()).map_err(|e| format!("the folder of what is kept: {e}"))?;
        let cache = path.join(if setup.user.is_some() { "own/cache/libvirt" } else { "cache" });
        known.bring(&cache, setup.user).map_err(|e| format!("what QEMU can do: {e}"))?;
        let namespace = Namespace::make(path, &FOLDERS, outer)?;
        let logd = daemon(&namespace, path, "virtlogd", setup.user)?;
        let mut lab = Self { daemon: None, logd, namespace, user: setup.user, folder };
        lab.start_daemon_now()?;
        known.keep(&cache).map_err(|e| format!("what QEMU can do: {e}"))?;
        Ok(lab)
    }

    /// Its directory: everything the daemon keeps is below, and tests may put files there, which the daemon sees at the same path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.path().join(if self.user.is_some() { "own/run/libvirt/libvirt-sock" } else { "run/libvirt/libvirt-sock" })
    }

    /// The process id of the daemon as we see it, while it runs.
    pub fn daemon_pid(&self) -> Option<i32> {
        self.daemon.as_ref().and_then(|child| namespace::child_of(child.id()))
    }

    /// Kills the daemon, and nothing else: domains go on. Returns when it is gone.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill_daemon(&mut self) {
        self.end_daemon(Signal::KILL);
    }

    /// Ends the daemon as a service would be ended. Returns when it is gone, which takes it a second.
    ///
    /// # Panics
    /// If it does not run.
    pub fn stop_daemon(&mut self) {
        self.end_daemon(Signal::TERM);
    }

    fn end_daemon(&mut self, signal: Signal) {
        let pid = self.daemon_pid().and_then(Pid::from_raw).expect("the daemon of the lab runs");
        kill_process(pid, signal).expect("our own child takes signals");
        self.wake_nsenter();
        let mut child = self.daemon.take().expect("it ran a moment ago");
        child.wait().expect("our own child can be waited for");
    }

    /// Stops the daemon as it is, like one that hangs; [`Lab::thaw_daemon`] lets it go on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn freeze_daemon(&self) {
        self.signal(Signal::STOP);
        // The nsenter before it stops itself when it sees that. Only then can both be let go on.
        let nsenter = self.daemon.as_ref().and_then(|child| Pid::from_raw(child.id().cast_signed()));
        waitpid(nsenter, WaitOptions::UNTRACED).expect("our own child can be waited for");
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn thaw_daemon(&self) {
        self.signal(Signal::CONT);
        self.wake_nsenter();
    }

    fn wake_nsenter(&self) {
        if let Some(nsenter) = self.daemon.as_ref().and_then(|child| Pid::from_raw(child.id().cast_signed())) {
            kill_process(nsenter, Signal::CONT).expect("our own child takes signals");
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.daemon_pid().and_then(Pid::from_raw).expect("the daemon of the lab runs");
        kill_process(pid, signal).expect("our own child takes signals");
    }

    /// Starts the daemon again.
    ///
    /// # Panics
    /// If it runs, or cannot be started.
    pub fn start_daemon(&mut self) {
        assert!(self.daemon.is_none(), "the daemon of the lab runs already");
        self.start_daemon_now().unwrap_or_else(|why| panic!("libvirtd does not start again: {why}"));
    }

    fn start_daemon_now(&mut self) -> Result<(), String> {
        self.daemon = Some(daemon(&self.namespace, self.folder.path(), "libvirtd", self.user)?);
        // It listens before it is ready, and answers when it is.
        answer(&self.socket()).map_err(|e| format!("libvirtd does not answer: {e}; {}", tail(self.path(), "libvirtd")))
    }

    /// Lets every user pass through its directory, to the socket and what else is open to him.
    ///
    /// # Panics
    /// If the directory is gone.
    pub fn open_to_all(&self) {
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o711)).expect("our own directory");
    }

    /// What runs a program in the lab: its network, its files.
    pub fn command(&self, program: &str) -> std::process::Command {
        self.namespace.command(program)
    }

    /// The guest that boots in seconds: made the first time and kept in the target directory.
    ///
    /// # Panics
    /// If what it is made of is not installed.
    pub fn guest() -> Guest {
        Guest::kept().unwrap_or_else(|why| panic!("no guest for this test: {why}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.namespace.end();
        self.wake_nsenter();
        for child in self.daemon.iter_mut().chain([&mut self.logd]) {
            let _ = child.wait();
        }
    }
}

/// Makes the private folders and the configuration.
fn prepare(path: &Path, setup: &Setup) -> io::Result<()> {
    for (name, _) in FOLDERS {
        fs::create_dir(path.join(name))?;
    }
    for folder in ["run/libvirt", "run/lock", "lib/qemu", "lib/images", "lib/dnsmasq", "etc/qemu/networks"] {
        fs::create_dir_all(path.join(folder))?;
    }
    // What belongs to a user's own daemon; the other one only takes it for its home.
    for folder in ["own", "own/run", "own/cache", "own/config"] {
        let folder = path.join(folder);
        fs::create_dir(&folder)?;
        chown(&folder, setup.user, setup.user)?;
    }
    if setup.user.is_some() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o711))?;
    }
    fs::write(path.join("etc/qemu.conf"), QEMU_CONF)?;
    fs::write(path.join("etc/libvirtd.conf"), &setup.libvirtd_conf)?;
    fs::write(path.join("etc/virtlogd.conf"), "")
}

/// Starts a daemon in the foreground, and waits until it says that it listens (sd_notify(3)).
fn daemon(namespace: &Namespace, path: &Path, program: &str, user: Option<u32>) -> Result<Child, String> {
    let says = path.join(format!("{program}.ready"));
    let failed = |e: io::Error| format!("{program}: {e}");
    let _ = fs::remove_file(&says);
    let ready = UnixDatagram::bind(&says).map_err(failed)?;
    ready.set_read_timeout(Some(START)).map_err(failed)?;
    let log = fs::File::options().create(true).append(true).open(path.join(format!("{program}.log"))).map_err(failed)?;
    let mut command = namespace.command(if user.is_some() { "setpriv" } else { program });
    if let Some(user) = user {
        chown(&says, Some(user), Some(user)).map_err(failed)?;
        let own = path.join("own");
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", program]);
        command.env("XDG_RUNTIME_DIR", own.join("run")).env("XDG_CACHE_HOME", own.join("cache")).env("XDG_CONFIG_HOME", own.join("config"));
    }
    command.env("NOTIFY_SOCKET", &says).env("HOME", path.join("own")).current_dir("/");
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
    let mut child = command.spawn().map_err(failed)?;
    let mut word = [0; 64];
    match ready.recv(&mut word) {
        Ok(count) if word[..count].starts_with(b"READY=1") => Ok(child),
        heard => {
            let ended = child.try_wait().map_err(failed)?;
            let _ = child.kill();
            let _ = child.wait();
            Err(format!("{program} did not start ({heard:?}, {ended:?}); {}", tail(path, program)))
        }
    }
}

fn tail(path: &Path, program: &str) -> String {
    let log = fs::read_to_string(path.join(format!("{program}.log"))).unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(20).collect();
    format!("its last words:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
}

/// Asks the daemon which kinds of authentication it wants, to see that it answers. The bytes are libvirt's protocol: length 28, its program, version 1,
/// procedure 66, a call, number 1, all well.
fn answer(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(START))?;
    let words: [u32; 7] = [28, 0x2000_8086, 1, 66, 0, 1, 0];
    stream.write_all(&words.map(u32::to_be_bytes).concat())?;
    stream.read_exact(&mut [0; 28])
}
