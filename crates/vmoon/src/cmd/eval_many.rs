//! `vmoon eval` in many machines at once: one request, a row for each, and the exit code of the worst.

use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{
        Format,
        progress::Progress,
        table::{self, Cell, Column},
    },
    select::Picked,
    wait::{self, Interrupts, Left},
};
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;
use vmoon_api::{
    Api as _, Data,
    requests::{EvalMany, Interrupt},
    views::{CommandState, ManyView},
};
use vmoon_core::{Code, Error, Result};

/// How long one question waits; then it is asked again of those that have not answered.
const ROUND: Duration = Duration::from_secs(2);
/// How long the first one waits: quick answers are all there then, and the others are known to run.
const FIRST: Duration = Duration::from_millis(300);
/// How much longer than the user allows an answer of the daemon is waited for.
const GRACE: Duration = Duration::from_secs(5);
/// How many characters of a machine's answer a row shows.
const SHOWN: usize = 160;
/// How many bytes of each output a machine may answer with: a thousand of them fit into memory and into a terminal's patience.
const REPEATED: u64 = 64 << 10;

/// What to evaluate, and where.
pub(crate) struct Many {
    /// The sessions.
    pub(crate) sessions: Vec<Picked>,
    /// The chunk.
    pub(crate) code: Data,
    /// Its arguments.
    pub(crate) args: Option<Vec<serde_json::Value>>,
    /// Whether the values are wanted as data.
    pub(crate) data: bool,
    /// Interrupt each command after so many milliseconds.
    pub(crate) deadline_ms: Option<u32>,
    /// When to stop waiting.
    pub(crate) until: Option<Instant>,
    /// Whether only the ids of the commands are wanted.
    pub(crate) no_wait: bool,
}

/// One row.
#[derive(serde::Serialize)]
struct Row {
    name: String,
    /// `done`, `failed`, `running`, `lost` or `refused`.
    state: &'static str,
    #[serde(flatten)]
    view: ManyView,
}

const COLUMNS: &[Column<Row>] = &[
    Column { name: "name", wide: false, get: |row| Cell::text(&row.name) },
    Column { name: "result", wide: false, get: |row| Cell::text(row.state) },
    Column { name: "values", wide: false, get: |row| short(&row.answer()) },
    Column { name: "output", wide: false, get: |row| row.view.command.as_ref().map_or(Cell::Empty, |c| short(&c.stdout.lossy())) },
    Column { name: "command", wide: true, get: |row| row.view.command.as_ref().map_or(Cell::Empty, |c| Cell::text(c.id)) },
];

/// The beginning of a text, on one line.
fn short(text: &str) -> Cell {
    let text = text.trim_end();
    match text.char_indices().nth(SHOWN) {
        _ if text.is_empty() => Cell::Empty,
        None => Cell::text(text),
        Some((end, _)) => Cell::text(format!("{}…", &text[..end])),
    }
}

impl Row {
    fn new(name: String, view: ManyView) -> Self {
        let state = match &view.command {
            None => "refused",
            Some(command) => match (command.state, &command.error) {
                (CommandState::Running, _) => "running",
                (CommandState::Lost, _) => "lost",
                (CommandState::Done, Some(_)) => "failed",
                (CommandState::Done, None) => "done",
            },
        };
        Self { name, state, view }
    }

    /// The values, or what went wrong.
    fn answer(&self) -> String {
        if let Some(error) = &self.view.error {
            return format!("{} ({})", error.message, error.code);
        }
        let Some(command) = &self.view.command else { return String::new() };
        match (&command.error, &command.values) {
            (Some(error), _) => error.message.lossy().into_owned(),
            (None, _) if command.data.is_some() => serde_json::to_string(&command.data).unwrap_or_default(),
            (None, Some(values)) => values.lossy().into_owned(),
            (None, None) => String::new(),
        }
    }

    fn exit(&self) -> Exit {
        match (&self.view.error, &self.view.command) {
            (Some(error), _) => Exit(error.code.exit()),
            (None, Some(command)) => match (command.state, &command.error) {
                (CommandState::Lost, _) => Exit(Code::CommandLost.exit()),
                (_, Some(error)) => Exit(error.code.exit()),
                (CommandState::Running, None) => Exit(Code::Timeout.exit()),
                (CommandState::Done, None) => Exit::OK,
            },
            (None, None) => Exit::OK,
        }
    }
}

