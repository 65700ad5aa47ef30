//! Hostile bytes from a seed: what tests of decoders feed them. The same seed gives the same bytes on every computer.

/// Numbers that have broken decoders before.
const EDGES: [u64; 10] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 60, i64::MAX as u64, u64::MAX];

/// A generator (splitmix64, Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Hostile(u64);

impl Hostile {
    /// Begins with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, any.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    /// A number that is an edge as often as not.
    pub fn edge(&mut self) -> u64 {
        let edge = EDGES[self.below(EDGES.len())];
        match self.below(4) {
            0 => self.number(),
            1 => edge.wrapping_sub(self.below(20) as u64),
            2 => edge.wrapping_add(self.below(20) as u64),
            _ => edge,
        }
    }

    /// At most so many bytes.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let len = self.below(most + 1);
        (0..len).map(|_| self.number() as u8).collect()
    }

    /// Spoils what was well formed, in one to four places: flips, cuts, doubles, inserts, writes an edge over it.
    pub fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 => bytes.truncate(at),
                2 => {
                    let part = bytes[at..(at + self.below(64)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, part);
                }
                3 => {
                    let more = self.bytes(32);
                    bytes.splice(at..at, more);
                }
                kind => {
                    let edge = self.edge().to_le_bytes();
                    let part = &edge[..if kind == 4 { 4 } else { 8 }];
                    let end = (at + part.len()).min(bytes.len());
                    bytes[at..end].copy_from_slice(&part[..end - at]);
                }
            }
        }
    }
}
