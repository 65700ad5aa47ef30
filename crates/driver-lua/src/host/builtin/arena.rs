//! The memory of a state: counted, bounded, and at its beginning close together.
//!
//! What every machine has alike (the libraries, the session's program) is some thousand small blocks that live as long as the machine.
//! In the allocator of the C library each has a header, and in a process that was just forked they fill the holes that the zygote's
//! heap has, so that a page has to be copied for every few of them. So a state begins in an arena of its own: blocks without headers,
//! one behind the other, since Lua says how long a block is that it gives back. What has no room there comes from the C library.
//!
//! Lua 5.4 hashes strings by the address of its state, so the arena is at a random place, and the state at a random one in it.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::{cell::Cell, ffi::c_void, mem::size_of, ptr};
use vmoon_sys::random;

const PAGE: usize = 4096;
/// How long an arena is, bytes: a machine that has done nothing fills about two thirds.
const LENGTH: usize = 128 << 10;
/// So much of it is filled before a machine answers for the first time: given by the kernel at once, not page by page.
const FIRST: usize = 64 << 10;
/// Arenas are put within this distance: one table of the kernel's third level, so that a random place costs no further ones.
const REACH: usize = 1 << 30;
/// How often a taken address is tried.
const TRIES: usize = 16;

/// Blocks are multiples of this, which suits every type of C.
const GRAIN: usize = 16;
/// Up to this length there is a list of free blocks for each multiple of [`GRAIN`], above for each multiple of [`STEP`].
const SMALL: usize = 1 << 10;
const STEP: usize = 512;
/// The longest block of an arena.
const LARGEST: usize = 8 << 10;
const CLASSES: usize = SMALL / GRAIN + (LARGEST - SMALL) / STEP;

/// How much memory a state uses and may use, and where it begins.
pub(crate) struct Memory {
    /// Bytes in use.
    used: Cell<usize>,
    /// The most it may use.
    limit: Cell<usize>,
    /// The bounds of the arena; both 0 if there is none.
    from: usize,
    to: usize,
    /// From here on nothing was given out.
    next: Cell<usize>,
    /// The first free block of each class; each holds the address of the next.
    free: [Cell<usize>; CLASSES],
}

/// A state's place in its arena's first page: behind the [`Memory`], and at a random multiple of [`GRAIN`] behind that.
const HEAD: usize = size_of::<Memory>().next_multiple_of(GRAIN);
const PLACES: usize = 128;

/// The class of blocks of this length, which is not 0, and how long its blocks are; `None` for those that are too long.
fn class(length: usize) -> Option<(usize, usize)> {
    if length <= SMALL {
        return Some((length.div_ceil(GRAIN) - 1, length.next_multiple_of(GRAIN)));
    }
    let steps = (length - SMALL).div_ceil(STEP);
    (length <= LARGEST).then(|| (SMALL / GRAIN + steps - 1, SMALL + steps * STEP))
}

