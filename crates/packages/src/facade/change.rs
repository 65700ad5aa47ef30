//! Changing an environment: from what is asked for to a plan, and from the plan to a new generation. Planning touches nothing; what is planned for a change is
//! planned while the environment is held, so that it is still right when it is carried out.

use super::{Packages, Work, find::Questions, intent::Intent, shown};
use crate::{
    build::Builder,
    catalogue::{self, Profile},
    constraint::Dependency,
    environment::{Description, Environment, Exported, Guard},
    fetch::{self, Fetcher, Location},
    index::Index,
    install::Installer,
    lock::{Arch, Lock, LockedRock, import_luarocks, import_lux},
    lua_version::LuaVersion,
    plan::{self, Inputs, Plan},
    rockspec::Rockspec,
    servers::Server,
    solve::{self, Request, ServerRockspecs},
};
use std::{fs, sync::Arc, time::Duration};
use vmoon_core::{
    Code, Error, Result,
    name::escape,
    package::{Change, DEFAULT_ENVIRONMENT, PackagePlan},
};
use vmoon_sys::clock;

/// How old what servers have said may be when something is installed.
const AGE: Duration = Duration::from_secs(60);
/// How many generations are kept besides the current one and those in use.
const KEPT: usize = 10;

/// What is to be changed.
struct Subject {
    name: String,
    lua: LuaVersion,
    servers: Vec<Server>,
    lock: Lock,
    generation: u64,
}

/// What was planned.
struct Planned {
    plan: Plan,
    notes: Vec<String>,
    unasked: Vec<String>,
}

impl Packages {
    fn subject(&self, environment: &Environment) -> Result<Subject> {
        let description = environment.description()?;
        let generation = environment.current()?;
        Ok(Subject {
            name: environment.name().to_owned(),
            lua: description.lua,
            servers: self.servers_of(&description)?.0,
            lock: environment.lock_of(generation)?,
            generation,
        })
    }

    /// Says what a change would do. Touches nothing but the cache.
    ///
    /// # Errors
    /// `usage` for packages that are none, `package.not_found`, `package.conflict`, `package.required`, `package.server`, `package.offline`,
    /// `environment.not_found`, `cancelled`.
    pub fn plan(&self, name: &str, change: &Change, work: &Work) -> Result<PackagePlan> {
        let (subject, environment) = match (self.all()?.find(name), makes(name, change, work)) {
            (Ok(environment), _) => (self.subject(&environment)?, Some(environment)),
            (Err(error), Some(lua)) if error.code() == Code::EnvironmentNotFound => {
                let servers = self.settings()?.servers();
                (Subject { name: name.to_owned(), lua, servers, lock: Lock::empty(lua), generation: 0 }, None)
            }
            (Err(error), _) => return Err(error),
        };
        let fetcher = self.fetcher(work)?;
        let planned = self.planned(&subject, environment.as_ref(), change, work, &fetcher)?;
        Ok(shown::plan(&subject.name, subject.generation, &planned.plan, (planned.notes, planned.unasked)))
    }

    /// Carries out a change: a new generation, or nothing. An environment that is made for it ([`Work::make`]) is there when that is done, and not before.
    ///
    /// # Errors
    /// As [`Self::plan`]; those of fetching and building; `environment.busy` while somebody else changes it; `disk.full`.
    pub fn change(&self, name: &str, change: &Change, work: &Work) -> Result<PackagePlan> {
        let all = self.all()?;
        match (all.find(name), makes(name, change, work)) {
            (Ok(environment), _) => {
                let guard = environment.guard()?;
                self.carry_out(&environment, &guard, change, work)
            }
            (Err(error), Some(lua)) if error.code() == Code::EnvironmentNotFound => {
                let description = Description { lua, profile: None, created_ms: clock::now_ms(), servers: Vec::new() };
                let staged = all.stage(name, &description)?;
                let (environment, guard) = staged.parts()?;
                let done = self.carry_out(environment, guard, change, work)?;
                staged.publish()?;
                Ok(done)
            }
            (Err(error), _) => Err(error),
        }
    }

    fn carry_out(&self, environment: &Environment, guard: &Guard, change: &Change, work: &Work) -> Result<PackagePlan> {
        self.install(environment, guard, change, work).map_err(|error| match error.code() {
            Code::DiskFull if error.hint_text().is_none() => {
                error.hint("nothing was changed; make room, for example by what can be fetched again: vmoon pkg cache --clear")
            }
            _ => error,
        })
    }

