//! One connection: a task that reads, a task that writes, calls that wait for the reply of their number.
//!
//! At most [`IN_FLIGHT`] calls are under way at once, because a daemon takes no more of one client (`max_client_requests` is 5) and would stop reading
//! the answers to its keepalive too. A call that is given up keeps its place until its reply comes.

use crate::{
    error::{Error, Refusal, Result},
    event::{self, Event},
    frame::{self, Header, Kind, PING, PONG, PROGRAM_KEEPALIVE, Status, VERSION},
    procedure::Procedure,
    stream::{self, Piece},
    transport::{Broken, Sink, Source, Transport},
    xdr::{Decoder, Encode, Encoder, decode_all},
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot},
    task::AbortHandle,
    time::{Instant, timeout_at},
};

/// How many calls are under way at once on one connection.
pub const IN_FLIGHT: usize = 4;

/// How many messages may wait to be written.
const OUTGOING: usize = 8;

/// How a connection finds out that nobody is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// After how long a silence the other end is asked.
    pub interval: Duration,
    /// How many questions in a row may stay unanswered.
    pub count: u32,
}

impl Default for Keepalive {
    /// What libvirt's own programs use: 5 seconds, 5 times.
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), count: 5 }
    }
}

/// The body of a reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) body: Bytes,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// A connection. The last handle that is dropped ends it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    outgoing: mpsc::Sender<Vec<u8>>,
    tasks: [AbortHandle; 2],
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.end("it was closed here");
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What the tasks and the callers share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    places: Arc<Semaphore>,
    events: broadcast::Sender<Event>,
    keepalive: Mutex<Option<Keepalive>>,
    /// That keepalive was turned on.
    turned_on: Notify,
}

#[derive(Debug, Default)]
struct State {
    serial: u32,
    calls: HashMap<u32, Waiting>,
    streams: HashMap<u32, mpsc::Sender<Piece>>,
    ended: Option<Arc<str>>,
}

/// A call without a reply yet.
#[derive(Debug)]
struct Waiting {
    procedure: Procedure,
    caller: oneshot::Sender<Result<Reply>>,
    _place: Place,
}

/// The right to have one call under way.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held, and given back when dropped")] OwnedSemaphorePermit);

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it did, the maps would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the connection ended, if it did.
    pub(crate) fn ended(&self) -> Option<Arc<str>> {
        self.state().ended.clone()
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Ends it for everybody who waits. Only the first reason counts.
    fn end(&self, why: &str) {
        let (why, calls, streams) = {
            let mut state = self.state();
            if state.ended.is_some() {
                return;
            }
            let why: Arc<str> = why.into();
            state.ended = Some(why.clone());
            (why, std::mem::take(&mut state.calls), std::mem::take(&mut state.streams))
        };
        self.places.close();
        for (_, waiting) in calls {
            // A caller who gave up has dropped its end.
            let _gone = waiting.caller.send(Err(Error::Closed(why.clone())));
        }
        // A stream sees its sender gone, and asks for the reason.
        drop(streams);
        // Nobody may be listening.
        let _nobody = self.events.send(Event::Closed(why));
    }
}

