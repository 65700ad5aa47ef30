//! Machines that are no Lua VMs, as people meet them: connections and their fingerprints, consoles, programs, names to be typed.

use crate::{
    home::Home,
    hosts::{KEY, Running},
    terminal::Terminal,
};

const DETACH: &[u8] = b"\x1dd";

/// A home with a connection `box` and its machine `vm`.
fn connected() -> (Home, Running) {
    let home = Home::new();
    let running = Running::start(&home);
    running.machine("vm");
    home.ok(["connection", "add", "sim", "root@box", "--accept-fingerprint", KEY]);
    home.ok(["wait", "vm", "--until", "running"]);
    (home, running)
}

#[test]
fn a_fingerprint_is_shown_and_accepted_by_a_person_only_on_purpose() {
    let home = Home::new();
    let _running = Running::start(&home);
    let add = ["connection", "add", "sim", "root@box"];
    let output = home.vmoon(add, b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(6) && said.contains(&format!("--accept-fingerprint {KEY}")), "{said}");
    let mut person = Terminal::start(home.command(add));
    person.expect(KEY);
    person.expect("[y/N]");
    person.send("\r");
    person.expect("was not accepted");
    assert_eq!(person.wait().code(), Some(6));
    assert!(!home.ok(["connection", "list"]).contains("box"));
    let mut person = Terminal::start(home.command(add));
    person.expect("[y/N]");
    person.send("y\r");
    person.expect("added box (up");
    assert!(person.wait().success());
    let listed = home.ok(["connection", "list", "-o", "json"]);
    assert!(listed.contains(KEY) && listed.contains("\"state\": \"up\""), "{listed}");
}

#[test]
fn a_console_carries_every_key_and_is_taken_over() {
    let (home, _running) = connected();
    let mut first = Terminal::start(home.command(["console", "vm"]));
    first.expect("attached to vm/serial");
    first.expect("[80x24]");
    first.send("echo hi\r");
    first.expect("echo hi\nhi\nsim$ ");
    // Ctrl-C is a key like any other.
    first.send("abc\x03");
    first.expect("abc^C");
    first.resize(30, 100);
    first.expect("[100x30]");
    let busy = home.vmoon(["attach", "vm/serial"], b"");
    let said = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert!(busy.status.code() == Some(4) && said.contains("--take"), "{said}");
    let mut watcher = Terminal::start(home.command(["attach", "vm/serial", "--read-only", "--replay"]));
    watcher.expect("booted");
    watcher.expect("echo hi\nhi\n");
    let mut second = Terminal::start(home.command(["attach", "vm/serial", "--take"]));
    second.expect("attached to vm/serial");
    first.expect("somebody has taken vm/serial over");
    assert!(first.wait().success());
    second.send("echo mine\r");
    second.expect("echo mine\nmine\n");
    watcher.expect("echo mine\nmine\n");
    watcher.send(DETACH);
    assert!(watcher.wait().success());
    second.send(DETACH);
    second.expect("detached");
    assert!(second.wait().success());
    // Without being attached: typed, and read.
    home.ok(["send", "vm/serial", "echo sent"]);
    home.ok(["read", "vm/serial", "--until", "sent\r\nsent", "--timeout", "20s"]);
    let refused = home.vmoon(["eval", "vm/serial", "1", "-o", "json"], b"");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("session.channel") && refused.status.code() == Some(9), "{refused:?}");
    // A guest that ends ends the console.
    let mut last = Terminal::start(home.command(["console", "vm"]));
    last.expect("attached to vm/serial");
    last.send("exit 0\r");
    last.expect("has ended");
    assert!(last.wait().success());
}

#[test]
fn a_machine_of_somebody_else_is_deleted_when_its_name_is_typed() {
    let (home, running) = connected();
    let handle = running.world.add_foreign("old server");
    home.ok(["wait", "vm", "--until", "running"]);
    let id = loop {
        let all: serde_json::Value = serde_json::from_str(&home.ok(["list", "-o", "json"])).unwrap();
        let found = all.as_array().unwrap().iter().find(|machine| machine["name"] == "old server").cloned();
        if let Some(found) = found {
            break found["id"].as_str().unwrap().to_owned();
        }
    };
    let output = home.vmoon(["rm", &id, "--yes", "-o", "json"], b"");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let mut person = Terminal::start(home.command(["rm", &id]));
    person.expect("[y/N]");
    person.send("y\r");
    person.expect("type its name:");
    person.send("old\r");
    person.expect("nothing was deleted");
    assert_eq!(person.wait().code(), Some(130));
    assert!(running.world.look(&handle).is_some());
    home.ok(["rm", &id, "--yes=old server"]);
    assert!(running.world.look(&handle).is_none());
}

