//! The terminal while nobody edits a line: keys one by one while a chunk runs, lines while it reads its input.
//!
//! Output keeps its line ends, which is why the raw mode of the line editor does not do. This file must not know sessions.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr},
};
use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Ctrl-C.
pub(crate) const INTERRUPT: u8 = 0x03;
/// Ctrl-D.
pub(crate) const END: u8 = 0x04;
/// Ctrl-].
pub(crate) const PREFIX: u8 = 0x1d;

/// How the terminal gives what is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Every key at once and unseen.
    Keys,
    /// Whole lines, edited by the terminal; Ctrl-C and Ctrl-] end a line too, Ctrl-D ends the input.
    Lines,
}

/// The terminal on standard input. Dropping it puts everything back.
pub(crate) struct Tty {
    stdin: io::Stdin,
    before: Termios,
}

impl Tty {
    /// Takes the terminal over, in [`Mode::Keys`].
    ///
    /// # Errors
    /// `ENOTTY` where standard input is none.
    pub(crate) fn take() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let tty = Self { stdin, before };
        tty.set(Mode::Keys)?;
        Ok(tty)
    }

    /// Changes the mode; what was typed already is kept.
    pub(crate) fn set(&self, mode: Mode) -> io::Result<()> {
        let mut now = self.before.clone();
        now.local_modes.remove(LocalModes::ISIG | LocalModes::IEXTEN);
        match mode {
            Mode::Keys => {
                now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
                now.special_codes[SpecialCodeIndex::VMIN] = 1;
                now.special_codes[SpecialCodeIndex::VTIME] = 0;
            }
            Mode::Lines => {
                now.local_modes.insert(LocalModes::ICANON | LocalModes::ECHO);
                now.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
                now.special_codes[SpecialCodeIndex::VEOL2] = PREFIX;
            }
        }
        // IEXTEN is what makes VEOL2 work; without it only Ctrl-V and its like would be lost.
        if mode == Mode::Lines {
            now.local_modes.insert(LocalModes::IEXTEN);
        }
        tcsetattr(&self.stdin, OptionalActions::Now, &now)?;
        Ok(())
    }

    /// What can be read now without waiting: at most one line in [`Mode::Lines`]. `None` if nothing is there; empty at the end
    /// of the input, or when the terminal is gone.
    pub(crate) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut [PollFd::new(&self.stdin, PollFlags::IN)], Some(&now)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = vec![0; 4096];
        match rustix::io::read(&self.stdin, &mut bytes) {
            Ok(n) => bytes.truncate(n),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(None),
            Err(rustix::io::Errno::IO) => bytes.clear(),
            Err(error) => return Err(error.into()),
        }
        Ok(Some(bytes))
    }

    /// Tells when there may be something to read.
    pub(crate) fn events(&self) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
        // SAFETY: standard input stays open as long as the process lives.
        unsafe { AsyncFd::register_with_interest(self.stdin.as_fd(), Interest::READABLE) }.map_err(io::Error::from)
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to put back.
        let _ = tcsetattr(&self.stdin, OptionalActions::Now, &self.before);
    }
}

/// What the keys typed while a chunk runs mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-] d.
    Detach,
}

/// Finds the keys that mean something; what is typed between them is kept for the next prompt.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    prefix: bool,
    ahead: Vec<u8>,
}

impl Keys {
    /// Takes what was read.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Key> {
        let mut found = Vec::new();
        for &byte in bytes {
            match (std::mem::take(&mut self.prefix), byte) {
                (true, b'd' | b'D') => found.push(Key::Detach),
                (_, PREFIX) => self.prefix = true,
                (true, _) => {}
                (false, INTERRUPT) => {
                    self.ahead.clear();
                    found.push(Key::Interrupt);
                }
                (false, byte) => self.ahead.push(byte),
            }
        }
        // Nobody types that much ahead; a paste into a running program must not fill the memory.
        self.ahead.truncate(64 << 10);
        found
    }

    /// Whether Ctrl-] was pressed and the key behind it is awaited.
    pub(crate) fn is_prefixed(&self) -> bool {
        self.prefix
    }

    /// What was typed ahead: the first line if there is a whole one, else the beginning of one.
    pub(crate) fn ahead(&mut self) -> Option<Ahead> {
        if self.ahead.first() == Some(&END) {
            self.ahead.remove(0);
            return Some(Ahead::End);
        }
        if self.ahead.is_empty() {
            return None;
        }
        let end = self.ahead.iter().position(|b| matches!(b, b'\r' | b'\n'));
        let rest = end.map_or_else(Vec::new, |end| self.ahead.split_off(end + 1));
        let mut line = std::mem::replace(&mut self.ahead, rest);
        if end.is_some() {
            line.pop();
        }
        let text: String = String::from_utf8_lossy(&line).chars().filter(|c| *c == '\t' || !c.is_control()).collect();
        Some(if end.is_some() { Ahead::Line(text) } else { Ahead::Beginning(text) })
    }
}

/// What was typed before there was a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// A line that was ended.
    Line(String),
    /// One that was not.
    Beginning(String),
    /// Ctrl-D where a line would begin.
    End,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_also_when_they_come_in_pieces() {
        let mut keys = Keys::default();
        assert_eq!(keys.push(b"\x1d"), []);
        assert_eq!(keys.push(b"d"), [Key::Detach]);
        assert_eq!(keys.push(b"\x1dx\x1d\x1dd"), [Key::Detach]);
        assert_eq!(keys.push(b"ab\x03"), [Key::Interrupt]);
        assert_eq!(keys.ahead(), None, "an interrupt throws away what was typed");
        assert_eq!(keys.push(b"\x04x"), []);
        assert_eq!((keys.ahead(), keys.ahead()), (Some(Ahead::End), Some(Ahead::Beginning("x".into()))));
    }

    #[test]
    fn what_is_typed_ahead_comes_out_by_lines_and_harmless() {
        let mut keys = Keys::default();
        keys.push(b"one\rtw\x1b[Ao\nthr\xffee");
        assert_eq!(keys.ahead(), Some(Ahead::Line("one".into())));
        assert_eq!(keys.ahead(), Some(Ahead::Line("tw[Ao".into())));
        assert_eq!(keys.ahead(), Some(Ahead::Beginning("thr\u{fffd}ee".into())));
        assert_eq!(keys.ahead(), None);
    }
}
