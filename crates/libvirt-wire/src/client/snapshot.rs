//! Snapshots of domains.

use super::Client;
use crate::{
    error::{ErrorCode, Result},
    flags::{Revert, SnapshotCreate, SnapshotDelete, Snapshots, Xml},
    procedure::Procedure as P,
    types::{Domain, Snapshot},
};

impl Client {
    /// Makes a snapshot as this element says.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn snapshot_create(&self, domain: &Domain, xml: &str, how: SnapshotCreate) -> Result<Snapshot> {
        self.slow(P::DomainSnapshotCreateXml, (domain, xml, how)).await
    }

    /// Snapshots of a domain.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn snapshots(&self, domain: &Domain, which: Snapshots) -> Result<Vec<Snapshot>> {
        let (snapshots, _count): (_, i32) = self.quick(P::DomainListAllSnapshots, (domain, true, which)).await?;
        Ok(snapshots)
    }

    /// The snapshot of this name.
    ///
    /// # Errors
    /// One for which [`crate::Error::is_not_found`] holds if there is none.
    pub async fn snapshot_named(&self, domain: &Domain, name: &str) -> Result<Snapshot> {
        self.quick(P::DomainSnapshotLookupByName, (domain, name, 0_u32)).await
    }

    /// The snapshot that the domain goes on from, if there is one.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn snapshot_current(&self, domain: &Domain) -> Result<Option<Snapshot>> {
        if !self.quick::<bool>(P::DomainHasCurrentSnapshot, (domain, 0_u32)).await? {
            return Ok(None);
        }
        none_if_missing(self.quick(P::DomainSnapshotCurrent, (domain, 0_u32)).await)
    }

    /// Returns to a snapshot.
    ///
    /// # Errors
    /// [`ErrorCode::SNAPSHOT_REVERT_RISKY`] if it needs [`Revert::FORCE`].
    pub async fn revert(&self, snapshot: &Snapshot, how: Revert) -> Result<()> {
        self.slow(P::DomainRevertToSnapshot, (snapshot, how)).await
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn snapshot_delete(&self, snapshot: &Snapshot, what: SnapshotDelete) -> Result<()> {
        self.slow(P::DomainSnapshotDelete, (snapshot, what)).await
    }

    /// What is known of a snapshot, XML.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn snapshot_xml(&self, snapshot: &Snapshot, what: Xml) -> Result<String> {
        self.quick(P::DomainSnapshotGetXmlDesc, (snapshot, what)).await
    }

    /// The snapshot it was made from, if any is known.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn snapshot_parent(&self, snapshot: &Snapshot) -> Result<Option<Snapshot>> {
        none_if_missing(self.quick(P::DomainSnapshotGetParent, (snapshot, 0_u32)).await)
    }

    /// How many snapshots were made from it.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn snapshot_children(&self, snapshot: &Snapshot) -> Result<u32> {
        let count: i32 = self.quick(P::DomainSnapshotNumChildren, (snapshot, 0_u32)).await?;
        Ok(count.max(0).cast_unsigned())
    }
}

fn none_if_missing(found: Result<Snapshot>) -> Result<Option<Snapshot>> {
    match found {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(error) if error.code() == Some(ErrorCode::NO_DOMAIN_SNAPSHOT) => Ok(None),
        Err(error) => Err(error),
    }
}
