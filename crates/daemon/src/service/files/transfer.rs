//! One file on its way. Its bytes are read and written on a thread that may block; a few chunks at most are in memory.

use super::tree::{self, Part};
use async_trait::async_trait;
use rustix::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use vmoon_api::files::{self, CHUNK, FileEntry};
use vmoon_core::{Code, Error, Result, name::escape};

/// How many chunks wait for the slower side.
const AHEAD: usize = 4;

fn gone() -> Error {
    Error::internal("the thread that copies has ended")
}

/// A file that is fetched.
pub(super) struct Get {
    entry: Option<FileEntry>,
    chunks: mpsc::Receiver<Result<Vec<u8>>>,
    _place: OwnedSemaphorePermit,
}

impl Get {
    /// Opens the file; its bytes follow.
    pub(super) async fn begin(root: Arc<OwnedFd>, path: Vec<u8>, place: OwnedSemaphorePermit) -> Result<Self> {
        let (file, entry) = super::blocking(move || {
            let (file, entry) = tree::read(root.as_fd(), &path)?;
            Ok(((file, path), entry))
        })
        .await?;
        let (sender, chunks) = mpsc::channel(AHEAD);
        let size = entry.size;
        drop(tokio::task::spawn_blocking(move || pump(&file.0, &file.1, size, &sender)));
        Ok(Self { entry: Some(entry), chunks, _place: place })
    }
}

/// Sends as many bytes as the file had when it was opened: one that grows all the time has an end, too.
fn pump(file: &OwnedFd, path: &[u8], size: u64, out: &mpsc::Sender<Result<Vec<u8>>>) {
    let mut rest = size;
    while rest > 0 {
        let mut chunk = vec![0; CHUNK.min(usize::try_from(rest).unwrap_or(CHUNK))];
        let shown = || escape(&String::from_utf8_lossy(path));
        let item = match rustix::io::read(file, &mut chunk) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => Err(Error::new(Code::FileFailed, format!("\"{}\" cannot be read", shown())).source(std::io::Error::from(error))),
            Ok(0) => Err(Error::new(Code::FileChanged, format!("\"{}\" became shorter while it was copied", shown()))
                .hint("copy it again when nothing writes to it")),
            Ok(n) => {
                chunk.truncate(n);
                rest -= n as u64;
                Ok(chunk)
            }
        };
        let over = item.is_err();
        if out.blocking_send(item).is_err() || over {
            return;
        }
    }
}

#[async_trait]
impl files::Transfer for Get {
    fn is_put(&self) -> bool {
        false
    }

    async fn next(&mut self) -> Result<files::Part> {
        if let Some(entry) = self.entry.take() {
            return Ok(files::Part::Entry(entry));
        }
        match self.chunks.recv().await {
            Some(chunk) => chunk.map(files::Part::Bytes),
            None => Ok(files::Part::End),
        }
    }

    async fn send(&mut self, _: Vec<u8>) -> Result<()> {
        Err(Error::new(Code::WireMalformed, "this file is fetched: nothing is sent"))
    }

    async fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A file that is stored.
pub(super) struct Put {
    chunks: Option<mpsc::Sender<Vec<u8>>>,
    /// Whether everything was sent: dropped without a word, the file is given up.
    whole: Option<oneshot::Sender<()>>,
    stored: Option<oneshot::Receiver<Result<FileEntry>>>,
    _place: OwnedSemaphorePermit,
}

impl Put {
    /// Begins a file that has no name yet.
    pub(super) async fn begin(root: Arc<OwnedFd>, path: Vec<u8>, mode: u32, place: OwnedSemaphorePermit) -> Result<Self> {
        let part = super::blocking(move || Part::begin(root.as_fd(), &path)).await?;
        let (chunks, queue) = mpsc::channel(AHEAD);
        let (whole, was_whole) = oneshot::channel();
        let (answer, stored) = oneshot::channel();
        drop(tokio::task::spawn_blocking(move || answer.send(store(part, queue, was_whole, mode))));
        Ok(Self { chunks: Some(chunks), whole: Some(whole), stored: Some(stored), _place: place })
    }
}

fn store(mut part: Part, mut queue: mpsc::Receiver<Vec<u8>>, mut whole: oneshot::Receiver<()>, mode: u32) -> Result<FileEntry> {
    while let Some(chunk) = queue.blocking_recv() {
        part.write(&chunk)?;
    }
    if whole.try_recv().is_err() {
        return Err(Error::new(Code::Cancelled, "the file was not sent to its end"));
    }
    part.finish(mode)
}

#[async_trait]
impl files::Transfer for Put {
    fn is_put(&self) -> bool {
        true
    }

    async fn next(&mut self) -> Result<files::Part> {
        match self.stored.take() {
            Some(stored) => stored.await.map_err(|_| gone())?.map(files::Part::Entry),
            None => Ok(files::Part::End),
        }
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<()> {
        let Some(chunks) = &self.chunks else { return Err(Error::new(Code::WireMalformed, "the file was said to be whole")) };
        if chunks.send(bytes).await.is_ok() {
            return Ok(());
        }
        // The thread has given up and says why.
        match self.next().await {
            Err(error) => Err(error),
            Ok(_) => Err(gone()),
        }
    }

    async fn close(&mut self) -> Result<()> {
        if let Some(whole) = self.whole.take() {
            let _ = whole.send(());
        }
        self.chunks = None;
        Ok(())
    }
}
