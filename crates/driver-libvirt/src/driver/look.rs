//! Looking at machines: one, all of them, what they use. A constant number of calls, however many there are, and one for each whose tag is not known. A tag is kept
//! until an event says that it may have changed; that of a machine that the caller knows to be ours and whole is not read at all, if it is off or the caller has its console.

use super::{Inner, errors::Doing as _, link::Link};
use crate::render::{NAMESPACE, Tag};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::{sync::Mutex, task::JoinSet};
use uuid::Uuid;
use vmoon_core::{
    MachineId, Result,
    driver::{Channel, ChannelKind, Exit, Found, Handle, Observed, Sighting, Usage},
};
use vmoon_libvirt_wire::{
    Client, Domain, DomainEvent, DomainState, DomainStats, ErrorCode, Event, Events, Topic,
    flags::{Affect, Domains, Stats, StatsHow},
    shutoff,
};
use vmoon_xml::Element;

/// The channel that every running machine offers.
pub(crate) const SERIAL: &str = "serial";
/// How long a look may take, all of it.
const LIMIT: Duration = Duration::from_secs(8);

/// The handle of a domain is its UUID.
pub(crate) fn uuid_of(handle: &Handle) -> Option<Uuid> {
    // One spelling only: a machine has one handle.
    Uuid::try_parse(&handle.0).ok().filter(|uuid| uuid.as_hyphenated().to_string() == handle.0)
}

pub(crate) fn handle_of(uuid: Uuid) -> Handle {
    Handle(uuid.to_string())
}

/// Whether a domain may be one of ours: ids of machines are UUIDs of version 7, which nobody else gives to domains. Only the tag says that it is.
fn may_be_ours(uuid: Uuid) -> bool {
    uuid.get_version_num() == 7
}

/// Reads the tag of a domain that may be ours; of one that is known to run, that of what runs.
///
/// # Errors
/// [`ErrorCode::OPERATION_INVALID`] if it does not run any more.
pub(crate) async fn tag(client: &Client, domain: &Domain) -> vmoon_libvirt_wire::Result<Option<Tag>> {
    if !may_be_ours(domain.uuid) {
        return Ok(None);
    }
    let of = if domain.id >= 0 { Affect::LIVE } else { Affect::NONE };
    let text = client.metadata(domain, NAMESPACE, of).await?;
    // Somebody who edits our element by hand makes the machine a foreign one.
    Ok(text.and_then(|text| Tag::read(&Element::parse(&text).ok()?)).filter(|tag| tag.id.uuid() == domain.uuid))
}

/// Tags that were read, as long as they are known to be true.
#[derive(Default)]
pub(crate) struct Tags(Mutex<Known>);

#[derive(Default)]
struct Known {
    events: Option<Events>,
    /// For each domain the number of its life at libvirt (-1 when off) and its tag.
    tags: HashMap<Uuid, (i32, Option<Tag>)>,
}

impl Known {
    /// Forgets what events say has changed.
    async fn refresh(&mut self, client: &Client) {
        while let Some(events) = &mut self.events {
            let event = tokio::select! {
                biased;
                event = events.next() => event,
                () = std::future::ready(()) => return,
            };
            match event {
                Event::Domain { domain, what: DomainEvent::Life(..) | DomainEvent::Metadata { .. } } => {
                    self.tags.remove(&domain.uuid);
                }
                Event::Everything => self.tags.clear(),
                Event::Closed(_) => self.events = None,
                _ => {}
            }
        }
        // Listening begins before anything is read; without events nothing is kept.
        self.tags.clear();
        self.events = client.watch(&[Topic::LIFE, Topic::METADATA]).await.ok().filter(|events| events.unsupported().is_empty());
    }
}

