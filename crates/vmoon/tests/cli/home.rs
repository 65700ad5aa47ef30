//! A home of its own for one test: directories, the real binary in them, and a count of what is left at the end.

use std::{
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// What one run of the binary gave.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Checks the exit code; gives back standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Checks that it failed with this code of ours and this exit code, said a hint if one is due, and printed no data.
    #[track_caller]
    pub(crate) fn fails(&self, code: &str, exit: i32) {
        let line = self.err.lines().last().unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no error in JSON: {self:?}"));
        assert_eq!((value["error"]["code"].as_str(), self.code), (Some(code), exit), "{self:?}");
        assert!(value["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
    }

    /// As [`Self::fails`], and it says what to do next.
    #[track_caller]
    pub(crate) fn fails_with_hint(&self, code: &str, exit: i32) {
        self.fails(code, exit);
        let line = self.err.lines().last().unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["error"]["hint"].as_str().is_some_and(|text| !text.is_empty()), "no hint: {self:?}");
    }
}

/// The home.
pub(crate) struct Home(pub(crate) TempDir);

impl Home {
    /// A new one, empty.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        Self(dir)
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The binary with these arguments in this home.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmoon"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.0.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// Runs it with `-o json`.
    pub(crate) fn json(&self, args: &[&str]) -> Ran {
        self.run(&[&["-o", "json"], args].concat())
    }

    /// Runs it with these bytes on standard input.
    pub(crate) fn feed(&self, args: &[&str], bytes: &[u8]) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || {
            // A program that refuses its input closes the pipe: that is its right.
            let _ = stdin.write_all(&bytes);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Ran::of(output)
    }

    /// The daemon's process, if one runs.
    pub(crate) fn daemon(&self) -> Option<i32> {
        let pid = std::fs::read_to_string(self.path("state/vmoon/daemon.lock")).ok()?.trim().parse().ok()?;
        Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
    }

    /// Every process that was started in this home and runs.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let here = format!("HOME={}", self.0.path().display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if environ.split(|byte| *byte == 0).any(|variable| variable == here.as_bytes()) {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }

    /// Deletes every machine and ends the daemon, and then nothing runs any more.
    #[track_caller]
    pub(crate) fn end(self) {
        self.run(&["rm", "--all", "--force", "--yes"]).ok();
        self.run(&["daemon", "stop"]).ok();
        // What machines are forked from outlives the daemon, as they do; what waits to become a machine goes with it.
        let (zygotes, left): (Vec<_>, Vec<_>) = self
            .processes()
            .into_iter()
            .filter(|(_, line)| !line.contains("lua-host spare"))
            .partition(|(_, line)| line.contains("lua-zygote"));
        for (pid, _) in zygotes {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}
