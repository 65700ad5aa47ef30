//! What can go wrong, and libvirt's own words about it.

use crate::{
    types::{Domain, Network},
    xdr::{Decode, Decoder, Malformed},
};
use std::{fmt, io, sync::Arc, time::Duration};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call has no result.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// libvirt refused or failed, and says why.
    Refused(Box<Refusal>),
    /// No connection could be made.
    Unreachable {
        /// To what: a path, a command.
        to: String,
        /// What kind of failure.
        kind: io::ErrorKind,
        /// The system's words.
        why: String,
    },
    /// libvirt wants to know who we are in a way that is not possible.
    Authentication(String),
    /// The connection ended, with this call or before it. Whether the call took effect is not known.
    Closed(Arc<str>),
    /// No answer came in time. Whether the call took or will take effect is not known.
    Deadline {
        /// What was called.
        procedure: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The answer is not what the protocol says.
    Malformed {
        /// What was called.
        procedure: &'static str,
        /// What is wrong with the answer.
        why: Malformed,
    },
    /// What was asked cannot be put into a message; nothing was sent.
    Invalid {
        /// What was called.
        procedure: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

impl Error {
    /// What libvirt said, if it was libvirt who refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        if let Self::Refused(refusal) = self { Some(refusal) } else { None }
    }

    /// libvirt's number of the error, if it was libvirt who refused.
    pub fn code(&self) -> Option<ErrorCode> {
        self.refusal().map(|refusal| refusal.code)
    }

    /// Whether what was asked for does not exist: a domain, network, pool, volume, snapshot, device or metadata.
    pub fn is_not_found(&self) -> bool {
        self.code().is_some_and(|code| {
            [
                ErrorCode::NO_DOMAIN,
                ErrorCode::NO_NETWORK,
                ErrorCode::NO_STORAGE_POOL,
                ErrorCode::NO_STORAGE_VOL,
                ErrorCode::NO_NODE_DEVICE,
                ErrorCode::NO_DOMAIN_SNAPSHOT,
                ErrorCode::NO_DOMAIN_METADATA,
                ErrorCode::DEVICE_MISSING,
            ]
            .contains(&code)
        })
    }

    /// Whether this libvirt, or the driver in it, does not know the procedure.
    pub fn is_unsupported(&self) -> bool {
        self.code().is_some_and(|code| [ErrorCode::NO_SUPPORT, ErrorCode::OPERATION_UNSUPPORTED].contains(&code))
    }

    /// Whether the connection is of no more use.
    pub fn is_connection(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::Unreachable { .. } | Self::Authentication(_))
    }

    pub(crate) fn unreachable(to: &str, error: &io::Error) -> Self {
        Self::Unreachable { to: to.to_owned(), kind: error.kind(), why: error.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Unreachable { to, why, .. } => write!(f, "libvirt cannot be reached at {to}: {why}"),
            Self::Authentication(why) => f.write_str(why),
            Self::Closed(why) => write!(f, "the connection to libvirt ended: {why}"),
            Self::Deadline { procedure, after } => write!(f, "libvirt did not answer {procedure} within {} ms", after.as_millis()),
            Self::Malformed { procedure, why } => write!(f, "libvirt's answer to {procedure} is not valid: {why}"),
            Self::Invalid { procedure, why } => write!(f, "{procedure} cannot be asked: {why}"),
        }
    }
}

impl std::error::Error for Error {}

/// An error of libvirt's (`virNetMessageError` in src/rpc/virnetprotocol.x).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which error.
    pub code: ErrorCode,
    /// Which part of libvirt it comes from.
    pub domain: ErrorDomain,
    /// What libvirt says about it.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.message, self.code, self.domain)
    }
}

impl Decode for Refusal {
    const LEAST: usize = 44;
    fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let (code, domain) = (i32::decode(from)?, i32::decode(from)?);
        let message: Option<String> = Decode::decode(from)?;
        let _level = i32::decode(from)?;
        let _unused: Option<Domain> = Decode::decode(from)?;
        let _texts: (Option<String>, Option<String>, Option<String>) = Decode::decode(from)?;
        let _numbers: (i32, i32) = Decode::decode(from)?;
        let _unused: Option<Network> = Decode::decode(from)?;
        let message = message.unwrap_or_else(|| "no reason was given".to_owned());
        // So does libvirt's own client (src/rpc/virnetclientprogram.c): an older daemon says it in this way.
        let unknown = code == ErrorCode::RPC.0 && message.starts_with("unknown procedure");
        let code = if unknown { ErrorCode::NO_SUPPORT } else { ErrorCode(code) };
        Ok(Self { code, domain: ErrorDomain(domain), message })
    }
}

