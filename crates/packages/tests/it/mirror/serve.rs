//! A web server on loopback for a mirror's directory, with faults on request. Plain or with TLS; each connection is a thread and serves one request.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::{
    collections::HashMap,
    fs,
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// What goes wrong with a file.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing is ever answered.
    Hang,
    /// The answer promises all and ends after so many bytes.
    Cut(usize),
    /// One byte is another.
    Spoil,
    /// This status, with a page of HTML.
    Status(u16),
    /// A page of HTML with status 200.
    Html,
    /// These bytes instead.
    Bytes(Vec<u8>),
    /// On to this address.
    Redirect(String),
}

#[derive(Default)]
struct Shared {
    root: PathBuf,
    faults: Mutex<HashMap<String, Fault>>,
    asked: Mutex<Vec<String>>,
    open: Mutex<Vec<TcpStream>>,
    ending: std::sync::atomic::AtomicBool,
}

/// A web server that ends when it is dropped.
pub(crate) struct Server {
    shared: Arc<Shared>,
    base: String,
    /// The certificate to trust, PEM; empty without TLS.
    pub(crate) certificate: String,
    address: std::net::SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves a directory, by HTTPS if `tls`.
    pub(crate) fn start(root: &Path, tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { root: root.to_owned(), ..Shared::default() });
        let (config, certificate) = if tls { config() } else { (None, String::new()) };
        let base = format!("{}://127.0.0.1:{}", if tls { "https" } else { "http" }, address.port());
        let served = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut threads = Vec::new();
            for stream in listener.incoming().flatten() {
                if served.ending.load(std::sync::atomic::Ordering::SeqCst) {
                    break;
                }
                served.open.lock().unwrap().push(stream.try_clone().unwrap());
                let (served, config) = (Arc::clone(&served), config.clone());
                // A client that breaks off is its own business.
                threads.push(std::thread::spawn(move || drop(serve(&served, stream, config))));
            }
            for stream in served.open.lock().unwrap().drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        Self { shared, base, certificate, address, thread: Some(thread) }
    }

    /// Its address, without a slash at the end.
    pub(crate) fn url(&self) -> &str {
        &self.base
    }

    /// From now on this goes wrong with this file.
    pub(crate) fn fault(&self, file: &str, fault: Fault) {
        self.shared.faults.lock().unwrap().insert(file.to_owned(), fault);
    }

    /// From now on nothing goes wrong.
    pub(crate) fn heal(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// The files that were asked for since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.asked.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ending.store(true, std::sync::atomic::Ordering::SeqCst);
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn config() -> (Option<Arc<ServerConfig>>, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    (Some(Arc::new(config)), cert.pem())
}

fn serve(shared: &Shared, stream: TcpStream, config: Option<Arc<ServerConfig>>) -> io::Result<()> {
    match config {
        None => answer(shared, stream),
        Some(config) => {
            let connection = ServerConnection::new(config).map_err(io::Error::other)?;
            let mut stream = StreamOwned::new(connection, stream);
            let result = answer(shared, &mut stream);
            stream.conn.send_close_notify();
            stream.flush()?;
            result
        }
    }
}

fn answer(shared: &Shared, stream: impl Read + Write) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    stream.read_line(&mut request)?;
    let mut range = None;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(from) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            range = from.trim().trim_end_matches('-').parse::<usize>().ok();
        }
    }
    let file = request.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
    shared.asked.lock().unwrap().push(file.clone());
    let fault = shared.faults.lock().unwrap().get(&file).cloned();
    let path = shared.root.join(&file);
    let content = if file.split('/').any(|part| part == "..") { None } else { fs::read(path).ok() };
    const PAGE: &[u8] = b"<!DOCTYPE html><html><body>Nothing to see here.</body></html>\n";
    match (fault, content) {
        (Some(Fault::Hang), _) => {
            // Until the client goes or the server ends.
            let mut rest = [0; 1024];
            while stream.read(&mut rest)? > 0 {}
            Ok(())
        }
        (Some(Fault::Status(status)), _) => send(stream.get_mut(), status, "", PAGE, PAGE.len()),
        (Some(Fault::Html), _) => send(stream.get_mut(), 200, "Content-Type: text/html\r\n", PAGE, PAGE.len()),
        (Some(Fault::Bytes(bytes)), _) => send(stream.get_mut(), 200, "", &bytes, bytes.len()),
        (Some(Fault::Redirect(to)), _) => send(stream.get_mut(), 302, &format!("Location: {to}\r\n"), b"", 0),
        (Some(Fault::Cut(n)), Some(content)) => send(stream.get_mut(), 200, "", &content[..n.min(content.len())], content.len()),
        (Some(Fault::Spoil), Some(mut content)) => {
            let middle = content.len() / 2;
            content[middle] ^= 1;
            send(stream.get_mut(), 200, "", &content, content.len())
        }
        (None, Some(content)) => match range.filter(|from| *from < content.len()) {
            Some(from) => {
                let header = format!("Content-Range: bytes {from}-{}/{}\r\n", content.len() - 1, content.len());
                send(stream.get_mut(), 206, &header, &content[from..], content.len() - from)
            }
            None => send(stream.get_mut(), 200, "Accept-Ranges: bytes\r\n", &content, content.len()),
        },
        (_, None) => send(stream.get_mut(), 404, "", PAGE, PAGE.len()),
    }
}

fn send(stream: &mut impl Write, status: u16, headers: &str, body: &[u8], length: usize) -> io::Result<()> {
    write!(stream, "HTTP/1.1 {status} Whatever\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n")?;
    stream.write_all(body)?;
    stream.flush()
}
