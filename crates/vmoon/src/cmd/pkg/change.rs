//! Verbs that change an environment: the plan, the consent, the operation, and the machine that is to use the outcome.

use super::Of;
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{self, time},
    wait::{self, WaitArgs},
};
use vmoon_api::{
    Api as _,
    requests::{ApplyEnvironment, ChangePackages, EnvironmentRef, MachineRef, MakeEnvironment},
    views::AppliedView,
};
use vmoon_core::{
    Code, Error, Result,
    ability::Effect,
    name::escape,
    package::{Change, EnvironmentInfo, PackagePlan, PackageStep},
};

/// Whether anything may be fetched.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Offline {
    /// Fetch nothing: only what is in the cache counts [env: VMOON_OFFLINE]
    #[arg(long)]
    offline: bool,
}

impl Offline {
    /// Whether that was asked for.
    pub(crate) fn wanted(self) -> bool {
        self.offline || std::env::var_os("VMOON_OFFLINE").is_some_and(|value| !value.is_empty() && value != "0")
    }
}

/// Whom not to ask.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Without {
    /// Do not ask this rocks server this time, for example one that does not answer
    #[arg(long = "without-server", value_name = "SERVER", add = crate::cmd::completions::servers())]
    servers: Vec<String>,
}

/// How an environment is changed.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Changing {
    #[command(flatten)]
    pub(crate) of: Of,
    #[command(flatten)]
    pub(crate) offline: Offline,
    /// Whom not to ask; of the verbs that ask servers.
    #[arg(skip)]
    pub(crate) without: Without,
    /// Change the environment of this machine, which is made if it has none, and let the machine use the outcome
    #[arg(long, value_name = "MACHINE", conflicts_with = "env", add = crate::cmd::completions::machines())]
    pub(crate) machine: Option<String>,
    /// Say what would be done and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask before packages go
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// What is asked of the daemon.
pub(crate) fn request(changing: &Changing, environment: &str, change: Change) -> Result<ChangePackages> {
    let deadline_ms = changing.wait.deadline_ms()?;
    let without = changing.without.servers.clone();
    Ok(ChangePackages { environment: environment.to_owned(), change, offline: changing.offline.wanted(), deadline_ms, make: None, without })
}

/// The plan.
pub(crate) async fn ask(ctx: &Ctx, request: &ChangePackages) -> Result<PackagePlan> {
    let until = wait::Limit::default().until(wait::DEFAULT)?;
    let asked = ctx.daemon.hold(async |client| client.plan_packages(request.clone()).await);
    wait::within(until, "planning", asked).await
}

/// One line for each step.
pub(crate) fn plan_rows(plan: &PackagePlan) -> Vec<String> {
    let mut rows: Vec<String> = plan.steps.iter().map(row).collect();
    if rows.is_empty() {
        rows.push("nothing changes".into());
    }
    match plan.kept {
        0 => {}
        1 => rows.push("1 rock stays as it is".into()),
        kept => rows.push(format!("{kept} rocks stay as they are")),
    }
    let fetched: u64 = plan.steps.iter().filter_map(|step| step.download_bytes).sum();
    let unknown = plan.steps.iter().any(|step| step.action != "remove" && step.download_bytes.is_none());
    if fetched > 0 || unknown {
        rows.push(format!("fetches {}{}", time::bytes(fetched), if unknown { " and files of unknown size" } else { "" }));
    }
    if !plan.orphans.is_empty() {
        rows.push(format!("nothing needs these any more: {} (vmoon pkg rm --orphans)", plan.orphans.join(", ")));
    }
    rows.extend(plan.notes.iter().chain(&plan.unasked).cloned());
    rows.iter().map(|row| escape(row)).collect()
}

