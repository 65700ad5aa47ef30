//! The two halves of a session's link, and what passes between them and the task behind them.

use super::wire::State;
use async_trait::async_trait;
use tokio::sync::mpsc;
use vmoon_core::{
    Code, Error, Result,
    driver::{Exit, LinkItem, LinkReader, LinkWriter, Offset, SessionLink},
    frame::Frame,
};

/// A frame on its way to the session.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) tag: u8,
    pub(super) id: u64,
    pub(super) payload: Vec<u8>,
}

/// What is handed over.
pub(super) enum Item {
    Stream { at: Offset, frames: Vec<u8> },
    Direct(Vec<u8>),
    Ended(Exit),
    Failed(Error),
    Broken,
}

/// A link over these queues to a session that stands so.
pub(super) fn link(state: State, from: Offset, orders: mpsc::Sender<Order>, items: mpsc::Receiver<Item>) -> SessionLink {
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
