//! Sessions and their transcripts, as the API asks for them.

use super::{Service, patience};
use crate::machine::Machine;
use crate::session::{Attached, Shared, transcript::walk};
use std::{sync::Arc, time::Duration};
use vmoon_api::{
    Attachment, Data,
    requests::{Attach, ListSessions, Read},
    views::{Piece, PieceKind, ReadView, SessionView},
};
use vmoon_core::{
    Code, Error, Result,
    driver::{Channel, ChannelKind},
    frame::{Eval, Failure, Frame, Missing, tag},
    machine::State,
    name::escape,
    session::SessionState,
    target::Target,
};

/// How long a starting machine is waited for when its session is to be used.
const STARTING: Duration = Duration::from_secs(60);
/// How much one read answers, bytes.
const READ_MAX: u64 = 8 << 20;

impl Service {
    pub(super) fn sessions(&self, request: ListSessions) -> Result<Vec<SessionView>> {
        let machines = match &request.machine {
            Some(text) => vec![self.machine(text)?],
            None => self.context.machines(),
        };
        let all = request.ended.unwrap_or(false);
        let mut views: Vec<SessionView> =
            machines.iter().flat_map(|m| m.sessions()).filter(|s| all || !s.ended()).map(|s| s.view()).collect();
        views.sort_by(|a, b| (&a.machine_name, &a.name, a.opened_ms).cmp(&(&b.machine_name, &b.name, b.opened_ms)));
        Ok(views)
    }

    /// The session to use now. A machine that is starting is waited for; one that does not run is an error that says so.
    pub(super) async fn usable_session(&self, text: &str) -> Result<Arc<Shared>> {
        if let Some(shared) = self.plain_session(text) {
            return Ok(shared);
        }
        if let Ok(shared) = self.session(text)
            && !shared.ended()
            && self.context.machine(shared.row.machine).is_none_or(|machine| !machine.outlives(&shared))
        {
            // The last words of a machine that is off may still be being read; that is no session to use.
            return match self.context.machine(shared.row.machine).map(|machine| machine.view().state) {
                Some(state @ (State::Stopped | State::Broken | State::Gone)) => Err(not_running(&escape(&shared.machine_name), state)),
                None => Err(not_running(&escape(&shared.machine_name), State::Gone)),
                Some(_) => Ok(shared),
            };
        }
        let target = Target::parse(text)?;
        let machine = match self.machine_of(&target) {
            Ok(machine) => machine,
            // Perhaps a session's id: then it is over.
            Err(error) => return Err(if self.session(text).is_ok() { crate::session::task::gone() } else { error }),
        };
        let mut views = machine.follow();
        let mut sessions = machine.follow_sessions();
        let name = self.session_name(&machine, &target);
        let wait = async {
            loop {
                let state = views.borrow_and_update().state;
                let live =
                    sessions.borrow_and_update().iter().rev().find(|s| s.row.name == name && !s.ended() && !machine.outlives(s)).cloned();
                match (state, live) {
                    (_, Some(shared)) => return Ok(shared),
                    (State::Running | State::Starting | State::Resuming | State::Creating, None) => {}
                    (state, None) => return Err(not_running(&escape(&machine.view().name), state)),
                }
                let channels = machine.channels();
                if state == State::Running && !channels.is_empty() {
                    // Nobody has used it yet, or there is none.
                    return machine.open(&name).await;
                }
                tokio::select! {
                    changed = views.changed() => if changed.is_err() { return Err(Error::new(Code::MachineGone, "the machine is gone")) },
                    changed = sessions.changed() => if changed.is_err() { return Err(Error::new(Code::MachineGone, "the machine is gone")) },
                }
            }
        };
        tokio::time::timeout(STARTING, wait)
            .await
            .map_err(|_| Error::new(Code::Timeout, "the machine took too long to start").hint("see `vmoon operation list`"))?
    }

    /// The session that is meant: the one that is named, else `main`, else the only one that the machine offers.
    fn session_name(&self, machine: &Machine, target: &Target) -> String {
        let channels = machine.channels();
        match channels.as_slice() {
            [only] if target.session.is_none() => only.name.clone(),
            _ => target.session().to_owned(),
        }
    }

    /// The same, refusing sessions that do not evaluate.
    pub(super) async fn repl(&self, text: &str) -> Result<Arc<Shared>> {
        let shared = self.usable_session(text).await?;
        if shared.row.channel.kind != ChannelKind::Repl {
            return Err(shared.evaluates_nothing());
        }
        reachable(shared)
    }

    /// The same. One whose machine is away for a moment, as a pool is whose services are started anew, or goes on after it was suspended, is waited for so long.
    pub(super) async fn repl_within(&self, text: &str, wait: Duration) -> Result<Arc<Shared>> {
        let shared = self.usable_session(text).await?;
        if let Some(machine) = self.context.machine(shared.row.machine) {
            let (mut live, mut views) = (shared.live.subscribe(), machine.follow());
            let waiting = async {
                while live.borrow_and_update().state == SessionState::Held {
                    let state = views.borrow_and_update().state;
                    if matches!(state, State::Suspended | State::Suspending) {
                        return Err(not_running(&escape(&shared.machine_name), state));
                    }
                    tokio::select! {
                        changed = live.changed() => if changed.is_err() { break },
                        changed = views.changed() => if changed.is_err() { break },
                    }
                }
                Ok(())
            };
            if let Ok(refused) = tokio::time::timeout(wait, waiting).await {
                refused?;
            }
        }
        self.repl(text).await
    }

