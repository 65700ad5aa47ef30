//! What some machines can do beyond living, as the API asks for it: snapshots, programs, addresses, screens, changes.

use super::{Service, patience};
use crate::{
    machine::{Machine, Work},
    timer,
};
use std::{sync::Arc, time::Duration};
use vmoon_api::{
    requests::{CreateSnapshot, Exec, Ready, RenameMachine, ResetMachine, SnapshotRef, TuneMachine, WaitReady},
    views::{DevicesView, ExecView, PictureView, ReadyView, WorkView},
};
use vmoon_core::{
    Code, Error, Result,
    ability::{Address, Change, Effect, NewSnapshot, Program, Snapshot, Snapshots},
    device::DeviceChange,
    driver::{Handle, unsupported},
    machine::State,
    name::{self, escape},
};

/// How long a program may run if nothing is said, and at most.
const PROGRAM: Duration = Duration::from_secs(300);
const LONGEST_PROGRAM: Duration = Duration::from_secs(24 * 3600);
/// How long a driver may take beyond a program's deadline to say that it is over.
const GRACE: Duration = Duration::from_secs(10);
/// How long a question about a machine may take.
const QUESTION: Duration = Duration::from_secs(30);
/// How long one look at what a machine has may take at least.
const LOOK: Duration = Duration::from_secs(2);
/// How rarely a machine is asked whether it is ready.
const RARELY: Duration = Duration::from_millis(500);
/// The largest screenshot, bytes.
const PICTURE: usize = 64 << 20;

/// Asks a driver something, in bounded time.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(QUESTION, future)
        .await
        .unwrap_or_else(|_| Err(Error::new(Code::Timeout, format!("{what} took longer than {} s", QUESTION.as_secs()))))
}

/// The handle of a machine that was made.
pub(super) fn handle(machine: &Machine) -> Result<Handle> {
    machine.handle().ok_or_else(|| Error::new(Code::MachineState, format!("{} is not made yet", escape(&machine.view().name))))
}

pub(super) fn lacks(machine: &Machine, what: &str) -> Error {
    unsupported(&machine.view().kind, what)
}

fn snapshots(machine: &Machine) -> Result<&dyn Snapshots> {
    machine.driver.snapshots().ok_or_else(|| lacks(machine, "have snapshots"))
}

fn no_snapshot(machine: &Machine, snapshot: &str) -> Error {
    let name = escape(&machine.view().name);
    Error::new(Code::SnapshotNotFound, format!("{name} has no snapshot named \"{}\"", escape(snapshot)))
        .hint(format!("see `vmoon snapshot list {name}`"))
}

/// A file in the working of which nothing changes yet.
fn planned(machine: &Machine, steps: Vec<String>, changes: Vec<Change>) -> WorkView {
    WorkView { steps, changes, answer: None, machine: machine.view().as_ref().clone() }
}

/// Changes as steps.
fn told(changes: &[Change]) -> Vec<String> {
    let step = |change: &Change| match change.effect {
        Effect::Now => change.what.clone(),
        Effect::NextStart => format!("{} (from the next start on)", change.what),
    };
    changes.iter().map(step).collect()
}

impl Service {
    pub(super) async fn snapshots_of(&self, text: &str) -> Result<Vec<Snapshot>> {
        let machine = self.machine(text)?;
        within("listing snapshots", snapshots(&machine)?.list(&handle(&machine)?)).await
    }

    pub(super) async fn snapshot(&self, request: CreateSnapshot) -> Result<WorkView> {
        name::check(&request.name)?;
        let machine = self.machine(&request.machine)?;
        let known = within("listing snapshots", snapshots(&machine)?.list(&handle(&machine)?)).await?;
        if known.iter().any(|kept| kept.name == request.name) {
            let text = format!("{} has a snapshot named {} already", escape(&machine.view().name), request.name);
            return Err(Error::new(Code::SnapshotExists, text));
        }
        let with = match request.memory {
            Some(true) => " with its running state",
            Some(false) => " of its disks",
            None => "",
        };
        let steps = vec![format!("the snapshot {} of {} is made{with}", request.name, machine.view().name)];
        let work = Work::Snapshot(NewSnapshot { name: request.name, memory: request.memory });
        self.work(&machine, work, steps, Vec::new(), request.dry_run, request.deadline_ms).await
    }

