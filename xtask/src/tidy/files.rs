//! Which files tidy looks at: every text file of the repository, not what is built from it.

use super::Source;
use std::path::Path;
use std::{fs, io};

/// Folders that are not ours to tidy.
const SKIPPED: &[&str] = &[".git", "target", "node_modules"];

/// Reads every text file below `root`, in a fixed order. Links and files that are not UTF-8 or hold NUL bytes are passed over.
///
/// # Errors
/// A folder or file that cannot be read.
pub(super) fn read(root: &Path) -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    walk(root, "", &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn walk(folder: &Path, prefix: &str, sources: &mut Vec<Source>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let kind = entry.file_type()?;
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            walk(&entry.path(), &format!("{prefix}{name}/"), sources)?;
        } else if kind.is_file()
            && let Ok(text) = String::from_utf8(fs::read(entry.path())?)
            && !text.contains('\0')
        {
            sources.push(Source { path: format!("{prefix}{name}"), text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_finds_sources_and_not_what_is_built() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let sources = read(&root).expect("the repository can be read");
        assert!(sources.iter().any(|source| source.path == "crates/core/src/lib.rs"));
        assert!(sources.iter().any(|source| source.path == ".ci/run"));
        assert!(sources.iter().all(|source| !source.path.starts_with("target/") && !source.path.starts_with(".git/")));
    }
}
