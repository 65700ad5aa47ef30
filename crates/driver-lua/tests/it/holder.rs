//! The holder's socket: commands, output, input, strangers and nonsense.

use crate::client::{Client, Heard, Holder, Options};
use std::io::{Read as _, Write as _};
use vmoon_core::{
    Code,
    driver::Exit,
    frame::{Eval, Failure, FailureKind, Frame, tag},
};
use vmoon_lua_wire::hello::{ClientHello, HolderHello};

fn shape(frames: &[Heard]) -> Vec<(u8, String)> {
    frames.iter().map(|frame| (frame.tag, frame.text())).collect()
}

#[test]
fn results_are_told_apart_and_in_order() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    assert_eq!(client.value("1 + 1"), "2");
    let frames = client.run("print('a', 1) io.stderr:write('b') print('c') return nil, {x = 1}");
    let expect = [(tag::STDOUT, "a\t1\n"), (tag::STDERR, "b"), (tag::STDOUT, "c\n"), (tag::VALUES, "nil\t{ x = 1 }")];
    assert_eq!(shape(&frames), expect.map(|(tag, text)| (tag, text.to_owned())));
    assert_eq!(client.run("local x = 1"), []);
    assert_eq!(client.run("for i = 1, 2 do")[0].tag, tag::INCOMPLETE);
    let frames = client.run("x = = 1");
    assert_eq!(Failure::decode(&frames[0].payload).unwrap().kind, FailureKind::Syntax);
    let frames = client.run("local function f() error('boom') end f()");
    let failure = Failure::decode(&frames[0].payload).unwrap();
    assert_eq!((failure.kind, failure.message), (FailureKind::Runtime, &b"stdin:1: boom"[..]));
    assert!(String::from_utf8_lossy(failure.traceback).contains("stdin:1"), "{failure:?}");
    assert_eq!(client.value("x"), "nil");
}

#[test]
fn output_of_children_and_c_code_stands_where_it_was_made() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    let frames = client.run("print(1) os.execute('echo 2; echo e >&2') print(3)");
    let out: String = frames.iter().filter(|frame| frame.tag == tag::STDOUT).map(Heard::text).collect();
    assert_eq!(out, "1\n2\n3\n");
    assert!(frames.iter().any(|frame| frame.tag == tag::STDERR && frame.text() == "e\n"), "{frames:?}");
    // More than a pipe holds.
    let id = client.eval("os.execute('head -c 3000000 /dev/zero')");
    assert_eq!(client.drain_output(id).0.len(), 3_000_000);
    // A child that goes on prints when nothing runs.
    let frames = client.run("os.execute('mkfifo f2; (cat f2; echo late) & echo > f2')");
    let mut out: String = frames.iter().map(Heard::text).collect();
    while !out.contains("late") {
        out += &client.next().text();
    }
}

#[test]
fn bytes_are_exact() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    let frames = client.run("print('\\0\\255\\195') io.write('\\r\\n ')");
    assert_eq!(frames[0].payload, b"\0\xff\xc3\n\r\n ");
    let id = client.eval(b"return #'a\0b\xff'");
    assert_eq!(client.until_done(id)[1].text(), "4");
    let big = format!("return #'{}'", "x".repeat(300_000));
    assert_eq!(client.value(&big), "300000");
    // A string far larger than every buffer.
    let id = client.eval("io.write(('0123456789abcdef'):rep(4 * 2^20))");
    let (out, lost, _) = client.drain_output(id);
    assert_eq!((out.len(), lost), (64 << 20, 0));
    assert!(out.chunks(16).all(|chunk| chunk == b"0123456789abcdef"));
    let id = client.eval("return ('v'):rep(64 * 2^20)");
    let frames = client.until_done(id);
    assert!(frames.iter().any(|frame| frame.tag == tag::VALUES && frame.payload.len() > 1000), "no value");
    assert_eq!(client.value("1"), "1");
}

#[test]
fn input_is_asked_for_and_kept_until_it_is_wanted() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    let id = client.eval("return io.read(), io.read('*n'), io.read('*a')");
    while client.next().tag != tag::WANTS_INPUT {}
    client.send(tag::INPUT, id, b"one\n");
    client.send(tag::INPUT, id, b"42 rest");
    client.send(tag::INPUT_END, id, b"");
    let frames = client.until_done(id);
    let value = frames.iter().find(|frame| frame.tag == tag::VALUES).unwrap();
    assert_eq!(value.text(), "one\t42\t rest");
    client.send(tag::INPUT, 0, b"early\n");
    assert_eq!(client.run("return io.read()").last().unwrap().text(), "early");
    let piece = vec![b'x'; 15 << 20];
    client.send(tag::INPUT, 0, &piece);
    client.send(tag::INPUT, 0, &piece);
    let refused = client.next();
    assert!(refused.tag == tag::REFUSED && refused.text().starts_with("session.queue_full"), "{:?}", refused.text());
    client.send(tag::INPUT_END, 0, b"");
    assert_eq!(client.run("return #io.read('*a')").last().unwrap().text(), piece.len().to_string());
}

