//! `vmoon read`: what a session has said, and what it goes on saying.

use super::pieces::{self, Printer, Reading, Which};
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::Format,
    wait::{self, Limit},
};
use vmoon_api::views::{Piece, PieceKind};
use vmoon_core::{Code, CommandId, Error, Result, target::Target};

const EXAMPLES: &str = "Examples:
  vmoon read lab
  vmoon read lab --since 4096 --follow
  vmoon read lab --until 'ready' --timeout 30s
  vmoon read --command 0198f0c2-0000-7000-8000-000000000001.7

With -o json every piece is one line: its offset, command, kind and data.";

/// What to read.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The session: [CONNECTION:]MACHINE[/SESSION]
    #[arg(value_name = "SESSION", required_unless_present = "command", conflicts_with = "command", add = super::completions::machines())]
    session: Option<String>,
    /// Only this command, by the id that `eval --no-wait` prints
    #[arg(long, value_name = "ID")]
    command: Option<CommandId>,
    /// From this offset of the session's stream; from the oldest kept if not said
    #[arg(long, value_name = "OFFSET")]
    since: Option<u64>,
    /// Go on as more comes, until the session or the command ends
    #[arg(short, long)]
    follow: bool,
    /// Go on until the output contains this text
    #[arg(long, value_name = "TEXT")]
    until: Option<String>,
    #[command(flatten)]
    limit: Limit,
}

/// Looks for a text in output that comes in pieces.
struct Search {
    text: Vec<u8>,
    tail: Vec<u8>,
}

impl Search {
    /// Whether the text stands in what was given until now.
    fn found(&mut self, piece: &Piece) -> bool {
        if !matches!(piece.kind, PieceKind::Stdout | PieceKind::Stderr | PieceKind::Values | PieceKind::Error) {
            return false;
        }
        self.tail.extend_from_slice(&piece.data.0);
        let found = self.text.is_empty() || self.tail.windows(self.text.len()).any(|window| window == self.text);
        let keep = self.text.len().saturating_sub(1);
        self.tail.drain(..self.tail.len().saturating_sub(keep));
        found
    }
}

/// Reads it.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let follow = args.follow || args.until.is_some();
    let until = args.limit.until(None)?;
    let (session, command) = match (&args.command, &args.session) {
        (Some(id), _) => (id.session.to_string(), Some(id.number)),
        (None, Some(session)) => (Target::parse(session).map(|_| session.clone())?, None),
        (None, None) => return Err(Error::new(Code::Usage, "say which session")),
    };
    let mut reading = Reading { session, command, from: args.since, wait_ms: follow.then_some(30_000) };
    let mut search = args.until.as_ref().map(|text| Search { text: text.clone().into_bytes(), tail: Vec::new() });
    let mut printer = Printer::new(&ctx.out, Which::Transcript, None);
    let work = async {
        loop {
            let part = reading.next(ctx).await.map_err(|error| match &args.command {
                Some(id) => super::no_such_command(error, id),
                None => error,
            })?;
            for piece in &part.pieces {
                pieces::show(ctx, &mut printer, piece)?;
                if search.as_mut().is_some_and(|search| search.found(piece)) {
                    return Ok(true);
                }
                if command.is_some() && piece.kind == PieceKind::Done {
                    return Ok(search.is_none());
                }
            }
            // Without --follow an empty part says that everything was read.
            if part.ended || (!follow && part.pieces.is_empty()) {
                return Ok(search.is_none());
            }
        }
    };
    let found = wait::within(until, "reading", work).await;
    printer.finish()?;
    if let Some(next) = reading.from.filter(|_| ctx.out.format() == Format::Table) {
        ctx.out.step(&format!("go on with --since {next}"));
    }
    if found? { Ok(Exit::OK) } else { Err(Error::new(Code::CommandFailed, "the output ended and the text did not come")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_across_pieces() {
        let piece = |kind, text: &str| Piece { at: 0, command: 1, kind, data: text.into() };
        let mut search = Search { text: b"ready".to_vec(), tail: Vec::new() };
        assert!(!search.found(&piece(PieceKind::Stdout, "not re")));
        assert!(!search.found(&piece(PieceKind::Code, "ady")), "code is not output");
        assert!(search.found(&piece(PieceKind::Stdout, "ady\n")));
        assert!(!search.found(&piece(PieceKind::Stdout, "x")), "it is found once");
    }
}
