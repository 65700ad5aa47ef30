//! Calls of XAPI by their names, checked against its table before they are sent. One that the table has not is sent unchecked, if the host says that it has it: tables
//! are older than hosts.

use super::XcpngDriver;
use async_trait::async_trait;
use serde_json::Value;
use std::time::Duration;
use vmoon_core::{
    Code, Error, Result,
    name::escape,
    raw::{Raw, RawAnswer, RawCall, RawTask},
};
use vmoon_xapi::{
    model::{Model, Wrong},
    task::{self, End, Standing},
};

/// Calls that would end or replace the session.
const OWN: &[&str] = &["session.login_with_password", "session.slave_local_login_with_password", "session.logout", "session.local_logout"];

/// What is wrong with a call, before it is sent.
fn refused(wrong: &[Wrong]) -> Error {
    let texts: Vec<String> = wrong.iter().map(|one| escape(&one.to_string())).collect();
    let error = Error::new(Code::Usage, texts.join("; "));
    match wrong.first() {
        Some(Wrong::Unknown { nearest, .. }) if !nearest.is_empty() => error.hint(format!("there is {}", nearest.join(", "))),
        Some(Wrong::Unknown { .. }) => error.hint("vmoon xapi call CONNECTION system.listMethods names those of the host"),
        Some(Wrong::Argument { .. }) => error.hint("text and references are written plainly; lists, maps and records in JSON"),
        _ => error,
    }
}

/// Whether a name is formed as those of methods are: what is not cannot be one of a newer release either.
fn could_be(name: &str) -> bool {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    name.len() <= 200 && name.split_once('.').is_some_and(|(class, verb)| word(class) && word(verb))
}

/// An argument of a call whose types are not known: JSON where it is written as that, truths, and else text, which XAPI takes for numbers, too.
fn unchecked(text: &str) -> Value {
    let json = text.starts_with(['{', '[', '"']).then(|| serde_json::from_str(text).ok()).flatten();
    json.unwrap_or_else(|| match text {
        "true" => true.into(),
        "false" => false.into(),
        text => text.into(),
    })
}

impl XcpngDriver {
    /// The parameters of a call that is not in the table: one of a newer release, if the host says that it has it.
    async fn of_a_newer_release(&self, name: &str, wrong: Wrong, arguments: &[String]) -> Result<Vec<Value>> {
        let plain = name.strip_prefix("Async.").unwrap_or(name);
        let known = match self.0.client() {
            Ok(client) if could_be(plain) => client.get::<Vec<String>>("system.listMethods", Vec::new()).await.unwrap_or_default(),
            _ => Vec::new(),
        };
        if !known.iter().any(|method| method == name) {
            return Err(refused(&[wrong]));
        }
        Ok(arguments.iter().map(|text| unchecked(text)).collect())
    }
}

fn ended(end: End) -> Result<Value> {
    match end {
        End::Done(value) => Ok(value),
        End::Vanished => Err(Error::new(Code::DriverFailed, "the pool has no such task, or not any more: how it ended is not known")),
    }
}

#[async_trait]
impl Raw for XcpngDriver {
    async fn call(&self, call: &RawCall) -> Result<RawAnswer> {
        let model = Model::get();
        let plain = call.method.strip_prefix("Async.").unwrap_or(&call.method);
        let background = call.background || plain != call.method;
        let name = if background { format!("Async.{plain}") } else { plain.to_owned() };
        if OWN.contains(&plain) {
            return Err(Error::new(Code::Usage, format!("{plain} is not called by hand: the daemon holds the session of this connection")));
        }
        let (params, note) = match model.method(&name) {
            Ok(method) => (model.arguments(&method, &call.arguments).map_err(|wrong| refused(&wrong))?, None),
            Err(wrong @ Wrong::Unknown { .. }) => {
                let params = self.of_a_newer_release(&name, wrong, &call.arguments).await?;
                (
                    params,
                    Some(format!("{plain} is newer than the calls that are known here: its arguments were sent as they are, unchecked")),
                )
            }
            Err(wrong) => return Err(refused(&[wrong])),
        };
        let client = self.0.client()?;
        let result = client.call_within(&name, params, Duration::from_millis(call.deadline_ms)).await;
        let result = result.map_err(|error| self.0.failed(plain, error))?;
        Ok(match result {
            Value::String(task) if background => RawAnswer { task: Some(task), result: Value::Null, note },
            result => RawAnswer { task: None, result, note },
        })
    }

    async fn follow(&self, task: &str, known: Option<f64>, patience_ms: u64) -> Result<RawTask> {
        let client = self.0.client()?;
        let standing = task::standing(&client, task, known, Duration::from_millis(patience_ms)).await;
        if !matches!(standing, Ok(Standing::Going(_)) | Err(vmoon_xapi::Error::Connection { .. })) {
            // What is not destroyed here is by XAPI, later.
            let _ = client.call("task.destroy", vec![task.into()]).await;
        }
        Ok(match standing.map_err(|error| self.0.failed("the task", error))? {
            Standing::Going(progress) => RawTask { progress, ended: false, result: Value::Null },
            Standing::Ended(end) => RawTask { progress: 1.0, ended: true, result: ended(end)? },
        })
    }

    async fn cancel(&self, task: &str) -> Result<()> {
        self.0.call("cancel the task", "task.cancel", vec![task.into()]).await.map(drop)
    }
}
