//! The programs of the other Lua versions that machines can have inside: one build each, since a build holds one.

use crate::{cargo, say};
use std::path::Path;

/// Features of `vmoon-driver-lua`, and the program each makes.
const FEATURES: [(&str, &str); 3] = [("lua51", "vmoon-lua-51"), ("lua55", "vmoon-lua-55"), ("luajit", "vmoon-lua-luajit")];

fn of<'a>(verb: &'a str, feature: &'a str) -> Vec<&'a str> {
    vec![verb, "-p", "vmoon-driver-lua", "--no-default-features", "--features", feature]
}

/// Builds all of them beside `vmoon`.
///
/// # Errors
/// The first build that failed.
pub(crate) fn build(root: &Path, release: bool) -> Result<(), String> {
    for (feature, program) in FEATURES {
        let mut args = of("build", feature);
        args.extend(["--bin", program]);
        if release {
            args.push("--release");
        }
        cargo::run(root, &args)?;
    }
    Ok(())
}

/// Builds and checks them, and has each pass the tests of the driver as the builtin runtime, and those of the binary that name it.
///
/// # Errors
/// What failed, all of it.
pub(crate) fn test(root: &Path) -> Result<(), String> {
    let mut problems = Vec::new();
    for (feature, _) in FEATURES {
        say::line(format_args!("== {feature}"));
        let mut clippy = of("clippy", feature);
        clippy.extend(["--all-targets", "--quiet", "--", "-D", "warnings"]);
        let mut tests = of("test", feature);
        tests.extend(["--no-fail-fast", "--lib", "--test", "it"]);
        problems.extend([clippy, tests].iter().filter_map(|args| cargo::run(root, args).err()));
    }
    let binary = ["-p", "vmoon", "--features", "flavours", "--test", "flavours"];
    let lints = [&["clippy"][..], &binary, &["--quiet", "--", "-D", "warnings"]].concat();
    problems.extend(cargo::run(root, &lints).err());
    let named = build(root, false).and_then(|()| cargo::run(root, &[&["test"][..], &binary].concat()));
    problems.extend(named.err());
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}
