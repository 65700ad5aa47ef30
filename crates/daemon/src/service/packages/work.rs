//! Operations on environments: begun, told of, ended. One at a time for each environment; the record is in the store before anything is done.
//! What is done is whole or nothing, so a crash leaves nothing to put back: the record then says that the daemon ended.

use super::{Told, busy};
use crate::{service::Service, store::About};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use vmoon_api::{requests::ChangePackages, views::BegunView};
use vmoon_core::{
    Code, Error, MachineId, OperationId, Result,
    event::EventKind,
    machine::Verb,
    operation::{OpRecord, Outcome, Progress},
};
use vmoon_packages::{LuaVersion, facade::Work};
use vmoon_sys::{clock::now_ms, random, stop::Stop};

/// How long a change may take, unless the request says otherwise.
pub(super) const DEADLINE: Duration = Duration::from_secs(30 * 60);
/// The longest that can be asked for.
pub(super) const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often progress is told at most.
const TELLING: Duration = Duration::from_millis(50);

impl Service {
    pub(in crate::service) async fn begin_change(&self, request: ChangePackages) -> Result<BegunView> {
        let name = self.environment_name(&request.environment).await?;
        let what = request.change.what();
        let make = self.made_for(request.make.clone()).await?;
        let id = OperationId::from_uuid(random::uuid());
        let stop = Stop::new();
        {
            let mut all = self.workshop.busy();
            if let Some((operation, _)) = all.get(&name) {
                return Err(busy(&name, *operation));
            }
            all.insert(name.clone(), (id, stop.clone()));
        }
        // From here on the name is free again whatever happens.
        let place = Place { service: self.clone(), name: name.clone() };
        let used = self.used().await?;
        let in_use = used.into_iter().filter(|(_, one)| one.name == name).map(|(_, one)| one.generation).collect();
        let allowed = request.deadline_ms.map_or(DEADLINE, Duration::from_millis).min(LONGEST);
        let record = self.begins(id, (name, MachineId::NONE), what, allowed).await?;
        let (told, progress) = watch::channel(Progress::default());
        let this = self.clone();
        // It goes on whether or not the client is still there.
        drop(tokio::spawn(async move { this.change(place, (request, make), record, allowed, in_use, stop, (told, progress)).await }));
        Ok(BegunView { operation: id })
    }

    #[expect(clippy::too_many_arguments, reason = "everything an operation is made of, passed on once")]
    async fn change(
        self,
        place: Place,
        (request, make): (ChangePackages, Option<LuaVersion>),
        mut record: OpRecord,
        allowed: Duration,
        in_use: Vec<u64>,
        stop: Stop,
        (told, progress): (Told, watch::Receiver<Progress>),
    ) {
        let (name, ending) = (place.name.clone(), stop.clone());
        let tell = Arc::new(move |now: Progress| drop(told.send_replace(now)));
        let without = request.without.clone();
        let work = Work { offline: request.offline, stop, progress: Some(tell), in_use, make, without };
        let done = self.with_packages(move |packages| packages.change(&name, &request.change, &work));
        let (result, late) = self.followed(&mut record, done, progress, allowed, || ending.stop()).await;
        drop(place);
        self.ended(record, result.map(|done| serde_json::to_value(done).ok()), late).await;
    }

    /// Waits for work and tells how far it is: that now and then, its end at once. What takes longer than it may is stopped; then `late` says how long that was.
    pub(super) async fn followed<T>(
        &self,
        record: &mut OpRecord,
        work: impl Future<Output = Result<T>>,
        mut told: watch::Receiver<Progress>,
        allowed: Duration,
        stop: impl Fn(),
    ) -> (Result<T>, Option<Duration>) {
        let deadline = sleep_until(Instant::now() + allowed);
        tokio::pin!(work, deadline);
        let (mut late, mut next) = (None, Instant::now());
        loop {
            let progress = async {
                sleep_until(next).await;
                told.changed().await
            };
            tokio::select! {
                biased;
                result = &mut work => return (result, late),
                () = &mut deadline, if late.is_none() => {
                    late = Some(allowed);
                    stop();
                }
                Ok(()) = progress => {
                    record.progress = told.borrow_and_update().clone();
                    self.context.operations.publish(record);
                    next = Instant::now() + TELLING;
                }
            }
        }
    }

