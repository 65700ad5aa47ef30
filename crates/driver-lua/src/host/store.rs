//! What the VM has said and nobody has acknowledged: the mapped ring, the spill file, and what to do when both are full.
//!
//! Frames go in whole or, when larger than half the ring, in pieces. Nothing here waits: [`Store::append`] says that
//! there is no room, and its caller decides how to wait. This file must not know sockets or Lua.

use crate::ring::{HEADER, Here, Place, SLOTS, Segment, Words, exit_word, word};
use rustix::{
    fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, fallocate, linkat},
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::Path,
};
use vmoon_core::driver::Exit;

/// How much of a ring has its space from the beginning; the rest gets it when output comes so far. Most machines never fill more.
const FIRST: u64 = 16 << 10;
/// Their names.
const NAMES: [&str; 2] = ["ring", "spill"];

/// Takes the space of a part of a file, so that a write to its mapping cannot fail.
fn take(file: &File, from: u64, len: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), from, len) {
        Ok(()) => Ok(()),
        // A file system without fallocate: write the zeros.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = vec![0; 64 << 10];
            let mut done = 0;
            while done < len {
                let n = (len - done).min(zeros.len() as u64) as usize;
                file.write_all_at(&zeros[..n], from + done)?;
                done += n as u64;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes the ring and the spill file of a life in its directory; the space of the beginning of the first is taken from the disk.
///
/// # Errors
/// As [`Store::create`].
pub(crate) fn files(dir: &Path, capacity: u64) -> io::Result<[File; 2]> {
    let mut open = OpenOptions::new();
    open.read(true).write(true).mode(0o600);
    let ring = begin(open.clone().create_new(true).open(dir.join(NAMES[0]))?, capacity)?;
    let spill = open.create(true).truncate(true).open(dir.join(NAMES[1]))?;
    Ok([ring, spill])
}

/// The same without names, on the file system of this directory: nothing is left of them unless [`name`] names them.
///
/// # Errors
/// Those of the file system; not every one can do this.
pub(crate) fn unnamed(dir: &OwnedFd, capacity: u64) -> io::Result<[File; 2]> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = || rustix::fs::openat(dir, ".", flags, Mode::RUSR | Mode::WUSR).map(File::from);
    Ok([begin(file()?, capacity)?, file()?])
}

/// Gives files that have no names theirs in the directory of a life.
///
/// # Errors
/// Those of the file system.
fn name(files: [&File; 2], dir: &Path) -> io::Result<()> {
    // open(2): the way that asks for no privilege.
    let link = |file: &File, name| linkat(CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), CWD, dir.join(name), AtFlags::SYMLINK_FOLLOW);
    link(files[0], NAMES[0])?;
    link(files[1], NAMES[1]).inspect_err(|_| drop(std::fs::remove_file(dir.join(NAMES[0]))))?;
    Ok(())
}

/// Gives a ring its length, and its beginning its space.
fn begin(ring: File, capacity: u64) -> io::Result<File> {
    ring.set_len(HEADER as u64 + capacity.next_multiple_of(4096))?;
    take(&ring, 0, HEADER as u64 + FIRST)?;
    Ok(ring)
}

/// What happens to output while nobody reads and the ring is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Overflow {
    /// It goes to a file, up to a cap; beyond it is dropped.
    #[default]
    Spill,
    /// The VM waits for a reader.
    Wait,
    /// It is dropped, and the reader is told how much.
    Drop,
}

impl Overflow {
    /// The word used in settings and hellos.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Overflow::Spill => "spill",
            Overflow::Wait => "wait",
            Overflow::Drop => "drop",
        }
    }
}

/// Whether a frame may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Output of the program.
    Output,
    /// An answer that the daemon must see: it may use the ring's reserve.
    Answer,
}

/// How [`Store::append`] went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// The frame is in, or was dropped and counted.
    Done,
    /// There is no room for the rest; try again after an acknowledgement or when a client came or went.
    NoRoom,
}

