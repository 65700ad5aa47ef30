//! What a terminal of a machine has said, as whole frames by stream offset, within bounds: what nobody has read in time, or was said while nobody could listen,
//! is a gap. For drivers that read a console themselves, of which nothing else keeps what it said.

use crate::{
    driver::{Exit, Offset},
    frame::{Frame, tag},
};
use std::collections::VecDeque;

/// A frame that is kept.
#[derive(Debug)]
struct Kept {
    at: Offset,
    /// How far the stream goes on with it.
    len: u64,
    bytes: Vec<u8>,
}

/// The newest frames of a stream.
#[derive(Debug)]
pub struct Scrollback {
    frames: VecDeque<Kept>,
    keep: usize,
    bytes: usize,
    /// Where the oldest kept frame begins, and where the next one will.
    start: Offset,
    end: Offset,
    /// How it ended, once it has.
    pub ended: Option<Exit>,
}

impl Scrollback {
    /// One that goes on at an offset and keeps at most so many bytes. If it does not begin there, something may have been said before that nobody heard: a gap of
    /// unknown size says so.
    pub fn new(from: Offset, keep: usize) -> Self {
        let mut new = Self { frames: VecDeque::new(), keep, bytes: 0, start: from, end: from, ended: None };
        if from > 0 {
            new.gap();
        }
        new
    }

    /// Where the stream ends now.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Appends output.
    pub fn say(&mut self, output: &[u8]) {
        self.push(Frame { tag: tag::STDOUT, id: 0, payload: output });
    }

    /// Something may be missing here, and nobody knows how much.
    pub fn gap(&mut self) {
        self.push(Frame::unknown_gap());
    }

    fn push(&mut self, frame: Frame<'_>) {
        let kept = Kept { at: self.end, len: frame.stream_len(), bytes: frame.to_vec() };
        self.end += kept.len;
        self.bytes += kept.bytes.len();
        self.frames.push_back(kept);
        while self.bytes > self.keep && self.frames.len() > 1 {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.frames.pop_front() {
            self.bytes -= first.bytes.len();
            self.start = first.at + first.len;
        }
    }

    /// What is before that offset is kept elsewhere now.
    pub fn acknowledge(&mut self, to: Offset) {
        while self.frames.front().is_some_and(|first| first.at + first.len <= to) {
            self.drop_first();
        }
    }

    /// Whether a frame begins or the stream ends there, or it is from before what is kept.
    pub fn is_boundary(&self, at: Offset) -> bool {
        at <= self.start || at == self.end || self.frames.binary_search_by_key(&at, |kept| kept.at).is_ok()
    }

    /// Puts what is there from an offset on into `buf`, about `most` bytes of it; the offset after it. Nothing if there is nothing new.
    pub fn read(&self, from: Offset, most: usize, buf: &mut Vec<u8>) -> Option<Offset> {
        buf.clear();
        let mut at = from;
        if at < self.start {
            let lost = (self.start - at).to_le_bytes();
            Frame { tag: tag::GAP, id: 0, payload: &lost }.encode(buf);
            at = self.start;
        }
        let first = self.frames.partition_point(|kept| kept.at < at);
        for kept in self.frames.iter().skip(first) {
            if buf.len() + kept.bytes.len() > most && !buf.is_empty() {
                break;
            }
            buf.extend_from_slice(&kept.bytes);
            at = kept.at + kept.len;
        }
        (at > from).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let (mut at, mut all) = (0, Vec::new());
        while let Ok(Some((frame, n))) = Frame::decode(&bytes[at..]) {
            all.push((frame.tag, frame.payload.to_vec()));
            at += n;
        }
        all
    }

    #[test]
    fn what_is_said_is_kept_within_bounds_and_what_is_lost_is_a_gap() {
        let mut said = Scrollback::new(0, 1 << 16);
        said.say(b"first");
        let second = said.end();
        said.say(b"second");
        let mut buf = Vec::new();
        assert_eq!(said.read(0, 1 << 10, &mut buf), Some(said.end()));
        assert_eq!(texts(&buf), [(b'O', b"first".to_vec()), (b'O', b"second".to_vec())]);
        assert!(said.is_boundary(second) && !said.is_boundary(second + 1) && said.is_boundary(said.end()));
        said.acknowledge(second);
        assert_eq!(said.read(0, 1 << 10, &mut buf), Some(said.end()));
        assert_eq!(texts(&buf), [(b'G', second.to_le_bytes().to_vec()), (b'O', b"second".to_vec())]);
        assert_eq!(said.read(said.end(), 1 << 10, &mut buf), None);
        for _ in 0..200 {
            said.say(&[b'x'; 1 << 10]);
        }
        assert!(said.bytes <= 1 << 16 && said.start > second);
        let (mut at, mut all) = (0, 0);
        while let Some(next) = said.read(at, 1 << 10, &mut buf) {
            all += texts(&buf).iter().map(|(tag, payload)| Frame { tag: *tag, id: 0, payload }.stream_len()).sum::<u64>();
            at = next;
        }
        assert_eq!((at, all), (said.end(), said.end()), "offsets and frames agree");
    }

    #[test]
    fn one_that_goes_on_says_that_something_may_be_missing() {
        let mut said = Scrollback::new(100, 1 << 10);
        said.say(b"x");
        let mut buf = Vec::new();
        assert_eq!(said.read(100, 1 << 10, &mut buf), Some(101 + 14));
        let gap = Frame::unknown_gap();
        assert_eq!(texts(&buf)[0], (gap.tag, gap.payload.to_vec()));
    }
}