    /// The session to give input to: a repl or a terminal.
    pub(super) async fn listening(&self, text: &str) -> Result<Arc<Shared>> {
        reachable(self.usable_session(text).await?)
    }

    pub(super) async fn attach_to(&self, request: Attach) -> Result<Box<dyn Attachment>> {
        let shared = match self.usable_session(&request.session).await {
            Ok(shared) => shared,
            // What a session that is over has said can still be watched from an offset.
            Err(_) if request.from.is_some() && self.session(&request.session).is_ok() => self.session(&request.session)?,
            Err(error) => return Err(error),
        };
        let attached = Attached::new(shared.clone(), request.from, request.mode)?;
        // What it has said while nobody was connected is read now.
        shared.rouse().await;
        Ok(Box::new(attached))
    }

    pub(super) async fn read_transcript(&self, request: Read) -> Result<ReadView> {
        let shared = self.session(&request.session)?;
        let mut live = shared.live.subscribe();
        let mut reader = shared.reader(request.from.unwrap_or(0));
        if request.from.is_none() {
            reader.seek(reader.bounds().0);
        }
        let wait = tokio::time::Instant::now() + patience(request.wait_ms, 0);
        if request.wait_ms.is_some_and(|wait| wait > 0) {
            shared.rouse().await;
        }
        let max = request.max.unwrap_or(1 << 20).min(READ_MAX) as usize;
        let mut pieces = Vec::new();
        let mut size = 0;
        loop {
            live.mark_unchanged();
            let over = shared.ended();
            while size < max
                && let Some(chunk) = reader.next(max - size)?
            {
                let mut at = chunk.at;
                walk(&chunk.frames, |frame, _| {
                    if request.command.is_none_or(|wanted| frame.id == wanted || frame.tag == tag::GAP)
                        && let Some(piece) = piece(at, frame)
                    {
                        size += frame.payload.len();
                        pieces.push(piece);
                    }
                    at += frame.stream_len();
                });
            }
            let (_, end) = reader.bounds();
            let ended = over && reader.at() >= end;
            if !pieces.is_empty() || ended || size >= max {
                return Ok(ReadView { pieces, next: reader.at(), ended });
            }
            if tokio::time::timeout_at(wait, live.changed()).await.is_err() {
                return Ok(ReadView { pieces, next: reader.at(), ended });
            }
        }
    }
}

fn reachable(shared: Arc<Shared>) -> Result<Arc<Shared>> {
    if shared.live.borrow().state == SessionState::Held {
        return Err(Error::new(Code::SessionHeld, format!("{} cannot be reached now; the session is kept", shared.machine_name)));
    }
    Ok(shared)
}

/// The machine has no such channel.
pub(crate) fn no_channel(machine: &str, wanted: &str, offered: &[Channel]) -> Error {
    let names: Vec<&str> = offered.iter().map(|channel| channel.name.as_str()).collect();
    let error = Error::new(Code::SessionChannel, format!("{} has no channel named \"{}\"", escape(machine), escape(wanted)));
    match names.as_slice() {
        [] => error.hint("it offers no session at all"),
        names => error.hint(format!("it has: {}; write {}/{}", names.join(", "), escape(machine), names[0])),
    }
}

fn not_running(name: &str, state: State) -> Error {
    match state {
        State::Paused => Error::new(Code::MachinePaused, format!("{name} is paused")).hint(format!("resume it: vmoon resume {name}")),
        State::Suspended | State::Suspending => {
            Error::new(Code::MachineSuspended, format!("{name} is suspended")).hint(format!("resume it: vmoon resume {name}"))
        }
        State::Lost => Error::new(Code::DriverUnreachable, format!("{name} cannot be reached now")),
        State::Gone | State::Deleting => Error::new(Code::MachineGone, format!("{name} is gone")),
        State::Broken => Error::new(Code::MachineBroken, format!("{name} is broken: the real thing behind it is missing")),
        _ => Error::new(Code::MachineStopped, format!("{name} does not run")).hint(format!("start it: vmoon start {name}")),
    }
}

/// A frame as a piece of JSON.
fn piece(at: u64, frame: Frame<'_>) -> Option<Piece> {
    let number = |bytes: &[u8]| bytes.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b)).to_string().into_bytes();
    let (kind, data) = match frame.tag {
        tag::ACCEPTED => (PieceKind::Code, Eval::decode(frame.payload)?.code.to_vec()),
        tag::STDOUT => (PieceKind::Stdout, frame.payload.to_vec()),
        tag::STDERR => (PieceKind::Stderr, frame.payload.to_vec()),
        tag::VALUES => (PieceKind::Values, frame.payload.to_vec()),
        tag::ERROR => {
            let failure = Failure::decode(frame.payload)?;
            let text =
                if failure.traceback.is_empty() { failure.message.to_vec() } else { [failure.message, b"\n", failure.traceback].concat() };
            (PieceKind::Error, text)
        }
        tag::INCOMPLETE => (PieceKind::Incomplete, frame.payload.to_vec()),
        tag::WANTS_INPUT => (PieceKind::WantsInput, Vec::new()),
        tag::DONE => (PieceKind::Done, number(frame.payload)),
        tag::EXIT => (PieceKind::Exit, frame.payload.first_chunk::<4>().map_or(0, |b| i32::from_le_bytes(*b)).to_string().into_bytes()),
        tag::GAP => match frame.missing() {
            Some(Missing::Unknown) => (PieceKind::Gap, b"unknown".to_vec()),
            _ => (PieceKind::Gap, number(frame.payload)),
        },
        _ => (PieceKind::Other, frame.payload.to_vec()),
    };
    Some(Piece { at, command: frame.id, kind, data: Data(data) })
}
