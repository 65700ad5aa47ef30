//! Sessions, programs and files inside VMs, over SSH: the part that every driver of VMs shares.
//!
//! [`Guests`] belongs to one connection of a driver and owns the truth about how its machines are entered: a record for each, in the state directory. A machine
//! without a record is not entered, and nothing is ever written into a machine that exists. A driver
//! * puts what [`Guests::prepare`] gives into the seed of a machine it makes: our own public key, and a host key made in advance, so that the guest is known before
//!   it first boots; [`Guests::forget`] when the machine is deleted, or was never finished;
//! * adds [`Guests::channels`] to what it observes of a running machine: that needs no network;
//! * passes [`Guests::open`] the channels [`MAIN`] and [`SHELL`], and lets it ask for addresses through [`Places`];
//! * implements [`Entrance`] with [`Guests::account`], and has files and environments of its guests by [`OverSsh`];
//! * takes the settings `ssh-…` and `env` of a machine that exists ([`settings`]) and gives them to [`Guests::tune`].
//!
//! Nothing connects before somebody wants to be in the guest, and a connection that nobody uses is closed after a while, that of a Lua session too: the session
//! goes on in the guest ([`rests`]).

mod carry;
mod channel;
pub mod console;
mod enter;
mod one;
mod own;
mod record;
pub mod settings;

pub use enter::{Entered, Gate, Inside, Place, Places};
pub use own::Entry;
pub use vmoon_remote::{
    environment::Environments,
    over::{Account, Entrance, OverSsh},
};

use one::One;
use record::Record;
use serde_json::{Map, Value};
use settings::Wanted;
use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Semaphore;
use vmoon_core::{
    Code, Error, Result,
    ability::Change,
    driver::{Channel, ChannelKind},
    name::escape,
    spec::Problems,
};
use vmoon_sys::{clock::now_ms, login::Login, records::Records};

/// The channel of the Lua session in a guest, and the name of its directory there.
pub const MAIN: &str = "main";
/// The channel of a shell in a guest.
pub const SHELL: &str = "shell";
/// The login name of machines that we make, where the user names none.
pub const USER: &str = "vmoon";
/// After how long without use a Lua session's connection is let go of. It is closed when nobody else uses it for as long again.
const REST: Duration = Duration::from_secs(60);
/// How many guests may be connected to at once.
const CONNECTING: usize = 16;

/// What a [`Guests`] is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of all guests of this user: our key, and a directory for each connection.
    pub dir: PathBuf,
    /// The id of the connection. Letters, digits, dots, dashes and underscores, at most 60.
    pub connection: String,
    /// The user whose keys and agent are used for machines that we have not made.
    pub login: Login,
    /// Where environments of packages are found; without it guests are given none.
    pub environments: Option<Arc<dyn Environments>>,
}

/// A machine, as its driver speaks of it.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// What tells it from all others of the connection for as long as it lives: letters, digits, dots, dashes and underscores, at most 39.
    pub key: &'a str,
    /// Its name, for people.
    pub name: &'a str,
    /// The number of its run: another one after each start.
    pub run: u64,
}

/// After how long without use a session of this channel needs no connection. The Lua session is held in the guest with all it says; a shell ends with its
/// connection.
pub fn rests(channel: &Channel) -> Option<Duration> {
    (channel.name == MAIN).then_some(REST)
}

/// How the machines of one connection are entered. Clones are the same.
#[derive(Clone)]
pub struct Guests(Arc<Inner>);

struct Inner {
    config: Config,
    records: Records,
    known: Mutex<Option<HashMap<String, Slot>>>,
    connecting: Semaphore,
    /// The computer that guests are reached through, while one of them is entered.
    passage: Mutex<vmoon_remote::WeakHost>,
}

/// A machine that has a record.
#[derive(Clone)]
enum Slot {
    OnDisk,
    Read(Arc<One>),
}

impl fmt::Debug for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guests({})", self.0.config.connection)
    }
}

/// That nobody has said how to enter a machine.
fn unknown(name: &str) -> Error {
    let name = escape(name);
    Error::new(Code::DriverUnsupported, format!("it is not known how to log in to {name}"))
        .hint(format!("say who logs in: vmoon set {name} ssh-user=USER"))
}

impl Guests {
    /// The guests of a connection. Touches nothing.
    pub fn new(config: Config) -> Self {
        let records = Records::new(config.dir.join(&config.connection));
        Self(Arc::new(Inner {
            config,
            records,
            known: Mutex::default(),
            connecting: Semaphore::new(CONNECTING),
            passage: Mutex::default(),
        }))
    }

    /// Forgets all machines of the connection: it is removed.
    ///
    /// # Errors
    /// `permission` or `file.failed`.
    pub fn clear(&self) -> Result<()> {
        *self.lock() = Some(HashMap::new());
        self.0.records.clear()
    }

