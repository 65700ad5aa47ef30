//! Runs a program to its end: its output is kept up to a bound, it has a deadline, and what it leaves behind is ended with it.

use crate::{
    child,
    process::{Identity, boot_id},
    random,
    stop::Stop,
    tree,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    collections::VecDeque,
    ffi::OsStr,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long the end of a killed tree is waited for.
const DYING: Duration = Duration::from_secs(10);

/// A program to run to its end.
#[derive(Debug)]
pub struct Run<'a> {
    /// The program, a path.
    pub exe: &'a Path,
    /// Its arguments, without the program's own name.
    pub args: Vec<&'a OsStr>,
    /// Its whole environment: nothing of ours is inherited.
    pub env: Vec<(&'a OsStr, &'a OsStr)>,
    /// The directory it starts in.
    pub dir: &'a Path,
    /// What it can read from its standard input.
    pub input: &'a [u8],
    /// More descriptors and the numbers, from 3 and below 99, that they get in the child.
    pub extra: Vec<(BorrowedFd<'a>, i32)>,
    /// Whether standard error goes to where standard output goes.
    pub merged: bool,
    /// How many bytes are kept of each stream; when there are more, the middle is left out.
    pub keep: usize,
    /// How long it may take.
    pub limit: Duration,
    /// The largest file that it may write, bytes; writing more ends it by SIGXFSZ.
    pub largest_file: Option<u64>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was ended because it took too long.
    TooLong,
    /// It was ended on request.
    Stopped,
}

/// What is left of a program that was run.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// What it wrote to standard output, and to standard error if they are merged.
    pub out: Kept,
    /// What it wrote to standard error.
    pub err: Kept,
}

/// The beginning and the end of a stream.
#[derive(Debug, Default)]
pub struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    keep: usize,
    /// How many bytes were left out between the two.
    pub dropped: u64,
}

impl Kept {
    fn new(keep: usize) -> Self {
        Self { keep, ..Self::default() }
    }

    fn add(&mut self, bytes: &[u8]) {
        // Three quarters for the beginning, the rest for what came last.
        let room = (self.keep - self.keep / 4).saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        self.tail.extend(&bytes[room..]);
        let over = self.tail.len().saturating_sub(self.keep / 4);
        self.tail.drain(..over);
        self.dropped += over as u64;
    }

    /// All of it, with a line in place of what was left out.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = self.head.clone();
        if self.dropped > 0 {
            all.extend_from_slice(format!("\n[{} bytes left out]\n", self.dropped).as_bytes());
        }
        all.extend(&self.tail);
        all
    }

    /// All of it as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl Run<'_> {
    /// Starts it in a session of its own, without a terminal, and waits for its end. When it ends, by itself or because it must, the processes it has
    /// started end too, but for one that closes all its descriptors in order to be forgotten. The kernel kills it when the calling thread ends.
    ///
    /// # Errors
    /// Those of fork(2) and execve(2), with [`io::ErrorKind::NotFound`] for a program or directory that is not there; [`io::ErrorKind::TimedOut`] if what was
    /// killed does not die.
    pub fn run(&self, stop: &Stop) -> io::Result<Ran> {
        self.go(stop, false)
    }

    /// As [`Run::run`], for programs that may hide what they start: all processes of the computer are looked at, which takes some milliseconds.
    ///
    /// # Errors
    /// As [`Run::run`].
    pub fn run_and_sweep(&self, stop: &Stop) -> io::Result<Ran> {
        self.go(stop, true)
    }

    fn go(&self, stop: &Stop, sweep: bool) -> io::Result<Ran> {
        let (out_read, out_write) = io::pipe()?;
        let (err_read, err_write) = io::pipe()?;
        let (in_read, in_write) = io::pipe()?;
        let (woken, wake) = io::pipe()?;
        // Whoever comes from the program has the other end of this, unless it closes it.
        let (held, hold) = io::pipe()?;
        let mark = random::key();
        let mut command = Command::new(self.exe);
        command.args(&self.args).env_clear().envs(self.env.iter().copied()).env(MARK, &mark).current_dir(self.dir);
        command.stdin(Stdio::from(OwnedFd::from(in_read))).stdout(Stdio::from(OwnedFd::from(out_write.try_clone()?)));
        command.stderr(Stdio::from(OwnedFd::from(if self.merged { out_write.try_clone()? } else { err_write.try_clone()? })));
        // SAFETY: setsid(2) touches no memory and takes no lock.
        unsafe {
            command.pre_exec(|| if libc::setsid() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) });
        }
        if let Some(bytes) = self.largest_file {
            // SAFETY: setrlimit(2) reads one structure on our stack; nothing else happens.
            unsafe {
                command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_FSIZE, &libc::rlimit { rlim_cur: bytes, rlim_max: bytes }) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                });
            }
        }
        let given = self.extra.iter().map(|(fd, number)| (fd.as_raw_fd(), *number));
        child::tie(&mut command, given.chain([(hold.as_raw_fd(), HELD)]).collect());
        let until = Instant::now() + self.limit;
        let mut child = command.spawn()?;
        drop((command, out_write, err_write, hold));
        let root = Identity::of(child.id() as i32);
        let waiting = stop.on_stop(move || drop(wake));
        let mut streams = Streams {
            input: Some(in_write).filter(|_| !self.input.is_empty()),
            rest: self.input,
            out: Some(out_read),
            err: Some(err_read),
            kept: [Kept::new(self.keep), Kept::new(self.keep)],
        };
        let ended = streams.pump(&child, &woken, until);
        drop(waiting);
        // Whatever happened: nothing that it has started goes on. Not reaped yet, its pid is nobody else's.
        let root = root.unwrap_or(Identity { pid: child.id() as i32, start: 0, boot: boot_id().to_owned() });
        let alone = matches!(ended, Ok(None)) && !sweep && hung_up(&held);
        let cleared = if alone { Ok(()) } else { tree::kill(&root, Some(&format!("{MARK}={mark}")), DYING) };
        let status = child.wait()?;
        cleared?;
        streams.drain();
        let [out, err] = streams.kept;
        let end = match ended? {
            Some(end) => end,
            None => status.code().map_or_else(|| End::Signal(status.signal().unwrap_or(0)), End::Code),
        };
        Ok(Ran { end, out, err })
    }
}

