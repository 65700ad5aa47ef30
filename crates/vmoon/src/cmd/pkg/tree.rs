//! What needs what: `tree` and `why`.

use super::{Of, show};
use crate::{ctx::Ctx, exit::Exit};
use serde::Serialize;
use std::collections::BTreeMap;
use vmoon_api::{Api as _, requests::ListPackages};
use vmoon_core::{Code, Error, Result, name::escape, package::RockInfo};

/// A rock and what it needs.
#[derive(Debug, PartialEq, Serialize)]
struct Node {
    name: String,
    version: String,
    /// Whether what it needs is shown elsewhere.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    repeated: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    needs: Vec<Node>,
}

/// Why a rock is there.
#[derive(Debug, Serialize)]
struct Reason {
    name: String,
    version: String,
    asked: bool,
    modules: Vec<String>,
    /// The ways from what was asked for to it.
    paths: Vec<Vec<String>>,
}

/// How many ways are listed.
const MOST: usize = 20;

async fn rocks(ctx: &Ctx, of: &Of) -> Result<Vec<RockInfo>> {
    let request = ListPackages { environment: of.name(), newer: None, offline: None };
    ctx.daemon.ask(async |client| client.list_packages(request.clone()).await).await
}

/// The names of what each rock needs, of those that are there.
fn needs(rocks: &[RockInfo]) -> BTreeMap<&str, Vec<&RockInfo>> {
    let mut needs: BTreeMap<&str, Vec<&RockInfo>> = rocks.iter().map(|rock| (rock.name.as_str(), Vec::new())).collect();
    for rock in rocks {
        for user in &rock.needed_by {
            if let Some(list) = needs.get_mut(user.as_str()) {
                list.push(rock);
            }
        }
    }
    needs
}

fn nodes(rocks: &[RockInfo]) -> Vec<Node> {
    fn node<'a>(rock: &'a RockInfo, needs: &BTreeMap<&str, Vec<&'a RockInfo>>, seen: &mut Vec<&'a str>) -> Node {
        let below = needs.get(rock.name.as_str()).map_or(&[][..], Vec::as_slice);
        let repeated = seen.contains(&rock.name.as_str()) && !below.is_empty();
        let mut list = Vec::new();
        if !repeated {
            seen.push(&rock.name);
            list = below.iter().map(|rock| node(rock, needs, seen)).collect();
        }
        Node { name: rock.name.clone(), version: rock.version.clone(), repeated, needs: list }
    }
    let needs = needs(rocks);
    let mut seen = Vec::new();
    let roots = rocks.iter().filter(|rock| rock.asked || rock.needed_by.is_empty());
    let mut all: Vec<Node> = roots.map(|rock| node(rock, &needs, &mut seen)).collect();
    // What only needs itself in a circle hangs on nothing.
    for rock in rocks {
        if !seen.contains(&rock.name.as_str()) {
            all.push(node(rock, &needs, &mut seen));
        }
    }
    all
}

fn draw(nodes: &[Node], before: &str, lines: &mut Vec<String>) {
    for (at, node) in nodes.iter().enumerate() {
        let last = at + 1 == nodes.len();
        let (mark, more) = if last { ("└ ", "  ") } else { ("├ ", "│ ") };
        let repeated = if node.repeated { " (shown above)" } else { "" };
        lines.push(format!("{before}{mark}{} {}{repeated}", escape(&node.name), escape(&node.version)));
        draw(&node.needs, &format!("{before}{more}"), lines);
    }
}

/// Shows what needs what.
pub(super) async fn tree(ctx: &Ctx, of: &Of) -> Result<Exit> {
    let nodes = nodes(&rocks(ctx, of).await?);
    if ctx.out.format().is_machine() {
        ctx.out.one(&nodes, "", &[])?;
        return Ok(Exit::OK);
    }
    let mut lines = Vec::new();
    for node in &nodes {
        lines.push(format!("{} {}", escape(&node.name), escape(&node.version)));
        draw(&node.needs, "", &mut lines);
    }
    if lines.is_empty() {
        ctx.out.note("nothing is installed");
        return Ok(Exit::OK);
    }
    ctx.out.line(&lines.join("\n"))?;
    Ok(Exit::OK)
}

/// The ways from what was asked for to a rock, each without a circle.
fn paths(rocks: &[RockInfo], name: &str) -> Vec<Vec<String>> {
    let by_name: BTreeMap<&str, &RockInfo> = rocks.iter().map(|rock| (rock.name.as_str(), rock)).collect();
    let mut found = Vec::new();
    let mut open = vec![vec![name.to_owned()]];
    while let Some(way) = open.pop() {
        let Some(rock) = way.last().and_then(|last| by_name.get(last.as_str())) else { continue };
        if rock.asked && way.len() > 1 {
            found.push(way.iter().rev().cloned().collect());
        }
        if found.len() >= MOST || open.len() > 1_000 {
            break;
        }
        for user in &rock.needed_by {
            if !way.contains(user) {
                open.push(way.iter().cloned().chain([user.clone()]).collect());
            }
        }
    }
    found.sort_by_key(|way: &Vec<String>| (way.len(), way.clone()));
    found
}

/// Says why a package is there.
pub(super) async fn why(ctx: &Ctx, name: &str, of: &Of) -> Result<Exit> {
    let rocks = rocks(ctx, of).await?;
    let wanted = name.to_lowercase();
    let named = rocks.iter().find(|rock| rock.name == wanted);
    let Some(rock) = named.or_else(|| rocks.iter().find(|rock| rock.modules.iter().any(|module| module == name))) else {
        return Err(Error::new(Code::PackageNotFound, format!("no package or module named \"{}\" is installed", escape(name)))
            .hint("see what is: vmoon pkg list"));
    };
    let reason = Reason {
        name: rock.name.clone(),
        version: rock.version.clone(),
        asked: rock.asked,
        modules: rock.modules.clone(),
        paths: paths(&rocks, &rock.name),
    };
    let mut rows = vec![("package".to_owned(), format!("{} {}", reason.name, reason.version)), ("why".to_owned(), show::why(rock))];
    rows.extend(reason.paths.iter().map(|way| ("through".to_owned(), escape(&way.join(" → ")))));
    ctx.out.one(&reason, &reason.name, &rows)?;
    Ok(Exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rock(name: &str, asked: bool, needed_by: &[&str]) -> RockInfo {
        RockInfo {
            name: name.into(),
            version: "1-1".into(),
            arch: "all".into(),
            asked,
            needed_by: needed_by.iter().map(ToString::to_string).collect(),
            dependencies: Vec::new(),
            modules: Vec::new(),
            url: String::new(),
            sha256: String::new(),
            newer: None,
            unasked: Vec::new(),
        }
    }

    #[test]
    fn trees_end_also_where_rocks_need_each_other() {
        let rocks = [rock("a", true, &[]), rock("b", false, &["a", "c"]), rock("c", false, &["a", "b"]), rock("lone", false, &["lone"])];
        let mut lines = Vec::new();
        draw(&nodes(&rocks), "", &mut lines);
        assert_eq!(
            lines,
            [
                "├ a 1-1",
                "│ ├ b 1-1",
                "│ │ └ c 1-1",
                "│ │   └ b 1-1 (shown above)",
                "│ └ c 1-1 (shown above)",
                "└ lone 1-1",
                "  └ lone 1-1 (shown above)"
            ]
        );
        assert_eq!(paths(&rocks, "c"), [vec!["a", "c"], vec!["a", "b", "c"]]);
    }
}
