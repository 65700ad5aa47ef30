//! Consoles: the connection is given over to whoever is behind it. Without a machine behind it that is a screen that lets nobody in and says why, or a terminal that says
//! whose it is and echoes.

use super::{Query, broken, empty, named};
use crate::{server::Answer, sim::Sim};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use std::{io, path::PathBuf, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::UnixStream,
};

/// What a server of RFB says first (RFC 6143, 7.1.1).
const GREETING: &[u8] = b"RFB 003.008\n";
/// Why nobody sees anything.
const NOTHING: &str = "this VM is simulated by its records alone: no machine is behind it that could show anything";

/// Tells the Unix socket that a machine's console listens on, by the VM's reference and the console's protocol; none if nothing is behind it.
pub type Consoles = Arc<dyn Fn(&str, &str) -> Option<PathBuf> + Send + Sync>;

pub(super) fn answer(sim: &Arc<Sim>, query: &Query, request: Request<Incoming>) -> Response<Answer> {
    let (vm, protocol, name, behind) = {
        let state = sim.state();
        let found = named(&state.store, "console", query);
        let reference = match &found {
            Ok(reference) => reference,
            Err(fault) => return broken(fault),
        };
        let text = |class: &str, of: &str, field: &str| state.store.text(class, of, field).unwrap_or_default();
        let vm = text("console", reference, "VM");
        (vm.clone(), text("console", reference, "protocol"), text("VM", &vm, "name_label"), state.consoles.clone())
    };
    let machine = sim.link(&vm, &protocol);
    // A browser's way needs a program beside xapi, which is not there.
    if request.method() != Method::CONNECT {
        return empty(StatusCode::NOT_IMPLEMENTED);
    }
    let socket = behind.and_then(|behind| behind(&vm, &protocol));
    drop(tokio::spawn(async move {
        if let Ok(stream) = hyper::upgrade::on(request).await {
            // How a viewer goes is its affair.
            let _ = match machine {
                Some(machine) => machine.carry(TokioIo::new(stream)).await,
                None => serve(TokioIo::new(stream), socket, &protocol, &name).await,
            };
        }
    }));
    empty(StatusCode::OK)
}

async fn serve(mut stream: TokioIo<hyper::upgrade::Upgraded>, socket: Option<PathBuf>, protocol: &str, name: &str) -> io::Result<()> {
    if let Some(socket) = socket {
        let mut machine = UnixStream::connect(socket).await?;
        return copy_bidirectional(&mut stream, &mut machine).await.map(drop);
    }
    if protocol == "rfb" {
        return dark(&mut stream).await;
    }
    stream.write_all(format!("\r\n{} login: ", name.escape_debug()).as_bytes()).await?;
    stream.flush().await?;
    let mut buf = [0; 4096];
    loop {
        let count = stream.read(&mut buf).await?;
        if count == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buf[..count]).await?;
        stream.flush().await?;
    }
}

/// Lets nobody in: no way to be let in is offered, and the reason follows (RFC 6143, 7.1.2).
async fn dark(stream: &mut TokioIo<hyper::upgrade::Upgraded>) -> io::Result<()> {
    stream.write_all(GREETING).await?;
    stream.flush().await?;
    let mut version = [0; 12];
    stream.read_exact(&mut version).await?;
    let modern = version.starts_with(b"RFB 003.007") || version.starts_with(b"RFB 003.008");
    let none: &[u8] = if modern { &[0] } else { &[0; 4] };
    let length = u32::try_from(NOTHING.len()).unwrap_or_default();
    stream.write_all(&[none, &length.to_be_bytes(), NOTHING.as_bytes()].concat()).await?;
    stream.flush().await?;
    stream.shutdown().await
}
