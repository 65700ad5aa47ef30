//! `vmoon-fuzz-corpus list | unpack TARGET FOLDER | pack TARGET FOLDER`: samples between the text that is in the repository and a folder of files, as
//! libFuzzer wants them. For `cargo xtask fuzz`.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};
use vmoon_fuzz::{TARGETS, Target, corpus};

/// No longer samples are kept in the repository, bytes.
const LONGEST: usize = 512;
/// No more are kept of a target.
const MOST: usize = 200;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["list"] => list(),
        ["unpack", name, folder] => named(name).and_then(|target| unpack(target, Path::new(folder))),
        ["pack", name, folder] => named(name).and_then(|target| pack(target, Path::new(folder))),
        _ => Err(io::Error::other("usage: vmoon-fuzz-corpus list | unpack TARGET FOLDER | pack TARGET FOLDER")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told if this fails.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn named(name: &str) -> io::Result<&'static Target> {
    vmoon_fuzz::target(name).ok_or_else(|| io::Error::other(format!("there is no target {name}")))
}

fn list() -> io::Result<()> {
    TARGETS.iter().try_for_each(|target| writeln!(io::stdout(), "{}", target.name))
}

/// Seeds and samples as files.
fn unpack(target: &Target, folder: &Path) -> io::Result<()> {
    let mut samples = (target.seeds)();
    match fs::read_to_string(corpus::file(target.name)) {
        Ok(text) => samples.extend(
            corpus::parse(&text).map_err(|line| io::Error::other(format!("line {line} of the samples of {} is none", target.name)))?,
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::create_dir_all(folder)?;
    for (at, sample) in samples.iter().enumerate() {
        fs::write(folder.join(format!("sample-{at:04}")), sample)?;
    }
    Ok(())
}

/// The shortest of the files as samples.
fn pack(target: &Target, folder: &Path) -> io::Result<()> {
    let mut samples = Vec::new();
    for entry in fs::read_dir(folder)? {
        let sample = fs::read(entry?.path())?;
        if sample.len() <= LONGEST {
            samples.push(sample);
        }
    }
    samples.sort_by_key(Vec::len);
    samples.truncate(MOST);
    let file = corpus::file(target.name);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, corpus::format(&samples))
}
