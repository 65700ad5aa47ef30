//! The frames of a session: what a holder, the daemon and an attached client say to each other.
//!
//! One frame is `len: u32 LE` (bytes after this field), `tag: u8`, `id: u64 LE`, payload. The id is the number of the
//! command the frame belongs to, 0 where there is none. Payloads are bytes, never assumed to be UTF-8. Unknown tags are
//! skipped, existing shapes are frozen, new ones get new tags.
//!
//! Two classes travel from a machine to its readers. *Stream* frames (upper-case tags) are kept in the ring and the
//! transcript and take up stream bytes; *direct* frames (lower-case tags) answer a question once and are kept nowhere.

use std::fmt;

/// Bytes before the payload.
pub const HEADER: usize = 13;
/// The largest payload, in bytes: 16 MiB.
pub const MAX_PAYLOAD: usize = 16 << 20;
/// No stream is longer and no command has a larger number: 2⁶⁰. Whoever says so lies; what is below can be added up without a
/// thought.
pub const MAX_OFFSET: u64 = 1 << 60;

/// What a frame means. Tags are bytes so that a newer peer's frames can be carried unread.
pub mod tag {
    // To the machine.
    /// Run a chunk; payload as [`super::Eval`].
    pub const EVAL: u8 = b'E';
    /// Run a chunk with arguments, or for data; payload as [`super::Call`]. Only to machines of which
    /// [`LinkWriter::takes`](crate::driver::LinkWriter::takes) says so.
    pub const CALL: u8 = b'J';
    /// Is this chunk complete? Payload: code. Answered by [`COMPLETENESS`].
    pub const IS_COMPLETE: u8 = b'C';
    /// Complete this expression; payload: the text before the cursor. Answered by [`NAMES`].
    pub const COMPLETE: u8 = b'K';
    /// Data for `io.read`.
    pub const INPUT: u8 = b'S';
    /// End of input for `io.read`.
    pub const INPUT_END: u8 = b'F';
    /// Interrupt the command of this id, or whatever runs if the id is 0.
    pub const INTERRUPT: u8 = b'I';
    /// Everything before this stream offset (u64 LE) is stored: it need not be kept.
    pub const ACK: u8 = b'A';
    /// End politely.
    pub const QUIT: u8 = b'Q';
    /// About copying the process, between a driver and its holder only, on a connection of its own whose first frame it is.
    pub const FORK: u8 = b'L';
    /// The size of a terminal: columns u16 LE, rows u16 LE. On a terminal channel keys travel as [`INPUT`] and output as
    /// [`STDOUT`], both with the id 0; there are no commands.
    pub const RESIZE: u8 = b'Y';
    // Between an attached client and the daemon only.
    /// Stop sending until [`RESUME`].
    pub const PAUSE: u8 = b'P';
    /// Go on sending.
    pub const RESUME: u8 = b'U';

    // From the machine, kept in the stream.
    /// A command was accepted: the payload of the EVAL, as received; of a CALL what it has in common with an EVAL.
    pub const ACCEPTED: u8 = b'E';
    /// Standard output.
    pub const STDOUT: u8 = b'O';
    /// Standard error.
    pub const STDERR: u8 = b'R';
    /// The values of a command, printed as a REPL prints them.
    pub const VALUES: u8 = b'V';
    /// The values of a CALL that asked for them, JSON: `{"values":[…] or null,"unfit":[{"path":text,"why":text},…]}`. Comes
    /// before [`VALUES`].
    pub const DATA: u8 = b'T';
    /// The error of a command; payload as [`super::Failure`].
    pub const ERROR: u8 = b'X';
    /// The chunk is unfinished; payload: the compiler's message.
    pub const INCOMPLETE: u8 = b'N';
    /// The command waits for input.
    pub const WANTS_INPUT: u8 = b'W';
    /// The command is done: u64 LE microseconds. Always the last frame of its command.
    pub const DONE: u8 = b'D';
    /// The program asked to end: i32 LE exit code.
    pub const EXIT: u8 = b'Z';
    /// So many stream bytes (u64 LE) were lost here. Its own length in the stream *is* that number. Where nobody knows how many bytes are missing, or
    /// whether any are, that number is 1 and one byte 1 follows; see [`super::Frame::missing`].
    pub const GAP: u8 = b'G';

    // From the machine, direct.
    /// The holder's hello, JSON.
    pub const HELLO: u8 = b'h';
    /// One byte `c` (complete), `i` (incomplete), `x` (invalid) or `b` (busy), then a message.
    pub const COMPLETENESS: u8 = b'c';
    /// JSON: `{"busy":bool,"from":byte offset,"names":[…]}`.
    pub const NAMES: u8 = b'k';
    /// The answer to [`FORK`].
    pub const FORKING: u8 = b'l';
    /// The frame could not be obeyed; payload: `code\nmessage`.
    pub const REFUSED: u8 = b'r';
}

/// Whether frames of this tag, coming from a machine, take up bytes of the stream.
pub const fn in_stream(tag: u8) -> bool {
    tag.is_ascii_uppercase()
}

