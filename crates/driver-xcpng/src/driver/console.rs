//! Text consoles (`vt100`, which hosts offer for some VMs), each read over a connection of its own; what becomes of them then is `vmoon-guest`'s.
//!
//! A console is read from when somebody first opens its channel until its life is over, through losses of the connection.

use super::pool::Pool;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use vmoon_core::{
    Code, Error, Result,
    driver::{Channel, ChannelKind, Exit, Offset, SessionLink},
};
use vmoon_guest::console::{Console, Typed, over};
use vmoon_xapi::records::{Console as Record, PowerState, Vm};

/// The channel.
pub(super) const SERIAL: &str = "serial";
/// The first and the longest pause before a console is asked for again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

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
        let console = match self.consoles.of_life(uuid, life) {
            Some(console) => console,
            None => match self.vital(uuid, life).await {
                Vital::Alive(_) | Vital::Held => self.read_console(uuid, life, from),
                Vital::Over => return Err(over()),
                Vital::Unknown => return Err(Error::new(Code::DriverUnreachable, "the pool cannot be asked for the console")),
            },
        };
        console.link(from)
    }

    fn read_console(self: &Arc<Self>, uuid: &str, life: u64, from: Offset) -> Arc<Console> {
        let pool = self.clone();
        self.consoles.take(uuid, life, from, |console, typed| listen(console, pool, typed))
    }

    /// The machine was seen off, or is gone: its console is over.
    pub(super) fn end_console(&self, uuid: &str) {
        if let Some(console) = self.consoles.forget(uuid) {
            console.end(Exit::Lost);
        }
    }
}

/// Reads a console until its life is over, through losses of the connection.
async fn listen(console: Weak<Console>, pool: Arc<Pool>, mut typed: Typed) {
    let mut pause = BACK_OFF.0;
    loop {
        let Some(shared) = console.upgrade() else { return };
        let (uuid, life) = (shared.key.clone(), shared.life);
        drop(shared);
        match pool.vital(&uuid, life).await {
            Vital::Over => {
                if let Some(shared) = console.upgrade() {
                    shared.end(Exit::Lost);
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
                        shared.attached();
                        drop(shared);
                        if Console::carry(&console, stream, &mut typed, None).await {
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
