//! One-shot programs.

use crate::{home::Home, terminal::Terminal};
use std::{
    os::unix::{fs::PermissionsExt, process::ExitStatusExt as _},
    time::{Duration, Instant},
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn check(args: &[&str], input: &str, code: i32, stdout: &str, stderr: &str) {
    let output = Home::new().vmoon(args, input.as_bytes());
    assert_eq!(text(&output.stdout), stdout, "{args:?} {output:?}");
    assert!(text(&output.stderr).contains(stderr), "{args:?} {output:?}");
    assert!(!stderr.is_empty() || output.stderr.is_empty(), "{args:?} {output:?}");
    assert_eq!(output.status.code(), Some(code), "{args:?} {output:?}");
}

#[test]
fn values_of_code_are_printed_as_a_session_prints_them() {
    check(&["run", "-e", "return 2+2"], "", 0, "4\n", "");
    check(&["run", "-e", "return nil, 'a', 1.0"], "", 0, "nil\ta\t1.0\n", "");
    check(&["run", "-e", "return {1,{a=2}}"], "", 0, "{ 1, { a = 2 } }\n", "");
    check(&["run", "-e", "local x = 1"], "", 0, "", "");
}

#[test]
fn a_program_gets_its_arguments_and_its_input_and_gives_its_exit_code() {
    let home = Home::new();
    home.file("p.lua", b"#!/usr/bin/env lua\nprint(arg[0], #arg, ..., io.read('a'))\nos.exit(7)");
    for args in [&["run", "p.lua", "-x", "--help"][..], &["run", "p.lua", "--", "-x", "--help"], &["run", "-q", "p.lua", "-x", "--help"]] {
        let output = home.vmoon(args, b"in\0put");
        assert_eq!((text(&output.stdout), output.status.code()), ("p.lua\t2\t-x\tin\0put\n".into(), Some(7)), "{output:?}");
    }
    check(&["run", "-", "one"], "print((...), arg[1], io.read())", 0, "one\tone\tnil\n", "");
    check(&["run"], "print('from a pipe')", 0, "from a pipe\n", "");
    check(&["run", "-e", "print(...)", "--", "-q", "--"], "", 0, "-q\t--\n", "");
    check(&["run", "-e", "os.exit(true)"], "", 0, "", "");
    check(&["run", "-e", "os.exit(false)"], "", 1, "", "");
}

#[test]
fn failures_are_told_apart() {
    check(&["run", "-e", "error('bad')"], "", 1, "", "vmoon: (command line):1: bad\nstack traceback:\n");
    check(&["run", "-e", "error({})"], "", 1, "", "vmoon: (error object is a table value)");
    check(&["run", "-e", "error(setmetatable({}, {__tostring = function() return 'mine' end}))"], "", 1, "", "vmoon: mine\n");
    check(&["run", "-e", "x = = 1"], "", 1, "", "vmoon: (command line):1: unexpected symbol near '='");
    check(&["run", "none.lua"], "", 127, "", "vmoon: cannot open none.lua: there is no such file");
    check(&["run", "."], "", 126, "", "it is a folder");
    check(&["run", ""], "", 127, "", "the name of the program is empty");
    check(&["run", "--runtime", "no-such-lua", "-e", "x"], "", 127, "", "no interpreter no-such-lua");
    check(&["run", "-e", "\u{1b}Lua"], "", 126, "", "is bytecode");
    check(&["run", "--deadline", "soon", "x"], "", 2, "", "soon");
    check(&["run", "-e"], "", 2, "", "-e");
    let home = Home::new();
    let path = home.file("secret.lua", b"print(1)");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    // Root may read everything.
    let expect = if std::fs::read(&path).is_ok() { 0 } else { 126 };
    assert_eq!(home.vmoon(["run", "secret.lua"], b"").status.code(), Some(expect));
}

#[test]
fn what_was_printed_comes_before_the_error() {
    let home = Home::new();
    let script =
        home.file("order.sh", format!("exec {} run -e \"io.write('half') error('x', 0)\" 2>&1\n", env!("CARGO_BIN_EXE_vmoon")).as_bytes());
    let output = std::process::Command::new("sh").arg(script).output().unwrap();
    assert!(text(&output.stdout).starts_with("halfvmoon: x\n"), "{output:?}");
}

#[test]
fn hostile_programs_do_no_more_than_fail() {
    let home = Home::new();
    home.file("nul.lua", b"local s = 'a\0b' print(#s) --\0\nprint('\xff')");
    assert_eq!(home.vmoon(["run", "nul.lua"], b"").stdout, b"3\n\xff\n");
    home.file("deep.lua", &[&b"return "[..], &b"(".repeat(100_000)].concat());
    assert_eq!(home.vmoon(["run", "deep.lua"], b"").status.code(), Some(1));
    let long = [&b"return #'"[..], &b"x".repeat(3 << 20), b"'"].concat();
    assert_eq!(home.vmoon(["run", "-"], &[b"print((function() ", &long[..], b" end)())"].concat()).stdout, b"3145728\n");
    check(&["run", "-e", "local function f() return f() + 1 end f()"], "", 1, "", "stack overflow");
}

#[test]
fn other_interpreters_run_the_same_programs() {
    let home = Home::new();
    home.file("p.lua", b"#!/x\nprint(_VERSION, arg[1], ...)");
    for (runtime, version) in [("lua5.1", "Lua 5.1"), ("luajit", "Lua 5.1"), ("lua5.4", "Lua 5.4")] {
        if std::process::Command::new(runtime).arg("-v").output().is_err() {
            continue;
        }
        let expect = format!("{version}\ta\ta\n");
        assert_eq!(home.ok(["run", "--runtime", runtime, "p.lua", "a"]), expect);
        assert_eq!(home.ok(["run", "--runtime", runtime, "-e", "return _VERSION, arg[1], ...", "a"]), expect);
        let output = home.vmoon(["run", "--runtime", runtime, "-"], b"io.write(_VERSION) os.exit(3)");
        assert_eq!((text(&output.stdout), output.status.code()), (version.into(), Some(3)));
    }
}

#[test]
fn the_deadline_ends_the_program_and_all_it_has_started() {
    let home = Home::new();
    let pid = home.path().join("pid");
    let code = format!("os.execute([[setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000' & sleep 1000]])", pid.display());
    let began = Instant::now();
    let output = home.vmoon(["run", "--profile", "trusted", "--deadline", "300ms", "-e", &code], b"");
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    assert!(text(&output.stderr).contains("deadline of 300ms"), "{output:?}");
    assert!(began.elapsed() < Duration::from_secs(20));
    let orphan = std::fs::read_to_string(pid).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", orphan.trim()));
    assert!(stat.is_err() || stat.unwrap().contains(") Z "), "what it started outlived it");

    let swallow = "while true do pcall(function() while true do end end) end";
    let output = home.vmoon(["run", "--deadline", "200ms", "-e", swallow], b"");
    assert_eq!(output.status.code(), Some(8));
    assert!(text(&output.stderr).contains("stack traceback"), "a polite end shows where it was: {output:?}");
    let output = home.vmoon(["run", "--deadline", "20s", "-e", "io.write(io.read()) os.exit(5)"], b"quick");
    assert_eq!((text(&output.stdout), output.status.code()), ("quick".into(), Some(5)));
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let home = Home::new();
    let mut child = home
        .command(["run", "-e", "while true do print('y') end"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.signal(), text(&output.stderr)), (Some(13), String::new()));
}

#[test]
fn ctrl_c_interrupts_the_program() {
    let home = Home::new();
    let mut terminal = Terminal::start(home.command(["run", "-e", "print('rea'..'dy') while true do end"]));
    terminal.expect("ready");
    terminal.send(b"\x03");
    terminal.expect("interrupted!");
    assert_eq!(terminal.wait().code(), Some(130));
}

#[test]
fn behind_code_options_are_ours_and_behind_a_file_they_are_the_programs() {
    // They were taken for arguments of the program once, those that hold it included.
    check(&["run", "-e", "while true do end", "--deadline", "200ms"], "", 8, "", "the deadline has passed");
    let big = "return pcall(string.rep, 'x', 1e9)";
    check(&["run", "-e", big, "--profile", "sealed", "--memory", "16M"], "", 0, "false\tnot enough memory\n", "");
    check(&["run", "-e", "return ...", "a", "--memory=1G", "b", "--", "-v", "--"], "", 0, "a\tb\t-v\t--\n", "");
    check(&["run", "-e", "return ...", "-q", "x", "--memory", "1G"], "", 0, "x\n", "");
    for args in [&["run", "-e", "return ...", "-x"][..], &["run", "-e", "return ...", "a", "--deadlin", "1s"]] {
        check(args, "", 2, "", "unexpected argument");
    }
    let home = Home::new();
    home.file("p.lua", b"print(...)");
    assert_eq!(home.ok(["run", "--memory", "1G", "p.lua", "-e", "x", "--memory", "1", "-v"]), "-e\tx\t--memory\t1\t-v\n");
    assert_eq!(home.ok(["run", "-v", "p.lua", "-e", "x", "--memory", "1"]), "-e\tx\t--memory\t1\n", "also where the real parser reads it");
}

#[test]
fn pieces_of_code_run_in_order_and_share_what_is_global() {
    let pieces = ["run", "-e", "print('a') x = 1 local y = 2", "-e", "return x, y", "z", "-e", "return 'last', ..."];
    let expect = "a\n1\tnil\nlast\tz\n";
    check(&pieces, "", 0, expect, "");
    check(&["run", "-e", "print(1)", "-e", "error('no', 0)", "-e", "print(3)"], "", 1, "1\n", "vmoon: no\n");
    check(&["run", "-e", "print(1)", "-e", "= x"], "", 1, "1\n", "vmoon: (command line):1:");
    for runtime in ["lua5.1", "luajit", "lua5.4"] {
        for profile in ["sealed", "trusted"] {
            let mut args = vec!["run", "--runtime", runtime, "--profile", profile];
            args.extend(&pieces[1..]);
            assert_eq!(Home::new().ok(&args), expect, "{args:?}");
        }
    }
    check(&["run", "--map", "-", "-e", "return 1", "-e", "return 2"], "1\n", 2, "", "-e is given more than once");
}

#[test]
fn a_format_that_could_not_be_kept_is_refused() {
    for (format, code) in [("json", 2), ("yaml", 2), ("name", 2), ("table", 0)] {
        let output = Home::new().vmoon(["run", "-o", format, "-e", "return 1"], b"");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(code == 0 || text(&output.stderr).contains("vmoon eval"), "{output:?}");
    }
    check(&["run", "--map", "-", "-o", "csv", "-e", "return 1"], "1\n", 2, "", "JSON, one a line");
    let output = Home::new().vmoon(["run", "--map", "-", "-o", "json", "-e", "return 1"], b"1\n");
    assert!(output.status.success() && text(&output.stdout).contains("\"result\":1"), "{output:?}");
}

#[test]
fn what_is_no_interpreter_is_told_before_it_gets_the_program() {
    let home = Home::new();
    for runtime in [env!("CARGO_BIN_EXE_vmoon"), "/bin/true"] {
        for profile in ["sealed", "trusted"] {
            let output = home.vmoon(["run", "--runtime", runtime, "--profile", profile, "-e", "return 1"], b"");
            assert_eq!(output.status.code(), Some(126), "{output:?}");
            assert!(text(&output.stderr).contains("does not behave as lua5.1 to lua5.4 or luajit do"), "{output:?}");
        }
    }
    if let Ok(lua) = std::fs::canonicalize("/usr/bin/lua5.4") {
        std::os::unix::fs::symlink(lua, home.path().join("mine")).unwrap();
        let mine = home.path().join("mine").to_string_lossy().into_owned();
        assert_eq!(home.ok(["run", "--runtime", &mine, "-e", "return _VERSION"]), "Lua 5.4\n");
    }
}

#[test]
fn leaving_a_command_by_one_ctrl_c_is_no_error() {
    let home = Home::new();
    home.ok(["create", "lab", "--start"]);
    let mut terminal = Terminal::start(home.command(["eval", "lab", "print('rea'..'dy') while true do end"]));
    terminal.expect("ready");
    terminal.send(b"\x03");
    terminal.expect("detached; the command goes on");
    let (status, shown) = terminal.finish();
    assert_eq!(status.code(), Some(130));
    assert!(!shown.contains("error"), "the hint has said it: {shown}");
    home.ok(["interrupt", "lab"]);
}
