//! Names of machines, sessions and connections that we make, and how foreign names are shown.

use crate::{Code, Error, Result};
use std::fmt::Write as _;

/// The longest name, in bytes.
pub const MAX: usize = 63;

/// Checks a name that we make: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
///
/// # Errors
/// [`Code::NameInvalid`], naming the offending character, with the name shown escaped.
pub fn check(name: &str) -> Result<()> {
    let bad = |why: String| {
        Err(Error::new(Code::NameInvalid, format!("\"{}\" cannot be a name: {why}", shorten(&escape(name))))
            .hint("use letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 63 of them"))
    };
    let Some(first) = name.chars().next() else { return bad("it is empty".into()) };
    if let Some(odd) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        return bad(format!("'{}' is not allowed", escape(&odd.to_string())));
    }
    if !first.is_ascii_alphanumeric() {
        return bad(format!("it begins with '{first}'"));
    }
    if name.len() > MAX {
        return bad(format!("it has {} characters", name.len()));
    }
    Ok(())
}

/// A foreign name made safe to show: control characters, quotes of direction and line ends are escaped.
pub fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        let hidden =
            c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if hidden => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
            _ => out.push(c),
        }
    }
    out
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 80 { text.to_owned() } else { text.chars().take(77).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused_and_good_ones_pass() {
        let long = "x".repeat(300);
        for bad in ["", "../x", "a & b <c>", "--help", "x\n", ".", "-x", "_x", "a/b", "a:b", "näme", "x\0y", "*", &long] {
            let error = check(bad).unwrap_err();
            assert_eq!(error.code(), Code::NameInvalid, "{bad:?}");
            assert!(!error.message().contains('\n') && error.message().len() < 300, "{error}");
        }
        for good in ["a", "web01", "9lives", "a.b_c-d", &"x".repeat(63)] {
            check(good).unwrap();
        }
    }

    #[test]
    fn foreign_names_cannot_forge_terminal_output() {
        assert_eq!(escape("a\u{1b}[31m\nb\u{202e}c"), "a\\u{1b}[31m\\nb\\u{202e}c");
    }
}
