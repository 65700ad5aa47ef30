//! Reading commands from the transcript: for those that ended long ago, or under another daemon.

use super::{
    commands::{Commands, Span, Told, lost},
    shared::Shared,
    transcript::{Reader, walk},
};
use std::sync::Arc;
use vmoon_api::views::{CommandState, CommandView};
use vmoon_core::{Code, Error, Result, frame::tag};

/// How much is read before others get a turn, bytes.
const CHUNK: usize = 1 << 20;

/// Finds command `number` and what it answered. Reads from `span` if that is known, else the whole transcript (at most
/// 256 MiB).
///
/// # Errors
/// [`Code::CommandNotFound`] if the transcript does not tell of it (any more).
pub(crate) async fn collect(shared: Arc<Shared>, number: u64, span: Option<Span>) -> Result<CommandView> {
    let mut reader = shared.reader(span.map_or(0, |s| s.from));
    let mut commands = Commands::new(shared.row.id, &shared.machine_name).lenient();
    let over = shared.exit();
    while let Some(chunk) = reader.next(CHUNK)? {
        let (mut at, mut found) = (chunk.at, None);
        walk(&chunk.frames, |frame, _| {
            if (frame.id == number || frame.tag == tag::GAP)
                && let Told::Done(_, Some(view)) = commands.take(at, frame)
            {
                found = Some(*view);
            }
            at += frame.stream_len();
        });
        if let Some(view) = found {
            return Ok(view);
        }
        tokio::task::yield_now().await;
    }
    match commands.running(number) {
        Some(view) => Ok(match over {
            Some(exit) => lost(view, &exit),
            None => CommandView { state: CommandState::Running, ..view },
        }),
        None => Err(Error::new(Code::CommandNotFound, format!("the session's transcript does not tell of command {number}"))
            .hint("the oldest part of a transcript is dropped when it passes 256 MiB")),
    }
}

/// Reads the whole transcript: every command it tells of, with those that are not done.
///
/// # Errors
/// Those of the file system.
pub(crate) async fn rebuild(mut reader: Reader, commands: Commands) -> Result<Commands> {
    let mut commands = commands.lenient();
    while let Some(chunk) = reader.next(CHUNK)? {
        let mut at = chunk.at;
        walk(&chunk.frames, |frame, _| {
            commands.take(at, frame);
            at += frame.stream_len();
        });
        tokio::task::yield_now().await;
    }
    Ok(commands.strict())
}
