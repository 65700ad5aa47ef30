//! Files of a machine on the wire: paths as text, and the stream that carries one file.

use async_trait::async_trait;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use vmoon_core::Result;

/// How many bytes of a file one message carries at most.
pub const CHUNK: usize = 256 << 10;

/// A path, which is bytes, as text: the percent sign and bytes that are not UTF-8 are written `%25` and `%FF`.
pub fn path_to_text(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for part in path.utf8_chunks() {
        text.push_str(&part.valid().replace('%', "%25"));
        for byte in part.invalid() {
            text.push_str(percent_encoding::percent_encode_byte(*byte));
        }
    }
    text
}

/// The bytes of a path that was written by [`path_to_text`].
pub fn path_from_text(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}

/// What a name in a machine's work directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// An ordinary file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link: never followed.
    Link,
    /// A socket, FIFO or device: never opened.
    Other,
}

/// One file or directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name in its directory, as [`path_to_text`] writes it; empty for the work directory itself.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Its length, bytes; 0 for what is no ordinary file.
    pub size: u64,
    /// Its permission bits, without those for setuid, setgid and sticky.
    pub mode: u32,
    /// When its content last changed, milliseconds since the Unix epoch.
    pub modified_ms: u64,
}

/// A message of a [`Transfer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the file is: first when it is fetched, last when it was stored.
    Entry(FileEntry),
    /// Its next bytes, at most [`CHUNK`].
    Bytes(Vec<u8>),
    /// Everything was said.
    End,
}

/// One file on its way. Dropping it ends it; a file that was not stored whole leaves nothing under its name.
#[async_trait]
pub trait Transfer: Send {
    /// Whether the file is stored, and not fetched.
    fn is_put(&self) -> bool;

    /// The next message: of a file that is fetched its entry, its bytes and the end; of one that is stored, after
    /// [`Self::close`], its entry and the end.
    ///
    /// # Errors
    /// `file.changed` when the file became shorter meanwhile; `file.failed`, `disk.full`, `daemon.unreachable`.
    async fn next(&mut self) -> Result<Part>;

    /// Sends bytes of a file that is stored.
    ///
    /// # Errors
    /// As [`Self::next`].
    async fn send(&mut self, bytes: Vec<u8>) -> Result<()>;

    /// Says that every byte was sent. The file has its name when [`Self::next`] answers.
    ///
    /// # Errors
    /// As [`Self::next`].
    async fn close(&mut self) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_survives_as_text() {
        for (path, text) in [
            (&b"data/a b.csv"[..], "data/a b.csv"),
            ("näme\n".as_bytes(), "näme\n"),
            (b"100%", "100%25"),
            (b"\xff\xfe/x", "%FF%FE/x"),
            (b"a\0b", "a\0b"),
            (b"", ""),
            (b"%41", "%2541"),
        ] {
            assert_eq!(path_to_text(path), text);
            assert_eq!(path_from_text(text), path);
        }
        assert_eq!(path_from_text("100%"), b"100%", "what a person writes is taken as it is");
    }
}
