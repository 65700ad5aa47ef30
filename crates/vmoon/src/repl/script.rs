//! A session fed from a pipe: chunk after chunk, each when the one before is done, until one fails.
//!
//! A chunk is as many lines as the machine needs to find it complete. This file must not know terminals.

use super::{Leave, Repl, output};
use std::{
    io::{self, BufRead as _},
    thread,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use vmoon_api::{Api as _, requests::AskCode};
use vmoon_core::{
    Error, Result,
    frame::{FailureKind, tag},
};

type Lines = mpsc::Receiver<io::Result<Vec<u8>>>;

/// Reads standard input on a thread of its own: reading a file or a pipe can wait for ever.
fn lines() -> io::Result<Lines> {
    let (send, receive) = mpsc::channel(64);
    let read = move || {
        for line in io::stdin().lock().split(b'\n') {
            let line = line.map(|mut line| {
                line.push(b'\n');
                line
            });
            let failed = line.is_err();
            if send.blocking_send(line).is_err() || failed {
                return;
            }
        }
    };
    // It ends with the input, or with the process.
    drop(thread::Builder::new().name("input".into()).spawn(read)?);
    Ok(receive)
}

impl Repl<'_> {
    /// Runs what comes.
    pub(super) async fn script(&mut self) -> Result<Leave> {
        let mut lines = lines().map_err(|error| Error::io("read the standard input", error))?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(|error| Error::io("listen for Ctrl-C", error))?;
        let mut chunk: Vec<u8> = Vec::new();
        let mut first = true;
        loop {
            let line = tokio::select! {
                line = lines.recv() => line.transpose().map_err(|error| Error::io("read the standard input", error))?,
                news = self.link.next() => {
                    if let Some(left) = self.heed(news?).await? {
                        return Ok(left);
                    }
                    continue;
                }
                _ = interrupted.recv() => return Ok(Leave::Script(130)),
            };
            let last = line.is_none();
            match line {
                Some(line) if first && line.starts_with(b"#!") => chunk.push(b'\n'),
                Some(line) => chunk.extend_from_slice(&line),
                None => {}
            }
            first = false;
            if !chunk.trim_ascii().is_empty() && (last || self.is_complete(&chunk).await?) {
                self.eval(&std::mem::take(&mut chunk)).await?;
                if let Some(left) = self.run(&mut lines, &mut interrupted).await? {
                    return Ok(left);
                }
                match self.failed {
                    Some(FailureKind::Interrupted) => return Ok(Leave::Script(130)),
                    Some(_) => return Ok(Leave::Script(1)),
                    None => {}
                }
            }
            if last {
                return Ok(Leave::Script(0));
            }
        }
    }

    async fn is_complete(&self, chunk: &[u8]) -> Result<bool> {
        let request = AskCode { session: self.session.id.to_string(), code: chunk.into() };
        let answer = self.ctx.daemon.ask(async |client| client.is_complete(request.clone()).await).await?;
        Ok(answer.verdict != "incomplete")
    }

    /// Shows what the chunk says until it is done; what it reads are the lines that follow it.
    async fn run(&mut self, lines: &mut Lines, interrupted: &mut Signal) -> Result<Option<Leave>> {
        while let Some(current) = &self.current {
            let (id, hungry) = (current.id.unwrap_or(0), current.wants_input);
            tokio::select! {
                news = self.link.next() => if let Some(left) = self.heed(news?).await? {
                    return Ok(Some(left));
                },
                line = lines.recv(), if hungry => {
                    match line.transpose().map_err(output)? {
                        Some(line) => self.link.send(tag::INPUT, id, line).await?,
                        None => self.link.send(tag::INPUT_END, id, Vec::new()).await?,
                    }
                    self.answered();
                }
                _ = interrupted.recv() => self.interrupt().await?,
            }
        }
        Ok(None)
    }
}
