//! Sessions on a host: what a session says, with every Lua and both families of tools.

use crate::{
    lab::{Lab, Reach as _, Tools},
    talk::{Talk, failure, only, output},
};
use std::time::Duration;
use tokio::time::timeout;
use vmoon_core::{
    Code,
    driver::{Exit, LinkItem},
    frame::{Call, Eval, FailureKind, tag},
};
use vmoon_remote::guest::Guest;

pub(crate) fn guest(lab: &Lab) -> Guest {
    Guest::new(lab.host(), "owner", "main", Some(lab.path().join("bin/lua").to_str().expect("a path").to_owned())).expect("a name")
}

async fn conversation(tools: Tools, lua: &str) {
    let lab = Lab::new(tools, lua).await;
    let guest = guest(&lab);
    let mut talk = Talk::open(&guest).await;
    assert_eq!(talk.value("x = 41 return 1, nil, 'a'").await, "1\tnil\ta");
    let frames = talk.eval("print('Value:', x + 1) io.stderr:write('bad\\n') io.write('a\\0\\255')").await;
    assert_eq!(output(&frames, tag::STDOUT), b"Value:\t42\na\0\xff");
    assert_eq!(output(&frames, tag::STDERR), b"bad\n");
    assert_eq!(frames.first().map(|f| f.tag), Some(tag::ACCEPTED));
    assert_eq!(frames.last().map(|f| f.payload.len()), Some(8));
    let frames = talk.eval("error('boom')").await;
    let (kind, message) = failure(&frames);
    assert!(kind == FailureKind::Runtime && message.contains("boom"), "{message}");
    assert_eq!(failure(&talk.eval("x = = 2").await).0, FailureKind::Syntax);
    assert!(only(&talk.eval("for i = 1, 2 do").await, tag::INCOMPLETE).is_some());
    // Children write where everything has its place.
    let frames = talk.eval("print('one') os.execute('echo two') print('three')").await;
    assert_eq!(output(&frames, tag::STDOUT), b"one\ntwo\nthree\n", "{frames:?}");
    // It took as long as somebody with a watch would say, twice.
    for code in ["os.execute('sleep 0.3')", "os.execute('sleep 0.2')"] {
        let frames = talk.eval(code).await;
        let took = frames.last().and_then(|done| done.payload.as_slice().try_into().ok()).map(u64::from_le_bytes);
        assert!(took.is_some_and(|took| (180_000..60_000_000).contains(&took)), "{code}: {took:?} µs");
    }
    // Input, asked for twice, given once ahead.
    let id = talk.start("local a, b = io.read(), io.read() return a .. '|' .. tostring(b)").await;
    talk.until(|f| f.tag == tag::WANTS_INPUT && f.id == id).await;
    talk.send(tag::INPUT, 1, b"hello\n").await;
    talk.send(tag::INPUT_END, 1, b"").await;
    let frames = talk.done(id).await;
    assert_eq!(only(&frames, tag::VALUES).map(|f| f.payload.clone()), Some(b"hello|nil".to_vec()), "{frames:?}");
    talk.send(tag::INPUT, 5, b"x").await;
    let refused = talk.answer().await;
    assert!(refused.tag == tag::REFUSED && refused.payload.starts_with(Code::SessionNotWaiting.as_str().as_bytes()));
    // Questions.
    for (code, verdict) in [("return 1", b'c'), ("for", b'i'), ("x = = 1", b'x')] {
        talk.send(tag::IS_COMPLETE, QUESTION, code.as_bytes()).await;
        let answer = talk.answer().await;
        assert_eq!((answer.tag, answer.id, answer.payload.first()), (tag::COMPLETENESS, QUESTION, Some(&verdict)), "{code}");
    }
    talk.send(tag::COMPLETE, 8, b"string.rep").await;
    let names = talk.answer().await;
    assert!(
        String::from_utf8_lossy(&names.payload).contains("string.rep") || String::from_utf8_lossy(&names.payload).contains("rep"),
        "{names:?}"
    );
    // Arguments and values as data.
    talk.last += 1;
    let id = talk.last;
    let eval = Eval { deadline_ms: 0, token: b"tok", code: b"local a = ... return a.n + 1" };
    let call = Call { data: true, arguments: b"[{\"n\":41}]", eval }.to_vec();
    talk.send(tag::CALL, id, &call).await;
    let frames = talk.done(id).await;
    assert_eq!(frames[0].payload, eval.to_vec());
    assert!(String::from_utf8_lossy(&only(&frames, tag::DATA).expect("data").payload).contains("42"), "{frames:?}");
    // A long chunk, and one that comes while another runs.
    let long = format!("return #[[{}]]", "y".repeat(300_000));
    assert_eq!(talk.value(&long).await, "300000");
    let (a, b) = (talk.start("print('a')").await, talk.start("print('b')").await);
    talk.done(b).await;
    let order: Vec<u64> = talk.frames.iter().filter(|f| f.tag == tag::DONE && f.id >= a).map(|f| f.id).collect();
    assert_eq!(order, [a, b]);
    let id = talk.start("os.exit(3)").await;
    assert_eq!(talk.ended().await, Exit::Code { code: 3 });
    assert_eq!(talk.frames.iter().find(|f| f.tag == tag::EXIT && f.id == id).map(|f| f.payload.clone()), Some(3i32.to_le_bytes().to_vec()));
    // The next life begins anew; of the old one its stream is still there.
    let seen = guest.look().await.expect("a look");
    assert!(!seen.lives && seen.next_life() == talk.life + 1, "{seen:?}");
    let mut old = Talk::open(&guest).await;
    assert_eq!((old.last, old.value("return x == nil").await.as_str()), (0, "true"));
}

