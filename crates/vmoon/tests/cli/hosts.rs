//! A host over SSH, as its user meets it: files both ways, packages carried there.

use super::{environments::Place, home::Home};
use serde_json::Value;
use std::{fs, path::PathBuf, sync::mpsc, thread::JoinHandle};
use tokio::sync::oneshot;
use vmoon_ssh_lab::{Lab, Tools, me};

/// The host, whose sshd lives in a thread of its own. Dropping it ends it.
struct Host {
    port: u16,
    dir: PathBuf,
    fingerprint: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    fn start(lua: &'static str) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let lab = Lab::new(Tools::BusyBox, lua).await;
                ready.send((lab.place.port(), lab.path().to_owned(), lab.fingerprint())).unwrap();
                let _ = stopped.await;
            });
        });
        let (port, dir, fingerprint) = is_ready.recv().expect("a host");
        Self { port, dir, fingerprint, stop: Some(stop), thread: Some(thread) }
    }

    /// Makes it known in a home under that name.
    fn add(&self, home: &Home, name: &str) {
        let (uri, key) = (format!("{}@127.0.0.1:{}", me(), self.port), self.dir.join("user"));
        let key = key.to_str().expect("a path");
        home.run(&["connection", "add", "ssh", &uri, "--name", name, "--identity", key, "--accept-fingerprint", &self.fingerprint]).ok();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the host's thread");
        }
    }
}

/// The name of the one machine of a connection.
fn machine(home: &Home) -> String {
    let listed: Value = serde_json::from_str(&home.json(&["list"]).ok()).expect("a list");
    let first = listed.as_array().and_then(|all| all.first()).expect("a machine");
    first["name"].as_str().expect("a name").to_owned()
}

#[test]
fn packages_and_files_reach_a_host() {
    let place = Place::new();
    place.generation("work", "5.4", 1, "hello");
    place.generation("old", "5.1", 1, "hello");
    let (home, host) = (&place.home, Host::start("lua5.4"));
    host.add(home, "web");
    let name = machine(home);
    let name = name.as_str();
    // Packages: what would be sent, then sent; a session that begins has them, one that runs is told.
    let dry = home.run(&["env", "apply", "work", name, "--dry-run"]).ok();
    assert!(dry.contains("sends 2 files") && dry.contains("from its next start on"), "{dry}");
    home.json(&["env", "apply", "old", name]).fails("spec.invalid", 2);
    home.run(&["env", "apply", "work", name]).ok();
    let both = "print(require('greet').say(), (require('answer')))";
    assert_eq!(place.says(&["eval", name, both]), "hello\tforty-two");
    assert_eq!(place.facts(name)["env"], "work");
    place.generation("work", "5.4", 2, "bye");
    let applied = home.run(&["env", "apply", "work", name]);
    assert!(applied.code == 0 && applied.err.contains("greet"), "what is loaded is listed: {applied:?}");
    assert_eq!(place.says(&["eval", name, "package.loaded.greet = nil print(require('greet').say())"]), "bye");
    // An environment of its own, with what every vmoon has.
    home.run(&["env", "apply", "work", name]).ok();
    // Files: both ways, whole directories too, relative to the login's home.
    let bytes: Vec<u8> = (0..1_500_000_u32).map(|n| ((n * 31) >> 3) as u8).collect();
    fs::write(home.path("data.bin"), &bytes).expect("a file");
    home.run(&["cp", "data.bin", &format!("{name}:up.bin")]).ok();
    assert!(fs::read(host.dir.join("up.bin")).expect("the copy") == bytes);
    home.run(&["cp", &format!("{name}:{}/up.bin", host.dir.display()), "down.bin"]).ok();
    assert!(fs::read(home.path("down.bin")).expect("the copy back") == bytes);
    fs::create_dir_all(home.path("tree/inner")).expect("a directory");
    for file in ["tree/a", "tree/inner/b b"] {
        fs::write(home.path(file), file).expect("a file");
    }
    home.run(&["cp", "-r", "tree", &format!("{name}:tree")]).ok();
    home.run(&["cp", "-r", &format!("{name}:tree"), "again"]).ok();
    assert_eq!(fs::read_to_string(home.path("again/inner/b b")).expect("the copy"), "tree/inner/b b");
    home.json(&["cp", &format!("{name}:none"), "x"]).fails("file.not_found", 3);
    home.json(&["cp", "data.bin", &format!("{name}:no/such/dir/x")]).fails("file.not_found", 3);
    home.run(&["connection", "rm", "web", "--yes"]).ok();
}

#[test]
fn packages_are_installed_for_a_host() {
    let place = Place::new();
    let (home, host) = (&place.home, Host::start("lua5.4"));
    host.add(home, "web");
    let name = machine(home);
    home.run(&["pkg", "install", "bio-utils", "--machine", &name, "--offline"]).ok();
    let facts = place.facts(&name);
    home.json(&["env", "rm", facts["env"].as_str().expect("an environment"), "--yes"]).fails("environment.in_use", 4);
    let code = "print(require('bio.utils').reverse_complement('AACG'))";
    assert_eq!(place.says(&["eval", &name, code]), "CGTT");
    home.run(&["connection", "rm", "web", "--yes"]).ok();
}
