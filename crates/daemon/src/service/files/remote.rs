//! Files behind a machine's connection: what the driver says, in the API's words.

use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use vmoon_api::files::{self, FileEntry, path_to_text};
use vmoon_core::{
    Code, Error, Result,
    ability::{FileFacts, FileKind, FileSink, FileSource, RemoteFiles},
    driver::{Driver, Handle},
};

/// A path of a machine.
pub(super) struct There {
    pub(super) driver: Arc<dyn Driver>,
    pub(super) handle: Handle,
    pub(super) path: Vec<u8>,
}

fn entry(facts: FileFacts) -> FileEntry {
    FileEntry {
        name: path_to_text(&facts.name),
        kind: match facts.kind {
            FileKind::File => files::FileKind::File,
            FileKind::Directory => files::FileKind::Directory,
            FileKind::Link => files::FileKind::Link,
            FileKind::Other => files::FileKind::Other,
        },
        size: facts.size,
        mode: facts.mode,
        modified_ms: facts.modified_ms,
    }
}

impl There {
    fn files(&self) -> Result<&dyn RemoteFiles> {
        self.driver.remote_files().ok_or_else(|| Error::internal("a driver has lost its files"))
    }

    pub(super) async fn look(&self) -> Result<FileEntry> {
        self.files()?.look(&self.handle, &self.path).await.map(entry)
    }

    pub(super) async fn list(&self) -> Result<Vec<FileEntry>> {
        Ok(self.files()?.list(&self.handle, &self.path).await?.into_iter().map(entry).collect())
    }

    pub(super) async fn make(&self, mode: u32) -> Result<FileEntry> {
        self.files()?.make_directory(&self.handle, &self.path, mode).await.map(entry)
    }

    pub(super) async fn get(&self, place: OwnedSemaphorePermit) -> Result<Get> {
        let (facts, source) = self.files()?.get(&self.handle, &self.path).await?;
        Ok(Get { entry: Some(entry(facts)), source, _place: place })
    }

    pub(super) async fn put(&self, mode: u32, place: OwnedSemaphorePermit) -> Result<Put> {
        let sink = self.files()?.put(&self.handle, &self.path, mode).await?;
        Ok(Put { sink: Some(sink), whole: false, _place: place })
    }
}

/// A file that is fetched.
pub(super) struct Get {
    entry: Option<FileEntry>,
    source: Box<dyn FileSource>,
    _place: OwnedSemaphorePermit,
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
        Ok(self.source.next().await?.map_or(files::Part::End, files::Part::Bytes))
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
    sink: Option<Box<dyn FileSink>>,
    /// Whether everything was sent: dropped without a word, the file is given up.
    whole: bool,
    _place: OwnedSemaphorePermit,
}

#[async_trait]
impl files::Transfer for Put {
    fn is_put(&self) -> bool {
        true
    }

    async fn next(&mut self) -> Result<files::Part> {
        if !self.whole {
            return Err(Error::internal("a file that was not sent to its end has no answer"));
        }
        match self.sink.take() {
            Some(sink) => sink.finish().await.map(entry).map(files::Part::Entry),
            None => Ok(files::Part::End),
        }
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<()> {
        match &mut self.sink {
            Some(sink) if !self.whole => sink.write(&bytes).await,
            _ => Err(Error::new(Code::WireMalformed, "the file was said to be whole")),
        }
    }

    async fn close(&mut self) -> Result<()> {
        self.whole = true;
        Ok(())
    }
}
