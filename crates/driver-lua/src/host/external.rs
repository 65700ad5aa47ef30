//! Runs the session inside an interpreter of this computer, as a child on pipes.
//!
//! The child is started directly, without a shell, runs the driver program of `vmoon-lua-wire`, and dies with this process.
//! Its frames come over private pipes; what it or its own children write to the standard descriptors goes where the
//! holder's own output goes. This file must not know the socket.

use super::{
    LAUNCHER,
    engine::Engine,
    exit_of,
    hub::{Command, Hub, Input, Outcome, Stream},
};
use crate::layout::{FLAGS, LAYERS, Start};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal},
    time::Timespec,
};
use std::{
    fs,
    io::Read as _,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process::Child,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use vmoon_confine::{Layer, Limits, Profile, Rules, Status};
use vmoon_core::{
    driver::Exit,
    frame::{FailureKind, tag},
};
use vmoon_lua_wire::{
    program::{self, InterruptMode},
    text::{self, Decoder, TextFrame, tag as wire},
};
use vmoon_sys::{
    atomic,
    child::Tied,
    process::{Identity, Pidfd},
};

/// How long an interpreter may take to say that it runs.
const HELLO: Duration = Duration::from_secs(10);
/// How long it may take to end when asked to.
const QUIT: Duration = Duration::from_secs(1);

/// What is said of LuaJIT when it has not obeyed an interrupt.
const COMPILED: &str = "vmoon: LuaJIT does not look at interrupts inside a compiled loop; a machine with the setting interrupt = hook can be interrupted there, but runs slower: nothing is compiled\n";

/// What the interrupter, called from another thread, shares with the engine.
struct Shared {
    /// The command that may be interrupted, 0 for none.
    running: u64,
    /// It was interrupted, and the driver does not know yet that this is over.
    cut: bool,
    /// SIGINT was part of that.
    signalled: bool,
    mode: InterruptMode,
    group: Pid,
    flag: PathBuf,
}

impl Shared {
    fn interrupt(&mut self, id: u64) {
        if self.running != id || self.cut {
            return; // a second SIGINT would kill the interpreter
        }
        self.cut = true;
        let _ = atomic::write(&self.flag, b"");
        if self.mode == InterruptMode::Signal {
            self.signalled = true;
            // As Ctrl-C on a terminal: the children the program waits for get it, too.
            let _ = rustix::process::kill_process_group(self.group, Signal::INT);
        }
    }
}

/// An interpreter in a process of its own.
struct External {
    child: Child,
    life: Pidfd,
    to: OwnedFd,
    from: OwnedFd,
    decoder: Decoder,
    shared: Arc<Mutex<Shared>>,
    runtime: String,
}

/// Why there is no next frame.
enum Gone {
    /// The interpreter has ended, or does not speak as it should and was ended.
    Ended(Exit),
    /// The time is over.
    Late,
}

/// Starts the interpreter at `path`; `life` is the directory of this life, for files of its own; `streams` become its
/// standard output and error.
///
/// # Errors
/// A sentence that says why it could not be started.
pub(crate) fn start(hub: &'static Hub, start: &Start, life: &Path, streams: [BorrowedFd<'_>; 2]) -> Result<Box<dyn Engine>, String> {
    let (path, options, rules) = (Path::new(&start.shape.runtime), &start.options(), start.rules());
    let name = path.display();
    let failed = |error: std::io::Error| format!("could not start {name}: {error}");
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()));
    let (input, to) = pipe()?;
    let (from, output) = pipe()?;
    // Only our end: the interpreter expects to wait.
    rustix::io::ioctl_fionbio(&from, true).map_err(|error| failed(error.into()))?;
    let mut tied = Tied {
        exe: path,
        args: program::arguments().into_iter().map(Into::into).collect(),
        output: streams,
        extra: vec![(input.as_fd(), program::INPUT_FD), (output.as_fd(), program::OUTPUT_FD)],
    };
    let mut child = if rules.profile == Profile::Trusted && rules.limits == Limits::default() {
        tied.spawn().map_err(failed)?
    } else {
        launch(&mut tied, &rules, life).map_err(|why| format!("could not start {name}: {why}"))?
    };
    drop((input, output));
    let pid = child.id() as i32;
    let watched = Identity::of(pid).map(|identity| Pidfd::open(&identity));
    let (Some(Ok(Some(watched))), Some(group)) = (watched, Pid::from_raw(pid)) else {
        let _ = child.kill();
        let exit = child.wait().map_or(Exit::Lost, exit_of);
        return Err(no_lua(path, &ended_text(&exit)));
    };
    let flags = life.join(FLAGS);
    // Who plans a life in which it is to be read has made it already.
    match fs::create_dir(&flags) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let flag = flags.join("interrupt");
    let shared = Shared { running: 0, cut: false, signalled: false, mode: options.interrupt, group, flag: flag.clone() };
    let mut this = External {
        child,
        life: watched,
        to,
        from,
        decoder: Decoder::default(),
        shared: Arc::new(Mutex::new(shared)),
        runtime: String::new(),
    };
    // The path goes to the interpreter as text; a directory that is no UTF-8 costs the flag file only.
    let preamble = program::preamble(flag.to_str().unwrap_or_default(), options);
    let hello = this.send_bytes(&preamble).and_then(|()| this.frame(Some(Instant::now() + HELLO)));
    let problem = match hello {
        Ok(frame) if frame.tag == tag::HELLO => {
            this.runtime = text::setting(&frame.payload, "runtime").unwrap_or("Lua").to_owned();
            if this.runtime.starts_with("LuaJIT") && options.interrupt == InterruptMode::Signal {
                hub.set_advice(COMPILED);
            }
            let shared = Arc::clone(&this.shared);
            hub.set_interrupter(move |id| lock(&shared).interrupt(id));
            return Ok(Box::new(this));
        }
        Ok(frame) => format!("it sent {frame:?} first"),
        Err(Gone::Late) => format!("it said nothing in {} seconds", HELLO.as_secs()),
        Err(Gone::Ended(exit)) => ended_text(&exit),
    };
    this.kill();
    Err(no_lua(path, &problem))
}

