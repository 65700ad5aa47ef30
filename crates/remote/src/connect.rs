//! One living SSH connection: its way there through jump hosts, its trust, its login, its channels. Nothing here tries twice;
//! [`crate::Host`] does.

use crate::{Auth, Host, Trust, auth, prompt::Prompt};
use russh::{
    Channel, ChannelOpenFailure, Disconnect,
    client::{self, DisconnectReason, Handle, Handler, Msg},
    keys::{Algorithm, PublicKeyOrCertificate},
};
use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until, timeout},
};
use vmoon_core::{Code, Error, Result};

/// How many sessions sshd allows on one connection unless told otherwise (MaxSessions).
const SESSIONS: usize = 10;
/// How long a server may take for a small answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(15);

/// How soon a server that has no room for another session is asked again.
const FULL: Duration = Duration::from_millis(50);

/// One host on the way, with everything known about it.
#[derive(Clone, Debug)]
pub struct Hop {
    /// As people call it; only for messages.
    pub name: String,
    /// Name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The login name.
    pub user: String,
    /// What to show the server.
    pub auth: Auth,
    /// What its key must be.
    pub trust: Trust,
}

/// What a connection needs.
#[derive(Clone, Debug)]
pub struct Route {
    /// A host that many routes go through, with one connection for all of them; what else is on the way comes after it.
    pub through: Option<Host>,
    /// Hosts to go through; the first is reached directly, or from [`Self::through`].
    pub jumps: Vec<Hop>,
    /// The host that is meant.
    pub target: Hop,
    /// How long each hop may take, from the first packet to being logged in.
    pub connect: Duration,
    /// After so long without a word from the server it is asked whether it lives…
    pub keepalive: Duration,
    /// …and given up when it has not answered so often.
    pub keepalive_max: usize,
}

impl Route {
    /// A route with the usual times: 20 s to connect, 15 s × 3 to be given up.
    pub fn new(jumps: Vec<Hop>, target: Hop) -> Self {
        Self { through: None, jumps, target, connect: Duration::from_secs(20), keepalive: Duration::from_secs(15), keepalive_max: 3 }
    }
}

/// What russh asks us while a connection lives.
#[derive(Debug)]
pub(crate) struct Gate {
    host: String,
    port: u16,
    trust: Trust,
    refusal: Arc<Mutex<Option<Error>>>,
    /// Dropped with the connection; says why it ended.
    end: watch::Sender<Option<String>>,
}

impl Handler for Gate {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let key = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.clone(),
            // We never ask for certificates; what comes all the same is judged by its key alone.
            PublicKeyOrCertificate::Certificate(certificate) => certificate.public_key().clone().into(),
        };
        match self.trust.check(&self.host, self.port, &key) {
            Ok(()) => Ok(true),
            Err(error) => {
                *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Ok(false)
            }
        }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        let (why, result) = match reason {
            DisconnectReason::ReceivedDisconnect(info) => (format!("the host said goodbye: {}", info.message.escape_debug()), Ok(())),
            DisconnectReason::Error(error) => (error.to_string(), Err(error)),
        };
        self.end.send_replace(Some(why));
        result
    }
}

/// A connection that was logged in. Clones share it; it is closed with the last one.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    handle: Handle<Gate>,
    name: String,
    end: watch::Receiver<Option<String>>,
    sessions: Arc<Semaphore>,
    /// Lives as long as what is tunnelled through it.
    _through: Option<Connection>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.0.name)
    }
}

/// A session channel, and its place among those that the server allows.
pub(crate) struct Session {
    pub(crate) channel: Channel<Msg>,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Connects and logs in, hop by hop.
    ///
    /// # Errors
    /// [`Code::DriverUnreachable`], [`Code::ConnectionUntrusted`], [`Code::ConnectionAuth`], [`Code::DriverFailed`] when the two
    /// sides have no common ground.
    pub async fn open(route: &Route) -> Result<Self> {
        let mut through: Option<Connection> = match &route.through {
            Some(host) => Some(host.on_the_way().await?),
            None => None,
        };
        for hop in route.jumps.iter().chain([&route.target]) {
            let place = format!("{} ({}:{})", hop.name, hop.host, hop.port);
            let step = async {
                match &through {
                    None => {
                        let stream = TcpStream::connect((hop.host.as_str(), hop.port)).await.map_err(|error| unreachable(&place, error))?;
                        // Without it a keystroke waits for the acknowledgement of the one before.
                        let _ = stream.set_nodelay(true);
                        Self::over(Prompt(stream), hop, route, None).await
                    }
                    Some(before) => {
                        let opened = before.0.handle.channel_open_direct_tcpip(hop.host.clone(), hop.port.into(), "127.0.0.1", 0).await;
                        let stream =
                            opened.map_err(|error| unreachable(&format!("{place} through {}", before.0.name), error))?.into_stream();
                        Self::over(stream, hop, route, Some(before.clone())).await
                    }
                }
            };
            let next = timeout(route.connect, step).await;
            through = Some(next.map_err(|_| {
                Error::new(Code::DriverUnreachable, format!("{place} did not let us in within {} s", route.connect.as_secs()))
            })??);
        }
        through.ok_or_else(|| Error::internal("a route without a target"))
    }

