//! Running cargo from inside cargo: the same cargo, without the variables that describe this package.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

/// A call of the cargo that runs us, in the repository's root, with nothing on its standard input.
pub(crate) fn command(root: &Path, args: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(root).args(args).stdin(Stdio::null());
    // Build scripts may watch these; inherited from `cargo run` they would make the next plain build start over.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs it with our output.
///
/// # Errors
/// What was run and how it ended, unless it ended with 0.
pub(crate) fn run(root: &Path, args: &[&str]) -> Result<(), String> {
    let shown = format!("cargo {}", args.join(" "));
    let status = command(root, args).status().map_err(|e| format!("{shown}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown}: {status}")) }
}
