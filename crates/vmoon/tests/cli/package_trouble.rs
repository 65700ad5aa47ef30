//! What goes wrong around packages, at the binary: environments that were to be made and were not, a disk that is full, no compiler, a server that hangs.

use super::{
    home::Home,
    mirror::Mirror,
    packages::{home, silent},
};
use std::{
    ffi::CString,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

/// A rock whose source never comes.
fn add_slow(mirror: &mut Mirror, url: &str) {
    let spec = format!(
        "package = \"slow\"\nversion = \"1-1\"\nsource = {{ url = \"{url}/slow.tar.gz\" }}\nbuild = {{ type = \"builtin\", modules = {{}} }}\n"
    );
    mirror.add_spec("slow", "1-1", &spec);
}

/// Everything in the directory of environments, hidden names too.
fn names(home: &Home) -> Vec<String> {
    let entries = fs::read_dir(home.path("state/vmoon/environments")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Waits until somebody asks the silent server.
fn asked(listener: &TcpListener) -> std::net::TcpStream {
    let (stream, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("slow.tar.gz"), "{line}");
    stream
}

#[test]
fn an_environment_is_made_with_its_packages_or_not_at_all() {
    let mut mirror = Mirror::new();
    mirror.add_family();
    let (url, listener) = silent();
    add_slow(&mut mirror, &url);
    let home = home(&mirror);
    let set = |name: &str, rocks: &str| {
        let path = home.path(name);
        fs::write(&path, format!("rocks = [{rocks}]\n")).unwrap();
        path.to_string_lossy().into_owned()
    };
    let (good, slow, bad) = (set("good.toml", "\"bxgamma\""), set("slow.toml", "\"bxalpha\", \"slow\""), set("bad.toml", "\"none-such\""));
    // A plan touches nothing, and says what would be.
    let plan = home.value(&["env", "bootstrap", "new", "--file", &good, "--dry-run"]);
    assert_eq!((plan["environment"].as_str(), plan["steps"].as_array().map(Vec::len)), (Some("new"), Some(3)), "{plan}");
    assert_eq!(names(&home), Vec::<String>::new());
    home.json(&["env", "bootstrap", "new", "--file", &bad]).fails("package.not_found", 3);
    home.json(&["env", "bootstrap", "new", "--file", &good, "--lua", "5.9"]).fails("usage", 2);
    assert_eq!(names(&home), Vec::<String>::new());
    // While it is made nobody sees it. Cancelled, and killed with the daemon: nothing is left.
    let begin = || home.value(&["env", "bootstrap", "new", "--file", &slow, "--no-wait"])["operation"].as_str().unwrap().to_owned();
    let operation = begin();
    let stream = asked(&listener);
    home.json(&["env", "show", "new"]).fails("environment.not_found", 3);
    assert_eq!((home.value(&["env", "list"]), names(&home).len()), (serde_json::json!([]), 1));
    home.json(&["env", "bootstrap", "new", "--file", &good]).fails("environment.busy", 4);
    home.run(&["op", "cancel", &operation]).ok();
    home.json(&["op", "wait", &operation]).fails("operation.cancelled", 1);
    assert_eq!(names(&home), Vec::<String>::new());
    drop(stream);
    let operation = begin();
    let _stream = asked(&listener);
    let daemon = rustix::process::Pid::from_raw(home.daemon().unwrap()).unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
    home.json(&["op", "wait", &operation]).fails("operation.failed", 1);
    assert_eq!(names(&home), Vec::<String>::new());
    // A deadline ends one as well.
    home.json(&["env", "bootstrap", "new", "--file", &slow, "--deadline", "1s"]).fails("operation.deadline", 1);
    assert_eq!(names(&home), Vec::<String>::new());
    home.run(&["env", "bootstrap", "new", "--file", &good]).ok();
    assert_eq!((names(&home), home.rocks("new").len()), (vec!["new".to_owned()], 3));
    // The choice can be taken back, whether or not there is anything in the environment that is meant then.
    home.run(&["env", "use", "new"]).ok();
    assert_eq!(home.value(&["pkg", "list"]).as_array().map(Vec::len), Some(3));
    home.run(&["env", "use", "default"]).ok();
    home.json(&["pkg", "list"]).fails("environment.not_found", 3);
    // What a list says takes no constraint away that was asked for.
    home.run(&["pkg", "install", "bxalpha < 2", "--env", "new"]).ok();
    let plain = set("plain.toml", "\"bxalpha\"");
    home.run(&["env", "bootstrap", "new", "--file", &plain]).ok();
    assert!(home.value(&["env", "show", "new"])["wanted"].to_string().contains("bxalpha < 2"));
    // The same for a machine that has none.
    home.run(&["create", "lab", "--start", "-q"]).ok();
    home.json(&["pkg", "install", "none-such", "--machine", "lab"]).fails("package.not_found", 3);
    let plan = home.value(&["pkg", "install", "bxalpha", "--machine", "lab", "--dry-run"]);
    assert_eq!(plan["steps"].as_array().map(Vec::len), Some(1), "{plan}");
    assert_eq!(names(&home), ["new"]);
    home.end();
}

/// What is put over something else, for a daemon alone: a small file system over a directory, or a device over a program.
enum Over {
    Disk(PathBuf, &'static str),
    Nothing(PathBuf),
}

/// A daemon that sees other things than everybody else does. Ended when this is dropped, and those things with it.
struct Apart(Child);

impl Apart {
    fn start(home: &Home, over: &[Over]) -> Self {
        let text = |bytes: &[u8]| CString::new(bytes).unwrap();
        let mounts: Vec<[CString; 4]> = over
            .iter()
            .map(|over| match over {
                Over::Disk(dir, size) => {
                    [text(b"none"), text(dir.as_os_str().as_bytes()), text(b"tmpfs"), text(format!("size={size},mode=700").as_bytes())]
                }
                Over::Nothing(file) => [text(b"/dev/null"), text(file.as_os_str().as_bytes()), text(b"none"), text(b"")],
            })
            .collect();
        let root = rustix::process::geteuid().is_root();
        let mut command = home.command(&["daemon", "run", "--ready-fd", "1"]);
        // SAFETY: only system calls, with texts that were made before.
        unsafe {
            command.pre_exec(move || {
                let spaces = libc::CLONE_NEWNS | if root { 0 } else { libc::CLONE_NEWUSER };
                let checked = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
                checked(libc::unshare(spaces))?;
                checked(libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE, std::ptr::null()))?;
                for [source, target, kind, options] in &mounts {
                    let flags = if options.is_empty() { libc::MS_BIND } else { 0 };
                    checked(libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()))?;
                }
                Ok(())
            });
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("namespaces of its own");
        let mut ready = [0];
        child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        Self(child)
    }

    fn end(mut self, home: &Home) {
        home.run(&["daemon", "stop"]).ok();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_full_disk_changes_nothing_and_says_so() {
    let mut mirror = Mirror::new();
    mirror.add_family();
    let large = vec![b'x'; 600_000];
    mirror.add(
        "large",
        "1-1",
        &[],
        "{ type = \"builtin\", modules = { large = \"large.lua\" }, install = { conf = { \"data.bin\" } } }",
        &[("large.lua", b"return 1\n"), ("data.bin", &large)],
    );
    let home = home(&mirror);
    home.run(&["daemon", "stop"]).ok();
    let environments = home.path("state/vmoon/environments");
    fs::create_dir_all(&environments).unwrap();
    let apart = Apart::start(&home, &[Over::Disk(environments, "512k")]);
    home.run(&["env", "create", "work"]).ok();
    home.run(&["pkg", "install", "bxgamma", "--env", "work"]).ok();
    let before = (home.rocks("work"), home.generation("work"));
    home.json(&["pkg", "install", "large", "--env", "work"]).fails_with_hint("disk.full", 1);
    assert_eq!((home.rocks("work"), home.generation("work")), before);
    home.run(&["pkg", "verify", "--env", "work"]).ok();
    // One that is to be made does not fit either, and takes no room when it has failed.
    fs::write(home.path("large.toml"), "rocks = [\"large\"]\n").unwrap();
    home.json(&["env", "bootstrap", "new", "--file", "large.toml"]).fails_with_hint("disk.full", 1);
    home.json(&["env", "show", "new"]).fails("environment.not_found", 3);
    home.run(&["pkg", "rm", "bxgamma", "--orphans", "--env", "work", "--yes"]).ok();
    home.run(&["env", "rollback", "work"]).ok();
    assert_eq!(home.rocks("work"), before.0);
    apart.end(&home);
    home.end();
}

/// The file that a name of a program leads to, wherever builders look.
fn programs(names: &[&str]) -> Vec<PathBuf> {
    let dirs = ["/usr/local/bin", "/usr/bin", "/bin"];
    let mut found: Vec<PathBuf> =
        dirs.iter().flat_map(|dir| names.iter().filter_map(|name| Path::new(dir).join(name).canonicalize().ok())).collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn without_a_compiler_what_is_lua_is_installed_and_the_rest_says_what_is_missing() {
    let mut mirror = Mirror::new();
    mirror.add_family();
    mirror.add_c("bxc", "1.0-1");
    mirror.add("made", "1-1", &[], "{ type = \"make\" }", &[("Makefile", b"all:\n")]);
    let home = home(&mirror);
    home.run(&["daemon", "stop"]).ok();
    let hidden: Vec<Over> = programs(&["cc", "gcc", "clang", "luarocks"]).into_iter().map(Over::Nothing).collect();
    let apart = Apart::start(&home, &hidden);
    home.run(&["env", "create", "work"]).ok();
    for (package, missing) in [("bxc", "no C compiler"), ("made", "the program luarocks")] {
        let refused = home.json(&["pkg", "install", package, "--env", "work"]);
        refused.fails_with_hint("package.build", 1);
        assert!(refused.err.contains(missing), "{refused:?}");
    }
    home.run(&["pkg", "install", "bxgamma", "--env", "work"]).ok();
    assert_eq!(home.rocks("work").len(), 3);
    apart.end(&home);
    // With one it is built, and then it is in the cache for who has none.
    home.run(&["pkg", "install", "bxc", "--env", "work"]).ok();
    home.run(&["daemon", "stop"]).ok();
    let apart = Apart::start(&home, &hidden);
    home.run(&["env", "create", "second"]).ok();
    home.run(&["pkg", "install", "bxc", "--env", "second"]).ok();
    assert_eq!(home.with("second", &[], "return require('bxc').number"), "504");
    apart.end(&home);
    home.end();
}

#[test]
fn a_server_that_hangs_does_not_hang_who_asks() {
    let mut mirror = Mirror::new();
    mirror.add_family();
    let home = home(&mirror);
    let (url, listener) = silent();
    home.run(&["env", "create", "work"]).ok();
    home.run(&["pkg", "server", "add", "hangs", &url, "--first", "--env", "work"]).ok();
    let began = std::time::Instant::now();
    // The time that the change may take is over before the server is given up.
    home.json(&["pkg", "install", "bxalpha", "--env", "work", "--deadline", "1s"]).fails("operation.deadline", 1);
    assert!(began.elapsed() < std::time::Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(home.rocks("work").is_empty());
    // What it has nobody knows, so nothing is taken from those after it, in the plan as in earnest; unless it is left out in so many words.
    for offline in [&["--offline", "--dry-run"][..], &["--offline"]] {
        let refused = home.json(&[&["pkg", "install", "bxalpha", "--env", "work"], offline].concat());
        refused.fails_with_hint("package.offline", 7);
        assert!(refused.err.contains("hangs is asked before it") && refused.err.contains("--without-server hangs"), "{refused:?}");
    }
    home.json(&["pkg", "install", "bxalpha", "--env", "work", "--without-server", "hang"]).fails_with_hint("not_found", 3);
    let plan = home.value(&["pkg", "install", "bxalpha", "--env", "work", "--without-server", "hangs", "--dry-run"]);
    assert!(plan["notes"].to_string().contains("the server hangs was left out"), "{plan}");
    home.run(&["pkg", "install", "bxalpha", "--env", "work", "--without-server", "hangs"]).ok();
    // What is installed needs nobody's advice, and the last server of all may be silent.
    home.run(&["pkg", "server", "rm", "hangs", "--env", "work"]).ok();
    home.run(&["pkg", "server", "add", "hangs", &url, "--env", "work"]).ok();
    home.run(&["pkg", "install", "bxgamma", "--env", "work", "--offline"]).ok();
    home.run(&["pkg", "server", "rm", "hangs", "--env", "work"]).ok();
    home.run(&["pkg", "install", "bxalpha", "--env", "work"]).ok();
    drop(listener);
    home.end();
}

/// A newcomer without a network was told that there is no such rock, while nobody had asked the server.
#[test]
fn a_server_that_is_not_reached_is_not_one_that_has_nothing() {
    let mut mirror = Mirror::new();
    mirror.add_family();
    let home = home(&mirror);
    home.run(&["env", "create", "work"]).ok();
    let asks = [
        &["pkg", "search", "none-such", "--env", "work"][..],
        &["pkg", "info", "none-such", "--env", "work"],
        &["pkg", "info", "bxalpha >= 9", "--env", "work"],
        &["pkg", "install", "none-such", "--env", "work"],
        &["pkg", "install", "none-such", "--env", "work", "--dry-run"],
        &["pkg", "install", "bxalpha >= 9", "--env", "work"],
    ];
    // Everybody answers: it is not there.
    assert_eq!(home.value(asks[0]), serde_json::json!([]));
    for ask in &asks[1..] {
        home.json(ask).fails_with_hint("package.not_found", 3);
    }
    // One that would be asked first is not reached.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    home.run(&["pkg", "server", "add", "gone", &format!("http://{gone}"), "--first", "--env", "work"]).ok();
    for ask in asks {
        for (more, code) in [(&[][..], "package.server"), (&["--offline"], "package.offline")] {
            let refused = home.json(&[ask, more].concat());
            refused.fails_with_hint(code, 7);
            assert!(refused.err.contains("gone"), "{refused:?}");
        }
    }
    // Where others have something that is said besides.
    for ask in [&["pkg", "search", "bxalpha", "--env", "work"][..], &["pkg", "info", "bxalpha", "--env", "work"]] {
        let found = home.json(ask);
        assert!(found.err.contains("warning: the server gone was not asked: "), "{found:?}");
        assert!(found.ok().contains("\"unasked\""));
    }
    // What is asked for after it and is on a server before it is decided there.
    home.run(&["pkg", "server", "order", "mirror", "--env", "work"]).ok();
    home.json(&["pkg", "install", "bxalpha >= 9", "--env", "work"]).fails_with_hint("package.not_found", 3);
    home.json(&["pkg", "install", "none-such", "--env", "work"]).fails_with_hint("package.server", 7);
    let installed = home.run(&["pkg", "install", "bxgamma", "--env", "work"]);
    assert!(installed.err.contains("warning: the server gone was not asked: "), "{installed:?}");
    assert!(installed.ok().contains("install bxgamma; generation 2 has 3 rocks"));
    let outdated = home.run(&["pkg", "list", "--outdated", "--env", "work"]);
    assert!(outdated.err.contains("warning: the server gone was not asked: "), "{outdated:?}");
    // What there is nothing to do for does not look as if it had been done.
    for again in [
        &["pkg", "install", "bxgamma", "--env", "work"][..],
        &["pkg", "update", "--all", "--env", "work"],
        &["pkg", "sync", "--env", "work"],
    ] {
        let said = home.run(again).ok();
        assert!(said.contains("nothing to do, all is there already; generation 2 stays"), "{said}");
    }
    home.end();
}

#[test]
fn a_shell_completes_environments_packages_profiles_and_servers() {
    let mut mirror = Mirror::new();
    mirror.add_family();
    let home = home(&mirror);
    let asked = |line: &[&str]| {
        let index = (line.len() - 1).to_string();
        let mut command = home.command(&[&["--"], line].concat());
        let output = command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).output().unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    home.run(&["env", "create", "work"]).ok();
    home.run(&["env", "create", "other"]).ok();
    home.run(&["pkg", "install", "bxgamma", "--env", "work"]).ok();
    assert_eq!(asked(&["vmoon", "env", "show", "wo"]), ["work"]);
    assert_eq!(asked(&["vmoon", "run", "--env", "o"]), ["other"]);
    assert_eq!(asked(&["vmoon", "pkg", "rm", "--env", "work", "bx"]), ["bxalpha", "bxbeta", "bxgamma"]);
    assert_eq!(asked(&["vmoon", "pkg", "rm", "--env", "other", "bx"]), Vec::<String>::new());
    assert_eq!(asked(&["vmoon", "pkg", "install", "--env", "other", "bxd"]), ["bxdelta"]);
    assert_eq!(asked(&["vmoon", "env", "bootstrap", "x", "--set", "bioxen-m"]), ["bioxen-minimal"]);
    assert_eq!(asked(&["vmoon", "pkg", "server", "rm", "mi"]), ["mirror"]);
    home.end();
}
