//! Times and amounts, as people read and write them.

use std::time::{Duration, UNIX_EPOCH};
use vmoon_core::{Code, Error, Result, size};

/// Milliseconds since the Unix epoch as RFC 3339 in UTC, to the second.
pub(crate) fn utc(ms: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_000))).to_string()
}

/// How long ago, in one or two units.
pub(crate) fn ago(ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(ms) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A short duration: `0.4 ms`, `3.2 s`, `2m10s`.
pub(crate) fn took(duration: Duration) -> String {
    let us = duration.as_micros();
    match us {
        0..1_000_000 => format!("{:.1} ms", us as f64 / 1000.0),
        1_000_000..60_000_000 => format!("{:.1} s", us as f64 / 1e6),
        _ => format!("{}m{}s", us / 60_000_000, us % 60_000_000 / 1_000_000),
    }
}

/// A duration that a user wrote: `90s`, `5m`, `1h 30m`, or seconds without a unit.
///
/// # Errors
/// A sentence saying what would be right; this is a parser for clap.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const WHAT: &str = "write a duration such as 500ms, 90s, 5m or 1h30m";
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| WHAT.to_owned());
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}: {WHAT}"))
}

/// An amount of memory that a user wrote: `256M`, `1.5GiB`, `4096`; bytes.
///
/// # Errors
/// A sentence saying what would be right; this is a parser for clap.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    size::parse(text).ok_or_else(|| "write an amount such as 64K, 256M or 1G".to_owned())
}

/// Bytes for people: `7B`, `256M`, `1.5G`.
pub(crate) fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "K", "M", "G", "T"] {
        if value < 1024.0 || unit == "T" {
            let text = if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") };
            return format!("{text}{unit}");
        }
        value /= 1024.0;
    }
    format!("{n}B")
}

/// Milliseconds of a duration for the wire.
///
/// # Errors
/// [`Code::Usage`] if there are more than 2^32 - 1 of them (49 days).
pub(crate) fn wire_ms(duration: Duration) -> Result<u32> {
    u32::try_from(duration.as_millis()).map_err(|_| Error::new(Code::Usage, "a deadline may be at most 49 days"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_amounts_are_read_and_shown() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "x", "-1", "5 parsecs", "NaN", "1e400"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        for (text, n) in [("1", 1), ("64K", 65536), ("256M", 256 << 20), ("1.5G", 3 << 29), ("1GiB", 1 << 30), ("7 b", 7)] {
            assert_eq!(parse_bytes(text), Ok(n), "{text}");
        }
        for bad in ["", "M", "1X", "-1", "1.2.3", "99999999999T"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!((bytes(0).as_str(), bytes(1536).as_str(), bytes(256 << 20).as_str()), ("0B", "1.5K", "256M"));
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(u64::MAX), "9999-12-31T23:59:59Z", "a hostile time does not panic");
        assert_eq!((ago(0, 59_000).as_str(), ago(0, 3_700_000).as_str(), ago(9, 0).as_str()), ("59s", "1h1m", "0s"));
        assert_eq!((took(Duration::from_micros(400)).as_str(), took(Duration::from_millis(3200)).as_str()), ("0.4 ms", "3.2 s"));
    }
}
