//! Logins with a password, against a server in this process: an sshd would need an account with a password of its own.

use crate::lab::{key, me};
use russh::{
    MethodKind, MethodSet,
    keys::load_secret_key,
    server::{self, Auth as Answer, Handler, Response},
};
use std::{borrow::Cow, path::PathBuf, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use vmoon_core::Code;
use vmoon_remote::{Auth, Connection, Hop, Route, Secret, Trust};

/// What the server asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    Password,
    /// One hidden question, with an empty round before it.
    Question,
    /// Two hidden questions, which a password does not answer.
    TwoQuestions,
    /// A key is not enough.
    KeyAndPassword,
}

struct Door {
    asks: Asks,
    round: u32,
}

const PASSWORD: &str = "pass wörd";

fn judged(good: bool) -> Answer {
    if good { Answer::Accept } else { Answer::reject() }
}

impl Handler for Door {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Answer, Self::Error> {
        Ok(judged(matches!(self.asks, Asks::Password | Asks::KeyAndPassword) && user == me() && password == PASSWORD))
    }

    async fn auth_publickey(&mut self, _: &str, _: server::VerifiedPublicKey<'_>) -> Result<Answer, Self::Error> {
        Ok(Answer::Reject { proceed_with_methods: Some(MethodSet::from(&[MethodKind::Password][..])), partial_success: true })
    }

    async fn auth_keyboard_interactive<'a>(&'a mut self, _: &str, _: &str, response: Option<Response<'a>>) -> Result<Answer, Self::Error> {
        let answers: Vec<String> =
            response.map(|response| response.map(|answer| String::from_utf8_lossy(&answer).into_owned()).collect()).unwrap_or_default();
        let ask = |questions: &[&'static str]| Answer::Partial {
            name: Cow::Borrowed("a name"),
            instructions: Cow::Borrowed("say it"),
            prompts: Cow::Owned(questions.iter().map(|question| (Cow::Borrowed(*question), false)).collect()),
        };
        self.round += 1;
        Ok(match (self.asks, self.round) {
            (Asks::Question, 1) => ask(&[]),
            (Asks::Question, 2) => ask(&["Password: "]),
            (Asks::Question, _) => judged(answers == [PASSWORD]),
            (Asks::TwoQuestions, 1) => ask(&["Password: ", "Code: "]),
            // It must not have been given to a question that may be another one.
            (Asks::TwoQuestions, _) => judged(answers.iter().any(|answer| answer == PASSWORD)),
            _ => Answer::reject(),
        })
    }
}

/// A route to a server that asks for that.
async fn way(dir: &tempfile::TempDir, asks: Asks, auth: Auth) -> Route {
    let file: PathBuf = dir.path().join("host");
    if !file.exists() {
        key(dir.path(), "host", "ed25519", "");
    }
    let host = load_secret_key(&file, None).expect("a key");
    let pin = host.public_key().fingerprint(russh::keys::HashAlg::Sha256).to_string();
    let kinds: &[MethodKind] = match asks {
        Asks::Password => &[MethodKind::Password],
        Asks::Question | Asks::TwoQuestions => &[MethodKind::KeyboardInteractive],
        Asks::KeyAndPassword => &[MethodKind::PublicKey],
    };
    let config = Arc::new(server::Config {
        methods: MethodSet::from(kinds),
        auth_rejection_time: Duration::ZERO,
        keys: vec![host],
        ..server::Config::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    drop(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(session) = server::run_stream(config.clone(), stream, Door { asks, round: 0 }).await {
                drop(tokio::spawn(session));
            }
        }
    }));
    let trust = Trust { pins: vec![pin], known_hosts: Vec::new() };
    Route::new(Vec::new(), Hop { name: "door".into(), host: "127.0.0.1".into(), port, user: me(), auth, trust })
}

fn with(password: &str) -> Auth {
    Auth { password: Some(Secret::new(password)), ..Auth::default() }
}

#[tokio::test]
async fn a_password_opens_where_one_is_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    for asks in [Asks::Password, Asks::Question] {
        Connection::open(&way(&dir, asks, with(PASSWORD)).await).await.expect("the password");
        for auth in [with("wrong"), with(""), Auth::default()] {
            let error = Connection::open(&way(&dir, asks, auth).await).await.expect_err("no password");
            assert_eq!(error.code(), Code::ConnectionAuth, "{error}");
            assert!(!error.chain().contains("wrong"), "{error}");
        }
    }
    // The password is not given to questions that may mean something else.
    let error = Connection::open(&way(&dir, Asks::TwoQuestions, with(PASSWORD)).await).await.expect_err("two questions");
    assert!(error.message().contains("something that a password does not answer"), "{error}");
    // A key, and then the password.
    let user = key(dir.path(), "user", "ed25519", "");
    let both = Auth { identities: vec![user.clone()], ..with(PASSWORD) };
    Connection::open(&way(&dir, Asks::KeyAndPassword, both).await).await.expect("both");
    let only_key = Auth { identities: vec![user], ..Auth::default() };
    let error = Connection::open(&way(&dir, Asks::KeyAndPassword, only_key).await).await.expect_err("a key only");
    assert!(error.message().contains("is not enough by itself"), "{error}");
}
