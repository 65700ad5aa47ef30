//! What a machine may use: each limit ends the command or the machine that passes it, and nothing else.

use crate::home::Home;

#[test]
fn memory_and_descriptors_are_catchable() {
    let home = Home::new();
    home.run(&["create", "lab", "--memory", "256M", "--set", "open-files=64", "--start"]).ok();
    for (bomb, message) in [
        ("local t = {} for i = 1, 1e9 do t[i] = i end", "not enough memory"),
        ("local s = 'x' while true do s = s .. s end", "not enough memory"),
        ("return ('x'):rep(1e15)", "resulting string too large"),
        ("local function f() return 1 + f() end f()", "stack overflow"),
    ] {
        let got = home.run(&["eval", "lab", bomb]);
        assert!(got.code == 1 && got.err.contains(message), "{bomb}: {got:?}");
        assert_eq!(home.run(&["eval", "lab", "return 6 * 7"]).ok(), "42\n");
    }
    let code = "local f = {} for i = 1, 1000 do local h, why = io.open('f' .. i, 'w') if not h then return i > 50, why end f[i] = h end";
    let got = home.run(&["eval", "lab", code]).ok();
    assert!(got.starts_with("true\t") && got.contains("Too many open files"), "{got}");
}

/// One that was granted 16 opened 28, another one 44: what it had open itself was counted by its highest number.
#[test]
fn as_many_files_as_were_granted_can_be_open() {
    let home = Home::new();
    let code = "local f = {} while #f < 999 do local h = io.open('f', 'w') if not h then break end f[#f + 1] = h end return #f";
    // The later ones are spares that were waiting.
    for (name, runtime) in [("a", "builtin"), ("b", "builtin"), ("c", "builtin"), ("d", "lua5.4")] {
        home.run(&["create", name, "--set", "open-files=16", "--runtime", runtime, "--start", "-q"]).ok();
        let opened: u32 = home.run(&["eval", name, code]).ok().trim().parse().unwrap();
        assert!((16..=24).contains(&opened), "{name}: {opened}");
    }
    std::fs::write(home.path("f"), "").unwrap();
    for runtime in ["builtin", "lua5.4"] {
        let opened: u32 =
            home.run(&["run", "--write", "f", "--open-files", "16", "--runtime", runtime, "-e", code]).ok().trim().parse().unwrap();
        assert!((16..=20).contains(&opened), "{runtime}: {opened}");
    }
    home.end();
}

/// A refusal says what, why and how to grant it, that of a module in C as well.
#[test]
fn a_module_in_c_that_may_not_be_loaded_is_told_with_what_grants_it() {
    let home = Home::new();
    for runtime in ["builtin", "lua5.1", "lua5.4"] {
        let refused = home.run(&["run", "--runtime", runtime, "-e", "require 'socket.core'"]);
        assert!(
            refused.code == 1 && refused.err.contains("loading C modules is not granted") && refused.err.contains("--profile files"),
            "{refused:?}"
        );
    }
    home.end();
}

#[test]
fn processor_time_ends_the_machine_that_used_it_up_and_no_other() {
    let home = Home::new();
    home.run(&["create", "lab", "other", "--set", "cpu=1s", "--start"]).ok();
    let got = home.run(&["eval", "lab", "while true do end"]);
    assert_eq!(got.code, 1, "{got:?}");
    home.run(&["wait", "lab", "--until", "stopped"]).ok();
    assert!(home.run(&["show", "lab"]).ok().contains("processor time was used up"));
    assert_eq!(home.run(&["eval", "other", "return 6 * 7"]).ok(), "42\n");
    home.run(&["start", "lab"]).ok();
    assert_eq!(home.run(&["eval", "lab", "return 'anew'"]).ok(), "anew\n");
}

#[test]
fn files_and_the_work_directory_have_their_size() {
    let home = Home::new();
    home.run(&["create", "lab", "--set", "work-size=2MiB", "--set", "file-size=64MiB", "--start"]).ok();
    let sparse = "local f = io.open('sparse', 'w') f:seek('set', 1 << 40) f:write('x') return f:flush()";
    let got = home.run(&["eval", "lab", sparse]);
    assert!(got.code == 0 && got.out.contains("File too large"), "{got:?}");
    // Longer than one look takes: what grows beyond the limit is interrupted, what cleans up is not.
    let grow = "local f = io.open('big', 'a') for i = 1, 60 do f:write(('x'):rep(1 << 20)) f:flush() \
                local t = os.clock() while os.clock() - t < 0.1 do end end";
    let got = home.run(&["eval", "lab", grow]);
    assert!(got.code == 130 && got.err.contains("the work directory holds"), "{got:?}");
    assert_eq!(home.run(&["eval", "lab", "return os.remove('big')"]).ok(), "true\n");
    let shown = home.run(&["show", "lab"]).ok();
    assert!(shown.contains("work directory (soft) 2 MiB"), "{shown}");
}

#[test]
fn a_command_prints_no_more_than_it_may() {
    let home = Home::new();
    for (name, more) in [("inside", &[][..]), ("installed", &["--runtime", "lua5.4"])] {
        home.run(&[&["create", name, "--set", "output=64KiB", "--start"], more].concat()).ok();
        // What fits is there, and each command has all of it.
        for _ in 0..2 {
            assert_eq!(home.run(&["eval", name, "local _ = io.write(('x'):rep(65536))"]).ok().len(), 65536, "{name}");
        }
        // One that catches errors is interrupted all the same, and what is left out is said.
        let endless = "while true do pcall(function() while true do io.write(('y'):rep(1000), '\\n') end end) end";
        let got = home.run(&["eval", name, endless]);
        assert!(got.code == 130 && got.out.len() == 65536 && got.err.contains("a command may print 65536 bytes here"), "{name}: {got:?}");
        assert_eq!(home.run(&["eval", name, "return 6 * 7"]).ok(), "42\n", "{name}");
        // One that is over before the interrupt comes has not said all either.
        let got = home.run(&["eval", name, "io.write(('z'):rep(65537)) return 5"]);
        assert!(got.code == 130 && got.out.len() == 65536 && got.err.contains("1 bytes are left out"), "{name}: {got:?}");
        assert!(home.run(&["show", name]).ok().contains("output of a command 64 KiB"));
    }
}

#[test]
fn what_does_not_yield_ends_its_machine_with_that_reason_and_no_other() {
    let home = Home::new();
    home.run(&["create", "stuck", "other", "--start"]).ok();
    // Matching goes back and forth for longer than anybody waits, in C.
    let code = "return ('a'):rep(30):find(('a?'):rep(30) .. ('a'):rep(30) .. 'b')";
    let got = home.json(&["eval", "stuck", code, "--deadline", "200ms"]);
    got.fails_with_hint("machine.did_not_yield", 1);
    let shown: serde_json::Value = serde_json::from_str(&got.out).unwrap();
    assert_eq!((&shown["state"], &shown["error"]["code"]), (&"lost".into(), &"machine.did_not_yield".into()), "{got:?}");
    // Who asks later learns it, too.
    home.json(&["wait", shown["id"].as_str().unwrap()]).fails("machine.did_not_yield", 1);
    assert!(home.run(&["show", "stuck"]).ok().contains("ignored an interrupt and was ended"));
    assert_eq!(home.run(&["eval", "other", "return 6 * 7"]).ok(), "42\n");
}
