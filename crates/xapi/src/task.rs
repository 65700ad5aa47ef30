//! Calls that take long: XAPI answers `Async.Class.method` at once with a task, whose record says how far it has come and what came of it.
//!
//! The task is followed by events, and destroyed when it has ended: XAPI keeps at most 200 ended ones, for about an hour (`xapi_globs.ml`).

use crate::{
    cache::Batch,
    client::Client,
    error::{Error, Failure, Result},
    xml,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{future::Future, time::Duration};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// How long XAPI holds an answer back while nothing happens.
const POLL: Duration = Duration::from_secs(30);
/// How long the end of a task that is cancelled is waited for.
const CANCEL: Duration = Duration::from_secs(10);

/// How long the end of a task is waited for whose work has broken off.
const MOMENT: Duration = Duration::from_secs(2);

/// What came of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// It succeeded, with this result.
    Done(Value),
    /// It is gone and nothing tells how it went: it may have been cleared away just after it succeeded. Look at what it was to change.
    Vanished,
}

#[derive(Debug, Deserialize)]
struct Record {
    status: String,
    #[serde(default)]
    progress: f64,
    #[serde(default)]
    result: String,
    #[serde(default)]
    error_info: Vec<String>,
}

/// Runs `Class.method` as a task with these parameters after the session. `progress` is told how much is done, 0 to 1; `cancel` ends
/// it: XAPI is asked to cancel the task, which it may not be able to.
///
/// # Errors
/// As [`Client::call`]; [`Error::Xapi`] with what the task failed with; [`Error::Cancelled`]; [`Error::Deadline`], after which the task was asked to stop.
pub async fn run(
    client: &Client,
    method: &str,
    params: Vec<Value>,
    deadline: Duration,
    mut progress: impl FnMut(f64),
    cancel: impl Future<Output = ()>,
) -> Result<End> {
    let until = Instant::now() + deadline;
    let started = client.call_within(&format!("Async.{method}"), params, deadline).await?;
    let task = started.as_str().ok_or_else(|| Error::protocol("a task that is no text"))?.to_owned();
    let ended = tokio::select! {
        ended = timeout_at(until, follow(client, &task, &mut progress)) => match ended {
            Ok(ended) => ended,
            Err(_) => {
                stop(client, &task).await;
                Err(Error::Deadline { what: method.to_owned(), waited: deadline })
            }
        },
        () = cancel => match stop(client, &task).await {
            // It was quicker.
            Some(done @ Ok(End::Done(_))) => done,
            _ => Err(Error::Cancelled),
        },
    };
    if !matches!(ended, Ok(End::Vanished)) {
        // What is not destroyed here is by XAPI, later.
        let _ = client.call("task.destroy", vec![task.into()]).await;
    }
    ended
}

/// Asks a task to stop and waits a little for its end.
async fn stop(client: &Client, task: &str) -> Option<Result<End>> {
    if let Err(error) = client.call("task.cancel", vec![task.into()]).await {
        tracing::debug!(task, %error, "a task could not be cancelled");
    }
    timeout_at(Instant::now() + CANCEL, follow(client, task, &mut |_| {})).await.ok()
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// It goes on, and this much is done, 0 to 1.
    Going(f64),
    /// It has ended.
    Ended(End),
}

/// Waits until a task is further than `known`, or has ended, or for so long; without `known` it is answered at once.
///
/// # Errors
/// As [`run`].
pub async fn standing(client: &Client, task: &str, known: Option<f64>, patience: Duration) -> Result<Standing> {
    let (mut now, stop) = (0.0, Instant::now() + patience);
    let further = Notify::new();
    let mut tell = |progress: f64| {
        now = progress;
        if known != Some(progress) {
            further.notify_one();
        }
    };
    let ended = tokio::select! {
        biased;
        ended = follow(client, task, &mut tell) => Some(ended?),
        () = further.notified() => None,
        () = tokio::time::sleep_until(stop) => None,
    };
    Ok(ended.map_or(Standing::Going(now), Standing::Ended))
}

/// The failure that a task has ended with, if it has, or does in a moment.
pub(crate) async fn failure_of(client: &Client, task: &str) -> Option<Error> {
    match timeout_at(Instant::now() + MOMENT, follow(client, task, &mut |_| {})).await {
        Ok(Err(error @ (Error::Xapi(_) | Error::Cancelled))) => Some(error),
        _ => None,
    }
}

/// Waits for a task's end.
pub(crate) async fn follow(client: &Client, task: &str, progress: &mut impl FnMut(f64)) -> Result<End> {
    let (mut token, mut seen) = (String::new(), false);
    let mut failures = 0;
    loop {
        let params = vec![json!([format!("task/{task}")]), token.clone().into(), json!(POLL.as_secs_f64())];
        let batch = match client.hold::<Batch>("event.from", params, POLL * 2).await {
            Ok(batch) => batch,
            // The task goes on in XAPI while we are cut off, or after its restart is gone.
            Err(error) if error.is_of_the_connection() || error.is("SESSION_INVALID") || error.is("EVENT_FROM_TOKEN_PARSE_FAILURE") => {
                failures += 1;
                if failures > 3 {
                    return Err(error);
                }
                token.clear();
                continue;
            }
            Err(error) => return Err(error),
        };
        failures = 0;
        let first = token.is_empty();
        token = batch.token;
        for event in batch.events {
            if event.operation == "del" {
                return Ok(End::Vanished);
            }
            let Some(snapshot) = event.snapshot else { continue };
            seen = true;
            let record: Record = snapshot.read()?;
            progress(record.progress.clamp(0.0, 1.0));
            if let Some(end) = end(record) {
                return end;
            }
        }
        // The first answer has what there is: nothing means that it is gone.
        if first && !seen {
            return Ok(End::Vanished);
        }
    }
}

/// What a record says of the end; nothing while it goes on, and for words that are not known.
fn end(record: Record) -> Option<Result<End>> {
    match record.status.as_str() {
        "success" => Some(xml::decode(&record.result).map(End::Done)),
        "failure" => {
            let mut info = record.error_info.into_iter();
            let code = info.next().unwrap_or_else(|| "INTERNAL_ERROR".into());
            Some(Err(Error::Xapi(Failure { code, params: info.collect() })))
        }
        "cancelled" => Some(Err(Error::Cancelled)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: Value) -> Option<Result<End>> {
        end(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_task_ends_in_three_ways_and_unknown_words_are_none() {
        let done = of(json!({"status": "success", "result": "<value>OpaqueRef:1</value>", "progress": 1})).unwrap().unwrap();
        assert_eq!(done, End::Done("OpaqueRef:1".into()));
        let Some(Err(Error::Xapi(failure))) = of(json!({"status": "failure", "error_info": ["SR_FULL", "1", "2"]})) else { panic!() };
        assert_eq!((failure.code.as_str(), failure.params.len()), ("SR_FULL", 2));
        assert!(matches!(of(json!({"status": "failure"})), Some(Err(Error::Xapi(failure))) if failure.is("INTERNAL_ERROR")));
        assert!(matches!(of(json!({"status": "cancelled"})), Some(Err(Error::Cancelled))));
        for status in ["pending", "cancelling", "from_the_future"] {
            assert!(of(json!({"status": status})).is_none());
        }
        assert!(matches!(of(json!({"status": "success", "result": "<value>"})), Some(Err(Error::Protocol(_)))));
    }
}
