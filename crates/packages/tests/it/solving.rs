//! From a server to a plan: rockspecs fetched side by side, evaluated, solved, planned.

use crate::{
    mirror::{Mirror, Rock, serve::Fault},
    sandbox::{Installed, Never},
    servers::{Fetching, served, server},
};
use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use vmoon_core::{Code, Result};
use vmoon_packages::{
    Dependency, Evaluator, Index, Lock, LuaVersion, Plan, RockName, builtin, catalogue,
    descriptions::Descriptions,
    gather::gather,
    plan::{self, Build, Inputs},
    solve::{Request, ServerRockspecs, Solution, Update, solve},
};
use vmoon_sys::stop::Stop;

fn wanted(text: &[&str]) -> Vec<Dependency> {
    text.iter().map(|text| text.parse().unwrap()).collect()
}

fn solved(fetching: &Fetching, index: &Index, evaluator: &dyn Evaluator, want: &[&str], lock: &Lock, update: &Update) -> Result<Solution> {
    let files = fetching.files();
    let rockspecs = ServerRockspecs::new(&files, evaluator);
    solve(Request { index, wanted: &wanted(want), lock, update, stop: &Stop::new() }, &rockspecs)
}

fn planned(want: &[&str], current: &Lock, solution: &Solution) -> Plan {
    let servers = ["file:///s".to_owned()];
    plan::plan(Inputs {
        current,
        wanted: &wanted(want),
        servers: &servers,
        solution,
        remove: &[],
        remove_orphans: false,
        download: &|_| None,
    })
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| format!("{} {} {} {}", step.action.as_str(), step.rock.name, step.rock.version, step.rock.arch)).collect()
}

/// What `luarocks` answers with success and a broken tree: see the facts in `docs/decisions`.
#[test]
fn what_luarocks_breaks_is_solved_or_refused() {
    let (_dir, _mirror, web) = served(false);
    let fetching = Fetching::new();
    let evaluator = Installed::default();
    let lua = LuaVersion::V54;
    let index = gather(&[server("s", web.url())], lua, &fetching.files(), &evaluator);
    let none = Lock::empty(lua);
    let first = solved(&fetching, &index, &evaluator, &["bxgamma"], &none, &Update::Nothing).unwrap();
    let plan = planned(&["bxgamma"], &none, &first);
    assert_eq!(lines(&plan), ["install bxalpha 1.0-1 src", "install bxbeta 1.0-1 src", "install bxgamma 0.3-1 src"]);
    assert_eq!(plan.lock.rocks["bxgamma"].modules, ["bxgamma"]);
    // The text is that of rocks.lock, and what is written is read again.
    let lock = Lock::from_toml(&plan.lock.to_toml().unwrap()).unwrap();
    assert_eq!(lock, plan.lock);
    // bxalpha 2.0 beside bxbeta, which needs less: refused, and told why.
    let error = solved(&fetching, &index, &evaluator, &["bxgamma", "bxalpha 2.0"], &lock, &Update::Nothing).unwrap_err();
    assert_eq!(error.code(), Code::PackageConflict);
    assert!(
        error.message().contains("needs bxalpha >= 1.0, < 2.0 and you want bxalpha == 2.0") || error.message().contains("bxalpha ~> 1.0"),
        "{error}"
    );
    let all = solved(&fetching, &index, &evaluator, &["bxcycle-a", "bxc", "bxready"], &lock, &Update::Nothing).unwrap();
    let plan = planned(&["bxcycle-a", "bxc", "bxready", "bxgamma"], &lock, &all);
    let builds: Vec<(String, Build)> = plan.steps.iter().map(|step| (step.rock.name.to_string(), step.build.clone())).collect();
    assert!(builds.contains(&("bxc".into(), Build::Compile)) && builds.contains(&("bxready".into(), Build::Unpack)), "{builds:?}");
    assert!(builds.contains(&("bxcycle-b".into(), Build::Copy)) && builds.contains(&("bxgamma".into(), Build::Nothing)), "{builds:?}");
}