    /// Locks what is known, after reading once which records there are.
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<String, Slot>>> {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            match self.0.records.names() {
                Ok(names) => *known = Some(names.into_iter().map(|name| (name, Slot::OnDisk)).collect()),
                Err(error) => tracing::error!(error = %error.chain(), "how guests are entered cannot be read"),
            }
        }
        known
    }

    /// What is known of a machine. Reads its record the first time.
    fn find(&self, key: &str) -> Option<Arc<One>> {
        let mut known = self.lock();
        let slot = known.as_mut()?.get_mut(key)?;
        if let Slot::OnDisk = slot {
            match self.0.records.get::<Record>(key) {
                Ok(Some(record)) => *slot = Slot::Read(Arc::new(One::new(key, record, now_ms()))),
                Ok(None) => return None,
                Err(error) => {
                    tracing::error!(error = %error.chain(), "how a guest is entered cannot be read");
                    return None;
                }
            }
        }
        match slot {
            Slot::Read(one) => Some(one.clone()),
            Slot::OnDisk => None,
        }
    }

    /// Keeps a changed record; what cannot be kept is still true until the daemon ends.
    fn keep(&self, one: &One) -> Result<()> {
        let record = one.record().clone();
        self.0.records.put(&one.key, &record).inspect_err(|error| {
            tracing::error!(error = %error.chain(), "how a guest is entered cannot be kept");
        })
    }

    /// The machine runs: another run than the last is another life, and its connection is of no use any more.
    fn seen(&self, one: &One, run: u64) {
        if one.record().seen(run, now_ms()) {
            one.leave();
            one.shell_over(one.shell(), now_ms());
            // A life whose number was never kept was not opened either; the log has why.
            let _ = self.keep(one);
        }
    }

    /// Whether sessions inside the machine can be offered. No I/O after the first time.
    pub fn is_known(&self, key: &str) -> bool {
        self.find(key).is_some_and(|one| one.record().user.is_some())
    }

    /// The port of its SSH server, if that was said.
    pub fn port(&self, key: &str) -> Option<u16> {
        self.find(key)?.record().port
    }

    /// The channels of a machine that runs; none if nobody has said how to enter it. Needs no network.
    pub fn channels(&self, key: &str, run: u64) -> Vec<Channel> {
        let Some(one) = self.find(key) else { return Vec::new() };
        self.seen(&one, run);
        let (life, offered) = {
            let record = one.record();
            (record.life, record.user.is_some())
        };
        if !offered {
            return Vec::new();
        }
        let channel = |name: &str, kind, life| Channel { name: name.into(), kind, life };
        vec![channel(MAIN, ChannelKind::Repl, life), channel(SHELL, ChannelKind::Terminal, one.shell())]
    }

    /// Facts to show of a machine.
    pub fn describe(&self, key: &str) -> Map<String, Value> {
        let mut facts = Map::new();
        let Some(one) = self.find(key) else { return facts };
        let record = one.record().clone();
        let mut say = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                facts.insert(name.into(), value);
            }
        };
        say("ssh_user", record.user.map(Into::into));
        say("ssh_port", record.port.map(Into::into));
        say(
            "ssh_identity",
            match record.identity {
                Some(path) => Some(path.display().to_string().into()),
                None => record.own_key.then(|| "vmoon's own key".into()),
            },
        );
        say("ssh_fingerprint", (!record.fingerprints.is_empty()).then(|| record.fingerprints.join(", ").into()));
        let carried = record.carried.filter(|carried| Some(&carried.name) == record.environment.as_ref());
        say("env", record.environment.map(Into::into));
        say("generation", carried.map(|carried| carried.generation.into()));
        if let Some(entered) = one.entered() {
            say("ssh_place", Some(entered.place().into()));
            say("lua", entered.lua().map(Into::into));
        }
        facts
    }

    /// Changes how a machine is entered; what has changed. With `dry_run` only what would change.
    ///
    /// # Errors
    /// [`Code::SpecInvalid`] for a key file that cannot be read; those of keeping it.
    pub fn tune(&self, key: &str, wanted: &Wanted, dry_run: bool) -> Result<Vec<Change>> {
        if let Some(identity) = wanted.identity()
            && let Err(error) = std::fs::File::open(identity)
        {
            let mut problems = Problems::default();
            problems.add("settings.ssh-identity", format!("{} cannot be read: {error}", identity.display()));
            return Err(problems.into());
        }
        let found = self.find(key);
        let before = found.as_ref().map(|one| one.record().clone()).unwrap_or_default();
        let mut after = before.clone();
        let mut changes = wanted.apply(&mut after);
        if after.user != before.user && before.bound.is_some() {
            // Another login has other sessions.
            after.over(before.life, now_ms());
            for change in changes.iter_mut().filter(|change| change.setting == "ssh-user") {
                change.what.push_str("; the Lua session of the former is left alone");
            }
        }
        if dry_run || changes.is_empty() {
            return Ok(changes);
        }
        if after.is_empty() {
            return self.forget(key).map(|()| changes);
        }
        self.0.records.put(key, &after)?;
        match found {
            Some(one) => *one.record() = after,
            None => {
                let one = Arc::new(One::new(key, after, now_ms()));
                self.lock().get_or_insert_default().insert(key.to_owned(), Slot::Read(one));
            }
        }
        Ok(changes)
    }

    /// Forgets a machine: it is deleted. Its connection is closed.
    ///
    /// # Errors
    /// `permission` or `file.failed`.
    pub fn forget(&self, key: &str) -> Result<()> {
        let slot = self.lock().as_mut().and_then(|known| known.remove(key));
        if let Some(Slot::Read(one)) = slot {
            one.leave();
        }
        self.0.records.remove(key)
    }
}
