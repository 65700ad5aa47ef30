//! Sessions survive: the daemon killed again and again, its runtime directory removed, holders killed, commands racing to
//! start it. The real binary, real Lua VMs; every transcript is compared byte for byte.

mod home;
mod hostile;
mod regressions;

use home::Home;
use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};
use vmoon_api::{Api, requests::*, views::PieceKind};
use vmoon_core::{Code, driver::Exit, machine::State};

/// Lua that prints `lines` numbered lines, with some work between them, and what it prints.
fn stream(lines: u32) -> (String, Vec<u8>) {
    let code = format!("for i = 1, {lines} do local s = 0 for k = 1, 400 do s = s + k % 7 end print('line', i) end return 'end'");
    let mut expect = String::new();
    for i in 1..=lines {
        let _ = writeln!(expect, "line\t{i}");
    }
    (code, expect.into_bytes())
}

/// Everything that a command has written to standard output, from the transcript.
async fn transcript(api: &dyn Api, machine: &str, command: u64) -> Vec<u8> {
    let (mut from, mut bytes) = (None, Vec::new());
    loop {
        let request = Read { session: machine.into(), from, max: Some(8 << 20), command: Some(command), wait_ms: None };
        let read = api.read(request).await.unwrap();
        if read.pieces.is_empty() {
            return bytes;
        }
        for piece in read.pieces {
            assert_ne!(piece.kind, PieceKind::Gap, "{machine}: something was lost at {}", piece.at);
            if piece.kind == PieceKind::Stdout {
                bytes.extend(piece.data.0);
            }
        }
        from = Some(read.next);
    }
}

fn eval(machine: &str, code: &str, token: &str, wait_ms: Option<u64>) -> Eval {
    Eval { session: machine.into(), code: code.into(), token: Some(token.into()), deadline_ms: None, wait_ms, args: None, data: false }
}

async fn create(home: &Home, name: &str) {
    create_with(home, name, serde_json::json!({})).await;
}

async fn create_with(home: &Home, name: &str, settings: serde_json::Value) {
    let serde_json::Value::Object(settings) = settings else { panic!("an object") };
    let spec = vmoon_core::spec::MachineSpec { kind: "lua".into(), settings, ..Default::default() };
    let request = CreateMachine { name: name.into(), connection: None, spec, start: true, deadline_ms: None };
    home.client().create_machine(request).await.unwrap();
}

/// Waits for a command to end, whatever happens to the daemon meanwhile.
async fn done(home: &Home, machine: &str, code: &str, token: &str) -> u64 {
    let view = home.client().eval(eval(machine, code, token, None)).await.unwrap();
    assert_eq!(view.values.map(|v| v.lossy().into_owned()).as_deref(), Some("end"), "{machine}");
    view.id.number
}

#[tokio::test]
async fn three_hundred_streaming_sessions_outlive_twenty_kills_of_the_daemon() {
    const SESSIONS: usize = 300;
    const KILLS: u64 = 20;
    let home = Home::new();
    home.vmoon(&["list"]);
    let (code, expect) = stream(20_000);
    for i in 0..SESSIONS {
        create(&home, &format!("s{i}")).await;
    }
    for i in 0..SESSIONS {
        home.client().eval(eval(&format!("s{i}"), &code, "stream", Some(0))).await.unwrap();
    }
    for kill in 0..KILLS {
        // Not a wait for anything: the moment of the kill is what varies.
        tokio::time::sleep_until((Instant::now() + Duration::from_millis(20 + kill * 53 % 170)).into()).await;
        home.kill_daemon();
        // Any command brings it back, and it shows what is true.
        let listed = home.vmoon(&["list", "-o", "name"]);
        assert_eq!(listed.lines().count(), SESSIONS);
    }
    for i in 0..SESSIONS {
        let name = format!("s{i}");
        let number = done(&home, &name, &code, "stream").await;
        assert_eq!(number, 1, "{name}: the token joined the command; it did not run twice");
        let found = transcript(&home.client(), &name, number).await;
        assert!(found == expect, "{name}: {} bytes instead of {}", found.len(), expect.len());
    }
    for view in home.client().list_machines(Empty {}).await.unwrap() {
        assert_eq!(view.state, State::Running, "{}", view.name);
    }
    home.end();
}

