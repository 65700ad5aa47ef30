//! A program that we speak with over pipes: what leads to a server elsewhere, such as `ssh HOST COMMAND`.

use std::{
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
};

/// A running program and its pipes. Dropping it ends the program.
#[derive(Debug)]
pub struct Spoken {
    child: Child,
}

/// The ends of the pipes that are ours.
#[derive(Debug)]
pub struct Pipes {
    /// What the program reads.
    pub input: OwnedFd,
    /// What it writes.
    pub output: OwnedFd,
    /// Its complaints.
    pub errors: OwnedFd,
}

/// Starts a program with pipes for all three of its streams, in a process group of its own, so that an interrupt at the terminal is not for it. A name
/// without a slash is looked for in `PATH`.
///
/// # Errors
/// Those of fork(2) and execve(2): no such program, no permission, no memory.
pub fn start(program: &Path, arguments: &[OsString]) -> io::Result<(Spoken, Pipes)> {
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let input = child.stdin.take().ok_or_else(gone)?.into();
    let output = child.stdout.take().ok_or_else(gone)?.into();
    let errors = child.stderr.take().ok_or_else(gone)?.into();
    Ok((Spoken { child }, Pipes { input, output, errors }))
}

impl Drop for Spoken {
    fn drop(&mut self) {
        // It has nothing of ours to lose: its other end sees a closed connection. A killed process is reaped at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        io::{Read as _, Write as _},
    };

    #[test]
    fn what_is_said_is_answered_and_dropping_ends_it() {
        let (spoken, pipes) = start(Path::new("cat"), &[]).unwrap();
        File::from(pipes.input).write_all(b"hello").unwrap();
        let mut said = String::new();
        File::from(pipes.output).read_to_string(&mut said).unwrap();
        assert_eq!(said, "hello");
        drop(spoken);
        let (spoken, pipes) = start(Path::new("cat"), &[]).unwrap();
        drop(spoken);
        let mut rest = String::new();
        File::from(pipes.output).read_to_string(&mut rest).unwrap();
        assert!(start(Path::new("no-such-program-anywhere"), &[]).is_err());
    }
}
