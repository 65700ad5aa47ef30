//! Rocks of the kind `builtin`: Lua files are copied, C modules compiled. What is asked of the compiler is decided here and nowhere else.

use super::{
    Transcript,
    confine::{self, Confine, Job},
    external::External,
    stage::{Stage, inside, wrong},
};
use crate::{
    cache::Work,
    fetch,
    lua_version::LuaVersion,
    rockspec::{Module, NativeModule, Rockspec},
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use vmoon_core::{Error, Result, name::escape};
use vmoon_sys::{run::End, stop::Stop};

/// How long one module may take to compile.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// What compiling needs to know besides the rockspec.
pub(super) struct Compile<'a> {
    pub(super) confine: &'a dyn Confine,
    pub(super) work: &'a Work,
    pub(super) source: &'a Path,
    pub(super) headers: &'a Path,
    pub(super) lua: LuaVersion,
    pub(super) external: &'a External,
    pub(super) jobs: usize,
    pub(super) programs: &'a [PathBuf],
    pub(super) stop: &'a Stop,
}

/// Puts all modules of a rock into its tree. Tells whether something was compiled.
pub(super) fn modules(spec: &Rockspec, stage: &mut Stage<'_>, compile: &Compile<'_>, transcript: &Transcript) -> Result<bool> {
    let found;
    let modules = if spec.build.autodetect && spec.build.modules.is_empty() {
        found = autodetect(compile.source)?;
        &found
    } else {
        &spec.build.modules
    };
    let mut native = Vec::new();
    for (name, module) in modules {
        match module {
            Module::Lua(file) => stage.lua_module(name, &inside(compile.source, file)?)?,
            Module::Native(module) => native.push((name.as_str(), module)),
        }
    }
    if native.is_empty() {
        return Ok(false);
    }
    for (name, object) in compile.all(&native, transcript)? {
        stage.c_module(&name, &object)?;
    }
    Ok(true)
}

impl Compile<'_> {
    /// Compiles modules, several at once, and gives back their names and files; all that fail are named.
    fn all(&self, native: &[(&str, &NativeModule)], transcript: &Transcript) -> Result<Vec<(String, PathBuf)>> {
        let compiler = ["cc", "gcc", "clang"].iter().find_map(|name| fetch::program_in(self.programs, name)).ok_or_else(|| {
            wrong("there is no C compiler on this computer")
                .hint("install one (Debian: apt-get install gcc libc6-dev), or install a version of the rock that is ready")
        })?;
        let next = AtomicUsize::new(0);
        let results = Mutex::new(BTreeMap::new());
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some((name, module)) = native.get(at) else { return };
                let object = self.work.path().join(format!("module-{at}.so"));
                let result = self.one(&compiler, name, module, &object, transcript).map(|()| ((*name).to_owned(), object));
                results.lock().unwrap_or_else(PoisonError::into_inner).insert(at, result);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.jobs.clamp(1, 16).min(native.len()) {
                scope.spawn(work);
            }
            work();
        });
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (good, bad): (Vec<_>, Vec<_>) = results.into_values().partition(Result::is_ok);
        let mut bad = bad.into_iter().filter_map(Result::err);
        match bad.next() {
            None => Ok(good.into_iter().filter_map(Result::ok).collect()),
            Some(first) => match bad.next() {
                None => Err(first),
                Some(second) => {
                    let others = [second].into_iter().chain(bad).map(|error| error.message().to_owned());
                    let all: Vec<String> = std::iter::once(first.message().to_owned()).chain(others).collect();
                    Err(Error::new(first.code(), all.join("; ")))
                }
            },
        }
    }

    fn one(&self, compiler: &Path, name: &str, module: &NativeModule, object: &Path, transcript: &Transcript) -> Result<()> {
        for source in &module.sources {
            inside(self.source, source)?;
        }
        let args = self.arguments(module, object)?;
        transcript.line(&format!(
            "{name}: {} {}",
            compiler.display(),
            args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
        ));
        let job = Job {
            exe: compiler,
            args,
            env: confine::environment(self.work),
            dir: self.source,
            write: self.work.path(),
            read: vec![self.headers.to_owned()],
            limit: LIMIT,
        };
        let ran = self.confine.run(&job, self.stop)?;
        let said = ran.out.text();
        transcript.text(&said);
        let what = match ran.end {
            End::Code(0) if object.is_file() => return Ok(()),
            End::Code(status) => format!("the compiler ended with status {status}"),
            End::Signal(signal) => format!("the compiler was ended by signal {signal}"),
            End::TooLong => "the compiler took too long".into(),
            End::Stopped => return Err(Stop::error()),
        };
        let first = said.lines().find(|line| line.contains("error")).or_else(|| said.lines().last()).unwrap_or_default();
        let reason: String = escape(first).chars().take(300).collect();
        let hint = match reason.contains("No such file") || reason.contains("cannot find -l") {
            true => "install the development files of the library that it names, then try again",
            false => "the transcript of the build says more",
        };
        Err(wrong(format!("the module {} could not be compiled: {what}: {reason}", escape(name))).hint(hint))
    }

    /// The arguments for one module.
    fn arguments(&self, module: &NativeModule, object: &Path) -> Result<Vec<OsString>> {
        let mut args: Vec<OsString> = vec!["-o".into(), object.into()];
        args.extend(flags(module, self.headers, self.external)?);
        Ok(args)
    }
}

