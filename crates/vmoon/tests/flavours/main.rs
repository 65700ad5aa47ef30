//! Machines with another Lua inside than ours. They need programs that are built beside `vmoon`: `cargo xtask flavours`; `cargo xtask flavours --test`
//! builds them and runs this.

#[path = "../cli/home.rs"]
#[expect(dead_code, reason = "a part of it is enough here")]
mod home;

use home::Home;
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
