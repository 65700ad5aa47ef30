//! Rockspecs as they are found, good and bad.

use super::*;
use serde_json::json;

fn minimal() -> Value {
    json!({
        "rockspec_format": "3.0", "package": "Some-Rock", "version": "1.0-2",
        "source": {"url": "https://example.org/some-rock-1.0.tar.gz"},
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut spec = minimal();
    spec[name] = value;
    spec
}

#[test]
fn a_small_rockspec_is_read() {
    let spec = Rockspec::from_value(&minimal(), PLATFORMS).unwrap();
    assert_eq!((spec.package.as_str(), spec.version.as_str()), ("some-rock", "1.0-2"));
    assert_eq!((spec.build.kind.as_str(), spec.build.autodetect), ("builtin", true));
    assert!(spec.deploy.wrap_bin_scripts && spec.supports(PLATFORMS) && spec.format_is_at_least(3, 0) && !spec.format_is_at_least(3, 1));
}

#[test]
fn platforms_lay_over_what_is_general() {
    let spec = json!({
        "rockspec_format": "1.0", "package": "p", "version": "1-1", "source": {"url": "file:///x"},
        "dependencies": {"1": "lua >= 5.1", "2": "a", "platforms": {"unix": {"2": "b"}, "linux": ["lua >= 5.2"], "windows": ["c"]}},
        "build": {
            "type": "builtin",
            "modules": {"m": {"sources": ["m.c"], "libraries": ["general"]}},
            "platforms": {
                "unix": {"modules": {"m": {"libraries": ["unix"]}, "n": "n.lua"}},
                "linux": {"modules": {"m": {"defines": ["LINUX"]}}},
                "windows": {"modules": {"w": "w.c"}},
            },
        },
    });
    let spec = Rockspec::from_value(&spec, PLATFORMS).unwrap();
    let dependencies: Vec<String> = spec.dependencies.iter().map(Dependency::to_string).collect();
    assert_eq!(dependencies, ["lua >= 5.2", "b"]);
    let Module::Native(native) = &spec.build.modules["m"] else { panic!("{:?}", spec.build.modules) };
    assert_eq!((native.libraries.as_slice(), native.defines.as_slice()), (&["unix".to_owned()][..], &["LINUX".to_owned()][..]));
    assert_eq!(spec.build.modules["n"], Module::Lua("n.lua".into()));
    assert_eq!(spec.build.modules.len(), 2);
    assert!(!spec.build.more.contains_key("platforms"));
}

/// As LuaSocket's: all modules stand below the platforms.
#[test]
fn a_build_may_stand_below_its_platforms_alone() {
    let unix = json!({"modules": {"socket.core": {"sources": ["src/luasocket.c", "src/unix.c"], "defines": {}, "incdir": "/src"}, "socket": "src/socket.lua"}});
    let build = json!({"type": "builtin", "platforms": {"unix": unix, "win32": {"modules": {"w": "w.c"}}}, "copy_directories": ["docs"]});
    let spec = Rockspec::from_value(&with("build", build), PLATFORMS).unwrap();
    assert_eq!(spec.build.modules.keys().collect::<Vec<_>>(), ["socket", "socket.core"]);
    assert!(!spec.build.autodetect);
    // Other kinds of builds mean other things by `modules`.
    let rust = json!({"type": "rust-mlua", "modules": {"m": {"x": 1}, "../n": 7}});
    let rust = Rockspec::from_value(&with("build", rust), PLATFORMS).unwrap();
    assert!(rust.build.modules.is_empty() && rust.build.more.contains_key("modules") && !rust.build.autodetect);
    let hooked = Rockspec::from_value(&with("hooks", json!({"post_install": "make x"})), PLATFORMS).unwrap();
    assert_eq!(hooked.post_install.as_deref(), Some("make x"));
}

#[test]
fn every_spelling_of_a_module_is_read() {
    let modules = json!({
        "1": "lib/thing/init.lua", "a": "a.lua", "b": "b.c", "c": ["c1.c", "c2.c"],
        "d.core": {"sources": "d.c", "defines": ["X=1"], "incdirs": ["$(OPENSSL_INCDIR)"], "libdirs": ["$(OPENSSL_LIBDIR)"]},
    });
    let spec = Rockspec::from_value(&with("build", json!({"type": "builtin", "modules": modules})), PLATFORMS).unwrap();
    let names: Vec<&str> = spec.build.modules.keys().map(String::as_str).collect();
    assert_eq!(names, ["a", "b", "c", "d.core", "lib.thing"]);
    let Module::Native(c) = &spec.build.modules["c"] else { panic!() };
    assert_eq!(c.sources, ["c1.c", "c2.c"]);
    assert!(!spec.build.autodetect);
}

#[test]
fn files_to_install_keep_their_names_or_have_one() {
    let install = json!({"lua": {"x.y": "y.lua"}, "lib": ["core.so"], "bin": {"run": "bin/run.lua"}});
    let spec = Rockspec::from_value(&with("build", json!({"type": "none", "install": install})), PLATFORMS).unwrap();
    assert_eq!(spec.build.install.lua, [InstallEntry { name: Some("x.y".into()), file: "y.lua".into() }]);
    assert_eq!(spec.build.install.lib, [InstallEntry { name: None, file: "core.so".into() }]);
    assert_eq!(spec.build.install.bin[0].name.as_deref(), Some("run"));
}

#[test]
fn platforms_that_are_not_supported_are_known() {
    for (platforms, supported) in
        [(json!(["windows"]), false), (json!(["!windows"]), true), (json!(["!linux"]), false), (json!(["unix"]), true)]
    {
        let spec = Rockspec::from_value(&with("supported_platforms", platforms.clone()), PLATFORMS).unwrap();
        assert_eq!(spec.supports(PLATFORMS), supported, "{platforms}");
    }
}

#[test]
fn every_mistake_is_named_at_once() {
    let bad = json!({
        "rockspec_format": "9.0", "package": "../x", "version": "1.0", "dependencies": ["lpeg >> 1", "ns/rock"],
        "source": {"dir": "/etc"}, "description": {"summary": {}}, "supported_platforms": [true],
        "build": {"modules": {"a/b": "x.lua", "e": "../../e.lua", "f": {}}, "install": {"bin": {"../x": "x"}}, "copy_directories": ["../up"]},
    });
    let error = Rockspec::from_value(&bad, PLATFORMS).unwrap_err();
    assert_eq!(error.code(), Code::PackageInvalid);
    for part in ["format 9.0", "package: ", "no revision", ">>", "namespace", "url is missing", "source.dir", "summary", "a/b", "and "] {
        assert!(error.message().contains(part), "{part} is missing: {}", error.message());
    }
}

#[test]
fn things_that_are_no_rockspec_are_refused() {
    for bad in [json!(null), json!([]), json!("x"), json!({}), json!({"package": 1, "version": [], "source": 7})] {
        assert_eq!(Rockspec::from_value(&bad, PLATFORMS).unwrap_err().code(), Code::PackageInvalid, "{bad}");
    }
}
