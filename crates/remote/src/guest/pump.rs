//! The task behind an attached session's link: it owns the SSH channel, holds commands back until their turn, keeps deadlines, and hands
//! over what the session says.

use super::{
    ATTACH, FOLLOW, Guest, RELAY, script,
    wire::{self, Envelope, Piece, State},
};
use crate::{Connection, connect::ANSWER};
use async_trait::async_trait;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client::Msg};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::PoisonError,
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, sleep_until, timeout},
};
use vmoon_core::{
    Code, Error, Result,
    codes::Retry,
    driver::{Exit, LinkItem, LinkReader, LinkWriter, Offset, SessionLink},
    frame::{Eval, Frame, MAX_OFFSET, tag},
};
use vmoon_lua_wire::text;
use vmoon_sys::random;

/// What may wait between the link and this task, in items.
const QUEUE: usize = 64;
/// So much of the stream is held for a slow reader before the host is made to wait, bytes.
const HELD: usize = 4 << 20;
/// How long a command may go on after it was interrupted.
const GRACE: Duration = Duration::from_secs(5);
/// How often a quiet session's process is looked at.
const PULSE: Duration = Duration::from_secs(20);
/// The host is told of what is stored after so many bytes.
const ACK_EVERY: u64 = 256 << 10;
/// How many commands and how many bytes of them may wait for their turn.
const MAX_QUEUE: (usize, usize) = (1_024, 64 << 20);
/// How much input may wait for a program to ask for it, bytes.
const MAX_INPUT: usize = 16 << 20;
/// How long a line may take to leave.
const SEND: Duration = Duration::from_secs(30);

/// A frame on its way to the session.
#[derive(Clone, Debug)]
struct Order {
    tag: u8,
    id: u64,
    payload: Vec<u8>,
}

/// What is handed over.
enum Item {
    Stream { at: Offset, frames: Vec<u8> },
    Direct(Vec<u8>),
    Ended(Exit),
    Failed(Error),
    Broken,
}

/// Input of programs. It outlives a connection: what was sent and did not arrive is sent again.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    life: u64,
    waiting: VecDeque<(u8, Vec<u8>)>,
    bytes: usize,
    /// The first of them was sent as the answer to this question.
    sent: Option<u64>,
}

impl Inputs {
    /// Takes a piece in, if there is room.
    fn add(&mut self, tag: u8, data: Vec<u8>) -> bool {
        let fits = self.bytes + data.len() <= MAX_INPUT && self.waiting.len() < MAX_QUEUE.0;
        if fits {
            self.bytes += data.len();
            self.waiting.push_back((tag, data));
        }
        fits
    }

    /// The first one has arrived.
    fn arrived(&mut self) {
        if self.sent.take().is_some()
            && let Some((_, data)) = self.waiting.pop_front()
        {
            self.bytes -= data.len();
        }
    }

    fn clear(&mut self) {
        *self = Self { life: self.life, ..Self::default() };
    }
}

