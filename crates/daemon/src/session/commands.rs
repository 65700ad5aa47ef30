//! The commands of a session, as its stream tells of them. Pure: frames in, answers out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use vmoon_api::{
    Data,
    views::{CommandError, CommandState, CommandView, Unfit},
};
use vmoon_core::{
    Code, CommandId, SessionId,
    driver::Exit,
    frame::{Eval, Failure, FailureKind, Frame, MAX_OFFSET, tag},
};

/// How much of a command's output an answer repeats, bytes.
pub(crate) const CAPTURE: usize = 1 << 20;
/// How many ended commands are found without reading the transcript.
const REMEMBERED: usize = 4_096;

/// How many unfinished commands are followed, and how many bytes of their answers are held in all. A machine runs one command at a
/// time; one that invents others costs no more than this.
const MAX_PENDING: usize = 4_096;
const MAX_HELD: usize = 64 << 20;
/// The longest token anybody may use, bytes; a longer one was not ours.
const MAX_TOKEN: usize = 255;

/// The payload of a DATA frame. A machine may send anything there: what cannot be read is nothing.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Found {
    values: Option<Vec<serde_json::Value>>,
    unfit: Vec<Unfit>,
}

/// A command that was accepted and is not done.
#[derive(Debug, Default)]
struct Pending {
    /// `None` when its beginning lies before the part of the stream that was read.
    from: Option<u64>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    values: Option<Vec<u8>>,
    /// The payload of a DATA frame, as it came: parsed it may be many times as large.
    data: Vec<u8>,
    error: Option<CommandError>,
    truncated: bool,
    waiting_input: bool,
}

impl Pending {
    /// Bytes of its answer.
    fn held(&self) -> usize {
        let values = self.values.as_ref().map_or(0, Vec::len);
        let error = self.error.as_ref().map_or(0, |error| error.message.0.len() + error.traceback.0.len());
        self.stdout.len() + self.stderr.len() + values + self.data.len() + error
    }
}

/// Where an ended command stands in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The command's number.
    pub number: u64,
    /// Stream offset of its ACCEPTED frame.
    pub from: u64,
    /// Stream offset after its DONE frame.
    pub to: u64,
}

/// What a frame meant for the commands.
#[derive(Debug)]
pub(crate) enum Told {
    /// Nothing to be told to anybody.
    Nothing,
    /// This command was accepted.
    Accepted(u64),
    /// This command is done. `None` if its beginning was not seen: collect it from the transcript.
    Done(u64, Option<Box<CommandView>>),
    /// Something a viewer of the session's state would see changed.
    Changed,
}

/// The commands of one session.
#[derive(Debug)]
pub(crate) struct Commands {
    session: SessionId,
    machine: String,
    pending: BTreeMap<u64, Pending>,
    /// Bytes of the answers of those.
    held: usize,
    ended: VecDeque<Span>,
    tokens: HashMap<Vec<u8>, u64>,
    token_order: VecDeque<Vec<u8>>,
    last: u64,
    /// Whether a command whose beginning is not kept any more is answered with what is.
    lenient: bool,
}

impl Commands {
    /// None yet.
    pub(crate) fn new(session: SessionId, machine: &str) -> Self {
        Self {
            session,
            machine: machine.into(),
            pending: BTreeMap::new(),
            held: 0,
            ended: VecDeque::new(),
            tokens: HashMap::new(),
            token_order: VecDeque::new(),
            last: 0,
            lenient: false,
        }
    }

    /// For reading a transcript from its beginning: what is not there then is nowhere.
    pub(crate) fn lenient(self) -> Self {
        Self { lenient: true, ..self }
    }

    /// For going on from where the transcript was read: beginnings that come are seen.
    pub(crate) fn strict(self) -> Self {
        Self { lenient: false, ..self }
    }

