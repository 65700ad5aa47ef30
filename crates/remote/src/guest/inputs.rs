//! Input that programs have not asked for yet, or that may have been lost on its way. Pure.

use std::collections::VecDeque;

/// How much input may wait for a program to ask for it, bytes and pieces.
const MAX_INPUT: (usize, usize) = (16 << 20, 1_024);

/// Input of programs. It outlives a connection: what was sent and did not arrive is sent again.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    life: u64,
    waiting: VecDeque<(u8, Vec<u8>)>,
    bytes: usize,
    /// The first of them was sent as the answer to this question.
    pub(super) sent: Option<u64>,
}

impl Inputs {
    /// That what follows is for this life; what waits for another one is dropped.
    pub(super) fn begin(&mut self, life: u64) {
        if self.life != life {
            *self = Self { life, ..Self::default() };
        }
    }

    /// The first piece, if any waits.
    pub(super) fn first(&self) -> Option<(u8, Vec<u8>)> {
        self.waiting.front().cloned()
    }

    /// Takes a piece in, if there is room.
    pub(super) fn add(&mut self, tag: u8, data: Vec<u8>) -> bool {
        let fits = self.bytes + data.len() <= MAX_INPUT.0 && self.waiting.len() < MAX_INPUT.1;
        if fits {
            self.bytes += data.len();
            self.waiting.push_back((tag, data));
        }
        fits
    }

    /// The first one has arrived.
    pub(super) fn arrived(&mut self) {
        if self.sent.take().is_some()
            && let Some((_, data)) = self.waiting.pop_front()
        {
            self.bytes -= data.len();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self { life: self.life, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_stays_until_it_has_arrived_and_another_life_has_none() {
        let mut inputs = Inputs::default();
        inputs.begin(1);
        assert!(inputs.add(b'S', b"a".to_vec()) && inputs.add(b'F', vec![]));
        inputs.arrived();
        assert_eq!(inputs.first(), Some((b'S', b"a".to_vec())), "nothing was sent yet");
        inputs.sent = Some(1);
        inputs.begin(1);
        inputs.arrived();
        assert_eq!((inputs.first(), inputs.bytes), (Some((b'F', vec![])), 0));
        assert!(!inputs.add(b'S', vec![0; MAX_INPUT.0 + 1]), "there is a bound");
        inputs.begin(2);
        assert_eq!(inputs.first(), None);
    }
}
