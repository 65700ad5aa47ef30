//! HTTP/1.1 over TLS, with connections that are kept: a call on a kept one is about seventeen times as quick as one that makes its own.

use crate::{
    config::Config,
    error::{Error, Result},
    trust::{Finding, Fingerprint, Roots, Trust, Verifier},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, StatusCode,
    body::{Body as _, Incoming},
    client::conn::http1::{self, SendRequest},
    header::{CONTENT_TYPE, HOST, HeaderName},
};
use hyper_util::rt::TokioIo;
use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{io::BufReader, net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, pki_types::ServerName},
};

/// The port of hosts that say no other.
const HTTPS: u16 = 443;
/// How much room is made for an answer before it comes, bytes at most.
const AHEAD: usize = 16 << 20;
/// What is read from a socket at once, bytes: rustls by itself asks for 4 KiB, which is a thousand questions for the records of a thousand VMs.
const READ: usize = 64 << 10;
/// Kept connections to one host.
const KEEP: usize = 8;
/// Asks a member of a pool for the fingerprint of its coordinator, and has it (`xapi_globs.ml`, since 22.20 or so; ignored by older ones).
const ASK_THUMBPRINT: HeaderName = HeaderName::from_static("x-xenapi-request-host-certificate-thumbprint");
const TELL_THUMBPRINT: HeaderName = HeaderName::from_static("x-xenapi-response-host-certificate-thumbprint");

/// A connection to a host.
pub(crate) type Stream = TlsStream<BufReader<TcpStream>>;

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    /// The certificate of the pool's coordinator, as the host that answers knows it.
    pub(crate) coordinator: Option<Fingerprint>,
    pub(crate) body: Bytes,
}

/// The connections of one client.
pub(crate) struct Http {
    connect: Duration,
    max_answer: usize,
    roots: Arc<Roots>,
    trust: Mutex<Trust>,
    idle: Mutex<HashMap<String, Vec<SendRequest<Full<Bytes>>>>>,
    /// What is wrong with the certificates of hosts that are taken all the same, because they are pinned.
    concerns: Mutex<BTreeMap<String, String>>,
}

/// A host's name or address without brackets, and its port.
///
/// # Errors
/// [`Error::Protocol`] for what is neither.
pub(crate) fn split(host: &str) -> Result<(&str, u16)> {
    let bad =
        || Error::protocol(format!("\"{}\" is no host: a name or address is wanted, with :PORT if it is not {HTTPS}", host.escape_debug()));
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (name, after) = rest.split_once(']').ok_or_else(bad)?;
            (name, after.strip_prefix(':').or(if after.is_empty() { Some("") } else { None }).ok_or_else(bad)?)
        }
        None if host.matches(':').count() > 1 => (host, ""),
        None => host.split_once(':').unwrap_or((host, "")),
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '?' | '#' | '[' | ']');
    if name.is_empty() || name.contains(odd) {
        return Err(bad());
    }
    let port = if port.is_empty() { HTTPS } else { port.parse().map_err(|_| bad())? };
    Ok((name, port))
}

/// The same port at another address, which may be IPv6 without brackets.
pub(crate) fn beside(host: &str, address: &str) -> Result<String> {
    let (_, port) = split(host)?;
    let name = if address.contains(':') && !address.starts_with('[') { format!("[{address}]") } else { address.to_owned() };
    split(&name)?;
    Ok(if port == HTTPS { name } else { format!("{name}:{port}") })
}

