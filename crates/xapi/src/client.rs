//! Calls, and the session they need.
//!
//! A session is made when it is first needed, by one login for all who wait. XAPI ends sessions after a day without use, when it is restarted and when
//! it has too many: `SESSION_INVALID`. Then one login is made for all, and calls that only read are made once more; for others the caller decides.
//! A member of a pool sends us to its coordinator with `HOST_IS_SLAVE`, before it looks at the password or the call, so what was asked is asked there.

use crate::{
    cache::Record,
    config::Config,
    error::{Error, Result},
    http::{Answer, Http, beside, split},
    rpc, skim,
    trust::Fingerprint,
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, Semaphore},
    time::timeout,
};

/// Where JSON-RPC is spoken.
const PATH: &str = "/jsonrpc";
/// How often one login is sent on from a member to another.
pub(crate) const HOPS: usize = 3;
/// How long a logout may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// A connection to a pool. Cheap to clone; all clones share the session and the connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    config: Config,
    http: Http,
    session: Mutex<State>,
    ids: AtomicU64,
    places: Semaphore,
}

#[derive(Default)]
struct State {
    live: Option<Session>,
    /// How often there was a login.
    generation: u64,
    /// Where else the pool may be reached: the addresses of its hosts, anew with each login. A host that was ejected answers as a pool of its own, so what was true before
    /// does not count.
    members: Vec<String>,
}

/// A session.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) reference: String,
    /// The coordinator.
    pub(crate) host: String,
    generation: u64,
}

impl Session {
    /// Which login of its client it is from.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }
}

/// Says of which call an answer was that is none.
fn named(method: &str, error: Error) -> Error {
    match error {
        Error::Protocol(what) => Error::Protocol(format!("{method}: {what}")),
        other => other,
    }
}

/// How the answer to the request of that number is read.
type Reading<T> = fn(u64, &Answer) -> Result<T>;

/// Into what is wanted.
fn plain<T: DeserializeOwned>(id: u64, answer: &Answer) -> Result<T> {
    rpc::answer(id, answer.status, &answer.content_type, &answer.body)
}

/// Into records that stay where they came.
fn records(id: u64, answer: &Answer) -> Result<HashMap<String, Record>> {
    if answer.status == 200
        && let Some(found) = skim::members(&answer.body)
        && found.id.parse() == Ok(id)
    {
        let records = found.members.into_iter();
        return Ok(records.map(|(reference, text)| (reference.to_owned(), Record::within(&answer.body, text))).collect());
    }
    // Also to say what is wrong.
    let found: HashMap<String, &RawValue> = rpc::answer(id, answer.status, &answer.content_type, &answer.body)?;
    Ok(found.into_iter().map(|(reference, text)| (reference, Record::within(&answer.body, text.get()))).collect())
}

/// Hosts, as far as a login wants to know them.
type Records = BTreeMap<String, Address>;

#[derive(serde::Deserialize)]
struct Address {
    #[serde(default)]
    address: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({} at {})", self.0.config.user, self.0.config.host)
    }
}

impl Client {
    /// A client; nothing is sent before the first call.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the host is none.
    pub fn new(config: Config) -> Result<Self> {
        split(&config.host)?;
        let (http, places) = (Http::new(&config), Semaphore::new(config.in_flight.max(1)));
        Ok(Self(Arc::new(Inner { config, http, session: Mutex::default(), ids: AtomicU64::new(1), places })))
    }

    pub(crate) fn http(&self) -> &Http {
        &self.0.http
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// Whether the pool has more hosts than its coordinator.
    pub(crate) async fn has_members(&self) -> bool {
        self.0.session.lock().await.members.len() > 1
    }

    /// Calls a method with these parameters after the session, and answers with its result.
    ///
    /// # Errors
    /// All of [`Error`]. After [`Error::Connection`] and [`Error::Deadline`] it is not known whether a call that changes something has run; after `SESSION_INVALID`
    /// it has not, and there is a new session for the next one.
    pub async fn call(&self, method: &str, params: Vec<Value>) -> Result<Value> {
        self.call_within(method, params, self.0.config.deadline).await
    }

    /// [`Self::call`] for a method that only reads, with its result in a type.
    ///
    /// # Errors
    /// As that; [`Error::Protocol`] if the result is of another shape.
    pub async fn get<T: DeserializeOwned>(&self, method: &str, params: Vec<Value>) -> Result<T> {
        self.call_as(method, params, self.0.config.deadline, plain).await.map_err(|error| named(method, error))
    }

    /// Every record of a class, by reference.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn records(&self, class: &str) -> Result<HashMap<String, Record>> {
        let method = format!("{class}.get_all_records");
        self.call_as(&method, Vec::new(), self.0.config.deadline, records).await.map_err(|error| named(&method, error))
    }

