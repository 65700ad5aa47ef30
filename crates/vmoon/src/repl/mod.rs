//! A session on a terminal: a prompt, what is typed and what is answered, until somebody leaves or the session ends.
//!
//! This file decides what happens; how keys come ([`keys`], [`editor`]), how frames look ([`view`]) and where they come from
//! ([`link`]) is not its business.

mod editor;
mod keys;
mod lexer;
mod link;
mod script;
mod terminal;
mod view;

use crate::{ctx::Ctx, exit::Exit};
use editor::{About, Editor, Question, Told};
use keys::{Ahead, Key, Keys, Mode as Typing, Tty};
use link::{Link, News};
use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{timeout, timeout_at},
};
use view::{Seen, View};
use vmoon_api::{
    Api as _,
    requests::{AskCode, MachineRef, Mode, SessionRef, WaitMachine},
    views::SessionView,
};
use vmoon_core::{
    Code, Error, Result,
    driver::{self, ChannelKind},
    frame::{FailureKind, Frame, tag},
    machine::State,
    name::escape,
    session::SessionState,
};

/// How long an answer about the text being edited may take.
const ANSWER: Duration = Duration::from_millis(100);
/// What arrives so soon after something else is shown before the prompt comes back.
const BURST: Duration = Duration::from_millis(30);

/// Why a session was left.
enum Leave {
    /// By a key, or because the terminal is gone.
    Detached,
    /// Somebody detached everybody.
    Dismissed,
    /// The session is over.
    Ended,
    /// A script is done, with this exit code.
    Script(u8),
}

/// The command that is waited for.
struct Current {
    token: Vec<u8>,
    /// Its number, once it is accepted.
    id: Option<u64>,
    /// How often Ctrl-C was pressed.
    interrupts: u32,
    wants_input: bool,
}

struct Repl<'a> {
    ctx: &'a Ctx,
    session: SessionView,
    /// How the session is called in what people read.
    name: String,
    link: Link<'a>,
    view: View,
    keys: Keys,
    /// Our tokens begin so.
    tokens: String,
    sent: u64,
    current: Option<Current>,
    /// How our last command failed, if it did.
    failed: Option<FailureKind>,
    exit: Option<i32>,
}

/// Attaches to the session and stays until it is left. `kept` says whether the machine stays when we leave.
///
/// # Errors
/// Those of attaching; what is lost for good.
pub(crate) async fn attach(ctx: &Ctx, session: SessionView, from: Option<u64>, mode: Mode, kept: bool) -> Result<Exit> {
    if session.kind == ChannelKind::Terminal {
        return terminal::attach(ctx, session, from, mode).await;
    }
    let (keyboard, screen) = (io::stdin().is_terminal(), io::stdout().is_terminal());
    let writer = mode != Mode::Viewer;
    let name = escape(&if session.name == vmoon_core::target::MAIN {
        session.machine_name.clone()
    } else {
        format!("{}/{}", session.machine_name, session.name)
    });
    let link = Link::open(&ctx.daemon, session.id.to_string(), from, mode).await.map_err(|error| {
        let busy = error.code() == Code::SessionBusy;
        if busy { error.hint(format!("watch it: vmoon attach {name} --read-only")) } else { error }
    })?;
    let label = if writer { "[other] " } else { "" };
    let view = View::new(screen, ctx.out.paint().clone(), label);
    let tokens = format!("repl-{}-", vmoon_sys::random::uuid());
    let mut repl = Repl { ctx, session, name, link, view, keys: Keys::default(), tokens, sent: 0, current: None, failed: None, exit: None };
    let left = if writer && keyboard && screen {
        repl.write().await
    } else if writer {
        repl.script().await
    } else {
        repl.watch(keyboard).await
    };
    repl.farewell(left, writer, kept).await
}

