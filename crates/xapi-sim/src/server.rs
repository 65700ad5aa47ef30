//! The sockets: TLS 1.2 as XAPI has it, or plain HTTP, on loopback; JSON-RPC at `/jsonrpc`, XML-RPC at every other path.

use crate::{
    certificate::Certificate,
    fault::Fault,
    handlers,
    machines::{Machines, Maker},
    model::Model,
    seed,
    sim::Sim,
    wire,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// What a body may have: beyond it the connection is closed without a word (`xapi-consts/constants.ml`).
const MAX_BODY: usize = 300 << 10;

/// How much of a long answer is sent at once.
const CHUNK: u64 = 128 << 10;

/// How a server is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// What certificate it shows then.
    pub certificate: Certificate,
    /// Who may log in.
    pub user: String,
    /// With what.
    pub password: String,
    /// How long tools in a guest take to tell something after it was started.
    pub tools: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: true,
            certificate: Certificate::default(),
            user: "root".into(),
            password: "secret".into(),
            tools: Duration::from_millis(200),
        }
    }
}

/// The coordinator, for a host that is none.
struct Elsewhere {
    address: String,
    fingerprint: Option<String>,
}

/// A server that runs until it is dropped.
pub struct Server {
    /// What it serves.
    pub sim: Arc<Sim>,
    address: SocketAddr,
    fingerprint: Option<String>,
    task: JoinHandle<()>,
    /// What makes machines run.
    machines: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(machines) = &self.machines {
            machines.abort();
        }
    }
}

impl Server {
    /// Starts one, with a pool of its own and a certificate made for it.
    ///
    /// # Errors
    /// Those of the socket and of the certificate.
    pub async fn start(settings: &Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let sim = Sim::new(seed::pool(&address.ip().to_string()), &settings.user, &settings.password, settings.tools);
        let (acceptor, fingerprint) = if settings.tls { made(&settings.certificate, address)? } else { (None, None) };
        Ok(Self::run(sim, listener, address, acceptor, fingerprint, None))
    }

    /// Starts another host of the same pool, with a certificate of its own: it sends calls to this one, and serves what is no call itself.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn member(&self, name: &str, listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (acceptor, fingerprint) = if self.fingerprint.is_some() { made(&Certificate::default(), address)? } else { (None, None) };
        self.sim.add_host(name, &address.ip().to_string(), fingerprint.as_deref().unwrap_or_default());
        let coordinator = Elsewhere { address: self.address.ip().to_string(), fingerprint: self.fingerprint.clone() };
        Ok(Self::run(self.sim.clone(), listener, address, acceptor, fingerprint, Some(coordinator)))
    }

    fn run(
        sim: Arc<Sim>,
        listener: TcpListener,
        address: SocketAddr,
        acceptor: Option<TlsAcceptor>,
        fingerprint: Option<String>,
        coordinator: Option<Elsewhere>,
    ) -> Self {
        let shared = sim.clone();
        let coordinator = coordinator.map(Arc::new);
        let task = tokio::spawn(async move {
            loop {
                // A connection that cannot be taken is the client's loss.
                let Ok((tcp, _)) = listener.accept().await else { continue };
                drop(tokio::spawn(serve(shared.clone(), coordinator.clone(), acceptor.clone(), tcp)));
            }
        });
        Self { sim, address, fingerprint, task, machines: None }
    }

    /// Gives VMs that are made from certain templates machines that boot; see [`crate::machines`]. A guest has so much time to obey its power button.
    ///
    /// # Errors
    /// If no address can be had for them.
    pub fn boot(&mut self, maker: Box<dyn Maker>, patience: Duration) -> io::Result<()> {
        let machines = Arc::new(Machines::new(maker, patience)?);
        self.machines = Some(tokio::spawn(self.sim.boot(machines)));
        Ok(())
    }

    /// Ends its machines, and returns when they are gone. Dropping a server ends them too, a moment later.
    pub async fn stop(mut self) {
        if let Some(machines) = self.machines.take() {
            machines.abort();
            let _ = machines.await;
        }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The SHA-256 of its certificate, `AA:BB:…`; none without TLS.
    pub fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }
}

/// A certificate for a server at this address.
fn made(certificate: &Certificate, address: SocketAddr) -> io::Result<(Option<TlsAcceptor>, Option<String>)> {
    certificate.make(&address.ip().to_string()).map(|(acceptor, fingerprint)| (Some(acceptor), Some(fingerprint)))
}