#[test]
fn questions_are_answered_when_idle_and_told_busy_otherwise() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    client.run("thing = { alpha = 1, alpine = 2 }");
    client.send(tag::IS_COMPLETE, 5, b"for i = 1, 2 do");
    let answer = client.next();
    assert!(answer.tag == tag::COMPLETENESS && answer.id == 5 && answer.payload[0] == b'i', "{answer:?}");
    client.send(tag::COMPLETE, 6, b"return thing.al");
    let answer: serde_json::Value = serde_json::from_slice(&client.next().payload).unwrap();
    assert_eq!(answer, serde_json::json!({ "busy": false, "from": 13, "names": ["alpha", "alpine"] }));
    let id = client.eval("io.read()");
    while client.next().tag != tag::WANTS_INPUT {}
    client.send(tag::IS_COMPLETE, 7, b"1");
    assert_eq!(client.next().payload, b"b");
    client.send(tag::COMPLETE, 8, b"x");
    assert!(client.next().text().contains("\"busy\":true"));
    client.send(tag::INPUT_END, id, b"");
    client.until_done(id);
}

#[test]
fn commands_queue_up_to_a_bound_and_replays_are_ignored() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    let first = client.eval("n = 0 io.read()");
    for _ in 0..1024 {
        client.eval("n = n + 1");
    }
    let over = client.eval("n = -1");
    loop {
        let heard = client.next();
        if heard.tag == tag::REFUSED {
            assert!(heard.id == over && heard.text().starts_with("session.queue_full"), "{heard:?}");
            break;
        }
    }
    // Written again by a daemon that cannot know what got through.
    let payload = Eval { deadline_ms: 0, token: b"", code: b"n = n + 1000000" }.to_vec();
    client.send(tag::EVAL, 7, &payload);
    client.send(tag::INPUT_END, first, b"");
    client.until_done(over - 1);
    client.next_id = over;
    assert_eq!(client.value("n"), "1024");
    // A command cut short.
    client.send(tag::EVAL, over + 1, b"\0\0\0\0\xff");
    assert!(client.next().text().starts_with("wire.malformed"));
}

#[test]
fn what_an_old_client_wrote_is_obeyed_before_a_new_one_takes_its_place() {
    let holder = Holder::new();
    for round in 0..50 {
        let mut old = holder.client(0);
        let from = old.hello.last_command;
        for _ in 0..20 {
            old.eval("count = (count or 0) + 1");
        }
        let new = holder.client(0);
        assert_eq!(new.hello.last_command, from + 20, "round {round}");
        drop(old);
    }
    let mut client = holder.client(0);
    client.until_done(1000);
    assert_eq!(client.value("count"), "1000");
}

fn refusal(client: &mut std::os::unix::net::UnixStream, hello: &[u8]) -> HolderHello {
    client.write_all(&Frame { tag: tag::HELLO, id: 0, payload: hello }.to_vec()).unwrap();
    let mut all = Vec::new();
    let _ = client.read_to_end(&mut all);
    let (frame, _) = Frame::decode(&all).unwrap().expect("no answer");
    HolderHello::decode(frame.payload).unwrap()
}

#[test]
fn strangers_are_refused_and_harm_nobody() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    let key = holder.key();
    let code = |hello: HolderHello| hello.error.unwrap().code;
    for wrong in [String::new(), "0".repeat(64), key[..63].to_owned(), format!("{key}0")] {
        assert_eq!(code(refusal(&mut holder.raw(), &ClientHello::new(wrong, 0).to_vec())), Code::Permission.as_str());
    }
    let future = serde_json::json!({ "protocol": 99, "min_protocol": 99, "key": key });
    assert_eq!(code(refusal(&mut holder.raw(), future.to_string().as_bytes())), Code::WireVersion.as_str());
    assert_eq!(code(refusal(&mut holder.raw(), b"{}")), Code::WireVersion.as_str());
    assert_eq!(code(refusal(&mut holder.raw(), &ClientHello::new(key.clone(), 1 << 40).to_vec())), Code::WireMalformed.as_str());
    client.run("print('hello')");
    assert_eq!(code(refusal(&mut holder.raw(), &ClientHello::new(key, 5).to_vec())), Code::WireMalformed.as_str());
    // Silent connections do not keep others out for ever, nor do many of them harm.
    let silent: Vec<_> = (0..8).map(|_| holder.raw()).collect();
    let mut turned_away = holder.raw();
    assert_eq!(turned_away.read(&mut [0; 1]).unwrap(), 0);
    drop(silent);
    let mut again = holder.client(client.at);
    assert_eq!(again.run("print(1)").len(), 1);
}