fn row(step: &PackageStep) -> String {
    let (mark, what) = match (step.action.as_str(), &step.from) {
        ("install", _) => ("+", format!("{} {}", step.name, step.version)),
        ("remove", _) => ("-", format!("{} {}", step.name, step.version)),
        (_, Some(from)) => ("~", format!("{} {from} → {}", step.name, step.version)),
        (other, None) => ("~", format!("{} {} ({other})", step.name, step.version)),
    };
    let mut how = Vec::new();
    match step.build.as_str() {
        "nothing" => {}
        "unpack" => how.push("ready".to_owned()),
        "copy" => how.push("Lua only".to_owned()),
        "compile" => how.push("compiled here".to_owned()),
        other => how.push(format!("built by luarocks ({other})")),
    }
    match step.download_bytes {
        Some(0) | None => {}
        Some(bytes) => how.push(time::bytes(bytes)),
    }
    let how = if how.is_empty() { String::new() } else { format!(" [{}]", how.join(", ")) };
    format!("{mark} {what}{how}: {}", step.why)
}

/// Prints a plan.
pub(crate) fn show_plan(ctx: &Ctx, plan: &PackagePlan) -> Result<()> {
    let rows: Vec<(String, String)> = plan_rows(plan).into_iter().enumerate().map(|(n, row)| ((n + 1).to_string(), row)).collect();
    ctx.out.one(plan, &plan.environment, &rows)
}

/// Whether packages may go; those that do are named.
fn agreed(plan: &PackagePlan) -> Result<bool> {
    let gone: Vec<String> = plan.steps.iter().filter(|step| step.action == "remove").map(|step| escape(&step.name)).collect();
    if gone.is_empty() {
        return Ok(true);
    }
    out::confirm(&format!("Remove {} from {}?", gone.join(", "), escape(&plan.environment))).ok_or_else(|| {
        Error::new(Code::Usage, "removing packages needs a yes, and there is no terminal to ask on").hint("add --yes if you are sure")
    })
}

/// Changes an environment.
pub(super) async fn run(ctx: &Ctx, changing: &Changing, change: Change) -> Result<Exit> {
    let (environment, make) = match &changing.machine {
        Some(machine) => environment_of(ctx, machine).await?,
        None => (changing.of.name(), None),
    };
    let asks = matches!(change, Change::Remove { .. }) && !changing.yes;
    let request = ChangePackages { make, ..request(changing, &environment, change)? };
    if changing.dry_run {
        show_plan(ctx, &ask(ctx, &request).await?)?;
        return Ok(Exit::OK);
    }
    if asks && !agreed(&ask(ctx, &request).await?)? {
        ctx.out.note("nothing was changed");
        return Ok(Exit(Code::Cancelled.exit()));
    }
    let Some(after) = ended(ctx, changing, &request).await? else { return Ok(Exit::OK) };
    if let Some(machine) = &changing.machine {
        let Some(applied) = apply(ctx, &after.name, machine, &changing.wait).await? else { return Ok(Exit::OK) };
        if ctx.out.format().is_machine() {
            ctx.out.one(&applied, &after.name, &[])?;
        }
        tell(ctx, &applied)?;
    } else if ctx.out.format().is_machine() {
        ctx.out.one(&after, &after.name, &[])?;
    }
    Ok(Exit::OK)
}

/// Begins a change and waits for its end; the environment as it is then, or nothing if it was not waited for.
pub(crate) async fn ended(ctx: &Ctx, changing: &Changing, request: &ChangePackages) -> Result<Option<EnvironmentInfo>> {
    let until = changing.wait.limit.until(wait::DEFAULT)?;
    let began = vmoon_sys::clock::instant();
    let what = request.change.what();
    // A change that was begun and whose answer was lost must not begin again.
    let begun = ctx.daemon.ask_once(async |client| client.change_packages(request.clone()).await).await?;
    if changing.wait.no_wait {
        ctx.out.one(&begun, &begun.operation.to_string(), &[("operation".to_owned(), begun.operation.to_string())])?;
        return Ok(None);
    }
    let done = wait::operation(ctx, begun.operation, &escape(&what), until).await?;
    // Of a daemon that says it.
    let done: Option<PackagePlan> = done.result.and_then(|plan| serde_json::from_value(plan).ok());
    for server in done.iter().flat_map(|plan| &plan.unasked) {
        ctx.out.warn(&escape(server));
    }
    let took = vmoon_sys::clock::instant().duration_since(began);
    let asked = EnvironmentRef { environment: request.environment.clone() };
    let after = ctx.daemon.ask(async |client| client.show_environment(asked.clone()).await).await?;
    if request.make.is_some() {
        ctx.out.changed(&format!("created environment {} (Lua {})", escape(&after.name), after.lua))?;
    }
    let rocks = if after.rocks == 1 { "1 rock".to_owned() } else { format!("{} rocks", after.rocks) };
    let (name, what, generation, took) = (escape(&after.name), escape(&what), after.generation, time::took(took));
    // A change that makes no generation had nothing to do.
    ctx.out.changed(&match done {
        Some(plan) if plan.generation == generation => {
            format!("{name}: {what}: nothing to do, all is there already; generation {generation} stays and has {rocks} ({took})")
        }
        _ => format!("{name}: {what}; generation {generation} has {rocks} ({took})"),
    })?;
    Ok(Some(after))
}

