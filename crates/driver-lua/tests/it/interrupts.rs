//! Interrupts, deadlines, and programs that do not obey.

use crate::client::{Holder, Options};
use vmoon_core::{
    driver::Exit,
    frame::{Failure, FailureKind, tag},
};

/// Programs that are hard to stop.
const SHAPES: [(&str, &str); 9] = [
    ("plain loop", "while true do end"),
    ("pcall loop", "while true do pcall(function() while true do end end) end"),
    ("coroutine loop", "coroutine.wrap(function() while true do end end)()"),
    (
        "pcall in a coroutine",
        "local co = coroutine.create(function() while true do pcall(function() while true do end end) end end) while true do coroutine.resume(co) end",
    ),
    (
        "many coroutines",
        "local function f() for i=1,10 do coroutine.yield(i) end end while true do local c = coroutine.wrap(f) for i=1,10 do c() end end",
    ),
    ("xpcall handler", "while true do xpcall(function() while true do end end, function(e) return e end) end"),
    ("metamethod", "local t = setmetatable({}, {__index=function(t,k) return k end}) while true do local x = t.undefinedthing end"),
    ("a value that is printed", "return setmetatable({}, {__tostring=function() while true do end end})"),
    ("table.sort", "local t={} for i=1,1e5 do t[i]=math.random() end while true do table.sort(t, function(a,b) return a<b end) end"),
];

#[test]
fn every_shape_is_interrupted_and_the_state_is_kept() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    client.run("kept = 42");
    for (name, code) in SHAPES {
        // The print says that the chunk runs.
        let id = client.eval(format!("print('up') io.stdout:flush() {code}"));
        while client.next().tag != tag::STDOUT {}
        client.send(tag::INTERRUPT, id, b"");
        let frames = client.until_done(id);
        let error = frames.iter().find(|frame| frame.tag == tag::ERROR).unwrap_or_else(|| panic!("{name}: {frames:?}"));
        let failure = Failure::decode(&error.payload).unwrap();
        assert_eq!((failure.kind, failure.message), (FailureKind::Interrupted, &b"interrupted!"[..]), "{name}");
        assert_eq!(client.value("kept"), "42", "{name}");
    }
    // A coroutine that was armed and lives on works.
    client.run("co = coroutine.wrap(function() while true do coroutine.yield(1) end end)");
    let id = client.eval("print(1) io.stdout:flush() while true do co() end");
    while client.next().tag != tag::STDOUT {}
    client.send(tag::INTERRUPT, 0, b"");
    client.until_done(id);
    assert_eq!(client.value("pcall(coroutine.wrap(function() return 7 end))"), "true\t7");
}

#[test]
fn a_late_interrupt_does_nothing() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    for _ in 0..300 {
        let id = client.eval("local x = 0 for i = 1, 1000 do x = x + i end return x");
        client.send(tag::INTERRUPT, id, b"");
        client.until_done(id);
        assert_eq!(client.value("local x = 0 for i = 1, 1000 do x = x + i end return x"), "500500");
    }
}

#[test]
fn a_deadline_is_kept_without_anybody_watching() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    let id = client.eval_within("while true do end", 50);
    // Nobody is connected when it passes.
    assert_eq!(client.next().tag, tag::ACCEPTED);
    let at = client.at;
    drop(client);
    let mut client = holder.client(at);
    let frames = client.until_done(id);
    assert_eq!(Failure::decode(&frames[0].payload).unwrap().kind, FailureKind::Deadline, "{frames:?}");
    assert_eq!(client.value("1"), "1");
}

#[test]
fn a_queued_command_is_interrupted_before_it_runs() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    let first = client.eval("io.read()");
    let second = client.eval("ran = true");
    client.send(tag::INTERRUPT, second, b"");
    client.send(tag::INPUT, first, b"x\n");
    client.until_done(first);
    let frames = client.until_done(second);
    let failure = frames.iter().find(|frame| frame.tag == tag::ERROR).unwrap();
    assert_eq!(Failure::decode(&failure.payload).unwrap().kind, FailureKind::Interrupted);
    assert_eq!(client.value("ran == nil"), "true");
}

#[test]
fn a_command_that_waits_to_be_announced_is_interrupted() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    // What is not acknowledged leaves the ring room for a part of the next command only: it has begun and does not run.
    let first = client.eval("io.write(('x'):rep(700000))");
    client.until_done(first);
    let second = client.eval(format!("--{}\nran = true while true do end", "x".repeat(400_000)));
    let mut byte = [0];
    assert_eq!(rustix::net::recv(&client.stream, &mut byte, rustix::net::RecvFlags::PEEK).unwrap().1, 1);
    client.send(tag::INTERRUPT, second, b"");
    client.ack();
    let frames = client.until_done(second);
    let failure = frames.iter().find(|frame| frame.tag == tag::ERROR).unwrap();
    assert_eq!(Failure::decode(&failure.payload).unwrap().kind, FailureKind::Interrupted);
    assert_eq!(client.value("ran == nil"), "true");
}

#[test]
fn waiting_for_input_and_for_a_child_can_be_interrupted() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    for code in ["return io.read()", "return pcall(io.read)", "os.execute('echo; exec sleep 1000')"] {
        let id = client.eval(code);
        while !matches!(client.next().tag, tag::WANTS_INPUT | tag::STDOUT) {}
        client.send(tag::INTERRUPT, id, b"");
        let frames = client.until_done(id);
        let failure = frames.iter().find(|frame| frame.tag == tag::ERROR).unwrap_or_else(|| panic!("{code}: {frames:?}"));
        assert_eq!(Failure::decode(&failure.payload).unwrap().kind, FailureKind::Interrupted, "{code}");
        assert_eq!(client.value("1"), "1");
    }
}

#[test]
fn c_code_that_does_not_return_is_ended_with_the_reason() {
    let holder = Holder::with(&Options { grace_ms: 200, ..Options::default() });
    let mut client = holder.client(0);
    // The first match prints from inside the call, whose search for a second one never ends: no instruction of the program
    // comes between what says that it runs and the time that it does not yield, so none can be interrupted.
    let id = client.eval("return ('b' .. ('a'):rep(100000)):gsub(('.-'):rep(30) .. 'b', print)");
    while client.next().tag != tag::STDOUT {}
    client.send(tag::INTERRUPT, id, b"");
    while let Some(heard) = client.try_next() {
        assert_ne!(heard.tag, tag::DONE, "the call has returned");
    }
    assert_eq!(holder.wait(), Some(Exit::DidNotYield));
}

#[test]
fn a_polite_end_interrupts_what_runs() {
    for by_signal in [false, true] {
        for busy in [false, true] {
            let holder = Holder::new();
            let mut client = holder.client(0);
            if busy {
                client.eval("print('up') io.stdout:flush() while true do pcall(function() while true do end end) end");
                while client.next().tag != tag::STDOUT {}
            }
            if by_signal {
                let fd = vmoon_sys::process::Pidfd::open(&holder.process).unwrap().unwrap();
                fd.send(rustix::process::Signal::TERM).unwrap();
            } else {
                client.send(tag::QUIT, 0, b"");
            }
            let mut seen = Vec::new();
            while let Some(heard) = client.try_next() {
                seen.push(heard.tag);
            }
            assert_eq!(holder.wait(), Some(Exit::Code { code: 0 }), "signal {by_signal} busy {busy}");
            assert_eq!(busy, seen.ends_with(&[tag::ERROR, tag::DONE]), "{seen:?}");
        }
    }
}
