//! The shape of files: how long, how they begin, how their lines end.

use super::{Finding, Source};

/// From here a Rust file should be split.
const LONG: usize = 600;
/// From here it must be.
const TOO_LONG: usize = 800;

pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    length(source, findings);
    beginning(source, findings);
    line_ends(source, findings);
}

fn length(source: &Source, findings: &mut Vec<Finding>) {
    let lines = source.text.lines().count();
    if !source.is_rust() || lines <= LONG {
        return;
    }
    let text = format!("{lines} lines; a file has one subject: split it before it passes {TOO_LONG}");
    let finding = if lines > TOO_LONG { Finding::error } else { Finding::warning };
    findings.push(finding(&source.path, 0, text));
}

fn beginning(source: &Source, findings: &mut Vec<Finding>) {
    if source.is_rust() && !source.text.starts_with("//! ") {
        findings.push(Finding::error(&source.path, 1, "a file begins with `//! ` and says what it is for and what it must not know"));
    }
}

fn line_ends(source: &Source, findings: &mut Vec<Finding>) {
    // Golden files hold what a program printed, to the byte.
    if source.path.contains("/golden/") {
        return;
    }
    for (at, line) in source.text.split('\n').enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::error(&source.path, at + 1, "white space at the end of the line"));
        }
    }
    if !source.text.is_empty() && !source.text.ends_with('\n') {
        findings.push(Finding::error(&source.path, 0, "no newline at the end of the file"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;

    fn lines(n: usize) -> String {
        format!("//! Doc.\n{}", "x\n".repeat(n - 1))
    }

    #[test]
    fn a_long_file_warns_and_a_longer_one_fails() {
        assert!(findings(length, "a.rs", &lines(600)).is_empty());
        assert!(findings(length, "a.rs", &lines(601))[0].starts_with("warning: a.rs: 601 lines"));
        assert!(findings(length, "a.rs", &lines(800))[0].starts_with("warning"));
        assert!(findings(length, "a.rs", &lines(801))[0].starts_with("error"));
        assert!(findings(length, "a.md", &lines(2000)).is_empty());
    }

    #[test]
    fn a_file_says_what_it_is_for() {
        assert_eq!(findings(beginning, "a.rs", "use std::fmt;\n").len(), 1);
        assert_eq!(findings(beginning, "a.rs", "//!\n").len(), 1, "an empty comment says nothing");
        assert!(findings(beginning, "a.rs", "//! Names.\n").is_empty());
        assert!(findings(beginning, "a.lua", "return 1\n").is_empty());
    }

    #[test]
    fn lines_end_clean() {
        assert_eq!(
            findings(line_ends, "a.md", "a \nb\t\nc\r\nd"),
            [
                "error: a.md:1: white space at the end of the line",
                "error: a.md:2: white space at the end of the line",
                "error: a.md:3: white space at the end of the line",
                "error: a.md: no newline at the end of the file",
            ]
        );
        assert!(findings(line_ends, "a.md", "a\n").is_empty());
        assert!(findings(line_ends, "crates/x/tests/golden/a.txt", "a \n").is_empty());
    }
}
