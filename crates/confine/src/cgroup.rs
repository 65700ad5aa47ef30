//! A control group of its own for a process, where the user was given a part of the cgroup v2 tree to administer.
//!
//! systemd gives one to each user's session (`Delegate=yes` of `user@.service`). Where there is none, or where the controllers belong to cgroup v1, this layer is
//! off and says why. Facts are from `Documentation/admin-guide/cgroup-v2.rst` of Linux, sections "Delegation" and "No Internal Process Constraint".

use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fs, process};

/// The controllers that a group is made for.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// A part of the tree in which groups can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtree(PathBuf);

impl Subtree {
    /// Looks for one around the group of the calling process.
    ///
    /// # Errors
    /// Why there is none, as a sentence.
    pub fn find() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path} could not be read: {error}"));
        let (top, own) = own_group(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)?;
        search(&top, &own, delegated)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a group in it, `name` being one path component. A limit of `None` is none.
    ///
    /// # Errors
    /// Those of the file system; a name that is taken or is not one component.
    pub fn group(&self, name: &str, memory: Option<u64>, tasks: Option<u64>) -> io::Result<Group> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0', '\n']) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name of a group is one path component"));
        }
        let group = Group(self.0.join(name));
        fs::create_dir(&group.0)?;
        let limited = (|| {
            if let Some(bytes) = memory {
                put(&group.0.join("memory.max"), &bytes.to_string())?;
                // Without this what passes the limit is swapped out. Not all kernels count swap.
                match put(&group.0.join("memory.swap.max"), "0") {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            tasks.map_or(Ok(()), |tasks| put(&group.0.join("pids.max"), &tasks.to_string()))
        })();
        match limited {
            Ok(()) => Ok(group),
            Err(error) => {
                let _ = group.remove();
                Err(error)
            }
        }
    }
}

/// A group that was made. It stays until it is removed, so that the process in it needs nobody.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Moves a process with all its threads into it; 0 is the calling one.
    ///
    /// # Errors
    /// Those of the write, for example ESRCH for a process that has ended.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        put(&self.0.join("cgroup.procs"), &pid.to_string())
    }

    /// Removes it. All its processes must have ended.
    ///
    /// # Errors
    /// EBUSY while there are processes in it.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_dir(&self.0)
    }
}

/// Writes to a file of the kernel, which is never made anew.
fn put(path: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// Where cgroup v2 is mounted, and the directory of the own group: from the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn own_group(mountinfo: &str, cgroup: &str) -> Result<(PathBuf, PathBuf), String> {
    let mounted = mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, top) = (fields.next()?, fields.next()?);
        (after.split(' ').next()? == "cgroup2").then(|| (root.to_owned(), PathBuf::from(top.replace("\\040", " "))))
    });
    let Some((root, top)) = mounted else { return Err("cgroup v2 is not mounted".into()) };
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::")).ok_or("the process is in no group of cgroup v2")?;
    // In a container the mount may begin further down in the tree.
    let below = if root == "/" { Some(own) } else { own.strip_prefix(root.as_str()) };
    let below = below.ok_or("the own group of cgroup v2 is not mounted")?.trim_start_matches('/');
    if below.split('/').any(|part| part == "..") {
        return Err("the own group of cgroup v2 is not mounted".into());
    }
    let own = if below.is_empty() { top.clone() } else { top.join(below) };
    Ok((top, own))
}

/// The nearest directory from `own` up to `top` in which groups with limits can be made.
fn search(top: &Path, own: &Path, delegated: impl Fn(&Path) -> bool) -> Result<Subtree, String> {
    let words =
        |path: PathBuf| -> Vec<String> { fs::read_to_string(path).unwrap_or_default().split_whitespace().map(str::to_owned).collect() };
    let has_all = |words: &[String]| CONTROLLERS.iter().all(|wanted| words.iter().any(|word| word == wanted));
    if !has_all(&words(top.join("cgroup.controllers"))) {
        return Err("cgroup v2 has no memory and pids controllers here (cgroup v1 may hold them)".into());
    }
    let mut why = "no part of the cgroup v2 tree was given to this user (start vmoon in a systemd user session)";
    for dir in own.ancestors().take_while(|dir| dir.starts_with(top)) {
        if !delegated(dir) {
            break; // nothing above was given to us either
        }
        why = "the part of the cgroup v2 tree that was given to this user has no memory and pids controllers, or processes where groups would have to be";
        if has_all(&words(dir.join("cgroup.subtree_control"))) {
            return Ok(Subtree(dir.to_owned()));
        }
        // Only a group without processes of its own may hand out controllers.
        let free = words(dir.join("cgroup.procs")).is_empty() && has_all(&words(dir.join("cgroup.controllers")));
        if free && put(&dir.join("cgroup.subtree_control"), "+memory +pids").is_ok() {
            return Ok(Subtree(dir.to_owned()));
        }
    }
    Err(why.into())
}

