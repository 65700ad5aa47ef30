//! What travels over the channel of an attached session: lines to it, an envelope of pieces from it. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::fmt::Write as _;
use vmoon_core::{
    Code, Error, Result,
    driver::Exit,
    frame::{Frame, HEADER, MAX_OFFSET, MAX_PAYLOAD, in_stream},
};

/// The longest line of the envelope, without its line feed.
const LINE: usize = 512;

/// Appends a line: `LEASE TAG ID LEN BASE64 CRC`. A torn or damaged one is known by its length and its CRC-32.
pub(crate) fn line(lease: &str, tag: u8, id: u64, payload: &[u8], out: &mut Vec<u8>) {
    let mut text = format!("{lease} {} {id} {} ", tag as char, payload.len());
    STANDARD.encode_string(payload, &mut text);
    let sum = crc32fast::hash(text.as_bytes());
    let _ = writeln!(text, " {sum:08x}");
    out.extend_from_slice(text.as_bytes());
}

/// How a session stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The last command that was accepted.
    pub(crate) last: u64,
    /// The one that runs, 0 for none.
    pub(crate) running: u64,
    /// How often a program has asked for input.
    pub(crate) waits: u64,
    /// Whether it still waits for that.
    pub(crate) waiting: bool,
    /// Seconds to the deadline of the running command.
    pub(crate) left: Option<u64>,
    /// All of that is so up to this offset of the stream: what comes after it changes it.
    pub(crate) known: u64,
    /// Where the stream ends.
    pub(crate) end: u64,
}