impl Connection {
    /// Starts the two tasks.
    pub(crate) fn start(transport: Transport, events: usize) -> Self {
        let (source, sink) = transport.split();
        let (outgoing, to_write) = mpsc::channel(OUTGOING);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            places: Arc::new(Semaphore::new(IN_FLIGHT)),
            events: broadcast::Sender::new(events.max(1)),
            keepalive: Mutex::new(None),
            turned_on: Notify::new(),
        });
        let writer = tokio::spawn(write(sink, to_write, shared.clone())).abort_handle();
        let reader = Reader { source, shared: shared.clone(), outgoing: outgoing.clone() };
        let reader = tokio::spawn(reader.run()).abort_handle();
        Self { shared, outgoing, tasks: [reader, writer] }
    }

    /// From now on the other end is asked whether it is there. Only for daemons that know keepalive.
    pub(crate) fn keep_alive(&self, keepalive: Keepalive) {
        *self.shared.keepalive.lock().unwrap_or_else(PoisonError::into_inner) = Some(keepalive);
        self.shared.turned_on.notify_one();
    }

    /// Calls, and waits for the reply until the deadline.
    pub(crate) async fn call(&self, procedure: Procedure, arguments: &impl Encode, within: Duration) -> Result<Reply> {
        let (reply, _) = self.send(procedure, arguments, within, None, None).await?;
        Ok(reply)
    }

    /// Calls in a place that was taken before.
    pub(crate) async fn call_in(&self, place: Place, procedure: Procedure, arguments: &impl Encode, within: Duration) -> Result<Reply> {
        let (reply, _) = self.send(procedure, arguments, within, Some(place), None).await?;
        Ok(reply)
    }

    /// A place for a call, if one is free.
    pub(crate) fn place(&self) -> Option<Place> {
        self.shared.places.clone().try_acquire_owned().ok().map(Place)
    }

    /// Whether no call is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.places.available_permits() == IN_FLIGHT
    }

    /// Calls a procedure that opens a stream.
    pub(crate) async fn open(self, procedure: Procedure, arguments: &impl Encode, within: Duration) -> Result<(Reply, stream::Stream)> {
        let (pieces, incoming) = mpsc::channel(stream::PIECES);
        let (reply, serial) = self.send(procedure, arguments, within, None, Some(pieces)).await?;
        Ok((reply, stream::Stream::new(self, procedure, serial, incoming)))
    }

    async fn send(
        &self,
        procedure: Procedure,
        arguments: &impl Encode,
        within: Duration,
        place: Option<Place>,
        stream: Option<mpsc::Sender<Piece>>,
    ) -> Result<(Reply, u32)> {
        let name = procedure.name();
        let invalid = |why| Error::Invalid { procedure: name, why };
        let mut message = Encoder::after(frame::HEAD);
        arguments.encode(&mut message);
        let mut message = message.finish().map_err(invalid)?;

        let deadline = Instant::now() + within;
        let late = |_| Error::Deadline { procedure: name, after: within };
        let place = match place {
            Some(place) => place,
            None => {
                let place = timeout_at(deadline, self.shared.places.clone().acquire_owned()).await.map_err(late)?;
                Place(place.map_err(|_| self.closed())?)
            }
        };
        let room = timeout_at(deadline, self.outgoing.reserve()).await.map_err(late)?;
        let room = room.map_err(|_| self.closed())?;

        // From here to the message in the queue nothing waits: a call that is dropped has either sent nothing or is entered as waiting.
        let (caller, reply) = oneshot::channel();
        let serial = {
            let mut state = self.shared.state();
            if let Some(why) = &state.ended {
                return Err(Error::Closed(why.clone()));
            }
            // 0 is for what no call asked for.
            state.serial = state.serial.checked_add(1).unwrap_or(1);
            let serial = state.serial;
            let header = Header {
                program: procedure.program(),
                version: VERSION,
                procedure: procedure.number(),
                kind: Kind::Call,
                serial,
                status: Status::Ok,
            };
            header.seal(&mut message).map_err(invalid)?;
            state.calls.insert(serial, Waiting { procedure, caller, _place: place });
            if let Some(stream) = stream {
                state.streams.insert(serial, stream);
            }
            serial
        };
        room.send(message);
        match timeout_at(deadline, reply).await.map_err(late)? {
            Ok(reply) => Ok((reply?, serial)),
            Err(_) => Err(self.closed()),
        }
    }

    /// For those who find the connection gone.
    pub(crate) fn closed(&self) -> Error {
        Error::Closed(self.shared.ended().unwrap_or_else(|| "it was closed here".into()))
    }

    pub(crate) fn outgoing(&self) -> mpsc::Sender<Vec<u8>> {
        self.outgoing.clone()
    }
}

async fn write(mut sink: Sink, mut messages: mpsc::Receiver<Vec<u8>>, shared: Arc<Shared>) {
    while let Some(message) = messages.recv().await {
        if let Err(error) = sink.write(&message).await {
            // The reader usually finds out too, and knows more: it may still have an answer to read. But a daemon that reads nothing is no use.
            shared.end(&format!("it could not be written to: {error}"));
            return;
        }
    }
}

/// The one who reads.
struct Reader {
    source: Source,
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Vec<u8>>,
}

impl Reader {
    async fn run(mut self) {
        let why = self.read().await;
        tracing::debug!(%why, "a connection to libvirt ended");
        self.shared.end(&why);
    }

    /// Reads until the end, and says why it came.
    async fn read(&mut self) -> String {
        let mut unanswered = 0;
        loop {
            match self.source.message() {
                Ok(Some(message)) => {
                    if let Err(why) = self.take(message).await {
                        return broken(why);
                    }
                    continue;
                }
                Ok(None) => {}
                Err(why) => return broken(why),
            }
            let keepalive = *self.shared.keepalive.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(keepalive) = keepalive else {
                let shared = self.shared.clone();
                tokio::select! {
                    filled = self.source.fill() => if let Err(why) = filled { return broken(why) },
                    () = shared.turned_on.notified() => {}
                }
                continue;
            };
            match timeout_at(Instant::now() + keepalive.interval, self.source.fill()).await {
                Ok(Ok(())) => unanswered = 0,
                Ok(Err(why)) => return broken(why),
                Err(_) if unanswered >= keepalive.count => {
                    return format!("the other end was silent for {} ms", (keepalive.interval * (unanswered + 1)).as_millis());
                }
                Err(_) => {
                    unanswered += 1;
                    self.keepalive(PING);
                }
            }
        }
    }

    /// Says PING or PONG. If the queue is full there is more to write than the other end takes, and one word more would not help.
    fn keepalive(&self, procedure: u32) {
        let header = Header { program: PROGRAM_KEEPALIVE, version: VERSION, procedure, kind: Kind::Message, serial: 0, status: Status::Ok };
        if let Ok(message) = header.message(&[]) {
            let _full = self.outgoing.try_send(message);
        }
    }

