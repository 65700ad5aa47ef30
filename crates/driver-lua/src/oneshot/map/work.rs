//! The process of one item as its parent sees it: what it has sent, when it must end, and what became of it.

use super::{Item, tag};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};
use vmoon_sys::process::{Reaped, reap};

/// The longest message, bytes: a result is at most 8 MiB.
const LONGEST: usize = 16 << 20;
/// How much of what an item prints is kept, bytes.
const PRINTED: usize = 64 << 10;

/// What the process has said last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Result(String),
    Error(String),
    /// The item is not JSON: it would not be the next time.
    Input(String),
    Exit(i32),
    /// Bytes that are no message.
    Nonsense,
}

/// What became of an attempt.
#[derive(Debug)]
pub(super) enum End {
    /// There is nothing more to try.
    Done(Item),
    /// It failed and may be tried again: as it would be told, with its input.
    Failed(Item),
}

/// What a process has sent.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    received: Vec<u8>,
    verdict: Option<Verdict>,
    printed: Vec<u8>,
    left_out: u64,
}

/// A process that works on an item.
pub(super) struct Work {
    pub(super) index: u64,
    pub(super) input: Vec<u8>,
    attempts: u32,
    pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) from: OwnedFd,
    heard: Heard,
    began: Instant,
    pub(super) due: Option<Instant>,
    overdue: Option<Duration>,
}

impl Heard {
    /// Takes more of it; false when nothing that follows can be read.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> bool {
        self.received.extend_from_slice(bytes);
        let mut from = 0;
        while let Some((head, rest)) = self.received[from..].split_first_chunk::<5>() {
            let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
            if length > LONGEST {
                self.verdict = Some(Verdict::Nonsense);
                self.received.clear();
                return false;
            }
            let Some(payload) = rest.get(..length) else { break };
            let text = || String::from_utf8_lossy(payload).into_owned();
            match head[0] {
                tag::PRINTED => {
                    let kept = payload.len().min(PRINTED - self.printed.len());
                    self.printed.extend_from_slice(&payload[..kept]);
                    self.left_out += (payload.len() - kept) as u64;
                }
                tag::RESULT => self.verdict = Some(Verdict::Result(text())),
                tag::ERROR => self.verdict = Some(Verdict::Error(text())),
                tag::INPUT => self.verdict = Some(Verdict::Input(text())),
                tag::EXIT => self.verdict = Some(Verdict::Exit(payload.first_chunk().map_or(0, |code| i32::from_le_bytes(*code)))),
                _ => self.verdict = Some(Verdict::Nonsense),
            }
            from += 5 + length;
        }
        self.received.drain(..from);
        true
    }

    /// The result of a process that has ended so; or why there is none and whether another attempt may have one.
    pub(super) fn outcome(&mut self, overdue: Option<Duration>, status: Reaped) -> Result<String, (String, bool)> {
        outcome(self.verdict.take(), overdue, status)
    }

    /// Whether it has said what became of the item.
    pub(crate) fn has_verdict(&self) -> bool {
        self.verdict.is_some()
    }

    /// How much of it is held, bytes.
    pub(crate) fn held(&self) -> usize {
        self.received.len() + self.printed.len()
    }
}

impl Work {
    /// Takes charge of the child `pid`, which writes to the other end of `from`.
    pub(super) fn new(index: u64, input: Vec<u8>, attempts: u32, pid: i32, from: OwnedFd, limit: Option<Duration>) -> io::Result<Self> {
        let raw = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        // It is our child and not reaped, so the number is its own.
        let pidfd = pidfd_open(raw, PidfdFlags::empty())?;
        let began = vmoon_sys::clock::instant();
        let due = limit.and_then(|limit| began.checked_add(limit));
        Ok(Self { index, input, attempts, pid, pidfd, from, heard: Heard::default(), began, due, overdue: None })
    }

    /// Ends the process.
    pub(super) fn kill(&self) {
        // One that has ended already is no error.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Ends it because its time is over.
    pub(super) fn expire(&mut self, limit: Duration) {
        self.overdue = Some(limit);
        self.due = None;
        self.kill();
    }

    /// Takes what it has sent, at most so many pieces: one that never stops must not keep the others waiting.
    pub(super) fn receive(&mut self, pieces: usize) {
        let mut buffer = [0; 16 << 10];
        for _ in 0..pieces {
            match rustix::io::read(&self.from, &mut buffer) {
                Ok(0) => return,
                Ok(n) if self.heard.take(&buffer[..n]) => {}
                Ok(_) => return self.kill(),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// What became of it; its process has ended.
    pub(super) fn end(mut self) -> End {
        // What it has written before it ended; a program that it started may go on writing for ever.
        self.receive(2 * LONGEST / (16 << 10));
        let status = reap(self.pid);
        let outcome = self.heard.outcome(self.overdue, status);
        let final_ = matches!(&outcome, Ok(_) | Err((_, false)));
        let item = Item {
            index: self.index,
            input: self.input,
            outcome: outcome.map_err(|(sentence, _)| sentence),
            printed: self.heard.printed,
            left_out: self.heard.left_out,
            took: vmoon_sys::clock::instant().duration_since(self.began),
            attempts: self.attempts,
        };
        if final_ { End::Done(item) } else { End::Failed(item) }
    }
}

/// Whether it is JSON in one line, as the results are printed: a C module can send anything.
fn is_line(text: &str) -> bool {
    !text.contains('\n') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// The result; or why there is none and whether another attempt may have one.
fn outcome(verdict: Option<Verdict>, overdue: Option<Duration>, status: Reaped) -> Result<String, (String, bool)> {
    match (verdict, overdue, status) {
        (Some(Verdict::Result(text)), ..) if is_line(&text) => Ok(text),
        (Some(Verdict::Input(why)), ..) => Err((why, false)),
        (Some(Verdict::Error(why)), ..) => Err((why, true)),
        (Some(Verdict::Exit(code)), ..) => Err((format!("the script called os.exit({code}) before it returned"), true)),
        (Some(Verdict::Nonsense | Verdict::Result(_)), ..) => Err(("its process sent what is no result".into(), true)),
        (None, Some(limit), _) => Err((format!("it ran past its deadline of {limit:?} and was ended"), true)),
        (None, None, Reaped::Signal(libc::SIGXCPU)) => Err(("it has used up its processor time (signal 24)".into(), true)),
        (None, None, Reaped::Signal(signal)) => Err((format!("signal {signal} ended its process"), true)),
        (None, None, Reaped::Code(code)) => Err((format!("its process ended with code {code} and without a result"), true)),
        (None, None, Reaped::Running | Reaped::Stranger) => Err(("its process is lost".into(), true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_a_result_and_only_bad_input_is_not_tried_again() {
        let ended = Reaped::Code(0);
        assert_eq!(outcome(Some(Verdict::Result("[1]".into())), None, ended), Ok("[1]".into()));
        assert!(matches!(outcome(Some(Verdict::Result("1}\n{".into())), None, ended), Err((_, true))), "no line can be forged");
        assert!(matches!(outcome(Some(Verdict::Result("[\n1]".into())), None, ended), Err((_, true))));
        assert!(matches!(outcome(Some(Verdict::Input("x".into())), None, ended), Err((_, false))));
        let (late, _) = outcome(None, Some(Duration::from_secs(1)), Reaped::Signal(9)).unwrap_err();
        assert!(late.contains("deadline of 1s"));
        assert_eq!(outcome(None, None, Reaped::Signal(9)), Err(("signal 9 ended its process".into(), true)));
    }
}
