//! JSON-RPC 1.0 and 2.0, with XAPI's habits: the error's code is always 1, ids must be text or integers, there are no batches.

use crate::fault::Fault;
use serde::Serialize;
use serde_json::{Value, json};

/// A call as it came.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) params: Result<Vec<Value>, Fault>,
    id: Value,
    two: bool,
}

/// Reads a call; what cannot be read is answered by a page.
pub(crate) fn read(body: &[u8]) -> Option<Call> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let id = value.get("id").filter(|id| id.is_string() || id.is_i64() || id.is_u64())?.clone();
    let method = value.get("method")?.as_str()?.to_owned();
    let params = match value.get("params") {
        None => Ok(Vec::new()),
        Some(Value::Array(all)) => Ok(all.clone()),
        Some(_) => Err(Fault::internal("Failure(\"Expected string, got '{}'\")")),
    };
    Some(Call { method, params, id, two: value.get("jsonrpc").is_some() })
}

/// Results may be large: they are written as they are, not copied into a larger value first.
#[derive(Serialize)]
struct Done<'a, T> {
    jsonrpc: &'static str,
    result: &'a T,
    id: &'a Value,
}

/// The same in 1.0.
#[derive(Serialize)]
struct DoneInOne<'a> {
    result: &'a Value,
    error: (),
    id: &'a Value,
}

impl Call {
    /// The answer to it with a result that is not a value yet; none in 1.0.
    pub(crate) fn answer_with(&self, result: &impl Serialize) -> Option<Vec<u8>> {
        let done = Done { jsonrpc: "2.0", result, id: &self.id };
        self.two.then(|| serde_json::to_vec(&done).ok()).flatten()
    }

    /// The answer to it.
    pub(crate) fn answer(&self, result: Result<Value, Fault>) -> Vec<u8> {
        let answer = match (result, self.two) {
            (Ok(value), true) => return serde_json::to_vec(&Done { jsonrpc: "2.0", result: &value, id: &self.id }).unwrap_or_default(),
            (Ok(value), false) => return serde_json::to_vec(&DoneInOne { result: &value, error: (), id: &self.id }).unwrap_or_default(),
            (Err(Fault(words)), true) => {
                let (code, data) = words.split_first().map_or(("INTERNAL_ERROR", &[][..]), |(code, data)| (code.as_str(), data));
                json!({"jsonrpc": "2.0", "error": {"code": 1, "message": code, "data": data}, "id": self.id})
            }
            (Err(Fault(words)), false) => json!({"result": null, "error": words, "id": self.id}),
        };
        answer.to_string().into_bytes()
    }
}
