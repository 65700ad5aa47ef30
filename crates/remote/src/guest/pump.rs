//! The task behind an attached session's link: it owns the SSH channel, holds commands back until their turn, keeps deadlines, and hands
//! over what the session says.

use super::{
    Guest,
    attach::Attached,
    inputs::Inputs,
    link::{Item, Order, link},
    wire::{self, Piece, State},
};
use crate::connect::ANSWER;
use russh::ChannelMsg;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::PoisonError,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use vmoon_core::{
    Code, Error, Result,
    codes::Retry,
    driver::{Exit, Offset, SessionLink},
    frame::{Eval, Frame, MAX_OFFSET, tag},
};
use vmoon_lua_wire::text;

/// What may wait between the link and this task, in items.
const QUEUE: usize = 64;
/// How soon it is asked whether a command is accepted, and how long that pauses at most.
const ASK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// So much of the stream is held for a slow reader before the host is made to wait, bytes.
const HELD: usize = 4 << 20;
/// So much of the stream is handed over at once, and what is left of a frame, bytes.
const ITEM: u64 = 128 << 10;
/// How long a command may go on after it was interrupted.
const GRACE: Duration = Duration::from_secs(5);
/// How often an interrupt is repeated until then, where that is safe.
const REPEAT: Duration = Duration::from_millis(250);
/// How often a quiet session's process is looked at.
const PULSE: Duration = Duration::from_secs(20);
/// The host is told of what is stored after so many bytes.
const ACK_EVERY: u64 = 256 << 10;
/// How many commands and how many bytes of them may wait for their turn.
const MAX_QUEUE: (usize, usize) = (1_024, 64 << 20);
/// Questions are numbered from here: above all commands, and a whole number in every Lua, which the daemon's own numbers are not.
const QUESTIONS: u64 = 1 << 40;
/// How long a line may take to leave.
const SEND: Duration = Duration::from_secs(30);

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
                tag::EVAL | tag::CALL | tag::IS_COMPLETE | tag::COMPLETE | tag::QUIT => match guest.begin(life, Some(&order)).await {
                    Ok((attached, sent)) => {
                        let mut pump = Pump::new(guest, life, 0, attached);
                        let first = if sent { pump.sent.replace(order) } else { Some(order) };
                        return pump.serve(first, taken, items).await;
                    }
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

struct Pump {
    guest: Guest,
    life: u64,
    attached: Attached,
    state: State,
    /// Commands that wait for their turn.
    queue: VecDeque<Order>,
    /// The one that was sent and is not accepted yet.
    sent: Option<Order>,
    /// Questions that are not answered yet, each with its number there.
    asks: Vec<(u64, Order)>,
    asked: u64,
    /// Commands to interrupt as soon as they run.
    cut: BTreeSet<u64>,
    /// When to ask whether what was sent is accepted: the session says so by itself only together with what comes of it. And how long to wait then.
    ask: Option<(Instant, Duration)>,
    deadline: Option<Instant>,
    grace: Option<Instant>,
    /// When to interrupt once more, and why.
    repeat: Option<(Instant, char)>,
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
            asked: QUESTIONS,
            cut: BTreeSet::new(),
            ask: None,
            deadline,
            grace: None,
            repeat: None,
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
        self.inputs().begin(self.life);
        if let Some(gap) = self.attached.gap.take() {
            self.gap(gap);
        }
        self.stream(&[])?;
        // What was sent along with the program of a new life has arrived, if that has; it may be over by now.
        match &self.sent {
            Some(sent) if sent.id <= self.state.last => self.sent = None,
            Some(_) => self.ask_again(),
            None => self.reconcile(self.state).await?,
        }
        if let Some(exit) = self.attached.ended.take() {
            self.end(exit);
        }
        if let Some(order) = first {
            self.order(order).await?;
        }
        while !self.over {
            let timer = [self.ask.map(|(at, _)| at), self.deadline, self.grace, self.repeat.map(|(at, _)| at), Some(self.pulse)]
                .into_iter()
                .flatten()
                .min();
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
        if let Some((_, pause)) = self.ask.filter(|(at, _)| *at <= now) {
            self.ask = Some((now + pause, (pause * 2).min(ASK.1)));
            self.control("R").await?;
        }
        if self.deadline.is_some_and(|at| at <= now) {
            self.deadline = None;
            self.interrupt('d').await?;
        }
        if self.grace.is_some_and(|at| at <= now) {
            (self.grace, self.repeat) = (None, None);
            self.control("K did_not_yield").await?;
        }
        if let Some((_, kind)) = self.repeat.filter(|(at, _)| *at <= now) {
            self.repeat = Some((now + REPEAT, kind));
            self.control(&format!("J {} {kind}", self.state.running)).await?;
        }
        if self.pulse <= now {
            self.pulse = now + PULSE;
            self.control("P").await?;
        }
        Ok(())
    }

    /// A command was sent.
    fn ask_again(&mut self) {
        self.ask = Some((Instant::now() + ASK.0, ASK.0));
    }

    async fn interrupt(&mut self, kind: char) -> Result<()> {
        self.grace.get_or_insert(Instant::now() + GRACE);
        self.repeat.get_or_insert((Instant::now() + REPEAT / 10, kind));
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
                self.asked += 1;
                self.line(order.tag, self.asked, &order.payload).await?;
                self.asks.push((self.asked, order));
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
        self.ask_again();
        Ok(())
    }

    /// Gives a program that waits for input the next piece.
    async fn feed(&mut self) -> Result<()> {
        let piece = {
            let mut inputs = self.inputs();
            if !self.state.waiting || inputs.sent == Some(self.state.waits) {
                return Ok(());
            }
            let Some(piece) = inputs.first() else { return Ok(()) };
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
                Piece::None | Piece::NotBegun | Piece::Hello(_) | Piece::BadOffset => {
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
        // What was read while it was not known yet how the session stands may be megabytes: it is handed over as anything else.
        let mut cuts: Vec<Offset> = Vec::new();
        let used = wire::frames(&part, |frame| {
            if at >= self.state.known {
                self.heard(frame);
            }
            if at - cuts.last().copied().unwrap_or(self.at) >= ITEM {
                cuts.push(at);
            }
            at += frame.stream_len();
        })?;
        if used == 0 {
            self.part = part;
            return Ok(());
        }
        self.part = part.split_off(used);
        let mut late = Vec::new();
        if self.at + used as u64 > MAX_OFFSET {
            return Err(Error::new(Code::WireMalformed, "the session speaks of a stream longer than any can be"));
        }
        self.held += used;
        let (begin, end) = (self.at, self.at + used as u64);
        for cut in cuts.into_iter().rev() {
            let frames = part.split_off((cut - begin) as usize);
            late.push(Item::Stream { at: cut, frames });
        }
        self.out.push_back(Item::Stream { at: begin, frames: part });
        self.out.extend(late.into_iter().rev());
        self.at = end;
        Ok(())
    }

    /// Follows what a new frame of the stream means for the session.
    fn heard(&mut self, frame: Frame<'_>) {
        match frame.tag {
            tag::ACCEPTED => {
                (self.state.last, self.state.running) = (self.state.last.max(frame.id), frame.id);
                self.sent = self.sent.take().filter(|sent| sent.id > frame.id);
                self.ask = self.ask.filter(|_| self.sent.is_some());
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
                (self.deadline, self.grace, self.repeat) = (None, None, None);
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
                        tag::COMPLETENESS => {
                            if let Some(id) = self.answered(frame.id) {
                                self.direct(frame.tag, id, frame.payload);
                            }
                        }
                        tag::NAMES => {
                            if let Some(id) = self.answered(frame.id) {
                                self.names(id, frame.payload);
                            }
                        }
                        _ => {}
                    }
                }
                Err(error) => return Err(Error::new(Code::WireMalformed, "the session's answers are damaged").source(error)),
            }
        }
        self.letters = letters[used..].to_vec();
        Ok(())
    }

    /// The question that is answered by this number, if we have asked it: its own number.
    fn answered(&mut self, number: u64) -> Option<u64> {
        let at = self.asks.iter().position(|(asked, _)| *asked == number)?;
        Some(self.asks.swap_remove(at).1.id)
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
        for (number, ask) in self.asks.clone() {
            self.line(ask.tag, number, &ask.payload).await?;
        }
        let again = {
            let mut inputs = self.inputs();
            match inputs.sent {
                Some(waits) if there.waiting && waits == there.waits => inputs.first(),
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
