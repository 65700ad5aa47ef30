//! Environments change whole or not at all.

use super::shop::{Shop, Steps, run_lua, say};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};
use vmoon_core::Code;
use vmoon_packages::{
    Arch, LockedRock, LuaVersion,
    environment::{Description, Environment, Exported, ProblemKind},
    servers::Server,
};
use vmoon_sys::stop::Stop;

const PURE: &str = "{ type = 'builtin', modules = { ['NAME'] = 'x.lua' } }";

/// A rock with one module of its name.
fn pure(shop: &Shop, name: &str, version: &str) -> LockedRock {
    let content = format!("return '{name} {version}'\n");
    shop.rock(name, version, &[("x.lua", &content)], &PURE.replace("NAME", name))
}

fn what_is_loaded(environment: &Environment, names: &[&str]) -> String {
    let code =
        format!("for _, n in ipairs {{ '{}' }} do local ok, v = pcall(require, n) io.write(ok and v or '-', ';') end", names.join("', '"));
    run_lua("lua5.4", environment, &code)
}

#[test]
fn generations_are_made_switched_and_gone_back_to() {
    let shop = Shop::new();
    let environment = shop.environment("e", LuaVersion::V54);
    let (a1, a2, b) = (pure(&shop, "bxa", "1.0-1"), pure(&shop, "bxa", "2.0-1"), pure(&shop, "bxb", "1.0-1"));
    let loaded = || what_is_loaded(&environment, &["bxa", "bxb"]);
    shop.sync(&environment, std::slice::from_ref(&a1)).unwrap();
    assert_eq!(loaded(), "bxa 1.0-1;-;");
    let installed = shop.sync(&environment, &[a2, b.clone()]).unwrap();
    assert_eq!((installed.generation, installed.changes), (3, vec!["~ bxa 1.0-1 -> 2.0-1".to_owned(), "+ bxb 1.0-1".into()]));
    assert_eq!(loaded(), "bxa 2.0-1;bxb 1.0-1;");
    let running = environment.tree(2).join("share/lua/5.4/bxa.lua");
    assert!(running.is_file(), "a machine that runs with the old generation keeps it");
    let guard = environment.guard().unwrap();
    assert_eq!(environment.rollback(&guard, None).unwrap(), 2);
    assert_eq!(loaded(), "bxa 1.0-1;-;");
    drop(guard);
    // What comes after a rollback begins where it went to, and no number is given twice.
    assert_eq!(shop.sync(&environment, &[a1, b]).unwrap().generation, 4);
    let guard = environment.guard().unwrap();
    assert_eq!(environment.rollback(&guard, None).unwrap(), 2);
    assert_eq!(environment.rollback(&guard, Some(3)).unwrap(), 3);
    assert_eq!(environment.rollback(&guard, Some(9)).unwrap_err().code(), Code::NotFound);
    let what: Vec<String> = environment.history().unwrap().iter().map(|entry| format!("{} {}", entry.what, entry.generation)).collect();
    assert_eq!(what, ["create 1", "sync 2", "sync 3", "rollback 2", "sync 4", "rollback 2", "rollback 3"]);
    assert_eq!(environment.infos().unwrap().iter().filter(|info| info.current).count(), 1);
    // Those in use stay, and the newest.
    assert_eq!(environment.collect(&guard, 1, &|number| number == 1).unwrap(), [2]);
    assert_eq!(environment.generations().unwrap(), [1, 3, 4]);
    assert_eq!(environment.collect(&guard, 0, &|_| false).unwrap(), [4, 1]);
    assert_eq!(loaded(), "bxa 2.0-1;bxb 1.0-1;");
    assert_eq!(environment.rollback(&guard, None).unwrap_err().code(), Code::NotFound);
}

