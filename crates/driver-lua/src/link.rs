//! A session's link: frames from a living holder's socket, then, once it is dead, the rest from its files.
//!
//! One read gives as many whole frames as have arrived; nothing is copied on that path but from the kernel. Dropping a
//! future loses nothing: received bytes stay in the reader, unsent ones in the writer.

use crate::{
    driver::LuaDriver,
    layout::{Life, Meta},
    ring::{Here, Remains},
};
use async_trait::async_trait;
use rustix::fs::{Mode, OFlags};
use std::{
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net,
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, unix::AsyncFd},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};
use vmoon_core::{
    Code, Error, MachineId, Result,
    driver::{Exit, LinkItem, LinkReader, LinkWriter, Offset, SessionLink},
    frame::{Frame, MAX_OFFSET, in_stream, tag},
};
use vmoon_lua_wire::hello::{ClientHello, HolderHello, Versions, negotiate};
use vmoon_sys::process::{Identity, Pidfd};

/// How long a holder may take to answer the hello.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a holder that has closed the link may take to be seen dead, before the link counts as broken.
const DYING: Duration = Duration::from_secs(2);
/// The least room for one read from the socket: of an answer, and of output that is under way.
const ANSWER: usize = 4 << 10;
const OUTPUT: usize = 64 << 10;
/// The most that is read from the files at once.
const CHUNK: usize = 256 << 10;
/// A buffer larger than this is not kept.
const KEEP: usize = 1 << 20;

/// Where a holder is called: through a descriptor of its directory, so that the path may be of any length.
fn number(life: &Life) -> io::Result<(OwnedFd, String)> {
    let dir = rustix::fs::open(&life.dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/sock", dir.as_raw_fd());
    Ok((dir, path))
}

/// Calls a holder that was asked for and has its socket already: says that nothing of it was read yet. It answers when it is there, and [`connect`] hears that. `None`
/// if it cannot be called now.
pub(crate) fn call(life: &Life, key: &str, speaks: Versions) -> Option<net::UnixStream> {
    let (_dir, path) = number(life).ok()?;
    let mut stream = net::UnixStream::connect(path).ok()?;
    stream.set_nonblocking(true).ok()?;
    let hello = ClientHello::of(speaks, key, 0).to_vec();
    stream.write_all(&Frame { tag: tag::HELLO, id: 0, payload: &hello }.to_vec()).ok()?;
    Some(stream)
}

/// Connects to a living holder, or hears it on a [`call`]; `None` if it is ending.
pub(crate) async fn connect(
    driver: LuaDriver,
    id: MachineId,
    life: &Life,
    meta: &Meta,
    from: Offset,
    call: Option<net::UnixStream>,
) -> Result<Option<SessionLink>> {
    if let Some(Ok(stream)) = call.map(UnixStream::from_std)
        && let Ok(Some(link)) = meet(driver.clone(), id, life, meta, from, stream, None).await
    {
        return Ok(Some(link));
    }
    let broken = |error: io::Error| Error::new(Code::DriverUnreachable, "the machine's process does not answer").source(error);
    let (_dir, path) = number(life).map_err(broken)?;
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error) => return dying(&meta.process).await.then_some(None).ok_or_else(|| broken(error)),
    };
    let hello = ClientHello::of(driver.speaks(), meta.key.as_str(), from).to_vec();
    meet(driver, id, life, meta, from, stream, Some(&hello)).await
}

/// Says hello, unless that was said, and hears the answer; `None` if the holder is ending.
async fn meet(
    driver: LuaDriver,
    id: MachineId,
    life: &Life,
    meta: &Meta,
    from: Offset,
    stream: UnixStream,
    hello: Option<&[u8]>,
) -> Result<Option<SessionLink>> {
    vmoon_sys::peer::check(&stream)?;
    let (stream, other) = stream.into_split();
    let mut writer = SocketWriter { stream: other, out: Vec::new(), protocol: 0 };
    let speaks = driver.speaks();
    let (life, process) = (life.clone(), meta.process.clone());
    let mut reader = SocketReader { driver, id, life, stream, process, inbox: Vec::new(), much: false, at: from, rest: None };
    let exchange = async {
        if let Some(hello) = hello {
            writer.send(Frame { tag: tag::HELLO, id: 0, payload: hello }).await?;
        }
        reader.hello().await
    };
    match timeout(HANDSHAKE, exchange).await {
        Ok(Ok(Some(answer))) => {
            writer.protocol = negotiate(speaks, answer.versions())?;
            if let Some(error) = answer.error {
                return Err(error.to_error());
            }
            if [answer.at, answer.end, answer.last_command].iter().any(|said| *said > MAX_OFFSET) {
                return Err(impossible());
            }
            reader.at = answer.at;
            Ok(Some(SessionLink {
                reader: Box::new(reader),
                writer: Box::new(writer),
                end: answer.end,
                last_command: answer.last_command,
                running: answer.running,
                queued: answer.queued,
                waiting_input: answer.waiting_input,
            }))
        }
        Ok(Ok(None)) | Ok(Err(_)) if dying(&reader.process).await => Ok(None),
        Ok(Err(error)) => Err(error),
        Ok(Ok(None)) => Err(Error::new(Code::DriverUnreachable, "the machine's process closed the connection")),
        Err(_) => Err(Error::new(Code::DriverUnreachable, "the machine's process did not answer within 10 s")),
    }
}

