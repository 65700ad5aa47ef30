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
        other @ (Xapi::Connection { .. } | Xapi::Protocol(_) | Xapi::TooLarge { .. } | _) => {
            let code = if matches!(other, Xapi::Connection { .. }) { Code::DriverUnreachable } else { Code::WireMalformed };
            Error::new(code, format!("{what}: {}", escape(&other.to_string()))).source(other)
        }
    }
}

/// A refusal of XAPI: its own code and parameters are in the message and in the detail.
fn refused(what: &str, failure: &Failure) -> Error {
    let shown = escape(&failure.to_string());
    let with = |code: Code, why: &str| Error::new(code, format!("{what}: {why}"));
    let error = match failure.code.as_str() {
        "SESSION_AUTHENTICATION_FAILED" => {
            with(Code::ConnectionAuth, "the host refuses this user and password").hint("give the right one: vmoon connection login")
        }
        "RBAC_PERMISSION_DENIED" => with(Code::ConnectionPermission, "this user may not do that"),
        "SESSION_INVALID" => with(Code::DriverUnreachable, "the session had ended; there is a new one").hint("try again"),
        "HOST_STILL_BOOTING" => with(Code::DriverUnreachable, "the host is still starting"),
        "VM_LACKS_FEATURE" | "VM_MISSING_PV_DRIVERS" => with(Code::GuestAgent, "the guest's tools are not there, or not yet")
            .hint("install them in the guest, or end it by force: stop --force"),
        "VM_BAD_POWER_STATE" => {
            let now = failure.param(2).unwrap_or("in another state");
            with(Code::MachineState, &format!("the VM is {}", escape(now)))
        }
        "HANDLE_INVALID" | "UUID_INVALID" if failure.param(0) == Some("VM") => with(Code::MachineBroken, "the pool has no such VM"),
        "SR_FULL" | "SR_BACKEND_FAILURE_44" => with(Code::DiskFull, "the storage repository is full").hint("choose another: --set sr=NAME"),
        "NO_HOSTS_AVAILABLE" | "HOST_NOT_ENOUGH_FREE_MEMORY" => {
            with(Code::DriverFailed, "no host of the pool can run it").hint("free memory, enable a host, or give the VM less")
        }
        "OPERATION_BLOCKED" => {
            with(Code::DriverFailed, &format!("somebody has blocked that: {}", escape(failure.param(1).unwrap_or_default())))
        }
        "OTHER_OPERATION_IN_PROGRESS" => with(Code::DriverFailed, "another operation holds it").hint("try again when that is over"),
        "VM_NO_SUSPEND_SR" => with(Code::DriverFailed, "the pool has no storage for suspended VMs").hint("set the pool's suspend_image_SR"),
        "VM_CANNOT_DELETE_DEFAULT_TEMPLATE" => with(Code::DriverFailed, "it is a template of the product"),
        _ => with(Code::DriverFailed, &format!("the pool refuses: {shown}")),
    };
    error.detail(json!({ "xapi": failure.code, "params": failure.params }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_codes_of_ours_and_keep_theirs() {
        for (words, code, part) in [
            (vec!["VM_BAD_POWER_STATE", "r", "halted", "running"], Code::MachineState, "running"),
            (vec!["HANDLE_INVALID", "VM", "r"], Code::MachineBroken, "no such VM"),
            (vec!["HANDLE_INVALID", "SR", "r"], Code::DriverFailed, "HANDLE_INVALID (SR, r)"),
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
