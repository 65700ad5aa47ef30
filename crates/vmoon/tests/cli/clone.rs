//! Copies of running machines, at the binary: what is copied, what is not shared, what outlives what, and what is refused.

use super::home::Home;
use serde_json::Value;

/// A home with a running machine `one`.
fn home() -> Home {
    let home = Home::new();
    home.run(&["create", "one", "--start", "-q"]).ok();
    home
}

impl Home {
    /// What a chunk prints.
    #[track_caller]
    fn says(&self, machine: &str, code: &str) -> String {
        self.run(&["eval", machine, code]).ok().trim().to_owned()
    }

    /// What a chunk fails with.
    #[track_caller]
    fn fails(&self, machine: &str, code: &str) -> String {
        let ran = self.run(&["eval", machine, code]);
        assert_ne!(ran.code, 0, "{ran:?}");
        ran.err
    }

    fn show(&self, machine: &str) -> Value {
        serde_json::from_str(&self.json(&["show", machine]).ok()).unwrap()
    }

    fn directory(&self, machine: &str) -> String {
        self.show(machine)["facts"]["directory"].as_str().unwrap().to_owned()
    }

    /// The error of a clone that is refused.
    #[track_caller]
    fn refused(&self, machine: &str) -> String {
        let ran = self.json(&["clone", machine, "never"]);
        ran.fails("machine.not_copyable", 4);
        assert!(!self.run(&["list"]).ok().contains("never"), "something is left");
        ran.err
    }

