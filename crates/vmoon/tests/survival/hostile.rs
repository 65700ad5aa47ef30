//! A machine's process that lies: another program sits at its socket and says whatever may hurt a daemon. Other machines notice
//! nothing, the daemon stays small, and the machine can be killed and started again.

use crate::{create, eval, home::Home};
use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};
use vmoon_api::Api as _;
use vmoon_core::frame::{Eval, Frame, tag};
use vmoon_driver_sim::Hostile;

/// How much larger the daemon may have become, KiB: what it holds of one session's answers, one frame, and what the allocator keeps.
const GROWTH: u64 = 256 << 10;

type Script = Box<dyn Fn(&mut UnixStream, u64) + Send>;

/// A hello that says these offsets and this last command.
fn hello(stream: &mut UnixStream, at: u64, end: u64, last: u64) {
    let text = serde_json::json!({ "protocol": 2, "min_protocol": 1, "at": at, "end": end, "last_command": last });
    say(stream, tag::HELLO, 0, text.to_string().as_bytes());
}

/// A hello, and a frame that is as it should be: a daemon that gets on does not wait ever longer before it comes again.
fn fit(stream: &mut UnixStream, from: u64, last: u64) {
    hello(stream, from, from, last);
    say(stream, tag::STDOUT, 0, b"fit");
}

fn say(stream: &mut UnixStream, tag: u8, id: u64, payload: &[u8]) {
    // Who is lied to may close the door.
    let _ = stream.write_all(&Frame { tag, id, payload }.to_vec());
}

/// What is said to a daemon that asks for the stream from an offset; one connection each.
fn scripts() -> Vec<Script> {
    let mut scripts: Vec<Script> = vec![
        Box::new(|_, _| {}),
        Box::new(|stream, _| drop(stream.write_all(&Hostile::new(9).bytes(1 << 20)))),
        Box::new(|stream, _| drop(stream.write_all(&[0xff; 64]))),
        Box::new(|stream, _| say(stream, tag::HELLO, 0, &[b'['; 8 << 20])),
        Box::new(|stream, _| hello(stream, u64::MAX, u64::MAX, 0)),
        Box::new(|stream, from| hello(stream, from, from, u64::MAX)),
        Box::new(|stream, from| {
            fit(stream, from, 0);
            say(stream, tag::GAP, 0, &u64::MAX.to_le_bytes());
        }),
        // What it has said before.
        Box::new(|stream, from| {
            hello(stream, 0, from, 0);
            say(stream, tag::STDOUT, 0, b"again");
        }),
        Box::new(|stream, from| {
            fit(stream, from, 0);
            for id in 1..100 {
                say(stream, tag::STDOUT, id, &[b'x'; 64 << 10]);
            }
        }),
        Box::new(|stream, from| {
            fit(stream, from, 0);
            let accepted = Eval { deadline_ms: 0, token: b"", code: b"x" }.to_vec();
            for id in 1..20_000 {
                say(stream, tag::ACCEPTED, id, &accepted);
            }
        }),
        // Values that are many times as large when they are parsed.
        Box::new(|stream, from| {
            fit(stream, from, 0);
            let data = format!("{{\"values\":[{}1]}}", "[],".repeat(1 << 20));
            for id in 30_000..30_010 {
                say(stream, tag::DATA, id, data.as_bytes());
            }
            say(stream, tag::DONE, 30_001, &[0; 8]);
        }),
    ];
    for seed in 0..10 {
        scripts.push(Box::new(move |stream, from| {
            let mut hostile = Hostile::new(seed);
            let mut bytes = Vec::new();
            for tag in b"EOORVTXNWDGckrZ" {
                Frame { tag: *tag, id: hostile.edge(), payload: &hostile.bytes(60) }.encode(&mut bytes);
            }
            hostile.spoil(&mut bytes);
            fit(stream, from, hostile.below(9) as u64);
            drop(stream.write_all(&bytes));
        }));
    }
    scripts
}

/// Plays all scripts to whoever connects. Each ends with what is no frame, upon which the daemon need not wait for our death.
fn lie(listener: &UnixListener, told: &mpsc::SyncSender<usize>) {
    for (number, script) in scripts().into_iter().enumerate() {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut bytes = Vec::new();
        let from = loop {
            let mut buffer = [0; 4096];
            let n = stream.read(&mut buffer).unwrap();
            bytes.extend_from_slice(&buffer[..n]);
            if let Some((frame, _)) = Frame::decode(&bytes).unwrap() {
                let hello: serde_json::Value = serde_json::from_slice(frame.payload).unwrap();
                break hello["from"].as_u64().unwrap();
            }
            assert!(n > 0, "the daemon says hello");
        };
        script(&mut stream, from);
        let _ = stream.write_all(&[0xff; 64]);
        told.send(number).unwrap();
    }
}

/// The directory of the only life of a machine.
fn life(home: &Home, id: &str) -> PathBuf {
    let boot = fs::read_dir(home.state().join("run")).unwrap().flatten().map(|entry| entry.path()).find(|boot| boot.join(id).exists());
    let lives: Vec<_> = fs::read_dir(boot.unwrap().join(id)).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(lives.len(), 1);
    lives[0].clone()
}

fn listen(life: &Path) -> UnixListener {
    fs::remove_file(life.join("sock")).unwrap();
    // Through a descriptor: the path may be longer than an address.
    let dir = File::open(life).unwrap();
    UnixListener::bind(format!("/proc/self/fd/{}/sock", dir.as_raw_fd())).unwrap()
}

fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_machine_that_lies_hurts_nobody_else() {
    let home = Home::new();
    home.vmoon(&["list"]);
    create(&home, "good").await;
    create(&home, "evil").await;
    home.vmoon(&["eval", "evil", "return 1"]);
    let view: serde_json::Value = serde_json::from_str(&home.vmoon(&["show", "evil", "-o", "json"])).unwrap();
    let life = life(&home, view["id"].as_str().unwrap());
    home.kill_daemon();
    let listener = listen(&life);
    let (tell, told) = mpsc::sync_channel(1);
    let liar = thread::spawn(move || lie(&listener, &tell));

    home.vmoon(&["list"]);
    let daemon = home.daemon_pid().unwrap();
    let before = resident_kib(daemon);
    for number in 0..scripts().len() {
        let heard = told.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("script {number}: nobody came to hear it"));
        assert_eq!(heard, number);
        let view = home.client().eval(eval("good", "return 6 * 7", &format!("t{number}"), Some(20_000))).await.unwrap();
        assert_eq!(view.values.unwrap().lossy(), "42", "script {number}");
    }
    liar.join().unwrap();
    assert_eq!(home.daemon_pid(), Some(daemon), "the daemon lives");
    let after = resident_kib(daemon);
    assert!(after < before + GROWTH, "{before} KiB, then {after} KiB");
    // It can be asked about, ended and started again.
    home.vmoon(&["show", "evil"]);
    home.vmoon(&["kill", "evil"]);
    home.vmoon(&["start", "evil"]);
    assert_eq!(home.vmoon(&["eval", "evil", "return 2"]).trim(), "2");
    home.end();
}