    fn install(&self, environment: &Environment, guard: &Guard, change: &Change, work: &Work) -> Result<PackagePlan> {
        let subject = self.subject(environment)?;
        work.tell("planning");
        let fetcher = self.fetcher(work)?;
        let Planned { plan, notes, unasked } = self.planned(&subject, Some(environment), change, work, &fetcher)?;
        let done = shown::plan(&subject.name, subject.generation, &plan, (notes, unasked));
        work.stop.check()?;
        if let Change::Rollback { generation } = change {
            environment.rollback(guard, *generation)?;
            return Ok(done);
        }
        let repairs = matches!(change, Change::Sync) && !environment.verify(subject.generation, &work.stop)?.problems.is_empty();
        if plan.is_empty() && plan.lock.wanted == subject.lock.wanted && !repairs {
            self.note_profile(environment, guard, change)?;
            return Ok(done);
        }
        work.tell("installing");
        let jobs = std::thread::available_parallelism().map_or(2, usize::from);
        let builder = Builder::new(fetcher.cache().clone(), self.config.confine.clone(), self.config.evaluator.clone(), jobs);
        let installer = Installer { fetcher: &fetcher, builder: &builder };
        let (verb, asked) = words(change);
        installer.install_from(environment, guard, &plan, (verb, &asked), &subject.servers)?;
        self.note_profile(environment, guard, change)?;
        let collected = environment.collect(guard, KEPT, &|number| work.in_use.contains(&number));
        if let Err(error) = collected {
            tracing::warn!(environment = environment.name(), error = error.chain(), "old generations could not be removed");
        }
        Ok(done)
    }

    /// Writes down from which profiles an environment was filled.
    fn note_profile(&self, environment: &Environment, guard: &Guard, change: &Change) -> Result<()> {
        let Change::Bootstrap { profiles, .. } = change else { return Ok(()) };
        let description = environment.description()?;
        let mut all: Vec<&str> = description.profile.iter().flat_map(|known| known.split(", ")).collect();
        all.extend(profiles.iter().map(String::as_str));
        all.dedup();
        let profile = Some(all.join(", ")).filter(|all| !all.is_empty());
        if profile == description.profile {
            return Ok(());
        }
        environment.describe(guard, &Description { profile, ..description.clone() })
    }

    fn planned(
        &self,
        subject: &Subject,
        environment: Option<&Environment>,
        change: &Change,
        work: &Work,
        fetcher: &Fetcher,
    ) -> Result<Planned> {
        let download = |rock: &LockedRock| to_fetch(fetcher, rock);
        let exactly =
            |target: &Lock| Planned { plan: plan::sync(&subject.lock, target, &download), notes: Vec::new(), unasked: Vec::new() };
        match change {
            Change::Sync => {
                let mut planned = exactly(&subject.lock);
                if let Some(environment) = environment {
                    let problems = environment.verify(subject.generation, &work.stop)?.problems;
                    planned.notes.extend(problems.into_iter().map(|problem| {
                        let found = shown::difference(problem);
                        format!(
                            "{} is {}: it is put right",
                            if found.file.is_empty() { found.rock.unwrap_or_default() } else { found.file },
                            found.what
                        )
                    }));
                }
                Ok(planned)
            }
            Change::Rollback { generation } => {
                let environment = environment.ok_or_else(|| Error::internal("an environment that is not there is rolled back"))?;
                let target = match generation {
                    Some(number) => *number,
                    None => environment.entry(subject.generation)?.parent.ok_or_else(|| {
                        Error::new(
                            Code::NotFound,
                            format!("generation {} of the environment {} is its first", subject.generation, subject.name),
                        )
                        .hint("there is nothing to go back to")
                    })?,
                };
                let mut planned = exactly(&environment.lock_of(target)?);
                planned.notes.push(format!("generation {target} is current again; nothing is fetched or built"));
                Ok(planned)
            }
            Change::Import { lock } => match self.foreign(lock)? {
                Foreign::Ours(target) => {
                    if target.lua != subject.lua {
                        let why = format!("the lock is for Lua {}, and the environment {} for {}", target.lua, subject.name, subject.lua);
                        return Err(
                            Error::new(Code::Usage, why).hint(format!("make one for it: vmoon env import NAME FILE --lua {}", target.lua))
                        );
                    }
                    let mut planned = exactly(&target);
                    if !work.without.is_empty() {
                        without(&subject.servers, &work.without)?;
                        planned.notes.push("the lock says where each package comes from: no server was asked for others".to_owned());
                    }
                    Ok(planned)
                }
                Foreign::Pinned(intent, notes) => self.solved(subject, intent, notes, work, fetcher),
            },
            Change::Bootstrap { profiles, file } => {
                let intent = Intent::adding(&subject.lock, news(&subject.lock, sets(profiles, file.as_deref())?));
                self.solved(subject, intent, Vec::new(), work, fetcher)
            }
            change => {
                let intent = Intent::of(&subject.lock, change)?.ok_or_else(|| Error::internal("a change has no intent"))?;
                self.solved(subject, intent, Vec::new(), work, fetcher)
            }
        }
    }

