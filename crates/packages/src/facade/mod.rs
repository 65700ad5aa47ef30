//! All of this crate behind one door: what the daemon asks for, verb by verb. Everything blocks; long work tells its progress and can be stopped.

mod carry;
mod change;
mod find;
mod intent;
mod settings;
mod shown;

use crate::{
    build::Confine,
    cache::Cache,
    environment::{Description, Environment, Environments},
    evaluate::Evaluator,
    fetch,
    lua_version::LuaVersion,
    plan,
    servers::Server,
};
use find::Questions;
use settings::Settings;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use vmoon_core::{
    Error, Result,
    name::escape,
    operation::Progress,
    package::{
        CacheInfo, DEFAULT_ENVIRONMENT, Difference, EnvironmentInfo, FoundRock, HistoryEntry, Newer, ProfileInfo, RockInfo, ServerChange,
        ServerInfo,
    },
};
use vmoon_sys::{clock, stop::Stop};

pub use carry::{Carried, CarriedFile};

/// What stands for the environment that was chosen.
pub const CHOSEN: &str = "@";

/// Where things are, and who does what this crate does not.
pub struct Config {
    /// The state directory.
    pub state: PathBuf,
    /// The cache directory of this crate.
    pub cache: PathBuf,
    /// Evaluates the Lua text of strangers.
    pub evaluator: Arc<dyn Evaluator>,
    /// Starts builders.
    pub confine: Arc<dyn Confine>,
}

/// How a verb is done, and who hears of it.
#[derive(Clone, Default)]
pub struct Work {
    /// Fetch nothing.
    pub offline: bool,
    /// Stops it.
    pub stop: Stop,
    /// Is told how far it has come.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    /// Generations of the environment that running machines use: they stay.
    pub in_use: Vec<u64>,
    /// For which Lua an environment is made that is not there; without it, that it is not there is an error.
    pub make: Option<LuaVersion>,
    /// Names of servers that are left out of it.
    pub without: Vec<String>,
}

impl Work {
    /// Says what is being done now.
    fn tell(&self, phase: impl Into<String>) {
        if let Some(progress) = &self.progress {
            progress(Progress { phase: phase.into(), percent: None });
        }
    }
}

/// What [`Packages::verify`] has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The generation that was looked at.
    pub generation: u64,
    /// How many files were looked at.
    pub files: u64,
    /// What differs.
    pub differences: Vec<Difference>,
}

/// Packages and environments of one user.
pub struct Packages {
    config: Config,
}

impl Packages {
    /// Over these directories; touches nothing.
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    fn all(&self) -> Result<Environments> {
        Environments::open(&self.config.state)
    }

    fn settings(&self) -> Result<Settings> {
        Settings::read(&self.config.state)
    }

    /// The environment that a name means: [`CHOSEN`] is the one that was chosen.
    ///
    /// # Errors
    /// `config.invalid` where the settings cannot be read.
    pub fn name(&self, text: &str) -> Result<String> {
        if text == CHOSEN { Ok(self.settings()?.chosen().to_owned()) } else { Ok(text.to_owned()) }
    }

    /// The same of a name that need not be there.
    ///
    /// # Errors
    /// As [`Self::name`].
    pub fn names(&self, text: Option<&str>) -> Result<Option<String>> {
        text.map(|text| self.name(text)).transpose()
    }

    /// The servers of an environment, and whether they are its own.
    fn servers_of(&self, description: &Description) -> Result<(Vec<Server>, bool)> {
        if description.servers.is_empty() { Ok((self.settings()?.servers(), false)) } else { Ok((description.servers.clone(), true)) }
    }

    fn info(&self, environment: &Environment) -> Result<EnvironmentInfo> {
        let description = environment.description()?;
        let lock = environment.lock()?;
        let (servers, own_servers) = self.servers_of(&description)?;
        Ok(EnvironmentInfo {
            name: environment.name().to_owned(),
            lua: description.lua.to_string(),
            generation: environment.current()?,
            profile: description.profile,
            wanted: lock.wanted.iter().map(ToString::to_string).collect(),
            rocks: lock.rocks.len() as u64,
            default: self.settings()?.chosen() == environment.name(),
            servers: settings::shown(&servers),
            own_servers,
            directory: environment.dir().to_string_lossy().into_owned(),
            machines: Vec::new(),
            packages: None,
            generations: None,
        })
    }

    /// All environments, by name. One that is damaged is told of by its error.
    ///
    /// # Errors
    /// Those of the file system, `environment.damaged`.
    pub fn environments(&self) -> Result<Vec<EnvironmentInfo>> {
        let all = self.all()?;
        all.names()?.iter().map(|name| self.info(&all.find(name)?)).collect()
    }

    /// One environment, with its rocks and generations.
    ///
    /// # Errors
    /// `environment.not_found`, `environment.damaged`.
    pub fn environment(&self, name: &str) -> Result<EnvironmentInfo> {
        let environment = self.all()?.find(name)?;
        let mut info = self.info(&environment)?;
        info.packages = Some(shown::rocks(&environment.lock()?));
        info.generations = Some(shown::generations(&environment)?);
        Ok(info)
    }

