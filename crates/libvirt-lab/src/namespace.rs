//! Namespaces of their own for a lab, without a program of ours in them. Process 1 in there is `cat`, which waits for the end of a pipe that only we hold:
//! when we let go of it, or die, `cat` ends, and with process 1 the kernel ends every process of the namespace.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

/// A living set of namespaces.
#[derive(Debug)]
pub(crate) struct Namespace {
    unshare: Child,
    /// Process 1, as we see it.
    init: i32,
}

impl Namespace {
    /// Makes one whose `folders` (name below `path`, where it is mounted) are private.
    pub(crate) fn make(path: &Path, folders: &[(&str, &str)], outer: Option<&Self>) -> Result<Self, String> {
        let mut command = match outer {
            None => Command::new("unshare"),
            Some(outer) => outer.command("unshare"),
        };
        command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        // Orphans become children of process 1. It ignores their ends, so that the kernel buries them: libvirt takes a zombie for one that lives.
        command.args(["env", "--ignore-signal=CHLD", "cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let unshare = command.spawn().map_err(|e| format!("unshare: {e}"))?;
        let mut namespace = Self { unshare, init: 0 };
        namespace.ready().map_err(|e| format!("no namespaces: {e} (in a container they may be forbidden)"))?;
        // With an outer one there is a process more in between.
        let mut pid = namespace.unshare.id();
        for _ in 0..(1 + usize::from(outer.is_some())) {
            pid = child_of(pid).ok_or("process 1 of the lab is not to be found")?.unsigned_abs();
        }
        namespace.init = pid.cast_signed();

        let mut table = String::new();
        for (name, target) in folders {
            if Path::new(target).is_dir() {
                let _ = writeln!(table, "{} {target} none bind 0 0", path.join(name).display());
            }
        }
        table.push_str("tmpfs /dev/shm tmpfs mode=1777 0 0\n");
        let file = path.join("fstab");
        fs::write(&file, table).map_err(|e| format!("{}: {e}", file.display()))?;
        namespace.run(&["mount", "--no-mtab", "--all", "--fstab", &file.display().to_string()])?;
        namespace.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// `cat` runs when it gives back what it is given.
    fn ready(&mut self) -> std::io::Result<()> {
        let gone = || std::io::Error::other("unshare is gone");
        self.unshare.stdin.as_mut().ok_or_else(gone)?.write_all(b"\n")?;
        self.unshare.stdout.as_mut().ok_or_else(gone)?.read_exact(&mut [0])
    }

    /// A command that will run in there.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--net", "--pid", "--", program]);
        command
    }

    fn run(&self, words: &[&str]) -> Result<(), String> {
        let out = self.command(words[0]).args(&words[1..]).stdin(Stdio::null()).output().map_err(|e| format!("nsenter: {e}"))?;
        if out.status.success() { Ok(()) } else { Err(format!("{}: {}", words.join(" "), String::from_utf8_lossy(&out.stderr).trim())) }
    }
}

impl Namespace {
    /// Ends everything in it, and returns when it is gone.
    pub(crate) fn end(&mut self) {
        drop(self.unshare.stdin.take());
        // Process 1 is only taken leave of when all others of the namespace are gone.
        let _ = self.unshare.wait();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.end();
    }
}

/// The one child of a process.
pub(crate) fn child_of(pid: u32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

pub(crate) fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}
