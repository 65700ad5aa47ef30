//! Packages and environments at the binary, from a rocks server that the test makes: installed, used in every kind of Lua, taken back, and all that
//! can go wrong with them.

use super::{home::Home, mirror::Mirror};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
};

/// A home that knows one server of its own, and the rocks inside vmoon.
pub(crate) fn home(mirror: &Mirror) -> Home {
    let home = Home::new();
    home.run(&["pkg", "server", "rm", "luarocks"]).ok();
    home.run(&["pkg", "server", "add", "mirror", &mirror.url()]).ok();
    home
}

impl Home {
    /// A verb's JSON.
    #[track_caller]
    pub(crate) fn value(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.json(args).ok()).unwrap()
    }

    /// The rocks of an environment with their versions.
    #[track_caller]
    pub(crate) fn rocks(&self, environment: &str) -> Vec<String> {
        let list = self.value(&["pkg", "list", "--env", environment]);
        let text = |rock: &Value| format!("{} {}", rock["name"].as_str().unwrap(), rock["version"].as_str().unwrap());
        list.as_array().unwrap().iter().map(text).collect()
    }

    /// What a one-shot program with an environment prints.
    #[track_caller]
    pub(crate) fn with(&self, environment: &str, more: &[&str], code: &str) -> String {
        self.run(&[&["run", "--env", environment], more, &["-e", code]].concat()).ok().trim().to_owned()
    }

    /// The generation that is current.
    pub(crate) fn generation(&self, environment: &str) -> u64 {
        self.value(&["env", "show", environment])["generation"].as_u64().unwrap()
    }
}

