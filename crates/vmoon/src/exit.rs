//! Exit codes: from results and errors to what the shell sees.

use crate::out::Out;
use std::{error::Error as _, io, process::ExitCode};
use vmoon_core::{Code, Error, Result};

/// What the process ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit(pub(crate) u8);

/// From the least to the most severe: what a run over several machines ends with is the last of these that occurred.
const SEVERITY: &[u8] = &[0, 130, 5, 3, 2, 4, 9, 8, 10, 6, 7, 1];

impl Exit {
    /// Everything went well.
    pub(crate) const OK: Self = Self(0);

    /// The exit of an error.
    pub(crate) fn of(error: &Error) -> Self {
        Self(error.code().exit())
    }

    /// The more severe of two.
    pub(crate) fn worse(self, other: Self) -> Self {
        let rank = |exit: Self| SEVERITY.iter().position(|code| *code == exit.0).unwrap_or(SEVERITY.len());
        if rank(other) > rank(self) { other } else { self }
    }
}

/// Prints the error, if there is one, and turns the result into an exit code.
pub(crate) fn code(out: &Out, result: Result<Exit>) -> ExitCode {
    match result {
        Ok(exit) => ExitCode::from(exit.0),
        // Whoever read our output has seen enough: there is nobody to tell.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            out.error(&error);
            ExitCode::from(error.code().exit())
        }
    }
}

/// Whether the reader of our standard output has gone.
pub(crate) fn is_broken_pipe(error: &Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    error.code() == Code::FileFailed && source.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_severe_code_wins_whatever_the_order() {
        for (a, b, worst) in [(0, 3, 3), (3, 4, 4), (4, 8, 8), (8, 1, 1), (7, 1, 1), (3, 3, 3), (0, 0, 0), (130, 0, 130)] {
            assert_eq!(Exit(a).worse(Exit(b)), Exit(worst), "{a} {b}");
            assert_eq!(Exit(b).worse(Exit(a)), Exit(worst), "{b} {a}");
        }
    }

    #[test]
    fn every_exit_code_has_a_severity() {
        for code in Code::ALL {
            assert!(SEVERITY.contains(&code.exit()), "{code}");
        }
    }

    #[test]
    fn only_a_broken_pipe_is_quiet() {
        assert!(is_broken_pipe(&Error::io("write", io::Error::from(io::ErrorKind::BrokenPipe))));
        assert!(!is_broken_pipe(&Error::io("write", io::Error::from(io::ErrorKind::StorageFull))));
        assert!(!is_broken_pipe(&Error::new(Code::FileFailed, "x")));
    }
}
