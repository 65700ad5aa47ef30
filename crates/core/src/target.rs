//! Targets as people write them: `[CONNECTION:]MACHINE[/SESSION]`.

use crate::{Code, Error, Result};

/// The session that is opened by first use.
pub const MAIN: &str = "main";

/// A parsed target. The parts are not yet looked up; the machine may be a name, a glob, an id or a prefix of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The connection, if one was named.
    pub connection: Option<String>,
    /// Name, id or id prefix of the machine; a glob where the verb takes several.
    pub machine: String,
    /// The session, if one was named.
    pub session: Option<String>,
}

impl Target {
    /// Parses what a user wrote.
    ///
    /// # Errors
    /// [`Code::Usage`] when a part is empty.
    pub fn parse(text: &str) -> Result<Self> {
        let (connection, rest) = match text.split_once(':') {
            Some((connection, rest)) => (Some(connection), rest),
            None => (None, text),
        };
        let (machine, session) = match rest.split_once('/') {
            Some((machine, session)) => (machine, Some(session)),
            None => (rest, None),
        };
        if machine.is_empty() || connection == Some("") || session == Some("") {
            return Err(Error::new(Code::Usage, format!("\"{}\" names no machine", crate::name::escape(text)))
                .hint("write [CONNECTION:]MACHINE[/SESSION], for example web01 or xcp-lab:web01/main"));
        }
        Ok(Self { connection: connection.map(Into::into), machine: machine.into(), session: session.map(Into::into) })
    }

    /// The session named, or `main`.
    pub fn session(&self) -> &str {
        self.session.as_deref().unwrap_or(MAIN)
    }

    /// Whether the machine part is a pattern (`*`, `?`, `[`).
    pub fn is_glob(&self) -> bool {
        self.machine.contains(['*', '?', '['])
    }
}

/// Whether `pattern` (`*`, `?`, `[a-z]`, `[!a-z]`) matches the whole of `text`.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut i, mut j) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while j < t.len() {
        let advance = match p.get(i) {
            Some('*') => {
                star = Some((i, j));
                i += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => class(&p[i..], t[j]),
            Some(c) if *c == t[j] => Some(1),
            _ => None,
        };
        match (advance, star) {
            (Some(n), _) => (i, j) = (i + n, j + 1),
            (None, Some((si, sj))) => {
                (i, j) = (si + 1, sj + 1);
                star = Some((si, sj + 1));
            }
            (None, None) => return false,
        }
    }
    p[i..].iter().all(|c| *c == '*')
}

/// Whether a `[` of the pattern is not closed: it stands for itself then, which is seldom what was meant.
pub fn is_broken(pattern: &str) -> bool {
    let mut rest = pattern;
    while let Some((_, class)) = rest.split_once('[') {
        let first = if class.starts_with('!') { 2 } else { 1 };
        let Some(end) = class.char_indices().skip(first).find(|(_, c)| *c == ']') else { return true };
        rest = &class[end.0 + 1..];
    }
    false
}

/// If `pattern` begins with a class that contains `c`: how many characters of the pattern it takes.
fn class(pattern: &[char], c: char) -> Option<usize> {
    let negated = pattern.get(1) == Some(&'!');
    let first = if negated { 2 } else { 1 };
    let Some(end) = pattern.iter().skip(first + 1).position(|x| *x == ']').map(|n| n + first + 1) else {
        return (c == '[').then_some(1);
    };
    let (mut i, mut inside) = (first, false);
    while i < end {
        if pattern.get(i + 1) == Some(&'-') && i + 2 < end {
            inside |= (pattern[i]..=pattern[i + 2]).contains(&c);
            i += 3;
        } else {
            inside |= pattern[i] == c;
            i += 1;
        }
    }
    (inside != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let t = Target::parse("xcp-lab:web01/log").unwrap();
        assert_eq!((t.connection.as_deref(), t.machine.as_str(), t.session()), (Some("xcp-lab"), "web01", "log"));
        assert_eq!(Target::parse("web01").unwrap().session(), MAIN);
        for bad in ["", ":x", "x/", "c:", "/s"] {
            assert_eq!(Target::parse(bad).unwrap_err().code(), Code::Usage, "{bad}");
        }
    }

    #[test]
    fn a_class_is_closed_or_broken() {
        for (pattern, broken) in
            [("a[0-3]*[!x]", false), ("a[0", true), ("[]]", false), ("[]", true), ("[!]", true), ("a[b]c[", true), ("ab]", false)]
        {
            assert_eq!(is_broken(pattern), broken, "{pattern}");
        }
    }

    #[test]
    fn globs() {
        for (pattern, text, expect) in [
            ("web*", "web01", true),
            ("*", "", true),
            ("w?b", "web", true),
            ("w?b", "wb", false),
            ("*01*", "web01x", true),
            ("web[0-3]", "web2", true),
            ("web[!0-3]", "web2", false),
            ("a*b*c", "axxbxxc", true),
            ("a*b", "axbx", false),
            ("[", "[", true),
        ] {
            assert_eq!(glob(pattern, text), expect, "{pattern} {text}");
        }
    }
}
