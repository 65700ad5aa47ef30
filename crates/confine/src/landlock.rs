//! Landlock: which paths the process may open, and in which way; TCP ports; signals and abstract sockets beyond its own domain.
//!
//! The system calls are made directly, see `docs/decisions/0014-confinement.md`. Facts are from landlock(7) and `linux/landlock.h` of Linux 6.18.
//!
//! | ABI | Linux | adds |
//! |---|---|---|
//! | 1 | 5.13 | opening, making, removing files |
//! | 2 | 5.19 | moving and linking between directories (before: always refused) |
//! | 3 | 6.2 | truncation |
//! | 4 | 6.7 | TCP bind and connect |
//! | 5 | 6.10 | ioctl on devices |
//! | 6 | 6.12 | signals and abstract sockets out of the domain |
//! | 7 | 6.15 | audit log of what was refused |

use crate::report::{Error, Status};
use crate::rules::{Layer, Profile, Rules};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

// Rights on files, `LANDLOCK_ACCESS_FS_…`.
const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SYM: u64 = 1 << 12;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;

/// What each grant means.
const READ: u64 = READ_FILE | READ_DIR;
const WRITE: u64 = READ | WRITE_FILE | TRUNCATE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER;
const RUN: u64 = READ | EXECUTE;
/// What can be granted on something that is no directory; the kernel refuses rules with more.
const OF_A_FILE: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

