//! Cuts Lua text into pieces for colouring. Total: any text, finished or not, is covered from its first byte to its last.
//!
//! Knows nothing of terminals or colours.

use std::ops::Range;

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `local`, `function`, …
    Keyword,
    /// `nil`, `true`, `false`, and numbers.
    Constant,
    /// A string, short or long, finished or not.
    Text,
    /// A comment.
    Comment,
    /// A name.
    Name,
    /// Everything else.
    Other,
}

const KEYWORDS: &[&str] = &[
    "and", "break", "do", "else", "elseif", "end", "for", "function", "goto", "if", "in", "local", "not", "or", "repeat", "return", "then",
    "until", "while",
];

/// The pieces of `text`, in order and without holes.
pub(crate) fn pieces(text: &str) -> Vec<(Kind, Range<usize>)> {
    let bytes = text.as_bytes();
    let mut out: Vec<(Kind, Range<usize>)> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (kind, end) = piece(bytes, at);
        match out.last_mut() {
            Some((Kind::Other, range)) if kind == Kind::Other => range.end = end,
            _ => out.push((kind, at..end)),
        }
        at = end;
    }
    out
}

fn piece(bytes: &[u8], at: usize) -> (Kind, usize) {
    let next = bytes.get(at + 1).copied();
    match bytes[at] {
        b'-' if next == Some(b'-') => (Kind::Comment, comment(bytes, at + 2)),
        b'"' | b'\'' => (Kind::Text, short(bytes, at)),
        b'[' => match long(bytes, at) {
            Some(end) => (Kind::Text, end),
            None => (Kind::Other, at + 1),
        },
        b'0'..=b'9' => (Kind::Constant, number(bytes, at)),
        b'.' if next.is_some_and(|b| b.is_ascii_digit()) => (Kind::Constant, number(bytes, at)),
        byte if byte == b'_' || byte.is_ascii_alphabetic() => {
            let end = run(bytes, at, |b| b == b'_' || b.is_ascii_alphanumeric());
            let word = &bytes[at..end];
            let kind = if KEYWORDS.iter().any(|k| k.as_bytes() == word) {
                Kind::Keyword
            } else if matches!(word, b"nil" | b"true" | b"false") {
                Kind::Constant
            } else {
                Kind::Name
            };
            (kind, end)
        }
        // A character of several bytes stays whole.
        byte if byte >= 0x80 => (Kind::Other, run(bytes, at, |b| b >= 0x80)),
        _ => (Kind::Other, at + 1),
    }
}

fn run(bytes: &[u8], at: usize, belongs: impl Fn(u8) -> bool) -> usize {
    bytes[at..].iter().position(|b| !belongs(*b)).map_or(bytes.len(), |n| at + n)
}

fn comment(bytes: &[u8], at: usize) -> usize {
    long(bytes, at).unwrap_or_else(|| run(bytes, at, |b| b != b'\n'))
}

/// The end of the long bracket that begins here, if one does.
fn long(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'[') {
        return None;
    }
    let body = run(bytes, at + 1, |b| b == b'=');
    if bytes.get(body) != Some(&b'[') {
        return None;
    }
    let mut close = vec![b']'];
    close.extend_from_slice(&bytes[at + 1..body]);
    close.push(b']');
    let end = bytes[body + 1..].windows(close.len()).position(|w| w == close).map(|n| body + 1 + n + close.len());
    Some(end.unwrap_or(bytes.len()))
}

fn short(bytes: &[u8], at: usize) -> usize {
    let quote = bytes[at];
    let mut i = at + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' if bytes[i..].starts_with(b"\\z") => i = run(bytes, i + 2, |b| b.is_ascii_whitespace()),
            b'\\' => i += 2,
            b'\n' => return i,
            byte if byte == quote => return i + 1,
            _ => i += 1,
        }
    }
    // An escape may have jumped over the end, or into a character of several bytes that the end belongs to.
    bytes.len()
}

fn number(bytes: &[u8], at: usize) -> usize {
    let hex = bytes[at] == b'0' && matches!(bytes.get(at + 1), Some(b'x' | b'X'));
    let mut i = if hex { at + 2 } else { at };
    while let Some(byte) = bytes.get(i) {
        let exponent = if hex { matches!(byte, b'p' | b'P') } else { matches!(byte, b'e' | b'E') };
        if exponent && matches!(bytes.get(i + 1), Some(b'+' | b'-')) {
            i += 2;
        } else if byte.is_ascii_alphanumeric() || (*byte == b'.' && bytes.get(i + 1) != Some(&b'.')) {
            i += 1;
        } else {
            break;
        }
    }
    i
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind, text: &str) -> Vec<&str> {
        pieces(text).into_iter().filter(|(k, _)| *k == kind).map(|(_, range)| &text[range]).collect()
    }

    #[test]
    fn every_kind_is_found() {
        let text = "local x = 0x1p-3 + .5 .. 'a\\'b' -- say\nreturn [==[ ]] ]==], nil, x1e5";
        assert_eq!(of(Kind::Keyword, text), ["local", "return"]);
        assert_eq!(of(Kind::Constant, text), ["0x1p-3", ".5", "nil"]);
        assert_eq!(of(Kind::Text, text), ["'a\\'b'", "[==[ ]] ]==]"]);
        assert_eq!(of(Kind::Comment, text), ["-- say"]);
        assert_eq!(of(Kind::Name, text), ["x", "x1e5"]);
    }

    #[test]
    fn numbers_do_not_eat_the_operators_behind_them() {
        assert_eq!(of(Kind::Constant, "1..2"), ["1", ".2"]);
        assert_eq!(of(Kind::Constant, "1e+5-3"), ["1e+5", "3"]);
        assert_eq!(of(Kind::Constant, "0xAp+1+1"), ["0xAp+1", "1"]);
        assert_eq!(of(Kind::Constant, "3e-"), ["3e-"]);
    }

    #[test]
    fn what_is_unfinished_reaches_to_the_end() {
        for text in ["\"abc", "'a\\", "[[x\ny", "--[=[ x", "'\\z  ", "[", "[=", "\"\\ü"] {
            let all = pieces(text);
            assert_eq!(all.last().unwrap().1.end, text.len(), "{text}");
        }
        assert_eq!(of(Kind::Text, "\"abc\nx"), ["\"abc"]);
    }

    #[test]
    fn any_text_is_covered_without_holes_and_on_characters() {
        let alphabet = ["[", "=", "]", "-", "\"", "'", "\\", "z", "é", "漢", "\n", "0", "x", ".", "e", "+", " ", "end", "\0"];
        let mut seed = 1u32;
        for _ in 0..5000 {
            let mut text = String::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                text.push_str(alphabet[(seed >> 16) as usize % alphabet.len()]);
            }
            let mut at = 0;
            for (_, range) in pieces(&text) {
                assert_eq!(range.start, at, "{text:?}");
                assert!(text.get(range.clone()).is_some() && !range.is_empty(), "{text:?} {range:?}");
                at = range.end;
            }
            assert_eq!(at, text.len(), "{text:?}");
        }
    }
}
