//! The transcript of a session: the only owner of its history.
//!
//! A directory of segments, each a file of whole frames named by the stream offset of its first one. Offsets are the stream's
//! own: a gap frame stands for the bytes it says were lost, so offsets and file positions differ where gaps are. The session's
//! task appends; any number of readers read at their own pace from what was appended. The oldest segments are dropped when the
//! whole grows past its cap. On opening, a last frame that a kill has torn is cut off: the holder still has it.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::ErrorKind,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use vmoon_core::{
    Error, Result,
    frame::{Frame, HEADER, tag},
};

/// Roughly how long a segment is, bytes. Opening a transcript reads the last one, so it is small.
const SEGMENT: u64 = 1 << 20;
/// How much a transcript keeps, bytes.
pub(crate) const CAP: u64 = 256 << 20;

/// How many transcripts stay open between two appends, of all sessions together: descriptors are few, and most of ten thousand sessions are
/// idle. The others open their file for each append, which takes some microseconds.
const KEPT: usize = 1024;

/// How many are kept open now.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// A file that stays open.
#[derive(Debug)]
struct Kept(File);

impl Kept {
    /// Keeps it, if there are not too many.
    fn new(file: File) -> Option<Self> {
        OPEN.fetch_update(Relaxed, Relaxed, |n| (n < KEPT).then_some(n + 1)).ok().map(|_| Self(file))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Relaxed);
    }
}

/// One file.
#[derive(Clone, Debug)]
struct Segment {
    /// Stream offset of its first frame.
    start: u64,
    /// Stream offset after its last frame.
    end: u64,
    /// Its length in the file, bytes. Differs from `end - start` where it holds gaps.
    bytes: u64,
}

/// What writer and readers share. Segments are contiguous; the last one is being written.
#[derive(Debug)]
struct Index {
    dir: PathBuf,
    segments: VecDeque<Segment>,
}

/// The writing end. There is one.
#[derive(Debug)]
pub(crate) struct Writer {
    index: Arc<Mutex<Index>>,
    /// The last segment, if it is open.
    file: Option<Kept>,
    cap: u64,
}

/// A reading end, at a position.
#[derive(Debug)]
pub(crate) struct Reader {
    index: Arc<Mutex<Index>>,
    open: Option<(u64, File)>,
    /// Stream offset of the next frame, and where that is in its segment, once known.
    at: u64,
    position: Option<(u64, u64)>,
}

/// What a [`Reader`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Stream offset of the first frame.
    pub at: u64,
    /// Whole frames, encoded.
    pub frames: Vec<u8>,
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    // Nothing that can panic runs while the lock is held.
    index.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:016x}.frames"))
}

