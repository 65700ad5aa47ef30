//! Patches of a rockspec: unified diffs, applied to the source. Exactly, or not at all.

use super::stage::{inside, wrong};
use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path},
};
use vmoon_core::{Error, Result, name::escape};
use vmoon_sys::atomic;

/// What is done to one file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    /// Its path before, with the first folder still there; `None` for a file that is new.
    from: Option<String>,
    /// Its path afterwards; `None` for a file that goes.
    to: Option<String>,
    hunks: Vec<Hunk>,
}

/// Lines that take the place of others.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hunk {
    /// The line where the old ones begin, from 1; 0 if there are none.
    line: usize,
    old: Vec<String>,
    new: Vec<String>,
}

/// Applies all patches, in the order of their names as LuaRocks does.
///
/// # Errors
/// [`vmoon_core::Code::PackageBuild`] with the patch and the line that does not fit.
pub(super) fn apply_all(patches: &BTreeMap<String, String>, source: &Path) -> Result<()> {
    for (name, text) in patches {
        let failed = |why: String| wrong(format!("the patch {} of the rockspec cannot be applied: {why}", escape(name)));
        for change in parse(text).map_err(failed)? {
            apply(&change, source).map_err(|error| failed(error.chain()))?;
        }
    }
    Ok(())
}

/// The path in a line like `--- a/src/x.c\t2020-01-01`.
fn path(rest: &str) -> Option<String> {
    let path = rest.split('\t').next().unwrap_or_default().trim();
    (path != "/dev/null").then(|| path.to_owned())
}

/// `@@ -START,COUNT +START,COUNT @@`: the old start, and both counts.
fn head(line: &str) -> Option<(usize, usize, usize)> {
    let (old, rest) = line.strip_prefix("@@ -")?.split_once(" +")?;
    let new = rest.split_once(" @@")?.0;
    let pair = |text: &str| -> Option<(usize, usize)> {
        let (start, count) = text.split_once(',').unwrap_or((text, "1"));
        Some((start.parse().ok()?, count.parse().ok()?))
    };
    let (start, old) = pair(old)?;
    Some((start, old, pair(new)?.1))
}

fn parse(text: &str) -> Result<Vec<Change>, String> {
    let mut changes: Vec<Change> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(from) = line.strip_prefix("--- ").filter(|_| lines.peek().is_some_and(|next| next.starts_with("+++ "))) {
            let to = lines.next().and_then(|next| next.strip_prefix("+++ ")).unwrap_or_default();
            changes.push(Change { from: path(from), to: path(to), hunks: Vec::new() });
            continue;
        }
        if !line.starts_with("@@ ") {
            // Words between the changes, as git writes them. What has no text form cannot be applied.
            if line.starts_with("GIT binary patch") || line.starts_with("rename ") || line.starts_with("copy ") {
                return Err(format!("\"{}\" is not understood", escape(line)));
            }
            continue;
        }
        let bad = || format!("the line \"{}\" is wrong", escape(line));
        let (start, mut old, mut new) = head(line).ok_or_else(bad)?;
        let change = changes.last_mut().ok_or_else(bad)?;
        let mut hunk = Hunk { line: start, ..Hunk::default() };
        while old > 0 || new > 0 {
            let line = lines.next().ok_or("it ends in the middle")?;
            let (sign, rest) = (line.bytes().next().unwrap_or(b' '), line.get(1..).unwrap_or_default().to_owned());
            if sign == b'\\' {
                continue; // "No newline at end of file"
            }
            let (in_old, in_new) = (matches!(sign, b' ' | b'-'), matches!(sign, b' ' | b'+'));
            if !(in_old || in_new) || (in_old && old == 0) || (in_new && new == 0) {
                return Err(format!("the line \"{}\" is wrong", escape(line)));
            }
            if in_old {
                hunk.old.push(rest.clone());
                old -= 1;
            }
            if in_new {
                hunk.new.push(rest);
                new -= 1;
            }
        }
        change.hunks.push(hunk);
    }
    if changes.is_empty() { Err("it holds no change".into()) } else { Ok(changes) }
}

/// The path in the source: as it is written, or without its first folder (`a/`, `b/`, or that of the archive).
fn locate(path: &str, source: &Path, must_exist: bool) -> Result<String> {
    let parts: Vec<_> = Path::new(path).components().collect();
    if parts.is_empty() || parts.iter().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(wrong(format!("{} leads out of the source", escape(path))));
    }
    let shorter = path.split_once('/').map(|(_, rest)| rest.to_owned());
    let candidates: Vec<String> = [Some(path.to_owned()), shorter.clone()].into_iter().flatten().collect();
    if must_exist {
        let found = candidates.into_iter().find(|path| source.join(path).is_file());
        return found.ok_or_else(|| wrong(format!("the source has no file {}", escape(path))));
    }
    // A new file lies where its folder is.
    let folder = |path: &String| source.join(path).parent().is_some_and(Path::is_dir);
    Ok(match shorter {
        Some(shorter) if path.starts_with("a/") || path.starts_with("b/") || folder(&shorter) => shorter,
        _ => path.to_owned(),
    })
}

