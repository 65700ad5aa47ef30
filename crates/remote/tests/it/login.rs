//! Getting in: who is let in by what, what is trusted, hosts behind hosts; and what a connection carries besides sessions.

use crate::lab::{Lab, Reach as _, Tools, key, me};
use std::{process::Command, time::Duration};
use tokio::time::timeout;
use vmoon_core::{
    Code,
    ability::{Ended, Program},
    driver::{Exit, LinkItem},
    frame::{Frame, tag},
};
use vmoon_remote::{Auth, Connection, Host, Link, Route, Secret, Trust, shell};

fn route(hop: vmoon_remote::Hop) -> Route {
    Route::new(Vec::new(), hop)
}

fn program(argv: &[&str], stdin: &[u8], deadline_ms: u64) -> Program {
    Program { argv: argv.iter().map(|&word| word.to_owned()).collect(), stdin: stdin.to_vec(), deadline_ms }
}

#[tokio::test]
async fn a_key_must_be_known_confirmed_or_pinned() {
    let lab = Lab::new(Tools::System, "lua5.4").await;
    let mut hop = lab.hop();
    hop.trust = Trust::default();
    let unknown = Connection::open(&route(hop.clone())).await.expect_err("nobody knows the key");
    assert_eq!(unknown.code(), Code::ConnectionUntrusted);
    let detail = unknown.detail_value().cloned().expect("a detail");
    assert_eq!(detail["fingerprint"], lab.fingerprint());
    assert!(unknown.message().contains(&lab.fingerprint()), "{unknown}");
    hop.trust.pins = vec![detail["fingerprint"].as_str().expect("a text").to_owned()];
    Connection::open(&route(hop.clone())).await.expect("a pinned key");
    hop.trust.pins = vec!["SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into()];
    let changed = Connection::open(&route(hop.clone())).await.expect_err("another key");
    assert_eq!(changed.code(), Code::ConnectionUntrusted);
    assert!(changed.message().contains("has changed") && changed.message().contains(&hop.trust.pins[0]), "{changed}");
    assert!(changed.message().contains(&lab.fingerprint()), "both fingerprints are shown: {changed}");
    // As ssh-keygen writes it, names hashed.
    let known = lab.path().join("known_hosts");
    let public = std::fs::read_to_string(lab.path().join("host.pub")).expect("a key");
    std::fs::write(&known, format!("[127.0.0.1]:{} {public}", lab.place.port())).expect("a file");
    let hashed = Command::new("ssh-keygen").arg("-Hf").arg(&known).output().expect("ssh-keygen");
    assert!(hashed.status.success() && std::fs::read_to_string(&known).expect("a file").starts_with("|1|"));
    hop.trust = Trust { pins: vec![], known_hosts: vec![known] };
    Connection::open(&route(hop)).await.expect("a known key");
}

#[tokio::test]
async fn keys_passphrases_and_the_agent_let_in() {
    let lab = Lab::new(Tools::System, "lua5.4").await;
    let nothing = Auth::default();
    let refused = Connection::open(&route(vmoon_remote::Hop { auth: nothing, ..lab.hop() })).await.expect_err("nothing to show");
    assert_eq!(refused.code(), Code::ConnectionAuth);
    assert!(refused.hint_text().is_some_and(|hint| hint.contains("publickey")), "{refused:?}");
    let stranger = key(lab.path(), "stranger", "ed25519", "");
    let refused =
        Connection::open(&route(vmoon_remote::Hop { auth: Auth { identities: vec![stranger.clone()], ..Auth::default() }, ..lab.hop() }))
            .await;
    let refused = refused.expect_err("not an authorized key");
    assert!(refused.code() == Code::ConnectionAuth && refused.message().contains("stranger"), "{refused}");
    // Locked by a passphrase; of another kind; given as text.
    let locked = key(lab.path(), "locked", "ecdsa", "open sesame");
    let rsa = key(lab.path(), "rsa", "rsa", "");
    let mut authorized = std::fs::read_to_string(lab.path().join("authorized")).expect("a file");
    for file in [&locked, &rsa] {
        authorized += &std::fs::read_to_string(file.with_extension("pub")).expect("a key");
    }
    std::fs::write(lab.path().join("authorized"), authorized).expect("a file");
    let with = |auth: Auth| route(vmoon_remote::Hop { auth, ..lab.hop() });
    let only_locked = Auth { identities: vec![locked.clone()], ..Auth::default() };
    let error = Connection::open(&with(only_locked.clone())).await.expect_err("no passphrase");
    assert!(error.message().contains("passphrase"), "{error}");
    let wrong = Auth { passphrase: Some(Secret::new("open barley")), ..only_locked.clone() };
    let error = Connection::open(&with(wrong)).await.expect_err("a wrong passphrase");
    assert!(error.code() == Code::ConnectionAuth && !format!("{error:?}").contains("barley"), "{error:?}");
    Connection::open(&with(Auth { passphrase: Some(Secret::new("open sesame")), ..only_locked })).await.expect("the passphrase");
    let text = std::fs::read_to_string(&rsa).expect("a key");
    Connection::open(&with(Auth { keys: vec![Secret::new(text)], ..Auth::default() })).await.expect("a key given as text");
    // An agent with one key too many.
    let socket = lab.path().join("agent");
    let mut agent =
        Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(std::process::Stdio::null()).spawn().expect("ssh-agent");
    let added = timeout(Duration::from_secs(10), async {
        loop {
            let out = Command::new("ssh-add").arg("-q").arg(&stranger).arg(lab.path().join("user")).env("SSH_AUTH_SOCK", &socket).output();
            if out.expect("ssh-add").status.success() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    let added = added.await;
    let entered = Connection::open(&with(Auth { agent: Some(socket), ..Auth::default() })).await;
    let gone = Connection::open(&with(Auth { agent: Some(lab.path().join("no-agent")), ..Auth::default() })).await;
    let _ = agent.kill();
    let _ = agent.wait();
    added.expect("an agent");
    entered.expect("the agent's key");
    assert!(gone.expect_err("no agent").message().contains("agent does not answer"));
}

#[tokio::test]
async fn a_host_behind_a_host_is_reached() {
    let (gate, deep) = (Lab::new(Tools::System, "lua5.4").await, Lab::new(Tools::System, "lua5.4").await);
    let way = Route::new(vec![gate.hop()], deep.hop());
    let connection = Connection::open(&way).await.expect("through the gate");
    let ended = connection.exec(&program(&["env"], b"", 10_000)).await.expect("a program");
    assert!(String::from_utf8_lossy(&ended.stdout).contains(deep.path().to_str().expect("a path")));
    gate.cut();
    timeout(Duration::from_secs(10), connection.closed()).await.expect("the end with the gate's");
    assert_eq!(connection.exec(&program(&["true"], b"", 10_000)).await.expect_err("lost").code(), Code::DriverUnreachable);
    let mut wrong = gate.hop();
    wrong.trust.pins = vec!["SHA256:x".into()];
    assert_eq!(Connection::open(&Route::new(vec![wrong], deep.hop())).await.expect_err("the gate").code(), Code::ConnectionUntrusted);
}

#[tokio::test]
async fn programs_get_their_arguments_and_tell_their_end() {
    let lab = Lab::new(Tools::System, "lua5.4").await;
    let connection = lab.host().connection().await.expect("a connection");
    let odd = "a b'c\"$HOME\\`ls`;&|\n*é";
    let ended = connection.exec(&program(&["sh", "-c", "printf %s \"$1\"; cat; echo bad >&2; exit 7", "x", odd], b"in\0put", 10_000)).await;
    let wanted = [odd.as_bytes(), b"in\0put"].concat();
    let ended = ended.expect("a program");
    assert_eq!((ended.code, ended.signal, ended.stdout), (Some(7), None, wanted));
    assert!(ended.stderr.ends_with(b"bad\n"), "{}", ended.stderr.escape_ascii());
    let ended = connection.exec(&program(&["sh", "-c", "kill -TERM $$"], b"", 10_000)).await.expect("a program");
    assert_eq!((ended.code, ended.signal), (None, Some(15)));
    let late = connection.exec(&program(&["sleep", "60"], b"", 300)).await.expect_err("too slow");
    assert_eq!(late.code(), Code::OperationDeadline);
    assert_eq!(connection.exec(&program(&[], b"", 300)).await.expect_err("nothing").code(), Code::Usage);
    let much = connection
        .exec(&program(
            &["sh", "-c", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done | lua -e 'io.write(io.read(17000000))'"],
            b"",
            30_000,
        ))
        .await;
    let Ended { stdout, truncated, .. } = much.expect("much output");
    assert!(truncated && stdout.len() == vmoon_remote::OUTPUT);
    // More at once than the server's ten sessions: the rest waits for its turn.
    let many: Vec<_> = (0..30)
        .map(|n| {
            let connection = connection.clone();
            tokio::spawn(async move { connection.exec(&program(&["sh", "-c", "echo $1", "x", &n.to_string()], b"", 20_000)).await })
        })
        .collect();
    for (n, one) in many.into_iter().enumerate() {
        assert_eq!(one.await.expect("a task").expect("a program").stdout, format!("{n}\n").as_bytes());
    }
}

#[tokio::test]
async fn files_are_copied_whole_or_not_at_all() {
    let lab = Lab::new(Tools::System, "lua5.4").await;
    let files = lab.host().connection().await.expect("a connection").files().await.expect("sftp");
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    let place = lab.path().join("a file with 'quotes'\n");
    let place = place.to_str().expect("a path");
    for turn in 1..=2 {
        assert_eq!(files.put(place, &mut &data[turn..]).await.expect("a copy"), (data.len() - turn) as u64);
        assert_eq!(std::fs::read(place).expect("a file"), &data[turn..]);
    }
    let mut back = Vec::new();
    files.get(place, &mut back).await.expect("a copy");
    assert_eq!(back, &data[2..]);
    assert_eq!(files.get("/no/such/file", &mut Vec::new()).await.expect_err("nothing").code(), Code::FileNotFound);
    assert!(files.put("/no/such/dir/file", &mut &b"x"[..]).await.is_err());
    let left = std::fs::read_dir(lab.path())
        .expect("a directory")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".part"));
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn a_shell_talks_resizes_and_ends() {
    let lab = Lab::new(Tools::System, "lua5.4").await;
    let host = lab.host();
    let (told, ended) = tokio::sync::oneshot::channel();
    let mut link = shell::open(host.clone(), move || told.send(()).unwrap_or_default());
    assert_eq!(*host.link().borrow(), Link::Idle, "nothing begins before the first key");
    async fn until(link: &mut vmoon_core::driver::SessionLink, wanted: &str) -> String {
        let (mut buf, mut text) = (Vec::new(), String::new());
        while !text.contains(wanted) {
            match timeout(Duration::from_secs(20), link.reader.next(&mut buf)).await.expect("in time").expect("an item") {
                LinkItem::Stream { .. } => {
                    crate::lab::heard(&buf).iter().for_each(|frame| text += &String::from_utf8_lossy(&frame.payload))
                }
                other => panic!("{other:?} after {text:?}"),
            }
        }
        text
    }
    async fn send(link: &mut vmoon_core::driver::SessionLink, tag: u8, payload: &[u8]) {
        link.writer.send(Frame { tag, id: 0, payload }).await.expect("a frame");
    }
    send(&mut link, tag::RESIZE, &[100, 0, 30, 0]).await;
    send(&mut link, tag::INPUT, b"PS1=; echo si''ze $(/bin/stty size </dev/tty)\n").await;
    until(&mut link, "size 30 100").await;
    send(&mut link, tag::RESIZE, &[120, 0, 40, 0]).await;
    send(&mut link, tag::INPUT, b"echo si''ze $(/bin/stty size </dev/tty)\n").await;
    until(&mut link, "size 40 120").await;
    // Once the child says something it is what the terminal's signals go to.
    send(&mut link, tag::INPUT, b"sh -c 'echo sl$((1))eep; exec sleep 100'\n").await;
    until(&mut link, "sl1eep").await;
    send(&mut link, tag::INTERRUPT, b"").await;
    send(&mut link, tag::INPUT, b"exit 5\n").await;
    let mut buf = Vec::new();
    let exit = loop {
        match timeout(Duration::from_secs(20), link.reader.next(&mut buf)).await.expect("in time").expect("an item") {
            LinkItem::Ended(exit) => break exit,
            LinkItem::Broken => panic!("broken"),
            LinkItem::Stream { .. } | LinkItem::Direct => {}
        }
    };
    assert_eq!(exit, Exit::Code { code: 5 });
    ended.await.expect("told of the end");
    // One that is cut off ends with its connection, and says so.
    let mut link = shell::open(host, || ());
    send(&mut link, tag::INPUT, b"PS1=; echo re''ady\n").await;
    until(&mut link, "ready").await;
    lab.cut();
    until(&mut link, "the shell has ended with it").await;
    let item = timeout(Duration::from_secs(20), link.reader.next(&mut buf)).await.expect("in time").expect("an item");
    assert_eq!(item, LinkItem::Ended(Exit::Lost));
}

#[tokio::test]
async fn a_lost_connection_is_made_again() {
    let lab = Lab::new(Tools::System, "lua5.4").await;
    let host = lab.host();
    let mut link = host.link();
    host.connection().await.expect("a connection");
    assert_eq!(*link.borrow_and_update(), Link::Connected);
    lab.cut();
    let seen = timeout(Duration::from_secs(20), async {
        let mut seen = Vec::new();
        loop {
            link.changed().await.expect("a change");
            let now = link.borrow_and_update().clone();
            seen.push(now.clone());
            if now == Link::Connected {
                return seen;
            }
        }
    });
    let seen = seen.await.expect("a new connection");
    assert!(seen.iter().all(|link| matches!(link, Link::Connected | Link::Reconnecting { .. })), "{seen:?}");
    // Nothing listens there any more.
    let mut hop = lab.hop();
    hop.port = 1;
    let nobody = Host::new(Route { connect: Duration::from_secs(5), ..route(hop) });
    assert_eq!(nobody.connection().await.expect_err("nobody").code(), Code::DriverUnreachable);
    assert!(matches!(&*nobody.link().borrow(), Link::Lost(record) if record.code == Code::DriverUnreachable));
    // A server that says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let mut hop = lab.hop();
    hop.port = silent.local_addr().expect("an address").port();
    let mute = Host::new(Route { connect: Duration::from_millis(300), ..route(hop) });
    let error = timeout(Duration::from_secs(5), mute.connection()).await.expect("bounded").expect_err("silent");
    assert_eq!(error.code(), Code::DriverUnreachable);
    assert!(!me().is_empty());
}

/// The connection stands, and nothing comes through it any more: a cable that was pulled, a computer that hangs.
#[tokio::test]
async fn a_host_that_falls_silent_is_given_up_and_reached_again() {
    let lab = Lab::new(Tools::System, "lua5.4").await;
    let keepalive = Duration::from_millis(200);
    let host = Host::new(Route { keepalive, keepalive_max: 3, ..route(lab.hop()) });
    let first = host.connection().await.expect("a connection");
    let (valve, begun) = (lab.valve(), std::time::Instant::now());
    valve.hold_after(0);
    timeout(Duration::from_secs(20), first.closed()).await.expect("it is given up");
    assert!(begun.elapsed() >= keepalive * 2, "not before it was asked: {:?}", begun.elapsed());
    assert!(first.is_closed());
    valve.go();
    let again = timeout(Duration::from_secs(20), host.connection()).await.expect("in time").expect("a connection");
    assert_eq!(again.exec(&program(&["true"], b"", 10_000)).await.expect("a program").code, Some(0));
}