/// Walks the whole frames at the start of `bytes`: calls `visit(frame, encoded length)` and returns how many bytes they take.
pub(crate) fn walk(bytes: &[u8], mut visit: impl FnMut(Frame<'_>, usize)) -> usize {
    let mut used = 0;
    while let Ok(Some((frame, len))) = Frame::decode(&bytes[used..]) {
        visit(frame, len);
        used += len;
    }
    used
}

impl Writer {
    /// Opens or makes the transcript in `dir`; what is after the last whole frame is cut off. `visit` sees every frame of the
    /// last segment with its stream offset.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn open(dir: &Path, cap: u64, mut visit: impl FnMut(u64, Frame<'_>)) -> Result<Self> {
        let io = |error| Error::io(format_args!("open the transcript {}", dir.display()), error);
        // A new one has no directory yet: most sessions of many say nothing for long.
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(io(error)),
        };
        let mut starts: Vec<u64> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| u64::from_str_radix(entry.ok()?.file_name().to_str()?.strip_suffix(".frames")?, 16).ok())
            .collect();
        starts.sort_unstable();
        let mut segments = VecDeque::with_capacity(starts.len() + 1);
        for (i, &start) in starts.iter().enumerate() {
            let bytes = std::fs::metadata(path(dir, start)).map_err(io)?.len();
            segments.push_back(Segment { start, end: starts.get(i + 1).copied().unwrap_or(start), bytes });
        }
        if segments.is_empty() {
            segments.push_back(Segment { start: 0, end: 0, bytes: 0 });
        }
        let last = segments.back_mut().ok_or_else(|| Error::internal("a transcript without a segment"))?;
        if last.bytes > 0 {
            let file = OpenOptions::new().read(true).write(true).open(path(dir, last.start)).map_err(io)?;
            let mut content = vec![0; last.bytes as usize];
            file.read_exact_at(&mut content, 0).map_err(io)?;
            let mut at = last.start;
            let whole = walk(&content, |frame, _| {
                visit(at, frame);
                at += frame.stream_len();
            });
            if whole < content.len() {
                file.set_len(whole as u64).map_err(io)?;
            }
            (last.end, last.bytes) = (at, whole as u64);
        }
        Ok(Self { index: Arc::new(Mutex::new(Index { dir: dir.into(), segments })), file: None, cap })
    }

    /// Stream offset after the last frame: what the holder is told is stored.
    pub(crate) fn end(&self) -> u64 {
        lock(&self.index).segments.back().map_or(0, |s| s.end)
    }

    /// Appends whole frames that begin at the end of the transcript and take `stream_len` bytes of the stream. All or
    /// nothing: when it fails, nothing was appended and the same call can be made again.
    ///
    /// # Errors
    /// [`Code::DiskFull`](vmoon_core::Code::DiskFull) and whatever else the file system says.
    pub(crate) fn append(&mut self, frames: &[u8], stream_len: u64) -> Result<()> {
        let (start, end, mut bytes, dir) = {
            let index = lock(&self.index);
            let last = index.segments.back().ok_or_else(|| Error::internal("a transcript without a segment"))?;
            (last.start, last.end, last.bytes, index.dir.clone())
        };
        let io = |error| Error::io(format_args!("write the transcript {}", dir.display()), error);
        let rotate = bytes >= SEGMENT && end > start;
        if rotate {
            // Made anew: a try before may have left something.
            drop(self.file.take());
            drop(OpenOptions::new().write(true).create(true).truncate(true).open(path(&dir, end)).map_err(io)?);
            bytes = 0;
        }
        let opened = match &self.file {
            Some(_) => None,
            None => {
                let at = path(&dir, if rotate { end } else { start });
                let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&at);
                Some(match open() {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        vmoon_sys::paths::private_dir(&dir)?;
                        open().map_err(io)?
                    }
                    opened => opened.map_err(io)?,
                })
            }
        };
        let Some(file) = opened.as_ref().or(self.file.as_ref().map(|kept| &kept.0)) else {
            return Err(Error::internal("no open transcript"));
        };
        let mut written = 0;
        while written < frames.len() {
            match file.write_at(&frames[written..], bytes + written as u64) {
                Ok(0) => return Err(io(ErrorKind::WriteZero.into())),
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // What was written of it lies behind `bytes`, where nobody looks, and is written over by the next try.
                    let _ = file.set_len(bytes);
                    if rotate {
                        let _ = std::fs::remove_file(path(&dir, end));
                    }
                    return Err(io(error));
                }
            }
        }
        if let Some(opened) = opened {
            self.file = Kept::new(opened);
        }
        let mut index = lock(&self.index);
        if rotate {
            index.segments.push_back(Segment { start: end, end, bytes: 0 });
        }
        if let Some(last) = index.segments.back_mut() {
            last.bytes += frames.len() as u64;
            last.end += stream_len;
        }
        while index.segments.len() > 2 && index.segments.iter().map(|s| s.bytes).sum::<u64>() > self.cap {
            if let Some(oldest) = index.segments.pop_front() {
                let _ = std::fs::remove_file(path(&index.dir, oldest.start));
            }
        }
        Ok(())
    }

    /// Whether there are segments besides the one that opening has read.
    pub(crate) fn has_older(&self) -> bool {
        lock(&self.index).segments.len() > 1
    }

    /// A reader at this stream offset.
    pub(crate) fn reader(&self, at: u64) -> Reader {
        Reader { index: self.index.clone(), open: None, at, position: None }
    }
}

impl Reader {
    /// The oldest and the end offset that can be read.
    pub(crate) fn bounds(&self) -> (u64, u64) {
        let index = lock(&self.index);
        (index.segments.front().map_or(0, |s| s.start), index.segments.back().map_or(0, |s| s.end))
    }

    /// Where the next chunk begins.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Moves to another offset.
    pub(crate) fn seek(&mut self, at: u64) {
        (self.at, self.position) = (at, None);
    }

    /// Another reader at `at`.
    pub(crate) fn fork(&self, at: u64) -> Reader {
        Reader { index: self.index.clone(), open: None, at, position: None }
    }

