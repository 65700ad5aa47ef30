//! Build chores of vmoon: `cargo xtask ci | tidy | docs`.
//!
//! std only, so that it builds in a second on a fresh machine. It knows the layout of the repository and nothing of what vmoon does: what has to be
//! generated from the code is printed by helper binaries of the crates themselves.

mod cargo;
mod ci;
mod clients;
mod cloud;
mod cloud_image;
mod docs;
mod flavours;
mod fuzz;
mod install;
mod say;
mod source;
mod tidy;
mod xapi;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  ci [--no-install]   install what the tests need, then format, clippy, tidy, docs and all tests
  tidy                the rules of the house that no lint can hold
  docs [--check]      write docs/reference from the code, or compare it
  flavours [--release] [--test]
                      build the programs of the other builtin runtimes beside vmoon, or test them
  fuzz [TARGET…] [--seconds N] [--keep]
                      feed decoders with made-up bytes, led by coverage (needs a C++ compiler); --keep keeps what was found as samples
  install             only install what the tests need (Debian packages by apt; clients by pip and npm)
  cloud-guest IMAGE [KERNEL INITRD]   enter a guest made of a cloud image (qcow2 or raw, with cloud-init), from clone to a Lua prompt; takes minutes
  cloud-image FOLDER  make such an image of Debian's packages, with a UEFI boot loader; root only, minutes
  xapi-table FILE     make the table of XAPI's names from its published data model (xenapi.json)
  xapi-check FOLDER   compare xapi-sim with recordings (*.jsonl) and databases (*.xml) of a real xapi";

fn main() -> ExitCode {
    if let Some(code) = fuzz::wrap() {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = root();
    let done = match args.as_slice() {
        ["ci"] => ci::run(&root, true),
        ["ci", "--no-install"] => ci::run(&root, false),
        ["tidy"] => tidy::run(&root),
        ["docs"] => docs::run(&root, docs::Mode::Write),
        ["docs", "--check"] => docs::run(&root, docs::Mode::Check),
        ["flavours"] => flavours::build(&root, false),
        ["flavours", "--release"] => flavours::build(&root, true),
        ["flavours", "--test"] => flavours::test(&root),
        ["fuzz", words @ ..] => fuzz::run(&root, words),
        ["install"] => install::run().and_then(|()| clients::install(&root)),
        ["cloud-image", folder] => cloud_image::make(folder),
        ["cloud-guest", image] => cloud::run(&root, image, None),
        ["cloud-guest", image, kernel, initrd] => cloud::run(&root, image, Some((kernel, initrd))),
        ["xapi-table", file] => xapi::table(&root, file),
        ["xapi-check", folder] => xapi::check(&root, folder),
        [] | ["help" | "-h" | "--help"] => {
            say::line(USAGE);
            Ok(())
        }
        _ => {
            say::problem(USAGE);
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            say::problem(format_args!("xtask: {problem}"));
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository: the parent of this package's folder.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map_or(here.clone(), Path::to_path_buf)
}