#[tokio::test]
async fn sessions_stream_on_while_the_runtime_directory_is_removed() {
    let home = Home::new();
    home.vmoon(&["list"]);
    let (code, expect) = stream(60_000);
    for i in 0..8 {
        create(&home, &format!("s{i}")).await;
        home.client().eval(eval(&format!("s{i}"), &code, "stream", Some(0))).await.unwrap();
    }
    let daemon = home.daemon_pid().unwrap();
    std::fs::remove_dir_all(home.runtime()).unwrap();
    // As at a new login: the directory is there again and empty. The daemon that lives binds its socket anew.
    std::fs::create_dir(home.runtime()).unwrap();
    assert_eq!(home.vmoon(&["list", "-o", "name"]).lines().count(), 8);
    assert_eq!(home.daemon_pid(), Some(daemon), "no second daemon");
    for i in 0..8 {
        let name = format!("s{i}");
        let number = done(&home, &name, &code, "stream").await;
        assert!(transcript(&home.client(), &name, number).await == expect, "{name}");
    }
    home.end();
}

#[tokio::test]
async fn a_hundred_megabytes_printed_while_no_daemon_lives_are_there_afterwards() {
    let home = Home::new();
    home.vmoon(&["list"]);
    create_with(&home, "big", serde_json::json!({ "write": home.granted() })).await;
    // It begins when it is told to, which is after the daemon was killed.
    let flag = home.granted().join("go");
    let code = format!(
        "local p = {:?} while true do local f = io.open(p) if f then f:close() break end end\n\
         local line = ('x'):rep(99) for i = 1, 1000000 do print(line) end\n\
         local f = io.open(p .. '.done', 'w') f:close() return 'end'",
        flag.to_str().unwrap()
    );
    home.client().eval(eval("big", &code, "flood", Some(0))).await.unwrap();
    home.kill_daemon();
    std::fs::write(&flag, "").unwrap();
    home.until("the program has printed everything", || home.granted().join("go.done").exists());
    home.vmoon(&["list"]);
    let number = done(&home, "big", &code, "flood").await;
    let found = transcript(&home.client(), "big", number).await;
    let line = [&[b'x'; 99][..], b"\n"].concat();
    assert!(found.len() == 100_000_000 && found.chunks(100).all(|c| c == line), "{} bytes", found.len());
    home.end();
}

#[tokio::test]
async fn a_killed_holder_is_seen_as_stopped_with_its_reason_and_leaves_nothing() {
    let home = Home::new();
    home.vmoon(&["list"]);
    create_with(&home, "a", serde_json::json!({ "profile": "trusted" })).await;
    let code = "print('last words') os.execute('sleep 1000 &') while true do end";
    let running = home.client().eval(eval("a", code, "t", Some(200))).await.unwrap();
    assert_eq!(running.stdout.lossy(), "last words\n");
    let holders = home.holders();
    assert_eq!(holders.len(), 1, "{holders:?}");
    home::kill(holders[0]);
    let wait = WaitMachine { machine: "a".into(), until: Some(State::Stopped), generation: None, timeout_ms: Some(20_000) };
    let view = home.client().wait_machine(wait).await.unwrap();
    assert_eq!(view.state, State::Stopped);
    assert_eq!(view.exit, Some(Exit::Signal { signal: 9 }));
    let command = CommandRef { command: running.id.to_string(), wait_ms: Some(10_000) };
    let lost = home.client().show_command(command).await.unwrap();
    assert_eq!((lost.state, lost.stdout.lossy().as_ref()), (vmoon_api::views::CommandState::Lost, "last words\n"));
    let refused = home.client().eval(eval("a", "return 1", "u", None)).await.unwrap_err();
    assert_eq!(refused.code(), Code::MachineStopped);
    // It starts again, in a new session, and the old transcript is kept.
    home.vmoon(&["start", "a"]);
    assert_eq!(home.vmoon(&["eval", "a", "return 1"]).trim(), "1");
    assert_eq!(
        home.client().show_command(CommandRef { command: running.id.to_string(), wait_ms: None }).await.unwrap().stdout,
        lost.stdout
    );
    home.end();
}

#[tokio::test]
async fn commands_that_race_to_start_the_daemon_find_one() {
    let home = Home::new();
    let racing: Vec<_> = (0..8).map(|_| home.spawn(&["list", "-o", "json"])).collect();
    for child in racing {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "[]");
    }
    let one = home.daemon_pid().unwrap();
    // A daemon started by hand beside it is refused, with a reason and a code of its own.
    let second = home.spawn(&["daemon", "run"]).wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(i32::from(Code::DaemonRunning.exit())));
    assert!(String::from_utf8_lossy(&second.stderr).contains(&one.to_string()));
    // A socket that a killed daemon left behind stops nobody.
    home.kill_daemon();
    assert!(home.runtime().join("vmoon/api.sock").exists());
    home.vmoon(&["list"]);
    assert_ne!(home.daemon_pid(), Some(one));
    home.end();
}
