//! Connections: which there are, how each does, and who makes the driver of each.
//!
//! A connection's driver is made once, with what lets it in, and connects by itself; after a login another one takes its place and adopts
//! its machines, as after a restart of the daemon. One task per connection ([`task`]) keeps its machines true.

mod reconcile;
mod task;
mod unavailable;

use crate::{context::Context, machine::Start, service::Connected};
use std::sync::{
    Arc, Mutex, MutexGuard, RwLock,
    atomic::{AtomicBool, Ordering},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};
use vmoon_api::views::ConnectionView;
use vmoon_core::{
    Code, ConnectionId, Error, Result,
    connection::{Connection, ConnectionState, SecretPlace},
    driver::Driver,
    error::ErrorRecord,
    name::escape,
};
use vmoon_sys::{clock::now_ms, secrets::Secret};

/// What a driver needs to be let in, as it is now: asked whenever it connects. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Access(Arc<Mutex<Keys>>);

#[derive(Debug, Default)]
struct Keys {
    secret: Option<Secret>,
    fingerprint: Option<String>,
}

impl Access {
    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Access with these.
    pub fn new(secret: Option<Secret>, fingerprint: Option<String>) -> Self {
        Self(Arc::new(Mutex::new(Keys { secret, fingerprint })))
    }

    /// The secret, if there is one.
    pub fn secret(&self) -> Option<Secret> {
        self.lock().secret.clone()
    }

    /// The fingerprint that the user has accepted.
    pub fn fingerprint(&self) -> Option<String> {
        self.lock().fingerprint.clone()
    }
}

/// Makes the drivers of one kind.
pub trait Maker: Send + Sync {
    /// The kind.
    fn kind(&self) -> &'static str;

    /// Makes the driver of a connection. Returns at once: the driver connects when it is first asked, and again after a loss.
    ///
    /// # Errors
    /// [`Code::Usage`] for a URI, user or identity that cannot be; all that is wrong in one message.
    fn make(&self, connection: &Connection, access: Access) -> Result<Arc<dyn Driver>>;
}

/// How a connection does.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// In a word.
    pub(crate) state: ConnectionState,
    /// Why it is not up.
    pub(crate) error: Option<ErrorRecord>,
    /// Since when.
    pub(crate) since_ms: u64,
}