/// The environment of a machine. If it has none, one of the machine's name, and what that is made for if it is not there.
async fn environment_of(ctx: &Ctx, machine: &str) -> Result<(String, Option<MakeEnvironment>)> {
    let request = MachineRef { machine: machine.to_owned() };
    let view = ctx.daemon.ask(async |client| client.show_machine(request.clone()).await).await?;
    let named = view.facts.as_ref().and_then(|facts| facts.get("env")).and_then(|env| env.as_str());
    if let Some(name) = named {
        return Ok((name.to_owned(), None));
    }
    let asked = EnvironmentRef { environment: view.name.clone() };
    match ctx.daemon.ask(async |client| client.show_environment(asked.clone()).await).await {
        // One of that name may have been made for it before.
        Ok(_) => Ok((view.name, None)),
        Err(error) if error.code() == Code::EnvironmentNotFound => {
            Ok((view.name, Some(MakeEnvironment { lua: None, machine: Some(machine.to_owned()) })))
        }
        Err(error) => Err(error),
    }
}

/// What making a machine use an environment would do.
pub(crate) async fn would_apply(ctx: &Ctx, environment: &str, machine: &str) -> Result<AppliedView> {
    let request = ApplyEnvironment { environment: environment.to_owned(), machine: machine.to_owned(), deadline_ms: None };
    ctx.daemon.hold(async |client| client.plan_apply(request.clone()).await).await
}

/// Makes a machine use an environment, and waits for it; what became of the machine, or nothing if it was not waited for.
pub(crate) async fn apply(ctx: &Ctx, environment: &str, machine: &str, waiting: &WaitArgs) -> Result<Option<AppliedView>> {
    let until = waiting.limit.until(wait::DEFAULT)?;
    let deadline_ms = waiting.deadline_ms()?;
    let request = ApplyEnvironment { environment: environment.to_owned(), machine: machine.to_owned(), deadline_ms };
    let begun = ctx.daemon.ask_once(async |client| client.apply_environment(request.clone()).await).await?;
    if waiting.no_wait {
        ctx.out.one(&begun, &begun.operation.to_string(), &[("operation".to_owned(), begun.operation.to_string())])?;
        return Ok(None);
    }
    let what = format!("applying {} to {}", escape(environment), escape(machine));
    let ended = wait::operation(ctx, begun.operation, &what, until).await?;
    let applied = ended.result.ok_or_else(|| Error::internal("the operation says not what came of it"))?;
    let applied = serde_json::from_value(applied);
    applied.map(Some).map_err(|error| Error::new(Code::WireMalformed, "what came of the operation is not understood").source(error))
}

/// Says what became of the machine.
pub(crate) fn tell(ctx: &Ctx, applied: &AppliedView) -> Result<()> {
    let (machine, used) = (escape(&applied.machine), &applied.environment);
    match (applied.effect, applied.pending) {
        (Effect::NextStart, _) => ctx.out.changed(&format!("{machine} uses {} from its next start on", used.name))?,
        (Effect::Now, true) => {
            ctx.out
                .changed(&format!("{machine} is busy; it uses {} generation {} when its command is done", used.name, used.generation))?;
        }
        (Effect::Now, false) => ctx.out.changed(&format!("{machine} uses {} generation {}", used.name, used.generation))?,
    }
    if !applied.loaded.is_empty() {
        ctx.out.note(&format!("loaded before, and still as they were: {}", escape(&applied.loaded.join(", "))));
    }
    Ok(())
}
