//! Screens of VMs: a private socket on this computer, each connection to which is one to the VM's console at its host; and pictures of them.

use super::{XcpngDriver, pool::Pool, rfb, uuid};
use async_trait::async_trait;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    task::AbortHandle,
    time::timeout,
};
use vmoon_core::{
    Code, Error, Result,
    ability::{Display, DisplayOffer, Picture},
    driver::Handle,
    name::escape,
    png,
};
use vmoon_sys::paths;
use vmoon_xapi::{
    console::Console,
    records::{PowerState, Vm},
};

/// How long a socket waits for a viewer before it goes.
const UNUSED: Duration = Duration::from_secs(600);
/// How long a picture may take.
const PICTURE: Duration = Duration::from_secs(20);

/// The sockets that are there, by the uuid of their VM.
#[derive(Debug, Default)]
pub(super) struct Screens(Mutex<HashMap<String, AbortHandle>>);

impl Drop for Screens {
    fn drop(&mut self) {
        for (_, task) in self.0.get_mut().unwrap_or_else(PoisonError::into_inner).drain() {
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

impl Pool {
    async fn screen(&self, vm: &Vm) -> Result<Option<String>> {
        match vm.power_state {
            PowerState::Running | PowerState::Paused => self.console_of(vm, "rfb").await,
            _ => Ok(None),
        }
    }

    async fn open_screen(&self, uuid: &str) -> Result<Console> {
        let what = "open the VM's screen";
        let (_, vm) = self.known(uuid).await?;
        if !matches!(vm.power_state, PowerState::Running | PowerState::Paused) {
            return Err(Error::new(Code::MachineStopped, "the VM does not run, so it shows nothing").hint("start it first"));
        }
        let location = self.screen(&vm).await?;
        let location = location.ok_or_else(|| Error::new(Code::DriverUnsupported, format!("{} has no screen", escape(&vm.name_label))))?;
        // Where it is is another place with each boot and after each move, so it is asked for every viewer.
        self.client()?.console(&location).await.map_err(|error| self.failed(what, error))
    }

    /// The path of a socket that leads to the screen; none where none can be made.
    fn socket(self: &Arc<Self>, uuid: &str) -> Result<Option<PathBuf>> {
        let Some(runtime) = &self.config.runtime else { return Ok(None) };
        let directory = runtime.join("vmoon").join("screens");
        paths::private_dir(&directory)?;
        let path = directory.join(uuid);
        let mut open = self.screens.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(uuid).is_some_and(|task| !task.is_finished()) && path.exists() {
            return Ok(Some(path));
        }
        let io = |error| Error::io(format_args!("make the socket {}", path.display()), error);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(io)?;
        let task = tokio::spawn(serve(listener, Bound(path.clone()), Arc::downgrade(self), uuid.to_owned()));
        if let Some(old) = open.insert(uuid.to_owned(), task.abort_handle()) {
            old.abort();
        }
        Ok(Some(path))
    }
}

async fn serve(listener: UnixListener, bound: Bound, pool: std::sync::Weak<Pool>, uuid: String) {
    while let Ok(Ok((viewer, _))) = timeout(UNUSED, listener.accept()).await {
        let Some(pool) = pool.upgrade() else { break };
        match pool.open_screen(&uuid).await {
            Ok(screen) => drop(tokio::spawn(carry(viewer, screen))),
            Err(error) => tracing::warn!(vm = uuid, error = %error.chain(), "the screen cannot be opened"),
        }
    }
    drop(bound);
}

async fn carry(mut viewer: UnixStream, mut screen: Console) {
    if let Err(error) = tokio::io::copy_bidirectional(&mut viewer, &mut screen).await {
        tracing::debug!(%error, "a viewer left");
    }
}

/// A path as it stands in a URI (RFC 3986, `pchar` and `/`).
fn in_uri(path: &Path) -> String {
    let mut out = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[async_trait]
impl Display for XcpngDriver {
    async fn offers(&self, handle: &Handle) -> Result<Vec<DisplayOffer>> {
        let uuid = uuid(handle)?;
        let (_, vm) = self.0.known(&uuid).await?;
        if self.0.screen(&vm).await?.is_none() {
            return Ok(Vec::new());
        }
        let socket = self.0.socket(&uuid)?;
        Ok(socket.map(|path| DisplayOffer { protocol: "vnc".into(), uri: format!("vnc+unix://{}", in_uri(&path)) }).into_iter().collect())
    }

    async fn screenshot(&self, handle: &Handle) -> Result<Picture> {
        let uuid = uuid(handle)?;
        let work = async {
            let mut screen = self.0.open_screen(&uuid).await?;
            let (width, height, pixels) = rfb::picture(&mut screen).await?;
            Ok(Picture { media_type: "image/png".into(), bytes: png::encode(width, height, &pixels)? })
        };
        let late = || Error::new(Code::Timeout, format!("the picture took longer than {} s", PICTURE.as_secs()));
        timeout(PICTURE, work).await.unwrap_or_else(|_| Err(late()))
    }
}
