//! A daemon over a simulated world, in a private directory, with or without a socket between.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use uuid::Uuid;
use vmoon_api::{
    Api, Client,
    requests::{CreateMachine, MachineRequest, WaitMachine, WaitOperation},
    views::{MachineView, OperationView},
};
use vmoon_core::{
    Code, ConnectionId, Error, Result,
    connection::Connection,
    driver::Driver,
    machine::{Answer, Request, State},
    operation::Outcome,
    spec::MachineSpec,
};
use vmoon_daemon::{
    Daemon, Quota,
    connections::{Access, Maker},
    hooks::Hooks,
    service::{Connected, Service},
};
use vmoon_driver_sim::{SimDriver, World};

/// How long a test waits for something that has to happen.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// Everything that outlives a daemon: its directory and the world.
pub(super) struct Outside {
    pub(super) dir: TempDir,
    pub(super) world: Arc<World>,
}

impl Outside {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), world: World::new() }
    }

    /// Starts a daemon. A former one must have been dropped.
    pub(super) async fn daemon(&self, hooks: Hooks) -> Arc<Service> {
        self.driven(SimDriver::new(self.world.clone()), hooks).await
    }

    /// The same with that driver.
    pub(super) async fn driven(&self, driver: SimDriver, hooks: Hooks) -> Arc<Service> {
        self.former_store_has_ended();
        let connection = Connection::new(ConnectionId::from_uuid(Uuid::from_u128(7)), "local", "sim", "");
        let connected = Connected { connection, driver: Arc::new(driver) };
        Daemon::start(self.dir.path(), vec![connected], hooks).await.unwrap().service
    }

    /// Starts a daemon to which connections can be added: those of kind `sim` lead to the hosts.
    pub(super) async fn with_hosts(&self, hosts: &Hosts) -> Arc<Service> {
        self.former_store_has_ended();
        let connection = Connection::new(ConnectionId::from_uuid(Uuid::from_u128(7)), "local", "lua", "");
        let connected = Connected { connection, driver: Arc::new(SimDriver::new(self.world.clone())) };
        let makers: Vec<Arc<dyn Maker>> = vec![Arc::new(hosts.clone())];
        let started = Daemon::start_with(self.dir.path(), vec![connected], makers, Hooks::default(), Quota::default());
        started.await.unwrap().service
    }

    /// A kill takes the store's thread with it; dropping a runtime does not, and a job it still has would be a dead daemon's.
    fn former_store_has_ended(&self) {
        let store = self.dir.path().join("vmoon.db");
        let limit = std::time::Instant::now() + LIMIT;
        let open = || {
            let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|target| target == store)
        };
        while open() {
            assert!(std::time::Instant::now() < limit, "the former daemon's store is still open");
            std::thread::yield_now();
        }
    }

    /// Starts a daemon, and a client that reaches it through a socket.
    pub(super) async fn client(&self) -> (Arc<Service>, Client) {
        let service = self.daemon(Hooks::default()).await;
        let socket = listen(self.dir.path(), service.clone());
        (service, Client::new(socket))
    }
}

/// One life of a daemon: whatever it has started ends with it, as with a kill.
pub(super) fn life<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
}

/// Simulated hosts by their URI, each with the password and the fingerprint it has.
#[derive(Clone, Default)]
pub(super) struct Hosts(Arc<Mutex<HashMap<String, Host>>>);

/// One host.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) world: Arc<World>,
    pub(super) password: Option<&'static str>,
    pub(super) fingerprint: Option<&'static str>,
}

impl Hosts {
    /// A host that lets everybody in.
    pub(super) fn open(&self, uri: &str) -> Arc<World> {
        self.set(uri, None, None)
    }

    /// A host with a door; a former one of that URI keeps its world.
    pub(super) fn set(&self, uri: &str, password: Option<&'static str>, fingerprint: Option<&'static str>) -> Arc<World> {
        let mut all = self.0.lock().unwrap();
        let world = all.get(uri).map_or_else(World::new, |host| host.world.clone());
        all.insert(uri.into(), Host { world: world.clone(), password, fingerprint });
        world
    }
}

impl Maker for Hosts {
    fn kind(&self) -> &'static str {
        "sim"
    }

    fn make(&self, connection: &Connection, access: Access) -> Result<Arc<dyn Driver>> {
        let (uri, hosts) = (connection.uri.clone(), self.clone());
        let world = match self.0.lock().unwrap().get(&uri) {
            Some(host) => host.world.clone(),
            None => return Err(Error::new(Code::Usage, format!("{uri} is no URI of a simulated host"))),
        };
        let door = move || {
            let host = hosts.0.lock().unwrap()[&uri].clone();
            let expected = access.fingerprint();
            match host.fingerprint {
                Some(own) if expected.as_deref() != Some(own) => {
                    let detail = serde_json::json!({ "fingerprint": own, "expected": expected });
                    return Err(Error::new(Code::ConnectionUntrusted, "the host's key is not known").detail(detail));
                }
                _ => {}
            }
            let secret = access.secret();
            match host.password {
                Some(own) if secret.as_ref().map(|s| s.expose()) != Some(own.as_bytes()) => {
                    Err(Error::new(Code::ConnectionAuth, "the password was refused"))
                }
                _ => Ok(()),
            }
        };
        Ok(Arc::new(SimDriver::hypervisor(world).behind(Arc::new(door))))
    }
}

fn listen(dir: &Path, service: Arc<Service>) -> std::path::PathBuf {
    let path = dir.join("api.sock");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let api: Arc<dyn Api> = service.clone();
            tokio::spawn(vmoon_daemon::serve_connection(stream, api));
        }
    });
    path
}

pub(super) fn spec(settings: serde_json::Value) -> MachineSpec {
    MachineSpec { kind: "sim".into(), settings: settings.as_object().unwrap().clone(), ..MachineSpec::default() }
}

pub(super) async fn create(api: &dyn Api, name: &str, settings: serde_json::Value) -> MachineView {
    let request = CreateMachine { name: name.into(), connection: None, spec: spec(settings), start: false, deadline_ms: None };
    let answered = api.create_machine(request).await.unwrap();
    finish(api, &answered.answer).await;
    answered.machine
}

pub(super) async fn ask(api: &dyn Api, name: &str, request: Request) -> Result<Answer> {
    let request = MachineRequest { machine: name.into(), request, confirm: None, disks: None, deadline_ms: None };
    Ok(api.request_machine(request).await?.answer)
}

/// Asks and waits for the operation to end well.
pub(super) async fn did(api: &dyn Api, name: &str, request: Request) {
    let answer = ask(api, name, request).await.unwrap();
    let ended = finish(api, &answer).await;
    assert!(ended.is_none_or(|op| op.outcome == Some(Outcome::Done)), "{request:?} of {name}");
}

/// Waits for the operation of an answer to end.
pub(super) async fn finish(api: &dyn Api, answer: &Answer) -> Option<OperationView> {
    let (Answer::Started { operation } | Answer::Joined { operation }) = answer else { return None };
    let request = WaitOperation { operation: operation.to_string(), timeout_ms: Some(LIMIT.as_millis() as u64) };
    let view = api.wait_operation(request).await.unwrap();
    assert!(view.outcome.is_some(), "{view:?} does not end");
    Some(view)
}

pub(super) async fn until(api: &dyn Api, name: &str, state: State) -> MachineView {
    let request = WaitMachine { machine: name.into(), until: Some(state), generation: None, timeout_ms: Some(LIMIT.as_millis() as u64) };
    let view = api.wait_machine(request).await.unwrap();
    assert_eq!(view.state, state, "{view:?}");
    view
}