async fn serve(sim: Arc<Sim>, coordinator: Option<Arc<Elsewhere>>, acceptor: Option<TlsAcceptor>, tcp: TcpStream) {
    let _ = tcp.set_nodelay(true);
    let service = service_fn(move |request| answer(sim.clone(), coordinator.clone(), request));
    // How a connection ends is its client's affair.
    let _ = match acceptor {
        Some(acceptor) => match acceptor.accept(tcp).await {
            Ok(stream) => http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await,
            Err(_) => return,
        },
        None => http1::Builder::new().serve_connection(TokioIo::new(tcp), service).with_upgrades().await,
    };
}

/// The body of an answer.
pub(crate) type Answer = UnsyncBoxBody<Bytes, io::Error>;

/// An answer of this type.
pub(crate) fn full(bytes: Bytes, kind: &'static str) -> Response<Answer> {
    let mut response = Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(kind));
    response
}

/// So many bytes from wherever `read` has them: it is told where and how many.
pub(crate) fn streamed(length: u64, read: impl FnMut(u64, usize) -> io::Result<Vec<u8>> + Send + Unpin + 'static) -> Response<Answer> {
    let mut response = Response::new(Streamed { read, at: 0, length }.boxed_unsync());
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/octet-stream"));
    response
}

struct Streamed<R> {
    read: R,
    at: u64,
    length: u64,
}

impl<R: FnMut(u64, usize) -> io::Result<Vec<u8>> + Unpin> Body for Streamed<R> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let count = CHUNK.min(this.length - this.at);
        if count == 0 {
            return Poll::Ready(None);
        }
        let read = (this.read)(this.at, count as usize);
        this.at += count;
        Poll::Ready(Some(read.map(|bytes| Frame::data(bytes.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - self.at)
    }
}

/// A page, as XAPI shows it when something is wrong.
pub(crate) fn page(status: StatusCode, text: &str) -> Response<Answer> {
    let number = status.as_u16();
    let body =
        format!("<html><body><h1>HTTP {number} {}</h1>{text}</body></html>", status.canonical_reason().unwrap_or_default().to_lowercase());
    let mut response = full(Bytes::from(body), "text/html");
    *response.status_mut() = status;
    response.headers_mut().insert("connection", hyper::header::HeaderValue::from_static("close"));
    response
}

async fn answer(sim: Arc<Sim>, coordinator: Option<Arc<Elsewhere>>, request: Request<Incoming>) -> io::Result<Response<Answer>> {
    if request.method() == Method::OPTIONS {
        return Ok(full(Bytes::new(), "text/plain"));
    }
    if request.method() != Method::POST {
        if let Some(answer) = handlers::answer(&sim, coordinator.is_none(), request).await {
            return Ok(answer);
        }
        return Ok(page(StatusCode::NOT_FOUND, "The requested URL was not found on this server."));
    }
    let elsewhere = coordinator.as_ref().map(|coordinator| coordinator.address.as_str());
    let json = request.uri().path() == "/jsonrpc";
    let asks = request.headers().get("x-xenapi-request-host-certificate-thumbprint").is_some_and(|value| value == "sha-256:master");
    let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Err(io::ErrorKind::ConnectionReset.into()),
    };
    let broken = || page(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred; please wait a while and try again.");
    let (kind, bytes) = if json {
        let Some(call) = wire::json::read(&body) else { return Ok(broken()) };
        let (before, after) = sim.cut(&call.method);
        if before {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let written = match (&call.params, elsewhere) {
            (Ok(params), None) if !after => sim.whole_class(&call.method, params, |records| call.answer_with(records)),
            _ => None,
        };
        if let Some(bytes) = written {
            return Ok(full(Bytes::from(bytes), "application/json"));
        }
        let result = match &call.params {
            Ok(params) => sim.call_at(elsewhere, &call.method, params).await.map(|(value, _)| value),
            Err(fault) => Err(fault.clone()),
        };
        if after {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        ("application/json", call.answer(result))
    } else {
        let Some((method, params)) = wire::xml::read(&body) else { return Ok(broken()) };
        let result = sim.call_at(elsewhere, &method, &params).await;
        ("text/xml", wire::xml::answer(result, method == "system.listMethods", Model::get()))
    };
    let mut response = full(Bytes::from(bytes), kind);
    let known = coordinator.and_then(|coordinator| coordinator.fingerprint.clone());
    let known = known.or_else(|| sim.state().faults.slave_of.as_ref().map(|(_, fingerprint)| fingerprint.clone()));
    if asks
        && let Some(fingerprint) = known
        && let Ok(value) = hyper::header::HeaderValue::from_str(&fingerprint)
    {
        response.headers_mut().insert("x-xenapi-response-host-certificate-thumbprint", value);
    }
    Ok(response)
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        io::Error::other(fault.0.join(" "))
    }
}
