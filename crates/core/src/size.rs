//! Amounts of bytes as people write and read them: one way for every driver and the command line.

use serde_json::Value;

/// Bytes from text: a number, perhaps with a fraction, and a unit. `B`, `K` or `KiB`, `M`, `G`, `T` likewise are powers of 1024; `kB`, `MB`, `GB` and `TB` are powers of 1000
/// (IEC 80000-13). Case does not matter. `None` for what is none, or more than 2⁶⁴.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    let bytes = number.parse::<f64>().ok()? * unit as f64;
    (bytes >= 0.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// Bytes from a setting: a number of them, or text.
pub fn of(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => parse(text),
        _ => None,
    }
}

/// Bytes for people, exact: `2 GiB`, `1000 bytes`. [`parse`] reads it, but for the word.
pub fn show(bytes: u64) -> String {
    for (unit, name) in [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in [
            ("1", 1),
            ("7 b", 7),
            ("64K", 65536),
            ("256M", 256 << 20),
            ("1.5G", 3 << 29),
            ("2 gib", 2 << 30),
            ("3TiB", 3 << 40),
            ("1kB", 1000),
            ("4GB", 4_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for bad in ["", "x", "-1", "1X", ".", "1..2", "1.2.3", "99999999999GiB", "20000000000000000000", "é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!((show(2 << 30), show(1 << 20), show(1000)), ("2 GiB".into(), "1 MiB".into(), "1000 bytes".into()));
        assert_eq!(parse(&show(5 << 40)), Some(5 << 40));
        assert_eq!((of(&json!(5)), of(&json!("5k")), of(&json!(-5)), of(&json!(null))), (Some(5), Some(5120), None, None));
    }
}
