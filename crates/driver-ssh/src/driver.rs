//! The driver: one host, observed and opened; everything that would change it is refused.

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::timeout};
use vmoon_core::{
    Code, Error, MachineId, Result,
    ability::{Address, Addresses, Changed, Ended, Environments, Exec, Notices, Program, RemoteFiles, UsedEnvironment},
    driver::{
        Abilities, Channel, ChannelKind, Check, Driver, DriverInfo, Found, Handle, HostFacts, Journal, Observed, Offset, Plan, Recovered,
        SessionLink, Sighting, StopMode, Verdict, unsupported,
    },
    operation::{OpRecord, Undo},
    spec::{MachineSpec, Problems},
};
use vmoon_remote::{
    Auth, Host, HostFiles, Link, Target, environment,
    environment::Carrier,
    guest::{Guest, Seen},
    over::{Account, Entrance, OverSsh},
    route, shell,
};
use vmoon_sys::{clock::now_ms, login::Login};

/// The kind of these machines.
const KIND: &str = "ssh";
/// The channel of the Lua session, and the name of its directory on the host.
const MAIN: &str = "main";
/// The channel of the shell.
const SHELL: &str = "shell";
/// How long looking at a host may take, connecting included.
const LOOK: Duration = Duration::from_secs(9);

/// One connection, as plain data.
#[derive(Clone, Debug)]
pub struct SshConfig {
    /// The connection's id: sessions on the host are kept apart by it. Letters, digits, dots, dashes and underscores.
    pub id: String,
    /// `user@host[:port]`, `ssh://…`, or an alias of `~/.ssh/config`.
    pub uri: String,
    /// The login name, where it is not in the URI.
    pub user: Option<String>,
    /// What to show the server.
    pub auth: Auth,
    /// Confirmed fingerprints, `SHA256:…`. With none, the files of known hosts decide.
    pub pins: Vec<String>,
    /// Whether `~/.ssh/config`, the user's keys, agent and known hosts are used.
    pub user_files: bool,
    /// The user whose files and agent these are.
    pub login: Login,
    /// The Lua interpreter on the host, as a path there or a name on its PATH; the first that is found if not said.
    pub lua: Option<String>,
    /// Where environments of packages are found; without it hosts use none.
    pub environments: Option<Arc<dyn environment::Environments>>,
}

/// What [`SshDriver::test`] found.
#[derive(Clone, Debug, Serialize)]
pub struct Greeting {
    /// Name or address and port that were reached.
    pub place: String,
    /// The Lua interpreter that sessions would run in, if there is one.
    pub lua: Option<String>,
    /// The login name there.
    pub user: String,
}

/// Where one gets to the host's files and environments.
struct Door {
    guest: Guest,
    files: HostFiles,
    carrier: Option<Carrier>,
    id: String,
}

impl Door {
    fn handle(&self) -> Handle {
        Handle(json!({ "ssh": self.id }).to_string())
    }

    fn known(&self, handle: &Handle) -> Result<()> {
        if *handle == self.handle() { Ok(()) } else { Err(Error::new(Code::MachineNotFound, "the connection has another host now")) }
    }
}

/// The driver of one connection.
pub struct SshDriver {
    host: Host,
    guest: Guest,
    target: Target,
    door: Arc<Door>,
    over: OverSsh<Door>,
    /// The life of the next shell, or of the one that runs.
    shell: Arc<AtomicU64>,
}

impl SshDriver {
    /// A driver; connects nowhere.
    ///
    /// # Errors
    /// [`Code::Usage`] when the URI is no target or leads through a circle of jump hosts; [`Code::NameInvalid`] for an odd id.
    pub fn new(config: SshConfig) -> Result<Self> {
        let target: Target = config.uri.parse()?;
        let wish =
            route::Wish { target: target.clone(), user: config.user, auth: config.auth, pins: config.pins, user_files: config.user_files };
        let mut way = route::resolve(&wish, &config.login)?;
        way.connect = LOOK;
        // Lives of shells of an earlier daemon are smaller.
        let host = Host::new(way);
        let guest = Guest::new(host.clone(), &config.id, MAIN, config.lua)?;
        let files = HostFiles::new(host.clone());
        let carrier = config.environments.map(|all| Carrier::new(guest.clone(), all));
        let door = Arc::new(Door { guest: guest.clone(), files, carrier, id: config.id });
        let over = OverSsh::new(door.clone());
        Ok(Self { host, guest, target, door, over, shell: Arc::new(AtomicU64::new(now_ms())) })
    }

    /// The host, for whoever wants more than a machine: files, programs.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The Lua session's place on the host.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// How the connection stands, and every change of it.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.host.link()
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// [`Code::ConnectionUntrusted`], [`Code::ConnectionAuth`], [`Code::DriverUnreachable`]; see the crate's documentation.
    pub async fn test(&self) -> Result<Greeting> {
        self.host.connection().await?;
        // An account that runs no scripts still has files and perhaps a shell.
        let lua = self.guest.look().await.ok().and_then(|seen| seen.lua);
        let target = &self.host.route().target;
        Ok(Greeting { place: format!("{}:{}", target.host, target.port), lua, user: target.user.clone() })
    }

