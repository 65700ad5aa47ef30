//! Machines that nothing uses: one timer for all of them, which obeys `core::idle::decide`.
//!
//! Nothing is polled. A machine that may expire has one moment at which it could at the earliest; only then is it looked at,
//! and what happened meanwhile gives it a later one. A machine that starts to run is told of by an event.

use crate::{context::Context, machine::Machine, session::activity::now_ms, store::About, timer};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::broadcast::error::RecvError, time::Instant};
use vmoon_core::{
    MachineId,
    event::{Event, EventKind},
    idle::{Activity, Decision, decide},
    machine::{Answer, Request, State},
    name::escape,
    spec::Lifetime,
};

/// When a machine is looked at, and when its state last changed, by [`now_ms`].
#[derive(Clone, Copy)]
struct Entry {
    due_ms: u64,
    changed_ms: u64,
}

/// Every machine that may expire and does not rest already.
struct Watch {
    context: Arc<Context>,
    entries: HashMap<MachineId, Entry>,
    order: BTreeSet<(u64, MachineId)>,
}

/// Watches until the daemon ends.
pub(super) async fn watch(context: Arc<Context>) {
    let mut events = context.store.follow();
    let mut watch = Watch { context, entries: HashMap::new(), order: BTreeSet::new() };
    watch.everything();
    loop {
        let next = watch.order.first().map(|(due, _)| Instant::now() + Duration::from_millis(due.saturating_sub(now_ms())));
        tokio::select! {
            event = events.recv() => match event {
                Ok(Event { kind: EventKind::MachineAdded | EventKind::MachineChanged | EventKind::MachineGone, machine: Some(id), .. }) => {
                    watch.consider(id);
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => watch.everything(),
                Err(RecvError::Closed) => return,
            },
            () = timer::until(next) => watch.due(),
        }
    }
}

impl Watch {
    fn everything(&mut self) {
        let known: Vec<MachineId> = self.entries.keys().copied().chain(self.context.machines().iter().map(|m| m.id)).collect();
        known.into_iter().for_each(|id| self.consider(id));
    }

    fn schedule(&mut self, id: MachineId, entry: Option<Entry>) {
        let old = match entry {
            Some(entry) => self.entries.insert(id, entry),
            None => self.entries.remove(&id),
        };
        if let Some(old) = old {
            self.order.remove(&(old.due_ms, id));
        }
        if let Some(entry) = entry {
            self.order.insert((entry.due_ms, id));
        }
    }

    /// A machine has changed: that counts as a use. Its view may not show the change yet, so what it means is seen when its
    /// moment comes.
    fn consider(&mut self, id: MachineId) {
        let seconds = self.context.machine(id).and_then(|machine| machine.view().spec.as_ref().and_then(|spec| spec.idle_seconds));
        let now = now_ms();
        let entry = seconds.map(|seconds| Entry {
            due_ms: self.entries.get(&id).map_or_else(|| now.saturating_add(seconds.saturating_mul(1_000)), |entry| entry.due_ms),
            changed_ms: now,
        });
        self.schedule(id, entry);
    }

    /// Looks at every machine whose moment has come.
    fn due(&mut self) {
        let now = now_ms();
        while let Some(&(due, id)) = self.order.first()
            && due <= now
        {
            let Some((machine, entry)) = self.context.machine(id).zip(self.entries.get(&id).copied()) else {
                self.order.remove(&(due, id));
                self.entries.remove(&id);
                continue;
            };
            let view = machine.view();
            let Some((seconds, lifetime)) = view.spec.as_ref().and_then(|spec| Some((spec.idle_seconds?, spec.lifetime))) else {
                self.schedule(id, None);
                continue;
            };
            if matches!(view.state, State::Stopped | State::Suspended | State::Broken | State::Gone) {
                self.schedule(id, None);
                continue;
            }
            let again = match decide(seconds, lifetime, activity(&machine, entry), now) {
                Decision::AskAt(at) => at,
                decision => {
                    drop(tokio::spawn(expire(self.context.clone(), machine, seconds, decision)));
                    // If it does not stop, it is asked again.
                    now.saturating_add(seconds.saturating_mul(1_000).max(1_000))
                }
            };
            self.schedule(id, Some(Entry { due_ms: again.max(now + 1), ..entry }));
        }
    }
}

fn activity(machine: &Machine, entry: Entry) -> Activity {
    let view = machine.view();
    // What cannot be stopped now, since it is paused or lost say, is asked about later.
    let busy_otherwise = view.operation.is_some() || view.state != State::Running;
    let mut activity = Activity { operation: busy_otherwise, last_ms: entry.changed_ms, ..Activity::default() };
    for session in machine.sessions().iter().filter(|session| !session.ended()) {
        let live = session.live.borrow();
        activity.busy |= live.busy.is_some() || live.queued > 0;
        drop(live);
        activity.writer |= session.pen_is_free().is_err();
        activity.last_ms = activity.last_ms.max(session.activity.used_ms());
    }
    activity
}

async fn expire(context: Arc<Context>, machine: Arc<Machine>, seconds: u64, decision: Decision) {
    let (request, what) = match decision {
        Decision::Delete => (Request::DeleteForce, "is deleted: it is temporary"),
        _ => (Request::Stop, "is asked to stop; it is kept"),
    };
    let name = machine.view().name.clone();
    match machine.request(request, None).await {
        Ok(Answer::Started { operation } | Answer::Joined { operation }) => {
            let about = About { machine: Some(machine.id), operation: Some(operation), ..About::default() };
            context.store.announce(EventKind::MachineExpired, about, format!("{} was idle for {seconds} s and {what}", escape(&name)));
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(machine = %name, error = %error.chain(), "an idle machine could not be stopped"),
    }
}

/// Why a machine does not run, if it expired and was not started since, from its events.
pub(super) fn reason(events: &[Event], idle_seconds: u64, lifetime: Lifetime) -> Option<String> {
    let last = events.iter().rposition(|event| event.kind == EventKind::MachineExpired)?;
    let own = events[last].operation;
    // The stop it led to may have been stored before or after the event itself.
    let later = events[last + 1..].iter().any(|event| event.kind == EventKind::OperationStarted && event.operation != own);
    (!later && lifetime == Lifetime::Kept).then(|| format!("it was idle for {idle_seconds} s"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_core::OperationId;

    fn event(kind: EventKind, operation: u128) -> Event {
        let operation = Some(OperationId::from_uuid(uuid::Uuid::from_u128(operation)));
        Event { seq: 0, at_ms: 0, kind, machine: None, session: None, operation, connection: None, text: String::new() }
    }

    #[test]
    fn the_reason_holds_until_something_else_is_done_to_the_machine() {
        use EventKind::{MachineExpired, OperationEnded, OperationStarted};
        let said = |events: &[Event]| reason(events, 60, Lifetime::Kept).is_some();
        assert!(!said(&[]));
        assert!(!said(&[event(OperationStarted, 1), event(OperationEnded, 1)]), "an ordinary stop has no such reason");
        let expired = [event(OperationStarted, 1), event(MachineExpired, 1), event(OperationEnded, 1)];
        assert!(said(&expired));
        assert!(!said(&[&expired[..], &[event(OperationStarted, 2)]].concat()));
        assert!(said(&[event(MachineExpired, 1), event(OperationStarted, 1)]), "in whichever order the two were stored");
    }
}
