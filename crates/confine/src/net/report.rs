//! What a broker did: how many connections, how many refusals, and the last of these. A small text that others read.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// How many refusals are kept.
pub const KEPT: usize = 16;
/// No line is longer than this, bytes.
const LONGEST: usize = 300;

/// What a broker did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Connections that were begun.
    pub made: u64,
    /// Attempts that were refused: connections, and names asked for.
    pub refused: u64,
    /// The last refusals, the newest last, at most [`KEPT`]: what was attempted and why not.
    pub last: VecDeque<String>,
}

impl Report {
    /// Counts a refusal and remembers it; a repetition of the last one is only counted.
    pub(super) fn refuse(&mut self, what: impl fmt::Display, why: &str) {
        self.refused = self.refused.saturating_add(1);
        let mut line = String::new();
        for c in format!("{what}: {why}").chars() {
            // A name is the program's own text: nothing in it may end the line or reach a terminal.
            let fits = line.len() < LONGEST;
            let c = if c.is_control() { '?' } else { c };
            if fits {
                line.push(c);
            }
        }
        if self.last.back() == Some(&line) {
            return;
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("made {}\nrefused {}\n", self.made, self.refused);
        for line in &self.last {
            writeln!(text, "last {line}")?;
        }
        f.write_str(&text)
    }
}

impl FromStr for Report {
    type Err = String;

    /// Reads the text; lines of a kind it does not know are ignored.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut report = Self::default();
        for line in text.lines() {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            let number = || rest.parse::<u64>().map_err(|e| format!("{line:?}: {e}"));
            match kind {
                "made" => report.made = number()?,
                "refused" => report.refused = number()?,
                "last" if report.last.len() < KEPT => report.last.push_back(rest.to_owned()),
                _ => {}
            }
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_read_again() {
        let mut report = Report { made: 3, ..Report::default() };
        for n in 0..100 {
            report.refuse(format_args!("192.0.2.{n}:22"), "not granted");
            report.refuse(format_args!("192.0.2.{n}:22"), "not granted");
        }
        assert_eq!((report.refused, report.last.len()), (200, KEPT));
        assert_eq!(report.to_string().parse::<Report>().unwrap(), report);
    }

    #[test]
    fn a_hostile_name_stays_on_its_line() {
        let mut report = Report::default();
        report.refuse("a\nmade 7\n\x1b[31m", "not granted");
        report.refuse("x".repeat(5_000), "not granted");
        let read: Report = report.to_string().parse().unwrap();
        assert_eq!((read.made, read.last.len()), (0, 2));
        assert!(!read.last[0].contains('\x1b') && read.last[1].len() <= LONGEST);
        assert!("made x\n".parse::<Report>().is_err());
    }
}
