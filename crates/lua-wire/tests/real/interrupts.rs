//! Interrupts: by signal, again and again, in every shape of loop, and by the flag file once signals are used up.

use crate::session::{INTERPRETERS, Session, each, same};
use vmoon_lua_wire::program::{InterruptMode, RESUMES};

/// Loops that a naive interrupt does not end. The print makes sure that the loop runs and that LuaJIT does not compile it.
const SHAPES: [(&str, &str); 8] = [
    ("plain", "while true do B() end"),
    ("pcall", "while true do pcall(function() while true do B() end end) end"),
    ("xpcall", "while true do xpcall(function() while true do B() end end, function() return 1 end) end"),
    ("coroutine", "coroutine.wrap(function() while true do B() end end)()"),
    ("pcall in coroutine", "while true do coroutine.resume(coroutine.create(function() while true do pcall(B) end end)) end"),
    ("many coroutines", "while true do local co = coroutine.wrap(function() coroutine.yield(1) end) co() B() end"),
    ("metamethod", "local t = setmetatable({}, {__index = function() while true do B() end end}) return t.x"),
    ("sort", "local t = {} for i = 1, 100 do t[i] = i end while true do table.sort(t, function(a, b) B() return a < b end) end"),
];

/// Something LuaJIT does not compile.
const PREPARE: &str = "function B() string.gsub('a', 'a', function() end) end x = 42";

#[test]
fn every_shape_of_loop_ends_and_the_state_stays() {
    each(|s| {
        s.eval(PREPARE);
        for (name, code) in SHAPES {
            let id = s.begin(format!("print('go') {code}").as_bytes());
            let go = s.frame();
            same(s.name, go.payload, b"go\n");
            let (got, mode) = s.interrupt(id, true, &[]);
            assert_eq!((got.failure().0, mode), ('i', InterruptMode::Signal), "{}: {name}: {got:?}", s.name);
            same(s.name, s.eval("x").value(), "42");
        }
    });
}

#[test]
fn hook_mode_interrupts_everything_even_compiled_loops() {
    for (name, _) in INTERPRETERS {
        let mut s = Session::start(name, InterruptMode::Hook);
        s.eval(PREPARE);
        for (shape, code) in SHAPES.into_iter().chain([("empty", "while true do end")]) {
            let id = s.begin(format!("print('go') {code}").as_bytes());
            same(s.name, s.frame().payload, b"go\n");
            let (got, _) = s.interrupt(id, false, &[]);
            assert_eq!(got.failure().0, 'i', "{name}: {shape}: {got:?}");
            same(s.name, s.eval("x").value(), "42");
        }
    }
}

#[test]
fn signals_at_any_moment_never_confuse_the_stream() {
    each(|s| {
        // The command prints and answers while the signal may come before, during or after it. After each, the session must
        // still answer exactly.
        for round in 0..60 {
            let code = format!("local t = {{}} for i = 1, {} do t[i] = i io.write(i % 10) end return #t", round * 40);
            let id = s.begin(code.as_bytes());
            let (got, mode) = s.interrupt(id, true, &[]);
            same(s.name, mode, InterruptMode::Signal);
            let digits: String = (1..=round * 40).map(|i| char::from(b'0' + (i % 10) as u8)).collect();
            assert!(digits.starts_with(&got.text()) || got.text().len() + 1 >= digits.len(), "{}: {got:?}", s.name);
            if got.values.is_some() {
                same(s.name, (got.text(), got.value()), (digits, (round * 40).to_string().as_str()));
            }
            let check = s.eval(format!("print('check', {round}) return {round}"));
            same(s.name, (check.text(), check.value()), (format!("check\t{round}\n"), round.to_string().as_str()));
        }
    });
}

#[test]
fn waiting_for_input_can_be_interrupted() {
    each(|s| {
        for code in ["io.read()", "while true do pcall(io.read) end", "coroutine.wrap(io.read)()"] {
            if code.contains("wrap") && s.name == "lua5.1" {
                continue; // wants a Lua function
            }
            let id = s.begin(code.as_bytes());
            let (got, _) = s.interrupt(id, false, &[]);
            assert_eq!(got.failure().0, 'i', "{}: {code}: {got:?}", s.name);
        }
        same(s.name, s.eval_with("io.read()", &[b"typed\n"]).value(), "typed");
    });
}

#[test]
fn a_sleeping_child_is_interrupted_with_the_command() {
    each(|s| {
        let id = s.begin(b"print('go') while true do os.execute('exec sleep 60') end");
        same(s.name, s.frame().payload, b"go\n");
        let (got, _) = s.interrupt(id, true, &[]);
        same(s.name, got.failure().0, 'i');
        same(s.name, s.eval("6 * 7").value(), "42");
    });
}

#[test]
fn when_signals_are_used_up_the_flag_file_takes_over() {
    for name in ["lua5.4", "luajit"] {
        let mut s = Session::start(name, InterruptMode::Signal);
        s.eval(PREPARE);
        let mut modes = Vec::new();
        for round in 0..=RESUMES {
            let signal = modes.last() != Some(&InterruptMode::Hook);
            let id = s.begin(b"print('go') while true do B() end");
            same(s.name, s.frame().payload, b"go\n");
            let (got, mode) = s.interrupt(id, signal, &[]);
            assert_eq!(got.failure().0, 'i', "{name}: {round}: {got:?}");
            modes.push(mode);
        }
        same(s.name, modes.iter().filter(|m| **m == InterruptMode::Hook).count(), 2);
        same(s.name, s.eval("x").value(), "42");
    }
}

#[test]
fn an_error_that_only_says_interrupted_is_an_error() {
    each(|s| {
        let got = s.eval("error('interrupted!', 0)");
        same(s.name, got.failure().0, 'r');
        same(s.name, s.eval("pcall(error, 'interrupted!')").value(), "false\tinterrupted!");
    });
}
