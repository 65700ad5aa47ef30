//! Whom to reach, as whom, and how patiently.

use crate::{
    secret::Password,
    trust::{Fingerprint, Trust},
};
use std::{collections::BTreeMap, time::Duration};

/// What a [`Client`](crate::Client) is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// The pool's coordinator or any member, `name` or `name:port`, IPv6 in brackets; the port is 443 if not said.
    pub host: String,
    /// Who logs in.
    pub user: String,
    /// With what.
    pub password: Password,
    /// Who is said to call: XAPI keeps at most 500 sessions of one originator and drops the oldest (`xapi_globs.ml`), so programs that share one
    /// end each other's sessions.
    pub originator: String,
    /// Whose certificates are taken.
    pub trust: Trust,
    /// How long a call may take that says nothing else.
    pub deadline: Duration,
    /// How long a connection may take to be made.
    pub connect: Duration,
    /// How many calls may be under way at once; further ones wait.
    pub in_flight: usize,
    /// The largest answer that is read, bytes.
    pub max_answer: usize,
}

impl Config {
    /// The usual: system roots, 60 s a call, 10 s to connect, 8 calls at once, 256 MiB an answer.
    pub fn new(host: impl Into<String>, user: impl Into<String>, password: Password) -> Self {
        Self {
            host: host.into(),
            user: user.into(),
            password,
            originator: "vmoon".into(),
            trust: Trust::default(),
            deadline: Duration::from_secs(60),
            connect: Duration::from_secs(10),
            in_flight: 8,
            max_answer: 256 << 20,
        }
    }

    /// Takes this certificate of that host, whoever has signed it, and no other.
    pub fn pin(&mut self, host: impl Into<String>, fingerprint: Fingerprint) {
        self.trust.pins.insert(host.into(), fingerprint);
    }

    /// The pins, by host.
    pub fn pins(&self) -> &BTreeMap<String, Fingerprint> {
        &self.trust.pins
    }
}
