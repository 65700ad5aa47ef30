//! One script over many items, in processes that end in every way there is.

use crate::home::Home;
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::Stdio,
};

/// Exit code, rows and errors of `vmoon run --map - ARGS…` over this input.
fn map(home: &Home, args: &[&str], input: &str) -> (Option<i32>, Vec<Value>, String) {
    let args: Vec<&str> = ["run", "--map", "-"].into_iter().chain(args.iter().copied()).collect();
    let output = home.vmoon(&args, input.as_bytes());
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    (output.status.code(), rows, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn values_go_in_and_out_as_data_in_the_order_of_the_items() {
    let home = Home::new();
    home.file("p.lua", b"#!/usr/bin/env lua\nlocal x = ... return { x = x, word = arg[1], input = io.read() }, 'only the first counts'");
    let input = "1\n\n\"a\\nb\"\n{\"k\":[true,null,2.5]}\nnull\n9007199254740993";
    let (code, rows, stderr) = map(&home, &["--jobs", "2", "--with-input", "p.lua", "word"], input);
    assert_eq!((code, rows.len()), (Some(0), 5), "{stderr}");
    for (at, (row, expect)) in rows.iter().zip([json!(1), json!("a\nb"), json!({"k": [true, null, 2.5]})]).enumerate() {
        assert_eq!((&row["index"], &row["result"]["x"], &row["input"]), (&json!(at), &expect, &expect), "{row}");
        assert_eq!((&row["result"]["word"], &row["attempts"]), (&json!("word"), &json!(1)));
        assert!(row["duration_us"].as_u64().unwrap() > 0 && row.get("error").is_none());
    }
    assert_eq!(rows[4]["result"]["x"], json!(9_007_199_254_740_993_u64), "no digit is lost");
    assert!(stderr.contains("5 done, 0 failed"), "{stderr}");
    let (_, rows, _) = map(&home, &["-e", "return (...) == nil"], "null\n");
    assert_eq!(rows[0]["result"], json!(true), "null is nil");
}

#[test]
fn every_end_of_an_item_is_its_own() {
    let home = Home::new();
    home.file(
        "p.lua",
        b"local x = ...
          if x == 'error' then error('bad') end
          if x == 'object' then error(setmetatable({}, { __tostring = function() return 'mine' end })) end
          if x == 'endless' then while true do end end
          if x == 'swallow' then while true do pcall(function() while true do end end) end end
          if x == 'memory' then local t = {} while true do t[#t + 1] = ('x'):rep(1e6) end end
          if x == 'exit' then os.exit(3) end
          if x == 'function' then return print end
          if x == 'file' then return (select(2, io.open('/etc/passwd'))) end
          if x == 'shell' then os.execute('true') end
          return 'fine'",
    );
    let kinds = ["good", "error", "object", "endless", "swallow", "memory", "exit", "function", "file", "shell", "last"];
    let mut input: String = kinds.iter().map(|kind| format!("\"{kind}\"\n")).collect();
    input += "{bad\n";
    let args = ["--jobs", "3", "--deadline", "1500ms", "--memory", "32M", "p.lua"];
    let (code, rows, stderr) = map(&home, &args, &input);
    assert_eq!((code, rows.len()), (Some(1), kinds.len() + 1), "{stderr}");
    let said = |at: usize| rows[at]["error"].as_str().unwrap_or_default();
    for (at, expect) in [
        (1, "p.lua:2: bad"),
        (2, "mine"),
        (3, "deadline of 1.5s"),
        (4, "deadline of 1.5s"),
        (5, "not enough memory"),
        (6, "os.exit(3)"),
        (7, "no form in JSON"),
        (9, "not granted"),
        (11, "not JSON"),
    ] {
        assert!(said(at).contains(expect), "{at} {} {stderr}", rows[at]);
    }
    assert!(rows[8]["result"].as_str().unwrap().contains("Permission denied"), "{}", rows[8]);
    assert_eq!((&rows[0]["result"], &rows[10]["result"]), (&json!("fine"), &json!("fine")));
    assert!(stderr.contains("3 done, 9 failed") && stderr.contains("warning: item 1: p.lua:2: bad"), "{stderr}");
}

#[test]
fn what_failed_is_tried_again_in_a_new_state_and_bad_input_is_not() {
    let home = Home::new();
    // What an attempt leaves behind is seen by the next one, through a file that it may write.
    home.file("tries", b"");
    let code = "local f = io.open(arg[1], 'a+') f:write('x') f:seek('set') local n = #f:read('a') f:close() seen = (seen or 0) + 1
                if n < 3 then error('not yet') end return { n, seen }";
    home.file("p.lua", code.as_bytes());
    let tries = home.path().join("tries").to_string_lossy().into_owned();
    let (code, rows, stderr) = map(&home, &["--retries", "5", "--write", "tries", "p.lua", &tries], "1\n{\n");
    assert_eq!((code, &rows[0]["result"], &rows[0]["attempts"]), (Some(1), &json!([3, 1]), &json!(3)), "{stderr}");
    assert_eq!(rows[1]["attempts"], json!(1));
    assert!(stderr.contains("1 done, 1 failed, 2 tried again"), "{stderr}");
}

#[test]
fn items_differ_in_their_seeds_and_share_nothing() {
    let home = Home::new();
    let input: String = (0..40).map(|n| format!("{n}\n")).collect();
    let code = "count = (count or 0) + 1 return { tostring(math.random(1 << 62)), count }";
    let (_, rows, _) = map(&home, &["--unordered", "-e", code], &input);
    let mut seen: Vec<&str> = rows.iter().map(|row| row["result"][0].as_str().unwrap()).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 40);
    assert!(rows.iter().all(|row| row["result"][1] == 1));
}

#[test]
fn what_is_printed_goes_to_standard_error_with_its_number() {
    let home = Home::new();
    let code = "local x = ... if x == 0 then print('one\\ntwo') else io.write(('y'):rep(1e6)) end return x";
    let (code, rows, stderr) = map(&home, &["-e", code], "0\n1\n");
    assert_eq!((code, rows.len()), (Some(0), 2), "{stderr}");
    assert!(stderr.contains("[0] one\n[0] two\n") && stderr.contains("[1] ... and 934464 bytes more\n"), "{}", &stderr[..200]);
}

#[test]
fn the_input_is_a_stream_and_ctrl_c_says_what_was_done() {
    let home = Home::new();
    let args = ["run", "--map", "-", "--jobs", "2", "--unordered", "-e", "local x = ... while x == 2 do end return x"];
    let mut child = home.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("vmoon starts");
    let mut items = child.stdin.take().unwrap();
    let mut rows = BufReader::new(child.stdout.take().unwrap());
    // The first answer comes while the input is still open: nothing waits for its end.
    for (item, index) in [("1\n", 0), ("2\n3\n", 2)] {
        items.write_all(item.as_bytes()).unwrap();
        let mut line = String::new();
        rows.read_line(&mut line).unwrap();
        let row: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(row["index"], json!(index), "{line}");
    }
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("interrupted: 2 done, 0 failed, 1 unfinished"), "{said}");
}

#[test]
fn what_makes_no_sense_runs_nothing() {
    let home = Home::new();
    home.file("bad.lua", b"x = = 1");
    for (args, code, message) in [
        (&["--map", "none.jsonl", "-e", "return 1"][..], 127, "cannot open none.jsonl"),
        (&["--map", "-", "none.lua"], 127, "cannot open none.lua"),
        (&["--map", "-", "bad.lua"], 1, "bad.lua:1:"),
        (&["--map", "-", "-"], 2, "cannot both be standard input"),
        (&["--map", "-", "--runtime", "lua5.3", "bad.lua"], 1, "bad.lua:1:"),
        (&["--map", "-", "--runtime", "lua9", "-e", "return 1"], 127, "there is no interpreter lua9"),
        (&["--map", "-", "--runtime", "cat", "-e", "return 1"], 126, "does not behave as lua5.1 to lua5.4 or luajit do"),
        (&["--jobs", "2", "-e", "return 1"], 2, "--map"),
        (&["--map", "-", "--jobs", "0", "-e", "return 1"], 2, "--jobs"),
    ] {
        let args: Vec<&str> = ["run"].into_iter().chain(args.iter().copied()).collect();
        let output = home.vmoon(&args, b"1\n");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(code), &b""[..]), "{args:?} {stderr}");
        assert!(stderr.contains(message), "{args:?} {stderr}");
    }
}

