//! Whether the disk that holds our state has room: without it little can be changed.

use super::Service;
use crate::store::free_in;
use vmoon_core::driver::{Check, Verdict};

/// With less than this, bytes, nothing can be stored but ends.
const NONE: u64 = 1 << 20;
/// With less than this a few machines that print much fill it.
const LITTLE: u64 = 64 << 20;

impl Service {
    /// How much room there is.
    pub(super) fn disk_check(&self) -> Check {
        let state = &self.context.state;
        let requirement = "the disk with vmoon's state has room".to_owned();
        match free_in(state) {
            Ok(free) => judge(requirement, free, &state.to_string_lossy()),
            Err(error) => {
                let finding = format!("{} cannot be looked at: {error}", state.display());
                Check { requirement, verdict: Verdict::Warn, finding, fix: String::new() }
            }
        }
    }
}

fn judge(requirement: String, free: u64, state: &str) -> Check {
    let verdict = match free {
        ..NONE => Verdict::Fail,
        NONE..LITTLE => Verdict::Warn,
        LITTLE.. => Verdict::Ok,
    };
    let size = match free {
        ..NONE => format!("{} KiB", free >> 10),
        NONE.. => format!("{} MiB", free >> 20),
    };
    let fix =
        if verdict == Verdict::Ok { "" } else { "free some space there: until then machines wait, and none can be created or started" };
    Check { requirement, verdict, finding: format!("{size} free in {state}"), fix: fix.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_told() {
        for (free, verdict, said) in [
            (0, Verdict::Fail, "0 KiB"),
            ((1 << 20) - 1, Verdict::Fail, "1023 KiB"),
            (1 << 20, Verdict::Warn, "1 MiB"),
            (1 << 40, Verdict::Ok, "1048576 MiB"),
        ] {
            let check = judge(String::new(), free, "/state");
            assert_eq!((check.verdict, check.finding), (verdict, format!("{said} free in /state")));
            assert_eq!(check.fix.is_empty(), verdict == Verdict::Ok);
        }
    }
}
