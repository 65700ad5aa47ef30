//! The client: one connection for short calls and events, others for long calls, one for each stream. Calls are methods, a file for each subject.

mod device;
mod domain;
mod guest;
mod host;
mod network;
mod snapshot;
mod storage;

pub use guest::Addresses;

use crate::{
    connection::{Connection, Keepalive, Place, Reply},
    error::{Error, Result},
    event::{Event, Events, Topic},
    flags::Open,
    procedure::Procedure,
    stream::Stream,
    transport::Connect,
    xdr::{Decode, Encode, decode_all},
};
use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a short call may take: one that only looks or stores.
    pub deadline: Duration,
    /// How long a long call may take: one that starts, saves, copies, or waits for a guest.
    pub long_deadline: Duration,
    /// Whether and how to find out that nobody is at the other end. Only where the daemon knows how; those since 2011 do.
    pub keepalive: Option<Keepalive>,
    /// How many events each listener may lag behind before they become [`Event::Everything`].
    pub events: usize,
    /// How to open.
    pub open: Open,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            long_deadline: Duration::from_secs(3600),
            keepalive: Some(Keepalive::default()),
            events: 1024,
            open: Open::NONE,
        }
    }
}

/// A client of one daemon. Copies are the same client. It ends with the last copy, or when its first connection does: then every call says
/// [`Error::Closed`], and the one who uses it makes a new one and looks at everything again.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    within: Option<Duration>,
}

struct Inner {
    connect: Box<dyn Connect>,
    uri: String,
    options: Options,
    first: Connection,
    /// Those for long calls, made when they are needed.
    others: tokio::sync::Mutex<Vec<Arc<Connection>>>,
    /// What was asked for already: asking twice would bring each event twice.
    topics: tokio::sync::Mutex<HashSet<Topic>>,
    unsupported: Mutex<HashSet<Topic>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({} at {})", self.inner.uri, self.inner.connect.describe())
    }
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Calls,
    Stream,
}

/// How many connections there are for long calls, at most.
const OTHERS: usize = 8;

/// `VIR_DRV_FEATURE_PROGRAM_KEEPALIVE` (src/libvirt_internal.h). Asking for it makes the daemon ask us too.
const FEATURE_KEEPALIVE: i32 = 10;

/// Authentication (`remote_auth_type`).
const AUTH_NONE: u32 = 0;
const AUTH_SASL: u32 = 1;
const AUTH_POLKIT: u32 = 2;

impl Client {
    /// Connects, is let in, and opens a URI such as `qemu:///system`, `qemu:///session` or `test:///default`.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Authentication`], or what libvirt says of the URI.
    pub async fn connect(connect: impl Connect + 'static, uri: &str, options: Options) -> Result<Self> {
        let connect: Box<dyn Connect> = Box::new(connect);
        let first = open(&*connect, uri, &options, Use::Calls).await?;
        let inner = Inner {
            connect,
            uri: uri.to_owned(),
            options,
            first,
            others: tokio::sync::Mutex::default(),
            topics: tokio::sync::Mutex::default(),
            unsupported: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner), within: None })
    }

    /// The same client with another deadline for each call that is made by this copy.
    #[must_use]
    pub fn within(&self, deadline: Duration) -> Self {
        Self { inner: self.inner.clone(), within: Some(deadline) }
    }

    /// The URI it was opened with.
    pub fn uri(&self) -> &str {
        &self.inner.uri
    }

    /// Why it is of no more use, if so.
    pub fn ended(&self) -> Option<Arc<str>> {
        self.inner.first.shared.ended()
    }

    /// Listens. Events from before are not told; so listen first, then look. What the daemon does not have is left out, see [`Events::unsupported`].
    ///
    /// # Errors
    /// Those of a call.
    pub async fn watch(&self, topics: &[Topic]) -> Result<Events> {
        let mut events = Events { from: self.inner.first.shared.listen(), unsupported: Vec::new(), last: None };
        if let Some(why) = self.ended() {
            events.last = Some(Event::Closed(why));
            return Ok(events);
        }
        let mut asked = self.inner.topics.lock().await;
        for topic in topics {
            if asked.contains(topic) {
                continue;
            }
            let (procedure, number) = topic.register();
            // The second argument is the one object that is meant; all are.
            match self.quick::<i32>(procedure, (number, 0_u32)).await {
                Ok(_callback) => {}
                Err(error) if error.is_unsupported() => {
                    self.inner.unsupported.lock().unwrap_or_else(PoisonError::into_inner).insert(*topic);
                }
                Err(error) => return Err(error),
            }
            asked.insert(*topic);
        }
        let unsupported = self.inner.unsupported.lock().unwrap_or_else(PoisonError::into_inner);
        events.unsupported = topics.iter().filter(|topic| unsupported.contains(topic)).copied().collect();
        Ok(events)
    }

    /// Asks to be told as [`Event::HypervisorLost`] when a daemon that only passes on loses the one behind it. `false` if this one knows no such thing.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn watch_hypervisor(&self) -> Result<bool> {
        match self.quick::<()>(Procedure::ConnectRegisterCloseCallback, ()).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_unsupported() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A call that only looks or stores.
    async fn quick<T: Decode>(&self, procedure: Procedure, arguments: impl Encode) -> Result<T> {
        let within = self.within.unwrap_or(self.inner.options.deadline);
        let reply = self.inner.first.call(procedure, &arguments, within).await?;
        decode(procedure, &reply)
    }

    /// A call that may take its time.
    async fn slow<T: Decode>(&self, procedure: Procedure, arguments: impl Encode) -> Result<T> {
        decode(procedure, &self.slow_reply(procedure, arguments).await?)
    }

    async fn slow_reply(&self, procedure: Procedure, arguments: impl Encode) -> Result<Reply> {
        let within = self.within.unwrap_or(self.inner.options.long_deadline);
        match self.free().await? {
            (connection, Some(place)) => connection.call_in(place, procedure, &arguments, within).await,
            (connection, None) => connection.call(procedure, &arguments, within).await,
        }
    }

    /// A call that opens a stream, and its result.
    async fn stream<T: Decode>(&self, procedure: Procedure, arguments: impl Encode) -> Result<(T, Stream)> {
        let within = self.within.unwrap_or(self.inner.options.deadline);
        let connection = open(&*self.inner.connect, &self.inner.uri, &self.inner.options, Use::Stream).await?;
        let (reply, stream) = connection.open(procedure, &arguments, within).await?;
        Ok((decode(procedure, &reply)?, stream))
    }

    /// A connection for a long call, with a place on it. Four machines that hang must not keep others from being started: when all places are taken
    /// there is one connection more, up to [`OTHERS`], and then one waits.
    async fn free(&self) -> Result<(Arc<Connection>, Option<Place>)> {
        if let Some(why) = self.ended() {
            return Err(Error::Closed(why));
        }
        let mut others = self.inner.others.lock().await;
        let mut idle = 0;
        others.retain(|connection| {
            if connection.shared.ended().is_some() {
                return false;
            }
            // One that has nothing to do is kept for the next call, more are not.
            idle += usize::from(connection.is_idle());
            !connection.is_idle() || idle == 1
        });
        for connection in others.iter() {
            if let Some(place) = connection.place() {
                return Ok((connection.clone(), Some(place)));
            }
        }
        if others.len() < OTHERS {
            let connection = Arc::new(open(&*self.inner.connect, &self.inner.uri, &self.inner.options, Use::Calls).await?);
            let place = connection.place();
            others.push(connection.clone());
            return Ok((connection, place));
        }
        // In turn, so that not everybody waits for the same.
        others.rotate_left(1);
        Ok((others[0].clone(), None))
    }
}

