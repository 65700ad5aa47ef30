//! The header of a qcow2 image, written and read by ourselves: an overlay is four small pieces in a sparse file. Pure.
//!
//! The format is described in QEMU's `docs/interop/qcow2.txt`; this is version 3 with 64 KiB clusters and 16-bit reference
//! counts. Tests hold it to `qemu-img check` and `qemu-img info`.

use vmoon_core::{Code, Error, Result};

const MAGIC: [u8; 4] = *b"QFI\xfb";
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// The header of version 3, without the compression type that came later.
const HEADER: u32 = 104;
/// The header extension that names the format of the base.
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// One entry of the first-level table stands for so many bytes of the disk: a cluster full of eight-byte entries.
const PER_L1: u64 = CLUSTER * (CLUSTER / 8);
/// The largest disk, bytes: 64 TiB keeps everything below within one block of reference counts.
pub(crate) const MAX_SIZE: u64 = 64 << 40;
/// The longest name of a base, bytes; QEMU reads no longer one.
const MAX_NAME: usize = 1023;
/// How much of a file [`Header::read`] needs at most, bytes.
pub(crate) const HEAD: usize = CLUSTER as usize;

/// The base of an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base<'a> {
    /// Its path, as QEMU will open it.
    pub(crate) path: &'a str,
    /// `qcow2` or `raw`: always named, never guessed from content that a guest may have written.
    pub(crate) format: &'a str,
}

/// A new image: pieces to be put at offsets of a file of zeros, and its length.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) pieces: Vec<(u64, Vec<u8>)>,
    /// Bytes.
    pub(crate) length: u64,
}

impl Image {
    /// The whole file.
    #[cfg(test)]
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut file = vec![0; self.length as usize];
        for (at, piece) in &self.pieces {
            let at = *at as usize;
            file[at..at + piece.len()].copy_from_slice(piece);
        }
        file
    }
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(Code::SpecInvalid, format!("the disk image cannot be made: {}", why.into()))
}

/// An empty image of `size` bytes, over a base if there is one.
///
/// # Errors
/// [`Code::SpecInvalid`] if the size is none a disk has, or the name of the base is too long.
pub(crate) fn image(size: u64, base: Option<&Base<'_>>) -> Result<Image> {
    if size == 0 || size > MAX_SIZE {
        return Err(invalid(format!("a size of {size} bytes is not between 1 byte and 64 TiB")));
    }
    let size = size.div_ceil(512) * 512;
    let l1_entries = size.div_ceil(PER_L1);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    // The header, the table of reference counts, its one block, the first-level table.
    let (table_at, block_at, l1_at) = (CLUSTER, 2 * CLUSTER, 3 * CLUSTER);
    let clusters = 3 + l1_clusters;

    let mut extensions = Vec::new();
    let mut name = &b""[..];
    if let Some(base) = base {
        name = base.path.as_bytes();
        if name.is_empty() || name.len() > MAX_NAME || name.contains(&0) {
            return Err(invalid(format!("the name of its base has {} bytes, of 1 to {MAX_NAME}", name.len())));
        }
        extensions.extend_from_slice(&BACKING_FORMAT.to_be_bytes());
        extensions.extend_from_slice(&(base.format.len() as u32).to_be_bytes());
        extensions.extend_from_slice(base.format.as_bytes());
        extensions.resize(extensions.len().next_multiple_of(8), 0);
    }
    extensions.extend_from_slice(&[0; 8]);
    let name_at = if name.is_empty() { 0 } else { u64::from(HEADER) + extensions.len() as u64 };

    let mut head = Vec::with_capacity(256 + name.len());
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&3u32.to_be_bytes());
    head.extend_from_slice(&name_at.to_be_bytes());
    head.extend_from_slice(&(name.len() as u32).to_be_bytes());
    head.extend_from_slice(&CLUSTER_BITS.to_be_bytes());
    head.extend_from_slice(&size.to_be_bytes());
    head.extend_from_slice(&0u32.to_be_bytes()); // not encrypted
    head.extend_from_slice(&(l1_entries as u32).to_be_bytes());
    head.extend_from_slice(&l1_at.to_be_bytes());
    head.extend_from_slice(&table_at.to_be_bytes());
    head.extend_from_slice(&1u32.to_be_bytes()); // clusters of that table
    head.extend_from_slice(&[0; 4 + 8]); // no snapshots
    head.extend_from_slice(&[0; 8 * 3]); // no features
    head.extend_from_slice(&4u32.to_be_bytes()); // 2⁴ bits for each count
    head.extend_from_slice(&HEADER.to_be_bytes());
    head.extend_from_slice(&extensions);
    head.extend_from_slice(name);

    let counts = 1u16.to_be_bytes().repeat(clusters as usize);
    let pieces = vec![(0, head), (table_at, block_at.to_be_bytes().to_vec()), (block_at, counts)];
    Ok(Image { pieces, length: clusters * CLUSTER })
}

