//! `vmoon create`: machines from a specification.

use super::{
    access::{Access, seconds},
    lifecycle::{self, Done, Named},
};
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::time,
    select::{all_braces, machine_of},
    wait::{self, WaitArgs},
};
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
    time::Duration,
};
use tokio::time::Instant;
use vmoon_api::{
    Api as _,
    requests::{CreateMachine, Empty, MachineRef, Ready, WaitMachine},
    views::{Answered, MachineView, PlanView},
};
use vmoon_core::{
    Code, Error, Result,
    connection::LOCAL,
    machine::{Answer, State},
    name::escape,
    spec::{Lifetime, MachineSpec},
    target::Target,
};

const EXAMPLES: &str = "Examples:
  vmoon create lab --start
  vmoon create small --memory 256M --start
  vmoon create 'fold-{001..500}' --label team=bio --start -q
  vmoon create fetch --net example.org:443 --read ./data --command-time 5m
  vmoon create lab --expire-idle 30m --start
  vmoon create lab --runtime luajit --dry-run
  vmoon create --on kvm web{01..03} --set memory=4G --start";

/// How long nobody wants to be told how far it is.
const MOMENT: Duration = Duration::from_millis(100);

/// What to create.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Names: [CONNECTION:]NAME; braces make many, as in web{01..20}
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// The connection to create them on [default: as `vmoon connection default` says, else local]
    #[arg(long, value_name = "CONNECTION")]
    on: Option<String>,
    /// The kind of machine [default: that of the connection]
    #[arg(long)]
    kind: Option<String>,
    /// The Lua interpreter: builtin, builtin-luajit, builtin-5.1, builtin-5.5, lua5.1 to lua5.4, luajit, or a path [default: builtin]
    #[arg(long, help_heading = "Lua machines")]
    runtime: Option<String>,
    #[command(flatten)]
    access: Access,
    /// How long a command may run that brings no deadline of its own, in whole seconds
    #[arg(long, value_name = "TIME", value_parser = seconds, help_heading = "What it may do")]
    command_time: Option<u64>,
    /// What happens to output while no daemon reads and the ring is full: spill, wait or drop [default: spill]
    #[arg(long, value_parser = ["spill", "wait", "drop"], help_heading = "Lua machines")]
    overflow: Option<String>,
    /// How much output is kept until the daemon has read it [default: 1M]
    #[arg(long, value_name = "SIZE", value_parser = time::parse_bytes, help_heading = "Lua machines")]
    ring: Option<u64>,
    /// How much output is spilled to a file when the ring is full [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = time::parse_bytes, help_heading = "Lua machines")]
    spill: Option<u64>,
    /// Any setting of the kind; `vmoon connection list -o json` lists them
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,
    /// A label to filter by
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Stop it (delete it, if it is temporary) when nothing has used it for this long: no command, nobody attached who may write
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    expire_idle: Option<u64>,
    /// Start them when they are created
    #[arg(long)]
    start: bool,
    /// Then wait until they have an address, greet by SSH, or have a session; starts them
    #[arg(long, value_name = "ip|ssh|session", value_parser = super::wait::ready, conflicts_with_all = ["no_wait", "dry_run"])]
    until: Option<Ready>,
    /// Say what would be done and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

impl Args {
    fn spec(&self) -> Result<MachineSpec> {
        let mut settings = self.access.settings()?;
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                settings.insert(name.to_owned(), value);
            }
        };
        set("runtime", self.runtime.clone().map(Value::from));
        set("command-time", self.command_time.map(Value::from));
        set("overflow", self.overflow.clone().map(Value::from));
        set("ring", self.ring.map(Value::from));
        set("spill", self.spill.map(Value::from));
        for (name, value) in &self.settings {
            if settings.insert(name.clone(), setting(value)).is_some() {
                return Err(Error::new(Code::Usage, format!("{} stands there twice", vmoon_core::name::escape(name)))
                    .hint("several values of one setting are a list: --set 'read=[\"/data\", \"/srv\"]'"));
            }
        }
        let labels: BTreeMap<String, String> = self.labels.iter().cloned().collect();
        Ok(MachineSpec {
            kind: self.kind.clone().unwrap_or_default(),
            settings,
            labels,
            lifetime: Lifetime::Kept,
            idle_seconds: self.expire_idle,
        })
    }

    fn requests(&self) -> Result<Vec<CreateMachine>> {
        let mut requests = Vec::new();
        let deadline_ms = self.wait.deadline_ms()?;
        let mut seen = HashSet::new();
        let spec = self.spec()?;
        for text in all_braces(&self.names)? {
            let (connection, name) = match text.split_once(':') {
                Some((connection, name)) => (Some(connection.to_owned()), name.to_owned()),
                None => (self.on.clone(), text),
            };
            vmoon_core::name::check(&name)?;
            if !seen.insert((connection.clone(), name.clone())) {
                return Err(Error::new(Code::Usage, format!("the name {name} stands there twice")));
            }
            requests.push(CreateMachine { name, connection, spec: spec.clone(), start: self.start || self.until.is_some(), deadline_ms });
        }
        Ok(requests)
    }
}

