//! `vmoon xapi`: calls of XAPI by their names, through the daemon, which holds the session.

use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{progress::Progress, time},
    wait::{Interrupts, Left},
};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;
use vmoon_api::{
    Api as _,
    requests::{CallRaw, FollowRaw, RawTaskRef},
};
use vmoon_core::{Code, Error, Result, name::escape, raw::RawAnswer};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon xapi call lab host.get_all_records
  vmoon xapi call lab VM.get_by_name_label web01
  vmoon xapi call lab VM.set_tags OpaqueRef:… '[\"prod\"]'
  vmoon xapi call lab VM.copy OpaqueRef:… copy OpaqueRef:NULL --async")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Call a method and print its result as JSON
    ///
    /// Arguments are written plainly (text, references, numbers, true and false) or in JSON (lists, maps, records); the session is filled in.
    #[command(after_help = "Examples:
  vmoon xapi call lab pool.get_all
  vmoon xapi call lab VM.clone OpaqueRef:… copy --async")]
    Call {
        /// The connection
        #[arg(value_name = "CONNECTION")]
        connection: String,
        /// The method
        #[arg(value_name = "CLASS.METHOD")]
        method: String,
        /// Its arguments, without the session
        #[arg(value_name = "ARGUMENT", allow_negative_numbers = true)]
        arguments: Vec<String>,
        /// Have it done as a task, and follow that to its end
        #[arg(long = "async")]
        background: bool,
        /// With --async: print the task and do not wait for it
        #[arg(long, requires = "background")]
        no_wait: bool,
        /// How long it may take [default: 10m]
        #[arg(long, value_name = "TIME", value_parser = time::parse_duration)]
        deadline: Option<Duration>,
    },
}

/// Runs the verb.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let Verb::Call { connection, method, arguments, background, no_wait, deadline } = args.verb;
    let limit = deadline.unwrap_or(Duration::from_secs(600));
    let until = Instant::now().checked_add(limit);
    let request = CallRaw {
        connection: connection.clone(),
        method: method.clone(),
        arguments,
        background,
        deadline_ms: Some(u64::from(time::wire_ms(limit)?)),
    };
    // Once: nobody knows what it does.
    ctx.daemon.hello().await?;
    let answer = ctx.daemon.client().call_raw(request).await?;
    let note = answer.note;
    if let Some(note) = &note {
        ctx.out.note(&escape(note));
    }
    let result = match answer.task {
        Some(task) if no_wait => {
            let answer = RawAnswer { task: Some(task.clone()), result: Value::Null, note };
            return if ctx.out.format().is_machine() { ctx.out.one(&answer, &task, &[]) } else { ctx.out.line(&task) }.map(|()| Exit::OK);
        }
        Some(task) => follow(ctx, &connection, &method, &task, until).await?,
        None => answer.result,
    };
    print(ctx, result, note)?;
    Ok(Exit::OK)
}

/// The result alone, as JSON, whatever the format: it is of any shape.
fn print(ctx: &Ctx, result: Value, note: Option<String>) -> Result<()> {
    if ctx.out.format().is_machine() {
        return ctx.out.one(&RawAnswer { task: None, result, note }, "result", &[]);
    }
    let mut text = serde_json::to_vec_pretty(&result).map_err(|error| Error::internal("the result is no JSON").source(error))?;
    text.push(b'\n');
    ctx.out.bytes(&text)
}

/// Follows a task to its end.
async fn follow(ctx: &Ctx, connection: &str, method: &str, task: &str, until: Option<Instant>) -> Result<Value> {
    let mut interrupts = Interrupts::listen()?;
    let mut progress = Progress::new(&ctx.out, escape(method));
    let hint = format!("detached; the task {} goes on (Ctrl-C again within a second asks to cancel it)", escape(task));
    let work = async {
        let mut known = None;
        loop {
            let wait_ms = progress.interval().as_millis() as u64;
            let request = FollowRaw { connection: connection.to_owned(), task: task.to_owned(), known, timeout_ms: Some(wait_ms) };
            let standing = ctx.daemon.hold(async |client| client.follow_raw(request.clone()).await).await?;
            if standing.ended {
                return Ok(standing.result);
            }
            progress.tell("", Some((standing.progress.clamp(0.0, 1.0) * 100.0) as u8));
            known = Some(standing.progress);
        }
    };
    let left = match interrupts.guard(ctx, until, &hint, work).await? {
        Ok(result) => {
            progress.finish();
            return Ok(result);
        }
        Err(left) => left,
    };
    progress.finish();
    match left {
        Left::Late => Err(Error::new(Code::Timeout, format!("{} goes on as the task {}", escape(method), escape(task)))),
        Left::Detached => Err(Error::new(Code::Cancelled, format!("the task {} was not waited for", escape(task)))),
        Left::Cancel => {
            let request = RawTaskRef { connection: connection.to_owned(), task: task.to_owned() };
            ctx.daemon.ask(async |client| client.cancel_raw(request.clone()).await).await?;
            Err(Error::new(Code::Cancelled, format!("the task {} was asked to stop", escape(task))))
        }
    }
}
