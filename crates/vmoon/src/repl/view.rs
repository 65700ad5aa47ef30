//! Shows the frames of a session. Where they go and in which colour; not where they come from.

use crate::out::color::{Paint, Style};
use std::io::{self, Write};
use vmoon_core::{
    frame::{Eval, Failure, FailureKind, Frame, Missing, tag},
    name::escape,
};

/// What a frame meant for whoever shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// This command was accepted, under that token.
    Accepted(u64, Vec<u8>),
    /// This command waits for input.
    WantsInput(u64),
    /// This command failed, in this way.
    Failed(u64, FailureKind),
    /// This command is done.
    Done(u64),
    /// The program ends with this code.
    Exit(i32),
    /// Nothing that matters to anybody but the reader.
    Shown,
}

/// The two streams that are written to, and what was written last.
pub(crate) struct View {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Both are one terminal: control characters of values are escaped, and prompts begin on a line of their own.
    terminal: bool,
    paint: Paint,
    /// Code is shown too, with this before it.
    label: &'static str,
    column0: bool,
}

impl View {
    /// Shows on standard output and standard error.
    pub(crate) fn new(terminal: bool, paint: Paint, label: &'static str) -> Self {
        Self { out: Box::new(io::stdout()), err: Box::new(io::stderr()), terminal, paint, label, column0: true }
    }

    /// Shows a frame. `mine` says whether its command is this client's own: then its code is on the screen already.
    pub(crate) fn frame(&mut self, frame: &Frame<'_>, mine: impl Fn(&[u8]) -> bool) -> io::Result<Seen> {
        match frame.tag {
            tag::ACCEPTED => {
                let Some(eval) = Eval::decode(frame.payload) else { return Ok(Seen::Shown) };
                if !mine(eval.token) && self.terminal {
                    self.code(eval.code)?;
                }
                return Ok(Seen::Accepted(frame.id, eval.token.to_vec()));
            }
            tag::STDOUT => self.raw(frame.payload)?,
            tag::STDERR => {
                self.err.write_all(frame.payload)?;
                self.err.flush()?;
                self.moved(frame.payload);
            }
            tag::VALUES => self.values(frame.payload)?,
            tag::ERROR => {
                if let Some(failure) = Failure::decode(frame.payload) {
                    self.failure(&failure)?;
                    return Ok(Seen::Failed(frame.id, failure.kind));
                }
            }
            tag::INCOMPLETE => {
                self.error_text(frame.payload)?;
                return Ok(Seen::Failed(frame.id, FailureKind::Syntax));
            }
            tag::WANTS_INPUT => return Ok(Seen::WantsInput(frame.id)),
            tag::DONE => return Ok(Seen::Done(frame.id)),
            tag::EXIT => {
                let code = frame.payload.first_chunk::<4>().map_or(0, |b| i32::from_le_bytes(*b));
                return Ok(Seen::Exit(code));
            }
            tag::GAP => match frame.missing() {
                Some(Missing::Unknown) => self.notice("something may be missing here: for a while nobody could listen")?,
                missing => {
                    self.notice(&format!("{} of what was said before are not kept any more", missing.unwrap_or(Missing::Bytes(0))))?;
                }
            },
            _ => {}
        }
        Ok(Seen::Shown)
    }

    /// A line of ours, on standard error.
    pub(crate) fn notice(&mut self, text: &str) -> io::Result<()> {
        self.fresh_line()?;
        writeln!(self.err, "{}", self.paint.paint(Style::Dim, text))?;
        self.err.flush()
    }

    /// An error of ours, on standard error.
    pub(crate) fn error(&mut self, text: &str) -> io::Result<()> {
        self.error_text(text.as_bytes())
    }

    /// A line as if it had been typed behind this mark.
    pub(crate) fn echo(&mut self, mark: &str, line: &str) -> io::Result<()> {
        self.raw(format!("{mark}{}\n", escape(line)).as_bytes())
    }

    /// Begins a new line on a terminal, unless that is where we are.
    pub(crate) fn fresh_line(&mut self) -> io::Result<()> {
        if self.terminal && !self.column0 {
            self.raw(b"\n")?;
        }
        Ok(())
    }

    /// The cursor is somewhere else now: after a line that the terminal itself has shown.
    pub(crate) fn typed(&mut self, line: &[u8]) {
        self.moved(line);
    }

