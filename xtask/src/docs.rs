//! `cargo xtask docs`: the pages of `docs/reference/` that are printed by the code they describe.
//!
//! Each page is the standard output of a helper binary of the crate that owns the facts. Nothing here knows what a page says.

use crate::{cargo, say};
use std::fs;
use std::path::Path;

/// What to do with a page that differs from the code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Write it.
    Write,
    /// Say so and fail.
    Check,
}

/// One generated page.
struct Page {
    /// Below `docs/reference/`.
    file: &'static str,
    /// What to give to `cargo run --quiet`.
    run: &'static [&'static str],
}

/// Every generated page. A new one is a line here and a helper that prints it.
const PAGES: &[Page] = &[
    Page { file: "machine-states.md", run: &["-p", "vmoon-core", "--example", "reference", "--", "machine-states"] },
    Page { file: "errors.md", run: &["-p", "vmoon-core", "--example", "reference", "--", "errors"] },
    Page { file: "cli.md", run: &["-p", "vmoon", "--", "help-markdown"] },
    Page { file: "isolation.md", run: &["-p", "vmoon-confine", "--example", "isolation"] },
    Page { file: "api.md", run: &["-p", "vmoon-api", "--example", "api-reference"] },
];

/// Writes or compares every page.
///
/// # Errors
/// Which pages have no working helper, and in [`Mode::Check`] which differ.
pub(crate) fn run(root: &Path, mode: Mode) -> Result<(), String> {
    let folder = root.join("docs/reference");
    let mut problems = Vec::new();
    for page in PAGES {
        let path = folder.join(page.file);
        let wanted = match generate(root, page) {
            Ok(text) => text,
            Err(problem) => {
                problems.push(format!("docs/reference/{}: {problem}", page.file));
                continue;
            }
        };
        let found = fs::read_to_string(&path).unwrap_or_default();
        match (compare(&found, &wanted), mode) {
            (None, _) => {}
            (Some(_), Mode::Write) => {
                fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &wanted)).map_err(|e| format!("{}: {e}", path.display()))?;
                say::line(format_args!("wrote docs/reference/{}", page.file));
            }
            (Some(line), Mode::Check) => {
                problems.push(format!("docs/reference/{} differs from the code at line {line}; run `cargo xtask docs`", page.file));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// The number of the first line that differs.
fn compare(found: &str, wanted: &str) -> Option<usize> {
    if found == wanted {
        return None;
    }
    let same = found.lines().zip(wanted.lines()).take_while(|(a, b)| a == b).count();
    Some(same + 1)
}

fn generate(root: &Path, page: &Page) -> Result<String, String> {
    let mut args = vec!["run", "--quiet"];
    args.extend(page.run);
    let shown = format!("cargo {}", args.join(" "));
    let out = cargo::command(root, &args).output().map_err(|e| format!("{shown}: {e}"))?;
    if !out.status.success() {
        return Err(format!("no page from `{shown}` ({})\n{}", out.status, String::from_utf8_lossy(&out.stderr).trim_end()));
    }
    let text = String::from_utf8(out.stdout).map_err(|_| format!("`{shown}` printed something that is not UTF-8"))?;
    if text.trim().is_empty() { Err(format!("`{shown}` printed nothing")) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_named() {
        assert_eq!(compare("a\nb\n", "a\nb\n"), None);
        assert_eq!(compare("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(compare("", "a\n"), Some(1));
        assert_eq!(compare("a\n", "a"), Some(2), "a missing last newline is a difference");
    }

    #[test]
    fn a_missing_helper_is_a_clear_failure() {
        let page = Page { file: "none.md", run: &["-p", "vmoon-xtask", "--example", "no-such-helper"] };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let problem = generate(&root, &page).expect_err("there is no such example");
        assert!(problem.contains("no-such-helper"), "{problem}");
    }

    #[test]
    fn no_page_stands_twice() {
        for (at, page) in PAGES.iter().enumerate() {
            assert!(PAGES[..at].iter().all(|other| other.file != page.file), "{}", page.file);
        }
    }
}
