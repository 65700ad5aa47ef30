//! A host whose sshd lives in a thread of its own, for tests that have no event loop: those that run the binary.

use crate::{Lab, Tools, Valve};
use std::{path::PathBuf, sync::mpsc, thread::JoinHandle};
use tokio::sync::oneshot;

/// The host. Dropping it ends it.
#[derive(Debug)]
pub struct Own {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// Its directory: `bin` is its PATH, `state` its state directory, `user` the private key that it takes.
    pub dir: PathBuf,
    /// The host key's fingerprint, `SHA256:…`.
    pub fingerprint: String,
    /// What is on its way to it can be held up.
    pub valve: Valve,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Own {
    /// Starts it, with these tools and that Lua.
    pub fn start(tools: Tools, lua: &'static str) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let lab = Lab::new(tools, lua).await;
                ready.send((lab.place.port(), lab.path().to_owned(), lab.fingerprint(), lab.valve())).expect("somebody waits");
                let _ = stopped.await;
            });
        });
        let (port, dir, fingerprint, valve) = is_ready.recv().expect("a host");
        Self { port, dir, fingerprint, valve, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the host's thread has panicked");
        }
    }
}
