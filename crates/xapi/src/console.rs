//! Consoles: `CONNECT` on a connection of its own, after which bytes go both ways (RFB or the text of a serial port).
//!
//! The path of the request is the console's, not an authority as HTTP would have it, so the exchange is written here (`ocaml/xapi/console.ml`).

use crate::{
    client::{Client, HOPS},
    error::{Error, Result},
    http::Stream,
    members::Place,
    rpc,
};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::timeout,
};

/// The largest head of an answer.
const HEAD: usize = 16 << 10;
/// The largest page that is read of a refusal.
const PAGE: usize = 4 << 10;

/// A console's bytes, both ways.
#[derive(Debug)]
pub struct Console {
    stream: Stream,
    /// What came with the head of the answer.
    ahead: Vec<u8>,
    taken: usize,
}

impl AsyncRead for Console {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.taken < self.ahead.len() {
            let rest = &self.ahead[self.taken..];
            let count = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..count]);
            self.taken += count;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Console {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    status: u16,
    location: Option<String>,
}

impl Client {
    /// Opens a console by its `location`, at the host that has it. A session that has ended is renewed once; a member that sends us on is followed.
    ///
    /// # Errors
    /// As [`Client::call`]; [`Error::Http`] when the host refuses: 500 when the console is gone, which it is with each boot, 503 when there are too many viewers.
    pub async fn console(&self, location: &str) -> Result<Console> {
        let deadline = self.config().deadline;
        let work = async {
            let mut place = Place::parse(location, &self.session().await?.host)?;
            let (mut renewed, mut hops) = (false, 0);
            loop {
                let session = self.session().await?;
                let (head, console) = connect(self.reach(&place.host).await?, &place, &session.reference).await?;
                match head {
                    Head { status: 200, .. } => return Ok(console),
                    Head { status: 401, .. } if !renewed => {
                        renewed = true;
                        self.forget(&session).await;
                    }
                    Head { status: 301 | 302 | 307, location: Some(to) } if hops < HOPS => {
                        hops += 1;
                        place = Place::parse(&to, &place.host)?;
                    }
                    Head { status, .. } => return Err(refused(status, console).await),
                }
            }
        };
        timeout(deadline, work).await.unwrap_or_else(|_| Err(Error::Deadline { what: "the console".into(), waited: deadline }))
    }
}

async fn connect(mut stream: Stream, place: &Place, session: &str) -> Result<(Head, Console)> {
    let lost = |source| Error::Connection { host: place.host.clone(), source };
    let head = format!("CONNECT {} HTTP/1.1\r\nHost: {}\r\n\r\n", place.target(session, true), place.host);
    stream.write_all(head.as_bytes()).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let mut got = Vec::with_capacity(512);
    loop {
        if let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = parse(&got[..end])?;
            return Ok((head, Console { stream, ahead: got, taken: end + 4 }));
        }
        if got.len() > HEAD {
            return Err(Error::protocol("the head of an answer does not end"));
        }
        if stream.read_buf(&mut got).await.map_err(lost)? == 0 {
            return Err(lost(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Reads the head of an answer. What the recordings show is `HTTP/1.1 200 OK` and a few lines.
pub(crate) fn parse(head: &[u8]) -> Result<Head> {
    let bad = || Error::protocol("what answers at a console's place is no HTTP");
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let rest = first.strip_prefix("HTTP/1.").ok_or_else(bad)?;
    let status = rest.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(bad)?;
    let location = lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("location"));
    Ok(Head { status, location: location.map(|(_, value)| value.trim().to_owned()) })
}

async fn refused(status: u16, console: Console) -> Error {
    let mut page = Vec::new();
    // The beginning of it says enough; it may be cut off.
    let _ = console.take(PAGE as u64).read_to_end(&mut page).await;
    Error::Http { status, text: rpc::plain(&page) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_answers_are_read() {
        let of = |text: &str| parse(text.as_bytes());
        assert_eq!(of("HTTP/1.1 200 OK\r\nConnection: keep-alive").unwrap(), Head { status: 200, location: None });
        let moved = of("HTTP/1.0 302 Found\r\nlocation: https://10.0.0.2/console?uuid=x").unwrap();
        assert_eq!(moved, Head { status: 302, location: Some("https://10.0.0.2/console?uuid=x".into()) });
        for bad in ["", "SSH-2.0-x", "HTTP/2 200", "HTTP/1.1", "HTTP/1.1 many", "HTTP/1.1 99999999"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
