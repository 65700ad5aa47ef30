//! HTTP/1.1 and WebSockets on the daemon's socket: a thin skin over `dyn Api`, routed by the endpoint table.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::{Body as _, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    ffi::OsStr,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
    sync::Arc,
};
use tokio::net::UnixStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message as Ws, Utf8Bytes, handshake::derive_accept_key, protocol::Role},
};
use vmoon_api::{
    Api, Attachment, Endpoint, EventStream, Message, PROTOCOL_HEADER, Routed, STATE_HEADER,
    api::dispatch,
    check_protocol,
    client::DIRECT,
    endpoint,
    files::{Part, Transfer},
    protocol_header,
};
use vmoon_core::{Code, Error, Result, frame::Frame, name::escape};

/// The largest body of a request, bytes: a frame of 16 MiB in base64, and room for the fields around it.
const BODY: usize = 24 << 20;

type Answer = Response<Full<Bytes>>;

/// Serves one connection until either side closes it. A peer of another user gets one clear answer to whatever it asks.
pub async fn serve(stream: UnixStream, api: Arc<dyn Api>) {
    serve_of(stream, api, None).await;
}

/// The same for clients that say which state directory they mean: it must be this one.
pub(crate) async fn serve_of(stream: UnixStream, api: Arc<dyn Api>, state: Option<Arc<Path>>) {
    let stranger = vmoon_sys::peer::check(&stream).err().map(|error| error.to_record());
    let service = service_fn(move |request| {
        let (api, stranger, state) = (api.clone(), stranger.clone(), state.clone());
        async move {
            Ok::<_, Infallible>(match stranger {
                Some(record) => failure(&record.into()),
                None => answer(api, request, state.as_deref()).await.unwrap_or_else(|error| failure(&error)),
            })
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
    if let Err(error) = connection.await {
        // A client that goes away in the middle of something is no event.
        tracing::debug!(%error, "a connection ended");
    }
}

fn json(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if let Ok(value) = protocol_header().parse() {
        headers.insert(PROTOCOL_HEADER, value);
    }
    response
}

fn failure(error: &Error) -> Answer {
    let body = serde_json::json!({ "error": error.to_record() });
    json(StatusCode::from_u16(error.code().http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body.to_string().into_bytes())
}

/// Checks that a client means our state directory. Who comes with another home or state directory and the same runtime directory does not.
fn check_state(ours: &Path, theirs: &[u8]) -> Result<()> {
    let theirs = Path::new(OsStr::from_bytes(theirs));
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    // By another path it may be the same: homes are links now and then.
    if ours == theirs || identity(theirs).is_some_and(|same| identity(ours) == Some(same)) {
        return Ok(());
    }
    let shown = |path: &Path| escape(&path.to_string_lossy());
    let why = format!(
        "the daemon that listens there (process {}) is that of the state directory {}, not of {}",
        std::process::id(),
        shown(ours),
        shown(theirs)
    );
    Err(Error::new(Code::DaemonOther, why)
        .hint("set HOME or XDG_STATE_HOME for that one, or XDG_RUNTIME_DIR to a directory of its own for this one"))
}

async fn answer(api: Arc<dyn Api>, request: Request<Incoming>, state: Option<&Path>) -> Result<Answer> {
    if let (Some(ours), Some(theirs)) = (state, request.headers().get(STATE_HEADER)) {
        check_state(ours, theirs.as_bytes())?;
    }
    if let Some(theirs) = request.headers().get(PROTOCOL_HEADER) {
        check_protocol(theirs.to_str().unwrap_or(""), "client")?;
    }
    let uri: Uri = request.uri().clone();
    let (found, params) = endpoint::find(request.method().as_str(), uri.path()).ok_or_else(|| {
        Error::new(Code::NotFound, format!("there is no {} {}", request.method(), escape(uri.path()))).hint("see docs/reference/api.md")
    })?;
    let query = uri.query().unwrap_or("");
    if found.websocket {
        return upgrade(api, found, request, Routed { params, query, body: None }).await;
    }
    let is_get = request.method() == Method::GET;
    let too_large =
        || Error::new(Code::CommandTooLarge, "a request has at most 24 MiB").hint("put the data into a file that the machine can read");
    if request.body().size_hint().lower() > BODY as u64 {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), BODY).collect().await.map_err(|error| too_large().source(error))?;
    let body = body.to_bytes();
    let routed = Routed { params, query, body: (!is_get).then_some(&body[..]) };
    Ok(json(StatusCode::OK, dispatch(&*api, found.name, routed).await?))
}

/// Answers a WebSocket's handshake (RFC 6455, section 4.2.2) and hands the stream to its task.
async fn upgrade(api: Arc<dyn Api>, found: &Endpoint, mut request: Request<Incoming>, routed: Routed<'_>) -> Result<Answer> {
    let malformed = |what: &'static str| Error::new(Code::WireMalformed, what);
    let headers = request.headers();
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| malformed("this endpoint is a WebSocket and the request is none"))?;
    let accept = derive_accept_key(key.as_bytes());
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|v| v.to_str().ok()).unwrap_or("");
    if !offered.split(',').any(|name| name.trim() == found.response) {
        return Err(Error::new(
            Code::WireVersion,
            format!("this endpoint speaks {}, the client offers \"{}\"", found.response, escape(offered)),
        ));
    }
    // The thing itself is opened before the handshake is answered, so that a refusal is an ordinary error.
    let opened = match found.name {
        "attach" => Opened::Session(api.attach(routed.parse()?).await?),
        "transfer_file" => Opened::File(api.transfer_file(routed.parse()?).await?),
        _ => Opened::Events(api.follow_events(routed.parse()?).await?),
    };
    let upgraded = hyper::upgrade::on(&mut request);
    drop(tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        match opened {
            Opened::Session(attachment) => session(attachment, socket).await,
            Opened::File(transfer) => file(transfer, socket).await,
            Opened::Events(events) => follow(events, socket).await,
        }
    }));
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
        (header::SEC_WEBSOCKET_PROTOCOL, found.response),
    ] {
        headers.insert(name, value.parse().map_err(|_| Error::internal("a header cannot be written"))?);
    }
    Ok(response)
}

