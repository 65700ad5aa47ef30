//! Archives made by `tar`. The extended headers are read here and not by the library, which would keep them whole, however long they are.

use super::Sink;
use std::io::{self, Read};
use tar::{Archive, EntryType};
use vmoon_core::Result;

/// The longest extended header, bytes.
const HEADER: u64 = 64 << 10;

/// Counts what passes, and remembers whether the end of the file came where the end of the archive should have been.
struct Watched<R> {
    inner: R,
    /// How many of the last bytes were zero.
    zeros: u64,
    ended: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if n == 0 && !buffer.is_empty() {
            self.ended = true;
        }
        match buffer[..n].iter().rposition(|byte| *byte != 0) {
            Some(at) => self.zeros = (n - 1 - at) as u64,
            None => self.zeros += n as u64,
        }
        Ok(n)
    }
}

/// What the extended headers say of the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

pub(super) fn read(reader: impl Read, sink: &mut Sink<'_>) -> Result<()> {
    let mut archive = Archive::new(Watched { inner: reader, zeros: 0, ended: false });
    let mut extended = Extended::default();
    let mut headers = 0;
    for entry in archive.entries().map_err(|error| sink.damaged(error))?.raw(true) {
        let mut entry = entry.map_err(|error| sink.damaged(error))?;
        sink.stop.check()?;
        let size = entry.header().entry_size().map_err(|error| sink.damaged(error))?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader) {
            headers += 1;
            if size > HEADER || headers > 4 * sink.limits.entries {
                return Err(sink.refused("its extended headers are too long"));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|error| sink.damaged(error))?;
            if bytes.len() as u64 != size {
                return Err(sink.refused("it is truncated"));
            }
            match kind {
                EntryType::GNULongName => extended.path = Some(without_end(bytes)),
                EntryType::GNULongLink => extended.link = Some(without_end(bytes)),
                EntryType::XHeader => pax(&bytes, &mut extended).map_err(|why| sink.refused(why))?,
                // It names the commit that the archive was made of (git-archive(1)).
                _ => {}
            }
            continue;
        }
        let Extended { path, link } = std::mem::take(&mut extended);
        let path = path.unwrap_or_else(|| entry.header().path_bytes().into_owned());
        match kind {
            EntryType::Directory => sink.directory(&path)?,
            // Old archives mark directories by a slash.
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") && size == 0 => sink.directory(&path)?,
            EntryType::Regular | EntryType::Continuous => {
                let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
                sink.file(&path, executable, size, &mut entry)?;
            }
            EntryType::Symlink | EntryType::Link => {
                let link = link.or_else(|| entry.header().link_name_bytes().map(|name| name.into_owned())).unwrap_or_default();
                sink.link(&path, &link, kind == EntryType::Link)?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                return Err(sink.refused(format_args!("{} is a device or a pipe", show(&path))));
            }
            _ => return Err(sink.refused(format_args!("{} is of a kind that is not known", show(&path)))),
        }
    }
    let mut rest = archive.into_inner();
    if rest.ended || rest.zeros < 512 {
        return Err(sink.refused("it is truncated: its end mark is missing"));
    }
    // Padding, and the check sum of the compression.
    let padding = io::copy(&mut rest.by_ref().take(sink.allowed + 1), &mut io::sink()).map_err(|error| sink.damaged(error))?;
    if padding > sink.allowed {
        return Err(sink.refused("what follows its end mark is longer than is allowed: it looks like a bomb"));
    }
    Ok(())
}

fn show(path: &[u8]) -> String {
    format!("\"{}\"", vmoon_core::name::escape(&String::from_utf8_lossy(&path[..path.len().min(120)])))
}

/// GNU's long names end with NUL; one in the middle stays and is refused.
fn without_end(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

/// Records of the form `LENGTH KEY=VALUE\n` (pax(1)).
fn pax(mut bytes: &[u8], extended: &mut Extended) -> Result<(), String> {
    while !bytes.is_empty() {
        let broken = || "an extended header is damaged".to_owned();
        let blank = bytes.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
        let length: usize = std::str::from_utf8(&bytes[..blank]).ok().and_then(|text| text.parse().ok()).ok_or_else(broken)?;
        let record = bytes.get(blank + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(broken)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => extended.path = Some(value.to_vec()),
            b"linkpath" => extended.link = Some(value.to_vec()),
            b"size" => return Err("the size of a file stands in an extended header, which is for files that are too large anyway".into()),
            _ if key.starts_with(b"GNU.sparse") => return Err("it holds a sparse file".into()),
            _ => {}
        }
        bytes = &bytes[length..];
    }
    Ok(())
}
