//! Notices of what happened to machines: libvirt's events, and after each loss of the connection that everything may have changed.

use super::{link::Shared, look::handle_of};
use async_trait::async_trait;
use std::time::Duration;
use tokio::time::Instant;
use vmoon_core::ability::{Changed, Notices};
use vmoon_libvirt_wire::{DomainEvent, Event, Events, Life, Topic};
use vmoon_sys::clock;

/// What is listened to: everything after which a machine may look different.
const TOPICS: &[Topic] = &[
    Topic::LIFE,
    Topic::REBOOT,
    Topic::CONTROL_ERROR,
    Topic::IO_ERROR,
    Topic::AGENT,
    Topic::METADATA,
    Topic::AWAKE,
    Topic::ASLEEP,
    Topic::ASLEEP_ON_DISK,
    Topic::DEVICE_ADDED,
    Topic::DEVICE_REMOVED,
    Topic::BLOCK_JOB,
];

/// After how long a libvirt that did not let us listen is asked again.
const AGAIN: Duration = Duration::from_secs(5);

/// `VIR_DOMAIN_EVENT_DEFINED_RENAMED`.
const DEFINED_RENAMED: i32 = 2;

pub(crate) struct Watch {
    link: Shared,
    events: Option<Events>,
    /// That everything may have changed is yet to be told.
    all: bool,
}

impl Watch {
    pub(crate) fn new(link: Shared) -> Self {
        Self { link, events: None, all: false }
    }
}

#[async_trait]
impl Notices for Watch {
    async fn next(&mut self) -> Option<Changed> {
        loop {
            if std::mem::take(&mut self.all) {
                return Some(Changed::All);
            }
            let Some(events) = &mut self.events else {
                let client = self.link.patiently().await;
                match client.watch(TOPICS).await {
                    Ok(events) => {
                        // A daemon that passes on to another one says when it loses that; not all have that to say.
                        if let Err(error) = client.watch_hypervisor().await {
                            tracing::debug!(%error, "the loss of the hypervisor will not be told");
                        }
                        // From here on nothing is missed; what was before has to be looked at.
                        (self.events, self.all) = (Some(events), true);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "libvirt's events cannot be listened to");
                        // One that refuses at once is not asked without a pause; what it would have said meanwhile is looked for then.
                        tokio::time::sleep_until(Instant::from_std(clock::instant()) + AGAIN).await;
                    }
                }
                continue;
            };
            match events.next().await {
                // A name is only told by a list.
                Event::Domain { what: DomainEvent::Life(Life::Defined, DEFINED_RENAMED), .. } => return Some(Changed::All),
                Event::Domain { domain, .. } => return Some(Changed::Machine(handle_of(domain.uuid))),
                Event::Everything => return Some(Changed::All),
                Event::HypervisorLost { .. } | Event::Closed(_) => {
                    self.events = None;
                    return Some(Changed::All);
                }
                _ => {}
            }
        }
    }
}
