//! A home of its own for one test: directories, environment, the daemon and holders in it, and a count of what is left.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use vmoon_api::Client;

/// A private home. Whatever still runs in it is killed when it is dropped.
pub(super) struct Home {
    dir: TempDir,
}

pub(super) fn kill(pid: i32) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL);
}

impl Home {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        Self { dir }
    }

    pub(super) fn state(&self) -> PathBuf {
        self.dir.path().join("state/vmoon")
    }

    pub(super) fn runtime(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub(super) fn client(&self) -> Client {
        Client::new(self.runtime().join("vmoon/api.sock"))
    }

    /// A directory that a test may grant to its machines.
    pub(super) fn granted(&self) -> PathBuf {
        let dir = self.dir.path().join("granted");
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A directory with nothing in it.
    pub(super) fn empty_dir(&self) -> PathBuf {
        let dir = self.dir.path().join("empty");
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmoon"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("XDG_STATE_HOME", self.dir.path().join("state"))
            .env("XDG_RUNTIME_DIR", self.runtime())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(super) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).spawn().unwrap()
    }

    /// Runs a command that has to succeed; gives back what it printed.
    pub(super) fn vmoon(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(super) fn daemon_pid(&self) -> Option<i32> {
        let pid = std::fs::read_to_string(self.state().join("daemon.lock")).ok()?.trim().parse().ok()?;
        Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
    }

    /// SIGKILL, and it is gone.
    pub(super) fn kill_daemon(&self) {
        let pid = self.daemon_pid().expect("a daemon runs");
        kill(pid);
        self.until("the daemon is gone", || {
            // Its parent may not have collected it: a zombie is gone enough.
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |stat| stat.rsplit(')').next().unwrap_or("").trim().starts_with('Z'))
        });
    }

    /// The processes of machines; those that wait to become one are none.
    pub(super) fn holders(&self) -> Vec<i32> {
        let holds = |line: &str| line.contains("lua-host") && !line.contains("lua-host spare");
        self.processes().into_iter().filter(|(_, line)| holds(line)).map(|(pid, _)| pid).collect()
    }

    fn processes(&self) -> Vec<(i32, String)> {
        let here = self.dir.path().to_str().unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if pid != std::process::id() as i32 && (line.contains(here) || String::from_utf8_lossy(&environ).contains(here)) {
                found.push((pid, line));
            }
        }
        found
    }

    /// Waits for something that has to happen.
    pub(super) fn until(&self, what: &str, mut is: impl FnMut() -> bool) {
        let limit = Instant::now() + Duration::from_secs(60);
        while !is() {
            assert!(Instant::now() < limit, "{what}: not within a minute");
            std::thread::yield_now();
        }
    }

    /// Deletes every machine, ends the daemon, and checks that nothing is left.
    pub(super) fn end(self) {
        self.vmoon(&["rm", "--all", "--force", "--yes"]);
        self.vmoon(&["daemon", "stop"]);
        self.until("every process is gone", || self.processes().iter().all(|(_, line)| line.is_empty()));
        let run = self.state().join("run");
        let left: Vec<_> =
            std::fs::read_dir(&run).into_iter().flatten().flatten().flat_map(|boot| std::fs::read_dir(boot.path()).unwrap()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            kill(pid);
        }
    }
}