#[test]
fn nonsense_ends_the_connection_and_not_the_machine() {
    let holder = Holder::new();
    holder.client(0).run("kept = 1");
    for nonsense in [&b"\0\0\0\0"[..], b"\xff\xff\xff\xff", b"\x08\0\0\0\0\0\0\0\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stranger = holder.raw();
        stranger.write_all(nonsense).unwrap();
        let mut all = Vec::new();
        let _ = stranger.read_to_end(&mut all);
        let mut client = holder.client(holder.client(0).hello.end);
        client.stream.write_all(nonsense).unwrap();
        let mut last = None;
        while let Some(heard) = client.try_next() {
            last = Some(heard);
        }
        assert!(last.is_some_and(|heard| heard.tag == tag::REFUSED && heard.text().starts_with("wire.malformed")));
    }
    let end = holder.client(0).hello.end;
    let mut client = holder.client(end);
    // Unknown tags are skipped.
    client.send(b'~', 9, b"from the future");
    assert_eq!(client.value("kept"), "1");
}

#[test]
fn memory_is_limited_and_the_state_survives() {
    let holder = Holder::with(&Options { memory: Some(16 << 20), ..Options::default() });
    let mut client = holder.client(0);
    client.run("kept = 1");
    for code in ["t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end", "return ('x'):rep(2^30)"] {
        let frames = client.run(code);
        let failure = Failure::decode(&frames[0].payload).unwrap();
        assert!(String::from_utf8_lossy(failure.message).contains("not enough memory"), "{failure:?}");
        client.run("t = nil collectgarbage()");
    }
    assert_eq!(client.value("kept"), "1");
    assert_eq!(client.value("pcall(string.rep, 'x', 2^30)"), "false\tnot enough memory");
    // A chunk as large as the limit.
    let frames = client.run(format!("return #'{}'", "y".repeat(15 << 20)));
    assert_eq!(frames[0].tag, tag::ERROR, "{frames:?}");
    assert_eq!(client.value("kept"), "1");
}

#[test]
fn seeds_differ_and_modules_in_c_load() {
    let seen: std::collections::HashSet<String> = (0..4).map(|_| Holder::new().client(0).value("math.random()")).collect();
    assert_eq!(seen.len(), 4);
    // Debian has no modules for Lua 5.5 yet.
    if !cfg!(feature = "lua55") {
        let holder = Holder::new();
        assert_eq!(holder.client(0).value("type(require('socket').tcp)"), "function", "apt install lua-socket");
    }
}

#[test]
fn the_program_may_end_the_machine_and_takes_its_children_along() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    client.run("os.execute('sleep 1000 & setsid sleep 1001 & (setsid sleep 1002 &)')");
    assert!(vmoon_sys::tree::count(&holder.process, None) >= 3);
    let id = client.eval("io.write('last words') os.exit(3)");
    let mut seen = Vec::new();
    while let Some(heard) = client.try_next() {
        assert_eq!(heard.id, id);
        seen.push((heard.tag, heard.payload));
    }
    let tags: Vec<u8> = seen.iter().map(|(tag, _)| *tag).collect();
    assert_eq!(tags, [tag::ACCEPTED, tag::STDOUT, tag::EXIT, tag::DONE]);
    assert_eq!(seen[2].1, 3i32.to_le_bytes());
    assert_eq!(holder.wait(), Some(Exit::Code { code: 3 }));
    assert_eq!(vmoon_sys::tree::count(&holder.process, None), 0);
}

#[test]
fn an_idle_machine_does_not_wake_up_and_is_small() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    client.run("x = 1");
    let switches = || {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", holder.process.pid)).unwrap().flatten() {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap();
            sum += status.lines().filter_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok()).sum::<u64>();
        }
        sum
    };
    // The timer of the last command may still fire once.
    let fired = std::time::Instant::now();
    while fired.elapsed() < std::time::Duration::from_millis(50) {
        std::thread::yield_now();
    }
    let before = switches();
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_millis(500) {
        std::thread::yield_now();
    }
    assert_eq!(switches(), before, "it woke up while idle");
    let memory = vmoon_sys::memory::of(holder.process.pid).unwrap();
    assert!(memory.private < 8 << 20, "{memory:?}");
}

#[test]
fn a_hello_tells_where_things_stand() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    let id = client.eval("io.read()");
    client.eval("1");
    while client.next().tag != tag::WANTS_INPUT {}
    client.ack();
    let acked = client.at;
    let again: Client = holder.client(0);
    let hello = &again.hello;
    assert_eq!((hello.at, hello.oldest, hello.running, hello.queued, hello.waiting_input), (0, acked, Some(id), 1, true));
    // What was acknowledged is told as a gap.
    let mut again = again;
    let gap = again.next();
    assert_eq!((gap.tag, again.at), (tag::GAP, acked));
}

#[test]
fn the_round_trip_can_be_measured() {
    let dir = tempfile::tempdir().unwrap();
    let times = vmoon_driver_lua::bench::host_roundtrip(crate::client::HOST.as_ref(), &[], dir.path(), 2500).unwrap();
    assert!(times.len() == 2500 && times.iter().all(|time| !time.is_zero()));
    let error = vmoon_driver_lua::bench::host_roundtrip("/no/such/program".as_ref(), &[], dir.path(), 1).unwrap_err();
    assert_eq!(error.code(), Code::FileFailed);
}
