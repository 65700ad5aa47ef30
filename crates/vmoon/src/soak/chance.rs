//! Chance that can be repeated: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).

/// A generator.
pub(super) struct Chance(u64);

impl Chance {
    /// The generator of one worker.
    pub(super) fn new(seed: u64, worker: u64) -> Self {
        let mut first = Self(seed ^ worker.wrapping_mul(0xd134_2543_de82_ef95));
        first.next();
        first
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of the range, both ends included.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    /// One of the items, each as often as its weight says. There must be one.
    pub(super) fn of<T: Copy>(&mut self, items: &[(u64, T)]) -> T {
        let all: u64 = items.iter().map(|(weight, _)| weight).sum();
        let mut at = self.between(1, all.max(1));
        for (weight, item) in items {
            if at <= *weight {
                return *item;
            }
            at -= weight;
        }
        items[0].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_and_workers_differ() {
        let draw = |seed, worker| {
            let mut chance = Chance::new(seed, worker);
            (0..32).map(|_| chance.between(0, 999)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn weights_count() {
        let mut chance = Chance::new(3, 3);
        let often = (0..1000).filter(|_| chance.of(&[(9, true), (1, false)])).count();
        assert!((850..950).contains(&often), "{often}");
        assert_eq!(chance.between(5, 5), 5);
    }
}