/// One frame, borrowed from a buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// See [`tag`].
    pub tag: u8,
    /// The command it belongs to, or 0.
    pub id: u64,
    /// Its content.
    pub payload: &'a [u8],
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.payload[..self.payload.len().min(64)];
        write!(f, "{}#{}({} bytes \"{}\")", self.tag as char, self.id, self.payload.len(), shown.escape_ascii())
    }
}

/// Why bytes are not a frame. The stream cannot be read on after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The length is smaller than a header allows.
    TooShort(u32),
    /// The length is larger than [`MAX_PAYLOAD`] allows.
    TooLong(u32),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::TooShort(n) => write!(f, "a frame of {n} bytes is shorter than its header"),
            Malformed::TooLong(n) => write!(f, "a frame of {n} bytes is longer than 16 MiB"),
        }
    }
}

impl std::error::Error for Malformed {}

impl<'a> Frame<'a> {
    /// Reads the frame at the start of `bytes`: `None` if more bytes are needed, else the frame and its encoded length.
    ///
    /// # Errors
    /// [`Malformed`] as soon as the length field shows it, before any payload is waited for.
    pub fn decode(bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, Malformed> {
        let Some(len) = bytes.first_chunk::<4>().map(|b| u32::from_le_bytes(*b)) else { return Ok(None) };
        if (len as usize) < HEADER - 4 {
            return Err(Malformed::TooShort(len));
        }
        if len as usize > HEADER - 4 + MAX_PAYLOAD {
            return Err(Malformed::TooLong(len));
        }
        let total = len as usize + 4;
        if bytes.len() < total {
            return Ok(None);
        }
        let mut id = [0; 8];
        id.copy_from_slice(&bytes[5..HEADER]);
        Ok(Some((Frame { tag: bytes[4], id: u64::from_le_bytes(id), payload: &bytes[HEADER..total] }, total)))
    }

    /// Appends the encoded frame. The payload must not exceed [`MAX_PAYLOAD`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.payload.len() <= MAX_PAYLOAD, "a payload over 16 MiB");
        out.reserve(HEADER + self.payload.len());
        out.extend_from_slice(&header(self.tag, self.id, self.payload.len()));
        out.extend_from_slice(self.payload);
    }

    /// The encoded frame.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// A gap of which nobody knows how much it hides. It stands for one byte of the stream, because each frame has a place of its own there.
    pub const fn unknown_gap() -> Frame<'static> {
        Frame { tag: tag::GAP, id: 0, payload: &[1, 0, 0, 0, 0, 0, 0, 0, 1] }
    }

    /// What a gap says is missing; nothing for other frames.
    pub fn missing(&self) -> Option<Missing> {
        let unknown = self.payload.get(8) == Some(&1);
        (self.tag == tag::GAP).then(|| if unknown { Missing::Unknown } else { Missing::Bytes(self.stream_len()) })
    }

    /// How many bytes of the stream the frame stands for: its encoded length, for a gap the bytes that were lost, for a
    /// direct frame none.
    pub fn stream_len(&self) -> u64 {
        match self.tag {
            tag::GAP => self.payload.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b)),
            tag if in_stream(tag) => (HEADER + self.payload.len()) as u64,
            _ => 0,
        }
    }
}

/// How much of a stream a gap hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// So many bytes.
    Bytes(u64),
    /// Nobody knows how many, nor whether any: nobody could listen.
    Unknown,
}

/// For people, as the subject of a sentence in the plural: `1000 bytes`, `an unknown number of bytes`.
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(count) => write!(f, "{count} bytes"),
            Self::Unknown => f.write_str("an unknown number of bytes"),
        }
    }
}

/// The header of a frame with a payload of `len` bytes.
pub fn header(tag: u8, id: u64, len: usize) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..4].copy_from_slice(&((HEADER - 4 + len) as u32).to_le_bytes());
    out[4] = tag;
    out[5..].copy_from_slice(&id.to_le_bytes());
    out
}

/// The payload of an EVAL frame: `deadline_ms: u32 LE` (0 for none), `token length: u8`, token, code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eval<'a> {
    /// Interrupt the command after so many milliseconds; 0 for never.
    pub deadline_ms: u32,
    /// The client's own name for the request (at most 255 bytes): asking again with the same token joins the command.
    pub token: &'a [u8],
    /// The chunk.
    pub code: &'a [u8],
}

impl<'a> Eval<'a> {
    /// Reads the payload; `None` if it is cut short.
    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        let (deadline, rest) = payload.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first()?;
        let (token, code) = rest.split_at_checked(*len as usize)?;
        Some(Self { deadline_ms: u32::from_le_bytes(*deadline), token, code })
    }

    /// The payload. A token longer than 255 bytes is cut.
    pub fn to_vec(&self) -> Vec<u8> {
        let token = &self.token[..self.token.len().min(255)];
        let mut out = Vec::with_capacity(5 + token.len() + self.code.len());
        out.extend_from_slice(&self.deadline_ms.to_le_bytes());
        out.push(token.len() as u8);
        out.extend_from_slice(token);
        out.extend_from_slice(self.code);
        out
    }
}