/// One connection.
pub(crate) struct Entry {
    /// Its identifier.
    pub(crate) id: ConnectionId,
    /// Its name.
    pub(crate) name: String,
    /// The kind of its machines.
    pub(crate) kind: String,
    /// Its driver.
    pub(crate) driver: Arc<dyn Driver>,
    row: Connection,
    access: Access,
    live: watch::Sender<Live>,
    /// Somebody wants everything to be looked at anew.
    nudge: Notify,
    watched: AtomicBool,
    /// When one of its machines last went, or changed its handle: a list that was begun before tells of what is not there any more.
    turned: Mutex<Option<Instant>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Entry {
    pub(crate) fn new(connection: Connection, driver: Arc<dyn Driver>, access: Access) -> Arc<Self> {
        let locked = connection.secret == SecretPlace::Memory && access.secret().is_none();
        let state = match () {
            () if locked => ConnectionState::Locked,
            // What is always there need not be asked.
            () if !driver.adopts() => ConnectionState::Up,
            () => ConnectionState::Reconnecting,
        };
        let error = locked.then(|| locked_error(&connection.name).to_record());
        Arc::new(Self {
            id: connection.id,
            name: connection.name.clone(),
            kind: connection.kind.clone(),
            driver,
            row: connection,
            access,
            live: watch::Sender::new(Live { state, error, since_ms: now_ms() }),
            nudge: Notify::new(),
            watched: AtomicBool::new(false),
            turned: Mutex::default(),
            task: Mutex::default(),
        })
    }

    /// What is stored of it.
    pub(crate) fn connection(&self) -> Connection {
        self.row.clone()
    }

    /// How it does.
    pub(crate) fn live(&self) -> Live {
        self.live.borrow().clone()
    }

    /// Follows how it does.
    pub(crate) fn follow(&self) -> watch::Receiver<Live> {
        self.live.subscribe()
    }

    /// Whether its driver pushes notices, so that nothing has to be looked at again and again.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// One of its machines is gone, or has another handle.
    pub(crate) fn turn(&self) {
        *self.turned.lock().unwrap_or_else(|p| p.into_inner()) = Some(Instant::now());
    }

    fn turned_since(&self, begun: Instant) -> bool {
        self.turned.lock().unwrap_or_else(|p| p.into_inner()).is_some_and(|turned| turned >= begun)
    }

    /// A machine of it could not be reached: perhaps the connection is lost.
    pub(crate) fn suspect(&self) {
        if self.live.borrow().state == ConnectionState::Up {
            self.nudge.notify_one();
        }
    }

    /// Everything is looked at anew, now.
    pub(crate) fn resynchronise(&self) {
        self.nudge.notify_one();
    }

    /// Whether it waits for its secret.
    fn is_locked(&self) -> bool {
        self.row.secret == SecretPlace::Memory && self.access.secret().is_none()
    }

    /// What lets it in.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// What the API shows.
    pub(crate) fn view(&self, machines: u64, default: bool) -> ConnectionView {
        let (row, live) = (self.row.clone(), self.live());
        ConnectionView {
            id: self.id,
            name: row.name,
            kind: row.kind,
            uri: row.uri,
            state: live.state,
            settings: self.driver.info().settings.into_iter().map(|s| (s.name, s.help)).collect(),
            default,
            machines,
            since_ms: live.since_ms,
            error: live.error,
            user: row.user,
            identity: row.identity,
            fingerprint: row.fingerprint,
            secret: row.secret,
            concerns: self.driver.concerns(),
            addresses: self.driver.addresses().is_some(),
        }
    }
}

fn locked_error(name: &str) -> Error {
    Error::new(Code::ConnectionLocked, format!("the secret of {name} was not stored, and the daemon was started anew since"))
        .hint(format!("give it again: vmoon connection login {name}"))
}

/// Every connection, and who can make more.
#[derive(Default)]
pub(crate) struct Connections {
    all: RwLock<Vec<Arc<Entry>>>,
    default: RwLock<Option<ConnectionId>>,
    makers: Vec<Arc<dyn Maker>>,
}

impl Connections {
    /// Those that are always there, and those that are stored, whose secrets are read from their files.
    pub(crate) fn new(
        given: Vec<Connected>,
        stored: Vec<Connection>,
        makers: Vec<Arc<dyn Maker>>,
        secret: impl Fn(ConnectionId) -> Result<Option<Secret>>,
    ) -> Self {
        let mut all: Vec<Arc<Entry>> =
            given.into_iter().map(|given| Entry::new(given.connection, given.driver, Access::default())).collect();
        let this = Self { all: RwLock::default(), default: RwLock::default(), makers };
        for connection in stored {
            if all.iter().any(|entry| entry.id == connection.id) {
                continue;
            }
            let kept = if connection.secret == SecretPlace::Stored { secret(connection.id) } else { Ok(None) };
            let access = Access::new(kept.as_ref().ok().cloned().flatten(), connection.fingerprint.clone());
            let made = kept.and_then(|_| this.make(&connection, access.clone()));
            let driver = made.unwrap_or_else(|error| {
                tracing::warn!(connection = %connection.name, error = %error.chain(), "the connection cannot be used");
                Arc::new(unavailable::Unavailable::new(&connection.kind, error.to_record()))
            });
            all.push(Entry::new(connection, driver, access));
        }
        Self { all: RwLock::new(all), ..this }
    }

    /// Makes the driver of a connection.
    ///
    /// # Errors
    /// [`Code::Usage`] for a kind that nobody makes, and what its maker refuses.
    pub(crate) fn make(&self, connection: &Connection, access: Access) -> Result<Arc<dyn Driver>> {
        let Some(maker) = self.makers.iter().find(|maker| maker.kind() == connection.kind) else {
            let kinds: Vec<&str> = self.makers.iter().map(|maker| maker.kind()).collect();
            return Err(Error::new(Code::Usage, format!("no driver here makes connections of kind \"{}\"", escape(&connection.kind)))
                .hint(format!("the kinds are: {}", kinds.join(", "))));
        };
        maker.make(connection, access)
    }

