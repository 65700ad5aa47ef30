//! What QEMU is told and tells: its machine protocol, a JSON object a line (docs/interop/qmp-spec.rst of QEMU).

use serde_json::{Value, json};
use std::{collections::VecDeque, io, os::fd::BorrowedFd};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A connection to one QEMU.
pub(super) struct Qmp {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
    events: VecDeque<Value>,
    agreed: bool,
}

impl Qmp {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self { lines: BufReader::new(read).lines(), write, events: VecDeque::new(), agreed: false }
    }

    /// The next event; `None` when QEMU is gone. May be dropped and called again.
    ///
    /// # Errors
    /// Those of the socket, and what is no JSON.
    pub(super) async fn event(&mut self) -> io::Result<Option<Value>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match self.next().await? {
                Some(said) if said.get("event").is_some() => self.events.push_back(said),
                // The greeting, and an answer to somebody who has gone.
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Does a command; what it returns. A descriptor goes with it.
    ///
    /// # Errors
    /// Those of the socket, and QEMU's refusal.
    pub(super) async fn execute(&mut self, command: &str, arguments: Value, with: Option<BorrowedFd<'_>>) -> io::Result<Value> {
        if !self.agreed {
            self.agreed = true;
            Box::pin(self.execute("qmp_capabilities", json!({}), None)).await?;
        }
        let line = format!("{}\n", json!({"execute": command, "arguments": arguments}));
        match with {
            Some(fd) => {
                self.write.as_ref().writable().await?;
                vmoon_sys::passing::send(self.write.as_ref(), line.as_bytes(), &[fd], false)?;
            }
            None => self.write.write_all(line.as_bytes()).await?,
        }
        loop {
            let said = self.next().await?.ok_or_else(|| io::Error::other("QEMU has ended"))?;
            if said.get("event").is_some() {
                self.events.push_back(said);
            } else if let Some(result) = said.get("return") {
                return Ok(result.clone());
            } else if let Some(error) = said.get("error") {
                return Err(io::Error::other(format!("QEMU refuses {command}: {}", error["desc"].as_str().unwrap_or_default())));
            }
        }
    }

    /// Waits until a migration has ended.
    ///
    /// # Errors
    /// Those of the socket, and the failure of the migration.
    pub(super) async fn migrated(&mut self) -> io::Result<()> {
        let mut others = Vec::new();
        let ended = loop {
            let event = self.event().await?.ok_or_else(|| io::Error::other("QEMU has ended"))?;
            match event["data"]["status"].as_str().filter(|_| event["event"] == "MIGRATION") {
                Some("completed") => break Ok(()),
                Some(status @ ("failed" | "cancelled")) => break Err(io::Error::other(format!("the memory was not written: {status}"))),
                Some(_) => {}
                None => others.push(event),
            }
        };
        self.events.extend(others);
        ended?;
        // It says so a moment before it can go on: `cont` is refused in that state (`qmp_cont` in QEMU's monitor/qmp-cmds.c).
        while self.execute("query-status", json!({}), None).await?["status"] == "finish-migrate" {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn next(&mut self) -> io::Result<Option<Value>> {
        match self.lines.next_line().await? {
            Some(line) => serde_json::from_str(&line).map(Some).map_err(io::Error::other),
            None => Ok(None),
        }
    }
}
