//! A serial console: what it has said lately is kept, and any number may watch and type.

use bytes::Bytes;
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
    sync::{broadcast, mpsc, watch},
};

/// How many bytes are kept.
const KEPT: usize = 64 << 10;
/// What a guest says when it is ready.
const READY: &[u8] = b"GUEST READY";
/// What somebody reads who was too slow.
const LOST: &[u8] = b"\r\n[some output was lost here]\r\n";

/// A serial console.
pub(crate) struct Terminal {
    kept: Mutex<VecDeque<u8>>,
    told: broadcast::Sender<Bytes>,
    typed: mpsc::Sender<Bytes>,
    to_type: Mutex<Option<mpsc::Receiver<Bytes>>>,
    ready: watch::Sender<bool>,
}

impl Terminal {
    pub(super) fn new() -> Self {
        let (typed, to_type) = mpsc::channel(64);
        Self {
            kept: Mutex::default(),
            told: broadcast::Sender::new(256),
            typed,
            to_type: Mutex::new(Some(to_type)),
            ready: watch::Sender::new(false),
        }
    }

    /// Keeps what comes and writes what is typed, until the other end is gone.
    pub(super) async fn run(self: Arc<Self>, stream: UnixStream) {
        let Some(mut typed) = self.to_type.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let (mut read, mut write) = stream.into_split();
        let reading = async {
            let mut buffer = vec![0; 8 << 10];
            while let Ok(count @ 1..) = read.read(&mut buffer).await {
                self.say(&buffer[..count]);
            }
        };
        // A guest that does not read must not keep us from reading.
        let writing = async {
            while let Some(bytes) = typed.recv().await {
                if write.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    }

    /// Adds to what it has said.
    pub(super) fn say(&self, bytes: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let over = kept.len().saturating_sub(KEPT);
        kept.drain(..over);
        if !*self.ready.borrow() {
            // The words may have come in two pieces.
            let from = kept.len().saturating_sub(bytes.len() + READY.len());
            let tail: Vec<u8> = kept.iter().skip(from).copied().collect();
            if tail.windows(READY.len()).any(|words| words == READY) {
                self.ready.send_replace(true);
            }
        }
        // Nobody may be watching. The lock is held, so that whoever begins to watch has each byte once.
        let _ = self.told.send(Bytes::copy_from_slice(bytes));
    }

    /// Returns when the guest has said that it is ready.
    pub(super) async fn ready(&self) {
        // The sender is here: it cannot be gone.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Shows it to somebody, from what is kept on, and types what comes from there, until that end is gone.
    pub(crate) async fn carry(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let (history, mut told) = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            (kept.iter().copied().collect::<Vec<u8>>(), self.told.subscribe())
        };
        let (mut read, mut write) = tokio::io::split(stream);
        write.write_all(&history).await?;
        write.flush().await?;
        let mut buffer = vec![0; 4 << 10];
        loop {
            tokio::select! {
                said = told.recv() => {
                    match said {
                        Ok(bytes) => write.write_all(&bytes).await?,
                        Err(broadcast::error::RecvError::Lagged(_)) => write.write_all(LOST).await?,
                        Err(broadcast::error::RecvError::Closed) => return Ok(()),
                    }
                    write.flush().await?;
                }
                count = read.read(&mut buffer) => match count? {
                    0 => return Ok(()),
                    count => if self.typed.send(Bytes::copy_from_slice(&buffer[..count])).await.is_err() {
                        return Ok(());
                    },
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn who_comes_late_reads_what_was_said_and_everybody_may_type() {
        let terminal = Arc::new(Terminal::new());
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let task = tokio::spawn(terminal.clone().run(ours));
        guest.write_all(b"boot\r\nGUEST RE").await.unwrap();
        guest.write_all(b"ADY moon\r\n").await.unwrap();
        terminal.ready().await;
        let mut ends = Vec::new();
        for _ in 0..2 {
            let (near, far) = duplex(1 << 16);
            let terminal = terminal.clone();
            drop(tokio::spawn(async move { terminal.carry(far).await }));
            ends.push(near);
        }
        for (n, end) in ends.iter_mut().enumerate() {
            let mut seen = [0; 24];
            end.read_exact(&mut seen).await.unwrap();
            assert!(seen.starts_with(b"boot\r\nGUEST READY moon"), "{n}");
            end.write_all(&[b'0' + n as u8]).await.unwrap();
            let mut typed = [0];
            guest.read_exact(&mut typed).await.unwrap();
            assert_eq!(typed[0], b'0' + n as u8);
        }
        guest.write_all(b"both").await.unwrap();
        for end in &mut ends {
            let mut seen = [0; 4];
            end.read_exact(&mut seen).await.unwrap();
            assert_eq!(&seen, b"both");
        }
        drop(guest);
        task.await.unwrap();
    }

    #[test]
    fn only_the_last_is_kept() {
        let terminal = Terminal::new();
        terminal.say(&vec![b'a'; KEPT]);
        terminal.say(b"the end");
        let kept = terminal.kept.lock().unwrap();
        assert_eq!(kept.len(), KEPT);
        assert!(kept.iter().copied().collect::<Vec<u8>>().ends_with(b"athe end"));
    }
}
