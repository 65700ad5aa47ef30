//! Environments of packages, as Lua machines use them: where their trees are, which interpreters they suit, what a process is granted of
//! them, and where its Lua looks for modules. How trees are made and kept is not known here.

use crate::{
    flavour::Flavour,
    layout::Life,
    settings::{BUILTIN, Settings},
};
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};
use vmoon_confine::{Profile, Rules};
use vmoon_core::{Code, Error, Result, ability::UsedEnvironment, package::LUA_VERSIONS};
use vmoon_lua_wire::{program::Modules, sandbox::Grants};
use vmoon_sys::atomic;

/// Which environment a life uses.
const RECORD: &str = "environment.json";

/// An environment as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// The Lua version its packages are for: `5.1` to `5.5`.
    pub lua: String,
    /// The generation that is current.
    pub generation: u64,
    /// The tree of that generation, an absolute path without symbolic links: `share/lua/VERSION` and `lib/lua/VERSION` are in it.
    pub tree: PathBuf,
    /// The directory that has the trees of all its generations, likewise.
    pub generations: PathBuf,
}

/// Finds environments; whoever keeps them implements it.
pub trait Environments: fmt::Debug + Send + Sync {
    /// The directory that holds all environments of this user, an absolute path without symbolic links; made if it was missing.
    ///
    /// # Errors
    /// Those of the file system.
    fn root(&self) -> Result<PathBuf>;

    /// The environment of that name.
    ///
    /// # Errors
    /// [`Code::EnvironmentNotFound`], and those of the file system.
    fn find(&self, name: &str) -> Result<Environment>;
}

impl Environment {
    /// Where its modules are looked for. It stands in the place of what is installed on the computer, so that a program finds the same
    /// everywhere; `here` is whether modules beside the program, in its current directory, are looked for, too.
    ///
    /// # Errors
    /// A sentence: its path cannot be part of such a list.
    pub(crate) fn modules(&self, here: bool) -> Result<Modules, String> {
        let tree = self.tree.to_str().filter(|tree| !tree.contains([';', '?', '\n']));
        let tree =
            tree.ok_or_else(|| format!("Lua cannot look for modules in {}: the path has ; or ? or is no UTF-8", self.tree.display()))?;
        Modules::of_tree(tree, &self.lua, here)
    }

    /// Why an interpreter cannot use it; nothing if it can.
    pub(crate) fn unfit(&self, runtime: &str) -> Option<String> {
        match lua_of(runtime) {
            Some(lua) if lua == self.lua => None,
            Some(lua) => Some(format!(
                "the environment {} has packages for Lua {}, and {} is Lua {lua}; choose another runtime, or make an environment with --lua {lua}",
                self.name,
                self.lua,
                called(runtime),
            )),
            None => Some(format!(
                "which version of Lua {runtime} is cannot be told from its name; name lua{} or another interpreter by its usual name",
                self.lua
            )),
        }
    }

    fn used(&self) -> UsedEnvironment {
        UsedEnvironment { name: self.name.clone(), generation: self.generation, lua: self.lua.clone() }
    }
}

fn called(runtime: &str) -> &str {
    if runtime == BUILTIN { "the builtin runtime" } else { runtime }
}

/// The version of Lua whose packages an interpreter loads, by its name; LuaJIT loads those of 5.1.
pub(crate) fn lua_of(runtime: &str) -> Option<&'static str> {
    let real = std::path::Path::new(runtime).is_absolute().then(|| std::fs::canonicalize(runtime).ok()).flatten();
    let name = real.as_deref().and_then(|path| path.file_name()?.to_str()).unwrap_or(runtime);
    if let Some(flavour) = Flavour::of(runtime) {
        return Some(flavour.lua);
    }
    Some(match name {
        name if name.starts_with("luajit") => "5.1",
        name => LUA_VERSIONS.into_iter().find(|lua| name.strip_prefix("lua") == Some(lua))?,
    })
}

/// Adds what a process is granted so that it can use environments. `root` is where all of them are: what a machine may read from its
/// start is all it can ever be switched to. Environments hold packages and nothing of the user's.
pub(crate) fn grant(
    rules: &mut Rules,
    grants: &mut Grants,
    root: Option<PathBuf>,
    environment: Option<&Environment>,
    libraries: &[PathBuf],
) {
    match rules.profile {
        Profile::Trusted => {}
        Profile::Sealed => {
            if let Some(environment) = environment {
                // Named by the user, so granted with its C modules and what they are linked with.
                rules.execute.push(environment.generations.clone());
                rules.execute.extend(libraries.iter().cloned());
                rules.read.push(environment.generations.clone());
            }
        }
        Profile::Files | Profile::Net => {
            rules.execute.extend(root.clone());
            rules.read.extend(root.or_else(|| environment.map(|environment| environment.generations.clone())));
        }
    }
    if let Some(environment) = environment
        && !grants.is_trusted()
    {
        grants.read.push(environment.tree.to_string_lossy().into_owned());
        grants.load = true;
    }
}

