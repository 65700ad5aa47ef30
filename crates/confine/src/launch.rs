//! The launcher of an interpreter of this computer: a process that confines itself and then becomes the interpreter.
//!
//! It is exec'd by the holder as `vmoon lua-confine RULES-FD REPORT-FD PROGRAM [ARGUMENT…]`, reads the rules as JSON from one descriptor up to its end, applies them,
//! writes one line of JSON to the other, and execs. The second descriptor is closed by the exec, so its end says that the interpreter runs; see [`outcome`].
//!
//! The filter must let this one execve(2) pass and none after it. It cannot count, and what it sees are addresses; so the path, the arguments and the environment
//! are put at random addresses, and only an execveat(2) with exactly these passes. The program that is then executed has another address space, is not told them, and
//! would have to guess about 100 bits. Landlock lets it execute nothing but what is granted anyway.

use crate::apply::{Next, Prepared, apply_for};
use crate::report::{Report, Status};
use crate::rules::{Layer, Profile, Rules};
use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsString, c_char, c_void};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::ptr;

/// Longest rules that are read, bytes.
const LONGEST: u64 = 4 << 20;

/// One line from the launcher.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// The rules hold; the interpreter is executed next.
    Report(Report),
    /// There will be no interpreter, because of this.
    Error(String),
}

/// Runs the launcher: `args` are those behind the verb. Returns only if the program could not be executed.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let mut number = || args.next()?.to_str()?.parse::<RawFd>().ok().filter(|fd| *fd > 2);
    let (Some(rules), Some(report)) = (number(), number()) else {
        let _ = io::stderr().write_all(b"usage: lua-confine RULES-FD REPORT-FD PROGRAM [ARGUMENT...] (started by vmoon itself)\n");
        return ExitCode::FAILURE;
    };
    // SAFETY: whoever started us gave us these two, and nobody else in this process uses them.
    let (rules, report) = unsafe { (OwnedFd::from_raw_fd(rules), OwnedFd::from_raw_fd(report)) };
    let mut report = File::from(report);
    let failed = match run(File::from(rules), &mut report, args.collect()) {
        Ok(never) => match never {},
        Err(sentence) => sentence,
    };
    let _ = say(&mut report, &Line::Error(failed));
    ExitCode::FAILURE
}

fn say(report: &mut File, line: &Line) -> Result<(), String> {
    let mut text = serde_json::to_string(line).map_err(|error| error.to_string())?;
    text.push('\n');
    report.write_all(text.as_bytes()).map_err(|error| format!("the report could not be written: {error}"))
}

fn run(rules: File, report: &mut File, command: Vec<OsString>) -> Result<std::convert::Infallible, String> {
    let mut text = Vec::new();
    rules.take(LONGEST).read_to_end(&mut text).map_err(|error| format!("the rules could not be read: {error}"))?;
    let rules: Rules = serde_json::from_slice(&text).map_err(|error| format!("the rules could not be read: {error}"))?;
    let program = command.first().filter(|program| Path::new(program).is_absolute()).ok_or("no absolute path of a program was given")?;
    rustix::io::fcntl_setfd(&*report, rustix::io::FdFlags::CLOEXEC).map_err(|error| error.to_string())?;

    let strings = |all: Vec<Vec<u8>>| -> Result<Vec<CString>, String> {
        all.into_iter().map(|one| CString::new(one).map_err(|_| "an argument holds a NUL byte".to_owned())).collect()
    };
    let path = strings(vec![program.as_bytes().to_vec()])?;
    let args = strings(command.iter().map(|one| one.clone().into_vec()).collect())?;
    let env = strings(std::env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect())?;
    let secret = |error: io::Error| format!("no memory for the arguments: {error}");
    let path = Hidden::bytes(path[0].as_bytes_with_nul()).map_err(secret)?;
    let args = Hidden::pointers(&args).map_err(secret)?;
    let env = Hidden::pointers(&env).map_err(secret)?;

    let prepared = Prepared::new();
    // It outlives the exec: it knows the process by its id and by a descriptor. Nobody asks it for names; the interpreter could not.
    let guard = if rules.profile == Profile::Net && !rules.without.contains(&Layer::Broker) {
        Some(crate::net::start(&rules.hosts, None).map_err(|error| error.to_string())?)
    } else {
        None
    };
    let next = Next::Exec([path.address(), args.address(), env.address()]);
    let mut outcome = apply_for(&rules, &prepared, next).map_err(|error| error.to_string())?;
    if guard.is_some() {
        outcome.set(Layer::Broker, Status::On);
    }
    say(report, &Line::Report(outcome))?;
    // SAFETY: a path that ends with NUL and two arrays of pointers that end with a null pointer, to strings that live.
    unsafe { libc::syscall(libc::SYS_execveat, libc::AT_FDCWD, path.0, args.0, env.0, 0) };
    let error = io::Error::last_os_error();
    let hint = match (error.kind(), rules.profile, rules.without.contains(&Layer::Landlock)) {
        (io::ErrorKind::PermissionDenied, Profile::Sealed | Profile::Files | Profile::Net, false) => {
            " (it, its loader and its libraries must be granted)"
        }
        _ => "",
    };
    Err(format!("{} could not be executed: {error}{hint}", Path::new(program).display()))
}