    /// The whole frames from here on, about `max` bytes of them and at least one; `None` at the end. A part that was dropped
    /// comes as a gap frame. An offset inside a frame is rounded down to the frame's beginning.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn next(&mut self, max: usize) -> Result<Option<Chunk>> {
        let (dir, segment) = {
            let index = lock(&self.index);
            let Some(first) = index.segments.front() else { return Ok(None) };
            if self.at < first.start {
                let lost = (first.start - self.at).to_le_bytes();
                let chunk = Chunk { at: self.at, frames: Frame { tag: tag::GAP, id: 0, payload: &lost }.to_vec() };
                (self.at, self.position) = (first.start, None);
                return Ok(Some(chunk));
            }
            let found = index.segments.partition_point(|s| s.start <= self.at).saturating_sub(1);
            let Some(segment) = index.segments.get(found).filter(|s| self.at < s.end) else { return Ok(None) };
            (index.dir.clone(), segment.clone())
        };
        let io = |error| Error::io(format_args!("read the transcript {}", dir.display()), error);
        if self.open.as_ref().is_none_or(|(start, _)| *start != segment.start) {
            match File::open(path(&dir, segment.start)) {
                Ok(file) => self.open = Some((segment.start, file)),
                // Dropped between the look and the opening: the next look sees the gap. Or the whole transcript was removed.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let dropped = lock(&self.index).segments.front().is_some_and(|first| first.start > segment.start);
                    return if dropped { self.next(max) } else { Ok(None) };
                }
                Err(error) => return Err(io(error)),
            }
            self.position = None;
        }
        let Some((_, file)) = &self.open else { return Ok(None) };
        let position = match self.position {
            Some((at, position)) if at == self.at => position,
            _ => {
                let (at, position) = find(file, &segment, self.at).map_err(io)?;
                self.at = at;
                position
            }
        };
        let left = (segment.bytes - position) as usize;
        let mut frames = vec![0; max.max(HEADER).min(left)];
        file.read_exact_at(&mut frames, position).map_err(io)?;
        if let Some(len) = frames.first_chunk::<4>().map(|b| u32::from_le_bytes(*b) as usize + 4).filter(|len| *len > frames.len()) {
            frames = vec![0; len.min(left)];
            file.read_exact_at(&mut frames, position).map_err(io)?;
        }
        let mut stream = 0;
        let used = walk(&frames, |frame, _| stream += frame.stream_len());
        if used == 0 {
            return Err(Error::internal(format!("the transcript {} is damaged at {}", dir.display(), self.at)));
        }
        frames.truncate(used);
        let chunk = Chunk { at: self.at, frames };
        self.at += stream;
        self.position = Some((self.at, position + used as u64));
        Ok(Some(chunk))
    }
}

