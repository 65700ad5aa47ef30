//! Figures below the daemon, measured from a blocking client: a round trip on a holder's own socket, below which no evaluation
//! can fall; the creation of machines, below which no `create` can; and what an idle one costs.

mod interrupt;

pub use interrupt::interrupt_latency;

use crate::{
    driver::lives::{self, Newborn},
    grants::{Granter, home},
    host::store::Overflow,
    layout::{Layout, Life, MARK, Meta, Own, Shape, Start},
    settings::{BUILTIN, Settings},
    zygote::Zygotes,
};
use rustix::{
    fs::{Mode, OFlags},
    process::Signal,
};
use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};
use vmoon_confine::{Profile, Rules};
use vmoon_core::{
    Code, Error, MachineId, Result,
    frame::{Eval, Frame, tag},
};
use vmoon_lua_wire::{hello::ClientHello, program::Options};
use vmoon_sys::{
    atomic, memory,
    process::{Detached, Identity, Pidfd},
    random, tree,
};

fn failed(error: io::Error) -> Error {
    Error::io("measure a holder", error)
}

fn start_of(machine: MachineId, work: &Path) -> Start {
    let own = Own {
        machine,
        life: 1,
        work: work.to_owned(),
        places: Vec::new(),
        overflow: Overflow::Wait,
        ring: 1 << 20,
        spill: 0,
        memory: None,
        grace_ms: 1000,
        work_size: None,
        command_time: None,
        output: None,
    };
    Start { own, shape: Shape { runtime: BUILTIN.into(), rules: crate::layout::trusted(), lua: Options::default() } }
}

/// Starts a holder in the empty directory `dir` (which must exist), evaluates `1` in it `n` times and ends it. The times are
/// those from before the write to after the read of the last frame, in order.
///
/// # Errors
/// When the holder cannot be started or does not answer.
pub fn host_roundtrip(exe: &Path, exe_args: &[OsString], dir: &Path, n: usize) -> Result<Vec<Duration>> {
    let id = MachineId::from_uuid(random::uuid());
    atomic::write_json(&dir.join("start.json"), &start_of(id, dir))?;
    let mark = crate::layout::mark(id, 1);
    let (mut ready, writer) = io::pipe().map_err(failed)?;
    let mut args: Vec<&OsStr> = exe_args.iter().map(OsString::as_os_str).collect();
    args.push(dir.as_os_str());
    let pid = Detached { exe, args, env: vec![(MARK, &mark)], stdio: [None, Some(writer.as_fd()), None] }.spawn().map_err(failed)?;
    drop(writer);
    let identity = Identity::of(pid);
    let result = ready.read_exact(&mut [0; 6]).and_then(|()| measure(dir, n));
    if let Some(identity) = identity {
        tree::kill(&identity, None, Duration::from_secs(10)).map_err(failed)?;
        identity.reap();
    }
    result.map_err(failed)
}

fn measure(dir: &Path, n: usize) -> io::Result<Vec<Duration>> {
    let meta: Meta = serde_json::from_slice(&fs::read(dir.join("meta.json"))?)?;
    let mut talk = Talk::begin(dir, &meta.key)?;
    talk.until(tag::HELLO)?;
    let mut times = Vec::with_capacity(n);
    for id in 1..=n as u64 {
        let begun = Instant::now();
        talk.eval(id)?;
        times.push(begun.elapsed());
        if id % 1000 == 0 {
            talk.send(tag::ACK, 0, &talk.at.to_le_bytes())?;
        }
    }
    Ok(times)
}

/// A client of one holder.
struct Talk {
    socket: UnixStream,
    inbox: Vec<u8>,
    /// Offset of the next frame of the stream.
    at: u64,
}

impl Talk {
    /// Connects and says hello.
    fn begin(dir: &Path, key: &str) -> io::Result<Self> {
        let fd = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let socket = UnixStream::connect(format!("/proc/self/fd/{}/sock", fd.as_raw_fd()))?;
        let mut this = Self { socket, inbox: Vec::new(), at: 0 };
        this.send(tag::HELLO, 0, &ClientHello::new(key, 0).to_vec())?;
        Ok(this)
    }

