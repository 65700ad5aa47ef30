//! Bad and hostile input: each has its stable code, its exit code and a hint, and nothing is lost over it.

use crate::home::Home;
use std::{
    ffi::OsString,
    io::{Read as _, Write as _},
    os::unix::{ffi::OsStringExt as _, net::UnixListener},
};

#[test]
fn a_wrong_command_line_is_usage_and_needs_no_daemon() {
    let home = Home::new();
    for args in [&["lst"][..], &["list", "--nope"], &["create"], &["eval", "lab"], &["wait", "lab", "--until", "flying"], &["start"]] {
        home.json(args).fails("usage", 2);
    }
    let ran = home.run(&["lst"]);
    assert!(ran.code == 2 && ran.err.contains("list"), "a mistyped verb is told the nearest one: {ran:?}");
    assert!(home.processes().is_empty() && home.daemon().is_none());
}

#[test]
fn hostile_names_are_refused_before_anything_is_made() {
    let home = Home::new();
    let long = "x".repeat(300);
    for name in ["../x", "a & b <c>", "x\n", "", ".", "-", "a\u{1b}[2J", &long] {
        home.json(&["create", "--", name]).fails_with_hint("name.invalid", 2);
    }
    home.json(&["create", "--", "--help"]).fails_with_hint("name.invalid", 2);
    home.json(&["create", "good", "../x"]).fails_with_hint("name.invalid", 2);
    home.json(&["create", "x{1.."]).fails_with_hint("usage", 2);
    // Of two values none is forgotten silently.
    home.json(&["create", "x", "--memory", "64M", "--set", "memory=1G"]).fails_with_hint("usage", 2);
    home.json(&["create", "x", "--set", "without=lua", "--set", "without=landlock"]).fails_with_hint("usage", 2);
    home.json(&["show", "a:"]).fails_with_hint("usage", 2);
    home.json(&["start", "a/main"]).fails_with_hint("usage", 2);
    assert!(home.daemon().is_none(), "no daemon was needed for that");
    let escape = home.run(&["create", "--", "a\u{1b}[2J"]);
    assert!(!escape.err.contains('\u{1b}'), "a name cannot write to the terminal: {escape:?}");
}

#[test]
fn what_is_not_there_is_said_to_be_not_there() {
    let home = Home::new();
    for args in [&["show", "lab"][..], &["start", "lab"], &["eval", "lab", "return 1"], &["logs", "lab"], &["rm", "lab", "-y"]] {
        home.json(args).fails("machine.not_found", 3);
    }
    home.json(&["start", "lab*"]).fails_with_hint("machine.not_found", 3);
    home.json(&["op", "show", "01a1fd46-0000-7000-8000-000000000000"]).fails("operation.not_found", 3);
    home.json(&["wait", "01a1fd46-0000-7000-8000-000000000000.1"]).fails("command.not_found", 3);
    home.json(&["create", "nowhere:lab"]).fails("connection.not_found", 3);
    home.run(&["rm", "lab", "-y", "--missing-ok"]).ok();
    home.end();
}

#[test]
fn a_specification_that_cannot_be_is_refused() {
    let home = Home::new();
    home.json(&["create", "lab", "--runtime", "lua9.9"]).fails("runtime.not_found", 10);
    home.json(&["create", "lab", "--runtime", "/no/such/lua"]).fails("runtime.not_found", 10);
    home.json(&["create", "lab", "--set", "colour=red"]).fails("spec.invalid", 2);
    home.json(&["create", "lab", "--kind", "toaster"]).fails("spec.invalid", 2);
    home.json(&["create", "lab", "--memory", "lots"]).fails("usage", 2);
    assert_eq!(home.json(&["list"]).ok().trim(), "[]");
    home.end();
}

#[test]
fn a_name_stands_once() {
    let home = Home::new();
    home.run(&["create", "lab"]).ok();
    home.json(&["create", "lab"]).fails("machine.exists", 4);
    home.json(&["eval", "lab", "return 1"]).fails_with_hint("machine.stopped", 4);
    home.end();
}

#[test]
fn deleting_needs_a_yes_where_nobody_can_be_asked() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    home.json(&["rm", "lab"]).fails_with_hint("usage", 2);
    home.json(&["rm", "lab", "-y"]).fails_with_hint("machine.running", 4);
    assert!(home.run(&["rm", "lab", "-y", "--force", "--dry-run"]).ok().contains("lab"));
    home.run(&["show", "lab"]).ok();
    home.run(&["rm", "lab", "-y", "--force"]).ok();
    home.end();
}

#[test]
fn code_of_any_bytes_arrives_as_it_is() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    let raw = |bytes: &[u8]| home.run(&[OsString::from("eval"), "lab".into(), OsString::from_vec(bytes.to_vec())]);
    assert_eq!(raw(b"return #'\xff\xfe\x01'").ok(), "3\n");
    assert_eq!(home.feed(&["eval", "lab", "-"], b"return #'a\0b'").ok(), "3\n", "NUL bytes come through standard input");
    let out = home.command(&["eval", "lab", "local _ = io.write('\\255\\0\\10x')"]).output().unwrap();
    assert_eq!(out.stdout, b"\xff\0\nx", "output is not touched");

    let syntax = home.json(&["eval", "lab", "x = = 1"]);
    syntax.fails("command.failed", 1);
    let view: serde_json::Value = serde_json::from_str(&syntax.out).unwrap();
    assert_eq!(view["error"]["syntax"], true, "{syntax:?}");
    home.json(&["eval", "lab", "for i = 1, 2 do"]).fails("command.incomplete", 1);
    let error = home.run(&["eval", "lab", "local function f() error('boom') end f()"]);
    assert!(error.code == 1 && error.err.contains("boom") && error.err.contains("traceback") && error.out.is_empty(), "{error:?}");
    home.json(&["eval", "lab", "while true do end", "--deadline", "200ms"]).fails("command.deadline", 8);
    assert_eq!(home.run(&["eval", "lab", "return 'alive'"]).ok(), "alive\n", "the machine lives");
    home.end();
}