    pub(super) async fn revert(&self, request: SnapshotRef) -> Result<WorkView> {
        let machine = self.machine(&request.machine)?;
        let known = within("listing snapshots", snapshots(&machine)?.list(&handle(&machine)?)).await?;
        if !known.iter().any(|kept| kept.name == request.snapshot) {
            return Err(no_snapshot(&machine, &request.snapshot));
        }
        let name = machine.view().name.clone();
        let steps = vec![format!("{name} returns to the snapshot {}; what it was since is lost", request.snapshot)];
        self.work(&machine, Work::Revert(request.snapshot), steps, Vec::new(), request.dry_run, request.deadline_ms).await
    }

    pub(super) async fn drop_snapshot(&self, request: SnapshotRef) -> Result<WorkView> {
        let machine = self.machine(&request.machine)?;
        let known = within("listing snapshots", snapshots(&machine)?.list(&handle(&machine)?)).await?;
        if !known.iter().any(|kept| kept.name == request.snapshot) {
            return Err(no_snapshot(&machine, &request.snapshot));
        }
        let steps = vec![format!("the snapshot {} of {} is deleted; its children stay", request.snapshot, machine.view().name)];
        self.work(&machine, Work::DeleteSnapshot(request.snapshot), steps, Vec::new(), request.dry_run, request.deadline_ms).await
    }

    pub(super) async fn tune(&self, request: TuneMachine) -> Result<WorkView> {
        let machine = self.machine(&request.machine)?;
        let tune = machine.driver.tune().ok_or_else(|| lacks(&machine, "be changed"))?;
        // All problems at once, before anything is touched; and what is told afterwards is what was planned.
        let changes = within("planning the changes", tune.tune(&handle(&machine)?, &request.settings, true)).await?;
        let steps = told(&changes);
        self.work(&machine, Work::Tune(request.settings), steps, changes, request.dry_run, request.deadline_ms).await
    }

    pub(super) async fn rename(&self, request: RenameMachine) -> Result<WorkView> {
        name::check(&request.name)?;
        let machine = self.machine(&request.machine)?;
        if machine.driver.tune().is_none() {
            return Err(lacks(&machine, "be renamed"));
        }
        let connection = machine.connection;
        if self.context.machines_of(connection).iter().any(|other| other.view().name == request.name) {
            return Err(Error::new(Code::MachineExists, format!("a machine named {} exists there already", request.name))
                .hint("choose another name"));
        }
        let steps = vec![format!("{} is renamed to {}", machine.view().name, request.name)];
        self.work(&machine, Work::Rename(request.name), steps, Vec::new(), request.dry_run, request.deadline_ms).await
    }

    pub(super) async fn devices_of(&self, text: &str) -> Result<DevicesView> {
        let machine = self.machine(text)?;
        let devices = machine.driver.devices().ok_or_else(|| lacks(&machine, "tell their devices"))?;
        let found = within("listing devices", devices.list(&handle(&machine)?)).await?;
        Ok(DevicesView { devices: found, kinds: devices.kinds() })
    }

    pub(super) async fn change_device(
        &self,
        text: &str,
        change: DeviceChange,
        dry_run: bool,
        deadline_ms: Option<u64>,
    ) -> Result<WorkView> {
        let machine = self.machine(text)?;
        let devices = machine.driver.devices().ok_or_else(|| lacks(&machine, "get other devices"))?;
        let changes = within("planning the change", devices.plan(&handle(&machine)?, &change)).await?;
        let steps = told(&changes);
        self.work(&machine, Work::Device(change), steps, changes, dry_run, deadline_ms).await
    }