#[test]
fn a_version_whose_rockspec_is_missing_or_bad_is_stepped_over() {
    let (_dir, _mirror, web) = served(false);
    let evaluator = Installed::default();
    let lua = LuaVersion::V54;
    for fault in [
        Fault::Status(404),
        Fault::Html,
        Fault::Bytes(b"while true do end".to_vec()),
        Fault::Bytes(b"package = 'other' version = '2.0-1' source = { url = 'file:///x' }".to_vec()),
    ] {
        web.fault("bxalpha-2.0-1.rockspec", fault.clone());
        let fetching = Fetching::new();
        let index = gather(&[server("s", web.url())], lua, &fetching.files(), &evaluator);
        let none = Lock::empty(lua);
        let solution = solved(&fetching, &index, &evaluator, &["bxalpha"], &none, &Update::Nothing).unwrap();
        assert_eq!(solution.rocks["bxalpha"].version.as_str(), "1.1-1", "{fault:?}");
        let error = solved(&fetching, &index, &evaluator, &["bxalpha >= 2"], &none, &Update::Nothing).unwrap_err();
        assert!(error.message().contains("bxalpha 2.0-1 cannot be used ("), "{fault:?}: {error}");
    }
    // A server that hangs says nothing of a version.
    web.fault("bxalpha-2.0-1.rockspec", Fault::Hang);
    let fetching = Fetching::new();
    let index = gather(&[server("s", web.url())], lua, &fetching.files(), &evaluator);
    let error = solved(&fetching, &index, &evaluator, &["bxalpha"], &Lock::empty(lua), &Update::Nothing).unwrap_err();
    assert_eq!(error.code(), Code::PackageServer, "{error}");
}

#[test]
fn modules_of_debian_are_rocks_for_their_lua_alone() {
    for lua in ["5.1", "5.4"] {
        let mirror = Mirror::local().with_debian(lua);
        mirror.publish();
        let fetching = Fetching::new();
        let evaluator = Installed::default();
        let want = ["luasocket", "lpeg", "luafilesystem", "lua-cjson"];
        for at in LuaVersion::ALL {
            let index = gather(&[server("s", mirror.url())], at, &fetching.files(), &evaluator);
            match solved(&fetching, &index, &evaluator, &want, &Lock::empty(at), &Update::Nothing) {
                Ok(solution) => {
                    let plan = planned(&want, &Lock::empty(at), &solution);
                    assert_eq!(at.as_str(), lua);
                    assert_eq!(plan.lock.rocks["lua-cjson"].modules, ["cjson"]);
                    assert!(plan.steps.iter().all(|step| step.build == Build::Unpack));
                }
                Err(error) => {
                    assert_ne!(at.as_str(), lua, "{error}");
                    assert!(error.message().contains(&format!("(this environment is for Lua {at})")), "{error}");
                }
            }
        }
    }
}

/// Fifty rocks that need each other, each of five versions, over HTTP; then once more from the cache.
#[test]
#[expect(clippy::print_stderr, reason = "the figures are for who measures")]
fn fifty_rocks_are_solved_within_a_second_from_the_cache() {
    let (_dir, mut mirror, web) = served(false);
    for rock in 0..50usize {
        for version in 1..=5 {
            let needs: Vec<String> =
                [rock + 1, rock * 2 + 1].iter().filter(|n| **n < 50).map(|n| format!("many{n} >= {version}")).collect();
            let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
            mirror.add(&Rock::pure(&format!("many{rock}"), &format!("{version}.0-1"), &needs).only(&["rockspec"]));
        }
    }
    mirror.publish();
    let fetching = Fetching::new();
    let evaluator = Installed::default();
    let lua = LuaVersion::V54;
    let servers = [server("s", web.url())];
    let index = gather(&servers, lua, &fetching.files(), &evaluator);
    let none = Lock::empty(lua);
    let start = Instant::now();
    let cold = solved(&fetching, &index, &evaluator, &["many0 < 5"], &none, &Update::Nothing).unwrap();
    let cold_took = start.elapsed();
    assert_eq!((cold.rocks.len(), cold.rocks["many0"].version.as_str(), cold.rocks["many49"].version.as_str()), (50, "4.0-1", "5.0-1"));
    let evaluated = evaluator.calls.load(Ordering::Relaxed);
    assert!(evaluated < 70, "{evaluated} rockspecs were evaluated for 50 rocks");
    let start = Instant::now();
    let index = gather(&servers, lua, &fetching.files(), &Never);
    let warm = solved(&fetching, &index, &Never, &["many0 < 5"], &none, &Update::Nothing).unwrap();
    let warm_took = start.elapsed();
    assert_eq!(cold, warm);
    eprintln!("50 rocks: cold {cold_took:?}, warm {warm_took:?}");
    assert!(warm_took < Duration::from_secs(1), "{warm_took:?}");
    let update = Update::Rocks(["many0".parse::<RockName>().unwrap()].into());
    let lock = planned(&["many0 < 5"], &none, &warm).lock;
    let updated = solved(&fetching, &index, &Installed::default(), &["many0"], &lock, &update).unwrap();
    assert_eq!(updated.rocks["many0"].version.as_str(), "5.0-1");
}

