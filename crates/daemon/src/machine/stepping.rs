//! Stepping the policy: the new status is stored together with the operations and events it brings, and only then are the
//! effects carried out. What cannot be stored is not begun; what was seen is true all the same and is stored later.

use super::{
    task::{DEADLINE, Operation, SAVE_RETRY, Task},
    view::view,
    words,
    work::Work,
};
use crate::store::{About, MachineRow, Tx};
use futures_util::future::BoxFuture;
use std::{
    future::{poll_fn, ready},
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};
use vmoon_core::{
    Code, Error, OperationId, Result,
    event::EventKind,
    machine::{Answer, Effect, Ending, Input, Request, State, Status, Verb, Verdict, step::step},
    operation::{OpRecord, Outcome, Progress},
};
use vmoon_sys::{clock::now_ms, random};

/// What a step changes in the store.
#[derive(Default)]
pub(super) struct Change {
    ended: Option<OpRecord>,
    begun: Option<OpRecord>,
    /// The operation that ended, as it was before, in case the change cannot be stored.
    taken: Option<Operation>,
    moved: bool,
}

/// Who has asked for a step: what, how long it may take, and where the answer goes.
type Asked = (Request, Duration, oneshot::Sender<Result<Answer>>);

impl Task {
    /// Takes a step. Boxed: a task is as large as the largest thing it may wait for, and most machines take no step most of the time.
    pub(super) fn input(&mut self, input: Input, asked: Option<Asked>) -> BoxFuture<'_, ()> {
        Box::pin(self.take_step(input, asked))
    }

    async fn take_step(&mut self, input: Input, asked: Option<Asked>) {
        let before = self.row.clone();
        let mut next = step(before.status, input);
        let before_deadline = self.deadline;
        let Some(mut change) = self.prepare(&next.effects, next.status, asked.as_ref().map_or(DEADLINE, |(_, allowed, _)| *allowed)) else {
            // Nothing to store: a refusal, or an observation that changes nothing.
            if let Some((request, _, answer)) = asked {
                let _ = answer.send(self.verdict(request, next.verdict));
            }
            return self.obey(&next.effects).await;
        };
        let seen = asked.is_none().then(|| (self.row.clone(), next.effects.clone()));
        if seen.is_some() && self.go_on(&mut next.effects, &mut change) {
            self.begin_call(&mut next.effects).await;
        }
        let (taken, deadline) = (change.taken.take(), before_deadline);
        let begins = change.begun.is_some();
        let ended = change.ended.clone();
        let stored = self.store(change).await;
        match (stored, asked) {
            (Err(error), Some((_, _, answer))) => {
                // A request that cannot be stored is not begun; what was under way goes on.
                self.row = MachineRow { handle: self.row.handle.clone(), ..before };
                if taken.is_some() || begins {
                    (self.operation, self.deadline) = (taken, deadline);
                }
                let _ = answer.send(Err(error));
                return;
            }
            (Err(error), None) => {
                // What was seen is true all the same: it is told now and stored as soon as that is possible.
                tracing::warn!(machine = %self.row.name, error = %error.chain(), "a machine's state could not be stored");
                if let Some((row, effects)) = seen.filter(|_| begins) {
                    // Of the start that was to follow nothing is known then, as if we had been killed: it is asked for again.
                    (self.row, self.operation, next.effects) = (row, None, effects);
                    (self.call, self.deadline) = (None, None);
                }
                if let Some(record) = ended {
                    self.unpublished.push(record.clone());
                    self.unsaved.push(record);
                }
                self.save_again = Some(Instant::now() + SAVE_RETRY);
            }
            (Ok(()), Some((request, _, answer))) => {
                let _ = answer.send(self.verdict(request, next.verdict));
            }
            (Ok(()), None) => {}
        }
        // What is to be started as soon as it is created is never shown as stopped in between.
        if !self.starts_now() {
            self.publish();
        }
        self.obey(&next.effects).await;
    }

    /// A machine that was created to be started is started in the same breath: one commit for the end of one operation and the
    /// beginning of the other. Whether it is.
    fn go_on(&mut self, effects: &mut Vec<Effect>, change: &mut Change) -> bool {
        if !self.starts_now() {
            return false;
        }
        let next = step(self.row.status, Input::Request(Request::Start));
        if let Some(more) = self.prepare(&next.effects, next.status, DEADLINE) {
            change.begun = more.begun;
            change.moved |= more.moved;
        }
        effects.extend(next.effects);
        true
    }

    /// Begins the call of these effects before they are stored. Only for the start of a machine that was created to be started: that this is wanted
    /// was stored before the machine was made, so whatever kills us now, it is started.
    async fn begin_call(&mut self, effects: &mut Vec<Effect>) {
        let Some(at) = effects.iter().position(|effect| matches!(effect, Effect::Call(_))) else { return };
        let Effect::Call(call) = effects.remove(at) else { return };
        self.deadline = self.operation.as_ref().map(|op| Instant::now() + op.allowed);
        self.make_call(call);
        let Some(mut call) = self.call.take() else { return };
        // Asked once, a call goes as far as it can without us; from then on it is asked by the task's loop.
        let begun = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
        self.call = Some(match begun {
            Poll::Ready(result) => Box::pin(ready(result)),
            Poll::Pending => call,
        });
    }

    /// Whether it was created to be started and nothing has been asked for since.
    pub(super) fn starts_now(&self) -> bool {
        self.row.start_after && self.row.status.state == State::Stopped && self.operation.is_none()
    }

    pub(super) fn verdict(&self, request: Request, verdict: Option<Verdict>) -> Result<Answer> {
        let operation = self.operation.as_ref().map(|op| op.record.id);
        match (verdict, operation) {
            (Some(Verdict::Started), Some(operation)) => Ok(Answer::Started { operation }),
            (Some(Verdict::Joined), Some(operation)) => Ok(Answer::Joined { operation }),
            (Some(Verdict::Refused(code)), _) => Err(words::refusal(&self.row.name, self.row.status.state, request, code)),
            _ => Ok(Answer::Already),
        }
    }

    /// Works out what a step changes: ends and begins operations, dates the state. `None` if nothing has to be stored.
    pub(super) fn prepare(&mut self, effects: &[Effect], status: Status, allowed: Duration) -> Option<Change> {
        let mut change = Change::default();
        let now = now_ms();
        for effect in effects {
            match effect {
                Effect::End(ending) => {
                    let Some(op) = self.operation.take() else { continue };
                    self.deadline = None;
                    let outcome = self.outcome(&op, *ending, status.state);
                    self.row.last_error = match &outcome {
                        Outcome::Failed { error } => Some(error.clone()),
                        _ => None,
                    };
                    change.ended = Some(OpRecord { ended_ms: Some(now), outcome: Some(outcome), ..op.record.clone() });
                    change.taken = Some(op);
                }
                Effect::Begin(verb) => {
                    let id = OperationId::from_uuid(random::uuid());
                    let record = OpRecord {
                        progress: Progress { phase: self.work.as_ref().map(Work::phase).unwrap_or_default(), percent: None },
                        ..OpRecord::new(id, *verb, self.row.id, now, allowed)
                    };
                    change.begun = Some(record.clone());
                    // Whatever is asked for now, nobody waits for the start that was to follow the creation any more.
                    self.row.start_after = false;
                    self.operation = Some(Operation { record, error: None, late: false, allowed });
                }
                _ => {}
            }
        }
        // How far a call has come is asked of the driver after a crash, so that alone is not stored; a cancel is.
        let cancelled = |status: &Status| status.slot.is_some_and(|slot| slot.cancelled);
        let same = self.row.status.state == status.state && cancelled(&self.row.status) == cancelled(&status);
        if same && change.ended.is_none() && change.begun.is_none() {
            self.row.status = status;
            return None;
        }
        if self.row.status.state != status.state {
            self.row.since_ms = now;
            change.moved = true;
            self.last_exit = self.row.exit.clone();
            // How an earlier life ended is no news of one that runs, however it came to run: by a start, or by a return to a snapshot.
            if matches!(status.state, State::Starting | State::Running | State::Paused) {
                self.row.exit = None;
            }
            // The start that was to follow the creation had begun when a daemon was killed before it could store that.
            let runs = |state| matches!(state, State::Running | State::Paused | State::Suspended);
            if runs(self.row.status.state) || runs(status.state) {
                self.row.start_after = false;
            }
        }
        self.row.status = status;
        self.row.operation = self.operation.as_ref().map(|op| op.record.id);
        self.row.generation += 1;
        Some(change)
    }

    pub(super) fn outcome(&self, op: &Operation, ending: Ending, now: State) -> Outcome {
        let name = &self.row.name;
        match ending {
            Ending::Done => Outcome::Done,
            Ending::Cancelled => {
                let text = format!("the operation to {} {name} was cancelled; {name} {}", words::verb(op.record.verb), words::state(now));
                Outcome::Cancelled { error: Error::new(Code::OperationCancelled, text).to_record() }
            }
            Ending::Failed(code) => {
                let error = match &op.error {
                    Some(error) => return Outcome::Failed { error: error.to_record() },
                    None if op.late => Error::new(
                        Code::OperationDeadline,
                        format!(
                            "{} s passed while waiting for {}; {name} {}",
                            op.allowed.as_secs_f32(),
                            words::goal(op.record.verb),
                            words::state(now)
                        ),
                    ),
                    None => Error::new(
                        code,
                        format!("{name} could not be brought to {}: it {}", words::verb(op.record.verb), words::state(now)),
                    ),
                };
                let error = if op.record.verb == Verb::Stop && now == State::Running {
                    error.hint(format!("the guest did not obey; end it by force: vmoon kill {name}"))
                } else {
                    error
                };
                Outcome::Failed { error: error.to_record() }
            }
        }
    }

    pub(super) async fn store(&mut self, change: Change) -> Result<()> {
        let row = self.row.clone();
        let (gone, id) = (row.status.state == State::Gone, row.id);
        let (ended, begun) = (change.ended.clone(), change.begun.clone());
        let unsaved = self.unsaved.clone();
        let opening = std::mem::take(&mut self.opening);
        // The undo values of a create that still runs are needed when it returns.
        let settled = self.unfinished.is_none()
            && !(self.call.is_some() && self.creating && ended.as_ref().is_some_and(|op| op.verb == Verb::Create));
        let (ended_now, begun_now) = (change.ended, change.begun);
        let moved = change.moved;
        let sessions = opening.clone();
        let ends = |op: &OpRecord| matches!(op.verb, Verb::Stop | Verb::Kill | Verb::Delete);
        let frees = gone || ended_now.iter().chain(&begun_now).any(ends);
        let work = move |tx: &mut Tx<'_>| -> rusqlite::Result<()> {
            let about = |operation| About { machine: Some(id), operation, ..About::default() };
            for op in unsaved.iter().chain(&ended_now) {
                tx.put_operation(op)?;
                if settled {
                    tx.drop_undos(op.id)?;
                }
                let how = match &op.outcome {
                    Some(Outcome::Failed { error }) => format!("failed: {}", error.message),
                    Some(Outcome::Cancelled { .. }) => "cancelled".into(),
                    _ => "done".into(),
                };
                tx.event(EventKind::OperationEnded, about(Some(op.id)), format!("{} {}: {how}", words::verb(op.verb), row.name))?;
            }
            if let Some(op) = &begun_now {
                tx.put_operation(op)?;
                tx.event(EventKind::OperationStarted, about(Some(op.id)), format!("{} {}", words::verb(op.verb), row.name))?;
            }
            if gone {
                tx.delete_machine(id)?;
                return tx.event(EventKind::MachineGone, about(None), format!("{} is gone", row.name));
            }
            tx.put_machine(&row)?;
            if moved {
                tx.event(EventKind::MachineChanged, about(None), format!("{} {}", row.name, words::state(row.status.state)))?;
            }
            for session in &sessions {
                Self::put_session(tx, session)?;
            }
            Ok(())
        };
        let result = self.context.store.run_one(work, frees).await;
        if result.is_ok() {
            self.unsaved.clear();
            self.save_again = None;
            if gone {
                self.entry.turn();
                // Before the end of its operation is told, so that whoever waited for that does not find it any more.
                self.context.forget_machine(id);
                self.farewell().await;
            }
            self.unpublished.extend(ended.into_iter().chain(begun));
            for session in opening {
                self.open_stored(session).await;
            }
        } else if !self.unsaved.is_empty() || gone {
            self.save_again = Some(Instant::now() + SAVE_RETRY);
        }
        result
    }

    pub(super) fn publish(&mut self) {
        let view = view(&self.row, &self.entry.name, &*self.driver, self.operation.as_ref().map(|op| &op.record));
        let before = self.view.send_replace(Arc::new(view));
        if before.name != self.row.name {
            self.context.rename_machine(self.row.id, &self.row.name);
        }
        // Whoever waited for an operation finds the machine as it left it.
        for record in self.unpublished.drain(..) {
            self.context.operations.publish(&record);
        }
    }
}