    pub(super) async fn reset(&self, request: ResetMachine) -> Result<WorkView> {
        let machine = self.machine(&request.machine)?;
        if machine.driver.reset().is_none() {
            return Err(lacks(&machine, "be reset").hint(format!("vmoon restart {} stops and starts it", escape(&machine.view().name))));
        }
        let view = machine.view();
        let name = escape(&view.name);
        if view.operation.is_none() {
            match view.state {
                State::Running => {}
                State::Paused => return Err(Error::new(Code::MachinePaused, format!("{name} is paused")).hint("resume it first")),
                State::Lost => return Err(Error::new(Code::DriverUnreachable, format!("{name} cannot be reached now"))),
                _ => return Err(Error::new(Code::MachineStopped, format!("{name} does not run")).hint(format!("vmoon start {name}"))),
            }
        }
        let steps = vec![format!("{name} begins anew at once, without asking its guest; what was not written is lost")];
        self.work(&machine, Work::Reset, steps, Vec::new(), request.dry_run, request.deadline_ms).await
    }

    pub(super) async fn work(
        &self,
        machine: &Arc<Machine>,
        work: Work,
        steps: Vec<String>,
        changes: Vec<Change>,
        dry_run: bool,
        deadline_ms: Option<u64>,
    ) -> Result<WorkView> {
        if dry_run {
            return Ok(planned(machine, steps, changes));
        }
        let answer = machine.work(work, deadline_ms.map(Duration::from_millis)).await?;
        Ok(WorkView { answer: Some(answer), ..planned(machine, steps, changes) })
    }

    pub(super) async fn run_program(&self, request: Exec) -> Result<ExecView> {
        if request.argv.first().is_none_or(String::is_empty) || request.argv.iter().any(|arg| arg.contains('\0')) {
            return Err(Error::new(Code::Usage, "a program is named by its path or name, and no argument holds a NUL byte"));
        }
        let machine = self.machine(&request.machine)?;
        let exec = machine.driver.exec().ok_or_else(|| lacks(&machine, "run programs from outside"))?;
        let deadline = request.deadline_ms.map_or(PROGRAM, Duration::from_millis).min(LONGEST_PROGRAM);
        let program = Program { argv: request.argv, stdin: request.stdin.0, deadline_ms: deadline.as_millis() as u64 };
        let handle = handle(&machine)?;
        let running = if request.login { exec.enter(&handle, &program) } else { exec.exec(&handle, &program) };
        let ended = tokio::time::timeout(deadline + GRACE, running).await.unwrap_or_else(|_| {
            Err(Error::new(Code::OperationDeadline, format!("{} s passed; the program may still run", deadline.as_secs_f32())))
        })?;
        Ok(ExecView {
            code: ended.code,
            signal: ended.signal,
            stdout: ended.stdout.into(),
            stderr: ended.stderr.into(),
            truncated: ended.truncated,
        })
    }

    pub(super) async fn addresses_of(&self, text: &str) -> Result<Vec<Address>> {
        let machine = self.machine(text)?;
        let addresses = machine.driver.addresses().ok_or_else(|| lacks(&machine, "tell addresses"))?;
        within("asking for addresses", addresses.addresses(&handle(&machine)?)).await
    }

    /// Waits until a machine has an address, greets by SSH, or has a live session.
    pub(super) async fn ready(&self, request: WaitReady) -> Result<ReadyView> {
        let machine = self.machine(&request.machine)?;
        let until = tokio::time::Instant::now() + patience(request.timeout_ms, 30_000);
        let mut tries = 0;
        if request.until == Ready::Session {
            super::ready::wake(&machine, request.channel.as_deref()).await;
        }
        loop {
            // Also who waits for nothing learns what is missing.
            let limit = until.max(tokio::time::Instant::now() + LOOK);
            let view = tokio::time::timeout_at(limit, self.readiness(&machine, request.until, request.channel.as_deref())).await;
            let view = match view {
                Ok(view) => view?,
                Err(_) => ReadyView { ready: false, address: None, missing: "it was not known in time".into() },
            };
            tries += 1;
            let next = tokio::time::Instant::now() + timer::back_off(tries).min(RARELY);
            if view.ready || next >= until {
                return Ok(view);
            }
            // No hypervisor tells when a guest has got its address, so it is asked, spaced.
            timer::until(Some(next)).await;
        }
    }

