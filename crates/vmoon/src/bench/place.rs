//! A private daemon in directories of its own, and its machines. Nothing of it is left when it is closed.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    env,
    ffi::OsStr,
    fs, io,
    io::Read as _,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use vmoon_api::{
    Api as _, Client,
    requests::{CreateMachine, Empty, Eval, MachineRequest, WaitMachine, WaitOperation},
    views::{CommandState, CommandView},
};
use vmoon_core::{
    Code, Error, MachineId, Result,
    machine::{Answer, Request, State},
    spec::MachineSpec,
};
use vmoon_sys::{
    memory,
    paths::private_dir,
    process::{Detached, Identity, Pidfd},
    random, tree,
};

/// How many machines are created, asked or deleted at a time.
pub(crate) const AT_ONCE: usize = 32;
/// How long a machine may take to start, and a daemon to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The private daemon.
pub(crate) struct Place {
    exe: PathBuf,
    dir: PathBuf,
    env: Vec<(&'static str, String)>,
    mark: String,
    daemon: Mutex<Identity>,
    client: Client,
}

/// What a daemon uses.
pub(crate) struct Uses {
    /// Bytes, shared ones in part.
    pub(crate) memory: u64,
    /// Open descriptors, without those of clients.
    pub(crate) descriptors: usize,
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// The directory, removed when dropped.
struct Dir(Option<PathBuf>);

impl Drop for Dir {
    fn drop(&mut self) {
        if let Some(dir) = self.0.take() {
            // Left behind it only costs disk.
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// Starts a daemon; it answers when this returns.
fn start(exe: &Path, dir: &Path, env: &[(&'static str, String)]) -> Result<Identity> {
    let log = fs::File::create(dir.join("daemon.log")).map_err(|error| Error::io("make a log", error))?;
    let (mut ready, writer) = io::pipe().map_err(|error| Error::io("make a pipe", error))?;
    let args = ["daemon", "run", "--ready-fd", "1"].map(OsStr::new).to_vec();
    let vars = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let pid = Detached { exe, args, env: vars, stdio: [None, Some(writer.as_fd()), Some(log.as_fd())] }
        .spawn()
        .map_err(|error| Error::io("start a daemon", error))?;
    drop(writer);
    let daemon = Identity::of(pid);
    let answered = ready.read_exact(&mut [0]);
    let (Some(daemon), Ok(())) = (daemon, answered) else {
        let text = fs::read_to_string(dir.join("daemon.log")).unwrap_or_default();
        vmoon_sys::process::reap(pid);
        return Err(Error::new(Code::DaemonUnreachable, format!("a private daemon did not start: {}", text.trim())));
    };
    Ok(daemon)
}

impl Place {
    /// Makes the directories and starts the daemon; it answers when this returns.
    pub(crate) fn open() -> Result<Self> {
        let exe = env::current_exe().map_err(|error| Error::io("find our own program", error))?;
        let name = random::key();
        let dir = super::temporary().join(format!("vmoon-bench-{}", &name[..12]));
        private_dir(&dir)?;
        let mut guard = Dir(Some(dir.clone()));
        let below = |name: &str| dir.join(name).to_string_lossy().into_owned();
        for name in ["home", "state", "config", "cache", "run"] {
            private_dir(&dir.join(name))?;
        }
        let env = vec![
            ("HOME", below("home")),
            ("XDG_STATE_HOME", below("state")),
            ("XDG_CONFIG_HOME", below("config")),
            ("XDG_CACHE_HOME", below("cache")),
            ("XDG_RUNTIME_DIR", below("run")),
            ("VMOON_BENCH", name.clone()),
            ("VMOON_NO_AUTOSTART", "1".to_owned()),
            ("VMOON_OUTPUT", String::new()),
        ];
        let daemon = start(&exe, &dir, &env)?;
        guard.0 = None;
        let client = Client::new(dir.join("run/vmoon/api.sock"));
        Ok(Self { exe, dir, env, mark: format!("VMOON_BENCH={name}"), daemon: Mutex::new(daemon), client })
    }

    /// A directory for files of the measurement.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Our own program.
    pub(crate) fn exe(&self) -> &Path {
        &self.exe
    }

    /// The environment in which our program finds the private daemon.
    pub(crate) fn env(&self) -> Vec<(&str, &str)> {
        self.env.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    /// The client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Another client, with no connection yet.
    pub(crate) fn new_client(&self) -> Client {
        Client::new(self.dir.join("run/vmoon/api.sock"))
    }

    /// The daemon's process id.
    pub(crate) fn daemon(&self) -> i32 {
        self.identity().pid
    }

    fn identity(&self) -> Identity {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The process ids of the holders: each says in its arguments what it is, and has our mark in its environment.
    pub(crate) fn holders(&self) -> Vec<i32> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let has = |pid: i32, file: &str, part: &[u8]| {
            fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|text| text.split(|b| *b == 0).any(|one| one == part))
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                has(*pid, "cmdline", b"lua-host") && !has(*pid, "cmdline", b"spare") && has(*pid, "environ", self.mark.as_bytes())
            })
            .collect()
    }

    /// Asks for a machine with these settings that is to be started.
    async fn ask_for(&self, name: &str, settings: Value) -> Result<MachineId> {
        let Value::Object(settings) = settings else { return Err(Error::internal("settings that are no object")) };
        let spec = MachineSpec { kind: "lua".into(), settings, ..MachineSpec::default() };
        let request = CreateMachine { name: name.into(), connection: None, spec, start: true, deadline_ms: None };
        Ok(self.client.create_machine(request).await?.machine.id)
    }

    /// Creates and starts a machine with these settings. Gives back when it was accepted and when it ran, from the beginning.
    pub(crate) async fn running(&self, name: &str, settings: Value) -> Result<[Duration; 2]> {
        let begun = Instant::now();
        let machine = self.ask_for(name, settings).await?;
        let accepted = begun.elapsed();
        let until = Some(State::Running);
        let timeout_ms = Some(PATIENCE.as_millis() as u64);
        let request = WaitMachine { machine: machine.to_string(), until, generation: None, timeout_ms };
        let view = self.client.wait_machine(request).await?;
        if view.state != State::Running {
            let error = view.last_error.map(Error::from);
            return Err(error.unwrap_or_else(|| Error::new(Code::Timeout, format!("the machine {name} did not start"))));
        }
        Ok([accepted, begun.elapsed()])
    }

    /// Creates and starts a machine, and asks it something at once: one that is being made is waited for. Gives back when it was accepted and when it
    /// had answered, both from the beginning.
    pub(crate) async fn create(&self, name: &str) -> Result<[Duration; 2]> {
        let begun = Instant::now();
        self.ask_for(name, json!({})).await?;
        let accepted = begun.elapsed();
        self.answer(name).await?;
        Ok([accepted, begun.elapsed()])
    }

    /// The same by who waits until it runs and asks it then. Gives back when it ran and when it had answered.
    pub(crate) async fn create_and_wait(&self, name: &str) -> Result<[Duration; 2]> {
        let begun = Instant::now();
        let [_, running] = self.running(name, json!({})).await?;
        self.answer(name).await?;
        Ok([running, begun.elapsed()])
    }

    /// Creates and starts so many machines, several at a time, and asks them nothing.
    pub(crate) async fn run_many(&self, prefix: &str, n: usize) -> Result<Vec<String>> {
        let names: Vec<String> = (0..n).map(|i| format!("{prefix}{i}")).collect();
        stream::iter(&names).map(|name| self.running(name, json!({}))).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
        Ok(names)
    }

    /// Creates so many machines, several at a time.
    pub(crate) async fn create_many(&self, prefix: &str, n: usize) -> Result<Vec<String>> {
        let names: Vec<String> = (0..n).map(|i| format!("{prefix}{i}")).collect();
        stream::iter(&names).map(|name| self.create(name)).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
        Ok(names)
    }

    /// Evaluates `1+1` there and insists on the answer.
    pub(crate) async fn answer(&self, name: &str) -> Result<()> {
        let view = self.eval(name, "1+1").await?;
        match view.values {
            Some(values) if values.0 == b"2" => Ok(()),
            other => Err(Error::new(Code::CommandFailed, format!("{name} answered {other:?} to 1+1"))),
        }
    }

    /// Evaluates code and insists that it ends without an error.
    pub(crate) async fn eval(&self, name: &str, code: &str) -> Result<CommandView> {
        let request =
            Eval { session: name.into(), code: code.into(), args: None, data: false, token: None, deadline_ms: None, wait_ms: None };
        let view = self.client.eval(request).await?;
        match (&view.error, view.state) {
            (None, CommandState::Done) => Ok(view),
            (error, state) => Err(Error::new(Code::CommandFailed, format!("{name}: {state:?}, {error:?}"))),
        }
    }

    /// Deletes every machine, by force.
    pub(crate) async fn clear(&self) -> Result<()> {
        let machines = self.client.list_machines(Empty {}).await?;
        let delete = |id: String| async move {
            let request = MachineRequest { machine: id, request: Request::DeleteForce, confirm: None, disks: None, deadline_ms: None };
            let answered = match self.client.request_machine(request).await {
                Err(error) if matches!(error.code(), Code::MachineNotFound | Code::MachineGone) => return Ok(()),
                answered => answered?,
            };
            if let Answer::Started { operation } | Answer::Joined { operation } = answered.answer {
                let timeout_ms = Some(PATIENCE.as_millis() as u64);
                self.client.wait_operation(WaitOperation { operation: operation.to_string(), timeout_ms }).await?;
            }
            Ok(())
        };
        let ids: Vec<String> = machines.iter().map(|machine| machine.id.to_string()).collect();
        stream::iter(ids).map(delete).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
    }

    /// Kills the daemon as a crash would, and starts another.
    pub(crate) fn replace_daemon(&self) -> Result<()> {
        let failed = |error: io::Error| Error::io("kill the private daemon", error);
        let old = self.identity();
        if let Some(process) = Pidfd::open(&old).map_err(failed)? {
            process.send(rustix::process::Signal::KILL).map_err(failed)?;
            process.wait(PATIENCE).map_err(failed)?;
        }
        old.reap();
        *self.daemon.lock().unwrap_or_else(PoisonError::into_inner) = start(&self.exe, &self.dir, &self.env)?;
        Ok(())
    }

    /// The open descriptors of the daemon that are no connection of a client: those come and go, and the kernel knows them by the name that the
    /// socket they came in by was made with (proc(5), `/proc/net/unix`; the daemon makes it in a directory of its own and moves it).
    fn descriptors(&self, pid: i32) -> usize {
        let ours = self.dir.join("run/vmoon");
        let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let of_client = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [.., state, inode, path] = words.as_slice() else { return None };
            (*state == "03" && Path::new(path).starts_with(&ours) && path.ends_with("/api.sock")).then(|| format!("socket:[{inode}]"))
        };
        let clients: HashSet<String> = table.lines().filter_map(of_client).collect();
        let open = entries(Path::new(&format!("/proc/{pid}/fd")));
        let is_client = |path: &PathBuf| fs::read_link(path).is_ok_and(|target| clients.contains(target.to_string_lossy().as_ref()));
        open.iter().filter(|path| !is_client(path)).count()
    }

    /// What the daemon uses.
    pub(crate) fn uses(&self) -> Uses {
        let pid = self.daemon();
        Uses { memory: memory::of(pid).map_or(0, |memory| memory.pss), descriptors: self.descriptors(pid) }
    }

    /// The files and directories of machines, their lives and their sessions.
    pub(crate) fn files_of_machines(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for below in ["state/vmoon/lua", "state/vmoon/sessions"] {
            found.extend(entries(&self.dir.join(below)));
        }
        for boot in entries(&self.dir.join("state/vmoon/run")) {
            // What is no directory belongs to nobody's life: sockets and locks of those who start them.
            found.extend(entries(&boot).into_iter().filter(|path| path.is_dir()));
        }
        found
    }

    /// Deletes every machine and ends the daemon. Gives back how many processes were left after that; they are ended too.
    pub(crate) async fn close(&self) -> Result<usize> {
        let _guard = Dir(Some(self.dir.clone()));
        // What cannot be done politely is done by force below, and counted.
        let cleared = tokio::time::timeout(PATIENCE * 2, self.clear()).await;
        let failed = |error: io::Error| Error::io("end the private daemon", error);
        let daemon = self.identity();
        let process = Pidfd::open(&daemon).map_err(failed)?;
        let _ = tokio::time::timeout(PATIENCE, self.client.stop_daemon(Empty {})).await;
        let ended = process.is_none_or(|process| process.wait(PATIENCE).unwrap_or(false));
        let left = tree::count(&daemon, Some(&self.mark)) + usize::from(!ended);
        tree::kill(&daemon, Some(&self.mark), PATIENCE).map_err(failed)?;
        daemon.reap();
        match cleared {
            Ok(Err(error)) if left == 0 => Err(error),
            _ => Ok(left),
        }
    }
}
