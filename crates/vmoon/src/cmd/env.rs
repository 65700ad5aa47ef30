//! `vmoon env`: environments of packages.

use super::{
    completions,
    pkg::{self, Changing, Of},
    run,
};
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{
        self,
        table::{Cell, Column, View},
        time,
    },
    wait::WaitArgs,
};
use std::{io::Read as _, path::PathBuf};
use vmoon_api::{
    Api as _,
    requests::{CreateEnvironment, Empty, EnvironmentRef, MakeEnvironment},
};
use vmoon_core::{
    Code, Error, Result,
    name::escape,
    package::{Change, EnvironmentInfo, ProfileInfo},
};

/// The longest lock or list that is read, bytes.
const LONGEST: u64 = 4 << 20;

const EXAMPLES: &str = "Examples:
  vmoon env bootstrap bio --set bioxen-minimal
  vmoon env create work --lua 5.1
  vmoon env shell bio
  vmoon env rollback bio";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List environments
    #[command(visible_alias = "ls", after_help = "Examples:\n  vmoon env list\n  vmoon env list -o json")]
    List {
        #[command(flatten)]
        view: View,
    },
    /// Show one environment: packages, generations, servers, machines
    #[command(visible_alias = "info", after_help = "Examples:\n  vmoon env show\n  vmoon env show bio -o json")]
    Show {
        /// The environment; that of VMOON_ENV if not said, else the chosen one
        #[arg(value_name = "ENVIRONMENT", add = completions::environments())]
        name: Option<String>,
    },
    /// Make an environment
    #[command(visible_alias = "new", after_help = "Examples:\n  vmoon env create work\n  vmoon env create old --lua 5.1")]
    Create {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// The Lua version of its packages: 5.1 (also for LuaJIT), 5.2, 5.3, 5.4 or 5.5
        #[arg(long, value_name = "VERSION", default_value = "5.4")]
        lua: String,
        /// Say what would be done and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Choose the environment that `pkg` and `env` mean without a name
    #[command(visible_alias = "switch", after_help = "Examples:\n  vmoon env use work\n  vmoon env use default")]
    Use {
        /// The environment
        #[arg(value_name = "ENVIRONMENT", add = completions::environments())]
        name: String,
    },
    /// Delete environments that no machine uses
    #[command(visible_alias = "delete", after_help = "Examples:\n  vmoon env rm work\n  vmoon env rm old older --yes")]
    Rm {
        /// The environments
        #[arg(value_name = "ENVIRONMENT", required = true, add = completions::environments())]
        names: Vec<String>,
        /// Do not ask; needed where there is no terminal to ask on
        #[arg(short, long)]
        yes: bool,
        /// One that does not exist is deleted already
        #[arg(long)]
        missing_ok: bool,
        /// Say what would be done and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Make an environment with the packages of profiles, or add those to one
    #[command(
        after_help = "Examples:\n  vmoon env bootstrap bio --set bioxen-minimal\n  vmoon env bootstrap web --lua 5.1 --set minimal,network --dry-run\n  vmoon env bootstrap team --file team.toml\n  vmoon env bootstrap --list"
    )]
    Bootstrap {
        /// The environment
        #[arg(value_name = "ENVIRONMENT", required_unless_present = "list", add = completions::environments())]
        name: Option<String>,
        /// The profiles whose packages are installed
        #[arg(long, value_name = "PROFILES", value_delimiter = ',', required_unless_present_any = ["file", "list"], add = completions::profiles())]
        set: Vec<String>,
        /// A file that names packages, as the profiles do; - is standard input
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The Lua version of a new environment: 5.1 (also for LuaJIT), 5.2, 5.3, 5.4 or 5.5 [default: 5.4]
        #[arg(long, value_name = "VERSION")]
        lua: Option<String>,
        /// List the profiles
        #[arg(long)]
        list: bool,
        #[command(flatten)]
        without: pkg::Without,
        #[command(flatten)]
        making: Making,
    },
    /// Print an environment as a text from which it can be made anywhere: its lock, with checksums
    #[command(after_help = "Examples:\n  vmoon env export bio > bio.lock\n  vmoon env export")]
    Export {
        /// The environment; that of VMOON_ENV if not said, else the chosen one
        #[arg(value_name = "ENVIRONMENT", add = completions::environments())]
        name: Option<String>,
    },
    /// Make an environment from what `export` has printed, or from a lock: of vmoon, of LuaRocks (luarocks.lock) or of Lux (lux.lock)
    #[command(after_help = "Examples:\n  vmoon env import copy bio.lock\n  vmoon env import app luarocks.lock --lua 5.1")]
    Import {
        /// The environment
        #[arg(value_name = "ENVIRONMENT", add = completions::environments())]
        name: String,
        /// The lock; - is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The Lua version of a new environment, where the lock does not say it
        #[arg(long, value_name = "VERSION")]
        lua: Option<String>,
        #[command(flatten)]
        without: pkg::Without,
        #[command(flatten)]
        making: Making,
    },
    /// Go back to an earlier generation
    #[command(after_help = "Examples:\n  vmoon env rollback bio\n  vmoon env rollback bio --to 3 --dry-run")]
    Rollback {
        /// The environment; that of VMOON_ENV if not said, else the chosen one
        #[arg(value_name = "ENVIRONMENT", add = completions::environments())]
        name: Option<String>,
        /// The number of the generation; the one before the current if not said
        #[arg(long, value_name = "NUMBER")]
        to: Option<u64>,
        #[command(flatten)]
        making: Making,
    },
    /// Open a temporary Lua session with an environment's packages
    #[command(after_help = "Examples:\n  vmoon env shell bio\n  vmoon env shell old --runtime luajit")]
    Shell {
        /// The environment; that of VMOON_ENV if not said, else the chosen one
        #[arg(value_name = "ENVIRONMENT", add = completions::environments())]
        name: Option<String>,
        /// The Lua interpreter [default: one that suits the environment]
        #[arg(long)]
        runtime: Option<String>,
    },
    /// Make a machine use an environment, also while it runs
    #[command(after_help = "Examples:\n  vmoon env apply bio lab\n  vmoon env apply bio lab --dry-run")]
    Apply {
        /// The environment
        #[arg(value_name = "ENVIRONMENT", add = completions::environments())]
        name: String,
        /// The machine
        #[arg(value_name = "MACHINE", add = completions::machines())]
        machine: String,
        /// Say what would be done and do nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// How packages are brought into an environment that is named as an argument.
#[derive(Clone, Debug, clap::Args)]
struct Making {
    #[command(flatten)]
    offline: pkg::Offline,
    /// Say what would be done and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

impl Making {
    fn changing(&self) -> Changing {
        Changing { offline: self.offline, dry_run: self.dry_run, wait: self.wait.clone(), ..Changing::default() }
    }
}

const COLUMNS: &[Column<EnvironmentInfo>] = &[
    Column { name: "name", wide: false, get: |e| Cell::text(&e.name) },
    Column { name: "lua", wide: false, get: |e| Cell::text(&e.lua) },
    Column { name: "packages", wide: false, get: |e| Cell::Number(e.rocks, None) },
    Column { name: "generation", wide: false, get: |e| Cell::Number(e.generation, None) },
    Column { name: "chosen", wide: false, get: |e| if e.default { Cell::text("yes") } else { Cell::Empty } },
    Column { name: "machines", wide: false, get: |e| if e.machines.is_empty() { Cell::Empty } else { Cell::text(e.machines.join(",")) } },
    Column { name: "wanted", wide: true, get: |e| Cell::text(e.wanted.join("; ")) },
    Column { name: "directory", wide: true, get: |e| Cell::text(&e.directory) },
];

const PROFILES: &[Column<ProfileInfo>] = &[
    Column { name: "name", wide: false, get: |p| Cell::text(&p.name) },
    Column { name: "summary", wide: false, get: |p| Cell::text(&p.summary) },
    Column { name: "packages", wide: false, get: |p| Cell::text(p.packages.join(" ")) },
];

/// The environment that was named, else that of `VMOON_ENV`, else the chosen one.
fn named(name: Option<String>) -> String {
    name.unwrap_or_else(|| Of::default().name())
}

/// Runs the verb.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    match args.verb {
        Verb::List { view } => {
            let all = ctx.daemon.ask(async |client| client.list_environments(Empty {}).await).await?;
            ctx.out.list(all, COLUMNS, &view)?;
            Ok(Exit::OK)
        }
        Verb::Show { name } => show(ctx, named(name)).await,
        Verb::Create { name, lua, dry_run } => {
            let made = make(ctx, &name, Some(lua), dry_run).await?;
            if ctx.out.format().is_machine() {
                ctx.out.one(&made, &made.name, &[])?;
            }
            let would = if dry_run { "would create" } else { "created" };
            ctx.out.changed(&format!("{would} environment {} (Lua {})", made.name, made.lua))?;
            Ok(Exit::OK)
        }
        Verb::Use { name } => {
            let request = EnvironmentRef { environment: name };
            let chosen = ctx.daemon.ask(async |client| client.use_environment(request.clone()).await).await?;
            if ctx.out.format().is_machine() {
                ctx.out.one(&chosen, &chosen.name, &[])?;
            }
            ctx.out.changed(&format!("`pkg` and `env` mean {} now (Lua {}, {})", chosen.name, chosen.lua, rocks(chosen.rocks)))?;
            Ok(Exit::OK)
        }
        Verb::Rm { names, yes, missing_ok, dry_run } => remove(ctx, &names, yes, missing_ok, dry_run).await,
        Verb::Bootstrap { list: true, .. } => {
            let profiles = ctx.daemon.ask(async |client| client.list_profiles(Empty {}).await).await?;
            ctx.out.list(profiles, PROFILES, &View::default())?;
            Ok(Exit::OK)
        }
        Verb::Bootstrap { name, set, file, lua, without, making, .. } => {
            let file = file.map(read).transpose()?;
            let change = Change::Bootstrap { profiles: set, file };
            fill(ctx, &named(name), lua, (&making, without), change).await
        }
        Verb::Export { name } => {
            let request = EnvironmentRef { environment: named(name) };
            let lock = ctx.daemon.ask(async |client| client.export_environment(request.clone()).await).await?;
            if ctx.out.format().is_machine() {
                ctx.out.one(&lock, "", &[])?
            } else {
                ctx.out.bytes(lock.lock.as_bytes())?
            }
            Ok(Exit::OK)
        }
        Verb::Import { name, file, lua, without, making } => {
            let lock = read(file)?;
            fill(ctx, &name, lua, (&making, without), Change::Import { lock }).await
        }
        Verb::Rollback { name, to, making } => {
            let request = pkg::request(&making.changing(), &named(name), Change::Rollback { generation: to })?;
            change(ctx, &making, &request).await
        }
        Verb::Shell { name, runtime } => shell(ctx, named(name), runtime).await,
        Verb::Apply { name, machine, dry_run, wait } => {
            let applied = if dry_run {
                pkg::would_apply(ctx, &name, &machine).await?
            } else {
                let Some(applied) = pkg::apply(ctx, &name, &machine, &wait).await? else { return Ok(Exit::OK) };
                applied
            };
            if dry_run || ctx.out.format().is_machine() {
                let rows: Vec<(String, String)> =
                    applied.steps.iter().enumerate().map(|(n, step)| ((n + 1).to_string(), step.clone())).collect();
                ctx.out.one(&applied, &applied.machine, &rows)?;
            }
            if !dry_run {
                pkg::tell(ctx, &applied)?;
            }
            Ok(Exit::OK)
        }
    }
}

