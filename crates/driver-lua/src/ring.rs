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
use vmoon_core::driver::Exit;

/// Bytes before the data.
pub(crate) const HEADER: usize = 16 << 10;
/// How many segments the header has room for.
pub(crate) const SLOTS: usize = (HEADER - 128) / 32;
const MAGIC: u64 = u64::from_le_bytes(*b"vmoonrg1");

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
        if count > SLOTS || capacity == 0 || ring.metadata()?.len() < HEADER as u64 + capacity {
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
            if segment.at.checked_add(segment.len).is_none() || segments.last().is_some_and(|last: &Segment| last.end() != segment.at) {
                return bad("segments do not follow each other");
            }
            segments.push(segment);
        }
        Ok(Some(Self {
            ring,
            spill: optional("spill")?,
            capacity,
            segments,
            acked: get(word::ACKED),
            exit: exit_from(get(word::EXIT)),
            last_command: get(word::LAST_COMMAND),
        }))
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
