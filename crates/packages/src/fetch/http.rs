//! HTTP and HTTPS: redirects, conditional requests, and downloads that go on where they were broken off.

use super::{Fetcher, Options, Want, mismatch, too_large, url};
use crate::{
    cache::{Blob, Seen},
    digest::Hasher,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, Uri},
    tls::{Certificate, RootCerts, TlsConfig},
};
use vmoon_core::{Code, Error, Result, name::escape};
use vmoon_sys::{atomic, stop::Stop};

/// How many redirects are followed.
const REDIRECTS: usize = 6;
/// From how many bytes on a download is resumed.
const RESUMED: u64 = 128 << 10;
/// How often a broken download is resumed, if each time brought something.
const RESUMES: usize = 5;
/// What we say we are.
const AGENT: &str = concat!("vmoon/", env!("CARGO_PKG_VERSION"));

/// What a download came to.
pub(super) enum Answer {
    /// The cache has what the server has.
    Unchanged,
    /// It is in the cache now.
    Here { blob: Blob, etag: Option<String>, modified: Option<String> },
}

/// The connections of one operation.
pub(super) struct Client {
    idle: Duration,
    total: Duration,
    /// Without and with TLS: reading the certificates of this computer takes longer than most requests.
    agents: [OnceLock<Agent>; 2],
    /// Forgets to stop us when we are dropped.
    waiting: Mutex<Vec<vmoon_sys::stop::Waiting>>,
    stop: Stop,
}

/// What is remembered beside a download that is not whole.
#[derive(Default, Serialize, Deserialize)]
struct Unfinished {
    etag: Option<String>,
    modified: Option<String>,
}

impl Unfinished {
    /// What proves that the rest belongs to what is here (RFC 9110, 13.1.5); weak tags do not.
    fn proof(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| !tag.starts_with("W/")).or(self.modified.as_deref())
    }
}

/// Why a transfer ended early.
enum Broken {
    /// It may go on where it stopped.
    Again(Error),
    /// It makes no sense to.
    Final(Error),
}

impl Client {
    pub(super) fn new(options: &Options, stop: Stop) -> Self {
        Self { idle: options.idle, total: options.total, agents: Default::default(), waiting: Mutex::default(), stop }
    }