    /// Takes a frame that stands at this stream offset.
    pub(crate) fn take(&mut self, at: u64, frame: Frame<'_>) -> Told {
        if frame.tag == tag::GAP {
            // Nobody can say whose bytes were lost: every answer that was under way may lack some.
            self.pending.values_mut().for_each(|pending| pending.truncated = true);
            return Told::Nothing;
        }
        if frame.id == 0 || frame.id > MAX_OFFSET {
            return Told::Nothing;
        }
        if frame.tag != tag::DONE && self.pending.len() >= MAX_PENDING && !self.pending.contains_key(&frame.id) {
            return Told::Nothing;
        }
        if frame.tag == tag::ACCEPTED {
            self.last = self.last.max(frame.id);
            let token = Eval::decode(frame.payload).map(|e| e.token.to_vec()).unwrap_or_default();
            if !token.is_empty() && token.len() <= MAX_TOKEN {
                self.tokens.insert(token.clone(), frame.id);
                self.token_order.push_back(token);
                if self.token_order.len() > REMEMBERED
                    && let Some(old) = self.token_order.pop_front()
                {
                    self.tokens.remove(&old);
                }
            }
            let before = self.pending.insert(frame.id, Pending { from: Some(at), ..Pending::default() });
            self.held -= before.map_or(0, |before| before.held());
            return Told::Accepted(frame.id);
        }
        self.last = self.last.max(frame.id);
        if frame.tag == tag::DONE {
            let Some(pending) = self.pending.remove(&frame.id) else { return Told::Done(frame.id, None) };
            self.held -= pending.held();
            let from = match pending.from {
                Some(from) => from,
                None if self.lenient => at,
                None => return Told::Done(frame.id, None),
            };
            let to = at + frame.stream_len();
            self.ended.push_back(Span { number: frame.id, from, to });
            if self.ended.len() > REMEMBERED {
                self.ended.pop_front();
            }
            let headless = pending.from.is_none();
            let mut view = self.view(frame.id, from, pending);
            view.truncated |= headless;
            view.state = CommandState::Done;
            view.duration_us = frame.payload.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
            view.to = Some(to);
            return Told::Done(frame.id, Some(Box::new(view)));
        }
        let pending = self.pending.entry(frame.id).or_default();
        let was_waiting = std::mem::take(&mut pending.waiting_input);
        let before = pending.held();
        if self.held + frame.payload.len() > MAX_HELD {
            pending.truncated = true;
            return if was_waiting { Told::Changed } else { Told::Nothing };
        }
        match frame.tag {
            tag::STDOUT => keep(&mut pending.stdout, frame.payload, &mut pending.truncated),
            tag::STDERR => keep(&mut pending.stderr, frame.payload, &mut pending.truncated),
            tag::VALUES => pending.values = Some(frame.payload.to_vec()),
            tag::DATA => pending.data = frame.payload.to_vec(),
            tag::ERROR => pending.error = Failure::decode(frame.payload).map(|f| failure(&f)),
            tag::INCOMPLETE => {
                pending.error = Some(CommandError {
                    code: Code::CommandIncomplete,
                    syntax: true,
                    message: frame.payload.into(),
                    traceback: Data::default(),
                });
            }
            tag::WANTS_INPUT => {
                pending.waiting_input = true;
                return Told::Changed;
            }
            _ => {}
        }
        self.held = self.held - before + pending.held();
        if was_waiting { Told::Changed } else { Told::Nothing }
    }

    fn view(&self, number: u64, from: u64, pending: Pending) -> CommandView {
        let found: Found = serde_json::from_slice(&pending.data).unwrap_or_default();
        CommandView {
            id: CommandId { session: self.session, number },
            machine: self.machine.clone(),
            state: CommandState::Running,
            stdout: pending.stdout.into(),
            stderr: pending.stderr.into(),
            values: pending.values.map(Data),
            data: found.values,
            unfit: found.unfit,
            error: pending.error,
            waiting_input: pending.waiting_input,
            duration_us: None,
            truncated: pending.truncated,
            from,
            to: None,
        }
    }

    /// What a running command has said so far.
    pub(crate) fn running(&self, number: u64) -> Option<CommandView> {
        let p = self.pending.get(&number)?;
        let copy = Pending {
            from: p.from,
            stdout: p.stdout.clone(),
            stderr: p.stderr.clone(),
            values: p.values.clone(),
            data: p.data.clone(),
            error: p.error.clone(),
            truncated: p.truncated,
            waiting_input: p.waiting_input,
        };
        Some(self.view(number, p.from.unwrap_or(0), copy))
    }

    /// Whether a running command is known from its beginning.
    pub(crate) fn knows(&self, number: u64) -> bool {
        self.pending.get(&number).is_some_and(|p| p.from.is_some())
    }

    /// How many commands wait or run.
    pub(crate) fn unfinished(&self) -> usize {
        self.pending.len()
    }