/// Starts the interpreter behind the launcher, which confines itself and then becomes it; writes down which layers hold.
fn launch(tied: &mut Tied<'_>, rules: &Rules, life: &Path) -> Result<Child, String> {
    const RULES_FD: i32 = 5;
    const REPORT_FD: i32 = 6;
    let text = |error: std::io::Error| error.to_string();
    let file = rustix::fs::memfd_create("rules", rustix::fs::MemfdFlags::CLOEXEC).map_err(|error| text(error.into()))?;
    let mut file = fs::File::from(file);
    serde_json::to_writer(&file, rules).map_err(|error| error.to_string())?;
    std::io::Seek::rewind(&mut file).map_err(text)?;
    let (mut said, report) = std::io::pipe().map_err(text)?;
    let mut args: Vec<String> = vec![LAUNCHER.into(), RULES_FD.to_string(), REPORT_FD.to_string()];
    args.push(tied.exe.to_string_lossy().into_owned());
    args.append(&mut tied.args);
    let mut extra = tied.extra.clone();
    extra.extend([(file.as_fd(), RULES_FD), (report.as_fd(), REPORT_FD)]);
    // The program of this very process, wherever its file has gone.
    let mut child = Tied { exe: Path::new("/proc/self/exe"), args, output: tied.output, extra }.spawn().map_err(text)?;
    drop(report);
    let mut lines = Vec::new();
    let outcome = said.read_to_end(&mut lines).map_err(text).and_then(|_| vmoon_confine::launch::outcome(&lines));
    match outcome {
        Ok(mut report) => {
            report.set(Layer::Lua, if rules.without.contains(&Layer::Lua) { Status::off("switched off on request") } else { Status::On });
            // It only tells people.
            let _ = atomic::write_json(&life.join(LAYERS), &report);
            Ok(child)
        }
        Err(why) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(why)
        }
    }
}

fn no_lua(path: &Path, problem: &str) -> String {
    format!("{} does not behave as lua5.1 to lua5.4 or luajit do: {problem}", path.display())
}

