//! Devices and disks of domains.

use super::Client;
use crate::{
    error::Result,
    flags::{Affect, BlockAbort, BlockCommit, BlockResize},
    procedure::Procedure as P,
    types::{BlockInfo, BlockJob, Domain},
};

impl Client {
    /// Adds the device that this element describes.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn attach(&self, domain: &Domain, xml: &str, of: Affect) -> Result<()> {
        self.slow(P::DomainAttachDeviceFlags, (domain, xml, of)).await
    }

    /// Takes away the device that this element describes. Of one that runs, the guest has to let it go: [`crate::DomainEvent::DeviceRemoved`] says that it did.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn detach(&self, domain: &Domain, xml: &str, of: Affect) -> Result<()> {
        self.slow(P::DomainDetachDeviceFlags, (domain, xml, of)).await
    }

    /// The same, by the device's alias.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn detach_alias(&self, domain: &Domain, alias: &str, of: Affect) -> Result<()> {
        self.slow(P::DomainDetachDeviceAlias, (domain, alias, of)).await
    }

    /// Changes the device that this element describes: media of a drive, the link of a network interface.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn update_device(&self, domain: &Domain, xml: &str, of: Affect) -> Result<()> {
        self.slow(P::DomainUpdateDeviceFlags, (domain, xml, of)).await
    }

    /// Makes the disk of a running domain larger: to this many bytes.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn block_resize(&self, domain: &Domain, disk: &str, bytes: u64) -> Result<()> {
        self.slow(P::DomainBlockResize, (domain, disk, bytes, BlockResize::BYTES)).await
    }

    /// The size of a disk, by its target or path.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn block_info(&self, domain: &Domain, disk: &str) -> Result<BlockInfo> {
        self.slow(P::DomainGetBlockInfo, (domain, disk, 0_u32)).await
    }

    /// Begins to write layers of a disk into the one below: from `top` (the active one if `None`) down to `base` (the lowest if `None`).
    ///
    /// # Errors
    /// Those of a call.
    pub async fn block_commit(&self, domain: &Domain, disk: &str, base: Option<&str>, top: Option<&str>, how: BlockCommit) -> Result<()> {
        const UNLIMITED: u64 = 0;
        self.slow(P::DomainBlockCommit, (domain, disk, base, top, UNLIMITED, how)).await
    }

    /// Begins to copy what is below into a disk, so that it stands alone.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn block_pull(&self, domain: &Domain, disk: &str) -> Result<()> {
        const UNLIMITED: u64 = 0;
        self.slow(P::DomainBlockPull, (domain, disk, UNLIMITED, 0_u32)).await
    }

    /// The job that works on a disk, if there is one.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn block_job(&self, domain: &Domain, disk: &str) -> Result<Option<BlockJob>> {
        let (found, job): (bool, BlockJob) = self.slow(P::DomainGetBlockJobInfo, (domain, disk, 0_u32)).await?;
        Ok(found.then_some(job))
    }

    /// Ends the job that works on a disk; with [`BlockAbort::PIVOT`] by going over to its result.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn block_job_abort(&self, domain: &Domain, disk: &str, how: BlockAbort) -> Result<()> {
        self.slow(P::DomainBlockJobAbort, (domain, disk, how)).await
    }
}
