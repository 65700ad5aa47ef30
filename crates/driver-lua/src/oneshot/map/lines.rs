//! The lines of an input as they come in pieces, in bounded memory. Pure.

/// The longest line, bytes: what a program may be given as one item.
pub(super) const LONGEST: usize = 16 << 20;

/// One line that is not blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Without its line feed.
    Text(Vec<u8>),
    /// Longer than [`LONGEST`]: so many bytes, which are gone.
    TooLong(u64),
}

/// What has been read and not been taken.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Where the next line begins.
    from: usize,
    /// Up to where there is no line feed.
    searched: usize,
    /// Bytes of a line that was too long and is being passed over.
    skipped: u64,
    ended: bool,
}

impl Lines {
    /// More of the input.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.from > 0 {
            self.buffer.drain(..self.from);
            self.searched -= self.from;
            self.from = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// There is no more.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Whether the input has ended and everything was taken.
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.from == self.buffer.len() && self.skipped == 0
    }

    /// Whether it waits for more.
    pub(super) fn is_open(&self) -> bool {
        !self.ended
    }

    /// The next line that is complete and not blank.
    pub(super) fn next(&mut self) -> Option<Line> {
        loop {
            let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| self.searched + at);
            let end = match found {
                Some(end) => end,
                None if self.ended && (self.from < self.buffer.len() || self.skipped > 0) => self.buffer.len(),
                None => {
                    self.searched = self.buffer.len();
                    if self.skipped > 0 || self.searched - self.from > LONGEST {
                        self.skipped += (self.searched - self.from) as u64;
                        self.from = self.searched;
                    }
                    return None;
                }
            };
            let line = &self.buffer[self.from..end];
            let length = std::mem::take(&mut self.skipped) + line.len() as u64;
            let taken = if length > LONGEST as u64 {
                Some(Line::TooLong(length))
            } else {
                (!line.trim_ascii().is_empty()).then(|| Line::Text(line.to_vec()))
            };
            self.from = (end + 1).min(self.buffer.len());
            self.searched = self.from;
            if taken.is_some() {
                return taken;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&[u8]]) -> Vec<Line> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.feed(piece);
            found.extend(std::iter::from_fn(|| lines.next()));
        }
        lines.end();
        found.extend(std::iter::from_fn(|| lines.next()));
        assert!(lines.is_over());
        found
    }

    #[test]
    fn lines_are_the_same_however_they_come() {
        let text = b"1\n\n  \r\n{\"a\":2}\n3";
        let expect: Vec<Line> = [&b"1"[..], b"{\"a\":2}", b"3"].iter().map(|text| Line::Text(text.to_vec())).collect();
        assert_eq!(all(&[text]), expect);
        assert_eq!(all(&text.chunks(1).collect::<Vec<_>>()), expect);
        assert_eq!(all(&[]), []);
        assert_eq!(all(&[b"1\n"]), [Line::Text(b"1".to_vec())]);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_and_not_kept() {
        let long = vec![b'x'; LONGEST / 2 + 1];
        let mut lines = Lines::default();
        for _ in 0..9 {
            lines.feed(&long);
            assert_eq!(lines.next(), None);
            assert!(lines.buffer.len() <= LONGEST + 2);
        }
        lines.feed(b"\n7\n");
        assert_eq!(lines.next(), Some(Line::TooLong(9 * long.len() as u64)));
        assert_eq!(lines.next(), Some(Line::Text(b"7".to_vec())));
        assert_eq!(all(&[&vec![b'y'; LONGEST + 1]]), [Line::TooLong(LONGEST as u64 + 1)]);
    }
}