    /// Whether somebody can make connections of a kind; what is part of the daemon nobody makes.
    pub(crate) fn makes(&self, kind: &str) -> bool {
        self.makers.iter().any(|maker| maker.kind() == kind)
    }

    /// All of them, in the order they were added.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.all.read().unwrap_or_else(|p| p.into_inner()).clone()
    }

    /// One, by its id.
    pub(crate) fn get(&self, id: ConnectionId) -> Option<Arc<Entry>> {
        self.all().into_iter().find(|entry| entry.id == id)
    }

    /// One, by its name or its id.
    ///
    /// # Errors
    /// [`Code::ConnectionNotFound`].
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Entry>> {
        let all = self.all();
        let id = text.parse().ok();
        all.iter().find(|entry| entry.name == text || Some(entry.id) == id).cloned().ok_or_else(|| {
            Error::new(Code::ConnectionNotFound, format!("no connection is named \"{}\"", escape(text))).hint("see `vmoon connection list`")
        })
    }

    /// The one that is meant where none is named.
    pub(crate) fn default(&self) -> Option<ConnectionId> {
        *self.default.read().unwrap_or_else(|p| p.into_inner())
    }

    pub(crate) fn set_default(&self, id: Option<ConnectionId>) {
        *self.default.write().unwrap_or_else(|p| p.into_inner()) = id;
    }

    /// Makes one findable and keeps its machines true from now on.
    pub(crate) fn add(&self, context: &Arc<Context>, entry: Arc<Entry>) {
        self.all.write().unwrap_or_else(|p| p.into_inner()).push(entry.clone());
        task::start(context, entry);
    }

    /// Keeps the machines of all of them true from now on.
    pub(crate) fn start(context: &Arc<Context>) {
        for entry in context.connections.all() {
            task::start(context, entry);
        }
    }

    /// Nobody finds it any more, and its machines are left alone from now on.
    pub(crate) async fn remove(&self, entry: &Entry) {
        self.all.write().unwrap_or_else(|p| p.into_inner()).retain(|other| other.id != entry.id);
        Self::end_task(entry).await;
    }

    /// The daemon ends: drivers say goodbye, all at once. One that is at work is left alone: what it does would fail, and the next daemon finishes it.
    pub(crate) async fn close(&self, context: &Context) {
        let works = |entry: &Arc<Entry>| context.machines_of(entry.id).iter().any(|machine| machine.view().operation.is_some());
        let mut goodbyes = Vec::new();
        for entry in self.all().into_iter().filter(|entry| !works(entry)) {
            Self::end_task(&entry).await;
            goodbyes.push(tokio::spawn(async move { entry.driver.close().await }));
        }
        for goodbye in goodbyes {
            // One that has failed has nothing more to say.
            let _ = goodbye.await;
        }
    }

    /// Another driver takes the place of the former one and adopts its machines.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn replace(&self, context: &Arc<Context>, entry: Arc<Entry>) -> Result<()> {
        let id = entry.id;
        let old = self.get(id);
        if let Some(old) = &old {
            Self::end_task(old).await;
        }
        for machine in context.machines_of(id) {
            machine.release().await;
        }
        if let Some(old) = old {
            old.driver.close().await;
        }
        {
            let mut all = self.all.write().unwrap_or_else(|p| p.into_inner());
            match all.iter_mut().find(|other| other.id == id) {
                Some(place) => *place = entry.clone(),
                None => all.push(entry.clone()),
            }
        }
        let (machines, sessions, operations) =
            context.store.run(move |tx| Ok((tx.machines()?, tx.sessions()?, tx.operations(true, usize::MAX >> 1)?))).await?;
        for row in machines.into_iter().filter(|row| row.connection == id) {
            let record = operations.iter().find(|op| Some(op.id) == row.operation).cloned();
            let own = sessions.iter().filter(|session| session.machine == row.id).cloned().collect();
            context.add_machine(crate::machine::task::Task::start(context.clone(), entry.clone(), row, Start::Adopt(record), own));
        }
        task::start(context, entry);
        Ok(())
    }

    async fn end_task(entry: &Entry) {
        let task = entry.task.lock().unwrap_or_else(|p| p.into_inner()).take();
        if let Some(task) = task {
            task.abort();
            // Cancelled or over: it does nothing any more either way.
            let _ = task.await;
        }
    }
}