    fn agent(&self, secure: bool) -> Result<&Agent> {
        let slot = &self.agents[usize::from(secure)];
        if let Some(agent) = slot.get() {
            return Ok(agent);
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(AGENT)
            .accept_encoding("identity")
            .timeout_resolve(Some(self.idle))
            .timeout_connect(Some(self.idle))
            .timeout_recv_response(Some(self.idle))
            .timeout_per_read(Some(self.idle))
            .timeout_per_write(Some(self.idle))
            .timeout_global(Some(self.total));
        if secure {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                return Err(Error::new(Code::PackageServer, "this computer has no certificates, so no server can be trusted")
                    .hint("install them (Debian: apt-get install ca-certificates), or name a file of them in SSL_CERT_FILE"));
            }
            let certs: Vec<Certificate<'static>> = found.certs.iter().map(|cert| Certificate::from_der(cert).to_owned()).collect();
            config = config.tls_config(TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(certs))).build());
        }
        let agent = slot.get_or_init(|| config.build().new_agent());
        let stopped = agent.clone();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(self.stop.on_stop(move || stopped.shutdown()));
        Ok(agent)
    }

    pub(super) fn download(&self, fetcher: &Fetcher, want: &Want, seen: Option<&Seen>) -> Result<Answer> {
        let partial = Partial::open(fetcher, &want.url)?;
        let mut before = u64::MAX;
        for _ in 0..RESUMES {
            let (mut file, meta) = partial.state(want.sha256.is_some())?;
            let here = file.seek(SeekFrom::End(0)).map_err(|error| Error::io("fill the cache", error))?;
            match self.attempt(fetcher, want, seen, &partial, file, here, meta) {
                Ok(answer) => return Ok(answer),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Again(error)) => {
                    self.stop.check()?;
                    let now = fs::metadata(&partial.path).map_or(0, |meta| meta.len());
                    if now == before || now <= here {
                        return Err(error);
                    }
                    before = now;
                    fetcher.progress().note(&format!("{}: goes on after {now} bytes", escape(&want.url)));
                }
            }
        }
        Err(Error::new(Code::PackageServer, format!("{} was broken off too often", escape(&want.url)))
            .hint("try again: what is here is kept"))
    }

    #[expect(clippy::too_many_arguments, reason = "one attempt at one download: its state is in these and in nothing else")]
    fn attempt(
        &self,
        fetcher: &Fetcher,
        want: &Want,
        seen: Option<&Seen>,
        partial: &Partial,
        mut file: File,
        here: u64,
        meta: Unfinished,
    ) -> Result<Answer, Broken> {
        let mut headers = Vec::new();
        if here > 0 {
            headers.push(("range", format!("bytes={here}-")));
            if let Some(proof) = meta.proof() {
                headers.push(("if-range", proof.to_owned()));
            }
        } else if let Some(seen) = seen {
            headers.extend(seen.etag.iter().map(|tag| ("if-none-match", tag.clone())));
            headers.extend(seen.modified.iter().map(|time| ("if-modified-since", time.clone())));
        }
        let response = self.follow(want, &headers).map_err(Broken::Final)?;
        let status = response.status().as_u16();
        let answered = |what: String| Error::new(Code::PackageServer, format!("{} {what}", escape(&want.url)));
        let start = match status {
            200 => 0,
            206 if here > 0 && starts_at(response.headers()) == Some(here) => here,
            304 if seen.is_some() => return Ok(Answer::Unchanged),
            // What is here is not the beginning of what is there.
            206 | 416 if here > 0 => {
                partial.reset(&mut file).map_err(Broken::Final)?;
                return self.attempt(fetcher, want, seen, partial, file, 0, Unfinished::default());
            }
            404 | 410 => {
                return Err(Broken::Final(Error::new(Code::NotFound, format!("the server has no {}", escape(&want.url)))));
            }
            _ => {
                return Err(Broken::Final(
                    answered(format!("is answered with status {status}")).hint("the server is in trouble, or is no rocks server"),
                ));
            }
        };
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let meta = Unfinished { etag: text("etag"), modified: text("last-modified") };
        let length = text("content-length").and_then(|text| text.parse::<u64>().ok());
        let largest = want.largest.min(fetcher.options.largest);
        let total = length.map(|length| start.saturating_add(length));
        if total.is_some_and(|total| total > largest) {
            return Err(Broken::Final(too_large(&want.url, largest)));
        }
        let mut hasher = Hasher::new();
        if start == 0 {
            partial.reset(&mut file).map_err(Broken::Final)?;
        } else {
            let failed = |error| Broken::Final(Error::io("read the cache", error));
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
            io::copy(&mut (&file).take(start), &mut hasher).map_err(failed)?;
        }
        // Small files are fetched again rather than resumed; most are.
        if start == 0 && total.is_none_or(|total| total > RESUMED) {
            partial.remember(&meta).map_err(Broken::Final)?;
        }
        let size = self.body(fetcher, want, response, &mut file, &mut hasher, start, total, largest)?;
        drop(file);
        let sha256 = hasher.finish();
        if let Some(promised) = want.sha256.as_ref().filter(|promised| **promised != sha256) {
            if start > 0 {
                // The beginning may have been of something else, whatever the server said.
                let mut file = partial.state(true).map_err(Broken::Final)?.0;
                partial.reset(&mut file).map_err(Broken::Final)?;
                return self.attempt(fetcher, want, seen, partial, file, 0, Unfinished::default());
            }
            partial.remove();
            return Err(Broken::Final(mismatch(&want.url, promised, &sha256)));
        }
        let blob = fetcher.cache().adopt(&partial.path, &sha256, size).map_err(Broken::Final)?;
        partial.remove();
        Ok(Answer::Here { blob, etag: meta.etag, modified: meta.modified })
    }

    /// Sends a request and follows redirects.
    fn follow(&self, want: &Want, headers: &[(&str, String)]) -> Result<Response<Body>> {
        let bad = |why: String| Error::new(Code::PackageServer, format!("{}: {why}", escape(&want.url)));
        let mut at: Uri = want.url.parse().map_err(|_| bad("this is no address".into()))?;
        for _ in 0..=REDIRECTS {
            self.stop.check()?;
            let secure = at.scheme_str() == Some("https");
            let loopback = at.host().is_some_and(|host| crate::servers::is_loopback(host.trim_matches(['[', ']'])));
            let mut request = self.agent(secure)?.get(&at);
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            if loopback {
                request = request.config().proxy(None).build();
            }
            let response = request.call().map_err(|error| self.failed(&want.url, error))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let to = response.headers().get("location").and_then(|value| value.to_str().ok());
            at = url::redirect(&at, to.ok_or_else(|| bad("it redirects to nowhere".into()))?).map_err(bad)?;
        }
        Err(bad(format!("it redirects more than {REDIRECTS} times")))
    }

    #[expect(clippy::too_many_arguments, reason = "they are where bytes come from, where they go, and what bounds them")]
    fn body(
        &self,
        fetcher: &Fetcher,
        want: &Want,
        response: Response<Body>,
        file: &mut File,
        hasher: &mut Hasher,
        start: u64,
        total: Option<u64>,
        largest: u64,
    ) -> Result<u64, Broken> {
        let mut reader = response.into_body().into_reader();
        let (mut buffer, mut done) = (vec![0; 64 << 10], start);
        fetcher.progress().bytes(&want.url, done, total);
        loop {
            self.stop.check().map_err(Broken::Final)?;
            let n = match reader.read(&mut buffer) {
                Ok(0) if total.is_some_and(|total| done < total) => {
                    return Err(Broken::Again(
                        Error::new(Code::PackageServer, format!("{} was broken off after {done} bytes", escape(&want.url)))
                            .hint("try again: what is here is kept"),
                    ));
                }
                Ok(0) => return Ok(done),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let error = self.failed(&want.url, error.into());
                    // Who was silent for so long is not asked again.
                    let silent = error.message().contains("is silent") || error.code() == Code::Cancelled;
                    return Err(if silent { Broken::Final(error) } else { Broken::Again(error) });
                }
            };
            done += n as u64;
            if done > largest {
                return Err(Broken::Final(too_large(&want.url, largest)));
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(|error| Broken::Final(Error::io("fill the cache", error)))?;
            fetcher.progress().bytes(&want.url, done, total);
        }
    }

    fn failed(&self, url: &str, error: ureq::Error) -> Error {
        if self.stop.is_stopped() {
            return Stop::error();
        }
        let url = escape(url);
        // The reader of a body hides our kind of error in one of I/O.
        let error = match error {
            ureq::Error::Io(inner) if inner.get_ref().is_some_and(|inner| inner.is::<ureq::Error>()) => ureq::Error::from(inner),
            other => other,
        };
        let silent = || {
            Error::new(Code::PackageServer, format!("the server of {url} is silent for {} s", self.idle.as_secs_f32()))
                .hint("try again, or name another server")
        };
        match error {
            ureq::Error::Timeout(_) => silent(),
            ureq::Error::Io(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => silent(),
            ureq::Error::HostNotFound => Error::new(Code::PackageServer, format!("the computer of {url} is not known"))
                .hint("is there a network? --offline needs none"),
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::Pem(_) => {
                Error::new(Code::PackageServer, format!("the server of {url} cannot prove who it is"))
                    .source(error)
                    .hint("for a private server name the file of its authority in SSL_CERT_FILE")
            }
            other if other.to_string().contains("certificate") => {
                Error::new(Code::PackageServer, format!("the server of {url} cannot prove who it is"))
                    .source(other)
                    .hint("for a private server name the file of its authority in SSL_CERT_FILE")
            }
            other => Error::new(Code::PackageServer, format!("{url} could not be fetched"))
                .source(other)
                .hint("try again, or name another server"),
        }
    }
}

