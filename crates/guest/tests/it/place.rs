//! A host that plays a guest, the records of one connection, and a session as the daemon holds it.

use async_trait::async_trait;
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};
use tokio::time::timeout;
use vmoon_core::{
    Result,
    ability::{Change, Ended, Program},
    driver::{Channel, Exit, LinkItem, Offset, SessionLink},
    frame::{Eval, Failure, Frame, tag},
    spec::Problems,
};
use vmoon_guest::{Config, Guests, Machine, Place, Places, settings::Wanted};
use vmoon_ssh_lab::Lab;
use vmoon_sys::login::Login;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The guests of a connection, as a daemon that has just started sees them.
pub(crate) fn guests(dir: &Path) -> Guests {
    Guests::new(Config { dir: dir.join("guests"), connection: "c1".into(), login: Login::default(), environments: None })
}

/// The one machine, in that run.
pub(crate) fn machine(run: u64) -> Machine<'static> {
    Machine { key: "vm-1", name: "web01", run }
}

/// Where it can be reached.
pub(crate) struct At(pub(crate) Vec<(String, u16)>);

impl At {
    pub(crate) fn lab(lab: &Lab) -> Self {
        Self(vec![("127.0.0.1".into(), lab.place.port())])
    }
}

#[async_trait]
impl Places for At {
    async fn places(&self, key: &str) -> Result<Vec<Place>> {
        assert_eq!(key, "vm-1");
        Ok(self.0.iter().map(|(host, port)| Place { host: host.clone(), port: Some(*port) }).collect())
    }
}

/// Lets the host be what a seed would have made of it.
pub(crate) fn seeded(guests: &Guests, lab: &Lab) {
    let entry = guests.prepare("vm-1", &vmoon_ssh_lab::me()).expect("an entry");
    fs::write(lab.path().join("host"), entry.host.private()).expect("a host key");
    fs::set_permissions(lab.path().join("host"), fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::write(lab.path().join("host.pub"), entry.host.public()).expect("a host key");
    fs::write(lab.path().join("authorized"), format!("{}\n", entry.key)).expect("a key");
}

/// Changes how it is entered.
pub(crate) fn set(guests: &Guests, settings: Value) -> Result<Vec<Change>> {
    let (mut settings, mut problems) = (settings.as_object().cloned().expect("an object"), Problems::default());
    let wanted = Wanted::take(&mut settings, &mut problems);
    problems.or(())?;
    guests.tune("vm-1", &wanted, false)
}

/// What lets us into a host as it is.
pub(crate) fn known(lab: &Lab) -> Value {
    json!({ "ssh-user": vmoon_ssh_lab::me(), "ssh-identity": lab.identity(), "ssh-fingerprint": lab.fingerprint() })
}

pub(crate) fn channel(guests: &Guests, run: u64, name: &str) -> Channel {
    guests.channels("vm-1", run).into_iter().find(|channel| channel.name == name).expect("the channel")
}

pub(crate) async fn exec(guests: &Guests, at: &At, argv: &[&str]) -> Result<Ended> {
    let program = Program { argv: argv.iter().map(|word| (*word).to_owned()).collect(), stdin: Vec::new(), deadline_ms: 20_000 };
    guests.exec(&machine(1), &program, at).await
}

/// An open channel.
pub(crate) struct Talk {
    pub(crate) link: SessionLink,
    pub(crate) at: Offset,
    last: u64,
}

impl Talk {
    pub(crate) async fn open(guests: &Guests, at: &At, run: u64, channel: &Channel, from: Offset) -> Result<Self> {
        let link = timeout(PATIENCE, guests.open(&machine(run), channel, from, at)).await.expect("in time")?;
        let last = link.last_command;
        Ok(Self { link, at: from, last })
    }

    /// What the session says next: pieces of the stream as text, or its end.
    pub(crate) async fn next(&mut self) -> Result<Result<Vec<(u8, Vec<u8>)>, Exit>> {
        let mut buf = Vec::new();
        match timeout(PATIENCE, self.link.reader.next(&mut buf)).await.expect("in time")? {
            LinkItem::Stream { at } => {
                assert_eq!(at, self.at);
                let (mut rest, mut frames) = (buf.as_slice(), Vec::new());
                while let Some((frame, used)) = Frame::decode(rest).expect("a frame") {
                    self.at += frame.stream_len();
                    frames.push((frame.tag, frame.payload.to_vec()));
                    rest = &rest[used..];
                }
                Ok(Ok(frames))
            }
            LinkItem::Direct => Ok(Ok(Vec::new())),
            LinkItem::Ended(exit) => Ok(Err(exit)),
            LinkItem::Broken => Err(vmoon_core::Error::new(vmoon_core::Code::DriverUnreachable, "broken")),
        }
    }

    pub(crate) async fn send(&mut self, tag: u8, id: u64, payload: &[u8]) {
        self.link.writer.send(Frame { tag, id, payload }).await.expect("sent");
    }

    /// Evaluates a chunk; what it printed.
    pub(crate) async fn eval(&mut self, code: &str) -> String {
        self.last += 1;
        let payload = Eval { deadline_ms: 0, token: b"", code: code.as_bytes() }.to_vec();
        self.send(tag::EVAL, self.last, &payload).await;
        let mut said = Vec::new();
        loop {
            for (kind, payload) in self.next().await.expect("a link").expect("it lives") {
                match kind {
                    tag::STDOUT => said.extend_from_slice(&payload),
                    tag::ERROR => panic!("{}", String::from_utf8_lossy(Failure::decode(&payload).expect("a failure").message)),
                    tag::DONE => return String::from_utf8(said).expect("text"),
                    _ => {}
                }
            }
        }
    }
}
