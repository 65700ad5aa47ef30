//! Environments of packages, carried to a host: the same generation as on this computer, for the Lua that runs there.
//!
//! On the host, below `$XDG_STATE_HOME/vmoon/packages` (by default `~/.local/state/vmoon/packages`):
//!
//! ```text
//! files/KEY         a file's content by its SHA-256, or a module that was compiled there by the SHA-256 of what it was made from
//! trees/KEY/        a generation: share/lua/V and lib/lua/V of links to those files, and `manifest`, which lists them
//! ```
//!
//! A file is sent under another name and renamed when it is whole, a tree likewise: whoever looks sees all of it or nothing. What a cut leaves behind is
//! used by the next attempt, or cleaned away by it. Which trees are used stands beside the sessions that use them (`record`). C modules are sent
//! if they fit what runs Lua there (`elf`); else their rocks are compiled there, if there is a compiler. Before a tree gets its name, the
//! interpreter there has opened every C module of it.

pub mod elf;
mod plan;
pub(crate) mod record;
mod store;

use crate::{Connection, guest::Guest};
use async_trait::async_trait;
use elf::Computer;
use plan::{Plan, Source};
use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::Store;
use vmoon_core::{
    Code, Error, Result,
    ability::{Effect, Follow, Switched, UsedEnvironment},
    operation::Progress,
    package::LUA_VERSIONS,
};
use vmoon_lua_wire::modules::{Modules, SWITCH};

pub use record::Used;

/// How long looking at a host, or at the modules of a tree, may take.
const SCRIPT: Duration = Duration::from_secs(60);
const PROBE: &str = include_str!("probe.sh");
/// As an argument of `-e`, which may not begin with a dash, as its comment does.
const CHECK: &str = concat!(" ", include_str!("check.lua"));
/// How much of a file's beginning is read to learn what it is for.
const HEAD: u64 = 64 << 10;

/// A generation of an environment on this computer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Its name, generation and Lua version.
    pub used: UsedEnvironment,
    /// Its tree: an absolute path.
    pub tree: PathBuf,
    /// Its modules: the files below `share/lua/VERSION` and `lib/lua/VERSION`.
    pub files: Vec<TreeFile>,
}

/// One file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeFile {
    /// Its path in the tree, with `/`, below `share/` or `lib/`.
    pub path: String,
    /// Its SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Its size, bytes.
    pub size: u64,
    /// The rock it is of, if that is known.
    pub rock: Option<String>,
}

/// How the C modules of a rock are made from its sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Sources and headers, by their paths in one directory.
    pub files: Vec<(String, Vec<u8>)>,
    /// The modules.
    pub modules: Vec<RecipeModule>,
}

/// One module of a [`Recipe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeModule {
    /// Its path in the tree: `lib/lua/5.4/cjson.so`.
    pub path: String,
    /// The compiler's arguments, in that directory, but for `-o` and where the result belongs.
    pub arguments: Vec<String>,
}

/// Finds environments on this computer; whoever keeps them implements it.
#[async_trait]
pub trait Environments: fmt::Debug + Send + Sync {
    /// The current generation of an environment.
    ///
    /// # Errors
    /// [`Code::EnvironmentNotFound`], and those of the file system.
    async fn find(&self, name: &str) -> Result<Environment>;

    /// How the C modules of a rock of a generation are compiled.
    ///
    /// # Errors
    /// Why they cannot be: [`Code::PackageBuild`] with a sentence.
    async fn recipe(&self, environment: &Environment, rock: &str) -> Result<Recipe>;
}

/// What was found on a host.
#[derive(Clone, Debug)]
struct Host {
    /// The interpreter's path, as its shell finds it.
    path: Option<String>,
    /// The version of Lua whose packages it loads.
    lua: Option<String>,
    computer: Computer,
    compiler: Option<String>,
    /// What it calls its kind of machine.
    machine: String,
}

