//! `vmoon` alone: what there is, and what to do next.

use super::list;
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{color::Style, table, time},
};
use serde::Serialize;
use vmoon_api::{
    Api as _,
    requests::{Empty, ListSessions},
    views::{Hello, MachineView, SessionView},
};
use vmoon_core::{Result, machine::State, name::escape};

#[derive(Serialize)]
struct Status {
    daemon: Option<Hello>,
    machines: Vec<MachineView>,
    sessions: Vec<SessionView>,
}

/// Prints it. A daemon is started only where there is something to find: a first look makes nothing.
pub(crate) async fn run(ctx: &Ctx) -> Result<Exit> {
    let mut daemon = ctx.daemon.hello_if_running().await?;
    if daemon.is_none() && ctx.daemon.paths().store().exists() {
        daemon = Some(ctx.daemon.hello().await?);
    }
    let mut status = Status { daemon, machines: vec![], sessions: vec![] };
    if status.daemon.is_some() {
        status.machines = ctx.daemon.ask(async |client| client.list_machines(Empty {}).await).await?;
        status.sessions = ctx.daemon.ask(async |client| client.list_sessions(ListSessions::default()).await).await?;
    }
    if ctx.out.format().is_machine() {
        ctx.out.one(&status, "vmoon", &[])?;
        return Ok(Exit::OK);
    }
    ctx.out.line(&head(&status))?;
    if !status.machines.is_empty() {
        ctx.out.line("")?;
        ctx.out
            .bytes(table::render(&status.machines, &list::COLUMNS.iter().take(3).collect::<Vec<_>>(), true, ctx.out.paint()).as_bytes())?;
    }
    ctx.out.line("")?;
    for (command, what) in next(&status) {
        ctx.out.line(&format!("  {}  {what}", ctx.out.paint().paint(Style::Bold, &format!("{command:<32}"))))?;
    }
    Ok(Exit::OK)
}

fn head(status: &Status) -> String {
    let Some(daemon) = &status.daemon else { return "the daemon does not run; it starts by itself when it is needed".to_owned() };
    let up = time::ago(daemon.started_ms, vmoon_sys::clock::now_ms());
    let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    format!(
        "daemon {} (process {}, up {up}), {} of which {} running, {}",
        escape(&daemon.version),
        daemon.pid,
        count(status.machines.len(), "machine"),
        daemon.running,
        count(status.sessions.len(), "session"),
    )
}

fn next(status: &Status) -> Vec<(String, &'static str)> {
    let running = status.machines.iter().find(|machine| machine.state == State::Running);
    let stopped = status.machines.iter().find(|machine| machine.state == State::Stopped);
    let mut next = Vec::new();
    if let Some(machine) = running {
        next.push((format!("vmoon attach {}", escape(&machine.name)), "work in it; Ctrl-] d detaches"));
        next.push((format!("vmoon eval {} 'return 6 * 7'", escape(&machine.name)), "evaluate in it"));
    }
    if let Some(machine) = stopped {
        next.push((format!("vmoon start {}", escape(&machine.name)), "start it"));
    }
    if status.machines.is_empty() {
        next.push(("vmoon run".into(), "open a Lua session that is gone when you leave"));
        next.push(("vmoon create lab --start".into(), "make a machine that stays"));
    }
    next.push(("vmoon help".into(), "every verb"));
    next
}
