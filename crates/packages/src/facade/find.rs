//! Looking for packages: the index of an environment's servers, and what is known about rocks without installing them.

use super::{Packages, Work, intent::wish};
use crate::{
    builtin,
    cache::Cache,
    catalogue,
    constraint::Dependency,
    descriptions::Descriptions,
    fetch::{Fetcher, Options},
    files::ServerFiles,
    gather::{self, Files},
    index::{Candidate, Index},
    lock::Lock,
    lua_version::LuaVersion,
    name::RockName,
    rockspec::Rockspec,
    search::{self, About},
    servers::Server,
    solve::{Rockspecs, ServerRockspecs},
};
use std::{sync::Arc, time::Duration};
use vmoon_core::{Code, Error, Result, name::escape, package::FoundRock};

/// The most rocks that a search answers.
const MOST: usize = 200;

/// What a question about an environment is asked with.
pub(super) struct Questions<'a> {
    pub(super) lua: LuaVersion,
    pub(super) servers: &'a [Server],
    pub(super) lock: &'a Lock,
}

/// The servers, asked.
pub(super) struct Asked {
    pub(super) fetcher: Fetcher,
    pub(super) index: Index,
    offline: bool,
    age: Duration,
}

impl Packages {
    /// A fetcher for one piece of work.
    pub(super) fn fetcher(&self, work: &Work) -> Result<Fetcher> {
        let options = Options { offline: work.offline, builtin: builtin::file, ..Options::default() };
        Ok(Fetcher::new(Cache::open(&self.config.cache)?, options, super::told(work), work.stop.clone()))
    }

    /// Asks the servers what they have. `age` is how old an answer may be.
    ///
    /// # Errors
    /// [`Code::PackageServer`] or [`Code::PackageOffline`] if no server could be asked, with why for each.
    pub(super) fn ask(&self, questions: &Questions<'_>, age: Duration, work: &Work) -> Result<Asked> {
        let fetcher = self.fetcher(work)?;
        let index = {
            let files = Shelf { files: ServerFiles::new(&fetcher, age), offline: work.offline };
            gather::gather(questions.servers, questions.lua, &files, &*self.config.evaluator)
        };
        work.stop.check()?;
        if index.failures.len() == index.servers.len() {
            let why: Vec<String> = index.failures.iter().map(|failure| failure.error.message.clone()).collect();
            let code = index.failures.first().map_or(Code::PackageServer, |failure| failure.error.code);
            let why = if why.is_empty() { "the list of rocks servers is empty".to_owned() } else { why.join("; ") };
            let code = if work.offline { Code::PackageOffline } else { code };
            return Err(Error::new(code, why).hint("see where packages come from: vmoon pkg server list"));
        }
        Ok(Asked { fetcher, index, offline: work.offline, age })
    }

    /// What rockspecs have said of their rocks.
    pub(super) fn descriptions(&self) -> Descriptions {
        Descriptions::in_cache(&self.config.cache)
    }

    /// Remembers what rockspecs say of their rocks.
    pub(super) fn remember(&self, specs: &[Arc<Rockspec>]) {
        // It only helps to find things.
        if let Err(error) = self.descriptions().add(specs) {
            tracing::debug!(error = error.chain(), "what is known about rocks could not be kept");
        }
    }

    /// Looks for rocks.
    pub(super) fn look_for(&self, questions: &Questions<'_>, query: &str, work: &Work) -> Result<Vec<FoundRock>> {
        let asked = self.ask(questions, Duration::from_secs(600), work)?;
        let files = asked.shelf();
        let rockspecs = ServerRockspecs::new(&files, &*self.config.evaluator);
        let words: Vec<String> = query.split_whitespace().map(str::to_owned).collect();
        let told = catalogue::about();
        let found = self.descriptions().search(&asked.index, &rockspecs, &told, &words, MOST);
        work.stop.check()?;
        // Whoever could not be asked may have what was sought.
        if let (true, Some(failure)) = (found.is_empty(), asked.index.failures.first()) {
            return Err(failure.error(format!("nothing was found on servers that answered; {}", asked.index.unasked().join("; "))));
        }
        let known = self.descriptions().load();
        let unasked = asked.index.unasked();
        Ok(found
            .into_iter()
            .map(|one| {
                let candidates = asked.index.candidates(&one.name);
                let mut labels: Vec<String> =
                    [&known, &told].into_iter().filter_map(|about| about.get(&one.name)).flat_map(|about| about.labels.clone()).collect();
                labels.sort();
                labels.dedup();
                FoundRock {
                    version: one.newest.as_ref().map(ToString::to_string).unwrap_or_default(),
                    versions: versions(&candidates),
                    server: server(&asked.index, &candidates),
                    summary: one.summary,
                    modules: one.modules,
                    labels,
                    installed: questions.lock.rocks.get(&one.name).map(|rock| rock.version.to_string()),
                    name: one.name.to_string(),
                    homepage: String::new(),
                    license: String::new(),
                    description: String::new(),
                    dependencies: Vec::new(),
                    build: String::new(),
                    recommended: Vec::new(),
                    unasked: unasked.clone(),
                }
            })
            .collect())
    }

