//! What is too large for calls: VMs and disks, imported by `PUT` with a content length and exported by `GET`, each with a task that says how it went.
//!
//! XAPI takes no body in chunks (`import.ml`), and ends an export that fails in the middle as one that is done: the task decides. A host that has not the storage
//! sends us to the one that has, so an upload to a pool of several asks first with an empty body and without the task, which changes nothing.

use crate::{
    client::{Client, HOPS},
    error::{Error, Result},
    http::lost,
    members::Place,
    rpc, task,
    task::End,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1,
    header::{CONTENT_LENGTH, HOST, LOCATION},
};
use hyper_util::rt::TokioIo;
use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    sync::watch,
    time::timeout,
};

/// How much is read of a source at once.
const CHUNK: usize = 128 << 10;
/// How long a task may take to end after its body has.
const CLOSING: Duration = Duration::from_secs(600);
/// The most that is read of a page that refuses.
const PAGE: usize = 64 << 10;

/// How a disk is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Byte for byte.
    Raw,
    /// As a VHD file, which leaves out what is empty.
    Vhd,
}

impl Format {
    const fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Vhd => "vhd",
        }
    }
}

/// Something to send or to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    path: &'static str,
    query: Vec<(&'static str, String)>,
    /// What the task is called.
    pub label: String,
    /// Which host has it, if that is known; the coordinator is asked otherwise.
    pub host: Option<String>,
}

impl Transfer {
    fn new(path: &'static str, label: &str) -> Self {
        Self { path, query: Vec::new(), label: label.to_owned(), host: None }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// A VM that is off, with its disks, as XVA. Compressed by `gzip` or, since 1.250, `zstd` if one is named.
    pub fn export(vm_uuid: &str, compression: Option<&str>) -> Self {
        let this = Self::new("/export", "Export of a VM").with("uuid", vm_uuid);
        match compression {
            Some("gzip") => this.with("use_compression", "true"),
            Some(other) => this.with("use_compression", other),
            None => this,
        }
    }

    /// VMs from an XVA, with their disks in this repository, or in the pool's default one. The result is a list of references.
    /// `restore` keeps uuids and addresses of network interfaces, as for a VM that was lost.
    pub fn import(sr: Option<&str>, restore: bool) -> Self {
        let this = Self::new("/import", "Import of a VM").with("restore", restore.to_string());
        match sr {
            Some(sr) => this.with("sr_id", sr),
            None => this,
        }
    }

    /// The content of a disk.
    pub fn export_disk(vdi: &str, format: Format) -> Self {
        Self::new("/export_raw_vdi", "Export of a disk").with("vdi", vdi).with("format", format.word())
    }

    /// The content of a disk that exists and is at least as large.
    pub fn import_disk(vdi: &str, format: Format) -> Self {
        Self::new("/import_raw_vdi", "Import of a disk").with("vdi", vdi).with("format", format.word())
    }
}

impl Client {
    /// Fetches into `sink`; how many bytes that were. `progress` is told how many there are so far. A deadline of [`Config`](crate::Config) is how long it may stand still.
    /// What ends early is cancelled in XAPI, too.
    ///
    /// # Errors
    /// As [`Client::call`]; [`Error::Xapi`] with what the task failed with, also when everything seemed to come; [`Error::Local`] of `sink`; [`Error::Cancelled`].
    pub async fn fetch(
        &self,
        what: &Transfer,
        sink: &mut (impl AsyncWrite + Unpin),
        mut progress: impl FnMut(u64),
        cancel: impl Future<Output = ()>,
    ) -> Result<u64> {
        let task = self.task_for(what).await?;
        let work = async {
            let answer = self.opened(self.place(what, &task).await?).await?;
            let mut body = answer.into_body();
            let mut count = 0;
            while let Some(frame) = self.moving(body.frame()).await? {
                let frame = frame.map_err(|error| lost(self.host_of(what), error))?;
                if let Some(data) = frame.data_ref() {
                    sink.write_all(data).await.map_err(Error::Local)?;
                    count += data.len() as u64;
                    progress(count);
                }
            }
            sink.flush().await.map_err(Error::Local)?;
            Ok(count)
        };
        let done = tokio::select! {
            done = work => done,
            () = cancel => Err(Error::Cancelled),
        };
        let count = match done {
            Ok(count) => {
                self.ending(&task).await?;
                count
            }
            Err(error) => return Err(self.explained(&task, error).await),
        };
        self.destroy(&task).await;
        Ok(count)
    }

    /// Fetches something small.
    ///
    /// # Errors
    /// As [`Client::fetch`]; [`Error::Protocol`] when there are more than `most` bytes, which are then not read.
    pub async fn fetch_small(&self, what: &Transfer, most: usize) -> Result<Vec<u8>> {
        let mut sink = Small { bytes: Vec::new(), most, full: false };
        let fetched = self.fetch(what, &mut sink, |_| {}, std::future::pending()).await;
        if sink.full {
            return Err(Error::protocol(format!("{} has more than {most} bytes", what.label)));
        }
        fetched.map(|_| sink.bytes)
    }

