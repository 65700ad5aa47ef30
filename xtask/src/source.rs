//! Sources of Debian packages, as their authors published them: tests build from them what Debian built for other versions only.
//!
//! Most computers know the packages of their mirror and not its sources. So apt is given a list of its own, made of the mirrors it uses, and a folder for
//! what it learns; nothing of the computer is changed, and nobody has to be root.

use crate::say;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Whether the source of a package is in this folder.
pub(crate) fn is_in(folder: &Path) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| entry.file_name().to_string_lossy().contains(".orig.tar"))
}

/// Downloads the source of a package into a folder; apt compares it with the mirror's signed lists.
///
/// # Errors
/// What could not be done.
pub(crate) fn fetch(package: &str, folder: &Path) -> Result<(), String> {
    say::line(format_args!("downloading the source of {package}"));
    let beside = folder.with_extension("new");
    let problem = |e: std::io::Error| format!("{}: {e}", beside.display());
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(problem)?;
    }
    let (lists, kept) = (beside.join("lists"), beside.join("kept"));
    fs::create_dir_all(lists.join("partial")).and_then(|()| fs::create_dir_all(&kept)).map_err(problem)?;
    let list = beside.join("sources.list");
    fs::write(&list, mirrors()?).map_err(problem)?;
    let options: Vec<String> = [
        format!("Dir::Etc::sourcelist={}", list.display()),
        "Dir::Etc::sourceparts=/dev/null".into(),
        format!("Dir::State::lists={}", lists.display()),
        "Dir::Cache::pkgcache=".into(),
        "Dir::Cache::srcpkgcache=".into(),
        // Who downloads may write here; the user that apt would become may not.
        "APT::Sandbox::User=root".into(),
    ]
    .into_iter()
    .flat_map(|option| ["-o".to_owned(), option])
    .collect();
    apt(&kept, &options, &["update"])?;
    apt(&kept, &options, &["source", "--download-only", "--tar-only", package])?;
    if !is_in(&kept) {
        return Err(format!("the source of {package} was not downloaded"));
    }
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(problem)?;
    }
    fs::rename(&kept, folder).and_then(|()| fs::remove_dir_all(&beside)).map_err(problem)
}

/// The lines of a list with the sources of those mirrors whose packages apt knows.
fn mirrors() -> Result<String, String> {
    let format = "$(CREATED_BY) $(ORIGIN) $(REPO_URI) $(CODENAME) $(COMPONENT)";
    let out = Command::new("apt-get").args(["indextargets", "--format", format]).stdin(Stdio::null()).output();
    let out = out.map_err(|e| format!("apt-get indextargets: {e}"))?;
    let list = lines(&String::from_utf8_lossy(&out.stdout));
    if list.is_empty() { Err("apt knows no mirror of Debian: its lists are empty (apt-get update)".into()) } else { Ok(list) }
}

fn lines(targets: &str) -> String {
    let mut lines: Vec<String> = targets
        .lines()
        .filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["Packages", "Debian", uri, codename, "main"] => Some(format!("deb-src {uri} {codename} main\n")),
            _ => None,
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines.concat()
}

fn apt(folder: &Path, options: &[String], words: &[&str]) -> Result<(), String> {
    let status = Command::new("apt-get")
        .arg("-qq")
        .args(options)
        .args(words)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    let shown = format!("apt-get {}", words.join(" "));
    let status = status.map_err(|e| format!("{shown}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown}, with the sources of the mirrors that apt knows: {status}")) }
}

/// Where the source of a package is kept: beside packages that are only unpacked.
pub(crate) fn place(package: &str, unpacked: &Path) -> PathBuf {
    unpacked.with_file_name(format!("{package}-source"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_where_the_packages_are() {
        let targets = "DEP-11 Debian http://a/debian/ trixie main\nPackages Debian http://a/debian/ trixie main\n\
            Packages Debian http://a/debian/ trixie main\nPackages Other http://b/ x main\nPackages Debian http://a/debian/ trixie contrib\n";
        assert_eq!(lines(targets), "deb-src http://a/debian/ trixie main\n");
        assert!(!is_in(Path::new("/nonexistent")));
    }
}
