//! The one client: HTTP/1.1 and WebSockets over the daemon's Unix socket.

use crate::{
    Attachment, EventStream, Message, Method, PROTOCOL_HEADER, STATE_HEADER, check_protocol, files, protocol_header, requests, route,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Mutex,
};
use tokio::{net::UnixStream, time::Instant};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message as Ws, client::IntoClientRequest, handshake::client::Request, http::HeaderValue},
};
use vmoon_core::{Code, Error, Result, error::ErrorRecord, event::Event, frame::Frame};

type Sender = http1::SendRequest<Full<Bytes>>;

/// The body of every error answer.
#[derive(serde::Deserialize)]
struct ErrorBody {
    error: ErrorRecord,
}

/// A client of the daemon at a Unix socket. Connections are kept alive and reused.
pub struct Client {
    socket: Mutex<PathBuf>,
    state: Option<HeaderValue>,
    idle: Mutex<Vec<Sender>>,
}

fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(Code::DaemonUnreachable, "the daemon does not answer").source(error).hint("see `vmoon daemon status` and the daemon's log")
}

/// A call that is under way, for those who watch: what was asked and how long the answer took. Neither queries nor bodies are told, which
/// may hold what is secret.
struct Asked(Option<(Method, String, Instant)>);

impl Asked {
    fn new(method: Method, target: &str) -> Self {
        let watched = tracing::enabled!(tracing::Level::DEBUG);
        Self(watched.then(|| (method, target.split('?').next().unwrap_or_default().to_owned(), Instant::now())))
    }

    /// Tells what came of it.
    fn told<T>(self, answer: Result<(hyper::StatusCode, T)>) -> Result<(hyper::StatusCode, T)> {
        if let Some((method, path, began)) = self.0 {
            let (method, took) = (method.as_str(), began.elapsed().as_secs_f64() * 1e3);
            match &answer {
                Ok((status, _)) => tracing::debug!("{method} {path} {} {took:.1} ms", status.as_u16()),
                Err(error) => tracing::debug!("{method} {path} {} {took:.1} ms", error.code()),
            }
        }
        answer
    }
}

impl Client {
    /// A client for the daemon that listens there, whosever it is. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: Mutex::new(socket.into()), state: None, idle: Mutex::new(Vec::new()) }
    }

    /// A client for the daemon of this state directory: another one that listens there refuses whatever is asked.
    pub fn of(state: &Path, socket: impl Into<PathBuf>) -> Self {
        // A path that fits no header has a line feed in it: then nobody checks.
        Self { state: HeaderValue::from_bytes(state.as_os_str().as_bytes()).ok(), ..Self::new(socket) }
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> PathBuf {
        self.socket.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// It listens there now. Streams that are open stay as they are.
    pub fn moved(&self, socket: PathBuf) {
        let mut known = self.socket.lock().unwrap_or_else(|e| e.into_inner());
        if *known != socket {
            *known = socket;
            self.idle.lock().unwrap_or_else(|e| e.into_inner()).clear();
        }
    }

    async fn connect(&self) -> Result<UnixStream> {
        UnixStream::connect(self.socket()).await.map_err(unreachable)
    }

    async fn sender(&self) -> Result<Sender> {
        while let Some(sender) = self.idle.lock().unwrap_or_else(|e| e.into_inner()).pop() {
            if !sender.is_closed() {
                return Ok(sender);
            }
        }
        let (sender, connection) = http1::handshake(TokioIo::new(self.connect().await?)).await.map_err(unreachable)?;
        // The task ends when the sender is dropped or the daemon goes away; its error reaches the caller through the sender.
        drop(tokio::spawn(connection));
        Ok(sender)
    }

    /// Calls one endpoint.
    pub(crate) async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, request: &impl Serialize) -> Result<T> {
        let out = route::outgoing(method, path, request)?;
        let asked = Asked::new(method, &out.target);
        let (status, body) = asked.told(self.exchange(method, out).await)?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| Error::new(Code::WireMalformed, "the daemon's answer cannot be understood").source(error));
        }
        Err(match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => body.error.into(),
            Err(_) => Error::new(Code::WireMalformed, format!("the daemon answered {status} and no reason")),
        })
    }

    /// Asks, and gives the answer whatever it says.
    async fn exchange(&self, method: Method, out: route::Outgoing) -> Result<(hyper::StatusCode, Bytes)> {
        let mut http = hyper::Request::builder()
            .method(method.as_str())
            .uri(out.target)
            .header("host", "vmoon")
            .header(PROTOCOL_HEADER, protocol_header())
            .header("content-type", "application/json");
        if let Some(state) = &self.state {
            http = http.header(STATE_HEADER, state);
        }
        let http =
            http.body(Full::new(Bytes::from(out.body))).map_err(|error| Error::internal("a request cannot be built").source(error))?;
        let mut sender = self.sender().await?;
        sender.ready().await.map_err(unreachable)?;
        let response = sender.send_request(http).await.map_err(unreachable)?;
        let (head, body) = response.into_parts();
        if let Some(theirs) = head.headers.get(PROTOCOL_HEADER) {
            check_protocol(theirs.to_str().unwrap_or(""), "daemon")?;
        }
        let body = body.collect().await.map_err(unreachable)?.to_bytes();
        self.idle.lock().unwrap_or_else(|e| e.into_inner()).push(sender);
        Ok((head.status, body))
    }

    async fn websocket(&self, path: &str, protocol: &str, request: &impl Serialize) -> Result<WebSocketStream<UnixStream>> {
        let out = route::outgoing(Method::Get, path, request)?;
        let asked = Asked::new(Method::Get, &out.target);
        let opened = self.upgrade(out, protocol).await;
        asked.told(opened.map(|stream| (hyper::StatusCode::SWITCHING_PROTOCOLS, stream))).map(|(_, stream)| stream)
    }

    async fn upgrade(&self, out: route::Outgoing, protocol: &str) -> Result<WebSocketStream<UnixStream>> {
        let broken = |error: &dyn std::fmt::Display| Error::internal(format!("a WebSocket request cannot be built: {error}"));
        let mut http: Request = format!("ws://vmoon{}", out.target).into_client_request().map_err(|e| broken(&e))?;
        for (name, value) in [("sec-websocket-protocol", protocol.to_owned()), (PROTOCOL_HEADER, protocol_header())] {
            http.headers_mut().insert(name, value.parse().map_err(|e| broken(&e))?);
        }
        if let Some(state) = &self.state {
            http.headers_mut().insert(STATE_HEADER, state.clone());
        }
        match client_async(http, self.connect().await?).await {
            Ok((stream, _)) => Ok(stream),
            Err(tungstenite::Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                Err(match serde_json::from_slice::<ErrorBody>(body) {
                    Ok(body) => body.error.into(),
                    Err(_) => Error::new(Code::WireMalformed, format!("the daemon answered {} and no reason", response.status())),
                })
            }
            Err(error) => Err(unreachable(error)),
        }
    }

    pub(crate) async fn open_stream(&self, request: requests::Attach) -> Result<Box<dyn Attachment>> {
        Ok(Box::new(SocketAttachment(self.websocket("/v1/sessions/{session}/stream", crate::SESSION_PROTOCOL, &request).await?)))
    }

    pub(crate) async fn open_file(&self, request: requests::TransferFile) -> Result<Box<dyn files::Transfer>> {
        let socket = self.websocket("/v1/machines/{machine}/files/stream", crate::FILES_PROTOCOL, &request).await?;
        Ok(Box::new(SocketTransfer { socket, put: request.direction == requests::Direction::Put }))
    }

    pub(crate) async fn open_events(&self, request: requests::Events) -> Result<Box<dyn EventStream>> {
        Ok(Box::new(SocketEvents(self.websocket("/v1/events/stream", crate::EVENTS_PROTOCOL, &request).await?)))
    }
}

