//! What the daemon makes of the stream of a session. Its file is compiled here once more: the daemon itself would bring every driver along.

#[path = "../../../daemon/src/session/commands.rs"]
#[expect(dead_code, reason = "the daemon uses more of it")]
mod commands;

use commands::{Commands, Told};
use vmoon_core::{
    SessionId,
    frame::{Frame, MAX_OFFSET},
};

/// Takes the frames of a stream that may say anything, as a session's task and a reader of its transcript do, and asks for every answer.
pub(crate) fn run(bytes: &[u8]) {
    for lenient in [false, true] {
        let mut commands = Commands::new(SessionId::from_uuid(vmoon_sys::random::uuid()), "m");
        if lenient {
            commands = commands.lenient();
        }
        let (mut rest, mut at) = (bytes, 0u64);
        while let Ok(Some((frame, n))) = Frame::decode(rest) {
            rest = &rest[n..];
            // Longer streams are refused where they come in.
            if frame.stream_len() > MAX_OFFSET - at {
                continue;
            }
            take(&mut commands, at, frame);
            at += frame.stream_len();
        }
        for view in commands.lost(&vmoon_core::driver::Exit::DidNotYield) {
            assert!(serde_json::to_vec(&view).is_ok());
        }
        assert_eq!(commands.unfinished(), 0);
    }
}

fn take(commands: &mut Commands, at: u64, frame: Frame<'_>) {
    if let Told::Done(number, Some(view)) = commands.take(at, frame) {
        let span = commands.span(number);
        assert!(span.is_some_and(|span| span.from <= span.to && view.to == Some(span.to)));
        // It goes to every client that asks.
        assert!(serde_json::to_vec(&view).is_ok());
    }
    if let Some((number, _)) = commands.busy() {
        assert!(commands.running(number).is_some());
    }
    assert!(commands.last() <= MAX_OFFSET);
}
