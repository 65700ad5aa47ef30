//! Machines with another Lua inside than ours. They need programs that are built beside `vmoon`: `cargo xtask flavours`; `cargo xtask flavours --test`
//! builds them and runs this.

#[path = "../cli/home.rs"]
#[expect(dead_code, reason = "a part of it is enough here")]
mod home;
#[path = "../cli/mirror.rs"]
#[expect(dead_code, reason = "a part of it is enough here")]
mod mirror;

use home::Home;
use mirror::Mirror;
use serde_json::Value;

const FLAVOURS: [(&str, &str, &str); 3] = [
    ("builtin-luajit", "LuaJIT 2.1", "jit and jit.status() and 'compiles' or 'no'"),
    ("builtin-5.1", "Lua 5.1", "unpack and setfenv and 'old'"),
    ("builtin-5.5", "Lua 5.5", "load('global x = 1 return x') and 'new'"),
];

#[test]
fn every_flavour_is_a_machine_like_any_other() {
    let home = Home::new();
    let says = |machine: &str, code: &str| home.run(&["eval", machine, code]).ok().trim().to_owned();
    for (runtime, lua, trait_) in FLAVOURS {
        let name = runtime.replace('.', "");
        home.run(&["create", &name, "--runtime", runtime, "--profile", "sealed", "--start", "-q"]).ok();
        assert!(["compiles", "old", "new"].contains(&says(&name, &format!("return {trait_}")).as_str()), "{runtime}");
        let shown: Value = serde_json::from_str(&home.json(&["show", &name]).ok()).unwrap();
        assert_eq!((shown["facts"]["runtime"].as_str(), shown["facts"]["lua"].as_str()), (Some(runtime), Some(lua)));
        // An endless loop, compiled or not, is interrupted, and what was there before is there afterwards.
        says(&name, "kept = 42");
        let cut = home.run(&["eval", &name, "--deadline", "300ms", "local i = 0 while true do i = i + 1 end"]);
        assert_ne!(cut.code, 0, "{cut:?}");
        // The daemon dies; the machine is found again as it was.
        let daemon = home.daemon().expect("a daemon");
        rustix::process::kill_process(rustix::process::Pid::from_raw(daemon).unwrap(), rustix::process::Signal::KILL).unwrap();
        assert_eq!(says(&name, "return kept"), "42", "{runtime}");
        // A copy has the state.
        let copy = format!("{name}-copy");
        home.run(&["clone", &name, &copy, "-q"]).ok();
        assert_eq!(says(&copy, "kept = kept + 1 return kept"), "43", "{runtime}");
        assert_eq!(says(&name, "return kept"), "42", "{runtime}");
    }
    let doctor = home.run(&["doctor"]);
    assert!(doctor.out.contains("builtin-5.1, builtin-5.5, builtin-luajit"), "{doctor:?}");
    home.run(&["rm", "--all", "--yes", "--force", "-q"]).ok();
    home.end();
}

#[test]
fn every_flavour_runs_programs_once_and_over_many_items() {
    let home = Home::new();
    // The folder of a program is granted to it; the home directory would not be.
    std::fs::create_dir(home.path("work")).unwrap();
    std::fs::write(home.path("work/part.lua"), "return { part = 'beside' }").unwrap();
    std::fs::write(home.path("work/main.lua"), "print(require('part').part, ..., arg[0]) io.stderr:write(_VERSION) os.exit(7)").unwrap();
    std::fs::write(
        home.path("map.lua"),
        "local x = ... print('item', x) if x == 3 then error('no threes') end return { x * 2, jit and 'jit' or _VERSION }",
    )
    .unwrap();
    std::fs::write(home.path("items"), "1\n2\n3\nnonsense\n").unwrap();
    for (runtime, _, trait_) in FLAVOURS {
        let run = |words: &[&str]| home.run(&[&["run", "--runtime", runtime], words].concat());
        let said = run(&["-e", &format!("return {trait_}, ...",), "a b"]).ok();
        assert!(said.ends_with("\ta b\n"), "{runtime}: {said}");
        let ran = run(&["work/main.lua", "x"]);
        assert_eq!((ran.code, ran.out.as_str()), (7, "beside\tx\twork/main.lua\n"), "{runtime}: {ran:?}");
        assert!(ran.err.contains("Lua 5."), "{runtime}: {ran:?}");
        // It is held to its profile as the usual one is.
        let refused = run(&["-e", "return io.open('/etc/passwd')"]);
        assert!(refused.out.contains("not granted"), "{runtime}: {refused:?}");
        // A deadline ends also what is compiled.
        assert_eq!(run(&["--deadline", "300ms", "-e", "local i = 0 while true do i = i + 1 end"]).code, 8, "{runtime}");
        let failed = run(&["-e", "error('here')"]);
        assert!(failed.code == 1 && failed.err.contains("here"), "{runtime}: {failed:?}");
        let mapped = run(&["--map", "items", "--jobs", "2", "--with-input", "--deadline", "20s", "map.lua"]);
        let rows: Vec<Value> = mapped.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((mapped.code, rows.len()), (1, 4), "{runtime}: {mapped:?}");
        let lua = if runtime == "builtin-luajit" { "jit".to_owned() } else { format!("Lua {}", runtime.trim_start_matches("builtin-")) };
        assert_eq!((&rows[1]["result"], &rows[1]["input"]), (&serde_json::json!([4, lua]), &serde_json::json!(2)), "{runtime}");
        assert!(rows[2]["error"].as_str().unwrap().contains("no threes") && rows[3]["error"].is_string(), "{runtime}: {mapped:?}");
        assert!(mapped.err.contains("[0] item\t1") && mapped.err.contains("2 done, 2 failed"), "{runtime}: {mapped:?}");
        // A script that does not compile says so once.
        std::fs::write(home.path("bad.lua"), "return (").unwrap();
        let bad = run(&["--map", "items", "bad.lua"]);
        assert!(bad.code == 1 && bad.out.is_empty() && bad.err.contains("bad.lua"), "{runtime}: {bad:?}");
    }
    // An installed interpreter says the same.
    let installed = home.run(&["run", "--runtime", "lua5.1", "--map", "items", "map.lua"]);
    assert!(installed.code == 1 && installed.out.contains("[4,\"Lua 5.1\"]"), "{installed:?}");
    assert!(installed.err.contains("2 done, 2 failed"), "{installed:?}");
    home.end();
}

