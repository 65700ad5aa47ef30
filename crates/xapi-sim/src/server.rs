//! The sockets: TLS 1.2 as XAPI has it, or plain HTTP, on loopback; JSON-RPC at `/jsonrpc`, XML-RPC at every other path.

use crate::{fault::Fault, model::Model, seed, sim::Sim, wire};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use std::{fmt::Write as _, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring::default_provider, pki_types::PrivateKeyDer, version::TLS12},
};

/// What a body may have: beyond it the connection is closed without a word (`xapi-consts/constants.ml`).
const MAX_BODY: usize = 300 << 10;

/// How a server is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
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
            user: "root".into(),
            password: "secret".into(),
            tools: Duration::from_millis(200),
        }
    }
}

/// A server that runs until it is dropped.
pub struct Server {
    /// What it serves.
    pub sim: Arc<Sim>,
    address: SocketAddr,
    fingerprint: Option<String>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
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
        let (acceptor, fingerprint) = if settings.tls { certificate()? } else { (None, None) };
        let shared = sim.clone();
        let task = tokio::spawn(async move {
            loop {
                // A connection that cannot be taken is the client's loss.
                let Ok((tcp, _)) = listener.accept().await else { continue };
                drop(tokio::spawn(serve(shared.clone(), acceptor.clone(), tcp)));
            }
        });
        Ok(Self { sim, address, fingerprint, task })
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

/// A certificate that nobody has signed, as hosts make their own.
fn certificate() -> io::Result<(Option<TlsAcceptor>, Option<String>)> {
    let made = rcgen::generate_simple_self_signed(vec!["sim-host-1".into()]).map_err(io::Error::other)?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(io::Error::other)?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS12])
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(io::Error::other)?;
    let mut shown = String::new();
    for byte in Sha256::digest(made.cert.der()) {
        let _ = write!(shown, "{}{byte:02X}", if shown.is_empty() { "" } else { ":" });
    }
    Ok((Some(TlsAcceptor::from(Arc::new(config))), Some(shown)))
}

async fn serve(sim: Arc<Sim>, acceptor: Option<TlsAcceptor>, tcp: TcpStream) {
    let _ = tcp.set_nodelay(true);
    let service = service_fn(move |request| answer(sim.clone(), request));
    // How a connection ends is its client's affair.
    let _ = match acceptor {
        Some(acceptor) => match acceptor.accept(tcp).await {
            Ok(stream) => http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
        None => http1::Builder::new().serve_connection(TokioIo::new(tcp), service).await,
    };
}

fn page(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let number = status.as_u16();
    let body =
        format!("<html><body><h1>HTTP {number} {}</h1>{text}</body></html>", status.canonical_reason().unwrap_or_default().to_lowercase());
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("text/html"));
    response.headers_mut().insert("connection", hyper::header::HeaderValue::from_static("close"));
    response
}

async fn answer(sim: Arc<Sim>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    if request.method() == Method::OPTIONS {
        return Ok(Response::new(Full::default()));
    }
    if request.method() != Method::POST {
        return Ok(page(StatusCode::NOT_FOUND, "The requested URL was not found on this server."));
    }
    let json = request.uri().path() == "/jsonrpc";
    let asks = request.headers().get("x-xenapi-request-host-certificate-thumbprint").is_some_and(|value| value == "sha-256:master");
    let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Err(io::ErrorKind::ConnectionReset.into()),
    };
    let broken = || page(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred; please wait a while and try again.");
    let (kind, bytes) = if json {
        let Some(call) = wire::json::read(&body) else { return Ok(broken()) };
        let result = match &call.params {
            Ok(params) => sim.call(&call.method, params).await.map(|(value, _)| value),
            Err(fault) => Err(fault.clone()),
        };
        ("application/json", call.answer(result))
    } else {
        let Some((method, params)) = wire::xml::read(&body) else { return Ok(broken()) };
        let result = sim.call(&method, &params).await;
        ("text/xml", wire::xml::answer(result, method == "system.listMethods", Model::get()))
    };
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(kind));
    if asks
        && let Some((_, fingerprint)) = &sim.state().faults.slave_of
        && let Ok(value) = hyper::header::HeaderValue::from_str(fingerprint)
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
