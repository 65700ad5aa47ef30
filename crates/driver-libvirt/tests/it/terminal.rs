//! A terminal at a machine's serial console, for tests.

use std::time::Duration;
use vmoon_core::{
    driver::{Channel, Driver, Exit, Handle, LinkItem, LinkReader, LinkWriter, Observed, Offset},
    frame::{Frame, tag},
};

/// How long a guest may take for anything, on a busy computer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The channels of a machine that runs.
pub(crate) async fn channel(driver: &dyn Driver, handle: &Handle) -> Channel {
    match driver.observe(handle).await.observed {
        Observed::On(mut channels) => channels.remove(0),
        other => panic!("it should run and is {other:?}"),
    }
}

pub(crate) struct Terminal {
    reader: Box<dyn LinkReader>,
    writer: Box<dyn LinkWriter>,
    /// Everything seen, as text.
    pub(crate) screen: String,
    /// How many bytes of gaps were told of.
    pub(crate) lost: u64,
    pub(crate) at: Offset,
}

impl Terminal {
    pub(crate) async fn open(driver: &dyn Driver, handle: &Handle, channel: &Channel, from: Offset) -> Self {
        let link = driver.open(handle, channel, from).await.unwrap_or_else(|error| panic!("{}", error.chain()));
        Self { reader: link.reader, writer: link.writer, screen: String::new(), lost: 0, at: from }
    }

    /// Reads on; the exit if the console is over.
    pub(crate) async fn read(&mut self) -> Option<Exit> {
        let mut buf = Vec::new();
        let next = tokio::time::timeout(PATIENCE, self.reader.next(&mut buf)).await;
        match next.unwrap_or_else(|_| panic!("nothing came any more after {:?}", self.screen)).unwrap() {
            LinkItem::Stream { at } => assert_eq!(at, self.at, "the stream has no hole"),
            LinkItem::Ended(exit) => return Some(exit),
            other => panic!("{other:?}"),
        }
        let mut from = 0;
        while let Some((frame, len)) = Frame::decode(&buf[from..]).unwrap() {
            match frame.tag {
                tag::STDOUT => self.screen.push_str(&String::from_utf8_lossy(frame.payload)),
                tag::GAP => self.lost += frame.stream_len(),
                other => panic!("a frame {other} on a terminal"),
            }
            self.at += frame.stream_len();
            from += len;
        }
        None
    }

    pub(crate) async fn wait_for(&mut self, text: &str) {
        while !self.screen.contains(text) {
            if let Some(exit) = self.read().await {
                panic!("it ended ({exit:?}) before it said {text:?}: {:?}", self.screen);
            }
        }
    }

    pub(crate) async fn send(&mut self, tag: u8, payload: &[u8]) {
        self.writer.send(Frame { tag, id: 0, payload }).await.unwrap();
    }

    pub(crate) async fn keys(&mut self, text: &str) {
        self.send(tag::INPUT, text.as_bytes()).await;
    }

    pub(crate) async fn end(&mut self) -> Exit {
        loop {
            if let Some(exit) = self.read().await {
                return exit;
            }
        }
    }
}
