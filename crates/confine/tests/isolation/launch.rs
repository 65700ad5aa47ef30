//! The launcher, run for real: a program that was confined before it began, and makes attempts from within.

use crate::stage::{Result as Tried, in_child};
use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Command;
use vmoon_confine::attempts::SOURCES;
use vmoon_confine::{Layer, Profile, Report, Rules, Status, launch};

const MAIN: &str = "\
int vmoon_attempt(const char *, const char *);
int main(int n, char **v) { return n == 3 ? vmoon_attempt(v[1], v[2]) & 255 : 99; }
";

/// Launches the program with these rules to make one attempt: how it ended, and what the launcher said.
fn launched(program: &Path, rules: &Rules, attempt: &str) -> (Tried, Result<Report, String>) {
    let mut input = tempfile::tempfile().expect("a file");
    input.write_all(&serde_json::to_vec(rules).expect("plain data")).expect("room");
    input.rewind().expect("a file");
    let (mut report, tell) = io::pipe().expect("a pipe");
    let args = [
        input.as_raw_fd().to_string().into(),
        tell.as_raw_fd().to_string().into(),
        program.into(),
        attempt.into(),
        format!("program={}\n", program.display()).into(),
    ];
    let ended = in_child(|| {
        launch::main(args);
        98
    });
    drop(tell);
    let mut said = Vec::new();
    report.read_to_end(&mut said).expect("a pipe");
    (ended, launch::outcome(&said))
}

#[test]
fn a_program_is_confined_before_it_begins_and_executes_nothing_after() {
    let temp = tempfile::tempdir().expect("a directory");
    let root = temp.path().canonicalize().expect("it exists");
    fs::write(root.join("main.c"), MAIN).expect("a file");
    for (name, text) in SOURCES {
        fs::write(root.join(name), text).expect("a file");
    }
    let program = root.join("program");
    let sources = SOURCES.iter().map(|(name, _)| *name).filter(|name| name.ends_with(".c")).chain(["main.c"]);
    let out = Command::new("gcc").arg("-pthread").arg("-o").arg(&program).args(sources.map(|name| root.join(name))).output();
    assert!(out.expect("gcc is there (Debian: apt-get install gcc)").status.success());

    let needs = launch::needs(&program).expect("a program");
    let rules = Rules { profile: Profile::Sealed, read: needs.read, execute: needs.execute, ..Rules::default() };
    let (ended, said) = launched(&program, &rules, "kill-self");
    assert_eq!(ended, Tried::Ended(0), "{said:?}");
    let report = said.expect("the launcher reports");
    assert!(
        [Layer::Privileges, Layer::Rlimits, Layer::Landlock, Layer::Seccomp].iter().all(|layer| report.get(*layer) == Some(&Status::On)),
        "{report}"
    );

    // The program that is granted, asked for by itself: Landlock would let it be executed, the filter does not.
    for (attempt, number) in [
        ("thread", 0),
        ("exec", libc::EPERM),
        ("exec-at", libc::EPERM),
        ("spawn", libc::EPERM),
        ("fork", libc::EPERM),
        ("clone3", libc::ENOSYS),
        ("unix-pair", libc::EPERM),
        ("read-passwd", libc::EACCES),
    ] {
        let (ended, said) = launched(&program, &rules, attempt);
        assert_eq!((ended, said.is_ok()), (Tried::Ended(number), true), "{attempt}");
    }

    // A builder's processes are held to the same rules as itself.
    let builder = Rules { programs: true, ..rules.clone() };
    for (attempt, number) in [("fork", 0), ("unix-pair", 0), ("clone3", libc::ENOSYS), ("read-passwd", libc::EACCES)] {
        let (ended, said) = launched(&program, &builder, attempt);
        assert_eq!((ended, said.is_ok()), (Tried::Ended(number), true), "{attempt}");
    }

    let (ended, said) = launched(&program, &Rules { execute: vec![], ..rules.clone() }, "thread");
    assert!(said.expect_err("nothing is granted").contains("must be granted"));
    assert_eq!(ended, Tried::Ended(98));
    let (_, said) = launched(&program, &Rules { write: vec![root.join("none")], ..rules }, "thread");
    assert!(said.expect_err("nothing to write to").contains("could not be granted"));
}
