//! The content of one file on its way, a few requests ahead of their answers.

use super::Files;
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use russh_sftp::{
    client::error::Error as Refusal,
    protocol::{FileAttributes, StatusCode},
};
use std::{future::Future, pin::Pin};
use vmoon_core::{Code, Error, Result, ability::FileFacts};

/// How much one request carries: what every server must accept (draft-ietf-secsh-filexfer-02, section 3).
const PIECE: usize = 32 << 10;
/// How many requests are on their way at most: a megabyte, which fills 100 Mbit/s at a round trip of 80 ms.
const AHEAD: usize = 32;

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>>;

/// A file that comes from the host.
pub struct Incoming {
    files: Files,
    path: String,
    handle: Option<String>,
    facts: FileFacts,
    /// Where the next request begins; how far the file was handed over.
    asked: u64,
    given: u64,
    pending: FuturesOrdered<Answer<Vec<u8>>>,
}

impl Incoming {
    pub(super) fn new(files: Files, path: String, handle: String, facts: FileFacts) -> Self {
        Self { files, path, handle: Some(handle), facts, asked: 0, given: 0, pending: FuturesOrdered::new() }
    }

    /// What it was when it was opened: so many bytes come, even of one that grows.
    pub fn facts(&self) -> &FileFacts {
        &self.facts
    }

    fn ask(&mut self, handle: &str) {
        while self.pending.len() < AHEAD && self.asked < self.facts.size {
            let (files, handle, at) = (self.files.clone(), handle.to_owned(), self.asked);
            let length = (self.facts.size - at).min(PIECE as u64) as u32;
            self.asked += u64::from(length);
            self.pending.push_back(Box::pin(async move { files.raw().read(handle, at, length).await.map(|data| data.data) }));
        }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`Code::FileChanged`] when the file became shorter; [`Code::DriverUnreachable`].
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(handle) = self.handle.clone() else { return Ok(None) };
        if self.given >= self.facts.size {
            self.handle = None;
            let _ = self.files.raw().close(handle).await;
            return Ok(None);
        }
        self.ask(&handle);
        let wanted = (self.facts.size - self.given).min(PIECE as u64);
        let shorter = || {
            Error::new(Code::FileChanged, format!("\"{}\" became shorter while it was copied", self.path.escape_debug()))
                .hint("copy it again when nothing writes to it")
        };
        let piece = match self.pending.next().await {
            Some(Ok(piece)) if piece.is_empty() => return Err(shorter()),
            Some(Ok(piece)) if piece.len() as u64 > wanted => {
                return Err(Error::new(Code::WireMalformed, format!("{} sent more than was asked for", self.files.host())));
            }
            Some(Ok(piece)) => piece,
            Some(Err(Refusal::Status(status))) if status.status_code == StatusCode::Eof => return Err(shorter()),
            Some(Err(error)) => return Err(self.files.failed("read", &self.path, error)),
            None => return Err(Error::internal("nothing was asked for")),
        };
        self.given += piece.len() as u64;
        if (piece.len() as u64) < wanted {
            // A server may send less: what was asked for behind it does not join on.
            self.pending = FuturesOrdered::new();
            self.asked = self.given;
        }
        Ok(Some(piece))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            close(self.files.clone(), handle, None);
        }
    }
}

/// Closes a file that nobody waits for, and removes what it has left.
fn close(files: Files, handle: String, left: Option<String>) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        drop(runtime.spawn(async move {
            let _ = files.raw().close(handle).await;
            if let Some(left) = left {
                let _ = files.raw().remove(left).await;
            }
        }));
    }
}

/// A file that goes to the host.
pub struct Outgoing {
    files: Files,
    path: String,
    part: String,
    handle: Option<String>,
    mode: u32,
    at: u64,
    pending: FuturesOrdered<Answer<()>>,
}

impl Outgoing {
    pub(super) fn new(files: Files, (path, part): (String, String), handle: String, mode: u32) -> Self {
        Self { files, path, part, handle: Some(handle), mode, at: 0, pending: FuturesOrdered::new() }
    }

    async fn one(&mut self) -> Result<()> {
        match self.pending.next().await {
            Some(Err(error)) => Err(self.files.not_made("write", &self.path, error).await),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Code::DiskFull`], [`Code::FileFailed`], [`Code::DriverUnreachable`]: then it has failed for good.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(handle) = self.handle.clone() else { return Err(Error::internal("a file that was closed is written")) };
        for piece in bytes.chunks(PIECE) {
            while self.pending.len() >= AHEAD {
                self.one().await?;
            }
            let (files, handle, at, piece) = (self.files.clone(), handle.clone(), self.at, piece.to_vec());
            self.at += piece.len() as u64;
            self.pending.push_back(Box::pin(async move { files.raw().write(handle, at, piece).await.map(drop) }));
        }
        Ok(())
    }

    /// Gives it its mode and its name; a link that has the name is replaced, not followed.
    ///
    /// # Errors
    /// As [`Outgoing::write`]; [`Code::FileExists`] when a directory has the name.
    pub async fn finish(mut self) -> Result<FileFacts> {
        while !self.pending.is_empty() {
            self.one().await?;
        }
        let Some(handle) = self.handle.clone() else { return Err(Error::internal("a file is finished twice")) };
        let attributes = FileAttributes { permissions: Some(self.mode), ..FileAttributes::empty() };
        let failed = |error| self.files.failed("finish", &self.path, error);
        self.files.raw().fsetstat(handle.as_str(), attributes).await.map_err(failed)?;
        let found = self.files.raw().fstat(handle.as_str()).await.map_err(failed)?;
        if found.attrs.size.is_some_and(|size| size != self.at) {
            return Err(Error::new(Code::FileFailed, format!("\"{}\" has not the length that was sent", self.path.escape_debug())));
        }
        self.files.raw().close(handle.as_str()).await.map_err(failed)?;
        self.files.replace(&self.part, &self.path).await?;
        self.handle = None;
        Ok(super::facts(super::split(&self.path).1, &found.attrs))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            close(self.files.clone(), handle, Some(std::mem::take(&mut self.part)));
        }
    }
}
