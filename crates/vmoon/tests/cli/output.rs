//! How results are printed: formats, colour, closed pipes, help.

use crate::home::Home;
use std::{io::Read as _, process::Stdio};

#[test]
fn help_is_data_and_names_the_verbs() {
    let home = Home::new();
    let help = home.run(&["help"]).ok();
    for verb in ["create", "attach", "eval", "doctor", "Examples:"] {
        assert!(help.contains(verb), "{verb}");
    }
    for hidden in ["lua-host", "help-markdown"] {
        assert!(!help.contains(hidden), "{hidden}");
    }
    assert!(home.run(&["eval", "--help"]).ok().contains("Exit codes"));
    assert!(home.run(&["--version"]).ok().starts_with("vmoon "));
    assert!(home.run(&[] as &[&str]).ok().contains("vmoon create lab --start"), "a first look says what to do");
    assert!(home.processes().is_empty());
}

#[test]
fn one_list_in_every_format() {
    let home = Home::new();
    home.run(&["create", "b", "a", "-q"]).ok();
    assert_eq!(home.run(&["ls", "-o", "csv", "--columns", "name,state", "--sort", "-name"]).ok(), "name,state\nb,stopped\na,stopped\n");
    assert_eq!(home.run(&["ls", "--columns", "name,state", "--no-header"]).ok(), "a  stopped\nb  stopped\n");
    assert!(home.run(&["ls", "-o", "yaml"]).ok().starts_with("- id:"));
    let json: serde_json::Value = serde_json::from_str(&home.json(&["ls"]).ok()).unwrap();
    assert!(json[0]["created_ms"].is_u64() && json[1]["name"] == "b");
    let output = home.command(&["ls"]).env("VMOON_OUTPUT", "name").output().unwrap();
    assert_eq!(output.stdout, b"a\nb\n");
    home.json(&["ls", "--columns", "nope"]).fails_with_hint("usage", 2);
    home.json(&["ls", "--filter", "state"]).fails_with_hint("usage", 2);
    let output = home.command(&["ls"]).env("VMOON_OUTPUT", "xml").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    home.end();
}

#[test]
fn colour_is_only_where_it_is_wanted() {
    let home = Home::new();
    home.run(&["create", "lab", "-q"]).ok();
    assert!(!home.run(&["ls"]).ok().contains('\u{1b}'));
    assert!(home.run(&["ls", "--color", "always"]).ok().contains('\u{1b}'));
    let forced = home.command(&["ls"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(forced.stdout.contains(&0x1b));
    home.end();
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let home = Home::new();
    home.run(&["create", "lab", "--start", "-q"]).ok();
    let mut child = home.command(&["eval", "lab", "for i = 1, 300000 do print(i) end"]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    home.end();
}

#[test]
fn a_full_disk_is_said() {
    let home = Home::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = home.command(&["version"]).stdout(Stdio::from(full)).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"));
}

#[test]
fn completions_are_printed_and_answered_without_a_daemon() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(home.run(&["completions", shell]).ok().contains("COMPLETE"), "{shell}");
    }
    let asked = || {
        let mut command = home.command(&["--", "vmoon", "show", ""]);
        let output = command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "2").output().unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!asked().contains("lab"));
    assert!(home.processes().is_empty(), "completing starts nothing");
    home.run(&["create", "lab", "-q"]).ok();
    assert!(asked().lines().any(|line| line == "lab"), "{}", asked());
    home.end();
}

#[test]
fn verbose_names_the_daemon_and_twice_every_call_and_nothing_that_it_carries() {
    let home = Home::new();
    let ran = home.run(&["create", "lab", "--start", "-v"]);
    assert!(ran.err.contains("starting the daemon") && ran.err.contains("asking the daemon at /"), "{ran:?}");
    assert_eq!(ran.err.matches("asking the daemon").count(), 1, "{ran:?}");
    assert!(!ran.err.contains("/v1/"), "{ran:?}");
    let ran = home.run(&["eval", "lab", "return ...", "--arg", "hidden-thing", "-vv"]);
    let call = ran.err.lines().find(|line| line.contains("POST /v1/sessions/lab/eval 200 ")).unwrap_or_else(|| panic!("{ran:?}"));
    assert!(call.trim_end().ends_with(" ms") && !ran.err.contains("hidden-thing"), "{ran:?}");
    assert_eq!(ran.out, "hidden-thing\n");
    let ran = home.run(&["show", "nobody", "-vv"]);
    assert!(ran.code == 3 && ran.err.contains("GET /v1/machines/nobody 404 "), "{ran:?}");
    let asked = home.command(&["list"]).env("VMOON_LOG", "vmoon_api=debug").output().unwrap();
    assert!(String::from_utf8_lossy(&asked.stderr).contains("GET /v1/machines 200 "), "{asked:?}");
    let quiet = home.run(&["list"]);
    assert_eq!(quiet.err, "");
    home.end();
}

#[test]
fn a_list_has_the_columns_of_all_its_rows_and_a_pattern_that_is_broken_is_told() {
    let home = Home::new();
    home.run(&["create", "lab", "--start", "-q"]).ok();
    // The first snapshot has no parent, and the column was left out.
    for name in ["a", "b"] {
        home.run(&["snapshot", "create", "lab", name, "-q"]).ok();
    }
    let csv = home.run(&["snapshot", "list", "lab", "-o", "csv"]).ok();
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let parent = rows[0].iter().position(|name| *name == "parent").unwrap_or_else(|| panic!("{csv}"));
    assert!(rows[1][parent].is_empty() && rows[2][parent] == "a" && rows[1].len() == rows[0].len(), "{csv}");
    home.json(&["list", "lab[0"]).fails_with_hint("usage", 2);
    home.json(&["stop", "lab[0"]).fails_with_hint("usage", 2);
    assert_eq!(home.run(&["list", "lab[0]", "--no-header"]).ok(), "");
    home.end();
}