    /// Sends `length` bytes of `source`; what XAPI made of it. `progress` is told how many have gone so far.
    ///
    /// # Errors
    /// As [`Self::fetch`]; [`Error::Local`] when `source` fails or has less than it said.
    pub async fn send(
        &self,
        what: &Transfer,
        source: impl AsyncRead + Send + Unpin + 'static,
        length: u64,
        mut progress: impl FnMut(u64),
        cancel: impl Future<Output = ()>,
    ) -> Result<End> {
        let task = self.task_for(what).await?;
        let work = async {
            let place = self.place(what, &task).await?;
            let place = if self.has_members().await { self.where_to(place).await? } else { place };
            let (sent, mut seen) = watch::channel(0);
            let body = Upload { source, left: length, sent, failed: false };
            let put = self.put(&place, body, length);
            tokio::pin!(put);
            loop {
                tokio::select! {
                    answer = &mut put => return answer,
                    moved = timeout(self.config().deadline, seen.changed()) => match moved {
                        Ok(Ok(())) => progress(*seen.borrow_and_update()),
                        // All has gone, or nobody reads it any more: the answer tells.
                        Ok(Err(_)) => return timeout(CLOSING, &mut put).await.unwrap_or_else(|_| Err(self.late(what))),
                        Err(_) if *seen.borrow() == length => return timeout(CLOSING, &mut put).await.unwrap_or_else(|_| Err(self.late(what))),
                        Err(_) => return Err(self.late(what)),
                    },
                }
            }
        };
        let done = tokio::select! {
            done = work => done,
            () = cancel => Err(Error::Cancelled),
        };
        if let Err(error) = done {
            return Err(self.explained(&task, error).await);
        }
        progress(length);
        let end = self.ending(&task).await?;
        self.destroy(&task).await;
        Ok(end)
    }

    fn late(&self, what: &Transfer) -> Error {
        Error::Deadline { what: what.label.clone(), waited: self.config().deadline }
    }

    fn host_of<'a>(&'a self, what: &'a Transfer) -> &'a str {
        what.host.as_deref().unwrap_or(&self.config().host)
    }

    /// Waits, as long as it may stand still.
    async fn moving<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let waited = self.config().deadline;
        timeout(waited, work).await.map_err(|_| Error::Deadline { what: "the next bytes".into(), waited })
    }

    async fn task_for(&self, what: &Transfer) -> Result<String> {
        let made = self.call("task.create", vec![what.label.clone().into(), "".into()]).await?;
        made.as_str().map(str::to_owned).ok_or_else(|| Error::protocol("a task that is no text"))
    }

    async fn place(&self, what: &Transfer, task: &str) -> Result<Place> {
        let host = match &what.host {
            Some(host) => host.clone(),
            None => self.session().await?.host,
        };
        let place = Place::new(host, what.path);
        Ok(what.query.iter().fold(place, |place, (name, value)| place.with(name, value.clone())).with("task_id", task))
    }

