//! A terminal of a machine on this terminal: every key goes there, everything it says comes here, until Ctrl-] d.
//!
//! Nothing is interpreted but the keys that detach. Where standard input is no terminal it is typed as it is, and its end detaches.

use super::{
    keys::PREFIX,
    link::{Link, News},
};
use crate::{ctx::Ctx, exit::Exit};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use vmoon_api::{Api as _, requests::Mode, requests::SessionRef, views::SessionView};
use vmoon_core::{
    Code, Error, Result, driver,
    frame::{Frame, Missing, tag},
    name::escape,
    session::SessionState,
};

/// How much of what was said before is shown first, bytes, unless something else is asked for.
const TAIL: u64 = 4096;
/// The channel of a shell.
const SHELL: &str = "shell";
/// Ctrl-C, which leaves where nothing can be typed.
const INTERRUPT: u8 = 0x03;

/// Why it was left.
enum Leave {
    Detached,
    Dismissed,
    Ended,
}

/// What keys mean.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    /// These go to the machine.
    Keys(Vec<u8>),
    /// Leave.
    Detach,
}

/// Finds the keys that detach; Ctrl-] twice is one Ctrl-].
#[derive(Debug, Default)]
struct Prefix(bool);

impl Prefix {
    fn take(&mut self, bytes: &[u8]) -> Vec<Typed> {
        let (mut found, mut keys) = (Vec::new(), Vec::new());
        for &byte in bytes {
            match (std::mem::take(&mut self.0), byte) {
                (false, PREFIX) => self.0 = true,
                (true, b'd' | b'D') => {
                    // What is typed behind it is for nobody any more.
                    if !keys.is_empty() {
                        found.push(Typed::Keys(keys));
                    }
                    found.push(Typed::Detach);
                    return found;
                }
                (true, PREFIX) | (false, _) => keys.push(byte),
                // Nothing else is behind the prefix: both are meant for the machine.
                (true, other) => keys.extend([PREFIX, other]),
            }
        }
        if !keys.is_empty() {
            found.push(Typed::Keys(keys));
        }
        found
    }
}

/// The terminal on standard input, giving every key as it is. Dropping it puts everything back.
struct Raw {
    stdin: io::Stdin,
    before: Termios,
}

impl Raw {
    fn take() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self { stdin, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to put back.
        let _ = tcsetattr(&self.stdin, OptionalActions::Now, &self.before);
    }
}

/// Attaches to a terminal session.
///
/// # Errors
/// Those of attaching; what is lost for good.
pub(super) async fn attach(ctx: &Ctx, session: SessionView, from: Option<u64>, mode: Mode) -> Result<Exit> {
    let name = escape(&format!("{}/{}", session.machine_name, session.name));
    let from = from.or(Some(session.written.saturating_sub(TAIL).max(session.oldest)));
    let link = Link::open(&ctx.daemon, session.id.to_string(), from, mode).await.map_err(|error| match error.code() {
        Code::SessionBusy => error.hint(format!("watch it: vmoon attach {name} --read-only; or take it over: vmoon attach {name} --take")),
        _ => error,
    })?;
    let (keyboard, screen) = (io::stdin().is_terminal(), io::stdout().is_terminal());
    let writes = mode != Mode::Viewer;
    if keyboard {
        let leave = if writes { "Ctrl-] d" } else { "Ctrl-] d or Ctrl-C" };
        ctx.out.note(&format!("attached to {name} · detach: {leave}"));
    }
    // A shell begins with the first key, and whoever is here wants to see its prompt.
    let begins = writes && session.name == SHELL && session.written == 0;
    let mut terminal = Terminal { ctx, name: name.clone(), link, raw: None, writes, prefix: Prefix::default(), screen };
    if keyboard {
        terminal.raw = Some(Raw::take().map_err(|error| Error::io("use the terminal", error))?);
    }
    let left = terminal.run(keyboard, begins).await;
    // Before anything is printed: a raw terminal would show it as a staircase.
    terminal.raw = None;
    if keyboard {
        let _ = io::stdout().write_all(b"\r\n").and_then(|()| io::stdout().flush());
    }
    let left = match left {
        Err(error) if error.code() == Code::Cancelled => Ok(Leave::Dismissed),
        Err(error) if error.code() == Code::SessionEnded => Ok(Leave::Ended),
        left => left,
    };
    match left? {
        Leave::Detached => {
            if keyboard {
                ctx.out.note(&format!("detached; {name} goes on · vmoon attach {name}"));
            }
            Ok(Exit::OK)
        }
        Leave::Dismissed => {
            ctx.out.note(&format!("somebody has taken {name} over, or detached it from here; it goes on · vmoon attach {name}"));
            Ok(Exit::OK)
        }
        Leave::Ended => {
            let request = SessionRef { session: session.id.to_string() };
            let shown = ctx.daemon.ask(async |client| client.show_session(request.clone()).await).await;
            let exit = match shown.map(|view| view.state) {
                Ok(SessionState::Ended { exit }) => Some(exit),
                _ => None,
            };
            let text = exit.as_ref().map_or_else(|| "nothing tells how".to_owned(), crate::cmd::show::exit);
            ctx.out.note(&format!("{name} has ended: {text}"));
            Ok(match exit {
                Some(driver::Exit::Code { code: 0 }) => Exit::OK,
                _ => Exit(1),
            })
        }
    }
}