macro_rules! numbers {
    ($(#[$doc:meta])* $type:ident, $prefix:literal { $($name:ident = $number:literal, $text:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $type(pub i32);

        impl $type {
            $(#[doc = $text] pub const $name: Self = Self($number);)+

            /// Its name in libvirt, if it is one that we know.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($number => Some(concat!($prefix, stringify!($name))),)+ _ => None }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!($prefix, "{}"), self.0),
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

numbers! {
    /// The number of an error of libvirt's (`virErrorNumber` in include/libvirt/virterror.h of libvirt 9.0.0).
    ErrorCode, "VIR_ERR_" {
        INTERNAL_ERROR = 1, "Something that should not happen, or QEMU's own error.";
        NO_MEMORY = 2, "libvirt has no memory.";
        NO_SUPPORT = 3, "The driver has no such function.";
        UNKNOWN_HOST = 4, "A host's name is not known.";
        NO_CONNECT = 5, "The hypervisor cannot be reached.";
        INVALID_CONN = 6, "Not a connection.";
        INVALID_DOMAIN = 7, "Not a domain.";
        INVALID_ARG = 8, "An argument is not valid.";
        OPERATION_FAILED = 9, "The hypervisor failed.";
        OS_TYPE = 16, "Unknown type of operating system.";
        NO_KERNEL = 17, "The kernel is missing.";
        NO_SOURCE = 19, "A device has no source.";
        NO_NAME = 21, "A name is missing.";
        XML_ERROR = 27, "XML that is not well-formed or lacks something.";
        DOM_EXIST = 28, "The domain exists already.";
        OPERATION_DENIED = 29, "The connection is read-only.";
        OPEN_FAILED = 30, "A file of libvirt's cannot be opened.";
        XML_DETAIL = 35, "A detail of the XML.";
        INVALID_NETWORK = 36, "Not a network.";
        NETWORK_EXIST = 37, "The network exists already.";
        SYSTEM_ERROR = 38, "A system call failed.";
        RPC = 39, "The protocol was violated, or the connection failed.";
        NO_DOMAIN = 42, "There is no such domain.";
        NO_NETWORK = 43, "There is no such network.";
        INVALID_MAC = 44, "Not a hardware address.";
        AUTH_FAILED = 45, "Authentication failed.";
        INVALID_STORAGE_POOL = 46, "Not a storage pool.";
        INVALID_STORAGE_VOL = 47, "Not a storage volume.";
        NO_STORAGE_POOL = 49, "There is no such storage pool.";
        NO_STORAGE_VOL = 50, "There is no such volume.";
        NO_NODE_DEVICE = 53, "The host has no such device.";
        OPERATION_INVALID = 55, "Not possible in this state.";
        CONFIG_UNSUPPORTED = 67, "This configuration is not supported.";
        OPERATION_TIMEOUT = 68, "libvirt itself waited too long.";
        INVALID_DOMAIN_SNAPSHOT = 71, "Not a snapshot.";
        NO_DOMAIN_SNAPSHOT = 72, "There is no such snapshot.";
        INVALID_STREAM = 73, "Not a stream.";
        ARGUMENT_UNSUPPORTED = 74, "The driver does not know this argument.";
        STORAGE_PROBE_FAILED = 75, "A storage pool could not be probed.";
        SNAPSHOT_REVERT_RISKY = 77, "Going back to this snapshot may lose data; it was not forced.";
        OPERATION_ABORTED = 78, "Somebody aborted it.";
        AUTH_CANCELLED = 79, "Authentication was given up.";
        NO_DOMAIN_METADATA = 80, "There are no such metadata.";
        OVERFLOW = 82, "A number is too large.";
        BLOCK_COPY_ACTIVE = 83, "A block job is in the way.";
        OPERATION_UNSUPPORTED = 84, "The driver cannot do it.";
        AGENT_UNRESPONSIVE = 86, "The guest agent does not answer.";
        RESOURCE_BUSY = 87, "Somebody else uses it.";
        ACCESS_DENIED = 88, "Access control refused.";
        DBUS_SERVICE = 89, "A service on the bus failed.";
        STORAGE_VOL_EXIST = 90, "The volume exists already.";
        CPU_INCOMPATIBLE = 91, "The host's processor cannot do it.";
        XML_INVALID_SCHEMA = 92, "The XML is not what the schema says.";
        AUTH_UNAVAILABLE = 94, "Nobody is there who could authenticate.";
        AGENT_UNSYNCED = 97, "The guest agent answers something else.";
        DEVICE_MISSING = 99, "There is no such device.";
        NO_HOSTNAME = 108, "No host name was found.";
        MULTIPLE_DOMAINS = 110, "More than one domain fits.";
    }
}

numbers! {
    /// Which part of libvirt an error comes from (`virErrorDomain` in include/libvirt/virterror.h of libvirt 9.0.0).
    ErrorDomain, "VIR_FROM_" {
        NONE = 0, "No part in particular.";
        XML = 5, "XML.";
        DOM = 6, "Domains.";
        RPC = 7, "The protocol.";
        CONF = 9, "Configuration files.";
        QEMU = 10, "The QEMU driver.";
        TEST = 12, "The test driver.";
        REMOTE = 13, "The remote driver.";
        STORAGE = 18, "Storage.";
        NETWORK = 19, "Networks.";
        DOMAIN = 20, "The configuration of domains.";
        NODEDEV = 22, "The host's devices.";
        SECURITY = 24, "The security drivers.";
        INTERFACE = 26, "The host's interfaces.";
        SECRET = 30, "Secrets.";
        CPU = 31, "The model of processors.";
        NWFILTER = 33, "Network filters.";
        HOOK = 34, "Hooks.";
        DOMAIN_SNAPSHOT = 35, "Snapshots.";
        STREAMS = 38, "Streams.";
        EVENT = 40, "Events.";
        LOCKING = 42, "Locks.";
        CAPABILITIES = 44, "Capabilities.";
        URI = 45, "URIs.";
        AUTH = 46, "Authentication.";
        DBUS = 47, "The bus.";
        DEVICE = 49, "Devices.";
        SSH = 50, "SSH.";
        CGROUP = 54, "Control groups.";
        ACCESS = 55, "Access control.";
        FIREWALL = 59, "The firewall.";
        POLKIT = 60, "Polkit.";
        LOGGING = 63, "The log daemon.";
        TPM = 70, "Trusted platform modules.";
    }
}