    async fn over<S>(stream: S, hop: &Hop, route: &Route, through: Option<Connection>) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let place = format!("{} ({}:{})", hop.name, hop.host, hop.port);
        let mut config = client::Config {
            keepalive_interval: Some(route.keepalive),
            keepalive_max: route.keepalive_max,
            nodelay: true,
            ..client::Config::default()
        };
        // Of a host that is known by one kind of key, that kind is asked for.
        let known: Vec<Algorithm> = hop.trust.recorded(&hop.host, hop.port).iter().map(|(_, _, key)| key.algorithm()).collect();
        let mut order: Vec<Algorithm> = config.preferred.key.to_vec();
        let rsa = |algorithm: &Algorithm| matches!(algorithm, Algorithm::Rsa { .. });
        order.sort_by_key(|algorithm| !known.iter().any(|known| known == algorithm || (rsa(known) && rsa(algorithm))));
        config.preferred.key = Cow::Owned(order);
        let refusal = Arc::new(Mutex::new(None));
        let (end, ended) = watch::channel(None);
        let gate = Gate { host: hop.host.clone(), port: hop.port, trust: hop.trust.clone(), refusal: refusal.clone(), end };
        let connected = client::connect_stream(Arc::new(config), stream, gate).await;
        let mut handle = match connected {
            Ok(handle) => handle,
            Err(error) => {
                let refused = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
                return Err(refused.unwrap_or_else(|| unreachable(&place, error)));
            }
        };
        auth::login(&mut handle, &hop.user, &hop.auth, &place).await?;
        let sessions = Arc::new(Semaphore::new(SESSIONS));
        Ok(Self(Arc::new(Shared { handle, name: hop.name.clone(), end: ended, sessions, _through: through })))
    }

    /// The host's name, for messages.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether that is the same connection.
    pub(crate) fn is(&self, other: &Connection) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether it is known to be lost.
    pub fn is_closed(&self) -> bool {
        self.0.handle.is_closed() || self.0.end.has_changed().is_err()
    }

    /// Waits for its end and says why it came.
    pub async fn closed(&self) -> String {
        let mut end = self.0.end.clone();
        loop {
            if let Some(why) = end.borrow_and_update().clone() {
                return why;
            }
            if end.changed().await.is_err() {
                return end.borrow().clone().unwrap_or_else(|| "the connection was lost".into());
            }
        }
    }

    /// Says goodbye, if anybody listens.
    pub async fn close(&self) {
        let _ = timeout(Duration::from_secs(1), self.0.handle.disconnect(Disconnect::ByApplication, "", "")).await;
    }

    /// Opens a session channel; waits while as many are open as servers usually allow.
    ///
    /// # Errors
    /// [`Code::DriverUnreachable`] when the connection is lost or the host silent; [`Code::DriverFailed`] when it refuses.
    pub(crate) async fn session(&self) -> Result<Session> {
        let name = &self.0.name;
        let last = Instant::now() + ANSWER / 3;
        let opened = timeout(ANSWER, async {
            let permit = self.0.sessions.clone().acquire_owned().await.map_err(|_| self.lost())?;
            let mut until = Instant::now();
            let channel = loop {
                match self.0.handle.channel_open_session().await {
                    Ok(channel) => break channel,
                    // sshd still counts sessions whose programs outlive their channels, and tells nobody when one ends.
                    Err(russh::Error::ChannelOpenFailure(why)) if until > last || !is_full(&why) => return Err(refused(name, &why)),
                    Err(russh::Error::ChannelOpenFailure(_)) => {
                        until = Instant::now() + FULL;
                        sleep_until(until).await;
                    }
                    Err(error) => return Err(self.lost().source(error)),
                }
            };
            Ok(Session { channel, permit })
        });
        opened.await.map_err(|_| {
            Error::new(Code::DriverUnreachable, format!("{name} opened no channel within {} s", ANSWER.as_secs()))
                .hint("at most ten sessions share one connection: end some programs or shells")
        })?
    }

    /// Whether something that its server has closed before anything began there is worth another attempt, which is the one of this number.
    pub(crate) fn is_worth(&self, attempt: u32) -> bool {
        attempt <= ATTEMPTS && !self.is_closed()
    }

    /// That the connection is gone.
    pub(crate) fn lost(&self) -> Error {
        let why = self.0.end.borrow().clone();
        Error::new(
            Code::DriverUnreachable,
            format!("the connection to {} is lost{}", self.0.name, why.map_or(String::new(), |why| format!(": {why}"))),
        )
    }
}

/// How often a channel is opened for something. Dropbear closes one that has nothing running yet when a program of another one ends just then, and answers neither yes nor
/// no to what it is asked to run there.
const ATTEMPTS: u32 = 4;

/// Whether that is how a server refuses more sessions than it allows.
fn is_full(why: &ChannelOpenFailure) -> bool {
    matches!(why, ChannelOpenFailure::ConnectFailed | ChannelOpenFailure::ResourceShortage)
}

fn refused(name: &str, why: &ChannelOpenFailure) -> Error {
    let error = Error::new(Code::DriverFailed, format!("{name} refused to open a channel ({why:?})"));
    if is_full(why) { error.hint("the server's MaxSessions is reached: end some programs or shells") } else { error }
}

/// What a failure on the way to a host means.
fn unreachable(place: &str, error: impl Into<russh::Error>) -> Error {
    let error = error.into();
    match error {
        russh::Error::NoCommonAlgo { .. } | russh::Error::Version | russh::Error::WrongServerSig | russh::Error::Kex => {
            Error::new(Code::DriverFailed, format!("{place} does not speak SSH as we do")).source(error)
        }
        error => Error::new(Code::DriverUnreachable, format!("{place} cannot be reached")).source(error),
    }
}