#[test]
fn code_that_is_too_large_is_refused_and_a_large_value_is_not() {
    let home = Home::new();
    home.run(&["create", "lab", "--memory", "64M", "--start"]).ok();
    let huge = vec![b' '; (16 << 20) + 1];
    home.feed(&["eval", "lab", "-", "-o", "json"], &huge).fails_with_hint("command.too_large", 2);
    home.json(&["eval", "lab", "return #string.rep('x', 1 << 30)"]).fails("command.failed", 1);
    let big = home.command(&["eval", "lab", "local _ = io.write(string.rep('x', 3 << 20))"]).output().unwrap();
    assert_eq!((big.status.code(), big.stdout.len()), (Some(0), 3 << 20), "more than an answer repeats is read from the transcript");
    home.end();
}

#[test]
fn input_that_nobody_waits_for_is_refused() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    home.json(&["send", "lab", "x"]).fails("session.not_waiting", 4);
    home.end();
}

#[test]
fn without_a_daemon_and_forbidden_to_start_one_it_says_so() {
    let home = Home::new();
    let output = home.command(&["list", "-o", "json"]).env("VMOON_NO_AUTOSTART", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "{text}");
    assert!(text.contains("\"daemon.unreachable\"") && text.contains("hint"), "{text}");
    assert!(home.processes().is_empty());
}

#[test]
fn a_daemon_that_cannot_start_is_told_with_its_reason() {
    let home = Home::new();
    // A store of garbage: the daemon must not touch it.
    std::fs::create_dir_all(home.path("state/vmoon")).unwrap();
    std::fs::write(home.path("state/vmoon/vmoon.db"), vec![b'x'; 8192]).unwrap();
    let ran = home.json(&["list"]);
    ran.fails_with_hint("daemon.unreachable", 7);
    assert!(ran.err.contains("log"), "{ran:?}");
    assert_eq!(std::fs::read(home.path("state/vmoon/vmoon.db")).unwrap(), vec![b'x'; 8192], "nothing was overwritten");
    let doctor = home.run(&["doctor"]);
    assert!(doctor.code == 10 && doctor.out.contains('✗'), "{doctor:?}");
}

#[test]
fn no_home_is_said() {
    let home = Home::new();
    let output = home.command(&["list", "-o", "json"]).env_remove("HOME").env_remove("XDG_STATE_HOME").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("HOME"));
}

/// Something that listens where the daemon would, and answers one question with these bytes.
fn impostor(home: &Home, answer: &'static [u8]) -> std::thread::JoinHandle<()> {
    std::fs::create_dir_all(home.path("run/vmoon")).unwrap();
    let listener = UnixListener::bind(home.path("run/vmoon/api.sock")).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut question = Vec::new();
        while !question.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            question.push(byte[0]);
        }
        stream.write_all(answer).unwrap();
    })
}

#[test]
fn a_daemon_of_another_age_is_told_which_side_is_too_old() {
    for (header, word) in [("7-9", "newer"), ("0-0", "older"), ("soon", "says it speaks")] {
        let home = Home::new();
        let answer = format!("HTTP/1.1 200 OK\r\nvmoon-protocol: {header}\r\ncontent-length: 2\r\n\r\n[]");
        let daemon = impostor(&home, answer.leak().as_bytes());
        let ran = home.json(&["list"]);
        daemon.join().unwrap();
        ran.fails_with_hint("wire.version", 7);
        assert!(ran.err.contains(word), "{ran:?}");
    }
}

#[test]
fn an_answer_that_is_no_answer_is_malformed() {
    let home = Home::new();
    let daemon = impostor(&home, b"HTTP/1.1 200 OK\r\nvmoon-protocol: 1-1\r\ncontent-length: 9\r\n\r\n{\"a\":\"b\"}");
    home.json(&["list"]).fails("wire.malformed", 1);
    daemon.join().unwrap();
}

#[test]
fn a_verb_about_one_machine_says_so_to_a_pattern() {
    let home = Home::new();
    home.run(&["create", "fold-1", "--start"]).ok();
    for args in [&["attach", "fold-*"][..], &["read", "fold-*"], &["logs", "fold-*"], &["session", "show", "fold-{1,2}"], &["ip", "fold-?"]]
    {
        let ran = home.json(args);
        ran.fails_with_hint("usage", 2);
        assert!(ran.err.contains("one is meant here"), "{ran:?}");
    }
    home.end();
}

#[test]
fn what_a_hint_says_can_be_done() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    for args in [&["console", "lab"][..], &["ssh", "lab"]] {
        let ran = home.run(args);
        assert!(ran.code != 0 && ran.err.contains("vmoon attach lab"), "{ran:?}");
        assert!(!ran.err.contains("--viewer") && !ran.err.contains("write lab/main"), "{ran:?}");
    }
    let ran = home.run(&["connection", "login", "local"]);
    assert!(ran.code == 2 && ran.err.contains("local is this computer"), "{ran:?}");
    home.end();
}

#[test]
fn what_can_never_come_is_refused_before_anything_is_made() {
    let home = Home::new();
    for goal in ["ip", "ssh"] {
        let ran = home.json(&["create", "one", "two", "--until", goal]);
        ran.fails_with_hint("driver.unsupported", 9);
        assert!(ran.err.contains("nothing was created"), "{ran:?}");
    }
    assert_eq!(home.json(&["list"]).ok().trim(), "[]");
    home.run(&["create", "one", "--until", "session"]).ok();
    home.end();
}
