//! The first frame in each direction on a holder's socket: who speaks which protocol, and where the stream stands.
//!
//! Both payloads are JSON under the tag [`vmoon_core::frame::tag::HELLO`]. Fields this version does not know are
//! ignored and fields an older peer does not send have defaults, so shapes only ever grow. This file must not know how
//! frames travel.

use serde::{Deserialize, Serialize};
use std::fmt;
use vmoon_core::{Code, Error, Result};

/// The newest protocol this build speaks. 2 brought arguments and results as data (the frames CALL and DATA).
pub const PROTOCOL: u32 = 2;
/// The oldest protocol this build still speaks.
pub const MIN_PROTOCOL: u32 = 1;

/// The range of protocols one side speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u32,
    /// The newest.
    pub max: u32,
}

impl Versions {
    /// What this build speaks.
    pub const OURS: Versions = Versions { min: MIN_PROTOCOL, max: PROTOCOL };
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max { write!(f, "{}", self.max) } else { write!(f, "{} to {}", self.min, self.max) }
    }
}

/// The newest protocol that both sides speak.
///
/// # Errors
/// [`Code::WireVersion`] if there is none; the hint says which side is the older one.
pub fn negotiate(ours: Versions, theirs: Versions) -> Result<u32> {
    let newest = ours.max.min(theirs.max);
    if newest >= ours.min && newest >= theirs.min {
        return Ok(newest);
    }
    let hint = if ours.max < theirs.min {
        "the other side is newer: run the vmoon that started it"
    } else if theirs.max < ours.min {
        "the other side is older: stop the machine with the vmoon that started it, then start it again"
    } else {
        "the other side's range is empty: it is not a vmoon holder or daemon"
    };
    Err(Error::new(Code::WireVersion, format!("no common holder protocol: this side speaks {ours}, the other {theirs}")).hint(hint))
}

/// What the daemon sends first. Unknown fields are ignored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// The newest protocol the daemon speaks.
    pub protocol: u32,
    /// The oldest it speaks; 0 where an old peer does not say, meaning the same as `protocol`.
    #[serde(default)]
    pub min_protocol: u32,
    /// The key from the holder's `meta.json`. Never printed.
    pub key: String,
    /// Send the stream from this byte offset.
    #[serde(default)]
    pub from: u64,
}

impl fmt::Debug for ClientHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is a secret: not even its length is shown.
        write!(f, "ClientHello {{ protocol: {}, min_protocol: {}, from: {} }}", self.protocol, self.min_protocol, self.from)
    }
}

impl ClientHello {
    /// A hello of this build.
    pub fn new(key: impl Into<String>, from: u64) -> Self {
        Self::of(Versions::OURS, key, from)
    }

    /// A hello of a side that speaks these protocols.
    pub fn of(speaks: Versions, key: impl Into<String>, from: u64) -> Self {
        Self { protocol: speaks.max, min_protocol: speaks.min, key: key.into(), from }
    }

    /// The protocols the sender speaks.
    pub fn versions(&self) -> Versions {
        versions(self.min_protocol, self.protocol)
    }

    /// Reads the payload of a hello frame.
    ///
    /// # Errors
    /// [`Code::WireVersion`] if it is not a hello of any version.
    pub fn decode(payload: &[u8]) -> Result<Self> {
        decode(payload, "daemon")
    }

    /// The payload.
    pub fn to_vec(&self) -> Vec<u8> {
        encode(self)
    }
}

/// An error inside a hello: a stable code and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloError {
    /// As [`Code::as_str`]; a text this version does not know is kept.
    pub code: String,
    /// What happened.
    #[serde(default)]
    pub message: String,
}

impl HelloError {
    /// The same as an error of ours; an unknown code becomes [`Code::Unknown`].
    pub fn to_error(&self) -> Error {
        Error::new(self.code.parse().unwrap_or(Code::Unknown), self.message.clone())
    }
}

impl From<&Error> for HelloError {
    fn from(error: &Error) -> Self {
        Self { code: error.code().as_str().to_owned(), message: error.chain() }
    }
}

/// What the holder answers. Unknown fields are ignored; all but the protocol have defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HolderHello {
    /// The newest protocol the holder speaks.
    pub protocol: u32,
    /// The oldest it speaks; 0 means the same as `protocol`.
    pub min_protocol: u32,
    /// The version of vmoon the holder was built from.
    pub version: String,
    /// The Lua that runs, for example `Lua 5.4` or `LuaJIT 2.1.0-beta3`.
    pub runtime: String,
    /// Process id of the holder.
    pub pid: u32,
    /// Byte offset the stream will be sent from: what was asked for, or the nearest that is still kept.
    pub at: u64,
    /// Oldest byte offset still kept.
    pub oldest: u64,
    /// Byte offset behind the newest frame.
    pub end: u64,
    /// The largest command id accepted so far, 0 for none.
    pub last_command: u64,
    /// The command that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<u64>,
    /// How many commands wait.
    pub queued: u32,
    /// Whether the running command waits for input.
    pub waiting_input: bool,
    /// What is done when the ring is full and nobody acknowledges: `spill`, `wait` or `drop`.
    pub overflow: String,
    /// Stream bytes lost so far.
    pub lost: u64,
    /// Why the holder refuses this connection, or what is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<HelloError>,
}

