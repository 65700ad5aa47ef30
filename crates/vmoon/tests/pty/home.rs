//! A user's directories of their own, and the daemon that lives in them.

use std::{
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// Private directories; everything that was started in them is ended when this is dropped.
pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    /// Empty ones.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("vmoon-pty-").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file into it.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// `vmoon` with these arguments, in these directories.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmoon"));
        command.args(args).current_dir(self.path()).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        for (name, folder) in [("HOME", ""), ("XDG_STATE_HOME", "state"), ("XDG_CONFIG_HOME", "config"), ("XDG_RUNTIME_DIR", "run")] {
            command.env(name, self.path().join(folder));
        }
        command.env("TERM", "xterm").env("NO_COLOR", "1");
        command
    }

    /// Runs it with this input.
    pub(crate) fn vmoon<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &[u8]) -> Output {
        let mut child =
            self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("vmoon starts");
        // A program that does not read its input closes it; that is no failure of the test.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Runs it and insists on success; the standard output.
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let output = self.vmoon(args, b"");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The process id of the daemon.
    pub(crate) fn daemon(&self) -> i32 {
        let status: serde_json::Value = serde_json::from_str(&self.ok(["daemon", "status", "-o", "json"])).unwrap();
        status["pid"].as_i64().expect("a daemon runs") as i32
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.path().join("state/vmoon/vmoon.db").exists() {
            self.vmoon(["rm", "--all", "--force", "-y"], b"");
            self.vmoon(["daemon", "stop"], b"");
        }
    }
}