/// What the beginning of an image says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes the guest sees.
    pub(crate) size: u64,
    /// The base, as it is written there: it may be relative to the image.
    pub(crate) base: Option<String>,
    /// The base's format, if it is named.
    pub(crate) base_format: Option<String>,
}

impl Header {
    /// Reads the beginning of a file ([`HEAD`] bytes of it, or all); `None` if it is no qcow2 image.
    ///
    /// # Errors
    /// [`Code::FileFailed`] if it is one whose header contradicts itself.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>> {
        if !bytes.starts_with(&MAGIC) {
            return Ok(None);
        }
        Self::fields(bytes).map(Some).ok_or_else(|| Error::new(Code::FileFailed, "the qcow2 image's header is damaged"))
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| bytes.get(at..at + 4)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
        let u64_at = |at: usize| bytes.get(at..at + 8)?.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
        let version = u32_at(4).filter(|version| (2..=3).contains(version))?;
        let (name_at, name_len) = (u64_at(8)?, u32_at(16)? as usize);
        let size = u64_at(24)?;
        let base = match name_at {
            0 => None,
            at => {
                let at = usize::try_from(at).ok()?;
                let name = bytes.get(at..at.checked_add(name_len.min(MAX_NAME))?)?;
                Some(String::from_utf8(name.to_vec()).ok()?)
            }
        };
        let mut at = if version == 2 { 72 } else { u32_at(100)? as usize };
        let mut base_format = None;
        // Each extension is at least a header long, so this ends.
        while let (Some(kind), Some(len)) = (u32_at(at), u32_at(at.checked_add(4)?)) {
            if kind == 0 {
                break;
            }
            let from = at.checked_add(8)?;
            let to = from.checked_add(len as usize)?;
            let Some(data) = bytes.get(from..to) else { break };
            if kind == BACKING_FORMAT {
                base_format = Some(String::from_utf8(data.to_vec()).ok()?);
            }
            at = to.checked_next_multiple_of(8)?;
        }
        Some(Self { size, base, base_format })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_driver_sim::Hostile;

    #[test]
    fn what_is_written_is_read() {
        for (size, base) in [(1, None), (10 << 30, Some(Base { path: "/images/a b.qcow2", format: "qcow2" })), (MAX_SIZE, None)] {
            let file = image(size, base.as_ref()).unwrap().to_vec();
            let header = Header::read(&file).unwrap().unwrap();
            assert_eq!(header.size, size.div_ceil(512) * 512);
            assert_eq!(header.base.as_deref(), base.as_ref().map(|base| base.path));
            assert_eq!(header.base_format.as_deref(), base.as_ref().map(|base| base.format));
        }
        assert_eq!(Header::read(b"#!/bin/sh").unwrap(), None);
    }

    #[test]
    fn impossible_disks_are_refused() {
        let long = "x".repeat(1024);
        assert!(image(0, None).is_err() && image(MAX_SIZE + 1, None).is_err());
        assert!(image(1, Some(&Base { path: &long, format: "raw" })).is_err());
        assert!(image(1, Some(&Base { path: "a\0b", format: "raw" })).is_err());
    }

    #[test]
    fn spoilt_headers_are_refused_or_read() {
        let good = image(1 << 30, Some(&Base { path: "/base", format: "qcow2" })).unwrap().to_vec()[..4096].to_vec();
        let mut hostile = Hostile::new(11);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            hostile.spoil(&mut bytes);
            let _ = Header::read(&bytes);
        }
        for cut in 0..good.len().min(200) {
            let _ = Header::read(&good[..cut]);
        }
    }
}
