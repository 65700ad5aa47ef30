//! Rocks of the kinds `make`, `cmake` and `command`, and others that `luarocks` knows: that program builds them, one at a time, in a tree of its own,
//! without dependencies and without a network.

use super::{
    Transcript,
    builtin::Compile,
    confine::{self, Job},
    stage::{Stage, wrong},
};
use crate::{cache::walk, fetch, rockspec::Rockspec};
use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};
use vmoon_core::{Error, Result, name::escape};
use vmoon_sys::{run::End, stop::Stop};

/// How long a build may take.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// Builds in the source's directory and takes over what was put into the program's tree.
pub(super) fn build(spec: &Rockspec, text: &[u8], stage: &mut Stage<'_>, compile: &Compile<'_>, transcript: &Transcript) -> Result<()> {
    let program = fetch::program_in(compile.programs, "luarocks").ok_or_else(|| {
        wrong(format!("{} is built by \"{}\", which takes the program luarocks", spec.package, escape(&spec.build.kind)))
            .hint("install it (Debian: apt-get install luarocks make), or install a version of the rock that is ready")
    })?;
    let work = compile.work.path();
    let tree = work.join("tree");
    let rockspec = format!("{}-{}.rockspec", spec.package, spec.version);
    let here = compile.source.join(&rockspec);
    if fs::symlink_metadata(&here).is_ok() {
        fs::remove_file(&here).map_err(|error| Error::io("write the rockspec", error))?;
    }
    vmoon_sys::atomic::write(&here, text)?;
    let mut args: Vec<OsString> = ["--lua-version", compile.lua.as_str(), "--tree"].map(OsString::from).into();
    args.push(tree.clone().into());
    args.extend(["make", "--deps-mode=none", "--no-manifest"].map(OsString::from));
    args.push(rockspec.into());
    for (name, value) in &compile.external.variables {
        if name == "LUA_INCDIR"
            || spec.external_dependencies.keys().any(|known| name.strip_prefix(known.as_str()).is_some_and(|rest| rest.starts_with('_')))
        {
            args.push([name, "=", value].concat().into());
        }
    }
    let init = work.join("init.lua");
    vmoon_sys::atomic::write(&init, include_bytes!("luarocks.lua"))?;
    let mut env = confine::environment(compile.work);
    // Interpreters read this file before anything else.
    env.push(("LUA_INIT".into(), [OsString::from("@").as_os_str(), init.as_os_str()].into_iter().collect()));
    transcript.line(&format!("luarocks {}", args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")));
    let job = Job {
        exe: &program,
        args,
        env,
        dir: compile.source,
        write: work,
        read: ["/etc/luarocks"]
            .iter()
            .map(Path::new)
            .filter(|path| path.exists())
            .map(Path::to_owned)
            .chain([compile.headers.to_owned()])
            .collect(),
        limit: LIMIT,
    };
    let ran = compile.confine.run(&job, compile.stop)?;
    let said = ran.out.text();
    transcript.text(&said);
    let what = match ran.end {
        End::Code(0) => return collect(spec, &tree, stage, compile),
        End::Code(status) => format!("luarocks ended with status {status}"),
        End::Signal(signal) => format!("luarocks was ended by signal {signal}"),
        End::TooLong => "luarocks took too long".into(),
        End::Stopped => return Err(Stop::error()),
    };
    // What went wrong stands before the program's own last words.
    let bad = |line: &&str| {
        let lower = line.to_ascii_lowercase();
        ["error", "fatal", "not found", "***"].iter().any(|word| lower.contains(word)) && !line.starts_with("Error: Build error: Failed")
    };
    let line = said.lines().find(bad).or_else(|| said.lines().rfind(|line| !line.trim().is_empty()));
    let reason: String = escape(line.unwrap_or_default()).chars().take(300).collect();
    Err(wrong(format!("{} could not be built: {what}: {reason}", spec.package))
        .hint("the transcript of the build says more; builders have no network"))
}

/// Modules, and what the program keeps of the rock itself: commands without wrappers, documents, configuration.
fn collect(spec: &Rockspec, tree: &Path, stage: &mut Stage<'_>, compile: &Compile<'_>) -> Result<()> {
    let lua = compile.lua.as_str();
    let own = format!("lib/luarocks/rocks-{lua}/{}/{}/", spec.package, spec.version);
    let mut files = Vec::new();
    walk(tree, &mut |path, meta| files.push((path.to_owned(), meta.is_file(), meta.permissions().mode() & 0o100 != 0)))?;
    let mut any = false;
    for (path, is_file, executable) in files {
        let inside = path.strip_prefix(tree).ok().and_then(Path::to_str);
        let inside = inside.ok_or_else(|| wrong(format!("the build made {}, which is not UTF-8", escape(&path.to_string_lossy()))))?;
        // A link could lead anywhere.
        if !is_file {
            return Err(wrong(format!("the build made {}, which is no file", escape(inside))));
        }
        if let Some(rest) = inside.strip_prefix(&own) {
            let generated = rest == "rock_manifest" || rest.ends_with(".rockspec");
            match rest.strip_prefix("bin/") {
                Some(name) => stage.command(name, &path, spec.deploy.wrap_bin_scripts)?,
                None if generated => continue,
                None => stage.put_file(&stage.beside(rest), &path, executable)?,
            }
            any = true;
        } else if inside.starts_with("share/lua/") || inside.starts_with("lib/lua/") {
            stage.put_file(inside, &path, executable)?;
            any = true;
        }
    }
    if any { Ok(()) } else { Err(wrong(format!("luarocks built {} and nothing came of it", spec.package))) }
}
