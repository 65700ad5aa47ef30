//! Programs that are measured from outside: whole processes, and plain interpreters on pipes.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, WaitOptions, kill_process, waitpid},
};
use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _},
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::process::Detached;

/// A loop that reads one chunk a line and prints its value: the least that a program on pipes can be.
pub(super) const LOOP: &str = "local f = loadstring or load for l in io.lines() do print(f(l)()) io.flush() end";

/// Finds a program on the search path.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return std::path::absolute(program).ok().filter(|path| path.is_file());
    }
    let runs = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(runs)
}

/// The first line that a program prints; empty if it prints none.
pub(super) fn first_line(exe: &Path, args: &[&str]) -> String {
    let text = Child::spawn(exe, args, &[]).and_then(|child| child.finish(Duration::from_secs(10)));
    text.map_or_else(|_| String::new(), |text| String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}

/// How long a whole process takes, from before it is started to after it was reaped.
///
/// # Errors
/// When it does not end with exit code 0, or its output does not begin with `expected`.
pub(super) fn whole(exe: &Path, args: &[&str], env: &[(&str, &str)], expected: &str) -> Result<Duration> {
    let begun = Instant::now();
    let output = Child::spawn(exe, args, env)?.finish(Duration::from_secs(60))?;
    let took = begun.elapsed();
    if !output.starts_with(expected.as_bytes()) {
        return Err(Error::new(Code::CommandFailed, format!("{} printed something else than was asked of it", exe.display())));
    }
    Ok(took)
}

/// A child with pipes on its standard input and output. Dropped, its input ends and it is waited for.
pub(super) struct Child {
    pid: Pid,
    input: Option<PipeWriter>,
    output: BufReader<PipeReader>,
    reaped: bool,
}

fn failed(error: io::Error) -> Error {
    Error::io("talk with a child", error)
}

impl Child {
    /// Starts it.
    pub(super) fn spawn(exe: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        let (stdin, input) = io::pipe().map_err(failed)?;
        let (output, stdout) = io::pipe().map_err(failed)?;
        let args = args.iter().map(OsStr::new).collect();
        let child = Detached { exe, args, env: env.to_vec(), stdio: [Some(stdin.as_fd()), Some(stdout.as_fd()), None] };
        let pid = child.spawn().map_err(|error| Error::io(format_args!("start {}", exe.display()), error))?;
        let pid = Pid::from_raw(pid).ok_or_else(|| Error::internal("a child without a process id"))?;
        Ok(Self { pid, input: Some(input), output: BufReader::with_capacity(64 << 10, output), reaped: false })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Writes a line.
    pub(super) fn write(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        // One write: two would be two packets of work for the reader.
        input.write_all(format!("{line}\n").as_bytes()).map_err(failed)
    }

    /// Reads a line, without its end.
    pub(super) fn read(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.output.read_line(&mut line).map_err(failed)? {
            0 => Err(failed(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(line.trim_end_matches('\n').to_owned()),
        }
    }

    /// Reads exactly so many bytes and forgets them.
    pub(super) fn skip(&mut self, mut bytes: u64) -> Result<()> {
        while bytes > 0 {
            let got = self.output.fill_buf().map_err(failed)?.len() as u64;
            if got == 0 {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            let taken = got.min(bytes);
            self.output.consume(taken as usize);
            bytes -= taken;
        }
        Ok(())
    }

    /// Ends its input, reads the rest and waits for its end; a child that takes longer than `limit` is killed.
    ///
    /// # Errors
    /// When it was late or ended otherwise than with exit code 0.
    pub(super) fn finish(mut self, limit: Duration) -> Result<Vec<u8>> {
        drop(self.input.take());
        let until = Instant::now() + limit;
        let mut text = self.output.buffer().to_vec();
        let mut buffer = vec![0; 16 << 10];
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
            match poll(&mut [PollFd::new(self.output.get_ref(), PollFlags::IN)], Some(&timeout)) {
                Ok(0) => {
                    // It ends by this, and is waited for when we are dropped.
                    let _ = kill_process(self.pid, Signal::KILL);
                    return Err(Error::new(Code::Timeout, format!("a child took longer than {} s", limit.as_secs())));
                }
                Ok(_) => match self.output.get_mut().read(&mut buffer).map_err(failed)? {
                    0 => break,
                    n => text.extend_from_slice(&buffer[..n]),
                },
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        self.reaped = true;
        let status = waitpid(Some(self.pid), WaitOptions::empty()).map_err(|error| failed(error.into()))?;
        match status.and_then(|(_, status)| status.exit_status()) {
            Some(0) => Ok(text),
            _ => Err(Error::new(Code::CommandFailed, "a child failed")),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            drop(self.input.take());
            // What is still in the pipe may be what it waits to write.
            let _ = kill_process(self.pid, Signal::KILL);
            let _ = waitpid(Some(self.pid), WaitOptions::empty());
        }
    }
}