impl Tags {
    /// The tags of these domains, but for those that the caller knows and that are off: their tags would say nothing new. Of those that run and whose console the
    /// caller has open, the number of its life is taken from the caller: who opens a console, or reads on, is told when that life is over.
    async fn of(&self, client: &Client, domains: &[Domain], knows: &HashMap<Handle, Vec<Channel>>) -> Result<HashMap<Uuid, Tag>> {
        let mut known = self.0.lock().await;
        known.refresh(client).await;
        let (mut reading, mut taken) = (JoinSet::new(), Vec::new());
        for domain in domains.iter().filter(|domain| may_be_ours(domain.uuid)) {
            let told = knows.get(&handle_of(domain.uuid));
            if domain.id < 0 && told.is_some() {
                continue;
            }
            let life = told.and_then(|open| open.iter().find(|channel| channel.name == SERIAL)).map(|channel| channel.life);
            if let Some(life) = life
                && known.tags.get(&domain.uuid).is_none_or(|(id, _)| *id != domain.id)
            {
                taken.push((
                    domain.uuid,
                    Tag { id: MachineId::from_uuid(domain.uuid), complete: true, template: String::new(), life: Some(life) },
                ));
                continue;
            }
            if known.tags.get(&domain.uuid).is_none_or(|(id, _)| *id != domain.id) {
                let (client, domain) = (client.clone(), domain.clone());
                reading.spawn(async move {
                    let read = tag(&client, &domain).await;
                    (domain, read)
                });
            }
        }
        while let Some(done) = reading.join_next().await {
            let Ok((domain, read)) = done else { continue };
            match read {
                Ok(tag) => {
                    known.tags.insert(domain.uuid, (domain.id, tag));
                }
                // It vanished or ended meanwhile.
                Err(error) if error.is_not_found() || error.code() == Some(ErrorCode::OPERATION_INVALID) => {
                    known.tags.remove(&domain.uuid);
                }
                Err(error) => return Err(error).doing("read the tags of machines"),
            }
        }
        if known.events.is_none() {
            let read = std::mem::take(&mut known.tags);
            return Ok(read.into_iter().filter_map(|(uuid, (_, tag))| Some((uuid, tag?))).chain(taken).collect());
        }
        let there: HashSet<Uuid> = domains.iter().map(|domain| domain.uuid).collect();
        known.tags.retain(|uuid, _| there.contains(uuid));
        // What was taken from the caller is not kept: it was not read.
        Ok(known.tags.iter().filter_map(|(uuid, (_, tag))| Some((*uuid, tag.clone()?))).chain(taken).collect())
    }
}

/// What a domain's state means.
fn observed(stats: &DomainStats, saved: bool, tag: Option<&Tag>) -> Observed {
    match stats.state() {
        Some(DomainState::Running | DomainState::Blocked | DomainState::Shutdown) => {
            let life = tag.and_then(|tag| tag.life).unwrap_or(u64::try_from(stats.domain.id).unwrap_or(0));
            Observed::On(vec![Channel { name: SERIAL.into(), kind: ChannelKind::Terminal, life }])
        }
        // A guest that put itself to sleep is woken by resuming it.
        Some(DomainState::Paused | DomainState::PmSuspended) => Observed::Paused,
        _ if saved => Observed::Suspended,
        Some(DomainState::Crashed) => Observed::Off(Some(Exit::Lost)),
        _ => Observed::Off(exit(stats.reason())),
    }
}

/// How the last run ended, as far as libvirt remembers: it does so until it is itself restarted.
fn exit(reason: Option<i32>) -> Option<Exit> {
    match reason? {
        shutoff::SHUTDOWN => Some(Exit::Code { code: 0 }),
        shutoff::DESTROYED => Some(Exit::Killed),
        shutoff::CRASHED | shutoff::FAILED | shutoff::DAEMON => Some(Exit::Lost),
        _ => None,
    }
}

/// libvirt's number of the domain's run. It is there from the first moment on, is kept through libvirt's restarts, and begins anew when the host
/// does: then the guest's boot tells the runs apart.
fn run(stats: &DomainStats) -> Option<u64> {
    u64::try_from(stats.domain.id).ok()
}

fn sighting(stats: &DomainStats, saved: bool, tag: Option<&Tag>) -> Sighting {
    Sighting { observed: observed(stats, saved, tag), complete: tag.is_none_or(|tag| tag.complete) }
}

fn blind(observed: Observed) -> Sighting {
    Sighting { observed, complete: true }
}

/// What was seen of one domain.
pub(crate) struct Seen {
    pub(crate) sighting: Sighting,
    /// libvirt's number of its run; none while it is off.
    pub(crate) run: Option<u64>,
    /// Whose tag it bears.
    id: Option<MachineId>,
}

/// Looks at a domain; `None` if there is none.
///
/// # Errors
/// Why it cannot be looked at.
pub(crate) async fn look_at(link: &Link, uuid: Uuid) -> Result<Option<Seen>> {
    let what = "look at the machine";
    let look = |client: Client| async move {
        let domain = Domain::of(uuid);
        let none_if_gone = |error: vmoon_libvirt_wire::Error| if error.is_not_found() { Ok(None) } else { Err(error) };
        // The calls are one after the other: what ends between them is looked at again, and it does not end twice.
        for last in [false, false, true] {
            let found = match client.stats(std::slice::from_ref(&domain), Stats::STATE, StatsHow::NOWAIT).await {
                Ok(found) => found,
                Err(error) => return none_if_gone(error),
            };
            let Some(stats) = found.into_iter().find(|stats| stats.domain.uuid == uuid) else { return Ok(None) };
            let saved = match stats.domain.id < 0 {
                true => client.has_managed_save(&domain).await,
                false => Ok(false),
            };
            match (saved, tag(&client, &stats.domain).await) {
                (Ok(saved), Ok(tag)) => {
                    let sighting = sighting(&stats, saved, tag.as_ref());
                    return Ok(Some(Seen { sighting, run: run(&stats), id: tag.map(|tag| tag.id) }));
                }
                (_, Err(error)) if error.code() == Some(ErrorCode::OPERATION_INVALID) && !last => {}
                (Err(error), _) | (_, Err(error)) => return none_if_gone(error),
            }
        }
        Ok(None)
    };
    link.with(what, look).await
}

