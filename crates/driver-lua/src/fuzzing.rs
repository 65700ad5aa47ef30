//! Doors for `crates/fuzz`: the decoders here that are private and read what a machine, its holder or its zygote sends or has left. Each takes any
//! bytes and panics if what must hold does not. Nothing else may use them.

use crate::{
    forking::Said,
    layout::Meta,
    link,
    oneshot::map::work::Heard,
    ring::{HEADER, Here, MAGIC, Remains, SLOTS, word},
    zygote,
};
use std::{fs::File, io, os::unix::fs::FileExt as _, sync::OnceLock};
use vmoon_confine::Report;
use vmoon_core::{
    driver::{Exit, Offset},
    frame::{Frame, MAX_OFFSET},
};

/// What a living machine sends, from this offset of its stream on: pieces go out whole and in order, offsets only grow.
pub fn link(from: Offset, bytes: &[u8]) {
    let (mut inbox, mut at, mut buf) = (bytes.to_vec(), from.min(MAX_OFFSET), Vec::new());
    let mut given = Vec::new();
    loop {
        let before = at;
        match link::take(&mut inbox, &mut at, &mut buf) {
            Ok(Some(_)) => {
                assert!(before <= at && at <= MAX_OFFSET && !buf.is_empty());
                given.extend_from_slice(&buf);
            }
            Ok(None) => {
                // What waits is the beginning of one frame.
                assert!(matches!(Frame::decode(&inbox), Ok(None)));
                break;
            }
            Err(_) => break,
        }
    }
    assert_eq!(bytes[..given.len()], given);
}

/// What a zygote answers, what a holder that is being copied says, and the records that both leave in the directory of a life.
pub fn records(bytes: &[u8]) {
    let _ = zygote::read(bytes);
    let _ = serde_json::from_slice::<Said>(bytes);
    if let Ok(meta) = serde_json::from_slice::<Meta>(bytes) {
        // It is looked for in the table of processes.
        assert!(serde_json::to_vec(&meta).is_ok());
    }
    let _ = serde_json::from_slice::<Exit>(bytes);
    let _ = serde_json::from_slice::<Report>(bytes);
}

/// What the process of an item of `vmoon run --map` sends, in pieces of this size.
pub fn item(piece: usize, bytes: &[u8]) {
    let mut heard = Heard::default();
    for part in bytes.chunks(piece.max(1)) {
        if !heard.take(part) {
            break;
        }
        assert!(heard.held() <= bytes.len());
    }
}

/// The ring that a dead machine has left, in which it could write what it liked: ten bytes put a word of eight anywhere into a header that is in
/// order.
///
/// # Errors
/// When there is no file to try it with.
pub fn ring(bytes: &[u8]) -> io::Result<()> {
    const ROOM: u64 = 4096;
    static FILES: OnceLock<[File; 2]> = OnceLock::new();
    let files = match FILES.get() {
        Some(files) => files,
        None => {
            let [ring, spill] = [c"ring", c"spill"].map(|name| rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC));
            let (ring, spill) = (File::from(ring?), File::from(spill?));
            ring.set_len(HEADER as u64 + ROOM)?;
            spill.set_len(ROOM)?;
            FILES.get_or_init(|| [ring, spill])
        }
    };
    let mut words = vec![0u64; HEADER / 8];
    (words[word::MAGIC], words[word::CAPACITY], words[word::SEGMENTS]) = (MAGIC, ROOM, 3);
    for (slot, segment) in [[0, 1000, 0, 1], [1000, 500, 0, 2], [1500, 70, 0, 3]].into_iter().enumerate() {
        let at = word::TABLE + slot * 4;
        words[at..at + 4].copy_from_slice(&segment);
    }
    for patch in bytes.chunks_exact(10) {
        let (place, value) = patch.split_at(2);
        // Most of the table is never looked at.
        let place = usize::from(u16::from_le_bytes([place[0], place[1]])) % (word::TABLE + 8 * 4);
        let mut word = [0; 8];
        word.copy_from_slice(value);
        words[place] = u64::from_le_bytes(word);
    }
    let header: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    files[0].write_all_at(&header, 0)?;
    let Ok(Some(remains)) = Remains::of(files[0].try_clone()?, Some(files[1].try_clone()?)) else { return Ok(()) };
    assert!(remains.end() <= 2 * MAX_OFFSET && remains.acked <= MAX_OFFSET && remains.last_command <= MAX_OFFSET);
    let (mut here, mut buf) = (0, Vec::new());
    for _ in 0..2 * SLOTS {
        buf.clear();
        match remains.read(here, &mut buf, 8192) {
            Ok(Here::Bytes(n)) => {
                assert!(n > 0 && n == buf.len() && n <= 8192);
                here += n as u64;
            }
            Ok(Here::Gap(lost)) => {
                assert!(lost > 0);
                here += lost;
            }
            Ok(Here::End) => {
                assert!(here >= remains.end() || here >= remains.acked);
                break;
            }
            Err(_) => break,
        }
    }
    Ok(())
}
