//! The guest's side of a session by itself: what it takes in is cut at every byte, without the minute that as many connections would need for each hundred of them.
//!
//! A session is begun over SSH; then this test stands where the programs stand that an SSH connection starts there. It takes the lease as `follow.lua` does,
//! writes lines into the FIFO as `relay.lua` does, with what a connection leaves there that breaks off, and reads the stream.
//!
//! The long command is broken off at every 97th byte unless `VMOON_HOLDER_STEP=1` asks for all of them, or for those from `VMOON_HOLDER_FROM` to `VMOON_HOLDER_TO`. What has broken off must never count; that the command is then sent
//! again and runs once is looked at for every tenth of the places, as it takes ten times as long, and what it counts shows that nothing else ran in between.

use crate::{
    cuts::asked,
    lab::{Lab, Tools},
    sessions::guest,
    talk::Talk,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::{
    cell::Cell,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    ops::RangeInclusive,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe::{OpenOptions, Receiver, Sender},
    time::timeout,
};
use vmoon_core::frame::{Eval, Frame, tag};

const PATIENCE: Duration = Duration::from_secs(60);

/// What stands between a session's directory and a connection.
struct Holder {
    dir: PathBuf,
    input: Sender,
    lease: String,
    leases: u64,
    bell: Receiver,
    segment: File,
    base: u64,
    at: u64,
    /// What was read and is no whole frame yet.
    part: Vec<u8>,
    answers: usize,
    /// How often it has gone to sleep.
    naps: Cell<u64>,
}

/// The pipe that wakes whoever has this lease.
fn bell(dir: &std::path::Path, lease: &str) -> Receiver {
    let path = dir.join(format!("bell.{lease}"));
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a FIFO");
    OpenOptions::new().read_write(true).open_receiver(path).expect("a bell")
}

impl Holder {
    async fn new(lab: &Lab) -> Self {
        let mut talk = Talk::open(&guest(lab)).await;
        talk.eval("n = 0").await;
        let dir = lab.path().join(format!("state/vmoon/guest/owner/main/{}", talk.life));
        let input = OpenOptions::new().open_sender(dir.join("in")).expect("the session's input");
        let (segment, at) = (File::open(dir.join("o.0")).expect("the stream"), talk.at);
        drop(talk);
        let first = "a0".to_owned();
        let mut this = Self {
            bell: bell(&dir, &first),
            dir,
            input,
            lease: first,
            leases: 0,
            segment,
            base: 0,
            at,
            part: Vec::new(),
            answers: 0,
            naps: Cell::new(0),
        };
        let before = fs::read_to_string(this.dir.join("lease")).expect("a lease");
        this.hold();
        let _ = fs::remove_file(this.dir.join(format!("bell.{}", before.trim())));
        this.segment.seek(SeekFrom::Start(at)).expect("a place");
        this
    }

    fn hold(&self) {
        fs::write(self.dir.join("lease.new"), format!("{}\n", self.lease)).expect("a lease");
        fs::rename(self.dir.join("lease.new"), self.dir.join("lease")).expect("a lease");
    }

    /// Another connection takes over.
    fn take(&mut self) {
        self.leases += 1;
        let before = std::mem::replace(&mut self.lease, format!("a{:x}", self.leases));
        self.bell = bell(&self.dir, &self.lease);
        self.hold();
        fs::remove_file(self.dir.join(format!("bell.{before}"))).expect("the bell of before");
        self.answers = 0;
    }

    async fn write(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.input.write_all(bytes)).await.expect("in time").expect("the session's input");
    }

    /// Waits until the session has something to say; whoever asks has looked after it was armed.
    async fn rung(&mut self) {
        let mut one = [0];
        timeout(PATIENCE, self.bell.read_exact(&mut one)).await.expect("the session says something").expect("a bell");
    }

    fn arm(&self) {
        self.naps.set(self.naps.get() + 1);
        let said = format!("{:<40}", format!("{} {}", self.lease, self.naps.get()));
        let sleeper = File::options().write(true).open(self.dir.join("sleeper")).expect("where sleepers say so");
        sleeper.write_all_at(said.as_bytes(), 0).expect("a wish");
    }

    /// What the stream has more.
    fn frames(&mut self) -> Vec<(u8, u64, Vec<u8>)> {
        loop {
            let read = self.segment.read_to_end(&mut self.part).expect("the stream");
            self.at += read as u64;
            let next = self.dir.join(format!("o.{}", self.at));
            if self.at == self.base || !next.exists() {
                break;
            }
            // It was finished before the next one was begun.
            self.at += self.segment.read_to_end(&mut self.part).expect("the stream") as u64;
            (self.base, self.segment) = (self.at, File::open(next).expect("the stream"));
            fs::write(self.dir.join("acked"), format!("{}\n", self.base)).expect("what is stored");
        }
        let (mut all, mut used) = (Vec::new(), 0);
        while let Some((frame, n)) = Frame::decode(&self.part[used..]).expect("a stream of frames") {
            all.push((frame.tag, frame.id, frame.payload.to_vec()));
            used += n;
        }
        self.part.drain(..used);
        all
    }

    /// The last command that the session has, as it says itself.
    async fn stands(&mut self) -> u64 {
        let hello = format!("\nH {} .\n", self.lease);
        self.write(hello.as_bytes()).await;
        loop {
            self.arm();
            let said = fs::read(self.dir.join(format!("d.{}", self.lease))).unwrap_or_default();
            if let Ok(Some((frame, _))) = Frame::decode(&said) {
                assert_eq!(frame.tag, b's');
                let text = String::from_utf8_lossy(frame.payload);
                return text.split(' ').next().and_then(|last| last.parse().ok()).expect("a number");
            }
            self.rung().await;
        }
    }

    /// What happened to a command, once it is done.
    async fn done(&mut self, id: u64) -> Vec<(u8, u64, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            self.arm();
            all.extend(self.frames());
            if all.iter().any(|(tag, of, _)| (*tag, *of) == (tag::DONE, id)) {
                return all;
            }
            self.rung().await;
        }
    }

    fn line(&self, id: u64, code: &str) -> Vec<u8> {
        let payload = Eval { deadline_ms: 0, token: b"", code: code.as_bytes() }.to_vec();
        let text = format!("{} E {id} {} {}", self.lease, payload.len(), STANDARD.encode(&payload));
        format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes())).into_bytes()
    }
}

