//! `vmoon cp`: files and directories into and out of the work directory of a machine, running or not.
//!
//! What is to be copied is found first, then copied, a few files at a time. A file gets its name when it is whole. Names and
//! kinds in a machine are its own word and are checked again here; links are never followed, in neither direction, but for a
//! link that the user names on this side.

mod local;
mod remote;
mod side;

use super::lifecycle;
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{self, Format, progress::Progress, time},
    select::{Picked, Targets},
    wait::Interrupts,
};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use side::Side;
use std::{cell::RefCell, ffi::OsString, path::PathBuf};
use vmoon_api::{Api as _, files::path_to_text, requests::Empty};
use vmoon_core::{Code, Error, Result, name::escape};

const EXAMPLES: &str = "Examples:
  vmoon cp data.csv lab:                 into the work directory of lab
  vmoon cp -r models lab:in/models
  vmoon cp lab:result.json .
  vmoon cp -r 'fold-*:out' results       from many: results/fold-001/out, ...
  vmoon cp -r lab:out results --dry-run

Directories that are missing on the way to DST are made. A path with a colon on this side is written with a slash before it: ./a:b. Symbolic links, sockets and devices are not copied.";

/// How many files of one machine are on their way at once.
const AT_ONCE: usize = 8;
/// How many names one copy may be about: a machine that makes them faster than we copy ends here.
const MOST: usize = 1_000_000;
/// How deep directories may be.
const DEEPEST: usize = 128;

/// From where to where.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to copy: a path on this computer, or MACHINE:PATH, or CONNECTION:MACHINE:PATH
    #[arg(value_name = "SRC")]
    from: OsString,
    /// Where to: a path on this computer, or MACHINE:PATH; globs and braces put it into many machines
    #[arg(value_name = "DST")]
    to: OsString,
    /// Copy directories with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// Say what would be copied and copy nothing
    #[arg(long)]
    dry_run: bool,
}

/// One thing to copy; both paths are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// The path in the machine, plain bytes.
    remote: Vec<u8>,
    /// The path on this computer.
    local: PathBuf,
    /// Its length, bytes; `None` for a directory.
    size: Option<u64>,
    /// Its permission bits.
    mode: u32,
    /// Whether the user named it, so that a link on this side may be followed.
    named: bool,
}

/// What is to be copied, and what will not be.
#[derive(Debug, Default)]
pub(super) struct Found {
    items: Vec<Item>,
    refused: Vec<Error>,
}

impl Found {
    /// Adds one, unless there are too many already.
    fn add(&mut self, item: Item) -> Result<()> {
        if self.items.len() >= MOST {
            return Err(Error::new(Code::FileRefused, "more than a million names are to be copied").hint("pack them into one file first"));
        }
        self.items.push(item);
        Ok(())
    }
}

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Into a machine.
    In,
    /// Out of it.
    Out,
}

/// What was copied, or would be.
#[derive(Clone, Debug, Default, Serialize)]
struct Summary {
    machine: String,
    files: u64,
    directories: u64,
    bytes: u64,
    failed: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    plan: Vec<Line>,
}

/// One line of a plan.
#[derive(Clone, Debug, Serialize)]
struct Line {
    from: String,
    to: String,
    size: Option<u64>,
}

impl lifecycle::Value for Summary {
    fn value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// The machines that are meant, and the path in them. What is before the first colon is a machine; if none has that name, it may be the connection of one.
async fn meant(ctx: &Ctx, text: String, path: Vec<u8>) -> Result<(String, Vec<u8>)> {
    let Some(qualified) = side::qualified(&text, &path) else { return Ok((text, path)) };
    let known = ctx.daemon.ask(async |client| client.list_machines(Empty {}).await).await?;
    let connection = known.iter().any(|machine| machine.connection == text) && !known.iter().any(|machine| machine.name == text);
    Ok(if connection { qualified } else { (text, path) })
}

/// Copies.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let (way, text, path, here) = match (Side::of(&args.from)?, Side::of(&args.to)?) {
        (Side::Here(here), Side::Machine { target, path }) => (Way::In, target, path, here),
        (Side::Machine { target, path }, Side::Here(here)) => (Way::Out, target, path, here),
        (Side::Here(_), Side::Here(_)) => {
            return Err(Error::new(Code::Usage, "neither side names a machine").hint("write MACHINE:PATH, for example lab:data.csv"));
        }
        (Side::Machine { .. }, Side::Machine { .. }) => {
            return Err(Error::new(Code::Usage, "both sides name a machine").hint("copy out of the one, then into the other"));
        }
    };
    let (text, path) = meant(ctx, text, path).await?;
    let selection = Targets { machines: vec![text], all: false }.find(&ctx.daemon).await?;
    let several = !selection.single;
    let exit = RefCell::new(Exit::OK);
    let mut interrupts = Interrupts::listen()?;
    let job = Job { ctx, way, path: &path, here: &here, recursive: args.recursive, several, dry_run: args.dry_run, exit: &exit };
    let work = lifecycle::bulk(
        ctx,
        selection.machines,
        selection.single,
        |picked: Picked| job.machine(picked),
        |ctx: &Ctx, summary: &Summary| tell(ctx, summary),
        "copying with",
    );
    let copied = tokio::select! {
        copied = work => copied?,
        // Dropping the work ends what is on its way: no half of a file keeps its name.
        () = interrupts.once() => return Err(Error::new(Code::Cancelled, "stopped; files that were whole by then are kept")),
    };
    Ok(copied.worse(exit.into_inner()))
}

