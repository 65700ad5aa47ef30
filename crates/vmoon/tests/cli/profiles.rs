//! The profiles as users get them: each bootstrapped by the command from a server of Debian's rocks, and their modules loaded by every runtime of its Lua version,
//! first of all by the builtin one.

use super::{
    debs::{self, How, REFUSED},
    home::Home,
    mirror::Mirror,
};
use std::collections::BTreeMap;
use vmoon_packages::catalogue;

/// What does not load in a sealed program, which is a matter of the profile and not of the package: the runtime, the module, and what it may not do there.
/// Before 5.3 this one looks into a compiled function to learn how large numbers are.
const MORE_THAN_SEALED: &[(&str, &str, &str)] = &[("lua5.1", "MessagePack", "string.dump is not granted")];

/// Lua text of a table.
fn table(entries: &BTreeMap<String, String>) -> String {
    let entries: Vec<String> = entries.iter().map(|(module, file)| format!("[\"{module}\"] = \"{file}\"")).collect();
    format!("{{ {} }}", entries.join(", "))
}

fn mirror(lua: &str) -> Mirror {
    let mut mirror = Mirror::new();
    for deb in debs::rocks(lua) {
        let build = match &deb.how {
            How::Ready { scripts, libraries } => {
                assert!(!deb.pure || libraries.is_empty(), "{} of {} is not Lua alone", deb.name, deb.package);
                format!("{{ type = \"none\", install = {{ lua = {}, lib = {} }} }}", table(scripts), table(libraries))
            }
            How::Make(makefile) => {
                let variables = ["CC", "CFLAGS", "LIBFLAG", "LUA_INCDIR", "CURL_INCDIR", "CURL_LIBDIR"];
                let variables: Vec<String> = variables.iter().map(|name| format!("{name} = \"$({name})\"")).collect();
                format!(
                    "{{ type = \"make\", makefile = \"{makefile}\", build_variables = {{ {} }}, install_variables = {{ INST_LIBDIR = \"$(LIBDIR)\" }} }}\n\
                     external_dependencies = {{ CURL = {{ header = \"curl/curl.h\", library = \"curl\" }} }}",
                    variables.join(", ")
                )
            }
        };
        let needs: Vec<&str> = deb.dependencies.iter().map(String::as_str).collect();
        let files: Vec<(&str, &[u8])> = deb.files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
        mirror.add(deb.name, deb.version, &needs, &build, &files);
    }
    mirror
}

/// What an environment has of the modules that the catalogue names.
fn modules(home: &Home, environment: &str) -> Vec<String> {
    let list: serde_json::Value = serde_json::from_str(&home.json(&["pkg", "list", "--env", environment]).ok()).unwrap();
    let mut modules = Vec::new();
    for rock in list.as_array().unwrap() {
        let given: Vec<&str> = rock["modules"].as_array().unwrap().iter().filter_map(|module| module.as_str()).collect();
        let name = rock["name"].as_str().unwrap();
        // Debian's lua-curl is an older one, whose module has another name.
        let known: Vec<&str> = match catalogue::rocks().get(name) {
            _ if name == "lua-curl" => vec!["curl"],
            Some(known) => known.modules.iter().map(String::as_str).collect(),
            None => continue,
        };
        let found = known.into_iter().filter(|module| given.contains(module));
        let before = modules.len();
        modules.extend(found.map(str::to_owned));
        assert!(modules.len() > before, "{name} gives {given:?}");
    }
    modules
}

fn profiles_in(lua: &str, runtimes: &[&str]) {
    let mirror = mirror(lua);
    let home = Home::new();
    home.run(&["pkg", "server", "rm", "luarocks"]).ok();
    home.run(&["pkg", "server", "add", "mirror", &mirror.url()]).ok();
    for profile in catalogue::profiles() {
        let name = profile.name.as_str();
        let bootstrap = ["env", "bootstrap", name, "--lua", lua, "--set", name];
        if let Some((_, _, rock)) = REFUSED.iter().find(|(profile, version, _)| *profile == name && *version == lua) {
            // It says which rock, and why; and nothing is left of the attempt.
            let refused = home.json(&bootstrap);
            refused.fails("package.conflict", 4);
            assert!(refused.err.contains(rock) && refused.err.contains(&format!("Lua {lua}")), "{refused:?}");
            home.json(&["env", "show", name]).fails("environment.not_found", 3);
            continue;
        }
        home.run(&bootstrap).ok();
        let modules = modules(&home, name);
        for runtime in runtimes {
            let more = MORE_THAN_SEALED.iter().filter(|(of, module, _)| of == runtime && modules.iter().any(|one| one == module));
            let more: Vec<_> = more.collect();
            let (apart, sealed): (Vec<&str>, Vec<&str>) =
                modules.iter().map(String::as_str).partition(|module| more.iter().any(|(_, apart, _)| apart == module));
            let code = |modules: &[&str]| {
                format!("for _, name in ipairs {{ '{}' }} do require(name) end return 'all of them'", modules.join("', '"))
            };
            let run = |profile: &str, modules: &[&str]| {
                home.run(&["run", "--env", name, "--runtime", runtime, "--profile", profile, "-e", &code(modules)])
            };
            assert_eq!(run("sealed", &sealed).ok().trim(), "all of them", "{name} in {runtime}");
            for (_, module, why) in more {
                let refused = run("sealed", &[module]);
                assert!(refused.code == 1 && refused.err.contains(why), "{refused:?}");
            }
            if !apart.is_empty() {
                assert_eq!(run("trusted", &apart).ok().trim(), "all of them", "{name} in {runtime}");
            }
        }
    }
    home.end();
}

#[test]
fn profiles_for_lua_5_4_load_in_the_builtin_runtime_and_in_lua5_4() {
    profiles_in("5.4", &["builtin", "lua5.4"]);
}

#[test]
fn profiles_for_lua_5_1_load_in_lua5_1_and_luajit() {
    profiles_in("5.1", &["lua5.1", "luajit"]);
}
