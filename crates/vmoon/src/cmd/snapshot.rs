//! `vmoon snapshot`: states of machines to return to.

use super::work::{self, WorkArgs};
use crate::{ctx::Ctx, exit::Exit, out, out::time};
use std::collections::HashMap;
use vmoon_api::{
    Api as _,
    requests::{CreateSnapshot, MachineRef, SnapshotRef},
};
use vmoon_core::{Code, Error, Result, ability::Snapshot, name::escape};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon snapshot create db before-upgrade
  vmoon snap list db
  vmoon snap revert db before-upgrade --yes")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a snapshot of a machine
    #[command(
        visible_alias = "new",
        after_help = "Examples:
  vmoon snapshot create db before-upgrade
  vmoon snap create kvm:db disks --disk-only --dry-run"
    )]
    Create {
        /// The machine
        #[arg(value_name = "MACHINE", add = super::completions::machines())]
        machine: String,
        /// The snapshot's name
        #[arg(value_name = "SNAPSHOT")]
        name: String,
        /// Keep the running state, too; fail where that cannot be done
        #[arg(long)]
        memory: bool,
        /// Keep the disks only
        #[arg(long, conflicts_with = "memory")]
        disk_only: bool,
        #[command(flatten)]
        work: WorkArgs,
    },
    /// List a machine's snapshots as a tree; * is where it goes on from
    #[command(visible_alias = "ls", after_help = "Examples:\n  vmoon snapshot list db\n  vmoon snap ls db -o json")]
    List {
        /// The machine
        #[arg(value_name = "MACHINE", add = super::completions::machines())]
        machine: String,
    },
    /// Return to a snapshot; what the machine was since is lost
    #[command(
        after_help = "Examples:\n  vmoon snapshot revert db before-upgrade\n  vmoon snap revert db before-upgrade --yes --timeout 2m"
    )]
    Revert {
        /// The machine
        #[arg(value_name = "MACHINE", add = super::completions::machines())]
        machine: String,
        /// The snapshot
        #[arg(value_name = "SNAPSHOT")]
        name: String,
        /// Do not ask; needed where there is no terminal to ask on
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        work: WorkArgs,
    },
    /// Delete a snapshot; its children stay
    #[command(
        visible_alias = "delete",
        after_help = "Examples:\n  vmoon snapshot rm db before-upgrade\n  vmoon snap rm db old --yes --dry-run"
    )]
    Rm {
        /// The machine
        #[arg(value_name = "MACHINE", add = super::completions::machines())]
        machine: String,
        /// The snapshot
        #[arg(value_name = "SNAPSHOT")]
        name: String,
        /// Do not ask; needed where there is no terminal to ask on
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        work: WorkArgs,
    },
}

/// Runs the verb.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    match args.verb {
        Verb::Create { machine, name, memory, disk_only, work } => {
            let memory = match (memory, disk_only) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            };
            let request =
                CreateSnapshot { machine, name: name.clone(), memory, dry_run: work.dry_run, deadline_ms: work.wait.deadline_ms()? };
            let view = ctx.daemon.ask_once(async |client| client.create_snapshot(request.clone()).await).await?;
            work::done(ctx, &work, view, &format!("making the snapshot {name}"), &format!("made the snapshot {name}")).await
        }
        Verb::List { machine } => {
            let request = MachineRef { machine: machine.clone() };
            let snapshots = ctx.daemon.ask(async |client| client.list_snapshots(request.clone()).await).await?;
            list(ctx, &machine, &snapshots)
        }
        Verb::Revert { machine, name, yes, work } => {
            let question = format!("Return {} to {}? What it was since is lost.", escape(&machine), escape(&name));
            if !agreed(ctx, yes || work.dry_run, &question)? {
                return Ok(Exit(Code::Cancelled.exit()));
            }
            let request = SnapshotRef { machine, snapshot: name.clone(), dry_run: work.dry_run, deadline_ms: work.wait.deadline_ms()? };
            let view = ctx.daemon.ask_once(async |client| client.revert_snapshot(request.clone()).await).await?;
            let shown = escape(&name);
            work::done(ctx, &work, view, &format!("returning to {shown}"), &format!("returned to {shown}")).await
        }
        Verb::Rm { machine, name, yes, work } => {
            let question = format!("Delete the snapshot {} of {}?", escape(&name), escape(&machine));
            if !agreed(ctx, yes || work.dry_run, &question)? {
                return Ok(Exit(Code::Cancelled.exit()));
            }
            let request = SnapshotRef { machine, snapshot: name.clone(), dry_run: work.dry_run, deadline_ms: work.wait.deadline_ms()? };
            let view = ctx.daemon.ask_once(async |client| client.delete_snapshot(request.clone()).await).await?;
            let shown = escape(&name);
            work::done(ctx, &work, view, &format!("deleting the snapshot {shown}"), &format!("deleted the snapshot {shown}")).await
        }
    }
}