/// A session that was attached to, and what came before it was known how it stands.
pub(super) struct Attached {
    reader: ChannelReadHalf,
    writer: ChannelWriteHalf<Msg>,
    permit: OwnedSemaphorePermit,
    connection: Connection,
    envelope: Envelope,
    lease: String,
    state: State,
    gap: Option<Offset>,
    early: Vec<u8>,
    letters: Vec<u8>,
    ended: Option<Exit>,
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

/// A link whose life begins with its first command.
pub(super) fn lazy(guest: Guest, life: u64) -> SessionLink {
    let (orders, mut taken) = mpsc::channel::<Order>(QUEUE);
    let (items, delivered) = mpsc::channel(QUEUE);
    drop(tokio::spawn(async move {
        while let Some(order) = taken.recv().await {
            let refused = |code: Code, message: &str| {
                Item::Direct(Frame { tag: tag::REFUSED, id: order.id, payload: format!("{code}\n{message}").as_bytes() }.to_vec())
            };
            let answer = match order.tag {
                tag::EVAL | tag::CALL | tag::IS_COMPLETE | tag::COMPLETE | tag::QUIT => match guest.begin(life).await {
                    Ok(attached) => return Pump::new(guest, life, 0, attached).serve(Some(order), taken, items).await,
                    Err(error) if error.code().retry() == Retry::Later => Item::Failed(error),
                    Err(error) => refused(error.code(), &error.chain()),
                },
                tag::INPUT | tag::INPUT_END => refused(Code::SessionNotWaiting, "no command runs"),
                _ => continue,
            };
            if items.send(answer).await.is_err() {
                return;
            }
        }
    }));
    link(State::default(), 0, orders, delivered)
}

/// A link to a session that was attached to at this offset.
pub(super) fn running(guest: Guest, life: u64, from: Offset, attached: Attached) -> SessionLink {
    let (orders, taken) = mpsc::channel(QUEUE);
    let (items, delivered) = mpsc::channel(QUEUE);
    let state = attached.state;
    let pump = Pump::new(guest, life, from, attached);
    drop(tokio::spawn(pump.serve(None, taken, items)));
    link(state, from, orders, delivered)
}

fn link(state: State, from: Offset, orders: mpsc::Sender<Order>, items: mpsc::Receiver<Item>) -> SessionLink {
    SessionLink {
        reader: Box::new(Reader { items }),
        writer: Box::new(Writer { orders }),
        end: state.end.max(from),
        last_command: state.last,
        running: (state.running != 0).then_some(state.running),
        queued: 0,
        waiting_input: state.waiting,
    }
}

struct Pump {
    guest: Guest,
    life: u64,
    attached: Attached,
    state: State,
    /// Commands that wait for their turn.
    queue: VecDeque<Order>,
    /// The one that was sent and is not accepted yet.
    sent: Option<Order>,
    /// Questions that are not answered yet.
    asks: Vec<Order>,
    /// Commands to interrupt as soon as they run.
    cut: BTreeSet<u64>,
    deadline: Option<Instant>,
    grace: Option<Instant>,
    pulse: Instant,
    acked: (Offset, Offset),
    /// The stream up to here was handed over; `part` is what came after it, not yet a whole frame.
    at: Offset,
    part: Vec<u8>,
    letters: Vec<u8>,
    out: VecDeque<Item>,
    held: usize,
    over: bool,
}

impl Pump {
    fn new(guest: Guest, life: u64, from: Offset, mut attached: Attached) -> Self {
        let state = attached.state;
        let (part, letters) = (std::mem::take(&mut attached.early), std::mem::take(&mut attached.letters));
        let deadline = state.left.filter(|_| state.running != 0).map(|left| Instant::now() + Duration::from_secs(left));
        Self {
            guest,
            life,
            attached,
            state,
            queue: VecDeque::new(),
            sent: None,
            asks: Vec::new(),
            cut: BTreeSet::new(),
            deadline,
            grace: None,
            pulse: Instant::now() + PULSE,
            acked: (0, 0),
            at: from,
            part,
            letters,
            out: VecDeque::new(),
            held: 0,
            over: false,
        }
    }

    async fn serve(mut self, first: Option<Order>, mut orders: mpsc::Receiver<Order>, items: mpsc::Sender<Item>) {
        if let Err(error) = self.run(first, &mut orders, &items).await {
            self.out.push_back(Item::Failed(error));
        }
        // The link is told of the end only after everything else.
        drop(orders);
        while let Some(item) = self.out.pop_front() {
            if items.send(item).await.is_err() {
                break;
            }
        }
        let _ = timeout(ANSWER, self.attached.writer.close()).await;
        drop(self.attached.permit);
    }

