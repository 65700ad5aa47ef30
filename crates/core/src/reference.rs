//! The pages of `docs/reference/` that core can print of itself. A test compares them with the files.

use crate::codes::{Code, Retry};
use std::fmt::Write as _;

/// `docs/reference/machine-states.md`.
pub fn machine_states() -> String {
    crate::machine::table::markdown()
}

/// `docs/reference/errors.md`.
pub fn errors() -> String {
    let mut page = String::from(
        "\
# Error codes

Printed from `crates/core/src/codes.rs` by `cargo xtask docs`; a test compares. The code is
for programs and never changes once released; the sentence beside it in an answer is for people and may.

*Retry*: **never** – not before the request itself is changed; **after a change** – of the machine, session or operation;
**later** – by itself, after a while.

| code | exit status | HTTP status | retry | meaning |
|---|---|---|---|---|
",
    );
    for code in Code::ALL {
        let retry = match code.retry() {
            Retry::Never => "never",
            Retry::AfterChange => "after a change",
            Retry::Later => "later",
        };
        let meaning = code.meaning().replace('|', "\\|");
        let _ = writeln!(page, "| `{code}` | {} | {} | {retry} | {meaning} |", code.exit(), code.http());
    }
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_reference_pages_are_what_the_code_says() {
        let pages = [
            ("machine-states", super::machine_states(), include_str!("../../../docs/reference/machine-states.md")),
            ("errors", super::errors(), include_str!("../../../docs/reference/errors.md")),
        ];
        for (name, printed, file) in pages {
            assert!(printed == file, "docs/reference/{name}.md is old: run `cargo xtask docs`");
        }
    }
}
