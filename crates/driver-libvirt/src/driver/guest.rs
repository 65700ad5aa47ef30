//! Entering guests: what a seed gets for it, where a guest is reached, and the channels, programs and settings that go over SSH. How a machine is entered is the
//! truth of `vmoon-guest`; here is only what libvirt adds.

use super::{
    Inner,
    errors::Doing as _,
    look::{self, handle_of, uuid_of},
};
use async_trait::async_trait;
use uuid::Uuid;
use vmoon_core::{
    Code, Error, MachineId, Result,
    ability::{Change, Ended, Program, UsedEnvironment},
    driver::{Channel, Handle, Observed, Offset, SessionLink, Sighting},
    name::escape,
};
use vmoon_guest::{Account, Entrance, Entry, Gate, Guests, MAIN, Machine, Place, Places, SHELL, USER, settings::Wanted};
use vmoon_libvirt_wire::flags::Xml;
use vmoon_seed::Seed;
use vmoon_xml::Element;

/// Whether a channel is one inside the guest.
pub(crate) fn is_inside(channel: &Channel) -> bool {
    matches!(channel.name.as_str(), MAIN | SHELL)
}

/// A running machine, to be entered.
struct Running {
    key: String,
    name: String,
    run: u64,
}

impl Running {
    fn machine(&self) -> Machine<'_> {
        Machine { key: &self.key, name: &self.name, run: self.run }
    }
}

/// Ports of the hypervisor's computer that lead to the guest's SSH server, as passt forwards them.
fn forwards(domain: &Element, ssh: u16) -> Vec<Place> {
    let cards = domain.first("devices").into_iter().flat_map(|devices| devices.named("interface"));
    let forwards = cards.flat_map(|card| card.named("portForward")).filter(|forward| forward.attribute("proto") != Some("udp"));
    let ranges = forwards.flat_map(|forward| forward.named("range").map(move |range| (forward.attribute("address"), range)));
    let number = |range: &Element, name: &str| range.attribute(name)?.parse::<u16>().ok();
    ranges
        .filter_map(|(address, range)| {
            let start = number(range, "start")?;
            let (end, to) = (number(range, "end").unwrap_or(start), number(range, "to").unwrap_or(start));
            let host = start.checked_add(ssh.checked_sub(to)?)?;
            (host <= end && range.attribute("exclude") != Some("yes"))
                .then(|| Place { host: address.unwrap_or("127.0.0.1").to_owned(), port: Some(host) })
        })
        .collect()
}

impl Inner {
    pub(crate) fn guests(&self) -> Result<&Guests> {
        self.guests.as_ref().ok_or_else(|| Error::new(Code::DriverUnsupported, "guests are not entered here"))
    }

    /// What is seen of a machine in a run, with the channels inside its guest.
    pub(crate) fn with_inside(&self, uuid: Uuid, run: Option<u64>, mut sighting: Sighting) -> Sighting {
        if let (Some(guests), Some(run)) = (&self.guests, run)
            && let Observed::On(channels) = &mut sighting.observed
        {
            channels.extend(guests.channels(&uuid.to_string(), run));
        }
        sighting
    }

    /// What the seed of a new machine gets so that its guest can be entered, if it is to be; its sessions begin with the environment.
    pub(crate) fn entry(&self, id: MachineId, seed: &Seed, environment: Option<&str>) -> Result<Option<Entry>> {
        match (seed, &self.guests) {
            (Seed::Cloud(cloud), Some(guests)) if cloud.entered => {
                let key = id.uuid().to_string();
                let entry = guests.prepare(&key, cloud.user.as_deref().unwrap_or(USER))?;
                if let Some(environment) = environment {
                    guests.want(&key, environment)?;
                }
                Ok(Some(entry))
            }
            _ => Ok(None),
        }
    }

    /// Forgets how a machine is entered: it is deleted, or was never finished.
    pub(crate) fn forget_inside(&self, uuid: Uuid) {
        if let Some(guests) = &self.guests
            && let Err(error) = guests.forget(&uuid.to_string())
        {
            tracing::warn!(domain = %uuid, error = %error.chain(), "how it was entered could not be forgotten");
        }
    }

    /// What the copy of a machine gets: it is entered as its original is.
    pub(crate) fn entry_of_copy(&self, original: &str, id: MachineId) -> Result<()> {
        match &self.guests {
            Some(guests) => guests.inherit(original, &id.uuid().to_string()).map(drop),
            None => Ok(()),
        }
    }

    /// Whether the SSH server of a guest answers that is reached through the hypervisor's computer; nothing for guests of this one.
    pub(crate) async fn answers_there(&self, handle: &Handle) -> Option<Result<()>> {
        self.link.endpoint.gate.as_ref()?;
        let entered = async {
            let running = self.running(handle).await?;
            match self.guests()?.connection(&running.machine(), self).await {
                // Who refuses us is there.
                Err(error) if !matches!(error.code(), Code::ConnectionAuth | Code::ConnectionUntrusted) => Err(error),
                _ => Ok(()),
            }
        };
        Some(entered.await)
    }

