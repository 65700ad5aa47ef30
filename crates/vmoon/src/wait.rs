//! Waiting: for operations, with progress, a bound of the client's own, and Ctrl-C that detaches before it cancels.

use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{progress::Progress, time},
};
use std::{future::Future, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, timeout, timeout_at},
};
use vmoon_api::{
    Api as _,
    requests::{OperationRef, WaitOperation},
    views::OperationView,
};
use vmoon_core::{Code, Error, OperationId, Result, operation::Outcome};

/// After the first Ctrl-C: how long a second one counts.
const SECOND: Duration = Duration::from_secs(1);

/// How a verb that starts an operation waits for it.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct WaitArgs {
    /// Return at once and print the id of the operation
    #[arg(long, help_heading = "Waiting")]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) limit: Limit,
    /// How long the operation itself may take
    #[arg(long, value_name = "TIME", value_parser = time::parse_duration, help_heading = "Waiting")]
    pub(crate) deadline: Option<Duration>,
}

impl WaitArgs {
    /// The deadline for the wire.
    pub(crate) fn deadline_ms(&self) -> Result<Option<u64>> {
        self.deadline.map(|deadline| time::wire_ms(deadline).map(u64::from)).transpose()
    }
}

/// How long the client waits.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Limit {
    /// How long to wait; what is waited for goes on. 0 is for ever [default: 5m, env: VMOON_TIMEOUT]
    #[arg(long, value_name = "TIME", value_parser = time::parse_duration, help_heading = "Waiting")]
    timeout: Option<Duration>,
}

impl Limit {
    /// When to stop waiting; `None` for never.
    ///
    /// # Errors
    /// [`Code::Usage`] if `VMOON_TIMEOUT` is no duration.
    pub(crate) fn until(&self, default: Option<Duration>) -> Result<Option<Instant>> {
        let limit = match self.timeout {
            Some(limit) => Some(limit),
            None => match std::env::var("VMOON_TIMEOUT").ok().filter(|text| !text.is_empty()) {
                Some(text) => Some(time::parse_duration(&text).map_err(|why| Error::new(Code::Usage, format!("VMOON_TIMEOUT: {why}")))?),
                None => default,
            },
        };
        Ok(limit.filter(|limit| !limit.is_zero()).and_then(|limit| Instant::now().checked_add(limit)))
    }
}

/// How long verbs wait if nothing is said.
pub(crate) const DEFAULT: Option<Duration> = Some(Duration::from_secs(300));

/// Why waiting ended before what was waited for.
#[derive(Debug)]
pub(crate) enum Left {
    /// The time is over.
    Late,
    /// Ctrl-C, once.
    Detached,
    /// Ctrl-C, twice.
    Cancel,
}

/// Ctrl-C, as long as something is waited for.
pub(crate) struct Interrupts(Signal);

impl Interrupts {
    /// From now on Ctrl-C does not end the process.
    pub(crate) fn listen() -> Result<Self> {
        signal(SignalKind::interrupt()).map(Self).map_err(|error| Error::io("listen for Ctrl-C", error))
    }

    /// Waits for one Ctrl-C.
    pub(crate) async fn once(&mut self) {
        let _ = self.0.recv().await;
    }

    /// Waits for `work`, until a time, or until Ctrl-C. The first Ctrl-C prints `hint` and waits a second for another.
    pub(crate) async fn guard<T>(
        &mut self,
        ctx: &Ctx,
        until: Option<Instant>,
        hint: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<Result<T, Left>> {
        let late = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = work => done.map(Ok),
            _ = self.0.recv() => {
                ctx.out.note(hint);
                Ok(Err(if timeout(SECOND, self.0.recv()).await.is_ok() { Left::Cancel } else { Left::Detached }))
            }
            () = late => Ok(Err(Left::Late)),
        }
    }
}

/// Waits for the end of an operation.
///
/// # Errors
/// What the operation failed with; `timeout`, `cancelled` (130) when the client stopped waiting.
pub(crate) async fn operation(ctx: &Ctx, id: OperationId, what: &str, until: Option<Instant>) -> Result<OperationView> {
    let mut interrupts = Interrupts::listen()?;
    let mut progress = Progress::new(&ctx.out, what);
    let hint = format!("detached; the operation goes on: vmoon op wait {id} (Ctrl-C again within a second asks to cancel it)");
    let work = async {
        loop {
            let wait_ms = progress.interval().as_millis() as u64;
            let request = WaitOperation { operation: id.to_string(), timeout_ms: Some(wait_ms) };
            let view = ctx.daemon.hold(async |client| client.wait_operation(request.clone()).await).await?;
            if view.outcome.is_some() {
                return Ok(view);
            }
            progress.tell(&view.progress.phase, view.progress.percent);
        }
    };
    let left = match interrupts.guard(ctx, until, &hint, work).await? {
        Ok(view) => return outcome(view),
        Err(left) => left,
    };
    match left {
        Left::Late => Err(Error::new(Code::Timeout, format!("{what} takes longer than was to be waited; the operation goes on"))
            .hint(format!("vmoon op wait {id}"))
            .detail(serde_json::json!({ "operation": id }))),
        Left::Detached => Err(detached(what)),
        Left::Cancel => {
            let request = OperationRef { operation: id.to_string() };
            ctx.daemon.ask(async |client| client.cancel_operation(request.clone()).await).await?;
            Err(Error::new(Code::Cancelled, format!("{what}: asked to cancel")).hint(format!("vmoon op show {id}")))
        }
    }
}

/// Stopped waiting because of one Ctrl-C.
pub(crate) fn detached(what: &str) -> Error {
    Error::new(Code::Cancelled, format!("{what}: not waited for"))
}

/// The exit of a verb that was left by one Ctrl-C: the hint has said so already, and only programs need to be told in their way.
///
/// # Errors
/// That of [`detached`], for programs.
pub(crate) fn left(ctx: &Ctx, what: &str) -> Result<Exit> {
    if ctx.out.format().is_machine() { Err(detached(what)) } else { Ok(Exit(Code::Cancelled.exit())) }
}

/// The operation, or what it failed with.
pub(crate) fn outcome(view: OperationView) -> Result<OperationView> {
    match view.outcome {
        Some(Outcome::Failed { error } | Outcome::Cancelled { error }) => Err(error.into()),
        _ => Ok(view),
    }
}

/// Runs `work`, at most until then.
///
/// # Errors
/// `timeout` with `what` when the time is over.
pub(crate) async fn within<T>(until: Option<Instant>, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(until) = until else { return work.await };
    timeout_at(until, work).await.unwrap_or_else(|_| Err(Error::new(Code::Timeout, format!("{what}: the time to wait is over"))))
}