    /// The same as [`Self::call`], by a name that says that nothing is changed.
    ///
    /// # Errors
    /// As that.
    pub async fn read(&self, method: &str, params: Vec<Value>) -> Result<Value> {
        debug_assert!(rpc::reads(method), "{method} may change something");
        self.call(method, params).await
    }

    /// [`Self::call`] with a deadline of its own.
    ///
    /// # Errors
    /// As that.
    pub async fn call_within(&self, method: &str, params: Vec<Value>, deadline: Duration) -> Result<Value> {
        self.call_as(method, params, deadline, plain).await
    }

    async fn call_as<T>(&self, method: &str, params: Vec<Value>, deadline: Duration, read: Reading<T>) -> Result<T> {
        let work = async {
            let _place = self.0.places.acquire().await.map_err(|_| Error::Cancelled)?;
            self.with_session(method, &params, rpc::reads(method), read).await
        };
        timeout(deadline, work).await.unwrap_or_else(|_| Err(Error::Deadline { what: method.to_owned(), waited: deadline }))
    }

    /// A call that XAPI holds back until something happens: it takes no place of the others, and is not made again in a new session, where its token may mean
    /// something else.
    pub(crate) async fn hold<T: DeserializeOwned>(&self, method: &str, params: Vec<Value>, deadline: Duration) -> Result<T> {
        let late = || Error::Deadline { what: method.to_owned(), waited: deadline };
        let answer = timeout(deadline, self.with_session(method, &params, false, plain)).await.unwrap_or_else(|_| Err(late()));
        answer.map_err(|error| named(method, error))
    }

    async fn with_session<T>(&self, method: &str, params: &[Value], repeat: bool, read: Reading<T>) -> Result<T> {
        let (mut renewed, mut hops) = (false, 0);
        loop {
            let session = self.session().await?;
            let mut all = vec![Value::from(session.reference.clone())];
            all.extend_from_slice(params);
            match self.raw(&session.host, method, &all, read).await {
                Err(Error::Xapi(failure)) if failure.is("SESSION_INVALID") && failure.param(0) == Some(&session.reference) => {
                    self.forget(&session).await;
                    if renewed || !repeat {
                        // For the next one.
                        self.session().await?;
                        return Err(Error::Xapi(failure));
                    }
                    renewed = true;
                }
                Err(Error::Xapi(failure)) if failure.is("HOST_IS_SLAVE") && hops < HOPS => {
                    // The pool has another coordinator now; the call has not run.
                    hops += 1;
                    self.forget(&session).await;
                }
                Err(error) if error.is_of_the_connection() => {
                    // Perhaps the coordinator is gone: the next login looks at the other members.
                    if matches!(error, Error::Connection { .. }) {
                        self.forget(&session).await;
                    }
                    return Err(error);
                }
                other => return other,
            }
        }
    }

    /// One exchange, without anything around it.
    async fn raw<T>(&self, host: &str, method: &str, params: &[Value], read: Reading<T>) -> Result<T> {
        self.exchange(host, method, params, read).await.map(|(value, _)| value).map_err(|(error, _)| error)
    }

    /// The same, and which certificate the host says its coordinator has.
    async fn exchange<T>(
        &self,
        host: &str,
        method: &str,
        params: &[Value],
        read: Reading<T>,
    ) -> std::result::Result<(T, Option<Fingerprint>), (Error, Option<Fingerprint>)> {
        let unanswered = |error| (error, None);
        let id = self.0.ids.fetch_add(1, Ordering::Relaxed);
        let body = rpc::request(id, method, params).map_err(unanswered)?;
        if self.0.config.trust.blindly {
            tracing::warn!(host, method, "certificates are not checked, as it was asked for");
        }
        // Never the parameters: passwords are among them.
        tracing::debug!(host, method, "call");
        let answer = self.0.http.post(host, PATH, Bytes::from(body)).await.map_err(unanswered)?;
        match read(id, &answer) {
            Ok(value) => Ok((value, answer.coordinator)),
            Err(error) => Err((error, answer.coordinator)),
        }
    }

