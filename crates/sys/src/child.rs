//! A child process that dies with us and speaks over descriptors of its own.

use std::{
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, RawFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

/// A process to start that shall not outlive us.
#[derive(Debug)]
pub struct Tied<'a> {
    /// The program, a path.
    pub exe: &'a Path,
    /// Its arguments, without the program's own name.
    pub args: Vec<String>,
    /// Its standard output and error; its standard input is `/dev/null`.
    pub output: [BorrowedFd<'a>; 2],
    /// More descriptors and the numbers, from 3 and below 100, that they get in the child.
    pub extra: Vec<(BorrowedFd<'a>, i32)>,
}

impl Tied<'_> {
    /// Starts it in a process group of its own. The kernel kills it when the thread that called this ends
    /// (prctl(2), `PR_SET_PDEATHSIG`), so call it from the main thread.
    ///
    /// # Errors
    /// Those of fork(2) and execve(2): no such program, no permission, no memory, too many processes.
    pub fn spawn(&self) -> io::Result<Child> {
        let stream = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(Stdio::from);
        let mut command = Command::new(self.exe);
        command.args(&self.args).process_group(0).stdin(Stdio::null()).stdout(stream(self.output[0])?).stderr(stream(self.output[1])?);
        tie(&mut command, self.extra.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect());
        command.spawn()
    }
}

/// Makes the kernel kill the child when the thread that starts it ends, and gives it these descriptors under the numbers beside them.
pub(crate) fn tie(command: &mut Command, mut extra: Vec<(RawFd, i32)>) {
    let parent = std::process::id() as i32;
    // SAFETY: between fork and exec only system calls that are safe there: no memory is allocated.
    unsafe {
        command.pre_exec(move || {
            // First all go above the wanted numbers, so that none overwrites another.
            for (fd, _) in &mut extra {
                *fd = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 100);
            }
            let ok = extra.iter().all(|(fd, number)| *fd >= 0 && libc::dup2(*fd, *number) >= 0)
                && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0;
            if !ok {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before it was watched.
            if libc::getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, pipe},
        os::fd::AsFd as _,
    };

    #[test]
    fn a_child_finds_its_descriptors_where_it_was_told() {
        let (mut read, write) = pipe().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let child = Tied {
            exe: Path::new("/bin/sh"),
            args: vec!["-c".into(), "cat <&3; echo four >&4".into()],
            output: [null.as_fd(), null.as_fd()],
            extra: vec![(null.as_fd(), 3), (write.as_fd(), 4)],
        }
        .spawn();
        let mut child = child.unwrap();
        drop(write);
        let mut said = String::new();
        read.read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(said, "four\n");
    }
}
