//! Serial consoles, read from libvirt's streams; what becomes of them then is `vmoon-guest`'s.
//!
//! libvirt gives a console to one client at a time. Those of our own machines are listened to from the first moment on; a foreign one is only taken when
//! somebody writes to it, so that `virsh console` goes on working.

use super::{Inner, link::Shared, look};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;
use vmoon_core::{
    Code, Error, Result,
    driver::{Channel, Exit, Handle, Observed, Offset, SessionLink},
};
use vmoon_guest::console::{Console, Typed, over};
use vmoon_libvirt_wire::{Domain, Event, Topic, flags::Console as How};
use vmoon_sys::clock;

/// How long a start waits for its console.
const ATTACH: Duration = Duration::from_secs(3);
/// The first and the longest pause before a console is asked for again that somebody else has.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));
/// How long a machine that has no console is left alone, unless an event tells of it.
const NONE: Duration = Duration::from_secs(24 * 3600);

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
async fn run(uuid: Uuid, console: Weak<Console>, link: Shared, mut typed: Typed, eager: bool) {
    let mut first = None;
    if !eager {
        first = typed.recv().await;
        if first.is_none() {
            return;
        }
    }
    let mut pause = BACK_OFF.0;
    loop {
        let Some(shared) = console.upgrade() else { return };
        let life = shared.life;
        drop(shared);
        let client = link.patiently().await;
        // Listen first, then look: what happens in between is an event.
        let events = client.watch(&[Topic::LIFE]).await;
        match vital(&link, uuid, life).await {
            Vital::Over(exit) => {
                if let Some(shared) = console.upgrade() {
                    shared.end(exit);
                }
                return;
            }
            Vital::Alive => match client.console(&Domain::of(uuid), None, How::NONE).await {
                Ok(stream) => {
                    pause = BACK_OFF.0;
                    let Some(shared) = console.upgrade() else { return };
                    shared.attached();
                    drop(shared);
                    Console::carry(&console, stream, &mut typed, first.take()).await;
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

impl Inner {
    fn read_console(&self, uuid: Uuid, life: u64, from: Offset, eager: bool) -> Arc<Console> {
        let link = self.link.clone();
        self.consoles.take(&uuid.to_string(), life, from, |console, typed| run(uuid, console, link, typed, eager))
    }

    /// Listens to the console of a life that has just begun; returns when nothing it says can be missed, or when that takes too long.
    pub(crate) async fn listen(&self, uuid: Uuid, life: u64) {
        let console = self.read_console(uuid, life, 0, true);
        if tokio::time::timeout(ATTACH, console.attachment()).await.is_err() {
            tracing::warn!(domain = %uuid, "the console did not open in time; its first words may be missing");
        }
    }

    /// Opens the console of that life of a machine at an offset.
    pub(crate) async fn open(&self, handle: &Handle, channel: &Channel, from: Offset) -> Result<SessionLink> {
        if channel.name != look::SERIAL {
            return Err(Error::new(
                Code::SessionChannel,
                format!("the machine has no channel {}", vmoon_core::name::escape(&channel.name)),
            ));
        }
        let uuid = look::uuid_of(handle).ok_or_else(over)?;
        let console = match self.consoles.of_life(&uuid.to_string(), channel.life) {
            Some(console) => console,
            None => match vital(&self.link, uuid, channel.life).await {
                Vital::Alive | Vital::Held => {
                    let client = self.link.client().await?;
                    let ours = look::tag(&client, &Domain::of(uuid)).await.is_ok_and(|tag| tag.is_some());
                    self.read_console(uuid, channel.life, from, ours)
                }
                Vital::Over(_) => return Err(over()),
                Vital::Unknown => return Err(Error::new(Code::DriverUnreachable, "libvirt cannot be asked for the console")),
            },
        };
        console.link(from)
    }
}