async fn make(ctx: &Ctx, name: &str, lua: Option<String>, dry_run: bool) -> Result<EnvironmentInfo> {
    let request = CreateEnvironment { name: name.to_owned(), lua, machine: None, dry_run };
    ctx.daemon.ask_once(async |client| client.create_environment(request.clone()).await).await
}

async fn look(ctx: &Ctx, name: &str) -> Result<EnvironmentInfo> {
    let request = EnvironmentRef { environment: name.to_owned() };
    ctx.daemon.ask(async |client| client.show_environment(request.clone()).await).await
}

async fn drop_one(ctx: &Ctx, name: &str) -> Result<()> {
    let request = EnvironmentRef { environment: name.to_owned() };
    ctx.daemon.ask(async |client| client.remove_environment(request.clone()).await).await.map(drop)
}

async fn show(ctx: &Ctx, name: String) -> Result<Exit> {
    let shown = look(ctx, &name).await?;
    let mut rows = vec![
        ("name".to_owned(), shown.name.clone()),
        ("lua".to_owned(), shown.lua.clone()),
        ("generation".to_owned(), shown.generation.to_string()),
        ("profile".to_owned(), shown.profile.clone().unwrap_or_default()),
        ("wanted".to_owned(), shown.wanted.join("; ")),
        ("servers".to_owned(), shown.servers.iter().map(|server| server.name.clone()).collect::<Vec<_>>().join(", ")),
        ("machines".to_owned(), shown.machines.join(", ")),
        ("directory".to_owned(), shown.directory.clone()),
    ];
    for rock in shown.packages.iter().flatten() {
        rows.push(("package".to_owned(), format!("{} {}", rock.name, rock.version)));
    }
    for one in shown.generations.iter().flatten() {
        let current = if one.current { " (current)" } else { "" };
        rows.push((
            "generation".to_owned(),
            format!("{}: {}, {}, {}{current}", one.number, time::utc(one.created_ms), one.what, rocks(one.rocks)),
        ));
    }
    rows.retain(|(_, value)| !value.is_empty());
    ctx.out.one(&shown, &shown.name, &rows)?;
    Ok(Exit::OK)
}