/// The interpreters of Debian, and what they say they are.
const INSTALLED: [(&str, &str); 5] =
    [("lua5.1", "Lua 5.1"), ("lua5.2", "Lua 5.2"), ("lua5.3", "Lua 5.3"), ("lua5.4", "Lua 5.4"), ("luajit", "LuaJIT")];

#[test]
fn items_run_in_installed_interpreters_as_in_the_embedded_one() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("work")).unwrap();
    home.file("work/beside.lua", b"return { name = 'beside' }");
    home.file(
        "work/p.lua",
        b"#!/usr/bin/env lua
          local x = ...
          if x == 'error' then error('bad') end
          if x == 'object' then error(setmetatable({}, { __tostring = function() return 'mine' end })) end
          if x == 'swallow' then while true do pcall(function() while true do end end) end end
          if x == 'exit' then os.exit(3) end
          if x == 'function' then return print end
          if x == 'file' then return (select(2, io.open('/etc/passwd'))) end
          if x == 'shell' then os.execute('true') end
          if x == 'lua' then return jit and 'LuaJIT' or _VERSION end
          if x == 'module' then return require('beside').name .. require('vmoon').encode({ 1 }) end
          if x == 'print' then print('one\\ntwo') io.stderr:write('three') return io.read() end
          if x == 'long' then io.write(('y'):rep(1e6)) return ('z'):rep(3e6) end
          count = (count or 0) + 1
          return { x = x, word = arg[1], script = arg[0], count = count, none = arg[-1] }",
    );
    let kinds = ["error", "object", "swallow", "exit", "function", "file", "shell", "lua", "module", "print", "long"];
    let mut input: String = kinds.iter().map(|kind| format!("\"{kind}\"\n")).collect();
    input += "{bad\n{\"k\":[true,null,2.5]}\nnull\n";
    for (runtime, is) in INSTALLED {
        let args = ["--runtime", runtime, "--jobs", "3", "--deadline", "3s", "--with-input", "work/p.lua", "word"];
        let (code, rows, stderr) = map(&home, &args, &input);
        assert_eq!((code, rows.len()), (Some(1), kinds.len() + 3), "{runtime} {stderr}");
        let said = |at: usize| rows[at]["error"].as_str().unwrap_or_default();
        for (at, expect) in [
            (0, "p.lua:3: bad"),
            (1, "mine"),
            (2, "deadline of 3s"),
            (3, "os.exit(3)"),
            (4, "no form in JSON"),
            (6, "not granted"),
            (11, "not JSON"),
        ] {
            assert!(said(at).contains(expect), "{runtime} {at} {} {stderr}", rows[at]);
        }
        assert!(rows[5]["result"].as_str().unwrap().contains("Permission denied"), "{runtime} {}", rows[5]);
        assert_eq!(
            (&rows[7]["result"], &rows[8]["result"], &rows[9]["result"]),
            (&json!(is), &json!("beside[1]"), &Value::Null),
            "{stderr}"
        );
        assert_eq!(rows[10]["result"].as_str().map(str::len), Some(3_000_000), "{runtime}");
        let found = &rows[12]["result"];
        assert_eq!(
            (&found["x"], &found["word"], &found["script"]),
            (&json!({"k": [true, null, 2.5]}), &json!("word"), &json!("work/p.lua"))
        );
        assert_eq!((&rows[12]["input"], &found["count"], found.get("none")), (&json!({"k": [true, null, 2.5]}), &json!(1), None));
        assert_eq!(rows[13]["result"].get("x"), None, "null is nil");
        for said in
            ["[9] one\n[9] two\n[9] three\n", "[10] ... and 934464 bytes more\n", "7 done, 7 failed", "warning: item 0: work/p.lua:3: bad"]
        {
            assert!(stderr.contains(said), "{runtime} {said} {}", &stderr[stderr.len().saturating_sub(600)..]);
        }
    }
}