/// Where the part begins that a server sends: `Content-Range: bytes 5-9/10`.
fn starts_at(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get("content-range")?.to_str().ok()?.strip_prefix("bytes ")?;
    text.split_once('-')?.0.trim().parse().ok()
}

/// Whether an open file is the one at this path.
fn same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let place = |meta: &fs::Metadata| (meta.dev(), meta.ino());
    matches!((&file.metadata(), &fs::metadata(path)), (Ok(one), Ok(other)) if place(one) == place(other))
}

/// A download that is not whole yet. Whoever comes second while it runs gets a file of its own.
struct Partial {
    path: PathBuf,
    meta: PathBuf,
    lock: File,
    shared: bool,
}

impl Partial {
    fn open(fetcher: &Fetcher, url: &str) -> Result<Self> {
        let path = fetcher.cache().partial(url);
        let lock = Self::file(&path)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            // Between opening and locking somebody may have completed it: then this is content of the cache by now.
            Ok(()) if same(&lock, &path) => Ok(Self { meta: path.with_extension("json"), path, lock, shared: true }),
            _ => {
                let path = fetcher.cache().partial(&vmoon_sys::random::key());
                Ok(Self { lock: Self::file(&path)?, meta: path.with_extension("json"), path, shared: false })
            }
        }
    }

    fn file(path: &Path) -> Result<File> {
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        opened.map_err(|error| Error::io(format_args!("open {}", path.display()), error))
    }

    /// The file, and what belongs to it. What cannot be proved to be the beginning of what will come is dropped.
    fn state(&self, promised: bool) -> Result<(File, Unfinished)> {
        let mut file = self.lock.try_clone().map_err(|error| Error::io("open the cache", error))?;
        let meta: Unfinished = atomic::read_json(&self.meta).ok().flatten().unwrap_or_default();
        if meta.proof().is_none() && !promised {
            self.reset(&mut file)?;
        }
        Ok((file, meta))
    }

    /// Forgets what is here, and what belongs to it.
    fn reset(&self, file: &mut File) -> Result<()> {
        match fs::remove_file(&self.meta) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("fill the cache", error)),
            _ => {}
        }
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)).map(|_| ())).map_err(|error| Error::io("fill the cache", error))
    }

    fn remember(&self, meta: &Unfinished) -> Result<()> {
        atomic::write_json(&self.meta, meta)
    }

    /// Forgets it: it is whole, or worth nothing.
    fn remove(&self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.meta);
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let empty = self.lock.metadata().is_ok_and(|meta| meta.len() == 0);
        if !self.shared || empty {
            self.remove();
        }
    }
}