    /// The session; makes one if there is none. Whoever else waits for it gets the same.
    pub(crate) async fn session(&self) -> Result<Session> {
        let mut state = self.0.session.lock().await;
        if let Some(session) = &state.live {
            return Ok(session.clone());
        }
        let mut candidates = vec![self.0.config.host.clone()];
        candidates.extend(state.members.iter().filter(|member| **member != self.0.config.host).cloned());
        let mut first = None;
        for candidate in candidates {
            match self.log_in(&candidate).await {
                Ok((host, reference)) => {
                    state.generation += 1;
                    let session = Session { reference, host, generation: state.generation };
                    state.members = self.addresses(&session).await;
                    state.live = Some(session.clone());
                    return Ok(session);
                }
                // Refused is refused: trying it everywhere only locks accounts.
                Err(error) if !error.is_of_the_connection() => return Err(first.unwrap_or(error)),
                Err(error) => {
                    tracing::debug!(host = candidate, %error, "no login there");
                    first = first.or(Some(error));
                }
            }
        }
        Err(first.unwrap_or(Error::Cancelled))
    }

    /// Logs in at a host, or where it sends us; the coordinator and the session.
    async fn log_in(&self, host: &str) -> Result<(String, String)> {
        let config = &self.0.config;
        // The version is not looked at; the originator is the fourth parameter.
        let params = [config.user.as_str(), config.password.reveal(), "2.0", &config.originator].map(Value::from);
        let mut host = host.to_owned();
        let mut been = Vec::new();
        loop {
            let (error, vouched) = match self.exchange(&host, "session.login_with_password", &params, plain).await {
                Ok((Value::String(reference), _)) => return Ok((host, reference)),
                Ok(_) => return Err(Error::protocol("a session that is no text")),
                Err(failed) => failed,
            };
            let to = match &error {
                Error::Xapi(failure) if failure.is("HOST_IS_SLAVE") => {
                    failure.param(0).map(|address| beside(&host, address)).transpose()?
                }
                _ => None,
            };
            let Some(to) = to else { return Err(error) };
            been.push(host);
            if been.len() > HOPS || been.contains(&to) {
                return Err(Error::protocol(format!("members of the pool send us from one to the other: {}", been.join(", "))));
            }
            // Whom we trust has told us whom to trust.
            if let Some(fingerprint) = vouched {
                self.0.http.vouched(&to, fingerprint);
            }
            host = to;
        }
    }

    /// The addresses of the pool's hosts; where they cannot be had, none: a login is worth more.
    async fn addresses(&self, session: &Session) -> Vec<String> {
        let found = timeout(
            self.0.config.connect,
            self.raw::<Records>(&session.host, "host.get_all_records", &[session.reference.clone().into()], plain),
        )
        .await;
        let Ok(Ok(records)) = found else { return Vec::new() };
        records.values().filter_map(|record| beside(&session.host, &record.address).ok()).collect()
    }

    /// Gives up a session that has ended, unless there is a newer one.
    pub(crate) async fn forget(&self, session: &Session) {
        let mut state = self.0.session.lock().await;
        if state.live.as_ref().is_some_and(|live| live.generation == session.generation) {
            state.live = None;
        }
    }

    /// Which certificates are taken for which hosts by now: the pins, and what trusted members have told of their coordinator. Keep them for the next time.
    pub fn pins(&self) -> BTreeMap<String, Fingerprint> {
        self.0.http.pins()
    }

    /// What is wrong with certificates that are taken all the same because they are pinned, by host: that one has expired, for example. As far as connections have
    /// shown it by now.
    pub fn concerns(&self) -> BTreeMap<String, String> {
        self.0.http.concerns()
    }

    /// Whether calls are made without any check of certificates.
    pub fn is_blind(&self) -> bool {
        self.0.config.trust.blindly
    }

    /// Logs out and closes the connections. A later call would log in again.
    pub async fn close(&self) {
        let live = self.0.session.lock().await.live.take();
        if let Some(session) = live {
            let params = [session.reference.clone().into()];
            let bye = self.raw::<Value>(&session.host, "session.logout", &params, plain);
            if !matches!(timeout(GOODBYE, bye).await, Ok(Ok(_))) {
                tracing::debug!(host = session.host, "the session could not be ended; XAPI ends it after a day");
            }
        }
        self.0.http.clear();
    }
}
