//! Arguments and results as data, at the real binary.

use crate::home::Home;
use serde_json::{Value, json};

#[test]
fn arguments_are_values_and_results_are_data() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    let both = ["eval", "lab", "local a, b, c = ... return a + b[1], c", "--args", "[1, [2]]", "--arg", "]] os.exit(1) --[["];
    assert_eq!(home.run(&both).ok(), "3\t]] os.exit(1) --[[\n");
    assert_eq!(home.run(&[&both[..], &["--data"]].concat()).ok(), "[3,\"]] os.exit(1) --[[\"]\n");

    std::fs::write(home.path("args.json"), r#"[{"a": [1.5, null, 9007199254740993]}]"#).unwrap();
    let file = home.path("args.json").display().to_string();
    assert_eq!(home.run(&["eval", "lab", "return ...", "--args-file", &file, "--data"]).ok(), "[{\"a\":[1.5,null,9007199254740993]}]\n");
    let fed = home.feed(&["eval", "lab", "return select('#', ...)", "--args-file", "-"], b"[null, null]");
    assert_eq!(fed.ok(), "2\n");

    // What has no form in JSON is told of on standard error, and is no failure.
    let ran = home.run(&["eval", "lab", "print('out') return { f = print, n = 0/0 }, 1", "--data"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "out\n[{\"f\":null,\"n\":null},1]\n"), "{ran:?}");
    assert!(ran.err.contains("[1].f: function has no form in JSON") && ran.err.contains("[1].n: not a number"), "{ran:?}");

    // For programs both forms are in one answer, and without the option the second one is not there.
    let answer = |args: &[&str]| -> Value { serde_json::from_str(&home.json(args).ok()).unwrap() };
    let view = answer(&["eval", "lab", "return { f = print }, {}", "--data"]);
    assert_eq!(view["data"], json!([{"f": null}, []]));
    assert_eq!(view["unfit"], json!([{"path": "[1].f", "why": "function"}]));
    assert!(view["values"]["utf8"].as_str().unwrap().contains("function"));
    assert!(answer(&["eval", "lab", "return 1"]).get("data").is_none());

    // Found again by its id, after the daemon was stopped, too.
    let id = view["id"].as_str().unwrap().to_owned();
    home.run(&["daemon", "stop"]).ok();
    let kept = home.run(&["read", "--command", &id]).ok();
    assert!(kept.contains("function"), "{kept}");
    home.end();
}

#[test]
fn bad_arguments_are_refused_before_anything_runs() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    for bad in ["", "1", "{}", "[1", "[nil]"] {
        home.json(&["eval", "lab", "ran = true", "--args", bad]).fails_with_hint("usage", 2);
    }
    home.json(&["eval", "lab", "ran = true", "--args-file", "/nonexistent"]).fails("file.failed", 1);
    home.json(&["eval", "lab", "-", "--args-file", "-"]).fails_with_hint("usage", 2);
    assert_eq!(home.run(&["eval", "lab", "ran = true", "--args", "[]", "--args-file", "x"]).code, 2);
    let many = serde_json::to_string(&vec![1; 251]).unwrap();
    home.json(&["eval", "lab", "ran = true", "--args", &many]).fails_with_hint("usage", 2);
    let huge = home.path("huge.json");
    std::fs::write(&huge, serde_json::to_vec(&json!(["x".repeat(17 << 20)])).unwrap()).unwrap();
    home.json(&["eval", "lab", "ran = true", "--args-file", huge.to_str().unwrap()]).fails_with_hint("command.too_large", 2);
    assert_eq!(home.run(&["eval", "lab", "return ran"]).ok(), "nil\n");
    home.end();
}

#[test]
fn every_runtime_takes_them() {
    let home = Home::new();
    for runtime in ["lua5.1", "lua5.4", "luajit"] {
        home.run(&["create", runtime, "--start", "--runtime", runtime]).ok();
        let said =
            home.run(&["eval", runtime, "local t = ... return #t.list, t.text", "--args", r#"[{"list":[1,2],"text":"ä"}]"#, "--data"]);
        assert_eq!(said.ok(), "[2,\"ä\"]\n");
    }
    home.run(&["create", "one"]).ok();
    home.run(&["start", "one"]).ok();
    let rows = home.json(&["eval", "*", "return ...", "--args", "[[1]]", "--data"]).ok();
    assert_eq!(rows.matches("\"data\"").count(), 4, "{rows}");
    home.end();
}
