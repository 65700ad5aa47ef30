//! Starts a real interpreter with the driver and speaks frames with it, as the holder does.

use std::{
    fmt::Debug,
    io::{Read, Write},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};
use vmoon_core::frame::{Failure, FailureKind};
use vmoon_lua_wire::{
    program::{self, InterruptMode, Options},
    text::{self, Decoder, TextFrame, tag},
};

/// Command name, package name, what `_VERSION` or `jit.version` begins with.
pub(crate) const INTERPRETERS: [(&str, &str); 5] =
    [("lua5.1", "Lua 5.1"), ("lua5.2", "Lua 5.2"), ("lua5.3", "Lua 5.3"), ("lua5.4", "Lua 5.4"), ("luajit", "LuaJIT 2")];

/// How long anything may take before the test fails.
const LONG: Duration = Duration::from_secs(20);

/// What a command gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
    pub(crate) values: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) error: Option<(char, String, String)>,
    pub(crate) incomplete: Option<String>,
    pub(crate) asked: usize,
    pub(crate) exit: Option<i32>,
}

impl Outcome {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
    pub(crate) fn value(&self) -> &str {
        self.values.as_deref().unwrap_or_else(|| panic!("no values: {self:?}"))
    }
    pub(crate) fn failure(&self) -> (char, &str, &str) {
        let (kind, message, traceback) = self.error.as_ref().unwrap_or_else(|| panic!("no error: {self:?}"));
        (*kind, message, traceback)
    }
}

/// A running interpreter.
pub(crate) struct Session {
    pub(crate) name: &'static str,
    child: Child,
    to: std::io::PipeWriter,
    frames: Receiver<Result<TextFrame, String>>,
    flag: PathBuf,
    _folder: tempfile::TempDir,
    next: u64,
    pub(crate) runtime: String,
}

impl Session {
    pub(crate) fn start(name: &'static str, mode: InterruptMode) -> Self {
        Self::with(name, &Options { interrupt: mode, ..Options::default() })
    }

