//! Starting, stopping, deleting.

use super::{checks::allowed, pool::Pool};
use crate::{errors::theirs, tags};
use serde_json::Value;
use std::{future::pending, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};
use vmoon_core::{Code, Error, Result};
use vmoon_xapi::{records::PowerState, task};

/// How long XAPI may take to start a VM, or to end it.
const LONG: Duration = Duration::from_secs(300);
/// How long writing a VM's memory to storage may take, or reading it back.
const WRITE: Duration = Duration::from_secs(1800);
/// XAPI gives a guest so long to obey a polite request.
const POLITE: Duration = Duration::from_secs(1200);
/// How long a refusal of a polite request may take; after that it is under way.
const REFUSAL: Duration = Duration::from_secs(3);

impl Pool {
    /// Does something as a task and waits for its end.
    pub(super) async fn run(&self, what: &str, method: &str, params: Vec<Value>) -> Result<Option<Value>> {
        self.run_telling(what, method, params, |_| {}).await
    }

    /// The same, telling how much is done, 0 to 1.
    pub(super) async fn run_telling(
        &self,
        what: &str,
        method: &str,
        params: Vec<Value>,
        progress: impl FnMut(f64) + Send,
    ) -> Result<Option<Value>> {
        self.run_within(what, method, params, LONG, progress).await
    }

    /// The same with a deadline of its own.
    pub(super) async fn run_within(
        &self,
        what: &str,
        method: &str,
        params: Vec<Value>,
        deadline: Duration,
        progress: impl FnMut(f64) + Send,
    ) -> Result<Option<Value>> {
        let client = self.client()?;
        match task::run(&client, method, params, deadline, progress, pending()).await {
            Ok(task::End::Done(value)) => Ok(Some(value)),
            Ok(task::End::Vanished) => Ok(None),
            Err(error) => Err(self.failed(what, error)),
        }
    }

    pub(super) async fn start(&self, uuid: &str) -> Result<()> {
        let (reference, vm) = self.known(uuid).await?;
        match vm.power_state {
            PowerState::Running | PowerState::Paused => return Ok(()),
            PowerState::Suspended => return self.change(uuid, "VM.resume", PowerState::Running, "resume the VM").await,
            _ => {}
        }
        allowed(&vm, "start", "start the VM")?;
        match self.run("start the VM", "VM.start", vec![reference.clone().into(), false.into(), false.into()]).await {
            Err(error) if theirs(&error) == Some("NO_HOSTS_AVAILABLE") => Err(self.nowhere(&reference, &vm, error).await),
            // Somebody was quicker.
            Err(error) if error.code() == Code::MachineState && self.is(uuid, &PowerState::Running).await => Ok(()),
            other => other.map(drop),
        }
    }

    /// Presses the reset button.
    pub(super) async fn press_reset(&self, uuid: &str) -> Result<()> {
        let what = "reset the VM";
        let (reference, vm) = self.known(uuid).await?;
        match vm.power_state {
            PowerState::Running => {}
            PowerState::Halted => return Err(Error::new(Code::MachineStopped, "the VM does not run").hint("start it")),
            _ => return Err(Error::new(Code::MachineState, "only a running VM is reset").hint("resume it first")),
        }
        allowed(&vm, "hard_reboot", what)?;
        self.lives.goes_on(uuid);
        let done = self.run(what, "VM.hard_reboot", vec![reference.into()]).await.map(drop);
        self.look_on(uuid).await;
        done
    }

    /// Sees which run a life goes on in.
    pub(super) async fn look_on(&self, uuid: &str) {
        match self.look(uuid).await {
            Ok(_) => self.lives.went_on(uuid),
            // Whoever looks next sees it.
            Err(error) => tracing::debug!(vm = uuid, error = %error.chain(), "it could not be looked at"),
        }
    }

    async fn is(&self, uuid: &str, state: &PowerState) -> bool {
        self.vm(uuid).await.is_ok_and(|found| found.is_some_and(|(_, vm)| vm.power_state == *state))
    }

