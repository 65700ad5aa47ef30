//! The outside world: machines, disks, a clock that tests crank, and everything that can go wrong on the way to it.
//!
//! A world survives every driver and daemon that looks at it. It knows no operation, session or store.

use crate::{
    fault::{Fault, Gate},
    machine::{Guest, Machine, Power},
    notices::Board,
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::watch;
use vmoon_core::{
    Code, Error, MachineId, Result,
    ability::{Address, Changed},
    driver::{Exit, Handle, Sighting},
};

/// Told of every step, `"before start"`, `"after start"`.
type Watcher = Box<dyn Fn(&str) + Send + Sync>;

/// What lies behind simulated drivers. Share it with [`Arc`].
pub struct World {
    inner: Mutex<Inner>,
    watcher: Mutex<Option<Arc<Watcher>>>,
    steps: AtomicU64,
    cut_at: AtomicU64,
    reachable: AtomicBool,
    /// Rises with whatever happens.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) machines: BTreeMap<String, Machine>,
    /// Native names of disks that exist, with the tag of the machine they were made for.
    pub(crate) disks: BTreeMap<String, MachineId>,
    pub(crate) now: u64,
    foreigners: u64,
    pub(crate) board: Board,
    faults: HashMap<String, VecDeque<Fault>>,
    calls: HashMap<String, u64>,
}

/// One driver's way to the world; dead for good once it was cut.
#[derive(Default)]
pub(crate) struct Line {
    cut: AtomicBool,
}

/// What remains of a fault after the work was done.
pub(crate) enum Afterwards {
    Nothing,
    Fail(Code),
    Hang(Gate),
}

impl Default for World {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            watcher: Mutex::default(),
            steps: AtomicU64::new(0),
            cut_at: AtomicU64::new(u64::MAX),
            reachable: AtomicBool::new(true),
            changed: watch::Sender::new(0),
        }
    }
}

impl World {
    /// An empty world at time 0, reachable, without faults.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows that something happens.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn tell(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Waits until `is` holds. It is asked again whenever something happens in the world.
    pub async fn until(&self, mut is: impl FnMut(&World) -> bool) {
        let mut changes = self.changed.subscribe();
        while !is(self) {
            // The sender lives in `self`, so waiting cannot fail.
            let _ = changes.changed().await;
        }
    }

    // The clock.

    /// The time, in milliseconds since the world began.
    pub fn now(&self) -> u64 {
        self.lock().now
    }

    /// Advances the clock by so many milliseconds; everything that is due happens.
    pub fn advance(&self, ms: u64) {
        {
            let mut inner = self.lock();
            inner.now += ms;
            let now = inner.now;
            inner.machines.values_mut().for_each(|machine| machine.advance(now));
        }
        self.tell();
    }

    // Faults and steps.

    /// The next call or step of that name meets this fault; several queue up.
    ///
    /// Calls: `probe facts create start stop kill delete observe list recover open describe pause unpause suspend resume
    /// snapshot.list snapshot.create snapshot.revert snapshot.delete device.list device.plan reset exec addresses display screenshot tune rename clone`.
    /// Steps within calls: `device.disk device.attach device.detach device.erase recover.device create.disk create.define create.complete delete.off delete.disk delete.undefine recover.undefine
    /// recover.disk`.
    pub fn fault(&self, name: &str, fault: Fault) {
        self.lock().faults.entry(name.to_owned()).or_default().push_back(fault);
    }

    /// How often a call or step of that name was begun.
    pub fn calls(&self, name: &str) -> u64 {
        self.lock().calls.get(name).copied().unwrap_or(0)
    }

    /// Whether anybody can reach the world. Open links break as it is lost.
    pub fn set_reachable(&self, reachable: bool) {
        self.reachable.store(reachable, Ordering::SeqCst);
        if !reachable {
            self.lock().machines.values().for_each(Machine::break_link);
        }
        self.tell();
    }

