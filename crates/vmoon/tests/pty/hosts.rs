//! A daemon inside the test, with simulated hosts to connect to: what people see of machines that are no Lua VMs.

use crate::home::Home;
use std::{
    sync::{Arc, mpsc},
    thread::JoinHandle,
};
use tokio::sync::oneshot;
use vmoon_api::Api;
use vmoon_core::{
    Code, Error, Result,
    connection::Connection,
    driver::{Driver, Handle},
};
use vmoon_daemon::{
    Daemon, Quota, bind,
    connections::{Access, Maker},
    hooks::Hooks,
};
use vmoon_driver_sim::{Guest, SimDriver, World};
use vmoon_sys::paths::Paths;

/// The key of every host.
pub(crate) const KEY: &str = "SHA256:uNiVztksCsDhcc0u9e8BrotYbfkaeBBDGfQNDkG8RsA";

/// One world behind every address.
struct Hosts(Arc<World>);

impl Maker for Hosts {
    fn kind(&self) -> &'static str {
        "sim"
    }

    fn make(&self, _: &Connection, access: Access) -> Result<Arc<dyn Driver>> {
        let door = move || match access.fingerprint() {
            Some(known) if known == KEY => Ok(()),
            expected => {
                let detail = serde_json::json!({ "fingerprint": KEY, "expected": expected });
                Err(Error::new(Code::ConnectionUntrusted, "the host's key is not known").detail(detail))
            }
        };
        Ok(Arc::new(SimDriver::hypervisor(self.0.clone()).behind(Arc::new(door))))
    }
}

/// The daemon. Dropping it ends it.
pub(crate) struct Running {
    pub(crate) world: Arc<World>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Serves this home's socket.
    pub(crate) fn start(home: &Home) -> Self {
        // Its state is elsewhere, so that the home does not take it for the daemon that it starts itself.
        let place = |name: &str| home.path().join(name);
        let paths = Paths { state: place("sim"), runtime: place("run/vmoon"), config: place("config"), cache: place("cache") };
        let world = World::new();
        let hosts: Vec<Arc<dyn Maker>> = vec![Arc::new(Hosts(world.clone()))];
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                paths.make().unwrap();
                let daemon = Daemon::start_with(&paths.state, Vec::new(), hosts, Hooks::default(), Quota::default()).await.unwrap();
                let listener = bind(&paths).unwrap();
                ready.send(()).unwrap();
                let serve = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        let api: Arc<dyn Api> = daemon.service.clone();
                        drop(tokio::spawn(vmoon_daemon::serve_connection(stream, api)));
                    }
                };
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        is_ready.recv().unwrap();
        Self { world, stop: Some(stop), thread: Some(thread) }
    }

    /// A machine with a console that somebody else made, running.
    pub(crate) fn machine(&self, name: &str) -> Handle {
        let handle = self.world.add_foreign(name);
        self.world.set_guest(&handle, Guest { serial: true, ..Guest::default() });
        self.world.power_on(&handle);
        handle
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
