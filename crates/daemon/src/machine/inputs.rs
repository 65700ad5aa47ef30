//! What happens to a machine, as inputs of the policy: requests, returned calls, looks, recovery after a crash.

use super::{
    handle::Msg,
    task::{DEADLINE, Task},
    words,
    work::Work,
};
use crate::{store::About, timer};
use std::time::Duration;
use tokio::time::Instant;
use vmoon_api::views::PlanView;
use vmoon_core::{
    Code, Error, Result,
    driver::{Abilities, Handle, Observed, Recovered, Sighting, StopMode},
    event::EventKind,
    machine::{CallResult, Input, Request, Seen, State, Tick, Verb, Verdict, step::step},
};

/// How rarely a machine is looked at while something is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for one that cannot be reached, where the driver tells when it can be again. (No back-off of ours is longer.)
const PATIENCE_WATCHED: Duration = Duration::from_secs(5);

impl Task {
    pub(super) async fn message(&mut self, msg: Msg) {
        match msg {
            Msg::Request { request, deadline, answer } => {
                if let Some(error) = self.lacks(request) {
                    let _ = answer.send(Err(error));
                    return;
                }
                self.settled = Instant::now();
                self.input(Input::Request(request), Some((request, deadline.unwrap_or(DEADLINE), answer))).await;
            }
            Msg::Plan { request, answer } => {
                let next = step(self.row.status, Input::Request(request));
                let plan = match (self.lacks(request), next.verdict) {
                    (Some(error), _) => Err(error),
                    (None, Some(Verdict::Refused(code))) => Err(words::refusal(&self.row.name, self.row.status.state, request, code)),
                    _ => Ok(PlanView { name: self.row.name.clone(), steps: words::steps(&self.row.name, &next.effects) }),
                };
                let _ = answer.send(plan);
            }
            Msg::Glimpse { sighting, begun, name } => {
                if let Some(name) = name {
                    self.called(name).await;
                }
                if self.operation.is_some() || self.call.is_some() || self.looking.is_some() || begun <= self.settled {
                    // Whether the list came before or after that, only a look tells.
                    self.begin_look();
                } else {
                    self.settled = begun;
                    self.tick += 1;
                    self.saw(self.tick, sighting).await;
                }
            }
            Msg::Open { name, answer } => {
                let offered = self.channels.borrow().iter().any(|channel| channel.name == name);
                if !offered && self.looking.is_some() {
                    // What is being looked for may show it: what offers it may have been said just now.
                    self.opens.push((name, answer));
                } else {
                    let opened = self.open_channel(&name).await;
                    let _ = answer.send(opened);
                }
            }
            Msg::Work { work, deadline, answer } => {
                self.settled = Instant::now();
                self.work = Some(work);
                self.input(Input::Request(Request::Work), Some((Request::Work, deadline.unwrap_or(DEADLINE), answer))).await;
                self.work = None;
            }
            Msg::Release(answer) => {
                (self.call, self.looking, self.unfinished, self.dropped) = (None, None, None, true);
                for shared in self.sessions.send_replace(Vec::new()) {
                    shared.forget().await;
                }
                self.context.forget_machine(self.row.id);
                let _ = answer.send(());
            }
            Msg::Drop(answer) => {
                self.drop_record().await;
                let _ = answer.send(());
            }
            Msg::Progress(id, progress) => {
                if let Some(op) = self.operation.as_mut().filter(|op| op.record.id == id) {
                    op.record.progress = progress;
                    self.context.operations.publish(&op.record);
                    let about = About { machine: Some(self.row.id), operation: Some(id), ..About::default() };
                    self.context.store.announce(EventKind::OperationProgress, about, op.record.progress.phase.clone());
                }
            }
        }
    }

    /// Why a request cannot be obeyed by this kind of machine at all.
    pub(super) fn lacks(&self, request: Request) -> Option<Error> {
        let abilities = self.abilities();
        let missing = match request {
            Request::Pause => !abilities.pause,
            Request::Suspend => !abilities.suspend,
            Request::Resume => !abilities.pause && !abilities.suspend,
            // Work is begun by the verbs that bring it.
            Request::Work => true,
            _ => false,
        };
        missing.then(|| {
            vmoon_core::driver::unsupported(
                &self.driver.info().kind,
                words::verb(match request {
                    Request::Pause => Verb::Pause,
                    Request::Suspend => Verb::Suspend,
                    Request::Resume => Verb::Resume,
                    _ => Verb::Work,
                }),
            )
        })
    }

    pub(super) fn abilities(&self) -> Abilities {
        self.row.handle.as_ref().map(|handle| Abilities::of(&*self.driver, handle)).unwrap_or_default()
    }

