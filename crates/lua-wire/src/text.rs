//! The frames between the holder and an external interpreter, made so that a Lua program can read them with two calls.
//!
//! To the interpreter: `TAG ID LEN` LF and LEN bytes. From it: `TAG ID LEN NUMBER` LF and LEN bytes, where the number only
//! grows: an interrupt can make the driver write a frame twice, and the second copy is dropped here. This file must not
//! know what the tags mean, except for their names.

use std::fmt;
use vmoon_core::frame::{Failure, FailureKind, MAX_PAYLOAD};

/// Tags that exist only between holder and interpreter; the others are those of [`vmoon_core::frame::tag`].
pub mod tag {
    /// To the driver: no interrupt is wanted any more. Id 1 if SIGINT was sent, else 0. Answered by [`RESYNC`].
    pub const SETTLE: u8 = b'P';
    /// To the driver: the answer to [`RESYNC`], with its id.
    pub const GO_ON: u8 = b'T';
    /// From the driver: input is thrown away until [`super::go_on`] of this id. Payload: the interrupt mode from now on.
    /// A command that runs and was not done before this frame was interrupted before it began.
    pub const RESYNC: u8 = b'y';
    /// From the driver: it is about to start a child, and waits for [`START`].
    pub const BEFORE_CHILD: u8 = b'b';
    /// To the driver: everything it sent before [`BEFORE_CHILD`] has its place.
    pub const START: u8 = b'A';
    /// From the driver: what children wrote to the standard descriptors belongs here.
    pub const BARRIER: u8 = b'B';
}

/// The longest header line, line feed included: a tag and three 64-bit numbers.
const LONGEST_HEADER: usize = 2 + 3 * 21;

/// Appends a frame for the interpreter.
pub fn encode(tag: u8, id: u64, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{} {id} {}\n", tag as char, payload.len()).as_bytes());
    out.extend_from_slice(payload);
}

/// Appends the answer to a RESYNC: begins with a line feed, because the end of a half-read frame may stand before it.
pub fn go_on(id: u64, out: &mut Vec<u8>) {
    out.push(b'\n');
    encode(tag::GO_ON, id, b"", out);
}

/// The payload of a CALL frame for the interpreter: `WANT LEN` LF, the arguments, the chunk.
pub fn call(data: bool, arguments: &[u8], code: &[u8]) -> Vec<u8> {
    let mut out = format!("{} {}\n", u8::from(data), arguments.len()).into_bytes();
    out.extend_from_slice(arguments);
    out.extend_from_slice(code);
    out
}

/// A frame from the interpreter.
#[derive(Clone, PartialEq, Eq)]
pub struct TextFrame {
    /// An ASCII letter.
    pub tag: u8,
    /// The command it belongs to, or 0.
    pub id: u64,
    /// Its content.
    pub payload: Vec<u8>,
}

impl fmt::Debug for TextFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.payload[..self.payload.len().min(64)];
        write!(f, "{}#{}({} bytes \"{}\")", self.tag as char, self.id, self.payload.len(), shown.escape_ascii())
    }
}

/// Why the bytes of an interpreter are not frames. The pipe cannot be read on after this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The header line, shortened and escaped.
    Header(String),
    /// A payload of more than 16 MiB is announced.
    TooLong(u64),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Header(line) => write!(f, "the interpreter sent \"{line}\" instead of a frame"),
            Malformed::TooLong(n) => write!(f, "the interpreter announced a frame of {n} bytes, more than 16 MiB"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Takes bytes as they come and gives frames, each once.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    read: usize,
    last: u64,
}

impl Decoder {
    /// Takes what was read from the pipe.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read > 0 && self.read >= self.bytes.len() / 2 {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`Malformed`], again at every call: there is no way to find the next frame.
    pub fn next_frame(&mut self) -> Result<Option<TextFrame>, Malformed> {
        loop {
            let rest = &self.bytes[self.read..];
            let window = &rest[..rest.len().min(LONGEST_HEADER)];
            let Some(end) = window.iter().position(|b| *b == b'\n') else {
                return if window.len() == LONGEST_HEADER { Err(bad_header(window)) } else { Ok(None) };
            };
            let (tag, [id, len, number]) = parse_header(&window[..end]).ok_or_else(|| bad_header(&window[..end]))?;
            if len > MAX_PAYLOAD as u64 {
                return Err(Malformed::TooLong(len));
            }
            let total = end + 1 + len as usize;
            let Some(payload) = rest.get(end + 1..total) else { return Ok(None) };
            let fresh = number > self.last;
            let frame = fresh.then(|| TextFrame { tag, id, payload: payload.to_vec() });
            self.read += total;
            if let Some(frame) = frame {
                self.last = number;
                return Ok(Some(frame));
            }
        }
    }

