//! `cargo xtask ci`: everything that must hold before a change lands, on a fresh machine, without a question.
//!
//! Every step runs even if one before it failed, so that one run shows all there is to fix. The tests come last: their output closes the run.

use crate::{cargo, clients, docs, flavours, install, say, tidy};
use std::path::Path;
use std::time::{Duration, Instant};

/// Runs all steps; `install` says whether missing components may be installed.
///
/// # Errors
/// The names of the steps that failed.
pub(crate) fn run(root: &Path, install: bool) -> Result<(), String> {
    let mut steps = Steps { say: |text| say::line(text), done: Vec::new(), failed: Vec::new() };
    steps.step("components", || if install { install::run().and_then(|()| clients::install(root)) } else { install::report() });
    steps.step("format", || cargo::run(root, &["fmt", "--all", "--check"]));
    steps.step("clippy", || {
        cargo::run(
            root,
            &["clippy", "--workspace", "--all-targets", "--features", "vmoon/demo", "--quiet", "--keep-going", "--", "-D", "warnings"],
        )
    });
    steps.step("tidy", || tidy::run(root));
    steps.step("docs", || docs::run(root, docs::Mode::Check));
    steps.summary();
    // The demonstration is left out of what people build, not of what is tested.
    say::line("== tests: cargo test --workspace --features vmoon/demo");
    if let Err(problem) = cargo::run(root, &["test", "--workspace", "--features", "vmoon/demo", "--no-fail-fast"]) {
        say::problem(problem);
        steps.failed.push("tests");
    }
    say::line("== flavours: cargo xtask flavours --test");
    if let Err(problem) = flavours::test(root) {
        say::problem(problem);
        steps.failed.push("flavours");
    }
    if steps.failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", steps.failed.join(", "))) }
}

/// The steps so far.
struct Steps {
    /// Where headlines go.
    say: fn(&str),
    done: Vec<(&'static str, Duration)>,
    failed: Vec<&'static str>,
}

impl Steps {
    fn step(&mut self, name: &'static str, run: impl FnOnce() -> Result<(), String>) {
        (self.say)(&format!("== {name}"));
        let begun = Instant::now();
        let result = run();
        let took = begun.elapsed();
        match result {
            Ok(()) => (self.say)(&format!("== {name}: ok ({:.1} s)", took.as_secs_f64())),
            Err(problem) => {
                (self.say)(&format!("{problem}\n== {name}: FAILED ({:.1} s)", took.as_secs_f64()));
                self.failed.push(name);
            }
        }
        self.done.push((name, took));
    }

    fn summary(&self) {
        let steps: Vec<String> = self
            .done
            .iter()
            .map(|(name, took)| format!("{name} {} {:.1} s", if self.failed.contains(name) { "FAILED" } else { "ok" }, took.as_secs_f64()))
            .collect();
        (self.say)(&format!("== so far: {}", steps.join(" · ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_does_not_hide_the_next() {
        let mut steps = Steps { say: |_| {}, done: Vec::new(), failed: Vec::new() };
        let mut ran = Vec::new();
        steps.step("first", || Err("no".into()));
        steps.step("second", || {
            ran.push("second");
            Ok(())
        });
        assert_eq!(ran, ["second"]);
        assert_eq!(steps.failed, ["first"]);
    }
}