/// The arguments for one module but where it goes. Whatever the rockspec says is behind a letter of ours, so nothing of it is an option by itself.
pub(super) fn flags(module: &NativeModule, headers: &Path, external: &External) -> Result<Vec<OsString>> {
    let mut args: Vec<OsString> = ["-O2", "-fPIC", "-shared"].map(OsString::from).into();
    let glued = |letter: &str, text: String| OsString::from([letter, &text].concat());
    // A folder that is not named is left out.
    let folder = |text: &str| external.fill(text).map(|filled| Some(filled).filter(|filled| !filled.is_empty()));
    for define in &module.defines {
        args.push(glued("-D", external.fill(define)?));
    }
    args.push([OsString::from("-I").as_os_str(), headers.as_os_str()].into_iter().collect());
    for dir in &module.incdirs {
        args.extend(folder(dir)?.map(|dir| glued("-I", dir)));
    }
    for source in &module.sources {
        // A file may be called -x.c.
        args.push(glued("./", source.trim_start_matches("./").to_owned()));
    }
    for dir in &module.libdirs {
        args.extend(folder(dir)?.map(|dir| glued("-L", dir)));
    }
    for library in &module.libraries {
        args.push(glued("-l", external.fill(library)?));
    }
    Ok(args)
}

/// The modules of a rock that are compiled, by their names: those that its rockspec names, or those that are found.
pub(super) fn native(spec: &Rockspec, source: &Path) -> Result<Vec<(String, NativeModule)>> {
    let found;
    let modules = if spec.build.autodetect && spec.build.modules.is_empty() {
        found = autodetect(source)?;
        &found
    } else {
        &spec.build.modules
    };
    let only = |(name, module): (&String, &Module)| match module {
        Module::Lua(_) => None,
        Module::Native(module) => Some((name.clone(), module.clone())),
    };
    Ok(modules.iter().filter_map(only).collect())
}

/// The modules of a rockspec that names none: what is in `src` or `lua`, or else in the top folder. Tests and the like there are none.
fn autodetect(source: &Path) -> Result<BTreeMap<String, Module>> {
    let top = ["src", "lua"].into_iter().find(|name| source.join(name).is_dir());
    let root = top.map_or_else(|| source.to_owned(), |name| source.join(name));
    let mut paths = Vec::new();
    crate::cache::walk(&root, &mut |path, meta| {
        if meta.is_file() {
            paths.push(path.to_owned());
        }
    })?;
    let mut modules = BTreeMap::new();
    for path in paths {
        let Some(inner) = path.strip_prefix(&root).ok().and_then(Path::to_str) else { continue };
        let first = inner.split('/').next().unwrap_or_default();
        let ignored = ["spec", "test", "tests", ".luarocks", "lua_modules", "test.lua", "tests.lua", "config.lua"];
        if top.is_none() && (ignored.contains(&first) || first.starts_with('.')) {
            continue;
        }
        let file = top.map_or_else(|| inner.to_owned(), |name| format!("{name}/{inner}"));
        if let Some(stem) = inner.strip_suffix(".lua") {
            let name = stem.strip_suffix("/init").unwrap_or(stem).replace('/', ".");
            modules.insert(name, Module::Lua(file));
        } else if inner.ends_with(".c") {
            let text = fs::read(&path).map_err(|error| Error::io(format_args!("read {}", path.display()), error))?;
            if let Some(name) = opened(&String::from_utf8_lossy(&text)) {
                modules.insert(name, Module::Native(NativeModule { sources: vec![file], ..NativeModule::default() }));
            }
        }
    }
    Ok(modules)
}

/// The module that a C file opens: `int luaopen_a_b (lua_State *L)` is `a.b`.
fn opened(text: &str) -> Option<String> {
    let at = text.match_indices("luaopen_").find(|(at, _)| {
        let before = text[..*at].trim_end();
        before.ends_with("int") || before.ends_with("LUALIB_API") || before.ends_with("LUAMOD_API")
    })?;
    let rest = &text[at.0 + "luaopen_".len()..];
    let name = &rest[..rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?];
    (!name.is_empty() && !name.starts_with('_') && !name.ends_with('_') && !name.contains("__")).then(|| name.replace('_', "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_c_file_names_its_module() {
        assert_eq!(opened("static int x;\nint luaopen_a_b (lua_State *L) {"), Some("a.b".into()));
        assert_eq!(opened("LUALIB_API int luaopen_lfs(lua_State *L)"), Some("lfs".into()));
        assert_eq!(opened("luaL_requiref(L, \"x\", luaopen_x, 1);"), None);
    }
}
