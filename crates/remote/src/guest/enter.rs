//! Looking at a session's host, and beginning a life there by the same script, which waits for a while to be told so.

use super::{
    AGAIN, BEGIN, ENTER, ENVIRONMENTS, FOLLOW, Place, READ, RELAY, SCRIPT, Seen,
    attach::{Attached, in_time, lease},
    lean,
    link::Order,
    record, script, strange, wire,
};
use crate::Connection;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client::Msg};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until, timeout},
};
use vmoon_core::{Code, Error, Result, frame::tag};

/// How long a script waits to be told something. Meanwhile it takes one of the few places that a server has for sessions.
const WAITS: Duration = Duration::from_secs(1);
/// The longest first command that is sent along, bytes: the session says how it stands first where there is much to send.
const ALONG: usize = 256 << 10;
/// The longest answer of a look, bytes.
const LONGEST: usize = 1 << 20;

/// What comes after a look, unless the session lives.
#[derive(Clone, Copy)]
pub(super) enum Then<'a> {
    /// The script waits to be told that something is to begin.
    Wait,
    /// What a session needs is started, and waits for its program.
    Start,
    /// It begins at once.
    Begin(&'a Told<'a>),
}

/// What a session that begins is told.
pub(super) struct Told<'a> {
    /// The program file, whose end is the line `END`.
    pub(super) program: &'a [u8],
    /// Its first command.
    pub(super) first: Option<&'a Order>,
}

impl Told<'_> {
    fn bytes(&self, lease: &str, waits: bool) -> Vec<u8> {
        let go = if waits { "go\n" } else { "" };
        let mut bytes = format!("{go}{}\n{RELAY}{}\n", RELAY.len(), self.program.len()).into_bytes();
        bytes.extend_from_slice(self.program);
        if let Some(order) = self.first {
            wire::line(lease, order.tag, order.id, &order.payload, &mut bytes);
        }
        bytes
    }
}

/// A first command that can be sent along.
pub(super) fn fit(order: Option<&Order>) -> Option<&Order> {
    order.filter(|order| matches!(order.tag, tag::EVAL | tag::CALL) && order.payload.len() <= ALONG)
}

/// A script that waits to be told what to begin, or was told so.
pub(super) struct Ready {
    reader: ChannelReadHalf,
    writer: ChannelWriteHalf<Msg>,
    permit: OwnedSemaphorePermit,
    connection: Connection,
    /// What it has said beyond what it sees.
    rest: Vec<u8>,
    base: String,
    life: u64,
    lease: String,
    waits: bool,
}

impl Ready {
    /// Lets it end.
    pub(super) async fn close(self) {
        let _ = timeout(SCRIPT, self.writer.close()).await;
        drop(self.permit);
    }

    pub(super) async fn tell(self, told: &Told<'_>) -> Result<Self> {
        let sent = self.writer.data_bytes(told.bytes(&self.lease, self.waits)).await;
        sent.map_err(|error| self.connection.lost().source(error))?;
        Ok(self)
    }

    /// Attaches to what it begins, in that directory; `None` if it was not the time for that life.
    pub(super) async fn attach(self, dir: &str) -> Result<Option<Attached>> {
        let connection = self.connection;
        let mut attached = Attached::new(&connection, (self.reader, self.writer, self.permit), self.lease);
        attached.envelope.push(&self.rest);
        let there = in_time(&connection, attached.greet(dir, true)).await?;
        Ok(there.then_some(attached))
    }
}

/// The script of the last look.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Slot>);

/// Shared with a task that ends the script when nobody has needed it.
type Slot = Arc<Mutex<Option<Ready>>>;

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ready({}, {})", self.base, self.life)
    }
}

impl Kept {
    /// Keeps it for a while, in the place of another one, whose time goes on.
    pub(super) fn keep(&self, ready: Option<Ready>) {
        let slot = Arc::new(Mutex::new(ready));
        let until = Instant::now() + WAITS;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = slot.clone();
        drop(tokio::spawn(async move {
            sleep_until(until).await;
            let left = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(ready) = left {
                ready.close().await;
            }
        }));
    }

    /// What is kept, if it is of this connection and would begin that life.
    pub(super) fn take(&self, connection: &Connection, seen: &Seen, life: u64) -> Option<Ready> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut kept = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |ready: &Ready| ready.connection.is(connection) && ready.base == seen.base && ready.life == life;
        if kept.as_ref().is_some_and(fits) { kept.take() } else { None }
    }
}

/// Looks at the host. Unless the session lives there, the script is given back, which waits or was told already.
pub(super) async fn enter(connection: &Connection, place: &Place, then: Then<'_>) -> Result<(Seen, Option<Ready>)> {
    for next in 2.. {
        match attempt(connection, place, then).await? {
            Some(entered) => return Ok(entered),
            None if connection.is_worth(next) => {}
            None => break,
        }
    }
    Err(Error::new(Code::DriverUnreachable, format!("{} closes what is to look at it before that has begun", connection.name())))
}

