//! The Lua program that evaluates manifests and rockspecs, against texts that mean no good.

use crate::sandbox::Installed;
use serde_json::json;
use vmoon_core::Code;
use vmoon_packages::{
    evaluate::{Evaluator as _, MAX_ROCKSPEC},
    manifest::Manifest,
};

#[test]
fn globals_become_data() {
    let text = "#!/usr/bin/env lua\nlocal v = '1.0'\npackage = 'x'\nversion = v .. '-1'\nlist = { 1, 2.5, true, n = 'näme' }\nempty = {}\n\
        latin = 'caf\\233'\nodd = 'a\\0b\"\\\\\\n'\nup = ('abc'):upper()\n";
    let value = Installed::default().rockspec(text.as_bytes()).unwrap();
    let expected = json!({
        "package": "x", "version": "1.0-1", "list": {"1": 1, "2": 2.5, "3": true, "n": "näme"}, "empty": [], "latin": "café",
        "odd": "a\0b\"\\\n", "up": "ABC",
    });
    assert_eq!(value, expected);
    let returned = Installed::default().rockspec(b"return { dependencies = { lpeg = '1.0-1' } }").unwrap();
    assert_eq!(returned, json!({"dependencies": {"lpeg": "1.0-1"}}));
}

#[test]
fn hostile_texts_are_refused_soon_and_with_a_reason() {
    let evaluator = Installed::default();
    for (text, why) in [
        ("while true do end", "does not end"),
        ("local function f() return f() end f()", "does not end"),
        ("local s = 'x' while true do s = s .. s end", "too much memory"),
        ("local t = {} for i = 1, 1e9 do t[i] = i end", "fails: it "),
        ("x = ('x'):rep(1e9)", "too long"),
        ("x = ('x'):rep(1e5, ('y'):rep(1e6))", "too long"),
        ("a = {} a.a = a", "contain themselves"),
        ("x = os.execute('id')", "global 'os'"),
        ("x = io.open('/etc/passwd')", "global 'io'"),
        ("require 'os'", "global 'require'"),
        ("load('x = 1')()", "global 'load'"),
        ("x = ('').dump", "no rockspec: it sets nothing"),
        ("getmetatable('').__index = nil", "global 'getmetatable'"),
        ("x = function() end", "a function"),
        ("x = { [{}] = 1 }", "a key that is a table"),
        ("x = { 1, ['1'] = 2, n = 3 }", "two keys called 1"),
        ("x = 0/0", "a number that is none"),
        ("\u{1b}Lua", "not Lua"),
        ("package = ", "not Lua"),
        ("<!DOCTYPE html>", "not Lua"),
        ("error({})", "global 'error'"),
        ("local x <close> = 1", "fails"),
    ] {
        match evaluator.rockspec(text.as_bytes()) {
            Err(error) => {
                assert_eq!(error.code(), Code::PackageInvalid, "{text}");
                assert!(error.message().contains(why), "{text}: {error}");
            }
            // What is not a method any more is nothing.
            Ok(value) => assert_eq!((value, text), (json!([]), "x = ('').dump")),
        }
    }
    let long = "x = 1\n".repeat(MAX_ROCKSPEC / 6 + 1);
    assert_eq!(evaluator.rockspec(long.as_bytes()).unwrap_err().code(), Code::PackageInvalid);
}

#[test]
fn hostile_manifests_are_refused_and_odd_entries_counted() {
    let evaluator = Installed::default();
    let text = "repository = { a = { ['1-1'] = { { arch = 'src' }, { arch = 7 }, 'x' }, [1] = {} }, [7] = {}, b = 'x',\n\
        ['e\\n=evil'] = { ['1-1'] = { { arch = 'src' } } } }\nmodules = { m = { 'a/1-1', 7 }, n = 3 }\ncommands = {}\n";
    let manifest = Manifest::read(text.as_bytes(), &evaluator).unwrap();
    assert_eq!(manifest.rocks["a"].len(), 1);
    assert_eq!(manifest.modules["m"].len(), 1);
    assert!(manifest.passed_over >= 6, "{manifest:?}");
    for text in [
        "",
        "x = 1",
        "repository = 7",
        "while true do local t = {} end",
        "repository = {} repository.a = repository error()",
        "repository = {",
    ] {
        assert_eq!(Manifest::read(text.as_bytes(), &evaluator).unwrap_err().code(), Code::PackageInvalid, "{text}");
    }
}