/// Whether a group was given to us: its files that decide are writable, and we are not root, to whom all are; or systemd says so of it
/// (extended attribute `user.delegate`, systemd 251 and later).
fn delegated(dir: &Path) -> bool {
    let writable = |name: &str| accessat(CWD, dir.join(name), Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    let ours = fs::metadata(dir).is_ok_and(|meta| meta.uid() == rustix::process::geteuid().as_raw());
    let mut mark = [0; 2];
    let mut marked = || rustix::fs::getxattr(dir, "user.delegate", &mut mark).is_ok_and(|n| n == 1) && mark[0] == b'1';
    ours && writable("cgroup.procs") && writable("cgroup.subtree_control") && (!rustix::process::geteuid().is_root() || marked())
}

/// A name for a group that no other process of this computer uses.
pub fn fresh_name(prefix: &str, number: u64) -> String {
    format!("{prefix}-{}-{number}", process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "24 1 0:22 / /proc rw - proc proc rw\n30 1 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_own_group_is_found() {
        let found = own_group(MOUNTS, "12:pids:/x\n0::/user.slice/vmoon.service\n");
        assert_eq!(found, Ok(("/sys/fs/cgroup".into(), "/sys/fs/cgroup/user.slice/vmoon.service".into())));
        assert_eq!(own_group(MOUNTS, "0::/\n"), Ok(("/sys/fs/cgroup".into(), "/sys/fs/cgroup".into())));
        assert!(own_group("24 1 0:22 / /proc rw - proc proc rw\n", "0::/\n").is_err());
        assert!(own_group(MOUNTS, "9:memory:/\n").is_err());
        assert!(own_group(MOUNTS, "0::/../../other\n").is_err(), "outside of what is mounted");
    }

    /// A directory that looks like a group. The real thing needs a computer that hands one out.
    fn group(dir: &Path, controllers: &str, handed_out: &str, processes: &str) {
        fs::create_dir_all(dir).expect("a directory");
        for (name, text) in [("controllers", controllers), ("subtree_control", handed_out), ("procs", processes)] {
            fs::write(dir.join(format!("cgroup.{name}")), text).expect("a file");
        }
    }

    #[test]
    fn the_nearest_group_that_hands_out_controllers_is_taken() {
        let temp = tempfile::tempdir().expect("a directory");
        let top = temp.path();
        let (user, service) = (top.join("user"), top.join("user/service"));
        group(top, "cpu memory pids", "memory pids", "1\n");
        group(&user, "memory pids", "memory pids", "");
        group(&service, "memory pids", "", "77\n");
        let below_user = |dir: &Path| dir.starts_with(&user);
        assert_eq!(search(top, &service, below_user), Ok(Subtree(user.clone())), "the own one has processes");
        assert!(search(top, &service, |_| false).expect_err("nothing is ours").contains("given to this user"));
        group(&user, "memory pids", "", "");
        assert_eq!(search(top, &service, below_user), Ok(Subtree(user.clone())));
        assert_eq!(fs::read_to_string(user.join("cgroup.subtree_control")).expect("a file"), "+memory +pids");
        group(&user, "memory pids", "", "5\n");
        assert!(search(top, &service, below_user).is_err());
        group(top, "cpu", "", "");
        assert!(search(top, &service, |_| true).expect_err("no controllers").contains("no memory and pids"));
    }

    #[test]
    fn names_that_are_paths_are_refused() {
        let temp = tempfile::tempdir().expect("a directory");
        let subtree = Subtree(temp.path().join("a"));
        fs::create_dir(subtree.path()).expect("a directory");
        for name in ["", ".", "..", "../b", "a/b", "x\n", "x\0"] {
            assert!(subtree.group(name, None, None).is_err(), "{name:?}");
        }
        let made = subtree.group("vm", None, None).expect("a directory");
        assert!(made.path().is_dir());
        made.remove().expect("it is empty");
        assert!(subtree.group("vm", Some(1), None).is_err(), "no file memory.max: no kernel behind it");
        assert!(!subtree.path().join("vm").exists(), "nothing is left of it");
    }
}
