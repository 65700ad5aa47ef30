//! A rocks server made by the tests: a directory of rockspecs, rocks, sources and manifests. Needs no program but what packs it in this process.

pub(crate) mod debian;
pub(crate) mod debs;
mod lua;
mod pack;
pub(crate) mod serve;

use self::pack::{tar_gz, zip};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A rock to put on a mirror.
#[derive(Clone, Debug)]
pub(crate) struct Rock {
    /// Its name.
    pub(crate) name: String,
    /// Its version, with revision.
    pub(crate) version: String,
    /// As in a rockspec.
    pub(crate) dependencies: Vec<String>,
    /// One line about it.
    pub(crate) summary: String,
    /// Words to be found by.
    pub(crate) labels: Vec<String>,
    /// The table `build`.
    pub(crate) build: Value,
    /// The files of its source, by path.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// The forms in which the mirror has it: `rockspec`, `src`, `all`, `linux-x86_64`.
    pub(crate) forms: Vec<String>,
    /// Fields of the rockspec that replace what is made.
    pub(crate) more: Value,
}

impl Rock {
    /// A rock of one Lua module that returns its version, in the forms rockspec and src.
    pub(crate) fn pure(name: &str, version: &str, dependencies: &[&str]) -> Self {
        let module = name.replace(['-', '.'], "_");
        let release = version.rsplit_once('-').map_or(version, |(release, _)| release);
        let text = format!("return {{ name = {name:?}, version = {release:?} }}\n");
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            dependencies: ["lua >= 5.1"].iter().chain(dependencies).map(|d| (*d).to_owned()).collect(),
            summary: format!("test rock {name}"),
            labels: vec!["bx".to_owned()],
            build: json!({ "type": "builtin", "modules": { module.clone(): format!("{module}.lua") } }),
            files: vec![(format!("{module}.lua"), text.into_bytes())],
            forms: vec!["rockspec".to_owned(), "src".to_owned()],
            more: json!({}),
        }
    }

    /// A rock of one C module whose function `add` adds two numbers.
    pub(crate) fn native(name: &str, version: &str) -> Self {
        const SOURCE: &str = "#include <lua.h>\n#include <lauxlib.h>\n\
            static int add(lua_State *L) {\n  lua_pushnumber(L, luaL_checknumber(L, 1) + luaL_checknumber(L, 2));\n  return 1;\n}\n\
            int luaopen_NAME(lua_State *L) {\n  lua_newtable(L);\n  lua_pushcfunction(L, add);\n  lua_setfield(L, -2, \"add\");\n  return 1;\n}\n";
        let file = format!("{name}.c");
        Self {
            build: json!({ "type": "builtin", "modules": { name: [file] } }),
            files: vec![(file, SOURCE.replace("NAME", name).into_bytes())],
            ..Self::pure(name, version, &[])
        }
    }

    /// Only these forms.
    pub(crate) fn only(mut self, forms: &[&str]) -> Self {
        self.forms = forms.iter().map(|form| (*form).to_owned()).collect();
        self
    }

    fn stem(&self) -> String {
        format!("{}-{}", self.name, self.version.rsplit_once('-').map_or(self.version.as_str(), |(release, _)| release))
    }
}

/// A directory that is served.
#[derive(Debug)]
pub(crate) struct Mirror {
    dir: PathBuf,
    base: String,
    /// Rocks, versions, forms.
    listed: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    _own: Option<tempfile::TempDir>,
}

impl Mirror {
    /// An empty one, reached by `file://`.
    pub(crate) fn local() -> Self {
        let own = tempfile::tempdir().unwrap();
        let mut mirror = Self::at(own.path(), &format!("file://{}", own.path().display()));
        mirror._own = Some(own);
        mirror
    }