struct SocketAttachment(WebSocketStream<UnixStream>);

/// The offset that marks a direct frame.
pub const DIRECT: u64 = u64::MAX;

async fn next_message(stream: &mut WebSocketStream<UnixStream>) -> Result<Ws> {
    loop {
        match stream.next().await {
            Some(Ok(Ws::Ping(_) | Ws::Pong(_) | Ws::Frame(_))) => {}
            Some(Ok(Ws::Close(_))) | None => return Err(unreachable("the daemon closed the stream")),
            Some(Ok(message)) => return Ok(message),
            Some(Err(error)) => return Err(unreachable(error)),
        }
    }
}

#[async_trait]
impl Attachment for SocketAttachment {
    async fn next(&mut self) -> Result<Message> {
        match next_message(&mut self.0).await? {
            Ws::Binary(bytes) => {
                let (at, frames) =
                    bytes.split_first_chunk::<8>().ok_or_else(|| Error::new(Code::WireMalformed, "a stream message without an offset"))?;
                let (at, frames) = (u64::from_le_bytes(*at), frames.to_vec());
                Ok(if at == DIRECT { Message::Direct(frames) } else { Message::Stream { at, frames } })
            }
            Ws::Text(text) => match serde_json::from_str::<ErrorBody>(&text) {
                Ok(body) => Err(body.error.into()),
                Err(_) => Ok(Message::Ended),
            },
            _ => Err(Error::new(Code::WireMalformed, "a stream message of an unknown kind")),
        }
    }

    async fn send(&mut self, frame: Frame<'_>) -> Result<()> {
        self.0.send(Ws::Binary(frame.to_vec().into())).await.map_err(unreachable)
    }
}

struct SocketTransfer {
    socket: WebSocketStream<UnixStream>,
    put: bool,
}

impl SocketTransfer {
    /// Sends; if the daemon has hung up, it has said why before.
    async fn put(&mut self, message: Ws) -> Result<()> {
        let Err(error) = self.socket.send(message).await else { return Ok(()) };
        match files::Transfer::next(self).await {
            Err(why) if why.code() != Code::DaemonUnreachable => Err(why),
            _ => Err(unreachable(error)),
        }
    }
}

#[async_trait]
impl files::Transfer for SocketTransfer {
    fn is_put(&self) -> bool {
        self.put
    }

    async fn next(&mut self) -> Result<files::Part> {
        match next_message(&mut self.socket).await? {
            Ws::Binary(bytes) => Ok(files::Part::Bytes(bytes.to_vec())),
            Ws::Text(text) => {
                if let Ok(body) = serde_json::from_str::<ErrorBody>(&text) {
                    return Err(body.error.into());
                }
                Ok(serde_json::from_str(&text).map_or(files::Part::End, files::Part::Entry))
            }
            _ => Err(Error::new(Code::WireMalformed, "a message of an unknown kind")),
        }
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.put(Ws::Binary(bytes.into())).await
    }

    async fn close(&mut self) -> Result<()> {
        self.put(Ws::Text("{\"end\":true}".into())).await
    }
}

struct SocketEvents(WebSocketStream<UnixStream>);

#[async_trait]
impl EventStream for SocketEvents {
    async fn next(&mut self) -> Result<Event> {
        let Ws::Text(text) = next_message(&mut self.0).await? else {
            return Err(Error::new(Code::WireMalformed, "an event that is not text"));
        };
        if let Ok(body) = serde_json::from_str::<ErrorBody>(&text) {
            return Err(body.error.into());
        }
        serde_json::from_str(&text).map_err(|error| Error::new(Code::WireMalformed, "an event cannot be understood").source(error))
    }
}