/// The daemon numbers its questions so, beyond what a Lua without whole numbers can count to: they were never answered once.
const QUESTION: u64 = (1 << 63) + (1_795_288_000_000 << 16) + 1;

#[tokio::test]
async fn a_session_with_busybox_and_lua_5_1() {
    conversation(Tools::BusyBox, "lua5.1").await;
}

#[tokio::test]
async fn a_session_with_coreutils_and_lua_5_4() {
    conversation(Tools::System, "lua5.4").await;
}

#[tokio::test]
async fn a_session_with_busybox_and_luajit() {
    conversation(Tools::BusyBox, "luajit").await;
}

#[tokio::test]
async fn a_session_with_lua_5_2_and_5_3() {
    conversation(Tools::System, "lua5.2").await;
    conversation(Tools::BusyBox, "lua5.3").await;
}

async fn interruptions(tools: Tools, lua: &str) {
    let lab = Lab::new(tools, lua).await;
    let mut talk = Talk::open(&guest(&lab)).await;
    talk.eval("x = 42").await;
    // Plain loops, ones that swallow errors, ones in coroutines, a child, and waiting for input; each more than once.
    let shapes = [
        "os.execute('sleep 60') return 1",
        "io.read()",
        "while true do end",
        "while true do pcall(function() while true do local t = {} end end) end",
        "local co = coroutine.wrap(function() while true do end end) co()",
    ];
    for round in 0..2 {
        for shape in &shapes {
            let id = talk.start(shape).await;
            talk.until(|f| f.id == id).await;
            if *shape == "io.read()" {
                talk.until(|f| f.id == id && f.tag == tag::WANTS_INPUT).await;
            }
            talk.send(tag::INTERRUPT, if round == 0 { id } else { 0 }, b"").await;
            let frames = talk.done(id).await;
            assert_eq!(failure(&frames).0, FailureKind::Interrupted, "{shape}: {frames:?}");
            assert_eq!(talk.value("return x").await, "42", "{shape}");
        }
    }
    let id = talk.start_within("os.execute('sleep 60') return 1", 50).await;
    assert_eq!(failure(&talk.done(id).await).0, FailureKind::Deadline);
    // One that waits for its turn never runs; one that is over is not hit.
    let (running, waiting) = (talk.start("io.read()").await, talk.start("x = 43").await);
    talk.until(|f| f.id == running && f.tag == tag::WANTS_INPUT).await;
    talk.send(tag::INTERRUPT, waiting, b"").await;
    talk.send(tag::INPUT, 9, b"\n").await;
    assert_eq!(failure(&talk.done(waiting).await).0, FailureKind::Interrupted);
    talk.send(tag::INTERRUPT, running, b"").await;
    assert_eq!(talk.value("return x").await, "42");
    // Hard on the heels of the end: the interrupt meets this command or none.
    for _ in 0..30 {
        let id = talk.start("for i = 1, 20000 do local s = i .. '' end").await;
        talk.until(|f| f.id == id).await;
        talk.send(tag::INTERRUPT, id, b"").await;
        talk.done(id).await;
        assert_eq!(talk.value("return x").await, "42");
    }
    talk.send(tag::QUIT, 0, b"").await;
    assert_eq!(talk.ended().await, Exit::Code { code: 0 });
}