    /// Chooses versions for an intent.
    fn solved(&self, subject: &Subject, intent: Intent, mut notes: Vec<String>, work: &Work, fetcher: &Fetcher) -> Result<Planned> {
        let wanted: Vec<Dependency> = if intent.pins.is_empty() { intent.wanted.clone() } else { intent.pins.clone() };
        let solve = |index: &Index, rockspecs: &dyn solve::Rockspecs| {
            let request = Request { index, wanted: &wanted, lock: &subject.lock, update: &intent.update, stop: &work.stop };
            solve::solve(request, rockspecs)
        };
        let mut unasked = Vec::new();
        let solution = if intent.remove.is_empty() && !intent.orphans {
            let servers = without(&subject.servers, &work.without)?;
            notes.extend(work.without.iter().map(|server| format!("the server {server} was left out, as was asked for")));
            let questions = Questions { lua: subject.lua, servers: &servers, lock: &subject.lock };
            let asked = self.ask(&questions, AGE, work)?;
            unasked = asked.index.unasked();
            let files = asked.shelf();
            let rockspecs = ServerRockspecs::new(&files, &*self.config.evaluator);
            work.tell("choosing versions");
            let solution = solve(&asked.index, &rockspecs)?;
            self.remember(&rockspecs.all());
            solution
        } else {
            // What goes needs nobody's advice.
            solve(&Index::new(subject.lua, Vec::new()), &Nobody)?
        };
        let servers: Vec<String> = subject.servers.iter().map(|server| server.url.clone()).collect();
        let download = |rock: &LockedRock| to_fetch(fetcher, rock);
        let plan = plan::plan(Inputs {
            current: &subject.lock,
            wanted: &intent.wanted,
            servers: &servers,
            solution: &solution,
            remove: &intent.remove,
            remove_orphans: intent.orphans,
            download: &download,
        });
        Ok(Planned { plan, notes, unasked })
    }

    /// Reads a lock, whosever it is.
    fn foreign(&self, text: &str) -> Result<Foreign> {
        if text.trim_start().starts_with('{') {
            return Ok(pinned(import_lux(text.as_bytes())?));
        }
        match toml::from_str::<toml::Table>(text) {
            Ok(table) if table.contains_key("environment") => Ok(Foreign::Ours(Box::new(Exported::from_toml(text)?.lock))),
            Ok(_) => Ok(Foreign::Ours(Box::new(Lock::from_toml(text)?))),
            Err(_) => Ok(pinned(import_luarocks(&self.config.evaluator.rockspec(text.as_bytes())?)?)),
        }
    }
}

/// The servers that are not left out.
fn without(servers: &[Server], left_out: &[String]) -> Result<Vec<Server>> {
    if let Some(unknown) = left_out.iter().find(|name| servers.iter().all(|server| server.name != **name)) {
        return Err(Error::new(Code::NotFound, format!("there is no rocks server named {}", escape(unknown)))
            .hint("see them, in the order they are asked: vmoon pkg server list"));
    }
    Ok(servers.iter().filter(|server| !left_out.contains(&server.name)).cloned().collect())
}

/// What an import has.
enum Foreign {
    /// A lock that says everything.
    Ours(Box<Lock>),
    /// Exact versions, and what could not be taken over.
    Pinned(Intent, Vec<String>),
}

