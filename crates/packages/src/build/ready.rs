//! Rocks that are ready: their files are put where they belong, after a look at whether their C modules are for this Lua.

use super::{
    elf,
    stage::{Stage, wrong},
};
use crate::{cache::walk, lua_version::LuaVersion, rockspec::Rockspec};
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};
use vmoon_core::{Error, Result, name::escape};

/// Takes over an unpacked rock.
pub(super) fn install(spec: &Rockspec, rock: &Path, lua: LuaVersion, stage: &mut Stage<'_>) -> Result<()> {
    let mut files = Vec::new();
    walk(rock, &mut |path, meta| files.push((path.to_owned(), meta.is_file(), meta.permissions().mode() & 0o100 != 0)))?;
    let mut unfit = Vec::new();
    for (path, is_file, executable) in files {
        let inside = path.strip_prefix(rock).ok().and_then(Path::to_str);
        let inside = inside.ok_or_else(|| wrong(format!("the rock holds {}, which is not UTF-8", escape(&path.to_string_lossy()))))?;
        if !is_file {
            return Err(wrong(format!("the rock holds {}, which is no file", escape(inside))));
        }
        match inside.split_once('/') {
            Some(("lua", rest)) => stage.library(false, rest, &path)?,
            Some(("lib", rest)) => {
                if rest.ends_with(".so") {
                    let bytes = fs::read(&path).map_err(|error| Error::io(format_args!("read {}", path.display()), error))?;
                    if let Err(why) = elf::fits(&bytes, lua) {
                        unfit.push(format!("{} {why}", escape(rest)));
                    }
                }
                stage.library(true, rest, &path)?;
            }
            Some(("bin", rest)) => stage.command(rest, &path, spec.deploy.wrap_bin_scripts)?,
            None if inside == "rock_manifest" || inside.ends_with(".rockspec") => {}
            _ => stage.put_file(&stage.beside(inside), &path, executable)?,
        }
    }
    if unfit.is_empty() {
        return Ok(());
    }
    Err(wrong(format!("{} {} is not for Lua {lua} here: {}", spec.package, spec.version, unfit.join("; ")))
        .hint("take a version that is built from source, or an environment of another Lua version"))
}
