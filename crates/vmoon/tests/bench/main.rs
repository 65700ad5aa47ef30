//! `vmoon bench` as a user runs it: its figures are whole, a missing alternative is null with a reason, nothing is left over.

mod soak;

use serde_json::Value;
use std::process::{Command, Output};

fn bench(dir: &std::path::Path, args: &[&str]) -> Output {
    of_vmoon("bench", dir, args)
}

fn of_vmoon(verb: &str, dir: &std::path::Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vmoon"))
        .arg(verb)
        .args(args)
        .env("TMPDIR", dir)
        .env("HOME", dir)
        .env("XDG_STATE_HOME", dir.join("own"))
        .output()
        .unwrap()
}

#[test]
fn the_figures_are_whole_and_nothing_is_left_over() {
    let dir = tempfile::tempdir().unwrap();
    let sections = ["worker", "create", "run", "list", "output"];
    let alternatives = ["--quick", "--lua", "/no/such/lua", "--python", "/bin/false"];
    let output = bench(dir.path(), &[&sections[..], &alternatives].concat());
    assert!(output.status.success(), "{output:?}");
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&figures["left_over_processes"], &figures["failed"]), (&0.into(), &serde_json::json!([])));
    assert_eq!(figures["machine"]["pinned_to_cpu"], Value::Null);
    assert!(figures["machine"]["cpus"].as_u64().unwrap() > 0);
    for section in ["worker", "create", "run", "list"] {
        let vmoon = &figures["sections"][section]["vmoon"];
        assert!(vmoon["p50_us"].as_f64().unwrap() > 0.0 && vmoon["n"].as_u64().unwrap() >= 20, "{section}: {vmoon}");
    }
    let printed = &figures["sections"]["output"]["vmoon"];
    assert_eq!((&printed["whole"], &printed["in_transcript_bytes"]), (&true.into(), &printed["bytes"]));
    for alternative in ["lua", "python"] {
        let section = &figures["sections"]["create"];
        assert!(section[alternative].is_null() && section[format!("{alternative}_reason")].as_str().is_some_and(|why| !why.is_empty()));
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn one_processor_is_used_when_asked_for_and_answers_are_right() {
    let dir = tempfile::tempdir().unwrap();
    let output = bench(dir.path(), &["correct", "--quick", "--pin", "--lua", "/no/such/lua"]);
    assert!(output.status.success(), "{output:?}");
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(figures["machine"]["pinned_to_cpu"].is_u64());
    let vmoon = &figures["sections"]["correct"]["vmoon"];
    assert_eq!(vmoon["wrong_missing_or_reordered"], 0, "{vmoon}");
    assert!(vmoon["slow"].as_u64().unwrap() > 0, "{vmoon}");
}

#[test]
fn a_section_that_does_not_exist_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = bench(dir.path(), &["evall"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty() && String::from_utf8_lossy(&output.stderr).contains("eval"), "{output:?}");
}
