//! `start`, `stop`, `kill`, `restart`, `pause`, `suspend`, `resume`: one request to each of several machines, waited for.

use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{Format, progress::Progress, time},
    select::{Picked, Targets},
    wait::{self, WaitArgs},
};
use futures_util::{StreamExt as _, stream};
use std::time::Duration;
use tokio::time::Instant;
use vmoon_api::{
    Api as _,
    requests::{MachineRef, MachineRequest, Ready},
    views::{MachineView, PlanView},
};
use vmoon_core::{
    Code, Error, OperationId, Result,
    hosts::DiskFate,
    machine::{Answer, Request, State},
    name::escape,
};

/// How many machines are asked at the same time.
pub(crate) const AT_ONCE: usize = 32;

/// What these verbs share.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    wait: WaitArgs,
    /// Say what would be done and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Fail with exit code 4 where nothing is to be done
    #[arg(long)]
    strict: bool,
}

/// Arguments of `start`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon start lab
  vmoon start 'web*' db --timeout 90s
  vmoon start web01 --until session
  vmoon start --all --no-wait")]
pub(crate) struct StartArgs {
    #[command(flatten)]
    common: Common,
    /// Then wait until they have an address (ip), greet by SSH (ssh), or have a session (session)
    #[arg(long, value_name = "WHAT", value_parser = super::wait::ready, conflicts_with = "no_wait")]
    until: Option<Ready>,
}

/// Arguments of `stop`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon stop lab
  vmoon stop 'web*' --timeout 60s
  vmoon stop lab --force               the same as vmoon kill lab")]
pub(crate) struct StopArgs {
    #[command(flatten)]
    common: Common,
    /// End them now, as `vmoon kill` does
    #[arg(short, long)]
    force: bool,
}

/// Arguments of `kill`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon kill lab
  vmoon kill 'test-*' --dry-run")]
pub(crate) struct KillArgs {
    #[command(flatten)]
    common: Common,
}

/// Arguments of `restart`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon restart lab
  vmoon restart web01 web02 --deadline 2m")]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    common: Common,
}

/// Arguments of `pause`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon pause web01
  vmoon pause 'web*' --dry-run")]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    common: Common,
}

/// Arguments of `suspend`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon suspend web01
  vmoon suspend web01 web02 --deadline 10m")]
pub(crate) struct SuspendArgs {
    #[command(flatten)]
    common: Common,
}

/// Arguments of `resume`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon resume web01
  vmoon resume 'web*' --no-wait")]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    common: Common,
}

/// Pauses machines.
pub(crate) async fn pause(ctx: &Ctx, args: PauseArgs) -> Result<Exit> {
    each(ctx, args.common, Request::Pause).await
}

/// Suspends machines.
pub(crate) async fn suspend(ctx: &Ctx, args: SuspendArgs) -> Result<Exit> {
    each(ctx, args.common, Request::Suspend).await
}

/// Resumes machines.
pub(crate) async fn resume(ctx: &Ctx, args: ResumeArgs) -> Result<Exit> {
    each(ctx, args.common, Request::Resume).await
}

/// Starts machines.
pub(crate) async fn start(ctx: &Ctx, args: StartArgs) -> Result<Exit> {
    let goal = args.until;
    each_until(ctx, args.common, Request::Start, goal).await
}

/// Stops machines.
pub(crate) async fn stop(ctx: &Ctx, args: StopArgs) -> Result<Exit> {
    each(ctx, args.common, if args.force { Request::Kill } else { Request::Stop }).await
}

/// Kills machines.
pub(crate) async fn kill(ctx: &Ctx, args: KillArgs) -> Result<Exit> {
    each(ctx, args.common, Request::Kill).await
}

/// Restarts machines.
pub(crate) async fn restart(ctx: &Ctx, args: RestartArgs) -> Result<Exit> {
    each(ctx, args.common, Request::Restart).await
}

async fn each(ctx: &Ctx, common: Common, request: Request) -> Result<Exit> {
    each_until(ctx, common, request, None).await
}

async fn each_until(ctx: &Ctx, common: Common, request: Request, goal: Option<Ready>) -> Result<Exit> {
    let selection = common.targets.find(&ctx.daemon).await?;
    let asked = Asked {
        request,
        deadline_ms: common.wait.deadline_ms()?,
        until: common.wait.limit.until(wait::DEFAULT)?,
        no_wait: common.wait.no_wait,
        strict: common.strict,
        disks: None,
    };
    if common.dry_run {
        let plan = |picked: Picked| async move { plan(ctx, &asked, picked).await };
        return bulk(ctx, selection.machines, selection.single, plan, show_plan, "planning").await;
    }
    let work = |picked: Picked| async move {
        let mut done = ask(ctx, &asked, picked).await?;
        if let Some(goal) = goal {
            let ready = super::ready::wait(ctx, &done.machine.id.to_string(), &done.machine.name, goal, asked.until).await?;
            done.text.push_str(&ready.address.map(|address| format!(", {}", escape(&address.ip))).unwrap_or_default());
        }
        Ok(done)
    };
    bulk(ctx, selection.machines, selection.single, work, report, doing(asked.request)).await
}

