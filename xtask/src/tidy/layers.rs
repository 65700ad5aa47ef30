//! What a layer must not do: the invariants of `ARCHITECTURE.md` that show in the code and not in a dependency list.
//!
//! Only code that ships is looked at; tests may do what they like.

use super::{Finding, Source};

/// Code that only thinks: no file, no network, no process, no thread, no clock, no environment.
const PURE: &[&str] = &["crates/core/src/", "crates/lua-wire/src/"];

/// What such code does not name.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::os::unix::net",
    "std::process",
    "std::thread",
    "std::env",
    "Instant::now",
    "SystemTime",
    "now_v7",
    "new_v4",
    "tokio::",
    "rustix::",
    "libc::",
];

/// What only one layer does: the word, where it may stand, why.
const OWNED: &[(&str, &[&str], &str)] = &[
    (
        "process::Command",
        &["crates/sys/src/", "xtask/src/"],
        "processes are started through vmoon_sys::process, which takes argv only, drains pipes and ends the whole group",
    ),
    (
        "fs::write(",
        &["crates/sys/src/", "xtask/src/"],
        "files that matter are written through vmoon_sys::atomic: whole or not at all, also after a crash",
    ),
    ("SystemTime::now", &["crates/sys/src/"], "the clock is vmoon_sys::clock, passed in"),
];

pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    if !source.is_rust() || source.is_test() || source.path.starts_with("xtask/src/tidy/") {
        return;
    }
    pure(source, findings);
    owned(source, findings);
}

fn pure(source: &Source, findings: &mut Vec<Finding>) {
    if !PURE.iter().any(|folder| source.path.starts_with(folder)) {
        return;
    }
    for (at, line) in source.shipped() {
        for word in IMPURE {
            if line.contains(word) {
                findings.push(Finding::error(
                    &source.path,
                    at,
                    format!("`{word}`: this crate does no I/O and has no clock; take it as an argument"),
                ));
            }
        }
    }
}

fn owned(source: &Source, findings: &mut Vec<Finding>) {
    for (word, owners, why) in OWNED {
        if owners.iter().any(|folder| source.path.starts_with(folder)) {
            continue;
        }
        for (at, line) in source.shipped() {
            if line.contains(word) {
                findings.push(Finding::error(&source.path, at, format!("`{word}` outside {}: {why}", owners[0])));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;

    #[test]
    fn core_and_the_wire_do_no_io() {
        for word in IMPURE {
            let text = format!("//! A.\nlet x = {word};\n");
            assert!(!findings(check, "crates/core/src/a.rs", &text).is_empty(), "{word}");
            assert!(!findings(check, "crates/lua-wire/src/a.rs", &text).is_empty(), "{word}");
        }
        assert!(findings(check, "crates/core/src/a.rs", "//! Not std::fs.\n#[cfg(test)]\nuse std::fs;\n").is_empty());
        assert!(findings(check, "crates/core/examples/a.rs", "//! A.\nuse std::env;\n").is_empty());
        assert!(findings(check, "crates/daemon/src/a.rs", "//! A.\nuse std::fs;\n").is_empty());
    }

    #[test]
    fn only_sys_starts_processes_writes_files_and_reads_the_clock() {
        for (word, _, _) in OWNED {
            let text = format!("//! A.\nlet x = std::{word};\n");
            assert_eq!(findings(check, "crates/daemon/src/a.rs", &text).len(), 1, "{word}");
            assert!(findings(check, "crates/sys/src/a.rs", &text).is_empty(), "{word}");
            assert!(findings(check, "crates/daemon/tests/a.rs", &text).is_empty(), "{word}");
        }
    }
}