    fn moved(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.column0 = *last == b'\n';
        }
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()?;
        self.moved(bytes);
        Ok(())
    }

    fn safe<'a>(&self, bytes: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
        if self.terminal { harmless(&String::from_utf8_lossy(bytes)).into_bytes().into() } else { bytes.into() }
    }

    fn values(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.fresh_line()?;
        let mut text = self.safe(bytes).into_owned();
        text.push(b'\n');
        self.raw(&text)
    }

    fn failure(&mut self, failure: &Failure<'_>) -> io::Result<()> {
        let mut text = failure.message.to_vec();
        if !failure.traceback.is_empty() && failure.kind == FailureKind::Runtime {
            text.push(b'\n');
            text.extend_from_slice(failure.traceback);
        }
        self.error_text(&text)
    }

    fn error_text(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.fresh_line()?;
        let text = self.safe(bytes).into_owned();
        let painted = match std::str::from_utf8(&text) {
            Ok(text) => self.paint.paint(Style::Error, text).into_bytes(),
            Err(_) => text,
        };
        self.err.write_all(&painted)?;
        self.err.write_all(b"\n")?;
        self.err.flush()
    }

    fn code(&mut self, code: &[u8]) -> io::Result<()> {
        self.fresh_line()?;
        let text = harmless(&String::from_utf8_lossy(code));
        let mut shown = String::new();
        for (at, line) in text.lines().enumerate() {
            let mark = if at == 0 { "> " } else { ">> " };
            shown.push_str(&self.paint.paint(Style::Dim, &format!("{}{mark}", self.label)));
            shown.push_str(line);
            shown.push('\n');
        }
        self.raw(shown.as_bytes())
    }
}

/// Text that cannot move the cursor or change the terminal; line feeds and tabs stay.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, piece) in text.split('\n').enumerate() {
        if at > 0 {
            out.push('\n');
        }
        for (at, piece) in piece.split('\t').enumerate() {
            if at > 0 {
                out.push('\t');
            }
            out.push_str(&escape(piece));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn view(terminal: bool) -> (View, Shared) {
        let screen = Shared::default();
        let (out, err) = (Box::new(screen.clone()), Box::new(screen.clone()));
        (View { out, err, terminal, paint: Paint::off(), label: "[other] ", column0: true }, screen)
    }

    fn show(view: &mut View, tag: u8, payload: &[u8]) -> Seen {
        view.frame(&Frame { tag, id: 7, payload }, |token| token == b"mine").unwrap()
    }

    fn text(screen: &Shared) -> String {
        String::from_utf8_lossy(&screen.0.lock().unwrap()).into_owned()
    }

    #[test]
    fn a_terminal_gets_output_raw_and_values_harmless() {
        let (mut v, screen) = view(true);
        show(&mut v, tag::STDOUT, b"\x1b[1mbold");
        show(&mut v, tag::VALUES, b"a\tb\x1b[2J\nc");
        let error = Failure { kind: FailureKind::Runtime, message: b"bad\r", traceback: b"stack" }.to_vec();
        assert_eq!(show(&mut v, tag::ERROR, &error), Seen::Failed(7, FailureKind::Runtime));
        assert_eq!(text(&screen), "\x1b[1mbold\na\tb\\u{1b}[2J\nc\nbad\\r\nstack\n");
    }

    #[test]
    fn a_pipe_gets_every_byte_as_it_is() {
        let (mut v, screen) = view(false);
        show(&mut v, tag::STDOUT, b"x");
        show(&mut v, tag::VALUES, b"\x1b\0");
        assert_eq!(text(&screen), "x\x1b\0\n");
        let other = Eval { deadline_ms: 0, token: b"t", code: b"x" }.to_vec();
        show(&mut v, tag::ACCEPTED, &other);
        assert_eq!(text(&screen), "x\x1b\0\n", "code is no output");
    }

    #[test]
    fn only_the_code_of_others_is_shown() {
        let (mut v, screen) = view(true);
        let code = |token| Eval { deadline_ms: 0, token, code: b"for\x07\nend" }.to_vec();
        assert_eq!(show(&mut v, tag::ACCEPTED, &code(b"mine")), Seen::Accepted(7, b"mine".to_vec()));
        assert_eq!(text(&screen), "");
        show(&mut v, tag::STDOUT, b"half");
        show(&mut v, tag::ACCEPTED, &code(b"t"));
        assert_eq!(text(&screen), "half\n[other] > for\\u{7}\n[other] >> end\n");
    }

    #[test]
    fn frames_that_are_cut_short_or_unknown_do_no_harm() {
        let (mut v, screen) = view(true);
        for (tag, payload) in [(tag::ACCEPTED, &b"\0"[..]), (tag::ERROR, b"r"), (b'?', b"x"), (tag::GAP, b"")] {
            assert_eq!(show(&mut v, tag, payload), Seen::Shown);
        }
        assert_eq!(show(&mut v, tag::EXIT, b"\x03\0\0\0"), Seen::Exit(3));
        assert!(text(&screen).starts_with("0 bytes"));
    }
}
