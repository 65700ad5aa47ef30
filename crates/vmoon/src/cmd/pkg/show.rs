//! Verbs that only read: search, info, list, verify, history.

use super::{Of, change::Offline};
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{
        table::{Cell, Column, View},
        time,
    },
};
use vmoon_api::{
    Api as _,
    requests::{EnvironmentRef, ListPackages, PackageRef, SearchPackages},
};
use vmoon_core::{
    Code, Result,
    name::escape,
    package::{FoundRock, HistoryEntry, RockInfo},
};

const FOUND: &[Column<FoundRock>] = &[
    Column { name: "name", wide: false, get: |r| Cell::text(&r.name) },
    Column { name: "version", wide: false, get: |r| Cell::text(&r.version) },
    Column { name: "installed", wide: false, get: |r| r.installed.as_ref().map_or(Cell::Empty, Cell::text) },
    Column { name: "summary", wide: false, get: |r| text(&r.summary) },
    Column { name: "server", wide: true, get: |r| Cell::text(&r.server) },
    Column { name: "modules", wide: true, get: |r| text(&r.modules.join(",")) },
    Column { name: "labels", wide: true, get: |r| text(&r.labels.join(",")) },
];

const ROCKS: &[Column<RockInfo>] = &[
    Column { name: "name", wide: false, get: |r| Cell::text(&r.name) },
    Column { name: "version", wide: false, get: |r| Cell::text(&r.version) },
    Column { name: "why", wide: false, get: |r| Cell::text(why(r)) },
    Column { name: "modules", wide: false, get: |r| text(&short(&r.modules)) },
    Column { name: "arch", wide: true, get: |r| Cell::text(&r.arch) },
    Column { name: "needs", wide: true, get: |r| text(&r.dependencies.join("; ")) },
    Column { name: "url", wide: true, get: |r| Cell::text(&r.url) },
];

const OUTDATED: &[Column<RockInfo>] = &[
    Column { name: "name", wide: false, get: |r| Cell::text(&r.name) },
    Column { name: "version", wide: false, get: |r| Cell::text(&r.version) },
    Column { name: "allowed", wide: false, get: |r| r.newer.as_ref().and_then(|n| n.allowed.as_ref()).map_or(Cell::Empty, Cell::text) },
    Column { name: "newest", wide: false, get: |r| r.newer.as_ref().map_or(Cell::Empty, |n| Cell::text(&n.newest)) },
    Column { name: "why", wide: false, get: |r| Cell::text(why(r)) },
];

const HISTORY: &[Column<HistoryEntry>] = &[
    Column { name: "generation", wide: false, get: |h| Cell::Number(h.generation, None) },
    Column { name: "at", wide: false, get: |h| Cell::Number(h.at_ms, Some(time::utc(h.at_ms))) },
    Column { name: "what", wide: false, get: |h| Cell::text(&h.what) },
    Column { name: "changes", wide: false, get: |h| text(&h.changes.join(", ")) },
];

fn text(text: &str) -> Cell {
    if text.is_empty() { Cell::Empty } else { Cell::text(text) }
}

/// A list that fits a column.
fn short(list: &[String]) -> String {
    const MOST: usize = 4;
    let mut shown = list.iter().take(MOST).cloned().collect::<Vec<_>>().join(",");
    if list.len() > MOST {
        shown.push_str(&format!(" +{}", list.len() - MOST));
    }
    shown
}

/// Why a rock is there, in a few words.
pub(super) fn why(rock: &RockInfo) -> String {
    match (rock.asked, rock.needed_by.is_empty()) {
        (true, _) => "asked for".into(),
        (false, false) => format!("for {}", short(&rock.needed_by)),
        (false, true) => "orphan".into(),
    }
}

/// Warns of servers that could not be asked.
fn unasked(ctx: &Ctx, servers: Option<&[String]>) {
    for server in servers.unwrap_or_default() {
        ctx.out.warn(&escape(server));
    }
}

