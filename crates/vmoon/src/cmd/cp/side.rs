//! The two sides of a copy: a path on this computer, or a path in a machine.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};
use vmoon_core::{Code, Error, Result, name::escape};

/// One side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// A path on this computer.
    Here(PathBuf),
    /// A path in one machine or several.
    Machine {
        /// The machines: a name, an id, a glob, braces.
        target: String,
        /// The path below the work directory, as written.
        path: Vec<u8>,
    },
}

impl Side {
    /// What a user wrote: a colon before any slash makes it a machine's.
    ///
    /// # Errors
    /// [`Code::Usage`] for nothing at all.
    pub(super) fn of(text: &OsStr) -> Result<Self> {
        let bytes = text.as_bytes();
        let colon = bytes.iter().position(|byte| *byte == b':').filter(|at| !bytes[..*at].contains(&b'/'));
        let Some(colon) = colon else {
            if bytes.is_empty() {
                return Err(Error::new(Code::Usage, "an empty path names nothing").hint("write . for the current directory"));
            }
            return Ok(Side::Here(PathBuf::from(text)));
        };
        let target = std::str::from_utf8(&bytes[..colon]).ok().filter(|target| !target.is_empty()).ok_or_else(|| {
            Error::new(Code::Usage, format!("\"{}\" names no machine", escape(&text.to_string_lossy())))
                .hint("write MACHINE:PATH; a path on this side that begins with a colon is written ./:x")
        })?;
        Ok(Side::Machine { target: target.to_owned(), path: bytes[colon + 1..].to_vec() })
    }
}

/// The same side with a connection before the machine's name, `CONNECTION:MACHINE:PATH`, if it can be read so.
pub(super) fn qualified(target: &str, path: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = path.iter().position(|byte| *byte == b':').filter(|at| !path[..*at].contains(&b'/'))?;
    let machine = std::str::from_utf8(&path[..colon]).ok().filter(|machine| !machine.is_empty())?;
    Some((format!("{target}:{machine}"), path[colon + 1..].to_vec()))
}

/// The name at the end of a path; nothing for the directory itself.
pub(super) fn last(path: &[u8]) -> Option<&[u8]> {
    path.split(|byte| *byte == b'/').rfind(|part| !part.is_empty() && *part != b".").filter(|part| *part != b"..")
}

/// A path below another.
pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = path.to_vec();
    if !joined.is_empty() && !joined.ends_with(b"/") {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

/// A name that a machine says one of its files has, if it can be a name at all.
pub(super) fn name(bytes: &[u8]) -> Result<&Path> {
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(Error::new(Code::FileRefused, format!("\"{}\" cannot be a name", escape(&String::from_utf8_lossy(bytes)))));
    }
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_before_any_slash_makes_a_machine() {
        let machine = |target: &str, path: &[u8]| Side::Machine { target: target.into(), path: path.into() };
        for (text, side) in [
            (&b"lab:x/y"[..], machine("lab", b"x/y")),
            (b"lab:", machine("lab", b"")),
            (b"lab:a:b", machine("lab", b"a:b")),
            (b"f{1..3}:out", machine("f{1..3}", b"out")),
            (b"lab:\xff", machine("lab", b"\xff")),
            (b"./a:b", Side::Here("./a:b".into())),
            (b"/a:b", Side::Here("/a:b".into())),
            (b"a", Side::Here("a".into())),
        ] {
            assert_eq!(Side::of(OsStr::from_bytes(text)).unwrap(), side);
        }
        for bad in [&b""[..], b":x", b"\xff:x"] {
            assert_eq!(Side::of(OsStr::from_bytes(bad)).unwrap_err().code(), Code::Usage);
        }
    }

    #[test]
    fn a_connection_may_come_first() {
        assert_eq!(qualified("demo", b"moon:a:b"), Some(("demo:moon".into(), b"a:b".to_vec())));
        assert_eq!(qualified("demo", b"moon:"), Some(("demo:moon".into(), Vec::new())));
        for path in [&b"moon"[..], b"a/b:c", b":x", b"\xff:x"] {
            assert_eq!(qualified("demo", path), None);
        }
    }

    #[test]
    fn names_from_a_machine_stay_where_they_are_put() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/etc", b"a\0"] {
            assert_eq!(name(bad).unwrap_err().code(), Code::FileRefused);
        }
        for good in [&b"a"[..], b"...", b"\xff", b"-rf", b"a\nb"] {
            assert!(name(good).is_ok());
        }
        assert_eq!((last(b"a/b/"), last(b""), last(b"a/.."), last(b"./x")), (Some(&b"b"[..]), None, None, Some(&b"x"[..])));
        assert_eq!((join(b"", b"x"), join(b"a/", b"x"), join(b"a", b"x")), (b"x".to_vec(), b"a/x".to_vec(), b"a/x".to_vec()));
    }
}
