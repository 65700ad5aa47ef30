//! Serial consoles that a driver reads by itself, as terminal channels: one task for each reads it into a bounded list of frames, from which links are served at any
//! offset. What nobody has read in time, or was said while nobody could listen, is a gap.
//!
//! How a console is reached, and when its life is over, is the driver's to know; here is what all of them do with it. Nothing outlives the daemon: after its restart
//! a gap says that something may be missing.

use async_trait::async_trait;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{mpsc, watch},
    task::AbortHandle,
};
use vmoon_core::{
    Code, Error, Result,
    driver::{Exit, LinkItem, LinkReader, LinkWriter, Offset, SessionLink},
    frame::{Frame, tag},
    scrollback::Scrollback,
};

/// How much of a console is kept for whoever has not read it yet, bytes.
const KEEP: usize = 1 << 20;
/// The most that is read from a stream, and put into a frame, at once.
const PIECE: usize = 16 << 10;
/// The most that a link is given at once.
const BATCH: usize = 64 << 10;
/// How many pieces of input may wait for a guest that does not read.
const INPUT: usize = 64;

/// What is typed into a console. An empty piece is nothing but a wish to be there.
pub type Typed = mpsc::Receiver<Vec<u8>>;

/// One life of one console. The task that reads it ends with the last who holds it.
#[derive(Debug)]
pub struct Console {
    /// Whose it is, as the driver names machines.
    pub key: String,
    /// Which life.
    pub life: u64,
    said: Mutex<Scrollback>,
    /// Told whenever something is new; whether it was ever attached to.
    news: watch::Sender<bool>,
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
    fn said(&self) -> MutexGuard<'_, Scrollback> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: impl FnOnce(&mut Scrollback)) {
        change(&mut self.said());
        self.news.send_modify(|_| {});
    }

    /// Its life is over.
    pub fn end(&self, exit: Exit) {
        self.tell(|said| said.ended = Some(exit));
    }

    /// It is listened to from now on. After the first time something may have been missed in between.
    pub fn attached(&self) {
        if self.news.send_replace(true) {
            self.tell(Scrollback::gap);
        }
    }

    /// Waits until it was attached to.
    pub async fn attachment(&self) {
        let _ = self.news.subscribe().wait_for(|attached| *attached).await;
    }

    /// Carries bytes in both directions until the stream ends or nobody holds the console; `first` is typed before everything else. Whether anything was said.
    pub async fn carry<S>(console: &Weak<Self>, stream: S, typed: &mut Typed, first: Option<Vec<u8>>) -> bool
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        let (mut from, mut to) = tokio::io::split(stream);
        let mut said = false;
        let read = async {
            let mut piece = vec![0; PIECE];
            while let Ok(read @ 1..) = from.read(&mut piece).await {
                let Some(shared) = console.upgrade() else { return };
                said = true;
                shared.tell(|scroll| scroll.say(&piece[..read]));
            }
        };
        let write = async {
            let mut next = first;
            loop {
                let Some(bytes) = (match next.take() {
                    Some(bytes) => Some(bytes),
                    None => typed.recv().await,
                }) else {
                    return;
                };
                if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = read => {}
            () = write => {}
        }
        said
    }

    /// A link that is given everything from an offset on.
    ///
    /// # Errors
    /// [`Code::WireMalformed`] where no frame begins there; [`Code::SessionEnded`] when it is over and nothing is left.
    pub fn link(self: Arc<Self>, from: Offset) -> Result<SessionLink> {
        let end = {
            let said = self.said();
            if from > said.end() || !said.is_boundary(from) {
                return Err(Error::new(Code::WireMalformed, format!("the console's stream has no frame at {from}")));
            }
            if said.ended.is_some() && from == said.end() {
                return Err(over());
            }
            said.end()
        };
        let news = self.news.subscribe();
        let reader = Box::new(Reader { console: self.clone(), news, at: from });
        let writer = Box::new(Writer(self));
        Ok(SessionLink { reader, writer, end, last_command: 0, running: None, queued: 0, waiting_input: false })
    }
}

/// That a life of a console is over and nothing of it is left.
pub fn over() -> Error {
    Error::new(Code::SessionEnded, "that life of the console is over")
}

/// The consoles of one connection that are listened to.
#[derive(Debug, Default)]
pub struct Consoles(Mutex<HashMap<String, Arc<Console>>>);

impl Consoles {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Console>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The console of that life, if it is listened to.
    pub fn of_life(&self, key: &str, life: u64) -> Option<Arc<Console>> {
        self.all().get(key).filter(|console| console.life == life).cloned()
    }