    /// Whether everything pushed was given out: no beginning of a frame waits for its rest.
    pub fn is_empty(&self) -> bool {
        self.read == self.bytes.len()
    }
}

fn bad_header(line: &[u8]) -> Malformed {
    Malformed::Header(line.escape_ascii().to_string())
}

fn parse_header(line: &[u8]) -> Option<(u8, [u64; 3])> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    let [tag] = words.next()?.as_bytes() else { return None };
    let mut numbers = [0; 3];
    for number in &mut numbers {
        let word = words.next()?;
        // Rust's own parser takes a leading plus sign.
        *number = word.bytes().all(|b| b.is_ascii_digit()).then(|| word.parse().ok())??;
    }
    (words.next().is_none() && tag.is_ascii_alphabetic()).then_some((*tag, numbers))
}

/// Reads the payload of an error frame of the driver: kind, length of the message, LF, message, traceback. What cannot be
/// read is taken as the message of a run-time error.
pub fn failure(payload: &[u8]) -> Failure<'_> {
    let parsed = (|| {
        let (kind, rest) = payload.split_first()?;
        let kind = match kind {
            b's' => FailureKind::Syntax,
            b'i' => FailureKind::Interrupted,
            _ => FailureKind::Runtime,
        };
        let end = rest.iter().take(20).position(|b| *b == b'\n')?;
        let len: usize = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
        let (message, traceback) = rest[end + 1..].split_at_checked(len)?;
        Some(Failure { kind, message, traceback })
    })();
    parsed.unwrap_or(Failure { kind: FailureKind::Runtime, message: payload, traceback: b"" })
}

/// Reads the payload of the driver's names frame: where the completed word begins (1-based, bytes) and the names.
pub fn names(payload: &[u8]) -> (u64, Vec<String>) {
    let text = String::from_utf8_lossy(payload);
    let mut lines = text.split('\n');
    let from = lines.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    (from, lines.filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// A line `name=value` of the driver's hello.
pub fn setting<'a>(payload: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(payload).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<TextFrame>, Malformed> {
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        for byte in bytes {
            decoder.push(&[*byte]);
            while let Some(frame) = decoder.next_frame()? {
                out.push(frame);
            }
        }
        assert!(decoder.is_empty());
        Ok(out)
    }

    #[test]
    fn frames_come_whole_byte_by_byte_and_once() {
        let frames = all(b"O 7 4 1\na\n\0\xffD 7 0 2\nO 7 4 1\na\n\0\xffD 7 0 2\nO 8 1 3\nx").unwrap();
        let seen: Vec<_> = frames.iter().map(|f| (f.tag, f.id, f.payload.as_slice())).collect();
        assert_eq!(seen, [(b'O', 7, &b"a\n\0\xff"[..]), (b'D', 7, b""), (b'O', 8, b"x")]);
    }

    #[test]
    fn hostile_headers_are_refused() {
        for bad in ["O 7 4\n", "OO 7 4 1\n", "O +7 4 1\n", "O  7 4 1\n", "O 7 4 1 \n", "\n", "1 7 4 1\n", "O 7 99999999999999999999 1\n"] {
            assert!(matches!(all(bad.as_bytes()), Err(Malformed::Header(_))), "{bad:?}");
        }
        assert_eq!(all(b"O 1 16777217 1\n"), Err(Malformed::TooLong(16_777_217)));
        assert!(matches!(all(&[b'O'; 100]), Err(Malformed::Header(_))), "no line feed ever comes");
    }

    #[test]
    fn failures_and_names_are_read() {
        assert_eq!(failure(b"s3\nabctrace"), Failure { kind: FailureKind::Syntax, message: b"abc", traceback: b"trace" });
        for odd in [&b""[..], b"r", b"r9\nabc", b"rx\nabc"] {
            assert_eq!(failure(odd).message, odd);
        }
        assert_eq!(names(b"3\na\nb"), (3, vec!["a".into(), "b".into()]));
        assert_eq!(names(b"9\n"), (9, vec![]));
        assert_eq!(setting(b"runtime=Lua 5.1\nmode=sig\n", "mode"), Some("sig"));
    }
}
