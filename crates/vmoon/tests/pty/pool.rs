//! A pool of XCP-ng whose VMs boot: from a template to what people do with a VM, by the command line.

use crate::{home::Home, terminal::Terminal};
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

/// A terminal in the Lua session of the machine.
fn attached(home: &Home) -> Terminal {
    let mut terminal = Terminal::start(home.command(["attach", "lab:moon"]));
    terminal.expect("attached to");
    terminal.prompt();
    terminal
}

#[test]
fn lua_in_a_guest_outlives_its_terminals_and_the_daemon() {
    let pool = Pool::start();
    let home = pool.home();
    home.ok(["create", "lab:moon", "--set", "template=guest", "--set", "seed=yes", "--until", "session"]);
    assert_eq!(home.ok(["exec", "lab:moon", "--", "hostname"]), "moon\n");
    home.ok(["eval", "lab:moon", "x = 42"]);
    assert_eq!(home.ok(["eval", "lab:moon", "print(x)"]), "42\n");
    assert_eq!(home.ok(["eval", "lab:moon", "return _VERSION"]), "Lua 5.4\n");

    let mut terminal = attached(&home);
    terminal.line("x = x + 1");
    terminal.prompt();
    terminal.send(b"\x1dd");
    terminal.expect("detached");
    assert!(terminal.wait().success());
    // Somewhere else, and with another daemon: the first one is gone without a word.
    rustix::process::kill_process(rustix::process::Pid::from_raw(home.daemon()).unwrap(), rustix::process::Signal::KILL).unwrap();
    let mut terminal = attached(&home);
    terminal.line("return 'still ' .. x");
    terminal.expect("still 43");
    terminal.send(b"\x1dd");
    assert!(terminal.wait().success());

    home.ok(["stop", "lab:moon"]);
    home.ok(["rm", "lab:moon", "--yes"]);
}

#[test]
fn a_guest_without_lua_says_so_and_has_a_shell() {
    let pool = Pool::start();
    let home = pool.home();
    home.ok(["create", "lab:bare", "--set", "template=guest-nolua", "--set", "seed=yes", "--until", "ssh"]);
    let refused = home.vmoon(["eval", "lab:bare", "return 1"], b"");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("Lua"), "{said}");
    assert_eq!(home.ok(["exec", "lab:bare", "--", "echo", "a  b"]), "a  b\n");
    home.ok(["rm", "lab:bare", "--force", "--yes"]);
}