fn agreed(ctx: &Ctx, yes: bool, question: &str) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    let agreed = out::confirm(question)
        .ok_or_else(|| Error::new(Code::Usage, "this needs a yes, and there is no terminal to ask on").hint("add --yes if you are sure"))?;
    if !agreed {
        ctx.out.note("nothing was changed");
    }
    Ok(agreed)
}

fn list(ctx: &Ctx, machine: &str, snapshots: &[Snapshot]) -> Result<Exit> {
    if ctx.out.format().is_machine() {
        let values: Vec<serde_json::Value> = snapshots.iter().map(|one| serde_json::to_value(one).unwrap_or_default()).collect();
        if ctx.out.format() == out::Format::Name {
            for snapshot in snapshots {
                ctx.out.line(&escape(&snapshot.name))?;
            }
            return Ok(Exit::OK);
        }
        ctx.out.values(&values)?;
        return Ok(Exit::OK);
    }
    if snapshots.is_empty() {
        ctx.out.note(&format!("{} has no snapshots", escape(machine)));
    }
    for line in tree(snapshots) {
        ctx.out.line(&line)?;
    }
    Ok(Exit::OK)
}

/// The snapshots, each below its parent. One whose parent is not among them is a root; a circle, which no driver should tell of, is shown flat.
fn tree(snapshots: &[Snapshot]) -> Vec<String> {
    let places: HashMap<&str, usize> = snapshots.iter().enumerate().map(|(at, one)| (one.name.as_str(), at)).collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); snapshots.len()];
    let mut roots = Vec::new();
    for (at, one) in snapshots.iter().enumerate() {
        match one.parent.as_deref().and_then(|parent| places.get(parent)).filter(|parent| **parent != at) {
            Some(parent) => children[*parent].push(at),
            None => roots.push(at),
        }
    }
    let (mut lines, mut seen) = (Vec::new(), vec![false; snapshots.len()]);
    let mut stack: Vec<(usize, usize)> = roots.into_iter().rev().map(|at| (at, 0)).collect();
    let mut rest = (0..snapshots.len()).rev().collect::<Vec<_>>();
    loop {
        let (at, depth) = match stack.pop() {
            Some(next) => next,
            // What was not reached from a root.
            None => match rest.pop() {
                Some(at) => (at, 0),
                None => return lines,
            },
        };
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        let one = &snapshots[at];
        let mark = if one.current { "* " } else { "" };
        let with = if one.memory { "running" } else { "disks" };
        let note = if one.note.is_empty() { String::new() } else { format!("  {}", escape(&one.note)) };
        lines.push(format!("{}{mark}{}  {}  {with}{note}", "  ".repeat(depth), escape(&one.name), time::utc(one.created_ms)));
        stack.extend(children[at].iter().rev().map(|child| (*child, depth + 1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(name: &str, parent: Option<&str>, current: bool) -> Snapshot {
        Snapshot { name: name.into(), parent: parent.map(Into::into), created_ms: 0, memory: false, current, note: String::new() }
    }

    #[test]
    fn snapshots_stand_below_their_parents_and_circles_end() {
        let all = [
            snapshot("a", None, false),
            snapshot("b", Some("a"), false),
            snapshot("c", Some("a"), false),
            snapshot("d", Some("b"), true),
            snapshot("lost", Some("gone"), false),
            snapshot("x\u{1b}", Some("y"), false),
            snapshot("y", Some("x\u{1b}"), false),
        ];
        let shown: Vec<String> = tree(&all).iter().map(|line| line.replace("  1970-01-01T00:00:00Z  disks", "")).collect();
        assert_eq!(shown[..5], ["a", "  b", "    * d", "  c", "lost"]);
        assert_eq!(shown[5..], ["x\\u{1b}", "  y"]);
    }
}