/// A value after `=`: whole numbers and truth values are what they look like, everything else is text.
pub(super) fn setting(text: &str) -> Value {
    match serde_json::from_str::<Value>(text) {
        Ok(value @ (Value::Bool(_) | Value::Array(_) | Value::Object(_))) => value,
        Ok(value) if value.is_u64() || value.is_i64() => value,
        _ => Value::from(text),
    }
}

impl Named for CreateMachine {
    fn name(&self) -> &str {
        &self.name
    }
}

/// The machine as it is now. What its driver could tell of it is asked only for those who get to see that.
async fn look(ctx: &Ctx, machine: &str) -> Result<MachineView> {
    if ctx.out.format().is_machine() {
        let request = MachineRef { machine: machine.to_owned() };
        return ctx.daemon.ask(async |client| client.show_machine(request.clone()).await).await;
    }
    let request = WaitMachine { machine: machine.to_owned(), until: None, generation: None, timeout_ms: Some(0) };
    ctx.daemon.ask(async |client| client.wait_machine(request.clone()).await).await
}

/// Whether it runs within a moment: then nothing is left to wait for, and one question was enough. What went wrong its operations tell.
async fn soon(ctx: &Ctx, machine: &str, until: Option<Instant>) -> bool {
    let moment = until.map_or(MOMENT, |until| MOMENT.min(until.saturating_duration_since(Instant::now())));
    let timeout_ms = Some(moment.as_millis() as u64);
    let request = WaitMachine { machine: machine.to_owned(), until: Some(State::Running), generation: None, timeout_ms };
    let seen = ctx.daemon.ask(async |client| client.wait_machine(request.clone()).await).await;
    seen.is_ok_and(|view| view.state == State::Running && view.operation.is_none())
}

/// Creates them.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    // All names are checked before the first machine is made.
    let requests = args.requests()?;
    let single = requests.len() == 1;
    if args.dry_run {
        let plan = |request: CreateMachine| async move { ctx.daemon.ask(async |client| client.plan_machine(request.clone()).await).await };
        if single || ctx.out.format().is_machine() {
            return lifecycle::bulk(ctx, requests, single, plan, lifecycle::show_plan, "planning").await;
        }
        return show_plans(ctx, requests, plan).await;
    }
    if let Some(goal) = args.until {
        reachable(ctx, &requests, goal).await?;
    }
    let until = args.wait.limit.until(wait::DEFAULT)?;
    let (no_wait, start, goal) = (args.wait.no_wait, args.start || args.until.is_some(), args.until);
    // What is said of one of many is said once.
    let warned = &RefCell::new(HashSet::new());
    let work = |request: CreateMachine| async move {
        let began = vmoon_sys::clock::instant();
        let answered = create(ctx, &request).await?;
        for warning in &answered.warnings {
            if warned.borrow_mut().insert(warning.clone()) {
                ctx.out.warn(&escape(warning));
            }
        }
        let mut machine = answered.machine;
        let name = escape(&machine.name);
        let operation = match answered.answer {
            Answer::Started { operation } | Answer::Joined { operation } => operation,
            Answer::Already => return Ok(Done { machine, text: format!("{name} exists already"), operation: None }),
            Answer::Refused { code } => return Err(Error::new(code, code.meaning().trim_end_matches('.').to_owned())),
        };
        if no_wait {
            return Ok(Done { machine, text: operation.to_string(), operation: Some(operation) });
        }
        let runs = start && soon(ctx, &machine.id.to_string(), until).await;
        if !runs {
            wait::operation(ctx, operation, &format!("creating {name}"), until).await?;
        }
        if (start && !runs) || ctx.out.format().is_machine() {
            machine = look(ctx, &machine.id.to_string()).await?;
            // A start that follows the creation is an operation of its own.
            if let Some(operation) = machine.operation.filter(|next| start && *next != operation) {
                wait::operation(ctx, operation, &format!("starting {name}"), until).await?;
                machine = look(ctx, &machine.id.to_string()).await?;
            }
        }
        let mut has = String::new();
        if let Some(goal) = goal {
            let id = machine.id.to_string();
            let ready = super::ready::wait(ctx, &id, &machine.name, goal, until).await?;
            has = ready.address.map(|address| format!(", {}", escape(&address.ip))).unwrap_or_default();
            if ctx.out.format().is_machine() {
                let request = MachineRef { machine: id };
                machine = ctx.daemon.ask(async |client| client.show_machine(request.clone()).await).await?;
            }
        }
        let took = vmoon_sys::clock::instant().duration_since(began);
        let what = if start { "created and started" } else { "created" };
        Ok(Done { machine, text: format!("{what} {name}{has} ({})", time::took(took.max(Duration::from_micros(100)))), operation: None })
    };
    let exit = lifecycle::bulk(ctx, requests, single, work, lifecycle::report, "creating").await?;
    if exit == Exit::OK && single && !start && !no_wait && !ctx.out.format().is_machine() {
        ctx.out.hint(&format!("vmoon start {}", escape(&machine_of(&Target::parse(&args.names[0])?))));
    }
    Ok(exit)
}

