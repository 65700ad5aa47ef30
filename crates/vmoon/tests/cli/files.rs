//! Files in and out of machines, hostile ones included.

use crate::home::Home;
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

/// The work directory of a machine.
fn work(home: &Home, name: &str) -> PathBuf {
    PathBuf::from(parse(&home.json(&["show", name]).ok())["facts"]["directory"].as_str().unwrap())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_file_goes_in_and_comes_out_unchanged_running_or_not() {
    let home = Home::new();
    home.run(&["create", "lab"]).ok();
    // Several chunks and a part of one, with holes and every byte.
    let mut bytes: Vec<u8> = (0..700_001u32).map(|n| (n * 31 % 251) as u8).collect();
    bytes[262_144..524_288].fill(0);
    fs::write(home.path("data.bin"), &bytes).unwrap();
    fs::set_permissions(home.path("data.bin"), fs::Permissions::from_mode(0o4750)).unwrap();
    assert!(home.run(&["cp", "data.bin", "lab:"]).ok().contains("copied 1 file"));
    let inside = work(&home, "lab").join("data.bin");
    assert!(fs::read(&inside).unwrap() == bytes && mode(&inside) == 0o750, "whole, and without setuid");
    home.run(&["start", "lab"]).ok();
    let code = "local f = assert(io.open('data.bin', 'rb')) local s = f:read('a') f:close() return #s";
    let length = home.run(&["eval", "lab", code]);
    assert_eq!(length.out, "700001\n", "{length:?}");
    home.run(&["cp", "lab:data.bin", "back.bin"]).ok();
    assert!(fs::read(home.path("back.bin")).unwrap() == bytes && mode(&home.path("back.bin")) == 0o750);
    fs::create_dir(home.path("into")).unwrap();
    home.run(&["cp", "lab:data.bin", "into"]).ok();
    assert_eq!(names(&home.path("into")), ["data.bin"]);
    // A second copy replaces the first; nothing else is left on either side.
    fs::write(home.path("data.bin"), "new").unwrap();
    home.run(&["cp", "data.bin", "lab:data.bin"]).ok();
    assert_eq!(fs::read(&inside).unwrap(), b"new");
    assert_eq!(names(inside.parent().unwrap()), ["data.bin"]);
    fs::write(home.path("empty"), "").unwrap();
    home.run(&["cp", "empty", "lab:e"]).ok();
    home.run(&["cp", "lab:e", "empty2"]).ok();
    assert_eq!(fs::read(home.path("empty2")).unwrap(), b"");
    home.end();
}

#[test]
fn directories_go_both_ways_with_whatever_names_are_in_them() {
    use std::os::unix::ffi::OsStrExt as _;
    let home = Home::new();
    home.run(&["create", "lab"]).ok();
    let tree = home.path("tree");
    fs::create_dir_all(tree.join("a/b/empty")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"odd \xff%41\n-rf");
    for name in [Path::new("top"), Path::new("a/--help"), Path::new("a/b/x y")] {
        fs::write(tree.join(name), name.as_os_str().as_bytes()).unwrap();
    }
    fs::write(tree.join("a").join(odd), "odd").unwrap();
    symlink("/etc/passwd", tree.join("a/link")).unwrap();
    home.json(&["cp", "tree", "lab:"]).fails_with_hint("file.refused", 6);
    let dry = home.run(&["cp", "-r", "tree", "lab:", "--dry-run"]);
    assert!(dry.out.contains("would copy 4 files, 4 directories") && names(&work(&home, "lab")).is_empty(), "{dry:?}");
    let ran = home.run(&["cp", "-r", "tree", "lab:"]);
    assert!(ran.code == 6 && ran.err.contains("symbolic link") && ran.out.contains("copied 4 files"), "{ran:?}");
    let inside = work(&home, "lab").join("tree");
    assert_eq!(fs::read_to_string(inside.join("a").join(odd)).unwrap(), "odd");
    assert!(!inside.join("a/link").exists() && inside.join("a/b/empty").is_dir());
    // Back again, under a name that does not exist, and into a directory that does.
    home.run(&["cp", "-r", "lab:tree", "back"]).ok();
    assert_eq!(fs::read_to_string(home.path("back/a").join(odd)).unwrap(), "odd");
    home.run(&["cp", "-r", "lab:tree", "back"]).ok();
    assert_eq!(names(&home.path("back")), ["a", "top", "tree"]);
    home.run(&["cp", "-r", "lab:", "all"]).ok();
    assert!(home.path("all/tree/a/b/empty").is_dir());
    home.end();
}

#[test]
fn what_a_machine_puts_in_the_way_never_leads_out_of_it() {
    let home = Home::new();
    home.run(&["create", "lab"]).ok();
    fs::write(home.path("secret"), "secret").unwrap();
    fs::write(home.path("mine"), "mine").unwrap();
    let inside = work(&home, "lab");
    symlink(home.path("secret"), inside.join("link")).unwrap();
    symlink(home.0.path(), inside.join("dir")).unwrap();
    let status = std::process::Command::new("mkfifo").arg(inside.join("fifo")).status().unwrap();
    assert!(status.success());
    fs::write(inside.join("good"), "good").unwrap();
    for path in ["lab:link", "lab:dir/secret", "lab:fifo", "lab:../machine.json", "lab:/etc/passwd", "lab:a/../../x"] {
        home.json(&["cp", path, "stolen"]).fails("file.refused", 6);
        home.json(&["cp", "-r", path, "stolen"]).fails("file.refused", 6);
        assert!(!home.path("stolen").exists(), "{path}");
    }
    for path in ["lab:dir/x", "lab:../x", "lab:/tmp/x"] {
        home.json(&["cp", "mine", path]).fails("file.refused", 6);
    }
    // A link that has the name is replaced; what it points to is not touched.
    home.run(&["cp", "mine", "lab:link"]).ok();
    assert_eq!(
        (fs::read_to_string(home.path("secret")).unwrap(), fs::read_to_string(inside.join("link")).unwrap()),
        ("secret".into(), "mine".into())
    );
    let ran = home.run(&["cp", "-r", "lab:", "all"]);
    assert_eq!((ran.code, names(&home.path("all"))), (6, vec!["good".to_owned(), "link".to_owned()]), "{ran:?}");
    home.json(&["cp", "lab:nothing", "x"]).fails("file.not_found", 3);
    home.json(&["cp", "nothing", "lab:"]).fails("file.not_found", 3);
    home.json(&["cp", "mine", "nobody:x"]).fails("machine.not_found", 3);
    home.json(&["cp", "mine", "other"]).fails_with_hint("usage", 2);
    home.json(&["cp", "lab:a", "lab:b"]).fails_with_hint("usage", 2);
    home.json(&["cp", "mine", "lab:new/"]).fails_with_hint("file.not_found", 3);
    home.end();
}

#[test]
fn a_copy_that_is_stopped_leaves_no_half_of_a_file() {
    let home = Home::new();
    home.run(&["create", "lab"]).ok();
    let inside = work(&home, "lab");
    // A terabyte that takes no room: longer than anybody waits.
    fs::File::create(inside.join("endless")).unwrap().set_len(1 << 40).unwrap();
    fs::File::create(home.path("endless")).unwrap().set_len(1 << 40).unwrap();
    let parts = |dir: &Path| names(dir).into_iter().filter(|name| name.starts_with(".vmoon-part")).count();
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(30);
    for (args, dir) in [(["cp", "lab:endless", "out"], home.0.path().to_path_buf()), (["cp", "endless", "lab:in"], inside.clone())] {
        let child = home.command(&args).spawn().unwrap();
        while parts(&dir) == 0 {
            assert!(std::time::Instant::now() < limit, "the copy has not begun");
            std::thread::yield_now();
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
        // The daemon sees at its next write that nobody sends any more.
        while parts(&dir) > 0 {
            assert!(std::time::Instant::now() < limit, "half a file is left");
            std::thread::yield_now();
        }
        assert!(!dir.join("out").exists() && !dir.join("in").exists());
    }
    home.end();
}

#[test]
fn files_go_into_many_machines_and_come_out_of_many() {
    let home = Home::new();
    home.run(&["create", "f{1..3}", "--start", "-q"]).ok();
    fs::write(home.path("input"), "6").unwrap();
    home.run(&["cp", "input", "f*:"]).ok();
    let code = "local f = io.open('input') local n = f:read('n') f:close() f = io.open('out', 'w') f:write(n * 7) f:close()";
    home.run(&["eval", "f{1..3}", code]).ok();
    let copied = parse(&home.json(&["cp", "f{1..3}:out", "results"]).ok());
    assert_eq!(copied.as_array().unwrap().len(), 3);
    for name in ["f1", "f2", "f3"] {
        let text = fs::read_to_string(home.path("results").join(name).join("out")).unwrap();
        assert!(text == "42" || text == "42.0", "{text}");
    }
    home.end();
}

#[test]
fn directories_on_the_way_are_made_and_a_file_there_is_named() {
    let home = Home::new();
    home.run(&["create", "lab"]).ok();
    fs::create_dir_all(home.path("models/deep")).unwrap();
    for name in ["models/a", "models/b", "models/deep/c"] {
        fs::write(home.path(name), "1234567").unwrap();
    }
    let said = home.run(&["cp", "-r", "models", "lab:in/of/models"]).ok();
    assert_eq!(said, "lab: copied 3 files, 2 directories, 21B\n");
    assert_eq!(names(&work(&home, "lab").join("in/of/models")), ["a", "b", "deep"]);
    assert_eq!(home.run(&["cp", "models/a", "lab:new//f"]).ok(), "lab: copied 1 file, 7B\n");
    assert!(home.run(&["cp", "-r", "models/deep", "lab:one"]).ok().contains(", 1 directory, "));
    for to in ["lab:new/f/g", "lab:new/f/g/h"] {
        let ran = home.json(&["cp", "models/a", to]);
        ran.fails_with_hint("file.refused", 6);
        assert!(ran.err.contains("\\\"new/f\\\" is a file"), "{ran:?}");
    }
    home.json(&["cp", "models/a", "lab:../x/y"]).fails("file.refused", 6);
    home.end();
}
