//! Real interpreters in a real holder, through its socket.

mod escapes;
mod vm;

use std::time::{Duration, Instant};
use vm::{INTERPRETERS, Vm};
use vmoon_core::frame::{FailureKind, tag};

/// Runs a test body in a fresh machine of every interpreter.
fn each(body: impl Fn(&mut Vm)) {
    for runtime in INTERPRETERS {
        body(&mut Vm::start(runtime, 1_000));
    }
}

#[test]
fn commands_are_answered() {
    each(|vm| {
        let hello = vm.hello.clone();
        assert!(hello.runtime.starts_with(if vm.runtime == "luajit" { "LuaJIT 2" } else { "Lua 5." }), "{hello:?}");
        let got = vm.eval("print('out') io.stderr:write('err') return 1, nil, 'a'");
        assert_eq!((got.out.as_str(), got.err.as_str(), got.values.as_deref()), ("out\n", "err", Some("1\tnil\ta")), "{}", vm.runtime);
        let got = vm.eval("for i = 1, 2 do");
        assert!(got.incomplete, "{got:?}");
        let got = vm.eval("local function f() error('boom') end f()");
        let (kind, message, traceback) = got.error.unwrap();
        assert_eq!((kind, message.as_str()), (FailureKind::Runtime, "stdin:1: boom"));
        assert!(traceback.ends_with("in main chunk") && !traceback.contains("vmoon"), "{traceback}");
        let big = format!("local s = [==[{}]==] return #s", "x".repeat(3 << 20));
        assert_eq!(vm.eval(&big).value(), "3145728");
        let got = vm.eval("for i = 1, 20000 do print(i) end");
        let want: String = (1..=20_000).map(|i| format!("{i}\n")).collect();
        assert!(got.out == want, "{}: {} bytes", vm.runtime, got.out.len());
    });
}

#[test]
fn questions_are_answered() {
    each(|vm| {
        vm.eval("thing = {first = 1, second = 2}");
        vm.send(tag::COMPLETE, 7, b"x = thing.");
        let (_, answer) = vm.wait_for(tag::NAMES);
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer, serde_json::json!({"busy": false, "from": 10, "names": ["first", "second"]}), "{}", vm.runtime);
        vm.send(tag::IS_COMPLETE, 8, b"f(");
        assert_eq!(vm.wait_for(tag::COMPLETENESS).1[0], b'i');
    });
}

#[test]
fn output_of_children_keeps_its_place() {
    each(|vm| {
        for _ in 0..20 {
            let got = vm.eval("print('a') os.execute('echo b; echo c >&2') print('d')");
            assert_eq!((got.out.as_str(), got.err.as_str()), ("a\nb\nd\n", "c\n"), "{}", vm.runtime);
        }
        let got = vm.eval("local p = io.popen('cat; echo end', 'w') p:write('piped\\n') p:close() return io.popen('echo x'):read()");
        assert_eq!((got.out.as_str(), got.values.as_deref()), ("piped\nend\n", Some("x")), "{}", vm.runtime);
        let id = vm.begin("os.execute('echo raw') io.stdout:write('done')", 0);
        assert_eq!(vm.finish(id).out, "raw\ndone");
    });
}

#[test]
fn input_is_asked_for() {
    each(|vm| {
        let id = vm.begin("io.write('name? ') return io.read('*l'), io.read('*n'), io.read('*a')", 0);
        vm.wait_for(tag::WANTS_INPUT);
        vm.send(tag::INPUT, id, b"Ada\n12 rest\n");
        vm.wait_for(tag::WANTS_INPUT);
        vm.send(tag::INPUT_END, id, b"");
        assert_eq!(vm.finish(id).value(), "Ada\t12\t rest\n", "{}", vm.runtime);
    });
}

