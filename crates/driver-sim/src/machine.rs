//! The machines of a world: what is defined, what runs, and what guests do when they are asked. Pure data; knows no driver.

use crate::holder::Holder;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use vmoon_core::{
    MachineId,
    ability::Address,
    device::{Device, Presence},
    driver::{Channel, ChannelKind, Exit, Observed, Sighting},
};

/// The name of the channel that every running machine offers.
pub(crate) const CHANNEL: &str = "main";
/// The name of the channel of those with a console.
pub(crate) const SERIAL: &str = "serial";

/// What a guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guest {
    /// What it does when it is asked to stop.
    pub stop: StopAnswer,
    /// Whether it ends by itself, with status 1, as soon as it was started.
    pub dies_after_start: bool,
    /// How many bytes its ring keeps.
    pub ring: usize,
    /// What it does when the ring is full.
    pub overflow: Overflow,
    /// Whether it has a serial console, too.
    pub serial: bool,
}

/// A snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) parent: Option<String>,
    pub(crate) created_ms: u64,
    /// Whether it ran.
    pub(crate) running: bool,
    /// Its memory, MiB.
    pub(crate) memory: u64,
}

impl Default for Guest {
    fn default() -> Self {
        Self { stop: StopAnswer::Obey, dies_after_start: false, ring: 32 << 20, overflow: Overflow::Wait, serial: false }
    }
}

/// What a guest does when it is asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopAnswer {
    /// It ends before the call returns.
    #[default]
    Obey,
    /// It ends after so many milliseconds of the world's clock; the call returns at once.
    After(u64),
    /// Nothing. The call returns at once.
    Ignore,
}

/// What happens to output that does not fit into the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// The program waits until a reader acknowledges.
    #[default]
    Wait,
    /// The oldest frames are dropped; a reader that wanted them gets a gap.
    Drop,
}

/// Whether a machine has power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    Off,
    On,
    Paused,
    Suspended,
}

/// One defined machine.
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) tag: Option<MachineId>,
    pub(crate) complete: bool,
    pub(crate) guest: Guest,
    power: Power,
    life: u64,
    /// The program of the current life, or of the last one for whoever has not read it to the end.
    holder: Option<Arc<Holder>>,
    /// The same of its console.
    console: Option<Arc<Holder>>,
    pub(crate) snapshots: Vec<Kept>,
    /// The snapshot it goes on from.
    pub(crate) current: Option<String>,
    pub(crate) addresses: Vec<Address>,
    /// MiB.
    pub(crate) memory: u64,
    pub(crate) autostart: bool,
    pub(crate) devices: Vec<Device>,
    /// How often its reset button was pressed.
    pub(crate) resets: u64,
    /// When a guest that takes its time will be off.
    leaves_at: Option<u64>,
}

impl Machine {
    pub(crate) fn new(name: String, tag: Option<MachineId>, complete: bool, guest: Guest) -> Self {
        Self {
            name,
            tag,
            complete,
            guest,
            power: Power::Off,
            life: 0,
            holder: None,
            console: None,
            snapshots: Vec::new(),
            current: None,
            addresses: Vec::new(),
            memory: 16,
            autostart: false,
            devices: Vec::new(),
            resets: 0,
            leaves_at: None,
        }
    }

    /// The power as it is: a program that ended has taken the machine down with it.
    pub(crate) fn power(&self) -> Power {
        match (&self.holder, self.power) {
            (Some(holder), Power::On | Power::Paused) if holder.ended().is_some() => Power::Off,
            (_, power) => power,
        }
    }

    pub(crate) fn sighting(&self) -> Sighting {
        let observed = match self.power() {
            Power::Off => Observed::Off(self.holder.as_ref().and_then(|holder| holder.ended())),
            Power::On => Observed::On(self.channels()),
            Power::Paused => Observed::Paused,
            Power::Suspended => Observed::Suspended,
        };
        Sighting { observed, complete: self.complete }
    }

    fn channels(&self) -> Vec<Channel> {
        let serial = self.console.is_some().then(|| Channel { name: SERIAL.into(), kind: ChannelKind::Terminal, life: self.life });
        [Channel { name: CHANNEL.into(), kind: ChannelKind::Repl, life: self.life }].into_iter().chain(serial).collect()
    }

    /// The holder of that channel and life, while it is remembered.
    pub(crate) fn holder_of(&self, channel: &Channel) -> Option<&Arc<Holder>> {
        let place = self.channels().iter().position(|own| own == channel)?;
        [self.holder.as_ref(), self.console.as_ref()][place]
    }

    /// Whether there is such a channel in any life.
    pub(crate) fn knows(&self, channel: &Channel) -> bool {
        let known = [(CHANNEL, ChannelKind::Repl), (SERIAL, ChannelKind::Terminal)];
        known.contains(&(channel.name.as_str(), channel.kind)) && channel.life <= self.life
    }

    /// Begins a new life, unless one runs.
    pub(crate) fn power_on(&mut self, now: u64) {
        if self.power() != Power::Off {
            return;
        }
        self.life += 1;
        self.devices.iter_mut().for_each(|device| device.presence = Presence::Kept);
        self.power = Power::On;
        self.leaves_at = None;
        let holder = Arc::new(Holder::new(self.guest.ring, self.guest.overflow, now));
        if self.guest.dies_after_start {
            holder.end(Exit::Code { code: 1 });
        }
        self.holder = Some(holder);
        let console = || Arc::new(Holder::terminal(self.guest.ring, self.guest.overflow, now));
        self.console = self.guest.serial.then(console);
    }

    /// Ends the life that runs, if any.
    pub(crate) fn power_off(&mut self, exit: Exit) {
        if self.power() != Power::Off
            && let Some(holder) = &self.holder
        {
            holder.end(exit.clone());
        }
        if let Some(console) = &self.console {
            console.end(exit);
        }
        self.power = Power::Off;
        self.leaves_at = None;
        self.devices.retain(|device| device.presence != Presence::UntilStopped);
    }

    /// Asks the guest to stop.
    pub(crate) fn ask_to_stop(&mut self, now: u64) {
        match self.guest.stop {
            _ if self.power() != Power::On => {}
            StopAnswer::Obey => self.power_off(Exit::Code { code: 0 }),
            StopAnswer::After(ms) => self.leaves_at = Some(self.leaves_at.unwrap_or(now + ms)),
            StopAnswer::Ignore => {}
        }
    }

    /// Freezes or thaws a machine that runs.
    pub(crate) fn set_frozen(&mut self, power: Power) {
        self.power = power;
        for holder in self.holders() {
            holder.freeze(power != Power::On);
            if power == Power::Suspended {
                holder.break_link();
            }
        }
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.is_linked())
    }

    fn holders(&self) -> impl Iterator<Item = &Arc<Holder>> {
        self.holder.iter().chain(&self.console)
    }

    pub(crate) fn break_link(&self) {
        self.holders().for_each(|holder| holder.break_link());
    }

    /// Lets everything happen that is due.
    pub(crate) fn advance(&mut self, now: u64) {
        if self.leaves_at.is_some_and(|at| at <= now) && self.power() == Power::On {
            self.power_off(Exit::Code { code: 0 });
        }
        self.holders().for_each(|holder| holder.advance(now));
    }
}