/// One attempt; nothing if the server closed its channel before it said that the script has begun.
async fn attempt(connection: &Connection, place: &Place, then: Then<'_>) -> Result<Option<(Seen, Option<Ready>)>> {
    let (follow, lease, waits) = (lean(FOLLOW), lease(), matches!(then, Then::Wait));
    let (lua, wait) = (place.lua.as_deref().unwrap_or_default(), if waits { "wait" } else { "" });
    let line = script(&lean(ENTER), &[&place.owner, &place.name, &follow, READ, BEGIN, AGAIN, &lease, lua, wait]);
    let session = connection.session().await?;
    let (mut reader, writer) = session.channel.split();
    let mut writer = Closing(Some(writer));
    let Some(half) = writer.0.as_ref() else { return Err(Error::internal("a channel without an end to write to")) };
    let lost = |error: russh::Error| connection.lost().source(error);
    let (mut said, mut complaints) = (Vec::new(), Vec::new());
    let exchange = async {
        half.exec(true, line).await.map_err(lost)?;
        if let Then::Begin(told) = then {
            half.data_bytes(told.bytes(&lease, false)).await.map_err(lost)?;
        }
        let (mut begun, mut finished) = (false, false);
        loop {
            if let Some(end) = ready(&said) {
                return Ok(Some(Some(end)));
            }
            let heard = reader.wait().await;
            begun |= !matches!(heard, None | Some(ChannelMsg::Eof | ChannelMsg::Close | ChannelMsg::WindowAdjusted { .. }));
            match heard {
                Some(ChannelMsg::Data { data }) if said.len() + data.len() <= LONGEST => said.extend_from_slice(&data),
                Some(ChannelMsg::Data { .. }) => return Err(strange(connection, &said, &complaints)),
                Some(ChannelMsg::ExtendedData { data, .. }) => complaints.extend_from_slice(&data[..data.len().min(1_000)]),
                Some(ChannelMsg::ExitStatus { .. } | ChannelMsg::ExitSignal { .. }) => finished = true,
                Some(ChannelMsg::Failure) => {
                    return Err(Error::new(Code::DriverFailed, format!("{} refuses to run programs", connection.name()))
                        .hint("the account may be limited to one command or to file transfer"));
                }
                Some(_) => {}
                None if finished => return Ok(Some(None)),
                None if !begun && !connection.is_closed() => return Ok(None),
                None => return Err(connection.lost()),
            }
        }
    };
    let end = timeout(SCRIPT, exchange).await.map_err(|_| {
        Error::new(Code::OperationDeadline, format!("a look at {} did not end within {} s", connection.name(), SCRIPT.as_secs()))
    });
    let Some(end) = end.and_then(|end| end)? else { return Ok(None) };
    let facts = end.map_or(said.as_slice(), |end| &said[..end]);
    let seen = understand(facts, place).ok_or_else(|| strange(connection, &said, &complaints))?;
    *place.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen.clone());
    let ready = end.zip(writer.0.take()).map(|(end, writer)| Ready {
        reader,
        writer,
        permit: session.permit,
        connection: connection.clone(),
        rest: said[end + READY.len()..].to_vec(),
        base: seen.base.clone(),
        life: seen.life + 1,
        lease,
        waits,
    });
    Ok(Some((seen, ready)))
}

/// A channel that is closed when its look fails or nobody waits for it any more: the script would stay as long as the connection.
struct Closing(Option<ChannelWriteHalf<Msg>>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(writer) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            drop(runtime.spawn(async move {
                let _ = timeout(SCRIPT, writer.close()).await;
            }));
        }
    }
}

/// What a script says when it waits.
const READY: &[u8] = b"ready\n";

/// Where the script has said that it waits.
fn ready(said: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        if said[at..].starts_with(READY) {
            return Some(at);
        }
        at += said[at..].iter().position(|b| *b == b'\n')? + 1;
    }
}

/// What the facts tell.
fn understand(facts: &[u8], place: &Place) -> Option<Seen> {
    let text = String::from_utf8_lossy(facts);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
    let life = field("life")?;
    let (number, how) = life.split_once(' ')?;
    let life = number.parse().ok().filter(|number| *number < 1 << 50)?;
    let base = field("base").filter(|base| base.starts_with('/'))?;
    let lines = text.lines().filter_map(|line| record::line(line.strip_prefix("env ")?)).take(ENVIRONMENTS);
    let environments = lines.filter(|(is_used, _)| *is_used).map(|(_, used)| used).collect();
    Some(Seen { base, boot: field("boot")?, lua: place.lua.clone().or_else(|| field("lua")), life, lives: how == "lives", environments })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_waits_only_when_it_says_so_on_a_line_of_its_own() {
        assert_eq!(ready(b"base /x\nlife 1 none\nready\nmore"), Some(20));
        assert_eq!(ready(b"ready\n"), Some(0));
        for not in [&b""[..], b"ready", b"base ready\n", b"base already\nready"] {
            assert_eq!(ready(not), None);
        }
    }
}