impl HolderHello {
    /// A hello of a side that speaks these protocols and refuses the connection.
    pub fn refusal(speaks: Versions, error: &Error) -> Self {
        Self { protocol: speaks.max, min_protocol: speaks.min, error: Some(error.into()), ..Self::default() }
    }

    /// The protocols the sender speaks.
    pub fn versions(&self) -> Versions {
        versions(self.min_protocol, self.protocol)
    }

    /// Reads the payload of a hello frame.
    ///
    /// # Errors
    /// [`Code::WireVersion`] if it is not a hello of any version.
    pub fn decode(payload: &[u8]) -> Result<Self> {
        let hello: Self = decode(payload, "holder")?;
        if hello.protocol == 0 {
            return Err(Error::new(Code::WireVersion, "the holder's hello names no protocol"));
        }
        Ok(hello)
    }

    /// The payload.
    pub fn to_vec(&self) -> Vec<u8> {
        encode(self)
    }
}

fn versions(min: u32, max: u32) -> Versions {
    Versions { min: if min == 0 { max } else { min }, max }
}

fn decode<'de, T: Deserialize<'de>>(payload: &'de [u8], who: &str) -> Result<T> {
    serde_json::from_slice(payload).map_err(|e| Error::new(Code::WireVersion, format!("the {who}'s hello cannot be read")).source(e))
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default() // plain numbers and strings always serialise
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(min: u32, max: u32) -> Versions {
        Versions { min, max }
    }

    #[test]
    fn the_newest_common_protocol_is_spoken() {
        assert_eq!(negotiate(Versions::OURS, Versions::OURS).unwrap(), PROTOCOL);
        assert_eq!(negotiate(v(1, 1), v(1, 3)).unwrap(), 1, "a newer peer that still speaks ours");
        assert_eq!(negotiate(v(2, 4), v(1, 3)).unwrap(), 3, "an older peer");
        for (ours, theirs, word) in [(v(1, 1), v(2, 3), "newer"), (v(3, 4), v(1, 2), "older"), (v(1, 4), v(3, 2), "empty")] {
            let error = negotiate(ours, theirs).unwrap_err();
            assert_eq!(error.code(), Code::WireVersion);
            assert!(error.hint_text().is_some_and(|h| h.contains(word)), "{error:?}");
        }
    }

    #[test]
    fn a_newer_daemon_is_understood_and_its_key_is_not_shown() {
        let hello = ClientHello::decode(br#"{"protocol":9,"min_protocol":1,"key":"s3cret","from":77,"colour":"blue"}"#).unwrap();
        assert_eq!((hello.from, negotiate(Versions::OURS, hello.versions()).unwrap()), (77, PROTOCOL));
        assert!(!format!("{hello:?}").contains("s3cret"));
    }

    #[test]
    fn an_older_peer_may_leave_fields_out() {
        let client = ClientHello::decode(br#"{"protocol":1,"key":""}"#).unwrap();
        assert_eq!((client.from, client.versions()), (0, v(1, 1)));
        let holder = HolderHello::decode(br#"{"protocol":1,"running":null,"error":{"code":"from.the.future"}}"#).unwrap();
        assert_eq!((holder.running, holder.versions()), (None, v(1, 1)));
        assert_eq!(holder.error.unwrap().to_error().code(), Code::Unknown);
    }

    #[test]
    fn hellos_round_trip() {
        let client = ClientHello::new("k", u64::MAX);
        assert_eq!(ClientHello::decode(&client.to_vec()).unwrap(), client);
        let refused = HolderHello::refusal(Versions::OURS, &Error::new(Code::Permission, "wrong key"));
        let holder = HolderHello { runtime: "Lua 5.4".into(), running: Some(3), lost: u64::MAX, ..refused };
        let again = HolderHello::decode(&holder.to_vec()).unwrap();
        assert_eq!(again, holder);
        assert_eq!(again.error.unwrap().to_error().code(), Code::Permission);
    }

    #[test]
    fn what_is_no_hello_is_refused() {
        for bad in [&b""[..], b"{}", b"[]", b"\xff", b"{\"protocol\":\"1\",\"key\":1}", b"{\"protocol\":-1,\"key\":\"\"}"] {
            assert_eq!(ClientHello::decode(bad).unwrap_err().code(), Code::WireVersion, "{bad:?}");
            assert_eq!(HolderHello::decode(bad).unwrap_err().code(), Code::WireVersion, "{bad:?}");
        }
    }
}
