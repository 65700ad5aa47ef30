//! The headers of Lua that C modules are compiled with, and what they say about which functions a version has.

use crate::{digest, lua_version::LuaVersion};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};
use vmoon_core::{Error, Result};
use vmoon_sys::atomic;

macro_rules! headers {
    ($version:literal) => {
        [
            ("lua.h", include_str!(concat!("../../headers/", $version, "/lua.h"))),
            ("luaconf.h", include_str!(concat!("../../headers/", $version, "/luaconf.h"))),
            ("lauxlib.h", include_str!(concat!("../../headers/", $version, "/lauxlib.h"))),
            ("lualib.h", include_str!(concat!("../../headers/", $version, "/lualib.h"))),
        ]
    };
}

/// The headers of a version: names and texts.
pub fn of(lua: LuaVersion) -> [(&'static str, &'static str); 4] {
    match lua {
        LuaVersion::V51 => headers!("5.1"),
        LuaVersion::V52 => headers!("5.2"),
        LuaVersion::V53 => headers!("5.3"),
        LuaVersion::V54 => headers!("5.4"),
        LuaVersion::V55 => headers!("5.5"),
    }
}

/// Puts the headers of a version below `dir`, unless they are there, and tells where.
///
/// # Errors
/// [`vmoon_core::Code::DiskFull`], [`vmoon_core::Code::FileFailed`].
pub(super) fn place(lua: LuaVersion, dir: &Path) -> Result<PathBuf> {
    let all = of(lua);
    let texts: Vec<u8> = all.iter().flat_map(|(_, text)| text.bytes()).collect();
    let place = dir.join(format!("headers-{lua}-{}", &digest::sha256(&texts)[..16]));
    let whole = all.iter().all(|(name, text)| fs::read(place.join(name)).is_ok_and(|found| found == text.as_bytes()));
    if !whole {
        match fs::create_dir(&place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(Error::io("make the directory of headers", error)),
            _ => {}
        }
        for (name, text) in all {
            atomic::write(&place.join(name), text.as_bytes())?;
        }
    }
    Ok(place)
}

/// The functions of the C interface that a version exports.
pub(super) fn functions(lua: LuaVersion) -> &'static BTreeSet<&'static str> {
    static ALL: [OnceLock<BTreeSet<&'static str>>; LuaVersion::ALL.len()] = [const { OnceLock::new() }; LuaVersion::ALL.len()];
    ALL[lua as usize]
        .get_or_init(|| of(lua).into_iter().filter(|(name, _)| *name != "luaconf.h").flat_map(|(_, text)| exported(text)).collect())
}

/// Declarations have their name in brackets, so that a macro of the same name does not hide it: `LUA_API void (lua_close) (lua_State *L);`. In 5.1 those of
/// the debug interface have not: `LUA_API int lua_getstack (lua_State *L, int level, lua_Debug *ar);`.
fn exported(text: &'static str) -> impl Iterator<Item = &'static str> {
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_name = move |name: &&str| name.starts_with("lua") && name.chars().all(part_of_name);
    let begins = ["LUA_API", "LUALIB_API", "LUAMOD_API"].into_iter().flat_map(|word| text.match_indices(word));
    begins.filter_map(move |(at, word)| {
        let (kind, rest) = text[at + word.len()..].split_once('(')?;
        if kind.contains([';', '#', '}']) {
            return None;
        }
        let bracketed = rest.split(')').next().filter(is_name);
        bracketed.or_else(|| kind.trim_end().rsplit(|c| !part_of_name(c)).next().filter(is_name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_functions() {
        for (name, versions) in [
            ("lua_pushstring", [true, true, true, true, true]),
            ("lua_objlen", [true, false, false, false, false]),
            ("luaL_register", [true, false, false, false, false]),
            ("luaL_setfuncs", [false, true, true, true, true]),
            ("lua_pcallk", [false, true, true, true, true]),
            ("lua_getctx", [false, true, false, false, false]),
            ("lua_isinteger", [false, false, true, true, true]),
            ("lua_newuserdata", [true, true, true, false, false]),
            ("lua_newuserdatauv", [false, false, false, true, true]),
            ("luaopen_utf8", [false, false, true, true, true]),
            ("lua_pushexternalstring", [false, false, false, false, true]),
            // Those without brackets in 5.1, because of which Debian's luaposix was refused.
            ("lua_getstack", [true, true, true, true, true]),
            ("lua_getlocal", [true, true, true, true, true]),
            ("lua_gethookmask", [true, true, true, true, true]),
        ] {
            assert_eq!(LuaVersion::ALL.map(|lua| functions(lua).contains(name)), versions, "{name}");
        }
    }
}
