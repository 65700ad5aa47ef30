//! `vmoon soak`: random work on a private daemon, with everything killed now and then, and every answer checked.
//!
//! Each machine has a worker that knows what its machine must be and what it must answer; beside them the daemon is killed
//! again and again. At the end nothing may be left: no process, no file, no descriptor. Knows nothing of how the daemon works.

mod chance;
mod tally;
mod worker;

use crate::{
    bench::place::{self, Place},
    ctx::Ctx,
    exit::Exit,
    out::{json, time},
};
use chance::Chance;
use serde_json::json;
use std::{cell::RefCell, rc::Rc, time::Duration};
use tally::Tally;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::Instant,
};
use vmoon_api::{Api as _, requests::Empty};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::random;

const EXAMPLES: &str =
    "Prints JSON; the exit code is 1 if anything was wrong. The same seed does the same things in the same order on each machine.

Examples:
  vmoon soak > soak.json
  vmoon soak --time 30s --machines 8 --seed 7";

/// The shortest and the longest time between two kills of the daemon, milliseconds.
const KILLS_MS: (u64, u64) = (300, 3_000);

/// How to soak.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How long
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time::parse_duration)]
    time: Duration,
    /// How many machines at once
    #[arg(long, value_name = "N", default_value_t = 24)]
    machines: u32,
    /// Where chance begins; another one each time if not said
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Leave the daemon alone
    #[arg(long)]
    no_kills: bool,
}

/// What the workers share.
struct World {
    place: Place,
    /// Rises with every daemon.
    daemons: watch::Sender<u64>,
    tally: RefCell<Tally>,
}

impl World {
    /// Asks until some daemon has answered. Only for what may be asked twice.
    ///
    /// # Errors
    /// Those of the call.
    async fn ask<T>(&self, call: impl AsyncFn(&vmoon_api::Client) -> Result<T>) -> Result<T> {
        let mut daemons = self.daemons.subscribe();
        loop {
            daemons.mark_unchanged();
            match call(self.place.client()).await {
                Err(error) if matches!(error.code(), Code::DaemonUnreachable | Code::DaemonStopping) => {
                    self.tally.borrow_mut().asked_again += 1;
                    // It may have been killed and another started since the question was sent.
                    if self.place.client().hello(Empty {}).await.is_err() && daemons.changed().await.is_err() {
                        return Err(error);
                    }
                }
                answer => return answer,
            }
        }
    }
}

/// Soaks and prints what came of it.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let seed = args.seed.unwrap_or_else(|| {
        let mut bytes = [0; 8];
        random::fill(&mut bytes);
        // Short enough to be typed again.
        u64::from_le_bytes(bytes) % 1_000_000
    });
    ctx.out.step(&format!("soaking for {} s with {} machines, seed {seed}", args.time.as_secs(), args.machines));
    let world = Rc::new(World { place: Place::open()?, daemons: watch::Sender::new(0), tally: RefCell::default() });
    let until = Instant::now() + args.time;
    let mut stop = signal(SignalKind::interrupt()).map_err(|error| Error::io("listen for Ctrl-C", error))?;
    let before = world.place.uses();
    let work = async {
        let workers = (0..args.machines).map(|number| worker::work(Rc::clone(&world), Chance::new(seed, number.into()), number, until));
        let kills = async {
            if !args.no_kills {
                kill_daemons(&world, Chance::new(seed, u64::MAX), until).await?;
            }
            Ok::<(), Error>(())
        };
        tokio::try_join!(futures_util::future::try_join_all(workers), kills).map(drop)
    };
    let worked = tokio::select! {
        worked = work => worked,
        _ = stop.recv() => Err(Error::new(Code::Cancelled, "the soak was stopped")),
    };
    finish(ctx, world, worked, before, seed, &args).await
}

/// Kills the daemon at random moments and starts another.
async fn kill_daemons(world: &World, mut chance: Chance, until: Instant) -> Result<()> {
    loop {
        let pause = Duration::from_millis(chance.between(KILLS_MS.0, KILLS_MS.1));
        if Instant::now() + pause >= until {
            return Ok(());
        }
        // Not a wait for anything: the moment is what varies.
        tokio::time::sleep_until(Instant::now() + pause).await;
        world.place.replace_daemon()?;
        world.tally.borrow_mut().daemons_killed += 1;
        world.daemons.send_modify(|number| *number += 1);
    }
}

async fn finish(ctx: &Ctx, world: Rc<World>, worked: Result<()>, before: place::Uses, seed: u64, args: &Args) -> Result<Exit> {
    // Even after a failure: nothing may be left.
    let cleared = world.place.clear().await;
    let files = world.place.files_of_machines();
    let after = world.place.uses();
    let left = world.place.close().await?;
    let tally = world.tally.borrow();
    let mut wrong = tally.wrong.clone();
    wrong.extend(worked.err().map(|error| error.chain()));
    wrong.extend(cleared.err().map(|error| format!("the machines could not be deleted: {}", error.chain())));
    if left > 0 {
        wrong.push(format!("{left} processes were left over when every machine was deleted"));
    }
    if let [first, ..] = files.as_slice() {
        wrong.push(format!("{} files were left over when every machine was deleted, {} among them", files.len(), first.display()));
    }
    // A descriptor for every life would be many.
    if after.descriptors > before.descriptors + 16 {
        wrong.push(format!("the daemon had {} descriptors open at first and {} at the end", before.descriptors, after.descriptors));
    }
    let report = json!({
        "seed": seed,
        "seconds": args.time.as_secs(),
        "machines": args.machines,
        "done": tally.done,
        "asked_again": tally.asked_again,
        "daemons_killed": tally.daemons_killed,
        "lives_lost_without_a_reason": tally.reasons_lost,
        "daemon": { "memory_bytes": after.memory, "memory_bytes_at_first": before.memory, "descriptors": after.descriptors },
        "left_over_processes": left,
        "wrong": wrong,
    });
    ctx.out.bytes(&json::pretty(&report)?)?;
    Ok(if wrong.is_empty() { Exit::OK } else { Exit(1) })
}
