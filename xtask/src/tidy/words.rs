//! Words that may not stand in the sources: unfinished work, silenced lints, empty type names, paths of somebody's machine.
//!
//! Patterns are glued together here so that this file does not find itself.

use super::{Finding, Source};

/// What may not stand in Rust code, and what to do instead.
const BANNED: &[(&str, &str)] = &[
    (concat!("todo", "!("), "finish it, or leave the ability out"),
    (concat!("unimplemented", "!("), "finish it, or leave the ability out"),
    (concat!("#[", "ignore"), "a test that is not run is not a test: fix it or delete it"),
    (concat!("#[", "allow("), "use #[expect(lint, reason = \"…\")], which complains when it is no longer needed"),
    (concat!("#![", "allow("), "use #[expect(lint, reason = \"…\")] on the smallest item"),
];

/// Ends of type and file names that say nothing about the thing.
const EMPTY_NAMES: &[&str] = &["Manager", "Helper", "Helpers", "Util", "Utils"];

/// Where people's files are.
const HOMES: &[&str] = &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Use", "rs/")];

/// Names that stand for nobody in particular.
const NOBODY: &[&str] = &["user", "you", "me", "alice", "bob", "$"];

pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    if source.is_rust() {
        banned(source, findings);
        type_names(source, findings);
        file_name(source, findings);
    }
    homes(source, findings);
}

fn banned(source: &Source, findings: &mut Vec<Finding>) {
    for (at, line) in source.text.lines().enumerate() {
        for (word, instead) in BANNED {
            if line.contains(word) {
                findings.push(Finding::error(&source.path, at + 1, format!("`{word}`: {instead}")));
            }
        }
    }
}

fn type_names(source: &Source, findings: &mut Vec<Finding>) {
    for (at, line) in source.text.lines().enumerate() {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            if !["struct", "enum", "trait", "union", "type"].contains(&word) {
                continue;
            }
            if let Some(name) = words.next()
                && EMPTY_NAMES.iter().any(|empty| name.ends_with(empty))
            {
                findings.push(Finding::error(&source.path, at + 1, format!("`{name}` does not say what it is; name the noun it owns")));
            }
        }
    }
}

fn file_name(source: &Source, findings: &mut Vec<Finding>) {
    let name = source.path.rsplit('/').find(|part| *part != "mod.rs").unwrap_or_default().trim_end_matches(".rs");
    if EMPTY_NAMES.iter().any(|empty| name.eq_ignore_ascii_case(empty)) {
        findings.push(Finding::error(&source.path, 0, "the file's name does not say what is in it"));
    }
}

fn homes(source: &Source, findings: &mut Vec<Finding>) {
    for (at, line) in source.text.lines().enumerate() {
        for home in HOMES {
            for (start, _) in line.match_indices(home) {
                // Below another folder (`lib/home/`) it is somebody else's.
                let inside = line[..start].ends_with(|c: char| c.is_alphanumeric() || "_.-".contains(c));
                let owner = &line[start + home.len()..];
                if !inside && !NOBODY.iter().any(|nobody| owner.starts_with(nobody)) {
                    findings.push(Finding::error(&source.path, at + 1, format!("a path below `{home}` is of somebody's machine")));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;

    #[test]
    fn unfinished_and_silenced_code_is_found() {
        for (word, _) in BANNED {
            assert_eq!(findings(banned, "a.rs", &format!("//! A.\n    {word}x\n")).len(), 1, "{word}");
        }
        assert!(findings(banned, "a.rs", "#[expect(dead_code, reason = \"x\")]\n// to do\n").is_empty());
    }

    #[test]
    fn types_are_called_by_what_they_are() {
        for (kind, empty) in ["pub struct", "enum", "pub(crate) trait", "union", "type"].iter().zip(EMPTY_NAMES) {
            let bad = format!("{kind} Vm{empty}<T> {{");
            assert_eq!(findings(type_names, "a.rs", &bad).len(), 1, "{bad}");
        }
        for good in ["struct Machine;", "enum Utility {", "use x::SomethingManager;", "// the manager of"] {
            assert!(findings(type_names, "a.rs", good).is_empty(), "{good}");
        }
    }

    #[test]
    fn files_are_called_by_what_is_in_them() {
        assert_eq!(findings(file_name, "crates/x/src/utils.rs", "").len(), 1);
        assert_eq!(findings(file_name, "crates/x/src/helper/mod.rs", "").len(), 1);
        assert!(findings(file_name, "crates/x/src/machine/mod.rs", "").is_empty());
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        let home = HOMES[0];
        assert_eq!(findings(homes, "README.md", &format!("see {home}maria/x")).len(), 1);
        assert_eq!(findings(homes, "README.md", &format!("see {}x", HOMES[1])).len(), 1);
        assert!(findings(homes, "README.md", &format!("{home}user/x and {home}$USER and lib{home}x")).is_empty());
    }
}