    async fn readiness(&self, machine: &Arc<Machine>, goal: Ready, channel: Option<&str>) -> Result<ReadyView> {
        let view = machine.view();
        let not = |missing: String, address| Ok(ReadyView { ready: false, address, missing });
        match view.state {
            State::Gone | State::Deleting => return Err(Error::new(Code::MachineGone, "the machine was deleted or forgotten")),
            State::Stopped | State::Suspended | State::Paused | State::Broken if view.operation.is_none() => {
                let name = escape(&view.name);
                return Err(Error::new(Code::MachineStopped, format!("{name} does not run")).hint(format!("start it: vmoon start {name}")));
            }
            State::Running => {}
            _ => return not("it does not run yet".into(), None),
        }
        if goal == Ready::Session {
            return super::ready::session(machine, channel).await;
        }
        let Some(addresses) = machine.driver.addresses() else { return Err(lacks(machine, "tell addresses")) };
        let handle = handle(machine)?;
        let found = match within("asking for addresses", addresses.addresses(&handle)).await {
            Ok(found) => found,
            Err(error) => return not(error.chain(), None),
        };
        let Some(address) = found.into_iter().find(|address| !is_local(&address.ip)) else {
            let why = within("asking for addresses", addresses.missing(&handle)).await.ok().flatten();
            return not(why.unwrap_or_else(|| "no address is known: no guest agent answers, and no lease was given".into()), None);
        };
        if goal == Ready::Ip {
            return Ok(ReadyView { ready: true, address: Some(address), missing: String::new() });
        }
        if let Some(greets) = addresses.greets(&handle).await {
            let missing = greets.err().map(|error| error.chain());
            return Ok(ReadyView { ready: missing.is_none(), address: Some(address), missing: missing.unwrap_or_default() });
        }
        let places = match within("asking for its SSH server", addresses.ssh(&handle)).await {
            Ok(places) => places.unwrap_or_else(|| vec![(address.ip.clone(), 22)]),
            Err(error) => return not(error.chain(), Some(address)),
        };
        let why = super::ready::greets(&places).await;
        Ok(ReadyView { ready: why.is_none(), address: Some(address), missing: why.unwrap_or_default() })
    }

    pub(super) async fn displays(&self, text: &str) -> Result<Vec<vmoon_core::ability::DisplayOffer>> {
        let machine = self.machine(text)?;
        let display = machine.driver.display().ok_or_else(|| lacks(&machine, "show a screen"))?;
        within("asking for displays", display.offers(&handle(&machine)?)).await
    }

    pub(super) async fn picture(&self, text: &str) -> Result<PictureView> {
        let machine = self.machine(text)?;
        let display = machine.driver.display().ok_or_else(|| lacks(&machine, "show a screen"))?;
        let picture = within("taking the picture", display.screenshot(&handle(&machine)?)).await?;
        if picture.bytes.len() > PICTURE {
            return Err(Error::new(Code::DriverFailed, "the picture is larger than 64 MiB"));
        }
        Ok(PictureView { media_type: picture.media_type, data: picture.bytes.into() })
    }
}

/// Whether an address leads nowhere from outside: a guest's own, link-local, unspecified. Other addresses of the loopback network are given to guests by pools that
/// run on this computer for demonstration.
fn is_local(ip: &str) -> bool {
    match ip.parse() {
        Ok(std::net::IpAddr::V4(ip)) => ip == std::net::Ipv4Addr::LOCALHOST || ip.is_link_local() || ip.is_unspecified(),
        Ok(std::net::IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified(),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_addresses_that_lead_somewhere_count() {
        for (ip, local) in [
            ("127.0.0.1", true),
            ("169.254.3.4", true),
            ("fe80::1", true),
            ("::1", true),
            ("x", true),
            ("10.0.0.7", false),
            ("2001:db8::7", false),
        ] {
            assert_eq!(is_local(ip), local, "{ip}");
        }
    }
}
