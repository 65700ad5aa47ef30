//! A bounded buffer of a stream's latest bytes, addressed by absolute offset, that says what it has lost.
//!
//! It knows bytes only, no frames and no files: who needs frames kept whole acknowledges up to a frame's end before pushing.

use std::collections::VecDeque;

/// The newest bytes of a stream. Offsets count from the stream's beginning and are never reused.
#[derive(Clone, Debug)]
pub struct Ring {
    bytes: VecDeque<u8>,
    start: u64,
    capacity: usize,
}

/// What [`Ring::read`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<'a> {
    /// The bytes `from..to` that were asked for and are no longer kept.
    pub gap: Option<(u64, u64)>,
    /// Offset of the first byte of `bytes`.
    pub at: u64,
    /// The bytes, in two runs that follow each other; the second is empty unless the buffer wraps.
    pub bytes: [&'a [u8]; 2],
}

impl Read<'_> {
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.bytes[0].len() + self.bytes[1].len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The offset to read from next.
    pub fn end(&self) -> u64 {
        self.at + self.len() as u64
    }

    /// The bytes in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes.concat()
    }
}

impl Ring {
    /// A ring that keeps at most `capacity` bytes. Memory is taken as it fills.
    pub fn new(capacity: usize) -> Self {
        Self { bytes: VecDeque::new(), start: 0, capacity }
    }

    /// Offset of the oldest byte that is kept.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Offset that the next byte will get.
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// How many bytes are kept.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes can be pushed before others are dropped.
    pub fn room(&self) -> usize {
        self.capacity - self.bytes.len()
    }

    /// Appends, dropping the oldest bytes (or the beginning of `data` itself) where there is no room. Gives the number of
    /// bytes dropped.
    pub fn push(&mut self, data: &[u8]) -> u64 {
        let skip = data.len().saturating_sub(self.capacity);
        let kept = &data[skip..];
        let dropped = (self.bytes.len() + kept.len()).saturating_sub(self.capacity);
        self.bytes.drain(..dropped);
        self.bytes.extend(kept);
        let lost = (dropped + skip) as u64;
        self.start += lost;
        lost
    }

    /// At most `max` bytes from `from` on. What was asked for and is lost is named in [`Read::gap`]; an offset past the end
    /// gives nothing, at the end.
    pub fn read(&self, from: u64, max: usize) -> Read<'_> {
        let gap = (from < self.start).then_some((from, self.start));
        let at = from.clamp(self.start, self.end());
        let skip = (at - self.start) as usize;
        let (first, second) = self.bytes.as_slices();
        let (a, b) = match skip.checked_sub(first.len()) {
            Some(rest) => (&second[rest..], &[][..]),
            None => (&first[skip..], second),
        };
        let a = &a[..a.len().min(max)];
        let b = &b[..b.len().min(max - a.len())];
        Read { gap, at, bytes: [a, b] }
    }

    /// Everything before `to` is stored elsewhere and need not be kept. Offsets already dropped or not yet written are fine.
    pub fn ack(&mut self, to: u64) {
        let to = to.clamp(self.start, self.end());
        self.bytes.drain(..(to - self.start) as usize);
        self.start = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything ever pushed, and the offset from which on it is kept: nothing to get wrong.
    struct Naive {
        all: Vec<u8>,
        start: usize,
        capacity: usize,
    }

    impl Naive {
        fn push(&mut self, data: &[u8]) -> u64 {
            self.all.extend_from_slice(data);
            let before = self.start;
            self.start = self.start.max(self.all.len().saturating_sub(self.capacity));
            (self.start - before) as u64
        }
        fn ack(&mut self, to: u64) {
            self.start = self.start.max((to as usize).min(self.all.len()));
        }
    }

    fn compare(ring: &Ring, naive: &Naive, story: &[u8]) {
        assert_eq!((ring.start(), ring.end()), (naive.start as u64, naive.all.len() as u64), "{story:?}");
        assert_eq!(ring.room(), naive.capacity - (naive.all.len() - naive.start));
        for from in 0..naive.all.len() + 2 {
            for max in [0, 1, 2, 100] {
                let read = ring.read(from as u64, max);
                let at = from.clamp(naive.start, naive.all.len());
                let wanted = &naive.all[at..(at + max).min(naive.all.len())];
                assert_eq!(read.gap, (from < naive.start).then_some((from as u64, naive.start as u64)), "{story:?} from {from}");
                assert_eq!((read.at, read.to_vec().as_slice()), (at as u64, wanted), "{story:?} from {from} max {max}");
                assert_eq!((read.end(), read.is_empty()), ((at + wanted.len()) as u64, wanted.is_empty()));
            }
        }
    }

    /// Every story of four steps, each a push of 0 to 5 bytes or an acknowledgement, on rings of 0 to 4 bytes.
    #[test]
    fn every_short_story_agrees_with_the_naive_model() {
        const STEPS: u8 = 9;
        for capacity in 0..5 {
            for number in 0..u32::from(STEPS).pow(4) {
                let story: Vec<u8> = (0..4).map(|i| (number / u32::from(STEPS).pow(i) % u32::from(STEPS)) as u8).collect();
                let (mut ring, mut naive) = (Ring::new(capacity), Naive { all: Vec::new(), start: 0, capacity });
                let mut next = 0u8;
                for &step in &story {
                    if step < 6 {
                        let data: Vec<u8> = (0..step).map(|i| next + i).collect();
                        next += step;
                        assert_eq!(ring.push(&data), naive.push(&data), "{story:?}");
                    } else {
                        let to = [ring.start() + 1, ring.end(), ring.end() + 3][usize::from(step - 6)];
                        ring.ack(to);
                        naive.ack(to);
                    }
                }
                compare(&ring, &naive, &story);
            }
        }
    }

    #[test]
    fn old_acknowledgements_do_nothing() {
        let mut ring = Ring::new(4);
        ring.push(b"abcdef");
        ring.ack(0);
        assert_eq!(ring.read(2, 9).to_vec(), b"cdef");
        assert_eq!(ring.read(u64::MAX, usize::MAX).at, 6);
    }
}
