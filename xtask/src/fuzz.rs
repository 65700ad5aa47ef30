//! `cargo xtask fuzz`: bytes that machines and hosts could send, made up and led by what code they reach, with the stable toolchain.
//!
//! libFuzzer wants counters in the code under test. cargo has rustc put them into that alone, by calling this program in its place
//! (`RUSTC_WORKSPACE_WRAPPER`), so that what others wrote is not built twice.

use crate::{cargo, clients, say};
use std::{
    ffi::OsString,
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

/// Set while this program stands in for rustc.
const WRAPPING: &str = "VMOON_XTASK_WRAPS_RUSTC";
/// The LLVM pass and what it is told, as cargo-fuzz has it.
const COUNTERS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
];
/// How long a target runs if nobody says.
const SECONDS: u32 = 60;
/// The longest input that is made up, and the longest that is kept, bytes.
const LONGEST: &str = "-max_len=4096";
const LONGEST_KEPT: &str = "-max_len=512";

/// Stands in for rustc, if cargo was told so; does not come back then unless it failed.
pub(crate) fn wrap() -> Option<ExitCode> {
    std::env::var_os(WRAPPING)?;
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (rustc, args) = args.split_first()?;
    let mut command = Command::new(rustc);
    command.args(args).args(if counts(args) { &COUNTERS[..] } else { &[] });
    say::problem(format_args!("{}: {}", rustc.display(), command.exec()));
    Some(ExitCode::FAILURE)
}

/// The crates whose code is under test. Counters make compiling several times as slow.
const UNDER_TEST: [&str; 8] =
    ["vmoon_core", "vmoon_lua_wire", "vmoon_driver_lua", "vmoon_remote", "vmoon_libvirt_wire", "vmoon_xapi", "vmoon_xml", "vmoon_fuzz"];

/// Whether what is compiled is code under test. Build scripts, which run without the engine, are not.
fn counts(args: &[OsString]) -> bool {
    let name = args.windows(2).find(|pair| pair[0] == "--crate-name").and_then(|pair| pair[1].to_str());
    name.is_some_and(|name| UNDER_TEST.contains(&name))
}

/// Fuzzes: `words` are names of targets (none for all of them), `--seconds N`, `--keep` to keep what was found as samples.
///
/// # Errors
/// What could not be built, and every target that an input was too much for.
pub(crate) fn run(root: &Path, words: &[&str]) -> Result<(), String> {
    let (mut names, mut seconds, mut keep) = (Vec::new(), SECONDS, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--keep" => keep = true,
            "--seconds" => {
                seconds =
                    words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0).ok_or("--seconds: a number of seconds is missing")?;
            }
            option if option.starts_with('-') => return Err(format!("{option}: only --seconds N and --keep are known")),
            name => names.push(name.to_owned()),
        }
    }
    if !Command::new("c++").arg("--version").stdin(Stdio::null()).output().is_ok_and(|output| output.status.success()) {
        return Err("libFuzzer is C++ and there is no compiler of that: install one (Debian: apt-get install g++)".into());
    }
    let debug = build(root)?;
    let known = Command::new(debug.join("vmoon-fuzz-corpus")).arg("list").output().map_err(|e| format!("vmoon-fuzz-corpus: {e}"))?;
    let known: Vec<String> = String::from_utf8_lossy(&known.stdout).lines().map(str::to_owned).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        return Err(format!("there is no target {unknown}; there are: {}", known.join(", ")));
    }
    let names = if names.is_empty() { known } else { names };
    let place = clients::below_target("fuzz")?;
    let problems: Vec<String> = names.iter().filter_map(|name| fuzz(&debug, &place, name, seconds, keep).err()).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// Builds the engine with the targets, and what packs samples; the folder both are in.
fn build(root: &Path) -> Result<std::path::PathBuf, String> {
    let this = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    cargo::run(root, &["build", "--quiet", "-p", "vmoon-fuzz", "--bin", "vmoon-fuzz-corpus"])?;
    let args = ["build", "-p", "vmoon-fuzz", "--features", "engine", "--bin", "vmoon-fuzz", "--config", "profile.dev.opt-level=1"];
    let status = cargo::command(root, &args)
        .env("RUSTC_WORKSPACE_WRAPPER", &this)
        .env(WRAPPING, "1")
        .env("CARGO_INCREMENTAL", "0")
        .status()
        .map_err(|e| format!("cargo: {e}"))?;
    if !status.success() {
        return Err(format!("cargo {}: {status}", args.join(" ")));
    }
    Ok(this.parent().unwrap_or(root).to_owned())
}

fn fuzz(debug: &Path, place: &Path, name: &str, seconds: u32, keep: bool) -> Result<(), String> {
    let (folder, kept) = (place.join(name), place.join(format!("{name}-kept")));
    for folder in [&folder, &kept] {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let corpus = |verb: &str, folder: &Path| {
        let mut command = Command::new(debug.join("vmoon-fuzz-corpus"));
        command.args([verb, name]).arg(folder);
        done(&mut command, name)
    };
    corpus("unpack", &folder)?;
    let engine = || {
        let mut command = Command::new(debug.join("vmoon-fuzz"));
        command.env("VMOON_FUZZ_TARGET", name).stdin(Stdio::null());
        command
    };
    say::line(format_args!("== {name}: {seconds} s"));
    let culprit = place.join(format!("{name}-"));
    let mut command = engine();
    command.args([LONGEST, "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1", "-reload=0"]);
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}", culprit.display())).arg(&folder);
    done(&mut command, name).map_err(|problem| format!("{problem}; the input is {}*", culprit.display()))?;
    if keep {
        let mut merge = engine();
        merge.args(["-set_cover_merge=1", LONGEST_KEPT]).args([&kept, &folder]);
        done(&mut merge, name)?;
        corpus("pack", &kept)?;
    }
    Ok(())
}

fn done(command: &mut Command, name: &str) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_crates_get_counters() {
        let counted = |words: &[&str]| counts(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(counted(&["--edition", "2024", "--crate-name", "vmoon_core", "src/lib.rs"]));
        assert!(!counted(&["--crate-name", "build_script_build", "build.rs"]));
        assert!(!counted(&["--crate-name", "vmoon_api", "src/lib.rs"]) && !counted(&["-vV"]));
    }
}
