//! `vmoon clone`: a copy of a running machine that goes on from where it is.

use super::lifecycle::{self, Done, Value as _};
use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{Format, time},
    wait::{self, WaitArgs},
};
use std::time::Duration;
use vmoon_api::{
    Api as _,
    requests::{CloneMachine, MachineRef},
};
use vmoon_core::{Code, Error, Result, machine::Answer, name::escape, target::Target};

const EXAMPLES: &str = "Examples:
  vmoon clone lab lab2
  vmoon clone pool:web01 web02 --set copy=full   of a VM that is off
  vmoon clone lab try-1 && vmoon eval try-1 'risky()'";

/// What to copy.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The machine to copy: [CONNECTION:]NAME, an id or a prefix of one; a Lua VM must run, and no command may
    #[arg(value_name = "MACHINE", add = crate::cmd::completions::machines())]
    machine: String,
    /// The name of the copy
    #[arg(value_name = "NAME")]
    name: String,
    /// What the copy is to have otherwise, where its kind has such settings; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = super::create::pair)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Copies it.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let target = Target::parse(&args.machine)?;
    if target.session.is_some() || target.is_glob() {
        return Err(Error::new(Code::Usage, format!("\"{}\" does not name one machine", escape(&args.machine))));
    }
    // Who writes the connection before the one name writes it before the other.
    let name = match args.name.split_once(':') {
        Some((connection, name)) if target.connection.as_deref() == Some(connection) => name,
        Some((_, name)) => {
            return Err(Error::new(Code::Usage, "a copy is on the connection of its original").hint(format!(
                "vmoon clone {} {}",
                escape(&args.machine),
                escape(name)
            )));
        }
        None => &args.name,
    };
    vmoon_core::name::check(name)?;
    let mut settings = serde_json::Map::new();
    for (name, value) in &args.settings {
        if settings.insert(name.clone(), super::create::setting(value)).is_some() {
            return Err(Error::new(Code::Usage, format!("{} stands there twice", escape(name))));
        }
    }
    let until = args.wait.limit.until(wait::DEFAULT)?;
    let request = CloneMachine { machine: args.machine.clone(), name: name.to_owned(), settings, deadline_ms: args.wait.deadline_ms()? };
    let began = vmoon_sys::clock::instant();
    let answered = ctx.daemon.ask(async |client| client.clone_machine(request.clone()).await).await?;
    answered.warnings.iter().for_each(|warning| ctx.out.warn(&escape(warning)));
    let mut machine = answered.machine;
    let name = escape(&machine.name);
    let operation = match answered.answer {
        Answer::Started { operation } | Answer::Joined { operation } => operation,
        Answer::Already => return Err(Error::new(Code::MachineExists, format!("{name} exists already"))),
        Answer::Refused { code } => return Err(Error::new(code, code.meaning().trim_end_matches('.').to_owned())),
    };
    let done = if args.wait.no_wait {
        Done { machine, text: operation.to_string(), operation: Some(operation) }
    } else {
        wait::operation(ctx, operation, &format!("copying {} to {name}", escape(&args.machine)), until).await?;
        let took = vmoon_sys::clock::instant().duration_since(began);
        if ctx.out.format().is_machine() {
            let request = MachineRef { machine: machine.id.to_string() };
            machine = ctx.daemon.ask(async |client| client.show_machine(request.clone()).await).await?;
        }
        let text = format!("copied {} to {name} ({})", escape(&args.machine), time::took(took.max(Duration::from_micros(100))));
        Done { machine, text, operation: None }
    };
    if ctx.out.format().is_machine() && ctx.out.format() != Format::Name {
        ctx.out.one(&done.value(), "", &[])?;
    } else {
        lifecycle::report(ctx, &done)?;
    }
    Ok(Exit::OK)
}