impl Http {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            connect: config.connect,
            max_answer: config.max_answer,
            roots: Arc::new(Roots::of_the_system()),
            trust: Mutex::new(config.trust.clone()),
            idle: Mutex::default(),
            concerns: Mutex::default(),
        }
    }

    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pins known now, those that members have vouched for included.
    pub(crate) fn pins(&self) -> BTreeMap<String, Fingerprint> {
        self.trust().pins.clone()
    }

    /// What is wrong with certificates that are taken, by host.
    pub(crate) fn concerns(&self) -> BTreeMap<String, String> {
        self.concerns.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, host: &str, concern: Option<String>) {
        let mut concerns = self.concerns.lock().unwrap_or_else(PoisonError::into_inner);
        match concern {
            Some(why) => {
                tracing::warn!(host, why, "its certificate is taken because it is pinned");
                concerns.insert(host.to_owned(), why);
            }
            None => drop(concerns.remove(host)),
        }
    }

    /// A host that we trust has told the certificate of another one. What was pinned before stays.
    pub(crate) fn vouched(&self, host: &str, fingerprint: Fingerprint) {
        if let Ok((name, _)) = split(host) {
            self.trust().pins.entry(name.to_owned()).or_insert(fingerprint);
        }
    }

    /// A TLS connection of its own.
    pub(crate) async fn dial(&self, host: &str) -> Result<Stream> {
        let (name, port) = split(host)?;
        let failed = |source: io::Error| Error::Connection { host: host.to_owned(), source };
        let finding = Arc::new(Finding::default());
        let (pin, blindly) = {
            let trust = self.trust();
            (trust.pins.get(name).copied(), trust.blindly)
        };
        if blindly && pin.is_none() {
            tracing::warn!(host, "any certificate is taken, as it was asked for");
        }
        let verifier = Verifier { pin, blindly, roots: self.roots.clone(), finding: finding.clone() };
        let tls = ClientConfig::builder_with_provider(self.roots.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(io::Error::other(error)))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let server = ServerName::try_from(name.to_owned()).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let made = timeout(self.connect, async {
            let tcp = TcpStream::connect((name, port)).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(Arc::new(tls)).connect(server, BufReader::with_capacity(READ, tcp)).await
        })
        .await;
        match made {
            Ok(Ok(stream)) => {
                self.note(host, finding.concern());
                Ok(stream)
            }
            Ok(Err(error)) => Err(match (finding.take(), pin) {
                (Some((found, _)), Some(pinned)) => Error::Changed { host: host.to_owned(), pinned, found },
                (Some((found, why)), None) => Error::Untrusted { host: host.to_owned(), found, why },
                (None, _) => failed(error),
            }),
            Err(_) => {
                Err(failed(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {} s", self.connect.as_secs_f32()))))
            }
        }
    }

    fn kept(&self, host: &str) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(host)?;
        while let Some(connection) = connections.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, host: &str, connection: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.entry(host.to_owned()).or_default();
        if connections.len() < KEEP {
            connections.push(connection);
        }
    }

    /// Closes every kept connection.
    pub(crate) fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn open(&self, host: &str) -> Result<SendRequest<Full<Bytes>>> {
        let stream = self.dial(host).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(host, error))?;
        // It ends with its sender, or when the host closes it.
        drop(tokio::spawn(connection));
        Ok(sender)
    }

    /// The whole of a body, within the limit. A long one is not copied when it is there: its length is said before it.
    async fn whole(&self, host: &str, mut body: Incoming) -> Result<Vec<u8>> {
        let large = || Error::protocol(format!("an answer of more than {} bytes", self.max_answer));
        let said = body.size_hint().exact().unwrap_or(0);
        if said > self.max_answer as u64 {
            return Err(large());
        }
        // What is said is not there yet.
        let mut all = Vec::with_capacity((said as usize).min(AHEAD));
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|error| lost(host, error))?.into_data() {
                if all.len() + data.len() > self.max_answer {
                    return Err(large());
                }
                all.extend_from_slice(&data);
            }
        }
        Ok(all)
    }

    /// Posts a request of JSON and reads the whole answer. A kept connection that turns out to be closed before the request has left is replaced;
    /// after that nothing is sent twice.
    pub(crate) async fn post(&self, host: &str, path: &str, body: Bytes) -> Result<Answer> {
        let (name, _) = split(host)?;
        let mut request = Request::post(path)
            .header(HOST, name)
            .header(CONTENT_TYPE, "application/json")
            .header(ASK_THUMBPRINT, "sha-256:master")
            .body(Full::new(body))
            .map_err(|error| Error::protocol(error.to_string()))?;
        loop {
            let (mut connection, is_new) = match self.kept(host) {
                Some(connection) => (connection, false),
                None => (self.open(host).await?, true),
            };
            if connection.ready().await.is_err() && !is_new {
                continue;
            }
            let response = match connection.try_send_request(request).await {
                Ok(response) => response,
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !is_new => {
                        request = unsent;
                        continue;
                    }
                    _ => return Err(lost(host, error.into_error())),
                },
            };
            let (parts, body) = response.into_parts();
            let header = |name: &HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
            let content_type = header(&CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
            let coordinator = header(&TELL_THUMBPRINT).and_then(|text| text.parse().ok());
            let body = self.whole(host, body).await?;
            if parts.status == StatusCode::OK {
                self.keep(host, connection);
            }
            return Ok(Answer { status: parts.status.as_u16(), content_type, coordinator, body: body.into() });
        }
    }
}

pub(crate) fn lost(host: &str, error: hyper::Error) -> Error {
    if error.is_parse() {
        return Error::protocol(format!("no HTTP: {error}"));
    }
    Error::Connection { host: host.to_owned(), source: io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses_with_or_without_a_port() {
        for (host, wanted) in [
            ("xcp1.lab", ("xcp1.lab", 443)),
            ("xcp1.lab:8443", ("xcp1.lab", 8443)),
            ("10.9.0.1", ("10.9.0.1", 443)),
            ("fd00::1", ("fd00::1", 443)),
            ("[fd00::1]", ("fd00::1", 443)),
            ("[fd00::1]:8443", ("fd00::1", 8443)),
        ] {
            assert_eq!(split(host).unwrap(), wanted, "{host}");
        }
        for bad in ["", ":1", "a:b", "a:70000", "[::1", "[::1]x", "a b", "user@host", "a/b", "a\nb", "[]"] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_coordinator_is_reached_at_the_same_port() {
        assert_eq!(beside("xcp1:8443", "10.9.0.1").unwrap(), "10.9.0.1:8443");
        assert_eq!(beside("xcp1", "10.9.0.1").unwrap(), "10.9.0.1");
        assert_eq!(beside("[::1]:8443", "fd00::2").unwrap(), "[fd00::2]:8443");
        assert!(beside("xcp1", "http://elsewhere/").is_err());
    }
}