    pub(crate) fn with(name: &'static str, options: &Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flag = folder.path().join("interrupt");
        let (input, mut to) = std::io::pipe().unwrap();
        let (mut from, output) = std::io::pipe().unwrap();
        let mut command = Command::new(name);
        command.args(program::arguments()).stdin(Stdio::null()).process_group(0);
        let (i, o) = (input.as_raw_fd(), output.as_raw_fd());
        // SAFETY: only dup2 and fcntl, both async-signal-safe, between fork and exec. The copies go high first, so that neither
        // overwrites the other.
        unsafe {
            command.pre_exec(move || {
                let (a, b) = (libc::fcntl(i, libc::F_DUPFD_CLOEXEC, 10), libc::fcntl(o, libc::F_DUPFD_CLOEXEC, 10));
                if a < 0 || b < 0 || libc::dup2(a, program::INPUT_FD) < 0 || libc::dup2(b, program::OUTPUT_FD) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name} ({e}): install it with `apt-get install {name}`"));
        drop((input, output));
        to.write_all(&program::preamble(flag.to_str().unwrap(), options)).unwrap();
        let (send, frames) = channel();
        thread::spawn(move || {
            let (mut decoder, mut buffer) = (Decoder::default(), vec![0; 1 << 16]);
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                decoder.push(&buffer[..n]);
                loop {
                    match decoder.next_frame() {
                        Ok(Some(frame)) => drop(send.send(Ok(frame))),
                        Ok(None) => break,
                        Err(e) => return drop(send.send(Err(e.to_string()))),
                    }
                }
            }
        });
        let mut session = Self { name, child, to, frames, flag, _folder: folder, next: 0, runtime: String::new() };
        let hello = session.frame();
        assert_eq!(hello.tag, b'h', "{name}: {hello:?}");
        session.runtime = text::setting(&hello.payload, "runtime").unwrap().to_owned();
        assert_eq!(text::setting(&hello.payload, "mode"), Some(options.interrupt.as_str()));
        session
    }

    pub(crate) fn frame(&mut self) -> TextFrame {
        match self.frames.recv_timeout(LONG) {
            Ok(Ok(frame)) => frame,
            other => panic!("{}: no frame: {other:?}, process {:?}", self.name, self.child.try_wait()),
        }
    }

    pub(crate) fn send(&mut self, tag: u8, id: u64, payload: &[u8]) {
        let mut bytes = Vec::new();
        text::encode(tag, id, payload, &mut bytes);
        self.to.write_all(&bytes).unwrap();
    }

    /// Sends a command and returns its number.
    pub(crate) fn begin(&mut self, code: &[u8]) -> u64 {
        self.next += 1;
        self.send(b'E', self.next, code);
        self.next
    }

    /// Collects the answer of a command; each question for input is answered by the next of `input`, then by its end.
    pub(crate) fn finish(&mut self, id: u64, input: &[&[u8]]) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let frame = self.frame();
            assert_eq!(frame.id, id, "{}: {frame:?}", self.name);
            if self.take(frame, &mut outcome, input) {
                return outcome;
            }
        }
    }

    /// Adds a frame to an outcome; true if it is the last one.
    pub(crate) fn take(&mut self, frame: TextFrame, outcome: &mut Outcome, input: &[&[u8]]) -> bool {
        let lossy = || String::from_utf8_lossy(&frame.payload).into_owned();
        match frame.tag {
            b'O' => outcome.out.extend_from_slice(&frame.payload),
            b'R' => outcome.err.extend_from_slice(&frame.payload),
            b'T' => outcome.data = Some(lossy()),
            b'V' => outcome.values = Some(lossy()),
            b'N' => outcome.incomplete = Some(lossy()),
            b'X' => {
                let Failure { kind, message, traceback } = text::failure(&frame.payload);
                let (message, traceback) = (String::from_utf8_lossy(message), String::from_utf8_lossy(traceback));
                outcome.error = Some((kind as u8 as char, message.into_owned(), traceback.into_owned()));
                assert_ne!(kind, FailureKind::Deadline);
            }
            b'W' => {
                match input.get(outcome.asked) {
                    Some(data) => self.send(b'S', frame.id, data),
                    None => self.send(b'F', frame.id, b""),
                }
                outcome.asked += 1;
            }
            b'Z' => {
                outcome.exit = Some(lossy().parse().unwrap());
                return true;
            }
            b'D' => return true,
            tag::BEFORE_CHILD => self.send(tag::START, 0, b""),
            tag::BARRIER => {}
            _ => panic!("{}: {frame:?}", self.name),
        }
        false
    }

    pub(crate) fn eval(&mut self, code: impl AsRef<[u8]>) -> Outcome {
        self.eval_with(code, &[])
    }

    /// Runs a chunk with arguments, an empty text for none, and asks for its values as data.
    pub(crate) fn call(&mut self, arguments: &str, code: &str) -> Outcome {
        self.next += 1;
        self.send(b'J', self.next, &text::call(true, arguments.as_bytes(), code.as_bytes()));
        self.finish(self.next, &[])
    }

    pub(crate) fn eval_with(&mut self, code: impl AsRef<[u8]>, input: &[&[u8]]) -> Outcome {
        let id = self.begin(code.as_ref());
        self.finish(id, input)
    }

    /// Interrupts a running command as the holder does and returns its outcome and the mode from then on.
    pub(crate) fn interrupt(&mut self, id: u64, signal: bool, input: &[&[u8]]) -> (Outcome, InterruptMode) {
        std::fs::write(&self.flag, "").unwrap();
        if signal {
            // SAFETY: a signal to the process group of our own child, which is not waited for yet.
            unsafe { libc::kill(-(self.child.id() as i32), libc::SIGINT) };
        }
        let mut outcome = Outcome::default();
        let mut resync = None;
        loop {
            let frame = self.frame();
            if frame.tag == tag::RESYNC {
                outcome.error = Some(('i', "interrupted before it began".into(), String::new()));
                resync = Some(frame);
                break;
            }
            if frame.tag == b'W' {
                self.send(b'I', id, b"");
                continue;
            }
            if self.take(frame, &mut outcome, input) {
                break;
            }
        }
        (outcome, self.settle(resync, signal))
    }

    /// What follows an interrupt before the next command may be sent.
    fn settle(&mut self, resync: Option<TextFrame>, signal: bool) -> InterruptMode {
        std::fs::remove_file(&self.flag).unwrap();
        if resync.is_none() {
            self.send(tag::SETTLE, u64::from(signal), b"");
        }
        let frame = resync.unwrap_or_else(|| self.frame());
        assert_eq!(frame.tag, tag::RESYNC, "{}: {frame:?}", self.name);
        let mut bytes = Vec::new();
        text::go_on(frame.id, &mut bytes);
        self.to.write_all(&bytes).unwrap();
        InterruptMode::parse(std::str::from_utf8(&frame.payload).unwrap()).unwrap()
    }

    /// Waits for the end of the process and returns its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a test body in a fresh session of every interpreter.
pub(crate) fn each(body: impl Fn(&mut Session)) {
    for (name, _) in INTERPRETERS {
        body(&mut Session::start(name, InterruptMode::Signal));
    }
}

/// Compares and names the interpreter on failure.
#[track_caller]
pub(crate) fn same<T: PartialEq<U> + Debug, U: Debug>(name: &str, got: T, want: U) {
    assert!(got == want, "{name}: got {got:?}, want {want:?}");
}
