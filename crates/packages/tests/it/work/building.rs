//! Rocks are built, confined, and what comes of it can be used by the interpreters of this computer.

use super::shop::{Shop, run_lua, tar_gz};
use std::fs;
use vmoon_core::Code;
use vmoon_packages::{Arch, LuaVersion, digest};

/// A C module for every version of Lua.
const C: &str = "#include <lua.h>\n#include <lauxlib.h>\n#include \"more.h\"\n\
    static int answer (lua_State *L) { lua_pushinteger(L, ANSWER + MORE); return 1; }\n\
    int luaopen_bx_core (lua_State *L) { lua_newtable(L); lua_pushcfunction(L, answer); lua_setfield(L, -2, \"answer\"); return 1; }\n";

const BUILD: &str = r#"{ type = "builtin",
  modules = {
    bx = "lua/init.lua",
    ["bx.core"] = { sources = "src/core.c", defines = { "ANSWER=40" }, incdirs = { "inc" }, libraries = { "m" } },
  },
  install = { bin = { "bin/bx" }, conf = { "bx.conf" } },
  copy_directories = { "doc" },
}"#;

const FILES: [(&str, &str); 6] = [
    ("lua/init.lua", "return { name = 'bx', answer = require('bx.core').answer }\n"),
    ("src/core.c", C),
    ("inc/more.h", "#define MORE 2\n"),
    ("bin/bx", "#!/usr/bin/env lua\nprint('bx says ' .. require('bx').answer() .. ' ' .. tostring((...)))\n"),
    ("bx.conf", "x = 1\n"),
    ("doc/index.md", "# bx\n"),
];

