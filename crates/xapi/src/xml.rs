//! The one place where XAPI speaks XML to a JSON client: the `result` of a task is a `<value>` of XML-RPC. A decoder of exactly that.
//!
//! <http://xmlrpc.com/spec.md>; a value without a type is text. Names are few and fixed, there are no attributes, and a document with a DTD is refused, so nothing expands.

use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// How deep values may lie in each other.
const DEEPEST: u32 = 32;

/// Decodes a task's result; an empty one is `Null`.
///
/// # Errors
/// [`Error::Protocol`].
pub(crate) fn decode(text: &str) -> Result<Value> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Value::Null);
    }
    // A result that is no XML at all has been seen from HTTP handlers: it is passed on as it is.
    if !text.starts_with('<') {
        return Ok(Value::String(text.to_owned()));
    }
    let mut reader = Reader { rest: text };
    let value = reader.value(0)?;
    if reader.rest.trim().is_empty() { Ok(value) } else { Err(bad("something after the value")) }
}

fn bad(what: &str) -> Error {
    Error::protocol(format!("a task's result is no XML-RPC value: {what}"))
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Passes `<name>`; whether it was there.
    fn open(&mut self, name: &str) -> bool {
        let found = self.rest.strip_prefix('<').and_then(|rest| rest.strip_prefix(name)).and_then(|rest| rest.strip_prefix('>'));
        if let Some(rest) = found {
            self.rest = rest;
        }
        found.is_some()
    }

    /// Passes `<name/>`; whether it was there.
    fn empty(&mut self, name: &str) -> bool {
        let found = self
            .rest
            .strip_prefix('<')
            .and_then(|rest| rest.strip_prefix(name))
            .map(str::trim_start)
            .and_then(|rest| rest.strip_prefix("/>"));
        if let Some(rest) = found {
            self.rest = rest;
        }
        found.is_some()
    }

    fn close(&mut self, name: &str) -> Result<()> {
        let found = self.rest.strip_prefix("</").and_then(|rest| rest.strip_prefix(name)).and_then(|rest| rest.strip_prefix('>'));
        self.rest = found.ok_or_else(|| bad(&format!("</{name}> is missing")))?;
        Ok(())
    }

    /// Text up to the next tag, its entities replaced.
    fn text(&mut self) -> Result<String> {
        let end = self.rest.find('<').ok_or_else(|| bad("it is cut off"))?;
        let (raw, rest) = self.rest.split_at(end);
        self.rest = rest;
        unescape(raw)
    }

    fn value(&mut self, depth: u32) -> Result<Value> {
        if depth > DEEPEST {
            return Err(bad("values lie too deep in each other"));
        }
        self.skip_space();
        if self.empty("value") {
            return Ok(Value::String(String::new()));
        }
        if !self.open("value") {
            return Err(bad("<value> is missing"));
        }
        // White space is text unless an element follows.
        if !self.rest.trim_start().starts_with('<') || self.rest.trim_start().starts_with("</") {
            let text = self.text()?;
            self.close("value")?;
            return Ok(Value::String(text));
        }
        self.skip_space();
        let value = self.typed(depth)?;
        self.skip_space();
        self.close("value")?;
        Ok(value)
    }

    fn typed(&mut self, depth: u32) -> Result<Value> {
        for name in ["string", "dateTime.iso8601", "base64"] {
            if self.empty(name) {
                return Ok(Value::String(String::new()));
            }
            if self.open(name) {
                let text = self.text()?;
                self.close(name)?;
                return Ok(Value::String(text));
            }
        }
        for name in ["int", "i4", "i8"] {
            if self.open(name) {
                let number = self.text()?.trim().parse::<i64>().map_err(|_| bad("an integer is none"))?;
                self.close(name)?;
                return Ok(number.into());
            }
        }
        if self.open("double") {
            let number = self.text()?.trim().parse::<f64>().map_err(|_| bad("a number is none"))?;
            self.close("double")?;
            return Ok(serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number));
        }
        if self.open("boolean") {
            let flag = match self.text()?.trim() {
                "1" => true,
                "0" => false,
                _ => return Err(bad("a boolean is none")),
            };
            self.close("boolean")?;
            return Ok(flag.into());
        }
        if self.empty("nil") {
            return Ok(Value::Null);
        }
        if self.open("array") {
            return self.array(depth);
        }
        if self.empty("struct") {
            return Ok(Value::Object(Map::new()));
        }
        if self.open("struct") {
            return self.members(depth);
        }
        Err(bad("a type that XML-RPC has not"))
    }

    fn array(&mut self, depth: u32) -> Result<Value> {
        let mut all = Vec::new();
        self.skip_space();
        if !self.empty("data") {
            if !self.open("data") {
                return Err(bad("<data> is missing"));
            }
            loop {
                self.skip_space();
                if self.rest.starts_with("</") {
                    break;
                }
                all.push(self.value(depth + 1)?);
            }
            self.close("data")?;
        }
        self.skip_space();
        self.close("array")?;
        Ok(Value::Array(all))
    }

    fn members(&mut self, depth: u32) -> Result<Value> {
        let mut all = Map::new();
        loop {
            self.skip_space();
            if !self.open("member") {
                break;
            }
            self.skip_space();
            let name = if self.empty("name") {
                String::new()
            } else {
                if !self.open("name") {
                    return Err(bad("<name> is missing"));
                }
                let name = self.text()?;
                self.close("name")?;
                name
            };
            let value = self.value(depth + 1)?;
            self.skip_space();
            self.close("member")?;
            all.insert(name, value);
        }
        self.close("struct")?;
        Ok(Value::Object(all))
    }
}

