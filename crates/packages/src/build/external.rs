//! Foreign libraries that a rock names, and the variables that rockspecs are written with.

use super::stage::wrong;
use crate::{lua_version::LuaVersion, rockspec::Rockspec};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use vmoon_core::{Result, name::escape};

/// Where headers and libraries are, before the folders of an architecture.
const PREFIXES: [&str; 2] = ["/usr/local", "/usr"];

/// The variables of one build.
#[derive(Clone, Debug, Default)]
pub(super) struct External {
    pub(super) variables: BTreeMap<String, String>,
}

impl External {
    /// Finds the libraries that a rock names. Folders that the compiler looks at anyway are found as well: rockspecs name them all the same.
    pub(super) fn find(spec: &Rockspec, lua: LuaVersion, headers: &Path, programs: &[PathBuf]) -> Result<Self> {
        let mut variables: BTreeMap<String, String> = [
            ("LUA_INCDIR", headers.to_string_lossy().as_ref()),
            ("LUA_VERSION", lua.as_str()),
            ("CC", "cc"),
            ("CFLAGS", "-O2 -fPIC"),
            ("LIBFLAG", "-shared"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let mut missing = Vec::new();
        for (name, wanted) in &spec.external_dependencies {
            let header = wanted.header.as_deref().map(|header| include(header).ok_or_else(|| format!("the header {}", escape(header))));
            let library =
                wanted.library.as_deref().map(|library| folder_of(library).ok_or_else(|| format!("the library {}", escape(library))));
            let program = wanted
                .program
                .as_deref()
                .map(|program| crate::fetch::program_in(programs, program).ok_or_else(|| format!("the program {}", escape(program))));
            for (found, end) in [(header, "INCDIR"), (library, "LIBDIR"), (program, "BINDIR")] {
                match found {
                    Some(Ok(path)) => {
                        let folder = if end == "BINDIR" { path.parent().unwrap_or(&path).to_owned() } else { path };
                        variables.insert(format!("{name}_{end}"), folder.to_string_lossy().into_owned());
                    }
                    Some(Err(what)) => missing.push(format!("{what} ({})", escape(name))),
                    None => {}
                }
            }
            // What a rock does not name a file of is where such things are.
            for (end, usual) in [("DIR", "/usr"), ("INCDIR", "/usr/include"), ("LIBDIR", "/usr/lib"), ("BINDIR", "/usr/bin")] {
                variables.entry(format!("{name}_{end}")).or_insert_with(|| usual.into());
            }
        }
        if missing.is_empty() {
            return Ok(Self { variables });
        }
        Err(wrong(format!("this computer lacks what {} is built with: {}", spec.package, missing.join(", ")))
            .hint("install the development packages of these libraries (Debian: lib…-dev)"))
    }

    /// The same for another computer, of which only the usual places are known: its compiler says what is missing.
    pub(super) fn elsewhere(spec: &Rockspec, lua: LuaVersion, headers: &Path) -> Self {
        let mut variables: BTreeMap<String, String> = [("LUA_INCDIR", headers.to_string_lossy().as_ref()), ("LUA_VERSION", lua.as_str())]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        for name in spec.external_dependencies.keys() {
            for (end, usual) in [("DIR", "/usr"), ("INCDIR", "/usr/include"), ("LIBDIR", "/usr/lib"), ("BINDIR", "/usr/bin")] {
                variables.insert(format!("{name}_{end}"), usual.into());
            }
        }
        Self { variables }
    }

    /// Replaces `$(NAME)`.
    pub(super) fn fill(&self, text: &str) -> Result<String> {
        let (mut filled, mut rest) = (String::new(), text);
        while let Some((before, behind)) = rest.split_once("$(") {
            let Some((name, after)) = behind.split_once(')') else { break };
            let value = self.variables.get(name);
            let value = value.ok_or_else(|| wrong(format!("the rockspec uses the variable {}, which is not known", escape(name))))?;
            filled.push_str(before);
            filled.push_str(value);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// The folder that has a header.
fn include(header: &str) -> Option<PathBuf> {
    let places = PREFIXES.iter().map(|prefix| Path::new(prefix).join("include")).flat_map(|dir| {
        let of_architecture = architectures(&dir);
        std::iter::once(dir).chain(of_architecture)
    });
    // A header may be a pattern in rockspecs that fit several versions of a library; those fail like headers that are missing.
    places.into_iter().find(|dir| !header.contains("..") && dir.join(header).is_file())
}

/// The folder that has a library: `ssl` is `libssl.so` or `libssl.a`.
fn folder_of(library: &str) -> Option<PathBuf> {
    let names = if library.contains(".so") || library.ends_with(".a") {
        vec![library.to_owned()]
    } else {
        vec![format!("lib{library}.so"), format!("lib{library}.a")]
    };
    let places = PREFIXES.iter().flat_map(|prefix| ["lib", "lib64"].map(|lib| Path::new(prefix).join(lib))).flat_map(|dir| {
        let of_architecture = architectures(&dir);
        std::iter::once(dir).chain(of_architecture)
    });
    places.into_iter().find(|dir| !library.contains('/') && names.iter().any(|name| dir.join(name).exists()))
}

/// `/usr/lib/x86_64-linux-gnu` and the like.
fn architectures(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("-linux-")))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_and_unknown_ones_named() {
        let mut external = External::default();
        external.variables.insert("A".into(), "/x y".into());
        assert_eq!(external.fill("$(A)/b-$(A)").unwrap(), "/x y/b-/x y");
        assert_eq!(external.fill("a$(b").unwrap(), "a$(b");
        assert!(external.fill("$(B)").unwrap_err().message().contains("variable B"));
    }
}
