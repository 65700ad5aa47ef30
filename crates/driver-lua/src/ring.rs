//! The ring file of one life: how unread output lies in it, readable by anybody after its holder was killed.
//!
//! The file is a header of [`HEADER`] bytes and `capacity` bytes of data. The header lists *segments*: stretches of the
//! stream in the order of their offsets, each lying in the ring, in the file `spill` beside it, or nowhere (a gap). Bytes
//! before `acked` need not exist any more. The holder maps the file and appends data before it publishes the new length,
//! so that whatever instant a SIGKILL hits, the header tells the truth. This file must not know sockets or policies.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};
use vmoon_core::{driver::Exit, frame::MAX_OFFSET};

/// Bytes before the data.
pub(crate) const HEADER: usize = 16 << 10;
/// How many segments the header has room for.
pub(crate) const SLOTS: usize = (HEADER - 128) / 32;
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"vmoonrg1");

/// Where the words of the header are, in units of eight bytes.
pub(crate) mod word {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const CAPACITY: usize = 1;
    pub(crate) const ACKED: usize = 2;
    /// First slot in the high half, number of segments in the low half.
    pub(crate) const SEGMENTS: usize = 3;
    /// How the holder ended; see [`super::exit_word`].
    pub(crate) const EXIT: usize = 4;
    /// Stream bytes lost so far.
    pub(crate) const LOST: usize = 5;
    /// The largest command number taken.
    pub(crate) const LAST_COMMAND: usize = 6;
    pub(crate) const TABLE: usize = 16;
}

/// Where a segment's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Place {
    /// In the ring, from this position on, wrapping.
    Ring = 1,
    /// In the file `spill`, from this position on.
    Spill = 2,
    /// Nowhere: they were lost.
    Gap = 3,
}

/// A stretch of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Stream offset of its first byte.
    pub(crate) at: u64,
    /// How many stream bytes it stands for.
    pub(crate) len: u64,
    /// Position of the first byte in its place.
    pub(crate) pos: u64,
    pub(crate) place: Place,
}

impl Segment {
    pub(crate) fn end(&self) -> u64 {
        self.at + self.len
    }
}

/// What lies at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Here {
    /// So many bytes were copied.
    Bytes(usize),
    /// So many stream bytes are lost.
    Gap(u64),
    /// Nothing has been written there yet.
    End,
}

/// Packs an exit into one word of the header, so that a full disk cannot lose it; 0 is for "it runs".
pub(crate) fn exit_word(exit: &Exit) -> u64 {
    let (kind, value) = match exit {
        Exit::Code { code } => (1, *code),
        Exit::Signal { signal } => (2, *signal),
        Exit::Killed => (3, 0),
        Exit::DidNotYield => (4, 0),
        Exit::Rebooted => (5, 0),
        Exit::Lost => (6, 0),
    };
    kind << 32 | u64::from(value as u32)
}

fn exit_from(word: u64) -> Option<Exit> {
    let value = word as u32 as i32;
    Some(match word >> 32 {
        1 => Exit::Code { code: value },
        2 => Exit::Signal { signal: value },
        3 => Exit::Killed,
        4 => Exit::DidNotYield,
        5 => Exit::Rebooted,
        6 => Exit::Lost,
        _ => return None,
    })
}

/// The words of a mapped header.
#[derive(Clone, Copy)]
pub(crate) struct Words(*const AtomicU64);

// SAFETY: the words are atomics in a mapping that lives as long as the process.
unsafe impl Send for Words {}

impl Words {
    /// # Safety
    /// `base` must be the page-aligned start of a mapping of at least [`HEADER`] bytes that outlives what is made.
    pub(crate) unsafe fn new(base: *mut u8) -> Self {
        Self(base.cast())
    }

    pub(crate) fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < HEADER / 8, "a word outside the header");
        // SAFETY: the assertion keeps it inside the mapping that `new` was promised.
        unsafe { &*self.0.add(index) }
    }

    pub(crate) fn begin(&self, capacity: u64) {
        self.set(word::CAPACITY, capacity);
        self.set(word::MAGIC, MAGIC);
    }

    pub(crate) fn put_segment(&self, slot: usize, segment: &Segment) {
        let at = word::TABLE + (slot % SLOTS) * 4;
        self.set(at, segment.at);
        self.set(at + 1, segment.len);
        self.set(at + 2, segment.pos);
        self.set(at + 3, segment.place as u64);
    }

    pub(crate) fn set_len(&self, slot: usize, len: u64) {
        self.set(word::TABLE + (slot % SLOTS) * 4 + 1, len);
    }

    pub(crate) fn set_segments(&self, first: usize, count: usize) {
        self.set(word::SEGMENTS, ((first % SLOTS) as u64) << 32 | count as u64);
    }
}

/// The files of a life, read from outside: by the driver, after the holder is dead.
#[derive(Debug)]
pub(crate) struct Remains {
    ring: File,
    spill: Option<File>,
    capacity: u64,
    segments: Vec<Segment>,
    /// Oldest offset still kept.
    pub(crate) acked: u64,
    /// How it ended, if the holder could say so.
    pub(crate) exit: Option<Exit>,
    /// The largest command number taken.
    pub(crate) last_command: u64,
}

