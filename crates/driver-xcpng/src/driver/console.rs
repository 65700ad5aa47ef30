//! Text consoles (`vt100`, which hosts offer for some VMs) as terminal channels. One task for each reads the console over a connection of its own into a bounded
//! list of frames, from which links are served at any offset.
//!
//! A console is read from when somebody first opens its channel until its life is over, through losses of the connection: what was said while nobody could listen is
//! a gap. Nothing of it outlives the daemon here.

use super::pool::Pool;
use async_trait::async_trait;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep_until},
};
use vmoon_core::{
    Code, Error, Result,
    driver::{Channel, ChannelKind, Exit, LinkItem, LinkReader, LinkWriter, Offset, SessionLink},
    frame::{Frame, tag},
    scrollback::Scrollback,
};
use vmoon_xapi::records::{Console as Record, PowerState, Vm};

/// The channel.
pub(super) const SERIAL: &str = "serial";
/// How much is kept for whoever has not read it yet, bytes.
const KEEP: usize = 1 << 20;
/// The most that is read at once, and that a link is given at once.
const PIECE: usize = 16 << 10;
const BATCH: usize = 64 << 10;
/// How many pieces of input may wait for a guest that does not read.
const INPUT: usize = 64;
/// The first and the longest pause before a console is asked for again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// One life of one console.
#[derive(Debug)]
struct Console {
    vm: String,
    life: u64,
    said: Mutex<Scrollback>,
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
    fn said(&self) -> MutexGuard<'_, Scrollback> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: impl FnOnce(&mut Scrollback)) {
        change(&mut self.said());
        self.news.send_replace(());
    }
}

/// The consoles that are read, by the uuid of their VM.
#[derive(Debug, Default)]
pub(super) struct Consoles(Mutex<HashMap<String, Arc<Console>>>);

/// What became of a life.
enum Vital {
    /// It goes on; where its console is, if it has one.
    Alive(Option<String>),
    Held,
    Over,
    Unknown,
}

/// Which life of its console a VM has: another one with each run.
pub(super) fn channel(run: u64) -> Channel {
    Channel { name: SERIAL.into(), kind: ChannelKind::Terminal, life: run }
}

impl Pool {
    /// Where the text console of a VM is, if its host offers one.
    pub(super) async fn text_console(&self, vm: &Vm) -> Result<Option<String>> {
        self.console_of(vm, "vt100").await
    }

    /// Where a console of that protocol is.
    pub(super) async fn console_of(&self, vm: &Vm, protocol: &str) -> Result<Option<String>> {
        let client = self.client()?;
        for console in &vm.consoles {
            match client.get::<Record>("console.get_record", vec![console.into()]).await {
                Ok(record) if record.protocol == protocol => return Ok(Some(record.location)),
                Ok(_) => {}
                // They are made anew with each boot.
                Err(error) if error.is("HANDLE_INVALID") => {}
                Err(error) => return Err(self.failed("look at the VM's consoles", error)),
            }
        }
        Ok(None)
    }

    async fn vital(&self, uuid: &str, life: u64) -> Vital {
        let Ok(found) = self.vm(uuid).await else { return Vital::Unknown };
        let Some((_, vm)) = found else { return Vital::Over };
        match vm.power_state {
            PowerState::Running | PowerState::Paused => match (self.run_of(&vm).await, self.text_console(&vm).await) {
                (Ok(run), Ok(console)) if self.lives.seen(uuid, run) == life => Vital::Alive(console),
                (Ok(_), Ok(_)) => Vital::Over,
                _ => Vital::Unknown,
            },
            PowerState::Suspended => Vital::Held,
            PowerState::Halted => Vital::Over,
            PowerState::Other(_) => Vital::Unknown,
        }
    }

