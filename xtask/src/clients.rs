//! Clients that others wrote and that tests use: from PyPI and npm, of one version each, checked by their hashes, in a folder of the target directory.

use crate::say;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where their versions and hashes are.
const PINS: &str = "crates/xapi-sim/tests/clients";

/// Installs them, unless they are there as they are pinned.
///
/// # Errors
/// What could not be run, and what it said.
pub(crate) fn install(root: &Path) -> Result<(), String> {
    let (pins, place) = (root.join(PINS), place()?);
    let wanted = ["requirements.txt", "package-lock.json"].map(|name| std::fs::read(pins.join(name)));
    let [python, node] = wanted.map(|read| read.map_err(|e| format!("{PINS}: {e}")));
    let (python, node) = (python?, node?);
    let is_there = |stamp: &str, content: &[u8]| std::fs::read(place.join(stamp)).is_ok_and(|known| known == content);
    if !is_there("python.stamp", &python) {
        say::line("installing the module XenAPI");
        let venv = place.join("venv");
        remade(&venv)?;
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let pip = venv.join("bin/pip");
        run(Command::new(pip)
            .args(["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps", "-r"])
            .arg(pins.join("requirements.txt")))?;
        stamp(&place, "python.stamp", &python)?;
    }
    if !is_there("node.stamp", &node) {
        say::line("installing the package xen-api");
        let modules = place.join("node");
        remade(&modules)?;
        for name in ["package.json", "package-lock.json"] {
            std::fs::copy(pins.join(name), modules.join(name)).map_err(|e| format!("{name}: {e}"))?;
        }
        run(Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"]).current_dir(&modules))?;
        stamp(&place, "node.stamp", &node)?;
    }
    Ok(())
}

/// Where the tests look for them too.
fn place() -> Result<PathBuf, String> {
    below_target("clients")
}

/// A folder of the target directory that this program is in.
///
/// # Errors
/// When there is none, and none can be made.
pub(crate) fn below_target(name: &str) -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    let target = exe.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    let place = target.ok_or("this program is not in a target directory of cargo")?.join(name);
    std::fs::create_dir_all(&place).map_err(|e| format!("{}: {e}", place.display()))?;
    Ok(place)
}

fn remade(folder: &Path) -> Result<(), String> {
    let problem = |e: std::io::Error| format!("{}: {e}", folder.display());
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(problem)?;
    }
    std::fs::create_dir_all(folder).map_err(problem)
}

fn stamp(place: &Path, name: &str, content: &[u8]) -> Result<(), String> {
    std::fs::write(place.join(name), content).map_err(|e| format!("{name}: {e}"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{shown}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{shown}: {}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}
