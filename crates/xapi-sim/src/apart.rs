//! A server on a thread of its own, for those that do not wait: tests of a command line, say.

use crate::{Server, Settings, Sim, machines::Maker};
use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{runtime::Builder, sync::oneshot};

/// The server. Dropping it ends it with all that runs in it.
pub struct Apart {
    /// What it is made of: to look into it, and to break it.
    pub sim: Arc<Sim>,
    /// `https://ADDRESS:PORT`.
    pub uri: String,
    /// Of its certificate: `SHA256:…`.
    pub fingerprint: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Apart {
    /// Starts one whose VMs are made by `maker`, and have so much time to obey their power button. The maker is made on that thread: what it starts dies with the
    /// thread that has started it.
    ///
    /// # Errors
    /// If the maker cannot be made, or [`Server::start`] and [`Server::boot`] have one.
    pub fn start<M: Maker + 'static>(
        settings: Settings,
        patience: Duration,
        maker: impl FnOnce() -> Result<M, String> + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("xapi-sim".into()).spawn(move || {
            let ran = run(&settings, patience, maker, stopped, &tell);
            // It was told when the server had started; then nobody listens.
            drop(ran.map_err(|error| tell.send(Err(error))));
        })?;
        let (sim, uri, fingerprint) = told.recv().map_err(|_| io::Error::other("the server's thread has ended"))??;
        Ok(Self { sim, uri, fingerprint, stop: Some(stop), thread: Some(thread) })
    }
}

type Told = mpsc::SyncSender<io::Result<(Arc<Sim>, String, String)>>;

fn run<M: Maker + 'static>(
    settings: &Settings,
    patience: Duration,
    maker: impl FnOnce() -> Result<M, String>,
    stopped: oneshot::Receiver<()>,
    tell: &Told,
) -> io::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut server = Server::start(settings).await?;
        server.boot(Box::new(maker().map_err(io::Error::other)?), patience)?;
        let fingerprint = server.fingerprint().ok_or_else(|| io::Error::other("it has no certificate"))?;
        drop(tell.send(Ok((server.sim.clone(), format!("https://{}", server.address()), format!("SHA256:{fingerprint}")))));
        let _ = stopped.await;
        server.stop().await;
        Ok(())
    })
}

impl Drop for Apart {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
