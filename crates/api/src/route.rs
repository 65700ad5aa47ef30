//! Turning typed requests into HTTP and back: path fields into the path, the rest into the query or the body.

use crate::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::BTreeMap;
use vmoon_core::{Code, Error, Result};

/// Everything but the unreserved characters of RFC 3986 is encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request as it leaves for the wire.
pub(crate) struct Outgoing {
    pub(crate) target: String,
    pub(crate) body: Vec<u8>,
}

/// Fills the path's parameters from the request's fields.
pub(crate) fn outgoing(method: Method, path: &str, request: &impl Serialize) -> Result<Outgoing> {
    let broken = |error: serde_json::Error| Error::internal("a request does not serialise").source(error);
    let Value::Object(mut fields) = serde_json::to_value(request).map_err(broken)? else {
        return Err(Error::internal("a request is not an object"));
    };
    let mut target = String::with_capacity(path.len() + 32);
    for segment in path.split('/').skip(1) {
        target.push('/');
        match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            Some(name) => {
                let value = fields.shift_remove(name).and_then(|v| v.as_str().map(str::to_owned));
                let value = value.ok_or_else(|| Error::internal(format!("the request has no text field {name}")))?;
                if matches!(value.as_str(), "" | "." | "..") {
                    return Err(Error::new(Code::Usage, format!("\"{value}\" names nothing")));
                }
                target.extend(utf8_percent_encode(&value, SEGMENT));
            }
            None => target.push_str(segment),
        }
    }
    if method == Method::Post {
        let body = serde_json::to_vec(&fields).map_err(broken)?;
        return Ok(Outgoing { target, body });
    }
    let query: Vec<(String, String)> = fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    if !query.is_empty() {
        let text = serde_urlencoded::to_string(&query).map_err(|e| Error::internal("a query does not serialise").source(e))?;
        target.push('?');
        target.push_str(&text);
    }
    Ok(Outgoing { target, body: Vec::new() })
}

/// A request as it arrived: the path's parameters, and the query of a GET or the body of a POST.
#[derive(Debug)]
pub struct Routed<'a> {
    /// The parameters of the path, decoded.
    pub params: BTreeMap<&'static str, String>,
    /// The query, without the question mark.
    pub query: &'a str,
    /// The body; `None` for a GET.
    pub body: Option<&'a [u8]>,
}

impl Routed<'_> {
    /// The typed request.
    ///
    /// # Errors
    /// [`Code::WireMalformed`], naming what does not fit.
    pub fn parse<T: DeserializeOwned>(self) -> Result<T> {
        let malformed =
            |error: &dyn std::fmt::Display| Error::new(Code::WireMalformed, format!("the request does not fit the endpoint: {error}"));
        let Some(body) = self.body else {
            let mut text = serde_urlencoded::to_string(&self.params).map_err(|e| malformed(&e))?;
            if !text.is_empty() && !self.query.is_empty() {
                text.push('&');
            }
            text.push_str(self.query);
            return serde_urlencoded::from_str(&text).map_err(|e| malformed(&e));
        };
        let mut fields = if body.is_empty() { serde_json::Map::new() } else { serde_json::from_slice(body).map_err(|e| malformed(&e))? };
        for (name, value) in self.params {
            fields.insert(name.into(), Value::String(value));
        }
        serde_json::from_value(Value::Object(fields)).map_err(|e| malformed(&e))
    }
}

/// The JSON of an answer.
pub(crate) fn answer(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::internal("an answer does not serialise").source(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::{Eval, Read, WaitMachine};

    #[test]
    fn requests_arrive_as_they_were_sent() {
        let sent = Read { session: "a b/ma?n".into(), from: Some(7), max: None, command: None, wait_ms: Some(0) };
        let out = outgoing(Method::Get, "/v1/sessions/{session}/read", &sent).unwrap();
        assert_eq!(out.target, "/v1/sessions/a%20b%2Fma%3Fn/read?from=7&wait_ms=0");
        let (_, params) = crate::endpoint::find("GET", "/v1/sessions/a%20b%2Fma%3Fn/read").unwrap();
        let got: Read = Routed { params, query: "from=7&wait_ms=0&newer=field", body: None }.parse().unwrap();
        assert_eq!((got.session, got.from, got.max, got.wait_ms), (sent.session, sent.from, None, Some(0)));

        let sent = Eval {
            session: "m".into(),
            code: b"\xff\0"[..].into(),
            args: None,
            data: false,
            token: None,
            deadline_ms: Some(1),
            wait_ms: None,
        };
        let out = outgoing(Method::Post, "/v1/sessions/{session}/eval", &sent).unwrap();
        let got: Eval = Routed { params: [("session", "m".to_owned())].into(), query: "", body: Some(&out.body) }.parse().unwrap();
        assert_eq!((got.code, got.deadline_ms), (sent.code, Some(1)));

        let got: WaitMachine =
            Routed { params: [("machine", "123".to_owned())].into(), query: "until=running&gen=4", body: None }.parse().unwrap();
        assert_eq!((got.machine.as_str(), got.until, got.generation), ("123", Some(vmoon_core::machine::State::Running), Some(4)));
    }

    #[test]
    fn malformed_requests_are_named() {
        for (query, body) in [("from=x", None), ("", Some(&b"{"[..])), ("", Some(b"[]")), ("", Some(b"{\"from\":-1}"))] {
            let error = Routed { params: [("session", "m".to_owned())].into(), query, body }.parse::<Read>().unwrap_err();
            assert_eq!(error.code(), Code::WireMalformed, "{query} {body:?}");
        }
    }
}
