//! Any stream of bytes to a libvirt daemon: a Unix socket, with the file descriptors that may come through it, or the two pipes of a program that
//! speaks for us (`ssh HOST virt-ssh-helper URI`). It knows the length of a message and nothing else of it.

use crate::frame;
use bytes::{Buf as _, Bytes, BytesMut};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest},
    net::UnixStream,
};

/// How much is read at once, bytes.
const READ: usize = 64 * 1024;

/// A stream of bytes to a libvirt daemon.
pub struct Transport(Way);

enum Way {
    Unix(UnixStream),
    Pipes(Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>),
}

impl Transport {
    /// A Unix socket that is connected.
    pub fn unix(stream: UnixStream) -> Self {
        Self(Way::Unix(stream))
    }

    /// What is read from one end and written to the other. Whatever has to live as long as the connection (a process) belongs into one of them.
    pub fn pipes(reader: impl AsyncRead + Send + Unpin + 'static, writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Way::Pipes(Box::new(reader), Box::new(writer)))
    }

    pub(crate) fn split(self) -> (Source, Sink) {
        let (from, to) = match self.0 {
            Way::Unix(stream) => {
                let stream = Arc::new(stream);
                (Input::Unix(stream.clone()), Sink::Unix(stream))
            }
            Way::Pipes(reader, writer) => (Input::Pipe(reader), Sink::Pipe(writer)),
        };
        (Source { from, read: BytesMut::new(), descriptors: VecDeque::new() }, to)
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Way::Unix(_) => "Transport(unix)",
            Way::Pipes(..) => "Transport(pipes)",
        })
    }
}

/// What [`Connect::connect`] returns.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Transport>> + Send + 'a>>;

/// Makes connections to one daemon, as many as are needed: a client uses one for short calls and events, one for long calls, one for each open stream.
pub trait Connect: Send + Sync {
    /// Makes one.
    fn connect(&self) -> Connecting<'_>;

    /// To what, for people.
    fn describe(&self) -> String;
}

/// The Unix socket of a daemon on this computer.
#[derive(Clone, Debug)]
pub struct UnixSocket(pub PathBuf);

impl UnixSocket {
    /// Where libvirt's daemons listen (docs/daemons.rst and src/remote/remote_sockets.c of libvirt 9.0.0), the likeliest first: `libvirtd` or the proxy
    /// that takes its place, then the daemon of the QEMU driver alone. For a session the user's runtime directory is asked for.
    pub fn places(runtime_directory: Option<&Path>) -> Vec<PathBuf> {
        let folder = runtime_directory.map_or_else(|| PathBuf::from("/run/libvirt"), |folder| folder.join("libvirt"));
        vec![folder.join("libvirt-sock"), folder.join("virtqemud-sock")]
    }
}

impl Connect for UnixSocket {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async { Ok(Transport::unix(UnixStream::connect(&self.0).await?)) })
    }

    fn describe(&self) -> String {
        self.0.display().to_string()
    }
}

enum Input {
    Unix(Arc<UnixStream>),
    Pipe(Box<dyn AsyncRead + Send + Unpin>),
}

/// The end that is read.
pub(crate) struct Source {
    from: Input,
    read: BytesMut,
    /// Descriptors in the order in which they came.
    descriptors: VecDeque<OwnedFd>,
}

/// What can be wrong with what is read.
pub(crate) enum Broken {
    /// The stream ended: between messages, or within one.
    Ended { within: bool },
    /// The system's error.
    Io(io::Error),
    /// Not a message.
    Malformed(crate::xdr::Malformed),
}

impl Source {
    /// Reads more bytes. Nothing is lost when the future is dropped.
    pub(crate) async fn fill(&mut self) -> Result<(), Broken> {
        let within = !self.read.is_empty();
        self.read.reserve(READ);
        let count = match &mut self.from {
            Input::Pipe(reader) => reader.read_buf(&mut self.read).await.map_err(Broken::Io)?,
            Input::Unix(stream) => {
                let (read, descriptors) = (&mut self.read, &mut self.descriptors);
                stream.async_io(Interest::READABLE, || receive(stream, read, descriptors)).await.map_err(Broken::Io)?
            }
        };
        if count == 0 { Err(Broken::Ended { within }) } else { Ok(()) }
    }

    /// The next whole message without its length, if it has been read.
    pub(crate) fn message(&mut self) -> Result<Option<Bytes>, Broken> {
        let Some(word) = self.read.first_chunk::<4>() else { return Ok(None) };
        let length = frame::length(*word).map_err(Broken::Malformed)?;
        if self.read.len() < length {
            return Ok(None);
        }
        let mut message = self.read.split_to(length).freeze();
        message.advance(4);
        Ok(Some(message))
    }

    /// The descriptors of the message that was read last. Each comes with one byte behind the message (src/rpc/virnetsocket.c, `virNetSocketSendFD`).
    pub(crate) async fn descriptors(&mut self, count: usize) -> Result<Vec<OwnedFd>, Broken> {
        while self.read.len() < count {
            self.fill().await?;
        }
        self.read.advance(count);
        if self.descriptors.len() < count {
            return Err(Broken::Malformed(crate::xdr::Malformed { what: "a file descriptor that did not come", at: 0 }));
        }
        Ok(self.descriptors.drain(..count).collect())
    }
}

/// One read of a socket with what comes beside the bytes.
fn receive(stream: &UnixStream, read: &mut BytesMut, descriptors: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let start = read.len();
    read.resize(start + READ, 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(frame::DESCRIPTORS_MAX))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [io::IoSliceMut::new(&mut read[start..])], &mut beside, RecvFlags::CMSG_CLOEXEC);
    let count = received.as_ref().map_or(0, |received| received.bytes);
    read.truncate(start + count);
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if descriptors.len() > frame::DESCRIPTORS_MAX || received.as_ref().is_ok_and(|received| received.flags.contains(ReturnFlags::CTRUNC)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more file descriptors came than were announced"));
    }
    received?;
    Ok(count)
}

/// The end that is written.
pub(crate) enum Sink {
    Unix(Arc<UnixStream>),
    Pipe(Box<dyn AsyncWrite + Send + Unpin>),
}

impl Sink {
    /// Writes a message whole. Not to be given up half-way.
    pub(crate) async fn write(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Pipe(writer) => {
                writer.write_all(message).await?;
                writer.flush().await
            }
            Self::Unix(stream) => {
                let mut rest = message;
                while !rest.is_empty() {
                    stream.writable().await?;
                    match stream.try_write(rest) {
                        Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                        Ok(count) => rest = &rest[count..],
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
        }
    }
}
