//! What a machine offers that is entered over SSH: its files, and environments of packages. The one place for all drivers of such machines: a driver says how its
//! machines are entered ([`Entrance`]), and what comes of that is the same for a host and for a VM's guest.

use crate::{HostFiles, environment::Carrier};
use async_trait::async_trait;
use std::{any::Any, sync::Arc};
use vmoon_core::{
    Code, Error, Result,
    ability::{Environments, FileFacts, FileSink, FileSource, Follow, RemoteFiles, Switched, UsedEnvironment, WantedEnvironment},
    driver::Handle,
};

/// An account of a machine that was entered. The machine stays entered as long as this lives.
pub struct Account {
    /// Its files.
    pub files: HostFiles,
    /// Carries environments to its sessions; none where there are no environments.
    pub carrier: Option<Carrier>,
    /// What keeps the connection in use.
    pub hold: Arc<dyn Any + Send + Sync>,
}

impl Account {
    fn carrier(&self) -> Result<&Carrier> {
        self.carrier.as_ref().ok_or_else(no_environments)
    }
}

/// Said where a connection was set up without environments.
#[must_use]
pub fn no_environments() -> Error {
    Error::new(Code::DriverUnsupported, "there are no environments of packages here")
}

/// How the machines of one connection are entered. A driver implements it.
#[async_trait]
pub trait Entrance: Send + Sync {
    /// Enters a machine that runs.
    ///
    /// # Errors
    /// [`Code::MachineStopped`], [`Code::MachinePaused`], and those of connecting, each with what to do about it.
    async fn enter(&self, handle: &Handle) -> Result<Account>;
    /// What machines use, as far as it is known without entering any.
    fn used(&self) -> Vec<(Handle, UsedEnvironment)>;
    /// The environment that the machine's sessions are to use. Enters no VM.
    async fn wanted(&self, handle: &Handle) -> Result<Option<String>>;
    /// The machine's sessions use this environment from now on; kept where the machine itself does not keep it for ever.
    fn keep(&self, handle: &Handle, used: &UsedEnvironment);
}

/// The machines of an entrance.
pub struct OverSsh<E>(Arc<E>);

impl<E> Clone for OverSsh<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E> std::fmt::Debug for OverSsh<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OverSsh")
    }
}

impl<E: Entrance> OverSsh<E> {
    /// The machines behind this entrance. Enters nothing.
    pub fn new(entrance: Arc<E>) -> Self {
        Self(entrance)
    }
}

#[async_trait]
impl<E: Entrance> RemoteFiles for OverSsh<E> {
    async fn look(&self, handle: &Handle, path: &[u8]) -> Result<FileFacts> {
        self.0.enter(handle).await?.files.look(path).await
    }

    async fn list(&self, handle: &Handle, path: &[u8]) -> Result<Vec<FileFacts>> {
        self.0.enter(handle).await?.files.list(path).await
    }

    async fn make_directory(&self, handle: &Handle, path: &[u8], mode: u32) -> Result<FileFacts> {
        self.0.enter(handle).await?.files.make_directory(path, mode).await
    }

    async fn get(&self, handle: &Handle, path: &[u8]) -> Result<(FileFacts, Box<dyn FileSource>)> {
        let account = self.0.enter(handle).await?;
        let (facts, inner) = account.files.get(path).await?;
        Ok((facts, Box::new(Source { inner, _account: account })))
    }

    async fn put(&self, handle: &Handle, path: &[u8], mode: u32) -> Result<Box<dyn FileSink>> {
        let account = self.0.enter(handle).await?;
        let inner = account.files.put(path, mode).await?;
        Ok(Box::new(Sink { inner, _account: account }))
    }
}

/// A file on its way from a machine that stays entered meanwhile.
struct Source {
    inner: Box<dyn FileSource>,
    _account: Account,
}

#[async_trait]
impl FileSource for Source {
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        self.inner.next().await
    }
}

/// The same to a machine.
struct Sink {
    inner: Box<dyn FileSink>,
    _account: Account,
}

#[async_trait]
impl FileSink for Sink {
    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<FileFacts> {
        let Self { inner, _account } = *self;
        inner.finish().await
    }
}

#[async_trait]
impl<E: Entrance> Environments for OverSsh<E> {
    async fn used(&self) -> Result<Vec<(Handle, UsedEnvironment)>> {
        Ok(self.0.used())
    }

    async fn of(&self, handle: &Handle) -> Result<WantedEnvironment> {
        Ok(WantedEnvironment { environment: self.0.wanted(handle).await?, lua: None })
    }

    async fn lua(&self, handle: &Handle) -> Result<Option<String>> {
        let account = self.0.enter(handle).await?;
        account.carrier()?.lua().await
    }

    async fn switch(&self, handle: &Handle, name: &str, dry_run: bool, follow: &dyn Follow) -> Result<Switched> {
        let account = self.0.enter(handle).await?;
        let switched = account.carrier()?.switch(name, dry_run, follow).await?;
        if !dry_run {
            self.0.keep(handle, &switched.environment);
        }
        Ok(switched)
    }
}