/// `LANDLOCK_ACCESS_NET_CONNECT_TCP`, and with `…_BIND_TCP` all that there is.
const CONNECT: u64 = 1 << 1;
const NET: u64 = CONNECT | 1 << 0;
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` and `LANDLOCK_SCOPE_SIGNAL`.
const SCOPES: u64 = 1 << 0 | 1 << 1;
/// `LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF`: what is refused is not written to the audit log, or a hostile program could flood it.
const QUIET: u32 = 1;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct Ruleset {
    fs: u64,
    net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    access: u64,
    parent: i32,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct NetPort {
    access: u64,
    port: u64,
}

/// `struct open_how` of openat2(2).
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// The ABI of this kernel.
///
/// # Errors
/// Why there is none, as a sentence.
pub(crate) fn abi() -> Result<u32, String> {
    // SAFETY: with this flag the call takes no memory and returns a number (`LANDLOCK_CREATE_RULESET_VERSION`).
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    if version > 0 {
        return Ok(version as u32);
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no Landlock (Linux 5.13 and later)".into(),
        Some(libc::EOPNOTSUPP) => "Landlock is disabled in this kernel (boot parameter lsm=)".into(),
        _ => format!("Landlock does not answer: {error}"),
    })
}

/// How far Landlock of this ABI holds.
pub(crate) fn status(abi: u32) -> Status {
    // What seccomp closes in place of a missing right is not missing; this is what nothing closes.
    if abi < 3 { Status::partial("opening a readable file of one's own can truncate it (before Linux 6.2)") } else { Status::On }
}

/// All rights on files that this ABI knows.
fn known(abi: u32) -> u64 {
    match abi {
        0 => 0,
        1 => REFER - 1,
        2 => TRUNCATE - 1,
        3 | 4 => IOCTL_DEV - 1,
        _ => (IOCTL_DEV << 1) - 1,
    }
}

/// Restricts the calling thread, and what it starts, to what the rules grant. `no_new_privs` must be set.
pub(crate) fn restrict(rules: &Rules, abi: u32) -> Result<(), Error> {
    enter(&ruleset(rules, abi)?, abi)
}

/// What the rules grant, to be entered by this process or by one that it is given to.
pub(crate) fn ruleset(rules: &Rules, abi: u32) -> Result<OwnedFd, Error> {
    let failed = |what: &str| Error::new(Layer::Landlock, format!("{what}: {}", io::Error::last_os_error()));
    let handled = Ruleset { fs: known(abi), net: if abi >= 4 { NET } else { 0 }, scoped: if abi >= 6 { SCOPES } else { 0 } };
    // The structure has grown with the ABI: an older kernel is given the part it knows.
    let size = match abi {
        ..=3 => 8,
        4 | 5 => 16,
        _ => size_of::<Ruleset>(),
    };
    // SAFETY: the structure lives and is at least `size` bytes.
    let ruleset = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size, 0) };
    if ruleset < 0 {
        return Err(failed("no ruleset could be made"));
    }
    // SAFETY: the kernel has just given this descriptor to us.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset as i32) };
    for (path, access, must_exist) in grants(rules) {
        grant(&ruleset, path, access & handled.fs, must_exist)?;
    }
    // Where the broker makes the connections, the process itself makes none.
    if rules.profile == Profile::Net && rules.without.contains(&Layer::Broker) && handled.net != 0 {
        for host in &rules.hosts {
            let port = NetPort { access: CONNECT, port: u64::from(host.port) };
            // SAFETY: rule type 2 (`LANDLOCK_RULE_NET_PORT`) reads this structure, which lives.
            if unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), 2, &raw const port, 0) } != 0 {
                return Err(failed(&format!("port {} could not be granted", host.port)));
            }
        }
    }
    Ok(ruleset)
}

/// Grants a directory of the process's own in a ruleset.
pub(crate) fn own(ruleset: &OwnedFd, path: &Path, abi: u32) -> Result<(), Error> {
    grant(ruleset, path, (WRITE | RUN) & known(abi), true)
}

/// What is granted on each path, and whether it must be there. Many paths are granted in more than one way, and each rule costs a look-up.
fn grants(rules: &Rules) -> Vec<(&Path, u64, bool)> {
    let mut grants: Vec<(&Path, u64, bool)> = Vec::with_capacity(rules.read.len() + rules.write.len() + rules.execute.len());
    for (paths, access, must_exist) in [(&rules.read, READ, false), (&rules.write, WRITE, true), (&rules.execute, RUN, false)] {
        for path in paths {
            match grants.iter_mut().find(|(known, ..)| known.as_os_str() == path.as_os_str()) {
                Some(known) => *known = (known.0, known.1 | access, known.2 | must_exist),
                None => grants.push((path, access, must_exist)),
            }
        }
    }
    grants
}

/// Restricts the calling thread, and what it starts, by a ruleset besides what restricts it already. `no_new_privs` must be set.
pub(crate) fn enter(ruleset: &OwnedFd, abi: u32) -> Result<(), Error> {
    let flags = if abi >= 7 { QUIET } else { 0 };
    // SAFETY: the call takes no memory.
    if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), flags) } != 0 {
        return Err(Error::new(Layer::Landlock, format!("the ruleset was refused: {}", io::Error::last_os_error())));
    }
    Ok(())
}

/// Grants access to one path and what is beneath it.
fn grant(ruleset: &OwnedFd, path: &Path, access: u64, must_exist: bool) -> Result<(), Error> {
    let failed = |error: io::Error| Error::new(Layer::Landlock, format!("{} could not be granted: {error}", path.display()));
    let opened = match open(path) {
        Ok(opened) => opened,
        // Nothing is granted by it then. A directory of packages need not be there; one to write to must.
        Err(error) if !must_exist && error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(failed(io::Error::other("it is or passes a symbolic link now, which it did not when it was granted")));
        }
        Err(error) => return Err(failed(error)),
    };
    let with = |access| {
        let rule = PathBeneath { access, parent: opened.as_raw_fd() };
        // SAFETY: rule type 1 (`LANDLOCK_RULE_PATH_BENEATH`) reads this structure, which lives.
        match unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), 1, &raw const rule, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // The kernel says EINVAL to rights of directories on what is none: one call less than to ask first.
    match with(access) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => with(access & OF_A_FILE),
        other => other,
    }
    .map_err(failed)
}

/// Opens the very thing that was granted: a symbolic link anywhere in the path is refused, since somebody may have put it there since.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let how = OpenHow {
        flags: (libc::O_PATH | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve: libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS,
    };
    // SAFETY: the name ends with NUL, the structure is of the size given, and both live.
    let fd = unsafe { libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, name.as_ptr(), &raw const how, size_of::<OpenHow>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_granted_in_several_ways_is_one_rule_with_all_of_them() {
        let rules = Rules {
            read: vec!["/a".into(), "/b".into()],
            write: vec!["/c".into(), "/b".into()],
            execute: vec!["/b".into(), "/a".into(), "/d".into()],
            ..Rules::default()
        };
        let wanted: [(&str, u64, bool); 4] = [("/a", RUN, false), ("/b", WRITE | RUN, true), ("/c", WRITE, true), ("/d", RUN, false)];
        assert_eq!(grants(&rules), wanted.map(|(path, access, must)| (Path::new(path), access, must)));
    }

    #[test]
    fn each_abi_is_asked_for_what_it_knows() {
        assert_eq!(known(1).count_ones(), 13);
        assert_eq!(known(2), known(1) | REFER);
        assert_eq!(known(3), known(2) | TRUNCATE);
        assert_eq!(known(4), known(3));
        assert_eq!(known(5), known(3) | IOCTL_DEV);
        assert_eq!(known(9), known(5), "what a later kernel adds we do not know");
        assert_eq!(WRITE & EXECUTE, 0, "what can be written cannot be executed");
    }
}