/// What is the same for every machine of one run.
#[derive(Clone, Copy)]
struct Job<'a> {
    ctx: &'a Ctx,
    way: Way,
    path: &'a [u8],
    here: &'a std::path::Path,
    recursive: bool,
    several: bool,
    dry_run: bool,
    exit: &'a RefCell<Exit>,
}

impl Job<'_> {
    async fn machine(self, picked: Picked) -> Result<Summary> {
        let Job { ctx, .. } = self;
        let mut inside = None;
        let found = match self.way {
            Way::In => {
                let to = remote::destination(ctx, &picked.machine, self.path, self.here).await?;
                let found = local::find(self.here, &to, self.recursive)?;
                inside = Some(to);
                found
            }
            Way::Out => {
                let name = picked.name.rsplit(':').next().unwrap_or(&picked.name);
                let here = if self.several { self.here.join(name) } else { self.here.to_path_buf() };
                let to = local::destination(&here, self.path, name, self.several)?;
                remote::find(ctx, &picked.machine, self.path, &to, self.recursive).await?
            }
        };
        let mut summary = Summary { machine: picked.name.clone(), failed: found.refused.len() as u64, ..Summary::default() };
        for error in &found.refused {
            self.failed(&picked, error);
        }
        if self.dry_run {
            for item in &found.items {
                let (remote, local) =
                    (format!("{}:{}", picked.name, path_to_text(&item.remote)), item.local.to_string_lossy().into_owned());
                let (from, to) = if self.way == Way::In { (local, remote) } else { (remote, local) };
                summary.count(item);
                summary.plan.push(Line { from, to, size: item.size });
            }
            return Ok(summary);
        }
        if self.way == Way::Out && self.several {
            local::directories(self.here)?;
        }
        if let Some(to) = inside.filter(|_| !found.items.is_empty()) {
            remote::parents(ctx, &picked.machine, &to).await?;
        }
        let total: u64 = found.items.iter().filter_map(|item| item.size).sum();
        let progress = RefCell::new((Progress::new(&ctx.out, format!("copying {}", escape(&picked.name))), 0u64));
        let moved = |bytes: usize| {
            let (progress, done) = &mut *progress.borrow_mut();
            *done += bytes as u64;
            let percent = (*done * 100).checked_div(total).map(|p| p.min(100) as u8);
            progress.tell(&format!("{} of {}", time::bytes(*done), time::bytes(total)), percent);
        };
        let (directories, files): (Vec<&Item>, Vec<&Item>) = found.items.iter().partition(|item| item.size.is_none());
        for item in directories {
            // Without its directory nothing in it can be copied: that is told once, and then for each.
            let made = match self.way {
                Way::In => remote::directory(ctx, &picked.machine, item).await,
                Way::Out => local::directory(item),
            };
            self.account(&picked, &mut summary, item, made);
        }
        let machine = picked.machine.as_str();
        let (moved, way) = (&moved, self.way);
        let mut copies = stream::iter(files)
            .map(|item| async move {
                let done = match way {
                    Way::In => remote::put(ctx, machine, item, moved).await,
                    Way::Out => remote::get(ctx, machine, item, moved).await,
                };
                (item, done)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((item, done)) = copies.next().await {
            self.account(&picked, &mut summary, item, done);
        }
        Ok(summary)
    }

    fn account(&self, picked: &Picked, summary: &mut Summary, item: &Item, done: Result<()>) {
        match done {
            Ok(()) => summary.count(item),
            Err(error) => {
                summary.failed += 1;
                self.failed(picked, &error);
            }
        }
    }

    fn failed(&self, picked: &Picked, error: &Error) {
        let worst = self.exit.borrow().worse(Exit::of(error));
        self.exit.replace(worst);
        self.ctx.out.error_of(Some(&picked.name), error);
    }
}

impl Summary {
    fn count(&mut self, item: &Item) {
        match item.size {
            Some(size) => {
                self.files += 1;
                self.bytes += size;
            }
            None => self.directories += 1,
        }
    }
}

fn tell(ctx: &Ctx, summary: &Summary) -> Result<()> {
    if ctx.out.format() == Format::Name {
        return ctx.out.line(&escape(&summary.machine));
    }
    for line in &summary.plan {
        let size = line.size.map_or_else(|| "directory".to_owned(), time::bytes);
        ctx.out.line(&format!("{} -> {} ({size})", escape(&line.from), escape(&line.to)))?;
    }
    let directories = match summary.directories {
        0 => String::new(),
        n => format!(", {}", out::count(n, "directory", "directories")),
    };
    let failed = if summary.failed > 0 { format!(", {} not copied", summary.failed) } else { String::new() };
    let what = if summary.plan.is_empty() { "copied" } else { "would copy" };
    let files = out::count(summary.files, "file", "files");
    ctx.out.changed(&format!("{}: {what} {files}{directories}, {}{failed}", escape(&summary.machine), time::bytes(summary.bytes)))
}