    pub(crate) fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::SeqCst)
    }

    /// Calls `watcher` before and after every step that can be seen from outside, with `"before NAME"` or `"after NAME"`.
    pub fn on_step(&self, watcher: Box<dyn Fn(&str) + Send + Sync>) {
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(watcher));
    }

    /// How many befores and afters there were so far.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::SeqCst)
    }

    /// Cuts the driver that makes the `n`th before or after from now (the first is 1): none of its calls returns any more,
    /// as after a kill -9. Drivers made later are not concerned. [`u64::MAX`] takes an order back that was not carried out.
    pub fn cut_after(&self, n: u64) {
        self.cut_at.store(self.steps().saturating_add(n), Ordering::SeqCst);
    }

    /// Waits until [`World::cut_after`] has cut.
    pub async fn was_cut(&self) {
        self.until(|world| world.steps() >= world.cut_at.load(Ordering::SeqCst)).await;
    }

    /// One before or after.
    async fn pass(&self, line: &Line, when: &str, name: &str) {
        if line.cut.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
        let watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(watcher) = watcher {
            watcher(&format!("{when} {name}"));
        }
        let step = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        let cut = step == self.cut_at.load(Ordering::SeqCst);
        if cut {
            line.cut.store(true, Ordering::SeqCst);
        }
        self.tell();
        if cut {
            pending::<()>().await;
        }
    }

    fn unreachable(&self, name: &str) -> Result<()> {
        if self.is_reachable() {
            return Ok(());
        }
        Err(Error::new(Code::DriverUnreachable, format!("the simulated host does not answer ({name})")))
    }

    /// Begins a call or step: meets its fault, gives what is left of it.
    pub(crate) async fn enter(&self, line: &Line, name: &str) -> Result<Afterwards> {
        self.pass(line, "before", name).await;
        let (fault, now) = {
            let mut inner = self.lock();
            *inner.calls.entry(name.to_owned()).or_default() += 1;
            (inner.faults.get_mut(name).and_then(VecDeque::pop_front), inner.now)
        };
        self.tell();
        self.unreachable(name)?;
        let afterwards = match fault {
            None => Afterwards::Nothing,
            Some(Fault::Fail(code)) => return Err(scripted(name, code)),
            Some(Fault::ActThenFail(code)) => Afterwards::Fail(code),
            Some(Fault::ActThenHang(gate)) => Afterwards::Hang(gate),
            Some(Fault::Hang(gate)) => {
                gate.pass().await;
                Afterwards::Nothing
            }
            Some(Fault::Delay(ms)) => {
                self.until(|world| world.now() >= now + ms).await;
                Afterwards::Nothing
            }
        };
        self.unreachable(name)?;
        Ok(afterwards)
    }

    /// Ends a call or step.
    pub(crate) async fn leave(&self, line: &Line, name: &str, afterwards: Afterwards) -> Result<()> {
        self.pass(line, "after", name).await;
        match afterwards {
            Afterwards::Nothing => Ok(()),
            Afterwards::Fail(code) => Err(scripted(name, code)),
            Afterwards::Hang(gate) => {
                gate.pass().await;
                Ok(())
            }
        }
    }

    /// A whole step: its fault, its effect, what is left of the fault.
    pub(crate) async fn step<T>(&self, line: &Line, name: &str, act: impl FnOnce(&mut Inner) -> Result<T> + Send) -> Result<T> {
        let afterwards = self.enter(line, name).await?;
        let result = act(&mut self.lock());
        self.leave(line, name, afterwards).await?;
        result
    }

    // Meddling from outside.

    /// The handle of the machine that bears this id.
    pub fn find(&self, id: MachineId) -> Option<Handle> {
        let inner = self.lock();
        inner.machines.iter().find(|(_, machine)| machine.tag == Some(id)).map(|(native, _)| handle(native))
    }

    /// A complete machine that somebody else made, off; its name may be anything.
    pub fn add_foreign(&self, name: &str) -> Handle {
        let native = {
            let mut inner = self.lock();
            inner.foreigners += 1;
            let native = format!("foreign-{}", inner.foreigners);
            inner.machines.insert(native.clone(), Machine::new(name.to_owned(), None, true, Guest::default()));
            inner.board.machine(handle(&native));
            native
        };
        self.tell();
        handle(&native)
    }

    /// What is really there; `None` where nothing is.
    pub fn look(&self, handle: &Handle) -> Option<Sighting> {
        let native = native(handle)?;
        self.lock().machines.get(&native).map(Machine::sighting)
    }

    /// Starts it behind everybody's back.
    pub fn power_on(&self, handle: &Handle) {
        self.meddle(handle, |machine, now| machine.power_on(now));
    }

    /// Ends it behind everybody's back.
    pub fn power_off(&self, handle: &Handle, exit: Exit) {
        self.meddle(handle, |machine, _| machine.power_off(exit));
    }

    /// Pauses it behind everybody's back, if it runs.
    pub fn pause(&self, handle: &Handle) {
        self.meddle(handle, |machine, _| {
            if machine.power() == Power::On {
                machine.set_frozen(Power::Paused);
            }
        });
    }

    /// Resumes it behind everybody's back, if it is paused or suspended.
    pub fn unpause(&self, handle: &Handle) {
        self.meddle(handle, |machine, _| {
            if matches!(machine.power(), Power::Paused | Power::Suspended) {
                machine.set_frozen(Power::On);
            }
        });
    }

    /// Suspends it behind everybody's back, if it runs.
    pub fn suspend(&self, handle: &Handle) {
        self.meddle(handle, |machine, _| {
            if machine.power() == Power::On {
                machine.set_frozen(Power::Suspended);
            }
        });
    }

    /// Changes what its guest does. Ring and overflow count from its next start.
    pub fn set_guest(&self, handle: &Handle, guest: Guest) {
        self.meddle(handle, |machine, _| machine.guest = guest);
    }

    /// Gives it another name behind everybody's back.
    pub fn rename(&self, handle: &Handle, name: &str) {
        self.meddle(handle, |machine, _| machine.name = name.to_owned());
        self.shake();
    }

    /// Sets what addresses it has while it runs.
    pub fn set_addresses(&self, handle: &Handle, ips: &[&str]) {
        let address = |ip: &&str| Address { ip: (*ip).to_owned(), interface: "eth0".into(), mac: String::new(), source: "agent".into() };
        self.meddle(handle, |machine, _| machine.addresses = ips.iter().map(address).collect());
    }

    /// Tells those who watch that anything may have changed.
    pub fn shake(&self) {
        self.lock().board.add(Changed::All);
        self.tell();
    }

    /// Breaks its open link, as a lost connection does.
    pub fn break_link(&self, handle: &Handle) {
        self.meddle(handle, |machine, _| machine.break_link());
    }

    /// Whether anybody has a link to the machine's session.
    pub fn is_linked(&self, handle: &Handle) -> bool {
        let native = native(handle);
        let inner = self.lock();
        native.and_then(|native| inner.machines.get(&native)).is_some_and(Machine::is_linked)
    }

    /// It is gone, with its disk.
    pub fn vanish(&self, handle: &Handle) {
        if let Some(native) = native(handle) {
            let mut inner = self.lock();
            if let Some(machine) = inner.machines.remove(&native) {
                machine.break_link();
            }
            inner.disks.remove(&native);
            inner.board.machine(handle.clone());
        }
        self.tell();
    }

    /// Native names of the disks that exist: what is left when no machine is, is an orphan.
    pub fn disks(&self) -> Vec<String> {
        self.lock().disks.keys().cloned().collect()
    }

    /// Native names of the machines that exist.
    pub fn machines(&self) -> Vec<String> {
        self.lock().machines.keys().cloned().collect()
    }

    fn meddle(&self, handle: &Handle, act: impl FnOnce(&mut Machine, u64)) {
        if let Some(native) = native(handle) {
            let mut inner = self.lock();
            let now = inner.now;
            if let Some(machine) = inner.machines.get_mut(&native) {
                act(machine, now);
            }
            inner.board.machine(handle.clone());
        }
        self.tell();
    }
}

fn scripted(name: &str, code: Code) -> Error {
    Error::new(code, format!("the simulated host failed in {name}, as it was told to"))
}

pub(crate) fn handle(native: &str) -> Handle {
    Handle(serde_json::json!({ "sim": native }).to_string())
}

pub(crate) fn native(handle: &Handle) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(&handle.0).ok()?;
    Some(value.get("sim")?.as_str()?.to_owned())
}