#[test]
fn packages_are_installed_updated_removed_and_taken_back() {
    let mut mirror = Mirror::new();
    mirror.add_family();
    mirror.add_c("bxc", "1.0-1");
    let home = home(&mirror);
    home.run(&["env", "create", "work"]).ok();
    // The plan first: it says what, how and why, and touches nothing.
    let plan = home.value(&["pkg", "install", "bxgamma", "--env", "work", "--dry-run"]);
    let steps: Vec<&str> = plan["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(steps, ["bxalpha", "bxbeta", "bxgamma"], "{plan}");
    assert!(home.rocks("work").is_empty());
    // What constraints allow, not what is newest.
    let said = home.run(&["pkg", "install", "bxgamma", "--env", "work"]).ok();
    assert!(said.contains("install bxgamma") && said.contains("3 rocks"), "{said}");
    assert_eq!(home.rocks("work"), ["bxalpha 1.1-1", "bxbeta 1.0-1", "bxgamma 1.0-1"]);
    assert_eq!(home.with("work", &[], "return require('bxalpha').version, require('bxgamma').version"), "1.1-1\t1.0-1");
    assert!(home.run(&["pkg", "tree", "--env", "work"]).ok().starts_with("bxgamma 1.0-1\n"));
    assert!(home.run(&["pkg", "why", "bxalpha", "--env", "work"]).ok().contains("bxgamma → bxbeta → bxalpha"));
    home.json(&["pkg", "why", "nope", "--env", "work"]).fails_with_hint("package.not_found", 3);
    // A module in C, compiled for the version of the environment.
    home.run(&["pkg", "install", "bxc", "--env", "work"]).ok();
    assert_eq!(home.with("work", &[], "return require('bxc').number"), "504");
    home.run(&["env", "create", "old", "--lua", "5.1"]).ok();
    home.run(&["pkg", "install", "bxc", "bxalpha@1.0", "--env", "old"]).ok();
    assert_eq!(home.with("old", &["--runtime", "lua5.1"], "return require('bxc').number"), "501");
    assert_eq!(home.with("old", &["--runtime", "luajit"], "return require('bxc').number"), "501");
    // Only what is asked for is updated, as far as constraints allow.
    assert_eq!(home.value(&["pkg", "list", "--outdated", "--env", "old"])[0]["newer"]["newest"], "2.0-1");
    home.run(&["pkg", "install", "bxalpha", "--env", "old"]).ok();
    home.run(&["pkg", "update", "--all", "--env", "old"]).ok();
    assert!(home.rocks("old").contains(&"bxalpha 2.0-1".to_owned()), "{:?}", home.rocks("old"));
    // What others need stays, unless they go, too.
    let refused = home.json(&["pkg", "rm", "bxalpha", "--env", "work", "--yes"]);
    refused.fails("package.required", 4);
    assert!(refused.err.contains("bxbeta"), "{refused:?}");
    home.run(&["pkg", "rm", "bxgamma", "--env", "work", "--yes"]).ok();
    home.run(&["pkg", "rm", "--orphans", "--env", "work", "--yes"]).ok();
    assert_eq!(home.rocks("work"), ["bxc 1.0-1"]);
    // And back.
    home.run(&["env", "rollback", "work"]).ok();
    assert!(home.rocks("work").contains(&"bxalpha 1.1-1".to_owned()));
    let history = home.value(&["pkg", "history", "--env", "work"]);
    assert!(history.as_array().unwrap().len() >= 5, "{history}");
    home.json(&["env", "rollback", "work", "--to", "99"]).fails("not_found", 3);
    // Damage is seen and repaired.
    home.run(&["pkg", "verify", "--env", "work"]).ok();
    let directory = home.value(&["env", "show", "work"])["directory"].as_str().unwrap().to_owned();
    let module = Path::new(&directory).join("current/share/lua/5.4/bxc.lua");
    fs::remove_file(&module).unwrap();
    fs::write(&module, "return {}").unwrap();
    let damaged = home.run(&["pkg", "verify", "--env", "work"]);
    assert!(damaged.code == 1 && damaged.out.contains("bxc.lua"), "{damaged:?}");
    home.run(&["pkg", "sync", "--env", "work"]).ok();
    home.run(&["pkg", "verify", "--env", "work"]).ok();
    assert_eq!(home.with("work", &[], "return require('bxc').number"), "504");
    // Elsewhere the same, from the lock alone, and without asking anybody.
    let lock = home.run(&["env", "export", "work"]).ok();
    fs::write(home.path("work.lock"), &lock).unwrap();
    home.run(&["env", "import", "copy", "work.lock", "--offline"]).ok();
    assert_eq!(home.rocks("copy"), home.rocks("work"));
    home.run(&["env", "rm", "copy", "old", "work", "--yes"]).ok();
    assert_eq!(home.value(&["env", "list"]), Value::Array(vec![]));
    home.end();
}

#[test]
fn packages_are_found_by_name_module_and_description() {
    let mut mirror = Mirror::new();
    mirror.add_family();
    mirror.add_c("bxc", "1.0-1");
    let home = home(&mirror);
    let names = |args: &[&str]| {
        let found = home.value(args);
        found.as_array().unwrap().iter().map(|rock| rock["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["pkg", "search", "bxbeta"]), ["bxbeta"]);
    assert_eq!(names(&["pkg", "search", "rock", "bxgamma", "test"]), ["bxgamma"]);
    assert_eq!(names(&["pkg", "search", "bxc.core"]), ["bxc"]);
    assert_eq!(names(&["pkg", "search", "bxdelta", "--offline"]), ["bxdelta"]);
    assert!(names(&["pkg", "search", "codon"]).contains(&"bio-utils".to_owned()));
    let info = home.value(&["pkg", "info", "bxbeta"]);
    assert_eq!((info["version"].as_str(), info["dependencies"][1].as_str()), (Some("1.0-1"), Some("bxalpha < 2.0")));
    let missing = home.json(&["pkg", "info", "bxbetta"]);
    missing.fails_with_hint("package.not_found", 3);
    assert!(missing.err.contains("bxbeta"), "{missing:?}");
    home.run(&["pkg", "server", "order", "mirror"]).ok();
    assert!(home.run(&["pkg", "server", "list", "--no-header"]).ok().starts_with("mirror"));
    home.json(&["pkg", "server", "add", "bad", "http://example.org"]).fails_with_hint("usage", 2);
    home.json(&["pkg", "server", "rm", "bad"]).fails("not_found", 3);
    assert!(home.run(&["pkg", "cache"]).ok().contains("downloads"));
    home.run(&["pkg", "cache", "--clear"]).ok();
    home.end();
}

#[test]
fn a_profile_is_bootstrapped_offline_and_works_in_every_lua() {
    for (lua, runtimes) in [("5.4", &["builtin", "lua5.4"][..]), ("5.1", &["lua5.1", "luajit"])] {
        let mut mirror = Mirror::new();
        mirror.add_debian(lua);
        let home = home(&mirror);
        home.run(&["env", "bootstrap", "bio", "--lua", lua, "--set", "bioxen-minimal"]).ok();
        // Again, with nothing but the cache.
        home.run(&["env", "rm", "bio", "--yes"]).ok();
        home.run(&["env", "bootstrap", "bio", "--lua", lua, "--set", "bioxen-minimal", "--offline"]).ok();
        let code = "local json, lfs, bio = require('cjson'), require('lfs'), require('bio.utils') \
            return json.encode({ 1, 2 }), type(lfs.attributes), type(bio)";
        for runtime in runtimes {
            assert_eq!(home.with("bio", &["--runtime", runtime], code), "[1,2]\tfunction\ttable", "{runtime}");
            let name = format!("m-{}", runtime.replace('.', ""));
            home.run(&["create", &name, "--env", "bio", "--runtime", runtime, "--start", "-q"]).ok();
            assert!(home.run(&["eval", &name, code]).ok().contains("[1,2]"), "{runtime}");
        }
        let shown = home.value(&["env", "show", "bio"]);
        assert_eq!(shown["machines"].as_array().unwrap().len(), runtimes.len(), "{shown}");
        home.json(&["env", "rm", "bio", "--yes"]).fails_with_hint("environment.in_use", 4);
        home.end();
    }
}

#[test]
fn a_running_machine_gets_packages_and_another_environment() {
    let mut mirror = Mirror::new();
    mirror.add_family();
    mirror.add_c("bxc", "1.0-1");
    let home = home(&mirror);
    home.run(&["create", "lab", "--start", "-q"]).ok();
    assert!(home.run(&["eval", "lab", "return pcall(require, 'bxalpha')"]).ok().contains("false"));
    // It has no environment: one is made for it.
    let said = home.run(&["pkg", "install", "bxalpha", "bxc", "--machine", "lab"]).ok();
    assert!(said.contains("created environment lab") && said.contains("lab uses lab generation"), "{said}");
    assert_eq!(home.run(&["eval", "lab", "return require('bxalpha').version, require('bxc').number"]).ok().trim(), "2.0-1\t504");
    // What is loaded stays, and is named.
    let ran = home.run(&["pkg", "install", "bxalpha@1.0", "--machine", "lab"]);
    assert!(ran.code == 0 && ran.err.contains("bxalpha"), "{ran:?}");
    assert_eq!(home.run(&["eval", "lab", "return require('bxalpha').version"]).ok().trim(), "2.0-1");
    assert_eq!(home.run(&["eval", "lab", "package.loaded.bxalpha = nil return require('bxalpha').version"]).ok().trim(), "1.0-1");
    // Another environment.
    home.run(&["env", "create", "other"]).ok();
    home.run(&["pkg", "install", "bxgamma", "--env", "other"]).ok();
    home.run(&["env", "apply", "other", "lab", "--dry-run"]).ok();
    assert!(home.run(&["eval", "lab", "return pcall(require, 'bxgamma')"]).ok().contains("false"));
    let applied = home.value(&["env", "apply", "other", "lab"]);
    assert_eq!((applied["effect"].as_str(), applied["loaded"].as_array().map(Vec::len)), (Some("now"), Some(3)), "{applied}");
    assert_eq!(home.run(&["eval", "lab", "return require('bxgamma').version"]).ok().trim(), "1.0-1");
    assert_eq!(home.value(&["show", "lab"])["facts"]["env"], "other");
    // And from its next start on, too.
    home.run(&["restart", "lab", "-q"]).ok();
    assert_eq!(home.run(&["eval", "lab", "return require('bxgamma').version"]).ok().trim(), "1.0-1");
    // A stopped machine uses it when it starts; a sealed one cannot be given what it may not read.
    home.run(&["create", "shut", "--profile", "sealed", "--start", "-q"]).ok();
    home.json(&["env", "apply", "other", "shut"]).fails_with_hint("machine.running", 4);
    home.run(&["stop", "shut", "-q"]).ok();
    assert!(home.run(&["env", "apply", "other", "shut"]).ok().contains("next start"));
    home.run(&["start", "shut", "-q"]).ok();
    assert_eq!(home.run(&["eval", "shut", "return require('bxgamma').version"]).ok().trim(), "1.0-1");
    home.run(&["create", "jit", "--runtime", "luajit", "--start", "-q"]).ok();
    home.json(&["env", "apply", "other", "jit"]).fails("spec.invalid", 2);
    // What a machine would start with stays, too.
    home.run(&["env", "create", "later"]).ok();
    home.run(&["create", "idle", "-q"]).ok();
    home.run(&["env", "apply", "later", "idle"]).ok();
    home.json(&["env", "rm", "later", "--yes"]).fails_with_hint("environment.in_use", 4);
    home.run(&["rm", "idle", "--yes", "-q"]).ok();
    home.run(&["env", "rm", "later", "--yes"]).ok();
    home.end();
}

#[test]
fn what_cannot_be_installed_says_why_and_changes_nothing() {
    let mut mirror = Mirror::new();
    mirror.add_family();
    let spec = |name: &str, url: &str, more: &str| {
        format!(
            "package = \"{name}\"\nversion = \"1-1\"\nsource = {{ url = \"{url}\" }}\nbuild = {{ type = \"builtin\", modules = {{ {name} = \"x.lua\" }} }}\n{more}"
        )
    };
    // A circle is no trouble.
    mirror.add_plain("round", "1-1", &["about"]);
    mirror.add_plain("about", "1-1", &["round"]);
    // Archives that are cut, that climb, and that are not there.
    mirror.add_plain("cut", "1-1", &[]);
    let archive = mirror.path("cut-1-1.tar.gz");
    let bytes = fs::read(&archive).unwrap();
    fs::write(&archive, &bytes[..bytes.len() / 2]).unwrap();
    let climbing = mirror.path("climb.tar");
    fs::write(&climbing, tar_with("../../escaped.lua")).unwrap();
    mirror.add_spec("climb", "1-1", &spec("climb", &format!("file://{}", climbing.display()), ""));
    for (name, archive) in [
        ("absolute", tar_with("/tmp/vmoon-escaped.lua")),
        ("linked", tar_of("x.lua", b'2', "../../../../etc/passwd")),
        ("doubled", tar_of("x.lua", b'1', "/etc/passwd")),
    ] {
        let file = mirror.path(&format!("{name}.tar"));
        fs::write(&file, archive).unwrap();
        mirror.add_spec(name, "1-1", &spec(name, &format!("file://{}", file.display()), ""));
    }
    mirror.add_spec("gone", "1-1", &spec("gone", &format!("file://{}", mirror.path("none.tar.gz").display()), ""));
    // Rockspecs that do not end, eat memory, call the system, are something else.
    mirror.add_spec("endless", "1-1", "while true do end");
    mirror.add_spec("bomb", "1-1", "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1e6) .. i end");
    mirror.add_spec("caller", "1-1", &format!("os.execute('touch {}')", mirror.path("called").display()));
    mirror.add_spec("liar", "1-1", &spec("other", "file:///x", ""));
    // C that does not compile.
    mirror.add("wrong", "1-1", &[], "{ type = \"builtin\", modules = { wrong = \"wrong.c\" } }", &[("wrong.c", b"int main( {\n")]);
    let home = home(&mirror);
    home.run(&["env", "create", "work"]).ok();
    home.run(&["pkg", "install", "bxbeta", "round", "--env", "work"]).ok();
    let (rocks, generation) = (home.rocks("work"), home.generation("work"));
    for (package, code) in [
        ("bxalfa", "package.not_found"),
        ("bxalpha == 7", "package.not_found"),
        ("bxdelta bxbeta", "package.conflict"),
        ("cut", "package.archive"),
        ("climb", "package.archive"),
        ("absolute", "package.archive"),
        ("linked", "package.archive"),
        ("doubled", "package.archive"),
        ("gone", "not_found"),
        ("endless", "package"),
        ("bomb", "package"),
        ("caller", "package"),
        ("liar", "package"),
        ("wrong", "package.build"),
        ("lua", "usage"),
        ("../x", "usage"),
        ("x\n", "usage"),
        ("--help me", "usage"),
    ] {
        let mut args = vec!["pkg", "install", "--env", "work", "--"];
        if package.contains("bxdelta") {
            args.extend(package.split(' '))
        } else {
            args.push(package)
        }
        let ran = home.json(&args);
        let line = ran.err.lines().last().unwrap_or_default();
        let error: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{package}: {ran:?}"));
        let found = error["error"]["code"].as_str().unwrap();
        assert!(ran.code != 0 && found.starts_with(code), "{package}: {error}");
        assert!(error["error"]["message"].as_str().is_some_and(|message| message.len() > 10), "{error}");
    }
    let conflict = home.json(&["pkg", "install", "bxdelta", "bxbeta", "--env", "work"]);
    assert!(conflict.err.contains("bxalpha") && conflict.err.contains("< 2.0"), "{conflict:?}");
    let near = home.json(&["pkg", "install", "bxalfa", "--env", "work"]);
    assert!(near.err.contains("bxalpha"), "{near:?}");
    assert!(!mirror.path("called").exists() && !mirror.path("../escaped.lua").exists());
    assert_eq!((home.rocks("work"), home.generation("work")), (rocks, generation), "something was changed");
    home.run(&["pkg", "verify", "--env", "work"]).ok();
    // A lock that promises something else.
    let lock = home.run(&["env", "export", "work"]).ok();
    let spoilt: Vec<String> = lock
        .lines()
        .map(|line| if line.starts_with("sha256 = ") { format!("sha256 = \"{}\"", "0".repeat(64)) } else { line.to_owned() })
        .collect();
    fs::write(home.path("spoilt.lock"), spoilt.join("\n")).unwrap();
    home.json(&["env", "import", "copy", "spoilt.lock"]).fails("package.checksum", 1);
    fs::write(home.path("no.lock"), "what is this").unwrap();
    home.json(&["env", "import", "copy", "no.lock"]).fails("package.invalid", 1);
    home.json(&["pkg", "list", "--env", "copy"]).fails("environment.not_found", 3);
    home.json(&["env", "create", "work"]).fails("environment.exists", 4);
    home.json(&["env", "create", "new", "--lua", "6"]).fails("usage", 2);
    home.json(&["env", "bootstrap", "new", "--set", "nope"]).fails("not_found", 3);
    home.end();
}

/// A tar archive with one file of this name.
fn tar_with(name: &str) -> Vec<u8> {
    tar_of(name, b'0', "")
}

/// A tar archive with one entry of this kind: `0` a file, `1` another name of `to`, `2` a link to it.
fn tar_of(name: &str, kind: u8, to: &str) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[157..157 + to.len()].copy_from_slice(to.as_bytes());
    for (at, text) in [(100, "0000644\0"), (108, "0000000\0"), (116, "0000000\0"), (136, "00000000000\0"), (257, "ustar\x0000")] {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    let size = if kind == b'0' { "00000000001\0" } else { "00000000000\0" };
    header[124..136].copy_from_slice(size.as_bytes());
    header[156] = kind;
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.extend((kind == b'0').then_some(b'x'));
    tar.resize(512 * 4, 0);
    tar
}

/// A server that takes requests and never answers; says when one has come.
pub(crate) fn silent() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (format!("http://{}", listener.local_addr().unwrap()), listener)
}

#[test]
fn an_install_is_killed_cancelled_and_not_doubled() {
    let mut mirror = Mirror::new();
    mirror.add_family();
    let (url, listener) = silent();
    mirror.add_spec(
        "slow",
        "1-1",
        &format!("package = \"slow\"\nversion = \"1-1\"\nsource = {{ url = \"{url}/slow.tar.gz\" }}\nbuild = {{ type = \"builtin\", modules = {{}} }}\n"),
    );
    let home = home(&mirror);
    home.run(&["env", "create", "work"]).ok();
    home.run(&["pkg", "install", "bxalpha", "--env", "work"]).ok();
    let (rocks, generation) = (home.rocks("work"), home.generation("work"));
    let begin = || {
        let begun = home.value(&["pkg", "install", "slow", "bxgamma", "--env", "work", "--no-wait"]);
        // It has asked for the source, so it is in the middle.
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("slow.tar.gz"), "{line}");
        (begun["operation"].as_str().unwrap().to_owned(), stream)
    };
    // Two at once: the second is told of the first.
    let (operation, _stream) = begin();
    let busy = home.json(&["pkg", "install", "bxbeta", "--env", "work"]);
    busy.fails_with_hint("environment.busy", 4);
    assert!(busy.err.contains(&operation), "{busy:?}");
    assert!(home.run(&["op", "list", "--running"]).ok().contains("install slow bxgamma"));
    home.json(&["env", "rm", "work", "--yes"]).fails("environment.busy", 4);
    // Cancelled: nothing has changed.
    home.run(&["op", "cancel", &operation]).ok();
    let ended = home.json(&["op", "wait", &operation]);
    ended.fails("operation.cancelled", 1);
    assert_eq!((home.rocks("work"), home.generation("work")), (rocks.clone(), generation));
    // Killed: the same, and the record says so.
    let (operation, _stream) = begin();
    let daemon = rustix::process::Pid::from_raw(home.daemon().unwrap()).unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
    assert_eq!((home.rocks("work"), home.generation("work")), (rocks, generation));
    let ended = home.json(&["op", "wait", &operation]);
    ended.fails("operation.failed", 1);
    home.run(&["pkg", "verify", "--env", "work"]).ok();
    home.run(&["pkg", "install", "bxbeta", "--env", "work"]).ok();
    assert!(home.rocks("work").contains(&"bxbeta 1.0-1".to_owned()));
    home.end();
}
