//! A stream that a call opened: a console, a channel, a screenshot, the bytes of a volume. Read and written like any other; each has a connection of its
//! own, so that the kernel's socket buffers are its flow control and a slow one makes nobody else wait.
//!
//! Shutting down the writing side tells the daemon that all was written and waits for its word that all was kept. A stream that is dropped is given up.

use crate::{
    connection::Connection,
    error::{Error, Result},
    frame::{Header, Kind, STREAM_CHUNK, Status, VERSION},
    procedure::Procedure,
};
use bytes::{Buf as _, Bytes};
use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};

/// How many pieces wait to be read; each is at most 256 KiB.
pub(crate) const PIECES: usize = 8;

/// What came for a stream.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    /// Nothing more is to be read.
    End,
    /// The daemon has understood that we are done.
    Finished,
    Failed(Error),
}

type Room = Pin<Box<dyn Future<Output = Result<mpsc::OwnedPermit<Vec<u8>>, mpsc::error::SendError<()>>> + Send>>;

/// An open stream.
pub struct Stream {
    connection: Connection,
    procedure: Procedure,
    serial: u32,
    incoming: mpsc::Receiver<Piece>,
    rest: Bytes,
    read_end: bool,
    reader: Option<Waker>,
    room: Option<Room>,
    closing: Closing,
    failed: Option<Error>,
}

/// How far the end of writing is.
#[derive(Debug, PartialEq, Eq)]
enum Closing {
    Open,
    Asked,
    Done,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({}, {})", self.procedure.name(), self.serial)
    }
}

impl Stream {
    pub(crate) fn new(connection: Connection, procedure: Procedure, serial: u32, incoming: mpsc::Receiver<Piece>) -> Self {
        Self {
            connection,
            procedure,
            serial,
            incoming,
            rest: Bytes::new(),
            read_end: false,
            reader: None,
            room: None,
            closing: Closing::Open,
            failed: None,
        }
    }

    /// Why reading or writing failed, with libvirt's own words; reading and writing themselves can only say an [`io::Error`].
    pub fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    fn header(&self, status: Status) -> Header {
        Header {
            program: self.procedure.program(),
            version: VERSION,
            procedure: self.procedure.number(),
            kind: Kind::Stream,
            serial: self.serial,
            status,
        }
    }

    /// Room for one message in the queue.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<mpsc::OwnedPermit<Vec<u8>>>> {
        let connection = &self.connection;
        let room = self.room.get_or_insert_with(|| Box::pin(connection.outgoing().reserve_owned()));
        let room = ready!(room.as_mut().poll(cx));
        self.room = None;
        Poll::Ready(match room {
            Ok(room) => Ok(room),
            Err(_) => Err(self.fail(self.connection.closed())),
        })
    }

    fn fail(&mut self, error: Error) -> io::Error {
        let said = io_error(&error);
        self.failed.get_or_insert(error);
        said
    }

    fn failed(&self) -> io::Result<()> {
        self.failed.as_ref().map_or(Ok(()), |error| Err(io_error(error)))
    }
}

fn io_error(error: &Error) -> io::Error {
    let kind = match error {
        Error::Closed(_) => io::ErrorKind::ConnectionAborted,
        Error::Malformed { .. } => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.clone())
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.rest.has_remaining() {
                let count = self.rest.len().min(into.remaining());
                into.put_slice(&self.rest[..count]);
                self.rest.advance(count);
                return Poll::Ready(Ok(()));
            }
            if self.read_end {
                return Poll::Ready(Ok(()));
            }
            self.failed()?;
            let Poll::Ready(piece) = self.incoming.poll_recv(cx) else {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            match piece {
                Some(Piece::Data(data)) => self.rest = data,
                Some(Piece::End) => self.read_end = true,
                Some(Piece::Finished) => self.finished(),
                Some(Piece::Failed(error)) => return Poll::Ready(Err(self.fail(error))),
                None => {
                    let closed = self.connection.closed();
                    return Poll::Ready(Err(self.fail(closed)));
                }
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.failed()?;
        if self.closing != Closing::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // An error of the daemon's must not wait until somebody reads: whoever only writes would never hear it.
        self.come_failure()?;
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(cx))?;
        let count = data.len().min(STREAM_CHUNK);
        let message = self.header(Status::Continue).message(&data[..count]).map_err(io::Error::other)?;
        room.send(message);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was taken is in the queue of the connection, which is written as fast as the daemon reads.
        Poll::Ready(self.failed())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.failed()?;
        if self.closing == Closing::Open {
            let room = ready!(self.poll_room(cx))?;
            let message = self.header(Status::Ok).message(&[]).map_err(io::Error::other)?;
            room.send(message);
            self.closing = Closing::Asked;
        }
        while self.closing == Closing::Asked {
            // What still comes is from before the daemon heard of the end; nobody wants it.
            match ready!(self.incoming.poll_recv(cx)) {
                Some(Piece::Data(_) | Piece::End) => {}
                Some(Piece::Finished) => self.finished(),
                Some(Piece::Failed(error)) => return Poll::Ready(Err(self.fail(error))),
                None => {
                    let closed = self.connection.closed();
                    return Poll::Ready(Err(self.fail(closed)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Stream {
    /// Looks for an error among what has come. While the reader has nothing left to read, the next piece is taken in its place; no waker is left, for
    /// that is the reader's.
    fn come_failure(&mut self) -> io::Result<()> {
        while !self.rest.has_remaining() && !self.read_end {
            match self.incoming.try_recv() {
                Ok(Piece::Data(data)) => self.rest = data,
                Ok(Piece::End) => self.read_end = true,
                Ok(Piece::Finished) => self.finished(),
                Ok(Piece::Failed(error)) => return Err(self.fail(error)),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return Err(self.fail(self.connection.closed())),
            }
        }
        Ok(())
    }

    fn finished(&mut self) {
        self.closing = Closing::Done;
        self.read_end = true;
        // The reader may be another task, whose waker the end of writing has displaced.
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}
