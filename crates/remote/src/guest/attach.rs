//! Attaching to a life of a session: the lease is taken, and it is known how the session stands before anybody sends it anything.

use super::{
    ATTACH, FOLLOW, READ, RELAY, lean, script,
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
    /// The server closed the channel before it said that anything has begun there.
    unbegun: bool,
}

/// Attaches to the life in `dir`; `None` if there is none.
pub(super) async fn attach(connection: &Connection, dir: &str, lua: &str, from: Offset) -> Result<Option<Attached>> {
    let mut attempt = 1;
    loop {
        let mut unbegun = false;
        let attached = attempt_to(connection, dir, lua, from, &mut unbegun).await;
        attempt += 1;
        if attached.is_ok() || !unbegun || !connection.is_worth(attempt) {
            return attached;
        }
    }
}

async fn attempt_to(connection: &Connection, dir: &str, lua: &str, from: Offset, unbegun: &mut bool) -> Result<Option<Attached>> {
    let lease = lease();
    let session = connection.session().await?;
    let line = script(&lean(ATTACH), &[dir, &lease, &from.to_string(), lua, READ, &lean(FOLLOW)]);
    let (reader, writer) = session.channel.split();
    let mut this = Attached::new(connection, (reader, writer, session.permit), lease);
    let exchange = async {
        this.writer.exec(true, line).await.map_err(|error| connection.lost().source(error))?;
        this.greet(dir, false).await
    };
    let there = in_time(connection, exchange).await;
    *unbegun = this.unbegun;
    Ok(there?.then_some(this))
}

/// A name for who may send a session lines.
pub(super) fn lease() -> String {
    random::key()[..24].to_owned()
}

/// What comes of this, if it comes soon.
pub(super) async fn in_time<T>(connection: &Connection, exchange: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(ANSWER, exchange).await.map_err(|_| {
        Error::new(Code::DriverUnreachable, format!("the session on {} did not answer within {} s", connection.name(), ANSWER.as_secs()))
    })?
}

impl Attached {
    /// One that was not greeted yet.
    pub(super) fn new(
        connection: &Connection,
        channel: (ChannelReadHalf, ChannelWriteHalf<Msg>, OwnedSemaphorePermit),
        lease: String,
    ) -> Self {
        let (reader, writer, permit) = channel;
        Self {
            reader,
            writer,
            permit,
            connection: connection.clone(),
            envelope: Envelope::default(),
            lease,
            state: State::default(),
            gap: None,
            early: Vec::new(),
            letters: Vec::new(),
            ended: None,
            unbegun: false,
        }
    }

    /// Waits until it is known how the session stands: it runs a command, or it has answered us and so obeys nobody else's line any more.
    /// One that is `new` obeys nobody else, and has got what relays lines already.
    pub(super) async fn greet(&mut self, dir: &str, new: bool) -> Result<bool> {
        let (mut greeted, mut relayed) = (false, new);
        let (mut said, mut how, mut begun) = (Vec::new(), String::new(), new);
        loop {
            let mut asks = false;
            while let Some(piece) = self.envelope.next()? {
                match piece {
                    Piece::None => return Ok(false),
                    Piece::NotBegun => {
                        let why = String::from_utf8_lossy(&said).trim().escape_debug().to_string();
                        let what = format!("{} could not begin a session in {dir}: {why}", self.connection.name());
                        return Err(Error::new(Code::DriverFailed, what)
                            .hint("the directory must be writable, on a file system with FIFOs and room"));
                    }
                    Piece::BadOffset => return Err(Error::new(Code::WireMalformed, "the session's stream has no frame at that offset")),
                    Piece::Hello(state) => (self.state, greeted, asks) = (state, true, true),
                    Piece::Gap(at) => self.gap = Some(at),
                    Piece::Stream(bytes) => self.early.extend_from_slice(bytes),
                    Piece::Letters(bytes) => self.letters.extend_from_slice(bytes),
                    Piece::Ended(exit) => self.ended = Some(exit),
                }
            }
            if asks && !new {
                // The program that relays lines comes before the first of them. That one also ends what an interrupt of an older connection may have left
                // half done.
                let relay = if relayed { String::new() } else { format!("{}\n{RELAY}", RELAY.len()) };
                relayed = true;
                let line = format!("{relay}H {} .\n", self.lease);
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
            if greeted && (new || self.state.running != 0 || answered || self.ended.is_some()) {
                return Ok(true);
            }
            let heard = self.reader.wait().await;
            begun |= !matches!(heard, None | Some(ChannelMsg::Eof | ChannelMsg::Close | ChannelMsg::WindowAdjusted { .. }));
            match heard {
                Some(ChannelMsg::Data { data }) => self.envelope.push(&data),
                Some(ChannelMsg::ExtendedData { data, .. }) => said.extend_from_slice(&data[..data.len().min(1_000)]),
                Some(ChannelMsg::ExitStatus { exit_status }) => how = format!(", status {exit_status}"),
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => how = format!(", signal {signal_name:?}"),
                Some(_) => {}
                None => {
                    self.unbegun = !begun;
                    let said = String::from_utf8_lossy(&said[..said.len().min(300)]).trim().escape_debug().to_string();
                    let error = if self.connection.is_closed() {
                        self.connection.lost()
                    } else {
                        Error::new(Code::DriverUnreachable, format!("the session on {} hung up{how}: {said}", self.connection.name()))
                    };
                    return Err(error);
                }
            }
        }
    }
}
