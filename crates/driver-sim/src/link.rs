//! The two halves of a simulated session link. They know the holder and their own number, nothing else.

use crate::holder::{Holder, Opened};
use async_trait::async_trait;
use std::sync::Arc;
use vmoon_core::{
    Result,
    driver::{LinkItem, LinkReader, LinkWriter, Offset, SessionLink},
    frame::Frame,
};

struct Reader {
    holder: Arc<Holder>,
    link: u64,
    at: Offset,
}

struct Writer {
    holder: Arc<Holder>,
    link: u64,
}

/// Opens the holder's stream at that offset.
pub(crate) fn open(holder: &Arc<Holder>, from: Offset) -> Result<SessionLink> {
    let Opened { link, end, last_command, running, queued, waiting_input } = holder.open(from)?;
    Ok(SessionLink {
        reader: Box::new(Reader { holder: holder.clone(), link, at: from }),
        writer: Box::new(Writer { holder: holder.clone(), link }),
        end,
        last_command,
        running,
        queued,
        waiting_input,
    })
}

#[async_trait]
impl LinkReader for Reader {
    async fn next(&mut self, buf: &mut Vec<u8>) -> Result<LinkItem> {
        Ok(self.holder.next(self.link, &mut self.at, buf).await)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.holder.left(self.link);
    }
}

#[async_trait]
impl LinkWriter for Writer {
    async fn send(&mut self, frame: Frame<'_>) -> Result<()> {
        self.holder.receive(self.link, frame)
    }
}