impl Repl<'_> {
    /// Prompt after prompt.
    async fn write(&mut self) -> Result<Leave> {
        let tty = Tty::take().map_err(|error| Error::io("use the terminal", error))?;
        self.greet().await;
        if let Some(id) = self.session.busy {
            self.notice(&format!("command {id} is still running; Ctrl-C interrupts it"))?;
            self.current = Some(Current { token: Vec::new(), id: Some(id), interrupts: 0, wants_input: self.session.waiting_input });
        }
        let history = self.history();
        let mut editor = Editor::start(history, self.ctx.out.paint().is_on()).map_err(|error| Error::io("start the line editor", error))?;
        loop {
            let left = if self.current.is_some() { self.follow(Some(&tty)).await? } else { self.prompt(&mut editor).await? };
            if let Some(left) = left {
                return Ok(left);
            }
        }
    }

    /// Everything that anybody does, until Ctrl-C.
    async fn watch(&mut self, keyboard: bool) -> Result<Leave> {
        let tty = if keyboard { Some(Tty::take().map_err(|error| Error::io("use the terminal", error))?) } else { None };
        if keyboard {
            self.greet().await;
        }
        loop {
            if let Some(left) = self.follow(tty.as_ref()).await? {
                return Ok(left);
            }
        }
    }

    async fn greet(&mut self) {
        let request = MachineRef { machine: self.session.machine.to_string() };
        let shown = self.ctx.daemon.ask(async |client| client.show_machine(request.clone()).await).await;
        let runtime = shown.ok().and_then(|machine| machine.facts?.get("runtime")?.as_str().map(|text| format!(" · {}", escape(text))));
        let text = format!("attached to {}{} · detach: Ctrl-] d", self.name, runtime.unwrap_or_default());
        self.ctx.out.note(&text);
    }

    /// The machine's history; none where the file cannot be kept.
    fn history(&self) -> Option<PathBuf> {
        let dir = self.ctx.daemon.paths().state.join("history");
        vmoon_sys::paths::private_dir(&dir).ok()?;
        Some(dir.join(self.session.machine.to_string()))
    }

    /// One prompt.
    async fn prompt(&mut self, editor: &mut Editor) -> Result<Option<Leave>> {
        self.view.fresh_line().map_err(output)?;
        let mut seed = String::new();
        match self.keys.ahead() {
            Some(Ahead::Line(line)) => {
                self.view.echo("> ", &line).map_err(output)?;
                return self.submit(&line).await;
            }
            Some(Ahead::Beginning(text)) => seed = text,
            // Meant for the chunk that ran; it must not detach.
            Some(Ahead::End) | None => {}
        }
        editor.ask(seed);
        loop {
            let news = tokio::select! {
                told = editor.told() => match told {
                    Told::Question(question) => {
                        self.answer(question).await;
                        continue;
                    }
                    told => return self.told(told).await,
                },
                news = self.link.next() => news,
            };
            editor.make_room();
            let told = loop {
                // A question that is not answered has no answer.
                match editor.told().await {
                    Told::Question(_) => {}
                    told => break told,
                }
            };
            if let Some(left) = self.heed(news?).await? {
                return Ok(Some(left));
            }
            let until = tokio::time::Instant::now() + BURST;
            while let Ok(news) = timeout_at(until, self.link.next()).await {
                if let Some(left) = self.heed(news?).await? {
                    return Ok(Some(left));
                }
            }
            return self.told(told).await;
        }
    }

    async fn told(&mut self, told: Told) -> Result<Option<Leave>> {
        match told {
            Told::Line(line, ahead) => {
                let left = self.submit(&line).await?;
                for key in self.keys.push(&ahead) {
                    match key {
                        Key::Interrupt if self.current.is_some() => self.interrupt().await?,
                        Key::Interrupt => {}
                        Key::Detach => return Ok(Some(Leave::Detached)),
                    }
                }
                Ok(left)
            }
            Told::Detach => Ok(Some(Leave::Detached)),
            Told::Failed(error) => Err(Error::io("edit a line on the terminal", error)),
            Told::Cancelled | Told::MadeRoom | Told::Question(_) => Ok(None),
        }
    }

    async fn answer(&self, question: Question) {
        let request = AskCode { session: self.session.id.to_string(), code: question.text.into_bytes().into() };
        let client = self.ctx.daemon.client();
        // Where there is no answer in time the channel closes without one, and the editor goes on.
        match question.about {
            About::Names(tell) => {
                if let Ok(Ok(names)) = timeout(ANSWER, client.complete(request)).await
                    && !names.busy
                {
                    let _ = tell.send((names.from, names.names));
                }
            }
            About::More(tell) => {
                if let Ok(Ok(answer)) = timeout(ANSWER, client.is_complete(request)).await {
                    let _ = tell.send(answer.verdict == "incomplete");
                }
            }
        }
    }

    async fn submit(&mut self, code: &str) -> Result<Option<Leave>> {
        if code.trim().is_empty() {
            return Ok(None);
        }
        self.eval(code.as_bytes()).await?;
        Ok(None)
    }

    async fn eval(&mut self, code: &[u8]) -> Result<()> {
        self.sent += 1;
        let token = format!("{}{}", self.tokens, self.sent).into_bytes();
        self.failed = None;
        match self.link.eval(&token, code).await {
            Ok(()) => {
                self.current = Some(Current { token, id: None, interrupts: 0, wants_input: false });
                Ok(())
            }
            Err(error) if error.code() == Code::CommandTooLarge => self.view.error(error.message()).map_err(output),
            Err(error) => Err(error),
        }
    }

    /// Shows what comes and heeds the keys, until our command is done or asks for something else.
    async fn follow(&mut self, tty: Option<&Tty>) -> Result<Option<Leave>> {
        if self.wants_input() && self.feed_ahead().await? {
            return Ok(None);
        }
        let lines = self.reads_lines();
        let typed = match tty {
            Some(tty) => {
                tty.set(if lines { Typing::Lines } else { Typing::Keys }).map_err(terminal)?;
                Some(tty.events().map_err(terminal)?)
            }
            None => None,
        };
        let mut interrupted = signal(SignalKind::interrupt()).map_err(|error| Error::io("listen for Ctrl-C", error))?;
        let writer = self.current.is_some();
        loop {
            let keys = async {
                match &typed {
                    Some(typed) => typed.readable().await.map(|mut ready| ready.clear_ready()),
                    None => std::future::pending().await,
                }
            };
            let left = tokio::select! {
                news = self.link.next() => self.heed(news?).await?,
                ready = keys => {
                    ready.map_err(terminal)?;
                    match tty {
                        Some(tty) if lines => self.line(tty).await?,
                        Some(tty) => self.typed(tty).await?,
                        None => None,
                    }
                }
                _ = interrupted.recv() => if writer { self.interrupt().await?; None } else { Some(Leave::Detached) },
            };
            if left.is_some() {
                return Ok(left);
            }
            if (writer && self.current.is_none()) || self.reads_lines() != lines {
                if let Some(tty) = tty.filter(|_| lines) {
                    tty.set(Typing::Keys).map_err(terminal)?;
                }
                return Ok(None);
            }
        }
    }

    /// Whether the terminal shall give lines now.
    fn reads_lines(&self) -> bool {
        self.wants_input() && !self.keys.is_prefixed()
    }

    fn wants_input(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.wants_input)
    }

    /// Keys while a chunk runs.
    async fn typed(&mut self, tty: &Tty) -> Result<Option<Leave>> {
        while let Some(bytes) = tty.read().map_err(terminal)? {
            if bytes.is_empty() {
                return Ok(Some(Leave::Detached));
            }
            for key in self.keys.push(&bytes) {
                match key {
                    Key::Detach => return Ok(Some(Leave::Detached)),
                    Key::Interrupt if self.current.is_none() => return Ok(Some(Leave::Detached)),
                    Key::Interrupt => self.interrupt().await?,
                }
            }
        }
        Ok(None)
    }

    /// Gives a chunk that reads its input what was typed before it asked. Whether there was something.
    async fn feed_ahead(&mut self) -> Result<bool> {
        let (tag, payload) = match self.keys.ahead() {
            Some(Ahead::Line(line)) => {
                let line = line + "\n";
                self.view.echo("", line.trim_end()).map_err(output)?;
                (tag::INPUT, line.into_bytes())
            }
            Some(Ahead::Beginning(text)) => {
                // The terminal cannot be given the beginning of a line; it comes back when the chunk is done.
                self.keys.push(text.as_bytes());
                return Ok(false);
            }
            Some(Ahead::End) => (tag::INPUT_END, Vec::new()),
            None => return Ok(false),
        };
        let id = self.current.as_ref().and_then(|current| current.id).unwrap_or(0);
        self.link.send(tag, id, payload).await?;
        self.answered();
        Ok(true)
    }

    fn answered(&mut self) {
        if let Some(current) = &mut self.current {
            current.wants_input = false;
        }
    }

    /// A line for a chunk that reads its input.
    async fn line(&mut self, tty: &Tty) -> Result<Option<Leave>> {
        let Some(bytes) = tty.read().map_err(terminal)? else { return Ok(None) };
        self.view.typed(&bytes);
        let id = self.current.as_ref().and_then(|current| current.id).unwrap_or(0);
        if bytes.is_empty() {
            self.link.send(tag::INPUT_END, id, Vec::new()).await?;
        } else if let Some(at) = bytes.iter().position(|byte| matches!(*byte, keys::INTERRUPT | keys::PREFIX)) {
            // From there on it is keys, which may all have been typed before the terminal gave lines; what stands before is
            // lost, as with Ctrl-C everywhere.
            for key in self.keys.push(&bytes[at..]) {
                match key {
                    Key::Detach => return Ok(Some(Leave::Detached)),
                    Key::Interrupt => self.interrupt().await?,
                }
            }
            return Ok(None);
        } else if let Some(at) = bytes.iter().position(|byte| *byte == keys::END) {
            // Typed before the terminal gave lines, so the terminal has not made an end of the input of it.
            if at == 0 {
                self.link.send(tag::INPUT_END, id, Vec::new()).await?;
                self.keys.push(&bytes[1..]);
            } else {
                self.link.send(tag::INPUT, id, bytes[..at].to_vec()).await?;
                // At the beginning of a line it is the end of the input; elsewhere it only sends what stands before it.
                let from = if bytes[at - 1] == b'\n' { at } else { at + 1 };
                self.keys.push(&bytes[from..]);
            }
        } else {
            self.link.send(tag::INPUT, id, bytes).await?;
        }
        self.answered();
        Ok(None)
    }

    async fn interrupt(&mut self) -> Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        current.interrupts += 1;
        let (times, id) = (current.interrupts, current.id);
        if let Some(id) = id {
            self.link.send(tag::INTERRUPT, id, Vec::new()).await?;
        }
        if times > 1 {
            let name = &self.session.machine_name;
            self.notice(&format!("it has not stopped yet · Ctrl-] d detaches · vmoon kill {} ends it", escape(name)))?;
        }
        Ok(())
    }

    async fn heed(&mut self, news: News) -> Result<Option<Leave>> {
        match news {
            News::Frames(bytes) => {
                let mut rest = bytes.as_slice();
                while let Ok(Some((frame, len))) = Frame::decode(rest) {
                    rest = &rest[len..];
                    self.frame(&frame).await?;
                }
            }
            News::Direct(bytes) => {
                if let Ok(Some((frame, _))) = Frame::decode(&bytes)
                    && frame.tag == tag::REFUSED
                    && self.current.as_ref().is_some_and(|current| current.id.is_none())
                {
                    let text = String::from_utf8_lossy(frame.payload);
                    let (code, message) = text.split_once('\n').unwrap_or(("", &text));
                    self.view.error(message).map_err(output)?;
                    if code == Code::GuestNoLua.as_str() {
                        self.notice(&format!("a shell works: vmoon ssh {}", self.name))?;
                    }
                    self.link.refused();
                    self.current = None;
                    self.failed = Some(FailureKind::Runtime);
                }
            }
            News::Back => self.notice("the daemon was away; attached again, nothing is lost")?,
            News::Ended => return Ok(Some(Leave::Ended)),
        }
        Ok(None)
    }

    async fn frame(&mut self, frame: &Frame<'_>) -> Result<()> {
        let ours = self.tokens.as_bytes();
        let seen = self.view.frame(frame, |token| token.starts_with(ours)).map_err(output)?;
        if let Seen::Exit(code) = seen {
            self.exit = Some(code);
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        match seen {
            Seen::Accepted(id, token) if token == current.token => {
                current.id = Some(id);
                if current.interrupts > 0 {
                    self.link.send(tag::INTERRUPT, id, Vec::new()).await?;
                }
            }
            Seen::WantsInput(id) if current.id == Some(id) => current.wants_input = true,
            Seen::Failed(id, kind) if current.id == Some(id) => self.failed = Some(kind),
            Seen::Done(id) if current.id == Some(id) => self.current = None,
            _ => {}
        }
        Ok(())
    }

    fn notice(&mut self, text: &str) -> Result<()> {
        if self.ctx.out.is_quiet() { Ok(()) } else { self.view.notice(text).map_err(output) }
    }

    /// Says why it is over; the exit code.
    async fn farewell(&mut self, left: Result<Leave>, writer: bool, kept: bool) -> Result<Exit> {
        let left = match left {
            Err(error) if error.code() == Code::Cancelled => Ok(Leave::Dismissed),
            Err(error) if error.code() == Code::SessionEnded => Ok(Leave::Ended),
            left => left,
        };
        // What follows begins on a line of its own, also when it is an error.
        self.view.fresh_line().map_err(output)?;
        let name = self.name.clone();
        match left? {
            Leave::Script(code) => Ok(Exit(code)),
            Leave::Detached if !kept => Ok(Exit::OK),
            Leave::Detached if writer => {
                self.notice(&format!("detached; {name} keeps running · vmoon attach {name}"))?;
                Ok(Exit::OK)
            }
            Leave::Detached => {
                self.notice(&format!("not watching {name} any more"))?;
                Ok(Exit::OK)
            }
            Leave::Dismissed => {
                self.notice(&format!("somebody detached {name} from here; it keeps running · vmoon attach {name}"))?;
                Ok(Exit::OK)
            }
            Leave::Ended => {
                let exit = self.ended().await;
                let (text, code) = match &exit {
                    Some(exit) => (crate::cmd::show::exit(exit), u8::from(!matches!(exit, driver::Exit::Code { code: 0 }))),
                    None => match self.exit {
                        Some(code) => (format!("exit code {code}"), u8::from(code != 0)),
                        None => ("nothing tells how".into(), 1),
                    },
                };
                self.notice(&format!("{name} has ended: {text}"))?;
                Ok(Exit(code))
            }
        }
    }

    async fn ended(&self) -> Option<driver::Exit> {
        let request = SessionRef { session: self.session.id.to_string() };
        let shown = self.ctx.daemon.ask(async |client| client.show_session(request.clone()).await).await;
        let exit = match shown.ok()?.state {
            SessionState::Ended { exit } => exit,
            _ => return None,
        };
        if matches!(exit, driver::Exit::Code { .. }) {
            return Some(exit);
        }
        // The machine knows whose signal it was.
        let request = WaitMachine {
            machine: self.session.machine.to_string(),
            until: Some(State::Stopped),
            generation: None,
            timeout_ms: Some(2_000),
        };
        let shown = self.ctx.daemon.ask(async |client| client.wait_machine(request.clone()).await).await;
        Some(shown.ok().and_then(|machine| machine.exit).unwrap_or(exit))
    }
}

fn output(error: io::Error) -> Error {
    Error::io("write the standard output", error)
}

fn terminal(error: io::Error) -> Error {
    Error::io("use the terminal", error)
}