    fn send(&mut self, tag: u8, id: u64, payload: &[u8]) -> io::Result<()> {
        self.socket.write_all(&Frame { tag, id, payload }.to_vec())
    }

    /// Reads up to and with the first frame of that kind.
    fn until(&mut self, last: u8) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            while let Ok(Some((frame, n))) = Frame::decode(&self.inbox) {
                if frame.tag != tag::HELLO {
                    self.at += frame.stream_len();
                }
                let done = frame.tag == last;
                self.inbox.drain(..n);
                if done {
                    return Ok(());
                }
            }
            match self.socket.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.inbox.extend_from_slice(&buffer[..n]),
            }
        }
    }

    fn eval(&mut self, id: u64) -> io::Result<()> {
        self.send(tag::EVAL, id, &Eval { deadline_ms: 0, token: b"", code: b"1" }.to_vec())?;
        self.until(tag::DONE)
    }
}

/// What making machines takes.
#[derive(Clone, Debug, Default)]
pub struct Creation {
    /// From nothing, the machine's directories included, to the first frame of its session; one after the other.
    pub first_frame: Vec<Duration>,
    /// From nothing to the end of the first evaluation; of the same machines.
    pub first_answer: Vec<Duration>,
    /// First frames per second, with many machines under way at once.
    pub per_second: f64,
}

/// What an idle machine costs, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Idle {
    /// How much less memory the computer has available (`MemAvailable` of `/proc/meminfo`), the kernel's part included; of use on a
    /// computer where nothing else happens.
    pub machine: u64,
    /// Proportional set size: shared pages count for each process by its share.
    pub pss: u64,
    /// Pages that nobody else maps.
    pub private: u64,
}

/// Machines in a directory of their own, made by a zygote and ended with this value.
struct Crowd {
    layout: Layout,
    zygotes: Zygotes,
    lives: Vec<Life>,
}

impl Crowd {
    fn new(exe: &Path, exe_args: &[OsString], state: &Path) -> Self {
        Self { layout: Layout::new(state.to_owned()), zygotes: Zygotes::new(exe.to_owned(), exe_args), lives: Vec::new() }
    }

    /// Makes a machine that may do everything and says hello to it.
    fn make(&mut self) -> Result<(Newborn, Talk)> {
        self.make_with(|| Ok(crate::layout::trusted()))
    }

    /// Makes a machine that may do this, and use its work directory if it may do anything with files, and says hello to it.
    fn make_with(&mut self, rules: impl FnOnce() -> Result<Rules>) -> Result<(Newborn, Talk)> {
        let id = MachineId::from_uuid(random::uuid());
        let work = self.layout.machine(id).join("work");
        fs::create_dir_all(&work).map_err(failed)?;
        let life = lives::make_life(&self.layout, id, 1)?;
        let mut start = start_of(id, &work);
        start.shape.rules = rules()?;
        if start.shape.rules.profile == Profile::Files {
            start.own.places.push(work);
        }
        let newborn = lives::fork(&self.layout, &self.zygotes, &life, &start)?;
        let newborn = newborn.ok_or_else(|| Error::new(Code::DriverFailed, "no zygote can be started"))?;
        let talk = Talk::begin(&life.dir, &newborn.key).map_err(failed)?;
        self.lives.push(life);
        Ok((newborn, talk))
    }

    /// Waits until it can be used.
    fn settle(&self, newborn: Newborn, life: usize) -> Result<()> {
        newborn.wait(&self.zygotes, &self.lives[life])
    }

