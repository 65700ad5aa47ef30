//! How single values of settings are read. Pure.

use serde_json::Value;
use std::path::{Component, PathBuf};
use vmoon_confine::{Layer, rules::Host};
use vmoon_core::{size, spec::Problems};

/// The most items of a list.
const MAX_ITEMS: usize = 256;

/// Bytes between two limits.
pub(super) fn size_between(value: &Value, min: u64, max: u64, path: String, problems: &mut Problems) -> Option<u64> {
    match size::of(value) {
        Some(bytes) if (min..=max).contains(&bytes) => return Some(bytes),
        Some(bytes) => problems.add(path, format!("must be between {min} and {max} bytes, not {bytes}")),
        None => problems.add(path, "must be a size, for example 512KiB, 1MiB or 65536 (bytes)"),
    }
    None
}

/// A number of seconds: a whole number, or one with `s`, `m`, `h` or `d`.
pub(super) fn seconds(value: &Value, path: String, problems: &mut Problems) -> Option<u64> {
    let found = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => {
            let text = text.trim();
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let unit = match text[digits..].trim() {
                "" | "s" => Some(1),
                "m" | "min" => Some(60),
                "h" => Some(3600),
                "d" => Some(86_400),
                _ => None,
            };
            text[..digits].parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit))
        }
        _ => None,
    };
    let found = found.filter(|seconds| (1..=1 << 32).contains(seconds));
    if found.is_none() {
        problems.add(path, "must be a time of at least a second, for example 90, 90s, 15m or 2h");
    }
    found
}

/// A whole number between two limits.
pub(super) fn count(value: &Value, min: u64, max: u64, path: String, problems: &mut Problems) -> Option<u64> {
    let found = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let found = found.filter(|number| (min..=max).contains(number));
    if found.is_none() {
        problems.add(path, format!("must be a whole number between {min} and {max}"));
    }
    found
}

/// One text or a list of texts.
fn texts(value: &Value, path: &str, what: &str, problems: &mut Problems) -> Vec<String> {
    let items = match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) if items.len() <= MAX_ITEMS && items.iter().all(Value::is_string) => {
            items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
        }
        _ => {
            problems.add(path, format!("must be {what}, or a list of at most {MAX_ITEMS}"));
            Vec::new()
        }
    };
    items.into_iter().filter(|item| !item.is_empty()).collect()
}

/// Absolute paths, without `..`.
pub(super) fn paths(value: &Value, path: String, problems: &mut Problems) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for text in texts(value, &path, "an absolute path", problems) {
        let granted = PathBuf::from(&text);
        let shown = vmoon_core::name::escape(&text);
        if !granted.is_absolute() || granted.components().any(|part| part == Component::ParentDir) || text.contains('\0') {
            problems.add(&path, format!("{shown} is not an absolute path without .."));
        } else if granted.parent().is_none() {
            problems.add(&path, "granting / grants everything; if that is meant, use the profile trusted");
        } else if !found.contains(&granted) {
            found.push(granted);
        }
    }
    found
}

/// Layers of the isolation, by name.
pub(super) fn layers(value: &Value, path: String, problems: &mut Problems) -> Vec<Layer> {
    let mut found = Vec::new();
    for text in texts(value, &path, "a layer", problems) {
        match serde_json::from_value::<Layer>(Value::String(text.clone())) {
            Ok(layer) => found.push(layer),
            Err(_) => problems.add(&path, format!("there is no layer {}", vmoon_core::name::escape(&text))),
        }
    }
    found
}

/// Hosts with their ports: `example.org:443`, `127.0.0.1:8080`, `[::1]:8080`.
pub(super) fn hosts(value: &Value, path: String, problems: &mut Problems) -> Vec<Host> {
    let mut found = Vec::new();
    for text in texts(value, &path, "HOST:PORT", problems) {
        match host(&text) {
            Some(host) => found.push(host),
            None => problems.add(&path, format!("{} is not HOST:PORT, for example example.org:443", vmoon_core::name::escape(&text))),
        }
    }
    found
}

fn host(text: &str) -> Option<Host> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        // RFC 1123: letters, digits, hyphens and dots, at most 253.
        None => {
            (1..=253).contains(&host.len())
                && !host.starts_with(['-', '.'])
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        }
    };
    good.then(|| Host { host: bare.unwrap_or(host).to_ascii_lowercase(), port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_and_counts() {
        let mut problems = Problems::default();
        let mut read = |value| seconds(&value, "x".into(), &mut problems);
        assert_eq!((read(json!(5)), read(json!("90s")), read(json!("2h"))), (Some(5), Some(90), Some(7200)));
        assert_eq!((read(json!(0)), read(json!("1 week")), read(json!([])), read(json!("999999999999d"))), (None, None, None, None));
        assert_eq!(problems.0.len(), 4);
    }

    #[test]
    fn paths_are_absolute_and_never_everything() {
        let mut problems = Problems::default();
        let found = paths(&json!(["/data", "/data", "/x/y"]), "read".into(), &mut problems);
        assert_eq!(found, [PathBuf::from("/data"), "/x/y".into()]);
        assert!(problems.0.is_empty());
        for bad in [json!("data"), json!("/a/../b"), json!("/"), json!("//"), json!("/a\0b"), json!(3), json!([1])] {
            let mut problems = Problems::default();
            assert!(paths(&bad, "read".into(), &mut problems).is_empty(), "{bad}");
            assert_eq!(problems.0.len(), 1, "{bad}");
        }
    }

    #[test]
    fn hosts_have_ports() {
        let mut problems = Problems::default();
        let found = hosts(&json!(["Example.org:443", "[::1]:80", "127.0.0.1:1"]), "net".into(), &mut problems);
        let shown: Vec<_> = found.iter().map(|host| (host.host.as_str(), host.port)).collect();
        assert_eq!(shown, [("example.org", 443), ("::1", 80), ("127.0.0.1", 1)]);
        for bad in ["example.org", "example.org:0", ":80", "a b:80", "[x]:80", "::1:80", "-a:80", "x:99999"] {
            let mut problems = Problems::default();
            assert!(hosts(&json!(bad), "net".into(), &mut problems).is_empty(), "{bad}");
            assert_eq!(problems.0.len(), 1, "{bad}");
        }
    }
}
