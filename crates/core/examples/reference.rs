//! Prints a reference page of core: `machine-states` or `errors`. The documentation task writes it to `docs/reference/`.

use std::process::ExitCode;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is all that this program is for")]
fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("machine-states") => print!("{}", vmoon_core::reference::machine_states()),
        Some("errors") => print!("{}", vmoon_core::reference::errors()),
        _ => {
            eprintln!("usage: reference machine-states|errors");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