/// The number of the descriptor that a program's processes hold.
const HELD: i32 = 99;

/// Whether nobody holds the other end of a pipe any more.
fn hung_up(fd: &io::PipeReader) -> bool {
    let mut asked = [PollFd::new(fd, PollFlags::IN)];
    matches!(poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..)) && asked[0].revents().contains(PollFlags::HUP)
}

/// The variable by which processes are found that a program has left behind.
const MARK: &str = "VMOON_RUN";

struct Streams<'a> {
    input: Option<io::PipeWriter>,
    rest: &'a [u8],
    out: Option<io::PipeReader>,
    err: Option<io::PipeReader>,
    kept: [Kept; 2],
}

impl Streams<'_> {
    /// Moves bytes until the program has ended, or must end and why.
    fn pump(&mut self, child: &Child, woken: &io::PipeReader, until: Instant) -> io::Result<Option<End>> {
        let pid = rustix::process::Pid::from_raw(child.id() as i32).ok_or(io::ErrorKind::InvalidInput)?;
        let ended = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        if let Some(input) = &self.input {
            rustix::io::ioctl_fionbio(input, true)?;
        }
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(Some(End::TooLong));
            }
            let rest = until - now;
            let mut fds = vec![PollFd::new(woken, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
            let mut place = [None; 3];
            for (at, fd) in [self.out.as_ref().map(|fd| fd.as_fd()), self.err.as_ref().map(|fd| fd.as_fd())].into_iter().enumerate() {
                if let Some(fd) = fd {
                    place[at] = Some(fds.len());
                    fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
                }
            }
            if let Some(input) = &self.input {
                place[2] = Some(fds.len());
                fds.push(PollFd::new(input, PollFlags::OUT));
            }
            match poll(&mut fds, Some(&Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() })) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let ready = |at: Option<usize>| at.is_some_and(|at| !fds[at].revents().is_empty());
            let [stopped, over, out, err, input] = [ready(Some(0)), ready(Some(1)), ready(place[0]), ready(place[1]), ready(place[2])];
            if stopped {
                return Ok(Some(End::Stopped));
            }
            if out {
                read(&mut self.out, &mut self.kept[0])?;
            }
            if err {
                read(&mut self.err, &mut self.kept[1])?;
            }
            if input {
                self.feed();
            }
            // What is in the pipes when it ends is read by `drain`; who still holds them then has been left behind.
            if over {
                self.drain_ready()?;
                return Ok(None);
            }
        }
    }

    /// Writes what fits. A program that does not read its input is not in error.
    fn feed(&mut self) {
        let Some(input) = &mut self.input else { return };
        match input.write(self.rest) {
            Ok(n) => self.rest = &self.rest[n..],
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.rest = &[],
        }
        if self.rest.is_empty() {
            self.input = None;
        }
    }

    /// Reads what is there without waiting for more.
    fn drain_ready(&mut self) -> io::Result<()> {
        for (stream, kept) in [&mut self.out, &mut self.err].into_iter().zip(&mut self.kept) {
            while let Some(fd) = stream.as_ref() {
                match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
                    Ok(0) => break,
                    Ok(_) => read(stream, kept)?,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Reads what is left once nobody writes any more.
    fn drain(&mut self) {
        let _ = self.drain_ready();
    }
}

fn read(stream: &mut Option<io::PipeReader>, kept: &mut Kept) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    let Some(fd) = stream else { return Ok(()) };
    match fd.read(&mut buffer) {
        Ok(0) => *stream = None,
        Ok(n) => kept.add(&buffer[..n]),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh<'a>(script: &'a str, limit: Duration) -> Run<'a> {
        Run {
            exe: Path::new("/bin/sh"),
            args: vec!["-c".as_ref(), script.as_ref()],
            env: vec![("PATH".as_ref(), "/usr/bin:/bin".as_ref())],
            dir: Path::new("/"),
            input: b"",
            extra: Vec::new(),
            merged: false,
            keep: 1 << 20,
            limit,
            largest_file: None,
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn output_input_and_status_come_back() {
        let run = Run { input: &vec![b'x'; 300_000], ..sh("wc -c; echo no >&2; exit 3", LONG) };
        let ran = run.run(&Stop::new()).unwrap();
        assert_eq!((ran.end, ran.out.text().trim(), ran.err.text().as_str()), (End::Code(3), "300000", "no\n"));
        let ran = Run { merged: true, ..sh("echo a; echo b >&2; kill -9 $$", LONG) }.run(&Stop::new()).unwrap();
        assert_eq!((ran.end, ran.out.text().as_str()), (End::Signal(9), "a\nb\n"));
        assert_eq!(sh("env | grep -c .", LONG).run(&Stop::new()).unwrap().out.text().trim(), "3", "PATH, PWD and the mark");
        assert_eq!(Run { exe: Path::new("/no/such"), ..sh("", LONG) }.run(&Stop::new()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_flood_is_bounded_and_its_end_is_kept() {
        let ran = Run { keep: 1000, ..sh("yes | head -c 5000000; echo last", LONG) }.run(&Stop::new()).unwrap();
        assert!(ran.out.bytes().len() < 1100 && ran.out.text().ends_with("last\n") && ran.out.dropped > 4_000_000);
    }

    #[test]
    fn a_program_that_takes_too_long_ends_with_all_it_started() {
        let (read, write) = io::pipe().unwrap();
        let run = Run { extra: vec![(write.as_fd(), 5)], ..sh("setsid sleep 1000 & sleep 1000", Duration::from_millis(300)) };
        assert_eq!(run.run(&Stop::new()).unwrap().end, End::TooLong);
        drop(run);
        drop(write);
        // The sleeping processes held descriptor 5: that it is closed shows that they are gone.
        assert_eq!((&read).read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn what_is_left_behind_ends_with_the_program() {
        let (read, write) = io::pipe().unwrap();
        let run = Run { extra: vec![(write.as_fd(), 5)], ..sh("setsid sleep 1000 >/dev/null 2>&1 & echo done", LONG) };
        let ran = run.run(&Stop::new()).unwrap();
        assert_eq!((ran.end, ran.out.text().as_str()), (End::Code(0), "done\n"));
        drop(run);
        drop(write);
        assert_eq!((&read).read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn who_hides_is_found_by_looking_at_all() {
        let (read, write) = io::pipe().unwrap();
        let hidden = "setsid bash -c 'exec 99>&- >/dev/null 2>&1; sleep 1000' & exec 99>&-; sleep 0.1";
        let run = Run { exe: Path::new("/bin/bash"), extra: vec![(write.as_fd(), 5)], ..sh(hidden, LONG) };
        assert_eq!(run.run_and_sweep(&Stop::new()).unwrap().end, End::Code(0));
        drop(run);
        drop(write);
        assert_eq!((&read).read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_wish_to_stop_is_heard_while_it_runs() {
        let stop = Stop::new();
        let (mut read, write) = io::pipe().unwrap();
        let other = stop.clone();
        let stopper = std::thread::spawn(move || {
            read.read_exact(&mut [0; 3]).unwrap();
            other.stop();
        });
        let run = Run { extra: vec![(write.as_fd(), 5)], ..sh("echo up >&5; sleep 1000", LONG) };
        assert_eq!(run.run(&stop).unwrap().end, End::Stopped);
        stopper.join().unwrap();
    }
}