#[test]
fn environments_serve_every_flavour_with_modules_in_lua_and_in_c() {
    let mut mirror = Mirror::new();
    mirror.add_family();
    mirror.add_c("bxc", "1.0-1");
    // One that luarocks has built by make.
    let makefile = "bxm.so: bxm.c\n\t$(CC) $(CFLAGS) -I$(LUA_INCDIR) $(LIBFLAG) -o $@ bxm.c\n\
        install: bxm.so\n\tmkdir -p $(INST_LIBDIR)\n\tcp bxm.so $(INST_LIBDIR)/\n";
    let source = "#include <lua.h>\nint luaopen_bxm(lua_State *L) { lua_pushinteger(L, LUA_VERSION_NUM); return 1; }\n";
    let variables = ["CC", "CFLAGS", "LIBFLAG", "LUA_INCDIR"].map(|name| format!("{name} = \"$({name})\"")).join(", ");
    let build =
        format!("{{ type = \"make\", build_variables = {{ {variables} }}, install_variables = {{ INST_LIBDIR = \"$(LIBDIR)\" }} }}");
    mirror.add("bxm", "1.0-1", &["lua >= 5.1"], &build, &[("Makefile", makefile.as_bytes()), ("bxm.c", source.as_bytes())]);
    let home = Home::new();
    home.run(&["pkg", "server", "rm", "luarocks"]).ok();
    home.run(&["pkg", "server", "add", "mirror", &mirror.url()]).ok();
    let code = "return require('bxc').number, require('bxm'), require('bxalpha').version, (pcall(require, 'bxgamma'))";
    for (lua, number, runtimes) in [("5.1", "501", &["builtin-luajit", "builtin-5.1"][..]), ("5.5", "505", &["builtin-5.5"])] {
        let env = format!("for{}", lua.replace('.', ""));
        home.run(&["env", "create", &env, "--lua", lua]).ok();
        home.run(&["pkg", "install", "bxc", "bxm", "bxalpha@1.0", "--env", &env]).ok();
        for runtime in runtimes {
            let ran = home.run(&["run", "--env", &env, "--runtime", runtime, "-e", code]).ok();
            assert_eq!(ran, format!("{number}\t{number}\t1.0-1\tfalse\n"), "{runtime}");
            for profile in ["sealed", "files", "trusted"] {
                let name = format!("{}-{profile}", runtime.replace('.', ""));
                home.run(&["create", &name, "--env", &env, "--runtime", runtime, "--profile", profile, "--start", "-q"]).ok();
                assert_eq!(home.run(&["eval", &name, code]).ok(), format!("{number}\t{number}\t1.0-1\tfalse\n"), "{name}");
            }
            // What is installed for a machine that runs is there at once.
            let files = format!("{}-files", runtime.replace('.', ""));
            home.run(&["pkg", "install", "bxgamma", "--machine", &files]).ok();
            assert_eq!(home.run(&["eval", &files, "return require('bxgamma').version"]).ok(), "1.0-1\n", "{runtime}");
            home.run(&["pkg", "rm", "bxgamma", "bxbeta", "--env", &env, "--yes"]).ok();
        }
    }
    // What does not suit is refused, by name of both versions.
    for (runtime, env, lua) in
        [("builtin-5.5", "for51", "Lua 5.5"), ("builtin-luajit", "for55", "Lua 5.1"), ("builtin", "for55", "Lua 5.4")]
    {
        let refused = home.run(&["create", "m", "--env", env, "--runtime", runtime]);
        assert!(refused.code == 2 && refused.err.contains(lua), "{refused:?}");
    }
    home.run(&["rm", "--all", "--yes", "--force", "-q"]).ok();
    home.end();
}
