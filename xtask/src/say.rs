//! Where xtask writes: results to stdout, problems to stderr. A closed pipe is nobody's problem.

use std::fmt::Display;
use std::io::Write;

/// One line of result.
pub(crate) fn line(text: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// One line about something that is wrong.
pub(crate) fn problem(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
