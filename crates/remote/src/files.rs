//! Files of a host as the daemon copies them: one SFTP session for everybody, opened when it is needed and closed when nobody used it for a while.

use crate::{Files, Host, sftp};
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};
use vmoon_core::{
    Code, Result,
    ability::{FileFacts, FileSink, FileSource},
};

/// How long an unused session is kept: it is a process on the host, and one of the ten that share a connection.
const IDLE: Duration = Duration::from_secs(20);

/// The files of one host. Clones share it.
#[derive(Clone)]
pub struct HostFiles {
    host: Host,
    kept: Arc<Mutex<Option<Kept>>>,
}

struct Kept {
    /// None when it gave no answer: the next one who asks opens another.
    files: Option<Files>,
    used: Instant,
}

impl HostFiles {
    /// Those of this host; opens nothing.
    pub fn new(host: Host) -> Self {
        Self { host, kept: Arc::default() }
    }

    /// An open session.
    ///
    /// # Errors
    /// As of connecting, and [`Code::DriverUnsupported`] when the host has no SFTP.
    pub async fn session(&self) -> Result<Files> {
        let mut kept = self.kept.lock().await;
        if let Some(one) = kept.as_mut()
            && let Some(files) = one.files.clone().filter(|files| !files.is_closed())
        {
            one.used = Instant::now();
            return Ok(files);
        }
        let fresh = kept.is_none();
        let files = self.host.connection().await?.files().await?;
        *kept = Some(Kept { files: Some(files.clone()), used: Instant::now() });
        if fresh {
            let kept = self.kept.clone();
            drop(tokio::spawn(async move {
                let mut next = Instant::now() + IDLE;
                loop {
                    sleep_until(next).await;
                    let mut kept = kept.lock().await;
                    match kept.as_ref().map(|one| one.used + IDLE) {
                        Some(later) if later > Instant::now() => next = later,
                        _ => {
                            *kept = None;
                            return;
                        }
                    }
                }
            }));
        }
        Ok(files)
    }

    /// Passes an answer on; a session that gave none is not used again.
    async fn told<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && error.code() == Code::DriverUnreachable
            && let Some(kept) = self.kept.lock().await.as_mut()
        {
            kept.files = None;
        }
        result
    }

    /// What is at a path, a link at its end followed.
    ///
    /// # Errors
    /// As of [`vmoon_core::ability::RemoteFiles`], all of these.
    pub async fn look(&self, path: &[u8]) -> Result<FileFacts> {
        let result = self.session().await?.look(sftp::path(path)?).await;
        self.told(result).await
    }

    /// What is in a directory.
    ///
    /// # Errors
    /// As [`HostFiles::look`].
    pub async fn list(&self, path: &[u8]) -> Result<Vec<FileFacts>> {
        let result = self.session().await?.list(sftp::path(path)?).await;
        self.told(result).await
    }

    /// Makes a directory, or finds that there is one.
    ///
    /// # Errors
    /// As [`HostFiles::look`]; [`Code::FileExists`].
    pub async fn make_directory(&self, path: &[u8], mode: u32) -> Result<FileFacts> {
        let result = self.session().await?.make_directory(sftp::path(path)?, mode).await;
        self.told(result).await
    }

    /// Opens a file.
    ///
    /// # Errors
    /// As [`HostFiles::look`].
    pub async fn get(&self, path: &[u8]) -> Result<(FileFacts, Box<dyn FileSource>)> {
        let result = self.session().await?.read(sftp::path(path)?).await;
        let file = self.told(result).await?;
        Ok((file.facts().clone(), Box::new(file)))
    }

    /// Begins a file.
    ///
    /// # Errors
    /// As [`HostFiles::look`].
    pub async fn put(&self, path: &[u8], mode: u32) -> Result<Box<dyn FileSink>> {
        let result = self.session().await?.write(sftp::path(path)?, mode).await;
        Ok(Box::new(self.told(result).await?))
    }
}

#[async_trait]
impl FileSource for sftp::Incoming {
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        self.next().await
    }
}

#[async_trait]
impl FileSink for sftp::Outgoing {
    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<FileFacts> {
        (*self).finish().await
    }
}
