//! `vmoon top`: what machines use and do, again and again.
//!
//! A table is drawn over the former one, at most as high as the terminal; the rest of the screen is left alone. The share of
//! a processor is that of the time since the last look.

use super::list::word;
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{
        Format,
        table::{self, Cell, Column, View},
        time,
    },
    select::all_braces,
};
use serde::Serialize;
use std::{collections::HashMap, io::IsTerminal as _, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};
use vmoon_api::{
    Api as _,
    requests::Empty,
    views::{MachineUsage, UsageView},
};
use vmoon_core::{Code, Error, MachineId, Result, target::Target, target::glob};

const EXAMPLES: &str = "Examples:
  vmoon top
  vmoon top 'fold-*' --sort -memory --interval 5s
  vmoon top --once -o json

CPU is the share of one processor since the last look; memory is the resident set, in which shared pages count whole.";

/// The time between the two looks of a single table: a processor's clock ticks every 10 ms.
const ONCE: Duration = Duration::from_millis(500);
/// The time between two looks, if nothing is said.
const INTERVAL: Duration = Duration::from_secs(2);
/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(100);

/// Which machines, and how often.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only machines whose name matches one of these globs
    #[arg(value_name = "GLOB", add = super::completions::machines())]
    names: Vec<String>,
    /// The time between two looks [default: 2s]
    #[arg(long, short = 'n', value_name = "TIME", value_parser = time::parse_duration)]
    interval: Option<Duration>,
    /// Look once; so does a run whose output is no terminal, unless --interval is given with -o json
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    view: View,
}

/// One row.
#[derive(Clone, Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    usage: MachineUsage,
    /// The share of one processor since the last look, per cent; nothing where there was no look before.
    cpu_percent: Option<f64>,
}

/// One look, for programs.
#[derive(Serialize)]
struct Look<'a> {
    at_us: u64,
    machines: &'a [Row],
}

const COLUMNS: &[Column<Row>] = &[
    Column { name: "name", wide: false, get: |r| Cell::text(&r.usage.name) },
    Column { name: "state", wide: false, get: |r| Cell::text(word(&r.usage.state)) },
    Column {
        name: "cpu",
        wide: false,
        get: |r| r.cpu_percent.map_or(Cell::Empty, |p| Cell::Number((p * 1000.0) as u64, Some(format!("{p:.1}%")))),
    },
    Column { name: "memory", wide: false, get: |r| r.usage.memory_bytes.map_or(Cell::Empty, |n| Cell::Number(n, Some(time::bytes(n)))) },
    Column { name: "commands", wide: false, get: |r| Cell::Number(r.usage.commands, None) },
    Column { name: "busy", wide: false, get: |r| Cell::Number(r.usage.busy.into(), None) },
    Column { name: "queued", wide: false, get: |r| Cell::Number(r.usage.queued.into(), None) },
    Column { name: "error", wide: false, get: |r| r.usage.last_error.as_ref().map_or(Cell::Empty, |text| Cell::text(short(text))) },
    Column {
        name: "time",
        wide: true,
        get: |r| r.usage.cpu_us.map_or(Cell::Empty, |us| Cell::Number(us, Some(time::took(Duration::from_micros(us))))),
    },
    Column { name: "pid", wide: true, get: |r| r.usage.pid.map_or(Cell::Empty, |pid| Cell::Number(pid.unsigned_abs().into(), None)) },
    Column { name: "connection", wide: true, get: |r| Cell::text(&r.usage.connection) },
    Column { name: "id", wide: true, get: |r| Cell::text(r.usage.id) },
];

fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= 60 { line.to_owned() } else { line.chars().take(59).chain(['…']).collect() }
}

/// What was seen before, for the share of a processor.
#[derive(Default)]
struct Before {
    at_us: u64,
    cpu: HashMap<MachineId, (Option<i32>, u64)>,
}

impl Before {
    /// The rows of a look; it is what was seen before from now on.
    fn rows(&mut self, view: UsageView) -> Vec<Row> {
        let passed = view.at_us.saturating_sub(self.at_us);
        let former = std::mem::take(&mut self.cpu);
        self.at_us = view.at_us;
        view.machines
            .into_iter()
            .map(|usage| {
                let now = usage.cpu_us;
                // Another process begins anew.
                let then = former.get(&usage.id).filter(|(pid, _)| *pid == usage.pid).map(|(_, us)| *us);
                if let Some(us) = now {
                    self.cpu.insert(usage.id, (usage.pid, us));
                }
                let used = now.zip(then).map(|(now, then)| now.saturating_sub(then));
                let cpu_percent = used.filter(|_| passed > 0).map(|used| used as f64 * 100.0 / passed as f64);
                Row { usage, cpu_percent }
            })
            .collect()
    }
}

/// Looks until it is interrupted, or once.
pub(crate) async fn run(ctx: &Ctx, mut args: Args) -> Result<Exit> {
    args.names = all_braces(&args.names)?;
    let targets: Vec<Target> = args.names.iter().map(|name| Target::parse(name)).collect::<Result<_>>()?;
    if args.interval.is_some_and(|interval| interval < SHORTEST) {
        return Err(Error::new(Code::Usage, "the interval is at least 100ms"));
    }
    let terminal = std::io::stdout().is_terminal();
    let json = ctx.out.format() == Format::Json;
    // Programs say that they want more than one look by saying how often.
    let live = !args.once && if json { terminal || args.interval.is_some() } else { terminal && !ctx.out.format().is_machine() };
    let interval = args.interval.unwrap_or(INTERVAL);
    if live { follow(ctx, &args, &targets, interval, json).await } else { once(ctx, &args, &targets, interval).await }
}

