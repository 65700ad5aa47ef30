//! `vmoon eval`: runs a chunk in a session and ends as the chunk ended.

use super::{
    eval_data,
    eval_many::{self, Many},
    pieces::{Printer, Reading, Which},
};
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{Format, json, time},
    select::{self, machine_of},
    wait::{self, Interrupts, Left, Limit},
};
use std::{
    ffi::{OsStr, OsString},
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    time::Duration,
};
use tokio::time::{Instant, timeout};
use vmoon_api::{
    Api as _, Data,
    requests::{CommandRef, Eval, MachineRef, SessionRef},
    views::{CommandError, CommandState, CommandView, PieceKind, SessionView},
};
use vmoon_core::{Code, Error, Result, frame::MAX_PAYLOAD, machine::State, name::escape, session::SessionState, target::Target};

const EXAMPLES: &str = "Examples:
  vmoon eval lab 'return 6 * 7'
  vmoon eval lab - < program.lua
  vmoon eval lab 'for i = 1, 1e9 do x = i end' --deadline 5s
  vmoon eval 'fold-*' 'return job()'              a table of what each machine answered
  vmoon eval lab 'local a, b = ... return a + b[1]' --args '[1, [2]]' --data
  vmoon eval lab 'work()' --no-wait               prints the id of the command

Exit codes: 1 for an error of the chunk or an unfinished chunk, 8 when its deadline has passed, \
130 when it was interrupted.";

/// How long a first answer may take before its output is followed as it comes.
const SHORT_MS: u64 = 200;
/// How long it may wait then before it is told what is before it.
const QUEUED_MS: u64 = 800;
/// How much longer than the user allows the first answer is waited for: without it the command has no id to come back to.
const GRACE: Duration = Duration::from_secs(2);

/// What to evaluate, and where.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The session: [CONNECTION:]MACHINE[/SESSION]; globs and braces evaluate in many machines at once
    #[arg(value_name = "SESSION", add = super::completions::machines())]
    target: String,
    /// The chunk; - reads it from standard input
    #[arg(value_name = "CODE", allow_hyphen_values = true)]
    code: OsString,
    #[command(flatten)]
    data: eval_data::Options,
    /// Interrupt the command after this time; the machine lives
    #[arg(long, value_name = "TIME", value_parser = time::parse_duration, help_heading = "Waiting")]
    deadline: Option<Duration>,
    /// Return at once and print the id of the command, for wait, read --command and operation cancel
    #[arg(long, help_heading = "Waiting")]
    no_wait: bool,
    #[command(flatten)]
    limit: Limit,
}

/// A chunk for one session.
struct Chunk<'a> {
    session: String,
    name: String,
    code: &'a Data,
    args: Option<&'a [serde_json::Value]>,
    data: bool,
    deadline_ms: Option<u32>,
    until: Option<Instant>,
}

/// Evaluates it.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let deadline_ms = args.deadline.map(time::wire_ms).transpose()?;
    let until = args.limit.until(None)?;
    let arguments = args.data.arguments(&args.code)?;
    let code = chunk(&args.code)?;
    let data = args.data.data;
    let selection = select::sessions(&ctx.daemon, std::slice::from_ref(&args.target)).await?;
    match selection.machines.as_slice() {
        [only] if selection.single => {
            let target = Target::parse(&only.machine)?;
            let (session, name) = (only.machine.clone(), machine_of(&target));
            let chunk = Chunk { session, name, code: &code, args: arguments.as_deref(), data, deadline_ms, until };
            one(ctx, &chunk, args.no_wait).await
        }
        _ => {
            let (sessions, no_wait) = (selection.machines, args.no_wait);
            eval_many::run(ctx, Many { sessions, code, args: arguments, data, deadline_ms, until, no_wait }).await
        }
    }
}

/// The chunk: the argument's own bytes, or all of standard input.
fn chunk(code: &OsStr) -> Result<Data> {
    if code != "-" {
        return Ok(Data(code.as_bytes().to_vec()));
    }
    let mut bytes = Vec::new();
    let limit = MAX_PAYLOAD as u64 + 1;
    std::io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(|error| Error::io("read the standard input", error))?;
    if bytes.len() > MAX_PAYLOAD {
        return Err(Error::new(Code::CommandTooLarge, "the code on standard input is larger than 16 MiB")
            .hint("write it to a file and let the machine read it: dofile \"program.lua\""));
    }
    Ok(Data(bytes))
}

