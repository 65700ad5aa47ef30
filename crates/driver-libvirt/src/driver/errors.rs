//! libvirt's errors in our words: a stable code, what was being done, libvirt's own message, and what to do about it.

use std::io::ErrorKind;
use vmoon_core::{Code, Error};
use vmoon_libvirt_wire::{self as wire, ErrorCode};

/// What helps a user whom libvirt does not let in.
const LET_ME_IN: &str =
    "ask the administrator to put you into the group libvirt (usermod -aG libvirt YOU, then log in again), or use qemu:///session";

/// The error of a call that was to do `what` ("start the machine").
pub(crate) fn failed(what: &str, error: wire::Error) -> Error {
    let (code, hint) = judge(&error);
    let message = match &error {
        wire::Error::Refused(refusal) => format!("libvirt could not {what}: {}", refusal.message.trim()),
        wire::Error::Unreachable { to, kind: ErrorKind::NotFound, .. } => {
            format!("could not {what}: nothing listens at {to}; libvirt is not installed or not started")
        }
        wire::Error::Unreachable { to, kind: ErrorKind::PermissionDenied, .. } => {
            format!("could not {what}: this user may not open libvirt's socket {to}")
        }
        other => format!("could not {what}: {other}"),
    };
    let ours = Error::new(code, message);
    match hint {
        Some(hint) => ours.hint(hint),
        None => ours,
    }
}

fn judge(error: &wire::Error) -> (Code, Option<&'static str>) {
    match error {
        wire::Error::Unreachable { kind: ErrorKind::PermissionDenied, .. } | wire::Error::Authentication(_) => {
            (Code::ConnectionPermission, Some(LET_ME_IN))
        }
        wire::Error::Unreachable { kind: ErrorKind::NotFound | ErrorKind::ConnectionRefused, .. } => (
            Code::DriverUnreachable,
            Some("install and start it (Debian: apt-get install libvirt-daemon-system; systemctl start libvirtd); vmoon doctor tells more"),
        ),
        wire::Error::Unreachable { .. } | wire::Error::Closed(_) => (Code::DriverUnreachable, None),
        wire::Error::Deadline { .. } => {
            (Code::DriverUnreachable, Some("libvirt is very busy or hangs; journalctl -u libvirtd may say why"))
        }
        wire::Error::Malformed { .. } => (Code::WireMalformed, None),
        wire::Error::Refused(refusal) => refused(refusal.code, &refusal.message),
        _ => (Code::DriverFailed, None),
    }
}

fn refused(code: ErrorCode, message: &str) -> (Code, Option<&'static str>) {
    match code {
        ErrorCode::NO_DOMAIN => (Code::MachineBroken, None),
        ErrorCode::DOM_EXIST => (Code::MachineExists, None),
        ErrorCode::NO_DOMAIN_SNAPSHOT => (Code::SnapshotNotFound, None),
        ErrorCode::AUTH_FAILED | ErrorCode::OPERATION_DENIED => (Code::ConnectionPermission, Some(LET_ME_IN)),
        ErrorCode::AGENT_UNRESPONSIVE => {
            (Code::GuestAgent, Some("install qemu-guest-agent in the guest and start it; it may also be booting"))
        }
        ErrorCode::XML_ERROR | ErrorCode::XML_DETAIL | ErrorCode::XML_INVALID_SCHEMA | ErrorCode::CONFIG_UNSUPPORTED => {
            (Code::SpecInvalid, None)
        }
        // libvirt has no code of its own for these.
        ErrorCode::OPERATION_FAILED if message.contains("already exists with uuid") => (Code::MachineExists, None),
        ErrorCode::NO_SUPPORT | ErrorCode::OPERATION_UNSUPPORTED => (Code::DriverUnsupported, None),
        _ => (Code::DriverFailed, None),
    }
}

/// Says what was being done when a call failed.
pub(crate) trait Doing<T> {
    /// Turns libvirt's error into ours.
    fn doing(self, what: &str) -> vmoon_core::Result<T>;
}

impl<T> Doing<T> for wire::Result<T> {
    fn doing(self, what: &str) -> vmoon_core::Result<T> {
        self.map_err(|error| failed(what, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{ErrorDomain, Refusal};

    fn refusal(code: ErrorCode) -> Error {
        let refusal = Refusal { code, domain: ErrorDomain(10), message: "its words".into() };
        failed("start the machine", wire::Error::Refused(Box::new(refusal)))
    }

    #[test]
    fn codes_and_words_are_kept() {
        assert_eq!(refusal(ErrorCode::NO_DOMAIN).code(), Code::MachineBroken);
        assert_eq!(refusal(ErrorCode::AGENT_UNRESPONSIVE).code(), Code::GuestAgent);
        let error = refusal(ErrorCode::INTERNAL_ERROR);
        assert_eq!((error.code(), error.message()), (Code::DriverFailed, "libvirt could not start the machine: its words"));
    }

    #[test]
    fn who_is_not_let_in_learns_how() {
        let unreachable = |kind| wire::Error::Unreachable { to: "/run/libvirt/libvirt-sock".into(), kind, why: "x".into() };
        let denied = failed("connect", unreachable(ErrorKind::PermissionDenied));
        assert_eq!(denied.code(), Code::ConnectionPermission);
        assert!(denied.hint_text().is_some_and(|hint| hint.contains("group libvirt")));
        let absent = failed("connect", unreachable(ErrorKind::NotFound));
        assert!(absent.code() == Code::DriverUnreachable && absent.message().contains("not installed"));
        assert_eq!(failed("connect", wire::Error::Authentication("polkit".into())).code(), Code::ConnectionPermission);
    }
}