/// What a life has used, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    used: Vec<UsedEnvironment>,
}

impl Life {
    /// The environments this life has used, the one it uses now last.
    pub(crate) fn environments(&self) -> Vec<UsedEnvironment> {
        atomic::read_json::<Record>(&self.dir.join(RECORD)).ok().flatten().unwrap_or_default().used
    }

    /// Says that it uses this one from now on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn uses(&self, environment: &Environment) -> Result<()> {
        let mut used = self.environments();
        used.retain(|one| *one != environment.used());
        used.push(environment.used());
        atomic::write_json(&self.dir.join(RECORD), &Record { used })
    }

    /// Takes over what another life has used, whose copy this one is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn inherits(&self, original: &Life) -> Result<()> {
        let used = original.environments();
        if used.is_empty() { Ok(()) } else { atomic::write_json(&self.dir.join(RECORD), &Record { used }) }
    }
}

/// The environment that a machine is to use, looked up.
///
/// # Errors
/// [`Code::EnvironmentNotFound`]; [`Code::SpecInvalid`] where it does not suit the interpreter.
pub(crate) fn wanted(settings: &Settings, all: Option<&dyn Environments>) -> Result<Option<Environment>> {
    let Some(name) = &settings.env else { return Ok(None) };
    let environment = all.ok_or_else(|| Error::new(Code::DriverUnsupported, "there are no environments here"))?.find(name)?;
    match environment.unfit(&settings.runtime) {
        Some(why) => Err(Error::new(Code::SpecInvalid, why)),
        None => Ok(Some(environment)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment {
            name: "e".into(),
            lua: "5.4".into(),
            generation: 3,
            tree: "/e/generations/3".into(),
            generations: "/e/generations".into(),
        }
    }

    #[test]
    fn interpreters_and_versions() {
        for (runtime, lua) in [
            ("builtin", Some(crate::flavour::OURS.lua)),
            ("builtin-luajit", Some("5.1")),
            ("builtin-5.5", Some("5.5")),
            ("lua5.1", Some("5.1")),
            ("luajit", Some("5.1")),
            ("lua5.5", Some("5.5")),
            ("lua5.6", None),
            ("lua", None),
            ("/no/such/lua5.3", None),
        ] {
            assert_eq!(lua_of(runtime), lua, "{runtime}");
        }
        assert_eq!(environment().unfit("builtin-5.4"), None);
        let why = environment().unfit("luajit").unwrap();
        assert!(why.contains("Lua 5.4") && why.contains("luajit is Lua 5.1"), "{why}");
        assert!(environment().unfit("/opt/strange").unwrap().contains("cannot be told"));
    }

    #[test]
    fn a_path_that_would_be_read_otherwise_is_refused() {
        let modules = environment().modules(true).unwrap();
        assert!(modules.path.starts_with("/e/generations/3/share/lua/5.4/?.lua;") && modules.path.ends_with(";./?/init.lua"));
        assert_eq!(environment().modules(false).unwrap().cpath, "/e/generations/3/lib/lua/5.4/?.so");
        for bad in ["/a;b", "/a?b", "/a\nb"] {
            assert!(Environment { tree: bad.into(), ..environment() }.modules(true).is_err());
        }
    }

    #[test]
    fn sealed_is_granted_the_one_environment_and_files_all_of_them() {
        let of = |profile, environment: Option<&Environment>| {
            let mut rules = Rules { profile, ..Rules::default() };
            let mut grants = Grants { profile: vmoon_lua_wire::sandbox::Profile::Files, ..Grants::default() };
            grant(&mut rules, &mut grants, Some("/e".into()), environment, &["/lib".into()]);
            (rules, grants)
        };
        let (rules, grants) = of(Profile::Sealed, Some(&environment()));
        assert_eq!((rules.read, rules.execute), (vec!["/e/generations".into()], vec!["/e/generations".into(), "/lib".into()]));
        assert!(grants.load && grants.read == ["/e/generations/3"]);
        let (rules, grants) = of(Profile::Sealed, None);
        assert!(rules.read.is_empty() && rules.execute.is_empty() && !grants.load);
        let (rules, grants) = of(Profile::Files, None);
        assert_eq!((rules.read, rules.execute), (vec![PathBuf::from("/e")], vec![PathBuf::from("/e")]));
        assert!(!grants.load);
    }
}