    /// The console of that life. One that is not listened to yet begins at `from` and is read by `work`, which gets what is typed.
    pub fn take<W>(&self, key: &str, life: u64, from: Offset, work: impl FnOnce(Weak<Console>, Typed) -> W) -> Arc<Console>
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let mut all = self.all();
        if let Some(console) = all.get(key).filter(|console| console.life == life) {
            return console.clone();
        }
        let (input, typed) = mpsc::channel(INPUT);
        let said = Mutex::new(Scrollback::new(from, KEEP));
        let console = Arc::new(Console { key: key.to_owned(), life, said, news: watch::Sender::new(false), input, task: Mutex::default() });
        let task = tokio::spawn(work(Arc::downgrade(&console), typed));
        *console.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        all.insert(key.to_owned(), console.clone());
        console
    }

    /// Stops listening to it, as soon as nobody is attached.
    pub fn forget(&self, key: &str) -> Option<Arc<Console>> {
        self.all().remove(key)
    }
}

struct Reader {
    console: Arc<Console>,
    news: watch::Receiver<bool>,
    at: Offset,
}

#[async_trait]
impl LinkReader for Reader {
    async fn next(&mut self, buf: &mut Vec<u8>) -> Result<LinkItem> {
        loop {
            {
                let said = self.console.said();
                if let Some(next) = said.read(self.at, BATCH, buf) {
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
            // A serial line has no size. Whoever sends one looks at the console: now one that is only taken when it is wanted is taken.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a link is given until that was printed: the kinds of the frames, and what was printed.
    async fn printed(link: &mut SessionLink, wanted: &str) -> (Vec<u8>, String) {
        let (mut buf, mut tags, mut text) = (Vec::new(), Vec::new(), String::new());
        while !text.contains(wanted) {
            let LinkItem::Stream { .. } = link.reader.next(&mut buf).await.unwrap() else { panic!("{text}") };
            let mut at = 0;
            while let Ok(Some((frame, length))) = Frame::decode(&buf[at..]) {
                tags.push(frame.tag);
                if frame.tag == tag::STDOUT {
                    text.push_str(&String::from_utf8_lossy(frame.payload));
                }
                at += length;
            }
        }
        (tags, text)
    }

    #[tokio::test]
    async fn what_is_said_and_typed_is_carried_a_loss_is_a_gap_and_the_end_is_told() {
        let consoles = Consoles::default();
        let (streams, mut there) = mpsc::channel(1);
        let console = consoles.take("vm", 7, 0, |console, mut typed| async move {
            while let Some(stream) = there.recv().await {
                let Some(shared) = console.upgrade() else { return };
                shared.attached();
                drop(shared);
                Console::carry::<tokio::io::DuplexStream>(&console, stream, &mut typed, None).await;
            }
        });
        assert!(consoles.of_life("vm", 6).is_none() && Arc::ptr_eq(&console, &consoles.of_life("vm", 7).unwrap()));
        let mut link = console.clone().link(0).unwrap();
        let (mut guest, stream) = tokio::io::duplex(64);
        streams.send(stream).await.unwrap();
        console.attachment().await;
        guest.write_all(b"login: ").await.unwrap();
        assert_eq!(printed(&mut link, "login: ").await, (vec![tag::STDOUT], "login: ".to_owned()));
        link.writer.send(Frame { tag: tag::INPUT, id: 0, payload: b"ada" }).await.unwrap();
        link.writer.send(Frame { tag: tag::INTERRUPT, id: 0, payload: &[] }).await.unwrap();
        let mut heard = [0; 4];
        guest.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ada\x03");
        assert_eq!(link.writer.send(Frame { tag: tag::EVAL, id: 1, payload: b"x" }).await.unwrap_err().code(), Code::SessionChannel);
        // Lost and found: what was said in between is a gap.
        drop(guest);
        let (mut guest, stream) = tokio::io::duplex(64);
        streams.send(stream).await.unwrap();
        guest.write_all(b"again").await.unwrap();
        assert_eq!(printed(&mut link, "again").await, (vec![tag::GAP, tag::STDOUT], "again".to_owned()));
        console.end(Exit::Killed);
        let mut buf = Vec::new();
        assert_eq!(link.reader.next(&mut buf).await.unwrap(), LinkItem::Ended(Exit::Killed));
        assert!(link.writer.send(Frame { tag: tag::INPUT, id: 0, payload: b"x" }).await.is_err());
        let end = console.said().end();
        assert_eq!(console.clone().link(end).err().unwrap().code(), Code::SessionEnded);
        assert_eq!(console.link(1).err().unwrap().code(), Code::WireMalformed);
    }
}