async fn probe(connection: &Connection, lua: &str) -> Result<Host> {
    let ended = connection.run(&crate::guest::script(PROBE, &[lua]), b"", SCRIPT).await?;
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    let field = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::trim));
        found.filter(|value| !value.is_empty() && value.len() < 4_096).map(str::to_owned)
    };
    let glibc = field("libc").and_then(|libc| elf::pair(libc.strip_prefix("glibc ")?));
    let computer = Computer { machine: None, libc: None, glibc };
    Ok(Host {
        path: field("path"),
        lua: field("lua").filter(|lua| LUA_VERSIONS.contains(&lua.as_str())),
        computer,
        compiler: field("cc"),
        machine: field("machine").unwrap_or_else(|| "unknown".into()),
    })
}

impl Environment {
    fn unfit(&self, host: &Host, lua: &str, name: &str) -> Option<Error> {
        let wants = &self.used.lua;
        let why = match &host.lua {
            Some(found) if found == wants => return None,
            Some(found) => {
                format!("the environment {} has packages for Lua {wants}, and {lua} on {name} is Lua {found}", self.used.name)
            }
            None => format!("{lua} on {name} does not say which version of Lua it is"),
        };
        let hint = format!("install lua{wants} there, or make an environment with --lua {}", host.lua.as_deref().unwrap_or("VERSION"));
        Some(Error::new(Code::SpecInvalid, why).hint(hint))
    }
}