    fn known(&self, handle: &Handle) -> Result<()> {
        self.door.known(handle)
    }

    async fn look(&self) -> Result<Observed> {
        let mut channels = Vec::new();
        match self.guest.look().await {
            Ok(seen) if seen.lua.is_some() || seen.lives => {
                channels.push(Channel { name: MAIN.into(), kind: ChannelKind::Repl, life: seen.next_life() });
            }
            Ok(_) => {}
            Err(error) if error.code() == Code::DriverFailed => {
                tracing::info!(host = %self.target, error = %error.chain(), "no Lua sessions")
            }
            Err(error) => return Err(error),
        }
        channels.push(Channel { name: SHELL.into(), kind: ChannelKind::Terminal, life: self.shell.load(Ordering::Relaxed) });
        Ok(Observed::On(channels))
    }

    async fn seen(&self) -> Sighting {
        let observed = match timeout(LOOK, self.look()).await {
            Ok(Ok(observed)) => observed,
            // Why it cannot be asked is told by the link; it says nothing about the host.
            Ok(Err(_)) | Err(_) => Observed::Unreachable,
        };
        Sighting { observed, complete: true }
    }

    fn open_shell(&self, life: u64, from: Offset) -> Result<SessionLink> {
        let ended = Error::new(Code::SessionEnded, "the shell has ended");
        if self.shell.load(Ordering::Relaxed) != life {
            return Err(ended);
        }
        let next = self.shell.clone();
        let over = move || {
            let _ = next.compare_exchange(life, now_ms().max(life + 1), Ordering::Relaxed, Ordering::Relaxed);
        };
        if from > 0 {
            // It had begun, and nobody holds it any more.
            over();
            return Err(ended);
        }
        Ok(shell::open(self.host.clone(), over))
    }
}

#[async_trait]
impl Driver for SshDriver {
    fn info(&self) -> DriverInfo {
        DriverInfo { kind: KIND.into(), settings: Vec::new() }
    }

    async fn probe(&self) -> Vec<Check> {
        let requirement = format!("{} can be reached over SSH", self.target);
        let (verdict, finding, fix) = match timeout(LOOK, self.test()).await {
            Ok(Ok(Greeting { place, user, lua: Some(lua) })) => {
                (Verdict::Ok, format!("logged in to {place} as {user}; {lua}"), String::new())
            }
            Ok(Ok(Greeting { place, user, lua: None })) => {
                (Verdict::Warn, format!("logged in to {place} as {user}; no Lua there"), "for Lua sessions install lua5.4 there".into())
            }
            Ok(Err(error)) => (Verdict::Fail, error.chain(), error.hint_text().unwrap_or_default().to_owned()),
            Err(_) => {
                (Verdict::Fail, format!("no answer within {} s", LOOK.as_secs()), "look whether the host runs and its sshd listens".into())
            }
        };
        vec![Check { requirement, verdict, finding, fix }]
    }

    async fn facts(&self) -> Result<HostFacts> {
        Ok(HostFacts::default())
    }

    fn plan(&self, _: &str, _: &MachineSpec, _: &HostFacts) -> Result<Plan, Problems> {
        let mut problems = Problems::default();
        problems.add("kind", "machines of kind ssh are hosts that exist: vmoon connection add ssh user@host");
        if let Some(problem) = problems.0.first_mut() {
            problem.code = Some(Code::DriverUnsupported);
        }
        Err(problems)
    }

    async fn create(&self, _: MachineId, _: &Plan, _: &dyn Journal) -> Result<Handle> {
        Err(unsupported(KIND, "be created"))
    }

    async fn start(&self, _: &Handle) -> Result<()> {
        Err(unsupported(KIND, "be started"))
    }

    async fn stop(&self, _: &Handle, _: StopMode) -> Result<()> {
        Err(unsupported(KIND, "be stopped"))
    }

    async fn delete(&self, _: &Handle) -> Result<()> {
        Err(unsupported(KIND, "be deleted").hint("to forget the host, remove its connection: vmoon connection rm NAME"))
    }

    async fn observe(&self, handle: &Handle) -> Sighting {
        if self.known(handle).is_err() {
            return Sighting { observed: Observed::Missing, complete: true };
        }
        self.seen().await
    }

    async fn list(&self) -> Result<Vec<Found>> {
        // A host that cannot be asked, or does not let us in, has no list: the reason is the connection's.
        let late = |_| Error::new(Code::DriverUnreachable, format!("{} did not answer within {} s", self.target, LOOK.as_secs()));
        timeout(LOOK, self.host.connection()).await.map_err(late)??;
        Ok(vec![Found { handle: self.door.handle(), id: None, name: self.target.host.clone(), sighting: self.seen().await }])
    }