impl Inner {
    /// Looks at one machine.
    pub(crate) async fn look(&self, handle: &Handle) -> Sighting {
        let Some(uuid) = uuid_of(handle) else { return Sighting { observed: Observed::Missing, complete: false } };
        match tokio::time::timeout(LIMIT, look_at(&self.link, uuid)).await {
            Ok(Ok(Some(seen))) => self.with_inside(uuid, seen.run, seen.sighting),
            Ok(Ok(None)) => Sighting { observed: Observed::Missing, complete: false },
            Ok(Err(error)) => {
                tracing::debug!(domain = %uuid, error = %error.chain(), "cannot be looked at");
                blind(Observed::Unreachable)
            }
            Err(_) => blind(Observed::Unreachable),
        }
    }

    /// Every domain of the connection, for somebody who knows some of them.
    pub(crate) async fn look_at_all(&self, known: &HashMap<Handle, Vec<Channel>>) -> Result<Vec<Found>> {
        let what = "list the machines";
        let look = |client: Client| async move {
            tokio::try_join!(client.domains(Domains::MANAGED_SAVE), client.stats(&[], Stats::STATE, StatsHow::NOWAIT))
        };
        let (saved, all) = self.link.with(what, look).await?;
        let saved: HashSet<Uuid> = saved.into_iter().map(|domain| domain.uuid).collect();
        let domains: Vec<Domain> = all.iter().map(|stats| stats.domain.clone()).collect();
        let tags = self.tags.of(&self.link.client().await?, &domains, known).await?;
        let mut found = Vec::with_capacity(all.len());
        for stats in all {
            let uuid = stats.domain.uuid;
            let tag = tags.get(&uuid);
            let sighting = sighting(&stats, saved.contains(&uuid), tag);
            let mut seen = Seen { sighting, run: run(&stats), id: tag.map(|tag| tag.id) };
            // One of ours whose tag was gone when it was to be read has just ended.
            if stats.domain.id >= 0 && may_be_ours(uuid) && tag.is_none() {
                match look_at(&self.link, uuid).await? {
                    Some(again) => seen = again,
                    None => continue,
                }
            }
            let sighting = self.with_inside(uuid, seen.run, seen.sighting);
            found.push(Found { handle: handle_of(uuid), id: seen.id, name: stats.domain.name, sighting });
        }
        Ok(found)
    }

    /// What machines use: one call for all.
    pub(crate) async fn used(&self, handles: &[Handle]) -> Result<Vec<Usage>> {
        let domains: Vec<Domain> = handles.iter().filter_map(uuid_of).map(Domain::of).collect();
        if domains.is_empty() {
            return Ok(Vec::new());
        }
        let what = Stats::STATE | Stats::CPU_TOTAL | Stats::BALLOON;
        let domains = &domains;
        let look = |client: Client| async move { client.stats(domains, what, StatsHow::NOWAIT).await };
        let used = self.link.with("ask what machines use", look).await?.into_iter().filter_map(|stats| {
            let memory = stats.params.number("balloon.rss").or_else(|| stats.params.number("balloon.current"))?;
            Some(Usage {
                handle: handle_of(stats.domain.uuid),
                pid: None,
                cpu_us: stats.params.number("cpu.time")? / 1000,
                memory_bytes: memory.saturating_mul(1024),
            })
        });
        Ok(used.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_spelling_is_a_handle() {
        let uuid = Uuid::from_u128(0x0198_9bc2_7cc0_7000_8000_0123_4567_89ab);
        assert_eq!(uuid_of(&handle_of(uuid)), Some(uuid));
        for bad in ["", "{}", "../\0x", &uuid.to_string().to_uppercase(), &uuid.simple().to_string(), &format!("urn:uuid:{uuid}")] {
            assert_eq!(uuid_of(&Handle((*bad).to_owned())), None, "{bad}");
        }
        assert!(may_be_ours(uuid) && !may_be_ours(Uuid::from_u128(0x0198_9bc2_7cc0_4000_8000_0123_4567_89ab)));
    }

    #[test]
    fn the_end_of_a_run_is_told_as_far_as_it_is_known() {
        assert_eq!((exit(Some(1)), exit(Some(2)), exit(Some(3))), (Some(Exit::Code { code: 0 }), Some(Exit::Killed), Some(Exit::Lost)));
        assert_eq!((exit(Some(0)), exit(Some(5)), exit(None)), (None, None, None));
    }
}
