//! The rocks that the profiles name, as Debian has them: what its packages installed for a Lua version; where they have nothing for that one, the rock is
//! built from Debian's source, or there is none. The tests of the command share this file, so it needs the standard library alone.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

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

/// The versions of Lua that there are packages for.
const VERSIONS: [&str; 4] = ["5.1", "5.2", "5.3", "5.4"];

/// What is refused: the profile, the Lua version, the rock. Its authors wrote `lua < 5.4` into the rockspec of the version that Debian has, and its source
/// knows nothing of 5.4; so there is nothing to build. Everything else can be had for every version.
pub(crate) const REFUSED: &[(&str, &str, &str)] = &[("full", "5.4", "luaposix")];

/// How a rock of Debian gets its files.
pub(crate) enum How {
    /// They are ready: module and file of what is Lua and of what are libraries.
    Ready { scripts: BTreeMap<String, String>, libraries: BTreeMap<String, String> },
    /// `make` builds them, by the makefile of this name.
    Make(&'static str),
}

/// One rock.
pub(crate) struct Deb {
    /// The Debian package.
    pub(crate) package: &'static str,
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// As in a rockspec.
    pub(crate) dependencies: Vec<String>,
    /// Whether it is Lua alone.
    pub(crate) pure: bool,
    pub(crate) how: How,
    /// Its files, by path.
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

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

/// The files of lua-curl 0.3.0 as its authors published it, which Debian built for 5.1 and 5.2 only; with a makefile for rocks, and what later versions of
/// Lua lack of the names that it uses.
pub(crate) fn curl_source() -> Vec<(String, Vec<u8>)> {
    let exe = std::env::current_exe().unwrap();
    let target =
        exe.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file()).expect("this program is in a target directory of cargo");
    let archive = target.join("debian/lua-curl-source/lua-curl_0.3.0.orig.tar.gz");
    assert!(archive.is_file(), "{} is missing; cargo xtask install brings it (the source of Debian's lua-curl)", archive.display());
    let unpacked = tempfile::tempdir().unwrap();
    let status = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(unpacked.path()).status();
    assert!(status.expect("tar is needed: apt install tar").success());
    let mut files: Vec<(String, Vec<u8>)> = [("rocks.mk", include_str!("curl/rocks.mk")), ("port.h", include_str!("curl/port.h"))]
        .map(|(name, text)| (name.into(), text.into()))
        .into();
    for name in ["lua-curl.c", "lua-curl.h", "luabind.c", "luabind.h", "version.h"] {
        files.push((name.into(), read(&unpacked.path().join("lua-curl-0.3.0").join(name))));
    }
    files
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All rocks that the profiles name and that are not ours, for a Lua version.
pub(crate) fn rocks(lua: &str) -> Vec<Deb> {
    let at = |version: &str| VERSIONS.iter().position(|one| *one == version).unwrap();
    PACKAGES
        .iter()
        .map(|&(package, name, version, needs, pure)| {
            // What there is for this version; else what there is for the nearest older or newer one, which says so if it is not Lua alone.
            let mut versions = VERSIONS;
            versions.sort_by_key(|other| at(other).abs_diff(at(lua)));
            let found = versions.into_iter().map(|version| (version, files_of(package, version))).find(|(_, files)| !files.is_empty());
            let (found, files) = found.unwrap_or_else(|| panic!("{package} has no modules"));
            // Lua 5.2 brings it itself, and from 5.3 on nothing needs it.
            let brought = |need: &&&str| **need != "bit32" || at(lua) < at("5.3");
            let dependencies = |lua: String| [lua].into_iter().chain(needs.iter().filter(brought).map(|need| (*need).to_owned())).collect();
            if package == "lua-curl" && found != lua {
                let (how, files) = (How::Make("rocks.mk"), curl_source());
                return Deb { package, name, version, dependencies: dependencies("lua >= 5.1".into()), pure, how, files };
            }
            let (mut scripts, mut libraries, mut contents) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
            let paths: Vec<String> = files.iter().map(|(path, ..)| path.clone()).collect();
            for (path, content, library) in files {
                let stem = path.rsplit_once('.').map_or(path.as_str(), |(stem, _)| stem);
                // Where there is `x.lua` too, `x/init.lua` is asked for by its whole name.
                let short = stem.strip_suffix("/init").filter(|short| !paths.contains(&format!("{short}.lua")));
                let module = short.unwrap_or(stem).replace('/', ".");
                if library { &mut libraries } else { &mut scripts }.insert(module, path.clone());
                contents.push((path, content));
            }
            let needed = match (package, pure) {
                (_, true) => "lua >= 5.1".to_owned(),
                ("lua-posix", _) if at(lua) > at("5.3") => "lua >= 5.1, < 5.4".to_owned(),
                _ => format!("lua ~> {found}"),
            };
            Deb {
                package,
                name,
                version,
                dependencies: dependencies(needed),
                pure,
                how: How::Ready { scripts, libraries },
                files: contents,
            }
        })
        .collect()
}
