//! Layers of a disk: writing one into the one below while the machine runs, with progress by events and no polling where libvirt tells.

use super::{Inner, errors::Doing as _, storage::Storage};
use std::time::Duration;
use tokio::time::Instant;
use vmoon_core::{Code, Error, Result};
use vmoon_libvirt_wire::{
    Client, Domain, DomainEvent, Event, Topic,
    flags::{BlockAbort, BlockCommit, Xml},
};
use vmoon_sys::clock;
use vmoon_xml::Element;

/// How long one disk may take.
const LIMIT: Duration = Duration::from_secs(3600);
/// How often a job is looked at besides, in case that its event was lost.
const LOOK: Duration = Duration::from_secs(2);
/// `virConnectDomainEventBlockJobStatus`.
const FAILED: i32 = 1;

impl Inner {
    /// Writes the overlays that a snapshot began into what it froze, and deletes them.
    pub(crate) async fn merge(&self, client: &Client, domain: &Domain, snapshot: &Element) -> Result<()> {
        if domain.id < 0 {
            return Err(
                Error::new(Code::MachineStopped, "this libvirt merges overlays of machines that run only").hint("start the machine first")
            );
        }
        let what = "merge the snapshot's overlay";
        let live = Element::parse(&client.domain_xml(domain, Xml::NONE).await.doing(what)?)?;
        let storage = Storage { client, local: self.link.endpoint.is_local() };
        let disks = snapshot.first("disks").into_iter().flat_map(|disks| disks.named("disk"));
        for disk in disks.filter(|disk| disk.attribute("snapshot") == Some("external")) {
            let (Some(target), Some(file)) = (disk.attribute("name"), disk.first("source").and_then(|source| source.attribute("file")))
            else {
                continue;
            };
            let active = live.first("devices").into_iter().flat_map(|devices| devices.named("disk")).find_map(|found| {
                (found.first("target")?.attribute("dev")? == target).then(|| found.first("source")?.attribute("file").map(str::to_owned))?
            });
            if active.as_deref() != Some(file) {
                return Err(Error::new(Code::DriverUnsupported, "other snapshots are between this one and what the machine writes to")
                    .hint("delete the newest snapshot first"));
            }
            self.commit(client, domain, target).await?;
            storage.delete(file).await?;
        }
        Ok(())
    }

    /// Writes the layer a disk is written to into the one below, and goes over to that.
    async fn commit(&self, client: &Client, domain: &Domain, target: &str) -> Result<()> {
        let what = "merge the snapshot's overlay";
        let mut events = client.watch(&[Topic::BLOCK_JOB]).await.doing(what)?;
        client.block_commit(domain, target, None, None, BlockCommit::SHALLOW | BlockCommit::ACTIVE).await.doing(what)?;
        let until = Instant::from_std(clock::instant()) + LIMIT;
        loop {
            let Some(job) = client.block_job(domain, target).await.doing(what)? else {
                return Err(Error::new(Code::DriverFailed, "the merge ended before it was done"));
            };
            if job.total > 0 && job.done >= job.total {
                match client.block_job_abort(domain, target, BlockAbort::PIVOT).await {
                    // It is done with what there was and not yet with what was written meanwhile.
                    Err(error) if error.refusal().is_some() && Instant::from_std(clock::instant()) < until => {
                        tracing::debug!(%error, "not ready to go over");
                    }
                    done => return done.doing(what),
                }
            }
            let next = Instant::from_std(clock::instant()) + LOOK;
            if next > until {
                let _given_up = client.block_job_abort(domain, target, BlockAbort::NONE).await;
                return Err(Error::new(Code::OperationDeadline, "merging took longer than an hour and was given up; nothing was lost"));
            }
            let heard = async {
                loop {
                    match events.next().await {
                        Event::Domain { domain: of, what: DomainEvent::BlockJob { status, .. } } if of.uuid == domain.uuid => {
                            return status;
                        }
                        Event::Closed(_) => return FAILED,
                        _ => {}
                    }
                }
            };
            if let Ok(FAILED) = tokio::time::timeout_at(next, heard).await {
                return Err(Error::new(Code::DriverFailed, "the merge failed; the overlay is kept"));
            }
        }
    }
}
