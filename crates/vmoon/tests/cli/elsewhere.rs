//! One state directory has one daemon, whichever runtime directory somebody comes with; and one runtime directory is not shared by two state directories.

use super::home::{Home, Ran};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// With another runtime directory, or none.
fn with(home: &Home, runtime: Option<&Path>, args: &[&str]) -> Ran {
    let mut command = home.command(args);
    command.env("TMPDIR", home.path("tmp"));
    match runtime {
        Some(dir) => command.env("XDG_RUNTIME_DIR", dir),
        None => command.env_remove("XDG_RUNTIME_DIR"),
    };
    Ran::of(command.output().unwrap())
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    rustix::event::poll(&mut [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)], None).unwrap();
}

/// Cron, `su` and a plain login have another runtime directory than a desktop, and were told after ten seconds that there is a daemon which they could not reach.
#[test]
fn a_daemon_is_found_from_every_runtime_directory() {
    let home = Home::new();
    for dir in ["tmp", "other"] {
        fs::create_dir(home.path(dir)).unwrap();
    }
    let other = home.path("other");
    home.run(&["create", "lab", "--start", "-q"]).ok();
    let first = home.daemon().unwrap();
    for runtime in [Some(other.as_path()), None] {
        assert!(with(&home, runtime, &["daemon", "status"]).ok().contains(&first.to_string()));
        assert_eq!(with(&home, runtime, &["eval", "lab", "return 6 * 7"]).ok(), "42\n");
    }
    // One that is started there is found from here, and one that was killed is not looked for.
    kill(first);
    assert_eq!(with(&home, Some(&other), &["eval", "lab", "return 6 * 7"]).ok(), "42\n");
    let second = home.daemon().unwrap();
    assert!(second != first && other.join("vmoon/api.sock").exists());
    assert_eq!(home.run(&["eval", "lab", "return 6 * 7"]).ok(), "42\n");
    assert_eq!(home.daemon(), Some(second));
    // Its runtime directory goes, as at logout, and cannot be made again.
    fs::remove_dir_all(&other).unwrap();
    fs::write(&other, "").unwrap();
    let began = Instant::now();
    for runtime in [None, Some(home.path("run"))] {
        assert_eq!(with(&home, runtime.as_deref(), &["eval", "lab", "return 6 * 7"]).ok(), "42\n");
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(home.daemon(), Some(second));
    home.end();
}

/// Whoever came with another home and the same runtime directory saw an empty list: that of another daemon.
#[test]
fn the_daemon_of_another_state_directory_is_not_used() {
    let home = Home::new();
    home.run(&["create", "lab", "--start", "-q"]).ok();
    let there = home.path("elsewhere");
    let ask = |args: &[&str]| {
        let mut command = home.command(&[&["-o", "json"], args].concat());
        Ran::of(command.env("XDG_STATE_HOME", &there).output().unwrap())
    };
    for args in [&["list"][..], &["daemon", "status"], &["daemon", "stop"], &["rm", "lab", "--yes", "--force"], &["create", "x"]] {
        let refused = ask(args);
        refused.fails_with_hint("daemon.other", 7);
        for dir in [home.path("state/vmoon"), there.join("vmoon")] {
            assert!(refused.err.contains(&*dir.to_string_lossy()), "{refused:?}");
        }
    }
    // Nor does one take its place.
    let refused = ask(&["daemon", "run"]);
    refused.fails_with_hint("daemon.other", 7);
    assert_eq!(home.run(&["eval", "lab", "return 6 * 7"]).ok(), "42\n");
    // The same directory by another name is the same.
    fs::create_dir_all(home.path("links")).unwrap();
    std::os::unix::fs::symlink(home.path("state"), home.path("links/state")).unwrap();
    let mut linked = home.command(&["list", "-o", "name"]);
    assert_eq!(Ran::of(linked.env("XDG_STATE_HOME", home.path("links/state")).output().unwrap()).ok().trim(), "lab");
    home.end();
}
