//! Serial consoles as terminal channels. One task for each console reads libvirt's stream into a bounded list of frames, from which links are served at any
//! offset; what nobody has read in time, or was said while nobody could listen, is a gap.
//!
//! libvirt gives a console to one client at a time. Those of our own machines are listened to from the first moment on; a foreign one is only taken when
//! somebody writes to it, so that `virsh console` goes on working. Nothing of a console outlives the daemon here: after its restart a gap says that
//! something may be missing, one byte long, because nobody knows how much.

use super::{Inner, link::Shared, look};
use async_trait::async_trait;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{mpsc, watch},
    task::AbortHandle,
    time::Instant,
};
use uuid::Uuid;
use vmoon_core::{
    Code, Error, Result,
    driver::{Channel, Exit, Handle, LinkItem, LinkReader, LinkWriter, Observed, Offset, SessionLink},
    frame::{Frame, tag},
};
use vmoon_libvirt_wire::{Domain, Event, Topic, flags::Console as How};
use vmoon_sys::clock;

/// How much of a console is kept for whoever has not read it yet, bytes.
const KEEP: usize = 1 << 20;
/// The most that is read from the stream, and put into a frame, at once.
const PIECE: usize = 16 << 10;
/// The most that a link is given at once.
const BATCH: usize = 64 << 10;
/// How many pieces of input may wait for a guest that does not read.
const INPUT: usize = 64;
/// How long a start waits for its console.
const ATTACH: Duration = Duration::from_secs(3);
/// The first and the longest pause before a console is asked for again that somebody else has.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));
/// How long a machine that has no console is left alone, unless an event tells of it.
const NONE: Duration = Duration::from_secs(24 * 3600);

/// A frame that is kept.
struct Kept {
    at: Offset,
    /// How far the stream goes on with it.
    len: u64,
    bytes: Vec<u8>,
}

/// What a console has said.
#[derive(Default)]
struct Said {
    frames: VecDeque<Kept>,
    bytes: usize,
    /// Where the oldest kept frame begins, and where the next one will.
    start: Offset,
    end: Offset,
    ended: Option<Exit>,
    attached: bool,
}

