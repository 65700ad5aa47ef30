//! A daemon over a simulated world, in a private directory, with or without a socket between.

use std::{path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::net::UnixListener;
use uuid::Uuid;
use vmoon_api::{
    Api, Client,
    requests::{CreateMachine, MachineRequest, WaitMachine, WaitOperation},
    views::{MachineView, OperationView},
};
use vmoon_core::{
    ConnectionId, Result,
    connection::Connection,
    machine::{Answer, Request, State},
    operation::Outcome,
    spec::MachineSpec,
};
use vmoon_daemon::{
    Daemon,
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
        self.former_store_has_ended();
        let connection = Connection::new(ConnectionId::from_uuid(Uuid::from_u128(7)), "local", "sim", "");
        let connected = Connected { connection, driver: Arc::new(SimDriver::new(self.world.clone())) };
        Daemon::start(self.dir.path(), vec![connected], hooks).await.unwrap().service
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
    let request = MachineRequest { machine: name.into(), request, confirm: None, deadline_ms: None };
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