    fn end(&mut self) {
        for life in self.lives.drain(..) {
            if let Ok(Some(meta)) = life.meta()
                && let Ok(Some(fd)) = Pidfd::open(&meta.process)
            {
                // What cannot be signalled has ended.
                let _ = fd.send(Signal::KILL);
                let _ = fd.wait(Duration::from_secs(10));
            }
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.end();
    }
}

/// Makes `n` machines one after the other and `n` with `in_flight` under way, in the directory `state`, and ends them. What is left
/// of them in the directory is the caller's to remove.
///
/// # Errors
/// When a machine cannot be made or does not answer.
pub fn creation(exe: &Path, exe_args: &[OsString], state: &Path, n: usize, in_flight: usize) -> Result<Creation> {
    let mut crowd = Crowd::new(exe, exe_args, state);
    let mut result = Creation::default();
    // The first one starts the zygote.
    for round in 0..=n {
        let begun = Instant::now();
        let (newborn, mut talk) = crowd.make()?;
        talk.until(tag::HELLO).map_err(failed)?;
        let first_frame = begun.elapsed();
        talk.eval(1).map_err(failed)?;
        let first_answer = begun.elapsed();
        crowd.settle(newborn, 0)?;
        crowd.end();
        if round > 0 {
            result.first_frame.push(first_frame);
            result.first_answer.push(first_answer);
        }
    }
    let mut under_way = VecDeque::with_capacity(in_flight);
    let mut done = 0;
    let begun = Instant::now();
    while done < n {
        while under_way.len() < in_flight && done + under_way.len() < n {
            under_way.push_back(crowd.make()?);
        }
        if let Some((newborn, mut talk)) = under_way.pop_front() {
            talk.until(tag::HELLO).map_err(failed)?;
            crowd.settle(newborn, done)?;
            done += 1;
        }
    }
    result.per_second = n as f64 / begun.elapsed().as_secs_f64();
    Ok(result)
}

/// The time to the first frame for machines of the profiles `trusted`, `files` and `sealed`, which take turns: `n` of each, one after the other, in the
/// directory `state`.
///
/// # Errors
/// When a machine cannot be made or does not answer.
pub fn sealing(exe: &Path, exe_args: &[OsString], state: &Path, n: usize) -> Result<[Vec<Duration>; 3]> {
    let mut crowd = Crowd::new(exe, exe_args, state);
    let mut times = [const { Vec::new() }; 3];
    let (real, home) = (state.canonicalize().map_err(failed)?, home());
    for round in 0..=n {
        for (times, profile) in times.iter_mut().zip([Profile::Trusted, Profile::Files, Profile::Sealed]) {
            let mut settings = Settings::default();
            settings.confinement.profile = profile;
            let granter = Granter { state: &real, home: home.as_deref() };
            let begun = Instant::now();
            let rules = || granter.rules(&settings, None, None).map_err(|why| Error::new(Code::SpecInvalid, why));
            let (newborn, mut talk) = crowd.make_with(rules)?;
            talk.until(tag::HELLO).map_err(failed)?;
            let first_frame = begun.elapsed();
            crowd.settle(newborn, 0)?;
            crowd.end();
            // The first one starts the zygote.
            if round > 0 {
                times.push(first_frame);
            }
        }
    }
    Ok(times)
}

/// Makes `n` machines that evaluate once and then idle, in the directory `state`, looks what one costs, and ends them. What is
/// left of them in the directory is the caller's to remove.
///
/// # Errors
/// When a machine cannot be made or does not answer.
pub fn idle(exe: &Path, exe_args: &[OsString], state: &Path, n: usize) -> Result<Idle> {
    let mut crowd = Crowd::new(exe, exe_args, state);
    let one = |crowd: &mut Crowd| -> Result<()> {
        let (newborn, mut talk) = crowd.make()?;
        talk.until(tag::HELLO).and_then(|()| talk.eval(1)).map_err(failed)?;
        let life = crowd.lives.len() - 1;
        crowd.settle(newborn, life)
    };
    // The zygote is not a part of it.
    one(&mut crowd)?;
    let before = available()?;
    for _ in 0..n {
        one(&mut crowd)?;
    }
    let after = available()?;
    let mut result = Idle { machine: before.saturating_sub(after) / n.max(1) as u64, ..Idle::default() };
    let sample: Vec<_> = crowd.lives.iter().rev().take(100).filter_map(|life| memory::of(life.meta().ok()??.process.pid)).collect();
    for one in &sample {
        result.pss += one.pss / sample.len() as u64;
        result.private += one.private / sample.len() as u64;
    }
    Ok(result)
}

fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").map_err(failed)?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| failed(io::ErrorKind::Unsupported.into()))
}
