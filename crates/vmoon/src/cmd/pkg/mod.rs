//! `vmoon pkg`: packages of environments.

mod change;
mod server;
mod show;
mod tree;

pub(crate) use change::{Changing, Offline, Without, apply, ask, ended, request, show_plan, tell, would_apply};

use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{table::View, time},
};
use vmoon_api::{Api as _, requests::*};
use vmoon_core::{Result, package::Change};

/// The environment that was chosen with `vmoon env use`.
pub(crate) const CHOSEN: &str = "@";

const EXAMPLES: &str = "Examples:
  vmoon pkg search json
  vmoon pkg install lua-cjson 'lpeg >= 1.0' --env work
  vmoon pkg update --all --dry-run
  vmoon pkg why lpeg";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

/// Of which environment.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Of {
    /// The environment [env: VMOON_ENV; default: the one chosen with `vmoon env use`, else `default`]
    #[arg(long, value_name = "ENVIRONMENT", add = crate::cmd::completions::environments())]
    env: Option<String>,
}

impl Of {
    /// Its name, or what stands for the chosen one.
    pub(crate) fn name(&self) -> String {
        let variable = || std::env::var("VMOON_ENV").ok().filter(|name| !name.is_empty());
        self.env.clone().or_else(variable).unwrap_or_else(|| CHOSEN.to_owned())
    }

    /// Its name, if one was named on the command line.
    fn named(&self) -> Option<String> {
        self.env.clone()
    }
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Look for packages by name, description and label
    #[command(after_help = "Examples:\n  vmoon pkg search json\n  vmoon pkg search http client --offline -o json")]
    Search {
        /// Words, all of which are to be found; all packages if there are none
        #[arg(value_name = "WORD")]
        words: Vec<String>,
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        offline: Offline,
        #[command(flatten)]
        view: View,
    },
    /// Show one package: versions, what it needs, which modules it gives
    #[command(visible_alias = "show", after_help = "Examples:\n  vmoon pkg info lua-cjson\n  vmoon pkg info bio-utils -o json")]
    Info {
        /// The package
        #[arg(value_name = "PACKAGE", add = crate::cmd::completions::packages())]
        package: String,
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        offline: Offline,
    },
    /// List what is installed
    #[command(visible_alias = "ls", after_help = "Examples:\n  vmoon pkg list\n  vmoon pkg list --env work --outdated")]
    List {
        /// Only what has newer versions
        #[arg(long)]
        outdated: bool,
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        offline: Offline,
        #[command(flatten)]
        view: View,
    },
    /// Install packages and what they need
    #[command(
        visible_alias = "add",
        after_help = "Examples:\n  vmoon pkg install lua-cjson luafilesystem\n  vmoon pkg install lpeg@1.1.0 'penlight >= 1.13' --env work --dry-run\n  vmoon pkg install lua-cjson --machine lab        for a machine, also while it runs"
    )]
    Install {
        /// The packages: NAME, NAME@VERSION, or NAME with constraints such as 'lpeg >= 1.0, < 2'
        #[arg(value_name = "PACKAGE", required = true, add = crate::cmd::completions::packages())]
        packages: Vec<String>,
        #[command(flatten)]
        without: Without,
        #[command(flatten)]
        changing: Changing,
    },
    /// Take newer versions of packages and of what they need
    #[command(
        visible_alias = "upgrade",
        after_help = "Examples:\n  vmoon pkg update lua-cjson\n  vmoon pkg update --all --env work --dry-run"
    )]
    Update {
        /// The packages
        #[arg(value_name = "PACKAGE", required_unless_present = "all", add = crate::cmd::completions::installed())]
        packages: Vec<String>,
        /// All of them
        #[arg(long, conflicts_with = "packages")]
        all: bool,
        #[command(flatten)]
        without: Without,
        #[command(flatten)]
        changing: Changing,
    },
    /// Take packages away
    #[command(visible_alias = "remove", after_help = "Examples:\n  vmoon pkg rm penlight\n  vmoon pkg rm --orphans --env work --yes")]
    Rm {
        /// The packages
        #[arg(value_name = "PACKAGE", required_unless_present = "orphans", add = crate::cmd::completions::installed())]
        packages: Vec<String>,
        /// Also what nobody asked for and nothing needs any more
        #[arg(long)]
        orphans: bool,
        #[command(flatten)]
        changing: Changing,
    },
    /// Show what needs what
    #[command(after_help = "Examples:\n  vmoon pkg tree\n  vmoon pkg tree --env work")]
    Tree {
        #[command(flatten)]
        of: Of,
    },
    /// Say why a package, or the package of a module, is there
    #[command(after_help = "Examples:\n  vmoon pkg why lpeg\n  vmoon pkg why cjson        by the name of a module")]
    Why {
        /// The package or module
        #[arg(value_name = "NAME", add = crate::cmd::completions::installed())]
        name: String,
        #[command(flatten)]
        of: Of,
    },
    /// Print the lock: exact versions, addresses and checksums
    #[command(after_help = "Examples:\n  vmoon pkg lock > rocks.lock\n  vmoon pkg lock --env work -o json")]
    Lock {
        #[command(flatten)]
        of: Of,
    },
    /// Bring the files to what the lock says
    #[command(after_help = "Examples:\n  vmoon pkg sync\n  vmoon pkg sync --env work --offline")]
    Sync {
        #[command(flatten)]
        changing: Changing,
    },
    /// Compare the files with the lock
    #[command(after_help = "Examples:\n  vmoon pkg verify\n  vmoon pkg verify --env work -o json")]
    Verify {
        #[command(flatten)]
        of: Of,
    },
    /// Say what the caches of downloads and builds hold, or empty them
    #[command(after_help = "Examples:\n  vmoon pkg cache\n  vmoon pkg cache --clear")]
    Cache {
        /// Empty them
        #[arg(long)]
        clear: bool,
    },
    /// Say what was done with an environment
    #[command(after_help = "Examples:\n  vmoon pkg history\n  vmoon pkg history --env work -o json")]
    History {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        view: View,
    },
    /// Add, remove, list and order rocks servers
    Server(server::Args),
}

