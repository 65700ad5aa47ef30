//! For tests: a host with an sshd of its own. One `sshd -i` runs for each connection that a listener of the test's own accepts, so that no port
//! has to be guessed and a connection can be cut at any byte. Everything it knows lies in a temporary directory; a component that
//! is not installed is a panic that says what to install.

mod own;

pub use own::Own;

use std::{
    fs,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, fs::symlink, net::UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};

/// What the tools on the guest's PATH are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tools {
    /// Those of this computer.
    System,
    /// BusyBox, and nothing else but Lua.
    BusyBox,
    /// BusyBox without any Lua.
    NoLua,
}

/// A host for one test.
#[derive(Debug)]
pub struct Lab {
    dir: tempfile::TempDir,
    /// Where it listens.
    pub place: SocketAddr,
    shared: Arc<Shared>,
    kill: watch::Sender<u64>,
}

#[derive(Debug)]
struct Shared {
    config: PathBuf,
    children: Mutex<Vec<Child>>,
    /// Bytes that clients may still send before the connection is cut; `u64::MAX` for never.
    budget: AtomicU64,
    sent: AtomicU64,
    connections: AtomicUsize,
    /// Bytes that clients may still send before nothing moves any more; `u64::MAX` for never.
    hold: AtomicU64,
    go: watch::Sender<()>,
}

/// Holds up what clients send, without cutting anything.
#[derive(Clone, Debug)]
pub struct Valve(Arc<Shared>);

impl Valve {
    /// Lets so many more bytes pass, or a few more, and then nothing.
    pub fn hold_after(&self, bytes: u64) {
        self.0.hold.store(bytes, Ordering::SeqCst);
    }

    /// Lets everything pass again.
    pub fn go(&self) {
        self.0.hold.store(u64::MAX, Ordering::SeqCst);
        self.0.go.send_replace(());
    }
}

impl Shared {
    /// Waits while nothing may pass.
    async fn passes(&self, bytes: u64) {
        let mut go = self.go.subscribe();
        let left = self.hold.load(Ordering::SeqCst);
        if left == u64::MAX {
            return;
        }
        self.hold.store(left.saturating_sub(bytes), Ordering::SeqCst);
        let free = || self.hold.load(Ordering::SeqCst) > 0;
        let _ = go.wait_for(|()| free()).await;
    }
}

fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).stdin(Stdio::null()).output();
    let out = out.unwrap_or_else(|error| panic!("{program}: {error}; install the components: cargo xtask install"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = all.map(|dir| dir.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not on the PATH; install the components: cargo xtask install"))
}

/// The name of the account that runs the test, which is the one to log in to.
pub fn me() -> String {
    let out = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// A key pair in the directory: `name` and `name.pub`.
pub fn key(dir: &Path, name: &str, kind: &str, passphrase: &str) -> PathBuf {
    let file = dir.join(name);
    run("ssh-keygen", &["-q", "-t", kind, "-N", passphrase, "-f", file.to_str().expect("a path")]);
    file
}

impl Lab {
    /// A host with these tools and that Lua, by the name of its program (`lua5.4`).
    pub async fn new(tools: Tools, lua: &str) -> Self {
        Self::with(tools, lua, "").await
    }

    /// The same, with more lines for sshd's configuration.
    pub async fn with(tools: Tools, lua: &str, more: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("vmoon-ssh-").tempdir().expect("a directory");
        let path = dir.path();
        for name in ["bin", "state"] {
            fs::create_dir(path.join(name)).expect("a directory");
        }
        key(path, "host", "ed25519", "");
        let user = key(path, "user", "ed25519", "");
        fs::copy(user.with_extension("pub"), path.join("authorized")).expect("a key");
        if tools == Tools::System {
            for tool in ["sh", "mkfifo", "tail", "cat", "mkdir", "mv", "rm", "setsid", "sleep", "true", "env", "ls", "uname", "ln"] {
                symlink(program(tool), path.join("bin").join(tool)).expect("a link");
            }
        } else {
            for tool in ["sh", "mkfifo", "tail", "cat", "mkdir", "mv", "rm", "setsid", "sleep", "true", "env", "ls", "uname", "ln"] {
                symlink(program("busybox"), path.join("bin").join(tool)).expect("a link");
            }
        }
        if tools != Tools::NoLua {
            symlink(program(lua), path.join("bin/lua")).expect("a link");
        }
        fs::set_permissions(path, PermissionsExt::from_mode(0o700)).expect("a mode");
        // Where root runs the tests, sshd wants a directory of root's to lock its children into.
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").expect("a directory for sshd");
        }
        let text = format!(
            "HostKey {p}/host\nAuthorizedKeysFile {p}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin yes\nPidFile none\nPrintMotd no\nSubsystem sftp internal-sftp -d {p}\nMaxStartups 1000\n\
             SetEnv PATH={p}/bin XDG_STATE_HOME={p}/state\n{more}\n",
            p = path.display()
        );
        let config = path.join("sshd_config");
        fs::write(&config, text).expect("a configuration");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let place = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            config,
            children: Mutex::default(),
            budget: AtomicU64::new(u64::MAX),
            sent: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            hold: AtomicU64::new(u64::MAX),
            go: watch::Sender::new(()),
        });
        let (kill, killed) = watch::channel(0);
        let sshd = program("sshd");
        let for_task = shared.clone();
        drop(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (ours, theirs) = StdUnixStream::pair().expect("a socket pair");
                let theirs: OwnedFd = theirs.into();
                let log = for_task.config.with_extension("log");
                let child = Command::new(&sshd)
                    .arg("-i")
                    .arg("-f")
                    .arg(&for_task.config)
                    .arg("-E")
                    .arg(&log)
                    .stdin(theirs.try_clone().expect("a descriptor"))
                    .stdout(theirs)
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("sshd");
                for_task.children.lock().expect("a lock").push(child);
                for_task.connections.fetch_add(1, Ordering::Relaxed);
                ours.set_nonblocking(true).expect("a socket");
                let server = UnixStream::from_std(ours).expect("a socket");
                drop(tokio::spawn(carry(client, server, for_task.clone(), killed.clone())));
            }
        }));
        Self { dir, place, shared, kill }
    }

    /// The host's directory: `bin` is its PATH, `state` its state directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The host key's fingerprint, `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        let file = self.path().join("host.pub");
        let out = Command::new("ssh-keygen").arg("-lf").arg(file).output().expect("ssh-keygen");
        String::from_utf8_lossy(&out.stdout).split(' ').nth(1).expect("a fingerprint").to_owned()
    }

    /// The private key that the account takes.
    pub fn identity(&self) -> PathBuf {
        self.path().join("user")
    }

    /// Cuts every connection now.
    pub fn cut(&self) {
        self.kill.send_modify(|n| *n += 1);
    }

    /// Cuts the connection when clients have sent so many more bytes; that byte is still passed on.
    pub fn cut_after(&self, bytes: u64) {
        self.shared.budget.store(bytes, Ordering::SeqCst);
    }

    /// What holds up clients.
    pub fn valve(&self) -> Valve {
        Valve(self.shared.clone())
    }

    /// How many bytes clients have sent so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// How many connections there were so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in self.shared.children.lock().expect("a lock").iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Sessions that a test has left, also those that were only beginning: each has a path in this directory on its command line.
        let ours = self.path().display().to_string();
        for _ in 0..100 {
            let mut left = 0;
            for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(rustix::process::Pid::from_raw);
                if let Some(pid) = pid
                    && String::from_utf8_lossy(&line).contains(&ours)
                {
                    left += 1;
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            if left == 0 {
                break;
            }
        }
    }
}

/// Every file below a directory.
pub fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { all.extend(walk(&path)) } else { all.push(path) }
    }
    all
}

/// Carries bytes both ways until one side ends, the budget is used up, or everything is cut.
async fn carry(client: TcpStream, server: UnixStream, shared: Arc<Shared>, mut killed: watch::Receiver<u64>) {
    let _ = client.set_nodelay(true);
    killed.mark_unchanged();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 32 << 10];
        loop {
            let Ok(n @ 1..) = from_client.read(&mut buffer).await else { return };
            shared.passes(n as u64).await;
            let left = shared.budget.load(Ordering::SeqCst);
            let pass = (n as u64).min(left);
            if left != u64::MAX {
                shared.budget.store(left - pass, Ordering::SeqCst);
            }
            shared.sent.fetch_add(pass, Ordering::SeqCst);
            if to_server.write_all(&buffer[..pass as usize]).await.is_err() {
                return;
            }
            if pass < n as u64 || left == pass {
                // One cut is made; the next connection is left alone.
                shared.budget.store(u64::MAX, Ordering::SeqCst);
                return;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 32 << 10];
        loop {
            let Ok(n @ 1..) = from_server.read(&mut buffer).await else { return };
            if to_client.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = killed.changed() => {}
    }
}
