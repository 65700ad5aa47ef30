//! Rocks made of what Debian's packages installed: LuaSocket, LPeg, LuaFileSystem, cjson and zlib, ready for one Lua version.

use super::{Mirror, Rock};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A Debian package and the rock it becomes.
struct Source {
    package: &'static str,
    rock: &'static str,
    version: &'static str,
    /// Files below `lua/5.x` of the shared folder.
    lua: &'static [&'static str],
    /// Files below `lua/5.x` of the folder for libraries.
    lib: &'static [&'static str],
}

const SOURCES: &[Source] = &[
    Source {
        package: "lua-socket",
        rock: "luasocket",
        version: "3.1.0-1",
        lua: &[
            "socket.lua",
            "mime.lua",
            "ltn12.lua",
            "socket/ftp.lua",
            "socket/headers.lua",
            "socket/http.lua",
            "socket/smtp.lua",
            "socket/tp.lua",
            "socket/url.lua",
        ],
        lib: &["socket/core.so", "socket/serial.so", "socket/unix.so", "mime/core.so"],
    },
    Source { package: "lua-lpeg", rock: "lpeg", version: "1.0.2-1", lua: &["re.lua"], lib: &["lpeg.so"] },
    Source { package: "lua-filesystem", rock: "luafilesystem", version: "1.8.0-1", lua: &[], lib: &["lfs.so"] },
    Source { package: "lua-cjson", rock: "lua-cjson", version: "2.1.0-1", lua: &[], lib: &["cjson.so"] },
    Source { package: "lua-zlib", rock: "lua-zlib", version: "1.2-2", lua: &[], lib: &["zlib.so"] },
];

/// The rocks for this Lua version, for this machine. They need the Debian packages lua-socket, lua-lpeg, lua-filesystem, lua-cjson and lua-zlib.
pub(crate) fn rocks(lua: &str) -> Vec<Rock> {
    let machine = format!("linux-{}", std::env::consts::ARCH);
    let libraries = PathBuf::from(format!("/usr/lib/{}-linux-gnu/lua/{lua}", std::env::consts::ARCH));
    let shared = PathBuf::from(format!("/usr/share/lua/{lua}"));
    let rock = |source: &Source| {
        let mut files = Vec::new();
        let (mut lua_files, mut lib_files) = (serde_json::Map::new(), serde_json::Map::new());
        for (folder, list, install) in [(&shared, source.lua, &mut lua_files), (&libraries, source.lib, &mut lib_files)] {
            for path in list {
                let module = path.rsplit_once('.').map_or(*path, |(stem, _)| stem).replace('/', ".");
                install.insert(module, json!(path));
                files.push(((*path).to_owned(), content(folder, path, source.package)));
            }
        }
        Rock {
            files,
            build: json!({ "type": "none", "install": { "lua": lua_files, "lib": lib_files } }),
            dependencies: vec![format!("lua ~> {lua}")],
            summary: format!("{} of Debian", source.package),
            ..Rock::pure(source.rock, source.version, &[]).only(&[&machine])
        }
    };
    SOURCES.iter().map(rock).collect()
}

fn content(folder: &Path, path: &str, package: &str) -> Vec<u8> {
    let file = folder.join(path);
    fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}; cargo xtask install brings it (Debian package {package})", file.display()))
}

impl Mirror {
    /// With Debian's modules for this Lua version.
    pub(crate) fn with_debian(mut self, lua: &str) -> Self {
        rocks(lua).iter().for_each(|rock| self.add(rock));
        self
    }
}