#[test]
fn interrupts_and_deadlines_keep_the_state() {
    each(|vm| {
        vm.eval("x = 42 function B() string.gsub('a', 'a', function() end) end");
        for round in 0..5 {
            let id = vm.begin("print('go') while true do pcall(B) end", 0);
            vm.wait_for(tag::STDOUT);
            vm.send(tag::INTERRUPT, id, b"");
            let got = vm.finish(id);
            assert_eq!(got.error.as_ref().map(|e| e.0), Some(FailureKind::Interrupted), "{} {round}: {got:?}", vm.runtime);
            assert_eq!(vm.eval("x").value(), "42");
        }
        let id = vm.begin("coroutine.wrap(function() while true do B() end end)()", 50);
        assert_eq!(vm.finish(id).error.unwrap().0, FailureKind::Deadline, "{}", vm.runtime);
        let id = vm.begin("return io.read()", 50);
        assert_eq!(vm.finish(id).error.unwrap().0, FailureKind::Deadline, "{}", vm.runtime);
        let before = Instant::now();
        let id = vm.begin("os.execute('exec sleep 60')", 50);
        let got = vm.finish(id);
        assert!(before.elapsed() < Duration::from_secs(10), "{}: {got:?}", vm.runtime);
        assert_eq!(vm.eval("x").value(), "42");
        // Interrupted before its turn, and many at once.
        let first = vm.begin("B() while true do B() end", 0);
        let second = vm.begin("return 2", 0);
        let third = vm.begin("return 3", 0);
        vm.send(tag::INTERRUPT, second, b"");
        vm.send(tag::INTERRUPT, first, b"");
        assert_eq!(vm.finish(first).error.unwrap().0, FailureKind::Interrupted);
        assert_eq!(vm.finish(second).error.unwrap().0, FailureKind::Interrupted);
        assert_eq!(vm.finish(third).value(), "3", "{}", vm.runtime);
    });
}

#[test]
fn interrupts_at_any_moment_never_reach_the_next_command() {
    each(|vm| {
        for round in 0..40 {
            let id = vm.begin(&format!("local n = 0 for i = 1, {} do n = n + 1 end return n", round * 5_000), 0);
            vm.send(tag::INTERRUPT, id, b"");
            let got = vm.finish(id);
            assert!(got.values.is_some() != got.error.is_some(), "{}: {got:?}", vm.runtime);
            assert_eq!(vm.eval(&format!("print({round}) return 'next'")).value(), "next", "{}", vm.runtime);
        }
    });
}

#[test]
fn used_up_signals_are_said_once_and_interrupts_go_on() {
    for runtime in ["lua5.1", "lua5.4", "luajit"] {
        let mut vm = Vm::start(runtime, 5_000);
        vm.eval("x = 42 function B() string.gsub('a', 'a', function() end) end");
        let mut said = String::new();
        for round in 0..104 {
            let id = vm.begin("print('go') while true do B() end", 0);
            vm.wait_for(tag::STDOUT);
            vm.send(tag::INTERRUPT, id, b"");
            let got = vm.finish(id);
            assert_eq!(got.error.as_ref().map(|e| e.0), Some(FailureKind::Interrupted), "{runtime} {round}: {got:?}");
            said.push_str(&got.err);
        }
        assert_eq!(said.matches("a hook looks for interrupts").count(), 1, "{runtime}: {said}");
        assert_eq!(vm.eval("x").value(), "42");
    }
}

#[test]
fn output_of_nobody_is_delivered_between_commands() {
    each(|vm| {
        // A child in the background writes when the command that started it is long done.
        let fifo =
            "local n = os.tmpname() os.remove(n) os.execute('mkfifo ' .. n) os.execute('(read x < ' .. n .. '; echo late $x) &') return n";
        let name = vm.eval(fifo).value().to_owned();
        std::fs::write(&name, "word\n").unwrap();
        let (id, text) = vm.wait_for(tag::STDOUT);
        assert_eq!((id, text.as_slice()), (0, &b"late word\n"[..]), "{}", vm.runtime);
        std::fs::remove_file(name).unwrap();
        assert_eq!(vm.eval("1").value(), "1");
    });
}

