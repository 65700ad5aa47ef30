//! Chores about XAPI: its table of names, and the comparison of the test server with recordings of a real one. Both are done by examples of the crates that know it.

use crate::cargo;
use std::path::Path;

/// Writes `crates/xapi/src/model/model.txt` from a published data model.
///
/// # Errors
/// What cargo said, or why the table could not be written; it is then as it was.
pub(crate) fn table(root: &Path, model: &str) -> Result<(), String> {
    let model = absolute(model)?;
    let args = ["run", "--quiet", "-p", "vmoon-xapi", "--example", "table", "--", &model];
    let output = cargo::command(root, &args).stderr(std::process::Stdio::inherit()).output().map_err(|e| format!("cargo: {e}"))?;
    if !output.status.success() || output.stdout.is_empty() {
        return Err(format!("the table could not be made of {model}"));
    }
    let to = root.join("crates/xapi/src/model/model.txt");
    std::fs::write(&to, output.stdout).map_err(|e| format!("{}: {e}", to.display()))
}

/// Compares `xapi-sim` with the recordings and databases in a folder.
///
/// # Errors
/// When something differs that is not excused, or cannot be read.
pub(crate) fn check(root: &Path, folder: &str) -> Result<(), String> {
    let folder = absolute(folder)?;
    cargo::run(root, &["run", "--quiet", "-p", "vmoon-xapi-sim", "--example", "check", "--", &folder])
}

pub(crate) fn absolute(path: &str) -> Result<String, String> {
    let path = std::fs::canonicalize(path).map_err(|e| format!("{path}: {e}"))?;
    path.to_str().map(str::to_owned).ok_or_else(|| format!("{}: not a name in UTF-8", path.display()))
}
