//! Many machines at once: braces and globs on every verb, evaluation with a row for each, use, idle expiry, quotas.

use crate::home::Home;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

fn names(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn braces_make_many_and_every_verb_understands_them() {
    let home = Home::new();
    let plan = home.run(&["create", "n-{08..12}", "{a,b}{1..2}", "--dry-run", "--start"]).ok();
    assert!(plan.starts_with("9 machines: n-08 n-09 n-10 n-11 n-12 a1 a2 b1 b2\n"), "{plan}");
    assert_eq!(plan.matches("make a directory").count(), 1, "the plan stands there once: {plan}");
    assert_eq!(home.run(&["list", "-o", "name"]).ok(), "");
    let made = parse(&home.json(&["create", "n-{08..12}", "--start"]).ok());
    assert_eq!(made.as_array().unwrap().len(), 5);
    assert!(made.as_array().unwrap().iter().all(|machine| machine["state"] == "running"));
    assert_eq!(names(&home.run(&["list", "n-{09,1[01]}", "-o", "name"]).ok()), ["n-09", "n-10", "n-11"]);
    // Who exists already is told, the others are made, and the exit code is that of the worst.
    let again = home.run(&["create", "n-{11..14}", "--start"]);
    assert_eq!((again.code, again.err.matches("exists already").count()), (4, 2), "{again:?}");
    assert_eq!(home.run(&["list", "n-*", "-o", "name"]).ok().lines().count(), 7);
    let dry = home.run(&["create", "n-{11..16}", "--dry-run"]);
    assert!(dry.code == 4 && dry.out.starts_with("2 machines: n-15 n-16\n"), "{dry:?}");
    assert_eq!(parse(&home.json(&["show", "n-1*"]).ok()).as_array().unwrap().len(), 5);
    assert_eq!(names(&home.run(&["stop", "n-{08..10}", "-o", "name"]).ok()), ["n-08", "n-09", "n-10"]);
    home.run(&["wait", "n-{08..10}", "--until", "stopped"]).ok();
    assert_eq!(home.run(&["session", "list", "n-1*", "--no-header"]).ok().lines().count(), 4);
    assert!(home.json(&["events", "n-0*"]).ok().lines().all(|line| !line.contains("n-11")));
    home.run(&["start", "n-*"]).ok();
    home.run(&["interrupt", "n-*"]).ok();
    home.run(&["session", "detach", "n-*"]).ok();
    home.run(&["rm", "n-{08..14}", "-f", "-y"]).ok();
    assert_eq!(home.run(&["list", "-o", "name"]).ok(), "");
    home.end();
}

#[test]
fn hostile_names_and_braces_are_refused_before_anything_is_made() {
    let home = Home::new();
    for bad in ["a{1..", "a{1..99999}", "a{x..y}", "a{}", "a{b,../c}", "a{1..100}{1..101}", "a{b,c d}", "{,a}", "a}", "--"] {
        let ran = home.json(&["create", "ok", bad]);
        assert_eq!(ran.code, if bad == "--" { 0 } else { 2 }, "{bad}: {ran:?}");
        if bad != "--" {
            assert_eq!(home.run(&["list", "-o", "name"]).ok(), "", "{bad}");
        }
    }
    home.json(&["create", "x{1,2,1}"]).fails("usage", 2);
    home.json(&["stop", "nobody*"]).fails("machine.not_found", 3);
    home.end();
}

#[test]
fn one_evaluation_in_many_machines_has_a_row_for_each() {
    let home = Home::new();
    home.run(&["create", "e{1..5}", "--start", "-q"]).ok();
    home.run(&["stop", "e5"]).ok();
    home.run(&["eval", "e2", "bad = true"]).ok();
    let code = "print('said') if bad then error('no\\27[31m', 0) end return 6 * 7";
    let ran = home.run(&["eval", "e*", code]);
    let rows: Vec<Vec<&str>> = ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["e1", "done", "42", "said"], "{ran:?}");
    assert!(rows[2][..2] == ["e2", "failed"] && !ran.out.contains('\u{1b}'), "{ran:?}");
    assert!(rows[5][..2] == ["e5", "refused"] && ran.code == 1, "a Lua error is the worst: {ran:?}");
    let ran = home.json(&["eval", "e{1,3}", code]);
    let values = parse(&ran.ok());
    let all: Vec<(&str, &str)> = values
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["name"].as_str().unwrap(), row["command"]["values"]["utf8"].as_str().unwrap()))
        .collect();
    assert_eq!(all, [("e1", "42"), ("e3", "42")]);
    // What one machine says does not drown the others.
    let ran = home.json(&["eval", "e{1,3}", "io.write(('x'):rep(3000000)) return 1"]);
    let values = parse(&ran.ok());
    for row in values.as_array().unwrap() {
        assert_eq!((row["command"]["truncated"].as_bool(), row["command"]["stdout"]["utf8"].as_str().unwrap().len()), (Some(true), 65_536));
    }
    // Who takes too long is told from who has answered, and interrupted with the others.
    let ran = home.run(&["eval", "e{1..3}", "if bad then while true do end end return 'quick'", "--timeout", "1.5"]);
    assert!(ran.code == 8 && ran.out.matches("quick").count() == 2 && ran.out.contains("running"), "{ran:?}");
    home.run(&["interrupt", "e2"]).ok();
    let ran = home.run(&["eval", "e{1,2}", "while bad do end return 1", "--deadline", "0.2"]);
    assert!(ran.code == 8 && ran.out.contains("failed"), "{ran:?}");
    home.end();
}

