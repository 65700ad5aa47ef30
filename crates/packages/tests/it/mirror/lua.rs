//! Data as Lua text.

use serde_json::Value;
use std::fmt::Write as _;

/// The fields of an object as globals.
pub(crate) fn globals(value: &Value) -> String {
    let mut out = String::new();
    for (name, value) in value.as_object().unwrap() {
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name}");
        out.push_str(name);
        out.push_str(" = ");
        write(value, 0, &mut out);
        out.push('\n');
    }
    out
}

fn write(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Null => out.push_str("nil"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => quote(text, out),
        Value::Array(list) => {
            out.push_str("{\n");
            for value in list {
                indent(depth + 1, out);
                write(value, depth + 1, out);
                out.push_str(",\n");
            }
            indent(depth, out);
            out.push('}');
        }
        Value::Object(object) => {
            out.push_str("{\n");
            for (name, value) in object {
                indent(depth + 1, out);
                out.push('[');
                quote(name, out);
                out.push_str("] = ");
                write(value, depth + 1, out);
                out.push_str(",\n");
            }
            indent(depth, out);
            out.push('}');
        }
    }
}

fn indent(depth: usize, out: &mut String) {
    for _ in 0..depth {
        out.push_str("   ");
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(byte as char);
            }
            b' '..=b'~' => out.push(byte as char),
            // Writing to a string cannot fail.
            _ => {
                let _ = write!(out, "\\{byte:03}");
            }
        }
    }
    out.push('"');
}