    /// Tells about one rock.
    pub(super) fn tell_about(&self, questions: &Questions<'_>, package: &str, work: &Work) -> Result<FoundRock> {
        let asked = self.ask(questions, Duration::from_secs(600), work)?;
        let wanted: Dependency = wish(package)?;
        let name = self.named(&asked.index, &wanted.name)?;
        let candidates = asked.index.candidates(&name);
        let fitting: Vec<Candidate> = candidates.iter().filter(|candidate| wanted.constraints.allow(&candidate.version)).cloned().collect();
        let Some(candidate) = newest(&fitting) else {
            if let Some(failure) = asked.index.unheard(&name) {
                let known = versions(&candidates).join(", ");
                let why = asked.index.unasked().join("; ");
                return Err(failure.error(format!("no version of {name} that is known fits {} ({known}); {why}", escape(package))));
            }
            return Err(Error::new(Code::PackageNotFound, format!("no version of {name} fits {}", escape(package)))
                .hint(format!("there are: {}", versions(&candidates).join(", "))));
        };
        let shelf = asked.shelf();
        let specs = ServerRockspecs::new(&shelf, &*self.config.evaluator);
        let spec: Arc<Rockspec> = specs.rockspec(&asked.index, &candidate.for_rockspec())?;
        self.remember(std::slice::from_ref(&spec));
        let mut about = About::of(&spec);
        if let Some(told) = catalogue::about().get(&name) {
            about.add(told);
        }
        let description = &spec.description;
        Ok(FoundRock {
            version: candidate.version.to_string(),
            versions: versions(&candidates),
            server: server(&asked.index, &fitting),
            summary: about.summary,
            modules: about.modules,
            labels: about.labels,
            installed: questions.lock.rocks.get(&name).map(|rock| rock.version.to_string()),
            homepage: description.homepage.clone().unwrap_or_default(),
            license: description.license.clone().unwrap_or_default(),
            description: description.detailed.clone().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "),
            dependencies: spec.dependencies.iter().map(ToString::to_string).collect(),
            build: spec.build.kind.clone(),
            recommended: catalogue::recommended([&name])
                .into_iter()
                .map(|(known, _)| format!("{}: {}", known.name, known.summary))
                .collect(),
            unasked: asked.index.unasked(),
            name: name.to_string(),
        })
    }

    /// The rock of this name, or the one that gives a module of this name.
    fn named(&self, index: &Index, name: &RockName) -> Result<RockName> {
        if index.lists(name) {
            return Ok(name.clone());
        }
        if let Some(failure) = index.unheard(name) {
            return Err(failure.error(format!("no server that answered has a rock named {name}; {}", index.unasked().join("; "))));
        }
        let near = search::nearest(index, name.as_str(), 4);
        let error = Error::new(Code::PackageNotFound, format!("no server has a rock named {name}"));
        if near.is_empty() {
            return Err(error.hint("search for it: vmoon pkg search WORD"));
        }
        let near: Vec<&str> = near.iter().map(RockName::as_str).collect();
        Err(error.hint(format!("is it one of these? {}", near.join(", "))))
    }
}

impl Asked {
    /// The servers' files.
    pub(super) fn shelf(&self) -> Shelf<'_> {
        Shelf { files: ServerFiles::new(&self.fetcher, self.age), offline: self.offline }
    }
}

/// The servers' files; without a network each name that a manifest may have is tried, since only one of them is in the cache.
pub(super) struct Shelf<'a> {
    files: ServerFiles<'a>,
    offline: bool,
}

impl Files for Shelf<'_> {
    fn file(&self, server: &Server, name: &str, most: usize) -> Result<Option<Vec<u8>>> {
        match self.files.file(server, name, most) {
            Err(error) if self.offline && error.code() == Code::PackageOffline && name.starts_with("manifest") && name != "manifest" => {
                Ok(None)
            }
            other => other,
        }
    }

    fn evaluated(&self, text: &[u8]) -> Option<Vec<u8>> {
        self.files.evaluated(text)
    }

    fn keep_evaluated(&self, text: &[u8], answer: &[u8]) {
        self.files.keep_evaluated(text, answer);
    }
}

/// The newest, released if any is.
pub(super) fn newest(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().rev().find(|candidate| !candidate.version.is_unreleased()).or(candidates.last())
}

fn versions(candidates: &[Candidate]) -> Vec<String> {
    candidates.iter().rev().map(|candidate| candidate.version.to_string()).collect()
}

fn server(index: &Index, candidates: &[Candidate]) -> String {
    candidates.last().and_then(|candidate| index.server(candidate.server)).map(|server| server.name.clone()).unwrap_or_default()
}
