//! In which order results are given out, and how far work may run ahead of them. Pure.

use super::Item;
use std::collections::BTreeMap;

/// How many items may be started beyond the first that has no result yet.
const AHEAD: u64 = 1024;
/// How many bytes of results may wait for an earlier one.
const WAITING: usize = 64 << 20;

/// The results that wait for earlier ones.
#[derive(Debug)]
pub(super) struct Order {
    unordered: bool,
    next: u64,
    waiting: BTreeMap<u64, Item>,
    bytes: usize,
}

impl Order {
    pub(super) fn new(unordered: bool) -> Self {
        Self { unordered, next: 0, waiting: BTreeMap::new(), bytes: 0 }
    }

    /// Whether this item may be started now. Those before the first without a result always may, so this never blocks for ever.
    pub(super) fn may_start(&self, index: u64) -> bool {
        self.unordered || index == self.next || (index - self.next < AHEAD && self.bytes < WAITING)
    }

    /// An item is done; those that can be given out are in `out` then.
    pub(super) fn done(&mut self, item: Item, out: &mut Vec<Item>) {
        if self.unordered {
            out.push(item);
            return;
        }
        self.bytes += item.size();
        self.waiting.insert(item.index, item);
        while let Some(item) = self.waiting.remove(&self.next) {
            self.bytes -= item.size();
            self.next += 1;
            out.push(item);
        }
    }

    /// All that still wait, although some before them will never come.
    pub(super) fn rest(&mut self) -> Vec<Item> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(index: u64, size: usize) -> Item {
        Item { index, outcome: Ok("x".repeat(size)), ..Item::default() }
    }

    fn given(order: &mut Order, item: Item) -> Vec<u64> {
        let mut out = Vec::new();
        order.done(item, &mut out);
        out.iter().map(|item| item.index).collect()
    }

    #[test]
    fn results_come_in_order_unless_that_is_not_wanted() {
        let mut order = Order::new(false);
        assert_eq!(given(&mut order, item(2, 1)), [0u64; 0]);
        assert_eq!(given(&mut order, item(0, 1)), [0]);
        assert_eq!(given(&mut order, item(1, 1)), [1, 2]);
        assert_eq!(given(&mut order, item(4, 1)), [0u64; 0]);
        assert_eq!(order.rest().len(), 1);
        assert_eq!(given(&mut Order::new(true), item(2, 1)), [2]);
    }

    #[test]
    fn one_slow_item_stops_the_others_after_a_while_and_never_itself() {
        let mut order = Order::new(false);
        assert!(order.may_start(AHEAD - 1) && !order.may_start(AHEAD));
        given(&mut order, item(1, WAITING));
        assert!(order.may_start(0) && !order.may_start(2));
        assert_eq!(given(&mut order, item(0, 0)), [0, 1]);
        assert!(order.may_start(2) && Order::new(true).may_start(u64::MAX));
    }
}