#[tokio::test]
async fn interrupts_with_lua_5_4() {
    interruptions(Tools::System, "lua5.4").await;
}

#[tokio::test]
async fn interrupts_with_busybox_and_lua_5_1() {
    interruptions(Tools::BusyBox, "lua5.1").await;
}

#[tokio::test]
async fn interrupts_with_busybox_and_luajit() {
    interruptions(Tools::BusyBox, "luajit").await;
}

#[tokio::test]
async fn a_host_without_lua_says_so() {
    let lab = Lab::new(Tools::NoLua, "lua5.4").await;
    let guest = Guest::new(lab.host(), "owner", "main", None).expect("a name");
    let Err(error) = guest.open(1, 0).await else { panic!("there is no Lua") };
    assert_eq!(error.code(), Code::GuestNoLua);
    assert!(error.hint_text().is_some_and(|hint| hint.contains("shell")));
}

/// Kills the shell that waits for a session's interpreter, and the interpreter: nobody can note how it ended.
fn kill_all(pids: &str) {
    for pid in pids.split(' ').take(2).collect::<Vec<_>>().into_iter().rev() {
        let pid = rustix::process::Pid::from_raw(pid.parse().expect("a number")).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a kill");
    }
}

#[tokio::test]
async fn a_killed_and_a_rebooted_session_say_how_they_ended() {
    let lab = Lab::new(Tools::BusyBox, "lua5.4").await;
    let guest = guest(&lab);
    let mut talk = Talk::open(&guest).await;
    talk.eval("print('one')").await;
    let middle = talk.at;
    talk.eval("print('two')").await;
    guest.kill(talk.life).await.expect("a kill");
    assert_eq!(talk.ended().await, Exit::Killed);
    // What nobody has read yet is still there, then the end.
    let rest = guest.open(talk.life, middle).await.expect("the rest");
    assert_eq!((rest.end, rest.last_command), (talk.at, 2));
    // A host that was started anew: the directory is of another boot, its processes are gone.
    let mut talk = Talk::open(&guest).await;
    talk.eval("x = 1").await;
    let dir = lab.path().join(format!("state/vmoon/guest/owner/main/{}", talk.life));
    let pid = std::fs::read_to_string(dir.join("pid")).expect("a pid");
    std::fs::write(dir.join("boot"), "another\n").expect("a boot id");
    // Its power was cut: what it had told last was never written to its disk.
    std::fs::File::options().write(true).open(dir.join("o.0")).and_then(|file| file.set_len(3)).expect("the stream");
    kill_all(&pid);
    lab.cut();
    assert_eq!(talk.ended().await, Exit::Rebooted);
    assert!(!guest.look().await.expect("a look").lives);
    let mut talk = Talk::open(&guest).await;
    assert_eq!(talk.value("return x == nil").await, "true");
    // A process that is gone without a word.
    let dir = lab.path().join(format!("state/vmoon/guest/owner/main/{}", talk.life));
    let pid = std::fs::read_to_string(dir.join("pid")).expect("a pid");
    kill_all(&pid);
    guest.look().await.expect("a look");
    lab.cut();
    assert_eq!(talk.ended().await, Exit::Lost);
}