/// The payload of a CALL frame: `flags: u8` (1: the values are wanted as [`tag::DATA`]; others are ignored), `arguments
/// length: u32 LE`, arguments, then all of an [`Eval`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// Whether the values are wanted as data.
    pub data: bool,
    /// The arguments of the chunk, a JSON array; empty for none.
    pub arguments: &'a [u8],
    /// The chunk, and what else an EVAL says.
    pub eval: Eval<'a>,
}

impl<'a> Call<'a> {
    /// Reads the payload; `None` if it is cut short.
    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        let (flags, rest) = payload.split_first()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (arguments, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        Some(Self { data: flags & 1 == 1, arguments, eval: Eval::decode(rest)? })
    }

    /// The payload. A token longer than 255 bytes is cut.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.data)];
        out.extend_from_slice(&(self.arguments.len() as u32).to_le_bytes());
        out.extend_from_slice(self.arguments);
        out.extend_from_slice(&self.eval.to_vec());
        out
    }
}

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FailureKind {
    /// The chunk does not compile.
    Syntax = b's',
    /// The chunk raised an error.
    Runtime = b'r',
    /// It was interrupted.
    Interrupted = b'i',
    /// It ran past its deadline and was interrupted.
    Deadline = b'd',
}

/// The payload of an ERROR frame: kind, `message length: u32 LE`, message, traceback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure<'a> {
    /// Why.
    pub kind: FailureKind,
    /// The error value as text.
    pub message: &'a [u8],
    /// The traceback, without our own frames; empty for syntax errors.
    pub traceback: &'a [u8],
}

impl<'a> Failure<'a> {
    /// Reads the payload; `None` if it is cut short.
    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        let (kind, rest) = payload.split_first()?;
        let kind = match kind {
            b's' => FailureKind::Syntax,
            b'i' => FailureKind::Interrupted,
            b'd' => FailureKind::Deadline,
            _ => FailureKind::Runtime,
        };
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (message, traceback) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        Some(Self { kind, message, traceback })
    }

    /// The payload.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(5 + self.message.len() + self.traceback.len());
        out.push(self.kind as u8);
        out.extend_from_slice(&(self.message.len() as u32).to_le_bytes());
        out.extend_from_slice(self.message);
        out.extend_from_slice(self.traceback);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_every_cut_is_seen() {
        let frame = Frame { tag: tag::STDOUT, id: 7, payload: b"a\0\xff" };
        let bytes = frame.to_vec();
        assert_eq!(Frame::decode(&bytes), Ok(Some((frame, bytes.len()))));
        for cut in 0..bytes.len() {
            assert_eq!(Frame::decode(&bytes[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn hostile_lengths_are_refused_at_once() {
        assert_eq!(Frame::decode(&[0, 0, 0, 0]), Err(Malformed::TooShort(0)));
        assert_eq!(Frame::decode(&[8, 0, 0, 0, 1]), Err(Malformed::TooShort(8)));
        assert_eq!(Frame::decode(&[0xff; 4]), Err(Malformed::TooLong(u32::MAX)));
    }

    #[test]
    fn a_gap_stands_for_the_bytes_it_lost() {
        let lost = 1_000u64.to_le_bytes();
        assert_eq!(Frame { tag: tag::GAP, id: 0, payload: &lost }.stream_len(), 1_000);
        assert_eq!(Frame { tag: tag::HELLO, id: 0, payload: &lost }.stream_len(), 0);
        assert_eq!(Frame { tag: tag::DONE, id: 1, payload: &lost }.stream_len(), 21);
        assert_eq!(Frame { tag: tag::GAP, id: 0, payload: &lost }.missing(), Some(Missing::Bytes(1_000)));
        assert_eq!(Frame { tag: tag::STDOUT, id: 0, payload: &lost }.missing(), None);
        let unknown = Frame::unknown_gap();
        assert_eq!((unknown.stream_len(), unknown.missing()), (1, Some(Missing::Unknown)));
        assert_eq!(Frame { tag: tag::GAP, id: 0, payload: &1u64.to_le_bytes() }.missing(), Some(Missing::Bytes(1)), "one byte is one byte");
        assert_eq!(Missing::Unknown.to_string(), "an unknown number of bytes");
    }

    #[test]
    fn payloads_round_trip() {
        let eval = Eval { deadline_ms: 5, token: b"t", code: b"return 1\0" };
        assert_eq!(Eval::decode(&eval.to_vec()), Some(eval));
        let call = Call { data: true, arguments: b"[1]", eval };
        assert_eq!(Call::decode(&call.to_vec()), Some(call));
        for cut in 0..14 {
            assert_eq!(Call::decode(&call.to_vec()[..cut]), None, "{cut}");
        }
        assert_eq!(Call::decode(&[0xff; 20]), None, "arguments longer than the frame");
        let failure = Failure { kind: FailureKind::Runtime, message: b"m", traceback: b"stack" };
        assert_eq!(Failure::decode(&failure.to_vec()), Some(failure));
        for cut in 0..5 {
            assert_eq!(Eval::decode(&eval.to_vec()[..cut]), None);
            assert_eq!(Failure::decode(&failure.to_vec()[..cut]), None);
        }
    }
}
