//! Printing what a session says: bytes as they are, each to the stream it was written to.

use crate::{
    ctx::Ctx,
    out::{Format, Out},
};
use vmoon_api::{
    Api as _,
    requests::Read,
    views::{Piece, PieceKind, ReadView},
};
use vmoon_core::{Result, frame::Missing, name::escape};

/// Which parts of a transcript are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// What programs wrote; values and errors are told by the command's own answer.
    Output,
    /// Also values, errors and remarks: the transcript as a person would have seen it.
    Transcript,
}

/// Prints pieces, with the machine's name before each line if there are several machines.
#[derive(Debug)]
pub(crate) struct Printer {
    out: Out,
    which: Which,
    prefix: Option<String>,
    /// The lines that are not complete yet, of standard output and standard error; only with a prefix.
    partial: [Vec<u8>; 2],
}

impl Printer {
    /// Prints to `out`; `prefix` is the machine's name where there are several.
    pub(crate) fn new(out: &Out, which: Which, prefix: Option<&str>) -> Self {
        Self { out: out.clone(), which, prefix: prefix.map(escape), partial: [Vec::new(), Vec::new()] }
    }

    /// Prints a piece.
    pub(crate) fn piece(&mut self, piece: &Piece) -> Result<()> {
        let transcript = self.which == Which::Transcript;
        match piece.kind {
            PieceKind::Stdout => self.stdout(&piece.data.0),
            PieceKind::Stderr => {
                self.stderr(&piece.data.0);
                Ok(())
            }
            PieceKind::Values if transcript => self.values(&piece.data.0),
            PieceKind::Error | PieceKind::Incomplete if transcript => {
                self.stderr(&line_of(&piece.data.0));
                Ok(())
            }
            PieceKind::WantsInput if !transcript => {
                self.out.hint("the command waits for input: vmoon send MACHINE TEXT");
                Ok(())
            }
            PieceKind::Gap => {
                match piece.data.lossy().parse() {
                    Ok(count) => self.out.warn(&format!("{} were lost here", Missing::Bytes(count))),
                    Err(_) => self.out.warn("something may be missing here: for a while nobody could listen"),
                }
                Ok(())
            }
            PieceKind::Exit if transcript => {
                self.out.note(&format!("the program asked to end with exit code {}", escape(&piece.data.lossy())));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Prints values on a line of their own.
    pub(crate) fn values(&mut self, values: &[u8]) -> Result<()> {
        if values.is_empty() { Ok(()) } else { self.stdout(&line_of(values)) }
    }

    /// Prints to standard output.
    pub(crate) fn stdout(&mut self, bytes: &[u8]) -> Result<()> {
        let ready = self.ready(0, bytes);
        self.out.bytes(&ready)
    }

    /// Prints to standard error.
    pub(crate) fn stderr(&mut self, bytes: &[u8]) {
        let ready = self.ready(1, bytes);
        self.out.err_bytes(&ready);
    }

    /// Prints lines that were not completed.
    pub(crate) fn finish(&mut self) -> Result<()> {
        for stream in [0, 1] {
            if !self.partial[stream].is_empty() {
                let ready = self.ready(stream, b"\n");
                if stream == 0 {
                    self.out.bytes(&ready)?;
                } else {
                    self.out.err_bytes(&ready);
                }
            }
        }
        Ok(())
    }

    fn ready(&mut self, stream: usize, bytes: &[u8]) -> Vec<u8> {
        let Some(prefix) = &self.prefix else { return bytes.to_vec() };
        let partial = &mut self.partial[stream];
        partial.extend_from_slice(bytes);
        let Some(end) = partial.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = partial.split_off(end + 1);
        let whole = std::mem::replace(partial, rest);
        whole.split_inclusive(|byte| *byte == b'\n').flat_map(|line| [prefix.as_bytes(), b": ", line].concat()).collect()
    }
}

fn line_of(bytes: &[u8]) -> Vec<u8> {
    if bytes.ends_with(b"\n") { bytes.to_vec() } else { [bytes, b"\n"].concat() }
}

/// What to read, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// The session.
    pub(crate) session: String,
    /// Only this command.
    pub(crate) command: Option<u64>,
    /// From this offset.
    pub(crate) from: Option<u64>,
    /// How long to wait for something new, milliseconds.
    pub(crate) wait_ms: Option<u64>,
}

impl Reading {
    /// Reads the next part and moves on.
    pub(crate) async fn next(&mut self, ctx: &Ctx) -> Result<ReadView> {
        let request = Read { session: self.session.clone(), from: self.from, max: None, command: self.command, wait_ms: self.wait_ms };
        let view = ctx.daemon.hold(async |client| client.read(request.clone()).await).await?;
        self.from = Some(view.next);
        Ok(view)
    }
}

/// A piece as one line of JSON, or printed.
pub(crate) fn show(ctx: &Ctx, printer: &mut Printer, piece: &Piece) -> Result<()> {
    match ctx.out.format() {
        Format::Json | Format::Yaml => ctx.out.event(piece, String::new),
        _ => printer.piece(piece),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_machines_are_told_apart_and_none_is_torn() {
        let mut printer = Printer::new(&Out::plain(), Which::Output, Some("a\n"));
        assert_eq!(printer.ready(0, b"one"), b"");
        assert_eq!(printer.ready(1, b"err\n"), b"a\\n: err\n");
        assert_eq!(printer.ready(0, b" two\nthree\nfo"), b"a\\n: one two\na\\n: three\n");
        assert_eq!(printer.ready(0, b"\n"), b"a\\n: fo\n");
    }

    #[test]
    fn bytes_of_one_machine_are_not_touched() {
        let mut printer = Printer::new(&Out::plain(), Which::Output, None);
        assert_eq!(printer.ready(0, b"\xff\0no line end"), b"\xff\0no line end");
    }
}