    /// Makes an environment, empty; with `dry_run` only says what it would be.
    ///
    /// # Errors
    /// `name.invalid`, `environment.exists`, `disk.full`.
    pub fn create(&self, name: &str, lua: LuaVersion, dry_run: bool) -> Result<EnvironmentInfo> {
        vmoon_core::name::check(name)?;
        let all = self.all()?;
        let description = Description { lua, profile: None, created_ms: clock::now_ms(), servers: Vec::new() };
        if !dry_run {
            return self.info(&all.create(name, &description)?);
        }
        if all.find(name).is_ok() {
            return Err(Error::new(vmoon_core::Code::EnvironmentExists, format!("an environment is named {name} already"))
                .hint("choose another name, or remove it"));
        }
        let (servers, _) = self.servers_of(&description)?;
        Ok(EnvironmentInfo {
            name: name.to_owned(),
            lua: lua.to_string(),
            generation: 0,
            profile: None,
            wanted: Vec::new(),
            rocks: 0,
            default: self.settings()?.chosen() == name,
            servers: settings::shown(&servers),
            own_servers: false,
            directory: all.root().join(name).to_string_lossy().into_owned(),
            machines: Vec::new(),
            packages: None,
            generations: None,
        })
    }

    /// Removes what is left of changes that were cut off before there was an environment.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn sweep(&self) -> Result<()> {
        self.all()?.sweep()
    }

    /// Removes an environment. Whoever calls has made sure that nobody uses it.
    ///
    /// # Errors
    /// `environment.not_found`, `environment.busy`.
    pub fn remove(&self, name: &str) -> Result<()> {
        let all = self.all()?;
        let environment = all.find(name)?;
        all.remove(&environment)?;
        let mut settings = self.settings()?;
        if settings.chosen() == name {
            settings.choose(DEFAULT_ENVIRONMENT);
            settings.write(&self.config.state)?;
        }
        Ok(())
    }

    /// Chooses what [`CHOSEN`] means.
    ///
    /// # Errors
    /// `environment.not_found`.
    pub fn choose(&self, name: &str) -> Result<EnvironmentInfo> {
        let name = self.name(name)?;
        // The one that is meant where none was chosen can be chosen before anything is in it.
        let environment = match self.all()?.find(&name) {
            Err(error) if error.code() == vmoon_core::Code::EnvironmentNotFound && name == DEFAULT_ENVIRONMENT => None,
            found => Some(found?),
        };
        let mut settings = self.settings()?;
        settings.choose(&name);
        settings.write(&self.config.state)?;
        match environment {
            Some(environment) => self.info(&environment),
            None => self.create(&name, LuaVersion::V54, true),
        }
    }

    /// The rocks of an environment, by name; with `newer` the servers are asked for newer versions.
    ///
    /// # Errors
    /// `environment.not_found`, `environment.damaged`; with `newer` those of asking.
    pub fn rocks(&self, name: &str, newer: bool, work: &Work) -> Result<Vec<RockInfo>> {
        let environment = self.all()?.find(name)?;
        let lock = environment.lock()?;
        let mut rocks = shown::rocks(&lock);
        if newer {
            let (servers, _) = self.servers_of(&environment.description()?)?;
            let asked = self.ask(&Questions { lua: lock.lua, servers: &servers, lock: &lock }, Duration::from_secs(60), work)?;
            let outdated = plan::outdated(&lock, &asked.index);
            for rock in &mut rocks {
                rock.unasked = asked.index.unasked();
            }
            for one in outdated {
                if let Some(rock) = rocks.iter_mut().find(|rock| rock.name == one.name.as_str()) {
                    rock.newer = Some(Newer {
                        allowed: one.allowed.map(|version| version.to_string()),
                        newest: one.newest.to_string(),
                        held_by: one.held_by,
                    });
                }
            }
        }
        Ok(rocks)
    }

    /// The lock of an environment, as text.
    ///
    /// # Errors
    /// `environment.not_found`, `environment.damaged`.
    pub fn lock(&self, name: &str) -> Result<String> {
        self.all()?.find(name)?.lock()?.to_toml()
    }

    /// An environment as one text, from which it can be made again.
    ///
    /// # Errors
    /// `environment.not_found`, `environment.damaged`.
    pub fn export(&self, name: &str) -> Result<String> {
        self.all()?.find(name)?.export()
    }

    /// Compares the files of the current generation with what was installed.
    ///
    /// # Errors
    /// `environment.not_found`, `environment.damaged` where its own records cannot be read.
    pub fn verify(&self, name: &str) -> Result<Verified> {
        let environment = self.all()?.find(name)?;
        let found = environment.verify(environment.current()?, &Stop::new())?;
        Ok(Verified {
            generation: found.generation,
            files: found.files as u64,
            differences: found.problems.into_iter().map(shown::difference).collect(),
        })
    }

    /// What was done with an environment, the newest first.
    ///
    /// # Errors
    /// `environment.not_found`.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>> {
        let mut entries = self.all()?.find(name)?.history()?;
        entries.reverse();
        Ok(entries.into_iter().map(shown::entry).collect())
    }

    /// The servers, Lua and lock that a question is about: those of the environment, or those of new ones if it is not there.
    fn about_environment(&self, name: &str) -> Result<(LuaVersion, Vec<Server>, crate::lock::Lock)> {
        match self.all()?.find(name) {
            Ok(environment) => {
                let description = environment.description()?;
                Ok((description.lua, self.servers_of(&description)?.0, environment.lock()?))
            }
            Err(error) if error.code() == vmoon_core::Code::EnvironmentNotFound && name == DEFAULT_ENVIRONMENT => {
                Ok((LuaVersion::V54, self.settings()?.servers(), crate::lock::Lock::empty(LuaVersion::V54)))
            }
            Err(error) => Err(error),
        }
    }

    /// Looks for packages.
    ///
    /// # Errors
    /// `environment.not_found`; `package.server` or `package.offline` where no server could be asked, or nothing was found and one could not be asked.
    pub fn search(&self, name: &str, query: &str, work: &Work) -> Result<Vec<FoundRock>> {
        let (lua, servers, lock) = self.about_environment(name)?;
        self.look_for(&Questions { lua, servers: &servers, lock: &lock }, query, work)
    }

    /// Tells about one package.
    ///
    /// # Errors
    /// As [`Self::search`]; `package.not_found` with the nearest names.
    pub fn package(&self, name: &str, package: &str, work: &Work) -> Result<FoundRock> {
        let (lua, servers, lock) = self.about_environment(name)?;
        self.tell_about(&Questions { lua, servers: &servers, lock: &lock }, package, work)
    }

    /// The profiles.
    ///
    /// # Errors
    /// Never but for a defect.
    pub fn profiles(&self) -> Result<Vec<ProfileInfo>> {
        shown::profiles()
    }

    /// The servers of an environment, or those of all that have none of their own.
    ///
    /// # Errors
    /// `environment.not_found`, `config.invalid`.
    pub fn servers(&self, name: Option<&str>) -> Result<Vec<ServerInfo>> {
        let servers = match name {
            Some(name) => self.servers_of(&self.all()?.find(name)?.description()?)?.0,
            None => self.settings()?.servers(),
        };
        Ok(settings::shown(&servers))
    }

    /// Changes such a list; the new one.
    ///
    /// # Errors
    /// `usage` for an address that is none; `not_found` for a name that is not there; `environment.busy`.
    pub fn change_servers(&self, name: Option<&str>, change: &ServerChange) -> Result<Vec<ServerInfo>> {
        let Some(name) = name else {
            let mut settings = self.settings()?;
            settings.change(change)?;
            settings.write(&self.config.state)?;
            return Ok(settings::shown(&settings.servers()));
        };
        let environment = self.all()?.find(name)?;
        let guard = environment.guard()?;
        let description = environment.description()?;
        let servers = match change {
            ServerChange::Reset => Vec::new(),
            change => settings::changed(self.servers_of(&description)?.0, change)?,
        };
        if servers.is_empty() && *change != ServerChange::Reset {
            return Err(Error::new(vmoon_core::Code::Usage, format!("{} would have no server at all", escape(name)))
                .hint("use the list of all environments: vmoon pkg server reset --env NAME"));
        }
        environment.describe(&guard, &Description { servers, ..description })?;
        self.servers(Some(name))
    }

    fn cache_at(&self) -> Result<Cache> {
        Cache::open(&self.config.cache)
    }

    /// What the caches hold.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn cache(&self) -> Result<CacheInfo> {
        let cache = self.cache_at()?;
        let usage = cache.usage()?;
        Ok(CacheInfo {
            directory: cache.root().to_string_lossy().into_owned(),
            files: usage.blobs,
            bytes: usage.bytes,
            built: usage.built,
            built_bytes: usage.built_bytes,
        })
    }

    /// Empties them; what they held. Environments keep their files.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn clear_cache(&self) -> Result<CacheInfo> {
        let held = self.cache()?;
        self.cache_at()?.clean(Duration::ZERO)?;
        Ok(held)
    }
}

/// Passes on what fetching tells.
struct Telling {
    work: Work,
    /// The file that was told of last, and how many MiB of it.
    last: Mutex<(String, u64)>,
}

impl fetch::Progress for Telling {
    fn bytes(&self, url: &str, done: u64, total: Option<u64>) {
        let step = done >> 18;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 == url && last.1 == step {
            return;
        }
        *last = (url.to_owned(), step);
        drop(last);
        if let Some(progress) = &self.work.progress {
            let name = escape(&fetch::file_name(url));
            let percent = total.filter(|total| *total > 0).map(|total| (done.saturating_mul(100) / total).min(100) as u8);
            progress(Progress { phase: format!("fetching {name}"), percent });
        }
    }

    fn note(&self, text: &str) {
        self.work.tell(escape(text));
    }
}

/// Who is told of fetching.
fn told(work: &Work) -> Arc<dyn fetch::Progress> {
    Arc::new(Telling { work: work.clone(), last: Mutex::default() })
}