async fn one(ctx: &Ctx, chunk: &Chunk<'_>, no_wait: bool) -> Result<Exit> {
    let mut interrupts = Interrupts::listen()?;
    let request = Eval {
        session: chunk.session.clone(),
        code: chunk.code.clone(),
        args: chunk.args.map(<[_]>::to_vec),
        data: chunk.data,
        // With the token a question that is asked again joins the command instead of running it twice.
        token: Some(vmoon_sys::random::key()),
        deadline_ms: chunk.deadline_ms,
        wait_ms: Some(if no_wait { 0 } else { SHORT_MS }),
    };
    let asking = async {
        let asked = async |client: &vmoon_api::Client| client.eval(request.clone()).await;
        // Some machines take a command only when those before it are done.
        let asked = ctx.daemon.linger(asked);
        tokio::pin!(asked);
        let answer = match timeout(Duration::from_millis(SHORT_MS + QUEUED_MS), &mut asked).await {
            Ok(answer) => answer,
            Err(_) => {
                tokio::select! {
                    biased;
                    answer = &mut asked => answer,
                    () = unreached(ctx, &request.session) => asked.await,
                }
            }
        };
        answer.map_err(|error| helped(error, &chunk.name))
    };
    let view = match interrupts.guard(ctx, chunk.until.map(|until| until + GRACE), "the daemon's answer was not waited for", asking).await?
    {
        Ok(view) => view,
        Err(Left::Late) => {
            let name = escape(&chunk.name);
            return Err(Error::new(Code::Timeout, format!("{name} has not taken the command in time, and may still take it"))
                .hint(format!("how it stands: vmoon show {name}")));
        }
        Err(_) => return wait::left(ctx, "the command"),
    };
    let id = view.id;
    if no_wait {
        let text = id.to_string();
        match ctx.out.format() {
            Format::Json | Format::Yaml => ctx.out.one(&view, &text, &[])?,
            _ => ctx.out.line(&text)?,
        }
        return Ok(Exit::OK);
    }
    let mut printer = Printer::new(&ctx.out, Which::Output, None);
    let hint =
        format!("detached; the command goes on: vmoon wait {id}, vmoon read --command {id} (Ctrl-C again within a second interrupts it)");
    let structured = ctx.out.format().is_machine();
    let work = async {
        if view.state == CommandState::Done && (structured || !view.truncated) {
            if !structured {
                printer.stdout(&view.stdout.0)?;
                printer.stderr(&view.stderr.0);
            }
            return Ok(view);
        }
        if structured { answer(ctx, &view).await } else { follow(ctx, view, &mut printer).await }
    };
    let left = match interrupts.guard(ctx, chunk.until, &hint, work).await? {
        Ok(view) => return finish(ctx, &view, &mut printer),
        Err(left) => left,
    };
    match left {
        Left::Late => Err(Error::new(Code::Timeout, "the command takes longer than was to be waited; it goes on")
            .hint(format!("vmoon wait {id}, vmoon read --command {id}, vmoon interrupt {}", escape(&chunk.name)))
            .detail(serde_json::json!({ "command": id }))),
        Left::Detached => wait::left(ctx, "the command"),
        Left::Cancel => {
            let request = CommandRef { command: id.to_string(), wait_ms: Some(2_000) };
            let view = ctx.daemon.ask(async |client| client.interrupt_command(request.clone()).await).await?;
            ended(ctx, &view).map(|_| Exit(Code::CommandInterrupted.exit()))
        }
    }
}

/// Says what helps, where the daemon did not.
fn helped(error: Error, name: &str) -> Error {
    let name = escape(name);
    match error.code() {
        Code::MachineStopped if error.hint_text().is_none() => error.hint(format!("vmoon start {name}")),
        Code::MachineNotFound if error.hint_text().is_none() => error.hint(format!("vmoon list, or vmoon create {name} --start")),
        _ => error,
    }
}

/// Waits for the whole answer.
async fn answer(ctx: &Ctx, view: &CommandView) -> Result<CommandView> {
    loop {
        let request = CommandRef { command: view.id.to_string(), wait_ms: Some(30_000) };
        let view = ctx.daemon.hold(async |client| client.show_command(request.clone()).await).await?;
        if view.state != CommandState::Running {
            return Ok(view);
        }
    }
}

/// Prints the output as it comes, from the command's beginning, until the command is done.
async fn follow(ctx: &Ctx, view: CommandView, printer: &mut Printer) -> Result<CommandView> {
    let mut reading =
        Reading { session: view.id.session.to_string(), command: Some(view.id.number), from: Some(view.from), wait_ms: Some(QUEUED_MS) };
    loop {
        let part = reading.next(ctx).await?;
        // That its code was heard says only that it is in the queue.
        let heard = !part.pieces.is_empty() && part.pieces.iter().all(|piece| piece.kind == PieceKind::Code);
        if reading.wait_ms == Some(QUEUED_MS) && !heard {
            reading.wait_ms = Some(30_000);
            if part.pieces.is_empty() && !part.ended {
                queued(ctx, &view).await;
            }
        }
        let mut done = part.ended;
        for piece in part.pieces.iter().filter(|piece| piece.command == view.id.number || piece.kind == PieceKind::Gap) {
            printer.piece(piece)?;
            done |= piece.kind == PieceKind::Done;
        }
        if done {
            return answer(ctx, &view).await;
        }
    }
}

