//! A rocks server that a test makes: a directory with a manifest, rockspecs and source archives. Real packages are repacked from what Debian has
//! installed, the others are written here.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// A server's directory.
pub(crate) struct Mirror {
    dir: TempDir,
    listed: BTreeMap<String, Vec<String>>,
}

impl Mirror {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let mirror = Self { dir: tempfile::tempdir().unwrap(), listed: BTreeMap::new() };
        mirror.write_manifest();
        mirror
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.dir.path().display())
    }

    /// A file of it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_manifest(&self) {
        let mut text = String::from("commands = {}\nmodules = {}\nrepository = {\n");
        for (name, versions) in &self.listed {
            writeln!(text, "  [\"{name}\"] = {{").unwrap();
            for version in versions {
                writeln!(text, "    [\"{version}\"] = {{ {{ arch = \"rockspec\" }} }},").unwrap();
            }
            text.push_str("  },\n");
        }
        text.push_str("}\n");
        fs::write(self.path("manifest"), text).unwrap();
    }

    /// Adds a rockspec as it is.
    pub(crate) fn add_spec(&mut self, name: &str, version: &str, text: &str) {
        fs::write(self.path(&format!("{name}-{version}.rockspec")), text).unwrap();
        self.listed.entry(name.to_owned()).or_default().push(version.to_owned());
        self.write_manifest();
    }

    /// Adds a rock: its source archive has these files in a folder `src`; `needs` and `build` are Lua.
    pub(crate) fn add(&mut self, name: &str, version: &str, needs: &[&str], build: &str, files: &[(&str, &[u8])]) {
        let staged = tempfile::tempdir().unwrap();
        let source = staged.path().join("src");
        for (file, content) in files {
            let path = source.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fs::create_dir_all(&source).unwrap();
        let archive = self.path(&format!("{name}-{version}.tar.gz"));
        pack(staged.path(), &archive);
        let needs: Vec<String> = needs.iter().map(|need| format!("\"{need}\"")).collect();
        let text = format!(
            "package = \"{name}\"\nversion = \"{version}\"\nsource = {{ url = \"file://{}\", dir = \"src\" }}\n\
             description = {{ summary = \"The rock {name} of a test\", license = \"MIT\" }}\ndependencies = {{ {} }}\nbuild = {build}\n",
            archive.display(),
            needs.join(", ")
        );
        self.add_spec(name, version, &text);
    }

    /// A rock of one module in Lua that tells its version.
    pub(crate) fn add_plain(&mut self, name: &str, version: &str, needs: &[&str]) {
        let code = format!("return {{ version = \"{version}\" }}\n");
        let file = format!("{name}.lua");
        let build = format!("{{ type = \"builtin\", modules = {{ [\"{name}\"] = \"{file}\" }} }}");
        self.add(name, version, needs, &build, &[(&file, code.as_bytes())]);
    }

    /// Rocks that need each other in ways that can go wrong.
    pub(crate) fn add_family(&mut self) {
        for version in ["1.0-1", "1.1-1", "2.0-1"] {
            self.add_plain("bxalpha", version, &["lua >= 5.1"]);
        }
        self.add_plain("bxbeta", "1.0-1", &["lua >= 5.1", "bxalpha < 2.0"]);
        self.add_plain("bxgamma", "1.0-1", &["bxalpha ~> 1", "bxbeta"]);
        self.add_plain("bxdelta", "1.0-1", &["bxalpha >= 2.0"]);
    }

    /// A module in C; every Lua version has these functions.
    pub(crate) fn add_c(&mut self, name: &str, version: &str) {
        let code = "#include <lua.h>\n#include <lauxlib.h>\n\
            int luaopen_bxc_core(lua_State *L) { lua_pushinteger(L, LUA_VERSION_NUM); return 1; }\n";
        let build = "{ type = \"builtin\", modules = { [\"bxc.core\"] = \"core.c\", [\"bxc\"] = \"bxc.lua\" } }";
        let lua = b"return { number = require('bxc.core') }\n";
        self.add(name, version, &["lua >= 5.1"], build, &[("core.c", code.as_bytes()), ("bxc.lua", lua)]);
    }

    /// Debian's builds of lua-cjson and LuaFileSystem for one Lua version, as rocks.
    pub(crate) fn add_debian(&mut self, lua: &str) {
        for (rock, version, module, package) in
            [("lua-cjson", "2.1.0.10-1", "cjson", "lua-cjson"), ("luafilesystem", "1.8.0-1", "lfs", "lua-filesystem")]
        {
            let library = library(lua, module).unwrap_or_else(|| panic!("lua/{lua}/{module}.so is needed: apt install {package}"));
            let build = format!("{{ type = \"none\", install = {{ lib = {{ [\"{module}\"] = \"{module}.so\" }} }} }}");
            let needs = format!("lua == {lua}");
            self.add(rock, version, &[&needs], &build, &[(&format!("{module}.so"), &fs::read(library).unwrap())]);
        }
    }
}

/// Packs a directory's content.
pub(crate) fn pack(dir: &Path, archive: &Path) {
    let status = Command::new("tar").arg("-czf").arg(archive).arg("-C").arg(dir).arg("src").status();
    assert!(status.expect("tar is needed: apt install tar").success());
}

/// Where Debian has a module in C.
fn library(lua: &str, module: &str) -> Option<PathBuf> {
    let found = [format!("/usr/lib/{}-linux-gnu/lua/{lua}/{module}.so", std::env::consts::ARCH), format!("/usr/lib/lua/{lua}/{module}.so")];
    found.into_iter().map(PathBuf::from).find(|path| path.exists())
}