fn most(limit: Option<u64>) -> usize {
    limit.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Bounds the memory of a state that has this argument of [`allocate`]; `false` if it uses more already.
///
/// # Safety
/// The argument was made here, and the state is not running.
pub(super) unsafe fn bound(memory: *mut c_void, limit: Option<u64>) -> bool {
    // SAFETY: by the caller's promise.
    let memory = unsafe { &*memory.cast::<Memory>() };
    memory.limit.set(most(limit));
    memory.used.get() <= memory.limit.get()
}

impl Memory {
    fn new(limit: Option<u64>, from: usize, length: usize) -> Self {
        Self {
            used: Cell::new(0),
            limit: Cell::new(most(limit)),
            from,
            to: from + length,
            next: Cell::new(from),
            free: [const { Cell::new(0) }; CLASSES],
        }
    }

    /// For one state that was made elsewhere, as the argument of [`allocate`]: without an arena. Never freed.
    pub(crate) fn leaked(limit: Option<u64>) -> *mut c_void {
        ptr::from_mut(Box::leak(Box::new(Self::new(limit, 0, 0)))).cast()
    }

    /// For one new state, whose first block is at a random place. Never freed.
    pub(crate) fn scattered(limit: Option<u64>) -> *mut c_void {
        let Some(arena) = scattered() else { return Self::leaked(limit) };
        // SAFETY: advice changes no content; what it cannot do is done page by page.
        let _ = unsafe { madvise(arena, FIRST, Advice::LinuxPopulateWrite) };
        let mut place = [0];
        random::fill(&mut place);
        // SAFETY: the arena is a new mapping that is never unmapped.
        unsafe { Self::within(limit, arena, LENGTH, usize::from(place[0]) % PLACES * GRAIN) }
    }

    /// # Safety
    /// `arena` is the page-aligned beginning of a mapping of that length, which nobody else uses and which outlives the state.
    unsafe fn within(limit: Option<u64>, arena: *mut c_void, length: usize, place: usize) -> *mut c_void {
        let this = Self::new(limit, arena.addr(), length);
        this.next.set(this.from + HEAD + place);
        // SAFETY: by the caller's promise; a page is aligned for everything and has room for the head.
        unsafe { ptr::write(arena.cast(), this) };
        arena
    }

    fn has(&self, block: *mut c_void) -> bool {
        (self.from..self.to).contains(&block.addr())
    }

    /// A block of the arena; null if it has none.
    fn take(&self, length: usize) -> *mut c_void {
        let Some((class, length)) = class(length) else { return ptr::null_mut() };
        let free = self.free[class].get();
        if free != 0 {
            let block = ptr::with_exposed_provenance_mut::<c_void>(free);
            // SAFETY: a free block of ours holds the address of the next.
            self.free[class].set(unsafe { *block.cast::<usize>() });
            return block;
        }
        let block = self.next.get();
        if length > self.to - block {
            return ptr::null_mut();
        }
        self.next.set(block + length);
        ptr::with_exposed_provenance_mut(block)
    }

    /// # Safety
    /// The block is one of the arena, of that length, and nobody uses it any more.
    unsafe fn give_back(&self, block: *mut c_void, length: usize) {
        // Whoever does not know its length has lost it.
        if length == 0 {
            return;
        }
        let Some((class, _)) = class(length) else { return };
        // SAFETY: by the caller's promise; every block has room for an address.
        unsafe { block.cast::<usize>().write(self.free[class].get()) };
        self.free[class].set(block.expose_provenance());
    }

    /// # Safety
    /// As realloc(3) and free(3), but that the length of a block is told.
    unsafe fn change(&self, block: *mut c_void, old: usize, new: usize) -> *mut c_void {
        // SAFETY: by the caller's promise.
        unsafe {
            if !block.is_null() && !self.has(block) {
                if new == 0 {
                    libc::free(block);
                    return ptr::null_mut();
                }
                return libc::realloc(block, new);
            }
            if new == 0 {
                if !block.is_null() {
                    self.give_back(block, old);
                }
                return ptr::null_mut();
            }
            if !block.is_null() && class(old.max(1)) == class(new) {
                return block;
            }
            let mut other = self.take(new);
            if other.is_null() {
                other = libc::malloc(new);
            }
            if block.is_null() {
                return other;
            }
            if other.is_null() {
                // Lua takes it for granted that a block can become shorter.
                return if new < old { block } else { other };
            }
            ptr::copy_nonoverlapping(block.cast::<u8>(), other.cast(), old.min(new));
            self.give_back(block, old);
            other
        }
    }
}

/// The allocator of a state, with a [`Memory`] as its first argument.
///
/// # Safety
/// As `lua_Alloc`: blocks are those that it gave for this [`Memory`], or that realloc(3) gave, and of the length that is said.
pub(crate) unsafe extern "C" fn allocate(memory: *mut c_void, block: *mut c_void, old: usize, new: usize) -> *mut c_void {
    // SAFETY: by the caller's promise; a state belongs to one thread.
    unsafe {
        let memory = &*memory.cast::<Memory>();
        // For a new block `old` tells the kind of object, not a size (lua_Alloc, Lua 5.4 manual).
        let old = if block.is_null() { 0 } else { old };
        let used = memory.used.get();
        if new > old && used.saturating_add(new - old) > memory.limit.get() {
            return ptr::null_mut();
        }
        let moved = memory.change(block, old, new);
        if new == 0 || !moved.is_null() {
            memory.used.set(used.saturating_sub(old) + new);
        }
        moved
    }
}

/// An arena for states that are closed before it is dropped.
pub(super) struct Workshop(*mut c_void);

impl Workshop {
    const LENGTH: usize = 1 << 20;

    /// `None` if there is no memory.
    pub(super) fn open() -> Option<Self> {
        // SAFETY: a new mapping at an address the kernel chooses.
        let mapped = unsafe { mmap_anonymous(ptr::null_mut(), Self::LENGTH, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
        mapped.ok().map(Self)
    }

    /// The argument of [`allocate`] for the next state; the one before it is closed.
    pub(super) fn memory(&mut self) -> *mut c_void {
        // SAFETY: the mapping is ours, and nobody uses what was in it.
        unsafe { Memory::within(None, self.0, Self::LENGTH, 0) }
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` has made; its states are closed.
        let _ = unsafe { munmap(self.0, Self::LENGTH) };
    }
}

/// An arena at a random page near our other mappings: 18 bits, and the kernel's own choice of the rest. `None` if there is no memory.
fn scattered() -> Option<*mut c_void> {
    let mut bytes = [0; 8 * TRIES];
    random::fill(&mut bytes);
    // Stacks and large allocations are near the C library, too.
    let base = libc::getpid as *const () as usize & !(REACH - 1);
    for word in bytes.chunks_exact(8) {
        let random = word.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)) as usize;
        let page = base + (random % (REACH / PAGE)) * PAGE;
        // SAFETY: a new mapping; where something is mapped already the call fails (MAP_FIXED_NOREPLACE, mmap(2)).
        let mapped = unsafe {
            mmap_anonymous(page as *mut c_void, LENGTH, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE)
        };
        if let Ok(mapped) = mapped {
            mapped.expose_provenance();
            return Some(mapped);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_driver_sim::Hostile;

    /// Blocks of all lengths, grown, shrunk and given back at random, keep what was written to them.
    #[test]
    fn no_two_blocks_overlap_and_each_keeps_its_content() {
        let memory = Memory::scattered(None);
        let mut hostile = Hostile::new(7);
        let mut blocks: Vec<(*mut u8, usize, u8)> = Vec::new();
        let (mut inside, mut outside) = (0, 0);
        let arena = memory.addr()..memory.addr() + LENGTH;
        for round in 0..200_000_u32 {
            let mark = round as u8;
            let length = match hostile.below(20) {
                0 => 1 + hostile.below(20_000),
                1..5 => 1 + hostile.below(2_000),
                _ => 1 + hostile.below(200),
            };
            if blocks.len() < 500 && hostile.below(3) > 0 {
                // SAFETY: a new block.
                let block = unsafe { allocate(memory, ptr::null_mut(), 5, length) }.cast::<u8>();
                assert!(!block.is_null() && block.addr() % GRAIN == 0);
                *(if arena.contains(&block.addr()) { &mut inside } else { &mut outside }) += 1;
                // SAFETY: it has that length.
                unsafe { block.write_bytes(mark, length) };
                blocks.push((block, length, mark));
            } else if !blocks.is_empty() {
                let (block, old, was) = blocks.swap_remove(hostile.below(blocks.len()));
                // SAFETY: a block of ours, of that length.
                let content = unsafe { std::slice::from_raw_parts(block, old) };
                assert!(content.iter().all(|byte| *byte == was), "a block of {old} bytes was written to by another");
                let new = if hostile.below(2) == 0 { 0 } else { length };
                // SAFETY: as above; nobody uses it afterwards.
                let moved = unsafe { allocate(memory, block.cast(), old, new) }.cast::<u8>();
                assert_eq!(moved.is_null(), new == 0);
                if new > 0 {
                    // SAFETY: it has that length, and what it had stays.
                    unsafe {
                        assert!(std::slice::from_raw_parts(moved, old.min(new)).iter().all(|byte| *byte == was));
                        moved.write_bytes(mark, new);
                    }
                    blocks.push((moved, new, mark));
                }
            }
        }
        assert!(inside > 1_000 && outside > 1_000, "{inside} {outside}");
        // SAFETY: the argument that was used all the time.
        let used = unsafe { &*memory.cast::<Memory>() }.used.get();
        assert_eq!(used, blocks.iter().map(|(_, length, _)| length).sum::<usize>());
    }

    #[test]
    fn the_limit_holds_and_what_shrinks_always_can() {
        let memory = Memory::scattered(Some(10_000));
        // SAFETY: blocks of ours, of the lengths that are said.
        unsafe {
            let block = allocate(memory, ptr::null_mut(), 0, 9_000);
            assert!(!block.is_null());
            assert!(allocate(memory, ptr::null_mut(), 0, 2_000).is_null());
            assert!(allocate(memory, block, 9_000, 11_000).is_null());
            let block = allocate(memory, block, 9_000, 100);
            assert!(!block.is_null() && !allocate(memory, ptr::null_mut(), 0, 9_900).is_null());
        }
    }

    #[test]
    fn lengths_have_the_class_of_blocks_that_are_long_enough() {
        let mut before = 0;
        for length in 1..=LARGEST {
            let (class, room) = class(length).unwrap();
            assert!(room >= length && room - length < if length <= SMALL { GRAIN } else { STEP } && class >= before && class < CLASSES);
            before = class;
        }
        assert_eq!((before, class(LARGEST + 1)), (CLASSES - 1, None));
    }
}
