//! Doors for `crates/fuzz`: what a host says of its sessions. Nothing else may use them.

use crate::guest::wire::{Envelope, Piece, exit, frames, status};

/// The envelope of an attached session, in parts of this size, and what it carries.
///
/// # Panics
/// If what must hold does not.
pub fn envelope(part: usize, bytes: &[u8]) {
    let mut envelope = Envelope::default();
    for part in bytes.chunks(part.max(1)) {
        envelope.push(part);
        loop {
            match envelope.next() {
                Ok(Some(Piece::Stream(stream))) => {
                    let length = stream.len();
                    if let Ok(used) = frames(stream, |frame| assert!(frame.payload.len() < length)) {
                        assert!(used <= length);
                    }
                }
                Ok(Some(Piece::Letters(letters))) => {
                    let _ = status(letters);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    let _ = exit(&String::from_utf8_lossy(bytes));
}
