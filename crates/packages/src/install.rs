//! Carries out a plan: fetches, builds, and puts a new generation together. Nothing is changed before the last step, which is one rename.

use crate::{
    build::{Builder, Built, Failed, Order, Source},
    cache::Blob,
    environment::{Entry, Environment, GenerationFiles, Guard, changes, spoilt},
    fetch::{self, Fetcher, Location, Reference, Repository, Want},
    lock::{Arch, Lock, LockedRock, LockedSource},
    name::RockName,
    plan::{Action, Plan},
    servers::Server,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path};
use vmoon_core::{Code, Error, Result, name::escape};
use vmoon_sys::clock;

/// What an install came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The generation that is current now.
    pub generation: u64,
    /// What has changed, as in the history.
    pub changes: Vec<String>,
    /// The rocks that were built now, and were not in the cache.
    pub built: Vec<RockName>,
    /// Files that were transferred.
    pub fetched: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Carries out plans.
pub struct Installer<'a> {
    /// Fetches what is needed. What stops it stops the install.
    pub fetcher: &'a Fetcher,
    /// Builds.
    pub builder: &'a Builder,
}

/// A rock on its way into the new generation.
struct Rock<'a> {
    locked: &'a LockedRock,
    /// Its files in the old generation, if it is the same and they are whole.
    kept: bool,
    blob: Option<Blob>,
    source: Option<Source>,
}

/// What was transferred.
#[derive(Default)]
struct Transferred {
    files: u64,
    bytes: u64,
}

impl Transferred {
    fn add(&mut self, fetched: &fetch::Fetched) {
        if !fetched.cached {
            self.files += 1;
            self.bytes += fetched.blob.size;
        }
    }
}