    #[track_caller]
    fn clear(&self) {
        self.run(&["rm", "--all", "--yes", "--force", "-q"]).ok();
        let clones = self.path("state/vmoon/clones");
        let left: Vec<_> = std::fs::read_dir(&clones).map_or_else(|_| Vec::new(), |all| all.flatten().map(|entry| entry.path()).collect());
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

#[test]
fn a_clone_has_the_state_and_shares_nothing() {
    let home = home();
    home.says("one", "n = 1; local up = 10; function step() n, up = n + 1, up + 1 return n, up end; co = coroutine.wrap(function() for i = 1, 9 do coroutine.yield(i) end end); co()");
    home.says("one", "local f = io.open('note', 'w') f:write('of both') f:close(); math.randomseed(42)");
    home.run(&["clone", "one", "two", "-q"]).ok();
    // The state is there, closures and coroutines too, and each goes its own way.
    assert_eq!(home.says("two", "return step(), co()"), "2\t2");
    assert_eq!(home.says("two", "return step()"), "3\t12");
    assert_eq!(home.says("one", "return step()"), "2\t11");
    assert_eq!(home.says("one", "return co()"), "2");
    // Seeds differ although the original was seeded by hand.
    let random = "return math.random(1 << 40)";
    assert_ne!(home.says("one", random), home.says("two", random));
    // Files: a copy of their own, and no way to the other's.
    let (one, two) = (home.directory("one"), home.directory("two"));
    assert_eq!(home.says("two", "local f <close> = io.open('note') return f:read('a')"), "of both");
    home.says("two", "local f <close> = io.open('note', 'w') f:write('of two')");
    assert_eq!(home.says("one", "local f <close> = io.open('note') return f:read('a')"), "of both");
    for mode in ["r", "w"] {
        let told = home.says("two", &format!("return select(2, io.open({:?}, '{mode}'))", format!("{one}/note")));
        assert!(told.contains("Permission denied"), "{told}");
    }
    assert!(home.says("two", "return os.tmpname()").starts_with(&two));
    assert!(home.says("two", "return os.getenv('HOME')").starts_with(&two));
    // The clone is interrupted on its own.
    let ran = home.run(&["eval", "two", "--deadline", "300ms", "while true do end"]);
    assert_eq!(ran.code, 8, "{ran:?}");
    assert_eq!(home.says("two", "return step()"), "4\t13");
    home.clear();
    home.end();
}

#[test]
fn the_nursery_cannot_be_listed_by_who_is_granted_it() {
    let home = home();
    home.run(&["clone", "one", "two", "-q"]).ok();
    let two = home.directory("two");
    let nursery = std::path::Path::new(&two).parent().unwrap().parent().unwrap().to_str().unwrap().to_owned();
    // Lua lists no directories, but opening one tells whether it may be read.
    let told = home.says("one", &format!("return select(2, io.open({nursery:?}))"));
    assert!(told.contains("Permission denied"), "{told}");
    home.clear();
    home.end();
}

#[test]
fn clones_outlive_their_original_and_are_cloned_again() {
    let home = home();
    home.says("one", "n = 1; local f <close> = io.open('kept', 'w') f:write('x')");
    home.run(&["clone", "one", "two", "-q"]).ok();
    home.says("two", "n = 2");
    home.run(&["clone", "two", "three", "-q"]).ok();
    home.run(&["kill", "one", "-q"]).ok();
    home.run(&["rm", "one", "--yes", "-q"]).ok();
    assert_eq!(home.says("two", "return n"), "2");
    home.run(&["rm", "two", "--yes", "--force", "-q"]).ok();
    assert_eq!(home.says("three", "n = n + 1; local f <close> = io.open('kept') return n, f:read('a')"), "3\tx");
    // It keeps its files when it is started anew, and can be cloned then.
    home.run(&["restart", "three", "-q"]).ok();
    assert_eq!(home.says("three", "local f <close> = io.open('kept') return n, f:read('a')"), "nil\tx");
    home.run(&["clone", "three", "four", "-q"]).ok();
    assert_eq!(home.says("four", "local f <close> = io.open('kept') return f:read('a')"), "x");
    home.clear();
    home.end();
}

#[test]
fn a_clone_survives_the_daemon_and_its_end_is_known() {
    let home = home();
    home.says("one", "n = 7");
    home.run(&["clone", "one", "two", "-q"]).ok();
    home.says("two", "n = n + 1");
    let daemon = home.daemon().unwrap();
    let pid = rustix::process::Pid::from_raw(daemon).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(home.says("two", "return n"), "8");
    home.run(&["eval", "two", "os.exit(3)"]);
    home.run(&["wait", "two", "--until", "stopped", "--timeout", "20s"]).ok();
    assert_eq!(home.show("two")["exit"]["code"], 3, "{}", home.show("two"));
    // Killed from outside: only its zygote knows the signal.
    home.run(&["clone", "one", "three", "-q"]).ok();
    let three = home.show("three")["facts"]["pid"].as_i64().unwrap() as i32;
    rustix::process::kill_process(rustix::process::Pid::from_raw(three).unwrap(), rustix::process::Signal::KILL).unwrap();
    home.run(&["wait", "three", "--until", "stopped", "--timeout", "20s"]).ok();
    assert_eq!(home.show("three")["exit"]["signal"], 9, "{}", home.show("three"));
    assert_eq!(home.says("one", "return n"), "7");
    home.clear();
    home.end();
}

#[test]
fn what_cannot_be_copied_is_listed_and_nothing_is_left() {
    let home = home();
    home.says("one", "a, b = io.open('first', 'w'), io.open('second', 'w')");
    let told = home.refused("one");
    assert!(told.contains("/first") && told.contains("/second") && told.contains("collectgarbage"), "{told}");
    home.says("one", "a:close() b:close()");
    home.run(&["clone", "one", "two", "-q"]).ok();

    let id = home.run(&["eval", "one", "io.read()", "--no-wait"]).ok();
    assert!(!id.trim().is_empty());
    let told = home.refused("one");
    assert!(told.contains("command"), "{told}");
    home.run(&["interrupt", "one"]).ok();

    home.run(&["create", "net", "--set", "profile=net", "--set", "net=localhost:9", "--start", "-q"]).ok();
    assert!(home.refused("net").contains("broker"));
    home.run(&["create", "installed", "--runtime", "lua5.4", "--start", "-q"]).ok();
    assert!(home.refused("installed").contains("program of its own"));
    // A C module could keep what lets the process fork.
    home.run(&["create", "modules", "--start", "-q"]).ok();
    assert_eq!(home.says("modules", "require 'socket.core' return 1"), "1");
    assert!(home.refused("modules").contains("C module"));
    // Children of a trusted machine.
    home.run(&["create", "parent", "--set", "profile=trusted", "--start", "-q"]).ok();
    home.says("parent", "p = io.popen('cat', 'w')");
    let told = home.refused("parent");
    assert!(told.contains("processes that it has started") && told.contains("descriptor"), "{told}");
    home.says("parent", "p:close()");
    home.run(&["clone", "parent", "orphan", "-q"]).ok();
    assert_eq!(home.says("orphan", "local p <close> = io.popen('echo hi') return p:read('a')"), "hi");

    home.run(&["stop", "one", "-q"]).ok();
    home.json(&["clone", "one", "never"]).fails("machine.stopped", 4);
    home.json(&["clone", "two", "parent"]).fails("machine.exists", 4);
    home.json(&["clone", "nobody", "never"]).fails("machine.not_found", 3);
    home.json(&["clone", "two", "../x"]).fails("name.invalid", 2);
    assert!(home.fails("two", "error('still here')").contains("still here"));
    home.clear();
    home.end();
}

#[test]
fn a_snapshot_brings_a_machine_back_also_after_the_daemon_was_killed() {
    let home = home();
    home.says("one", "n = 1; local f = io.open('note', 'w') f:write('then') f:close()");
    home.run(&["snapshot", "create", "one", "before", "-q"]).ok();
    home.json(&["snapshot", "create", "one", "before"]).fails("snapshot.exists", 4);
    home.says("one", "n = 2; os.remove('note')");
    let daemon = rustix::process::Pid::from_raw(home.daemon().unwrap()).unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
    home.json(&["snapshot", "revert", "one", "before"]).fails("usage", 2);
    home.run(&["snapshot", "revert", "one", "before", "--yes", "-q"]).ok();
    assert_eq!(home.says("one", "return n, io.open('note'):read('a')"), "1\tthen");
    // One that is stopped runs when it is returned.
    home.run(&["stop", "one", "-q"]).ok();
    home.run(&["snapshot", "revert", "one", "before", "--yes", "-q"]).ok();
    assert_eq!(home.says("one", "n = n + 1 return n"), "2");
    let list = home.run(&["snapshot", "list", "one"]).ok();
    assert!(list.contains("before") && list.contains("in memory"), "{list}");
    home.json(&["snapshot", "revert", "one", "never", "--yes"]).fails("snapshot.not_found", 3);
    home.clear();
}

/// It was told to change afterwards what machines of this kind can never change, also of settings that are none.
#[test]
fn what_a_copy_cannot_have_otherwise_is_told_truly() {
    let home = home();
    let refused = home.json(&["clone", "one", "two", "--set", "memory=1G", "--set", "foo=bar"]);
    refused.fails("spec.invalid", 2);
    assert!(refused.err.contains("settings.foo: machines of kind lua have no such setting; they have runtime, "), "{refused:?}");
    assert!(refused.err.contains("settings.memory: ") && refused.err.contains("vmoon create NAME --set memory=VALUE"), "{refused:?}");
    assert!(!refused.err.contains("vmoon set"), "{refused:?}");
    home.json(&["set", "one", "memory=1G"]).fails("driver.unsupported", 9);
    home.clear();
}
