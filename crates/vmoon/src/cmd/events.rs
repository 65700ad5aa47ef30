//! `vmoon events`: what changes, one event a line.

use super::list::word;
use crate::{
    connect::is_away,
    ctx::Ctx,
    exit::Exit,
    out::time,
    select::{Targets, is_pattern},
};
use std::collections::HashSet;
use vmoon_api::{Api as _, EventStream, requests};
use vmoon_core::{Code, MachineId, Result, event::Event, name::escape};

const EXAMPLES: &str = "Examples:
  vmoon events
  vmoon events lab --follow
  vmoon events --since 120 -o json";

/// Which events.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only of this machine; globs and braces mean those that match now
    #[arg(value_name = "MACHINE", add = super::completions::machines())]
    machine: Option<String>,
    /// Go on as more come
    #[arg(short, long)]
    follow: bool,
    /// Only those after this number
    #[arg(long, value_name = "NUMBER")]
    since: Option<u64>,
}

/// One event for people.
pub(crate) fn text(event: &Event) -> String {
    let subject =
        [event.machine.map(|id| id.to_string()), event.session.map(|id| id.to_string()), event.operation.map(|id| id.to_string())];
    let said = if event.text.is_empty() { subject.into_iter().flatten().next().unwrap_or_default() } else { escape(&event.text) };
    format!("{} {:>6} {:<18} {said}", time::utc(event.at_ms), event.seq, word(&event.kind)).trim_end().to_owned()
}

/// Prints them.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let mut wanted: Option<HashSet<MachineId>> = None;
    let mut machine = None;
    match &args.machine {
        Some(text) if is_pattern(text) => {
            let found = Targets { machines: vec![text.clone()], all: false }.find(&ctx.daemon).await?;
            let mut ids = HashSet::new();
            for picked in found.machines {
                let request = requests::MachineRef { machine: picked.machine };
                ids.insert(ctx.daemon.ask(async |client| client.show_machine(request.clone()).await).await?.id);
            }
            wanted = Some(ids);
        }
        Some(text) => machine = Some(super::show::machine(text)?),
        None => {}
    }
    let is_wanted = |event: &Event| wanted.as_ref().is_none_or(|ids| event.machine.is_some_and(|id| ids.contains(&id)));
    let request = requests::Events { since: args.since, machine };
    if !args.follow {
        let events = ctx.daemon.ask(async |client| client.list_events(request.clone()).await).await?;
        for event in events.iter().filter(|event| is_wanted(event)) {
            ctx.out.event(event, || text(event))?;
        }
        return Ok(Exit::OK);
    }
    let mut follower = Follower::new(request);
    loop {
        let event = follower.next(ctx).await?;
        if is_wanted(&event) {
            ctx.out.event(&event, || text(&event))?;
        }
    }
}

/// Follows events across restarts of the daemon.
pub(crate) struct Follower {
    request: requests::Events,
    stream: Option<Box<dyn EventStream>>,
}

impl Follower {
    /// Not connected yet.
    pub(crate) fn new(request: requests::Events) -> Self {
        Self { request, stream: None }
    }

    /// The next event. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Those of the daemon; a gap is told and passed over.
    pub(crate) async fn next(&mut self, ctx: &Ctx) -> Result<Event> {
        loop {
            if self.stream.is_none() {
                let request = self.request.clone();
                self.stream = Some(ctx.daemon.ask(async |client| client.follow_events(request.clone()).await).await?);
            }
            let Some(stream) = self.stream.as_mut() else { continue };
            match stream.next().await {
                Ok(event) => {
                    self.request.since = Some(event.seq);
                    return Ok(event);
                }
                Err(error) if is_away(&error) => self.stream = None,
                Err(error) if error.code() == Code::EventsGap => {
                    ctx.out.warn("events were missed: they are no longer kept");
                    self.stream = None;
                    let all = requests::Events { since: None, machine: None };
                    let kept = ctx.daemon.ask(async |client| client.list_events(all.clone()).await).await?;
                    self.request.since = kept.last().map(|event| event.seq);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