/// What is asked of every machine of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// The request.
    pub(crate) request: Request,
    /// How long the operation may take.
    pub(crate) deadline_ms: Option<u64>,
    /// How long the client waits.
    pub(crate) until: Option<Instant>,
    /// Whether it waits at all.
    pub(crate) no_wait: bool,
    /// Whether "it is so already" is an error.
    pub(crate) strict: bool,
    /// What becomes of disks, where something is said.
    pub(crate) disks: Option<DiskFate>,
}

/// What came of one machine.
#[derive(Debug)]
pub(crate) struct Done {
    /// The machine as it is now.
    pub(crate) machine: MachineView,
    /// What is told to people.
    pub(crate) text: String,
    /// The operation that was not waited for.
    pub(crate) operation: Option<OperationId>,
}

/// Asks one machine and waits.
pub(crate) async fn ask(ctx: &Ctx, asked: &Asked, picked: Picked) -> Result<Done> {
    ask_confirmed(ctx, asked, picked, None).await
}

/// The same with the name of a machine that vmoon has not made, said by somebody who is sure.
pub(crate) async fn ask_confirmed(ctx: &Ctx, asked: &Asked, picked: Picked, confirm: Option<String>) -> Result<Done> {
    let request = MachineRequest {
        machine: picked.machine.clone(),
        request: asked.request,
        confirm,
        disks: asked.disks,
        deadline_ms: asked.deadline_ms,
    };
    let answered = ctx.daemon.ask(async |client| client.request_machine(request.clone()).await).await?;
    let name = escape(&answered.machine.name);
    let mut machine = answered.machine;
    let operation = match answered.answer {
        Answer::Started { operation } | Answer::Joined { operation } => operation,
        // It is done at once: nothing real is touched.
        Answer::Already if asked.request == Request::Forget => {
            machine.state = State::Gone;
            return Ok(Done { machine, text: format!("forgot {name}"), operation: None });
        }
        Answer::Already => {
            let text = format!("{name} is already {}", goal(asked.request));
            return if asked.strict { Err(Error::new(Code::MachineState, text)) } else { Ok(Done { machine, text, operation: None }) };
        }
        Answer::Refused { code } => return Err(Error::new(code, code.meaning().trim_end_matches('.').to_owned())),
    };
    if asked.no_wait {
        return Ok(Done { machine, text: operation.to_string(), operation: Some(operation) });
    }
    let what = format!("{} {name}", doing(asked.request));
    let ended = wait::operation(ctx, operation, &what, asked.until).await?;
    let took = Duration::from_millis(ended.ended_ms.unwrap_or(ended.started_ms).saturating_sub(ended.started_ms));
    if matches!(asked.request, Request::Delete | Request::DeleteForce) {
        machine.state = State::Gone;
    } else if ctx.out.format().is_machine() {
        let request = MachineRef { machine: machine.id.to_string() };
        machine = ctx.daemon.ask(async |client| client.show_machine(request.clone()).await).await?;
    }
    Ok(Done { machine, text: format!("{} {name} ({})", past(asked.request), time::took(took)), operation: None })
}

/// Says what asking would do.
pub(crate) async fn plan(ctx: &Ctx, asked: &Asked, picked: Picked) -> Result<PlanView> {
    let request = MachineRequest {
        machine: picked.machine,
        request: asked.request,
        confirm: None,
        disks: asked.disks,
        deadline_ms: asked.deadline_ms,
    };
    ctx.daemon.ask(async |client| client.plan_request(request.clone()).await).await
}