#[test]
fn names_are_checked_and_environments_come_and_go() {
    let shop = Shop::new();
    let description = Description {
        lua: LuaVersion::V51,
        profile: Some("minimal".into()),
        created_ms: 7,
        servers: vec![Server::new("s", "file:///srv", false).unwrap()],
    };
    for bad in ["", "../x", "a/b", "-x", ".x", "a\nb"] {
        assert_eq!(shop.environments.create(bad, &description).unwrap_err().code(), Code::NameInvalid, "{bad:?}");
        assert_eq!(shop.environments.find(bad).unwrap_err().code(), Code::NameInvalid);
    }
    let environment = shop.environments.create("one", &description).unwrap();
    assert_eq!(environment.description().unwrap(), description);
    assert_eq!(shop.environments.create("one", &description).unwrap_err().code(), Code::EnvironmentExists);
    shop.environment("two", LuaVersion::V54);
    assert_eq!(shop.environments.names().unwrap(), ["one", "two"]);
    assert_eq!(shop.environments.find("three").unwrap_err().hint_text(), Some("there are: one, two"));
    // What the reader for machines finds is what was made.
    let current = vmoon_packages::current::find(&shop.path("state"), "one").unwrap();
    assert_eq!((current.lua.as_str(), current.generation, current.tree), ("5.1", 1, environment.tree(1)));
    let guard = environment.guard().unwrap();
    assert_eq!(shop.environments.remove(&environment).unwrap_err().code(), Code::EnvironmentBusy);
    drop(guard);
    shop.environments.remove(&environment).unwrap();
    assert_eq!(shop.environments.names().unwrap(), ["two"]);
    assert_eq!(fs::read_dir(shop.environments.root()).unwrap().count(), 1);
}

#[test]
fn two_changes_at_once_are_one_and_a_refusal() {
    let shop = Shop::new();
    let environment = shop.environment("e", LuaVersion::V54);
    let rock = pure(&shop, "bxa", "1-1");
    let refused = Arc::new(Mutex::new(Vec::new()));
    let (seen, state) = (Arc::clone(&refused), shop.path("state"));
    let second = move |_: usize, name: &str| {
        if name == "build" {
            let other = vmoon_packages::environment::Environments::open(&state).unwrap().find("e").unwrap();
            seen.lock().unwrap().push(other.guard().unwrap_err().code());
        }
    };
    let steps = Arc::new(Steps { at: Some(Box::new(second)), ..Steps::default() });
    shop.sync_with(&environment, &[rock], steps, Stop::new()).unwrap();
    assert_eq!(*refused.lock().unwrap(), [Code::EnvironmentBusy]);
}

#[test]
fn rocks_that_give_the_same_file_or_lack_something_are_refused() {
    let shop = Shop::new();
    let environment = shop.environment("e", LuaVersion::V54);
    let build = PURE.replace("NAME", "same");
    let (one, two) = (shop.rock("one", "1-1", &[("x.lua", "return 1")], &build), shop.rock("two", "1-1", &[("x.lua", "return 2")], &build));
    let error = shop.sync(&environment, &[one.clone(), two]).unwrap_err();
    assert_eq!(error.code(), Code::PackageConflict);
    assert!(error.message().contains("one and two both give the file share/lua/5.4/same.lua"), "{error}");
    let needy = shop.rock_needing("needy", "1-1", &[("x.lua", "")], &PURE.replace("NAME", "needy"), &["one >= 2", "none"]);
    let error = shop.sync(&environment, &[one, needy]).unwrap_err();
    assert_eq!(error.code(), Code::PackageRequired);
    assert!(error.message().contains("one is 1-1") && error.message().contains("none is not there"), "{error}");
    assert_eq!(environment.generations().unwrap(), [1]);
}