fn decode<T: Decode>(procedure: Procedure, reply: &Reply) -> Result<T> {
    decode_all(&reply.body).map_err(|why| Error::Malformed { procedure: procedure.name(), why })
}

/// Makes one connection, is let in, and opens the URI.
async fn open(connect: &dyn Connect, uri: &str, options: &Options, for_what: Use) -> Result<Connection> {
    let to = connect.describe();
    let transport = match timeout(options.deadline, connect.connect()).await {
        Ok(Ok(transport)) => transport,
        Ok(Err(error)) => return Err(Error::unreachable(&to, &error)),
        Err(_) => return Err(Error::unreachable(&to, &std::io::Error::from(std::io::ErrorKind::TimedOut))),
    };
    let connection = Connection::start(transport, options.events);
    let ask = async |procedure, arguments: &(dyn Fn(&mut crate::xdr::Encoder) + Sync)| {
        connection.call(procedure, &Written(arguments), options.deadline).await
    };
    authenticate(&connection, options.deadline).await?;
    if for_what == Use::Calls
        && let Some(keepalive) = options.keepalive
    {
        let reply = ask(Procedure::ConnectSupportsFeature, &|to| FEATURE_KEEPALIVE.encode(to)).await?;
        if decode::<bool>(Procedure::ConnectSupportsFeature, &reply)? {
            connection.keep_alive(keepalive);
        }
    }
    ask(Procedure::ConnectOpen, &|to| (Some(uri), options.open).encode(to)).await?;
    Ok(connection)
}

/// Arguments that a closure writes.
struct Written<'a>(&'a (dyn Fn(&mut crate::xdr::Encoder) + Sync));

impl Encode for Written<'_> {
    fn encode(&self, to: &mut crate::xdr::Encoder) {
        (self.0)(to);
    }
}

/// Is let in, in the way that the daemon names first.
async fn authenticate(connection: &Connection, deadline: Duration) -> Result<()> {
    let reply = connection.call(Procedure::AuthList, &(), deadline).await?;
    let ways: Vec<u32> = decode(Procedure::AuthList, &reply)?;
    match ways.first().copied() {
        None | Some(AUTH_NONE) => Ok(()),
        Some(AUTH_POLKIT) => match connection.call(Procedure::AuthPolkit, &(), deadline).await {
            Ok(_) => Ok(()),
            Err(Error::Refused(refusal)) => Err(Error::Authentication(format!("polkit did not let us in: {}", refusal.message))),
            Err(error) => Err(error),
        },
        Some(AUTH_SASL) => Err(Error::Authentication(
            "the daemon asks for a name and a password (SASL), which is not supported; set auth_unix_rw to \"polkit\" or \"none\" in libvirtd.conf, or \
             connect through SSH"
                .to_owned(),
        )),
        Some(other) => Err(Error::Authentication(format!("the daemon asks for a kind of authentication that is not known here ({other})"))),
    }
}