#[test]
fn rocks_are_found_by_what_they_are_about_offline_too() {
    let (dir, mut mirror, web) = served(false);
    mirror.add(&Rock {
        summary: "Reads  the stars\n of the night".into(),
        labels: vec!["Astronomy".into()],
        ..Rock::pure("bxsky", "1.0-1", &[])
    });
    mirror.add(&Rock::pure("bxbroken", "1.0-1", &[]));
    mirror.publish();
    web.fault("bxbroken-1.0-1.rockspec", Fault::Html);
    let fetching = Fetching::new();
    let evaluator = Installed::default();
    let index = gather(&[server("s", web.url())], LuaVersion::V54, &fetching.files(), &evaluator);
    let descriptions = Descriptions::in_cache(dir.path());
    let found = |rockspecs: &ServerRockspecs<'_>, words: &[&str]| -> Vec<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let found = descriptions.search(&index, rockspecs, &BTreeMap::new(), &words, 50);
        found.into_iter().map(|found| format!("{}: {}", found.name, found.summary)).collect()
    };
    let files = fetching.files();
    let rockspecs = ServerRockspecs::new(&files, &evaluator);
    assert_eq!(found(&rockspecs, &["night", "stars"]), ["bxsky: Reads the stars of the night"]);
    assert_eq!(found(&rockspecs, &["bxbroken"]), ["bxbroken: "]);
    assert!(found(&rockspecs, &[]).len() > 8 && rockspecs.all().len() > 8);
    drop(web);
    // Nothing can be fetched or evaluated now.
    let rockspecs = ServerRockspecs::new(&files, &Never);
    assert_eq!(found(&rockspecs, &["astronomy"]), ["bxsky: Reads the stars of the night"]);
}

/// The profiles with our own rocks: theirs from inside vmoon, the C rocks from a mirror.
#[test]
fn the_biology_profiles_have_a_solution_for_every_lua() {
    // But for 5.5: Debian has no modules for it, and those rocks do not allow it.
    for lua in LuaVersion::ALL.into_iter().filter(|lua| *lua != LuaVersion::V55) {
        let mut mirror = Mirror::local().with_debian(lua.as_str());
        mirror.add(&Rock::pure("penlight", "1.13.1-1", &["luafilesystem"]));
        mirror.publish();
        let fetching = Fetching::new();
        let evaluator = Installed::default();
        let servers = [server("mirror", mirror.url()), server("builtin", builtin::URL)];
        let index = gather(&servers, lua, &fetching.files(), &evaluator);
        assert!(index.failures.is_empty(), "{:?}", index.failures);
        for (profile, rocks) in [("bioxen-minimal", 3), ("bioxen-standard", 7), ("bioxen-full", 10)] {
            let want = catalogue::profile(profile).unwrap().all_rocks(|_| Ok(None)).unwrap();
            let files = fetching.files();
            let rockspecs = ServerRockspecs::new(&files, &evaluator);
            let none = Lock::empty(lua);
            let request = Request { index: &index, wanted: &want, lock: &none, update: &Update::Nothing, stop: &Stop::new() };
            let solution = solve(request, &rockspecs).unwrap();
            assert_eq!(solution.rocks.len(), rocks, "{profile}: {:?}", solution.rocks.keys());
            let names: Vec<String> = want.iter().map(Dependency::to_string).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            assert!(planned(&names, &none, &solution).lock.problems().is_empty());
        }
    }
}
