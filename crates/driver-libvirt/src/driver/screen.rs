//! Private sockets that lead to a machine's screen where its own socket is closed to us: each connection is one that libvirt opens and hands over as a
//! descriptor. No port, and nobody else gets in: the directory is this user's alone.

use super::{errors::failed, link::Shared};
use std::{
    collections::HashMap,
    os::unix::net::UnixStream as StdStream,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    task::AbortHandle,
};
use uuid::Uuid;
use vmoon_core::{Error, Result};
use vmoon_libvirt_wire::{Domain, flags::Graphics};
use vmoon_sys::paths;

/// How long a socket waits for a viewer before it goes.
const UNUSED: Duration = Duration::from_secs(600);

/// The sockets that are there.
pub(crate) struct Screens {
    /// Where they are made; nowhere without.
    directory: Option<PathBuf>,
    open: Mutex<HashMap<(Uuid, u32), AbortHandle>>,
}

impl Drop for Screens {
    fn drop(&mut self) {
        for (_, task) in self.open.get_mut().unwrap_or_else(PoisonError::into_inner).drain() {
            task.abort();
        }
    }
}

/// A socket's file, which goes with its task.
struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        // It may have been removed with the runtime directory.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Screens {
    /// Sockets below the user's runtime directory.
    pub(crate) fn new(runtime: Option<&Path>) -> Self {
        Self { directory: runtime.map(|runtime| runtime.join("vmoon").join("screens")), open: Mutex::default() }
    }

    /// The path of a socket that leads to that screen of a running domain; `None` where none can be made.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn socket(&self, link: &Shared, uuid: Uuid, index: u32) -> Result<Option<PathBuf>> {
        let Some(directory) = &self.directory else { return Ok(None) };
        paths::private_dir(directory)?;
        let path = directory.join(format!("{uuid}-{index}"));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(&(uuid, index)).is_some_and(|task| !task.is_finished()) && path.exists() {
            return Ok(Some(path));
        }
        let io = |error| Error::io(format_args!("make the socket {}", path.display()), error);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(io)?;
        let task = tokio::spawn(serve(listener, Bound(path.clone()), link.clone(), uuid, index));
        if let Some(old) = open.insert((uuid, index), task.abort_handle()) {
            old.abort();
        }
        Ok(Some(path))
    }
}

async fn serve(listener: UnixListener, bound: Bound, link: Shared, uuid: Uuid, index: u32) {
    while let Ok(Ok((viewer, _))) = tokio::time::timeout(UNUSED, listener.accept()).await {
        match open(&link, uuid, index).await {
            Ok(screen) => drop(tokio::spawn(carry(viewer, screen))),
            Err(error) => tracing::warn!(domain = %uuid, error = %error.chain(), "the screen cannot be opened"),
        }
    }
    drop(bound);
}

async fn open(link: &Shared, uuid: Uuid, index: u32) -> Result<UnixStream> {
    let what = "open the machine's screen";
    let client = link.client().await?;
    // Who may reach the socket may use libvirt; a password would protect from nobody.
    let descriptor = client.open_graphics(&Domain::of(uuid), index, Graphics::SKIP_AUTH).await.map_err(|error| failed(what, error))?;
    let stream = StdStream::from(descriptor);
    let ready = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
    ready.map_err(|error| Error::io(what, error))
}

async fn carry(mut viewer: UnixStream, mut screen: UnixStream) {
    if let Err(error) = tokio::io::copy_bidirectional(&mut viewer, &mut screen).await {
        tracing::debug!(%error, "a viewer left");
    }
}