#[test]
fn what_does_not_yield_is_ended() {
    // One long call of a C function; LuaJIT does not look for hooks in compiled loops.
    let stuck = "local s = ('a'):rep(200000) return s:find(('.-'):rep(20) .. 'b')";
    for (runtime, code) in [("lua5.1", stuck), ("lua5.4", stuck), ("luajit", "while true do end")] {
        let mut vm = Vm::start(runtime, 200);
        // An interrupt that comes before the long call has begun is obeyed: then again.
        loop {
            let id = vm.begin(&format!("print('go') {code}"), 0);
            vm.wait_for(tag::STDOUT);
            vm.send(tag::INTERRUPT, id, b"");
            if vm.done_or_gone() {
                break;
            }
        }
        assert_eq!(vm.exit(), serde_json::json!({"how": "did_not_yield"}), "{runtime}");
        vm.no_process_left();
    }
}

#[test]
fn the_end_of_the_interpreter_is_the_end_of_the_machine() {
    each(|vm| {
        let id = vm.begin("print('bye') os.exit(3)", 0);
        let got = vm.finish(id);
        assert_eq!((got.out.as_str(), got.exit), ("bye\n", Some(3)), "{}", vm.runtime);
        vm.until_gone();
        assert_eq!(vm.exit()["code"], 3, "{}", vm.runtime);
        vm.no_process_left();
    });
    each(|vm| {
        // From outside, while idle.
        let pid = vm.interpreter();
        vm.signal(pid, 9);
        vm.until_gone();
        assert_eq!(vm.exit()["signal"], 9, "{}", vm.runtime);
        vm.no_process_left();
    });
    each(|vm| {
        vm.begin("os.execute('sleep 300 &') os.execute('kill -9 $PPID') while true do end", 0);
        vm.until_gone();
        assert_eq!(vm.exit()["signal"], 9, "{}", vm.runtime);
        vm.no_process_left();
    });
    each(|vm| {
        vm.send(tag::QUIT, 0, b"");
        vm.until_gone();
        assert_eq!(vm.exit()["code"], 0, "{}", vm.runtime);
        vm.no_process_left();
    });
}

#[test]
fn the_interpreter_dies_with_its_holder() {
    each(|vm| {
        let pid = vm.interpreter();
        vm.begin("while true do end", 0);
        let holder = vm.holder();
        vm.signal(holder, 9);
        vm.until_gone();
        vm.until_dead(pid);
    });
}

#[test]
fn what_is_no_lua_is_refused_with_a_reason() {
    for (path, word) in
        [("/bin/true", "exit code 0"), ("/bin/false", "exit code 1"), ("/no/such/lua", "could not start"), ("/bin/sh", "exit code")]
    {
        let error = Vm::refused(path);
        assert!(error.contains(path) && error.contains(word), "{path}: {error}");
    }
}

#[test]
fn with_a_hook_every_interpreter_is_interrupted_everywhere() {
    for runtime in INTERPRETERS {
        let mut vm = Vm::with(runtime, 5_000, &|_| serde_json::json!({ "interrupt": "hook" }));
        vm.eval("kept = 42");
        // The second one also shows that LuaJIT does not compile again after the first.
        for code in [
            "while true do end",
            "while true do pcall(function() while true do end end) end",
            "local x = 0 for i = 1, 1e15 do x = x + i end",
        ] {
            let id = vm.begin(&format!("print('up') io.stdout:flush() {code}"), 0);
            vm.wait_for(tag::STDOUT);
            vm.send(tag::INTERRUPT, id, b"");
            let got = vm.finish(id);
            assert_eq!(got.error.as_ref().map(|error| error.0), Some(FailureKind::Interrupted), "{runtime}: {code}: {got:?}");
            assert_eq!(vm.eval("return kept").value(), "42", "{runtime}: {code}");
        }
    }
}

#[test]
fn luajit_that_did_not_yield_says_what_helps() {
    let mut vm = Vm::start("luajit", 200);
    // An interrupt that comes before the loop is compiled is obeyed: then again.
    let said = loop {
        let id = vm.begin("print('up') while true do end", 0);
        vm.wait_for(tag::STDOUT);
        vm.send(tag::INTERRUPT, id, b"");
        if let Some(said) = vm.last_words() {
            break said;
        }
    };
    assert!(said.contains("interrupt = hook"), "{said:?}");
    assert_eq!(vm.exit()["how"], "did_not_yield");
}
