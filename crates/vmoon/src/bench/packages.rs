//! What packages cost: whole processes of `vmoon pkg`, as a user starts them, beside whole processes of `luarocks` that do the same from the same server.

use super::{
    Bench,
    child::{find, whole},
    mirror::{Mirror, public_sized},
    report::{Column, summary, targets, us},
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use vmoon_core::{Error, Result, name::escape};
use vmoon_packages::Manifest;
use vmoon_sys::paths::private_dir;

/// The rocks that need each other in a row; the last is asked for.
const THREE: &str = "bench-c";
/// The set `standard`, in its shape: three modules in C, and forty in Lua.
const STANDARD: [&str; 4] = ["bench-json", "bench-files", "bench-net", "bench-lib"];
/// The rock that needs the 49 others.
const FIFTY: &str = "solve-49";

fn middle(times: &mut [Duration]) -> Value {
    times.sort_unstable();
    us(times.get(times.len() / 2).copied().unwrap_or_default())
}

/// The server.
fn mirror(dir: &Path) -> Result<Mirror> {
    let mut mirror = Mirror::at(dir)?;
    let lua = |name: &str| vec![(name.replace('-', "_"), "init.lua".to_owned(), format!("return \"{name}\"\n"))];
    for version in ["1.0", "1.1", "2.0"] {
        mirror.add("bench-a", version, &[], &lua("bench-a"))?;
    }
    mirror.add("bench-b", "1.0", &["bench-a < 2".into()], &lua("bench-b"))?;
    mirror.add(THREE, "0.3", &["bench-b".into(), "bench-a ~> 1".into()], &lua(THREE))?;
    for name in &STANDARD[..3] {
        let module = name.replace('-', "_");
        let source = format!(
            "#include <lua.h>\n#include <lauxlib.h>\nstatic int id(lua_State *L) {{ lua_settop(L, 1); return 1; }}\n\
             int luaopen_{module}(lua_State *L) {{ lua_newtable(L); lua_pushcfunction(L, id); lua_setfield(L, -2, \"id\"); return 1; }}\n"
        );
        mirror.add(name, "1.0", &[], &[(module, format!("{name}.c"), source)])?;
    }
    let text = "-- a line of a module that is as long as lines are\n".repeat(200) + "return {}\n";
    let modules: Vec<_> = (0..40).map(|number| (format!("bench_lib.m{number}"), format!("m{number}.lua"), text.clone())).collect();
    mirror.add(STANDARD[3], "1.0", &[STANDARD[1].into()], &modules)?;
    for rock in 0..50 {
        let name = format!("solve-{rock}");
        for version in 1..=5 {
            // Each version needs the same one of the two before, but for the newest, which nobody can have: the choice has to go back.
            let needs: Vec<String> =
                (1..=2).filter(|back| rock >= *back).map(|back| format!("solve-{} == {version}.0, < 5", rock - back)).collect();
            mirror.add(&name, &format!("{version}.0"), &needs, &lua(&name))?;
        }
    }
    mirror.publish()?;
    Ok(mirror)
}

/// Everything about packages.
pub(super) fn packages(bench: &Bench) -> Result<Value> {
    let dir = bench.place.dir().join("packages");
    private_dir(&dir)?;
    let mirror = mirror(&dir.join("mirror"))?;
    let env = bench.place.env();
    let pkg = |args: &[&str], expected: &str| whole(bench.place.exe(), args, &env, expected);
    pkg(&["pkg", "server", "rm", "luarocks"], "")?;
    pkg(&["pkg", "server", "add", "bench", &mirror.url()], "")?;
    let rounds = bench.rounds(40, 10);
    let mut made = 0;
    let mut install = |packages: &[&str], empty: bool| -> Result<Duration> {
        made += 1;
        let name = format!("bench{made}");
        if empty {
            pkg(&["pkg", "cache", "--clear"], "")?;
        }
        pkg(&["env", "create", &name, "-q"], "")?;
        pkg(&[&["pkg", "install", "-q", "--env", &name], packages].concat(), "")
    };
    let mut times = |packages: &[&str], empty: bool| (0..rounds).map(|_| install(packages, empty)).collect::<Result<Vec<_>>>();
    let mut three = times(&[THREE], true)?;
    let mut three_cached = times(&[THREE], false)?;
    let compiled = times(&STANDARD, true)?.into_iter().min();
    let mut standard = times(&STANDARD, false)?;
    pkg(&["env", "create", "listed", "-q"], "")?;
    pkg(&[&["pkg", "install", "-q", "--env", "listed"], &STANDARD[..]].concat(), "")?;
    let listed = (0..bench.rounds(200, 50)).map(|_| pkg(&["pkg", "list", "--env", "listed", "--no-header"], "bench-files "));
    let mut listed = listed.collect::<Result<Vec<_>>>()?;
    let plan = ["pkg", "install", FIFTY, "--env", "listed", "--dry-run"];
    let solved_first = pkg(&plan, "")?;
    let mut solved = (0..rounds).map(|_| pkg(&plan, "")).collect::<Result<Vec<_>>>()?;
    let (mut plain, mut evaluated) = manifests(bench)?;
    let vmoon = json!({
        "rounds": rounds,
        "three_pure_rocks_p50_us": middle(&mut three),
        "three_pure_rocks_cached_p50_us": middle(&mut three_cached),
        "standard_compiled_min_us": us(compiled.unwrap_or_default()),
        "standard_cached_p50_us": middle(&mut standard),
        "list_p50_us": middle(&mut listed),
        "list": summary(listed),
        "solve_50_first_us": us(solved_first),
        "solve_50_p50_us": middle(&mut solved),
        "manifest_p50_us": middle(&mut plain),
        "manifest_evaluated_p50_us": middle(&mut evaluated),
    });
    let mut figures = json!({
        "what": "whole processes of `vmoon pkg`: 3 Lua rocks into a new environment with nothing cached and with everything; a set of 3 C modules and 40 Lua \
                 modules; a list; a plan with 50 rocks that the newest versions do not fit; a manifest of 285 000 lines, read as data and evaluated",
        "vmoon": vmoon,
    });
    match luarocks(bench, &dir, &mirror.url()) {
        Ok(column) => figures["luarocks"] = column,
        Err(reason) => (figures["luarocks"], figures["luarocks_reason"]) = (Value::Null, reason.into()),
    }
    let bounds = [
        ("three_pure_rocks_p50_us", 50_000.0, false),
        ("standard_cached_p50_us", 200_000.0, false),
        ("list_p50_us", 10_000.0, false),
        ("solve_50_p50_us", 1_000_000.0, false),
        ("manifest_p50_us", 100_000.0, false),
        ("manifest_evaluated_p50_us", 100_000.0, false),
    ];
    Ok(targets(figures, &bounds))
}

/// A manifest of the public server's size: as it is, and as a program that has to be run.
fn manifests(bench: &Bench) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let text = public_sized();
    let program = format!("local function same(...) return ... end\n{text}repository = same(repository)\n");
    let evaluator = vmoon_daemon::evaluator(bench.place.exe().to_owned());
    let rocks = Manifest::read(text.as_bytes(), &evaluator)?.rocks.len();
    let read = |text: &str| -> Result<Duration> {
        let begun = Instant::now();
        let manifest = Manifest::read(text.as_bytes(), &evaluator)?;
        let took = begun.elapsed();
        if manifest.rocks.len() == rocks { Ok(took) } else { Err(Error::internal("a manifest was read with other rocks than it has")) }
    };
    let rounds = bench.rounds(20, 5);
    let times = |text: &str| (0..rounds).map(|_| read(text)).collect::<Result<Vec<_>>>();
    Ok((times(&text)?, times(&program)?))
}

