//! Every error code, in one table: what it means, the exit code and HTTP status it maps to, and whether trying again helps.
//!
//! Programs match on the dotted text, which never changes once released. `docs/reference/errors.md` is printed from here.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Whether and when the same request can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not before something else is changed.
    Never,
    /// After the state of the machine, session or operation has changed.
    AfterChange,
    /// By itself, after a while.
    Later,
}

macro_rules! codes {
    ($($variant:ident $text:literal exit $exit:literal http $http:literal $retry:ident $meaning:literal;)*) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// Every code, in the order of the reference page.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The stable text, for example `machine.not_found`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }

            /// The exit status of the command line, as in `docs/reference/errors.md`.
            pub const fn exit(self) -> u8 {
                match self { $(Code::$variant => $exit,)* }
            }

            /// The HTTP status of the API.
            pub const fn http(self) -> u16 {
                match self { $(Code::$variant => $http,)* }
            }

            /// Whether trying again helps.
            pub const fn retry(self) -> Retry {
                match self { $(Code::$variant => Retry::$retry,)* }
            }

            /// One sentence for the reference page.
            pub const fn meaning(self) -> &'static str {
                match self { $(Code::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    Internal "internal" exit 1 http 500 Never "A defect of vmoon: please report it with the daemon's log.";
    Unknown "unknown" exit 1 http 500 Never "A code this version does not know, sent by a newer peer.";
    Usage "usage" exit 2 http 400 Never "The command line or the request is malformed.";
    NotFound "not_found" exit 3 http 404 Never "No such endpoint or thing.";
    Cancelled "cancelled" exit 130 http 409 Never "The caller asked to stop waiting or the operation was cancelled.";
    Permission "permission" exit 6 http 403 Never "The system refused access.";

    NameInvalid "name.invalid" exit 2 http 400 Never "The name does not match [A-Za-z0-9][A-Za-z0-9._-]{0,62}.";
    NameAmbiguous "name.ambiguous" exit 5 http 409 Never "The name or id prefix fits more than one thing.";

    SpecInvalid "spec.invalid" exit 2 http 422 Never "The specification of the machine has problems; all are listed.";
    RuntimeNotFound "runtime.not_found" exit 10 http 422 Never "The Lua interpreter asked for is not on this computer.";

    ConnectionNotFound "connection.not_found" exit 3 http 404 Never "No connection has that name or id.";
    ConnectionExists "connection.exists" exit 4 http 409 AfterChange "A connection of that name exists already.";
    ConnectionInUse "connection.in_use" exit 4 http 409 AfterChange "Machines we made live on the connection; delete or forget them first.";
    ConnectionPermission "connection.permission" exit 6 http 403 Never "The other side does not let this user in.";
    ConnectionAuth "connection.auth" exit 6 http 403 Never "The credentials were refused.";
    ConnectionUntrusted "connection.untrusted" exit 6 http 403 Never "The other side's key or certificate is not known, or has changed.";
    ConnectionLocked "connection.locked" exit 6 http 409 AfterChange "The connection waits for its secret after a restart.";

    HostNotFound "host.not_found" exit 3 http 404 Never "The connection has no host of that name or id.";

    MachineNotFound "machine.not_found" exit 3 http 404 Never "No machine has that name or id.";
    MachineExists "machine.exists" exit 4 http 409 AfterChange "The connection has a machine of that name already.";
    MachineBusy "machine.busy" exit 4 http 409 AfterChange "Another operation holds the machine.";
    MachineState "machine.state" exit 4 http 409 AfterChange "The machine's state does not allow this request.";
    MachineRunning "machine.running" exit 4 http 409 AfterChange "The machine runs; stop it first, or use --force.";
    MachineStopped "machine.stopped" exit 4 http 409 AfterChange "The machine does not run; start it first.";
    MachinePaused "machine.paused" exit 4 http 409 AfterChange "The machine is paused; resume it first.";
    MachineSuspended "machine.suspended" exit 4 http 409 AfterChange "The machine is suspended; resume it first.";
    MachineBroken "machine.broken" exit 4 http 409 AfterChange "The real thing behind the machine is missing; delete or forget it.";
    MachineGone "machine.gone" exit 3 http 410 Never "The machine was deleted or forgotten.";
    MachineNotCopyable "machine.not_copyable" exit 4 http 409 AfterChange "The machine has something that cannot be copied; all of it is listed.";
    MachineDidNotYield "machine.did_not_yield" exit 1 http 409 AfterChange "The machine ignored the interrupt and was ended.";

    SessionNotFound "session.not_found" exit 3 http 404 Never "No session has that name or id.";
    SessionExists "session.exists" exit 4 http 409 AfterChange "The machine has a session of that name already.";
    SessionEnded "session.ended" exit 4 http 409 Never "The session is over; its transcript can still be read.";
    SessionHeld "session.held" exit 7 http 409 Later "The session's machine cannot be reached now; the session is kept.";
    SessionBusy "session.busy" exit 4 http 409 AfterChange "Somebody else writes to the session.";
    SessionQueueFull "session.queue_full" exit 4 http 429 AfterChange "Too many commands wait in the session.";
    SessionNotWaiting "session.not_waiting" exit 4 http 409 AfterChange "No command of the session waits for input.";
    SessionChannel "session.channel" exit 9 http 422 Never "The machine has no such channel.";

    SnapshotNotFound "snapshot.not_found" exit 3 http 404 Never "The machine has no snapshot of that name.";
    SnapshotExists "snapshot.exists" exit 4 http 409 AfterChange "The machine has a snapshot of that name already.";

    DeviceNotFound "device.not_found" exit 3 http 404 Never "The machine has no device of that name.";
    DeviceInUse "device.in_use" exit 4 http 409 AfterChange "Something depends on the device, or the guest does not let it go.";

    GuestAgent "guest.agent" exit 7 http 503 Later "The guest's agent is not there or does not answer.";
    GuestNoLua "guest.no_lua" exit 10 http 422 Never "The guest has no Lua interpreter; a shell session works.";
    GuestNoAddress "guest.no_address" exit 7 http 503 Later "No address of the guest is known.";

    EnvironmentNotFound "environment.not_found" exit 3 http 404 Never "No environment has that name.";
    EnvironmentExists "environment.exists" exit 4 http 409 AfterChange "An environment of that name exists already.";
    EnvironmentBusy "environment.busy" exit 4 http 409 Later "Another operation changes the environment.";
    EnvironmentInUse "environment.in_use" exit 4 http 409 AfterChange "Machines use the environment; delete them or give them another one.";
    EnvironmentDamaged "environment.damaged" exit 1 http 422 AfterChange "Files of the environment differ from its lock; sync repairs it.";
    PackageNotFound "package.not_found" exit 3 http 404 Never "No server has a rock of that name or version.";
    PackageConflict "package.conflict" exit 4 http 409 Never "No choice of versions meets every constraint; the explanation names them.";
    PackageRequired "package.required" exit 4 http 409 AfterChange "Other rocks of the environment need it.";
    PackageInvalid "package.invalid" exit 1 http 422 Never "A manifest, rockspec or lock is malformed, or tried what it may not.";
    PackageChecksum "package.checksum" exit 1 http 422 Never "What was downloaded is not what the lock or the server promised.";
    PackageArchive "package.archive" exit 1 http 422 Never "An archive is damaged or would write outside its directory.";
    PackageBuild "package.build" exit 1 http 422 AfterChange "A rock could not be built; its transcript is kept.";
    PackageServer "package.server" exit 7 http 502 Later "A rocks server does not answer, or answers nonsense.";
    PackageOffline "package.offline" exit 7 http 503 AfterChange "It is not in the cache, and offline mode forbids to fetch it.";

    CommandNotFound "command.not_found" exit 3 http 404 Never "The session has no such command.";
    CommandFailed "command.failed" exit 1 http 422 Never "The command ended with an error of its own.";
    CommandIncomplete "command.incomplete" exit 1 http 422 Never "The chunk is unfinished: more input is needed.";
    CommandInterrupted "command.interrupted" exit 130 http 409 Never "The command was interrupted; the machine lives.";
    CommandDeadline "command.deadline" exit 8 http 409 Never "The command ran past its deadline and was interrupted; the machine lives.";
    CommandTooLarge "command.too_large" exit 2 http 413 Never "The code or input is larger than one frame may be (16 MiB).";
    CommandLost "command.lost" exit 1 http 409 Never "The machine ended before the command was answered.";

    OperationNotFound "operation.not_found" exit 3 http 404 Never "No operation has that id.";
    OperationEnded "operation.ended" exit 4 http 409 Never "The operation is over and cannot be cancelled.";
    OperationDeadline "operation.deadline" exit 1 http 409 AfterChange "The goal was not met when the operation's deadline passed.";
    OperationCancelled "operation.cancelled" exit 1 http 409 Never "The operation was cancelled or overtaken by another.";
    OperationFailed "operation.failed" exit 1 http 409 AfterChange "The operation ended with the machine in another state than asked for.";

    DriverUnreachable "driver.unreachable" exit 7 http 503 Later "The hypervisor or host does not answer.";
    DriverUnsupported "driver.unsupported" exit 9 http 422 Never "This kind of machine cannot do that.";
    DriverFailed "driver.failed" exit 1 http 502 AfterChange "The hypervisor or host refused.";

    EventsGap "events.gap" exit 1 http 410 Never "The events asked for are no longer kept; read the state anew.";
    StoreFailed "store.failed" exit 1 http 507 Later "The daemon could not write its store; nothing was changed.";
    StoreNewer "store.newer" exit 10 http 500 Never "The store was written by a newer vmoon.";

    WireVersion "wire.version" exit 7 http 426 Never "The two sides speak no common version.";
    WireMalformed "wire.malformed" exit 1 http 400 Never "The peer sent something that is not of the protocol.";
    WirePeer "wire.peer" exit 6 http 403 Never "The peer belongs to another user.";

    DaemonUnreachable "daemon.unreachable" exit 7 http 503 Later "The daemon does not answer and could not be started.";
    DaemonOther "daemon.other" exit 7 http 421 AfterChange "The daemon that listens there keeps another state directory than the one that was asked for.";
    DaemonRunning "daemon.running" exit 4 http 409 Never "Another daemon serves this user already.";
    DaemonStopping "daemon.stopping" exit 7 http 503 Later "The daemon is shutting down.";
    Timeout "timeout" exit 8 http 408 Later "The client stopped waiting; what it waited for goes on.";
    DoctorFailed "doctor.failed" exit 10 http 422 AfterChange "A requirement is not met.";
    FileNotFound "file.not_found" exit 3 http 404 Never "The machine has no such file.";
    FileRefused "file.refused" exit 6 http 422 Never "The path leaves the work directory, leads through a link, or names no ordinary file.";
    FileExists "file.exists" exit 4 http 409 AfterChange "Something else has that name already.";
    FileChanged "file.changed" exit 1 http 409 Later "The file became shorter while it was copied; nothing was kept.";
    QuotaExceeded "quota.exceeded" exit 4 http 429 AfterChange "The quota of config.toml is used up; nothing was changed.";
    ConfigInvalid "config.invalid" exit 2 http 500 Never "The configuration file has a mistake; its line is named.";
    FileFailed "file.failed" exit 1 http 500 Never "A file could not be read or written.";
    DiskFull "disk.full" exit 1 http 507 Later "No space is left; nothing was lost.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Code {
    type Err = std::convert::Infallible;
    /// Unknown text becomes [`Code::Unknown`]: the wire is additive.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Code::ALL.iter().copied().find(|code| code.as_str() == text).unwrap_or(Code::Unknown))
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Ok(text.parse().unwrap_or(Code::Unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_survive_the_wire() {
        let mut seen = std::collections::HashSet::new();
        for &code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code} stands twice");
            assert_eq!(code.as_str().parse::<Code>(), Ok(code));
            assert!(code.exit() != 0 && code.http() >= 400, "{code} would look like success");
        }
        assert_eq!("from.the.future".parse(), Ok(Code::Unknown));
    }
}