    pub(super) async fn returned(&mut self, result: Result<Option<Handle>>) {
        self.call = None;
        self.tick += 1;
        self.settled = Instant::now();
        let outcome = match result {
            Ok(handle) => {
                self.worked(handle.is_some());
                self.created(handle);
                CallResult::Ok
            }
            Err(error) => {
                tracing::info!(machine = %self.row.name, error = %error.chain(), "a driver call failed");
                if let Some(op) = &mut self.operation {
                    op.error = Some(error);
                }
                CallResult::Err
            }
        };
        self.input(Input::Returned(outcome, self.tick), None).await;
    }

    /// What work has changed of what we know.
    fn worked(&mut self, moved: bool) {
        match self.working.take() {
            Some(Work::Rename(name)) => {
                self.row.name = name;
                if moved {
                    // Lists that were begun before know it by its old handle.
                    self.entry.turn();
                }
            }
            Some(Work::Tune(settings)) => {
                if let Some(spec) = &mut self.row.spec {
                    spec.settings.extend(settings);
                }
            }
            _ => {}
        }
    }

    pub(super) fn created(&mut self, handle: Option<Handle>) {
        if let Some(handle) = handle {
            self.handle.send_replace(Some(handle.clone()));
            self.row.handle = Some(handle);
            // Carried out.
            self.row.plan = None;
        }
    }

    pub(super) async fn saw(&mut self, begun: Tick, sighting: Sighting) {
        (self.looking, self.look_creates) = (None, false);
        let seen = match &sighting.observed {
            Observed::Off(exit) => {
                if let Some(exit) = exit {
                    self.row.exit = Some(exit.clone());
                }
                if sighting.complete { Seen::Off } else { Seen::OffIncomplete }
            }
            Observed::On(_) => Seen::On,
            Observed::Paused => Seen::Paused,
            Observed::Suspended => Seen::Suspended,
            Observed::Missing => Seen::Missing,
            Observed::Unreachable => Seen::Unreachable,
        };
        let offered = match &sighting.observed {
            Observed::On(channels) => channels.as_slice(),
            _ => &[],
        };
        self.channels.send_if_modified(|known| {
            let new = known != offered;
            if new {
                *known = offered.to_vec();
            }
            new
        });
        if let Observed::On(channels) = &sighting.observed
            && begun >= self.row.status.fence
        {
            self.first_sessions(channels);
        }
        if seen == Seen::Unreachable && self.row.handle.is_some() {
            self.entry.suspect();
        }
        self.input(Input::Seen(seen, begun), None).await;
        self.opening.clear();
        if self.row.spec.is_none() && self.row.status.state == State::Broken && self.operation.is_none() {
            // Of what somebody else made and has deleted nothing is to be kept.
            self.input(Input::Request(Request::Forget), None).await;
        }
        let status = self.row.status;
        if let Observed::On(channels) = sighting.observed
            && begun >= status.fence
            && matches!(status.state, State::Running)
        {
            self.ensure_sessions(channels).await;
        }
        // Nobody pushes what we wait for: look again, ever more rarely, while an operation or a lost machine wants it.
        let wanted = status.state == State::Lost || (self.operation.is_some() && self.call.is_none());
        if std::mem::take(&mut self.look_wanted) && self.looking.is_none() {
            self.begin_look();
        } else if wanted && self.looking.is_none() {
            self.looks += 1;
            // Where the driver tells of changes, its connection's task will hear that it is back.
            let patience = if status.state == State::Lost && self.entry.is_watched() { PATIENCE_WATCHED } else { PATIENCE };
            self.look_again = Some(Instant::now() + timer::back_off(self.looks).min(patience));
        } else if !wanted {
            self.looks = 0;
        }
        if self.looking.is_none() {
            for (name, answer) in std::mem::take(&mut self.opens) {
                let opened = self.open_channel(&name).await;
                let _ = answer.send(opened);
            }
        }
    }

    /// After a crash: the driver finishes or reverses what was under way, then the machine is looked at.
    pub(super) async fn recover(&mut self) {
        let Some(record) = self.operation.as_ref().map(|op| op.record.clone()) else { return };
        let id = record.id;
        self.deadline = Some(Instant::now() + DEADLINE);
        let (driver, store, hooks) = (self.driver.clone(), self.context.store.clone(), self.context.hooks.clone());
        // Whether the guest was asked nobody knows; asking it again does no harm.
        let asks = (self.row.status.state == State::Stopping && matches!(record.verb, Verb::Stop | Verb::Restart))
            .then(|| self.row.handle.clone())
            .flatten();
        self.call = Some(Box::pin(async move {
            if let Some(handle) = asks {
                hooks.at("recover.before").await;
                driver.stop(&handle, StopMode::Polite).await?;
                hooks.at("recover.after").await;
                return Ok(None);
            }
            let undos = store.run(move |tx| tx.undos(id)).await?;
            hooks.at("recover.before").await;
            let recovered = driver.recover(&record, &undos).await;
            hooks.at("recover.after").await;
            match recovered? {
                Recovered::Finished(handle) => Ok(handle),
                Recovered::Reversed => {
                    Err(Error::new(Code::OperationFailed, "the daemon was killed while this was being done; everything was put back"))
                }
            }
        }));
    }
}