enum Opened {
    Session(Box<dyn Attachment>),
    File(Box<dyn Transfer>),
    Events(Box<dyn EventStream>),
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

fn error_text(error: &Error) -> Utf8Bytes {
    serde_json::json!({ "error": error.to_record() }).to_string().into()
}

/// Carries a session's attachment. Whatever ends the socket detaches; the session lives on.
async fn session(mut attachment: Box<dyn Attachment>, socket: Socket) {
    let (mut out, mut incoming) = socket.split();
    loop {
        tokio::select! {
            message = attachment.next() => {
                let (message, last) = match message {
                    Ok(Message::Stream { at, frames }) => (Ws::Binary([&at.to_le_bytes()[..], &frames].concat().into()), false),
                    Ok(Message::Direct(frame)) => (Ws::Binary([&DIRECT.to_le_bytes()[..], &frame].concat().into()), false),
                    Ok(Message::Ended) => (Ws::Text("{\"ended\":true}".into()), true),
                    Err(error) => (Ws::Text(error_text(&error)), true),
                };
                // Only this attachment waits for its reader.
                if out.send(message).await.is_err() {
                    return;
                }
                if last {
                    let _ = out.close().await;
                    return;
                }
            }
            frame = incoming.next() => match frame {
                Some(Ok(Ws::Binary(bytes))) => {
                    let outcome = match Frame::decode(&bytes) {
                        Ok(Some((frame, len))) if len == bytes.len() => attachment.send(frame).await,
                        Ok(_) => Err(Error::new(Code::WireMalformed, "a message is one whole frame")),
                        Err(error) => Err(Error::new(Code::WireMalformed, error.to_string())),
                    };
                    if let Err(error) = outcome {
                        let _ = out.send(Ws::Text(error_text(&error))).await;
                        let _ = out.close().await;
                        return;
                    }
                }
                Some(Ok(Ws::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
        }
    }
}

/// Carries one file. Whatever ends the socket ends it; a file that was not stored whole leaves nothing.
async fn file(mut transfer: Box<dyn Transfer>, socket: Socket) {
    let (mut out, mut incoming) = socket.split();
    let mut putting = transfer.is_put();
    loop {
        let message = if putting {
            match incoming.next().await {
                Some(Ok(Ws::Binary(bytes))) => match transfer.send(bytes.into()).await {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
                Some(Ok(Ws::Text(_))) => {
                    putting = false;
                    match transfer.close().await {
                        Ok(()) => continue,
                        Err(error) => Err(error),
                    }
                }
                Some(Ok(Ws::Ping(_) | Ws::Pong(_) | Ws::Frame(_))) => continue,
                Some(Ok(Ws::Close(_)) | Err(_)) | None => return,
            }
        } else {
            transfer.next().await
        };
        let (message, last) = match message {
            Ok(Part::Bytes(bytes)) => (Ws::Binary(bytes.into()), false),
            Ok(Part::Entry(entry)) => (Ws::Text(serde_json::to_string(&entry).unwrap_or_default().into()), false),
            Ok(Part::End) => (Ws::Text("{\"end\":true}".into()), true),
            Err(error) => (Ws::Text(error_text(&error)), true),
        };
        // A client that has gone does not read: then sending fails.
        if out.send(message).await.is_err() {
            return;
        }
        if last {
            let _ = out.close().await;
            return;
        }
    }
}

async fn follow(mut events: Box<dyn EventStream>, socket: Socket) {
    let (mut out, mut incoming) = socket.split();
    loop {
        tokio::select! {
            event = events.next() => {
                let (text, last) = match event {
                    Ok(event) => (serde_json::to_string(&event).unwrap_or_default().into(), false),
                    Err(error) => (error_text(&error), true),
                };
                if out.send(Ws::Text(text)).await.is_err() {
                    return;
                }
                if last {
                    let _ = out.close().await;
                    return;
                }
            }
            message = incoming.next() => if !matches!(message, Some(Ok(Ws::Ping(_) | Ws::Pong(_) | Ws::Text(_) | Ws::Binary(_)))) {
                return;
            },
        }
    }
}