/// What the launcher has said, read to its end: what holds the interpreter.
///
/// # Errors
/// The launcher's sentence, or that it ended without one.
pub fn outcome(said: &[u8]) -> Result<Report, String> {
    let mut found = Err("the launcher ended without a word".to_owned());
    for line in said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        found = match serde_json::from_slice(line) {
            Ok(Line::Report(report)) => Ok(report),
            Ok(Line::Error(sentence)) => Err(sentence),
            Err(error) => Err(format!("the launcher's report could not be read: {error}")),
        };
    }
    found
}

/// Memory at an address that nobody can guess. It is never given back: the process becomes another.
struct Hidden(*mut c_void);

impl Hidden {
    fn bytes(content: &[u8]) -> io::Result<Self> {
        let hidden = Self::map(content.len())?;
        // SAFETY: the mapping is at least as long, writable and new, so it overlaps nothing.
        unsafe { ptr::copy_nonoverlapping(content.as_ptr(), hidden.0.cast(), content.len()) };
        Ok(hidden)
    }

    /// An array of pointers to these strings with a null pointer at its end. The strings must live as long as it is used.
    fn pointers(strings: &[CString]) -> io::Result<Self> {
        let pointers: Vec<*const c_char> = strings.iter().map(|one| one.as_ptr()).chain([ptr::null()]).collect();
        let hidden = Self::map(size_of_val(pointers.as_slice()))?;
        // SAFETY: as above; a mapping begins at a page, so it is aligned for pointers.
        unsafe { ptr::copy_nonoverlapping(pointers.as_ptr(), hidden.0.cast(), pointers.len()) };
        Ok(hidden)
    }

    fn map(length: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        for _ in 0..64 {
            let mut random = [0u8; 8];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
            // 35 random bits of pages in the lower half of an address space of 47 bits, beyond the first 64 GiB.
            let wanted = (u64::from_ne_bytes(random) & 0x3fff_ffff_f000) | 0x10_0000_0000;
            // SAFETY: NOREPLACE: nothing that is mapped is touched.
            let at = unsafe { libc::mmap(wanted as *mut c_void, length.max(1), protection, flags, -1, 0) };
            if at as u64 == wanted {
                return Ok(Self(at));
            }
            if at != libc::MAP_FAILED {
                return Err(io::Error::other("this kernel does not map where it is asked to (before Linux 4.17)"));
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EEXIST) {
                return Err(error);
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    fn address(&self) -> u64 {
        self.0 as u64
    }
}

/// What a program needs to be granted in order to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// To read: the directories of shared libraries and the loader's cache.
    pub read: Vec<PathBuf>,
    /// To execute: the program and its loader, without symbolic links.
    pub execute: Vec<PathBuf>,
}

/// Where shared libraries are (ld.so(8)).
const LIBRARIES: [&str; 6] = ["/etc/ld.so.cache", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"];

/// What this program needs, if it is an ELF file of this computer.
///
/// # Errors
/// It cannot be read, or is not such a file.
pub fn needs(program: &Path) -> io::Result<Needs> {
    let mut head = Vec::new();
    File::open(program)?.take(64 << 10).read_to_end(&mut head)?;
    let not_elf = || io::Error::new(io::ErrorKind::InvalidData, format!("{} is not a program of this computer", program.display()));
    let mut execute = vec![program.canonicalize()?];
    if let Some(loader) = loader(&head).ok_or_else(not_elf)? {
        execute.push(loader.canonicalize()?);
    }
    let mut read: Vec<PathBuf> = LIBRARIES.iter().filter_map(|path| Path::new(path).canonicalize().ok()).collect();
    read.sort();
    read.dedup();
    Ok(Needs { read, execute })
}

/// The loader that an ELF file of 64 bits names (segment `PT_INTERP`, elf(5)); `None` within if it needs none.
fn loader(head: &[u8]) -> Option<Option<PathBuf>> {
    let at = |offset: usize, length: usize| -> Option<u64> {
        let bytes = head.get(offset..offset.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (at(32, 8)? as usize, at(54, 2)? as usize, at(56, 2)? as usize);
    for number in 0..count {
        let entry = table.checked_add(number * size)?;
        if at(entry, 4)? == 3 {
            let (offset, length) = (at(entry.checked_add(8)?, 8)? as usize, at(entry.checked_add(32)?, 8)? as usize);
            let name = head.get(offset..offset.checked_add(length)?)?.strip_suffix(b"\0")?;
            return Some(Some(PathBuf::from(OsString::from_vec(name.to_vec()))));
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_elf_files_are_no_programs() {
        assert_eq!(loader(b""), None);
        assert_eq!(loader(b"#!/bin/sh\n"), None);
        let mut head = vec![0; 64];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert_eq!(loader(&head), Some(None));
        head[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        head[54..58].copy_from_slice(&[0xff; 4]);
        assert_eq!(loader(&head), None);
    }

    #[test]
    fn the_last_word_of_the_launcher_counts() {
        assert!(outcome(b"").is_err());
        assert!(outcome(b"{\"report\":[]}\n").is_ok());
        assert_eq!(outcome(b"{\"report\":[]}\n{\"error\":\"no\"}\n"), Err("no".into()));
        assert!(outcome(b"{\"report\":[]}\nxx").is_err());
    }

    #[test]
    fn hidden_memory_is_never_at_the_same_place() {
        let (one, two) = (Hidden::bytes(b"x").expect("memory"), Hidden::bytes(b"x").expect("memory"));
        assert_ne!(one.address(), two.address());
    }
}
