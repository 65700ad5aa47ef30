//! The profiles: each bootstrapped for every Lua version from the server inside vmoon and a mirror of Debian's modules, then from the cache alone; and the
//! modules that the catalogue names loaded by the interpreters of that version.

use crate::{
    mirror::{
        Mirror, Rock,
        debs::{self, How, REFUSED},
        serve::Server as Web,
    },
    servers::server,
    work::shop::{Shop, run_lua},
};
use serde_json::{Value, json};
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

fn mirror(lua: LuaVersion) -> (tempfile::TempDir, Web) {
    let dir = tempfile::tempdir().unwrap();
    let web = Web::start(dir.path(), false);
    let mut mirror = Mirror::at(dir.path(), web.url());
    let machine = format!("linux-{}", std::env::consts::ARCH);
    for deb in debs::rocks(lua.as_str()) {
        let (build, form, more) = match deb.how {
            How::Ready { scripts, libraries } => {
                let build = json!({ "type": "none", "install": { "lua": scripts, "lib": libraries } });
                (build, if deb.pure { "all" } else { machine.as_str() }, json!({}))
            }
            How::Make(makefile) => (
                made_by(makefile),
                "rockspec",
                json!({ "external_dependencies": { "CURL": { "header": "curl/curl.h", "library": "curl" } } }),
            ),
        };
        mirror.add(&Rock {
            files: deb.files,
            build,
            dependencies: deb.dependencies,
            summary: format!("{} of Debian", deb.package),
            more,
            ..Rock::pure(deb.name, deb.version, &[]).only(&[form])
        });
    }
    mirror.publish();
    (dir, web)
}

/// The table `build` of a rock that make builds.
pub(crate) fn made_by(makefile: &str) -> Value {
    let names = ["CC", "CFLAGS", "LIBFLAG", "LUA_INCDIR", "CURL_INCDIR", "CURL_LIBDIR"];
    let variables: BTreeMap<&str, String> = names.into_iter().map(|name| (name, format!("$({name})"))).collect();
    json!({ "type": "make", "makefile": makefile, "build_variables": variables, "install_variables": { "INST_LIBDIR": "$(LIBDIR)" } })
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
        if rock.name.as_str() == "lua-curl" && given.is_empty() {
            // Debian's is an older one, whose module has another name.
            assert_eq!(rock.modules, ["curl"]);
            modules.push("curl");
            continue;
        }
        assert!(!given.is_empty(), "{} gives {:?}, not {:?}", rock.name, rock.modules, known.modules);
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
