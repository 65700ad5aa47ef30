//! The line editor, on a thread of its own: it waits for keys the blocking way. What it needs to know of the session it asks
//! through its channel; it must not know how that is answered.

use super::{
    keys::PREFIX,
    lexer::{self, Kind},
};
use crossterm::event::{self, Event, KeyEventKind};
use reedline::{
    Color, ColumnarMenu, Completer, CompletionResult, EditCommand, EditMode, Emacs, FileBackedHistory, Highlighter, KeyCode, KeyModifiers,
    Keybindings, MenuBuilder as _, Prompt, PromptEditMode, PromptHistorySearch, PromptHistorySearchStatus, Reedline, ReedlineEvent,
    ReedlineMenu, ReedlineRawEvent, Signal, Span, StyledText, Suggestion, ValidationResult, Validator, default_emacs_keybindings,
};
use std::{
    borrow::Cow,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

/// How long an answer about completion or completeness is waited for.
const ANSWER: Duration = Duration::from_millis(150);
/// How often the editor looks whether it shall make room.
const LOOK: Duration = Duration::from_millis(40);
/// How many lines of history are kept.
const HISTORY: usize = 10_000;
const MENU: &str = "names";
const DETACH: &str = "detach";

/// What the editor has to say.
pub(crate) enum Told {
    /// A chunk to run, and the keys that were typed behind it before the editor let go of the terminal.
    Line(String, Vec<u8>),
    /// Ctrl-C.
    Cancelled,
    /// Ctrl-D at an empty prompt, or Ctrl-] d.
    Detach,
    /// It has made room, as asked; the line is kept for the next prompt.
    MadeRoom,
    /// The terminal does not work.
    Failed(io::Error),
    /// A question it waits for the answer of.
    Question(Question),
}

/// A question about the text that is being edited.
pub(crate) struct Question {
    /// The text.
    pub(crate) text: String,
    /// What about it.
    pub(crate) about: About,
}

/// What is asked; the answer goes into the channel.
pub(crate) enum About {
    /// What completes it: where the completed word begins, and the names.
    Names(mpsc::SyncSender<(usize, Vec<String>)>),
    /// Whether more lines are needed.
    More(mpsc::SyncSender<bool>),
}

/// The editor as the other thread sees it.
pub(crate) struct Editor {
    ask: mpsc::Sender<String>,
    told: tokio::sync::mpsc::Receiver<Told>,
    room: Arc<AtomicBool>,
}

impl Editor {
    /// Starts it; it shows nothing yet.
    pub(crate) fn start(history: Option<PathBuf>, color: bool) -> io::Result<Self> {
        let (ask, asked) = mpsc::channel();
        let (tell, told) = tokio::sync::mpsc::channel(1);
        let room = Arc::new(AtomicBool::new(false));
        let setup = Setup { history, color, room: Arc::clone(&room), tell };
        // Ends when the channel does; while it waits for a key nobody can end it, and it ends with the process.
        drop(thread::Builder::new().name("line editor".into()).spawn(move || setup.run(&asked))?);
        Ok(Self { ask, told, room })
    }

    /// Shows the prompt, with this text behind it, or with the line for which it made room.
    pub(crate) fn ask(&self, text: String) {
        self.room.store(false, Relaxed);
        // If the thread is gone, `told` says so.
        let _ = self.ask.send(text);
    }

    /// Asks it to take the prompt off the screen; it says [`Told::MadeRoom`], or something that came first.
    pub(crate) fn make_room(&self) {
        self.room.store(true, Relaxed);
    }

    /// Waits for what it has to say. Dropping the future loses nothing.
    pub(crate) async fn told(&mut self) -> Told {
        self.told.recv().await.unwrap_or_else(|| Told::Failed(io::Error::other("the line editor has ended")))
    }
}

struct Setup {
    history: Option<PathBuf>,
    color: bool,
    room: Arc<AtomicBool>,
    tell: tokio::sync::mpsc::Sender<Told>,
}

impl Setup {
    fn run(&self, asked: &mpsc::Receiver<String>) {
        let mut editor = self.build();
        let mut kept = (String::new(), 0);
        for text in asked {
            let (before, at) = std::mem::take(&mut kept);
            if !before.is_empty() || !text.is_empty() {
                editor.run_edit_commands(&[
                    EditCommand::InsertString(before),
                    EditCommand::MoveToPosition { position: at, select: false },
                    EditCommand::InsertString(text),
                ]);
            }
            let told = match editor.read_line(&Mark) {
                Ok(Signal::Success(line)) => {
                    // Written at once: a closed terminal ends us without a word.
                    let _ = editor.sync_history();
                    Told::Line(line, typed_ahead())
                }
                Ok(Signal::CtrlC) => Told::Cancelled,
                Ok(Signal::CtrlD) => Told::Detach,
                Ok(Signal::HostCommand(_)) => {
                    // The editor believes that it will go on here.
                    erase(&editor.current_buffer_contents()[..editor.current_insertion_point()]);
                    Told::Detach
                }
                Ok(Signal::ExternalBreak(buffer)) => {
                    let at = editor.current_insertion_point();
                    erase(&buffer[..at]);
                    kept = (buffer, at);
                    // A fresh editor finds out where the cursor is; this one would draw over what is printed now.
                    editor = self.build();
                    Told::MadeRoom
                }
                Ok(_) => Told::Cancelled,
                Err(error) => Told::Failed(error),
            };
            if self.tell.blocking_send(told).is_err() {
                return;
            }
        }
    }

    fn build(&self) -> Reedline {
        let mut keys = default_emacs_keybindings();
        let complete = ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.into()), ReedlineEvent::MenuNext]);
        keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
        keys.add_binding(KeyModifiers::ALT, KeyCode::Enter, ReedlineEvent::Edit(vec![EditCommand::InsertNewline]));
        let menu = ColumnarMenu::default().with_name(MENU).with_marker("> ").with_columns(4).with_column_padding(2);
        let editor = Reedline::create()
            .with_edit_mode(Box::new(Prefixed::new(keys)))
            .with_completer(Box::new(Names(self.tell.clone())))
            .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
            .with_quick_completions(true)
            .with_partial_completions(true)
            .with_validator(Box::new(More(self.tell.clone())))
            .with_highlighter(Box::new(Colours(self.color)))
            .with_ansi_colors(self.color)
            .disable_hints()
            .use_bracketed_paste(true)
            .with_break_signal(Arc::clone(&self.room))
            .with_poll_interval(LOOK);
        match self.history.as_ref().and_then(history) {
            Some(history) => editor.with_history(history),
            None => editor,
        }
    }
}

