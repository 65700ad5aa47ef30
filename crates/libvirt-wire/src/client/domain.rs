//! Domains: finding them, describing them, and the steps of their lives.

use super::Client;
use crate::{
    error::{ErrorCode, Result},
    flags::{Affect, Define, Destroy, Domains, Save, Shutdown, Start, Stats, StatsHow, Undefine, Xml},
    procedure::Procedure as P,
    types::{Domain, DomainInfo, DomainState, DomainStats, JobStats},
};
use uuid::Uuid;

impl Client {
    /// Every domain, or those of the kinds that are named.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn domains(&self, which: Domains) -> Result<Vec<Domain>> {
        let (domains, _count): (_, u32) = self.quick(P::ConnectListAllDomains, (true, which)).await?;
        Ok(domains)
    }

    /// What there is to know of many domains in one call; of all if none are named. What costs time per domain is only asked where `what` says so.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn stats(&self, of: &[Domain], what: Stats, how: StatsHow) -> Result<Vec<DomainStats>> {
        self.quick(P::ConnectGetAllDomainStats, (of, what, how)).await
    }

    /// The domain with this UUID.
    ///
    /// # Errors
    /// One for which [`crate::Error::is_not_found`] holds if there is none.
    pub async fn domain(&self, uuid: Uuid) -> Result<Domain> {
        self.quick(P::DomainLookupByUuid, uuid).await
    }

    /// The domain of this name.
    ///
    /// # Errors
    /// One for which [`crate::Error::is_not_found`] holds if there is none.
    pub async fn domain_named(&self, name: &str) -> Result<Domain> {
        self.quick(P::DomainLookupByName, name).await
    }

    /// Stores a definition: a new domain, or another definition of the one with the same UUID and name.
    ///
    /// # Errors
    /// What libvirt finds wrong with it.
    pub async fn define(&self, xml: &str, how: Define) -> Result<Domain> {
        self.quick(P::DomainDefineXmlFlags, (xml, how)).await
    }

    /// Forgets a definition, and what the flags name.
    ///
    /// # Errors
    /// [`ErrorCode::OPERATION_INVALID`] if there is a saved state, a snapshot or firmware variables that the flags do not name.
    pub async fn undefine(&self, domain: &Domain, what: Undefine) -> Result<()> {
        self.slow(P::DomainUndefineFlags, (domain, what)).await
    }

    /// Starts it; with a saved state, goes on from there. Returns when it runs.
    ///
    /// # Errors
    /// Those of a call: what QEMU says.
    pub async fn start(&self, domain: &Domain, how: Start) -> Result<Domain> {
        self.slow(P::DomainCreateWithFlags, (domain, how)).await
    }

    /// Asks it to shut down. Returns when it was asked, not when it is off.
    ///
    /// # Errors
    /// Those of a call. When the agent was asked, [`ErrorCode::AGENT_UNRESPONSIVE`] may also mean that it obeyed and is gone.
    pub async fn shutdown(&self, domain: &Domain, how: Shutdown) -> Result<()> {
        self.slow(P::DomainShutdownFlags, (domain, how)).await
    }

    /// Asks it to restart.
    ///
    /// # Errors
    /// As for [`Client::shutdown`].
    pub async fn reboot(&self, domain: &Domain, how: Shutdown) -> Result<()> {
        self.slow(P::DomainReboot, (domain, how)).await
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn reset(&self, domain: &Domain) -> Result<()> {
        self.slow(P::DomainReset, (domain, 0_u32)).await
    }

    /// Pulls the plug.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn destroy(&self, domain: &Domain, how: Destroy) -> Result<()> {
        self.slow(P::DomainDestroyFlags, (domain, how)).await
    }

    /// Pauses it.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn pause(&self, domain: &Domain) -> Result<()> {
        self.slow(P::DomainSuspend, domain).await
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn resume(&self, domain: &Domain) -> Result<()> {
        self.slow(P::DomainResume, domain).await
    }

    /// Saves the running state and ends it; the next start goes on from there.
    ///
    /// # Errors
    /// Those of a call; QEMU names the device that cannot be saved.
    pub async fn managed_save(&self, domain: &Domain, how: Save) -> Result<()> {
        self.slow(P::DomainManagedSave, (domain, how)).await
    }

    /// Goes on from a saved state that is a file of the host, as this definition: that of the file if `None`.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn restore(&self, path: &str, xml: Option<&str>, how: Save) -> Result<()> {
        self.slow(P::DomainRestoreFlags, (path, xml, how)).await
    }

    /// The definition in a saved state that is a file of the host, XML.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn saved_xml(&self, path: &str, what: Xml) -> Result<String> {
        self.slow(P::DomainSaveImageGetXmlDesc, (path, what)).await
    }

    /// Whether there is a saved state.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn has_managed_save(&self, domain: &Domain) -> Result<bool> {
        self.quick(P::DomainHasManagedSaveImage, (domain, 0_u32)).await
    }

    /// Throws the saved state away.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn remove_managed_save(&self, domain: &Domain) -> Result<()> {
        self.slow(P::DomainManagedSaveRemove, (domain, 0_u32)).await
    }

    /// Whether it starts with the host.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn autostart(&self, domain: &Domain) -> Result<bool> {
        self.quick(P::DomainGetAutostart, domain).await
    }

    /// Says whether it starts with the host.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn set_autostart(&self, domain: &Domain, on: bool) -> Result<()> {
        self.slow(P::DomainSetAutostart, (domain, on)).await
    }

    /// Gives it another name. It must be off.
    ///
    /// # Errors
    /// [`ErrorCode::OPERATION_INVALID`] if the name is taken or it runs.
    pub async fn rename(&self, domain: &Domain, name: &str) -> Result<()> {
        let _zero: i32 = self.slow(P::DomainRename, (domain, Some(name), 0_u32)).await?;
        Ok(())
    }

    /// Its definition.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn domain_xml(&self, domain: &Domain, what: Xml) -> Result<String> {
        self.quick(P::DomainGetXmlDesc, (domain, what)).await
    }

    /// Its state and libvirt's reason for it.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn state(&self, domain: &Domain) -> Result<(DomainState, i32)> {
        let (state, reason): (i32, i32) = self.quick(P::DomainGetState, (domain, 0_u32)).await?;
        Ok((DomainState::from_number(state), reason))
    }

    /// State, memory and processors. Waits for a domain that is busy.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn info(&self, domain: &Domain) -> Result<DomainInfo> {
        self.slow(P::DomainGetInfo, domain).await
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn is_active(&self, domain: &Domain) -> Result<bool> {
        self.quick(P::DomainIsActive, domain).await
    }

    /// Whether its definition is stored.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn is_persistent(&self, domain: &Domain) -> Result<bool> {
        self.quick(P::DomainIsPersistent, domain).await
    }

    /// Whether the stored definition differs from what runs.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn is_updated(&self, domain: &Domain) -> Result<bool> {
        self.quick(P::DomainIsUpdated, domain).await
    }

    /// Sets its memory, KiB; with [`Affect::MAXIMUM`] the most that it may have.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn set_memory(&self, domain: &Domain, kib: u64, of: Affect) -> Result<()> {
        self.slow(P::DomainSetMemoryFlags, (domain, kib, of)).await
    }

    /// Sets the number of its processors; with [`Affect::MAXIMUM`] the most that it may have.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn set_vcpus(&self, domain: &Domain, count: u32, of: Affect) -> Result<()> {
        self.slow(P::DomainSetVcpusFlags, (domain, count, of)).await
    }

    /// The number of its processors.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn vcpus(&self, domain: &Domain, of: Affect) -> Result<u32> {
        let count: i32 = self.slow(P::DomainGetVcpusFlags, (domain, of)).await?;
        Ok(count.max(0).cast_unsigned())
    }

    /// Puts an element of our own into its metadata under this namespace and prefix, or takes it out (`None`). libvirt itself puts the namespace on the
    /// element, which must not name it.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn set_metadata(&self, domain: &Domain, xml: Option<&str>, prefix: &str, namespace: &str, of: Affect) -> Result<()> {
        const ELEMENT: i32 = 2;
        self.slow(P::DomainSetMetadata, (domain, ELEMENT, xml, Some(prefix), Some(namespace), of)).await
    }

    /// The element of this namespace in its metadata, if there is one.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn metadata(&self, domain: &Domain, namespace: &str, of: Affect) -> Result<Option<String>> {
        const ELEMENT: i32 = 2;
        match self.quick(P::DomainGetMetadata, (domain, ELEMENT, Some(namespace), of)).await {
            Ok(xml) => Ok(Some(xml)),
            Err(error) if error.code() == Some(ErrorCode::NO_DOMAIN_METADATA) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The job that works on it: saving, a snapshot, migration. With `completed`, the last one that ended.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn job(&self, domain: &Domain, completed: bool) -> Result<JobStats> {
        self.slow(P::DomainGetJobStats, (domain, u32::from(completed))).await
    }

    /// Aborts that job.
    ///
    /// # Errors
    /// [`ErrorCode::OPERATION_INVALID`] if there is none.
    pub async fn abort_job(&self, domain: &Domain) -> Result<()> {
        // On the first connection: the others may be full of calls that wait for jobs.
        self.quick(P::DomainAbortJob, domain).await
    }

    /// What is wrong with it without keeping it from running: what is deprecated (1), what spoils it (2), both with 0.
    ///
    /// # Errors
    /// Those of a call; daemons before 7.1 have no such thing.
    pub async fn messages(&self, domain: &Domain, which: u32) -> Result<Vec<String>> {
        self.quick(P::DomainGetMessages, (domain, which)).await
    }
}