/// A piece of the envelope.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// There is no such session.
    None,
    /// It could not be begun; why is on standard error.
    NotBegun,
    Hello(State),
    /// The stream before this offset is gone.
    Gap(u64),
    /// The offset asked for lies in no stream, or inside a frame.
    BadOffset,
    Stream(&'a [u8]),
    Letters(&'a [u8]),
    Ended(Exit),
}

/// Takes bytes as they come and gives pieces.
#[derive(Debug, Default)]
pub(crate) struct Envelope {
    bytes: Vec<u8>,
    read: usize,
}

fn nonsense(line: &[u8]) -> Error {
    Error::new(Code::WireMalformed, format!("the session's host sent \"{}\"", line[..line.len().min(80)].escape_ascii()))
}

impl Envelope {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.read > 0 && self.read >= self.bytes.len() / 2 {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next piece, or `None` if more bytes are needed. A large one comes in parts.
    ///
    /// # Errors
    /// [`Code::WireMalformed`], for good.
    pub(crate) fn next(&mut self) -> Result<Option<Piece<'_>>> {
        let rest = &self.bytes[self.read..];
        let Some(end) = rest.iter().take(LINE).position(|b| *b == b'\n') else {
            return if rest.len() >= LINE { Err(nonsense(rest)) } else { Ok(None) };
        };
        let line = &rest[..end];
        let bad = || nonsense(line);
        let text = std::str::from_utf8(line).map_err(|_| bad())?;
        let (word, fields) = text.split_once(' ').unwrap_or((text, ""));
        let mut used = end + 1;
        let piece = match word {
            "o" | "d" => {
                let len: usize = fields.parse().ok().filter(|len| *len <= HEADER + MAX_PAYLOAD).ok_or_else(bad)?;
                let body = self.read + used..self.read + used + len;
                if self.bytes.len() < body.end {
                    return Ok(None);
                }
                self.read = body.end;
                return Ok(Some(if word == "o" { Piece::Stream(&self.bytes[body]) } else { Piece::Letters(&self.bytes[body]) }));
            }
            "none" => Piece::None,
            "f" => Piece::NotBegun,
            "h" => Piece::Hello(hello(fields).ok_or_else(bad)?),
            "g" => Piece::Gap(fields.parse().ok().filter(|at| *at <= MAX_OFFSET).ok_or_else(bad)?),
            "x" => Piece::BadOffset,
            "e" => Piece::Ended(exit(fields)),
            _ => return Err(bad()),
        };
        used += self.read;
        self.read = used;
        Ok(Some(piece))
    }
}

fn numbers<const N: usize>(words: [Option<&str>; N]) -> Option<[u64; N]> {
    let mut all = [0; N];
    for (number, word) in all.iter_mut().zip(words) {
        *number = word?.parse().ok().filter(|n| *n <= MAX_OFFSET)?;
    }
    Some(all)
}

/// `LAST RUNNING WAITS WAITING MODE LEFT AT END`.
fn hello(fields: &str) -> Option<State> {
    let words: Vec<&str> = fields.split(' ').collect();
    let [last, running, waits, waiting, _mode, left, known, end] = words.as_slice() else { return None };
    let [last, running, waits, known, end] = numbers([Some(last), Some(running), Some(waits), Some(known), Some(end)])?;
    Some(State { last, running, waits, waiting: *waiting == "1", left: left.parse().ok(), known, end })
}

/// The payload of a status: `LAST RUNNING WAITS WAITING END`.
pub(crate) fn status(payload: &[u8]) -> Option<State> {
    let mut words = std::str::from_utf8(payload).ok()?.split(' ');
    let [last, running, waits] = numbers([words.next(), words.next(), words.next()])?;
    let waiting = words.next()? == "1";
    let [end] = numbers([words.next()])?;
    Some(State { last, running, waits, waiting, left: None, known: end, end })
}

/// What a session's `exit` file says.
pub(crate) fn exit(text: &str) -> Exit {
    match text {
        "rebooted" => Exit::Rebooted,
        "killed" => Exit::Killed,
        "did_not_yield" => Exit::DidNotYield,
        _ => match text.strip_prefix("signal ") {
            Some(signal) => signal.parse().map_or(Exit::Lost, |signal| Exit::Signal { signal }),
            None => text.parse().map_or(Exit::Lost, |code| Exit::Code { code }),
        },
    }
}

/// How many bytes at the front of `bytes` are whole stream frames, passing each of them by.
///
/// # Errors
/// [`Code::WireMalformed`] for what is no frame, or none of a stream.
pub(crate) fn frames(bytes: &[u8], mut each: impl FnMut(Frame<'_>)) -> Result<usize> {
    let mut used = 0;
    loop {
        match Frame::decode(&bytes[used..]) {
            Ok(None) => return Ok(used),
            // A file cannot have lost bytes: a gap is ours to say.
            Ok(Some((frame, n))) if in_stream(frame.tag) && frame.tag != vmoon_core::frame::tag::GAP => {
                each(frame);
                used += n;
            }
            Ok(Some((frame, _))) => return Err(Error::new(Code::WireMalformed, format!("{frame:?} has no place in a session's stream"))),
            Err(error) => return Err(Error::new(Code::WireMalformed, "the session's stream is damaged").source(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_core::frame::tag;

    #[test]
    fn lines_carry_their_length_and_sum() {
        let mut out = Vec::new();
        line("ab12", b'E', 7, b"a\nb", &mut out);
        let text = String::from_utf8(out).unwrap();
        let (front, sum) = text.trim_end().rsplit_once(' ').unwrap();
        assert_eq!((front, sum), ("ab12 E 7 3 YQpi", format!("{:08x}", crc32fast::hash(front.as_bytes())).as_str()));
    }

    #[test]
    fn the_envelope_comes_byte_by_byte() {
        let mut envelope = Envelope::default();
        let mut seen = Vec::new();
        for byte in b"h 3 0 1 1 sig -1 0 77\ng 5\no 3\nx\nyd 2\nkke signal 9\nnone\n" {
            envelope.push(&[*byte]);
            while let Some(piece) = envelope.next().unwrap() {
                seen.push(format!("{piece:?}"));
            }
        }
        assert_eq!(seen.len(), 6, "{seen:?}");
        assert!(seen[0].contains("last: 3, running: 0, waits: 1, waiting: true, left: None, known: 0, end: 77"), "{}", seen[0]);
        assert_eq!(seen[2], format!("{:?}", Piece::Stream(b"x\ny")));
        assert_eq!(seen[4], format!("{:?}", Piece::Ended(Exit::Signal { signal: 9 })));
    }

    #[test]
    fn a_lying_host_is_refused() {
        for bad in ["z 1\n", "o 99999999\n", "o -1\n", "h 1 2\n", "g 99999999999999999999\n", "h 1 0 0 0 sig -1 0 9999999999999999999\n"] {
            let mut envelope = Envelope::default();
            envelope.push(bad.as_bytes());
            assert_eq!(envelope.next().unwrap_err().code(), Code::WireMalformed, "{bad}");
        }
        let mut envelope = Envelope::default();
        envelope.push(&[b'x'; 600]);
        assert!(envelope.next().is_err(), "no line feed ever comes");
        let gap = Frame { tag: tag::GAP, id: 0, payload: &u64::MAX.to_le_bytes() }.to_vec();
        assert!(frames(&gap, |_| ()).is_err() && frames(&[0; 4], |_| ()).is_err());
        let mut hostile = vmoon_driver_sim::Hostile::new(5);
        let good = b"h 3 0 1 1 sig -1 0 77\no 3\nx\nyd 2\nkke signal 9\n";
        let mut fine = 0;
        for _ in 0..20_000 {
            let mut bytes = good.to_vec();
            hostile.spoil(&mut bytes);
            let mut envelope = Envelope::default();
            envelope.push(&bytes);
            while let Ok(Some(_)) = envelope.next() {
                fine += 1;
            }
        }
        assert!(fine > 1_000);
        assert_eq!((exit("3"), exit("lost"), exit("signal x")), (Exit::Code { code: 3 }, Exit::Lost, Exit::Lost));
    }
}