/// The history of a file that only this user reads; none if the file cannot be used.
fn history(path: &PathBuf) -> Option<Box<FileBackedHistory>> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).ok()?;
    FileBackedHistory::with_file(HISTORY, path.clone()).ok().map(Box::new)
}

/// The keys that the editor's reader holds already: they were meant for the chunk, as on any terminal.
fn typed_ahead() -> Vec<u8> {
    let mut keys = Vec::new();
    // An error here is seen by the next prompt.
    while event::poll(Duration::ZERO).unwrap_or(false) {
        match event::read() {
            Ok(Event::Key(key)) if key.kind == KeyEventKind::Press => match key.code {
                KeyCode::Enter => keys.push(b'\r'),
                KeyCode::Tab => keys.push(b'\t'),
                // Ctrl-5 is how this reader calls the byte of Ctrl-].
                KeyCode::Char('5') if key.modifiers.contains(KeyModifiers::CONTROL) => keys.push(PREFIX),
                KeyCode::Char(letter) if key.modifiers.contains(KeyModifiers::CONTROL) => {
                    keys.extend(u8::try_from(letter).map(|byte| byte & 0x1f));
                }
                KeyCode::Char(letter) => keys.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
                _ => {}
            },
            Ok(Event::Paste(text)) => keys.extend_from_slice(text.as_bytes()),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    keys
}

/// Takes the prompt off the screen; `before` is the text between it and the cursor.
fn erase(before: &str) {
    let columns = rustix::termios::tcgetwinsize(io::stdout()).map_or(80, |size| usize::from(size.ws_col.max(1)));
    let rows: usize = before.split('\n').enumerate().map(|(at, line)| rows(line, if at == 0 { 2 } else { 3 }, columns)).sum();
    let up = if rows > 1 { format!("\x1b[{}A", rows - 1) } else { String::new() };
    let mut out = io::stdout().lock();
    // A terminal that is gone is noticed elsewhere.
    let _ = write!(out, "{up}\r\x1b[J");
    let _ = out.flush();
}

fn rows(line: &str, mark: usize, columns: usize) -> usize {
    (mark + line.chars().count()) / columns + 1
}

/// Emacs keys and, before them, Ctrl-] d. A terminal of the old kind sends Ctrl-] as what is known as Ctrl-5.
struct Prefixed {
    keys: Emacs,
    after: Emacs,
    pending: bool,
}

impl Prefixed {
    fn new(mut keys: Keybindings) -> Self {
        for key in ['5', ']'] {
            keys.add_binding(KeyModifiers::CONTROL, KeyCode::Char(key), ReedlineEvent::ExecuteHostCommand(DETACH.into()));
        }
        let mut after = Keybindings::new();
        for (modifier, key) in [(KeyModifiers::NONE, 'd'), (KeyModifiers::SHIFT, 'd'), (KeyModifiers::CONTROL, 'd')] {
            after.add_binding(modifier, KeyCode::Char(key), ReedlineEvent::ExecuteHostCommand(DETACH.into()));
        }
        Self { keys: Emacs::new(keys), after: Emacs::new(after), pending: false }
    }
}

impl EditMode for Prefixed {
    fn parse_event(&mut self, event: ReedlineRawEvent) -> ReedlineEvent {
        if std::mem::take(&mut self.pending) {
            return match self.after.parse_event(event) {
                detach @ ReedlineEvent::ExecuteHostCommand(_) => detach,
                _ => ReedlineEvent::None,
            };
        }
        match self.keys.parse_event(event) {
            ReedlineEvent::ExecuteHostCommand(_) => {
                self.pending = true;
                ReedlineEvent::None
            }
            other => other,
        }
    }

    fn edit_mode(&self) -> PromptEditMode {
        self.keys.edit_mode()
    }
}

struct Names(tokio::sync::mpsc::Sender<Told>);

impl Completer for Names {
    fn complete(&mut self, line: &str, pos: usize) -> CompletionResult {
        let (answer, answered) = mpsc::sync_channel(1);
        let text = line.get(..pos).unwrap_or(line).to_owned();
        let asked = self.0.blocking_send(Told::Question(Question { text, about: About::Names(answer) }));
        let (from, names) = match asked.ok().and_then(|()| answered.recv_timeout(ANSWER).ok()) {
            Some((from, names)) if from <= pos && line.is_char_boundary(from) => (from, names),
            _ => (pos, Vec::new()),
        };
        let suggestion = |value| Suggestion { value, span: Span::new(from, pos), ..Suggestion::default() };
        CompletionResult::fresh(names.into_iter().map(suggestion).collect::<Vec<_>>())
    }
}

struct More(tokio::sync::mpsc::Sender<Told>);

impl Validator for More {
    fn validate(&self, line: &str) -> ValidationResult {
        if line.trim().is_empty() {
            return ValidationResult::Complete;
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let asked = self.0.blocking_send(Told::Question(Question { text: line.to_owned(), about: About::More(answer) }));
        match asked.ok().and_then(|()| answered.recv_timeout(ANSWER).ok()) {
            Some(true) => ValidationResult::Incomplete,
            _ => ValidationResult::Complete,
        }
    }
}

struct Colours(bool);

impl Highlighter for Colours {
    fn highlight(&self, line: &str, _cursor: usize) -> StyledText {
        let mut out = StyledText::new();
        if !self.0 {
            out.push((Color::Default.normal(), line.to_owned()));
            return out;
        }
        for (kind, range) in lexer::pieces(line) {
            let style = match kind {
                Kind::Keyword => Color::Magenta.normal(),
                Kind::Constant => Color::Cyan.normal(),
                Kind::Text => Color::Green.normal(),
                Kind::Comment => Color::DarkGray.normal(),
                Kind::Name | Kind::Other => Color::Default.normal(),
            };
            out.push((style, line[range].to_owned()));
        }
        out
    }
}

struct Mark;

impl Prompt for Mark {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        "".into()
    }
    fn render_prompt_right(&self) -> Cow<'_, str> {
        "".into()
    }
    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        "> ".into()
    }
    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        ">> ".into()
    }
    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let failing = if matches!(search.status, PromptHistorySearchStatus::Failing) { "nothing " } else { "" };
        format!("({failing}found for \"{}\") ", search.term).into()
    }
    fn get_prompt_color(&self) -> Color {
        Color::Default
    }
    fn get_indicator_color(&self) -> Color {
        Color::Default
    }
    fn get_prompt_multiline_color(&self) -> Color {
        Color::Default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_erased_with_all_its_rows() {
        assert_eq!(rows("", 2, 80), 1);
        assert_eq!(rows(&"x".repeat(77), 2, 80), 1);
        assert_eq!(rows(&"x".repeat(78), 2, 80), 2);
        assert_eq!(rows(&"é".repeat(200), 3, 80), 3);
    }
}
