//! Files in and out of a machine's work directory.
//!
//! The driver gives the directory; everything below it is done here, the same way for every kind of machine.

mod transfer;
mod tree;

use super::Service;
use rustix::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vmoon_api::{
    files::{FileEntry, Transfer, path_from_text},
    requests::{Direction, FileRef, MakeDirectory, TransferFile},
    views::FilesView,
};
use vmoon_core::{Code, Error, Result, driver::unsupported, name::escape};

/// How many files are on their way at once; more wait. Each has a thread and a megabyte.
const AT_ONCE: usize = 32;
/// The mode of a file of which nothing is said.
const MODE: u32 = 0o644;

/// The places of files on their way.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_ONCE))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::internal("looking at a file failed").source(error)))
}

impl Service {
    /// The work directory of a machine and the plain form of a path in it.
    async fn place(&self, machine: &str, path: &str) -> Result<(Arc<OwnedFd>, Vec<u8>)> {
        let path = tree::plain(&path_from_text(path))?;
        let machine = self.machine(machine)?;
        let files = machine.driver.files().ok_or_else(|| unsupported(&machine.driver.info().kind, "copy files in and out"))?;
        let name = escape(&machine.view().name);
        let handle = machine.handle().ok_or_else(|| Error::new(Code::MachineState, format!("{name} is not created yet")))?;
        Ok((Arc::new(files.directory(&handle).await?), path))
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        self.transfers.clone().acquire_owned().await.map_err(|_| Error::new(Code::DaemonStopping, "the daemon is shutting down"))
    }

    pub(super) async fn file(&self, request: FileRef) -> Result<FileEntry> {
        let (root, path) = self.place(&request.machine, &request.path).await?;
        blocking(move || tree::look(tree::pin(root.as_fd(), &path)?, &path)).await
    }

    pub(super) async fn directory(&self, request: FileRef) -> Result<FilesView> {
        let (root, path) = self.place(&request.machine, &request.path).await?;
        blocking(move || tree::list(root.as_fd(), &path)).await.map(|entries| FilesView { entries })
    }

    pub(super) async fn new_directory(&self, request: MakeDirectory) -> Result<FileEntry> {
        let (root, path) = self.place(&request.machine, &request.path).await?;
        blocking(move || tree::make(root.as_fd(), &path, request.mode)).await
    }

    pub(super) async fn transfer(&self, request: TransferFile) -> Result<Box<dyn Transfer>> {
        let turn = self.turn().await?;
        let (root, path) = self.place(&request.machine, &request.path).await?;
        Ok(match request.direction {
            Direction::Get => Box::new(transfer::Get::begin(root, path, turn).await?),
            Direction::Put => Box::new(transfer::Put::begin(root, path, request.mode.unwrap_or(MODE), turn).await?),
        })
    }
}
