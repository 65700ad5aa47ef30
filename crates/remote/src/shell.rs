//! A shell on a terminal of a host. It is started by the first key or size, so that a channel nobody uses costs the host nothing.
//!
//! A terminal needs somebody to hold it, and with nothing installed there is nobody on the host: sshd ends it with the connection. So a
//! shell session ends then, too, and says so; what must go on belongs into a Lua session, or into tmux or screen there.

use crate::{Connection, Host, connect::ANSWER};
use async_trait::async_trait;
use russh::ChannelMsg;
use tokio::{sync::mpsc, time::timeout};
use vmoon_core::{
    Code, Error, Result,
    driver::{Exit, LinkItem, LinkReader, LinkWriter, Offset, SessionLink},
    frame::{Frame, MAX_PAYLOAD, tag},
};

/// What may wait between the link's two sides, in items.
const QUEUE: usize = 64;
/// The size of a terminal nobody has told the size of.
const SIZE: (u16, u16) = (80, 24);

/// What the daemon sends.
enum Order {
    Keys(Vec<u8>),
    End,
    Size(u16, u16),
    Quit,
}

/// What the task delivers.
enum Item {
    /// Encoded stream frames.
    Stream(Vec<u8>),
    Ended(Exit),
    Failed(Error),
}

/// Opens the channel of a shell that has not begun yet. `ended` is called once, when it has: by itself, with its connection, or because
/// nobody listens any more.
pub fn open(host: Host, ended: impl FnOnce() + Send + 'static) -> SessionLink {
    let (orders, taken) = mpsc::channel(QUEUE);
    let (items, delivered) = mpsc::channel(QUEUE);
    drop(tokio::spawn(async move {
        if run(&host, taken, &items).await {
            ended();
        }
    }));
    SessionLink {
        reader: Box::new(Reader { items: delivered, at: 0 }),
        writer: Box::new(Writer { orders }),
        end: 0,
        last_command: 0,
        running: None,
        queued: 0,
        waiting_input: false,
    }
}

/// Runs the shell; whether it ever began.
async fn run(host: &Host, mut orders: mpsc::Receiver<Order>, items: &mpsc::Sender<Item>) -> bool {
    let mut size = SIZE;
    // Sizes do not start it: whoever attaches tells the size and may only want to look.
    let first = loop {
        match orders.recv().await {
            None | Some(Order::Quit) => return false,
            Some(Order::Size(columns, rows)) => size = (columns, rows),
            Some(Order::End) => {}
            Some(Order::Keys(keys)) => break keys,
        }
    };
    let connection = match host.connection().await {
        Ok(connection) => connection,
        Err(error) => {
            let _ = items.send(Item::Failed(error)).await;
            return false;
        }
    };
    match talk(&connection, size, first, orders, items).await {
        Ok(exit) => {
            if exit == Exit::Lost {
                let text = format!("\r\nvmoon: {}; the shell has ended with it\r\n", connection.lost().message());
                let frame = Frame { tag: tag::STDERR, id: 0, payload: text.as_bytes() }.to_vec();
                let _ = items.send(Item::Stream(frame)).await;
            }
            let _ = items.send(Item::Ended(exit)).await;
            true
        }
        Err(error) => {
            let _ = items.send(Item::Failed(error)).await;
            false
        }
    }
}

async fn talk(
    connection: &Connection,
    size: (u16, u16),
    first: Vec<u8>,
    mut orders: mpsc::Receiver<Order>,
    items: &mpsc::Sender<Item>,
) -> Result<Exit> {
    let session = connection.session().await?;
    let (mut reader, writer) = session.channel.split();
    let lost = |error: russh::Error| connection.lost().source(error);
    let begin = async {
        writer.request_pty(true, "xterm-256color", size.0.into(), size.1.into(), 0, 0, &[]).await.map_err(lost)?;
        writer.request_shell(true).await.map_err(lost)
    };
    timeout(ANSWER, begin).await.map_err(|_| connection.lost())??;
    writer.data_bytes(first).await.map_err(lost)?;
    let mut exit = Exit::Lost;
    let mut accepted = 0;
    loop {
        tokio::select! {
            msg = reader.wait() => match msg {
                Some(ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. }) => {
                    let mut frames = Vec::with_capacity(data.len() + 16);
                    for piece in data.chunks(MAX_PAYLOAD) {
                        Frame { tag: tag::STDOUT, id: 0, payload: piece }.encode(&mut frames);
                    }
                    // Who reads slowly makes the shell wait, as on any terminal.
                    if items.send(Item::Stream(frames)).await.is_err() {
                        break;
                    }
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => exit = Exit::Code { code: exit_status as i32 },
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => exit = Exit::Signal { signal: crate::exec::number(&signal_name) },
                Some(ChannelMsg::Success) => accepted += 1,
                Some(ChannelMsg::Failure) if accepted < 2 => {
                    return Err(Error::new(Code::DriverFailed, format!("{} gives no {}", connection.name(), if accepted == 0 { "terminal" } else { "shell" }))
                        .hint("the account may be limited to one command or to file transfer"));
                }
                Some(_) => {}
                None => break,
            },
            order = orders.recv() => {
                let sent = match order {
                    Some(Order::Keys(keys)) => writer.data_bytes(keys).await,
                    Some(Order::Size(columns, rows)) => writer.window_change(columns.into(), rows.into(), 0, 0).await,
                    Some(Order::End) => writer.data_bytes(&b"\x04"[..]).await,
                    Some(Order::Quit) => writer.eof().await,
                    // Nobody writes any more; whoever reads sees the end.
                    None => {
                        let _ = timeout(ANSWER, writer.close()).await;
                        break;
                    }
                };
                if sent.is_err() {
                    break;
                }
            }
        }
    }
    Ok(exit)
}

struct Reader {
    items: mpsc::Receiver<Item>,
    at: Offset,
}

#[async_trait]
impl LinkReader for Reader {
    async fn next(&mut self, buf: &mut Vec<u8>) -> Result<LinkItem> {
        match self.items.recv().await {
            Some(Item::Stream(frames)) => {
                let at = self.at;
                self.at += frames.len() as u64;
                *buf = frames;
                Ok(LinkItem::Stream { at })
            }
            Some(Item::Ended(exit)) => Ok(LinkItem::Ended(exit)),
            Some(Item::Failed(error)) => Err(error),
            None => Ok(LinkItem::Broken),
        }
    }
}

struct Writer {
    orders: mpsc::Sender<Order>,
}

#[async_trait]
impl LinkWriter for Writer {
    async fn send(&mut self, frame: Frame<'_>) -> Result<()> {
        let order = match frame.tag {
            tag::INPUT => Order::Keys(frame.payload.to_vec()),
            tag::INPUT_END => Order::End,
            tag::INTERRUPT => Order::Keys(vec![3]),
            tag::QUIT => Order::Quit,
            tag::RESIZE => match frame.payload {
                [a, b, c, d] => Order::Size(u16::from_le_bytes([*a, *b]).max(1), u16::from_le_bytes([*c, *d]).max(1)),
                _ => return Err(Error::new(Code::WireMalformed, "the size of a terminal is two numbers of 16 bits")),
            },
            // Nothing is kept, so nothing is acknowledged; what else there may be does not concern a terminal.
            _ => return Ok(()),
        };
        self.orders.send(order).await.map_err(|_| Error::new(Code::DriverUnreachable, "the shell has ended"))
    }
}
