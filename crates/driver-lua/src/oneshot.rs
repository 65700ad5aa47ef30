//! One Lua program in this very process: `vmoon run`. Where the program comes from, which interpreter runs it, and how a
//! deadline ends it.
//!
//! This file must not know machines, sessions or the daemon; there is no async runtime on this path. Everything it says goes to
//! standard error, its answer is the exit code.

mod access;
mod deadline;
pub(crate) mod elsewhere;
mod foreign;
pub mod map;
mod vm;

use crate::flavour::Flavour;
use std::{
    ffi::OsString,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};
use vmoon_confine::Prepared;

/// The exit code when the program was interrupted.
pub const INTERRUPTED: u8 = 130;
/// The exit code when the program ran past its deadline.
pub const DEADLINE: u8 = 8;
/// The exit code when the program could not be run by a fault of ours.
pub const OURS: u8 = 125;
/// The exit code when the program is there and cannot be run: unreadable, a folder, bytecode.
pub const UNUSABLE: u8 = 126;
/// The exit code when the program or the interpreter is not there.
pub const MISSING: u8 = 127;

/// Where the program comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line; what it returns is printed.
    Code(Vec<u8>),
    /// A file; its first line is skipped if it begins with `#`.
    File(PathBuf),
    /// All of standard input.
    Stdin,
}

/// A program to run once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Where it comes from.
    pub source: Source,
    /// More code of the command line: run after the source, in this order and in the same state, each as a chunk of its own.
    pub more: Vec<Vec<u8>>,
    /// Its arguments: `...` and the table `arg`.
    pub args: Vec<OsString>,
    /// `None` or `builtin` for the Lua that is built in, `builtin-luajit` and the like for another one, else a program to look for in
    /// `PATH`, or a path.
    pub runtime: Option<String>,
    /// End it after so long.
    pub deadline: Option<Duration>,
    /// What it may do: the settings `profile`, `read`, `write`, `net`, `memory`, `cpu`, `file-size` and `open-files` of a machine.
    /// Without a profile it is `sealed`, or `net` where hosts are named. Besides it may read the folder of its file, unless that
    /// is a place such as the home directory, and installed packages.
    pub access: serde_json::Map<String, serde_json::Value>,
    /// The environment whose modules it finds, in the place of those installed on the computer; granted with it.
    pub environment: Option<crate::Environment>,
}

/// Runs the program and gives the exit code: its own, or 1 if it failed, [`INTERRUPTED`], [`DEADLINE`], [`OURS`],
/// [`UNUSABLE`], [`MISSING`], or 2 where what it may do makes no sense. Must be called while the process has one thread; does not return where the program calls
/// `os.exit`, and with a deadline it may return twice, in two processes: give the code back to the caller in both.
pub fn run(program: &Program) -> u8 {
    restore_signals();
    match program.deadline {
        None => start(program),
        Some(limit) => deadline::run(program, limit),
    }
}

fn start(program: &Program) -> u8 {
    match program.runtime.as_deref() {
        None => embedded(program).unwrap_or_else(|code| code),
        Some(runtime) => match Flavour::of(runtime) {
            Some(flavour) if flavour.is_ours() => embedded(program).unwrap_or_else(|code| code),
            Some(flavour) => elsewhere::exec(flavour, program),
            None => foreign::exec(runtime, program),
        },
    }
}

fn embedded(program: &Program) -> Result<u8, u8> {
    // Before the process is confined, which may hide the file.
    let chunks = program.chunks()?;
    let access = access::decide(&program.access, &program.source, None, program.environment.as_ref())?;
    let weakness = if access.is_free() { Ok(None) } else { access.confine(&Prepared::new()) };
    match weakness {
        Ok(weakness) => weakness.iter().for_each(|sentence| complain(sentence)),
        Err(sentence) => {
            complain(&sentence);
            return Err(OURS);
        }
    }
    Ok(vm::run(&chunks, &program.args, &access))
}

impl Program {
    /// Everything that is to be run, in this order.
    fn chunks(&self) -> Result<Vec<Chunk>, u8> {
        let more = self.more.iter().map(|code| load(&Source::Code(code.clone())));
        std::iter::once(load(&self.source)).chain(more).collect()
    }
}

