//! Programs and machines with an environment of packages: what `require` finds, in which interpreters and profiles, and what is refused.

use super::home::Home;
use serde_json::Value;
use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command};

/// The C source of a module `answer`; the two functions are those of every Lua version.
const ANSWER: &str = "void lua_pushstring(void *, const char *); \
    int luaopen_answer(void *L) { lua_pushstring(L, \"forty-two\"); return 1; }\n";

/// Environments made by hand in a state directory: what is tested here is how they are used, not how they are made.
pub(crate) struct Made {
    state: PathBuf,
    module: PathBuf,
}

impl Made {
    /// In this state directory; what is compiled is put into the other one.
    pub(crate) fn new(state: PathBuf, dir: PathBuf) -> Self {
        let (source, module) = (dir.join("answer.c"), dir.join("answer.so"));
        fs::write(&source, ANSWER).unwrap();
        let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&module).arg(&source).status();
        assert!(status.expect("cc is needed: apt install gcc libc6-dev").success());
        Self { state, module }
    }

    /// Makes a generation of an environment, which becomes the current one; its module `greet` says its words.
    pub(crate) fn generation(&self, name: &str, lua: &str, number: u64, words: &str) {
        let dir = self.state.join("vmoon/environments").join(name);
        let tree = dir.join("generations").join(number.to_string());
        let (scripts, libraries) = (tree.join("share/lua").join(lua), tree.join("lib/lua").join(lua));
        fs::create_dir_all(&scripts).unwrap();
        fs::create_dir_all(&libraries).unwrap();
        fs::write(scripts.join("greet.lua"), format!("return {{ say = function() return [[{words}]] end }}\n")).unwrap();
        fs::copy(&self.module, libraries.join("answer.so")).unwrap();
        fs::write(dir.join("environment.toml"), format!("lua = \"{lua}\"\n")).unwrap();
        let _ = fs::remove_file(dir.join("current"));
        symlink(format!("generations/{number}"), dir.join("current")).unwrap();
    }
}

/// A home with such environments.
pub(crate) struct Place {
    pub(crate) home: Home,
    made: Made,
}

impl Place {
    pub(crate) fn new() -> Self {
        let home = Home::new();
        let made = Made::new(home.path("state"), home.path("."));
        Self { home, made }
    }

    pub(crate) fn generation(&self, name: &str, lua: &str, number: u64, words: &str) {
        self.made.generation(name, lua, number, words);
    }

    #[track_caller]
    pub(crate) fn says(&self, args: &[&str]) -> String {
        self.home.run(args).ok().trim().to_owned()
    }

    pub(crate) fn facts(&self, machine: &str) -> Value {
        let shown: Value = serde_json::from_str(&self.home.json(&["show", machine]).ok()).unwrap();
        shown["facts"].clone()
    }
}

const BOTH: &str = "print(require('greet').say(), (require('answer')))";

#[test]
fn one_shot_programs_find_modules_in_lua_and_in_c() {
    let place = Place::new();
    place.generation("new", "5.4", 1, "hello");
    place.generation("old", "5.1", 1, "hello of old");
    // Sealed by default, and still the environment that was named is there with its C modules.
    assert_eq!(place.says(&["run", "--env", "new", "-e", BOTH]), "hello\tforty-two");
    assert_eq!(place.says(&["run", "--env", "new", "--profile", "trusted", "-e", BOTH]), "hello\tforty-two");
    for runtime in ["lua5.1", "luajit"] {
        for profile in ["sealed", "files", "trusted"] {
            let said = place.says(&["run", "--env", "old", "--runtime", runtime, "--profile", profile, "-e", BOTH]);
            assert_eq!(said, "hello of old\tforty-two", "{runtime}, {profile}");
        }
    }
    assert_eq!(place.says(&["run", "--env", "new", "--runtime", "lua5.4", "-e", BOTH]), "hello\tforty-two");
    // Nothing else became readable, and what is installed on the computer is not found by accident.
    let elsewhere = place.home.path("secret");
    fs::write(&elsewhere, "x").unwrap();
    let code = format!("print(io.open('{}'))", elsewhere.display());
    assert!(place.says(&["run", "--env", "new", "-e", &code]).starts_with("nil"));
    let path = place.says(&["run", "--env", "new", "-e", "print(package.path, package.cpath)"]);
    assert!(path.contains("/environments/new/generations/1/share/lua/5.4/?.lua") && !path.contains("/usr"), "{path}");
    let items = place.home.feed(&["run", "--env", "new", "--map", "-", "-e", "return require('greet').say() .. (...)"], b"1\n2\n");
    assert!(items.ok().contains("hello2"));
    place.home.end();
}

#[test]
fn what_does_not_suit_is_refused_with_the_reason() {
    let place = Place::new();
    place.generation("new", "5.4", 1, "hello");
    let ran = place.home.run(&["run", "--env", "new", "--runtime", "lua5.1", "-e", "return 1"]);
    assert!(ran.code == 2 && ran.err.contains("packages for Lua 5.4") && ran.err.contains("Lua 5.1"), "{ran:?}");
    place.home.json(&["run", "--map", "-", "--env", "nope", "-e", "return 1"]).fails_with_hint("environment.not_found", 3);
    place.home.json(&["run", "--map", "-", "--env", "../new", "-e", "return 1"]).fails("name.invalid", 2);
    place.home.json(&["create", "m", "--env", "nope"]).fails("environment.not_found", 3);
    place.home.json(&["create", "m", "--env", "x/y"]).fails("spec.invalid", 2);
    let refused = place.home.json(&["create", "m", "--env", "new", "--runtime", "luajit"]);
    refused.fails("spec.invalid", 2);
    assert!(refused.err.contains("luajit is Lua 5.1"), "{refused:?}");
    assert!(!place.home.run(&["list"]).ok().contains('m'));
    place.home.end();
}

#[test]
fn machines_start_with_their_environment_and_keep_its_generation() {
    let place = Place::new();
    place.generation("e", "5.4", 1, "one");
    place.generation("o", "5.1", 1, "old");
    for (name, more) in [
        ("plain", &["--env", "e"][..]),
        ("shut", &["--env", "e", "--profile", "sealed"]),
        ("free", &["--env", "e", "--profile", "trusted"]),
        ("program", &["--env", "e", "--runtime", "lua5.4"]),
        ("jit", &["--env", "o", "--runtime", "luajit"]),
    ] {
        place.home.run(&[&["create", name, "--start", "-q"], more].concat()).ok();
        let expect = if name == "jit" { "old\tforty-two" } else { "one\tforty-two" };
        assert_eq!(place.says(&["eval", name, BOTH]), expect, "{name}");
    }
    let facts = place.facts("plain");
    assert_eq!((facts["env"].as_str(), facts["generation"].as_u64()), (Some("e"), Some(1)));
    assert!(place.home.run(&["show", "plain"]).ok().contains("generation"));
    // A new generation is for those that start from now on.
    place.generation("e", "5.4", 2, "two");
    let again = "package.loaded.greet = nil return require('greet').say()";
    assert_eq!(place.says(&["eval", "plain", again]), "one");
    place.home.run(&["restart", "plain", "-q"]).ok();
    assert_eq!(place.says(&["eval", "plain", again]), "two");
    assert_eq!(place.facts("plain")["generation"].as_u64(), Some(2));
    // The tree is there to be read and nothing else.
    let tree = place.home.path("state/vmoon/environments/e/generations/2/share/lua/5.4/x.lua");
    let write = format!("return io.open([[{}]], 'w')", tree.display());
    assert!(place.says(&["eval", "plain", &write]).contains("Permission denied"));
    place.home.end();
}
