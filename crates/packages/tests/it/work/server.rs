//! A server on loopback that answers as a test wants: well, too late, half, or with lies. With TLS if asked.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};

/// What came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

/// What is answered.
pub(crate) enum Reply {
    /// Status, more headers, content.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The same, but the connection ends after so many bytes of the content.
    Cut(Vec<(&'static str, String)>, Vec<u8>, usize),
    /// So many bytes of a content that is said to be longer, and then nothing until the other side gives up.
    Silent(Vec<u8>),
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) seen: Arc<Mutex<Vec<Request>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    secure: bool,
}

impl Server {
    pub(crate) fn plain(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(handler))
    }

    /// With a certificate for `localhost`, which is given back as PEM.
    pub(crate) fn secure(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        (Self::start(Some(Arc::new(config)), Arc::new(handler)), made.cert.pem())
    }

    fn start(tls: Option<Arc<ServerConfig>>, handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, ends, secure) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<AtomicBool>::default(), tls.is_some());
        let (all, end) = (Arc::clone(&seen), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            std::thread::scope(|scope| {
                while let Ok((stream, _)) = listener.accept() {
                    if end.load(Ordering::SeqCst) {
                        return;
                    }
                    let (tls, handler, all) = (tls.clone(), &handler, &all);
                    scope.spawn(move || {
                        // Nobody waits for ever for somebody who has gone.
                        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                        match tls {
                            None => serve(stream, &**handler, all),
                            Some(config) => serve(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), &**handler, all),
                        }
                    });
                }
            });
        });
        Self { port, seen, ends, thread: Some(thread), secure }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        match self.secure {
            true => format!("https://localhost:{}{path}", self.port),
            false => format!("http://127.0.0.1:{}{path}", self.port),
        }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed already.
            let _ = thread.join();
        }
    }
}

/// One request for each connection.
fn serve(stream: impl Read + Write, handler: &Handler, seen: &Mutex<Vec<Request>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut request = Request { path: line.split(' ').nth(1)?.to_owned(), ..Request::default() };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        request.headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    seen.lock().unwrap().push(request.clone());
    let head = |status: u16, headers: &[(&str, String)], length: usize| {
        let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head + "\r\n"
    };
    let out = stream.get_mut();
    let mut say = |head: String, body: &[u8]| {
        // The other side may have given up.
        let _ = out.write_all(head.as_bytes()).and_then(|()| out.write_all(body)).and_then(|()| out.flush());
    };
    match handler(&request) {
        Reply::Whole(status, headers, body) => say(head(status, &headers, body.len()), &body),
        Reply::Cut(headers, body, after) => say(head(200, &headers, body.len()), &body[..after]),
        Reply::Silent(body) => {
            say(head(200, &[], body.len() + 1000), &body);
            // Until it closes.
            let _ = stream.read(&mut [0]);
        }
    }
    Some(())
}
