//! What may be granted: the policy for paths that a user names. Pure.
//!
//! The kernel can add paths to what a process may open, not take any away, so a grant that is too wide cannot be narrowed by another rule.

use std::path::{Component, Path};

/// What is granted on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Its content can be read, of a directory all that is in it.
    Read,
    /// Reading, writing, making, moving and removing; not executing, not making devices, sockets or FIFOs.
    Write,
    /// Reading, executing, mapping for execution.
    Execute,
}

/// Devices that any program may be granted: they give and take bytes and remember nothing.
pub const HARMLESS_DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Places that are refused as a whole, and why.
const REFUSED: [(&str, &str); 3] = [
    ("/proc", "it shows the other processes of the user"),
    ("/dev", "it holds disks and terminals; grant single devices"),
    ("/sys", "it holds the settings of the kernel"),
];

/// Places that are rarely meant as a whole, and what is in them.
const WIDE: [(&str, &str); 5] = [
    ("/etc", "the settings of the computer"),
    ("/home", "the files of all users"),
    ("/run", "the sockets of all services"),
    ("/tmp", "the temporary files of all programs"),
    ("/var", "the data of all services"),
];

/// Judges a grant on a path without symbolic links, as [`crate::paths::resolve`] makes it. `state` is the directory of vmoon's own state and `home` that of the user.
///
/// `Ok` holds a sentence of warning if the grant is wider than is usual.
///
/// # Errors
/// Why it is refused, as the end of a sentence that begins with the path.
pub fn check(path: &Path, kind: Kind, state: &Path, home: Option<&Path>) -> Result<Option<String>, String> {
    if !path.is_absolute() {
        return Err("is not absolute".into());
    }
    // `Path` drops a dot in the middle silently, so what is compared is what it would be written as.
    if path.components().any(|part| part == Component::ParentDir)
        || path.components().collect::<std::path::PathBuf>().as_os_str() != path.as_os_str()
    {
        return Err("is not written plainly: it holds `.`, `..` or a slash too many".into());
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err("holds a NUL byte".into());
    }
    if path == Path::new("/") {
        return Err("is the whole computer: name the directories that are needed, or use --profile trusted".into());
    }
    if path.starts_with(state) {
        return Err(format!("is or lies in {}, where vmoon keeps its own state and that of other machines", state.display()));
    }
    if let Some((place, why)) = REFUSED.iter().find(|(place, _)| path == Path::new(place) || (*place != "/dev" && path.starts_with(place)))
    {
        return Err(format!("cannot be granted: {} is refused because {why}", place));
    }
    if state.starts_with(path) {
        let what = format!("holds {}, where vmoon keeps its own state and that of other machines", state.display());
        return if kind == Kind::Write { Err(what) } else { Ok(Some(format!("{} {what}", path.display()))) };
    }
    if home == Some(path) {
        return Ok(Some(format!("{} is the whole home directory, with its keys and passwords", path.display())));
    }
    if let Some((_, what)) = WIDE.iter().find(|(place, _)| path == Path::new(place)) {
        return Ok(Some(format!("{} holds {what}", path.display())));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(path: &str, kind: Kind) -> Result<Option<String>, String> {
        check(Path::new(path), kind, Path::new("/home/user/.local/state/vmoon"), Some(Path::new("/home/user")))
    }

    #[test]
    fn ordinary_paths_are_granted_without_a_word() {
        for path in ["/usr/share/lua/5.4", "/home/user/project", "/srv/a & b <c>", "/srv/--help", "/srv/x\n", "/dev/null", "/dev/dri"] {
            for kind in [Kind::Read, Kind::Write, Kind::Execute] {
                assert_eq!(checked(path, kind), Ok(None), "{path}");
            }
        }
    }

    #[test]
    fn accidents_are_refused() {
        for path in ["", "x", "../x", "/", "/a/../b", "/a/./b", "/a//b", "/a/", "/a\0b", "/proc", "/proc/1/environ", "/sys/kernel", "/dev"]
        {
            for kind in [Kind::Read, Kind::Write, Kind::Execute] {
                assert!(checked(path, kind).is_err(), "{path:?}");
            }
        }
        assert!(checked("/home/user/.local/state/vmoon", Kind::Read).is_err());
        assert!(checked("/home/user/.local/state/vmoon/run", Kind::Read).is_err());
        assert!(checked("/home/user/.local/state/vmoon-of-mine", Kind::Write) == Ok(None), "a longer name is another directory");
    }

    #[test]
    fn wide_grants_are_warned_of() {
        for path in ["/etc", "/home", "/home/user", "/home/user/.local"] {
            assert!(matches!(checked(path, Kind::Read), Ok(Some(_))), "{path}");
        }
        assert!(checked("/home/user", Kind::Write).is_err(), "the state could be rewritten");
        assert!(matches!(checked("/tmp", Kind::Write), Ok(Some(_))));
    }
}