    /// Where an ended command stands, if that is remembered.
    pub(crate) fn span(&self, number: u64) -> Option<Span> {
        self.ended.iter().rev().find(|span| span.number == number).copied()
    }

    /// The command that was asked for with this token, if that is remembered.
    pub(crate) fn by_token(&self, token: &[u8]) -> Option<u64> {
        self.tokens.get(token).copied()
    }

    /// The command that runs, and whether it waits for input.
    pub(crate) fn busy(&self) -> Option<(u64, bool)> {
        self.pending.first_key_value().map(|(number, p)| (*number, p.waiting_input))
    }

    /// How many commands wait behind the running one.
    pub(crate) fn queued(&self) -> u32 {
        self.pending.len().saturating_sub(1) as u32
    }

    /// The newest number the stream has told of.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Says that this command runs, although its beginning was not seen. It counts as seen, with its token, only when it is: until
    /// then nobody may take a token for a new one.
    pub(crate) fn runs(&mut self, number: u64, waiting_input: bool) {
        self.pending.entry(number).or_default().waiting_input = waiting_input;
    }

    /// The commands that will never be answered, now that the session is over, which ended so.
    pub(crate) fn lost(&mut self, exit: &Exit) -> Vec<CommandView> {
        let pending = std::mem::take(&mut self.pending);
        self.held = 0;
        pending
            .into_iter()
            .map(|(number, p)| {
                let from = p.from.unwrap_or(0);
                lost(self.view(number, from, p), exit)
            })
            .collect()
    }
}

/// A command that will never be answered, with the reason where the machine's end is one.
pub(crate) fn lost(view: CommandView, exit: &Exit) -> CommandView {
    let error = (*exit == Exit::DidNotYield).then(|| CommandError {
        code: Code::MachineDidNotYield,
        syntax: false,
        message: b"the machine ignored the interrupt and was ended"[..].into(),
        traceback: b""[..].into(),
    });
    CommandView { state: CommandState::Lost, error, ..view }
}

fn keep(captured: &mut Vec<u8>, more: &[u8], truncated: &mut bool) {
    let room = CAPTURE - captured.len();
    *truncated |= more.len() > room;
    captured.extend_from_slice(&more[..more.len().min(room)]);
}

