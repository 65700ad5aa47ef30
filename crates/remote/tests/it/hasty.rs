//! A server that closes channels before anything has begun on them, as Dropbear does when a program of another channel ends just then.

use crate::lab::{key, me};
use russh::{
    Channel, ChannelId, MethodKind, MethodSet,
    keys::load_secret_key,
    server::{self, Auth as Answer, ChannelOpenHandle, Handler, Msg, Session},
};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use tokio::net::TcpListener;
use vmoon_core::{Code, ability::Program};
use vmoon_remote::{Auth, Connection, Hop, Host, Route, Trust, guest::Guest};

/// How many more channels are closed too early, and how many programs have run.
#[derive(Clone, Default)]
struct Hasty {
    closes: Arc<AtomicU32>,
    runs: Arc<AtomicU32>,
}

impl Handler for Hasty {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: server::VerifiedPublicKey<'_>) -> Result<Answer, Self::Error> {
        Ok(Answer::Accept)
    }

    async fn channel_open_session(&mut self, _: Channel<Msg>, reply: ChannelOpenHandle, _: &mut Session) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, channel: ChannelId, line: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        let early = self.closes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if !early {
            self.runs.fetch_add(1, Ordering::SeqCst);
            session.channel_success(channel)?;
            // The look at a host that has no session yet, or some program.
            let looks = line.windows(6).any(|window| window == b"printf");
            session.data(channel, if looks { "base /b\nboot x\nlua /bin/lua\nlife 0 none\n" } else { "done" })?;
            session.exit_status_request(channel, 0)?;
        }
        session.eof(channel)?;
        session.close(channel)
    }
}

#[tokio::test]
async fn a_channel_that_is_closed_before_anything_began_is_opened_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, user) = (key(dir.path(), "host", "ed25519", ""), key(dir.path(), "user", "ed25519", ""));
    let host = load_secret_key(file, None).expect("a key");
    let pin = host.public_key().fingerprint(russh::keys::HashAlg::Sha256).to_string();
    let kinds: &[MethodKind] = &[MethodKind::PublicKey];
    let config = Arc::new(server::Config { methods: MethodSet::from(kinds), keys: vec![host], ..server::Config::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let server = Hasty::default();
    let handler = server.clone();
    drop(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(session) = server::run_stream(config.clone(), stream, handler.clone()).await {
                drop(tokio::spawn(session));
            }
        }
    }));
    let auth = Auth { identities: vec![user], ..Auth::default() };
    let trust = Trust { pins: vec![pin], known_hosts: Vec::new() };
    let route = Route::new(Vec::new(), Hop { name: "hasty".into(), host: "127.0.0.1".into(), port, user: me(), auth, trust });
    let connection = Connection::open(&route).await.expect("a connection");
    let program = Program { argv: vec!["x".into()], stdin: b"in".to_vec(), deadline_ms: 10_000 };
    server.closes.store(2, Ordering::SeqCst);
    let ended = connection.exec(&program).await.expect("the third attempt");
    assert_eq!((ended.code, ended.stdout.as_slice(), server.runs.load(Ordering::SeqCst)), (Some(0), &b"done"[..], 1));
    let guest = Guest::new(Host::new(route), "owner", "main", None).expect("a name");
    server.closes.store(2, Ordering::SeqCst);
    assert_eq!(guest.look().await.expect("the third attempt").next_life(), 1);
    // Not for ever.
    server.closes.store(u32::MAX, Ordering::SeqCst);
    let error = connection.exec(&program).await.expect_err("nothing ever begins");
    assert!(error.code() == Code::DriverUnreachable && error.message().contains("before it has begun"), "{error}");
    assert_eq!(guest.look().await.expect_err("nor there").code(), Code::DriverUnreachable);
    assert_eq!((server.runs.load(Ordering::SeqCst), u32::MAX - server.closes.load(Ordering::SeqCst)), (2, 8));
}