async fn look(ctx: &Ctx, targets: &[Target]) -> Result<UsageView> {
    let mut view = ctx.daemon.ask(async |client| client.usage(Empty {}).await).await?;
    if !targets.is_empty() {
        let fits = |usage: &MachineUsage, target: &Target| {
            glob(&target.machine, &usage.name) && target.connection.as_deref().is_none_or(|connection| glob(connection, &usage.connection))
        };
        view.machines.retain(|usage| targets.iter().any(|target| fits(usage, target)));
    }
    Ok(view)
}

async fn once(ctx: &Ctx, args: &Args, targets: &[Target], interval: Duration) -> Result<Exit> {
    let mut before = Before::default();
    before.rows(look(ctx, targets).await?);
    tokio::time::sleep_until(Instant::now() + ONCE.min(interval)).await;
    let view = look(ctx, targets).await?;
    let at_us = view.at_us;
    let rows = before.rows(view);
    if ctx.out.format() == Format::Json {
        let machines = args.view.select(rows, COLUMNS)?;
        ctx.out.event(&Look { at_us, machines: &machines }, String::new)?;
    } else {
        ctx.out.list(rows, COLUMNS, &args.view)?;
    }
    Ok(Exit::OK)
}

async fn follow(ctx: &Ctx, args: &Args, targets: &[Target], interval: Duration, json: bool) -> Result<Exit> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Error::io("listen for Ctrl-C", error))?;
    let mut before = Before::default();
    let mut drawn = 0;
    let mut next = Instant::now();
    let mut first = true;
    loop {
        let view = look(ctx, targets).await?;
        let (at_us, total) = (view.at_us, view.machines.len());
        let rows = args.view.select(before.rows(view), COLUMNS)?;
        // The first look knows no shares: a second follows soon.
        next = if std::mem::take(&mut first) { Instant::now() + ONCE.min(interval) } else { (next + interval).max(Instant::now()) };
        if !json {
            drawn = draw(ctx, args, &rows, total, drawn)?;
        } else {
            ctx.out.event(&Look { at_us, machines: &rows }, String::new)?;
        }
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            _ = interrupt.recv() => return Ok(Exit::OK),
        }
    }
}

/// Draws the table over the one before it; gives back how many lines it has.
fn draw(ctx: &Ctx, args: &Args, rows: &[Row], total: usize, before: usize) -> Result<usize> {
    let (height, width) = size();
    let shown = &rows[..rows.len().min(height.saturating_sub(3).max(1))];
    let columns = args.view.columns(COLUMNS, ctx.out.format() == Format::Wide)?;
    let mut text = table::render(shown, &columns, args.view.header(), ctx.out.paint());
    let cpu: f64 = rows.iter().filter_map(|row| row.cpu_percent).sum();
    let memory: u64 = rows.iter().filter_map(|row| row.usage.memory_bytes).sum();
    let more = if shown.len() < total { format!(", {} not shown", total - shown.len()) } else { String::new() };
    text.push_str(&format!("{total} machines{more}, cpu {cpu:.1}%, memory {}; Ctrl-C ends\n", time::bytes(memory)));
    let lines: Vec<String> = text.lines().map(|line| cut(line, width)).collect();
    // Up to the first line of the former table, and each line erased to its end: nothing flickers, nothing of it is left.
    let mut bytes = if before > 0 { format!("\r\x1b[{before}A") } else { String::new() };
    for line in &lines {
        bytes.push_str(line);
        bytes.push_str("\x1b[K\n");
    }
    bytes.push_str("\x1b[J");
    ctx.out.bytes(bytes.as_bytes())?;
    Ok(lines.len())
}

/// A line that fits; the codes of colours take no room.
fn cut(line: &str, width: usize) -> String {
    let (mut out, mut seen, mut code) = (String::with_capacity(line.len()), 0, false);
    for c in line.chars() {
        if c == '\x1b' {
            code = true;
        } else if !code {
            seen += 1;
            if seen > width {
                continue;
            }
        }
        out.push(c);
        code &= c != 'm';
    }
    out
}

/// Lines and columns of the terminal.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
        _ => (24, 80),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_core::machine::State;

    fn view(at_us: u64, pid: i32, cpu_us: u64) -> UsageView {
        let id = "0198f0c2-0000-7000-8000-000000000001".parse().unwrap();
        let machine = MachineUsage {
            id,
            name: "a".into(),
            connection: "local".into(),
            state: State::Running,
            pid: Some(pid),
            cpu_us: Some(cpu_us),
            memory_bytes: Some(1),
            commands: 0,
            busy: 0,
            queued: 0,
            last_error: None,
        };
        UsageView { at_us, machines: vec![machine] }
    }

    #[test]
    fn the_share_is_that_of_the_time_since_the_last_look_of_the_same_process() {
        let mut before = Before::default();
        let mut share = |at, pid, cpu| before.rows(view(at, pid, cpu))[0].cpu_percent;
        assert_eq!(share(1_000_000, 7, 500_000), None);
        assert_eq!(share(3_000_000, 7, 1_500_000), Some(50.0));
        assert_eq!(share(4_000_000, 8, 10), None, "another process");
        assert_eq!(share(4_000_000, 8, 10), None, "no time has passed");
    }

    #[test]
    fn lines_are_cut_where_the_terminal_ends_and_colours_are_closed() {
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(cut("\x1b[1mabcdef\x1b[0m", 3), "\x1b[1mabc\x1b[0m");
    }
}
