//! `vmoon logs`: what happened to a machine and what its sessions said, in one order.

use super::{
    events::{self, Follower},
    pieces::{self, Printer, Reading, Which},
};
use crate::{ctx::Ctx, exit::Exit};
use vmoon_api::{
    Api as _,
    requests::{Events, ListSessions, MachineRef},
    views::SessionView,
};
use vmoon_core::{Result, event::Event, event::EventKind};

const EXAMPLES: &str = "Examples:
  vmoon logs lab
  vmoon logs lab --follow
  vmoon logs lab -o json";

/// Whose log.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The machine
    #[arg(value_name = "MACHINE", add = super::completions::machines())]
    machine: String,
    /// Go on as more comes
    #[arg(short, long)]
    follow: bool,
}

/// Prints it.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let request = MachineRef { machine: super::show::machine(&args.machine)? };
    let machine = ctx.daemon.ask(async |client| client.show_machine(request.clone()).await).await?.id.to_string();
    let wanted = Events { since: None, machine: Some(machine.clone()) };
    let past = ctx.daemon.ask(async |client| client.list_events(wanted.clone()).await).await?;
    let mut sessions = sessions(ctx, &machine).await?;
    sessions.sort_by_key(|session| session.opened_ms);
    let mut printer = Printer::new(&ctx.out, Which::Transcript, None);
    let mut events = past.iter().peekable();
    let mut last = None;
    for session in &sessions {
        // What is said in a session has no clock: it stands where the session was opened.
        while let Some(event) = events.next_if(|event| event.at_ms <= session.opened_ms) {
            show(ctx, event)?;
        }
        let mut reading = Reading { session: session.id.to_string(), command: None, from: None, wait_ms: None };
        loop {
            let part = reading.next(ctx).await?;
            for piece in &part.pieces {
                pieces::show(ctx, &mut printer, piece)?;
            }
            if part.pieces.is_empty() {
                break;
            }
        }
        last = Some(reading);
    }
    for event in events {
        show(ctx, event)?;
    }
    if !args.follow {
        return Ok(Exit::OK);
    }
    let since = past.last().map(|event| event.seq);
    follow(ctx, &machine, since, last, &mut printer).await
}

async fn sessions(ctx: &Ctx, machine: &str) -> Result<Vec<SessionView>> {
    let request = ListSessions { machine: Some(machine.to_owned()), ended: Some(true) };
    ctx.daemon.ask(async |client| client.list_sessions(request.clone()).await).await
}

fn show(ctx: &Ctx, event: &Event) -> Result<()> {
    ctx.out.event(event, || events::text(event))
}

async fn follow(ctx: &Ctx, machine: &str, since: Option<u64>, reading: Option<Reading>, printer: &mut Printer) -> Result<Exit> {
    let mut follower = Follower::new(Events { since, machine: Some(machine.to_owned()) });
    let mut reading = reading.map(|reading| Reading { wait_ms: Some(30_000), ..reading });
    loop {
        let said = async {
            match &mut reading {
                Some(reading) => reading.next(ctx).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = follower.next(ctx) => {
                let event = event?;
                show(ctx, &event)?;
                if let (EventKind::SessionOpened, Some(session)) = (event.kind, event.session) {
                    reading = Some(Reading { session: session.to_string(), command: None, from: None, wait_ms: Some(30_000) });
                }
                if event.kind == EventKind::MachineGone {
                    return Ok(Exit::OK);
                }
            }
            part = said => {
                let part = part?;
                for piece in &part.pieces {
                    pieces::show(ctx, printer, piece)?;
                }
                if part.ended {
                    reading = None;
                }
            }
        }
    }
}