fn ended_text(exit: &Exit) -> String {
    match exit {
        Exit::Code { code } => format!("it ended with exit code {code}"),
        Exit::Signal { signal } => format!("signal {signal} ended it"),
        _ => "it ended".to_owned(),
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl External {
    fn kill(&mut self) -> Exit {
        let _ = self.child.kill();
        self.child.wait().map_or(Exit::Lost, exit_of)
    }

    /// How the child has ended; it is known to have, or about to.
    fn ended(&mut self) -> Gone {
        lock(&self.shared).running = 0;
        let limit = self.life.wait(QUIT);
        Gone::Ended(if matches!(limit, Ok(true)) { self.child.wait().map_or(Exit::Lost, exit_of) } else { self.kill() })
    }

    fn send_bytes(&mut self, mut bytes: &[u8]) -> Result<(), Gone> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.to, bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::INTR) => {}
                Err(_) => return Err(self.ended()),
            }
        }
        Ok(())
    }

    fn send(&mut self, tag: u8, id: u64, payload: &[u8]) -> Result<(), Gone> {
        let mut bytes = Vec::with_capacity(payload.len() + 32);
        text::encode(tag, id, payload, &mut bytes);
        self.send_bytes(&bytes)
    }

    /// The next frame, if it is there already. What the interpreter wrote before it ended comes before its end.
    fn frame_now(&mut self) -> Result<Option<TextFrame>, Gone> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "the interpreter is ended");
                    return Err(Gone::Ended(self.kill()));
                }
            }
            let mut buffer = [0; 16 << 10];
            match rustix::io::read(&self.from, &mut buffer) {
                Ok(0) => return Err(self.ended()),
                Ok(n) => self.decoder.push(&buffer[..n]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(_) => return Err(self.ended()),
            }
        }
    }

    /// The next frame.
    fn frame(&mut self, until: Option<Instant>) -> Result<TextFrame, Gone> {
        loop {
            if let Some(frame) = self.frame_now()? {
                return Ok(frame);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
            // Children of the interpreter may hold the pipe open when it is dead: it is watched by itself.
            let mut fds = [PollFd::new(&self.from, PollFlags::IN), PollFd::new(&self.life, PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Ok(0) => return Err(Gone::Late),
                Ok(_) if fds[0].revents().is_empty() && !fds[1].revents().is_empty() => {
                    // It is dead, so nothing can come after what is in the pipe now.
                    return match self.frame_now()? {
                        Some(frame) => Ok(frame),
                        None => Err(self.ended()),
                    };
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Obeys what may come at any time; gives back the rest.
    fn common(&mut self, hub: &Hub, frame: TextFrame) -> Result<Option<TextFrame>, Gone> {
        match frame.tag {
            tag::STDOUT => hub.emit(Stream::Out, &frame.payload),
            tag::STDERR => hub.emit(Stream::Err, &frame.payload),
            wire::BARRIER => hub.capture(),
            wire::BEFORE_CHILD => self.send(wire::START, 0, b"")?,
            tag::EXIT => {
                let code = std::str::from_utf8(&frame.payload).ok().and_then(|code| code.parse::<f64>().ok()).unwrap_or(0.0);
                lock(&self.shared).running = 0;
                // What it still has to say at its end, as C libraries do, belongs to it.
                let _ = self.life.wait(QUIT);
                // The kernel keeps the low byte only.
                hub.exit((code as i64 & 0xff) as i32)
            }
            _ => return Ok(Some(frame)),
        }
        Ok(None)
    }

    fn run(&mut self, hub: &Hub, command: &Command) -> Result<Outcome, Gone> {
        let (arguments, data) = (command.arguments(), command.wants_data());
        if arguments.is_empty() && !data {
            self.send(tag::EVAL, command.id, command.code())?;
        } else {
            self.send(tag::CALL, command.id, &text::call(data, arguments, command.code()))?;
        }
        let mut outcome = Outcome::Nothing;
        let mut found = None;
        let mut told = false;
        let resync = loop {
            let frame = self.frame(None)?;
            let Some(frame) = self.common(hub, frame)? else { continue };
            match frame.tag {
                tag::DATA => found = Some(frame.payload),
                tag::VALUES => outcome = Outcome::Values(frame.payload),
                tag::INCOMPLETE => outcome = Outcome::Incomplete(frame.payload),
                tag::ERROR => {
                    let failure = text::failure(&frame.payload);
                    let (message, traceback) = (failure.message.to_vec(), failure.traceback.to_vec());
                    outcome = Outcome::Failed { kind: failure.kind, message, traceback };
                }
                tag::WANTS_INPUT => match hub.ask() {
                    Input::Data(piece) => self.send(tag::INPUT, command.id, &piece)?,
                    Input::End => self.send(tag::INPUT_END, command.id, b"")?,
                    Input::Interrupted => {
                        told = true;
                        self.send(tag::INTERRUPT, command.id, b"")?;
                    }
                },
                tag::DONE => break None,
                wire::RESYNC => {
                    // The interrupt came before the command began.
                    let (message, traceback) = (b"interrupted!".to_vec(), Vec::new());
                    outcome = Outcome::Failed { kind: FailureKind::Interrupted, message, traceback };
                    break Some(frame);
                }
                _ => {}
            }
        };
        self.settle(hub, resync, told)?;
        Ok(match (outcome, found) {
            (Outcome::Values(values), Some(data)) => Outcome::Data { data, values: Some(values) },
            (Outcome::Nothing, Some(data)) => Outcome::Data { data, values: None },
            (outcome, _) => outcome,
        })
    }

    /// After a command: brings the driver back in step if the command was interrupted. Without that the next command could
    /// be hit by what was meant for this one.
    fn settle(&mut self, hub: &Hub, resync: Option<TextFrame>, told: bool) -> Result<(), Gone> {
        let (cut, signalled, flag) = {
            let mut shared = lock(&self.shared);
            shared.running = 0;
            (std::mem::take(&mut shared.cut), std::mem::take(&mut shared.signalled), shared.flag.clone())
        };
        if !cut && !told && resync.is_none() {
            return Ok(());
        }
        let _ = fs::remove_file(flag);
        let frame = match resync {
            Some(frame) => frame,
            None => {
                self.send(wire::SETTLE, u64::from(signalled), b"")?;
                loop {
                    let frame = self.frame(None)?;
                    match self.common(hub, frame)? {
                        Some(frame) if frame.tag == wire::RESYNC => break frame,
                        _ => {}
                    }
                }
            }
        };
        let mut bytes = Vec::new();
        text::go_on(frame.id, &mut bytes);
        self.send_bytes(&bytes)?;
        let mode = std::str::from_utf8(&frame.payload).ok().and_then(InterruptMode::parse);
        let mut shared = lock(&self.shared);
        if mode == Some(InterruptMode::Hook) && shared.mode == InterruptMode::Signal {
            shared.mode = InterruptMode::Hook;
            drop(shared);
            hub.emit(
                Stream::Err,
                b"vmoon: this interpreter can take no more interrupt signals; from now on a hook looks for interrupts, which makes it slower\n",
            );
        }
        Ok(())
    }

    /// Asks the idle interpreter something.
    fn question(&mut self, hub: &Hub, tag: u8, payload: &[u8]) -> Result<Vec<u8>, Gone> {
        let answer = if tag == tag::IS_COMPLETE { tag::COMPLETENESS } else { tag::NAMES };
        self.send(tag, 0, payload)?;
        loop {
            let frame = self.frame(None)?;
            match self.common(hub, frame)? {
                Some(frame) if frame.tag == answer => return Ok(frame.payload),
                _ => {}
            }
        }
    }
}

impl Engine for External {
    fn runtime(&self) -> String {
        self.runtime.clone()
    }

    fn eval(&mut self, hub: &Hub, command: &Command) -> Outcome {
        lock(&self.shared).running = command.id;
        if hub.cut().is_some() {
            // It was interrupted before we could hear of it.
            lock(&self.shared).interrupt(command.id);
        }
        match self.run(hub, command) {
            Ok(outcome) => outcome,
            Err(Gone::Ended(exit)) => Outcome::Ended(exit),
            Err(Gone::Late) => Outcome::Ended(Exit::Lost), // without a limit there is none
        }
    }

    fn is_complete(&mut self, hub: &Hub, code: &[u8]) -> Vec<u8> {
        self.question(hub, tag::IS_COMPLETE, code).unwrap_or_else(|_| b"xthe interpreter is gone".to_vec())
    }

    fn complete(&mut self, hub: &Hub, text: &[u8]) -> Vec<u8> {
        let payload = self.question(hub, tag::COMPLETE, text).unwrap_or_default();
        let (from, names) = text::names(&payload);
        serde_json::json!({ "busy": false, "from": from.max(1) - 1, "names": names }).to_string().into_bytes()
    }

    fn watch(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.from.as_fd(), self.life.as_fd()]
    }

    fn ready(&mut self, hub: &Hub, _: usize) -> Option<Exit> {
        loop {
            let gone = match self.frame_now() {
                Ok(Some(frame)) => self.common(hub, frame).err(),
                Ok(None) if matches!(self.life.wait(Duration::ZERO), Ok(false)) => return None,
                Ok(None) => Some(self.ended()),
                Err(gone) => Some(gone),
            };
            if let Some(Gone::Ended(exit)) = gone {
                return Some(exit);
            }
        }
    }

    fn quit(&mut self) {
        if self.send(tag::QUIT, 0, b"").is_err() || !matches!(self.life.wait(QUIT), Ok(true)) {
            self.kill();
        }
    }
}