/// Says why the machine has not taken a command yet. Not to know that is no reason not to wait.
async fn unreached(ctx: &Ctx, session: &str) {
    let request = SessionRef { session: session.to_owned() };
    let Ok(session) = ctx.daemon.ask(async |client| client.show_session(request.clone()).await).await else { return };
    let name = escape(&session.machine_name);
    let machine = MachineRef { machine: session.machine.to_string() };
    let shown = ctx.daemon.ask(async |client| client.show_machine(machine.clone()).await).await;
    match shown {
        Ok(shown) if shown.state == State::Paused => {
            ctx.out.hint(&format!("{name} is paused, and takes the command when it goes on: vmoon resume {name}"));
        }
        _ if session.state != SessionState::Live => {
            let why = session.trouble.map(|trouble| format!(": {}", escape(&trouble.message))).unwrap_or_default();
            ctx.out.hint(&format!("waiting until {name} can be reached{why}"));
        }
        _ => busy(ctx, &session, None),
    }
}

/// Says that an earlier command of the session is not done yet.
fn busy(ctx: &Ctx, session: &SessionView, own: Option<u64>) {
    let name = escape(&session.machine_name);
    if session.busy.is_some() && session.busy != own {
        let does = if session.waiting_input { format!(", which waits for input: vmoon send {name} TEXT") } else { String::new() };
        ctx.out.hint(&format!("{name} is busy with an earlier command{does}; to stop that: vmoon interrupt {name}"));
    }
}

/// Says what a command waits for that has not begun. Not to know that is no reason not to wait.
async fn queued(ctx: &Ctx, view: &CommandView) {
    let request = SessionRef { session: view.id.session.to_string() };
    let Ok(session) = ctx.daemon.ask(async |client| client.show_session(request.clone()).await).await else { return };
    busy(ctx, &session, Some(view.id.number));
}

fn finish(ctx: &Ctx, view: &CommandView, printer: &mut Printer) -> Result<Exit> {
    match ctx.out.format() {
        Format::Json => ctx.out.bytes(&json::pretty(view)?)?,
        Format::Table | Format::Wide => {
            if !eval_data::show(ctx, view, printer)?
                && let Some(values) = &view.values
            {
                printer.values(&values.0)?;
            }
            printer.finish()?;
        }
        _ => ctx.out.one(view, &view.id.to_string(), &rows(view))?,
    }
    ended(ctx, view)
}

fn rows(view: &CommandView) -> Vec<(String, String)> {
    let text = |data: &Data| data.lossy().into_owned();
    let mut rows = vec![("id".to_owned(), view.id.to_string()), ("stdout".to_owned(), text(&view.stdout))];
    rows.push(("stderr".to_owned(), text(&view.stderr)));
    rows.extend(view.values.as_ref().map(|values| ("values".to_owned(), text(values))));
    rows.extend(view.error.as_ref().map(|error| ("error".to_owned(), text(&error.message))));
    rows
}

/// Tells how a command failed, if it did, and gives the exit code for it.
///
/// # Errors
/// `command.lost` when nothing will ever answer it, `machine.did_not_yield` when it is to blame for that.
pub(crate) fn ended(ctx: &Ctx, view: &CommandView) -> Result<Exit> {
    if view.state == CommandState::Lost {
        let name = escape(&view.machine);
        let (code, what) = match &view.error {
            Some(error) if error.code == Code::MachineDidNotYield => (error.code, "ignored the interrupt and was ended"),
            _ => (Code::CommandLost, "ended"),
        };
        return Err(Error::new(code, format!("{name} {what} before the command was answered")).hint(format!("vmoon show {name}")));
    }
    let Some(error) = &view.error else { return Ok(Exit::OK) };
    if ctx.out.format() == Format::Json {
        ctx.out.error(&as_error(error));
    } else {
        ctx.out.err_bytes(&failure(error));
        match error.code {
            Code::CommandIncomplete => ctx.out.hint("the chunk is unfinished: an `end`, a bracket or a quote is missing"),
            Code::CommandDeadline => ctx.out.note("the command ran past its deadline and was interrupted; the machine lives"),
            _ => {}
        }
    }
    Ok(Exit(error.code.exit()))
}

fn as_error(error: &CommandError) -> Error {
    Error::new(error.code, error.message.lossy().into_owned())
        .detail(serde_json::json!({ "traceback": error.traceback, "syntax": error.syntax }))
}

/// The error as a program would have printed it: its message, then where it happened.
fn failure(error: &CommandError) -> Vec<u8> {
    let mut text = error.message.0.clone();
    for part in [&b""[..], &error.traceback.0] {
        text.extend_from_slice(part);
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_its_message_and_its_traceback_on_lines_of_their_own() {
        let error = |message: &str, traceback: &str| CommandError {
            code: Code::CommandFailed,
            syntax: false,
            message: message.into(),
            traceback: traceback.into(),
        };
        assert_eq!(failure(&error("m", "t")), b"m\nt\n");
        assert_eq!(failure(&error("m\n", "")), b"m\n");
        assert_eq!(failure(&error("", "")), b"");
    }

    #[test]
    fn code_may_be_any_bytes() {
        assert_eq!(chunk(OsStr::from_bytes(b"return '\xff'")).unwrap().0, b"return '\xff'");
    }
}
