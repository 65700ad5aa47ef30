//! What can go wrong, told apart by what follows from it: another member may be asked after a broken connection, never after a refusal.

use crate::trust::Fingerprint;
use std::{fmt, io, time::Duration};

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure that XAPI answered: a code of its own and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For example `VM_BAD_POWER_STATE`. Codes that a newer XAPI has are passed on as they are.
    pub code: String,
    /// What it is about, in the order that the data model says; may be fewer or more than that.
    pub params: Vec<String>,
}

impl Failure {
    /// Whether it has this code.
    pub fn is(&self, code: &str) -> bool {
        self.code == code
    }

    /// The parameter of that index, if there is one.
    pub fn param(&self, index: usize) -> Option<&str> {
        self.params.get(index).map(String::as_str)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        match self.params.as_slice() {
            [] => Ok(()),
            params => write!(f, " ({})", params.join(", ")),
        }
    }
}

/// Why something did not work.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// XAPI refused.
    Xapi(Failure),
    /// The certificate is signed by nobody we trust, and no pin is known for this host.
    Untrusted {
        /// Whose.
        host: String,
        /// Of its certificate.
        found: Fingerprint,
        /// What the check said.
        why: String,
    },
    /// The certificate is not the one that was pinned.
    Changed {
        /// Whose.
        host: String,
        /// The pinned one.
        pinned: Fingerprint,
        /// The one it shows now.
        found: Fingerprint,
    },
    /// It answers, and is no XAPI, or one that could not read us: XAPI answers such requests with an HTML page.
    Http {
        /// The HTTP status.
        status: u16,
        /// The beginning of the answer, without tags.
        text: String,
    },
    /// What it answers is not of the protocol.
    Protocol(String),
    /// The connection could not be made or was lost: whether a call that was sent has run is not known.
    Connection {
        /// To whom.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// It took longer than allowed; it may still run.
    Deadline {
        /// What.
        what: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The request is larger than XAPI takes (300 KiB): it would close the connection without an answer.
    TooLarge {
        /// Bytes.
        size: usize,
    },
    /// What is sent from or written to on this side failed.
    Local(io::Error),
    /// The caller asked to stop.
    Cancelled,
}

impl Error {
    /// XAPI's own failure, if that is what it is.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Error::Xapi(failure) => Some(failure),
            _ => None,
        }
    }

    /// Whether XAPI answered with this code.
    pub fn is(&self, code: &str) -> bool {
        self.failure().is_some_and(|failure| failure.is(code))
    }

    /// Whether another member of the pool might do better.
    pub fn is_of_the_connection(&self) -> bool {
        matches!(self, Error::Connection { .. } | Error::Deadline { .. }) || self.is("HOST_STILL_BOOTING")
    }

    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Error::Protocol(what.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Xapi(failure) => write!(f, "{failure}"),
            Error::Untrusted { host, found, why } => write!(f, "the certificate of {host} is not trusted ({why}); its SHA-256 is {found}"),
            Error::Changed { host, pinned, found } => {
                write!(f, "the certificate of {host} has changed: pinned is {pinned}, it shows {found}")
            }
            Error::Http { status, text } => write!(f, "it answers with HTTP status {status}, which is not XAPI: {text}"),
            Error::Protocol(what) => write!(f, "it answers what is not of the protocol: {what}"),
            Error::Connection { host, .. } => write!(f, "the connection to {host} failed"),
            Error::Deadline { what, waited } => write!(f, "{what} was not answered within {} s", waited.as_secs_f32()),
            Error::TooLarge { size } => write!(f, "the request has {size} bytes; XAPI takes no more than {}", crate::rpc::MAX_REQUEST),
            Error::Local(source) => write!(f, "reading or writing on this side failed: {source}"),
            Error::Cancelled => f.write_str("it was cancelled"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Connection { source, .. } | Error::Local(source) => Some(source),
            _ => None,
        }
    }
}