/// The environments of one host's sessions. Clones share it.
#[derive(Clone, Debug)]
pub struct Carrier {
    guest: Guest,
    all: Arc<dyn Environments>,
    /// One tree at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Which Lua an interpreter there is, by its path.
    versions: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Carrier {
    /// Carries environments to where these sessions are.
    pub fn new(guest: Guest, all: Arc<dyn Environments>) -> Self {
        Self { guest, all, turn: Arc::default(), versions: Arc::default() }
    }

    /// What the sessions use, as far as the last look has shown: the newest last.
    pub fn used(&self) -> Vec<Used> {
        self.guest.last_seen().map(|seen| seen.environments).unwrap_or_default()
    }

    /// The version of Lua whose packages the sessions load, if their interpreter says one.
    ///
    /// # Errors
    /// As of looking at the host; [`Code::GuestNoLua`].
    pub async fn lua(&self) -> Result<Option<String>> {
        let seen = match self.guest.last_seen().filter(|seen| seen.lua.is_some()) {
            Some(seen) => seen,
            None => self.guest.look().await?,
        };
        let Some(lua) = seen.lua else { return Err(crate::guest::no_lua(&self.guest.host().connection().await?)) };
        let versions = || self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = versions().get(&lua) {
            return Ok(Some(version.clone()));
        }
        let found = probe(&self.guest.host().connection().await?, &lua).await?.lua;
        if let Some(version) = &found {
            versions().insert(lua, version.clone());
        }
        Ok(found)
    }

    /// Carries the current generation of an environment there, and makes the sessions use it: the one that runs, by what is to be evaluated
    /// in it, and all later ones. With `dry_run` it only says what it would do, and refuses what it would refuse.
    ///
    /// # Errors
    /// [`Code::EnvironmentNotFound`]; [`Code::SpecInvalid`] where it does not fit the host, with everything that does not;
    /// [`Code::PackageBuild`]; [`Code::DiskFull`] there; [`Code::DriverUnreachable`]; [`Code::Cancelled`]. Nothing has changed then.
    pub async fn switch(&self, name: &str, dry_run: bool, follow: &dyn Follow) -> Result<Switched> {
        let say = |phase: &str| follow.progress(Progress { phase: phase.to_owned(), percent: None });
        say("waiting for its turn");
        let _turn = self.turn.lock().await;
        say("looking at what is there");
        let environment = self.all.find(name).await?;
        let connection = self.guest.host().connection().await?;
        let seen = self.guest.look().await?;
        let Some(lua) = seen.lua.clone() else { return Err(crate::guest::no_lua(&connection)) };
        let mut host = probe(&connection, &lua).await?;
        if let Some(error) = environment.unfit(&host, &lua, connection.name()) {
            return Err(error);
        }
        let store = Store::open(&connection, &seen.base).await?;
        let root = store.root().to_owned();
        let tree_of = |key: &str, here: bool| {
            let modules = Modules::of_tree(&format!("{root}/trees/{key}"), &environment.used.lua, here);
            modules.map_err(|why| Error::new(Code::SpecInvalid, why))
        };
        tree_of("", false)?;
        if environment.files.iter().any(plan::is_native) {
            self.recognise(&mut host, &lua, &store).await;
        }
        let plan = self.plan(&environment, &host, connection.name()).await?;
        let missing = store.missing(&plan).await?;
        let life = seen.next_life();
        let used = Used { key: plan.key.clone(), environment: environment.used.clone(), life };
        let steps = plan.steps(&missing, connection.name(), &host.computer);
        let mut before = record::current(&seen.environments, if seen.lives { seen.life } else { life });
        let earlier: Vec<String> = before
            .iter()
            .filter(|one| one.environment.lua == environment.used.lua)
            .filter_map(|one| tree_of(&one.key, false).ok())
            .map(|modules| format!("{};{}", modules.path, modules.cpath))
            .collect();
        let now = tree_of(&used.key, true)?;
        let mut lives = seen.lives;
        if !dry_run {
            let file = format!("{}/{}", seen.base, record::RECORD);
            store.note(&seen.base, &file, &record::text(&before, Some(&used))).await?;
            let sent = self.send(&store, &plan, &connection, (&lua, host.compiler.as_deref()), follow).await;
            if let Err(error) = sent.and_then(|()| follow.commit()) {
                // What was sent stays for the next attempt; the line that protects it means nothing by itself.
                let _ = store.note(&seen.base, &file, &record::text(&before, None)).await;
                return Err(error);
            }
            before.retain(|one| one.key != used.key || one.environment != used.environment);
            before.push(used);
            store.note(&seen.base, &file, &record::text(&before, None)).await?;
            if let Err(error) = store.clean().await {
                tracing::info!(host = connection.name(), error = %error.chain(), "packages that nobody uses could not be cleaned away");
            }
            // A session that began meanwhile is told, too.
            lives = self.guest.look().await?.lives;
        }
        let arguments = [now.path, now.cpath, earlier.join(";")].map(serde_json::Value::from).to_vec();
        Ok(Switched {
            environment: environment.used,
            effect: if lives { Effect::Now } else { Effect::NextStart },
            evaluate: lives.then(|| (SWITCH.to_owned(), arguments)),
            steps,
        })
    }

    /// Sessions that begin from now on use none.
    ///
    /// # Errors
    /// As of looking at the host and of writing there.
    pub async fn none(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        let connection = self.guest.host().connection().await?;
        let seen = self.guest.look().await?;
        let store = Store::open(&connection, &seen.base).await?;
        store.note(&seen.base, &format!("{}/{}", seen.base, record::RECORD), "").await?;
        if let Err(error) = store.clean().await {
            tracing::info!(host = connection.name(), error = %error.chain(), "packages that nobody uses could not be cleaned away");
        }
        self.guest.look().await.map(drop)
    }

    /// What the interpreter's own file says of the computer; a script that stands in its place says nothing, so the shell is looked at.
    async fn recognise(&self, host: &mut Host, lua: &str, store: &Store) {
        for path in [host.path.as_deref().unwrap_or(lua), "/bin/sh"] {
            if let Ok(Some(head)) = store.head(path, HEAD).await
                && let Some(found) = elf::read(&head)
            {
                (host.computer.machine, host.computer.libc) = (Some(found.machine), found.libc);
                return;
            }
        }
        tracing::info!(machine = host.machine, "what the host is cannot be told from its files");
    }

    /// What is to be sent and compiled; everything that cannot be is named.
    async fn plan(&self, environment: &Environment, host: &Host, name: &str) -> Result<Plan> {
        let (tree, files, computer) = (environment.tree.clone(), environment.files.clone(), host.computer.clone());
        let looked = tokio::task::spawn_blocking(move || plan::misfits(&tree, &files, &computer)).await;
        let misfits = looked.map_err(|error| Error::internal("looking at modules failed").source(error))??;
        let mut problems = Vec::new();
        let mut recipes = Vec::new();
        for (rock, why) in plan::by_rock(&misfits) {
            let Some(rock) = rock else {
                problems.push(format!("{why}, and it is of no rock that could be compiled there"));
                continue;
            };
            if host.compiler.is_none() {
                problems.push(format!("{why}, and there is no C compiler on {name} to make it again"));
                continue;
            }
            match self.all.recipe(environment, &rock).await {
                Ok(recipe) => recipes.push((rock, why, recipe)),
                Err(error) => problems.push(format!("{why}, and it cannot be compiled there: {}", error.message())),
            }
        }
        if !problems.is_empty() {
            let what = format!("the environment {} does not fit {name}, which is {}", environment.used.name, host.computer);
            return Err(Error::new(Code::SpecInvalid, format!("{what}: {}", problems.join("; "))).hint(
                "install a C compiler there (Debian: apt-get install gcc libc6-dev), or use versions of these packages without C modules",
            ));
        }
        Plan::new(environment, recipes, &host.computer)
    }

    async fn send(
        &self,
        store: &Store,
        plan: &Plan,
        connection: &Connection,
        (lua, compiler): (&str, Option<&str>),
        follow: &dyn Follow,
    ) -> Result<()> {
        let say = |phase: String| follow.progress(Progress { phase, percent: None });
        // Somebody else may clean away what we have just seen: then it is sent once more.
        for _ in 0..3 {
            if store.has_tree(&plan.key).await? {
                return Ok(());
            }
            let missing = store.missing(plan).await?;
            store.room(plan, &missing).await?;
            store.send(plan, &missing, follow).await?;
            for (at, item) in plan.items.iter().enumerate() {
                if let Source::Compiled(recipe, module) = &item.source
                    && missing.contains(&at)
                {
                    say(format!("compiling {}", item.path));
                    let compiler = compiler.ok_or_else(|| Error::internal("there is no compiler after all"))?;
                    store.compile(connection, compiler, &plan.recipes[*recipe], *module, &item.key).await?;
                }
            }
            say("putting it together".into());
            let staged = store.stage(plan).await?;
            check(connection, lua, &staged, plan).await?;
            store.publish(&staged, &plan.key).await?;
        }
        if store.has_tree(&plan.key).await? {
            return Ok(());
        }
        Err(Error::new(Code::EnvironmentBusy, format!("somebody else removes packages on {} all the time", connection.name())))
    }
}

/// Lets the interpreter there open every C module.
async fn check(connection: &Connection, lua: &str, staged: &str, plan: &Plan) -> Result<()> {
    let modules: String = plan.items.iter().filter(|item| item.is_native()).map(|item| format!("{staged}/{}\n", item.path)).collect();
    if modules.is_empty() {
        return Ok(());
    }
    let ended = connection.run(&crate::guest::script("exec \"$1\" -e \"$2\"", &[lua, CHECK]), modules.as_bytes(), SCRIPT).await?;
    if ended.code != Some(0) {
        let said = String::from_utf8_lossy(&ended.stderr);
        let said: String = said.trim().chars().take(300).collect();
        return Err(Error::new(
            Code::DriverFailed,
            format!("{lua} on {} could not look at the modules: {}", connection.name(), said.escape_debug()),
        ));
    }
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    let problems: Vec<String> = text
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(path, why)| {
            let path = path.strip_prefix(staged).unwrap_or(path).trim_start_matches('/');
            let why: String = why.replace(&format!("{staged}/"), "").chars().take(300).collect();
            format!("{}: {}", path.escape_debug(), why.escape_debug())
        })
        .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::new(Code::SpecInvalid, format!("{lua} on {} cannot load {}", connection.name(), problems.join("; ")))
        .hint("install the libraries that are named there; nothing was changed"))
}