    /// An empty one in this directory, reached by this address.
    pub(crate) fn at(dir: &Path, base: &str) -> Self {
        fs::create_dir_all(dir.join("src")).unwrap();
        Self { dir: dir.to_owned(), base: base.to_owned(), listed: BTreeMap::new(), _own: None }
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The address.
    pub(crate) fn url(&self) -> &str {
        &self.base
    }

    /// The rocks that the tests use most: a conflict (bxbeta needs less than the newest bxalpha), a C module, a chain, a cycle.
    pub(crate) fn with_standard(mut self) -> Self {
        for version in ["1.0-1", "1.1-1", "2.0-1"] {
            self.add(&Rock::pure("bxalpha", version, &[]));
        }
        self.add(&Rock::pure("bxbeta", "1.0-1", &["bxalpha >= 1.0, < 2.0"]));
        self.add(&Rock::pure("bxgamma", "0.3-1", &["bxbeta >= 1.0", "bxalpha ~> 1.0"]));
        self.add(&Rock::pure("bxdelta", "1.0-1", &["bxbeta", "bxalpha >= 2.0"]));
        self.add(&Rock::pure("bxcycle-a", "1.0-1", &["bxcycle-b"]));
        self.add(&Rock::pure("bxcycle-b", "1.0-1", &["bxcycle-a"]));
        self.add(&Rock::native("bxc", "1.0-1"));
        self.add(&Rock::pure("bxready", "1.0-1", &[]).only(&["all"]));
        self
    }

    /// Puts a rock there, without listing it in a manifest yet; see [`Mirror::publish`].
    pub(crate) fn add(&mut self, rock: &Rock) {
        let stem = rock.stem();
        let archive = format!("{stem}.tar.gz");
        let mut spec = json!({
            "rockspec_format": "3.0",
            "package": rock.name,
            "version": rock.version,
            "source": { "url": format!("{}/src/{archive}", self.base), "dir": stem },
            "description": { "summary": rock.summary, "license": "MIT", "labels": rock.labels },
            "dependencies": rock.dependencies,
            "build": rock.build,
        });
        for (field, value) in rock.more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let rockspec = lua::globals(&spec).into_bytes();
        let source = tar_gz(&stem, &rock.files);
        let name = format!("{}-{}", rock.name, rock.version);
        let spec_file = (format!("{name}.rockspec"), rockspec.clone());
        fs::write(self.dir.join("src").join(&archive), &source).unwrap();
        for form in &rock.forms {
            let (file, content) = match form.as_str() {
                "rockspec" => (format!("{name}.rockspec"), rockspec.clone()),
                "src" => (format!("{name}.src.rock"), zip(&[spec_file.clone(), (archive.clone(), source.clone())])),
                ready => (format!("{name}.{ready}.rock"), zip(&self.ready(rock, &spec_file))),
            };
            fs::write(self.dir.join(file), content).unwrap();
        }
        let versions = self.listed.entry(rock.name.clone()).or_default();
        versions.insert(rock.version.clone(), rock.forms.clone());
    }

    /// The files of a rock that is ready: modules below `lua/` and `lib/`, and `rock_manifest`, which has the MD5 of each.
    fn ready(&self, rock: &Rock, spec_file: &(String, Vec<u8>)) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![spec_file.clone()];
        let mut tree = json!({ spec_file.0.clone(): pack::md5(&spec_file.1) });
        for (path, content) in &rock.files {
            let folder = if path.ends_with(".so") { "lib" } else { "lua" };
            files.push((format!("{folder}/{path}"), content.clone()));
            let mut at = &mut tree[folder];
            for part in path.split('/') {
                at = &mut at[part];
            }
            *at = Value::String(pack::md5(content));
        }
        files.push(("rock_manifest".to_owned(), lua::globals(&json!({ "rock_manifest": tree })).into_bytes()));
        files
    }

    /// Writes the manifests, as `luarocks-admin make-manifest` does: `manifest` and one for each Lua version, in Lua.
    pub(crate) fn publish(&self) {
        let text = self.manifest();
        for name in ["manifest", "manifest-5.1", "manifest-5.2", "manifest-5.3", "manifest-5.4"] {
            fs::write(self.dir.join(name), &text).unwrap();
        }
    }

    /// Writes the JSON form and the zipped form besides, as the public server has them; and takes the plain one away.
    pub(crate) fn publish_zip(&self, lua: &str) {
        let name = format!("manifest-{lua}");
        fs::write(self.dir.join(format!("{name}.zip")), zip(&[(name.clone(), self.manifest().into_bytes())])).unwrap();
        let _ = fs::remove_file(self.dir.join(name));
    }

    /// Writes the JSON form.
    pub(crate) fn publish_json(&self, lua: &str) {
        fs::write(self.dir.join(format!("manifest-{lua}.json")), self.tables().to_string()).unwrap();
    }

    fn manifest(&self) -> String {
        lua::globals(&self.tables())
    }

    fn tables(&self) -> Value {
        let mut repository = serde_json::Map::new();
        for (name, versions) in &self.listed {
            let versions = versions.iter().map(|(version, forms)| {
                let forms: Vec<Value> = forms.iter().map(|form| json!({ "arch": form })).collect();
                (version.clone(), Value::Array(forms))
            });
            repository.insert(name.clone(), Value::Object(versions.collect()));
        }
        json!({ "repository": repository, "modules": {}, "commands": {} })
    }
}