/// Standard input in pieces, read by a thread of its own: it may be a file, which nothing can wait for. The channel closes at its end.
fn piped() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (pieces, read) = mpsc::channel(4);
    drop(std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; 16 << 10];
        loop {
            let piece = match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => Ok(buffer[..n].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if pieces.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    }));
    read
}

struct Terminal<'a> {
    ctx: &'a Ctx,
    name: String,
    link: Link<'a>,
    raw: Option<Raw>,
    writes: bool,
    prefix: Prefix,
    screen: bool,
}

impl Terminal<'_> {
    async fn run(&mut self, keyboard: bool, begins: bool) -> Result<Leave> {
        let mut resized = signal(SignalKind::window_change()).map_err(|error| Error::io("listen for the terminal's size", error))?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(|error| Error::io("listen for Ctrl-C", error))?;
        let mut hung_up = signal(SignalKind::hangup()).map_err(|error| Error::io("listen for the terminal's end", error))?;
        let stdin = io::stdin();
        let keys = if keyboard {
            // SAFETY: standard input stays open as long as the process lives.
            let events = unsafe { AsyncFd::register_with_interest(std::os::fd::AsFd::as_fd(&stdin), Interest::READABLE) };
            Some(events.map_err(|error| Error::io("use the terminal", io::Error::from(error)))?)
        } else {
            None
        };
        let mut piped = if !keyboard && self.writes { Some(piped()) } else { None };
        let mut buffer = vec![0; 64 << 10];
        self.tell_size().await?;
        if begins {
            self.link.send(tag::INPUT, 0, Vec::new()).await?;
        }
        loop {
            tokio::select! {
                news = self.link.next() => if let Some(left) = self.heed(news?).await? {
                    return Ok(left);
                },
                ready = async { match &keys { Some(keys) => keys.readable().await, None => std::future::pending().await } } => {
                    ready.map_err(|error| Error::io("use the terminal", error))?.clear_ready();
                    match rustix::io::read(&stdin, &mut buffer) {
                        Ok(0) | Err(rustix::io::Errno::IO) => return Ok(Leave::Detached),
                        Ok(n) => if self.typed(&buffer[..n]).await? {
                            return Ok(Leave::Detached);
                        },
                        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(Error::io("read the terminal", error.into())),
                    }
                }
                read = async { match &mut piped { Some(piped) => piped.recv().await, None => std::future::pending().await } } => match read {
                    Some(bytes) => self.link.send(tag::INPUT, 0, bytes.map_err(|error| Error::io("read the standard input", error))?).await?,
                    None => return Ok(Leave::Detached),
                },
                _ = resized.recv() => self.tell_size().await?,
                // In raw mode Ctrl-C is a key; this one came from outside.
                _ = interrupted.recv() => return Ok(Leave::Detached),
                _ = hung_up.recv() => return Ok(Leave::Detached),
            }
        }
    }

    /// Sends what was typed; whether it was the keys that detach.
    async fn typed(&mut self, bytes: &[u8]) -> Result<bool> {
        if !self.writes && bytes.contains(&INTERRUPT) {
            return Ok(true);
        }
        for typed in self.prefix.take(bytes) {
            match typed {
                Typed::Detach => return Ok(true),
                Typed::Keys(keys) if self.writes => self.link.send(tag::INPUT, 0, keys).await?,
                Typed::Keys(_) => {}
            }
        }
        Ok(false)
    }

    async fn tell_size(&mut self) -> Result<()> {
        if !self.writes || !self.screen {
            return Ok(());
        }
        // Without a size there is none to tell.
        let Ok(size) = tcgetwinsize(io::stdout()) else { return Ok(()) };
        let payload = [size.ws_col.to_le_bytes(), size.ws_row.to_le_bytes()].concat();
        self.link.send(tag::RESIZE, 0, payload).await
    }

    async fn heed(&mut self, news: News) -> Result<Option<Leave>> {
        match news {
            News::Frames(bytes) => {
                let mut rest = bytes.as_slice();
                let mut shown = Vec::with_capacity(bytes.len());
                while let Ok(Some((frame, len))) = Frame::decode(rest) {
                    rest = &rest[len..];
                    match frame.tag {
                        tag::STDOUT | tag::STDERR => shown.extend_from_slice(frame.payload),
                        tag::GAP => shown.extend_from_slice(format!("\r\n[{}]\r\n", lost(frame)).as_bytes()),
                        _ => {}
                    }
                }
                self.ctx.out.bytes(&shown)?;
            }
            News::Direct(bytes) => {
                if let Ok(Some((frame, _))) = Frame::decode(&bytes)
                    && frame.tag == tag::REFUSED
                {
                    let text = String::from_utf8_lossy(frame.payload).into_owned();
                    let (code, message) = text.split_once('\n').unwrap_or(("internal", &text));
                    return Err(Error::new(code.parse().unwrap_or(Code::Unknown), message.to_owned()));
                }
            }
            News::Back => {
                self.ctx.out.err_bytes(format!("\r\n[the daemon was away; attached to {} again]\r\n", self.name).as_bytes());
                self.tell_size().await?;
            }
            News::Ended => return Ok(Some(Leave::Ended)),
        }
        Ok(None)
    }
}

/// What a gap says, for people.
fn lost(frame: Frame<'_>) -> String {
    match frame.missing() {
        Some(Missing::Unknown) => "something may be missing here: for a while nobody could listen".to_owned(),
        missing => format!("{} were lost here", missing.unwrap_or(Missing::Bytes(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Typed {
        Typed::Keys(bytes.to_vec())
    }

    #[test]
    fn only_the_prefix_and_d_detach_also_when_they_come_in_pieces() {
        let mut prefix = Prefix::default();
        assert_eq!(prefix.take(b"ls\r\x03\x04"), [keys(b"ls\r\x03\x04")]);
        assert_eq!(prefix.take(b"a\x1d"), [keys(b"a")]);
        assert_eq!(prefix.take(b"dx"), [Typed::Detach]);
        assert_eq!(prefix.take(b"\x1d\x1d"), [keys(b"\x1d")]);
        assert_eq!(prefix.take(b"\x1dx\x1b[A"), [keys(b"\x1dx\x1b[A")]);
        assert_eq!(prefix.take(b"one\x1dD"), [keys(b"one"), Typed::Detach]);
        assert_eq!(prefix.take(b""), []);
    }
}