/// Evaluates, waits, and prints what each has answered; also of those that have when it stops waiting.
pub(crate) async fn run(ctx: &Ctx, many: Many) -> Result<Exit> {
    let mut interrupts = Interrupts::listen()?;
    let mut answers: HashMap<String, ManyView> = HashMap::new();
    let hint = "not waited for any longer; the commands go on (Ctrl-C again within a second interrupts them)";
    let until = many.until.map(|until| until + GRACE);
    let stopped = match interrupts.guard(ctx, until, hint, collect(ctx, &many, &mut answers)).await? {
        Ok(true) => None,
        Ok(false) => Some(Left::Late),
        Err(left) => Some(left),
    };
    let rows: Vec<Row> =
        many.sessions.iter().filter_map(|picked| Some(Row::new(picked.name.clone(), answers.remove(&picked.machine)?))).collect();
    let mut exit = rows.iter().fold(Exit::OK, |exit, row| if many.no_wait { exit } else { exit.worse(row.exit()) });
    if many.no_wait {
        exit = rows.iter().filter(|row| row.view.error.is_some()).fold(exit, |exit, row| exit.worse(row.exit()));
    }
    show(ctx, &many, &rows)?;
    match stopped {
        None => Ok(exit),
        Some(Left::Late) => Err(Error::new(Code::Timeout, "some machines take longer than was to be waited; their commands go on")
            .hint("the same with --timeout, or vmoon interrupt")),
        Some(Left::Detached) => wait::left(ctx, "the commands"),
        Some(Left::Cancel) => {
            for picked in &many.sessions {
                let request = Interrupt { session: picked.machine.clone(), command: None };
                // What has answered meanwhile cannot be interrupted.
                let _ = ctx.daemon.ask(async |client| client.interrupt(request.clone()).await).await;
            }
            Ok(Exit(Code::CommandInterrupted.exit()))
        }
    }
}

/// Asks until every command is answered, or the time is over. The token joins what was asked before.
async fn collect(ctx: &Ctx, many: &Many, answers: &mut HashMap<String, ManyView>) -> Result<bool> {
    let token = vmoon_sys::random::key();
    let mut progress = Progress::new(&ctx.out, format!("evaluating in {} machines", many.sessions.len()));
    let mut open: Vec<String> = many.sessions.iter().map(|picked| picked.machine.clone()).collect();
    while !open.is_empty() {
        let rest = many.until.map_or(ROUND, |until| until.saturating_duration_since(Instant::now()));
        let round = if answers.is_empty() { FIRST } else { ROUND }.min(rest);
        let request = EvalMany {
            sessions: open.clone(),
            code: many.code.clone(),
            args: many.args.clone(),
            data: many.data,
            token: Some(token.clone()),
            deadline_ms: many.deadline_ms,
            wait_ms: Some(if many.no_wait { 0 } else { round.as_millis() as u64 }),
            max: Some(REPEATED),
        };
        for view in ctx.daemon.hold(async |client| client.eval_many(request.clone()).await).await? {
            answers.insert(view.session.clone(), view);
        }
        if many.no_wait {
            return Ok(true);
        }
        let running = |session: &String| {
            answers.get(session).is_some_and(|view| view.command.as_ref().is_some_and(|c| c.state == CommandState::Running))
        };
        open.retain(running);
        progress.tell(&format!("{} answered", many.sessions.len() - open.len()), None);
        if !open.is_empty() && many.until.is_some_and(|until| Instant::now() >= until) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn show(ctx: &Ctx, many: &Many, rows: &[Row]) -> Result<()> {
    let chosen: Vec<&Column<Row>> = COLUMNS.iter().filter(|column| !column.wide || ctx.out.format() == Format::Wide).collect();
    if many.no_wait && !ctx.out.format().is_machine() {
        for row in rows {
            match &row.view.command {
                Some(command) => ctx.out.line(&format!("{}: {}", vmoon_core::name::escape(&row.name), command.id))?,
                None => {
                    ctx.out.error_of(Some(&row.name), &row.view.error.clone().map_or_else(|| Error::internal("no answer"), Error::from))
                }
            }
        }
        return Ok(());
    }
    match ctx.out.format() {
        Format::Table | Format::Wide => {
            ctx.out.bytes(table::render(rows, &chosen, true, ctx.out.paint()).as_bytes())?;
            let cut = rows.iter().filter(|row| row.view.command.as_ref().is_some_and(|c| c.truncated)).count();
            if cut > 0 {
                ctx.out.note(&format!("{cut} machines said more than is kept here: vmoon read --command ID (-o wide shows the ids)"));
            }
            Ok(())
        }
        Format::Name => ctx.out.bytes(table::names(rows, COLUMNS).as_bytes()),
        Format::Csv => ctx.out.bytes(&table::csv(rows, &COLUMNS.iter().collect::<Vec<_>>(), true)?),
        Format::Json | Format::Yaml => {
            let values: Vec<serde_json::Value> = rows.iter().filter_map(|row| serde_json::to_value(row).ok()).collect();
            ctx.out.values(&values)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_core::error::ErrorRecord;

    fn refused() -> ManyView {
        let error: ErrorRecord = Error::new(Code::MachineStopped, "off\u{1b}[2J does not run").to_record();
        ManyView { session: "a".into(), command: None, error: Some(error) }
    }

    #[test]
    fn a_row_says_what_became_of_its_machine() {
        let row = Row::new("a".into(), refused());
        assert_eq!((row.state, row.exit()), ("refused", Exit(Code::MachineStopped.exit())));
        let shown = table::render(&[row], &COLUMNS.iter().take(3).collect::<Vec<_>>(), false, &crate::out::color::Paint::off());
        assert!(shown.contains("\\u{1b}[2J") && shown.lines().count() == 1, "{shown}");
    }

    #[test]
    fn long_answers_are_cut_between_characters() {
        let Cell::Text(text) = short(&"ä".repeat(500)) else { panic!("text") };
        assert_eq!(text.chars().count(), SHOWN + 1);
        assert_eq!(short(" \n"), Cell::Empty);
    }
}
