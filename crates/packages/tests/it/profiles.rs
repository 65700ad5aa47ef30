//! The profiles: each bootstrapped for every Lua version from the server inside vmoon and a mirror of Debian's modules, then from the cache alone; and the
//! modules that the catalogue names loaded by the interpreters of that version.

use crate::{
    mirror::{Mirror, Rock, serve::Server as Web},
    servers::server,
    work::shop::{Shop, run_lua},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};
use vmoon_core::{Code, Result};
use vmoon_packages::{
    Index, Lock, LuaVersion, builtin, catalogue,
    environment::Environment,
    fetch::{Fetcher, Options},
    files::ServerFiles,
    gather::gather,
    install::{Installed, Installer},
    plan::{self, Inputs},
    solve::{Request, ServerRockspecs, Update, solve},
};
use vmoon_sys::stop::Stop;

/// A Debian package, the rock that it becomes, what that needs, and whether it is Lua alone and so the same for every version.
const PACKAGES: &[(&str, &str, &str, &[&str], bool)] = &[
    ("lua-cjson", "lua-cjson", "2.1.0-1", &[], false),
    ("lua-filesystem", "luafilesystem", "1.8.0-1", &[], false),
    ("lua-socket", "luasocket", "3.1.0-1", &[], false),
    ("lua-penlight", "penlight", "1.13.1-1", &["luafilesystem"], true),
    ("lua-zlib", "lua-zlib", "1.2-1", &[], false),
    ("lua-lpeg", "lpeg", "1.0.2-1", &[], false),
    ("lua-curl", "lua-curl", "0.3.0-1", &[], false),
    ("lua-messagepack", "lua-messagepack", "0.5.2-1", &[], true),
    ("lua-yaml", "lyaml", "6.2.8-1", &[], false),
    ("lua-term", "lua-term", "0.07-1", &[], false),
    ("lua-posix", "luaposix", "33.4.0-1", &["bit32"], false),
    ("lua-bit32", "bit32", "5.3.0-1", &[], false),
    ("lua-inspect", "inspect", "3.1.1-1", &[], true),
    (
        "lua-busted",
        "busted",
        "2.1.1-1",
        &["luassert", "say", "lua_cliargs", "mediator_lua", "luasystem", "dkjson", "lua-term", "penlight", "luafilesystem"],
        true,
    ),
    ("lua-luassert", "luassert", "1.9.0-1", &["say"], true),
    ("lua-say", "say", "1.4.1-1", &[], true),
    ("lua-cliargs", "lua_cliargs", "3.0-1", &[], true),
    ("lua-mediator", "mediator_lua", "1.1.2-1", &[], true),
    ("lua-system", "luasystem", "0.2.1-1", &[], false),
    ("lua-dkjson", "dkjson", "2.6-1", &[], true),
];

/// What cannot be had: the profile, the Lua version, and the rock whose Debian package is for others. Nothing else is refused.
const REFUSED: &[(&str, &str, &str)] =
    &[("full", "5.3", "lua-curl"), ("full", "5.4", "lua-curl luaposix"), ("network", "5.3", "lua-curl"), ("network", "5.4", "lua-curl")];