#[test]
fn abilities_are_verbs() {
    let (home, running) = connected();
    let exec = |args: &[&str]| home.vmoon([&["exec", "vm", "--"], args].concat(), b"");
    assert_eq!(String::from_utf8_lossy(&exec(&["echo", "a b"]).stdout), "a b\n");
    for (args, code) in [(&["exit", "7"][..], 7), (&["signal", "9"], 137), (&["no-such-program"], 127)] {
        assert_eq!(exec(args).status.code(), Some(code), "{args:?}");
    }
    assert_eq!(home.vmoon(["exec", "nobody", "--", "echo"], b"").status.code(), Some(125));
    let cat = home.vmoon(["exec", "vm", "--stdin", "--", "cat"], b"\xffpiped");
    assert_eq!(cat.stdout, b"\xffpiped");
    home.ok(["snapshot", "create", "vm", "one"]);
    home.ok(["snap", "create", "vm", "two", "--disk-only"]);
    let tree = home.ok(["snapshot", "list", "vm"]);
    assert!(tree.starts_with("one  ") && tree.contains("\n  * two  "), "{tree}");
    assert!(home.ok(["snap", "revert", "vm", "one", "--dry-run"]).contains("is lost"));
    assert_eq!(home.vmoon(["snap", "revert", "vm", "one"], b"").status.code(), Some(2), "it needs a yes");
    home.ok(["snap", "revert", "vm", "one", "--yes"]);
    home.ok(["snap", "rm", "vm", "two", "--yes"]);
    assert_eq!(home.vmoon(["snap", "rm", "vm", "two", "--yes"], b"").status.code(), Some(3));
    assert_eq!(home.vmoon(["ip", "vm"], b"").status.code(), Some(7));
    let late = home.vmoon(["wait", "vm", "--until", "ip", "--timeout", "100ms"], b"");
    assert!(late.status.code() == Some(8) && String::from_utf8_lossy(&late.stderr).contains("no address"), "{late:?}");
    let handle = running.world.machines().into_iter().find(|name| name.starts_with("foreign")).unwrap();
    running.world.set_addresses(&vmoon_core::driver::Handle(serde_json::json!({ "sim": handle }).to_string()), &["192.0.2.7"]);
    assert_eq!(home.ok(["ip", "vm"]), "192.0.2.7\n");
    assert_eq!(home.ok(["wait", "vm", "--until", "ip"]), "192.0.2.7\n");
    home.ok(["screenshot", "vm", "shot.png"]);
    assert!(std::fs::read(home.path().join("shot.png")).unwrap().starts_with(b"\x89PNG"));
    assert!(home.ok(["set", "vm", "memory=64", "--dry-run"]).contains("16 MiB → 64 MiB"));
    home.ok(["set", "vm", "memory=64"]);
    home.ok(["autostart", "vm", "on"]);
    assert_eq!(home.vmoon(["set", "vm", "memory=lots", "colour=red"], b"").status.code(), Some(2));
    home.ok(["rename", "vm", "web"]);
    let shown = home.ok(["show", "box:web"]);
    assert!(shown.contains("snapshot, exec, ip, screen, set"), "{shown}");
    let made = home.ok(["create", "--on", "box", "new", "--set", "serial=true", "--until", "session"]);
    assert!(made.contains("created and started new"), "{made}");
    home.ok(["pause", "new"]);
    home.ok(["resume", "new"]);
    home.ok(["suspend", "new"]);
    home.ok(["resume", "new"]);
    home.ok(["rm", "new", "--force", "--yes"]);
    assert_eq!(home.vmoon(["connection", "rm", "box"], b"").status.code(), Some(2), "it needs a yes");
    home.ok(["connection", "rm", "box", "--yes"]);
    assert!(!home.ok(["list"]).contains("web"));
}