/// Sends a command of so many bytes again and again, and breaks off after ever more bytes of its line, within these. Every `often`th time it is then sent as a whole.
async fn every(lua: &str, size: usize, places: RangeInclusive<usize>, step: usize, often: usize) {
    let lab = Lab::new(Tools::System, lua).await;
    let mut holder = Holder::new(&lab).await;
    let (mut turn, mut at, mut tried) = (1, *places.start(), 0);
    let code = |turn: u64| format!("n = n + 1 print(n) return #[[{}]]", (turn % 10).to_string().repeat(size));
    loop {
        let id = 1 + turn;
        let line = holder.line(id, &code(turn));
        let end = at >= line.len().min(*places.end());
        // What the program that relays lines has read when its connection ends, it writes with a line feed.
        let mut torn = line[..at.min(line.len())].to_vec();
        if torn.last() != Some(&b'\n') {
            torn.push(b'\n');
        }
        holder.write(&torn).await;
        holder.take();
        let last = holder.stands().await;
        assert!(last == id - 1 || (last == id && torn == line), "{last} after {at} of {} bytes", line.len());
        if last == id || end || tried % often == 0 {
            if last < id {
                let again = holder.line(id, &code(turn));
                holder.write(&again).await;
            }
            let frames = holder.done(id).await;
            let of = |tag: u8| frames.iter().filter(|frame| frame.0 == tag).map(|frame| frame.2.as_slice()).collect::<Vec<_>>();
            assert_eq!(of(tag::STDOUT), [format!("{turn}\n").as_bytes()], "broken off after {at} of {} bytes", line.len());
            assert_eq!(of(tag::VALUES), [size.to_string().as_bytes()]);
            assert_eq!(of(tag::ACCEPTED).len(), 1);
            turn += 1;
        }
        tried += 1;
        if tried % 10_000 == 0 || end {
            let _ = writeln!(
                std::io::stderr(),
                "broken off at {tried} places, the last after {at} of {} bytes; sent again at {}",
                line.len(),
                turn - 1
            );
        }
        if end {
            break;
        }
        at = (at + step).min(line.len()).min(*places.end());
    }
}

#[tokio::test]
async fn a_long_command_that_breaks_off_at_any_byte_of_its_line_runs_once() {
    let asked = |name, otherwise| asked(name, otherwise) as usize;
    let places = asked("VMOON_HOLDER_FROM", 0)..=asked("VMOON_HOLDER_TO", u64::MAX);
    every("lua5.4", 100_000, places, asked("VMOON_HOLDER_STEP", 97), 10).await;
}

#[tokio::test]
async fn a_short_command_that_breaks_off_at_every_byte_of_its_line_runs_once() {
    for lua in ["lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit"] {
        every(lua, 10, 0..=usize::MAX, 1, 1).await;
    }
}
