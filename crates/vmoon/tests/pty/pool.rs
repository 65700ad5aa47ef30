//! A pool of XCP-ng whose VMs boot: from a template to what people do with a VM, by the command line.

use crate::{home::Home, terminal::Terminal};
use serde_json::Value;
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use vmoon_guest_image::Guest;
use vmoon_xapi_sim::{Apart, Cut, Settings, machines::Qemu};

/// The pool.
fn pool() -> Apart {
    let guest = Guest::kept().unwrap_or_else(|why| panic!("{why}"));
    Apart::start(Settings::default(), Duration::from_secs(60), move || Qemu::new(guest)).unwrap()
}

/// A home with a connection `lab` to it.
fn home(pool: &Apart) -> Home {
    let home = Home::new();
    home.file("password", b"secret\n");
    home.ok([
        "connection",
        "add",
        "xcpng",
        &pool.uri,
        "--name",
        "lab",
        "--user",
        "root",
        "--password-file",
        "password",
        "--accept-fingerprint",
        &pool.fingerprint,
    ]);
    home
}

fn state(home: &Home, machine: &str) -> String {
    let shown: Value = serde_json::from_str(&home.ok(["show", machine, "-o", "json"])).unwrap();
    shown["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_vm_from_a_template_boots_rests_and_goes() {
    let pool = pool();
    let home = home(&pool);
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

/// An environment made by hand, with a module in Lua and one in C; the two functions are those of every Lua version.
fn generation(home: &Home, name: &str) {
    let source =
        b"void lua_pushstring(void *, const char *);\nint luaopen_answer(void *L) { lua_pushstring(L, \"forty-two\"); return 1; }\n";
    let source = home.file("answer.c", source);
    let dir = home.path().join("state/vmoon/environments").join(name);
    let tree = dir.join("generations/1");
    for folder in ["share/lua/5.4", "lib/lua/5.4"] {
        std::fs::create_dir_all(tree.join(folder)).unwrap();
    }
    std::fs::write(tree.join("share/lua/5.4/greet.lua"), "return { say = function() return 'hello' end }").unwrap();
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(tree.join("lib/lua/5.4/answer.so")).arg(source).status();
    assert!(status.expect("cc is needed: cargo xtask install").success());
    std::fs::write(dir.join("environment.toml"), "lua = \"5.4\"\n").unwrap();
    std::os::unix::fs::symlink("generations/1", dir.join("current")).unwrap();
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
    let pool = pool();
    let home = home(&pool);
    home.ok(["env", "create", "work", "--lua", "5.4"]);
    home.ok(["pkg", "install", "bio-utils", "--env", "work", "--offline"]);
    generation(&home, "native");
    let create = ["create", "lab:moon", "--set", "template=guest", "--set", "seed=yes", "--env"];
    let refused = home.vmoon(create.into_iter().chain(["nope"]), b"");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nope"), "{refused:?}");
    home.ok(create.into_iter().chain(["work", "--until", "session"]));
    // It begins with the packages that it was made with, and gets more while it runs.
    assert_eq!(home.ok(["eval", "lab:moon", "print(require('bio.utils').reverse_complement('AACG'))"]), "CGTT\n");
    let facts: Value = serde_json::from_str(&home.ok(["show", "lab:moon", "-o", "json"])).unwrap();
    assert!(facts["facts"]["env"] == "work" && facts["facts"]["generation"].is_u64(), "{facts}");
    home.ok(["pkg", "install", "phylo-tree", "--machine", "lab:moon", "--offline"]);
    assert_eq!(home.ok(["eval", "lab:moon", "print(type(require('bio.phylo')))"]), "table\n");
    home.ok(["env", "apply", "native", "lab:moon"]);
    assert_eq!(home.ok(["eval", "lab:moon", "print(require('answer'), require('greet').say())"]), "forty-two\thello\n");
    let bytes: Vec<u8> = (0..600_000_u32).map(|n| ((n * 31) >> 3) as u8).collect();
    home.file("data.bin", &bytes);
    home.ok(["cp", "data.bin", "moon:up.bin"]);
    home.ok(["cp", "moon:up.bin", "down.bin"]);
    assert!(std::fs::read(home.path().join("down.bin")).unwrap() == bytes);
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
    terminal.line("return 'still ' .. x .. require('answer')");
    terminal.expect("still 43forty-two");
    terminal.send(b"\x1dd");
    assert!(terminal.wait().success());

    home.ok(["stop", "lab:moon"]);
    home.ok(["rm", "lab:moon", "--yes"]);
}

/// Starts to count to that, fifty a second at most, and says as which command.
fn counting(home: &Home, to: u32) -> String {
    let code = format!("for n = 1, {to} do print(n) local soon = os.clock() + 0.02 repeat until os.clock() > soon end");
    home.ok(["eval", "lab:moon", &code, "--no-wait"]).trim().to_owned()
}

/// Waits for the count, of which nothing may be missing or twice.
fn counted(home: &Home, command: &str, to: u32) {
    home.ok(["wait", command, "--timeout", "120s"]);
    let wanted: String = (1..=to).map(|n| format!("{n}\n")).collect();
    assert!(home.ok(["read", "--command", command]) == wanted, "the count is not whole");
}

/// Whatever becomes of the way to it: only a guest that boots anew ends its session.
#[test]
fn a_session_outlasts_that_its_guest_is_suspended_and_its_pool_away() {
    const FAR: u32 = 200;
    let pool = pool();
    let home = home(&pool);
    home.ok(["create", "lab:moon", "--set", "template=guest", "--set", "seed=yes", "--until", "session"]);
    home.ok(["eval", "lab:moon", "x = 42"]);
    let command = counting(&home, FAR);
    home.ok(["suspend", "lab:moon"]);
    let refused = home.vmoon(["eval", "lab:moon", "return x", "-o", "json"], b"");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("machine.suspended"), "{refused:?}");
    home.ok(["resume", "lab:moon"]);
    // At once: what waits is the command, behind the one that goes on.
    assert_eq!(home.ok(["eval", "lab:moon", "return x"]), "42\n");
    counted(&home, &command, FAR);

    // A pool whose services are away answers nobody; its machines run on.
    let command = counting(&home, FAR);
    pool.sim.faults(|faults| faults.cut = Some(Cut { after: 0, done: false }));
    let patience = Instant::now() + Duration::from_secs(60);
    while state(&home, "lab:moon") != "lost" {
        assert!(Instant::now() < patience, "nobody sees that the pool is away");
    }
    let waiting = home.command(["eval", "lab:moon", "return x", "--deadline", "60s"]).stdout(Stdio::piped()).spawn().unwrap();
    pool.sim.faults(|faults| faults.cut = None);
    pool.sim.restart();
    let answered = waiting.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&answered.stdout), "42\n");
    counted(&home, &command, FAR);

    home.ok(["reset", "lab:moon"]);
    home.ok(["wait", "lab:moon", "--until", "session", "--timeout", "60s"]);
    assert_eq!(home.ok(["eval", "lab:moon", "return x"]), "nil\n", "that is another one");
    home.ok(["rm", "lab:moon", "--force", "--yes"]);
}

