//! Events: what has happened since a token, gathered and told as the real one does, and the old way of registered classes.

use crate::{
    fault::{Fault, Result},
    model::{Model, Type},
    sim::{Answer, Sim, State, check_session, count},
    store::{Happened, Store},
    values::check,
    verbs,
};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long events are gathered before they are told (`xapi_globs.ml`).
const GATHER: Duration = Duration::from_millis(50);

impl Sim {
    /// Tells what has happened since a token, and waits for it if that is nothing.
    pub(crate) async fn events_from(&self, params: &[Value]) -> Result<Answer> {
        let session = {
            let state = self.state();
            check_session(&state, "event.from", params)?
        };
        if params.len() != 4 {
            return Err(count("event.from", 3, params.len() as i64 - 1));
        }
        let classes: Vec<String> =
            params[1].as_array().into_iter().flatten().filter_map(|class| class.as_str().map(str::to_owned)).collect();
        let token = params[2].as_str().unwrap_or_default().to_owned();
        let from = match token.split_once(',') {
            _ if token.is_empty() => 0,
            Some((from, _)) if from.len() == 20 => {
                from.parse::<u64>().map_err(|_| Fault::new("EVENT_FROM_TOKEN_PARSE_FAILURE", [&token]))?
            }
            _ => return Err(Fault::new("EVENT_FROM_TOKEN_PARSE_FAILURE", [&token])),
        };
        let seconds = check(&Type::Float, Model::get(), &params[3])?.as_f64().unwrap_or(0.0).clamp(0.0, 3600.0);
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let mut changed = self.changed.subscribe();
        let mut gathered = false;
        loop {
            changed.borrow_and_update();
            let late = Instant::now() >= until;
            let looked = self.look(&session, &classes, from)?;
            match looked {
                Some(answer) if gathered || from == 0 || late => return Ok((answer, Type::Any)),
                // What happens at nearly the same time is told at once.
                Some(_) => {
                    gathered = true;
                    verbs::rest(GATHER).await;
                }
                None if from == 0 || late => return Ok((told(&self.state().store, Vec::new()), Type::Any)),
                None => {
                    let _ = timeout_at(until, changed.changed()).await;
                }
            }
        }
    }

    /// What there is to tell of these classes since then, if anything.
    fn look(&self, session: &str, classes: &[String], from: u64) -> Result<Option<Value>> {
        let state = self.state();
        if !state.sessions.iter().any(|one| one.reference == session) {
            return Err(Fault::new("SESSION_INVALID", [session]));
        }
        let found = state.store.since(from, |class, reference| wanted(classes, class, reference));
        Ok((!found.is_empty()).then(|| told(&state.store, found)))
    }

    /// The old way: events since the last call, for what was registered.
    pub(crate) async fn events_next(&self, params: &[Value]) -> Result<Answer> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            {
                let mut state = self.state();
                let reference = check_session(&state, "event.next", params)?;
                let generation = state.store.generation;
                let State { store, sessions, .. } = &mut *state;
                let Some(session) = sessions.iter_mut().find(|one| one.reference == reference) else {
                    return Err(Fault::new("SESSION_INVALID", [&reference]));
                };
                if session.classes.is_empty() {
                    return Err(Fault::new("SESSION_NOT_REGISTERED", [&reference]));
                }
                let classes: Vec<String> = session.classes.iter().cloned().collect();
                let found = store.since(session.seen, |class, reference| wanted(&classes, class, reference));
                if !found.is_empty() {
                    session.seen = generation;
                    let events = found.into_iter().enumerate().map(|(n, event)| shown(n, event)).collect();
                    return Ok((Value::Array(events), Type::Set(Box::new(Type::Any))));
                }
            }
            let _ = changed.changed().await;
        }
    }
}

/// An answer of `event.from`.
fn told(store: &Store, events: Vec<Happened>) -> Value {
    let events: Vec<Value> = events.into_iter().enumerate().map(|(n, event)| shown(n, event)).collect();
    // Records are moved, not copied: from the beginning there are many.
    let mut told = Map::new();
    told.insert("events".into(), Value::Array(events));
    told.insert("valid_ref_counts".into(), Value::Object(store.counts()));
    told.insert("token".into(), store.token().into());
    Value::Object(told)
}

/// An event as it is told.
fn shown(number: usize, event: Happened) -> Value {
    let mut told = json!({
        "id": number.to_string(), "timestamp": "0.0", "class": event.class, "operation": event.operation, "ref": event.reference,
    });
    if let Some(record) = event.record {
        told["snapshot"] = record;
    }
    told
}

/// Whether somebody who asked for these wants to know of this object.
fn wanted(classes: &[String], class: &str, reference: &str) -> bool {
    classes.iter().any(|asked| match asked.split_once('/') {
        Some((of, one)) => of.eq_ignore_ascii_case(class) && one == reference,
        None => asked == "*" || asked.eq_ignore_ascii_case(class),
    })
}
