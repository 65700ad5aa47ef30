//! Machines from the command line: their life, several at once, dry runs, waiting.

use crate::home::Home;
use serde_json::Value;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

#[test]
fn a_machine_from_its_creation_to_its_end() {
    let home = Home::new();
    let made = parse(&home.json(&["create", "lab", "--label", "team=a"]).ok());
    assert_eq!((made["name"].as_str(), made["state"].as_str()), (Some("lab"), Some("stopped")));
    let started = parse(&home.json(&["start", "lab"]).ok());
    assert_eq!(started["state"], "running");
    assert_eq!(home.run(&["start", "lab"]).ok(), "lab is already running\n");
    home.json(&["start", "lab", "--strict"]).fails("machine.state", 4);
    assert_eq!(home.run(&["start", "lab", "-q"]).ok(), "");
    // An unambiguous prefix of the id is a name, too.
    let id = made["id"].as_str().unwrap();
    assert_eq!(parse(&home.json(&["show", &id[..30]]).ok())["name"], "lab");
    assert_eq!(home.run(&["list", "-o", "name", "--filter", "state=running,label.team=a"]).ok(), "lab\n");
    assert_eq!(home.run(&["list", "-o", "name", "--filter", "label.team=b"]).ok(), "");
    home.run(&["restart", "lab"]).ok();
    assert!(home.run(&["stop", "lab"]).ok().starts_with("stopped lab ("));
    assert_eq!(home.run(&["stop", "lab"]).ok(), "lab is already stopped\n");
    home.run(&["rm", "lab", "-y"]).ok();
    assert_eq!(home.run(&["list", "--no-header"]).ok(), "");
    let verbs: Vec<String> = parse(&home.json(&["op", "list"]).ok())
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|operation| format!("{} {}", operation["verb"].as_str().unwrap(), operation["outcome"]["result"].as_str().unwrap()))
        .collect();
    assert_eq!(verbs, ["create done", "start done", "restart done", "stop done", "delete done"]);
    home.end();
}

#[test]
fn several_machines_at_once_and_the_most_severe_exit_code() {
    let home = Home::new();
    let made = parse(&home.json(&["create", "web{01..05}", "--start"]).ok());
    assert_eq!(made.as_array().unwrap().len(), 5);
    assert_eq!(home.run(&["stop", "web0[1-3]", "-o", "name"]).ok(), "web01\nweb02\nweb03\n");
    let mixed = home.run(&["start", "web01", "nobody", "web02"]);
    assert_eq!(mixed.code, 3);
    assert!(mixed.out.contains("started web01") && mixed.out.contains("started web02") && mixed.err.contains("nobody:"), "{mixed:?}");
    let both = home.run(&["rm", "-y", "web01", "nobody"]);
    assert_eq!(both.code, 4, "a wrong state is worse than a missing machine: {both:?}");
    let ambiguous = home.json(&["show", &made[0]["id"].as_str().unwrap()[..4]]);
    ambiguous.fails("name.ambiguous", 5);
    home.run(&["kill", "--all"]).ok();
    home.end();
}

#[test]
fn a_dry_run_changes_nothing() {
    let home = Home::new();
    let plan = parse(&home.json(&["create", "lab", "--start", "--dry-run"]).ok());
    assert!(plan["name"] == "lab" && !plan["steps"].as_array().unwrap().is_empty(), "{plan}");
    assert_eq!(home.json(&["list"]).ok().trim(), "[]");
    home.run(&["create", "lab"]).ok();
    for verb in ["start", "kill", "rm"] {
        home.run(&[verb, "lab", "--dry-run"]).ok();
    }
    assert_eq!(parse(&home.json(&["show", "lab"]).ok())["state"], "stopped");
    home.end();
}

