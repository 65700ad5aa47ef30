//! Identifiers. Each is a UUID of version 7, made by whoever first needs the thing, before the thing exists.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// An identifier from a UUID that the caller made.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID itself.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(text).map(Self)
            }
        }
    )*};
}

ids! {
    /// Names a connection to one hypervisor, host or the local computer.
    ConnectionId;
    /// Names a machine for its whole life; stored and tagged on the real thing before anything is created.
    MachineId;
    /// Names one session: one life of one channel of one machine.
    SessionId;
    /// Names one operation on a machine or an environment.
    OperationId;
}

impl MachineId {
    /// No machine: of an operation on something else.
    pub const NONE: Self = Self(Uuid::nil());
}

/// Names one command of a session: `SESSION.NUMBER`, numbered from 1 in the order the machine accepted them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId {
    /// The session that runs the command.
    pub session: SessionId,
    /// Its number within the session, from 1.
    pub number: u64,
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.number)
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandId({self})")
    }
}

impl FromStr for CommandId {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHAT: &str = "a command id looks like SESSION-UUID.NUMBER";
        let (session, number) = text.split_once('.').ok_or(WHAT)?;
        Ok(Self { session: session.parse().map_err(|_| WHAT)?, number: number.parse().map_err(|_| WHAT)? })
    }
}

impl Serialize for CommandId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CommandId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