impl Remains {
    /// Opens the files of the life directory `dir`; `None` if there is no ring or it was never begun.
    ///
    /// # Errors
    /// Those of the file system; `InvalidData` for a header that contradicts itself.
    pub(crate) fn open(dir: &Path) -> io::Result<Option<Self>> {
        let optional = |name: &str| match File::open(dir.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let Some(ring) = optional("ring")? else { return Ok(None) };
        Self::of(ring, optional("spill")?)
    }

    /// The same of open files.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn of(ring: File, spill: Option<File>) -> io::Result<Option<Self>> {
        let mut header = vec![0; HEADER];
        match ring.read_exact_at(&mut header, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let get = |index: usize| header[index * 8..].first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if get(word::MAGIC) != MAGIC {
            return Ok(None);
        }
        let capacity = get(word::CAPACITY);
        let (first, count) = ((get(word::SEGMENTS) >> 32) as usize, get(word::SEGMENTS) as u32 as usize);
        let bad = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, format!("the ring's header is damaged: {what}")));
        if count > SLOTS || capacity == 0 || ring.metadata()?.len().checked_sub(HEADER as u64).is_none_or(|room| room < capacity) {
            return bad("sizes");
        }
        let mut segments = Vec::with_capacity(count);
        for i in 0..count {
            let at = word::TABLE + ((first + i) % SLOTS) * 4;
            let place = match get(at + 3) {
                1 => Place::Ring,
                2 => Place::Spill,
                3 => Place::Gap,
                _ => return bad("an unknown place"),
            };
            let segment = Segment { at: get(at), len: get(at + 1), pos: get(at + 2), place };
            // A program that can write to the mapping can write anything: nothing below overflows by it.
            if segment.at > MAX_OFFSET || segment.len > MAX_OFFSET || segment.pos > MAX_OFFSET {
                return bad("a segment that cannot be");
            }
            if segments.last().is_some_and(|last: &Segment| last.end() != segment.at) {
                return bad("segments do not follow each other");
            }
            segments.push(segment);
        }
        let (acked, last_command) = (get(word::ACKED), get(word::LAST_COMMAND));
        if acked > MAX_OFFSET || last_command > MAX_OFFSET {
            return bad("numbers that cannot be");
        }
        let exit = exit_from(get(word::EXIT));
        Ok(Some(Self { ring, spill, capacity, segments, acked, exit, last_command }))
    }

    /// The offset behind the newest byte.
    pub(crate) fn end(&self) -> u64 {
        self.segments.last().map_or(self.acked, Segment::end)
    }

    /// Appends what lies at `at` to `buf`, at most `max` bytes.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn read(&self, at: u64, buf: &mut Vec<u8>, max: usize) -> io::Result<Here> {
        if at < self.acked {
            return Ok(Here::Gap(self.acked - at));
        }
        let Some(segment) = self.segments.iter().find(|segment| (segment.at..segment.end()).contains(&at)) else { return Ok(Here::End) };
        let left = segment.end() - at;
        let mut n = left.min(max as u64) as usize;
        let pos = segment.pos + (at - segment.at);
        let (file, pos) = match segment.place {
            Place::Gap => return Ok(Here::Gap(left)),
            Place::Ring => {
                let pos = pos % self.capacity;
                n = n.min((self.capacity - pos) as usize);
                (&self.ring, HEADER as u64 + pos)
            }
            Place::Spill => match &self.spill {
                Some(file) => (file, pos),
                None => return Ok(Here::Gap(left)),
            },
        };
        let start = buf.len();
        buf.resize(start + n, 0);
        match file.read_exact_at(&mut buf[start..], pos) {
            Ok(()) => Ok(Here::Bytes(n)),
            Err(error) => {
                buf.truncate(start);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_driver_sim::Hostile;

    /// A program can write what it likes to the mapping of its ring, and to its spill file.
    #[test]
    fn no_header_makes_us_panic_or_read_more_than_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut hostile = Hostile::new(1);
        let (mut opened, mut refused) = (0, 0);
        for round in 0..3_000 {
            let mut words = vec![0u64; HEADER / 8];
            let count = hostile.below(6);
            (words[word::MAGIC], words[word::CAPACITY], words[word::ACKED]) = (MAGIC, 4096, hostile.below(50) as u64);
            words[word::SEGMENTS] = (hostile.below(SLOTS) as u64) << 32 | count as u64;
            words[word::EXIT] = hostile.edge();
            let (first, mut at) = ((words[word::SEGMENTS] >> 32) as usize, words[word::ACKED]);
            for i in 0..count {
                let slot = word::TABLE + (first + i) % SLOTS * 4;
                let len = hostile.below(5000) as u64;
                words[slot..slot + 4].copy_from_slice(&[at, len, hostile.below(9000) as u64, 1 + hostile.below(3) as u64]);
                at += len;
            }
            for _ in 0..hostile.below(4) {
                let index =
                    if hostile.below(2) == 0 { hostile.below(word::TABLE) } else { word::TABLE + first % SLOTS * 4 + hostile.below(8) };
                if let Some(word) = words.get_mut(index) {
                    *word = hostile.edge();
                }
            }
            let mut file: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            file.resize(HEADER + 4096 - hostile.below(2) * hostile.below(4096), b'x');
            std::fs::write(dir.path().join("ring"), file).unwrap();
            if round % 2 == 0 {
                std::fs::write(dir.path().join("spill"), hostile.bytes(9000)).unwrap();
            }
            let Ok(Some(remains)) = Remains::open(dir.path()) else {
                refused += 1;
                continue;
            };
            opened += 1;
            assert!(remains.end() <= 2 * MAX_OFFSET);
            let (mut here, mut buf) = (0, Vec::new());
            for _ in 0..40 {
                match remains.read(here, &mut buf, 8192) {
                    Ok(Here::Bytes(n)) => here += n as u64,
                    Ok(Here::Gap(lost)) => {
                        assert!(lost > 0);
                        here += lost;
                    }
                    Ok(Here::End) | Err(_) => break,
                }
            }
            for _ in 0..4 {
                let _ = remains.read(hostile.edge(), &mut buf, 8192);
            }
            assert!(buf.len() <= 44 * 8192);
        }
        assert!(opened > 300 && refused > 300, "{opened} {refused}");
    }
}