impl Said {
    fn push(&mut self, tag: u8, payload: &[u8]) {
        let frame = Frame { tag, id: 0, payload };
        let kept = Kept { at: self.end, len: frame.stream_len(), bytes: frame.to_vec() };
        self.end += kept.len;
        self.bytes += kept.bytes.len();
        self.frames.push_back(kept);
        while self.bytes > KEEP && self.frames.len() > 1 {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.frames.pop_front() {
            self.bytes -= first.bytes.len();
            self.start = first.at + first.len;
        }
    }

    /// Something may be missing here, and nobody knows how much.
    fn gap(&mut self) {
        self.push(tag::GAP, &1u64.to_le_bytes());
    }

    fn acknowledge(&mut self, to: Offset) {
        while self.frames.front().is_some_and(|first| first.at + first.len <= to) {
            self.drop_first();
        }
    }

    /// Whether a frame begins or the stream ends there, or it is from before what is kept.
    fn is_boundary(&self, at: Offset) -> bool {
        at <= self.start || at == self.end || self.frames.binary_search_by_key(&at, |kept| kept.at).is_ok()
    }

    /// What is there from an offset on, and the offset after it; nothing if there is nothing new.
    fn read(&self, from: Offset, buf: &mut Vec<u8>) -> Option<Offset> {
        buf.clear();
        let mut at = from;
        if at < self.start {
            let lost = (self.start - at).to_le_bytes();
            Frame { tag: tag::GAP, id: 0, payload: &lost }.encode(buf);
            at = self.start;
        }
        let first = self.frames.partition_point(|kept| kept.at < at);
        for kept in self.frames.iter().skip(first) {
            if buf.len() + kept.bytes.len() > BATCH && !buf.is_empty() {
                break;
            }
            buf.extend_from_slice(&kept.bytes);
            at = kept.at + kept.len;
        }
        (at > from).then_some(at)
    }
}

/// One life of one console.
struct Console {
    uuid: Uuid,
    life: u64,
    said: Mutex<Said>,
    /// Told whenever something is new.
    news: watch::Sender<()>,
    input: mpsc::Sender<Vec<u8>>,
    task: Mutex<Option<AbortHandle>>,
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Console {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell<T>(&self, change: impl FnOnce(&mut Said) -> T) -> T {
        let told = change(&mut self.said());
        self.news.send_replace(());
        told
    }
}

/// The consoles that are listened to.
#[derive(Default)]
pub(crate) struct Consoles(Mutex<HashMap<Uuid, Arc<Console>>>);

impl Consoles {
    fn all(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Console>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_life(&self, uuid: Uuid, life: u64) -> Option<Arc<Console>> {
        self.all().get(&uuid).filter(|console| console.life == life).cloned()
    }

    /// The console of that life, which begins at `from` if it is not listened to yet.
    fn take(&self, link: &Shared, uuid: Uuid, life: u64, from: Offset, eager: bool) -> Arc<Console> {
        let mut all = self.all();
        if let Some(console) = all.get(&uuid).filter(|console| console.life == life) {
            return console.clone();
        }
        let (input, typed) = mpsc::channel(INPUT);
        let mut said = Said { start: from, end: from, ..Said::default() };
        if from > 0 {
            said.gap();
        }
        let (news, task) = (watch::Sender::new(()), Mutex::default());
        let console = Arc::new(Console { uuid, life, said: Mutex::new(said), news, input, task });
        let work = tokio::spawn(run(Arc::downgrade(&console), link.clone(), typed, eager));
        *console.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(work.abort_handle());
        all.insert(uuid, console.clone());
        console
    }

    /// Listens to the console of a life that has just begun; returns when nothing it says can be missed, or when that takes too long.
    pub(crate) async fn listen(&self, inner: &Inner, uuid: Uuid, life: u64) {
        let console = self.take(&inner.link, uuid, life, 0, true);
        let mut news = console.news.subscribe();
        let attached = async { while !console.said().attached && news.changed().await.is_ok() {} };
        if tokio::time::timeout(ATTACH, attached).await.is_err() {
            tracing::warn!(domain = %uuid, "the console did not open in time; its first words may be missing");
        }
    }

    /// Stops listening to it.
    pub(crate) fn forget(&self, uuid: Uuid) {
        self.all().remove(&uuid);
    }
}

/// What became of a life.
enum Vital {
    Alive,
    /// It is held somewhere and may go on.
    Held,
    Over(Exit),
    Unknown,
}

async fn vital(link: &Shared, uuid: Uuid, life: u64) -> Vital {
    match look::look_at(link, uuid).await {
        Ok(Some(seen)) => match seen.sighting.observed {
            Observed::On(channels) if channels.iter().any(|channel| channel.life == life) => Vital::Alive,
            Observed::On(_) => Vital::Over(Exit::Lost),
            Observed::Paused => Vital::Alive,
            Observed::Suspended => Vital::Held,
            Observed::Off(exit) => Vital::Over(exit.unwrap_or(Exit::Lost)),
            Observed::Missing => Vital::Over(Exit::Lost),
            Observed::Unreachable => Vital::Unknown,
        },
        Ok(None) => Vital::Over(Exit::Lost),
        Err(_) => Vital::Unknown,
    }
}

/// Reads a console until its life is over, through losses of the connection.
async fn run(console: std::sync::Weak<Console>, link: Shared, mut typed: mpsc::Receiver<Vec<u8>>, eager: bool) {
    let mut first = None;
    if !eager {
        first = typed.recv().await;
        if first.is_none() {
            return;
        }
    }
    let (mut pause, mut lost) = (BACK_OFF.0, false);
    loop {
        let Some(shared) = console.upgrade() else { return };
        let (uuid, life) = (shared.uuid, shared.life);
        drop(shared);
        let client = link.patiently().await;
        // Listen first, then look: what happens in between is an event.
        let events = client.watch(&[Topic::LIFE]).await;
        match vital(&link, uuid, life).await {
            Vital::Over(exit) => {
                if let Some(shared) = console.upgrade() {
                    shared.tell(|said| said.ended = Some(exit));
                }
                return;
            }
            Vital::Alive => match client.console(&Domain::of(uuid), None, How::NONE).await {
                Ok(stream) => {
                    pause = BACK_OFF.0;
                    let Some(shared) = console.upgrade() else { return };
                    shared.tell(|said| {
                        said.attached = true;
                        if std::mem::replace(&mut lost, true) {
                            said.gap();
                        }
                    });
                    drop(shared);
                    carry(&console, stream, &mut typed, first.take()).await;
                    // Whoever took it from us, or libvirt's restart, shows now.
                    continue;
                }
                Err(error) => {
                    tracing::debug!(domain = %uuid, %error, "the console does not open");
                    // libvirt's words for a machine without one: only another life can have one.
                    if error.to_string().contains("character device") {
                        pause = NONE;
                    }
                }
            },
            Vital::Held | Vital::Unknown => {}
        }
        let next = Instant::from_std(clock::instant()) + pause;
        pause = if pause == NONE { BACK_OFF.0 } else { pause.saturating_mul(2).min(BACK_OFF.1) };
        let Ok(mut events) = events else {
            tokio::time::sleep_until(next).await;
            continue;
        };
        let changed = async {
            loop {
                match events.next().await {
                    Event::Domain { domain, .. } if domain.uuid == uuid => return,
                    Event::Closed(_) | Event::Everything => return,
                    _ => {}
                }
            }
        };
        // An event shows that something changed; that somebody else let go of the console shows in trying again.
        let _changed = tokio::time::timeout_at(next, changed).await;
    }
}

/// Carries bytes in both directions until the stream ends.
async fn carry(
    console: &std::sync::Weak<Console>,
    stream: vmoon_libvirt_wire::Stream,
    typed: &mut mpsc::Receiver<Vec<u8>>,
    first: Option<Vec<u8>>,
) {
    let (mut from, mut to) = tokio::io::split(stream);
    let read = async {
        let mut piece = vec![0; PIECE];
        while let Ok(read @ 1..) = from.read(&mut piece).await {
            let Some(shared) = console.upgrade() else { return };
            shared.tell(|said| said.push(tag::STDOUT, &piece[..read]));
        }
    };
    let write = async {
        if let Some(bytes) = first
            && to.write_all(&bytes).await.is_err()
        {
            return;
        }
        while let Some(bytes) = typed.recv().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}

struct Reader {
    console: Arc<Console>,
    news: watch::Receiver<()>,
    at: Offset,
}

#[async_trait]
impl LinkReader for Reader {
    async fn next(&mut self, buf: &mut Vec<u8>) -> Result<LinkItem> {
        loop {
            {
                let said = self.console.said();
                if let Some(next) = said.read(self.at, buf) {
                    return Ok(LinkItem::Stream { at: std::mem::replace(&mut self.at, next) });
                }
                if let Some(exit) = &said.ended {
                    return Ok(LinkItem::Ended(exit.clone()));
                }
            }
            if self.news.changed().await.is_err() {
                return Ok(LinkItem::Broken);
            }
        }
    }
}

struct Writer(Arc<Console>);

#[async_trait]
impl LinkWriter for Writer {
    async fn send(&mut self, frame: Frame<'_>) -> Result<()> {
        let typed = match frame.tag {
            tag::INPUT => frame.payload.to_vec(),
            // The key that interrupts what runs in a terminal.
            tag::INTERRUPT => vec![3],
            tag::ACK => {
                if let Some(to) = frame.payload.first_chunk::<8>() {
                    self.0.said().acknowledge(u64::from_le_bytes(*to));
                }
                return Ok(());
            }
            // A serial line has no size. Whoever sends one looks at the console: now a foreign one is taken.
            tag::RESIZE => Vec::new(),
            _ => {
                return Err(
                    Error::new(Code::SessionChannel, "a serial console takes keys, not code").hint("type into it: vmoon console NAME")
                );
            }
        };
        if self.0.said().ended.is_some() {
            return Err(Error::new(Code::DriverUnreachable, "the machine has ended"));
        }
        self.0.input.send(typed).await.map_err(|_| Error::new(Code::DriverUnreachable, "the console is closed"))
    }
}

impl Inner {
    /// Opens the console of that life of a machine at an offset.
    pub(crate) async fn open(&self, handle: &Handle, channel: &Channel, from: Offset) -> Result<SessionLink> {
        if channel.name != look::SERIAL {
            return Err(Error::new(
                Code::SessionChannel,
                format!("the machine has no channel {}", vmoon_core::name::escape(&channel.name)),
            ));
        }
        let over = || Error::new(Code::SessionEnded, "that life of the console is over");
        let uuid = look::uuid_of(handle).ok_or_else(over)?;
        let console = match self.consoles.of_life(uuid, channel.life) {
            Some(console) => console,
            None => match vital(&self.link, uuid, channel.life).await {
                Vital::Alive | Vital::Held => {
                    let client = self.link.client().await?;
                    let ours = look::tag(&client, &Domain::of(uuid)).await.is_ok_and(|tag| tag.is_some());
                    self.consoles.take(&self.link, uuid, channel.life, from, ours)
                }
                Vital::Over(_) => return Err(over()),
                Vital::Unknown => return Err(Error::new(Code::DriverUnreachable, "libvirt cannot be asked for the console")),
            },
        };
        let end = {
            let said = console.said();
            if from > said.end || !said.is_boundary(from) {
                return Err(Error::new(Code::WireMalformed, format!("the console's stream has no frame at {from}")));
            }
            if said.ended.is_some() && from == said.end {
                return Err(over());
            }
            said.end
        };
        let news = console.news.subscribe();
        let reader = Box::new(Reader { console: console.clone(), news, at: from });
        let writer = Box::new(Writer(console));
        Ok(SessionLink { reader, writer, end, last_command: 0, running: None, queued: 0, waiting_input: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let (mut at, mut all) = (0, Vec::new());
        while let Ok(Some((frame, n))) = Frame::decode(&bytes[at..]) {
            all.push((frame.tag, frame.payload.to_vec()));
            at += n;
        }
        all
    }

    #[test]
    fn what_is_said_is_kept_within_bounds_and_what_is_lost_is_a_gap() {
        let mut said = Said::default();
        said.push(tag::STDOUT, b"first");
        let second = said.end;
        said.push(tag::STDOUT, b"second");
        let mut buf = Vec::new();
        assert_eq!(said.read(0, &mut buf), Some(said.end));
        assert_eq!(texts(&buf), [(b'O', b"first".to_vec()), (b'O', b"second".to_vec())]);
        assert!(said.is_boundary(second) && !said.is_boundary(second + 1) && said.is_boundary(said.end));
        said.acknowledge(second);
        assert_eq!(said.read(0, &mut buf), Some(said.end));
        assert_eq!(texts(&buf), [(b'G', second.to_le_bytes().to_vec()), (b'O', b"second".to_vec())]);
        assert_eq!(said.read(said.end, &mut buf), None);
        for _ in 0..200 {
            said.push(tag::STDOUT, &[b'x'; PIECE]);
        }
        assert!(said.bytes <= KEEP && said.start > second);
        let mut at = 0;
        let mut all = 0;
        while let Some(next) = said.read(at, &mut buf) {
            all += texts(&buf).iter().map(|(tag, payload)| Frame { tag: *tag, id: 0, payload }.stream_len()).sum::<u64>();
            at = next;
        }
        assert_eq!((at, all), (said.end, said.end), "offsets and frames agree");
    }

    #[test]
    fn after_a_restart_a_gap_says_that_something_may_be_missing() {
        let mut said = Said { start: 100, end: 100, ..Said::default() };
        said.gap();
        said.push(tag::STDOUT, b"x");
        let mut buf = Vec::new();
        assert_eq!(said.read(100, &mut buf), Some(101 + 14));
        assert_eq!(texts(&buf)[0], (b'G', 1u64.to_le_bytes().to_vec()));
    }
}
