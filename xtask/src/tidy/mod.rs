//! `cargo xtask tidy`: the rules of the house that no lint can hold, because they are about files, names and who depends on whom.
//!
//! A rule takes sources and returns findings; it reads no file itself, so each is tested with a bad sample. To add one: a function in the file of
//! its subject, a line in [`check`], a test.

mod deps;
mod files;
mod layers;
mod lock;
mod pages;
mod shape;
mod words;

use crate::say;
use std::fmt;
use std::path::Path;

/// One text file of the repository.
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    path: String,
    /// Its whole content.
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the file only serves tests, examples or benchmarks.
    fn is_test(&self) -> bool {
        ["tests/", "examples/", "benches/"].iter().any(|folder| self.path.starts_with(folder) || self.path.contains(&format!("/{folder}")))
            || self.path.ends_with("/tests.rs")
            || self.path.starts_with("crates/fuzz/")
            || self.path.starts_with("crates/guest-image/")
            || self.path.starts_with("crates/libvirt-lab/")
            || self.path.starts_with("crates/ssh-lab/")
    }

    /// The lines that ship, numbered from 1: without comments, and up to the unit tests at the file's end.
    fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        let lines = lines.take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// Tidy fails.
    Error,
    /// It is only said.
    Warning,
}

/// One place where a rule does not hold.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    weight: Weight,
    path: String,
    /// From 1; 0 for the whole file.
    line: usize,
    text: String,
}

impl Finding {
    fn error(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self { weight: Weight::Error, path: path.into(), line, text: text.into() }
    }

    fn warning(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self { weight: Weight::Warning, ..Self::error(path, line, text) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = if self.weight == Weight::Error { "error" } else { "warning" };
        match self.line {
            0 => write!(f, "{weight}: {}: {}", self.path, self.text),
            line => write!(f, "{weight}: {}:{line}: {}", self.path, self.text),
        }
    }
}

/// Checks the whole repository.
///
/// # Errors
/// How many rules are broken, after saying which and where; or what could not be read.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let sources = files::read(root).map_err(|e| format!("{}: {e}", root.display()))?;
    let findings = check(&sources);
    for finding in &findings {
        say::line(finding);
    }
    let errors = findings.iter().filter(|finding| finding.weight == Weight::Error).count();
    let warnings = findings.len() - errors;
    if errors > 0 {
        return Err(format!("tidy: {errors} errors, {warnings} warnings in {} files", sources.len()));
    }
    say::line(format_args!("tidy: {} files, {warnings} warnings", sources.len()));
    Ok(())
}

/// Every finding in these sources, errors first.
fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        shape::check(source, &mut findings);
        words::check(source, &mut findings);
        layers::check(source, &mut findings);
        deps::check(source, &mut findings);
    }
    lock::check(sources, &mut findings);
    pages::check(sources, &mut findings);
    findings.sort();
    findings
}

/// For the tests of the rules: the errors and warnings that a rule finds in one file.
#[cfg(test)]
fn findings(rule: fn(&Source, &mut Vec<Finding>), path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    rule(&Source { path: path.into(), text: text.into() }, &mut found);
    found.iter().map(Finding::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_before_warnings_and_say_where() {
        let long = format!("//! Long.\n{}", "\n".repeat(650));
        let sources = [
            Source { path: "a.rs".into(), text: long },
            Source { path: "b.rs".into(), text: "fn f() {} \n".into() },
            Source { path: "Cargo.lock".into(), text: "[[package]]\n".into() },
            Source { path: lock::BUDGET.into(), text: "1\n".into() },
        ];
        let shown: Vec<String> = check(&sources).iter().map(Finding::to_string).collect();
        assert_eq!(shown.len(), 3, "{shown:?}");
        assert!(shown[0].starts_with("error: b.rs:1: ") && shown[1].starts_with("error: b.rs:1: "), "{shown:?}");
        assert!(shown[2].starts_with("warning: a.rs: "), "{shown:?}");
    }

    #[test]
    fn what_ships_ends_where_the_tests_begin() {
        let text = "//! Doc.\nuse a;\n// std::fs\nfn f() {}\n#[cfg(test)]\nmod tests {\nuse std::fs;\n}\n";
        let source = Source { path: "crates/core/src/x.rs".into(), text: text.into() };
        assert_eq!(source.shipped().collect::<Vec<_>>(), [(2, "use a;"), (4, "fn f() {}")]);
        assert!(!source.is_test());
        assert!(Source { path: "crates/core/tests/x.rs".into(), text: String::new() }.is_test());
    }
}