    /// Passes a message on to whom it is for.
    async fn take(&mut self, message: Bytes) -> Result<(), Broken> {
        let mut from = Decoder::new(&message);
        let header = Header::decode(&mut from).map_err(Broken::Malformed)?;
        let body = message.slice(frame::HEAD - 4..);
        match header.kind {
            Kind::Reply => self.reply(&header, Reply { body, descriptors: Vec::new() }),
            Kind::ReplyWithDescriptors => {
                // Their number comes before the body (src/rpc/virnetmessage.c, `virNetMessageDecodeNumFDs`).
                let count = from.u32().map_err(Broken::Malformed)? as usize;
                if count > frame::DESCRIPTORS_MAX {
                    return Err(Broken::Malformed(from.malformed("more file descriptors than there may be")));
                }
                let descriptors = self.source.descriptors(count).await?;
                self.reply(&header, Reply { body: body.slice(4..), descriptors })
            }
            Kind::Message => {
                self.event(&header, &body);
                Ok(())
            }
            Kind::Stream | Kind::StreamHole => {
                self.stream(&header, body).await;
                Ok(())
            }
            Kind::Call | Kind::CallWithDescriptors => Err(Broken::Malformed(from.malformed("a call, from a daemon"))),
        }
    }

    fn reply(&self, header: &Header, reply: Reply) -> Result<(), Broken> {
        let malformed = |what| Err(Broken::Malformed(crate::xdr::Malformed { what, at: 0 }));
        let Some(waiting) = self.shared.state().calls.remove(&header.serial) else { return malformed("a reply to no call") };
        let procedure = waiting.procedure;
        if (header.program, header.procedure) != (procedure.program(), procedure.number()) {
            let _gone = waiting.caller.send(Err(Error::Closed("a reply was that of another procedure".into())));
            return malformed("a reply to another procedure");
        }
        let result = match header.status {
            Status::Ok => Ok(reply),
            Status::Error => Err(refusal(procedure, &reply.body)),
            Status::Continue => return malformed("half a reply"),
        };
        if result.is_err() {
            // A call that failed has opened no stream.
            self.shared.state().streams.remove(&header.serial);
        }
        // A caller who gave up has dropped its end.
        let _gone = waiting.caller.send(result);
        Ok(())
    }

    fn event(&self, header: &Header, body: &[u8]) {
        if header.program == PROGRAM_KEEPALIVE {
            if header.procedure == PING {
                self.keepalive(PONG);
            }
            return;
        }
        let event = match Procedure::find(header.program, header.procedure) {
            Some(procedure) => event::decode(procedure, body).unwrap_or_else(|why| {
                tracing::warn!(procedure = procedure.name(), %why, "libvirt sent an event that cannot be read");
                Some(Event::Everything)
            }),
            None => None,
        };
        if let Some(event) = event {
            // Nobody may be listening.
            let _nobody = self.shared.events.send(event);
        }
    }

    /// Passes data of a stream on. If its reader is slow this waits, and with it the whole connection: that is the flow control, and the reason why
    /// each stream has a connection of its own.
    async fn stream(&mut self, header: &Header, body: Bytes) {
        let Some(to) = self.shared.state().streams.get(&header.serial).cloned() else { return };
        let (piece, last) = match (header.kind, header.status) {
            (Kind::StreamHole, _) => (Piece::Failed(Error::Closed("a hole came in a stream that was not opened for holes".into())), true),
            (_, Status::Continue) if body.is_empty() => (Piece::End, false),
            (_, Status::Continue) => (Piece::Data(body), false),
            (_, Status::Ok) => (Piece::Finished, true),
            (_, Status::Error) => {
                let procedure = Procedure::find(header.program, header.procedure).unwrap_or(Procedure::ConnectOpen);
                (Piece::Failed(refusal(procedure, &body)), true)
            }
        };
        if to.send(piece).await.is_err() || last {
            self.shared.state().streams.remove(&header.serial);
        }
    }
}

/// What libvirt said in the place of a result.
fn refusal(procedure: Procedure, body: &[u8]) -> Error {
    match decode_all::<Refusal>(body) {
        Ok(refusal) => Error::Refused(Box::new(refusal)),
        Err(why) => Error::Malformed { procedure: procedure.name(), why },
    }
}

fn broken(why: Broken) -> String {
    match why {
        Broken::Ended { within: false } => "the other end closed it".to_owned(),
        Broken::Ended { within: true } => "the other end closed it in the middle of a message".to_owned(),
        // What we had said was not read any more; for us it is the same.
        Broken::Io(error) if error.kind() == io::ErrorKind::ConnectionReset => "the other end closed it".to_owned(),
        Broken::Io(error) => format!("it could not be read from: {error}"),
        Broken::Malformed(malformed) => format!("the other end does not speak libvirt's protocol: {malformed}"),
    }
}