/// A link to the files of a dead holder; `None` if nothing is left to read.
pub(crate) fn remains(life: &Life, exit: Exit, from: Offset) -> Result<Option<SessionLink>> {
    let files = Remains::open(&life.dir).map_err(|error| Error::io("read what the machine has left", error))?;
    let Some(files) = files.filter(|files| from < files.end()) else { return Ok(None) };
    let (end, last_command) = (files.end(), files.last_command);
    let reader = FileReader { files: Some(files), exit, at: from, inbox: Vec::new() };
    let (reader, writer) = (Box::new(reader), Box::new(DeadWriter));
    Ok(Some(SessionLink { reader, writer, end, last_command, running: None, queued: 0, waiting_input: false }))
}

/// Whether a holder is dead, or is so soon. Asked when its socket has been closed, so that a link that works needs no descriptor but that.
async fn dying(process: &Identity) -> bool {
    let pidfd = match Pidfd::open(process) {
        Ok(Some(pidfd)) => pidfd,
        Ok(None) => return true,
        Err(_) => return false,
    };
    // SAFETY: the Pidfd owns its descriptor, does not change it, and closes it only when it is dropped.
    let Ok(pidfd) = (unsafe { AsyncFd::register(pidfd) }) else { return false };
    timeout(DYING, pidfd.readable()).await.is_ok()
}

struct SocketReader {
    driver: LuaDriver,
    id: MachineId,
    life: Life,
    stream: OwnedReadHalf,
    process: Identity,
    inbox: Vec<u8>,
    /// The last read filled what there was.
    much: bool,
    at: Offset,
    /// What the files have, once the holder is dead.
    rest: Option<FileReader>,
}

