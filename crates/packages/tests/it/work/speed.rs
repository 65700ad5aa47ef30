//! From a wish to an environment that has it, with a clock beside it and `luarocks` on the same mirror. The bounds are wide, so that a busy computer does
//! not fail them; `cargo test --release -p vmoon-packages --test it work::speed -- --nocapture` prints the figures.

use super::shop::{Shop, Steps, run_lua, say};
use crate::{
    mirror::{Mirror, Rock},
    servers::{served, server},
};
use serde_json::json;
use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use vmoon_packages::{
    Dependency, LuaVersion,
    environment::Environment,
    files::ServerFiles,
    gather::gather,
    install::{Installed, Installer},
    plan::{self, Inputs},
    solve::{Request, ServerRockspecs, Update, solve},
};
use vmoon_sys::stop::Stop;

/// Everything that `pkg install` does, but the way to the daemon.
pub(crate) fn install(shop: &Shop, environment: &Environment, url: &str, names: &[&str]) -> (Installed, Duration) {
    let begun = Instant::now();
    let guard = environment.guard().unwrap();
    let fetcher = shop.fetcher_with(Arc::new(Steps::default()), Stop::new());
    let files = ServerFiles::new(&fetcher, Duration::from_secs(3600));
    let index = gather(&[server("s", url)], LuaVersion::V54, &files, &*shop.lua);
    let rockspecs = ServerRockspecs::new(&files, &*shop.lua);
    let wanted: Vec<Dependency> = names.iter().map(|name| name.parse().unwrap()).collect();
    let current = environment.lock().unwrap();
    let request = Request { index: &index, wanted: &wanted, lock: &current, update: &Update::Nothing, stop: &Stop::new() };
    let solution = solve(request, &rockspecs).unwrap();
    let servers = [url.to_owned()];
    let plan = plan::plan(Inputs {
        current: &current,
        wanted: &wanted,
        servers: &servers,
        solution: &solution,
        remove: &[],
        remove_orphans: false,
        download: &|_| None,
    });
    let builder = shop.builder();
    let installed = Installer { fetcher: &fetcher, builder: &builder }.install(environment, &guard, &plan, "install", &[]).unwrap();
    (installed, begun.elapsed())
}

/// The same by `luarocks`, into a tree of its own.
fn luarocks(shop: &Shop, url: &str, names: &[&str]) -> Duration {
    let tree = shop.path(&format!("luarocks-{}", vmoon_sys::random::number()));
    let headers =
        shop.path("cache").read_dir().unwrap().flatten().find(|entry| entry.file_name().to_string_lossy().starts_with("headers-5.4"));
    let begun = Instant::now();
    for name in names {
        let out = Command::new("luarocks")
            .args(["--lua-version", "5.4", "--only-server", url, "--tree"])
            .arg(&tree)
            .args(["install", name])
            .args(headers.iter().map(|entry| format!("LUA_INCDIR={}", entry.path().display())))
            .env("HOME", shop.path("home"))
            .stdin(Stdio::null())
            .output()
            .expect("luarocks is there (Debian: apt-get install luarocks)");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    begun.elapsed()
}

#[test]
fn three_pure_rocks_from_a_warm_mirror() {
    let (_dir, _mirror, web) = served(false);
    let mut times = Vec::new();
    for round in 0..5 {
        let shop = Shop::new();
        let environment = shop.environment("e", LuaVersion::V54);
        let (installed, took) = install(&shop, &environment, web.url(), &["bxgamma"]);
        assert_eq!(installed.changes, ["+ bxalpha 1.0-1", "+ bxbeta 1.0-1", "+ bxgamma 0.3-1"]);
        times.push(took);
        if round == 4 {
            let theirs = luarocks(&shop, web.url(), &["bxgamma"]);
            times.sort();
            say(format!("3 pure rocks, nothing cached: vmoon {:?} (of {times:?}), luarocks {theirs:?}", times[2]));
        }
    }
    assert!(times[2] < Duration::from_secs(2), "{times:?}");
}

/// As large as Penlight is.
fn forty_modules() -> Rock {
    let modules: Vec<String> = (0..40).map(|number| format!("pl.m{number}")).collect();
    let text = "-- a line of a module that is as long as lines are\n".repeat(200) + "return {}\n";
    Rock {
        build: json!({ "type": "builtin", "modules": modules.iter().map(|name| (name.clone(), json!(name.replace('.', "/") + ".lua"))).collect::<serde_json::Map<_, _>>() }),
        files: modules.iter().map(|name| (name.replace('.', "/") + ".lua", text.clone().into_bytes())).collect(),
        ..Rock::pure("penlight", "1.14.0-1", &["luafilesystem"])
    }
}

#[test]
fn the_standard_set_from_a_warm_cache() {
    let mut mirror = Mirror::local().with_debian("5.4");
    mirror.add(&forty_modules());
    mirror.publish();
    let shop = Shop::new();
    let names = ["lua-cjson", "luafilesystem", "luasocket", "penlight"];
    let (installed, cold) = install(&shop, &shop.environment("first", LuaVersion::V54), mirror.url(), &names);
    assert_eq!(installed.built.len(), 4);
    let mut times = Vec::new();
    for number in 0..5 {
        let environment = shop.environment(&format!("e{number}"), LuaVersion::V54);
        let (installed, took) = install(&shop, &environment, mirror.url(), &names);
        assert_eq!((installed.built.len(), installed.fetched), (0, 0), "everything is in the cache");
        times.push(took);
        let code =
            "print(require('cjson').encode { 1 }, require('lfs').currentdir(), type(require('socket').gettime()), type(require('pl.m39')))";
        assert_eq!(run_lua("lua5.4", &environment, code), "[1]\t/\tnumber\ttable\n");
    }
    let theirs = luarocks(&shop, mirror.url(), &names);
    times.sort();
    say(format!("standard set: cold {cold:?}, warm {:?} (of {times:?}), luarocks {theirs:?}", times[2]));
    assert!(times[2] < Duration::from_secs(2), "{times:?}");
}
