//! The envelope: JSON-RPC 2.0 as XAPI speaks it (`api_server_common.ml`). Pure.
//!
//! The error's `code` is always 1; XAPI's own code is in `message`, its parameters are in `data`. An id that is null, missing or a float, a batch, and
//! what is no JSON are answered with HTTP status 500 and an HTML page.

use crate::error::{Error, Failure, Result};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

/// What XAPI takes of one request (`xapi-consts/constants.ml`), bytes; beyond it, it closes the connection without a word.
pub(crate) const MAX_REQUEST: usize = 300 << 10;

/// A request's body.
///
/// # Errors
/// [`Error::TooLarge`].
pub(crate) fn request(id: u64, method: &str, params: &[Value]) -> Result<Vec<u8>> {
    let body = json!({ "jsonrpc": "2.0", "method": method, "params": params, "id": id }).to_string().into_bytes();
    if body.len() > MAX_REQUEST { Err(Error::TooLarge { size: body.len() }) } else { Ok(body) }
}

/// An answer as it is written.
#[derive(Deserialize)]
struct Answer<T> {
    result: Option<T>,
    error: Option<Value>,
    id: Option<Value>,
}

/// What an answer says.
///
/// # Errors
/// [`Error::Xapi`] if that is what it says, [`Error::Http`] for a page, [`Error::Protocol`] for anything else.
pub(crate) fn answer<'a, T: Deserialize<'a>>(id: u64, status: u16, content_type: &str, body: &'a [u8]) -> Result<T> {
    let page = || Error::Http { status, text: plain(body) };
    if status != 200 {
        return Err(page());
    }
    if content_type.starts_with("text/html") {
        return Err(page());
    }
    // A list would be taken for the fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(body).is_ok() {
        return Err(Error::protocol("a JSON value that is no object"));
    }
    // In one pass, straight into what is wanted: records have many fields that nobody asks for.
    let answer: Answer<T> = serde_json::from_slice(body).map_err(|error| {
        let what = if error.is_data() { "a result of another shape" } else { "no JSON" };
        Error::protocol(format!("{what}: {error}"))
    })?;
    if answer.id.is_some_and(|got| got.as_u64() != Some(id)) {
        return Err(Error::protocol("the answer to another request"));
    }
    if let Some(error) = answer.error {
        return Err(Error::Xapi(failure(&error)?));
    }
    answer.result.ok_or_else(|| Error::protocol("neither a result nor an error"))
}

/// Reads an error in the form of JSON-RPC 2.0, or of 1.0, where it is an array.
fn failure(error: &Value) -> Result<Failure> {
    let texts = |values: &[Value]| values.iter().map(text).collect();
    if let Some([code, params @ ..]) = error.as_array().map(Vec::as_slice) {
        return Ok(Failure { code: text(code), params: texts(params) });
    }
    let Some(code) = error.get("message").and_then(Value::as_str) else { return Err(Error::protocol("an error without a code")) };
    let params = error.get("data").and_then(Value::as_array).map_or_else(Vec::new, |data| texts(data));
    Ok(Failure { code: code.to_owned(), params })
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The beginning of a page, without its tags.
pub(crate) fn plain(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4096)]);
    let (mut out, mut inside) = (String::new(), false);
    for c in text.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                out.push(' ');
            }
            _ if !inside => out.push(if c.is_control() { ' ' } else { c }),
            _ => {}
        }
    }
    let words: Vec<&str> = out.split_whitespace().collect();
    let mut short: String = words.join(" ").chars().take(400).collect();
    if short.is_empty() {
        short.push_str("(no text)");
    }
    short
}

/// Whether a method only reads: such a call may be made twice.
pub(crate) fn reads(method: &str) -> bool {
    let Some((class, verb)) = method.split_once('.') else { return false };
    verb.starts_with("get_") || matches!((class, verb), ("event", "from") | ("system", "listMethods"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str) -> Result<Value> {
        answer(7, 200, "application/json", body.as_bytes())
    }

    fn failed(body: &str) -> (String, Vec<String>) {
        match check(body) {
            Err(Error::Xapi(failure)) => (failure.code, failure.params),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn results_and_failures_of_both_versions_are_read() {
        assert_eq!(check(r#"{"jsonrpc":"2.0","result":"","id":7}"#).unwrap(), "");
        assert_eq!(check(r#"{"result":["OpaqueRef:NULL"],"error":null,"id":7}"#).unwrap(), json!(["OpaqueRef:NULL"]));
        let (code, params) = failed(r#"{"jsonrpc":"2.0","error":{"code":1,"message":"VM_BAD_POWER_STATE","data":["r","halted"]},"id":7}"#);
        assert_eq!((code.as_str(), params), ("VM_BAD_POWER_STATE", vec!["r".into(), "halted".into()]));
        // Parameters that are no text, none at all, and the form of 1.0.
        assert_eq!(failed(r#"{"jsonrpc":"2.0","error":{"code":1,"message":"X","data":[1,null]},"id":7}"#).1, ["1", "null"]);
        assert_eq!(failed(r#"{"jsonrpc":"2.0","error":{"code":1,"message":"X"},"id":7}"#).1, Vec::<String>::new());
        assert_eq!(failed(r#"{"result":null,"error":["CODE","p"],"id":7}"#), ("CODE".into(), vec!["p".into()]));
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        for (body, what) in [
            ("{", "no JSON"),
            ("[]", "no object"),
            (r#"{"id":7}"#, "neither"),
            (r#"{"result":1,"id":8}"#, "another request"),
            (r#"{"error":{"code":1},"id":7}"#, "without a code"),
        ] {
            assert!(check(body).unwrap_err().to_string().contains(what), "{body}");
        }
        let page = b"<!DOCTYPE html><html><body><h1>500 Internal Error</h1>\n<b>xapi</b></body></html>";
        let Err(Error::Http { status: 500, text }) = answer::<Value>(7, 500, "text/html", page) else { panic!() };
        assert_eq!(text, "500 Internal Error xapi");
        assert!(matches!(answer::<Value>(7, 200, "text/html; charset=utf-8", b"<p>welcome"), Err(Error::Http { status: 200, .. })));
    }

    #[test]
    fn a_request_that_xapi_would_not_take_is_not_made() {
        let large = "x".repeat(MAX_REQUEST);
        assert!(matches!(request(1, "VM.set_name_label", &[large.into()]), Err(Error::TooLarge { .. })));
        let body = request(1, "VM.get_all", &["OpaqueRef:1".into()]).unwrap();
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value, json!({"jsonrpc": "2.0", "method": "VM.get_all", "params": ["OpaqueRef:1"], "id": 1}));
    }

    #[test]
    fn only_what_reads_is_repeated() {
        for method in ["VM.get_record", "VM.get_all_records_where", "event.from", "system.listMethods"] {
            assert!(reads(method), "{method}");
        }
        for method in ["VM.start", "Async.VM.start", "VM.set_name_label", "event.inject", "VM", "task.cancel"] {
            assert!(!reads(method), "{method}");
        }
    }
}
