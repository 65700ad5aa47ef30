//! Everything that the servers of an environment have, in the order they are asked.
//!
//! A rock is taken from the first server that has it in any usable form: a rock of a private server is never replaced by one of the same name that
//! somebody put on a public server. What later servers have of it is remembered for explanations.

use crate::{
    lock::Arch,
    lua_version::LuaVersion,
    manifest::Manifest,
    name::RockName,
    servers::{Server, ServerId},
    version::Version,
};
use std::collections::BTreeMap;
use vmoon_core::{Code, Error, error::ErrorRecord};

/// One file of a server: a rock in one version and form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: RockName,
    /// Its version.
    pub version: Version,
    /// Its form.
    pub arch: Arch,
    /// Who has it.
    pub server: ServerId,
}

impl Entry {
    /// The name of its file on the server.
    pub fn file_name(&self) -> String {
        self.arch.file_name(&self.name, &self.version)
    }
}

/// One version of a rock that could be installed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: RockName,
    /// Its version.
    pub version: Version,
    /// Who has it.
    pub server: ServerId,
    /// The forms that can be used here, best first: ready for this machine or all, then with source, then the rockspec alone.
    pub archs: Vec<Arch>,
}

impl Candidate {
    /// The best form.
    pub fn best(&self) -> Entry {
        let arch = self.archs.first().cloned().unwrap_or(Arch::Rockspec);
        Entry { name: self.name.clone(), version: self.version.clone(), arch, server: self.server }
    }

    /// Where its rockspec is read most cheaply: by itself, or inside the best form.
    pub fn for_rockspec(&self) -> Entry {
        let arch = self.archs.iter().find(|arch| **arch == Arch::Rockspec).or(self.archs.first()).cloned().unwrap_or(Arch::Rockspec);
        Entry { arch, ..self.best() }
    }
}

/// A server that could not be asked, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Its name.
    pub server: String,
    /// Its address.
    pub url: String,
    /// Why.
    pub error: ErrorRecord,
}

impl Failure {
    /// The error of a question that only this server could have decided: its code, and what to do about it.
    pub fn error(&self, message: String) -> Error {
        let code = self.error.code;
        let hint = match code {
            Code::PackageOffline => "do it without --offline (and VMOON_OFFLINE), or see where packages come from: vmoon pkg server list",
            _ => "try again when it answers, or see where packages come from: vmoon pkg server list",
        };
        Error::new(code, message).hint(hint)
    }

    /// What happened when this server was asked.
    pub fn new(server: &Server, error: &Error) -> Self {
        Self { server: server.name.clone(), url: server.url.clone(), error: error.to_record() }
    }
}

/// What the servers have.
#[derive(Clone, Debug)]
pub struct Index {
    /// The servers, in the order they are asked.
    pub servers: Vec<Server>,
    /// Those that could not be asked; the rest counts nevertheless.
    pub failures: Vec<Failure>,
    manifests: Vec<(ServerId, Manifest)>,
    lua: LuaVersion,
    here: Arch,
}

impl Index {
    /// An index of these servers for this Lua, whose manifests were read or not.
    pub fn new(lua: LuaVersion, servers: Vec<(Server, Result<Manifest, Error>)>) -> Self {
        let mut index = Self { servers: Vec::new(), failures: Vec::new(), manifests: Vec::new(), lua, here: Arch::here() };
        for (i, (server, manifest)) in servers.into_iter().enumerate() {
            match manifest {
                Ok(manifest) => index.manifests.push((ServerId(u16::try_from(i).unwrap_or(u16::MAX)), manifest)),
                Err(error) => index.failures.push(Failure::new(&server, &error)),
            }
            index.servers.push(server);
        }
        index
    }

    /// The server that could not be asked and whose answer would decide what there is of a rock: nobody who is asked before it has the rock.
    pub fn unheard(&self, name: &RockName) -> Option<&Failure> {
        let from = self.candidates(name).first().map_or(usize::MAX, |candidate| usize::from(candidate.server.0));
        let before = self.servers.iter().take(from);
        before.filter_map(|server| self.failures.iter().find(|failure| failure.server == server.name)).next()
    }

    /// The servers that could not be asked, one sentence each.
    pub fn unasked(&self) -> Vec<String> {
        self.failures.iter().map(|failure| format!("the server {} was not asked: {}", failure.server, failure.error.message)).collect()
    }

    /// For which Lua it is.
    pub fn lua(&self) -> LuaVersion {
        self.lua
    }