    async fn recover(&self, _: &OpRecord, _: &[Undo]) -> Result<Recovered> {
        // Nothing is ever begun, so nothing can be half done.
        Ok(Recovered::Reversed)
    }

    async fn open(&self, handle: &Handle, channel: &Channel, from: Offset) -> Result<SessionLink> {
        self.known(handle)?;
        match channel.name.as_str() {
            MAIN => self.guest.open(channel.life, from).await,
            SHELL => self.open_shell(channel.life, from),
            other => Err(Error::new(Code::SessionChannel, format!("{} has no channel {}", self.target, other.escape_debug()))),
        }
    }

    fn abilities(&self, _: &Handle) -> Abilities {
        Abilities { eval: true, exec: true, addresses: true, ..Abilities::default() }
    }

    async fn describe(&self, _: &Handle) -> Map<String, Value> {
        let target = &self.host.route().target;
        let mut facts = Map::new();
        facts.insert("host".into(), target.host.clone().into());
        facts.insert("port".into(), target.port.into());
        facts.insert("user".into(), target.user.clone().into());
        let jumps: Vec<&str> = self.host.route().jumps.iter().map(|hop| hop.name.as_str()).collect();
        if !jumps.is_empty() {
            facts.insert("through".into(), jumps.into());
        }
        let link = match &*self.host.link().borrow() {
            Link::Idle => "not needed yet".into(),
            Link::Connected => "connected".into(),
            Link::Reconnecting { attempt, why, .. } => format!("reconnecting, attempt {attempt}: {why}"),
            Link::Lost(record) => format!("lost: {}", record.message),
        };
        facts.insert("link".into(), link.into());
        if let Some(Seen { lua, base, environments, .. }) = self.guest.last_seen() {
            facts.insert("lua".into(), lua.unwrap_or_else(|| "none".into()).into());
            facts.insert("sessions".into(), base.into());
            if let Some(used) = environments.last() {
                facts.insert("env".into(), used.environment.name.clone().into());
                facts.insert("generation".into(), used.environment.generation.into());
            }
        }
        facts
    }

    fn exec(&self) -> Option<&dyn Exec> {
        Some(self)
    }

    fn addresses(&self) -> Option<&dyn Addresses> {
        Some(self)
    }

    fn environments(&self) -> Option<&dyn Environments> {
        self.door.carrier.as_ref().map(|_| &self.over as &dyn Environments)
    }

    fn remote_files(&self) -> Option<&dyn RemoteFiles> {
        Some(&self.over)
    }

    fn watch(&self) -> Option<Box<dyn Notices>> {
        Some(Box::new(Changes { link: self.host.link() }))
    }
}

#[async_trait]
impl Exec for SshDriver {
    async fn exec(&self, handle: &Handle, program: &Program) -> Result<Ended> {
        self.known(handle)?;
        self.host.connection().await?.exec(program).await
    }
}

#[async_trait]
impl Entrance for Door {
    async fn enter(&self, handle: &Handle) -> Result<Account> {
        self.known(handle)?;
        Ok(Account { files: self.files.clone(), carrier: self.carrier.clone(), hold: Arc::new(()) })
    }

    fn used(&self) -> Vec<(Handle, UsedEnvironment)> {
        // What the last look has shown: nobody waits for a host that is not there.
        let used = self.carrier.as_ref().map(Carrier::used).unwrap_or_default();
        used.into_iter().map(|one| (self.handle(), one.environment)).collect()
    }

    async fn wanted(&self, handle: &Handle) -> Result<Option<String>> {
        self.known(handle)?;
        if self.guest.last_seen().is_none() {
            self.guest.look().await?;
        }
        Ok(self.carrier.as_ref().and_then(|carrier| carrier.used().pop()).map(|used| used.environment.name))
    }

    fn keep(&self, _: &Handle, _: &UsedEnvironment) {
        // The host keeps it.
    }
}

#[async_trait]
impl Addresses for SshDriver {
    async fn addresses(&self, handle: &Handle) -> Result<Vec<Address>> {
        self.known(handle)?;
        let target = &self.host.route().target;
        let source = "configured".to_owned();
        let address = |ip: String| Address { ip, interface: String::new(), mac: String::new(), source: source.clone() };
        // Behind a jump host the name means something there only.
        if !self.host.route().jumps.is_empty() {
            return Ok(vec![address(target.host.clone())]);
        }
        let found = timeout(LOOK, tokio::net::lookup_host((target.host.as_str(), target.port))).await;
        let mut all: Vec<Address> = match found {
            Ok(Ok(found)) => found.map(|place| address(place.ip().to_string())).collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        all.dedup();
        Ok(all)
    }
}

/// Changes of the link, as notices.
struct Changes {
    link: watch::Receiver<Link>,
}

#[async_trait]
impl Notices for Changes {
    async fn next(&mut self) -> Option<Changed> {
        self.link.changed().await.ok().map(|()| Changed::All)
    }
}