    /// Begins an operation: it is in the store, and can be followed. If it is about a machine, too, that is named.
    pub(super) async fn begins(
        &self,
        id: OperationId,
        (environment, machine): (String, MachineId),
        what: String,
        allowed: Duration,
    ) -> Result<OpRecord> {
        let now = now_ms();
        let record = OpRecord { environment: Some(environment), what, ..OpRecord::new(id, Verb::Work, machine, now, allowed) };
        let op = record.clone();
        self.context
            .store
            .run(move |tx| {
                tx.put_operation(&op)?;
                let about = About { operation: Some(op.id), ..About::default() };
                tx.event(EventKind::OperationStarted, about, format!("{} ({})", op.what, op.environment.unwrap_or_default()))
            })
            .await?;
        self.context.operations.publish(&record);
        Ok(record)
    }

    /// Ends an operation with what came of it; `late` says that it was stopped because so much time had passed.
    pub(super) async fn ended(&self, mut record: OpRecord, result: Result<Option<serde_json::Value>>, late: Option<Duration>) {
        record.ended_ms = Some(now_ms());
        record.outcome = Some(match result {
            Ok(result) => {
                record.result = result;
                Outcome::Done
            }
            Err(error) if error.code() == Code::Cancelled => match late {
                Some(allowed) => Outcome::Failed {
                    error: Error::new(Code::OperationDeadline, format!("{} s passed; nothing was changed", allowed.as_secs_f32()))
                        .to_record(),
                },
                None => Outcome::Cancelled {
                    error: Error::new(Code::OperationCancelled, format!("{} was cancelled; nothing was changed", record.what)).to_record(),
                },
            },
            Err(error) => Outcome::Failed { error: error.to_record() },
        });
        let op = record.clone();
        let stored = self.context.store.run(move |tx| {
            tx.put_operation(&op)?;
            let how = match &op.outcome {
                Some(Outcome::Failed { error }) => format!("failed: {}", error.message),
                Some(Outcome::Cancelled { .. }) => "cancelled".into(),
                _ => "done".into(),
            };
            let about = About { operation: Some(op.id), ..About::default() };
            tx.event(EventKind::OperationEnded, about, format!("{} ({}) {how}", op.what, op.environment.unwrap_or_default()))
        });
        if let Err(error) = stored.await {
            tracing::error!(error = %error.chain(), "how an operation ended could not be stored");
        }
        self.context.operations.publish(&record);
    }

    /// Ends the records of operations that an earlier daemon did not end.
    pub(crate) async fn bury_changes(&self, unfinished: Vec<OpRecord>) -> Result<()> {
        let cut: Vec<OpRecord> = unfinished
            .into_iter()
            .filter(|record| record.environment.is_some() && record.outcome.is_none())
            .map(|record| {
                let what = if record.machine == MachineId::NONE {
                    "the daemon ended before it was done; nothing was changed"
                } else {
                    "the daemon ended before it was known to be done; what has reached the machine is not sent again"
                };
                let error = Error::new(Code::OperationFailed, what).hint("do it again");
                OpRecord { ended_ms: Some(now_ms()), outcome: Some(Outcome::Failed { error: error.to_record() }), ..record }
            })
            .collect();
        if cut.is_empty() {
            return Ok(());
        }
        // What was being made is no environment, and never will be.
        if let Err(error) = self.with_packages(|packages| packages.sweep()).await {
            tracing::warn!(error = error.chain(), "what was left of a change could not be removed");
        }
        self.context
            .store
            .run(move |tx| {
                for op in &cut {
                    tx.put_operation(op)?;
                    let about = About { operation: Some(op.id), ..About::default() };
                    tx.event(EventKind::OperationEnded, about, format!("{} cut off", op.what))?;
                }
                Ok(())
            })
            .await
    }
}

/// The place of an operation among those that run: free when this is dropped.
struct Place {
    service: Service,
    name: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.service.workshop.busy().remove(&self.name);
    }
}
