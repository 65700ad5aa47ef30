//! A host over SSH, as its user meets it: files both ways, packages carried there.

use super::{environments::Place, home::Home};
use serde_json::Value;
use std::{fs, path::Path};
use vmoon_ssh_lab::{Own, Tools, me, walk};

/// Makes a host known in a home under that name.
fn add(home: &Home, host: &Own, name: &str) {
    let (uri, key) = (format!("{}@127.0.0.1:{}", me(), host.port), host.dir.join("user"));
    let key = key.to_str().expect("a path");
    home.run(&["connection", "add", "ssh", &uri, "--name", name, "--identity", key, "--accept-fingerprint", &host.fingerprint]).ok();
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
    let (home, host) = (&place.home, Own::start(Tools::BusyBox, "lua5.4"));
    add(home, &host, "web");
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
    // Directories above are made, as they are here.
    home.run(&["cp", "data.bin", &format!("{name}:made/on/the/way/x")]).ok();
    assert!(fs::read(host.dir.join("made/on/the/way/x")).expect("the copy") == bytes);
    home.run(&["connection", "rm", "web", "--yes"]).ok();
}

#[test]
fn packages_are_installed_for_a_host() {
    let place = Place::new();
    let (home, host) = (&place.home, Own::start(Tools::BusyBox, "lua5.4"));
    add(home, &host, "web");
    let name = machine(home);
    home.run(&["pkg", "install", "bio-utils", "--machine", &name, "--offline"]).ok();
    let facts = place.facts(&name);
    home.json(&["env", "rm", facts["env"].as_str().expect("an environment"), "--yes"]).fails("environment.in_use", 4);
    let code = "print(require('bio.utils').reverse_complement('AACG'))";
    assert_eq!(place.says(&["eval", &name, code]), "CGTT");
    home.run(&["connection", "rm", "web", "--yes"]).ok();
}

/// Makes an environment large: so that it is on its way for a while.
fn large(place: &Place, name: &str, files: u32) {
    let scripts = place.home.path("state/vmoon/environments").join(name).join("generations/1/share/lua/5.4/large");
    fs::create_dir_all(&scripts).expect("a directory");
    for n in 0..files {
        fs::write(scripts.join(format!("m{n}.lua")), format!("return #'{}{name}{n}'", "x".repeat(100_000))).expect("a file");
    }
}

/// The operation that runs, when it has told how much was sent.
fn sending(home: &Home) -> Value {
    for _ in 0..600 {
        let all: Value = serde_json::from_str(&home.json(&["operation", "list", "--running"]).ok()).expect("a list");
        let one = all.as_array().and_then(|all| all.first()).cloned().unwrap_or_default();
        let some = one["progress"]["phase"].as_str().is_some_and(|phase| phase.contains(" of ") && !phase.starts_with("0 of "));
        if some && one["progress"]["percent"].as_u64().is_some_and(|percent| percent > 0) {
            return one;
        }
    }
    panic!("nothing is sent: {:?}", home.run(&["operation", "list"]));
}

/// Whatever has a name among the packages of a host is whole; how many trees there are.
fn whole(host: &Own) -> usize {
    let packages = host.dir.join("state/vmoon/packages");
    let named = |path: &Path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'));
    for file in walk(&packages.join("files")).into_iter().filter(|file| named(file)) {
        let out = std::process::Command::new("sha256sum").arg(&file).output().expect("sha256sum");
        let sum = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(sum.starts_with(&*file.file_name().expect("a name").to_string_lossy()), "{sum}");
    }
    let trees = fs::read_dir(packages.join("trees")).into_iter().flatten().flatten();
    trees.filter(|tree| named(&tree.path())).count()
}

#[test]
fn what_is_sent_is_followed_given_up_and_survives_the_daemon() {
    let place = Place::new();
    place.generation("work", "5.4", 1, "hello");
    large(&place, "work", 40);
    let (home, host) = (&place.home, Own::start(Tools::BusyBox, "lua5.4"));
    add(home, &host, "web");
    let name = machine(home);
    let name = name.as_str();
    place.says(&["eval", name, "x = 42"]);
    // Nothing moves after three megabytes: it is seen how far it is, and it is given up.
    host.valve.hold_after(3 << 20);
    let begun: Value = serde_json::from_str(&home.json(&["env", "apply", "work", name, "--no-wait"]).ok()).expect("an operation");
    let seen = sending(home);
    assert_eq!(seen["id"], begun["operation"]);
    let phase = seen["progress"]["phase"].as_str().unwrap_or_default();
    assert!(phase.contains("of 42 files") && phase.ends_with("KiB are there"), "{seen}");
    let id = begun["operation"].as_str().expect("an id");
    home.run(&["operation", "cancel", id]).ok();
    home.json(&["operation", "wait", id]).fails("operation.cancelled", 1);
    host.valve.go();
    assert_eq!(whole(&host), 0);
    assert!(place.facts(name)["env"].is_null(), "nothing has changed for the host");
    assert_eq!(place.says(&["eval", name, "print(pcall(require, 'greet'), x)"]).split('\t').next(), Some("false"));
    // The daemon dies in the middle: nothing half is visible, and what has arrived is not sent again.
    place.generation("more", "5.4", 1, "hello");
    large(&place, "more", 40);
    host.valve.hold_after(3 << 20);
    home.run(&["env", "apply", "more", name, "--no-wait"]).ok();
    sending(home);
    let daemon = home.daemon().and_then(rustix::process::Pid::from_raw).expect("a daemon");
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).expect("a kill");
    host.valve.go();
    let dry = home.run(&["env", "apply", "more", name, "--dry-run"]).ok();
    assert!(dry.contains("are there already"), "{dry}");
    assert_eq!(whole(&host), 0);
    let last = home.run(&["operation", "list"]).ok();
    assert!(last.contains("apply to") && last.contains("failed"), "{last}");
    home.run(&["env", "apply", "more", name]).ok();
    assert_eq!(whole(&host), 1);
    assert_eq!(place.says(&["eval", name, "print(require('greet').say(), require('large.m39'), x)"]), "hello\t100006\t42");
    // What both had left half is cleaned away.
    let left = walk(&host.dir.join("state/vmoon/packages")).into_iter().filter(|path| path.to_string_lossy().contains("/.")).count();
    assert_eq!(left, 0);
    home.run(&["connection", "rm", "web", "--yes"]).ok();
}