    /// A `GET`, at the host where it is in the end. A session that has ended is renewed once.
    async fn opened(&self, mut place: Place) -> Result<Response<Incoming>> {
        let (mut renewed, mut hops) = (false, 0);
        loop {
            let session = self.session().await?;
            let request = Request::get(place.target(&session.reference, true)).header(HOST, &place.host).body(Empty::<Bytes>::new());
            let answer = self.exchange_with(&place, request).await?;
            match moved(&answer, &place)? {
                Some(to) if hops < HOPS => {
                    hops += 1;
                    place = to.with_task_of(&place);
                }
                Some(_) => return Err(Error::protocol("members of the pool send us from one to the other")),
                None if answer.status().is_success() => return Ok(answer),
                None if answer.status() == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = true;
                    self.forget(&session).await;
                }
                None => return Err(refused(answer).await),
            }
        }
    }

    /// What a `GET` answers, if that is small.
    pub(crate) async fn small(&self, place: Place, most: usize) -> Result<Bytes> {
        let answer = self.opened(place).await?;
        let body = self.moving(Limited::new(answer.into_body(), most).collect()).await?;
        Ok(body.map_err(|_| Error::protocol(format!("an answer of more than {most} bytes, or cut off")))?.to_bytes())
    }

    async fn put(&self, place: &Place, body: impl Body<Data = Bytes, Error = io::Error> + Send + 'static, length: u64) -> Result<()> {
        let session = self.session().await?;
        let request =
            Request::put(place.target(&session.reference, true)).header(HOST, &place.host).header(CONTENT_LENGTH, length).body(body);
        let answer = self.exchange_with_no_limit(place, request).await?;
        if answer.status().is_success() {
            // It may be empty, or a page; when it ends, the work has.
            let _ = Limited::new(answer.into_body(), PAGE).collect().await;
            return Ok(());
        }
        Err(refused(answer).await)
    }

    /// Where an upload is to go: asked without a body and without the task, so nothing is done.
    async fn where_to(&self, mut place: Place) -> Result<Place> {
        let session = self.session().await?;
        for _ in 0..HOPS {
            let request = Request::put(place.target(&session.reference, false))
                .header(HOST, &place.host)
                .header(CONTENT_LENGTH, 0)
                .body(Empty::<Bytes>::new());
            let Ok(answer) = self.exchange_with(&place, request).await else { break };
            match moved(&answer, &place)? {
                Some(to) => place = to.with_task_of(&place),
                None => break,
            }
        }
        Ok(place)
    }

    async fn exchange_with<B>(
        &self,
        place: &Place,
        request: std::result::Result<Request<B>, hyper::http::Error>,
    ) -> Result<Response<Incoming>>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.moving(self.exchange_with_no_limit(place, request)).await?
    }

    async fn exchange_with_no_limit<B>(
        &self,
        place: &Place,
        request: std::result::Result<Request<B>, hyper::http::Error>,
    ) -> Result<Response<Incoming>>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let request = request.map_err(|error| Error::protocol(error.to_string()))?;
        let stream = self.reach(&place.host).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(&place.host, error))?;
        // It ends with the answer's body.
        drop(tokio::spawn(connection));
        sender.send_request(request).await.map_err(|error| match source_of(&error) {
            Some(why) => Error::Local(why),
            None => lost(&place.host, error),
        })
    }

    /// What came of the task of a transfer whose bytes have all gone.
    async fn ending(&self, task: &str) -> Result<End> {
        match timeout(CLOSING, task::follow(self, task, &mut |_| {})).await {
            Ok(Ok(end)) => Ok(end),
            Ok(Err(error)) => {
                self.destroy(task).await;
                Err(error)
            }
            Err(_) => Err(Error::Deadline { what: "the end of the transfer".into(), waited: CLOSING }),
        }
    }

    /// The reason that the task has, which says more than a broken connection does. What still runs is cancelled.
    async fn explained(&self, task: &str, error: Error) -> Error {
        let why = if matches!(error, Error::Cancelled | Error::Local(_)) { None } else { task::failure_of(self, task).await };
        if why.is_none() {
            // A task that nobody works on is only cleared away.
            let _ = self.call("task.cancel", vec![task.into()]).await;
        }
        self.destroy(task).await;
        why.unwrap_or(error)
    }

    async fn destroy(&self, task: &str) {
        // What is not destroyed here is by XAPI, later.
        let _ = self.call("task.destroy", vec![task.into()]).await;
    }
}

impl Place {
    /// The same with the task of another.
    fn with_task_of(self, other: &Self) -> Self {
        match other.value("task_id") {
            Some(task) if self.value("task_id").is_none() => self.with("task_id", task),
            _ => self,
        }
    }
}

/// Where an answer sends us, if it does.
fn moved(answer: &Response<Incoming>, from: &Place) -> Result<Option<Place>> {
    if !answer.status().is_redirection() {
        return Ok(None);
    }
    let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
    to.map(|to| Place::parse(to, &from.host)).transpose()
}

async fn refused(answer: Response<Incoming>) -> Error {
    let status = answer.status().as_u16();
    let page = Limited::new(answer.into_body(), PAGE).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Error::Http { status, text: rpc::plain(&page) }
}

/// The failure of the source that we were to send, if that is what broke a request.
fn source_of(error: &hyper::Error) -> Option<io::Error> {
    let inner = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    error.is_user().then(|| io::Error::new(inner.kind(), inner.to_string()))
}

/// What takes no more than so much.
struct Small {
    bytes: Vec<u8>,
    most: usize,
    full: bool,
}

impl AsyncWrite for Small {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.len() > self.most - self.bytes.len() {
            self.full = true;
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        self.bytes.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A body of a length that is known, from a source that may fail.
struct Upload<R> {
    source: R,
    left: u64,
    sent: watch::Sender<u64>,
    failed: bool,
}

impl<R: AsyncRead + Unpin> Body for Upload<R> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.left == 0 || this.failed {
            return Poll::Ready(None);
        }
        let mut chunk = vec![0; usize::try_from(this.left).unwrap_or(CHUNK).min(CHUNK)];
        let mut buf = ReadBuf::new(&mut chunk);
        let read = ready!(Pin::new(&mut this.source).poll_read(cx, &mut buf));
        let count = buf.filled().len();
        if let Err(error) = read.and_then(|()| if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }) {
            this.failed = true;
            return Poll::Ready(Some(Err(error)));
        }
        chunk.truncate(count);
        this.left -= count as u64;
        this.sent.send_modify(|sent| *sent += count as u64);
        Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
