//! What XAPI says, in our codes.

use serde_json::json;
use vmoon_core::{Code, Error, name::escape};
use vmoon_xapi::{Error as Xapi, Failure};

/// While doing `what`.
pub(crate) fn told(what: &str, error: Xapi) -> Error {
    match error {
        Xapi::Xapi(failure) => refused(what, &failure),
        Xapi::Untrusted { host, found, why } => {
            Error::new(Code::ConnectionUntrusted, format!("{host} shows a certificate that is not trusted: {why}"))
                .hint(format!("compare SHA256:{found} with the host's own, then accept it: --accept-fingerprint SHA256:{found}"))
                .detail(json!({ "host": host, "fingerprint": format!("SHA256:{found}") }))
        }
        Xapi::Changed { host, pinned, found } => {
            Error::new(Code::ConnectionUntrusted, format!("the certificate of {host} has changed from SHA256:{pinned} to SHA256:{found}"))
                .hint("hosts make a new one when they are installed anew or asked to; if nobody did, somebody is in between")
                .detail(json!({ "host": host, "fingerprint": format!("SHA256:{found}"), "expected": format!("SHA256:{pinned}") }))
        }
        Xapi::Http { status, text } => {
            Error::new(Code::WireMalformed, format!("it answers with HTTP status {status} and is no XAPI: {}", escape(&text)))
                .hint("give the address of an XCP-ng or XenServer host")
        }
        Xapi::Deadline { what: call, waited } => {
            Error::new(Code::DriverUnreachable, format!("{what}: {call} was not answered within {} s", waited.as_secs()))
                .hint("a dead member of the pool can block calls to the others for minutes")
        }
        Xapi::Cancelled => Error::new(Code::OperationCancelled, format!("{what} was cancelled")),
        Xapi::Connection { host, source } => {
            Error::new(Code::DriverUnreachable, format!("{what}: the connection to {} failed", escape(&host))).source(source)
        }
        other @ (Xapi::Protocol(_) | Xapi::TooLarge { .. } | _) => {
            Error::new(Code::WireMalformed, format!("{what}: {}", escape(&other.to_string())))
        }
    }
}