/// Finds the frame that holds stream offset `at`: its own offset and its place in the file.
fn find(file: &File, segment: &Segment, at: u64) -> std::io::Result<(u64, u64)> {
    let mut content = vec![0; segment.bytes as usize];
    file.read_exact_at(&mut content, 0)?;
    let (mut offset, mut position) = (segment.start, 0u64);
    let mut found = None;
    walk(&content, |frame, len| {
        if found.is_none() && at < offset + frame.stream_len() {
            found = Some((offset, position));
        }
        offset += frame.stream_len();
        position += len as u64;
    });
    Ok(found.unwrap_or((segment.start, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(id: u64, n: usize) -> Vec<u8> {
        Frame { tag: tag::STDOUT, id, payload: &vec![id as u8; n] }.to_vec()
    }

    fn all(reader: &mut Reader, max: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut at = reader.at();
        while let Some(chunk) = reader.next(max).unwrap() {
            assert_eq!(chunk.at, at);
            at = reader.at();
            bytes.extend(chunk.frames);
        }
        bytes
    }

    #[test]
    fn what_was_appended_is_read_from_any_offset_across_segments_and_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), CAP, |_, _| {}).unwrap();
        let mut want = Vec::new();
        for i in 0..60 {
            let frame = out(i, 40_000 + i as usize);
            writer.append(&frame, frame.len() as u64).unwrap();
            want.extend(frame);
        }
        assert!(std::fs::read_dir(dir.path()).unwrap().count() > 2);
        assert_eq!(all(&mut writer.reader(0), 100_000), want);
        assert_eq!(all(&mut writer.reader(0), 1), want);
        let third = 2 * (40_000 + HEADER as u64) + 1;
        assert_eq!(all(&mut writer.reader(third), 50_000), want[third as usize..]);
        let mut inside = writer.reader(third + 5);
        assert_eq!(inside.next(1).unwrap().unwrap().at, third);
        drop(writer);
        let mut last = 0;
        let writer = Writer::open(dir.path(), CAP, |_, frame| last = frame.id).unwrap();
        assert_eq!((writer.end(), last), (want.len() as u64, 59));
        assert_eq!(all(&mut writer.reader(0), 1 << 20), want);
    }

    #[test]
    fn a_transcript_that_is_not_kept_open_is_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), CAP, |_, _| {}).unwrap();
        assert_eq!((std::fs::read_dir(dir.path()).unwrap().count(), all(&mut writer.reader(0), 100)), (0, vec![]), "nothing was said yet");
        let mut want = Vec::new();
        for i in 0..60 {
            let frame = out(i, 40_000);
            writer.append(&frame, frame.len() as u64).unwrap();
            writer.file = None;
            want.extend(frame);
        }
        assert!(std::fs::read_dir(dir.path()).unwrap().count() > 2);
        assert_eq!(all(&mut writer.reader(0), 1 << 20), want);
    }

    #[test]
    fn a_torn_last_frame_is_cut_off_and_written_again() {
        for torn in [1, 5, HEADER, HEADER + 3] {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = Writer::open(dir.path(), CAP, |_, _| {}).unwrap();
            let frame = out(1, 10);
            writer.append(&frame, frame.len() as u64).unwrap();
            writer.file.as_ref().unwrap().0.write_at(&frame[..torn], frame.len() as u64).unwrap();
            drop(writer);
            let mut writer = Writer::open(dir.path(), CAP, |_, _| {}).unwrap();
            assert_eq!(writer.end(), frame.len() as u64, "{torn}");
            writer.append(&frame, frame.len() as u64).unwrap();
            assert_eq!(all(&mut writer.reader(0), 1 << 20), [frame.clone(), frame].concat());
        }
    }

    #[test]
    fn gaps_keep_offsets_true() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), CAP, |_, _| {}).unwrap();
        let (a, b) = (out(1, 10), out(2, 10));
        let gap = Frame { tag: tag::GAP, id: 0, payload: &1_000_000u64.to_le_bytes() }.to_vec();
        writer.append(&[a.clone(), gap.clone(), b.clone()].concat(), (a.len() + b.len()) as u64 + 1_000_000).unwrap();
        let second = a.len() as u64 + 1_000_000;
        assert_eq!(writer.end(), second + b.len() as u64);
        assert_eq!(writer.reader(second).next(100).unwrap().unwrap(), Chunk { at: second, frames: b.clone() });
        assert_eq!(writer.reader(500).next(1).unwrap().unwrap(), Chunk { at: a.len() as u64, frames: gap });
        drop(writer);
        assert_eq!(Writer::open(dir.path(), CAP, |_, _| {}).unwrap().end(), second + b.len() as u64);
    }

    #[test]
    fn past_the_cap_the_oldest_is_dropped_and_shown_as_one_gap() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), 3 << 20, |_, _| {}).unwrap();
        let mut total = 0;
        for i in 0..100 {
            let frame = out(i, 100_000);
            total += frame.len() as u64;
            writer.append(&frame, frame.len() as u64).unwrap();
        }
        let mut reader = writer.reader(0);
        let first = reader.next(1 << 20).unwrap().unwrap();
        let (gap, _) = Frame::decode(&first.frames).unwrap().unwrap();
        let (oldest, end) = reader.bounds();
        assert_eq!((gap.tag, gap.stream_len(), end), (tag::GAP, oldest, total));
        assert_eq!(all(&mut reader, 1 << 20).len() as u64, total - oldest);
        assert!(total - oldest <= (3 << 20) + 100_013);
    }

    #[test]
    fn a_reader_of_a_transcript_that_was_removed_finds_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(&dir.path().join("t"), CAP, |_, _| {}).unwrap();
        let frame = out(1, 10);
        writer.append(&frame, frame.len() as u64).unwrap();
        let mut reader = writer.reader(0);
        std::fs::remove_dir_all(dir.path().join("t")).unwrap();
        assert_eq!(reader.next(100).unwrap(), None);
    }

    #[test]
    fn an_append_that_fails_changes_nothing_and_can_be_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), CAP, |_, _| {}).unwrap();
        let frame = out(1, 10);
        writer.append(&frame, frame.len() as u64).unwrap();
        let good = std::mem::replace(&mut writer.file, Kept::new(OpenOptions::new().write(true).open("/dev/full").unwrap()));
        assert_eq!(writer.append(&frame, frame.len() as u64).unwrap_err().code(), vmoon_core::Code::DiskFull);
        assert_eq!(writer.end(), frame.len() as u64);
        writer.file = good;
        writer.append(&frame, frame.len() as u64).unwrap();
        assert_eq!(all(&mut writer.reader(0), 1 << 20), [frame.clone(), frame].concat());
    }
}