/// What a session keeps on the host, by its files' names.
fn kept(lab: &Lab) -> Vec<String> {
    let files = crate::lab::walk(&lab.path().join("state"));
    files.iter().map(|file| file.display().to_string()).collect()
}

#[tokio::test]
async fn what_was_prepared_begins_or_leaves_nothing() {
    for tools in [Tools::System, Tools::BusyBox] {
        let lab = Lab::new(tools, "lua5.4").await;
        let guest = guest(&lab);
        // Nobody wants it: it goes with its connection.
        guest.prepare().await.expect("a look");
        guest.host().close().await;
        let mut looks = 0;
        while !kept(&lab).is_empty() {
            looks += 1;
            assert!(looks < 500, "{:?}", kept(&lab));
            assert!(!guest.look().await.expect("a look").lives);
        }
        // It begins, one after another, and what an earlier one has left for the next is used.
        for life in 1..=3 {
            let seen = guest.prepare().await.expect("a look");
            assert_eq!((seen.lives, seen.next_life()), (false, life));
            let mut talk = Talk::open(&guest).await;
            assert_eq!(talk.value("return 6 * 7").await, "42");
            guest.host().close().await;
            guest.kill(life).await.expect("a kill");
        }
    }
}

#[tokio::test]
async fn an_interpreter_that_is_none_is_refused() {
    let lab = Lab::new(Tools::BusyBox, "lua5.4").await;
    // One that is not there, one that is something else.
    for lua in ["missing", "true"] {
        let lua = lab.path().join("bin").join(lua).display().to_string();
        let guest = Guest::new(lab.host(), "owner", "main", Some(lua)).expect("a name");
        let mut link = guest.open(1, 0).await.expect("a link");
        let payload = Eval { deadline_ms: 0, token: b"", code: b"return 1" }.to_vec();
        link.writer.send(vmoon_core::frame::Frame { tag: tag::EVAL, id: 1, payload: &payload }).await.expect("sent");
        let mut buf = Vec::new();
        let item = timeout(Duration::from_secs(30), link.reader.next(&mut buf)).await.expect("in time").expect("an item");
        let said = String::from_utf8_lossy(&buf).into_owned();
        assert!(matches!(item, LinkItem::Direct) && said.contains(Code::DriverFailed.as_str()), "{said}");
        assert_eq!(guest.look().await.expect("a look").life, 0);
    }
}

#[tokio::test]
async fn the_newest_link_has_the_lease() {
    let lab = Lab::new(Tools::BusyBox, "lua5.1").await;
    let guest = guest(&lab);
    let mut first = Talk::open(&guest).await;
    first.eval("n = 0").await;
    let mut second = Talk::open(&guest).await;
    assert_eq!(second.last, 1);
    second.eval("n = n + 1").await;
    // The first one's lines are void by now; it notices and takes the session back.
    first.last = 2;
    assert_eq!(first.value("return n").await, "1");
    assert!(first.reopened > 0);
}

/// Output comes in frames of at most a megabyte. What arrived before the session had answered how it stands was handed over in one piece, two such frames together; a test that
/// goes away after each had too few of them on a busy computer.
#[tokio::test]
async fn a_backlog_comes_in_pieces() {
    let lab = Lab::new(Tools::BusyBox, "lua5.4").await;
    let guest = guest(&lab);
    let mut talk = Talk::open(&guest).await;
    assert_eq!(talk.value("io.write(('x'):rep(3000000)) return 'written'").await, "written");
    let mut link = guest.open(talk.life, 0).await.expect("a session");
    let (mut buf, mut read) = (Vec::new(), 0);
    while read < talk.at {
        match timeout(Duration::from_secs(30), link.reader.next(&mut buf)).await.expect("in time").expect("an item") {
            LinkItem::Stream { at } => {
                assert_eq!(at, read);
                assert!(buf.len() < 3 << 19, "{} bytes at once", buf.len());
                read += buf.len() as u64;
            }
            LinkItem::Direct => {}
            other => panic!("{other:?}"),
        }
    }
}