/// What refusals mean whose parameters add nothing: XAPI's code, ours, why, and what to do.
const PLAIN: &[(&str, Code, &str, &str)] = &[
    (
        "SESSION_AUTHENTICATION_FAILED",
        Code::ConnectionAuth,
        "the host refuses this user and password",
        "give the right one with --password-stdin; of a connection that is there: vmoon connection login NAME --password-stdin",
    ),
    ("RBAC_PERMISSION_DENIED", Code::ConnectionPermission, "this user may not do that", "log in as a user with a role that may"),
    ("SESSION_INVALID", Code::DriverUnreachable, "the session had ended; there is a new one", "try again"),
    ("HOST_STILL_BOOTING", Code::DriverUnreachable, "the host is still starting", "try again in a while"),
    ("HOST_IS_SLAVE", Code::DriverUnreachable, "the pool has another coordinator now", "try again"),
    ("VM_LACKS_FEATURE", Code::GuestAgent, NO_TOOLS, FORCE),
    ("VM_LACKS_FEATURE_SHUTDOWN", Code::GuestAgent, NO_TOOLS, FORCE),
    ("VM_LACKS_FEATURE_SUSPEND", Code::GuestAgent, RESTLESS, REST),
    ("VM_MISSING_PV_DRIVERS", Code::GuestAgent, NO_TOOLS, FORCE),
    ("VM_OLD_PV_DRIVERS", Code::GuestAgent, "the guest's tools are too old for that", "install newer ones in the guest"),
    ("SR_FULL", Code::DiskFull, "the storage repository is full", OTHER_SR),
    ("SR_BACKEND_FAILURE_44", Code::DiskFull, "the storage repository is full", OTHER_SR),
    ("VDI_TOO_LARGE", Code::SpecInvalid, "the disk is too large for its storage repository", OTHER_SR),
    ("NO_HOSTS_AVAILABLE", Code::DriverFailed, "no host of the pool can run it", ROOM),
    ("HOST_NOT_ENOUGH_FREE_MEMORY", Code::DriverFailed, "the host has too little free memory", ROOM),
    ("HOST_NOT_ENOUGH_PCPUS", Code::DriverFailed, "the host has too few processors", "give the VM fewer: vmoon set NAME cpus=N"),
    ("HOST_DISABLED", Code::DriverFailed, "the host is disabled, as it is for maintenance", "enable it, or choose another one"),
    ("HOST_OFFLINE", Code::DriverFailed, "the host does not answer the pool", "look at the host"),
    ("HOST_NOT_LIVE", Code::DriverFailed, "the host does not answer the pool", "look at the host"),
    ("HOST_IN_EMERGENCY_MODE", Code::DriverUnreachable, "the host has lost its pool's coordinator", "look at the coordinator"),
    (
        "VM_REQUIRES_SR",
        Code::DriverFailed,
        "the host does not reach the storage of its disks",
        "put its disks on shared storage, or plug the repository into that host",
    ),
    (
        "HOST_CANNOT_SEE_SR",
        Code::DriverFailed,
        "the host does not reach the storage of its disks",
        "put its disks on shared storage, or plug the repository into that host",
    ),
    (
        "VM_REQUIRES_NETWORK",
        Code::DriverFailed,
        "the host is not connected to its network",
        "connect that host, or give the VM another network",
    ),
    ("VM_REQUIRES_GPU", Code::DriverFailed, "the host has no graphics processor of the kind that it has", "choose another host"),
    (
        "VM_HVM_REQUIRED",
        Code::DriverFailed,
        "the host's processor cannot run VMs like it",
        "switch virtualization on in the host's firmware",
    ),
    (
        "VM_INCOMPATIBLE_WITH_THIS_HOST",
        Code::DriverFailed,
        "the host's processor lacks features that it was started with",
        "stop it, and start it there",
    ),
    ("VM_HAS_PCI_ATTACHED", Code::DriverFailed, "it has a PCI device of its host", "take it away first"),
    ("VM_HAS_VGPU", Code::DriverFailed, "it has a graphics processor of its host", "take it away first"),
    ("VM_HAS_VUSBS", Code::DriverFailed, "it has a USB device of its host", "take it away first"),
    ("VM_NO_SUSPEND_SR", Code::DriverFailed, "the pool has no storage for suspended VMs", "set the pool's suspend_image_SR"),
    ("VM_CANNOT_DELETE_DEFAULT_TEMPLATE", Code::DriverFailed, "it is a template of the product", "those stay"),
    ("VM_IS_PROTECTED", Code::DriverFailed, "high availability protects it", PROTECTED),
    ("VM_IS_USING_NESTED_VIRT", Code::DriverFailed, "it runs VMs itself", "stop those first"),
    (
        "HA_OPERATION_WOULD_BREAK_FAILOVER_PLAN",
        Code::DriverFailed,
        "the pool could then not restart every protected VM if a host failed",
        PROTECTED,
    ),
    ("HA_NOT_ENOUGH_RESOURCES", Code::DriverFailed, "the pool could then not restart every protected VM if a host failed", PROTECTED),
    (
        "HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED",
        Code::DriverFailed,
        "high availability protects it, and its disks would be on storage of one host",
        PROTECTED,
    ),
    (
        "HA_CONSTRAINT_VIOLATION_NETWORK_NOT_SHARED",
        Code::DriverFailed,
        "high availability protects it, and its network would be one of one host",
        PROTECTED,
    ),
    ("LICENCE_RESTRICTION", Code::DriverFailed, "the pool's licence does not include that", ""),
    ("FEATURE_RESTRICTED", Code::DriverFailed, "the pool's licence does not include that", ""),
    ("DEVICE_DETACH_REJECTED", Code::DeviceInUse, "the guest does not let go of it", "unmount it in the guest, or stop the machine first"),
    ("DEVICE_DETACH_TIMEOUT", Code::DeviceInUse, "the guest does not let go of it", "unmount it in the guest, or stop the machine first"),
    ("VBD_TRAY_LOCKED", Code::DeviceInUse, "the guest has locked the drive", "eject it in the guest"),
    ("VDI_IN_USE", Code::DeviceInUse, "the disk is in use", "stop the machine first"),
    ("VDI_INCOMPATIBLE_TYPE", Code::DriverFailed, "the storage repository cannot do that with disks of this kind", ""),
    ("MEMORY_CONSTRAINT_VIOLATION_ORDER", Code::SpecInvalid, "its memory cannot be that", "give it at least what its template asks for"),
    ("MAC_INVALID", Code::SpecInvalid, "that is no hardware address", "for example 02:00:00:00:00:01"),
    ("MESSAGE_METHOD_UNKNOWN", Code::DriverUnsupported, "the pool's release does not know that call", "update the pool"),
    ("NOT_IMPLEMENTED", Code::DriverUnsupported, "the pool cannot do that", ""),
    ("PROVISION_ONLY_ALLOWED_ON_TEMPLATE", Code::DriverFailed, "somebody has made it a VM meanwhile", "try again"),
    ("TOO_MANY_PENDING_TASKS", Code::DriverFailed, "the pool has too many tasks", "try again in a while"),
];
const NO_TOOLS: &str = "the guest's tools are not there, or not yet";
const FORCE: &str = "install them in the guest, or end it by force: stop --force";
const RESTLESS: &str = "its guest takes no part in being suspended: its tools are not there, or not yet, or cannot do that";
const REST: &str = "install them in the guest or wait until they are up; `vmoon pause` stops it where it is, and a snapshot without --memory keeps its disks";
const OTHER_SR: &str = "choose another: --set sr=NAME; `vmoon connection show` says which have room";
const ROOM: &str = "free memory, enable a host, or give the VM less";
const PROTECTED: &str = "take it out of high availability first, or add a host";

