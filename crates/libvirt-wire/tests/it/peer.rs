//! The other end of a connection, played by a test.

use std::{
    collections::VecDeque,
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::BorrowedFd,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::UnixStream,
};
use vmoon_libvirt_wire::{
    Connect, Connecting, Procedure, Transport,
    frame::{HEAD, Header, Kind, Status, length},
    xdr::{Decoder, Encode, Encoder},
};

/// One end of a connection to a client.
pub(crate) struct Peer(pub(crate) UnixStream);

/// Gives out connections whose other ends are peers, in order.
pub(crate) struct Ends {
    ours: Mutex<VecDeque<UnixStream>>,
    made: AtomicUsize,
}

/// A way to connect to so many peers.
pub(crate) fn ends(count: usize) -> (Ends, Vec<Peer>) {
    let pairs: Vec<_> = (0..count).map(|_| UnixStream::pair().expect("a pair of sockets")).collect();
    let (ours, theirs): (VecDeque<_>, Vec<_>) = pairs.into_iter().map(|(ours, theirs)| (ours, Peer(theirs))).unzip();
    (Ends { ours: Mutex::new(ours), made: AtomicUsize::new(0) }, theirs)
}

impl Connect for Ends {
    fn connect(&self) -> Connecting<'_> {
        self.made.fetch_add(1, Ordering::Relaxed);
        let next = self.ours.lock().expect("no test panics with it").pop_front();
        Box::pin(async { Ok(Transport::unix(next.ok_or(std::io::ErrorKind::ConnectionRefused)?)) })
    }

    fn describe(&self) -> String {
        "a peer of the test".to_owned()
    }
}

/// A body.
pub(crate) fn body(value: impl Encode) -> Vec<u8> {
    let mut to = Encoder::default();
    value.encode(&mut to);
    to.finish().expect("it can be written")
}

/// The body of an error of libvirt's.
pub(crate) fn refusal(code: i32, message: &str) -> Vec<u8> {
    const NONE: Option<String> = None;
    body(((code, 10, Some(message), 2), (NONE, NONE, NONE, NONE), (0, 0, NONE)))
}

impl Peer {
    /// The next message; `None` at the end.
    pub(crate) async fn read(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut word = [0; 4];
        self.0.read_exact(&mut word).await.ok()?;
        let mut rest = vec![0; length(word).expect("clients say lengths that can be") - 4];
        self.0.read_exact(&mut rest).await.ok()?;
        let header = Header::decode(&mut Decoder::new(&rest)).expect("clients write headers");
        Some((header, rest.split_off(HEAD - 4)))
    }

    /// The next call, which is this one.
    pub(crate) async fn expect(&mut self, procedure: Procedure) -> (Header, Vec<u8>) {
        let (header, body) = self.read().await.expect("the client calls");
        assert_eq!(Procedure::find(header.program, header.procedure), Some(procedure));
        (header, body)
    }

    pub(crate) async fn write(&mut self, header: Header, body: &[u8]) {
        let message = header.message(body).expect("a message of a test is small");
        self.0.write_all(&message).await.expect("the client reads");
    }

    /// Answers a call well.
    pub(crate) async fn reply(&mut self, to: &Header, body: &[u8]) {
        self.write(Header { kind: Kind::Reply, ..*to }, body).await;
    }

    /// Answers a call with an error.
    pub(crate) async fn refuse(&mut self, to: &Header, code: i32, message: &str) {
        self.write(Header { kind: Kind::Reply, status: Status::Error, ..*to }, &refusal(code, message)).await;
    }

    /// Says an event.
    pub(crate) async fn event(&mut self, procedure: Procedure, body: &[u8]) {
        let (program, procedure) = (procedure.program(), procedure.number());
        self.write(Header { program, version: 1, procedure, kind: Kind::Message, serial: 0, status: Status::Ok }, body).await;
    }

    /// Lets the client in and opens whatever it wants.
    pub(crate) async fn welcome(&mut self, keepalive: bool) {
        let (call, _) = self.expect(Procedure::AuthList).await;
        self.reply(&call, &body(vec![0_u32])).await;
        let (mut call, _) = self.read().await.expect("the client goes on");
        if call.procedure == Procedure::ConnectSupportsFeature.number() {
            self.reply(&call, &body(keepalive)).await;
            (call, _) = self.read().await.expect("the client goes on");
        }
        assert_eq!(call.procedure, Procedure::ConnectOpen.number());
        self.reply(&call, &[]).await;
    }

    /// Sends bytes with a file descriptor beside them.
    pub(crate) async fn send_with(&mut self, bytes: &[u8], descriptor: BorrowedFd<'_>) {
        let sent = self.0.async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut beside = rustix::net::SendAncillaryBuffer::new(&mut space);
            let rights = [descriptor];
            assert!(beside.push(rustix::net::SendAncillaryMessage::ScmRights(&rights)));
            Ok(rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut beside, rustix::net::SendFlags::empty())?)
        });
        assert_eq!(sent.await.expect("the client reads"), bytes.len());
    }
}