fn apply(change: &Change, source: &Path) -> Result<()> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| Error::io(format_args!("read {}", path.display()), error));
    let (old, at) = match &change.from {
        Some(from) => {
            let path = inside(source, &locate(from, source, true)?)?;
            (read(&path)?, Some(path))
        }
        None => (String::new(), None),
    };
    let new = patched(&old, &change.hunks).map_err(wrong)?;
    match (&change.to, at) {
        (None, Some(path)) => fs::remove_file(&path).map_err(|error| Error::io(format_args!("remove {}", path.display()), error)),
        (Some(_), Some(path)) => atomic::write(&path, new.as_bytes()),
        (Some(to), None) => {
            let path = source.join(locate(to, source, false)?);
            if fs::symlink_metadata(&path).is_ok() {
                return Err(wrong(format!("{} is there already", escape(to))));
            }
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(|error| Error::io(format_args!("make {}", parent.display()), error))?;
                let relative = parent.strip_prefix(source).ok().and_then(Path::to_str).unwrap_or_default();
                inside(source, relative)?;
            }
            atomic::write(&path, new.as_bytes())
        }
        (None, None) => Ok(()),
    }
}

/// The text with all hunks applied. A hunk whose lines have moved is looked for nearby; its lines must be there exactly.
fn patched(text: &str, hunks: &[Hunk]) -> Result<String, String> {
    let end = if text.ends_with('\n') || text.is_empty() { "\n" } else { "" };
    let lines: Vec<&str> = text.lines().collect();
    let mut out: Vec<&str> = Vec::new();
    let (mut done, mut shift) = (0, 0_isize);
    for hunk in hunks {
        let fits = |at: usize| {
            at >= done && lines.get(at..at + hunk.old.len()).is_some_and(|found| found.iter().zip(&hunk.old).all(|(a, b)| a == b))
        };
        let wanted = if hunk.old.is_empty() { hunk.line } else { hunk.line.saturating_sub(1) };
        let wanted = wanted.saturating_add_signed(shift);
        let near = (0..=lines.len()).flat_map(|away| [wanted.checked_sub(away), wanted.checked_add(away)]).flatten();
        let at = near.into_iter().find(|at| fits(*at)).ok_or_else(|| format!("the lines at {} are not as it expects", hunk.line))?;
        shift = at as isize - (wanted as isize - shift);
        out.extend(&lines[done..at]);
        out.extend(hunk.new.iter().map(String::as_str));
        done = at + hunk.old.len();
    }
    out.extend(&lines[done..]);
    let mut text = out.join("\n");
    if !out.is_empty() {
        text.push_str(end);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "diff --git a/x.lua b/x.lua\n--- a/x.lua\t2020-01-01\n+++ b/x.lua\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n@@ -5 +5,2 @@\n-five\n+5\n+5b\n--- /dev/null\n+++ b/d/new.lua\n@@ -0,0 +1 @@\n+return 1\n--- a/old\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n";

    #[test]
    fn a_patch_changes_makes_and_removes_files() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        // Two lines more at the top than when the patch was made.
        fs::write(at("x.lua"), "-\n-\none\ntwo\nthree\nfour\nfive\nsix\n").unwrap();
        fs::write(at("old"), "gone\n").unwrap();
        apply_all(&BTreeMap::from([("p".into(), PATCH.into())]), dir.path()).unwrap();
        assert_eq!(fs::read_to_string(at("x.lua")).unwrap(), "-\n-\none\n2\nthree\nfour\n5\n5b\nsix\n");
        assert_eq!(fs::read_to_string(at("d/new.lua")).unwrap(), "return 1\n");
        assert!(!at("old").exists());
    }

    #[test]
    fn what_does_not_fit_or_leads_out_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.lua"), "something else\n").unwrap();
        let apply = |text: &str| apply_all(&BTreeMap::from([("p".into(), text.to_owned())]), dir.path());
        for (patch, why) in [
            (PATCH, "not as it expects"),
            ("--- /dev/null\n+++ ../../x\n@@ -0,0 +1 @@\n+x\n", "leads out"),
            ("--- /dev/null\n+++ /etc/x\n@@ -0,0 +1 @@\n+x\n", "leads out"),
            ("--- a/none\n+++ b/none\n@@ -1 +1 @@\n-a\n+b\n", "no file"),
            ("--- a/x.lua\n+++ b/x.lua\n@@ -1,9 +1 @@\n-a\n", "ends in the middle"),
            ("--- a/x.lua\n+++ b/x.lua\n@@ nonsense @@\n", "is wrong"),
            ("no patch at all\n", "no change"),
        ] {
            let error = apply(patch).unwrap_err();
            assert!(error.chain().contains(why), "{why}: {}", error.chain());
        }
        assert_eq!(fs::read_to_string(dir.path().join("x.lua")).unwrap(), "something else\n");
    }
}
