//! A real host over SSH, as a person meets it: its key, and what is on its way to it.

use crate::{home::Home, terminal::Terminal};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt};
use vmoon_ssh_lab::{Own, Tools, key, me};

/// The words that make a host known.
fn add(host: &Own) -> Vec<String> {
    let (uri, key) = (format!("{}@127.0.0.1:{}", me(), host.port), host.dir.join("user").display().to_string());
    ["connection", "add", "ssh", &uri, "--name", "web", "--identity", &key].map(str::to_owned).to_vec()
}

#[test]
fn the_key_of_a_host_is_confirmed_once_and_another_one_is_refused() {
    let (home, host) = (Home::new(), Own::start(Tools::BusyBox, "lua5.4"));
    let mut person = Terminal::start(home.command(add(&host)));
    person.expect(&host.fingerprint);
    person.expect("[y/N]");
    person.send("n\r");
    person.expect("was not accepted");
    assert_eq!(person.wait().code(), Some(6));
    assert!(!home.ok(["connection", "list"]).contains("web"));
    let mut person = Terminal::start(home.command(add(&host)));
    person.expect(&host.fingerprint);
    person.expect("[y/N]");
    person.send("y\r");
    person.expect("added web (up");
    assert!(person.wait().success());
    home.ok(["connection", "test", "web"]);
    // Somebody else answers there from now on: nobody is asked, both keys are told.
    home.ok(["daemon", "stop"]);
    let other = key(home.path(), "other", "ed25519", "");
    fs::copy(&other, host.dir.join("host")).unwrap();
    fs::set_permissions(host.dir.join("host"), PermissionsExt::from_mode(0o600)).unwrap();
    fs::copy(other.with_extension("pub"), host.dir.join("host.pub")).unwrap();
    let mut person = Terminal::start(home.command(["connection", "test", "web"]));
    person.expect("has changed");
    person.expect(&host.fingerprint);
    assert_eq!(person.wait().code(), Some(6));
    home.ok(["connection", "rm", "web", "--yes"]);
}

#[test]
fn a_person_sees_how_much_was_sent_and_gives_it_up() {
    let (home, host) = (Home::new(), Own::start(Tools::BusyBox, "lua5.4"));
    let dir = home.path().join("state/vmoon/environments/work");
    let scripts = dir.join("generations/1/share/lua/5.4");
    fs::create_dir_all(&scripts).unwrap();
    for n in 0..40 {
        fs::write(scripts.join(format!("m{n}.lua")), format!("return #'{}{n}'", "x".repeat(100_000))).unwrap();
    }
    fs::write(dir.join("environment.toml"), "lua = \"5.4\"\n").unwrap();
    std::os::unix::fs::symlink("generations/1", dir.join("current")).unwrap();
    home.ok(add(&host).into_iter().chain(["--accept-fingerprint".to_owned(), host.fingerprint.clone()]));
    let listed: Value = serde_json::from_str(&home.ok(["list", "-o", "json"])).unwrap();
    let machine = listed[0]["name"].as_str().unwrap().to_owned();
    host.valve.hold_after(2 << 20);
    let mut person = Terminal::start(home.command(["env", "apply", "work", &machine]));
    person.expect("applying work to");
    person.expect("of 40 files");
    person.send("\x03");
    person.expect("Ctrl-C again within a second");
    person.send("\x03");
    person.expect("asked to cancel");
    assert_eq!(person.wait().code(), Some(130));
    assert!(home.ok(["operation", "list"]).contains("cancelled"));
    host.valve.go();
    home.ok(["env", "apply", "work", &machine]);
    assert_eq!(home.ok(["eval", &machine, "print((require('m39')))"]), "100002\n");
    home.ok(["connection", "rm", "web", "--yes"]);
}