#[test]
fn top_shows_what_machines_use_and_do() {
    let home = Home::new();
    home.run(&["create", "t{1..3}", "--start", "-q"]).ok();
    home.run(&["stop", "t3"]).ok();
    home.run(&["eval", "t1", "x = ('x'):rep(20000000) return 1"]).ok();
    home.run(&["eval", "t1", "error('went wrong', 0)"]);
    home.run(&["eval", "t2", "while true do end", "--no-wait"]).ok();
    let look = parse(&home.json(&["top", "--once"]).ok());
    let machine = |name: &str| look["machines"].as_array().unwrap().iter().find(|m| m["name"] == name).unwrap().clone();
    let (t1, t2, t3) = (machine("t1"), machine("t2"), machine("t3"));
    assert!(t1["memory_bytes"].as_u64().unwrap() > 20_000_000, "{t1}");
    assert_eq!((t1["commands"].as_u64(), t1["last_error"].as_str(), t1["busy"].as_u64()), (Some(2), Some("went wrong"), Some(0)));
    assert!(t2["cpu_percent"].as_f64().unwrap() > 10.0 && t2["busy"] == 1, "an endless loop takes the processor: {t2}");
    assert!(t3["state"] == "stopped" && t3["pid"].is_null() && t3["cpu_us"].is_null(), "{t3}");
    let table = home.run(&["top", "t*", "--sort", "-cpu"]).ok();
    let first = table.lines().nth(1).unwrap();
    assert!(table.starts_with("NAME") && first.starts_with("t2 ") && !table.contains('\u{1b}'), "no terminal, no codes: {table}");
    // Programs get one object a look, as often as they ask for.
    let mut child = home.command(&["top", "-o", "json", "--interval", "100ms"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let looks: Vec<Value> = (0..3).map(|_| parse(&lines.next().unwrap().unwrap())).collect();
    assert!(looks[0]["at_us"].as_u64() < looks[2]["at_us"].as_u64());
    assert!(looks[0]["machines"][0]["cpu_percent"].is_null() && !looks[2]["machines"][1]["cpu_percent"].is_null());
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    home.json(&["top", "--sort", "nothing"]).fails("usage", 2);
    home.run(&["kill", "t2"]).ok();
    home.end();
}

#[test]
fn an_idle_machine_is_stopped_and_says_why() {
    let home = Home::new();
    home.run(&["create", "idle", "--start", "--expire-idle", "1s"]).ok();
    home.run(&["create", "kept", "--start"]).ok();
    home.run(&["create", "busy", "--start", "--expire-idle", "1s"]).ok();
    let command = home.run(&["eval", "busy", "local n = 0 while not stop do n = n + 1 end", "--no-wait"]).ok();
    home.run(&["wait", "idle", "--until", "stopped", "--timeout", "30s"]).ok();
    let shown = parse(&home.json(&["show", "idle"]).ok());
    assert_eq!(shown["expired"], "it was idle for 1 s");
    assert!(home.run(&["show", "idle"]).ok().contains("it was idle for 1 s"));
    assert!(home.run(&["events", "idle"]).ok().contains("machine_expired"));
    let state = |name: &str| parse(&home.json(&["show", name]).ok())["state"].clone();
    assert_eq!((state("kept"), state("busy")), ("running".into(), "running".into()), "one may be idle, the other is not");
    // Started again, the reason is gone, and it expires anew.
    home.run(&["start", "idle"]).ok();
    assert!(parse(&home.json(&["show", "idle"]).ok())["expired"].is_null());
    home.run(&["wait", "idle", "--until", "stopped", "--timeout", "30s"]).ok();
    home.run(&["operation", "cancel", command.trim()]).ok();
    home.run(&["wait", "busy", "--until", "stopped", "--timeout", "30s"]).ok();
    for bad in ["0", "0.5s", "soon", "-1s"] {
        assert_eq!(home.run(&["create", "x", &format!("--expire-idle={bad}")]).code, 2, "{bad}");
    }
    home.end();
}

#[test]
fn the_quota_of_the_user_holds_also_for_two_at_once() {
    let home = Home::new();
    let dir = home.path(".config/vmoon");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.toml"), "[quota]\nmachines = 6\nrunning = 3\n").unwrap();
    // Twelve ask at once for six places.
    let ran = home.json(&["create", "q{01..12}"]);
    assert_eq!((ran.code, ran.err.matches("quota.exceeded").count()), (4, 6), "{ran:?}");
    assert_eq!(home.run(&["list", "-o", "name"]).ok().lines().count(), 6);
    let ran = home.json(&["start", "q*"]);
    assert_eq!((ran.code, ran.err.matches("quota.exceeded").count()), (4, 3), "{ran:?}");
    let status = parse(&home.json(&["daemon", "status"]).ok());
    assert_eq!((&status["quota"]["machines"]["used"], &status["quota"]["running"]["limit"]), (&6.into(), &3.into()), "{status}");
    assert!(home.run(&["doctor"]).out.contains("running 3 of 3"));
    // A place that is given back can be taken, also by a machine that starts as soon as it is made.
    let running = home.run(&["list", "--filter", "state=running", "-o", "name"]).ok();
    home.run(&["rm", "-f", "-y", running.lines().next().unwrap()]).ok();
    let ran = home.json(&["create", "new", "more", "--start"]);
    assert_eq!((ran.code, ran.err.matches("quota.exceeded").count()), (4, 1), "{ran:?}");
    home.end();
}

#[test]
fn a_sum_of_memory_limits_is_a_quota_too() {
    let home = Home::new();
    let dir = home.path(".config/vmoon");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.toml"), "[quota]\nmemory = \"100M\"\n").unwrap();
    home.json(&["create", "none", "--start"]).fails_with_hint("quota.exceeded", 4);
    home.run(&["create", "m1", "m2", "--memory", "40M", "--start"]).ok();
    let ran = home.json(&["create", "m3", "--memory", "40M", "--start"]);
    ran.fails_with_hint("quota.exceeded", 4);
    assert!(ran.err.contains("40 MiB is asked for, running machines have 80 MiB, and 100 MiB is allowed in all"), "{ran:?}");
    home.run(&["create", "m3", "--memory", "40M"]).ok();
    home.json(&["start", "m3"]).fails_with_hint("quota.exceeded", 4);
    home.run(&["stop", "m1"]).ok();
    home.run(&["start", "m3"]).ok();
    home.end();
}

#[test]
fn a_mistake_in_the_configuration_is_told_with_its_line() {
    let home = Home::new();
    let dir = home.path(".config/vmoon");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.toml"), "[quota]\nmachines = 6\nrunnig = 3\n").unwrap();
    let ran = home.run(&["list"]);
    assert!(ran.code == 7 && ran.err.contains("line 3") && ran.err.contains("runnig"), "{ran:?}");
    std::fs::write(dir.join("config.toml"), "[quota]\nmachines = 6\n").unwrap();
    home.run(&["list"]).ok();
    home.end();
}

#[test]
fn options_say_what_a_machine_may_do_and_how_long_a_command_may_take() {
    let home = Home::new();
    home.run(&["create", "lab", "--command-time", "1s", "--read", "run", "--open-files", "64", "--cpu", "10m", "--start"]).ok();
    home.run(&["eval", "lab", "kept = 7"]).ok();
    home.json(&["eval", "lab", "while true do end"]).fails("command.deadline", 8);
    let shown = parse(&home.json(&["show", "lab"]).ok());
    let settings = &shown["spec"]["settings"];
    assert_eq!((&settings["command-time"], &settings["cpu"], &settings["open-files"]), (&1.into(), &600.into(), &64.into()), "{shown}");
    assert_eq!(settings["read"][0], home.path("run").to_string_lossy().as_ref(), "the client has made the path absolute");
    assert_eq!(home.run(&["eval", "lab", "return kept"]).ok(), "7\n", "the state is kept");
}