impl SocketReader {
    /// Waits for the holder's hello; `None` if it closed the connection.
    async fn hello(&mut self) -> Result<Option<HolderHello>> {
        loop {
            if let Some((frame, n)) = Frame::decode(&self.inbox).map_err(malformed)? {
                if frame.tag != tag::HELLO {
                    return Err(Error::new(Code::WireMalformed, "the machine's process did not say hello"));
                }
                let hello = HolderHello::decode(frame.payload)?;
                self.inbox.drain(..n);
                return Ok(Some(hello));
            }
            if self.fill().await == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads more bytes; 0 when there will be none. A read that leaves room has emptied the socket, and is not followed by one that finds nothing.
    async fn fill(&mut self) -> usize {
        self.inbox.reserve(if self.much { OUTPUT } else { ANSWER });
        let room = self.inbox.capacity() - self.inbox.len();
        let n = self.stream.read_buf(&mut self.inbox).await.unwrap_or(0);
        self.much = n == room;
        n
    }
}

#[async_trait]
impl LinkReader for SocketReader {
    async fn next(&mut self, buf: &mut Vec<u8>) -> Result<LinkItem> {
        loop {
            if let Some(rest) = &mut self.rest {
                return rest.next(buf).await;
            }
            if let Some(item) = take(&mut self.inbox, &mut self.at, buf)? {
                return Ok(item);
            }
            if self.fill().await > 0 {
                continue;
            }
            // The holder is dead or dying, or another client has taken our place.
            if !dying(&self.process).await {
                return Ok(LinkItem::Broken);
            }
            let exit = self.driver.exit_of(self.id, &self.life).await.unwrap_or(Exit::Lost);
            let files = Remains::open(&self.life.dir).ok().flatten();
            self.rest = Some(FileReader { files, exit, at: self.at, inbox: Vec::new() });
        }
    }
}

/// What no stream can be: its machine's process is not what it was. Nothing that adds offsets up sees them.
fn impossible() -> Error {
    Error::new(Code::WireMalformed, "the machine's process speaks of a stream longer than any can be")
}

fn malformed(error: vmoon_core::frame::Malformed) -> Error {
    Error::new(Code::WireMalformed, "the machine's process sent something that is not a frame").source(error)
}

/// Takes the next item out of `inbox` into `buf`: one direct frame, or all whole stream frames up to the next direct one.
pub(crate) fn take(inbox: &mut Vec<u8>, at: &mut Offset, buf: &mut Vec<u8>) -> Result<Option<LinkItem>> {
    let (mut used, mut passed) = (0, 0);
    let mut direct = false;
    while let Some((frame, n)) = Frame::decode(&inbox[used..]).map_err(malformed)? {
        if !in_stream(frame.tag) {
            if used == 0 {
                direct = true;
                used = n;
            }
            break;
        }
        used += n;
        let len = frame.stream_len();
        if len > MAX_OFFSET || *at + passed + len > MAX_OFFSET {
            return Err(impossible());
        }
        passed += len;
    }
    if used == 0 {
        return Ok(None);
    }
    if used == inbox.len() {
        buf.clear();
        std::mem::swap(inbox, buf);
        if inbox.capacity() > KEEP {
            *inbox = Vec::new();
        }
    } else {
        buf.clear();
        buf.extend_from_slice(&inbox[..used]);
        inbox.drain(..used);
    }
    if direct {
        return Ok(Some(LinkItem::Direct));
    }
    let begin = *at;
    *at += passed;
    Ok(Some(LinkItem::Stream { at: begin }))
}

struct FileReader {
    files: Option<Remains>,
    exit: Exit,
    at: Offset,
    inbox: Vec<u8>,
}

#[async_trait]
impl LinkReader for FileReader {
    async fn next(&mut self, buf: &mut Vec<u8>) -> Result<LinkItem> {
        loop {
            if let Some(item) = take(&mut self.inbox, &mut self.at, buf)? {
                return Ok(item);
            }
            let Some(files) = &self.files else { return Ok(LinkItem::Ended(self.exit.clone())) };
            // `at` stands before the part of a frame that waits in the inbox.
            let here = self.at + self.inbox.len() as u64;
            let read = files.read(here, &mut self.inbox, CHUNK).map_err(|error| Error::io("read what the machine has left", error))?;
            match read {
                Here::Bytes(_) => {}
                // A frame that was cut off by the death of its writer means nothing.
                Here::Gap(_) | Here::End if !self.inbox.is_empty() => {
                    self.at = here;
                    self.inbox.clear();
                }
                Here::Gap(lost) => Frame { tag: tag::GAP, id: 0, payload: &lost.to_le_bytes() }.encode(&mut self.inbox),
                Here::End => self.files = None,
            }
        }
    }
}

struct SocketWriter {
    stream: OwnedWriteHalf,
    /// Encoded and not yet sent: what a dropped call has left.
    out: Vec<u8>,
    /// The protocol spoken with the holder.
    protocol: u32,
}

#[async_trait]
impl LinkWriter for SocketWriter {
    async fn send(&mut self, frame: Frame<'_>) -> Result<()> {
        let broken = |error: io::Error| Error::new(Code::DriverUnreachable, "the link to the machine's process is broken").source(error);
        frame.encode(&mut self.out);
        while !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(n) if n == self.out.len() => self.out.clear(),
                Ok(n) => {
                    self.out.drain(..n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stream.writable().await.map_err(broken)?,
                Err(error) => return Err(broken(error)),
            }
        }
        if self.out.capacity() > KEEP {
            self.out = Vec::new();
        }
        Ok(())
    }

    fn takes(&self, tag: u8) -> bool {
        tag != tag::CALL || self.protocol >= 2
    }
}

/// The writing half of a link to a dead machine.
struct DeadWriter;

#[async_trait]
impl LinkWriter for DeadWriter {
    async fn send(&mut self, frame: Frame<'_>) -> Result<()> {
        if frame.tag == tag::ACK {
            return Ok(()); // the files go with the next start anyway
        }
        Err(Error::new(Code::DriverUnreachable, "the machine has ended"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_driver_sim::Hostile;

    /// What is taken out of an inbox in one go after the other, until it is empty or refused.
    fn taken(inbox: &[u8], from: Offset) -> (Offset, usize, bool) {
        let (mut inbox, mut at, mut buf, mut items) = (inbox.to_vec(), from, Vec::new(), 0);
        loop {
            let before = at;
            match take(&mut inbox, &mut at, &mut buf) {
                Ok(Some(_)) => items += 1,
                Ok(None) => return (at, items, true),
                Err(_) => return (at, items, false),
            }
            assert!(before <= at && at <= MAX_OFFSET && !buf.is_empty());
        }
    }

    #[test]
    fn gaps_longer_than_any_stream_are_refused() {
        let gap = |lost: u64| Frame { tag: tag::GAP, id: 0, payload: &lost.to_le_bytes() }.to_vec();
        assert_eq!(taken(&gap(7), 3), (10, 1, true));
        assert_eq!(taken(&gap(u64::MAX), 3), (3, 0, false));
        // Each of them alone is possible.
        assert_eq!(taken(&[gap(MAX_OFFSET - 10), gap(MAX_OFFSET - 10)].concat(), 0), (0, 0, false));
    }

    #[test]
    fn spoilt_streams_are_taken_or_refused() {
        let mut stream = Vec::new();
        for (i, tag) in b"hEOORVTXNWDGcZ".iter().enumerate() {
            Frame { tag: *tag, id: i as u64, payload: &[i as u8; 24][..8 + i] }.encode(&mut stream);
        }
        let (mut hostile, mut fine, mut refused) = (Hostile::new(2), 0, 0);
        for _ in 0..20_000 {
            let mut bytes = stream.clone();
            hostile.spoil(&mut bytes);
            let from = hostile.edge().min(MAX_OFFSET);
            *(if taken(&bytes, from).2 { &mut fine } else { &mut refused }) += 1;
        }
        assert!(fine > 1_000 && refused > 1_000, "{fine} {refused}");
    }
}