fn rocks(n: u64) -> String {
    out::count(n, "rock", "rocks")
}

async fn remove(ctx: &Ctx, names: &[String], yes: bool, missing_ok: bool, dry_run: bool) -> Result<Exit> {
    let mut found = Vec::new();
    for name in names {
        match look(ctx, name).await {
            Ok(one) => found.push(one),
            Err(error) if missing_ok && error.code() == Code::EnvironmentNotFound => {}
            Err(error) => return Err(error),
        }
    }
    if dry_run {
        let rows: Vec<(String, String)> = found
            .iter()
            .map(|one| {
                let what = match one.machines.as_slice() {
                    [] => {
                        let generations = one.generations.as_ref().map_or(0, Vec::len) as u64;
                        format!("deletes {} and {}", rocks(one.rocks), out::count(generations, "generation", "generations"))
                    }
                    machines => format!("refused: {} use it", machines.join(", ")),
                };
                (one.name.clone(), what)
            })
            .collect();
        ctx.out.one(&found, "", &rows)?;
        return Ok(Exit::OK);
    }
    if !yes && !found.is_empty() {
        let list = found.iter().map(|one| format!("{} ({})", escape(&one.name), rocks(one.rocks))).collect::<Vec<_>>().join(", ");
        let agreed = out::confirm(&format!("Delete {list} with all generations?")).ok_or_else(|| {
            Error::new(Code::Usage, "deleting needs a yes, and there is no terminal to ask on").hint("add --yes if you are sure")
        })?;
        if !agreed {
            ctx.out.note("nothing was deleted");
            return Ok(Exit(Code::Cancelled.exit()));
        }
    }
    for one in &found {
        drop_one(ctx, &one.name).await?;
        ctx.out.changed(&format!("deleted environment {}", one.name))?;
    }
    Ok(Exit::OK)
}