#[test]
fn a_c_module_is_compiled_for_each_version_and_loaded_by_its_interpreters() {
    let shop = Shop::new();
    let rock = shop.rock("bx", "1.0-1", &FILES, BUILD);
    let all = [
        (LuaVersion::V51, &["lua5.1", "luajit"][..]),
        (LuaVersion::V52, &["lua5.2"]),
        (LuaVersion::V53, &["lua5.3"]),
        (LuaVersion::V54, &["lua5.4"]),
    ];
    for (lua, interpreters) in all {
        let environment = shop.environment(&format!("e{lua}"), lua);
        let installed = shop.sync(&environment, std::slice::from_ref(&rock)).unwrap();
        assert_eq!(installed.changes, ["+ bx 1.0-1"]);
        for interpreter in interpreters {
            assert_eq!(run_lua(interpreter, &environment, "print(require('bx').answer())"), "42\n", "{interpreter}");
        }
        let locked = environment.lock().unwrap().rocks.into_values().next().unwrap();
        assert_eq!(locked.modules, ["bx", "bx.core"]);
        assert_eq!(locked.source.unwrap().sha256.len(), 64, "the lock learns what the source was");
        let tree = environment.tree(environment.current().unwrap());
        let beside = tree.join(format!("lib/luarocks/rocks-{lua}/bx/1.0-1"));
        for file in ["doc/index.md", "conf/bx.conf", "bx-1.0-1.rockspec"] {
            assert!(beside.join(file).is_file(), "{file}");
        }
        let transcript = fs::read_to_string(tree.join("transcripts/bx.txt")).unwrap();
        assert!(transcript.contains("bx.core: ") && transcript.contains("-DANSWER=40"), "{transcript}");
    }
    // The command finds the modules of its tree, wherever it is called from.
    let environment = shop.environments.find("e5.4").unwrap();
    let command = environment.dir().join("current/bin/bx");
    let out = std::process::Command::new(&command).arg("hello").env_remove("LUA_PATH").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "bx says 42 hello\n", "{}", String::from_utf8_lossy(&out.stderr));
    let out = std::process::Command::new("./bx").arg("again").current_dir(environment.dir().join("current/bin")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "bx says 42 again\n", "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn what_was_built_once_is_not_built_again_unless_it_is_spoilt() {
    let shop = Shop::new();
    let rock = shop.rock("bx", "1.0-1", &FILES, BUILD);
    let first = shop.environment("first", LuaVersion::V54);
    assert_eq!(shop.sync(&first, std::slice::from_ref(&rock)).unwrap().built.len(), 1);
    let second = shop.environment("second", LuaVersion::V54);
    assert_eq!(shop.sync(&second, std::slice::from_ref(&rock)).unwrap().built.len(), 0);
    let file = |name: &str| {
        let environment = shop.environments.find(name).unwrap();
        environment.tree(environment.current().unwrap()).join("lib/lua/5.4/bx/core.so")
    };
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let meta = file("first").metadata().unwrap();
    assert_eq!((meta.ino(), meta.permissions().mode() & 0o777), (file("second").metadata().unwrap().ino(), 0o555), "one file, read-only");
    // Somebody writes into it all the same: all that share it are damaged, and a new environment gets a good one.
    fs::set_permissions(file("first"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(file("first"), "spoilt").unwrap();
    let third = shop.environment("third", LuaVersion::V54);
    shop.sync(&third, std::slice::from_ref(&rock)).unwrap();
    assert_eq!(run_lua("lua5.4", &third, "print(require('bx').answer())"), "42\n");
    // And so does the old one when it is synchronised.
    shop.sync(&second, &[rock]).unwrap();
    assert_eq!(run_lua("lua5.4", &second, "print(require('bx').answer())"), "42\n");
}

#[test]
fn a_build_that_fails_says_why_keeps_its_transcript_and_changes_nothing() {
    let shop = Shop::new();
    let environment = shop.environment("e", LuaVersion::V54);
    let bad = [
        ("x.c", "#include \"none.h\"\nint luaopen_x(void *L) { return 0; }\n"),
        ("y.c", "int luaopen_y(void *L) { return undeclared; }\n"),
    ];
    let rock = shop.rock("bad", "1-1", &bad, "{ type = 'builtin', modules = { x = 'x.c', y = 'y.c' } }");
    let error = shop.sync(&environment, &[rock]).unwrap_err();
    assert_eq!(error.code(), Code::PackageBuild);
    assert!(error.message().contains("none.h") && error.message().contains("undeclared"), "both are named: {}", error.message());
    let transcript = error.detail_value().unwrap()["transcript"].as_str().unwrap().to_owned();
    assert!(fs::read_to_string(transcript).unwrap().contains("none.h"));
    assert_eq!((environment.current().unwrap(), environment.generations().unwrap().len()), (1, 1));
    assert_eq!(fs::read_dir(shop.path("cache/work")).unwrap().count(), 0, "nothing is left of it");
    for (name, build, why) in [
        ("m1", "{ type = 'builtin', modules = { x = 'none.lua' } }", "no file none.lua"),
        ("m2", "{ type = 'builtin', modules = { x = { sources = 'y.c', incdirs = { '$(NONE_INCDIR)' } } } }", "NONE_INCDIR"),
        ("m3", "{ type = 'none', install = { lua = { x = 'y.c', ['x'] = 'y.c' }, bin = { b = 'gone' } } }", "no file gone"),
        ("m4", "{ type = 'nonsense' }", "nonsense"),
    ] {
        let rock = shop.rock(name, "1-1", &bad, build);
        let error = shop.sync(&environment, &[rock]).unwrap_err();
        assert!(error.chain().contains(why), "{why}: {}", error.chain());
    }
}

#[test]
fn without_a_compiler_pure_rocks_are_installed_and_others_say_what_is_missing() {
    let mut shop = Shop::new();
    shop.programs = Some(vec![shop.path("none")]);
    let environment = shop.environment("e", LuaVersion::V54);
    let files = [("x.lua", "return 1"), ("x.c", ""), ("Makefile", "")];
    for (name, build, why) in [
        ("native", "{ type = 'builtin', modules = { x = 'x.c' } }", "no C compiler"),
        ("made", "{ type = 'make' }", "the program luarocks"),
        (
            "outside",
            "{ type = 'builtin', modules = { x = 'x.lua' } } external_dependencies = { FOO = { library = 'no-such', program = 'gone' } }",
            "no-such",
        ),
    ] {
        let error = shop.sync(&environment, &[shop.rock(name, "1-1", &files, build)]).unwrap_err();
        assert_eq!(error.code(), Code::PackageBuild);
        assert!(
            error.message().contains(why) && error.hint_text().unwrap().contains("install"),
            "{} {:?}",
            error.chain(),
            error.hint_text()
        );
    }
    let pure = shop.rock("pure", "1-1", &files, "{ type = 'builtin', modules = { x = 'x.lua' } }");
    shop.sync(&environment, &[pure]).unwrap();
}

#[test]
fn compilers_and_build_tools_are_confined() {
    let shop = Shop::new();
    let environment = shop.environment("e", LuaVersion::V54);
    let secret = shop.path("secret.h");
    fs::write(&secret, "#define SECRET 1\n").unwrap();
    let steal = format!("#include \"{}\"\nint luaopen_x(void *L) {{ return SECRET; }}\n", secret.display());
    let rock = shop.rock("thief", "1-1", &[("x.c", &steal)], "{ type = 'builtin', modules = { x = 'x.c' } }");
    let error = shop.sync(&environment, &[rock]).unwrap_err();
    assert!(error.message().contains("Permission denied"), "{}", error.chain());
    // A makefile may run anything that is installed: none of it reaches out.
    let target = shop.path("written");
    let victim = shop.path("victim");
    fs::write(&victim, "whole").unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let makefile = format!(
        "all:\n\t-echo x > {target}\n\t-rm -f {victim}\n\t-chmod 777 {victim}\n\t-cat {secret} > stolen\n\t\
         -lua5.4 -e \"require('socket').connect('127.0.0.1', {port})\"\n\t-bash -c 'echo > /dev/tcp/127.0.0.1/{port}'\n\techo 'return 7' > m.lua\n\
         install:\n\tmkdir -p $(LUADIR)\n\tcp m.lua $(LUADIR)/m.lua\n\ttest ! -s stolen\n",
        target = target.display(),
        victim = victim.display(),
        secret = secret.display(),
        port = listener.local_addr().unwrap().port()
    );
    let rock = shop.rock("maker", "1-1", &[("Makefile", &makefile)], "{ type = 'make', install_variables = { LUADIR = '$(LUADIR)' } }");
    if let Err(error) = shop.sync(&environment, &[rock]) {
        let transcript =
            error.detail_value().and_then(|detail| detail["transcript"].as_str()).map(|path| fs::read_to_string(path).unwrap());
        panic!("{}: {}", error.chain(), transcript.unwrap_or_default());
    }
    assert_eq!(run_lua("lua5.4", &environment, "print((require('m')))"), "7\n");
    assert!(!target.exists() && fs::read_to_string(&victim).unwrap() == "whole");
    assert_eq!(victim.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // Nor may it leave a link beside what luarocks installs: we, who take it over, could read what it leads to.
    let makefile = format!(
        "all:\n\techo 'return 7' > m.lua\ninstall:\n\tmkdir -p $(LUADIR) $(LUADIR)/../../../../../../share/lua/5.4\n\tcp m.lua $(LUADIR)/m.lua\n\t\
         ln -s {} $(LUADIR)/../../../../../../share/lua/5.4/linked.lua\n",
        secret.display()
    );
    let rock = shop.rock("linker", "1-1", &[("Makefile", &makefile)], "{ type = 'make', install_variables = { LUADIR = '$(LUADIR)' } }");
    let error = shop.sync(&environment, &[rock]).unwrap_err();
    assert!(error.code() == Code::PackageBuild && error.message().contains("linked.lua, which is no file"), "{}", error.chain());
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody connected");
}

/// A module in C that says its name, for every version of Lua.
fn saying(name: &str) -> String {
    format!("#include <lua.h>\nint luaopen_{}(lua_State *L) {{ lua_pushliteral(L, \"{name}\"); return 1; }}\n", name.replace('.', "_"))
}

#[test]
fn luarocks_builds_what_make_cmake_and_commands_build() {
    let shop = Shop::new();
    let cmake = "cmake_minimum_required(VERSION 3.10)\nproject(bxcmake C)\ninclude_directories(${LUA_INCDIR})\n\
        add_library(core MODULE core.c)\nset_target_properties(core PROPERTIES PREFIX \"\" SUFFIX \".so\")\n\
        install(TARGETS core LIBRARY DESTINATION ${LIBDIR}/bxcmake)\ninstall(FILES bxcmake.lua DESTINATION ${LUADIR})\n";
    let makefile = "core.so: core.c\n\t$(CC) $(CFLAGS) -I$(LUA_INCDIR) $(LIBFLAG) -o $@ core.c\n\
        install: core.so\n\tmkdir -p $(INST_LIBDIR)/bxmake\n\tcp core.so $(INST_LIBDIR)/bxmake/core.so\n\tcp bxmake.lua $(INST_LUADIR)/bxmake.lua\n";
    let kinds = [
        (
            "bxcmake",
            ("CMakeLists.txt", cmake),
            "{ type = 'cmake', variables = { LUA_INCDIR = '$(LUA_INCDIR)', LIBDIR = '$(LIBDIR)', LUADIR = '$(LUADIR)' } }",
        ),
        (
            "bxmake",
            ("Makefile", makefile),
            "{ type = 'make', build_target = 'core.so', \
               build_variables = { CC = '$(CC)', CFLAGS = '$(CFLAGS)', LIBFLAG = '$(LIBFLAG)', LUA_INCDIR = '$(LUA_INCDIR)' }, \
               install_variables = { INST_LIBDIR = '$(LIBDIR)', INST_LUADIR = '$(LUADIR)' } }",
        ),
        (
            "bxcommand",
            ("README", ""),
            "{ type = 'command', build_command = '$(CC) $(CFLAGS) -I$(LUA_INCDIR) $(LIBFLAG) -o core.so core.c', \
               install_command = 'mkdir -p $(LIBDIR)/bxcommand && cp core.so $(LIBDIR)/bxcommand/core.so && cp bxcommand.lua $(LUADIR)/bxcommand.lua' }",
        ),
    ];
    for (name, (file, text), build) in kinds {
        let (source, module) = (saying(&format!("{name}.core")), format!("{name}.lua"));
        let script = format!("return {{ core = require '{name}.core' }}\n");
        let rock = shop.rock(name, "1-1", &[("core.c", &source), (file, text), (&module, &script)], build);
        for (lua, interpreters) in [(LuaVersion::V54, &["lua5.4"][..]), (LuaVersion::V51, &["lua5.1", "luajit"])] {
            let environment = shop.environment(&format!("{name}-{}", lua.as_str().replace('.', "")), lua);
            if let Err(error) = shop.sync(&environment, std::slice::from_ref(&rock)) {
                let transcript =
                    error.detail_value().and_then(|detail| detail["transcript"].as_str()).map(|path| fs::read_to_string(path).unwrap());
                panic!("{} (Debian: apt-get install luarocks make cmake): {}", error.chain(), transcript.unwrap_or_default());
            }
            for interpreter in interpreters {
                let said = run_lua(interpreter, &environment, &format!("print(require('{name}').core)"));
                assert_eq!(said, format!("{name}.core\n"), "{interpreter}");
            }
            // Nothing but what the rock installs is there, and what was said is kept.
            let locked = environment.lock().unwrap().rocks.into_values().next().unwrap();
            assert_eq!(locked.modules, [name.to_owned(), format!("{name}.core")]);
            let tree = environment.tree(environment.current().unwrap());
            let transcript = fs::read_to_string(tree.join("transcripts").join(format!("{name}.txt"))).unwrap();
            assert!(transcript.starts_with("$ luarocks ") && transcript.contains("--deps-mode=none"), "{transcript}");
        }
    }
}

#[test]
fn rocks_that_are_ready_are_installed_if_they_are_for_this_lua() {
    let shop = Shop::new();
    let rock = shop.rock("bx", "1.0-1", &FILES, BUILD);
    let made = shop.environment("made", LuaVersion::V54);
    shop.sync(&made, &[rock]).unwrap();
    // Its own functions are in all versions since 5.2; this one is in 5.4 only.
    let source = C.replace("lua_newtable(L)", "lua_newuserdatauv(L, 1, 1); lua_newtable(L)").replace("luaopen_bx_core", "luaopen_ready");
    let files = [("ready.c", source.as_str()), ("more.h", "#define MORE 1\n")];
    let build = "{ type = 'builtin', modules = { ready = { sources = 'ready.c', defines = { 'ANSWER=1' }, incdirs = { '.' } } } }";
    let other = shop.environment("other", LuaVersion::V54);
    shop.sync(&other, &[shop.rock("ready", "1-1", &files, build)]).unwrap();
    let object = fs::read(other.tree(other.current().unwrap()).join("lib/lua/5.4/ready.so")).unwrap();
    let spec = super::shop::rockspec("ready", "1-1", "https://example.org/ready.tar.gz", "{ type = 'none' }");
    let files: [(&str, &[u8]); 5] = [
        ("ready-1-1.rockspec", spec.as_bytes()),
        ("rock_manifest", b"rock_manifest = {}"),
        ("lib/ready.so", &object),
        ("lua/ready/more.lua", b"return 'more'"),
        ("doc/x.md", b"#"),
    ];
    let rock = shop.packed("ready", "1-1", Arch::here(), &files);
    let environment = shop.environment("e54", LuaVersion::V54);
    shop.sync(&environment, std::slice::from_ref(&rock)).unwrap();
    assert_eq!(run_lua("lua5.4", &environment, "print(require('ready').answer(), (require('ready.more')))"), "2\tmore\n");
    let older = shop.environment("e53", LuaVersion::V53);
    let error = shop.sync(&older, &[rock]).unwrap_err();
    assert!(error.message().contains("lua_newuserdatauv") && error.message().contains("compiled for Lua 5.4"), "{}", error.chain());
    let foreign = shop.packed("ready", "1-1", "macosx-aarch64".parse().unwrap(), &files);
    assert!(shop.sync(&older, &[foreign]).unwrap_err().message().contains("macosx-aarch64 only"));
}

#[test]
fn sources_in_rocks_patches_and_check_sums_of_rockspecs() {
    let shop = Shop::new();
    let archive = tar_gz("inner", &[("x.lua", "return 'old'\n")]);
    let patch = "--- a/x.lua\n+++ b/x.lua\n@@ -1 +1 @@\n-return 'old'\n+return 'new'\n";
    let md5 = digest::md5_of(archive.as_slice()).unwrap();
    let spec = |md5: &str| {
        let build = format!("{{ type = 'builtin', modules = {{ x = 'x.lua' }}, patches = {{ ['one.diff'] = [[\n{patch}]] }} }}");
        super::shop::rockspec("x", "1-1", "https://example.org/x-1.tar.gz", &build)
            .replace("x-1.tar.gz\" }", &format!("x-1.tar.gz\", md5 = \"{md5}\", dir = \"inner\" }}"))
    };
    let environment = shop.environment("e", LuaVersion::V54);
    let rock = |spec: &str| shop.packed("x", "1-1", Arch::Src, &[("x-1-1.rockspec", spec.as_bytes()), ("x-1.tar.gz", &archive)]);
    let error = shop.sync(&environment, &[rock(&spec(&"0".repeat(32)))]).unwrap_err();
    assert_eq!(error.code(), Code::PackageChecksum, "{}", error.chain());
    shop.sync(&environment, &[rock(&spec(&md5))]).unwrap();
    assert_eq!(run_lua("lua5.4", &environment, "print((require('x')))"), "new\n");
    // The rockspec of another rock.
    let wrong = spec(&md5).replace("package = \"x\"", "package = \"y\"");
    let error = shop.sync(&shop.environment("f", LuaVersion::V54), &[rock(&wrong)]).unwrap_err();
    assert!(error.message().contains("is one of y 1-1"), "{}", error.chain());
    // A hostile archive in a rock.
    let rock = shop.packed("z", "1-1", Arch::All, &[("../../z.lua", b"x")]);
    assert_eq!(shop.sync(&environment, &[rock]).unwrap_err().code(), Code::PackageArchive);
}

#[test]
fn modules_that_a_rockspec_does_not_name_are_found() {
    let shop = Shop::new();
    let files = [
        ("src/a/init.lua", "return 'a'"),
        ("src/a/b.lua", "return 'b'"),
        ("src/c.c", "#include <lua.h>\nint luaopen_c (lua_State *L) { lua_pushliteral(L, \"c\"); return 1; }\n"),
        ("spec/x.lua", "no"),
    ];
    let rock = shop.rock("auto", "1-1", &files, "{ type = 'builtin' }");
    let environment = shop.environment("e", LuaVersion::V54);
    shop.sync(&environment, &[rock]).unwrap();
    assert_eq!(
        run_lua("lua5.4", &environment, "print((require 'a'), (require 'a.b'), (require 'c'), (pcall(require, 'spec.x')))"),
        "a\tb\tc\tfalse\n"
    );
}
