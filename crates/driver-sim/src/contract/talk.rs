//! A conversation with a repl: what the rules about channels share. It checks with every frame that the stream has no hole.

use super::{PATIENCE, Subject, fine};
use vmoon_core::{
    Result,
    driver::{Channel, Driver, Exit, Handle, LinkItem, LinkReader, LinkWriter, Offset},
    frame::{Eval, Frame, tag},
};

/// A frame that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// Where it begins in the stream.
    pub(super) at: Offset,
    pub(super) tag: u8,
    pub(super) id: u64,
    pub(super) payload: Vec<u8>,
}

impl Heard {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

pub(super) struct Talk {
    pub(super) channel: Channel,
    reader: Box<dyn LinkReader>,
    writer: Box<dyn LinkWriter>,
    /// The number of the last command sent or accepted before.
    pub(super) last: u64,
    /// Where the next frame begins.
    pub(super) at: Offset,
    pub(super) frames: Vec<Heard>,
    pub(super) direct: Vec<Heard>,
    pub(super) ended: Option<Exit>,
    buf: Vec<u8>,
}

/// Reads and forgets until the channel's end.
pub(super) async fn read_to_the_end(reader: &mut dyn LinkReader) -> Exit {
    let mut buf = Vec::new();
    loop {
        match fine("waiting for the channel's end", reader.next(&mut buf)).await {
            LinkItem::Ended(exit) => return exit,
            LinkItem::Broken => panic!("the link broke instead of telling the end"),
            LinkItem::Stream { .. } | LinkItem::Direct => {}
        }
    }
}

impl Talk {
    /// Opens the repl of a machine that runs, if its kind has one.
    pub(super) async fn open(subject: &Subject, from: Offset) -> Option<Self> {
        let channel = subject.repl().await?;
        Some(fine("open", Self::open_channel(&*subject.driver, &subject.handle, &channel, from)).await)
    }

    pub(super) async fn open_channel(driver: &dyn Driver, handle: &Handle, channel: &Channel, from: Offset) -> Result<Self> {
        let link = driver.open(handle, channel, from).await?;
        Ok(Self {
            channel: channel.clone(),
            reader: link.reader,
            writer: link.writer,
            last: link.last_command,
            at: from,
            frames: Vec::new(),
            direct: Vec::new(),
            ended: None,
            buf: Vec::new(),
        })
    }

    pub(super) async fn send(&mut self, tag: u8, id: u64, payload: &[u8]) {
        fine("send", self.writer.send(Frame { tag, id, payload })).await;
    }

    pub(super) async fn eval(&mut self, code: &str) -> u64 {
        self.eval_within(code, 0).await
    }

    /// Sends a chunk with a deadline in milliseconds, 0 for none; gives its number.
    pub(super) async fn eval_within(&mut self, code: &str, deadline_ms: u32) -> u64 {
        self.last += 1;
        let eval = Eval { deadline_ms, token: b"contract", code: code.as_bytes() }.to_vec();
        self.send(tag::EVAL, self.last, &eval).await;
        self.last
    }

    /// Everything up to here is stored.
    pub(super) async fn ack(&mut self, to: Offset) {
        self.send(tag::ACK, 0, &to.to_le_bytes()).await;
    }

    /// Reads one item.
    pub(super) async fn read(&mut self) {
        let item = match tokio::time::timeout(PATIENCE, self.reader.next(&mut self.buf)).await {
            Ok(Ok(item)) => item,
            Ok(Err(error)) => panic!("reading failed: {}", error.chain()),
            Err(_) => panic!("nothing came for {PATIENCE:?}; so far: {:?}", self.tail()),
        };
        self.take(item);
    }

    /// Begins to read, gives up at once if nothing is there, and then reads.
    pub(super) async fn read_with_a_false_start(&mut self) {
        match tokio::time::timeout(std::time::Duration::ZERO, self.reader.next(&mut self.buf)).await {
            Ok(Ok(item)) => self.take(item),
            Ok(Err(error)) => panic!("reading failed: {}", error.chain()),
            Err(_) => self.read().await,
        }
    }

    fn take(&mut self, item: LinkItem) {
        let direct = match item {
            LinkItem::Stream { at } => {
                assert_eq!(at, self.at, "a hole or a repetition in the stream; so far: {:?}", self.tail());
                false
            }
            LinkItem::Direct => true,
            LinkItem::Ended(exit) => {
                self.ended = Some(exit);
                return;
            }
            LinkItem::Broken => panic!("the link broke; so far: {:?}", self.tail()),
        };
        let mut rest = &self.buf[..];
        assert!(!rest.is_empty(), "an item without a frame");
        while !rest.is_empty() {
            let (frame, len) = match Frame::decode(rest) {
                Ok(Some(found)) => found,
                other => panic!("not whole frames: {other:?}"),
            };
            rest = &rest[len..];
            let heard = Heard { at: self.at, tag: frame.tag, id: frame.id, payload: frame.payload.to_vec() };
            if direct {
                assert_eq!(frame.stream_len(), 0, "a stream frame as a direct one: {heard:?}");
                self.direct.push(heard);
                assert!(rest.is_empty(), "one direct frame at a time");
            } else {
                assert!(frame.stream_len() > 0, "a direct frame in the stream: {heard:?}");
                self.at += frame.stream_len();
                self.frames.push(heard);
            }
        }
    }

    fn tail(&self) -> &[Heard] {
        &self.frames[self.frames.len().saturating_sub(8)..]
    }

    /// Reads until a stream frame fits, also one that was read before.
    pub(super) async fn wait_for(&mut self, what: &str, fits: impl Fn(&Heard) -> bool) -> Heard {
        loop {
            if let Some(heard) = self.frames.iter().find(|heard| fits(heard)) {
                return heard.clone();
            }
            assert!(self.ended.is_none(), "the channel ended while waiting for {what}: {:?}", self.tail());
            self.read().await;
        }
    }

    /// Reads until a direct frame came, and takes it.
    pub(super) async fn wait_for_direct(&mut self) -> Heard {
        while self.direct.is_empty() {
            assert!(self.ended.is_none(), "the channel ended instead of answering");
            self.read().await;
        }
        self.direct.remove(0)
    }

    /// Waits until that command is done, and gives its frames: ACCEPTED first, DONE last.
    pub(super) async fn done(&mut self, id: u64) -> Vec<Heard> {
        self.wait_for("the end of a command", |heard| heard.tag == tag::DONE && heard.id == id).await;
        self.of(id)
    }

    /// The frames of that command so far.
    pub(super) fn of(&self, id: u64) -> Vec<Heard> {
        self.frames.iter().filter(|heard| heard.id == id).cloned().collect()
    }

    /// Runs a chunk to its end.
    pub(super) async fn run(&mut self, code: &str) -> Vec<Heard> {
        let id = self.eval(code).await;
        self.done(id).await
    }

    /// Reads until the channel's end.
    pub(super) async fn read_out(&mut self) -> Exit {
        loop {
            if let Some(exit) = &self.ended {
                return exit.clone();
            }
            self.read().await;
        }
    }
}

/// What a command wrote to standard output.
pub(super) fn stdout(frames: &[Heard]) -> String {
    frames.iter().filter(|heard| heard.tag == tag::STDOUT).map(Heard::text).collect()
}

/// The one frame of that tag.
pub(super) fn only(frames: &[Heard], tag: u8) -> &Heard {
    let mut all = frames.iter().filter(|heard| heard.tag == tag);
    match (all.next(), all.next()) {
        (Some(one), None) => one,
        _ => panic!("not exactly one '{}' in {frames:?}", tag as char),
    }
}