    /// Brings a VM into a state by a call, unless it is in it.
    pub(super) async fn change(&self, uuid: &str, method: &str, state: PowerState, what: &str) -> Result<()> {
        let (reference, vm) = self.known(uuid).await?;
        if vm.power_state == state {
            return Ok(());
        }
        allowed(&vm, method.trim_start_matches("VM."), what)?;
        let mut params = vec![Value::from(reference)];
        if method == "VM.resume" {
            params.extend([false.into(), false.into()]);
        }
        if vm.power_state == PowerState::Suspended {
            self.lives.goes_on(uuid);
        }
        let done = self.run_within(what, method, params, WRITE, |_| {}).await;
        if method == "VM.resume" {
            self.look_on(uuid).await;
        }
        match done {
            Err(error) if error.code() == Code::MachineState && self.is(uuid, &state).await => Ok(()),
            other => other.map(drop),
        }
    }

    /// Asks the guest. Returns when it was asked; what it refuses at once is told.
    pub(super) async fn ask_to_stop(self: &Arc<Self>, uuid: &str) -> Result<()> {
        let Some((reference, vm)) = self.vm(uuid).await? else { return Ok(()) };
        match vm.power_state {
            PowerState::Halted => return Ok(()),
            PowerState::Suspended | PowerState::Paused => {
                return Err(
                    Error::new(Code::MachineState, "a VM that does not run cannot be asked to stop").hint("resume it, or stop --force")
                );
            }
            _ => {}
        }
        allowed(&vm, "clean_shutdown", "ask the VM to stop")?;
        let client = self.client()?;
        let (tell, told) = oneshot::channel();
        // It goes on in XAPI whatever becomes of us; this follows it so that the task is cleared away.
        drop(tokio::spawn(async move {
            let ended = task::run(&client, "VM.clean_shutdown", vec![reference.into()], POLITE, |_| {}, pending()).await;
            let _ = tell.send(ended);
        }));
        match timeout(REFUSAL, told).await {
            Ok(Ok(Err(error))) => match self.failed("ask the VM to stop", error) {
                error if error.code() == Code::MachineState && self.is(uuid, &PowerState::Halted).await => Ok(()),
                error => Err(error),
            },
            _ => Ok(()),
        }
    }

    pub(super) async fn force_off(&self, uuid: &str) -> Result<()> {
        let Some((reference, vm)) = self.vm(uuid).await? else { return Ok(()) };
        if vm.power_state == PowerState::Halted {
            return Ok(());
        }
        allowed(&vm, "hard_shutdown", "end the VM")?;
        match self.run("end the VM", "VM.hard_shutdown", vec![reference.into()]).await {
            Err(error) if error.code() == Code::MachineState && self.is(uuid, &PowerState::Halted).await => Ok(()),
            Err(error) if error.code() == Code::MachineBroken => Ok(()),
            other => other.map(drop),
        }
    }

    /// Deletes a VM. With one of ours go its snapshots and the disks that we made; of another's VM every disk stays.
    pub(super) async fn delete(&self, uuid: &str) -> Result<()> {
        let Some((reference, vm)) = self.vm(uuid).await? else { return Ok(()) };
        allowed(&vm, "destroy", "delete the VM")?;
        if !vm.is_a_template {
            self.force_off(uuid).await?;
        }
        let owner = tags::owner(&vm);
        let (disks, kept) = self.doomed(&vm, tags::fate(&vm)).await?;
        let snapshots = if owner.is_some() { vm.snapshots.clone() } else { Vec::new() };
        for (disk, record) in kept.iter().filter(|(_, record)| record.other_config.contains_key(tags::ID)) {
            tracing::debug!(disk = record.uuid, "a disk is nobody's any more");
            self.call("keep a disk", "VDI.remove_from_other_config", vec![disk.clone().into(), tags::ID.into()]).await?;
        }
        match self.call("delete the VM", "VM.destroy", vec![reference.into()]).await {
            Err(error) if error.code() == Code::MachineBroken => {}
            other => drop(other?),
        }
        for snapshot in snapshots {
            self.remove_snapshot(snapshot.as_str()).await?;
        }
        for (disk, _) in disks {
            self.remove_disk(&disk).await?;
        }
        self.forget(uuid);
        match owner {
            Some(id) => self.sweep_disks(id, None).await,
            None => Ok(()),
        }
    }
}