/// Replaces the five named entities and those by number (XML 1.0, 4.1 and 4.6).
fn unescape(raw: &str) -> Result<String> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let (name, after) = rest[at + 1..].split_once(';').ok_or_else(|| bad("an entity is cut off"))?;
        let c = match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = name.strip_prefix('#').and_then(|digits| match digits.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16).ok(),
                    None => digits.parse().ok(),
                });
                number.and_then(char::from_u32).ok_or_else(|| bad("an entity that is not known"))?
            }
        };
        out.push(c);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn is(text: &str, wanted: Value) {
        assert_eq!(decode(text).unwrap_or_else(|error| panic!("{text}: {error}")), wanted, "{text}");
    }

    #[test]
    fn what_tasks_result_in_is_read() {
        is("", Value::Null);
        is("<value></value>", json!(""));
        is("<value/>", json!(""));
        is("<value>OpaqueRef:8c2b7d9f</value>", json!("OpaqueRef:8c2b7d9f"));
        is(
            "<value><array><data><value>OpaqueRef:1</value><value>OpaqueRef:2</value></data></array></value>",
            json!(["OpaqueRef:1", "OpaqueRef:2"]),
        );
        is("<value><array><data/></array></value>", json!([]));
        is(
            "<value>\n <struct>\n <member><name>a&amp;b</name><value><int>-4</int></value></member>\n <member><name>on</name><value><boolean>1</boolean></value></member></struct></value>",
            json!({"a&b": -4, "on": true}),
        );
        is("<value><double>1.5</double></value>", json!(1.5));
        is("<value> two  spaces </value>", json!(" two  spaces "));
        is("<value>&lt;x&gt; &#233; &#x1F600;</value>", json!("<x> é 😀"));
        is("Success", json!("Success"));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "<value>",
            "<value>a",
            "<value><int>x</int></value>",
            "<value><boolean>2</boolean></value>",
            "<value>&bomb;</value>",
            "<value>&amp</value>",
            "<value><array><data><value>1</value></array></value>",
            "<value>a</value><value>b</value>",
            "<!DOCTYPE value [<!ENTITY a \"b\">]><value>&a;</value>",
            "<value><struct><member><value>1</value></member></struct></value>",
            "<value><widget>1</widget></value>",
        ] {
            assert!(decode(text).is_err(), "{text}");
        }
        let deep = "<value><array><data>".repeat(5000);
        assert!(decode(&deep).unwrap_err().to_string().contains("too deep"));
    }

    #[test]
    fn no_prefix_of_a_value_is_taken_for_one() {
        let whole = "<value><struct><member><name>n</name><value><array><data><value>&#65;</value></data></array></value></member></struct></value>";
        for at in 1..whole.len() {
            assert!(decode(&whole[..at]).is_err(), "{}", &whole[..at]);
        }
        is(whole, json!({"n": ["A"]}));
    }
}