#[test]
fn installed_interpreters_try_again_differ_in_their_seeds_and_take_their_profile() {
    let home = Home::new();
    home.file("tries", b"");
    let code = "local f = io.open(arg[1], 'a+') f:write('x') f:seek('set') local n = #f:read('*a') f:close()
                if n < 3 then error('not yet') end return n";
    home.file("p.lua", code.as_bytes());
    let tries = home.path().join("tries").to_string_lossy().into_owned();
    for (runtime, _) in INSTALLED {
        home.file("tries", b"");
        let (code, rows, stderr) = map(&home, &["--runtime", runtime, "--retries", "5", "--write", "tries", "p.lua", &tries], "1\n{\n");
        assert_eq!(
            (code, &rows[0]["result"], &rows[0]["attempts"], &rows[1]["attempts"]),
            (Some(1), &json!(3), &json!(3), &json!(1)),
            "{stderr}"
        );
        assert!(stderr.contains("1 done, 1 failed, 2 tried again"), "{stderr}");
        let input: String = (0..12).map(|n| format!("{n}\n")).collect();
        let (_, rows, stderr) = map(&home, &["--runtime", runtime, "--unordered", "-e", "return math.random(1e9)"], &input);
        let mut seen: Vec<u64> = rows.iter().filter_map(|row| row["result"].as_u64()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 12, "{runtime} {stderr}");
        let trusted = [
            "--runtime",
            runtime,
            "--profile",
            "trusted",
            "-e",
            "return io.open('/etc/passwd'):read() ~= nil and io.popen('echo x'):read()",
        ];
        let (code, rows, stderr) = map(&home, &trusted, "1\n");
        assert_eq!((code, &rows[0]["result"]), (Some(0), &json!("x")), "{runtime} {stderr}");
        let (_, rows, _) = map(
            &home,
            &["--runtime", runtime, "--memory", "64M", "-e", "local t = {} while true do t[#t + 1] = ('x'):rep(1e6) .. #t end"],
            "1\n",
        );
        assert!(rows[0]["error"].as_str().unwrap().contains("not enough memory"), "{runtime} {}", rows[0]);
    }
}