/// The files of a Debian package for a Lua version: their paths below the module folders, what they hold, and whether they are libraries.
fn files_of(package: &str, lua: &str) -> Vec<(String, Vec<u8>, bool)> {
    let list = format!("/var/lib/dpkg/info/{package}.list");
    let multiarch = format!("/var/lib/dpkg/info/{package}:{}.list", if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" });
    let text = fs::read_to_string(&multiarch).or_else(|_| fs::read_to_string(&list));
    let text = text.unwrap_or_else(|error| panic!("{list}: {error}; cargo xtask install brings it (Debian package {package})"));
    let folders = [format!("/usr/share/lua/{lua}/"), format!("/usr/lib/{}-linux-gnu/lua/{lua}/", std::env::consts::ARCH)];
    let mut files = Vec::new();
    for line in text.lines() {
        for (folder, library) in folders.iter().zip([false, true]) {
            if let Some(inside) = line.strip_prefix(folder.as_str()).filter(|inside| inside.ends_with(".lua") || inside.ends_with(".so")) {
                files.push((inside.to_owned(), fs::read(line).unwrap(), library));
            }
        }
    }
    files
}

fn mirror(lua: LuaVersion) -> (tempfile::TempDir, Web) {
    let dir = tempfile::tempdir().unwrap();
    let web = Web::start(dir.path(), false);
    let mut mirror = Mirror::at(dir.path(), web.url());
    for (package, name, version, needs, pure) in PACKAGES {
        // What there is for this version; else what there is for the nearest older or newer one, which says so if it is not Lua alone.
        let mut versions: Vec<LuaVersion> = LuaVersion::ALL.into_iter().collect();
        versions.sort_by_key(|other| (lua as i32 - *other as i32).abs());
        let (found, files) = versions
            .into_iter()
            .map(|version| (version, files_of(package, version.as_str())))
            .find(|(_, files)| !files.is_empty())
            .unwrap_or_else(|| panic!("{package} has no modules"));
        let (mut scripts, mut libraries) = (serde_json::Map::new(), serde_json::Map::new());
        let mut contents = Vec::new();
        for (path, content, library) in files {
            let stem = path.rsplit_once('.').map_or(path.as_str(), |(stem, _)| stem);
            let module = stem.strip_suffix("/init").unwrap_or(stem).replace('/', ".");
            if library { &mut libraries } else { &mut scripts }.insert(module, json!(path));
            contents.push((path, content));
        }
        // Lua 5.2 brings it itself, and from 5.3 on nothing needs it.
        let brought = |need: &&&str| **need != "bit32" || lua < LuaVersion::V53;
        let lua_needed = if *pure { "lua >= 5.1".to_owned() } else { format!("lua ~> {found}") };
        let machine = format!("linux-{}", std::env::consts::ARCH);
        mirror.add(&Rock {
            files: contents,
            build: json!({ "type": "none", "install": { "lua": scripts, "lib": libraries } }),
            dependencies: [lua_needed].into_iter().chain(needs.iter().filter(brought).map(|need| (*need).to_owned())).collect(),
            summary: format!("{package} of Debian"),
            ..Rock::pure(name, version, &[]).only(&[if *pure { "all" } else { &machine }])
        });
    }
    mirror.publish();
    (dir, web)
}

/// Bootstraps an environment with a profile.
fn bootstrap(shop: &Shop, fetcher: &Fetcher, index: &Index, environment: &Environment, profile: &str) -> Result<Installed> {
    let wanted = catalogue::profile(profile)?.all_rocks(|_| Ok(None))?;
    let files = ServerFiles::new(fetcher, Duration::from_secs(3600));
    let rockspecs = ServerRockspecs::new(&files, shop.lua.as_ref());
    let current = Lock::empty(index.lua());
    let solution = solve(Request { index, wanted: &wanted, lock: &current, update: &Update::Nothing, stop: &Stop::new() }, &rockspecs)?;
    let inputs = Inputs {
        current: &current,
        wanted: &wanted,
        servers: &[],
        solution: &solution,
        remove: &[],
        remove_orphans: false,
        download: &|_| None,
    };
    let plan = plan::plan(inputs);
    let guard = environment.guard()?;
    Installer { fetcher, builder: &shop.builder() }.install(environment, &guard, &plan, "bootstrap", &[profile.to_owned()])
}

/// Loads every module that the catalogue names of a rock and that the rock has here.
fn load(interpreter: &str, environment: &Environment) {
    let lock = environment.lock().unwrap();
    let mut modules = Vec::new();
    for rock in lock.rocks.values() {
        let Some(known) = catalogue::rocks().get(&rock.name) else { continue };
        let given: Vec<&String> = known.modules.iter().filter(|module| rock.modules.contains(module)).collect();
        // Debian's lua-curl is an older one, whose module has another name.
        assert!(!given.is_empty() || rock.name.as_str() == "lua-curl", "{} gives {:?}, not {:?}", rock.name, rock.modules, known.modules);
        modules.extend(given.into_iter().map(String::as_str));
    }
    let code = format!("for _, name in ipairs {{ '{}' }} do require(name) end print('all ' .. {})", modules.join("', '"), modules.len());
    assert_eq!(run_lua(interpreter, environment, &code).trim(), format!("all {}", modules.len()), "{interpreter}: {modules:?}");
}

fn profiles_for(lua: LuaVersion) {
    let shop = Shop::new();
    let fetcher = shop.fetcher();
    let (_dir, web) = mirror(lua);
    let servers = [server("vmoon", builtin::URL), server("mirror", web.url())];
    let index = gather(&servers, lua, &ServerFiles::new(&fetcher, Duration::ZERO), shop.lua.as_ref());
    assert!(index.failures.is_empty(), "{:?}", index.failures);
    let mut locks = BTreeMap::new();
    for profile in catalogue::profiles() {
        let environment = shop.environment(&profile.name, lua);
        let refused = REFUSED.iter().find(|(name, version, _)| *name == profile.name && *version == lua.as_str());
        match (bootstrap(&shop, &fetcher, &index, &environment, &profile.name), refused) {
            (Ok(_), None) => {
                let interpreters: &[&str] = if lua == LuaVersion::V51 { &["lua5.1", "luajit"] } else { &[&format!("lua{lua}")] };
                interpreters.iter().for_each(|interpreter| load(interpreter, &environment));
                locks.insert(profile.name.clone(), environment.lock().unwrap());
            }
            (Err(error), Some((_, _, rocks))) => {
                assert_eq!(error.code(), Code::PackageConflict, "{error}");
                // It says why: which rock, and for which Lua that is.
                assert!(
                    rocks.split(' ').any(|rock| error.message().contains(rock)) && error.message().contains("Lua"),
                    "{}",
                    error.message()
                );
            }
            (Ok(_), Some(_)) => panic!("{} is refused no more for Lua {lua}", profile.name),
            (Err(error), None) => panic!("{} for Lua {lua}: {}", profile.name, error.chain()),
        }
    }
    // Once more without a network: what is in the cache is enough, and the locks are the same.
    let offline = Shop { options: Options { offline: true, ..shop.options.clone() }, ..Shop::within(std::sync::Arc::clone(&shop.dir)) };
    let fetcher = offline.fetcher();
    let index = gather(&servers, lua, &ServerFiles::new(&fetcher, Duration::from_secs(3600)), offline.lua.as_ref());
    for profile in ["bioxen-minimal", "bioxen-standard", "bioxen-full"] {
        let environment = offline.environment(&format!("{profile}-again"), lua);
        let began = Instant::now();
        let installed = bootstrap(&offline, &fetcher, &index, &environment, profile).unwrap();
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!((installed.fetched, installed.built.len()), (0, 0), "{profile}");
        assert_eq!(environment.lock().unwrap().rocks, locks[profile].rocks, "{profile}");
    }
}

#[test]
fn profiles_are_bootstrapped_and_load_in_lua_5_1_and_luajit() {
    profiles_for(LuaVersion::V51);
}

#[test]
fn profiles_are_bootstrapped_and_load_in_lua_5_2() {
    profiles_for(LuaVersion::V52);
}

#[test]
fn profiles_are_bootstrapped_and_load_in_lua_5_3() {
    profiles_for(LuaVersion::V53);
}

#[test]
fn profiles_are_bootstrapped_and_load_in_lua_5_4() {
    profiles_for(LuaVersion::V54);
}

/// A FASTA file that is packed with gzip is read in an environment that was bootstrapped: the way somebody would use it.
#[test]
fn a_bootstrapped_environment_reads_gzip() {
    let shop = Shop::new();
    let fetcher = shop.fetcher();
    let (_dir, web) = mirror(LuaVersion::V54);
    let servers = [server("vmoon", builtin::URL), server("mirror", web.url())];
    let index = gather(&servers, LuaVersion::V54, &ServerFiles::new(&fetcher, Duration::ZERO), shop.lua.as_ref());
    let environment = shop.environment("bio", LuaVersion::V54);
    bootstrap(&shop, &fetcher, &index, &environment, "bioxen-standard").unwrap();
    let file = shop.path("reads.fa.gz");
    let mut packed = flate2::write::GzEncoder::new(fs::File::create(&file).unwrap(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, b">a first\nACGTACGT\n>b\nGGGG\n").unwrap();
    packed.finish().unwrap();
    let code = format!(
        "local bio, utils = require 'bio.sequences', require 'bio.utils' for r in bio.fasta('{}') do print(r.id, utils.gc(r.seq)) end",
        Path::new(&file).display()
    );
    assert_eq!(run_lua("lua5.4", &environment, &code), "a\t0.5\nb\t1.0\n");
}