/// The same by `luarocks`, for which nothing is cached but the manifest: it keeps no sources and nothing that it has built.
fn luarocks(bench: &Bench, dir: &Path, url: &str) -> Column {
    let program = find("luarocks").ok_or("there is no program luarocks")?;
    let home = dir.join("luarocks");
    private_dir(&home).map_err(|error| error.chain())?;
    let home_text = home.to_string_lossy().into_owned();
    let env = [("HOME", home_text.as_str())];
    let cache = bench.place.dir().join("cache/vmoon/rocks");
    let headers: Option<PathBuf> = std::fs::read_dir(&cache)
        .ok()
        .and_then(|entries| entries.flatten().map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("headers-5.4")));
    let headers = headers.ok_or_else(|| format!("{} has no headers of Lua 5.4", escape(&cache.to_string_lossy())))?;
    let headers = format!("LUA_INCDIR={}", headers.display());
    let mut trees = 0;
    let mut install = |packages: &[&str]| -> Result<Duration> {
        trees += 1;
        let tree = home.join(format!("tree{trees}")).to_string_lossy().into_owned();
        let mut took = Duration::ZERO;
        for package in packages {
            took +=
                whole(&program, &["--lua-version", "5.4", "--only-server", url, "--tree", &tree, "install", package, &headers], &env, "")?;
        }
        Ok(took)
    };
    let rounds = bench.rounds(10, 3);
    let mut times = |packages: &[&str]| (0..rounds).map(|_| install(packages)).collect::<Result<Vec<_>>>();
    let mut measure = || -> Result<Value> {
        let (mut three, mut standard) = (times(&[THREE])?, times(&STANDARD)?);
        // The tree of the last round has the set.
        let tree = home.join(format!("tree{}", 2 * rounds)).to_string_lossy().into_owned();
        let list = || whole(&program, &["--lua-version", "5.4", "--tree", &tree, "list", "--porcelain"], &env, "");
        let mut listed = (0..rounds).map(|_| list()).collect::<Result<Vec<_>>>()?;
        Ok(json!({
            "rounds": rounds,
            "three_pure_rocks_p50_us": middle(&mut three),
            "standard_p50_us": middle(&mut standard),
            "list_p50_us": middle(&mut listed),
            "solve_50": "it takes the newest of each rock and never looks back",
        }))
    };
    measure().map_err(|error| error.chain())
}