    /// Opens that life of a console at an offset.
    pub(super) async fn open_console(self: &Arc<Self>, uuid: &str, life: u64, from: Offset) -> Result<SessionLink> {
        let over = || Error::new(Code::SessionEnded, "that life of the console is over");
        let known = self.consoles.0.lock().unwrap_or_else(PoisonError::into_inner).get(uuid).cloned();
        let console = match known.filter(|console| console.life == life) {
            Some(console) => console,
            None => match self.vital(uuid, life).await {
                Vital::Alive(_) | Vital::Held => self.read_console(uuid, life, from),
                Vital::Over => return Err(over()),
                Vital::Unknown => return Err(Error::new(Code::DriverUnreachable, "the pool cannot be asked for the console")),
            },
        };
        let end = {
            let said = console.said();
            if from > said.end() || !said.is_boundary(from) {
                return Err(Error::new(Code::WireMalformed, format!("the console's stream has no frame at {from}")));
            }
            if said.ended.is_some() && from == said.end() {
                return Err(over());
            }
            said.end()
        };
        let news = console.news.subscribe();
        let reader = Box::new(Reader { console: console.clone(), news, at: from });
        let writer = Box::new(Writer(console));
        Ok(SessionLink { reader, writer, end, last_command: 0, running: None, queued: 0, waiting_input: false })
    }

    fn read_console(self: &Arc<Self>, uuid: &str, life: u64, from: Offset) -> Arc<Console> {
        let mut all = self.consoles.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(console) = all.get(uuid).filter(|console| console.life == life) {
            return console.clone();
        }
        let (input, typed) = mpsc::channel(INPUT);
        let said = Mutex::new(Scrollback::new(from, KEEP));
        let console = Arc::new(Console { vm: uuid.into(), life, said, news: watch::Sender::new(()), input, task: Mutex::default() });
        let work = tokio::spawn(listen(Arc::downgrade(&console), self.clone(), typed));
        *console.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(work.abort_handle());
        all.insert(uuid.to_owned(), console.clone());
        console
    }

    /// The machine was seen off, or is gone: its console is over.
    pub(super) fn end_console(&self, uuid: &str) {
        let console = self.consoles.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uuid);
        if let Some(console) = console {
            console.tell(|said| said.ended = Some(Exit::Lost));
        }
    }
}

/// Reads a console until its life is over, through losses of the connection.
async fn listen(console: Weak<Console>, pool: Arc<Pool>, mut typed: mpsc::Receiver<Vec<u8>>) {
    let (mut pause, mut heard) = (BACK_OFF.0, false);
    loop {
        let Some(shared) = console.upgrade() else { return };
        let (uuid, life) = (shared.vm.clone(), shared.life);
        drop(shared);
        match pool.vital(&uuid, life).await {
            Vital::Over => {
                if let Some(shared) = console.upgrade() {
                    shared.tell(|said| said.ended = Some(Exit::Lost));
                }
                return;
            }
            Vital::Alive(Some(location)) => {
                let opened = match pool.client() {
                    Ok(client) => client.console(&location).await.map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                match opened {
                    Ok(stream) => {
                        let Some(shared) = console.upgrade() else { return };
                        if std::mem::replace(&mut heard, true) {
                            shared.tell(Scrollback::gap);
                        }
                        drop(shared);
                        if carry(&console, stream, &mut typed).await {
                            pause = BACK_OFF.0;
                        }
                    }
                    Err(error) => tracing::debug!(vm = uuid, error, "the console does not open"),
                }
            }
            Vital::Alive(None) | Vital::Held | Vital::Unknown => {}
        }
        sleep_until(Instant::now() + pause).await;
        pause = (pause * 2).min(BACK_OFF.1);
    }
}

/// Carries bytes in both directions until the stream ends. Whether anything was said.
async fn carry(console: &Weak<Console>, stream: vmoon_xapi::console::Console, typed: &mut mpsc::Receiver<Vec<u8>>) -> bool {
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
        while let Some(bytes) = typed.recv().await {
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
            // A serial line has no size.
            tag::RESIZE => return Ok(()),
            _ => {
                return Err(Error::new(Code::SessionChannel, "a console takes keys, not code").hint("type into it: vmoon console NAME"));
            }
        };
        if self.0.said().ended.is_some() {
            return Err(Error::new(Code::DriverUnreachable, "the machine has ended"));
        }
        self.0.input.send(typed).await.map_err(|_| Error::new(Code::DriverUnreachable, "the console is closed"))
    }
}