#[test]
fn what_differs_from_the_lock_is_found_and_repaired() {
    let shop = Shop::new();
    let environment = shop.environment("e", LuaVersion::V54);
    let rocks = [pure(&shop, "bxa", "1-1"), pure(&shop, "bxb", "1-1"), pure(&shop, "bxc", "1-1")];
    let generation = shop.sync(&environment, &rocks).unwrap().generation;
    let good = environment.verify(generation, &Stop::new()).unwrap();
    assert_eq!((good.rocks, good.files, good.problems.len()), (3, 6, 0));
    let modules = environment.tree(generation).join("share/lua/5.4");
    fs::set_permissions(modules.join("bxa.lua"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(modules.join("bxa.lua"), "return 'evil'").unwrap();
    fs::remove_file(modules.join("bxb.lua")).unwrap();
    fs::write(modules.join("more.lua"), "").unwrap();
    fs::remove_file(modules.join("bxc.lua")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", modules.join("bxc.lua")).unwrap();
    let found = environment.verify(generation, &Stop::new()).unwrap().problems;
    let found: Vec<(ProblemKind, &str)> = found.iter().map(|problem| (problem.kind, problem.path.rsplit('/').next().unwrap())).collect();
    assert_eq!(
        found,
        [
            (ProblemKind::Missing, "bxb.lua"),
            (ProblemKind::Changed, "bxa.lua"),
            (ProblemKind::Changed, "bxc.lua"),
            (ProblemKind::Extra, "more.lua")
        ]
    );
    let generation = shop.sync(&environment, &rocks).unwrap().generation;
    assert!(environment.verify(generation, &Stop::new()).unwrap().problems.is_empty());
    assert_eq!(what_is_loaded(&environment, &["bxa", "bxb", "bxc"]), "bxa 1-1;bxb 1-1;bxc 1-1;");
}

#[test]
fn an_exported_environment_is_the_same_elsewhere() {
    let shop = Shop::new();
    let environment = shop.environment("e", LuaVersion::V54);
    shop.sync(&environment, &[pure(&shop, "bxa", "1-1")]).unwrap();
    let text = environment.export().unwrap();
    let read = Exported::from_toml(&text).unwrap();
    assert_eq!((&read.description, &read.lock), (&environment.description().unwrap(), &environment.lock().unwrap()));
    let copy = shop.environments.create("copy", &read.description).unwrap();
    let rocks: Vec<LockedRock> = read.lock.rocks.into_values().collect();
    shop.sync(&copy, &rocks).unwrap();
    assert_eq!(copy.lock().unwrap(), environment.lock().unwrap());
    for bad in ["", "format = 2", "x", &text.replace("lua = \"5.4\"", "lua = \"5.9\""), &text.replacen("format = 1", "format = 9", 1)] {
        assert_eq!(Exported::from_toml(bad).unwrap_err().code(), Code::PackageInvalid, "{bad}");
    }
}

/// What the child of the tests below is told by its environment: the shop, at which step it ends, how large a file it may write.
const CHILD: [&str; 2] = ["VMOON_TEST_SHOP", "VMOON_TEST_STEP"];
/// Set if the child makes a new environment instead of changing one.
const MAKES: &str = "VMOON_TEST_MAKES";

/// The rocks of before and after.
fn before_and_after(shop: &Shop) -> (Vec<LockedRock>, Vec<LockedRock>) {
    let kept = pure(shop, "bxkept", "1-1");
    let native = shop.rock(
        "bxc",
        "1-1",
        &[("c.c", "#include <lua.h>\nint luaopen_bxc (lua_State *L) { lua_pushliteral(L, \"bxc\"); return 1; }\n")],
        "{ type = 'builtin', modules = { bxc = 'c.c' } }",
    );
    (vec![pure(shop, "bxa", "1-1"), kept.clone()], vec![pure(shop, "bxa", "2-1"), kept, native])
}

/// Not a test of its own: the process that is killed by the tests below.
#[test]
fn child_that_is_killed() {
    let [Ok(root), Ok(step)] = CHILD.map(std::env::var) else { return };
    let shop = Shop::at(Path::new(&root), Arc::new(tempfile::tempdir_in(&root).unwrap()));
    let step: usize = step.parse().unwrap();
    let kill = move |count: usize, _: &str| {
        if count == step {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
    };
    let steps = Arc::new(Steps { at: Some(Box::new(kill)), ..Steps::default() });
    let (_, after) = before_and_after(&shop);
    let result = match std::env::var_os(MAKES) {
        None => shop.sync_with(&shop.environments.find("e").unwrap(), &after, steps, Stop::new()),
        Some(_) => {
            let description = Description { lua: LuaVersion::V54, profile: None, created_ms: 1, servers: vec![] };
            let staged = shop.environments.stage("new", &description).unwrap();
            let (environment, guard) = staged.parts().unwrap();
            let done = shop.sync_held(environment, guard, &after, steps, Stop::new());
            done.and_then(|done| staged.publish().map(|_| done))
        }
    };
    match result {
        Ok(done) => say(format!("ended generation {}", done.generation)),
        Err(error) => say(format!("ended {}: {}", error.code(), error.chain())),
    }
}

fn child(shop: &Shop, step: usize, largest: Option<u64>) -> (Option<i32>, String) {
    child_that(shop, step, largest, false)
}

fn child_that(shop: &Shop, step: usize, largest: Option<u64>, makes: bool) -> (Option<i32>, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "work::environments::child_that_is_killed", "--nocapture"]);
    command.env(CHILD[0], shop.dir.path()).env(CHILD[1], step.to_string());
    if makes {
        command.env(MAKES, "1");
    }
    if let Some(bytes) = largest {
        use std::os::unix::process::CommandExt as _;
        // SAFETY: two system calls that take numbers and a structure on the stack.
        unsafe {
            command.pre_exec(move || {
                libc_limit(bytes);
                Ok(())
            });
        }
    }
    let out = command.output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

/// Files may not become larger than this; writing more is an error, as on a full disk.
fn libc_limit(bytes: u64) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // Ignored signals stay ignored in what is executed.
    // SAFETY: ignoring a signal installs no code.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    setrlimit(Resource::Fsize, Rlimit { current: Some(bytes), maximum: Some(bytes) }).unwrap();
}

#[test]
fn killed_at_any_step_an_install_has_changed_all_or_nothing() {
    let shop = Shop::new();
    let environment = shop.environment("e", LuaVersion::V54);
    let (before, _) = before_and_after(&shop);
    shop.sync(&environment, &before).unwrap();
    let names = ["bxa", "bxkept", "bxc"];
    let mut switched = 0;
    for step in 1.. {
        let old = environment.current().unwrap();
        let (code, said) = child(&shop, step, None);
        let now = environment.current().unwrap();
        if code.is_some() {
            assert!(said.contains("ended generation") && step > 8, "at step {step}: {said}");
            break;
        }
        let expected = if now == old { "bxa 1-1;bxkept 1-1;-;" } else { "bxa 2-1;bxkept 1-1;bxc;" };
        assert_eq!(what_is_loaded(&environment, &names), expected, "step {step}");
        assert!(environment.verify(now, &Stop::new()).unwrap().problems.is_empty(), "step {step}");
        // The next one clears up, and its history is whole.
        drop(environment.guard().unwrap());
        let left = fs::read_dir(environment.dir().join("generations")).unwrap().flatten();
        assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with('.')), "step {step}");
        assert_eq!(environment.history().unwrap().last().unwrap().generation, now, "step {step}");
        if now != old {
            switched += 1;
            let guard = environment.guard().unwrap();
            environment.rollback(&guard, None).unwrap();
            drop(guard);
        }
    }
    assert!(switched >= 2, "some steps come after the switch");
}