/// What the program gets from its parent: our own runtime ignores SIGPIPE, and would make every child ignore it.
fn restore_signals() {
    // SAFETY: setting a signal to its default action has no preconditions.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// A chunk that is ready to be compiled.
struct Chunk {
    /// Its text, without a byte order mark and with an empty line where the `#!` line was.
    text: Vec<u8>,
    /// How messages name it, with Lua's mark before it, ended by a zero byte.
    name: Vec<u8>,
    /// `arg[0]`.
    zero: OsString,
    /// Whether the values it returns are printed.
    print: bool,
}

fn load(source: &Source) -> Result<Chunk, u8> {
    let (mut text, name, zero, print) = match source {
        Source::Code(code) => (code.clone(), b"=(command line)\0".to_vec(), "-e".into(), true),
        Source::File(path) => {
            let text = read_file(path)?;
            let shown = path.as_os_str().as_encoded_bytes();
            (text, [b"@", shown, b"\0"].concat(), path.clone().into_os_string(), false)
        }
        Source::Stdin => {
            let mut text = Vec::new();
            if let Err(error) = std::io::stdin().lock().read_to_end(&mut text) {
                complain(&format!("standard input cannot be read: {error}"));
                return Err(UNUSABLE);
            }
            (text, b"=stdin\0".to_vec(), "-".into(), false)
        }
    };
    if !print {
        strip(&mut text);
    }
    if text.iter().find(|byte| **byte != b'\n') == Some(&0x1b) {
        complain(&format!("{} is bytecode, which can crash the interpreter; run its source instead", zero.to_string_lossy()));
        return Err(UNUSABLE);
    }
    Ok(Chunk { text, name, zero, print })
}

fn read_file(path: &Path) -> Result<Vec<u8>, u8> {
    if path.as_os_str().is_empty() {
        complain("the name of the program is empty; name its file, or - for standard input");
        return Err(MISSING);
    }
    std::fs::read(path).map_err(|error| not_opened(path, &error))
}

/// Says why a file cannot be opened; the exit code for it.
fn not_opened(path: &Path, error: &std::io::Error) -> u8 {
    let missing = matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory);
    complain(&format!("cannot open {}: {}", vmoon_core::name::escape(&path.to_string_lossy()), reason(error)));
    if missing { MISSING } else { UNUSABLE }
}

fn reason(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::NotFound | K::NotADirectory => "there is no such file",
        K::PermissionDenied => "permission denied",
        K::IsADirectory => "it is a folder",
        _ => "it cannot be read",
    }
}

/// Removes the byte order mark and the content of a first line that begins with `#`; the line numbers stay.
fn strip(text: &mut Vec<u8>) {
    if text.starts_with(b"\xef\xbb\xbf") {
        text.drain(..3);
    }
    if text.first() == Some(&b'#') {
        let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
        text.drain(..end);
    }
}

/// One line of ours on standard error.
fn complain(message: &str) {
    // Nobody is left to be told if this fails.
    let _ = writeln!(std::io::stderr(), "vmoon: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_skipped_and_lines_keep_their_numbers() {
        for (text, expect) in [
            (&b"#!/usr/bin/lua\nx"[..], &b"\nx"[..]),
            (b"\xef\xbb\xbf#!x\ny", b"\ny"),
            (b"\xef\xbb\xbfreturn", b"return"),
            (b"#", b""),
            (b"", b""),
            (b"return #x", b"return #x"),
        ] {
            let mut stripped = text.to_vec();
            strip(&mut stripped);
            assert_eq!(stripped, expect);
        }
    }

    #[test]
    fn bytecode_is_refused_also_behind_a_first_line() {
        for code in [&b"\x1bLua"[..], b"\n\x1bLua"] {
            assert_eq!(load(&Source::Code(code.to_vec())).err(), Some(UNUSABLE));
        }
        assert!(load(&Source::Code(b"return '\x1b'".to_vec())).is_ok());
    }
}