    /// Changes how a machine is entered.
    pub(crate) async fn tune_inside(&self, handle: &Handle, wanted: &Wanted, dry_run: bool) -> Result<Vec<Change>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        self.guests()?.check(wanted).await?;
        self.guests()?.tune(&handle.0, wanted, dry_run)
    }

    /// The machine, if it runs now.
    async fn running(&self, handle: &Handle) -> Result<Running> {
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        let seen = look::look_at(&self.link, domain.uuid).await?.map(|seen| (seen.sighting.observed, seen.run));
        let name = escape(&domain.name);
        match seen {
            Some((Observed::Paused, _)) => {
                Err(Error::new(Code::MachinePaused, format!("{name} is paused")).hint(format!("resume it: vmoon resume {name}")))
            }
            Some((Observed::On(_), Some(run))) => Ok(Running { key: domain.uuid.to_string(), name: domain.name, run }),
            Some(_) => Err(Error::new(Code::MachineStopped, format!("{name} does not run")).hint(format!("start it: vmoon start {name}"))),
            None => Err(Error::new(Code::MachineBroken, "libvirt has no such machine any more")),
        }
    }

    /// Opens a channel inside a guest.
    pub(crate) async fn open_inside(&self, handle: &Handle, channel: &Channel, from: Offset) -> Result<SessionLink> {
        let guests = self.guests()?;
        let running = match self.running(handle).await {
            // Nothing of it is left to read from here.
            Err(error) if matches!(error.code(), Code::MachineStopped | Code::MachineBroken) => {
                return Err(Error::new(Code::SessionEnded, "the machine does not run any more"));
            }
            Err(error) if error.code() == Code::MachinePaused => {
                return Err(Error::new(Code::DriverUnreachable, error.message().to_owned()));
            }
            running => running?,
        };
        guests.open(&running.machine(), channel, from, self).await
    }

    /// Runs a program in the guest as the user who logs in.
    pub(crate) async fn exec_inside(&self, handle: &Handle, program: &Program) -> Result<Ended> {
        let guests = self.guests()?;
        guests.exec(&self.running(handle).await?.machine(), program, self).await
    }

    /// Runs a program in the guest by its agent; where it has none and is entered over SSH, that way.
    pub(crate) async fn exec_somehow(&self, handle: &Handle, program: &Program) -> Result<Ended> {
        match self.exec(handle, program).await {
            // An agent that was asked and did not answer may have run it.
            Err(error)
                if error.detail_value().is_some_and(super::agent::is_absent)
                    && self.guests.as_ref().is_some_and(|guests| guests.is_known(&handle.0)) =>
            {
                tracing::debug!(error = %error.chain(), "no agent; over SSH then");
                self.exec_inside(handle, program).await
            }
            ended => ended,
        }
    }

    /// Where a guest's SSH server may be reached.
    pub(crate) async fn ssh_places(&self, handle: &Handle) -> Result<Vec<(String, u16)>> {
        let port = self.guests.as_ref().and_then(|guests| guests.port(&handle.0)).unwrap_or(22);
        let places = self.places(&handle.0).await?;
        Ok(places.into_iter().map(|place| (place.host, place.port.unwrap_or(port))).collect())
    }
}

#[async_trait]
impl Entrance for Inner {
    async fn enter(&self, handle: &Handle) -> Result<Account> {
        let guests = self.guests()?;
        guests.account(&self.running(handle).await?.machine(), self).await
    }

    fn used(&self) -> Vec<(Handle, UsedEnvironment)> {
        let used = self.guests.iter().flat_map(Guests::used);
        used.map(|(key, used)| (Handle(key), used)).collect()
    }

    async fn wanted(&self, handle: &Handle) -> Result<Option<String>> {
        Ok(self.guests()?.wanted(&handle.0))
    }

    fn keep(&self, handle: &Handle, used: &UsedEnvironment) {
        if let Some(guests) = &self.guests {
            guests.carried(&handle.0, used);
        }
    }
}

#[async_trait]
impl Places for Inner {
    async fn places(&self, key: &str) -> Result<Vec<Place>> {
        let handle = Handle(key.to_owned());
        let Some(uuid) = uuid_of(&handle) else { return Ok(Vec::new()) };
        let client = self.link.client().await?;
        let domain = self.domain(&client, &handle_of(uuid)).await?;
        let xml = client.domain_xml(&domain, Xml::NONE).await.doing("find out where the machine is")?;
        let port = self.guests.as_ref().and_then(|guests| guests.port(key)).unwrap_or(22);
        // Ports of the hypervisor's computer: this one, or the one that is gone through.
        let mut places = forwards(&Element::parse(&xml)?, port);
        let addresses = self.addresses(&handle).await?;
        places.extend(addresses.into_iter().map(|address| Place { host: address.ip, port: None }));
        Ok(places)
    }

    fn gate(&self) -> Option<Gate> {
        self.link.endpoint.gate.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_lead_to_the_port_of_ssh() {
        let xml = "<domain><devices><interface type='user'><backend type='passt'/>\
            <portForward proto='tcp' address='127.0.0.2'><range start='2222' to='22'/></portForward>\
            <portForward proto='tcp'><range start='22'/><range start='8080' to='80'/><range start='2000' end='2009' to='20'/></portForward>\
            <portForward proto='udp'><range start='22'/></portForward></interface></devices></domain>";
        let places = forwards(&Element::parse(xml).unwrap(), 22);
        let shown: Vec<(String, Option<u16>)> = places.into_iter().map(|place| (place.host, place.port)).collect();
        assert_eq!(shown[0], ("127.0.0.2".to_owned(), Some(2222)));
        assert_eq!(shown[1], ("127.0.0.1".to_owned(), Some(22)));
        assert_eq!(shown[2], ("127.0.0.1".to_owned(), Some(2002)));
        assert_eq!(shown.len(), 3, "a port that leads elsewhere is no place: {shown:?}");
    }
}
