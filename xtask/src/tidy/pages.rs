//! The pages for people: what they name must exist, and the tour of the architecture stays short.

use super::{Finding, Source};

/// Folders whose paths are checked where a page names them in backquotes.
const ROOTS: &[&str] = &["crates/", "xtask/", "docs/", "packaging/", ".ci/"];
/// Pages that speak of the past or of other states of the tree.
const RECORDS: &[&str] = &["CHANGELOG.md", "docs/decisions/"];
/// How long `ARCHITECTURE.md` may be, in lines.
const TOUR: usize = 300;

pub(super) fn check(sources: &[Source], findings: &mut Vec<Finding>) {
    for page in sources.iter().filter(|source| source.path.ends_with(".md")) {
        if page.path == "ARCHITECTURE.md" && page.text.lines().count() > TOUR {
            findings.push(Finding::error(&page.path, 0, format!("over {TOUR} lines: it is a map, not the country")));
        }
        if RECORDS.iter().any(|record| page.path.starts_with(record)) {
            continue;
        }
        for (at, line) in page.text.lines().enumerate() {
            for path in named(line) {
                if !exists(sources, path) {
                    findings.push(Finding::error(&page.path, at + 1, format!("`{path}` does not exist")));
                }
            }
        }
    }
}

/// The paths of this repository that a line names in backquotes. Patterns such as `crates/driver-NAME` and `docs/*` are not paths.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter(|text| {
        ROOTS.iter().any(|root| text.starts_with(root))
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "/._-".contains(c))
    })
}

fn exists(sources: &[Source], path: &str) -> bool {
    let folder = format!("{}/", path.trim_end_matches('/'));
    sources.iter().any(|source| source.path == path || source.path.starts_with(&folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let sources =
            [Source { path: path.into(), text: text.into() }, Source { path: "crates/core/src/codes.rs".into(), text: String::new() }];
        let mut findings = Vec::new();
        check(&sources, &mut findings);
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn what_a_page_names_exists() {
        assert_eq!(
            found("README.md", "x\nsee `crates/core/src/cods.rs`\n"),
            ["error: README.md:2: `crates/core/src/cods.rs` does not exist"]
        );
        assert!(found("README.md", "`crates/core/src/codes.rs` `crates/core` `crates/driver-NAME` `crates/*/src`\n").is_empty());
        assert!(found("docs/decisions/0001-x.md", "`crates/old`\n").is_empty(), "decisions speak of their day");
    }

    #[test]
    fn the_tour_stays_short() {
        assert!(found("ARCHITECTURE.md", &"x\n".repeat(300)).is_empty());
        assert_eq!(found("ARCHITECTURE.md", &"x\n".repeat(301)).len(), 1);
    }
}
