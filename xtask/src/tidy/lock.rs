//! The budget of dependencies: how many packages `Cargo.lock` may name. It goes up only by a line in a review.

use super::{Finding, Source};

/// The file with the number.
pub(super) const BUDGET: &str = "xtask/lock-budget";

pub(super) fn check(sources: &[Source], findings: &mut Vec<Finding>) {
    let text = |path: &str| sources.iter().find(|source| source.path == path).map(|source| source.text.as_str());
    let Some(lock) = text("Cargo.lock") else {
        findings.push(Finding::error("Cargo.lock", 0, "missing: it is checked in"));
        return;
    };
    let Some(budget) = text(BUDGET).and_then(|text| text.trim().parse::<usize>().ok()) else {
        findings.push(Finding::error(BUDGET, 1, "missing, or not a number"));
        return;
    };
    let packages = lock.lines().filter(|line| *line == "[[package]]").count();
    if packages > budget {
        let why = "what a new one replaces and weighs goes into docs/decisions/0008-dependencies.md, the number into this file";
        findings.push(Finding::error(BUDGET, 1, format!("{packages} packages, the budget is {budget}; {why}")));
    } else if packages < budget {
        findings.push(Finding::warning(BUDGET, 1, format!("only {packages} packages: lower the budget of {budget} to keep the gain")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lock: &str, budget: Option<&str>) -> Vec<String> {
        let mut sources = vec![Source { path: "Cargo.lock".into(), text: lock.into() }];
        sources.extend(budget.map(|text| Source { path: BUDGET.into(), text: text.into() }));
        let mut findings = Vec::new();
        check(&sources, &mut findings);
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn the_budget_is_a_ratchet() {
        let lock = "[[package]]\nname = \"a\"\n\n[[package]]\nname = \"b\"\n";
        assert!(found(lock, Some("2\n")).is_empty());
        assert!(found(lock, Some("1\n"))[0].starts_with("error"));
        assert!(found(lock, Some("3\n"))[0].starts_with("warning"));
        assert!(found(lock, Some("two\n"))[0].starts_with("error"));
        assert!(found(lock, None)[0].starts_with("error"));
    }
}
