//! An attachment to a session, in process; the HTTP server wraps the same thing in a WebSocket.
//!
//! Each attachment reads the transcript at its own pace, so a slow one delays nobody and nothing is buffered for it.

use super::{
    shared::Shared,
    task::{Msg, gone},
    transcript::Reader,
};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use vmoon_api::{Attachment, Message, requests::Mode};
use vmoon_core::{
    Code, Error, Result,
    driver::ChannelKind,
    frame::{Eval, Frame, tag},
};

/// How much one message holds, bytes, unless a single frame is larger.
const CHUNK: usize = 256 << 10;
/// How far a client that acknowledges may lag behind before we wait for it, bytes.
const WINDOW: u64 = 1 << 20;

/// An attachment. Dropping it detaches.
pub(crate) struct Attached {
    shared: Arc<Shared>,
    live: watch::Receiver<super::Live>,
    number: u64,
    pen: bool,
    reader: Reader,
    paused: bool,
    acked: Option<u64>,
    direct: mpsc::Receiver<Vec<u8>>,
    answers: mpsc::Sender<Vec<u8>>,
    ended: bool,
}

impl Attached {
    /// Attaches from this offset, or from now on.
    ///
    /// # Errors
    /// [`Code::SessionBusy`] when the pen is asked for and taken.
    pub(crate) fn new(shared: Arc<Shared>, from: Option<u64>, mode: Mode) -> Result<Self> {
        let pen = mode != Mode::Viewer;
        let number = shared.enter(mode)?;
        let live = shared.live.subscribe();
        let at = from.unwrap_or_else(|| live.borrow().written);
        let reader = shared.reader(at);
        let (answers, direct) = mpsc::channel(64);
        Ok(Self { shared, live, number, pen, reader, paused: false, acked: None, direct, answers, ended: false })
    }

    fn tell(&self, msg: Msg) -> Result<()> {
        self.shared.tell(msg)
    }

    fn ask(&self, frame: Frame<'_>) -> Result<()> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.tell(Msg::Ask { tag: frame.tag, payload: frame.payload.to_vec(), answer })?;
        let (id, answers) = (frame.id, self.answers.clone());
        drop(tokio::spawn(async move {
            let reply = match answered.await {
                Ok(Ok((tag, payload))) => Frame { tag, id, payload: &payload }.to_vec(),
                Ok(Err(error)) => refusal(id, &error),
                Err(_) => refusal(id, &gone()),
            };
            // The attachment may have gone meanwhile.
            let _ = answers.send(reply).await;
        }));
        Ok(())
    }
}

fn refusal(id: u64, error: &Error) -> Vec<u8> {
    let text = format!("{}\n{}", error.code(), error.message());
    Frame { tag: tag::REFUSED, id, payload: text.as_bytes() }.to_vec()
}

#[async_trait]
impl Attachment for Attached {
    async fn next(&mut self) -> Result<Message> {
        loop {
            // Seen first, looked at afterwards: a change in between wakes us again.
            self.live.mark_unchanged();
            if self.shared.dismissed(self.number) {
                return Err(Error::new(Code::Cancelled, "somebody detached this session from here"));
            }
            let over = self.shared.ended();
            let open = self.acked.is_none_or(|acked| self.reader.at().saturating_sub(acked) < WINDOW);
            if !self.paused && open {
                if let Some(chunk) = self.reader.next(CHUNK)? {
                    return Ok(Message::Stream { at: chunk.at, frames: chunk.frames });
                }
                if over {
                    if self.ended {
                        // Said already; there is nothing more to come.
                        std::future::pending::<()>().await;
                    }
                    self.ended = true;
                    return Ok(Message::Ended);
                }
            }
            tokio::select! {
                answer = self.direct.recv() => if let Some(frame) = answer {
                    return Ok(Message::Direct(frame));
                },
                changed = self.live.changed() => if changed.is_err() {
                    return Err(gone());
                },
            }
        }
    }

    async fn send(&mut self, frame: Frame<'_>) -> Result<()> {
        let terminal = self.shared.row.channel.kind == ChannelKind::Terminal;
        match frame.tag {
            tag::PAUSE => self.paused = true,
            tag::RESUME => self.paused = false,
            tag::ACK => {
                let acked = frame.payload.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
                self.acked = Some(acked.ok_or_else(|| Error::new(Code::WireMalformed, "an ACK without an offset"))?);
            }
            tag::COMPLETE | tag::IS_COMPLETE if !terminal => self.ask(frame)?,
            _ if !self.pen || self.shared.dismissed(self.number) => {
                return Err(Error::new(Code::SessionBusy, "this attachment only watches").hint("attach as writer"));
            }
            tag::RESIZE if terminal => {
                let size = frame.payload.first_chunk::<4>().copied();
                self.tell(Msg::Resize(size.ok_or_else(|| Error::new(Code::WireMalformed, "a RESIZE that is cut short"))?))?;
            }
            tag::EVAL | tag::CALL | tag::INTERRUPT | tag::COMPLETE | tag::IS_COMPLETE if terminal => {
                let direct = refusal(frame.id, &self.shared.evaluates_nothing());
                // An attachment that does not read its refusals has enough of them.
                let _ = self.answers.try_send(direct);
            }
            tag::EVAL => {
                let eval = Eval::decode(frame.payload).ok_or_else(|| Error::new(Code::WireMalformed, "an EVAL that is cut short"))?;
                let (code, token) = (eval.code.to_vec(), eval.token.to_vec());
                let (id, answers) = (frame.id, self.answers.clone());
                let (accepted, answered) = tokio::sync::oneshot::channel();
                let (arguments, data) = (Vec::new(), false);
                self.tell(Msg::Eval { code, arguments, data, token, deadline_ms: eval.deadline_ms, accepted, done: None })?;
                drop(tokio::spawn(async move {
                    if let Ok(Err(error)) = answered.await {
                        let _ = answers.send(refusal(id, &error)).await;
                    }
                }));
            }
            tag::INPUT => self.tell(Msg::Input { data: frame.payload.to_vec(), end: false, answer: None })?,
            tag::INPUT_END => self.tell(Msg::Input { data: Vec::new(), end: true, answer: None })?,
            tag::INTERRUPT => self.tell(Msg::Interrupt { number: frame.id, answer: None })?,
            // Newer clients may say things we do not know.
            _ => {}
        }
        Ok(())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.shared.leave(self.number, self.pen);
    }
}
