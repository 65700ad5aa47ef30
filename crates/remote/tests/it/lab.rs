//! How the tests' own host is reached.

use vmoon_core::frame::Frame;
use vmoon_remote::{Auth, Hop, Host, Route, Trust};
pub(crate) use vmoon_ssh_lab::{Lab, Tools, key, me, walk};

/// The way to a host of the tests'.
pub(crate) trait Reach {
    fn hop(&self) -> Hop;
    fn host(&self) -> Host;
}

impl Reach for Lab {
    fn hop(&self) -> Hop {
        Hop {
            name: "lab".into(),
            host: "127.0.0.1".into(),
            port: self.place.port(),
            user: me(),
            auth: Auth { identities: vec![self.identity()], ..Auth::default() },
            trust: Trust { pins: vec![self.fingerprint()], known_hosts: Vec::new() },
        }
    }

    fn host(&self) -> Host {
        Host::new(Route::new(Vec::new(), self.hop()))
    }
}

/// An encoded frame's parts, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) tag: u8,
    pub(crate) id: u64,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn heard(bytes: &[u8]) -> Vec<Heard> {
    let (mut all, mut at) = (Vec::new(), 0);
    while let Ok(Some((frame, n))) = Frame::decode(&bytes[at..]) {
        all.push(Heard { tag: frame.tag, id: frame.id, payload: frame.payload.to_vec() });
        at += n;
    }
    assert_eq!(at, bytes.len(), "a part of a frame");
    all
}
