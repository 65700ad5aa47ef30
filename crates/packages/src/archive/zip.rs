//! Archives made by `zip`; rocks are such.

use super::Sink;
use std::io::{self, Read, Seek, SeekFrom};
use vmoon_core::Result;
use zip::{ZipArchive, result::ZipError};

/// The longest that a symbolic link may hold, bytes.
const LINK: u64 = 1024;

pub(super) fn read(mut reader: impl Read + Seek, size: u64, sink: &mut Sink<'_>) -> Result<()> {
    let promised = promised(&mut reader, size).map_err(|error| sink.damaged(error))?;
    let Some(promised) = promised else { return Err(sink.refused("it is truncated: its list of entries is missing")) };
    if usize::from(promised) > sink.limits.entries || promised == u16::MAX {
        return Err(sink.refused(format_args!("it has more than {} entries", sink.limits.entries.min(usize::from(u16::MAX) - 1))));
    }
    let mut archive = ZipArchive::new(reader).map_err(|error| damaged(sink, error))?;
    // The library keeps one of those that bear the same name.
    if archive.len() != usize::from(promised) {
        return Err(sink.refused("a name stands in it twice"));
    }
    for number in 0..archive.len() {
        let mut entry = archive.by_index(number).map_err(|error| damaged(sink, error))?;
        let name = entry.name_raw().to_vec();
        let mode = entry.unix_mode().unwrap_or(0);
        match mode & 0o170_000 {
            0 | 0o100_000 | 0o040_000 => {}
            0o120_000 => {
                let mut target = Vec::new();
                entry.by_ref().take(LINK + 1).read_to_end(&mut target).map_err(|error| sink.damaged(error))?;
                if target.len() as u64 > LINK {
                    return Err(sink.refused("a link in it is too long"));
                }
                sink.link(&name, &target, false)?;
                continue;
            }
            _ => return Err(sink.refused("it holds a device, a pipe or a socket")),
        }
        if entry.is_dir() {
            sink.directory(&name)?;
        } else {
            let length = entry.size();
            sink.file(&name, mode & 0o100 != 0, length, &mut entry)?;
            // One byte more: there is none, and the check sum is compared at the end.
            if entry.read(&mut [0]).map_err(|error| sink.damaged(error))? != 0 {
                return Err(sink.refused("a file in it is longer than the archive says"));
            }
        }
    }
    Ok(())
}

fn damaged(sink: &Sink<'_>, error: ZipError) -> vmoon_core::Error {
    match error {
        ZipError::Io(error) => sink.damaged(error),
        ZipError::UnsupportedArchive(why) => sink.refused(why),
        other => sink.refused(format_args!("it is damaged: {other}")),
    }
}

/// How many entries the end of the archive promises (`APPNOTE.TXT` 4.3.16); `None` if there is no such end.
fn promised(reader: &mut (impl Read + Seek), size: u64) -> io::Result<Option<u16>> {
    let length = size.min(22 + u64::from(u16::MAX));
    reader.seek(SeekFrom::Start(size - length))?;
    let mut end = Vec::new();
    reader.by_ref().take(length).read_to_end(&mut end)?;
    reader.seek(SeekFrom::Start(0))?;
    let found = end.windows(22).rposition(|window| window.starts_with(b"PK\x05\x06"));
    Ok(found.map(|at| u16::from_le_bytes([end[at + 10], end[at + 11]])))
}