/// Does something to every machine, a bounded number at a time; errors are told as they come and do not stop the others.
pub(crate) async fn bulk<I, T, F>(
    ctx: &Ctx,
    items: Vec<I>,
    single: bool,
    work: impl Fn(I) -> F,
    tell: fn(&Ctx, &T) -> Result<()>,
    what: &str,
) -> Result<Exit>
where
    I: Named,
    F: Future<Output = Result<T>>,
    T: Value,
{
    if items.is_empty() {
        ctx.out.note("there is no machine");
    }
    let together = ctx.out.format().is_machine() && ctx.out.format() != Format::Name;
    let mut exit = Exit::OK;
    let mut values = Vec::new();
    let (total, mut done, mut failed) = (items.len(), 0, 0);
    // One display for all of them, instead of one for each that is under way.
    let mut progress = Progress::new(&ctx.out, format!("{what} {total} machines"));
    ctx.out.show_together(total > 1);
    let mut running = stream::iter(items)
        .map(|item| {
            let name = item.name().to_owned();
            let future = work(item);
            async move { (name, future.await) }
        })
        .buffered(AT_ONCE);
    while let Some((name, result)) = running.next().await {
        done += 1;
        failed += usize::from(result.is_err());
        if total > 1 {
            let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
            progress.tell(&format!("{done} done{failures}"), Some((done * 100 / total) as u8));
        }
        match result {
            Ok(value) if together => values.push(value),
            Ok(value) => progress.suspend(|| tell(ctx, &value))?,
            Err(error) if single => return Err(error),
            Err(error) => {
                exit = exit.worse(Exit::of(&error));
                progress.suspend(|| ctx.out.error_of(Some(&name), &error));
                if error.code() == Code::Cancelled {
                    // Ctrl-C is about the whole run: nothing more is begun.
                    exit = Exit(Code::Cancelled.exit());
                    ctx.out.note(&format!("{} of {total} were not begun or not waited for", total - done));
                    break;
                }
            }
        }
    }
    drop(running);
    progress.finish();
    ctx.out.show_together(false);
    if together {
        let values: Vec<serde_json::Value> = values.iter().map(Value::value).filter(|value| !value.is_null()).collect();
        if values.is_empty() && total > 0 && exit == Exit::OK {
            return Ok(exit);
        }
        match values.as_slice() {
            [value] if single => ctx.out.one(value, "", &flat(value))?,
            _ => ctx.out.values(&values)?,
        }
    }
    Ok(exit)
}

fn flat(value: &serde_json::Value) -> Vec<(String, String)> {
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    value.as_object().map(|map| map.iter().map(|(k, v)| (k.clone(), text(v))).collect()).unwrap_or_default()
}

/// What has a name to be told in errors.
pub(crate) trait Named {
    /// The name.
    fn name(&self) -> &str;
}

impl Named for Picked {
    fn name(&self) -> &str {
        &self.name
    }
}

/// What programs get of a result.
pub(crate) trait Value {
    /// The value.
    fn value(&self) -> serde_json::Value;
}

impl Value for Done {
    fn value(&self) -> serde_json::Value {
        // With --no-wait the machine says which operation holds it.
        serde_json::to_value(&self.machine).unwrap_or_default()
    }
}

impl Value for PlanView {
    fn value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// What was done to one of several, in a sentence; programs get nothing but the errors.
pub(crate) struct Told(pub(crate) String);

impl Told {
    /// Tells it.
    pub(crate) fn tell(ctx: &Ctx, told: &Self) -> Result<()> {
        ctx.out.changed(&told.0)
    }
}

impl Value for Told {
    fn value(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// Tells people what was done.
pub(crate) fn report(ctx: &Ctx, done: &Done) -> Result<()> {
    match done.operation {
        // The id is what was asked for with --no-wait: also if quiet.
        Some(operation) => ctx.out.line(&operation.to_string()),
        None if ctx.out.format() == Format::Name => ctx.out.line(&escape(&done.machine.name)),
        None => ctx.out.changed(&done.text),
    }
}

/// Tells people what would be done.
pub(crate) fn show_plan(ctx: &Ctx, plan: &PlanView) -> Result<()> {
    if plan.steps.is_empty() {
        return ctx.out.line(&format!("{}: nothing to do", escape(&plan.name)));
    }
    ctx.out.line(&format!("{}:{}", escape(&plan.name), steps(&plan.steps)))
}

/// One step a line; what is several lines by itself, such as the XML of a domain, stays so and is indented.
fn steps(steps: &[String]) -> String {
    let mut text = String::new();
    for step in steps {
        for (n, line) in step.lines().enumerate() {
            text.push_str(if n == 0 { "\n  " } else { "\n    " });
            text.push_str(&escape(line));
        }
    }
    text
}

fn goal(request: Request) -> &'static str {
    match request {
        Request::Start | Request::Restart | Request::Resume => "running",
        Request::Stop | Request::Kill => "stopped",
        Request::Pause => "paused",
        Request::Suspend => "suspended",
        _ => "so",
    }
}

fn doing(request: Request) -> &'static str {
    match request {
        Request::Start => "starting",
        Request::Stop => "stopping",
        Request::Kill => "killing",
        Request::Restart => "restarting",
        Request::Pause => "pausing",
        Request::Suspend => "suspending",
        Request::Resume => "resuming",
        Request::Delete | Request::DeleteForce => "deleting",
        _ => "changing",
    }
}

fn past(request: Request) -> &'static str {
    match request {
        Request::Start => "started",
        Request::Stop => "stopped",
        Request::Kill => "killed",
        Request::Restart => "restarted",
        Request::Pause => "paused",
        Request::Suspend => "suspended",
        Request::Resume => "resumed",
        Request::Forget => "forgot",
        Request::Delete | Request::DeleteForce => "deleted",
        _ => "changed",
    }
}