/// Refuses to wait for what machines of a connection never have, before any of them is made.
async fn reachable(ctx: &Ctx, requests: &[CreateMachine], goal: Ready) -> Result<()> {
    if goal == Ready::Session {
        return Ok(());
    }
    let known = ctx.daemon.ask(async |client| client.list_connections(Empty {}).await).await?;
    for request in requests {
        let named = |name: &str| known.iter().find(|one| one.name == name || one.id.to_string() == name);
        let meant = match &request.connection {
            Some(name) => named(name),
            None => known.iter().find(|one| one.default).or_else(|| named(LOCAL)),
        };
        // What is not there, or does not work, is told by who makes the machine.
        if let Some(one) = meant.filter(|one| !one.addresses && one.error.is_none()) {
            return Err(Error::new(
                Code::DriverUnsupported,
                format!("machines of kind {} cannot tell addresses; nothing was created", one.kind),
            )
            .hint("--until session waits for what they have"));
        }
    }
    Ok(())
}

/// Says what would be done, once, and for which machines; what would fail is told for each.
async fn show_plans<F: Future<Output = Result<PlanView>>>(
    ctx: &Ctx,
    requests: Vec<CreateMachine>,
    plan: impl Fn(CreateMachine) -> F,
) -> Result<Exit> {
    let mut exit = Exit::OK;
    let (mut first, mut names) = (None, Vec::new());
    let mut plans = stream::iter(requests)
        .map(|request| {
            let name = request.name.clone();
            let future = plan(request);
            async move { (name, future.await) }
        })
        .buffered(lifecycle::AT_ONCE);
    while let Some((name, result)) = plans.next().await {
        match result {
            Ok(plan) => {
                names.push(escape(&plan.name));
                first.get_or_insert(plan);
            }
            Err(error) => {
                exit = exit.worse(Exit::of(&error));
                ctx.out.error_of(Some(&name), &error);
            }
        }
    }
    if let Some(plan) = first {
        ctx.out.line(&format!("{} machines: {}", names.len(), names.join(" ")))?;
        ctx.out.line("each as the first:")?;
        lifecycle::show_plan(ctx, &plan)?;
    }
    Ok(exit)
}

/// Asks for the machine. If the daemon dies before it answers, and has the machine when it is back, that is the answer.
async fn create(ctx: &Ctx, request: &CreateMachine) -> Result<Answered> {
    let began_ms = vmoon_sys::clock::now_ms();
    let answered = ctx.daemon.ask(async |client| client.create_machine(request.clone()).await).await;
    let Err(error) = answered else { return answered };
    if error.code() != Code::MachineExists {
        return Err(error);
    }
    let target = request.connection.as_ref().map_or_else(|| request.name.clone(), |connection| format!("{connection}:{}", request.name));
    let found = ctx.daemon.ask(async |client| client.show_machine(MachineRef { machine: target.clone() }).await).await;
    match found {
        Ok(machine) if machine.created_ms >= began_ms && machine.spec.as_ref().is_some_and(|spec| is_asked(&request.spec, spec)) => {
            let answer = machine.operation.map_or(Answer::Already, |operation| Answer::Joined { operation });
            Ok(Answered { answer, machine, warnings: Vec::new() })
        }
        _ => Err(error),
    }
}

/// Whether a machine is what was asked for; without a kind it got its connection's.
fn is_asked(asked: &MachineSpec, made: &MachineSpec) -> bool {
    let kind = if asked.kind.is_empty() { made.kind.clone() } else { asked.kind.clone() };
    MachineSpec { kind, ..asked.clone() } == *made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_what_they_look_like() {
        assert_eq!(setting("7"), Value::from(7));
        assert_eq!(setting("true"), Value::from(true));
        assert_eq!(setting("5.4"), Value::from("5.4"), "a version is not a number");
        assert_eq!(setting("a b"), Value::from("a b"));
        assert_eq!(setting("[1]"), serde_json::json!([1]));
        assert!(pair("=x").is_err() && pair("x").is_err());
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
    }
}