/// A refusal of XAPI: its own code and parameters are in the message and in the detail.
fn refused(what: &str, failure: &Failure) -> Error {
    let shown = escape(&failure.to_string());
    let with = |code: Code, why: &str| Error::new(code, format!("{what}: {why}"));
    let first = escape(failure.param(0).unwrap_or_default());
    let error = match failure.code.as_str() {
        "VM_BAD_POWER_STATE" => {
            let now = failure.param(2).unwrap_or("in another state");
            with(Code::MachineState, &format!("the VM is {}", escape(now)))
        }
        "HANDLE_INVALID" | "UUID_INVALID" if failure.param(0) == Some("VM") => with(Code::MachineBroken, "the pool has no such VM"),
        "HANDLE_INVALID" | "UUID_INVALID" => with(Code::DriverFailed, &format!("the pool has no such {first} any more ({shown})"))
            .hint("somebody has removed it meanwhile; look again: vmoon connection show"),
        "OPERATION_BLOCKED" => {
            with(Code::DriverFailed, &format!("somebody has blocked that: {}", escape(failure.param(1).unwrap_or_default())))
                .hint("lift it with the pool's own tools: VM.remove_from_blocked_operations")
        }
        "OPERATION_NOT_ALLOWED" => with(Code::DriverFailed, &format!("that is not allowed now: {first}")),
        "OTHER_OPERATION_IN_PROGRESS" => with(Code::MachineBusy, "another operation holds it").hint("try again when that is over"),
        "DEVICE_ALREADY_EXISTS" => with(Code::DriverFailed, &format!("it has a device {first} already")),
        "DUPLICATE_VM" | "MAC_STILL_EXISTS" => with(Code::SpecInvalid, &format!("the hardware address {first} is in use")),
        code => match PLAIN.iter().find(|(theirs, ..)| *theirs == code) {
            Some((_, ours, why, "")) => with(*ours, why),
            Some((_, ours, why, hint)) => with(*ours, why).hint(*hint),
            None if code.starts_with("SR_BACKEND_FAILURE") => {
                let said = escape(failure.param(1).filter(|text| !text.is_empty()).or(failure.param(2)).unwrap_or_default());
                with(Code::DriverFailed, &format!("the storage repository fails: {said} ({})", escape(code)))
                    .hint("the host's /var/log/SMlog says more")
            }
            None => with(Code::DriverFailed, &format!("the pool refuses: {shown}")),
        },
    };
    error.detail(json!({ "xapi": failure.code, "params": failure.params }))
}

/// Tells that what is in a VM's memory cannot be kept. XAPI has one code for all that needs the guest's help.
pub(crate) fn restless(what: &str, error: Error) -> Error {
    match theirs(&error) {
        Some("VM_LACKS_FEATURE") => {
            let detail = error.detail_value().cloned().unwrap_or_default();
            Error::new(Code::GuestAgent, format!("{what}: {RESTLESS}")).hint(REST).detail(detail)
        }
        _ => error,
    }
}

/// XAPI's own code of a refusal that was told.
pub(crate) fn theirs(error: &Error) -> Option<&str> {
    error.detail_value()?.get("xapi")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_says_so_once() {
        let source = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "refused");
        let error = told("read every VM", Xapi::Connection { host: "xcp1:443".into(), source });
        let said = error.chain().to_string();
        assert_eq!((error.code(), said.as_str()), (Code::DriverUnreachable, "read every VM: the connection to xcp1:443 failed: refused"));
    }

    #[test]
    fn refusals_have_codes_of_ours_and_keep_theirs() {
        for (words, code, part) in [
            (vec!["VM_BAD_POWER_STATE", "r", "halted", "running"], Code::MachineState, "running"),
            (vec!["HANDLE_INVALID", "VM", "r"], Code::MachineBroken, "no such VM"),
            (vec!["HANDLE_INVALID", "SR", "r"], Code::DriverFailed, "no such SR any more (HANDLE_INVALID (SR, r))"),
            (vec!["HA_OPERATION_WOULD_BREAK_FAILOVER_PLAN"], Code::DriverFailed, "restart every protected VM"),
            (vec!["OPERATION_BLOCKED", "r", "ask <ada>"], Code::DriverFailed, "blocked that: ask <ada>"),
            (
                vec!["SR_BACKEND_FAILURE_47", "", "SR not available", ""],
                Code::DriverFailed,
                "fails: SR not available (SR_BACKEND_FAILURE_47)",
            ),
            (vec!["SR_FULL", "1", "2"], Code::DiskFull, "full"),
            (vec!["FROM_THE_FUTURE", "a\u{1b}[2J"], Code::DriverFailed, "FROM_THE_FUTURE (a\\u{1b}[2J)"),
        ] {
            let failure = Failure { code: words[0].into(), params: words[1..].iter().map(|word| (*word).to_owned()).collect() };
            let error = told("start", Xapi::Xapi(failure));
            assert_eq!(error.code(), code, "{words:?}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
