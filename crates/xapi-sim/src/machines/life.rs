//! One machine from its start to its end.

use super::{Body, End, Machines, Order, Terminal, plan};
use crate::{
    sim::Sim,
    verbs::{power, rest},
};
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// How long a server may take to greet, and how long until it is tried again.
const GREETING: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(50);

/// What is asked of a machine, whether it is for a reboot, and where to say that it is done.
pub(super) struct Ask {
    pub(super) order: Order,
    pub(super) reboot: bool,
    pub(super) done: oneshot::Sender<io::Result<()>>,
}

/// What others hold of a machine. Dropped, it ends.
pub(super) struct Life {
    pub(super) domain: i64,
    pub(super) paused: watch::Sender<bool>,
    pub(super) asks: mpsc::Sender<Ask>,
    /// Closed when the machine is gone.
    pub(super) alive: watch::Receiver<()>,
    pub(super) terminal: Arc<Terminal>,
    pub(super) screen: watch::Receiver<Option<PathBuf>>,
}

/// What the machine's task holds.
struct Task {
    sim: Arc<Sim>,
    machines: Arc<Machines>,
    vm: String,
    domain: i64,
    paused: watch::Receiver<bool>,
    asks: mpsc::Receiver<Ask>,
    terminal: Arc<Terminal>,
    screen: watch::Sender<Option<PathBuf>>,
}

impl Life {
    /// A machine and the task that is its life; it begins when the one before is gone.
    pub(super) fn begin(
        sim: &Arc<Sim>,
        machines: &Arc<Machines>,
        vm: &str,
        domain: i64,
        paused: bool,
        before: Option<watch::Receiver<()>>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (pause, paused) = watch::channel(paused);
        let (asks, asked) = mpsc::channel(8);
        let (living, alive) = watch::channel(());
        let (shown, screen) = watch::channel(None);
        let terminal = Arc::new(Terminal::new());
        let mut task = Task {
            sim: sim.clone(),
            machines: machines.clone(),
            vm: vm.to_owned(),
            domain,
            paused,
            asks: asked,
            terminal: terminal.clone(),
            screen: shown,
        };
        let run = async move {
            let _living = living;
            if let Some(mut before) = before {
                gone(&mut before).await;
            }
            let end = match task.start() {
                Ok(body) => task.live(body).await,
                Err(error) => Some(End::Died(error.to_string())),
            };
            if let Some(end) = end {
                task.settle(&end);
            }
        };
        (Self { domain, paused: pause, asks, alive, terminal, screen }, run)
    }
}

/// Waits until a machine is gone.
pub(super) async fn gone(alive: &mut watch::Receiver<()>) {
    while alive.changed().await.is_ok() {}
}

impl Task {
    fn start(&mut self) -> io::Result<(Box<dyn Body>, SocketAddr)> {
        let plan = plan(&self.sim, &self.machines, &self.vm)?;
        let address = SocketAddr::from((plan.address, plan.port));
        let mut body = self.machines.maker.start(&plan)?;
        if let Some(saved) = &plan.memory_file {
            // It is open by now; what is left of it is gone with the process.
            let _ = std::fs::remove_file(saved);
        }
        if let Some(serial) = body.serial() {
            drop(tokio::spawn(self.terminal.clone().run(serial)));
        }
        self.screen.send_replace(body.screen());
        Ok((body, address))
    }

    /// Until it ends by itself, then how; nothing if it was ended.
    async fn live(&mut self, (mut body, address): (Box<dyn Body>, SocketAddr)) -> Option<End> {
        let words = super::words(&self.sim.state().store, &self.vm);
        let has = |word: &str| words.iter().any(|one| one == word);
        let terminal = self.terminal.clone();
        let mut ready = Box::pin(async move {
            // One that would never greet is ready when it says so.
            if has("nossh") || has("noip") {
                terminal.ready().await
            } else {
                greeting(address).await
            }
            (!has("noip") && !has("mute")).then(|| address.ip().to_string())
        });
        let (mut told, mut reboot, mut still) = (false, false, false);
        loop {
            let wants = *self.paused.borrow_and_update();
            if wants != still {
                still = wants;
                if let Err(error) = body.obey(if wants { Order::Pause } else { Order::Go }).await {
                    return Some(End::Died(error.to_string()));
                }
            }
            tokio::select! {
                end = body.ended() => return Some(if reboot && end == End::Off { End::Reset } else { end }),
                changed = self.paused.changed() => if changed.is_err() { return None },
                ask = self.asks.recv() => {
                    let ask = ask?;
                    reboot |= ask.reboot;
                    let done = body.obey(ask.order).await;
                    // Whoever asked may have gone.
                    let _ = ask.done.send(done);
                }
                address = &mut ready, if !told => {
                    told = true;
                    let mut state = self.sim.state();
                    // It may be gone already.
                    let _ = power::tell(&mut state.store, &self.vm, self.domain, address.as_deref());
                    drop(state);
                    self.sim.wake();
                }
            }
        }
    }

    /// Writes down what the guest has done by itself.
    fn settle(&self, end: &End) {
        let mut state = self.sim.state();
        let store = &mut state.store;
        if store.field("VM", &self.vm, "domid").ok() != Some(self.domain.into()) {
            return;
        }
        if let End::Died(why) = end {
            tracing::warn!("the machine of {} has ended: {why}", store.text("VM", &self.vm, "name_label").unwrap_or_default());
        }
        let done = if *end == End::Reset { power::again(&self.sim, store, &self.vm) } else { power::halt(store, &self.vm, "Halted") };
        if let Err(fault) = done {
            tracing::warn!("the end of a machine cannot be written down: {}", fault.0.join(" "));
        }
        drop(state);
        self.sim.wake();
    }
}

/// Returns when an SSH server greets there.
async fn greeting(address: SocketAddr) {
    loop {
        let greeted = timeout(GREETING, async {
            let mut word = [0; 4];
            TcpStream::connect(address).await?.read_exact(&mut word).await?;
            io::Result::Ok(&word == b"SSH-")
        });
        if let Ok(Ok(true)) = greeted.await {
            return;
        }
        rest(AGAIN).await;
    }
}