/// What is in the directory of environments, hidden names too.
fn all_names(shop: &Shop) -> Vec<String> {
    let entries = fs::read_dir(shop.environments.root()).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn killed_at_any_step_a_new_environment_is_there_with_all_its_rocks_or_not_at_all() {
    let shop = Shop::new();
    let mut killed = 0;
    for step in 1.. {
        let (code, said) = child_that(&shop, step, None, true);
        if code.is_some() {
            assert!(said.contains("ended generation 2") && step > 8, "at step {step}: {said}");
            break;
        }
        killed += 1;
        assert_eq!(shop.environments.names().unwrap(), Vec::<String>::new(), "step {step}");
        // What is left of it goes when the next one is made, or when somebody tidies up; what is being made stays.
        if step % 2 == 0 {
            shop.environments.sweep().unwrap();
        } else {
            let description = Description { lua: LuaVersion::V54, profile: None, created_ms: 1, servers: vec![] };
            drop(shop.environments.stage("next", &description).unwrap());
        }
        assert_eq!(all_names(&shop), Vec::<String>::new(), "step {step}");
    }
    assert!(killed >= 8, "{killed}");
    let environment = shop.environments.find("new").unwrap();
    assert_eq!(what_is_loaded(&environment, &["bxa", "bxkept", "bxc"]), "bxa 2-1;bxkept 1-1;bxc;");
    assert_eq!(environment.history().unwrap().len(), 2);
    assert!(environment.verify(2, &Stop::new()).unwrap().problems.is_empty());
    let description = environment.description().unwrap();
    // While it is made nobody sees it, takes it for a left-over, or takes its name away.
    let staged = shop.environments.stage("other", &description).unwrap();
    shop.environments.sweep().unwrap();
    assert_eq!((all_names(&shop).len(), shop.environments.names().unwrap()), (2, vec!["new".to_owned()]));
    shop.environments.create("other", &description).unwrap();
    assert_eq!(staged.publish().unwrap_err().code(), Code::EnvironmentExists);
    drop(shop.environments.stage("third", &description).unwrap());
    assert_eq!(all_names(&shop), ["new", "other"]);
    // A full disk leaves nothing either.
    for largest in [0, 60, 300, 1500] {
        shop.environments.remove(&shop.environments.find("other").unwrap()).unwrap();
        let (code, said) = child_that(&shop, 0, Some(largest), true);
        assert!(code != Some(0) || !said.contains("ended generation"), "{largest}: {said}");
        assert_eq!(shop.environments.names().unwrap(), ["new"], "{largest}");
        shop.environments.create("other", &description).unwrap();
    }
}

#[test]
fn a_full_disk_changes_nothing() {
    let shop = Shop::new();
    let environment = shop.environment("e", LuaVersion::V54);
    let (before, _) = before_and_after(&shop);
    shop.sync(&environment, &before).unwrap();
    let mut failed = 0;
    for largest in [0, 10, 60, 150, 300, 700, 1500, 4000] {
        let (code, said) = child(&shop, 0, Some(largest));
        assert_eq!(code, Some(0), "{largest}: {said}");
        if said.contains("ended generation") {
            continue;
        }
        failed += 1;
        assert!(
            said.contains("ended disk.full") || said.contains("ended package.build") || said.contains("ended package.invalid"),
            "{largest}: {said}"
        );
        assert_eq!(what_is_loaded(&environment, &["bxa", "bxkept", "bxc"]), "bxa 1-1;bxkept 1-1;-;", "{largest}");
        assert_eq!(environment.current().unwrap(), 2);
    }
    assert!(failed >= 3, "{failed}");
    let (_, said) = child(&shop, 0, None);
    assert!(said.contains("ended generation 3"), "{said}");
}

#[test]
fn a_wish_to_stop_changes_nothing_at_any_step() {
    let shop = Shop::new();
    let environment = shop.environment("e", LuaVersion::V54);
    let (before, after) = before_and_after(&shop);
    shop.sync(&environment, &before).unwrap();
    for name in ["fetch", "build", "draft", "linked"] {
        let stop = Stop::new();
        let wish = stop.clone();
        let at = move |_: usize, reached: &str| {
            if reached == name {
                wish.stop();
            }
        };
        let error = shop.sync_with(&environment, &after, Arc::new(Steps { at: Some(Box::new(at)), ..Steps::default() }), stop).unwrap_err();
        assert_eq!(error.code(), Code::Cancelled, "{name}");
        assert_eq!((environment.current().unwrap(), environment.generations().unwrap()), (2, vec![1, 2]), "{name}");
    }
}

#[test]
fn a_plan_that_was_made_for_another_state_is_refused() {
    let shop = Shop::new();
    let environment = shop.environment("e", LuaVersion::V54);
    let rock = pure(&shop, "bxa", "1-1");
    let old = environment.lock().unwrap();
    let target = super::shop::lock_of(LuaVersion::V54, std::slice::from_ref(&rock));
    let plan = vmoon_packages::plan::sync(&old, &target, &|_| None);
    shop.sync(&environment, &[rock]).unwrap();
    let guard = environment.guard().unwrap();
    let (fetcher, builder) = (shop.fetcher(), shop.builder());
    let installer = vmoon_packages::install::Installer { fetcher: &fetcher, builder: &builder };
    assert_eq!(installer.install(&environment, &guard, &plan, "install", &[]).unwrap_err().code(), Code::EnvironmentBusy);
    // Something else than the lock promises.
    drop(guard);
    let mut other = pure(&shop, "bxb", "1-1");
    other.sha256 = "0".repeat(64);
    assert_eq!(shop.sync(&environment, &[other]).unwrap_err().code(), Code::PackageChecksum);
    let missing =
        LockedRock { url: "file:///nonexistent/x.rock".into(), arch: Arch::All, sha256: String::new(), ..pure(&shop, "bxd", "1-1") };
    assert_eq!(shop.sync(&environment, &[missing]).unwrap_err().code(), Code::NotFound);
    // A rock from elsewhere that would have a file of this computer installed.
    let mut thief = pure(&shop, "bxthief", "1-1");
    shop.fetcher().fetch(&vmoon_packages::fetch::Want::fixed(&*thief.url)).unwrap();
    thief.url = "https://example.org/bxthief-1-1.rockspec".into();
    let error = shop.sync(&environment, &[thief]).unwrap_err();
    assert!(error.code() == Code::PackageInvalid && error.message().contains("names a source on this computer"), "{}", error.chain());
}
