//! Files of a host over SFTP, in pieces, each answer bounded in time.

use crate::{Connection, connect::ANSWER};
use russh_sftp::{client::SftpSession, client::fs::File, protocol::OpenFlags};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::OwnedSemaphorePermit,
    time::timeout,
};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::random;

/// How much is moved at once.
const PIECE: usize = 256 << 10;
/// How long one piece may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An SFTP session. It ends with the connection, or when it is dropped.
pub struct Files {
    session: SftpSession,
    host: String,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Opens an SFTP session.
    ///
    /// # Errors
    /// [`Code::DriverUnsupported`] when the server has no SFTP.
    pub async fn files(&self) -> Result<Files> {
        let session = self.session().await?;
        let no_sftp = || {
            Error::new(Code::DriverUnsupported, format!("{} offers no SFTP", self.name()))
                .hint("its sshd needs a line: Subsystem sftp internal-sftp")
        };
        timeout(ANSWER, session.channel.request_subsystem(true, "sftp"))
            .await
            .map_err(|_| self.lost())?
            .map_err(|error| self.lost().source(error))?;
        let opened = timeout(ANSWER, SftpSession::new(session.channel.into_stream())).await;
        match opened {
            Ok(Ok(sftp)) => {
                sftp.set_timeout(PATIENCE.as_secs());
                Ok(Files { session: sftp, host: self.name().to_owned(), _permit: session.permit })
            }
            Ok(Err(error)) => Err(no_sftp().source(error)),
            Err(_) => Err(no_sftp()),
        }
    }
}

impl Files {
    fn failed(&self, what: &str, path: &str, error: russh_sftp::client::error::Error) -> Error {
        use russh_sftp::{client::error::Error as E, protocol::StatusCode};
        let code = match &error {
            E::Status(status) => match status.status_code {
                StatusCode::NoSuchFile => Code::FileNotFound,
                StatusCode::PermissionDenied => Code::Permission,
                StatusCode::ConnectionLost | StatusCode::NoConnection => Code::DriverUnreachable,
                _ => Code::FileFailed,
            },
            E::IO(_) | E::Timeout => Code::DriverUnreachable,
            _ => Code::FileFailed,
        };
        Error::new(code, format!("could not {what} {} on {}", path.escape_debug(), self.host)).source(error)
    }

    fn broken(&self, what: &str, path: &str, error: io::Error) -> Error {
        Error::new(Code::FileFailed, format!("could not {what} {} on {}", path.escape_debug(), self.host)).source(error)
    }

    /// Copies a file from the host into `to`; gives its length.
    ///
    /// # Errors
    /// [`Code::FileNotFound`], [`Code::Permission`], [`Code::DriverUnreachable`].
    pub async fn get(&self, path: &str, to: &mut (dyn AsyncWrite + Unpin + Send)) -> Result<u64> {
        let mut file = self.session.open(path).await.map_err(|error| self.failed("open", path, error))?;
        self.pump(&mut file, to, "read", path).await
    }

    /// Copies `from` into a file of the host: whole, or not at all. It is written under another name first and takes the place
    /// of an older one only then. Gives its length.
    ///
    /// # Errors
    /// [`Code::Permission`], [`Code::FileFailed`], [`Code::DriverUnreachable`].
    pub async fn put(&self, path: &str, from: &mut (dyn AsyncRead + Unpin + Send)) -> Result<u64> {
        let part = format!("{path}.{:016x}.part", random::number());
        let flags = OpenFlags::CREATE | OpenFlags::EXCLUDE | OpenFlags::WRITE;
        let mut file: File = self.session.open_with_flags(part.clone(), flags).await.map_err(|error| self.failed("make", path, error))?;
        let written = async {
            let length = self.pump(from, &mut file, "write", path).await?;
            timeout(PATIENCE, file.shutdown()).await.map_err(|_| self.late(path))?.map_err(|error| self.broken("write", path, error))?;
            Ok(length)
        };
        let outcome = match written.await {
            Ok(length) => self.replace(&part, path).await.map(|()| length),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            let _ = self.session.remove_file(part).await;
        }
        outcome
    }

    /// Renames over what is there. The first version of the protocol that servers speak refuses that, so the old one is removed before;
    /// a cut just then leaves the whole file under its other name.
    async fn replace(&self, part: &str, path: &str) -> Result<()> {
        if self.session.rename(part, path).await.is_ok() {
            return Ok(());
        }
        let _ = self.session.remove_file(path).await;
        self.session.rename(part, path).await.map_err(|error| self.failed("put in place", path, error))
    }

    async fn pump(
        &self,
        from: &mut (dyn AsyncRead + Unpin + Send),
        to: &mut (dyn AsyncWrite + Unpin + Send),
        what: &str,
        path: &str,
    ) -> Result<u64> {
        let (mut piece, mut length) = (vec![0; PIECE], 0);
        loop {
            let n = timeout(PATIENCE, from.read(&mut piece))
                .await
                .map_err(|_| self.late(path))?
                .map_err(|error| self.broken(what, path, error))?;
            if n == 0 {
                timeout(PATIENCE, to.flush()).await.map_err(|_| self.late(path))?.map_err(|error| self.broken(what, path, error))?;
                return Ok(length);
            }
            timeout(PATIENCE, to.write_all(&piece[..n]))
                .await
                .map_err(|_| self.late(path))?
                .map_err(|error| self.broken(what, path, error))?;
            length += n as u64;
        }
    }

    fn late(&self, path: &str) -> Error {
        Error::new(
            Code::DriverUnreachable,
            format!("{} on {} did not move on for {} s", path.escape_debug(), self.host, PATIENCE.as_secs()),
        )
    }
}
