//! What a message looks like: a length, a header of six words, a body. Source: src/rpc/virnetprotocol.x of libvirt 9.0.0.

use crate::xdr::{Decoder, Malformed};

/// Bytes of the length and the header.
pub const HEAD: usize = 28;

/// The largest message, bytes, its length not counted (`VIR_NET_MESSAGE_MAX`).
pub const MESSAGE_MAX: usize = 33_554_432;

/// How many file descriptors may come with a message (`VIR_NET_MESSAGE_NUM_FDS_MAX`).
pub const DESCRIPTORS_MAX: usize = 32;

/// How much stream data is put into one message (`VIR_NET_MESSAGE_LEGACY_PAYLOAD_MAX`, what every libvirt takes).
pub const STREAM_CHUNK: usize = 262_120;

/// The program that most procedures belong to.
pub const PROGRAM_REMOTE: u32 = 0x2000_8086;
/// The program of what only QEMU has (src/remote/qemu_protocol.x).
pub const PROGRAM_QEMU: u32 = 0x2000_8087;
/// The program by which both sides ask whether the other is there (src/rpc/virkeepaliveprotocol.x).
pub const PROGRAM_KEEPALIVE: u32 = 0x6b65_6570;
/// The version of each of them.
pub const VERSION: u32 = 1;

/// Procedure of [`PROGRAM_KEEPALIVE`]: are you there?
pub const PING: u32 = 1;
/// Procedure of [`PROGRAM_KEEPALIVE`]: yes.
pub const PONG: u32 = 2;

/// What a message is (`virNetMessageType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Arguments of a call.
    Call,
    /// Its result or its error.
    Reply,
    /// Said without being asked: an event.
    Message,
    /// Data of a stream, its end or its error.
    Stream,
    /// A call that file descriptors come with.
    CallWithDescriptors,
    /// A result that file descriptors come with.
    ReplyWithDescriptors,
    /// A part of a stream that is not there: a hole of a file.
    StreamHole,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Call, Self::Reply, Self::Message, Self::Stream, Self::CallWithDescriptors, Self::ReplyWithDescriptors, Self::StreamHole];

    fn number(self) -> u32 {
        self as u32
    }
}

/// How it stands with what the message belongs to (`virNetMessageStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Well; in a stream: the end, or that the end was understood.
    Ok,
    /// An error, which is the body; in a stream, from us: give it up.
    Error,
    /// A stream goes on.
    Continue,
}

impl Status {
    const ALL: [Self; 3] = [Self::Ok, Self::Error, Self::Continue];
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which program.
    pub program: u32,
    /// Which of its versions.
    pub version: u32,
    /// Which procedure of it.
    pub procedure: u32,
    /// What the message is.
    pub kind: Kind,
    /// The number of the call it belongs to; 0 for events.
    pub serial: u32,
    /// How it stands.
    pub status: Status,
}

impl Header {
    /// Writes length and header into the first [`HEAD`] bytes of a message whose body is already behind them.
    ///
    /// # Errors
    /// If the message is too large.
    pub fn seal(&self, message: &mut [u8]) -> Result<(), &'static str> {
        if message.len() > MESSAGE_MAX {
            return Err("a message is larger than 32 MiB");
        }
        let length = message.len() as u32;
        let words = [length, self.program, self.version, self.procedure, self.kind.number(), self.serial, self.status as u32];
        for (place, word) in message.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        Ok(())
    }

    /// A whole message.
    ///
    /// # Errors
    /// If it is too large.
    pub fn message(&self, body: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut message = Vec::with_capacity(HEAD + body.len());
        message.resize(HEAD, 0);
        message.extend_from_slice(body);
        self.seal(&mut message)?;
        Ok(message)
    }

    /// Reads the header of a message whose length was read before.
    ///
    /// # Errors
    /// If it is cut, or of a kind or status that nobody knows.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let [program, version, procedure, kind, serial, status] =
            [from.u32()?, from.u32()?, from.u32()?, from.u32()?, from.u32()?, from.u32()?];
        let kind = Kind::ALL.get(kind as usize).copied().ok_or_else(|| from.malformed("an unknown kind of message"))?;
        let status = Status::ALL.get(status as usize).copied().ok_or_else(|| from.malformed("an unknown status"))?;
        Ok(Self { program, version, procedure, kind, serial, status })
    }
}

/// The length that a message claims, itself included, if it may be so.
///
/// # Errors
/// If it is shorter than a header or longer than any message may be.
pub fn length(word: [u8; 4]) -> Result<usize, Malformed> {
    let length = u32::from_be_bytes(word) as usize;
    if length < HEAD {
        return Err(Malformed { what: "a message that is shorter than its header", at: 0 });
    }
    if length > MESSAGE_MAX + 4 {
        return Err(Malformed { what: "a message that claims more than 32 MiB", at: 0 });
    }
    Ok(length)
}