fn pinned(import: crate::lock::Import) -> Foreign {
    let intent = Intent { wanted: import.wanted, pins: import.pins, update: solve::Update::Everything, ..Intent::default() };
    Foreign::Pinned(intent, import.notes)
}

/// Rockspecs where none may be needed.
struct Nobody;

impl solve::Rockspecs for Nobody {
    fn rockspec(&self, _: &Index, entry: &crate::index::Entry) -> Result<Arc<Rockspec>> {
        Err(Error::internal(format!("the rockspec of {} was asked for without a server", entry.name)))
    }
}

/// For which Lua an environment is made that is not there: as was asked for; the one that is meant where none was ever named, for 5.4.
fn makes(name: &str, change: &Change, work: &Work) -> Option<LuaVersion> {
    let usual = || (name == DEFAULT_ENVIRONMENT).then_some(LuaVersion::V54);
    if fills(change) { work.make.or_else(usual) } else { None }
}

/// Whether a change may put something into an environment that was never made.
fn fills(change: &Change) -> bool {
    matches!(change, Change::Install { .. } | Change::Bootstrap { .. } | Change::Import { .. })
}

/// The packages of profiles and of a set of the user's own.
fn sets(profiles: &[String], file: Option<&str>) -> Result<Vec<Dependency>> {
    let mut sets: Vec<Profile> = profiles.iter().map(|name| catalogue::profile(name).cloned()).collect::<Result<_>>()?;
    sets.extend(file.map(|text| Profile::parse("file", text)).transpose()?);
    if sets.is_empty() {
        return Err(Error::new(Code::Usage, "no profile was named").hint("see them: vmoon env bootstrap --list"));
    }
    let mut all: Vec<Dependency> = Vec::new();
    for set in &sets {
        for rock in set.all_rocks(|_| Ok(None))? {
            match all.iter_mut().find(|other| other.name == rock.name) {
                Some(other) => other
                    .constraints
                    .0
                    .extend(rock.constraints.0.into_iter().filter(|one| !other.constraints.0.contains(one)).collect::<Vec<_>>()),
                None => all.push(rock),
            }
        }
    }
    Ok(all)
}

/// What a list of packages says that is not asked for already: a bare name takes no constraint away.
fn news(lock: &Lock, packages: Vec<Dependency>) -> Vec<Dependency> {
    let known = |one: &Dependency| one.constraints.is_empty() && lock.wanted.iter().any(|wanted| wanted.name == one.name);
    packages.into_iter().filter(|one| !known(one)).collect()
}

/// The verb of a change and the words it was given, for the history.
fn words(change: &Change) -> (&'static str, Vec<String>) {
    let shown = |list: &[String]| list.iter().map(|text| escape(text)).collect::<Vec<String>>();
    match change {
        Change::Install { packages } => ("install", shown(packages)),
        Change::Update { packages } => ("update", shown(packages)),
        Change::Remove { packages, orphans } => {
            ("remove", shown(packages).into_iter().chain(orphans.then(|| "orphans".to_owned())).collect())
        }
        Change::Sync => ("sync", Vec::new()),
        Change::Bootstrap { profiles, file } => {
            ("bootstrap", shown(profiles).into_iter().chain(file.as_ref().map(|_| "a file".to_owned())).collect())
        }
        Change::Rollback { generation } => ("rollback", generation.iter().map(u64::to_string).collect()),
        Change::Import { .. } => ("import", Vec::new()),
    }
}

/// How many bytes must be fetched for a rock; nothing where only the server knows.
fn to_fetch(fetcher: &Fetcher, rock: &LockedRock) -> Option<u64> {
    let one = |url: &str, sha256: &str| -> Option<u64> {
        if !sha256.is_empty() && fetcher.cache().get(sha256).ok().flatten().is_some() {
            return Some(0);
        }
        match fetch::locate(url).ok()? {
            Location::Builtin(_) => Some(0),
            Location::File(path) => fs::metadata(path).ok().map(|meta| meta.len()),
            _ => fetcher.cache().seen(url).ok().flatten().map(|_| 0),
        }
    };
    let first = one(&rock.url, &rock.sha256)?;
    match (&rock.arch, &rock.source) {
        (Arch::Rockspec, Some(source)) => Some(first + one(&source.url, &source.sha256)?),
        _ => Some(first),
    }
}