impl Installer<'_> {
    /// Makes the generation that a plan wants, and makes it current. `what` is the verb for the history and `asked` the words it was given.
    ///
    /// # Errors
    /// [`Code::EnvironmentBusy`] if the environment is not what the plan was made for, [`Code::PackageRequired`] if the result would lack what is needed,
    /// [`Code::PackageConflict`] if two rocks give the same file; those of fetching and building. The environment is unchanged then.
    pub fn install(&self, environment: &Environment, guard: &Guard, plan: &Plan, what: &str, asked: &[String]) -> Result<Installed> {
        let servers = environment.description()?.servers;
        self.install_from(environment, guard, plan, (what, asked), &servers)
    }

    /// The same from servers that are not the environment's own: which of them are asked without encryption.
    ///
    /// # Errors
    /// As [`Installer::install`].
    pub fn install_from(
        &self,
        environment: &Environment,
        guard: &Guard,
        plan: &Plan,
        (what, asked): (&str, &[String]),
        servers: &[Server],
    ) -> Result<Installed> {
        let step = |name: &str| self.fetcher.progress().step(name);
        let _in_use = self.fetcher.cache().in_use()?;
        let current = environment.current()?;
        let old = environment.lock_of(current)?;
        agrees(environment, plan, &old)?;
        let problems = plan.lock.problems();
        if !problems.is_empty() {
            return Err(Error::new(Code::PackageRequired, problems.join("; ")).hint("take these along, or name other versions"));
        }
        let tree = environment.tree(current);
        // Records that cannot be read make everything be built or taken from the cache again.
        let files = environment.files(current).unwrap_or_default();
        let mut lock = plan.lock.clone();
        let mut rocks = Vec::new();
        for locked in plan.lock.rocks.values() {
            rocks.push(Rock { kept: kept(locked, &old, &files, &tree)?, locked, blob: None, source: None });
        }
        let mut transferred = Transferred::default();
        step("fetch");
        self.fetch_rocks(&mut rocks, servers, &mut transferred)?;
        self.fetch_sources(&mut rocks, &mut lock, &mut transferred)?;
        step("build");
        let mut built = BTreeMap::new();
        for rock in rocks.iter().filter(|rock| !rock.kept) {
            self.fetcher.stop().check()?;
            let name = &rock.locked.name;
            let result = self.build(rock, plan).map_err(|failed| self.explain(rock.locked, failed))?;
            if let Some(locked) = lock.rocks.get_mut(name) {
                locked.modules.clone_from(&result.modules);
                if let Some(blob) = &rock.blob {
                    locked.sha256.clone_from(&blob.sha256);
                }
            }
            built.insert(name.clone(), result);
        }
        step("draft");
        let mut draft = environment.draft(guard, plan.lua)?;
        for rock in &rocks {
            self.fetcher.stop().check()?;
            let (name, version) = (&rock.locked.name, &rock.locked.version);
            match (built.get(name), files.rocks.get(name)) {
                (Some(built), _) => {
                    draft.add(name, version, &built.dir.join("tree"), &built.files, Some(&built.dir.join("transcript.txt")))?
                }
                (None, Some(kept)) => {
                    draft.add(name, version, &tree, &kept.files, Some(&tree.join("transcripts").join(format!("{name}.txt"))))?;
                    if let (Some(locked), Some(before)) = (lock.rocks.get_mut(name), old.rocks.get(name)) {
                        locked.modules.clone_from(&before.modules);
                    }
                }
                (None, None) => return Err(Error::internal("a rock was neither built nor kept")),
            }
            step("linked");
        }
        self.fetcher.stop().check()?;
        let changes = changes(&old, &lock);
        let entry =
            Entry { what: what.into(), asked: asked.to_vec(), changes: changes.clone(), at_ms: clock::now_ms(), ..Entry::default() };
        let generation = draft.finish_with(&lock, &entry, &step)?;
        let built = built.into_iter().filter(|(_, built)| !built.cached).map(|(name, _)| name).collect();
        Ok(Installed { generation, changes, built, fetched: transferred.files, bytes: transferred.bytes })
    }

    /// Fetches all rocks and rockspecs that are needed, side by side. All that fail are named.
    fn fetch_rocks(&self, rocks: &mut [Rock<'_>], servers: &[Server], transferred: &mut Transferred) -> Result<()> {
        let mut needed: Vec<&mut Rock<'_>> = rocks.iter_mut().filter(|rock| !rock.kept).collect();
        let insecure = |url: &str| servers.iter().any(|server| server.insecure && url.starts_with(&server.url));
        let want = |rock: &LockedRock| Want {
            sha256: Some(rock.sha256.clone()).filter(|sum| !sum.is_empty()),
            insecure: insecure(&rock.url),
            ..Want::fixed(&*rock.url)
        };
        let wants: Vec<Want> = needed.iter().map(|rock| want(rock.locked)).collect();
        let mut errors = Vec::new();
        for (rock, result) in needed.iter_mut().zip(self.fetcher.fetch_all(&wants)) {
            match result {
                Ok(fetched) => {
                    transferred.add(&fetched);
                    rock.blob = Some(fetched.blob);
                }
                Err(error) => errors.push(error),
            }
        }
        together(errors)
    }

    /// Fetches the sources of rocks that are there as rockspecs, archives side by side. The lock learns what they are.
    fn fetch_sources(&self, rocks: &mut [Rock<'_>], lock: &mut Lock, transferred: &mut Transferred) -> Result<()> {
        let mut errors = Vec::new();
        let mut plain = Vec::new();
        for rock in rocks.iter_mut().filter(|rock| !rock.kept && rock.locked.arch == Arch::Rockspec) {
            let mut one = || -> Result<()> {
                let (source, reference) = self.source_of(rock)?;
                fetch::may_name(&rock.locked.url, &source.url)?;
                if let Location::Git(_) = fetch::locate(&source.url)? {
                    let sha256 = Some(source.sha256.clone()).filter(|sum| !sum.is_empty());
                    let wanted = Repository { url: source.url.clone(), reference, sha256 };
                    let (fetched, commit) = self.fetcher.repository(&wanted)?;
                    transferred.add(&fetched);
                    let fixed = source.tag.clone().or(Some(commit).filter(|commit| !commit.is_empty()));
                    note(lock, rock.locked, LockedSource { sha256: fetched.blob.sha256.clone(), tag: fixed, url: source.url.clone() });
                    rock.source = Some(Source { blob: fetched.blob, url: source.url });
                } else {
                    let sha256 = Some(source.sha256.clone()).filter(|sum| !sum.is_empty());
                    plain.push((rock.locked.name.clone(), source.url.clone(), Want { sha256, ..Want::fixed(source.url) }));
                }
                Ok(())
            };
            if let Err(error) = one() {
                errors.push(error);
            }
        }
        let wants: Vec<Want> = plain.iter().map(|(_, _, want)| want.clone()).collect();
        for ((name, url, _), result) in plain.into_iter().zip(self.fetcher.fetch_all(&wants)) {
            match (result, rocks.iter_mut().find(|rock| rock.locked.name == name)) {
                (Ok(fetched), Some(rock)) => {
                    transferred.add(&fetched);
                    note(lock, rock.locked, LockedSource { url: url.clone(), tag: None, sha256: fetched.blob.sha256.clone() });
                    rock.source = Some(Source { blob: fetched.blob, url });
                }
                (Err(error), _) => errors.push(error),
                (Ok(_), None) => {}
            }
        }
        together(errors)
    }

    /// Where the source of a rock is: from the lock, or from its rockspec where the lock does not say enough.
    fn source_of(&self, rock: &Rock<'_>) -> Result<(LockedSource, Reference)> {
        if let Some(source) = &rock.locked.source {
            let repository = matches!(fetch::locate(&source.url)?, Location::Git(_));
            if let Some(tag) = &source.tag {
                return Ok((source.clone(), Reference::Tag(tag.clone())));
            }
            if !repository {
                return Ok((source.clone(), Reference::Head));
            }
        }
        let blob = rock.blob.as_ref().ok_or_else(|| Error::internal("a rockspec was not fetched"))?;
        let text = fs::read(&blob.path).map_err(|error| Error::io(format_args!("read {}", blob.path.display()), error))?;
        let spec = self.builder.rockspec(&text, &rock.locked.name, &rock.locked.version)?;
        let reference = match (&spec.source.tag, &spec.source.branch) {
            (Some(tag), _) => Reference::Tag(tag.clone()),
            (None, Some(branch)) => Reference::Branch(branch.clone()),
            (None, None) => Reference::Head,
        };
        let promised = rock.locked.source.as_ref().map(|source| source.sha256.clone()).unwrap_or_default();
        Ok((LockedSource { url: spec.source.url, tag: spec.source.tag, sha256: promised }, reference))
    }

    /// Builds a rock, or takes it from the cache if all its files are whole there.
    fn build(&self, rock: &Rock<'_>, plan: &Plan) -> Result<Built, Failed> {
        let LockedRock { name, version, arch, .. } = rock.locked;
        let blob = rock.blob.as_ref().ok_or_else(|| Error::internal("a rock was not fetched"))?;
        let order = Order { name, version, arch, lua: plan.lua, rock: blob, source: rock.source.as_ref() };
        let mut built = match self.builder.cached(&order)? {
            Some(built) => built,
            None => {
                self.fetcher.progress().note(&format!("builds {name} {version}"));
                self.builder.build(&order, self.fetcher.stop())?
            }
        };
        if built.cached && spoilt(&built.dir.join("tree"), &built.files)?.is_some() {
            self.builder.forget(&built)?;
            built = self.builder.build(&order, self.fetcher.stop())?;
        }
        Ok(built)
    }

    /// Keeps what was said while a build failed, and says where: in the cache, because an environment that was to be made is gone then.
    fn explain(&self, rock: &LockedRock, failed: Failed) -> Error {
        let Failed { error, transcript } = failed;
        if transcript.is_empty() {
            return error;
        }
        match self.fetcher.cache().keep_transcript(&rock.name, &rock.version, &transcript) {
            Ok(path) => {
                let hint = error.hint_text().unwrap_or("the transcript of the build says more").to_owned();
                error
                    .hint(format!("{hint} (transcript: {})", escape(&path.to_string_lossy())))
                    .detail(serde_json::json!({ "transcript": path }))
            }
            Err(_) => error,
        }
    }
}

/// Whether a rock can be taken over from the old generation.
fn kept(rock: &LockedRock, old: &Lock, files: &GenerationFiles, tree: &Path) -> Result<bool> {
    let Some(before) = old.rocks.get(&rock.name) else { return Ok(false) };
    let source = |rock: &LockedRock| rock.source.as_ref().map(|source| source.sha256.clone()).filter(|sum| !sum.is_empty());
    let same_source = source(rock).is_none() || source(rock) == source(before);
    let same = before.version == rock.version && before.arch == rock.arch && before.sha256 == rock.sha256 && same_source;
    match files.rocks.get(&rock.name) {
        Some(found) if same && found.version == rock.version => Ok(spoilt(tree, &found.files)?.is_none()),
        _ => Ok(false),
    }
}

/// Whether the environment is what the plan was made for.
fn agrees(environment: &Environment, plan: &Plan, old: &Lock) -> Result<()> {
    let version = |name: &RockName| old.rocks.get(name).map(|rock| &rock.version);
    let fits = plan.steps.iter().all(|step| match &step.action {
        Action::Install => version(&step.rock.name).is_none(),
        Action::Replace { from } => version(&step.rock.name) == Some(from),
        Action::Remove | Action::Keep => version(&step.rock.name) == Some(&step.rock.version),
    });
    if fits && plan.lua == old.lua && plan.lock.lua == old.lua {
        return Ok(());
    }
    Err(Error::new(Code::EnvironmentBusy, format!("the environment {} has changed since the plan was made", environment.name()))
        .hint("try again: the plan is made anew"))
}

fn note(lock: &mut Lock, rock: &LockedRock, source: LockedSource) {
    if let Some(locked) = lock.rocks.get_mut(&rock.name) {
        locked.source = Some(source);
    }
}

/// One error out of several: the code of the first, the words of all.
fn together(mut errors: Vec<Error>) -> Result<()> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => {
            let mut all: Vec<String> = errors.iter().map(Error::chain).collect();
            all.dedup();
            let first = errors.remove(0);
            let error = Error::new(first.code(), all.join("; "));
            Err(match first.hint_text() {
                Some(hint) => error.hint(hint.to_owned()),
                None => error,
            })
        }
    }
}
