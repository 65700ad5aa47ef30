//! Attaching to a life of a session: the lease is taken, and it is known how the session stands before anybody sends it anything.

use super::{
    ATTACH, FOLLOW, RELAY, script,
    wire::{self, Envelope, Piece, State},
};
use crate::{Connection, connect::ANSWER};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client::Msg};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use vmoon_core::{
    Code, Error, Result,
    driver::{Exit, Offset},
    frame::{Frame, tag},
};
use vmoon_sys::random;

/// A session that was attached to, and what came before it was known how it stands.
pub(super) struct Attached {
    pub(super) reader: ChannelReadHalf,
    pub(super) writer: ChannelWriteHalf<Msg>,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) connection: Connection,
    pub(super) envelope: Envelope,
    pub(super) lease: String,
    pub(super) state: State,
    pub(super) gap: Option<Offset>,
    pub(super) early: Vec<u8>,
    pub(super) letters: Vec<u8>,
    pub(super) ended: Option<Exit>,
}

/// Attaches to the life in `dir`; `None` if there is none.
pub(super) async fn attach(connection: &Connection, dir: &str, lua: &str, from: Offset) -> Result<Option<Attached>> {
    let lease = random::key()[..24].to_owned();
    let session = connection.session().await?;
    let line = script(ATTACH, &[dir, &lease, &from.to_string(), lua, RELAY, FOLLOW]);
    let (reader, writer) = session.channel.split();
    let lost = |error: russh::Error| connection.lost().source(error);
    let mut this = Attached {
        reader,
        writer,
        permit: session.permit,
        connection: connection.clone(),
        envelope: Envelope::default(),
        lease,
        state: State::default(),
        gap: None,
        early: Vec::new(),
        letters: Vec::new(),
        ended: None,
    };
    let exchange = async {
        this.writer.exec(true, line).await.map_err(lost)?;
        this.greet().await
    };
    match timeout(ANSWER, exchange).await {
        Ok(Ok(true)) => Ok(Some(this)),
        Ok(Ok(false)) => Ok(None),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::new(
            Code::DriverUnreachable,
            format!("the session on {} did not answer within {} s", connection.name(), ANSWER.as_secs()),
        )),
    }
}

impl Attached {
    /// Waits until it is known how the session stands: it runs a command, or it has answered us and so obeys nobody else's line any more.
    async fn greet(&mut self) -> Result<bool> {
        let mut greeted = false;
        let mut said = Vec::new();
        loop {
            let mut asks = false;
            while let Some(piece) = self.envelope.next()? {
                match piece {
                    Piece::None => return Ok(false),
                    Piece::BadOffset => return Err(Error::new(Code::WireMalformed, "the session's stream has no frame at that offset")),
                    Piece::Hello(state) => (self.state, greeted, asks) = (state, true, true),
                    Piece::Gap(at) => self.gap = Some(at),
                    Piece::Stream(bytes) => self.early.extend_from_slice(bytes),
                    Piece::Letters(bytes) => self.letters.extend_from_slice(bytes),
                    Piece::Ended(exit) => self.ended = Some(exit),
                }
            }
            if asks {
                // Also ends what an interrupt of an older connection may have left half done.
                let line = format!("H {} .\n", self.lease);
                self.writer.data_bytes(line.into_bytes()).await.map_err(|error| self.connection.lost().source(error))?;
            }
            let mut state = self.state;
            wire::frames(&self.early, |frame| {
                if frame.tag == tag::ACCEPTED && frame.id > state.last {
                    (state.last, state.running) = (frame.id, frame.id);
                }
            })?;
            self.state = state;
            let mut answered = false;
            let mut used = 0;
            while let Ok(Some((frame, n))) = Frame::decode(&self.letters[used..]) {
                used += n;
                if frame.tag == b's'
                    && let Some(state) = wire::status(frame.payload)
                {
                    (self.state, answered) = (State { left: None, ..state }, true);
                }
            }
            self.letters.drain(..used);
            if greeted && (self.state.running != 0 || answered || self.ended.is_some()) {
                return Ok(true);
            }
            match self.reader.wait().await {
                Some(ChannelMsg::Data { data }) => self.envelope.push(&data),
                Some(ChannelMsg::ExtendedData { data, .. }) => said.extend_from_slice(&data[..data.len().min(1_000)]),
                Some(_) => {}
                None => {
                    let said = String::from_utf8_lossy(&said[..said.len().min(300)]).trim().escape_debug().to_string();
                    let error = if self.connection.is_closed() {
                        self.connection.lost()
                    } else {
                        Error::new(Code::DriverUnreachable, format!("the session on {} hung up: {said}", self.connection.name()))
                    };
                    return Err(error);
                }
            }
        }
    }
}