/// Ring bytes kept for answers.
pub(crate) const RESERVE: u64 = 64 << 10;
/// Answers up to this size are never dropped.
const SMALL: usize = 16 << 10;
/// A ring that is empty and whose position has passed this begins anew, so that an idle VM touches few pages.
const REWIND: u64 = 32 << 10;
/// How far frames are walked to check an offset.
const WALK: u64 = 4 << 20;

pub(crate) struct Store {
    words: Words,
    data: *mut u8,
    capacity: u64,
    /// Next ring position.
    next: u64,
    /// Unacknowledged bytes in the ring.
    used: u64,
    segments: VecDeque<Segment>,
    first_slot: usize,
    acked: u64,
    overflow: Overflow,
    ring: File,
    /// So much of the ring has its space.
    taken: u64,
    spill: File,
    spill_end: u64,
    spill_cap: u64,
    /// Output is being dropped until a client comes.
    dropping: bool,
    /// The disk took no more of the spill file.
    pub(crate) disk_full: bool,
    /// A frame has gone in only in part: nothing else may be appended before its rest.
    pub(crate) mid_frame: bool,
    lost: u64,
}

// SAFETY: the pointers are to a mapping that lives as long as the store and is written only through `&mut Store`.
unsafe impl Send for Store {}

impl Drop for Store {
    /// Only the store of a copied process is ever dropped, which must not reach into the ring of its original, and one that was made too early.
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` has made, of that size; `words` and `data` are gone with this value.
        let _ = unsafe { munmap(self.data.sub(HEADER).cast(), HEADER + self.capacity as usize) };
    }
}

impl Store {
    /// Makes the ring file in `dir`. Its space is taken from the disk before anything is written to it, so that a full disk makes the VM wait.
    ///
    /// # Errors
    /// Those of the file system, `StorageFull` above all.
    pub(crate) fn create(dir: &Path, capacity: u64, spill_cap: u64, overflow: Overflow) -> io::Result<Self> {
        // Opened now: a confined process opens no file by its path.
        Self::map(files(dir, capacity)?, capacity, spill_cap, overflow)
    }

    /// Makes itself the store of a life with such a ring by naming its files there; `None` if it was made for another size, or the files cannot be named.
    pub(crate) fn become_that_of(mut self, dir: &Path, capacity: u64, spill_cap: u64, overflow: Overflow) -> Option<Self> {
        if capacity.next_multiple_of(4096) != self.capacity {
            return None;
        }
        let files = [&self.ring, &self.spill];
        name(files, dir).ok()?;
        (self.spill_cap, self.overflow) = (spill_cap, overflow);
        Some(self)
    }

    /// Begins with two files that [`files`] has made for this capacity.
    ///
    /// # Errors
    /// When there is no address space.
    pub(crate) fn map([ring, spill]: [File; 2], capacity: u64, spill_cap: u64, overflow: Overflow) -> io::Result<Self> {
        let capacity = capacity.next_multiple_of(4096);
        let size = HEADER as u64 + capacity;
        // SAFETY: a new shared mapping of a file of that size at an address the kernel chooses; it is unmapped by `drop` only.
        let base = unsafe { mmap(std::ptr::null_mut(), size as usize, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &ring, 0) }?;
        // The kernel would read ahead, and fill a megabyte with zeros for the first byte that is written.
        // SAFETY: advice changes no content.
        let _ = unsafe { madvise(base, size as usize, Advice::Random) };
        let base: *mut u8 = base.cast();
        // SAFETY: the mapping is page-aligned, larger than the header and lives as long as this store.
        let words = unsafe { Words::new(base) };
        let mut this = Self {
            words,
            // SAFETY: HEADER lies within the mapping.
            data: unsafe { base.add(HEADER) },
            capacity,
            next: 0,
            used: 0,
            segments: VecDeque::new(),
            first_slot: 0,
            acked: 0,
            overflow,
            ring,
            taken: FIRST.min(capacity),
            spill,
            spill_end: 0,
            spill_cap,
            dropping: false,
            disk_full: false,
            mid_frame: false,
            lost: 0,
        };
        this.push(Segment { at: 0, len: 0, pos: 0, place: Place::Ring });
        words.begin(capacity);
        Ok(this)
    }

    /// The descriptors that are kept.
    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        [self.ring.as_raw_fd(), self.spill.as_raw_fd()]
    }

    /// The offset behind the newest byte.
    pub(crate) fn end(&self) -> u64 {
        self.segments.back().map_or(self.acked, Segment::end)
    }

    /// The oldest offset still kept.
    pub(crate) fn oldest(&self) -> u64 {
        self.acked
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    pub(crate) fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// Records in the header how the holder ended.
    pub(crate) fn set_exit(&self, exit: &Exit) {
        self.words.set(word::EXIT, exit_word(exit));
    }

    /// Records in the header the largest command number taken.
    pub(crate) fn set_last_command(&self, id: u64) {
        self.words.set(word::LAST_COMMAND, id);
    }

    /// A client came: from here on the VM waits for it instead of losing output.
    pub(crate) fn stop_dropping(&mut self) {
        self.dropping = false;
    }

    /// Appends a frame given in two parts, from byte `done` on, which is advanced: 0 at first, kept by the caller between
    /// calls. `connected` says whether a client reads. A frame that was begun is never dropped.
    pub(crate) fn append(&mut self, head: &[u8], body: &[u8], done: &mut usize, class: Class, connected: bool) -> Appended {
        let total = head.len() + body.len();
        let limit = match class {
            Class::Output => self.capacity - RESERVE,
            Class::Answer => self.capacity,
        };
        // A client acknowledges whole frames, so one that is nearly as large as the ring would wait for itself: it goes to the
        // spill file even while somebody reads.
        let endless = total as u64 > limit / 2;
        while *done < total {
            let left = total - *done;
            let free = limit.saturating_sub(self.used);
            // Small frames go in whole; large ones take what there is.
            let fits = free >= left as u64
                || (!endless && left as u64 > self.capacity / 4 && free >= 4096 && (connected || self.overflow == Overflow::Wait));
            let dropping = self.dropping && *done == 0;
            if fits && !(dropping && class == Class::Output) {
                // Both parts at once: of a frame that fits the disk must not take one and refuse the other.
                let n = left.min(free as usize);
                let (head, body) = (&head[(*done).min(head.len())..], &body[done.saturating_sub(head.len())..]);
                let of_head = head.len().min(n);
                if !self.put_ring([&head[..of_head], &body[..n - of_head]]) {
                    return Appended::NoRoom;
                }
                *done += n;
                continue;
            }
            let waits = connected || self.overflow == Overflow::Wait;
            if waits && !endless {
                return Appended::NoRoom;
            }
            // Two of the largest frames, where the settings leave no room but somebody reads.
            let (drop, cap) = if waits { (false, self.spill_cap.max(40 << 20)) } else { (self.overflow == Overflow::Drop, self.spill_cap) };
            let over = drop || self.spill_end + left as u64 > cap;
            if over && waits {
                return Appended::NoRoom;
            }
            if dropping || (over && *done == 0) {
                if class == Class::Answer && total <= SMALL {
                    return Appended::NoRoom; // even the reserve is full
                }
                if !self.put_gap(total as u64) {
                    return Appended::NoRoom;
                }
                self.dropping = true;
                *done = total;
                continue;
            }
            if over {
                return Appended::NoRoom;
            }
            let head_left = &head[(*done).min(head.len())..];
            let body_left = &body[(*done).saturating_sub(head.len())..];
            if !self.put_spill(head_left, body_left) {
                return Appended::NoRoom;
            }
            *done = total;
        }
        Appended::Done
    }

    /// Puts both into the ring, or nothing.
    fn put_ring(&mut self, parts: [&[u8]; 2]) -> bool {
        let length = (parts[0].len() + parts[1].len()) as u64;
        if self.used == 0 && self.next > REWIND && self.acked == self.end() {
            self.next = 0;
            self.push(Segment { at: self.end(), len: 0, pos: 0, place: Place::Ring });
            self.forget();
        }
        if !self.reach(self.next + length) {
            return false;
        }
        if self.segments.back().is_none_or(|last| last.place != Place::Ring)
            && !self.push(Segment { at: self.end(), len: 0, pos: self.next, place: Place::Ring })
        {
            return false;
        }
        for bytes in parts {
            let first = bytes.len().min((self.capacity - self.next) as usize);
            // SAFETY: the caller checked that so many bytes are free; both copies end within the `capacity` bytes at `data`.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.data.add(self.next as usize), first);
                std::ptr::copy_nonoverlapping(bytes.as_ptr().add(first), self.data, bytes.len() - first);
            }
            self.next = (self.next + bytes.len() as u64) % self.capacity;
        }
        self.used += length;
        self.grow(length);
        true
    }

    /// Takes the space of the ring up to this position; `false` if the disk has none: the VM waits.
    fn reach(&mut self, position: u64) -> bool {
        if position <= self.taken || self.taken == self.capacity {
            return true;
        }
        let to = position.max(self.taken * 4).min(self.capacity);
        let taken = take(&self.ring, HEADER as u64 + self.taken, to - self.taken);
        self.disk_full = taken.is_err();
        if taken.is_ok() {
            self.taken = to;
        }
        !self.disk_full
    }

    /// Writes both to the spill file, or nothing: what a full disk took of them is overwritten by the next attempt.
    fn put_spill(&mut self, head: &[u8], body: &[u8]) -> bool {
        let file = &self.spill;
        let written = file.write_all_at(head, self.spill_end).and_then(|()| file.write_all_at(body, self.spill_end + head.len() as u64));
        // No space, a quota or a size limit: the VM waits.
        self.disk_full = written.is_err();
        if self.disk_full
            || (self.segments.back().is_none_or(|last| last.place != Place::Spill)
                && !self.push(Segment { at: self.end(), len: 0, pos: self.spill_end, place: Place::Spill }))
        {
            return false;
        }
        let n = (head.len() + body.len()) as u64;
        self.spill_end += n;
        self.grow(n);
        true
    }

    fn put_gap(&mut self, len: u64) -> bool {
        if self.segments.back().is_none_or(|last| last.place != Place::Gap)
            && !self.push(Segment { at: self.end(), len: 0, pos: 0, place: Place::Gap })
        {
            return false;
        }
        self.lost += len;
        self.words.set(word::LOST, self.lost);
        self.grow(len);
        true
    }

    /// Adds a segment; `false` if the table is full. An empty last segment is replaced.
    fn push(&mut self, segment: Segment) -> bool {
        if self.segments.back().is_some_and(|last| last.len == 0) {
            self.segments.pop_back();
        }
        if self.segments.len() == SLOTS {
            return false;
        }
        // The count shrinks before the slot is overwritten, so that a reader never sees a half-written segment.
        self.words.set_segments(self.first_slot, self.segments.len());
        self.words.put_segment(self.first_slot + self.segments.len(), &segment);
        self.segments.push_back(segment);
        self.words.set_segments(self.first_slot, self.segments.len());
        true
    }

    fn grow(&mut self, by: u64) {
        let slot = self.first_slot + self.segments.len() - 1;
        if let Some(last) = self.segments.back_mut() {
            last.len += by;
            self.words.set_len(slot, last.len);
        }
    }

    /// Everything before `to` is stored elsewhere.
    pub(crate) fn ack(&mut self, to: u64) {
        let to = to.min(self.end());
        if to <= self.acked {
            return;
        }
        for segment in self.segments.iter().filter(|segment| segment.place == Place::Ring) {
            let (from, until) = (segment.at.max(self.acked), segment.end().min(to));
            self.used -= until.saturating_sub(from);
        }
        self.acked = to;
        self.words.set(word::ACKED, to);
        self.forget();
        if self.spill_end > 0 && self.segments.iter().all(|segment| segment.place != Place::Spill || segment.end() <= to) {
            if self.segments.back().is_some_and(|last| last.place == Place::Spill) {
                self.push(Segment { at: self.end(), len: 0, pos: self.next, place: Place::Ring });
                self.forget();
            }
            // A failure only keeps the space; the positions start anew all the same.
            let _ = self.spill.set_len(0);
            self.spill_end = 0;
            self.disk_full = false;
        }
    }

    fn forget(&mut self) {
        let before = self.first_slot;
        while self.segments.len() > 1 && self.segments.front().is_some_and(|first| first.end() <= self.acked) {
            self.segments.pop_front();
            self.first_slot = (self.first_slot + 1) % SLOTS;
        }
        if self.first_slot != before {
            self.words.set_segments(self.first_slot, self.segments.len());
        }
    }

    fn segment(&self, at: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| (segment.at..segment.end()).contains(&at))
    }

    /// The bytes that lie at `at` in the ring, as two slices; `None` if they lie elsewhere or nowhere.
    pub(crate) fn ring_slices(&self, at: u64, max: usize) -> Option<(&[u8], &[u8])> {
        if at < self.acked {
            return None;
        }
        let segment = self.segment(at).filter(|segment| segment.place == Place::Ring)?;
        let n = (segment.end() - at).min(max as u64) as usize;
        let pos = ((segment.pos + (at - segment.at)) % self.capacity) as usize;
        let first = n.min(self.capacity as usize - pos);
        // SAFETY: both ranges lie within the `capacity` bytes at `data` and are written only through `&mut self`.
        Some(unsafe { (std::slice::from_raw_parts(self.data.add(pos), first), std::slice::from_raw_parts(self.data, n - first)) })
    }

    /// Copies what lies at `at` into `buf`, across segments as far as there are bytes. An error of the spill file is a gap:
    /// its bytes cannot be had.
    pub(crate) fn read(&self, at: u64, buf: &mut [u8]) -> Here {
        if at < self.acked {
            return Here::Gap(self.acked - at);
        }
        let mut done = 0;
        while done < buf.len() {
            let here = at + done as u64;
            let Some(segment) = self.segment(here) else { break };
            let n = if let Some((a, b)) = self.ring_slices(here, buf.len() - done) {
                buf[done..done + a.len()].copy_from_slice(a);
                buf[done + a.len()..done + a.len() + b.len()].copy_from_slice(b);
                a.len() + b.len()
            } else {
                let left = segment.end() - here;
                if segment.place == Place::Gap {
                    return if done > 0 { Here::Bytes(done) } else { Here::Gap(left) };
                }
                let n = left.min((buf.len() - done) as u64) as usize;
                let into = &mut buf[done..done + n];
                match self.spill.read_exact_at(into, segment.pos + (here - segment.at)) {
                    Ok(()) => n,
                    Err(_) => return if done > 0 { Here::Bytes(done) } else { Here::Gap(left) },
                }
            };
            done += n;
        }
        if done == 0 && !buf.is_empty() { Here::End } else { Here::Bytes(done) }
    }

    /// Whether a frame begins at `at`, as far as that can be told soon: frames are walked from the oldest on, over at most a
    /// few MiB; an offset further on is believed.
    pub(crate) fn is_boundary(&self, at: u64) -> bool {
        let mut here = self.acked;
        if at <= here || at - here > WALK {
            return true;
        }
        let mut head = [0; 4];
        while here < at {
            here += match self.read(here, &mut head) {
                Here::Bytes(4) => 4 + u64::from(u32::from_le_bytes(head)),
                Here::Gap(n) => n,
                _ => return false,
            };
        }
        here == at
    }
}