/// Looks for packages.
pub(super) async fn search(ctx: &Ctx, words: &[String], of: &Of, offline: Offline, view: &View) -> Result<Exit> {
    let request = SearchPackages { query: words.join(" "), environment: of.name(), offline: offline.wanted().then_some(true) };
    let found = ctx.daemon.ask(async |client| client.search_packages(request.clone()).await).await?;
    if found.is_empty() {
        ctx.out.note("nothing was found");
    }
    unasked(ctx, found.first().map(|rock| &*rock.unasked));
    ctx.out.list(found, FOUND, view)?;
    Ok(Exit::OK)
}

/// Shows one package.
pub(super) async fn info(ctx: &Ctx, package: String, of: &Of, offline: Offline) -> Result<Exit> {
    let request = PackageRef { package, environment: of.name(), offline: offline.wanted().then_some(true) };
    let found = ctx.daemon.ask(async |client| client.show_package(request.clone()).await).await?;
    unasked(ctx, Some(&found.unasked));
    let mut rows = vec![("name".to_owned(), found.name.clone()), ("version".to_owned(), found.version.clone())];
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push((name.to_owned(), value));
        }
    };
    add("installed", found.installed.clone().unwrap_or_default());
    add("summary", found.summary.clone());
    add("modules", found.modules.join(", "));
    add("needs", found.dependencies.join("; "));
    add("build", found.build.clone());
    add("server", found.server.clone());
    add("license", found.license.clone());
    add("homepage", found.homepage.clone());
    add("labels", found.labels.join(", "));
    add("versions", short(&found.versions));
    add("goes with", found.recommended.join("; "));
    add("about", found.description.clone());
    ctx.out.one(&found, &found.name, &rows)?;
    Ok(Exit::OK)
}

/// Lists what is installed.
pub(super) async fn list(ctx: &Ctx, outdated: bool, of: &Of, offline: Offline, view: &View) -> Result<Exit> {
    let request = ListPackages { environment: of.name(), newer: outdated.then_some(true), offline: offline.wanted().then_some(true) };
    let mut rocks = ctx.daemon.ask(async |client| client.list_packages(request.clone()).await).await?;
    unasked(ctx, rocks.first().map(|rock| &*rock.unasked));
    if outdated {
        rocks.retain(|rock| rock.newer.is_some());
    }
    ctx.out.list(rocks, if outdated { OUTDATED } else { ROCKS }, view)?;
    Ok(Exit::OK)
}

/// Compares the files with the lock.
pub(super) async fn verify(ctx: &Ctx, of: &Of) -> Result<Exit> {
    let request = EnvironmentRef { environment: of.name() };
    let found = ctx.daemon.ask(async |client| client.verify_environment(request.clone()).await).await?;
    let mut rows = vec![
        ("environment".to_owned(), found.environment.clone()),
        ("generation".to_owned(), found.generation.to_string()),
        ("files".to_owned(), found.files.to_string()),
    ];
    for one in &found.differences {
        let of = one.rock.as_ref().map(|rock| format!(" ({rock})")).unwrap_or_default();
        rows.push((one.what.clone(), escape(&format!("{}{of}", one.file))));
    }
    if found.differences.is_empty() {
        rows.push(("result".to_owned(), "as the lock says".to_owned()));
    }
    ctx.out.one(&found, &found.environment, &rows)?;
    if found.differences.is_empty() {
        return Ok(Exit::OK);
    }
    ctx.out.hint("bring the files to what the lock says: vmoon pkg sync");
    Ok(Exit(Code::EnvironmentDamaged.exit()))
}

/// Says what was done.
pub(super) async fn history(ctx: &Ctx, of: &Of, view: &View) -> Result<Exit> {
    let request = EnvironmentRef { environment: of.name() };
    let entries = ctx.daemon.ask(async |client| client.environment_history(request.clone()).await).await?;
    ctx.out.list(entries, HISTORY, view)?;
    Ok(Exit::OK)
}