#[test]
fn a_guest_without_lua_says_so_and_has_a_shell() {
    let pool = pool();
    let home = home(&pool);
    home.ok(["create", "lab:bare", "--set", "template=guest-nolua", "--set", "seed=yes", "--until", "ssh"]);
    let refused = home.vmoon(["eval", "lab:bare", "return 1"], b"");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("Lua"), "{said}");
    let mut person = Terminal::start(home.command(["attach", "lab:bare"]));
    person.expect("attached to");
    person.prompt();
    person.line("return 1");
    person.expect("no Lua interpreter");
    person.expect("a shell works: vmoon ssh bare");
    person.prompt();
    person.send(b"\x1dd");
    person.wait();
    assert_eq!(home.ok(["exec", "lab:bare", "--", "echo", "a  b"]), "a  b\n");
    home.ok(["rm", "lab:bare", "--force", "--yes"]);
}

#[test]
fn the_key_of_a_guest_is_confirmed_before_anybody_logs_in() {
    let pool = pool();
    let home = home(&pool);
    let identity = vmoon_ssh_lab::key(home.path(), "id_theirs", "ed25519", "");
    let key = format!("ssh-key={}", std::fs::read_to_string(identity.with_extension("pub")).unwrap().trim());
    let settings = ["seed=yes", "ssh=no", "user=ada", &key].into_iter().flat_map(|setting| ["--set", setting]);
    home.ok(["create", "lab:theirs", "--set", "template=guest", "--until", "ssh"].into_iter().chain(settings));
    let login = ["ssh", "lab:theirs", "--user", "ada", "--identity", identity.to_str().unwrap()];
    let mut person = Terminal::start(home.command(login));
    person.expect("The key of lab:theirs is not known");
    let shown = person.expect("[y/N]");
    let print = shown.split_whitespace().find(|word| word.starts_with("SHA256:")).expect("a fingerprint").to_owned();
    person.send("\r");
    assert!(!person.wait().success());
    let kept = || {
        let shown: Value = serde_json::from_str(&home.ok(["show", "lab:theirs", "-o", "json"])).unwrap();
        shown["facts"]["ssh_fingerprint"].clone()
    };
    assert!(kept().is_null(), "nothing was confirmed: {}", kept());
    let mut person = Terminal::start(home.command(login));
    person.expect(&print);
    person.expect("[y/N]");
    person.send("y\r");
    person.expect("attached to");
    person.send("echo $USER-$((40 + 2))\r");
    person.expect("ada-42");
    person.send(b"\x1dd");
    assert!(person.wait().success());
    assert_eq!(kept(), print.as_str());
    assert_eq!(home.ok(["ssh", "lab:theirs", "--", "id", "-un"]), "ada\n", "nobody is asked again");
    home.ok(["rm", "lab:theirs", "--force", "--yes"]);
}
