//! A pool of XCP-ng whose VMs boot: from a template to what people do with a VM, by the command line.

use crate::home::Home;
use serde_json::Value;
use std::{
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::oneshot;
use vmoon_guest_image::Guest;
use vmoon_xapi_sim::{Server, Settings, Sim, machines::Qemu};

/// The pool. Dropping it ends it with all that runs in it.
struct Pool {
    sim: Arc<Sim>,
    uri: String,
    fingerprint: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pool {
    fn start() -> Self {
        let guest = Guest::kept().unwrap_or_else(|why| panic!("{why}"));
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = mpsc::sync_channel(1);
        // The machines die with the thread that has started them.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut server = Server::start(&Settings::default()).await.unwrap();
                server.boot(Box::new(Qemu::new(guest).unwrap()), Duration::from_secs(60)).unwrap();
                let fingerprint = format!("SHA256:{}", server.fingerprint().unwrap());
                tell.send((server.sim.clone(), format!("https://{}", server.address()), fingerprint)).unwrap();
                let _ = stopped.await;
                server.stop().await;
            });
        });
        let (sim, uri, fingerprint) = told.recv().unwrap();
        Self { sim, uri, fingerprint, stop: Some(stop), thread: Some(thread) }
    }

    /// A home with a connection `lab` to it.
    fn home(&self) -> Home {
        let home = Home::new();
        home.file("password", b"secret\n");
        home.ok([
            "connection",
            "add",
            "xcpng",
            &self.uri,
            "--name",
            "lab",
            "--user",
            "root",
            "--password-file",
            "password",
            "--accept-fingerprint",
            &self.fingerprint,
        ]);
        home
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn state(home: &Home, machine: &str) -> String {
    let shown: Value = serde_json::from_str(&home.ok(["show", machine, "-o", "json"])).unwrap();
    shown["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_vm_from_a_template_boots_rests_and_goes() {
    let pool = Pool::start();
    let home = pool.home();
    home.ok(["create", "lab:moon", "--set", "template=guest", "--until", "ip"]);
    let address = home.ok(["ip", "lab:moon"]);
    assert!(address.starts_with("127."), "{address}");
    home.ok(["snapshot", "create", "lab:moon", "before"]);
    home.ok(["suspend", "lab:moon"]);
    assert_eq!(state(&home, "lab:moon"), "suspended");
    home.ok(["resume", "lab:moon"]);
    home.ok(["wait", "lab:moon", "--until", "ip"]);
    // The guest obeys its power button.
    home.ok(["stop", "lab:moon"]);
    assert_eq!(state(&home, "lab:moon"), "stopped");
    home.ok(["rm", "lab:moon", "--yes"]);
    let left = pool.sim.names("VM");
    assert!(!left.iter().any(|name| name == "moon" || name == "before"), "{left:?}");
}