#[test]
fn what_is_wrong_with_a_value_is_a_sentence() {
    let home = Home::new();
    let code = "local x = ... if x == 1 then return print elseif x == 2 then return { a = { 1, print } } end return 1 / x";
    let (_, rows, _) = map(&home, &["-e", code], "1\n2\n0\n,\n1e400\n[-1e999]\n");
    let said: Vec<_> = rows.iter().map(|row| row["error"].as_str().unwrap().to_owned()).collect();
    let ends = [
        "the value has no form in JSON (function)",
        "the value at .a[2] has no form in JSON (function)",
        "the value has no form in JSON (an infinite number)",
        "not JSON: there is no value at byte 1",
        "not JSON: a number out of range at byte 1",
        "not JSON: a number out of range at byte 2",
    ];
    for (said, end) in said.iter().zip(ends) {
        assert!(said.ends_with(end), "{said}");
    }
    assert_eq!(said.len(), ends.len());
}

#[test]
fn items_that_cannot_be_read_are_told_as_a_program_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    assert_eq!(home.vmoon(["run", "--map", "nowhere", "-e", "return 1"], b"").status.code(), Some(127));
    let path = home.file("items", b"1\n");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read everything.
    let expect = if std::fs::read(&path).is_ok() { 0 } else { 126 };
    assert_eq!(home.vmoon(["run", "--map", "items", "-e", "return 1"], b"").status.code(), Some(expect));
}
