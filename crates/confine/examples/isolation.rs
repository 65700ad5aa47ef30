//! Prints the reference page of the isolation, `docs/reference/isolation.md`.

use std::process::ExitCode;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is all that this program is for")]
fn main() -> ExitCode {
    match vmoon_confine::attempts::page() {
        Ok(page) => {
            print!("{page}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}