    async fn run(&mut self, first: Option<Order>, orders: &mut mpsc::Receiver<Order>, items: &mpsc::Sender<Item>) -> Result<()> {
        {
            let mut inputs = self.inputs();
            if inputs.life != self.life {
                *inputs = Inputs { life: self.life, ..Inputs::default() };
            }
        }
        if let Some(gap) = self.attached.gap.take() {
            self.gap(gap);
        }
        self.stream(&[])?;
        self.reconcile(self.state).await?;
        if let Some(exit) = self.attached.ended.take() {
            self.end(exit);
        }
        if let Some(order) = first {
            self.order(order).await?;
        }
        while !self.over {
            let timer = [self.deadline, self.grace, Some(self.pulse)].into_iter().flatten().min();
            let timer = timer.unwrap_or(self.pulse);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.order(order).await?,
                    // Nobody listens any more.
                    None => {
                        self.out.clear();
                        return Ok(());
                    }
                },
                msg = self.attached.reader.wait(), if self.held < HELD => match msg {
                    Some(ChannelMsg::Data { data }) => {
                        self.attached.envelope.push(&data);
                        self.pieces().await?;
                    }
                    Some(ChannelMsg::ExtendedData { data, .. }) => {
                        tracing::warn!(host = self.attached.connection.name(), said = %data[..data.len().min(300)].escape_ascii(), "a session's programs complain");
                    }
                    Some(_) => {}
                    None => {
                        self.out.push_back(Item::Broken);
                        return Ok(());
                    }
                },
                permit = items.reserve(), if !self.out.is_empty() => match permit {
                    Ok(permit) => if let Some(item) = self.out.pop_front() {
                        if let Item::Stream { frames, .. } = &item {
                            self.held -= frames.len();
                        }
                        permit.send(item);
                    },
                    Err(_) => return Ok(()),
                },
                () = sleep_until(timer) => self.ring().await?,
            }
        }
        Ok(())
    }

    fn inputs(&self) -> std::sync::MutexGuard<'_, Inputs> {
        self.guest.0.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, bytes: Vec<u8>) -> Result<()> {
        let lost = || self.attached.connection.lost();
        match timeout(SEND, self.attached.writer.data_bytes(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(lost().source(error)),
            Err(_) => Err(Error::new(Code::DriverUnreachable, "the session takes nothing in")),
        }
    }

    async fn line(&self, tag: u8, id: u64, payload: &[u8]) -> Result<()> {
        let mut bytes = Vec::with_capacity(payload.len() / 3 * 4 + 96);
        wire::line(&self.attached.lease, tag, id, payload, &mut bytes);
        self.write(bytes).await
    }

    async fn control(&self, words: &str) -> Result<()> {
        self.write(format!(". {words} .\n").into_bytes()).await
    }

    /// A timer has run out.
    async fn ring(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.deadline.is_some_and(|at| at <= now) {
            self.deadline = None;
            self.interrupt('d').await?;
        }
        if self.grace.is_some_and(|at| at <= now) {
            self.grace = None;
            self.control("K did_not_yield").await?;
        }
        if self.pulse <= now {
            self.pulse = now + PULSE;
            self.control("P").await?;
        }
        Ok(())
    }

    async fn interrupt(&mut self, kind: char) -> Result<()> {
        self.grace.get_or_insert(Instant::now() + GRACE);
        self.control(&format!("I {} {kind}", self.state.running)).await
    }

    fn refuse(&mut self, id: u64, code: Code, message: &str) {
        self.direct(tag::REFUSED, id, format!("{code}\n{message}").as_bytes());
    }

    fn direct(&mut self, tag: u8, id: u64, payload: &[u8]) {
        self.out.push_back(Item::Direct(Frame { tag, id, payload }.to_vec()));
    }

    fn busy(&self) -> bool {
        self.state.running != 0 || self.sent.is_some() || !self.queue.is_empty()
    }

    async fn order(&mut self, order: Order) -> Result<()> {
        match order.tag {
            tag::EVAL | tag::CALL => {
                let known = order.id <= self.state.last || self.sent.iter().chain(&self.queue).any(|other| other.id >= order.id);
                let waiting: usize = self.queue.iter().map(|other| other.payload.len()).sum();
                if self.queue.len() >= MAX_QUEUE.0 || waiting + order.payload.len() > MAX_QUEUE.1 {
                    self.refuse(order.id, Code::SessionQueueFull, "1024 commands or 64 MiB of code wait already");
                } else if !known {
                    self.queue.push_back(order);
                    self.next().await?;
                }
            }
            tag::INPUT | tag::INPUT_END => {
                let busy = self.busy();
                let full = busy && !self.inputs().add(order.tag, order.payload);
                match (busy, full) {
                    (false, _) => self.refuse(order.id, Code::SessionNotWaiting, "no command runs"),
                    (true, true) => self.refuse(order.id, Code::SessionQueueFull, "16 MiB of input wait already"),
                    (true, false) => self.feed().await?,
                }
            }
            tag::IS_COMPLETE if self.busy() => self.direct(tag::COMPLETENESS, order.id, b"b"),
            tag::COMPLETE if self.busy() => self.names(order.id, b"busy"),
            tag::IS_COMPLETE | tag::COMPLETE => {
                self.line(order.tag, order.id, &order.payload).await?;
                self.asks.push(order);
            }
            tag::INTERRUPT => {
                let meant = match order.id {
                    0 if self.state.running != 0 => self.state.running,
                    0 => self.sent.as_ref().map_or(0, |sent| sent.id),
                    id => id,
                };
                if meant != 0 && meant == self.state.running {
                    self.interrupt('i').await?;
                } else if self.sent.iter().chain(&self.queue).any(|other| other.id == meant) {
                    self.cut.insert(meant);
                }
            }
            tag::ACK => {
                if let Some(at) = order.payload.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)).filter(|at| *at <= MAX_OFFSET) {
                    self.acked.0 = self.acked.0.max(at);
                }
                if self.acked.0 - self.acked.1 >= ACK_EVERY {
                    self.acked.1 = self.acked.0;
                    self.control(&format!("A {}", self.acked.0)).await?;
                }
            }
            tag::QUIT => self.line(tag::QUIT, 0, b"").await?,
            _ => {}
        }
        Ok(())
    }

    /// Sends the next command if it is its turn.
    async fn next(&mut self) -> Result<()> {
        if self.state.running != 0 || self.sent.is_some() {
            return Ok(());
        }
        let Some(order) = self.queue.pop_front() else { return Ok(()) };
        if self.cut.remove(&order.id) {
            // It is accepted and answered there, and never runs.
            let eval = match order.tag {
                tag::CALL => vmoon_core::frame::Call::decode(&order.payload).map_or(Vec::new(), |call| call.eval.to_vec()),
                _ => order.payload.clone(),
            };
            self.line(b'U', order.id, &eval).await?;
            self.sent = Some(Order { tag: b'U', id: order.id, payload: eval });
        } else {
            self.line(order.tag, order.id, &order.payload).await?;
            self.sent = Some(order);
        }
        Ok(())
    }

    /// Gives a program that waits for input the next piece.
    async fn feed(&mut self) -> Result<()> {
        let piece = {
            let mut inputs = self.inputs();
            if !self.state.waiting || inputs.sent == Some(self.state.waits) {
                return Ok(());
            }
            let Some(piece) = inputs.waiting.front().cloned() else { return Ok(()) };
            inputs.sent = Some(self.state.waits);
            piece
        };
        self.line(piece.0, self.state.waits, &piece.1).await
    }

    async fn pieces(&mut self) -> Result<()> {
        let mut envelope = std::mem::take(&mut self.attached.envelope);
        while let Some(piece) = envelope.next()? {
            match piece {
                Piece::Stream(bytes) => self.stream(bytes)?,
                Piece::Letters(bytes) => self.letters.extend_from_slice(bytes),
                Piece::Gap(at) => self.gap(at),
                Piece::Ended(exit) => self.end(exit),
                Piece::None | Piece::Hello(_) | Piece::BadOffset => {
                    return Err(Error::new(Code::WireMalformed, "the session's host greets twice"));
                }
            }
        }
        self.attached.envelope = envelope;
        self.read_letters().await?;
        if self.cut.remove(&self.state.running) {
            self.interrupt('i').await?;
        }
        self.feed().await?;
        self.next().await
    }

    fn end(&mut self, exit: Exit) {
        self.out.push_back(Item::Ended(exit));
        self.over = true;
    }

    fn gap(&mut self, to: Offset) {
        if to > self.at {
            let frames = Frame { tag: tag::GAP, id: 0, payload: &(to - self.at).to_le_bytes() }.to_vec();
            self.held += frames.len();
            self.out.push_back(Item::Stream { at: self.at, frames });
            self.at = to;
        }
    }

    fn stream(&mut self, bytes: &[u8]) -> Result<()> {
        let mut part = std::mem::take(&mut self.part);
        part.extend_from_slice(bytes);
        let mut at = self.at;
        let used = wire::frames(&part, |frame| {
            if at >= self.state.known {
                self.heard(frame);
            }
            at += frame.stream_len();
        })?;
        if used == 0 {
            self.part = part;
            return Ok(());
        }
        self.part = part.split_off(used);
        if self.at + used as u64 > MAX_OFFSET {
            return Err(Error::new(Code::WireMalformed, "the session speaks of a stream longer than any can be"));
        }
        self.held += used;
        self.out.push_back(Item::Stream { at: self.at, frames: part });
        self.at += used as u64;
        Ok(())
    }

    /// Follows what a new frame of the stream means for the session.
    fn heard(&mut self, frame: Frame<'_>) {
        match frame.tag {
            tag::ACCEPTED => {
                (self.state.last, self.state.running) = (self.state.last.max(frame.id), frame.id);
                self.sent = self.sent.take().filter(|sent| sent.id > frame.id);
                let limit = Eval::decode(frame.payload).map_or(0, |eval| eval.deadline_ms);
                self.deadline = (limit > 0).then(|| Instant::now() + Duration::from_millis(limit.into()));
            }
            tag::WANTS_INPUT => {
                self.inputs().arrived();
                self.state.waits += 1;
                self.state.waiting = true;
            }
            tag::DONE if frame.id == self.state.running => {
                (self.state.running, self.state.waiting) = (0, false);
                (self.deadline, self.grace) = (None, None);
                self.cut.remove(&frame.id);
                self.inputs().clear();
            }
            _ => {}
        }
    }

    async fn read_letters(&mut self) -> Result<()> {
        let letters = std::mem::take(&mut self.letters);
        let mut used = 0;
        loop {
            match Frame::decode(&letters[used..]) {
                Ok(None) => break,
                Ok(Some((frame, n))) => {
                    used += n;
                    match frame.tag {
                        b's' => {
                            if let Some(state) = wire::status(frame.payload) {
                                self.reconcile(state).await?;
                            }
                        }
                        tag::COMPLETENESS if self.answered(frame.id) => self.direct(frame.tag, frame.id, frame.payload),
                        tag::NAMES if self.answered(frame.id) => self.names(frame.id, frame.payload),
                        _ => {}
                    }
                }
                Err(error) => return Err(Error::new(Code::WireMalformed, "the session's answers are damaged").source(error)),
            }
        }
        self.letters = letters[used..].to_vec();
        Ok(())
    }

    fn answered(&mut self, id: u64) -> bool {
        let before = self.asks.len();
        self.asks.retain(|ask| ask.id != id);
        self.asks.len() < before
    }

    fn names(&mut self, id: u64, payload: &[u8]) {
        let busy = payload == b"busy";
        let (from, names) = if busy { (1, Vec::new()) } else { text::names(payload) };
        let json = serde_json::json!({ "busy": busy, "from": from.max(1) - 1, "names": names }).to_string();
        self.direct(tag::NAMES, id, json.as_bytes());
    }

    /// The session has said how it stands: what it did not get is sent again. It knows what it has.
    async fn reconcile(&mut self, there: State) -> Result<()> {
        if let Some(sent) = self.sent.clone().filter(|sent| sent.id > there.last) {
            self.line(sent.tag, sent.id, &sent.payload).await?;
        }
        for ask in self.asks.clone() {
            self.line(ask.tag, ask.id, &ask.payload).await?;
        }
        let again = {
            let mut inputs = self.inputs();
            match inputs.sent {
                Some(waits) if there.waiting && waits == there.waits => inputs.waiting.front().cloned(),
                Some(_) => {
                    inputs.arrived();
                    None
                }
                None => None,
            }
        };
        if let Some((tag, data)) = again {
            self.line(tag, there.waits, &data).await?;
        }
        self.feed().await
    }
}

struct Reader {
    items: mpsc::Receiver<Item>,
}

#[async_trait]
impl LinkReader for Reader {
    async fn next(&mut self, buf: &mut Vec<u8>) -> Result<LinkItem> {
        match self.items.recv().await {
            Some(Item::Stream { at, frames }) => {
                *buf = frames;
                Ok(LinkItem::Stream { at })
            }
            Some(Item::Direct(frame)) => {
                *buf = frame;
                Ok(LinkItem::Direct)
            }
            Some(Item::Ended(exit)) => Ok(LinkItem::Ended(exit)),
            Some(Item::Failed(error)) => Err(error),
            Some(Item::Broken) | None => Ok(LinkItem::Broken),
        }
    }
}

struct Writer {
    orders: mpsc::Sender<Order>,
}

#[async_trait]
impl LinkWriter for Writer {
    async fn send(&mut self, frame: Frame<'_>) -> Result<()> {
        let order = Order { tag: frame.tag, id: frame.id, payload: frame.payload.to_vec() };
        self.orders.send(order).await.map_err(|_| Error::new(Code::DriverUnreachable, "the link to the session is broken"))
    }

    fn takes(&self, _: u8) -> bool {
        true
    }
}
