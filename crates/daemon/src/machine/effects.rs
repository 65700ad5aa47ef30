//! Carrying out what the policy decided: driver calls, looks, and word to the sessions.

use super::{
    journal::OperationJournal,
    task::{LookFuture, Task},
    work::Work,
};
use tokio::time::Instant;
use vmoon_core::{
    Code, Error, MachineId, Result,
    driver::{Driver, Exit, Handle, Observed, Plan, Recovered, Sighting},
    machine::{Call, Effect, Input, Request},
    session::Input as SessionInput,
};

impl Task {
    pub(super) async fn obey(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::End(_) | Effect::Begin(_) => {}
                Effect::CancelCall => {
                    let call = self.call.take();
                    if self.creating {
                        self.unfinished = call;
                    }
                }
                Effect::Call(call) => {
                    if let Some(op) = &self.operation {
                        self.deadline = Some(Instant::now() + op.allowed);
                    }
                    self.make_call(*call);
                }
                Effect::Observe => {
                    // A look that began before now decides nothing any more. One that waits for a create is never dropped.
                    if !self.look_creates {
                        self.looking = None;
                    }
                    self.begin_look();
                }
                Effect::EndSessions => {
                    let exit = self.last_exit.clone().or_else(|| self.row.exit.clone()).unwrap_or(Exit::Lost);
                    self.tell_sessions(&SessionInput::MachineEnded(exit)).await;
                }
                Effect::HoldSessions => self.tell_sessions(&SessionInput::MachineHeld).await,
                Effect::ResumeSessions => self.tell_sessions(&SessionInput::MachineBack).await,
            }
        }
        if self.starts_now() {
            Box::pin(self.input(Input::Request(Request::Start), None)).await;
        }
    }

    pub(super) fn make_call(&mut self, call: Call) {
        self.creating = call == Call::Create;
        let unfinished = self.unfinished.take();
        let (driver, hooks) = (self.driver.clone(), self.context.hooks.clone());
        self.working = if call == Call::Work { self.work.take() } else { None };
        let work = self.working.clone();
        let (handle, plan, id) = (self.row.handle.clone(), self.row.plan.clone(), self.row.id);
        let journal = self.operation.as_ref().zip(self.tx.upgrade()).map(|(op, task)| OperationJournal {
            operation: op.record.id,
            store: self.context.store.clone(),
            task,
        });
        let record = self.operation.as_ref().map(|op| op.record.clone());
        let store = self.context.store.clone();
        self.call = Some(Box::pin(async move {
            let handle = match unfinished {
                // What a create that was overtaken has made is the business of the delete that overtook it.
                Some(create) => create.await.ok().flatten().or(handle),
                None => handle,
            };
            hooks.at("call.before").await;
            let mut result = carry_out(&*driver, call, id, handle, plan, journal, work).await;
            hooks.at("call.after").await;
            if let (Call::Create, Err(_), Some(record)) = (call, &result, record) {
                // What a failed create has left behind is put back now, as it would be after a crash.
                let id = record.id;
                let undos = store.run(move |tx| tx.undos(id)).await?;
                if let Ok(Recovered::Finished(Some(handle))) = driver.recover(&record, &undos).await {
                    result = Ok(Some(handle));
                }
                hooks.at("reversed").await;
            }
            result
        }));
    }

    pub(super) fn begin_look(&mut self) {
        if self.looking.is_some() {
            self.look_wanted = true;
            return;
        }
        self.tick += 1;
        self.settled = Instant::now();
        let (driver, handle, unfinished) = (self.driver.clone(), self.row.handle.clone(), self.unfinished.take());
        self.look_creates = unfinished.is_some();
        let look: LookFuture = Box::pin(async move {
            let made = match unfinished {
                // A create that was cancelled: what it made, or has put back, is known when it returns.
                Some(create) => create.await.ok().flatten(),
                None => None,
            };
            let sighting = match made.as_ref().or(handle.as_ref()) {
                Some(handle) => driver.observe(handle).await,
                None => Sighting { observed: Observed::Missing, complete: false },
            };
            (sighting, made)
        });
        // Most looks take less time than falling asleep and being woken.
        crate::awake::stay();
        self.looking = Some((self.tick, look));
    }
}

async fn carry_out(
    driver: &dyn Driver,
    call: Call,
    id: MachineId,
    handle: Option<Handle>,
    plan: Option<Plan>,
    journal: Option<OperationJournal>,
    work: Option<Work>,
) -> Result<Option<Handle>> {
    use vmoon_core::driver::{StopMode, unsupported};
    if call == Call::Create {
        let (Some(plan), Some(journal)) = (plan, journal) else { return Err(Error::internal("a create without a plan")) };
        return driver.create(id, &plan, &journal).await.map(Some);
    }
    let Some(handle) = handle else {
        // It was never created, so there is nothing to be done to it.
        if call != Call::Delete {
            return Err(Error::new(Code::MachineBroken, "the machine was never created"));
        }
        // Or a kill came before its handle was stored: then it bears our tag.
        if let Some(found) = driver.list().await?.into_iter().find(|found| found.id == Some(id)) {
            driver.delete(&found.handle).await?;
        }
        return Ok(None);
    };
    let lacks = || unsupported(&driver.info().kind, "do that");
    match call {
        Call::Create => {}
        Call::Start => driver.start(&handle).await?,
        Call::Stop => driver.stop(&handle, StopMode::Polite).await?,
        Call::Kill => driver.stop(&handle, StopMode::Force).await?,
        Call::Delete => driver.delete(&handle).await?,
        Call::Pause => driver.pause().ok_or_else(lacks)?.pause(&handle).await?,
        Call::Unpause => driver.pause().ok_or_else(lacks)?.resume(&handle).await?,
        Call::Suspend => driver.suspend().ok_or_else(lacks)?.suspend(&handle).await?,
        Call::Resume => driver.suspend().ok_or_else(lacks)?.resume(&handle).await?,
        Call::Work => {
            let work = work.ok_or_else(|| Error::internal("work of which nobody says what it is"))?;
            let journal = journal.ok_or_else(|| Error::internal("work without an operation"))?;
            return work.carry_out(driver, &handle, &journal).await;
        }
    }
    Ok(None)
}
