//! The channels of a guest: the Lua session, which outlives its connection, and a shell, which does not.

use crate::{
    Guests, MAIN, Machine, SHELL,
    enter::{Inside, Places},
    one::{One, Use},
    record::Bound,
    unknown,
};
use async_trait::async_trait;
use std::sync::Arc;
use vmoon_core::{
    Code, Error, Result,
    driver::{Channel, Exit, LinkItem, LinkReader, LinkWriter, Offset, SessionLink},
    frame::Frame,
    name::escape,
};
use vmoon_remote::shell;
use vmoon_sys::clock::now_ms;

/// That a life is over and nothing of it is left.
fn ended() -> Error {
    Error::new(Code::SessionEnded, "that life of the session is over")
}

impl Guests {
    /// Opens a channel of a machine that runs, as `Driver::open` promises. The machine is entered; what runs there begins with its first command or key.
    ///
    /// # Errors
    /// [`Code::SessionEnded`] when that life is over; [`Code::SessionChannel`] for another channel; [`Code::GuestNoLua`]; as
    /// [`Guests::connection`].
    pub async fn open(&self, machine: &Machine<'_>, channel: &Channel, from: Offset, places: &dyn Places) -> Result<SessionLink> {
        // Also sees whether the run is another one.
        let offered = self.channels(machine.key, machine.run);
        let one = self.find(machine.key).ok_or_else(|| unknown(machine.name))?;
        let Some(now) = offered.iter().find(|offered| offered.name == channel.name) else {
            let name = escape(machine.name);
            return Err(Error::new(Code::SessionChannel, format!("{name} has no channel {}", escape(&channel.name))));
        };
        if now.life != channel.life {
            return Err(ended());
        }
        match channel.name.as_str() {
            MAIN => self.main(&one, machine, channel.life, from, places).await,
            SHELL => self.shell(&one, machine, channel.life, from, places).await,
            other => Err(Error::internal(format!("the channel {} is offered and not known", other.escape_debug()))),
        }
    }

    async fn main(&self, one: &Arc<One>, machine: &Machine<'_>, life: u64, from: Offset, places: &dyn Places) -> Result<SessionLink> {
        let inside = self.inside(one, machine, places).await?;
        let bound = one.record().bound.clone();
        let bound = match bound {
            Some(bound) => bound,
            None if from > 0 => return Err(self.over(one, life)),
            None => {
                self.bring(one, machine, &inside).await?;
                let seen = inside.entered.guest.prepare().await?;
                let bound = Bound { number: seen.next_life(), boot: seen.boot };
                // Kept before anything begins there: what begins is found again.
                let kept = {
                    let mut record = one.record();
                    let still = record.life == life;
                    if still {
                        record.bound = Some(bound.clone());
                    }
                    still
                };
                if !kept {
                    return Err(ended());
                }
                self.keep(one)?;
                bound
            }
        };
        match inside.entered.guest.open(bound.number, from).await {
            Ok(link) => Ok(self.watched(link, one, life, inside)),
            Err(error) if error.code() == Code::SessionEnded => {
                let rebooted = match inside.entered.guest.look().await {
                    Ok(seen) => seen.boot != bound.boot,
                    // How it ended is not known yet: it is asked again.
                    Err(error) if error.code() == Code::DriverUnreachable => return Err(error),
                    Err(_) => false,
                };
                let error = self.over(one, life);
                // Where nothing is left of it, its boot still tells how it ended.
                if rebooted { Ok(last_word(Exit::Rebooted, from)) } else { Err(error) }
            }
            Err(error) if error.code() == Code::GuestNoLua => {
                Err(error
                    .hint(format!("install one there (Debian: apt install lua5.4); a shell works: vmoon ssh {}", escape(machine.name))))
            }
            Err(error) => Err(error),
        }
    }

    /// That life is over: the next one is offered from now on.
    fn over(&self, one: &One, life: u64) -> Error {
        if one.record().over(life, now_ms()) {
            // As long as it cannot be kept, it is found out again.
            let _ = self.keep(one);
        }
        ended()
    }

    async fn shell(&self, one: &Arc<One>, machine: &Machine<'_>, life: u64, from: Offset, places: &dyn Places) -> Result<SessionLink> {
        if from > 0 {
            // It had begun, and nobody holds it any more.
            one.shell_over(life, now_ms());
            return Err(ended());
        }
        let inside = self.inside(one, machine, places).await?;
        let of = Arc::downgrade(one);
        let over = move || {
            if let Some(one) = of.upgrade() {
                one.shell_over(life, now_ms());
            }
        };
        let link = shell::open(inside.entered.host.clone(), over);
        let reader = Watched { inner: link.reader, _used: inside.used, over: None };
        Ok(SessionLink { reader: Box::new(reader), ..link })
    }

    fn watched(&self, link: SessionLink, one: &Arc<One>, life: u64, inside: Inside) -> SessionLink {
        let over = Some((self.clone(), one.clone(), life));
        SessionLink { reader: Box::new(Watched { inner: link.reader, _used: inside.used, over }), ..link }
    }
}

/// A link's reading half that holds its connection and sees the end of its life.
struct Watched {
    inner: Box<dyn LinkReader>,
    _used: Use,
    over: Option<(Guests, Arc<One>, u64)>,
}

#[async_trait]
impl LinkReader for Watched {
    async fn next(&mut self, buf: &mut Vec<u8>) -> Result<LinkItem> {
        let item = self.inner.next(buf).await;
        if let Ok(LinkItem::Ended(_)) = item
            && let Some((guests, one, life)) = self.over.take()
        {
            let _ = guests.over(&one, life);
        }
        item
    }
}

/// A link that only tells how its channel has ended.
fn last_word(exit: Exit, end: Offset) -> SessionLink {
    SessionLink {
        reader: Box::new(Word(Some(exit))),
        writer: Box::new(Nobody),
        end,
        last_command: 0,
        running: None,
        queued: 0,
        waiting_input: false,
    }
}

struct Word(Option<Exit>);

#[async_trait]
impl LinkReader for Word {
    async fn next(&mut self, _: &mut Vec<u8>) -> Result<LinkItem> {
        Ok(self.0.take().map_or(LinkItem::Broken, LinkItem::Ended))
    }
}

struct Nobody;

#[async_trait]
impl LinkWriter for Nobody {
    async fn send(&mut self, _: Frame<'_>) -> Result<()> {
        // Whatever is sent, the next that is read is the end.
        Ok(())
    }

    fn takes(&self, _: u8) -> bool {
        true
    }
}