    /// The server of an entry.
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(usize::from(id.0))
    }

    /// The address of an entry's file.
    pub fn url(&self, entry: &Entry) -> String {
        self.server(entry.server).map(|server| server.file(&entry.file_name())).unwrap_or_default()
    }

    /// The versions that can be installed here, oldest first, all of the first server that has any.
    pub fn candidates(&self, name: &RockName) -> Vec<Candidate> {
        self.on_servers(name).next().unwrap_or_default()
    }

    /// The versions that later servers have besides: they are not taken, but an explanation may name them.
    pub fn passed_over(&self, name: &RockName) -> Vec<Candidate> {
        self.on_servers(name).skip(1).flatten().collect()
    }

    fn on_servers<'a>(&'a self, name: &'a RockName) -> impl Iterator<Item = Vec<Candidate>> + 'a {
        self.manifests.iter().filter_map(move |(server, manifest)| {
            let listed = manifest.rocks.get(name)?.iter();
            let all: Vec<Candidate> = listed
                .filter_map(|listed| {
                    let archs = self.usable(&listed.archs);
                    let candidate = Candidate { name: name.clone(), version: listed.version.clone(), server: *server, archs };
                    (!candidate.archs.is_empty()).then_some(candidate)
                })
                .collect();
            (!all.is_empty()).then_some(all)
        })
    }

    /// Whether any server lists this rock, even if no form of it can be used here.
    pub fn lists(&self, name: &RockName) -> bool {
        self.manifests.iter().any(|(_, manifest)| manifest.rocks.contains_key(name))
    }

    fn usable(&self, archs: &[Arch]) -> Vec<Arch> {
        let rank = |arch: &Arch| match arch {
            Arch::All => 0,
            Arch::Binary(_) => 1,
            Arch::Src => 2,
            Arch::Rockspec => 3,
        };
        let mut usable: Vec<Arch> = archs.iter().filter(|arch| !matches!(arch, Arch::Binary(_)) || **arch == self.here).cloned().collect();
        usable.sort_by_key(rank);
        usable.dedup();
        usable
    }

    /// The names of all rocks, sorted.
    pub fn names(&self) -> Vec<&RockName> {
        match self.manifests.as_slice() {
            [(_, only)] => only.rocks.keys().collect(),
            manifests => {
                let mut all: Vec<&RockName> = manifests.iter().flat_map(|(_, manifest)| manifest.rocks.keys()).collect();
                all.sort();
                all.dedup();
                all
            }
        }
    }

    /// The rocks that give a module, as far as manifests know.
    pub fn rocks_with_module(&self, module: &str) -> Vec<&RockName> {
        let mut found: Vec<&RockName> = self.manifests.iter().filter_map(|(_, m)| m.modules.get(module)).flatten().collect();
        found.sort();
        found.dedup();
        found
    }

    /// Every module that manifests know of, with the rocks that give it.
    pub fn modules(&self) -> BTreeMap<&str, Vec<&RockName>> {
        let mut all: BTreeMap<&str, Vec<&RockName>> = BTreeMap::new();
        for (module, rocks) in self.manifests.iter().flat_map(|(_, manifest)| &manifest.modules) {
            all.entry(module).or_default().extend(rocks);
        }
        all
    }
}

/// What the interpreter brings itself, by the name under which rocks ask for it, with the version that counts
/// (`get_rocks_provided` in `luarocks/util.lua`).
pub fn provided(lua: LuaVersion) -> Vec<(&'static str, String)> {
    let version = format!("{lua}-1");
    let mut all = vec![("lua", version.clone())];
    match lua {
        LuaVersion::V51 => {}
        LuaVersion::V52 => all.push(("bit32", version)),
        LuaVersion::V53 | LuaVersion::V54 | LuaVersion::V55 => all.push(("utf8", version)),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_core::Code;

    fn index(manifests: &[&str]) -> Index {
        let servers = manifests.iter().enumerate().map(|(i, text)| {
            let server = Server::new(&format!("s{i}"), &format!("file:///s{i}"), false).unwrap();
            let manifest = match *text {
                "" => Err(Error::new(Code::PackageServer, "it does not answer")),
                text => Manifest::from_compact(format!("vmoon manifest 1\n{text}\n!0\n").as_bytes()),
            };
            (server, manifest)
        });
        Index::new(LuaVersion::V54, servers.collect())
    }

    fn name(text: &str) -> RockName {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_server_that_has_a_rock_decides() {
        let index = index(&["", "=private\n1.0-1 src", "=private\n9.0-1 src\n=other\n1-1 rockspec"]);
        let versions = |all: Vec<Candidate>| all.iter().map(|c| format!("{}@{}", c.version, c.server.0)).collect::<Vec<_>>();
        assert_eq!(versions(index.candidates(&name("private"))), ["1.0-1@1"]);
        assert_eq!(versions(index.passed_over(&name("private"))), ["9.0-1@2"]);
        assert_eq!(versions(index.candidates(&name("other"))), ["1-1@2"]);
        assert_eq!(index.failures[0].server, "s0");
        assert_eq!(index.names().len(), 2);
        assert_eq!(index.url(&index.candidates(&name("other"))[0].best()), "file:///s2/other-1-1.rockspec");
    }

    #[test]
    fn forms_for_other_machines_do_not_count() {
        let here = Arch::here();
        let index = index(&[&format!("=x\n1-1 rockspec src {here} win32-x86\n2-1 win32-x86\n=y\n1-1 macosx-x86_64")]);
        let found = index.candidates(&name("x"));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].best().arch, found[0].for_rockspec().arch), (here, Arch::Rockspec));
        assert!(index.candidates(&name("y")).is_empty() && index.lists(&name("y")));
    }
}
