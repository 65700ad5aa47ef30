//! What the daemon does with a session: it keeps the stream, opens the link again when it breaks, and sends what was not accepted again.

use crate::lab::{Heard, heard};
use std::time::Duration;
use tokio::time::timeout;
use vmoon_core::{
    driver::{Exit, LinkItem, SessionLink},
    frame::{Eval, Failure, FailureKind, Frame, tag},
};
use vmoon_remote::guest::Guest;

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Talk {
    guest: Guest,
    pub(crate) life: u64,
    link: SessionLink,
    pub(crate) at: u64,
    pub(crate) last: u64,
    pub(crate) frames: Vec<Heard>,
    pub(crate) direct: Vec<Heard>,
    pub(crate) ended: Option<Exit>,
    pub(crate) reopened: u32,
    /// How often since something was read.
    in_a_row: u32,
    unaccepted: Vec<(u8, u64, Vec<u8>)>,
}

impl Talk {
    pub(crate) async fn open(guest: &Guest) -> Self {
        let life = guest.look().await.expect("a look").next_life();
        let link = timeout(PATIENCE, guest.open(life, 0)).await.expect("in time").expect("a session");
        let last = link.last_command;
        Self {
            guest: guest.clone(),
            life,
            link,
            at: 0,
            last,
            frames: Vec::new(),
            direct: Vec::new(),
            ended: None,
            reopened: 0,
            in_a_row: 0,
            unaccepted: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, tag: u8, id: u64, payload: &[u8]) {
        // A link that is broken is opened again by the next read.
        let _ = timeout(PATIENCE, self.link.writer.send(Frame { tag, id, payload })).await.expect("in time");
    }

    pub(crate) async fn start(&mut self, code: &str) -> u64 {
        self.start_within(code, 0).await
    }

    pub(crate) async fn start_within(&mut self, code: &str, deadline_ms: u32) -> u64 {
        self.last += 1;
        let payload = Eval { deadline_ms, token: b"", code: code.as_bytes() }.to_vec();
        self.unaccepted.push((tag::EVAL, self.last, payload.clone()));
        self.send(tag::EVAL, self.last, &payload).await;
        self.last
    }

    pub(crate) async fn again(&mut self) {
        self.reopened += 1;
        self.in_a_row += 1;
        assert!(self.in_a_row < 100, "the link breaks again and again");
        let mut tries = 0;
        self.link = loop {
            match timeout(PATIENCE, self.guest.open(self.life, self.at)).await.expect("in time") {
                Ok(link) => break link,
                Err(error) => {
                    tries += 1;
                    assert!(tries < 100, "{}", error.chain());
                }
            }
        };
        for (tag, id, payload) in self.unaccepted.clone() {
            if id > self.link.last_command {
                self.send(tag, id, &payload).await;
            }
        }
    }

    /// Reads one item.
    pub(crate) async fn read(&mut self) {
        let mut buf = Vec::new();
        let item = timeout(PATIENCE, self.link.reader.next(&mut buf)).await;
        let item =
            item.unwrap_or_else(|_| panic!("nothing came; the last frames: {:?}", &self.frames[self.frames.len().saturating_sub(5)..]));
        match item {
            Ok(LinkItem::Stream { at }) => {
                assert_eq!(at, self.at, "a hole or a repetition");
                self.in_a_row = 0;
                let new = heard(&buf);
                self.at += new.iter().map(|f| Frame { tag: f.tag, id: f.id, payload: &f.payload }.stream_len()).sum::<u64>();
                for frame in &new {
                    if frame.tag == tag::ACCEPTED {
                        self.unaccepted.retain(|(_, id, _)| *id != frame.id);
                    }
                }
                self.frames.extend(new);
            }
            Ok(LinkItem::Direct) => self.direct.extend(heard(&buf)),
            Ok(LinkItem::Ended(exit)) => self.ended = Some(exit),
            Ok(LinkItem::Broken) => self.again().await,
            Err(error) => {
                assert!(error.code() != vmoon_core::Code::WireMalformed, "{}", error.chain());
                self.again().await;
            }
        }
    }

    pub(crate) async fn until(&mut self, what: impl Fn(&Heard) -> bool) {
        while !self.frames.iter().any(&what) {
            assert!(
                self.ended.is_none(),
                "the session has ended: {:?} after {:?}",
                self.ended,
                &self.frames[self.frames.len().saturating_sub(4)..]
            );
            self.read().await;
        }
    }

    /// The frames of a command, once it is done.
    pub(crate) async fn done(&mut self, id: u64) -> Vec<Heard> {
        self.until(|f| f.tag == tag::DONE && f.id == id).await;
        self.frames.iter().filter(|f| f.id == id).cloned().collect()
    }

    pub(crate) async fn eval(&mut self, code: &str) -> Vec<Heard> {
        let id = self.start(code).await;
        self.done(id).await
    }

    /// The printed values of a chunk that must go well.
    pub(crate) async fn value(&mut self, code: &str) -> String {
        let frames = self.eval(code).await;
        match only(&frames, tag::VALUES) {
            Some(values) => String::from_utf8_lossy(&values.payload).into_owned(),
            None => panic!("{frames:?}"),
        }
    }

    pub(crate) async fn ended(&mut self) -> Exit {
        loop {
            if let Some(exit) = &self.ended {
                return exit.clone();
            }
            self.read().await;
        }
    }

    pub(crate) async fn answer(&mut self) -> Heard {
        while self.direct.is_empty() {
            self.read().await;
        }
        self.direct.remove(0)
    }
}

pub(crate) fn only(frames: &[Heard], tag: u8) -> Option<&Heard> {
    let mut all = frames.iter().filter(|f| f.tag == tag);
    let first = all.next();
    assert!(all.next().is_none(), "more than one {}: {frames:?}", tag as char);
    first
}

pub(crate) fn output(frames: &[Heard], tag: u8) -> Vec<u8> {
    frames.iter().filter(|f| f.tag == tag).flat_map(|f| f.payload.clone()).collect()
}

pub(crate) fn failure(frames: &[Heard]) -> (FailureKind, String) {
    let frame = only(frames, tag::ERROR).unwrap_or_else(|| panic!("no error: {frames:?}"));
    let failure = Failure::decode(&frame.payload).expect("a failure");
    (failure.kind, String::from_utf8_lossy(failure.message).into_owned())
}