#[test]
fn waiting_ends_when_the_goal_is_met_and_not_before() {
    let home = Home::new();
    let operation = home.run(&["create", "lab", "--no-wait"]).ok();
    home.run(&["wait", operation.trim()]).ok();
    let waiter = home.command(&["wait", "lab", "--until", "running", "-o", "json"]).spawn().unwrap();
    home.run(&["start", "lab"]).ok();
    let output = waiter.wait_with_output().unwrap();
    assert_eq!(parse(&String::from_utf8_lossy(&output.stdout))["state"], "running");
    home.json(&["wait", "lab", "--until", "stopped", "--timeout", "0.2"]).fails_with_hint("timeout", 8);
    let waiter = home.command(&["wait", "lab", "--until", "gone"]).spawn().unwrap();
    home.run(&["rm", "lab", "-y", "-f"]).ok();
    assert!(waiter.wait_with_output().unwrap().status.success());
    home.run(&["wait", "lab", "--until", "gone"]).ok();
    home.end();
}

#[test]
fn a_verb_survives_the_daemon_being_killed_while_it_waits() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    home.run(&["eval", "lab", "n = 0"]).ok();
    let code = "n = n + 1 print('begin') local t = os.clock() while os.clock() - t < 2 do end print('end') return n";
    let mut eval = home.command(&["eval", "lab", code]).spawn().unwrap();
    let wait = home.command(&["wait", "lab", "--until", "stopped", "--timeout", "60"]).spawn().unwrap();
    // The program says that it runs: only then is the daemon killed.
    let mut begun = [0; 6];
    std::io::Read::read_exact(eval.stdout.as_mut().unwrap(), &mut begun).unwrap();
    assert_eq!(&begun, b"begin\n");
    let daemon = home.daemon().expect("a daemon runs");
    rustix::process::kill_process(rustix::process::Pid::from_raw(daemon).unwrap(), rustix::process::Signal::KILL).unwrap();
    let output = eval.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "end\n1\n", "{}", String::from_utf8_lossy(&output.stderr));
    assert_ne!(home.daemon(), Some(daemon));
    home.run(&["stop", "lab"]).ok();
    assert!(wait.wait_with_output().unwrap().status.success());
    home.end();
}

#[test]
fn the_daemon_is_told_from_the_command_line() {
    let home = Home::new();
    home.json(&["daemon", "status"]).fails_with_hint("daemon.unreachable", 7);
    assert_eq!(home.run(&["daemon", "stop"]).ok(), "the daemon does not run\n");
    assert!(home.run(&["daemon", "start"]).ok().contains("started"));
    assert!(home.run(&["daemon", "start"]).ok().contains("already runs"));
    let status = parse(&home.json(&["daemon", "status"]).ok());
    assert_eq!(status["pid"].as_i64().map(|pid| pid as i32), home.daemon());
    let second = home.json(&["daemon", "run"]);
    assert_eq!(second.code, 4, "a second daemon gives way: {second:?}");
    home.run(&["doctor"]).ok();
    home.end();
}

#[test]
fn a_grant_that_holds_our_own_state_is_warned_of_and_is_none_for_writing() {
    let home = Home::new();
    let state = home.path("state");
    std::fs::create_dir_all(&state).unwrap();
    let state = state.to_str().unwrap();
    for args in [&["create", "a", "b{1..3}", "--start", "--read", state][..], &["run", "--read", state, "-e", "print(1)"]] {
        let got = home.run(args);
        assert!(got.code == 0 && got.err.matches("keeps its own state").count() == 1, "{got:?}");
    }
    let got = home.run(&["create", "c", "--write", state]);
    assert!(got.code == 2 && got.err.contains("keeps its own state"), "{got:?}");
}

#[test]
fn a_machine_that_runs_shows_no_end_of_an_earlier_life() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    home.run(&["snapshot", "create", "lab", "before", "-q"]).ok();
    home.run(&["kill", "lab", "-q"]).ok();
    assert!(home.run(&["show", "lab"]).ok().contains("ended"));
    home.run(&["snapshot", "revert", "lab", "before", "--yes"]).ok();
    let shown = parse(&home.json(&["show", "lab"]).ok());
    assert_eq!((&shown["state"], &shown["exit"]), (&"running".into(), &Value::Null), "{shown}");
    assert!(!home.run(&["show", "lab"]).ok().contains("killed"));
    home.end();
}
