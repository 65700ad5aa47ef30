//! An attachment that outlives the daemon: lost, it attaches again where it stood, and says again what was not heard.
//!
//! Knows offsets and tokens. Nothing of terminals.

use crate::connect::{Daemon, is_away};
use std::time::{Duration, Instant};
use tokio::time::sleep_until;
use vmoon_api::{
    Api as _, Attachment, Message,
    requests::{Attach, Mode},
};
use vmoon_core::{
    Code, Error, Result,
    codes::Retry,
    frame::{Eval, Frame, tag},
};

/// How long a lost link is tried to be opened again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// What the link has to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Whole stream frames, each delivered once.
    Frames(Vec<u8>),
    /// A direct frame.
    Direct(Vec<u8>),
    /// The link was lost and is back.
    Back,
    /// The session is over.
    Ended,
}

/// A link to one session.
pub(crate) struct Link<'a> {
    daemon: &'a Daemon,
    session: String,
    mode: Mode,
    /// The offset of the next frame; `None` before the first message of an attachment "from now on".
    next: Option<u64>,
    stream: Option<Box<dyn Attachment>>,
    /// An EVAL that the stream has not shown accepted.
    unheard: Option<Unheard>,
    /// Frames that could not be sent.
    held: Vec<(u8, u64, Vec<u8>)>,
    lost: Option<Lost>,
}

struct Unheard {
    token: Vec<u8>,
    payload: Vec<u8>,
}

struct Lost {
    since: Instant,
    retry: Instant,
}

impl<'a> Link<'a> {
    /// Attaches.
    ///
    /// # Errors
    /// Those of `attach`; `session.busy` when a writer is wanted and there is one.
    pub(crate) async fn open(daemon: &'a Daemon, session: String, from: Option<u64>, mode: Mode) -> Result<Self> {
        let mut link = Self { daemon, session, mode, next: from, stream: None, unheard: None, held: Vec::new(), lost: None };
        link.attach().await?;
        Ok(link)
    }

    async fn attach(&mut self) -> Result<()> {
        let request = Attach { session: self.session.clone(), from: self.next, mode: self.mode };
        self.stream = Some(self.daemon.ask(async |client| client.attach(request.clone()).await).await?);
        // What was taken over once is not taken again from whoever has it after a lost link.
        if self.mode == Mode::Takeover {
            self.mode = Mode::Writer;
        }
        Ok(())
    }

    /// Waits for news. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the link is lost for good, and what the daemon refuses.
    pub(crate) async fn next(&mut self) -> Result<News> {
        loop {
            let Some(stream) = &mut self.stream else {
                self.again().await?;
                return Ok(News::Back);
            };
            match stream.next().await {
                Ok(Message::Stream { at, frames }) => {
                    let fresh = self.take(at, &frames)?;
                    if !fresh.is_empty() {
                        return Ok(News::Frames(fresh));
                    }
                }
                Ok(Message::Direct(frame)) => return Ok(News::Direct(frame)),
                Ok(Message::Ended) => return Ok(News::Ended),
                Err(error) if is_away(&error) => self.lose(),
                Err(error) if error.code() == Code::SessionEnded => return Ok(News::Ended),
                Err(error) => return Err(error),
            }
        }
    }

    fn lose(&mut self) {
        let now = vmoon_sys::clock::instant();
        self.stream = None;
        self.lost = Some(Lost { since: now, retry: now });
    }

    /// Attaches again and says again what was not heard.
    async fn again(&mut self) -> Result<()> {
        loop {
            if let Some(lost) = &self.lost {
                sleep_until(lost.retry.into()).await;
            }
            let tried = self.attach().await;
            let now = vmoon_sys::clock::instant();
            match tried {
                Ok(()) => break,
                Err(error) if error.code() == Code::SessionEnded => return Err(error),
                // The daemon may not have noticed yet that our old attachment is gone.
                Err(error) if error.code().retry() == Retry::Later || error.code() == Code::SessionBusy => {
                    let since = self.lost.as_ref().map_or(now, |lost| lost.since);
                    if now > since + PATIENCE {
                        return Err(error);
                    }
                    self.lost = Some(Lost { since, retry: now + PAUSE });
                }
                Err(error) => return Err(error),
            }
        }
        self.lost = None;
        if let Some(unheard) = &self.unheard {
            // The daemon joins a token it knows.
            self.held.insert(0, (tag::EVAL, 0, unheard.payload.clone()));
        }
        for (tag, id, payload) in std::mem::take(&mut self.held) {
            self.send(tag, id, payload).await?;
        }
        Ok(())
    }

    /// The frames not seen before; takes note of where the stream stands.
    fn take(&mut self, at: u64, frames: &[u8]) -> Result<Vec<u8>> {
        let mut fresh = Vec::with_capacity(frames.len());
        let (mut offset, mut read) = (at, 0);
        let known = self.next.unwrap_or(at);
        while let Some((frame, len)) = Frame::decode(&frames[read..]).map_err(malformed)? {
            if offset >= known {
                fresh.extend_from_slice(&frames[read..read + len]);
                if frame.tag == tag::ACCEPTED && self.is_unheard(frame.payload) {
                    self.unheard = None;
                }
            }
            offset += frame.stream_len();
            read += len;
        }
        self.next = Some(offset.max(known));
        Ok(fresh)
    }

    fn is_unheard(&self, payload: &[u8]) -> bool {
        let token = Eval::decode(payload).map(|eval| eval.token);
        self.unheard.as_ref().is_some_and(|unheard| token == Some(unheard.token.as_slice()))
    }

    /// Asks for a chunk to be run; it is run once, whatever happens to the daemon.
    ///
    /// # Errors
    /// Those of [`Self::send`].
    pub(crate) async fn eval(&mut self, token: &[u8], code: &[u8]) -> Result<()> {
        let payload = Eval { deadline_ms: 0, token, code }.to_vec();
        if payload.len() > vmoon_core::frame::MAX_PAYLOAD {
            return Err(Error::new(Code::CommandTooLarge, "the chunk is larger than 16 MiB"));
        }
        self.unheard = Some(Unheard { token: token.to_vec(), payload: payload.clone() });
        self.send(tag::EVAL, 0, payload).await
    }

    /// Sends a frame, now or when the link is back.
    ///
    /// # Errors
    /// What the daemon refuses.
    pub(crate) async fn send(&mut self, tag: u8, id: u64, payload: Vec<u8>) -> Result<()> {
        let sent = match &mut self.stream {
            Some(stream) => stream.send(Frame { tag, id, payload: &payload }).await,
            None => {
                self.hold(tag, id, payload);
                return Ok(());
            }
        };
        match sent {
            Err(error) if is_away(&error) => {
                self.lose();
                self.hold(tag, id, payload);
                Ok(())
            }
            other => other,
        }
    }

    fn hold(&mut self, tag: u8, id: u64, payload: Vec<u8>) {
        // An EVAL is kept in `unheard`.
        if tag != tag::EVAL {
            self.held.push((tag, id, payload));
        }
    }

    /// The daemon will not run the last chunk: it must not be asked for again.
    pub(crate) fn refused(&mut self) {
        self.unheard = None;
    }
}

fn malformed(error: vmoon_core::frame::Malformed) -> Error {
    Error::new(Code::WireMalformed, "the session's stream cannot be understood").source(error)
}