fn failure(failure: &Failure<'_>) -> CommandError {
    CommandError {
        code: match failure.kind {
            FailureKind::Syntax | FailureKind::Runtime => Code::CommandFailed,
            FailureKind::Interrupted => Code::CommandInterrupted,
            FailureKind::Deadline => Code::CommandDeadline,
        },
        syntax: failure.kind == FailureKind::Syntax,
        message: failure.message.into(),
        traceback: failure.traceback.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionId {
        SessionId::from_uuid(vmoon_sys::random::uuid())
    }

    fn run(commands: &mut Commands, frames: &[(u8, u64, &[u8])]) -> Vec<CommandView> {
        let (mut at, mut done) = (0, Vec::new());
        for &(tag, id, payload) in frames {
            let frame = Frame { tag, id, payload };
            if let Told::Done(_, Some(view)) = commands.take(at, frame) {
                done.push(*view);
            }
            at += frame.stream_len();
        }
        done
    }

    #[test]
    fn every_command_gets_its_own_output_whatever_is_between() {
        let mut commands = Commands::new(session(), "m");
        let accept = |token: &'static [u8]| Eval { deadline_ms: 0, token, code: b"x" }.to_vec();
        let (a, b) = (accept(b"a"), accept(b"b"));
        let us = 7u64.to_le_bytes();
        let done = run(
            &mut commands,
            &[
                (tag::ACCEPTED, 1, &a),
                (tag::STDOUT, 1, b"one"),
                (tag::ACCEPTED, 2, &b),
                (tag::STDOUT, 0, b"background"),
                (tag::VALUES, 1, b"1"),
                (tag::DONE, 1, &us),
                (tag::STDOUT, 2, b"two"),
                (tag::STDERR, 2, b"bad"),
                (tag::DONE, 2, &us),
            ],
        );
        assert_eq!(done.len(), 2);
        assert_eq!(
            (&done[0].stdout.0[..], done[0].values.as_ref().unwrap().0.as_slice(), done[0].duration_us),
            (&b"one"[..], &b"1"[..], Some(7))
        );
        assert_eq!((&done[1].stdout.0[..], &done[1].stderr.0[..]), (&b"two"[..], &b"bad"[..]));
        assert_eq!((commands.by_token(b"b"), commands.busy(), commands.last()), (Some(2), None, 2));
        assert_eq!(commands.span(1).map(|s| s.from), Some(0));
    }

    #[test]
    fn capture_is_bounded_and_says_so() {
        let mut commands = Commands::new(session(), "m");
        commands.take(0, Frame { tag: tag::ACCEPTED, id: 1, payload: &[0; 5] });
        for _ in 0..3 {
            commands.take(18, Frame { tag: tag::STDOUT, id: 1, payload: &vec![b'x'; 700_000] });
        }
        let view = commands.running(1).unwrap();
        assert!(view.truncated && view.stdout.0.len() == CAPTURE);
    }

    #[test]
    fn a_command_whose_beginning_was_not_seen_is_collected_elsewhere() {
        let mut commands = Commands::new(session(), "m");
        commands.runs(9, true);
        assert_eq!(commands.busy(), Some((9, true)));
        assert!(matches!(commands.take(500, Frame { tag: tag::DONE, id: 9, payload: &[0; 8] }), Told::Done(9, None)));
    }

    #[test]
    fn a_command_that_is_said_to_run_is_seen_only_when_its_beginning_is() {
        let mut commands = Commands::new(session(), "m");
        commands.runs(3, false);
        assert_eq!((commands.last(), commands.busy()), (0, Some((3, false))));
        let eval = Eval { deadline_ms: 0, token: b"t", code: b"x" }.to_vec();
        commands.take(10, Frame { tag: tag::ACCEPTED, id: 3, payload: &eval });
        assert_eq!((commands.last(), commands.by_token(b"t"), commands.busy()), (3, Some(3), Some((3, false))));
    }

    #[test]
    fn a_machine_that_invents_commands_costs_a_bounded_amount() {
        let mut commands = Commands::new(session(), "m");
        let big = vec![b'['; 1 << 20];
        let long = Eval { deadline_ms: 0, token: &[b't'; 255], code: b"x" }.to_vec();
        for id in 1..20_000_u64 {
            commands.take(0, Frame { tag: tag::ACCEPTED, id, payload: &long });
            for tag in [tag::STDOUT, tag::STDERR, tag::VALUES, tag::DATA, tag::ERROR, tag::INCOMPLETE] {
                commands.take(0, Frame { tag, id, payload: if id % 64 == 0 { &big } else { b"abc" } });
            }
        }
        let held: usize = commands.pending.values().map(Pending::held).sum();
        assert_eq!((held, commands.pending.len()), (commands.held, MAX_PENDING));
        assert!(held <= MAX_HELD && held > MAX_HELD / 2, "{held}");
        // Numbers that could not be followed by another one are no numbers of commands.
        commands.take(0, Frame { tag: tag::ACCEPTED, id: u64::MAX, payload: &long });
        commands.take(0, Frame { tag: tag::DONE, id: u64::MAX, payload: &[0; 8] });
        assert!(commands.last() < 20_000);
        for id in 1..20_000_u64 {
            commands.take(0, Frame { tag: tag::DONE, id, payload: b"" });
        }
        assert_eq!((commands.held, commands.unfinished()), (0, 0));
    }

    #[test]
    fn no_stream_of_frames_is_too_odd() {
        let tags = b"EORVTXNWDZG?h";
        let mut hostile = vmoon_driver_sim::Hostile::new(3);
        for _ in 0..200 {
            let (mut commands, mut at) = (Commands::new(session(), "m"), 0u64);
            for _ in 0..200 {
                let id = if hostile.below(3) == 0 { hostile.edge() } else { hostile.below(5) as u64 };
                let payload = hostile.bytes(40);
                let frame = Frame { tag: tags[hostile.below(tags.len())], id, payload: &payload };
                // Longer streams are refused where they come in.
                if frame.stream_len() > MAX_OFFSET - at {
                    continue;
                }
                commands.take(at, frame);
                at += frame.stream_len();
                if let Some((number, _)) = commands.busy() {
                    assert!(commands.running(number).is_some());
                }
            }
            let held: usize = commands.pending.values().map(Pending::held).sum();
            assert_eq!(held, commands.held);
            commands.lost(&Exit::Lost);
        }
    }
}