/// Brings packages into an environment, which is made if it is missing: with them, or not at all.
async fn fill(ctx: &Ctx, name: &str, lua: Option<String>, (making, without): (&Making, pkg::Without), what: Change) -> Result<Exit> {
    let mut request = pkg::request(&Changing { without, ..making.changing() }, name, what)?;
    match look(ctx, name).await {
        Ok(found) => {
            if let Some(lua) = lua.filter(|lua| *lua != found.lua) {
                let why = format!("the environment {} is for Lua {}, not {lua}", found.name, found.lua);
                return Err(Error::new(Code::EnvironmentExists, why).hint("take another name"));
            }
        }
        Err(error) if error.code() == Code::EnvironmentNotFound && name != pkg::CHOSEN => {
            request.make = Some(MakeEnvironment { lua: lua.or_else(|| lua_of_lock(&request.change)), machine: None });
        }
        Err(error) => return Err(error),
    }
    change(ctx, making, &request).await
}

async fn change(ctx: &Ctx, making: &Making, request: &vmoon_api::requests::ChangePackages) -> Result<Exit> {
    if making.dry_run {
        pkg::show_plan(ctx, &pkg::ask(ctx, request).await?)?;
        return Ok(Exit::OK);
    }
    if let Some(after) = pkg::ended(ctx, &making.changing(), request).await?
        && ctx.out.format().is_machine()
    {
        ctx.out.one(&after, &after.name, &[])?;
    }
    Ok(Exit::OK)
}

/// The Lua version that a lock of ours is for.
fn lua_of_lock(change: &Change) -> Option<String> {
    let Change::Import { lock } = change else { return None };
    let line = lock.lines().find_map(|line| line.strip_prefix("lua = \""))?;
    line.split_once('"').map(|(lua, _)| lua.to_owned())
}

async fn shell(ctx: &Ctx, name: String, runtime: Option<String>) -> Result<Exit> {
    let found = look(ctx, &name).await?;
    // The builtin runtime where it suits, else the interpreter of that version.
    let runtime = runtime.or_else(|| match found.lua.as_str() {
        "5.4" => None,
        "5.5" => Some("builtin-5.5".into()),
        lua => Some(format!("lua{lua}")),
    });
    let mut settings = serde_json::Map::new();
    settings.insert("env".into(), found.name.into());
    settings.extend(runtime.map(|runtime| ("runtime".to_owned(), runtime.into())));
    run::temporary(ctx, settings).await
}

/// A text file, or standard input.
fn read(path: PathBuf) -> Result<String> {
    let shown = escape(&path.to_string_lossy());
    let failed = |error| Error::io(format_args!("read {shown}"), error);
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(LONGEST + 1).read_to_string(&mut text).map_err(failed)?;
    } else {
        std::fs::File::open(&path).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text)).map_err(failed)?;
    }
    if text.len() as u64 > LONGEST {
        return Err(Error::new(Code::Usage, format!("{shown} has more than {} MiB, which no list of packages has", LONGEST >> 20)));
    }
    Ok(text)
}
