//! What is known to be refused before it is tried. Pure. XAPI's own `allowed_operations` is advice and may lag behind, so it alone refuses nothing.

use vmoon_core::{Code, Error, Result, name::escape};
use vmoon_xapi::records::Vm;

/// Refuses what somebody has blocked, and what another operation keeps from being done.
pub(super) fn allowed(vm: &Vm, operation: &str, what: &str) -> Result<()> {
    if let Some(why) = vm.blocked_operations.get(operation) {
        let why = if why.is_empty() { "no reason is given".to_owned() } else { escape(why) };
        return Err(Error::new(Code::DriverFailed, format!("{what}: somebody has blocked that: {why}"))
            .hint("lift it with the pool's own tools: VM.remove_from_blocked_operations"));
    }
    let mut others: Vec<String> = vm.current_operations.values().map(|name| escape(name)).collect();
    if !others.is_empty() && !vm.allowed_operations.iter().any(|allowed| allowed == operation) {
        others.sort();
        others.dedup();
        return Err(Error::new(Code::MachineBusy, format!("{what}: another operation holds it: {}", others.join(", ")))
            .hint("try again when that is over"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_blocked_or_held_is_refused_with_its_reason_and_nothing_else_is() {
        let mut vm = Vm::default();
        assert!(allowed(&vm, "start", "start").is_ok(), "that it is not in the list of what is allowed says nothing");
        vm.current_operations.insert("task".into(), "export".into());
        let error = allowed(&vm, "start", "start").unwrap_err();
        assert!(error.code() == Code::MachineBusy && error.to_string().contains("export"), "{error}");
        vm.allowed_operations.push("hard_shutdown".into());
        assert!(allowed(&vm, "hard_shutdown", "end").is_ok(), "what is allowed beside it is tried");
        vm.blocked_operations.insert("start".into(), "ask <ada>\u{1b}".into());
        let error = allowed(&vm, "start", "start").unwrap_err();
        assert!(error.to_string().contains("ask <ada>\\u{1b}"), "{error}");
    }
}