/// Runs the verb.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    match args.verb {
        Verb::Search { words, of, offline, view } => show::search(ctx, &words, &of, offline, &view).await,
        Verb::Info { package, of, offline } => show::info(ctx, package, &of, offline).await,
        Verb::List { outdated, of, offline, view } => show::list(ctx, outdated, &of, offline, &view).await,
        Verb::Install { packages, without, changing } => {
            change::run(ctx, &Changing { without, ..changing }, Change::Install { packages }).await
        }
        Verb::Update { packages, all: _, without, changing } => {
            change::run(ctx, &Changing { without, ..changing }, Change::Update { packages }).await
        }
        Verb::Rm { packages, orphans, changing } => change::run(ctx, &changing, Change::Remove { packages, orphans }).await,
        Verb::Sync { changing } => change::run(ctx, &changing, Change::Sync).await,
        Verb::Tree { of } => tree::tree(ctx, &of).await,
        Verb::Why { name, of } => tree::why(ctx, &name, &of).await,
        Verb::Lock { of } => {
            let lock = lock(ctx, &of.name()).await?;
            if ctx.out.format().is_machine() {
                ctx.out.one(&lock, "", &[])?
            } else {
                ctx.out.bytes(lock.lock.as_bytes())?
            }
            Ok(Exit::OK)
        }
        Verb::Verify { of } => show::verify(ctx, &of).await,
        Verb::Cache { clear } => cache(ctx, clear).await,
        Verb::History { of, view } => show::history(ctx, &of, &view).await,
        Verb::Server(args) => server::run(ctx, args).await,
    }
}

/// The lock of an environment.
pub(crate) async fn lock(ctx: &Ctx, environment: &str) -> Result<vmoon_api::views::LockView> {
    let request = EnvironmentRef { environment: environment.to_owned() };
    ctx.daemon.ask(async |client| client.read_lock(request.clone()).await).await
}

fn files(n: u64) -> String {
    crate::out::count(n, "file", "files")
}

async fn cache(ctx: &Ctx, clear: bool) -> Result<Exit> {
    let info = if clear {
        ctx.daemon.ask(async |client| client.clear_cache(Empty {}).await).await?
    } else {
        ctx.daemon.ask(async |client| client.show_cache(Empty {}).await).await?
    };
    if clear && !ctx.out.format().is_machine() {
        ctx.out.changed(&format!("removed {}, {}", files(info.files + info.built), time::bytes(info.bytes + info.built_bytes)))?;
        return Ok(Exit::OK);
    }
    let rows = [
        ("directory", info.directory.clone()),
        ("downloads", format!("{}, {}", files(info.files), time::bytes(info.bytes))),
        ("built rocks", format!("{}, {}", files(info.built), time::bytes(info.built_bytes))),
    ];
    ctx.out.one(&info, &info.directory, &rows.map(|(name, value)| (name.to_owned(), value)))?;
    Ok(Exit::OK)
}
