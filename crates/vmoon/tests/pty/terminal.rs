//! A pseudo-terminal with somebody in front of it who reads and types.

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, ExitStatus},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Screen {
    raw: Mutex<(Vec<u8>, bool)>,
    changed: Condvar,
}

/// A program on a terminal.
pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Screen>,
    /// How much of the text was looked at already.
    read: usize,
}

impl Terminal {
    /// Starts it on a terminal of 24 rows and 80 columns.
    pub(crate) fn start(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let slave: OwnedFd = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap().into();
        tcsetwinsize(&slave, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let stdio = || slave.try_clone().unwrap();
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        // SAFETY: setsid, ioctl and signal may be called between fork and exec; nothing is allocated.
        unsafe {
            command.pre_exec(|| {
                // Whoever runs the tests may have been told to ignore hang-ups; what a terminal starts is not.
                libc::signal(libc::SIGHUP, libc::SIG_DFL);
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        let child = command.spawn().expect("vmoon starts");
        drop((command, slave));
        let screen = Arc::new(Screen::default());
        let keyboard = File::from(master);
        let (mut display, shown) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        let mut replies = keyboard.try_clone().unwrap();
        drop(thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let n = display.read(&mut bytes).unwrap_or(0);
                // Where the cursor is, a terminal tells who asks.
                for _ in bytes[..n].windows(4).filter(|w| *w == b"\x1b[6n") {
                    let _ = replies.write_all(b"\x1b[24;1R");
                }
                let mut raw = shown.raw.lock().unwrap_or_else(|e| e.into_inner());
                raw.0.extend_from_slice(&bytes[..n]);
                raw.1 = n == 0;
                shown.changed.notify_all();
                if n == 0 {
                    return;
                }
            }
        }));
        Self { child, keyboard, screen, read: 0 }
    }

    /// Types.
    pub(crate) fn send(&mut self, keys: impl AsRef<[u8]>) {
        self.keyboard.write_all(keys.as_ref()).unwrap();
    }

    /// Changes the size of the window.
    pub(crate) fn resize(&mut self, rows: u16, columns: u16) {
        tcsetwinsize(self.keyboard.as_fd(), Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    }

    /// Waits until this text is on the screen behind what was waited for before; what stood between is given back.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) -> String {
        self.until(text, |rest| rest.find(text).map(|at| (at, at + text.len())))
    }

    /// Waits for an empty prompt.
    #[track_caller]
    pub(crate) fn prompt(&mut self) {
        self.until("an empty prompt", |rest| {
            let at = rest.rfind('\n').map_or(0, |at| at + 1);
            // The editor may have painted it more than once.
            let empty = !rest[at..].is_empty() && rest[at..].replace("> ", "").is_empty();
            empty.then_some((at, rest.len()))
        });
    }

    #[track_caller]
    fn until(&mut self, what: &str, found: impl Fn(&str) -> Option<(usize, usize)>) -> String {
        let until = Instant::now() + LIMIT;
        let mut raw = self.screen.raw.lock().unwrap();
        loop {
            let shown = plain(&raw.0);
            let rest = &shown[self.read.min(shown.len())..];
            if let Some((from, to)) = found(rest) {
                let before = rest[..from].to_owned();
                self.read += to;
                return before;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && !raw.1,
                "\"{what}\" did not come; the screen (closed: {}) holds:\n{shown}\n-- looked for in:\n{rest}",
                raw.1
            );
            raw = self.screen.changed.wait_timeout(raw, left).unwrap().0;
        }
    }

    /// Types a line behind the next prompt.
    pub(crate) fn line(&mut self, text: &str) {
        self.send(format!("{text}\r"));
    }

    /// Waits for the end of the program.
    pub(crate) fn wait(self) -> ExitStatus {
        self.finish().0
    }

    /// Waits for the end of the program, and gives everything that it has shown, too.
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        let until = Instant::now() + LIMIT;
        let mut raw = self.screen.raw.lock().unwrap();
        while !raw.1 {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it does not end; the screen holds:\n{}", plain(&raw.0));
            raw = self.screen.changed.wait_timeout(raw, left).unwrap().0;
        }
        let shown = plain(&raw.0);
        drop(raw);
        (self.child.wait().unwrap(), shown)
    }

    /// Closes the terminal, as a window is closed.
    pub(crate) fn close(mut self) -> ExitStatus {
        // The reading thread holds the terminal open: its end is the hang-up of the program.
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::HUP).unwrap();
        self.child.wait().unwrap()
    }

    /// Whether the terminal shows what is typed.
    pub(crate) fn echoes(&self) -> bool {
        let modes = rustix::termios::tcgetattr(self.keyboard.as_fd()).unwrap().local_modes;
        modes.contains(rustix::termios::LocalModes::ECHO)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text without what moves the cursor or paints.
fn plain(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => {
                    // Parameters and intermediates end at a letter or one of @ ~ and the like.
                    let _ = chars.find(|c| ('@'..='~').contains(c));
                }
                Some(']') => {
                    let _ = chars.find(|c| matches!(c, '\u{7}' | '\\'));
                }
                _ => {}
            },
            '\r' => {}
            c => out.push(c),
        }
    }
    out
}
