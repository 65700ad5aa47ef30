//! Files in and out of a machine's work directory.
//!
//! Where the driver gives a directory of this computer, everything below it is done here, the same way for every kind of machine. Files that are
//! reached through a connection are the driver's; here they are passed on (`remote`).

mod remote;
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

/// Where the files of a machine are.
enum Place {
    /// In a directory of this computer, and the plain form of the path in it.
    Here(Arc<OwnedFd>, Vec<u8>),
    /// Behind its connection.
    There(remote::There),
}

impl Service {
    /// Where a path of a machine leads.
    async fn place(&self, machine: &str, path: &str) -> Result<Place> {
        let path = path_from_text(path);
        let machine = self.machine(machine)?;
        let name = escape(&machine.view().name);
        let handle = || machine.handle().ok_or_else(|| Error::new(Code::MachineState, format!("{name} is not created yet")));
        if let Some(files) = machine.driver.files() {
            let path = tree::plain(&path)?;
            return Ok(Place::Here(Arc::new(files.directory(&handle()?).await?), path));
        }
        if machine.driver.remote_files().is_some() {
            return Ok(Place::There(remote::There { driver: machine.driver.clone(), handle: handle()?, path }));
        }
        Err(unsupported(&machine.driver.info().kind, "copy files in and out"))
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        self.transfers.clone().acquire_owned().await.map_err(|_| Error::new(Code::DaemonStopping, "the daemon is shutting down"))
    }

    pub(super) async fn file(&self, request: FileRef) -> Result<FileEntry> {
        match self.place(&request.machine, &request.path).await? {
            Place::Here(root, path) => blocking(move || tree::look(tree::pin(root.as_fd(), &path)?, &path)).await,
            Place::There(there) => there.look().await,
        }
    }

    pub(super) async fn directory(&self, request: FileRef) -> Result<FilesView> {
        let entries = match self.place(&request.machine, &request.path).await? {
            Place::Here(root, path) => blocking(move || tree::list(root.as_fd(), &path)).await?,
            Place::There(there) => there.list().await?,
        };
        Ok(FilesView { entries })
    }

    pub(super) async fn new_directory(&self, request: MakeDirectory) -> Result<FileEntry> {
        match self.place(&request.machine, &request.path).await? {
            Place::Here(root, path) => blocking(move || tree::make(root.as_fd(), &path, request.mode)).await,
            Place::There(there) => there.make(request.mode).await,
        }
    }

    pub(super) async fn transfer(&self, request: TransferFile) -> Result<Box<dyn Transfer>> {
        let turn = self.turn().await?;
        let mode = request.mode.unwrap_or(MODE);
        Ok(match (self.place(&request.machine, &request.path).await?, request.direction) {
            (Place::Here(root, path), Direction::Get) => Box::new(transfer::Get::begin(root, path, turn).await?),
            (Place::Here(root, path), Direction::Put) => Box::new(transfer::Put::begin(root, path, mode, turn).await?),
            (Place::There(there), Direction::Get) => Box::new(there.get(turn).await?),
            (Place::There(there), Direction::Put) => Box::new(there.put(mode, turn).await?),
        })
    }
}
